"""Scores: truth against itself is perfect, and known differences are found."""

from __future__ import annotations

import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from mlsky import seeds
from mlsky.networks.default import Convergence, Paint, Points
from mlsky.networks.inputs import kappa_lmax
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.weights import Weights
from mlsky.sources import counts
from mlsky.statistics import scores
from mlsky.training import calibrate

N = 128
NORMALISER = Normaliser(
    ("kappa", "ksz", "tsz", "cib"), (None, None, 3.7, 17.0), (0, 0, -0.63, 0.6), (0.08, 2, 0.3, 0.3)
)


def _weights(networks=None, pixel_arcmin=0.5, **header) -> Weights:
    header = {"normaliser": NORMALISER.to_dict(), "pixel_arcmin": pixel_arcmin, **header}
    return Weights(networks or {}, header, Path("w.safetensors"), "0" * 64)


@pytest.fixture
def data(tmp_path):
    """Three regions; the Gaussian start tells which one it is."""
    rng = seeds.generator(3, "truth")
    g = rng.standard_normal((5, 3, N, N)).astype("f4")
    with h5py.File(tmp_path / "test.h5", "w") as file:
        file.attrs["pixel_arcmin"] = 0.5
        file["kappa"] = 0.08 * g[0]
        file["ksz"] = 2 * g[1]
        file["tsz"] = -3 * np.exp(g[0])
        file["cib"] = 20 + 10 * (g[0] + g[2])  # somewhere negative, and counted as zero
        file["radio"] = np.where(g[3] > 2, 100 * g[3], 0).astype("f4")
        file["kappa_in"] = np.arange(3, dtype="f4")[:, None, None] * np.ones((1, N, N), "f4")
    return tmp_path / "test.h5"


def _truth(path, index):
    with h5py.File(path) as file:
        maps = np.stack([file[name][index] for name in scores.FIELDS])
    maps[3] = np.maximum(maps[3], 0)
    return maps


def _perfect(monkeypatch, data, change=lambda maps: maps):
    def generate(weights, kappa, seed, tile):
        assert np.all(kappa == tile)
        return change(_truth(data, tile))

    monkeypatch.setattr(scores, "generate", generate)


def test_truth_against_itself(monkeypatch, data):
    _perfect(monkeypatch, data)
    table = scores.score(_weights(), data)
    assert table["regions"] == 3
    assert table["square_degrees"] == pytest.approx(3 * (N / 120) ** 2, abs=0.05)
    assert table["ell"][0] == [300, 700]
    assert table["ell"][-1] == [6000, 8000]
    for figures in table["power"].values():
        assert set(figures["ratio"]) == {1.0}
        assert set(figures["error"]) == {0.0}
    for pair in (*table["correlation"].values(), *_rows(table["pixels"])):
        assert pair["true"] == pair["generated"]
    assert set(table["pixels"]["radio"]) - set(table["pixels"]["kappa"]) == {
        "N>0.5mJy",
        "N>1mJy",
        "N>2mJy",
    }
    json.dumps(table, allow_nan=False)
    assert scores.score(_weights(), data, regions=2)["regions"] == 2


def _rows(pixels):
    return [row for field in pixels.values() for row in field.values()]


def test_figures_are_what_they_say(monkeypatch, data):
    _perfect(monkeypatch, data)
    table = scores.score(_weights(), data, regions=1)
    kappa, _, tsz, _, radio = _truth(data, 0).astype(np.float64)
    pixels = table["pixels"]
    assert pixels["kappa"]["std"]["true"] == pytest.approx(kappa.std(), rel=1e-3)
    skewness = ((tsz - tsz.mean()) ** 3).mean() / tsz.std() ** 3
    assert pixels["tsz"]["skewness"]["true"] == pytest.approx(skewness, rel=1e-3)
    assert pixels["kappa"]["q99%"]["true"] == pytest.approx(np.quantile(kappa, 0.99), rel=1e-3)
    # 1 mJy on one pixel of 0.5', 123 uK at 148 GHz (386 Jy/sr/uK)
    above = (radio > 1e-3 / 386.2 / math.radians(0.5 / 60) ** 2).sum() / (N / 120) ** 2
    assert pixels["radio"]["N>1mJy"]["true"] == pytest.approx(above, rel=0.02)
    # white noise has one coefficient at all scales, of the clipped map
    r = np.mean(table["correlation"]["kappa x tsz"]["true"][4:])
    wanted = np.corrcoef(kappa.ravel(), np.maximum(tsz, scores.TSZ_CLIP).ravel())[0, 1]
    assert r == pytest.approx(wanted, abs=0.03)  # a few hundred modes
    assert abs(np.corrcoef(kappa.ravel(), tsz.ravel())[0, 1] - wanted) > 0.04


def test_known_differences_are_found(monkeypatch, data):
    def change(maps):
        maps = maps.copy()
        maps[0] *= 2
        maps[1] *= -1
        maps[2, :, :] = maps[2, ::-1]
        return maps

    _perfect(monkeypatch, data, change)
    table = scores.score(_weights(), data)
    np.testing.assert_allclose(table["power"]["kappa"]["ratio"], 4, rtol=1e-4)
    np.testing.assert_allclose(table["power"]["ksz"]["ratio"], 1, rtol=1e-4)
    std = table["pixels"]["kappa"]["std"]
    assert std["generated"] == pytest.approx(2 * std["true"], rel=1e-3)
    pair = table["correlation"]["kappa x tsz"]
    assert np.abs(pair["generated"][3:]).max() < 0.2 < np.abs(pair["true"][3:]).min()


def test_spectra_of_white_noise():
    maps = seeds.generator(1, "truth").standard_normal((2, 256, 256))
    power = scores._spectra(maps, 0.5)
    area = math.radians(0.5 / 60) ** 2
    np.testing.assert_allclose(np.diagonal(power)[3:] / area, 1, atol=0.15)
    assert np.abs(power[0, 1, 3:]).max() < 0.15 * area


def test_generate_with_networks():
    small = {"widths": (4, 4), "noise": (1, 1)}
    networks = {
        "convergence": Convergence(**small),
        "paint": Paint(-0.63, 0.3, **small, velocity_levels=2),
        "points": Points(-3.0),
    }
    kappa = 0.08 * seeds.generator(1, "kappa").standard_normal((64, 64)).astype("f4")
    state = torch.get_rng_state()
    maps, again = (scores.generate(_weights(networks), kappa, 5, 0) for _ in "ab")
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(maps, again)
    assert maps.shape == (5, 64, 64)
    assert maps.dtype == np.float32
    assert maps[2].max() <= 0
    assert maps[3:].min() >= 0
    for other in (
        scores.generate(_weights(networks), kappa, 6, 0),
        scores.generate(_weights(networks), kappa, 5, 1),
    ):
        assert (np.abs(other - maps).max((1, 2)) > 0).all()
    # exp(-3) sources per pixel or so, each at most 7 mJy; half the mean rate, twice as many
    number = (maps[4] > 0).mean()
    assert number == pytest.approx(math.exp(-3), rel=0.5)
    pixel_sr = math.radians(0.5 / 60) ** 2
    mean = counts.radio_density() * pixel_sr
    for factor in (1.0, 2.0):
        weights = _weights(networks, calibration={"radio_mean_rate": mean / factor})
        assert (scores.generate(weights, kappa, 5, 0)[4] > 0).mean() == pytest.approx(
            factor * number, rel=0.3
        )


def test_wrong_sets(data, tmp_path):
    with pytest.raises(ValueError, match=r"pixels of 0.5', the weights want 2.0'"):
        scores.score(_weights(pixel_arcmin=2.0), data)
    with pytest.raises(ValueError, match="regions=0: must be at least 1"):
        scores.score(_weights(), data, regions=0)
    with pytest.raises(ValueError, match="cannot be read as HDF5"):
        scores.score(_weights(), tmp_path / "none.h5")


def test_calibration_finds_a_gain_and_a_rate(monkeypatch, data):
    """Generated kappa of 0.8 of the amplitude of its start, and a rate that is known."""
    with h5py.File(data, "a") as file:
        file["kappa_in"][...] = file["kappa"][...]

    def run(weights, kappa, seed, tile):
        rate = torch.full(kappa.shape, 0.3 if tile % 2 else 0.1)
        made = {"kappa": torch.from_numpy(0.8 * kappa)}
        return made | ({"log_rate": rate.log()} if "points" in weights.networks else {})

    monkeypatch.setattr(calibrate, "run", run)
    found = calibrate.fit_calibration(_weights({"points": Points()}), data, regions=2)
    ell, gain = np.array(found["kappa"]["ell"]), np.array(found["kappa"]["gain"])
    np.testing.assert_allclose(gain[ell > 400], 1 / 0.8, rtol=1e-3)
    assert np.isfinite(gain).all()
    assert ell[-1] < kappa_lmax(0.5)  # the start has nothing beyond
    assert found["radio_mean_rate"] == pytest.approx(0.2, rel=1e-4)
    assert found["regions"] == 2
    assert "radio_mean_rate" not in calibrate.fit_calibration(_weights(), data)
    with pytest.raises(ValueError, match=r"pixels of 0.5', the weights want 2.0'"):
        calibrate.fit_calibration(_weights(pixel_arcmin=2.0), data)


def test_flow_is_balanced(tmp_path):
    """Gains put on the levels of a flow are found and taken off again."""
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
    path = tmp_path / "flow.h5"
    with h5py.File(path, "w") as file:
        file.attrs["pixel_arcmin"] = 0.5
        file["kappa"], file["ksz"] = kappa, np.array(ksz)
    wrong = (1.0, 0.5, 3.0)
    with torch.no_grad():
        for layer, factor in zip(paint.flow, wrong, strict=True):
            layer.weight.mul_(factor)
    gains = calibrate.balance_flow(paint, normaliser, path, regions=regions)
    # few regions: the coarsest level has some hundred modes in them
    np.testing.assert_allclose(gains * wrong, 1, atol=0.25)
