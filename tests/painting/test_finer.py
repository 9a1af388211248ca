"""Maps on finer pixels: smooth fields keep their modes, sources their power."""

from __future__ import annotations

import numpy as np
import pytest

from mlsky import seeds
from mlsky.painting import finer
from mlsky.sphere import charts

#: The filter has seventeen taps; waves of height one, four of them: 7e-3 measured.
FILTER = 1e-2


def _waves(n: int, fine: int) -> np.ndarray:
    """Averages of some plane waves of a box over its pixels, `fine` times as many a side."""
    pixels = n * fine
    x = (np.arange(pixels) + 0.5) / pixels
    highest = 3 * n // 8  # three quarters of the Nyquist wave number
    out = np.zeros((pixels, pixels))
    for ky, kx, phase in ((1, 3, 0.2), (-7, 2, 1.1), (highest, 1 - highest, 2.5), (0, 5, 0.4)):
        window = np.sinc(ky / pixels) * np.sinc(kx / pixels)
        out += window * np.cos(2 * np.pi * (ky * x[:, None] + kx * x[None]) + phase)
    return out.astype("f4")


@pytest.mark.parametrize("n", [64, 67])
def test_smooth_fields_are_averages_over_the_smaller_pixels(n):
    made = finer.interpolate(_waves(n, 1)[None])[0]
    inside = slice(2 * finer.FILTER_RADIUS, -2 * finer.FILTER_RADIUS)
    assert np.abs(made - _waves(n, 2))[inside, inside].max() < FILTER
    # and a mean is a mean
    flat = finer.interpolate(np.ones((40, 40)))
    np.testing.assert_allclose(flat[inside, inside], 1, atol=1e-6)


def test_the_finer_chart_is_the_same_part_of_the_sky():
    (chart, *_) = charts.charts(30.0)
    fine = finer.finer_chart(chart)
    ny, nx = chart.shape
    corners = fine.vectors().reshape(3, ny, 2, nx, 2).mean((2, 4))
    corners /= np.linalg.norm(corners, axis=0)
    apart = corners.reshape(3, -1) - chart.vectors()
    assert np.abs(apart).max() < 0.01 * chart.pixel_rad


def _sources(rng, n: int, density: float) -> np.ndarray:
    """Poisson sources of steep counts and a smooth level, averages over pixels."""
    count = rng.poisson(density * n * n)
    flux = (1 - rng.random(count)) ** (-1 / 2.5)
    y, x = rng.integers(n, size=(2, count))
    out = np.zeros((n, n))
    np.add.at(out, (y, x), flux)
    return out.astype("f4") + 0.2


def test_split_pixels_have_the_power_and_the_values_of_the_truth():
    rng = seeds.generator(1, "truth")
    truth = [_sources(rng, 512, 0.3) for _ in range(4)]
    table = finer.fit_split(truth[:2])
    assert np.all(np.diff(table["value"]) > 0)
    power, values = [], []
    for fine in truth[2:]:
        coarse = fine.reshape(256, 2, 256, 2).mean((1, 3))
        normals = rng.standard_normal((4, 256, 256)).astype("f4")
        (made,) = finer.split([coarse], normals, table)
        np.testing.assert_allclose(made.reshape(256, 2, 256, 2).mean((1, 3)), coarse, rtol=1e-5)
        for maps in (fine, made):
            modes = np.abs(np.fft.rfft2(maps - maps.mean())) ** 2
            power.append([modes[128:384].mean(), modes[:128, :128].mean()])
            values.append(np.quantile(maps, [0.5, 0.9, 0.99, 0.999]))
    power, values = (np.array(x).reshape(2, 2, -1).mean(0) for x in (power, values))
    np.testing.assert_allclose(power[1] / power[0], 1, atol=0.04)  # a few bright sources rule it
    np.testing.assert_allclose(values[1, 1:] / values[0, 1:], 1, atol=0.1)


def test_templates_are_split_alike():
    rng = seeds.generator(2, "truth")
    field = rng.random((16, 16)).astype("f4")
    normals = rng.standard_normal((4, 16, 16)).astype("f4")
    table = {"value": [0.0, 1.0], "width": [0.5, 2.0]}
    one, other = finer.split([field, 3 * field], normals, table)
    np.testing.assert_allclose(other, 3 * one, rtol=1e-6)
    assert (one >= 0).all()
    # nothing is split where the width is nothing
    (flat,) = finer.split([field], normals, {"value": [0.0, 1.0], "width": [0.0, 0.0]})
    np.testing.assert_allclose(flat, field.repeat(2, 0).repeat(2, 1), rtol=1e-6)


def _groups(rng, n: int) -> np.ndarray:
    """Averages over pixels of narrow profiles on a smooth level: the tSZ of groups, positive."""
    place = np.arange(n) + 0.5
    out = np.full((n, n), 0.2)
    for height, y, x in zip(rng.exponential(4, 300), *rng.uniform(0, n, (2, 300)), strict=True):
        width = 0.8
        out += height * np.outer(
            np.exp(-((place - y) ** 2) / (2 * width**2)),
            np.exp(-((place - x) ** 2) / (2 * width**2)),
        )
    return out.astype("f4")


def test_narrow_peaks_neither_ring_nor_change_sign():
    truth = _groups(seeds.generator(3, "truth"), 256)
    coarse = finer.coarser(truth)
    made = finer.interpolate_positive(coarse)
    assert made.min() > 0
    np.testing.assert_allclose(finer.coarser(made), coarse, rtol=1e-4)
    inside = slice(2 * finer.FILTER_RADIUS, -2 * finer.FILTER_RADIUS)
    errors = [(maps - truth)[inside, inside].std() for maps in (made, finer.interpolate(coarse))]
    assert errors[0] < 0.8 * errors[1]
    # what is empty stays so, as beyond the area of a chart
    assert not finer.interpolate_positive(np.zeros((2, 20, 24))).any()
