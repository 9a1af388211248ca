"""Trained runs to one calibrated weight file, in miniature."""

from __future__ import annotations

import functools

import h5py
import numpy as np
import pytest
import torch
from begun_runs import NORMALISER, SMALL, begun_run
from stub_painter import StubPainter

from mlsky import seeds
from mlsky.haloes import painter as halos
from mlsky.networks import weights
from mlsky.networks.default import Convergence, PointSources
from mlsky.networks.normaliser import Normaliser
from mlsky.training import assemble as assembling
from mlsky.training import isotropy
from mlsky.training.assemble import assemble
from mlsky.training.checkpoints import BEST
from mlsky.training.run import save_best


def _set(path, seed, n=192, leave_out=()):
    rng = seeds.generator(seed, "truth")
    g = rng.standard_normal((2, 2, n, n)).astype(np.float32)
    mass = np.exp(g[0])
    fields = {"kappa": 0.05 * (mass - 1.6), "kappa_in": 0.08 * g[0], "ksz": 2 * g[1] * mass}
    fields |= {"tsz": -3 * mass, "cib": 10 * mass, "radio": np.where(g[1] > 2, 300 * mass, 0)}
    with h5py.File(path, "w") as file:
        file.attrs["pixel_arcmin"] = 0.5
        for name in set(fields) - set(leave_out):
            file[name] = fields[name].astype(np.float32)
    return path


@pytest.fixture
def place(tmp_path):
    _set(tmp_path / "train.h5", 1)
    _set(tmp_path / "val.h5", 2)
    begun_run(tmp_path / "c", "convergence-0.5", NORMALISER.select(["kappa"]))
    run = begun_run(tmp_path / "p", "paint-0.5")
    save_best(run, tmp_path / "p", 1, {"distance": 1.5, "step": 7})
    return tmp_path


def _assemble(place, out="w.safetensors", validation="val.h5", **parts):
    parts = {"convergence": place / "c", "paint": place / "p", **parts}
    options = {"device": "two cores", "point_steps": 2}
    return assemble(place / out, parts, place / "train.h5", place / validation, **options)


def test_two_runs_and_what_is_fitted(place):
    found = _assemble(place)
    opened = weights.open_weights(place / "w.safetensors", sha256=found["sha256"])
    assert set(opened.networks) == {"convergence", "paint", "point_sources"}
    header = opened.header
    assert header["calibration"] == found["calibration"]
    gains = ("velocity_kernel_gains", "kernel_gains")
    assert set(header["calibration"]) >= {*gains, "kappa", "cib", "radio_mean_rate"}
    assert header["training"]["paint"]["score"] == {"distance": 1.5, "step": 7}
    assert "score" not in header["training"]["convergence"]
    assert header["sources"] == {}  # not painted
    assert set(header["data"]) == {"train", "validation"}
    assert found["point_sources"]["rate"] == pytest.approx(0.023, rel=0.2)
    assert {p.name for p in place.iterdir()} == {
        *("train.h5", "val.h5", "c", "p", "w.safetensors"),
    }
    # the networks of the file are balanced, once, and then isotropic
    paint = assembling.load_generator(place / "p", "best")[0]
    with torch.no_grad():
        for layer, gain in zip(
            paint.velocity_kernels, header["calibration"]["velocity_kernel_gains"], strict=True
        ):
            layer.weight.mul_(gain)
    isotropy.make_isotropic(paint)
    for layer, made in zip(paint.velocity_kernels, opened["paint"].velocity_kernels, strict=True):
        # gains are told to four digits, weights are of half precision
        torch.testing.assert_close(made.weight, layer.weight, rtol=2e-2, atol=1e-3)


@pytest.fixture
def shipped(place):
    """Weights whose convergence and points are handed on."""
    networks = {"convergence": Convergence(**SMALL), "point_sources": PointSources(-4.0)}
    header = {
        "networks": {
            "convergence": weights.network_header(networks["convergence"], ["kappa_in"], ["kappa"]),
            "point_sources": weights.network_header(
                networks["point_sources"], PointSources.INPUTS, ["log_rate"]
            ),
        },
        "normaliser": NORMALISER.to_dict(),
        "pixel_arcmin": 0.5,
        "calibration": {"kappa": {"ell": [200.0, 9000.0], "gain": [1.0, 1.1]}},
    }
    path = place / "old.safetensors"
    weights.save(path, weights.pack(networks), header)
    return path


def test_networks_of_another_file_and_a_set_without_gaussian_kappa(place, shipped):
    _set(place / "cut.h5", 3, n=128, leave_out=("kappa_in",))
    found = _assemble(place, validation="cut.h5", convergence=shipped, point_sources=shipped)
    assert "point_sources" not in found
    opened = weights.open_weights(place / "w.safetensors")
    assert opened["point_sources"].log_rate == -4.0
    assert set(opened.header["taken_from"]) == {"convergence", "point_sources"}
    assert set(opened.header["calibration"]) == {"kappa"}
    assert opened.header["calibration"]["kappa"]["gain"] == [1.0, 1.1]


def test_brightest_sources_of_painted_truth(place, monkeypatch):
    asked = []
    tail = {"per_sr": 2.0, "flux_mjy": [7.0], "mean_cib_uk": 20.0}
    monkeypatch.setattr(assembling, "dsfg_tail", lambda *args: asked.append(args) or tail)
    monkeypatch.setattr(halos, "Painter", lambda pixel, n, objects=None: StubPainter(n, pixel))
    with h5py.File(place / "train.h5", "a") as file:
        file.attrs.update({"seed": 5, "source": '{"cosmology": {}}'})
    _assemble(place)
    ((painter, regions, seed),) = asked
    assert (painter.pixel_arcmin, painter.n, regions, seed) == (0.5, 192, 2, 5)
    header = weights.read_header(place / "w.safetensors")
    assert header["sources"] == {"dsfg": tail}


def test_what_a_file_without_clusters_says_of_itself(place, monkeypatch):
    """Its part and mass cut, its templates, and how its pixels are split, from finer truth."""
    channels = ("kappa", "objects_kappa", "objects_tsz", "ksz", "tsz", "cib", "cib_353", "cib_857")
    n = len(channels)
    normaliser = Normaliser(channels, (None,) * n, (0.0,) * n, (1.0,) * n)
    source = '{"cosmology": {}, "preset": "planck", "parameters": {"cib_beta": 1.8}}'
    with h5py.File(place / "train.h5", "a") as file:
        file.attrs.update({"seed": 5, "source": source, "mass_cut": 2e14})
    tell = functools.partial(assembling._part_painted, place / "train.h5")
    told = tell({"mass_cut": 2e14}, normaliser, True)
    assert told == {
        **{"part": "rest", "mass_cut": 2e14},
        "cib_templates": {"ghz": [148.0, 353.0, 857.0], "preset": "planck"},
        "truth": {"preset": "planck", "parameters": {"cib_beta": 1.8}},
    }
    with pytest.raises(
        ValueError, match=r"objects above 2e\+14 Msun .* above 1e\+14 in that of val"
    ):
        tell({"mass_cut": 1e14}, normaliser, True)
    asked = []

    def painter(pixel, side, objects=None):
        asked.append((pixel, side, objects))
        return StubPainter(side, pixel)

    monkeypatch.setattr(halos, "Painter", painter)
    monkeypatch.setattr(assembling, "SPLIT_REGIONS", 2)
    table = assembling._split(place / "train.h5", 1.0)["split"]
    assert asked == [(0.5, 192, 2e14)]
    assert len(table["value"]) == len(table["width"]) > 3
    assert min(table["width"]) >= 0


def test_parts_that_do_not_fit(place, shipped):
    other = Normaliser(NORMALISER.channels, (None, None, 1.0, 1.0), (0,) * 4, (1,) * 4)
    begun_run(place / "p2", "paint-0.5", other)
    bad = functools.partial(pytest.raises, ValueError)
    with bad(match="parts=convergence, paint, radio: must be convergence, paint and"):
        _assemble(place, radio=place / "c")
    with bad(match="paint must be a run folder, point_sources a weight file"):
        _assemble(place, paint=shipped)
    with bad(match=r"convergence=.*old.safetensors: has other pixels or another normaliser"):
        _assemble(place, convergence=shipped, paint=place / "p2")
    with bad(match="the same sky is trained on"):
        _assemble(place, validation="train.h5")
    assert not (place / "w.safetensors").exists()
    assert (place / "p" / BEST).exists()
