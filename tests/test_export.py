"""Runs to one weight file: what belongs together, and what the file says of itself."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch

from mlsky.networks import weights
from mlsky.networks.default import Points
from mlsky.networks.normaliser import Normaliser
from mlsky.training import run as runs
from mlsky.training.export import export, file_hash
from mlsky.training.recipes import Recipe, recipe

NORMALISER = Normaliser(
    ("kappa", "ksz", "tsz", "cib"), (None, None, 3.7, 17.0), (0, 0, -0.63, 0.6), (0.08, 2, 0.3, 0.3)
)
SMALL = {"widths": (4, 4), "noise": (1, 1)}


def _run(folder, name, normaliser=NORMALISER, **changes):
    """A run that has not begun, as a checkpoint."""
    options = {**SMALL, "velocity_levels": 2} if "paint" in name else dict(SMALL)
    if name in ("dcgan", "pixgan"):
        options = {"width": 1}
    critic = {"width": 1} if "gan" in name else recipe(name).critic_options
    fields = recipe(name).to_dict() | {"generator_options": options, "critic_options": critic}
    run = runs.new_run(Recipe(**fields | changes), normaliser, 1, torch.device("cpu"))
    with torch.no_grad():  # so that the average can be told from the generator
        for p in run.averaged.parameters():
            p.add_(0.01)
    run.step, run.seconds = 7, 12.4
    folder.mkdir()
    runs.save_checkpoint(run, folder, 1)
    return run


def test_a_file_of_two_runs(tmp_path):
    kappa_only = NORMALISER.select(["kappa"])
    first = _run(tmp_path / "c", "convergence-0.5", kappa_only)
    second = _run(tmp_path / "p", "paint-0.5")
    (tmp_path / "train.h5").write_bytes(b"truth")
    digest = export(
        tmp_path / "w.safetensors",
        {"convergence": tmp_path / "c", "paint": tmp_path / "p"},
        data={"train": file_hash(tmp_path / "train.h5")},
        device="two cores",
        extra={"points": (Points(-4.0), ["kappa", "tsz", "cib"], ["log_rate"])},
        calibration={"radio_rate": 1.1},
    )
    assert digest == file_hash(tmp_path / "w.safetensors")
    opened = weights.open_weights(tmp_path / "w.safetensors", sha256=digest)
    assert set(opened.networks) == {"convergence", "paint", "points"}
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
    assert opened["points"].log_rate == -4.0
    for name, run in (("convergence", first), ("paint", second)):
        for a, b in zip(opened[name].parameters(), run.averaged.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)  # half precision


def test_other_pixels_or_another_normaliser_are_refused(tmp_path):
    _run(tmp_path / "p", "paint-0.5")
    _run(tmp_path / "coarse", "convergence-0.5", pixel_arcmin=2.0)
    other = Normaliser(("kappa",), (None,), (0,), (0.09,))
    _run(tmp_path / "other", "convergence-0.5", other)
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
    run = _run(tmp_path / "d", "dcgan", five)
    assert math.isinf(run.recipe.clip)
    export(tmp_path / "w.safetensors", {"dcgan": tmp_path / "d"}, data={}, device="cpu")
    header = weights.read_header(tmp_path / "w.safetensors")
    assert header["recipe"]["dcgan"]["clip"] is None
    assert header["recipe"]["dcgan"]["batch"] == 32
