"""Scores of weights: sets and painted regions, jobs, calibration, checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import random_regions
import torch

from mlsky import seeds
from mlsky.haloes import painter
from mlsky.networks.default import Convergence, Paint, PointSources
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.weights import Weights
from mlsky.sphere.resolution import kappa_lmax
from mlsky.training import calibrate
from mlsky.validation import scores

N = random_regions.N
SMALL = {"widths": (4, 4), "noise": (1, 1)}
NORMALISER = Normaliser(
    ("kappa", "ksz", "tsz", "cib"), (None, None, 3.7, 17.0), (0, 0, -0.63, 0.6), (0.08, 2, 0.3, 0.3)
)


def _networks():
    return {
        "convergence": Convergence(**SMALL).eval(),
        "paint": Paint(-0.63, 0.3, **SMALL, velocity_levels=2).eval(),
        "point_sources": PointSources(-3.0).eval(),
    }


def _weights(networks=None, pixel_arcmin=0.5, **header) -> Weights:
    header = {"normaliser": NORMALISER.to_dict(), "pixel_arcmin": pixel_arcmin, **header}
    networks = _networks() if networks is None else networks
    return Weights(networks, header, Path("w.safetensors"), "0" * 64)


@pytest.fixture
def data(tmp_path):
    """Three regions; the Gaussian start tells which one it is."""
    maps = np.stack([random_regions.maps(i) for i in range(3)], 1)
    maps[3] -= 8  # somewhere negative, and counted as zero
    with h5py.File(tmp_path / "test.h5", "w") as file:
        file.attrs["pixel_arcmin"] = 0.5
        for name, m in zip(scores.FIELDS, maps, strict=True):
            file[name] = m
        file["kappa_in"] = np.arange(3, dtype="f4")[:, None, None] * np.ones((1, N, N), "f4")
    return tmp_path / "test.h5"


def _truth(path, index):
    with h5py.File(path) as file:
        maps = np.stack([file[name][index] for name in scores.FIELDS])
    maps[3] = np.maximum(maps[3], 0)
    return maps


def _perfect(monkeypatch, data, change=lambda maps: maps):
    """Networks that give back the truth, or something changed of it."""

    def generate(weights, kappa, seed, tile, periodic, objects, templates):
        truth = _truth(data, tile)
        assert np.all(kappa == tile) or np.all(kappa == truth[0])
        assert periodic
        assert objects is None
        return change(truth)

    monkeypatch.setattr(scores, "generate", generate)


def test_truth_against_itself(monkeypatch, data):
    _perfect(monkeypatch, data)
    found = scores.score(_weights(), data)
    assert found["regions"] == 3
    assert found["square_degrees"] == pytest.approx(3 * (N / 120) ** 2, abs=0.05)
    assert set(found["totals"]) == {"from_kappa", "end_to_end", "all"}
    for total in found["totals"].values():
        assert total["failed"] == 0
        assert total["distance"] < 0.1
    assert {row["job"] for row in found["scores"]} == {"from_kappa", "end_to_end"}
    assert {row["calibration"] for row in found["scores"]} == {"after"}
    for row in found["scores"]:
        assert row["value"] == pytest.approx(0, abs=1e-12) or "ksz" in row["fields"]
    json.dumps(found, allow_nan=False)
    brief = scores.summary(found)
    assert brief["totals"] == found["totals"]
    assert len(brief["from_kappa"]) + len(brief["end_to_end"]) == len(found["scores"])
    assert set(brief["end_to_end"]["edge cib"]) == {"value", "error", "tolerance", "pass"}
    assert len(json.dumps(brief)) < 20_000
    assert scores.score(_weights(), data, regions=2, jobs=("end_to_end",))["regions"] == 2


def test_known_differences_are_found(monkeypatch, data):
    _perfect(monkeypatch, data, lambda maps: maps * np.array([2, -1, 1, 1, 1])[:, None, None])
    found = scores.score(_weights(), data, jobs=("end_to_end",), fields=("kappa", "ksz", "tsz"))
    rows = {row["name"]: row for row in found["scores"]}
    assert rows["power l 700-8000 kappa"]["value"] == pytest.approx(3, rel=1e-3)
    assert rows["power l 700-8000 kappa"]["pass"] is False
    assert rows["power l 700-8000 ksz"]["pass"] is True
    assert not [name for name in rows if "cib" in name or "radio" in name]


def test_compare_is_for_any_maps(data):
    pairs = [(_truth(data, i), _truth(data, (i + 1) % 3)) for i in range(3)]
    rows = scores.compare(pairs, 0.5)
    # the same maps in another order: nothing differs but by chance, and errors know of it
    for row in rows:
        if row["statistic"] in ("power", "quantiles", "counts"):
            assert row["value"] == pytest.approx(0, abs=1e-9)
            assert row["pass"] is not False
    assert max(row["error"] for row in rows if row["statistic"] == "power") > 0
    with pytest.raises(ValueError, match="there are none"):
        scores.compare([], 0.5)


def test_networks_before_and_after_calibration(data):
    """With both jobs; the kappa that the networks are given is not calibrated."""
    calibration = {"kappa": {"ell": [100, 9000], "gain": [3.0, 3.0]}, "radio_mean_rate": 1e-4}
    weights = _weights(calibration=calibration)
    found = scores.score(weights, data, regions=2, before=True)
    assert set(found["totals"]) == {
        "from_kappa",
        "end_to_end",
        "all",
        "from_kappa before",
        "end_to_end before",
    }
    rows = {(r["job"], r["calibration"], r["name"]): r for r in found["scores"]}
    name = "power l 300-700 radio"
    for job in scores.JOBS:
        ratio = rows[job, "after", name]["generated"] / rows[job, "before", name]["generated"]
        assert abs(ratio - 1) > 0.3
    assert rows["from_kappa", "after", "correlation kappa x ksz"]["pass"] is not False
    again = scores.score(weights, data, regions=2, before=True)
    assert again["scores"] == found["scores"]
    assert scores.score(weights, data, regions=2, seed=1)["scores"] != found["scores"]


def test_painted_regions(monkeypatch):
    """Without a set, those of a seed of their own."""
    asked = []

    class Painter:
        def __init__(self, pixel_arcmin, n, device, freqs, objects):
            assert objects is None  # these weights paint all
            assert freqs == ()
            asked.append((pixel_arcmin, n, device))

        def region(self, seed, index):
            asked.append((seed, index))
            kappa, *rest = torch.from_numpy(random_regions.maps(index))
            maps = torch.stack([kappa, 0.1 * kappa, *rest])
            return SimpleNamespace(maps=maps, cib=(), objects=None)

        def gaussian_kappa(self, kappa_g):
            return 10 * kappa_g

    monkeypatch.setattr(painter, "Painter", Painter)
    monkeypatch.setitem(scores.SIDES, 0.5, N)

    def generate(weights, kappa, seed, tile, periodic, objects, templates):
        np.testing.assert_allclose(kappa, random_regions.maps(tile)[0], rtol=1e-5)
        return random_regions.maps(tile)

    monkeypatch.setattr(scores, "generate", generate)
    found = scores.score(_weights(), regions=2)
    assert asked == [(0.5, N, "cpu"), (seeds.VALIDATION, 0), (seeds.VALIDATION, 1)]
    assert seeds.VALIDATION not in (1, 2, 3)  # of the sets in docs/training.rst
    assert found["totals"]["end_to_end"]["failed"] == 0


def test_checkpoints(data):
    """Of one network, of two, of all; a better one has the smaller distance."""
    networks = _networks()
    of_kappa = Normaliser(("kappa",), (None,), (0,), (0.08,))
    state = torch.get_rng_state()
    alone = scores.checkpoint({"convergence": networks["convergence"]}, of_kappa, data, regions=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert 0 < alone["rows"] < 20
    part = scores.checkpoint({"paint": networks["paint"]}, NORMALISER, data, regions=2)
    whole = scores.checkpoint(networks, NORMALISER, data, regions=2)
    assert alone["rows"] < part["rows"] < whole["rows"]
    assert whole["distance"] > 1  # they have learnt nothing
    with torch.no_grad():
        networks["paint"].backbone.head.weight *= 30
    worse = scores.checkpoint({"paint": networks["paint"]}, NORMALISER, data, regions=2)
    assert worse["distance"] > part["distance"]


def test_wrong_sets(data, tmp_path):
    with pytest.raises(ValueError, match=r"pixels of 0.5', the weights want 2.0'"):
        scores.score(_weights(pixel_arcmin=2.0), data)
    with pytest.raises(ValueError, match="regions=0: must be at least 1"):
        scores.score(_weights(), data, regions=0)
    with pytest.raises(ValueError, match="must be some of from_kappa, end_to_end"):
        scores.score(_weights(), data, jobs=("sing",))
    with pytest.raises(ValueError, match="cannot be read as HDF5"):
        scores.score(_weights(), tmp_path / "none.h5")
    with h5py.File(data, "a") as file:
        del file["kappa_in"]
    with pytest.raises(ValueError, match="lacks kappa_in"):
        scores.score(_weights(), data)


def test_calibration_finds_a_gain_and_a_rate(monkeypatch, data):
    """Generated kappa of 0.8 of the amplitude of its start, and a rate that is known."""
    with h5py.File(data, "a") as file:
        file["kappa_in"][...] = file["kappa"][...]

    def run(weights, kappa, seed, tile, periodic=False, objects=None):
        rate = torch.full(kappa.shape, 0.3 if tile % 2 else 0.1)
        made = {"kappa": torch.from_numpy(0.8 * kappa), "cib": torch.from_numpy(20 + kappa)}
        return made | ({"log_rate": rate.log()} if "point_sources" in weights.networks else {})

    monkeypatch.setattr(calibrate, "run", run)
    found = calibrate.fit_calibration(_weights({"point_sources": PointSources()}), data, regions=2)
    ell, gain = np.array(found["kappa"]["ell"]), np.array(found["kappa"]["gain"])
    np.testing.assert_allclose(gain[ell > 400], 1 / 0.8, rtol=1e-3)
    assert np.isfinite(gain).all()
    assert ell[-1] < kappa_lmax(0.5)  # the start has nothing beyond
    assert found["radio_mean_rate"] == pytest.approx(0.2, rel=1e-4)
    assert found["regions"] == 2
    assert "radio_mean_rate" not in calibrate.fit_calibration(_weights({}), data)
    with pytest.raises(ValueError, match=r"pixels of 0.5', the weights want 2.0'"):
        calibrate.fit_calibration(_weights(pixel_arcmin=2.0), data)


def test_velocities_are_balanced(tmp_path):
    """Gains put on the levels of a velocity field are found and taken off again."""
    paint = Paint(
        -0.26, 0.29, widths=(4, 4, 4), noise=(1, 1, 1), velocities=2, velocity_levels=3, seed=1
    )
    normaliser = Normaliser(("kappa", "ksz"), (None, None), (0, 0), (0.1, 2.0))
    n, regions = 128, 3
    kappa = 0.1 * seeds.generator(2, "kappa").standard_normal((regions, n, n)).astype("f4")
    ksz = []
    for i in range(regions):
        noise = paint.draw_noise(1, n, n, torch.Generator().manual_seed(i))
        with torch.no_grad():
            made = paint(torch.from_numpy(kappa[i : i + 1, None] / 0.1), noise)
        ksz.append(2.0 * made[0, 0].numpy())
    path = tmp_path / "velocities.h5"
    with h5py.File(path, "w") as file:
        file.attrs["pixel_arcmin"] = 0.5
        file["kappa"], file["ksz"] = kappa, np.array(ksz)
    wrong = (1.0, 0.5, 3.0)
    with torch.no_grad():
        for layer, factor in zip(paint.velocity_kernels, wrong, strict=True):
            layer.weight.mul_(factor)
    gains = calibrate.balance_velocities(paint, normaliser, path, regions=regions)
    # few regions: the coarsest level has some hundred modes in them
    np.testing.assert_allclose(gains * wrong, 1, atol=0.25)
