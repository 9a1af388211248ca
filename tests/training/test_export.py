"""Runs to one weight file: what belongs together, and what the file says of itself."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from begun_runs import NORMALISER, begun_run

from mlsky.networks import weights
from mlsky.networks.default import PointSources
from mlsky.networks.normaliser import Normaliser
from mlsky.training.export import export, file_hash


def test_a_file_of_two_runs(tmp_path):
    kappa_only = NORMALISER.select(["kappa"])
    first = begun_run(tmp_path / "c", "convergence-0.5", kappa_only)
    second = begun_run(tmp_path / "p", "paint-0.5")
    (tmp_path / "train.h5").write_bytes(b"truth")
    digest = export(
        tmp_path / "w.safetensors",
        {"convergence": tmp_path / "c", "paint": tmp_path / "p"},
        data={"train": file_hash(tmp_path / "train.h5")},
        device="two cores",
        extra={"point_sources": (PointSources(-4.0), ["kappa", "tsz", "cib"], ["log_rate"])},
        calibration={"radio_rate": 1.1},
    )
    assert digest == file_hash(tmp_path / "w.safetensors")
    opened = weights.open_weights(tmp_path / "w.safetensors", sha256=digest)
    assert set(opened.networks) == {"convergence", "paint", "point_sources"}
    assert opened.normaliser == NORMALISER
    assert opened.pixel_arcmin == 0.5
    header = opened.header
    assert header["networks"]["paint"]["architecture"] == "default:Paint"
    assert header["networks"]["paint"]["inputs"] == ["kappa"]
    assert header["networks"]["paint"]["outputs"] == ["ksz", "tsz", "cib"]
    assert header["networks"]["convergence"]["inputs"] == ["kappa_in"]
    assert header["recipe"]["paint"]["name"] == "paint-0.5"
    assert header["training"]["paint"] == {
        "steps": 7,
        "seconds": 12,
        "device": "two cores",
        "seed": 1,
    }
    assert header["data"] == {"train": hashlib.sha256(b"truth").hexdigest()}
    assert header["calibration"] == {"radio_rate": 1.1}
    assert opened["point_sources"].log_rate == -4.0
    for name, run in (("convergence", first), ("paint", second)):
        for a, b in zip(opened[name].parameters(), run.averaged.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)  # half precision


def test_other_pixels_or_another_normaliser_are_refused(tmp_path):
    begun_run(tmp_path / "p", "paint-0.5")
    begun_run(tmp_path / "coarse", "convergence-0.5", pixel_arcmin=2.0)
    other = Normaliser(("kappa",), (None,), (0,), (0.09,))
    begun_run(tmp_path / "other", "convergence-0.5", other)
    for folder in ("coarse", "other"):
        runs = {"paint": tmp_path / "p", "convergence": tmp_path / folder}
        with pytest.raises(ValueError, match=f"{folder}: has other pixels or another normaliser"):
            export(tmp_path / "w.safetensors", runs, data={}, device="cpu")
    assert not (tmp_path / "w.safetensors").exists()
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        export(tmp_path / "w.safetensors", {"paint": tmp_path / "none"}, data={}, device="cpu")


def test_a_recipe_without_a_limit_is_plain_json(tmp_path):
    """The paper clips no gradient: infinity in the recipe, null in the file."""
    five = Normaliser(("kappa", "ksz", "tsz", "cib", "radio"), (None,) * 5, (0,) * 5, (1,) * 5)
    run = begun_run(tmp_path / "d", "dcgan", five)
    assert math.isinf(run.recipe.clip)
    export(tmp_path / "w.safetensors", {"dcgan": tmp_path / "d"}, data={}, device="cpu")
    header = weights.read_header(tmp_path / "w.safetensors")
    assert header["recipe"]["dcgan"]["clip"] is None
    assert header["recipe"]["dcgan"]["batch"] == 32
