"""Levels of kSZ's velocities: independent, and with gains that bring a sky to the model."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import PIXEL_ARCMIN, coarse_weights

from mlsky.networks.weights import open_weights
from mlsky.painting import large_scales, regions
from mlsky.statistics.bandpower import Spectra
from mlsky.training import velocity_gains

N = 128
#: kSZ is bounded by 15 tanh(x / 15), which untrained networks, of a large rms, come near.
BOUND = 0.02


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return open_weights(coarse_weights(tmp_path_factory.mktemp("levels") / "w.safetensors"))


def start(number: int):
    rng = np.random.Generator(np.random.Philox(number))
    return rng.normal(0, 0.1, (N, N)).astype(np.float32), None


def made(weights, gains=None):
    if gains is not None:
        weights = velocity_gains.with_gains(weights, gains)
    return regions.run(weights, start(1)[0], 2, 1, periodic=True)


def test_gains_are_of_ksz_alone(weights):
    plain, half, none = made(weights), made(weights, [0.5] * 3), made(weights, [0.0] * 3)
    for name in ("kappa", "tsz", "cib"):
        np.testing.assert_array_equal(half[name], plain[name])
    one, two = (m["ksz"].numpy().ravel() for m in (plain, half))
    assert np.corrcoef(one, two)[0, 1] > 1 - BOUND
    assert 0.5 < two.std() / one.std() < 0.5 * (1 + 5 * BOUND)
    np.testing.assert_array_equal(none["ksz"], 0)


def test_power_is_a_sum_over_levels(weights):
    lmax = 400
    edges = np.array([50.0, 150.0, lmax])
    parts = velocity_gains.level_spectra(weights, start, edges, N, 3, 2)
    assert parts.shape == (3, 2)
    flat = Spectra(N, PIXEL_ARCMIN, edges.tolist())
    whole = 0.0
    for number in range(3):
        ksz = regions.run(weights, start(number)[0], 2, number, periodic=True)["ksz"]
        whole += flat.power(flat.modes(ksz.numpy()[np.newaxis]))[0, 0] / 3
    # some thousand modes of each of three regions, by the products of levels
    np.testing.assert_allclose(parts.sum(0), whole, rtol=0.1)


def test_too_strong_a_level_is_weakened():
    edges = np.geomspace(330, 3000, 8)
    ell = np.sqrt(edges[1:] * edges[:-1])
    model = np.array([ell**0, (800 / ell) ** 2, (700 / ell) ** 5])
    truth = model.sum(0)
    gains = velocity_gains.fit_gains(truth, truth, model, ell)
    np.testing.assert_allclose(gains, 1, atol=1e-3)
    strong = model * [[1.0], [1.0], [1.2]]
    sky = strong.sum(0)
    assert sky[0] / truth[0] > 1.1
    gains = velocity_gains.fit_gains(sky, truth, strong, ell)
    factor = velocity_gains.change(gains, strong, ell, edges)
    np.testing.assert_allclose(sky * factor, truth, rtol=velocity_gains.TOLERANCE)
    assert velocity_gains.change(gains, strong, np.array([10.0]), edges) == factor[0]


def test_what_is_missing_on_large_scales_is_left_to_be_added():
    ell = np.array([100.0, 200.0, 400.0, 800.0])
    parts = np.array([ell**0, (200 / ell) ** 4])
    sky = parts.sum(0)
    lacking = np.where(ell < large_scales.JOIN[0], 2 * sky, sky)
    np.testing.assert_allclose(velocity_gains.fit_gains(sky, lacking, parts, ell), 1, atol=1e-3)
    strong = np.where(ell < large_scales.JOIN[0], 0.8 * sky, sky)
    assert velocity_gains.fit_gains(sky, strong, parts, ell)[1] < 0.95


def test_bands_hold_modes_of_a_region():
    assert velocity_gains.edges(600, 512) is None
    edges = velocity_gains.edges(3072, 512)
    assert 100 < edges[0] < 110
    assert edges[-1] == pytest.approx(3072)
    assert np.diff(edges).min() > 21600 / 512
    assert len(velocity_gains.edges(20_000, 5120)) == velocity_gains.BANDS + 1


def test_bands_beyond_a_coarse_sky_hold_the_finest_levels():
    edges = velocity_gains.edges(768, 1024)
    more = velocity_gains.beyond(edges, 2.0)
    np.testing.assert_array_equal(more[: len(edges)], edges)
    assert more[-1] == pytest.approx(velocity_gains.FINEST * 5400)
    assert np.diff(np.log(more)).max() <= np.diff(np.log(edges))[-1] * (1 + 1e-9)
    np.testing.assert_array_equal(velocity_gains.beyond(more, 2.0), more)
    # a coarse level too strong: on the sky alone the finest one would pay for it
    ell = np.sqrt(more[1:] * more[:-1])
    parts = np.array([ell**0, 3 * (800 / ell) ** 2])
    truth, strong = parts.sum(0), parts * [[1.0], [1.1]]
    gains = velocity_gains.fit_gains(strong.sum(0), truth, strong, ell)
    assert gains[0] == pytest.approx(1, abs=velocity_gains.TOLERANCE)
