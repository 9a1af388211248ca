"""Images of blobs by seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import kstest

from mlsky.toys import blobs

IMAGES = 300
#: A test of uniformity with fixed seeds: one in a thousand would fail by chance.
P_VALUE = 1e-3
#: Standard errors.
SIGMAS = 4.0


@pytest.mark.parametrize("count", blobs.BLOBS)
def test_images_are_sums_of_gaussians(count):
    kind = blobs.kind(count)
    image = blobs.sample(count, 1, 3)
    assert image.shape == (1, 1, 128, 128)
    assert image.dtype == np.float32
    y, x = np.indices((128, 128))
    direct = np.zeros((128, 128))
    for row, column, height in blobs.table(count, 3):
        direct += height * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * kind.sigma**2))
    if kind.scaled:
        direct /= direct.max()
        assert image.max() == 1
    np.testing.assert_allclose(image[0, 0], direct, atol=2e-7 * direct.max(), rtol=2e-6)


def test_an_image_of_a_seed_is_always_the_same():
    many = blobs.sample(10, 5, 7)
    np.testing.assert_array_equal(many[3:], blobs.sample(10, 2, 7, first=3))
    assert not np.array_equal(many, blobs.sample(10, 5, 8))
    assert not np.array_equal(many[0], many[1])


def test_centres_are_uniform_and_heights_folded():
    rows = np.concatenate([blobs.table(50, 1, i) for i in range(IMAGES)])
    for axis in (0, 1):
        assert kstest((rows[:, axis] + 0.5) / 128, "uniform").pvalue > P_VALUE
    assert (rows[:, 2] == 1).all()
    heights = np.concatenate([blobs.table(1000, 1, i)[:, 2] for i in range(10)])
    t = blobs.THRESHOLD
    tail = math.erfc(t / math.sqrt(2))
    assert heights.min() >= t
    folded = kstest(heights, lambda h: 1 - np.vectorize(math.erfc)(h / math.sqrt(2)) / tail)
    assert folded.pvalue > P_VALUE


def test_power_is_that_of_a_point_process_and_its_beam():
    """Campbell's theorem: a pixel's mean is n <a> times the beam's sum, its variance n <a^2> its
    square's. Counts are fixed, which takes mean^2 / count off the variance."""
    x = blobs.sample(1000, 60, 2)[:, 0, 32:96, 32:96]
    density, sigma = 1000 / 128**2, blobs.SIGMA
    t = blobs.THRESHOLD
    tail = math.erfc(t / math.sqrt(2))
    first = math.sqrt(2 / math.pi) * math.exp(-(t**2) / 2) / tail
    second = 1 + t * first
    mean = density * first * 2 * math.pi * sigma**2
    variance = density * second * math.pi * sigma**2 - mean**2 / 1000
    scatter = x.mean((1, 2)).std() / math.sqrt(60)
    assert abs(x.mean() - mean) < SIGMAS * scatter
    each = x.var((0,)).reshape(8, 8, 8, 8).mean((1, 3))
    assert abs(each.mean() - variance) < SIGMAS * each.std() / 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, r"count=0: must be an integer >= 1"),
        ({"count": 1, "sigma": 0.0}, r"sigma=0.0: must be a number of pixels > 0"),
        ({"count": 1, "threshold": 9.0}, r"threshold=9.0: must be in 0 to 4"),
        ({"count": 1, "size": -4}, r"size=-4: must be"),
    ],
)
def test_bad_kinds(change, message):
    with pytest.raises(ValueError, match=message):
        blobs.Blobs(**change)


def test_bad_samples():
    with pytest.raises(ValueError, match=r"blobs=7: must be one of 1, 10, 50, 1000"):
        blobs.sample(7, 1, 1)
    with pytest.raises(ValueError, match=r"n=0: must be an integer >= 1"):
        blobs.sample(1, 0, 1)
    with pytest.raises(ValueError, match=r"seed=-1"):
        blobs.sample(1, 1, -1)
