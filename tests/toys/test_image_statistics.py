"""Pixels, marginal sums and Fourier power of images."""

from __future__ import annotations

import numpy as np
import pytest

from mlsky import seeds
from mlsky.statistics.streaming import Averages
from mlsky.toys import blobs, image_statistics

#: Agreement with another way to compute the same; the bins' edges are rounded differently.
AGREE = 1e-3
#: The pixels of a Gaussian of 3 pixels sum as its integral does, to far below this.
EXACT = 1e-6


def _noise(n, size=32):
    return seeds.generator(1, "truth").standard_normal((n, size, size))


def test_histogram_is_numpys():
    x = blobs.sample(50, 16, 1)
    pixels = image_statistics.Pixels(0, 4, 100)
    for part in np.array_split(x, 3):
        pixels.update(part)
    want, edges = np.histogram(x.astype(float), 100, (0, 4), density=True)
    np.testing.assert_allclose(pixels.compute(), want, rtol=AGREE, atol=AGREE)
    np.testing.assert_array_equal(pixels.edges, edges)
    assert pixels.range == (x.min(), x.max())
    assert pixels.images == 16


def test_quantiles_are_numpys():
    x = _noise(30)
    pixels = image_statistics.Pixels(-6, 6, 12000)
    pixels.update(x)
    fraction = [0.01, 0.3, 0.5, 0.99, 0.999]
    np.testing.assert_allclose(pixels.quantile(fraction), np.quantile(x, fraction), atol=2e-3)


def test_marginals_of_one_blob():
    kind = blobs.Blobs(1)
    x = np.stack([blobs.render(np.array([[60.3, 50.8, 2.0]]), 3.0, 128)] * 2)
    sums = image_statistics.marginals(x)
    assert sums.shape == (2, 2, 128)
    place = np.arange(128)
    root = np.sqrt(2 * np.pi) * kind.sigma
    for axis, centre in ((0, 60.3), (1, 50.8)):
        want = 2 * root * np.exp(-((place - centre) ** 2) / 18)
        np.testing.assert_allclose(sums[0, axis], want, atol=EXACT)


def test_power_is_that_of_the_modes_ring_by_ring():
    x = _noise(3)
    k, power = image_statistics.rings(32)[0], image_statistics.power(x)
    assert power.shape == (3, 17)
    modes = np.abs(np.fft.fft2(x)) ** 2 / 32**2
    ky, kx = np.meshgrid(np.fft.fftfreq(32, 1 / 32), np.fft.fftfreq(32, 1 / 32), indexing="ij")
    for i, wave in enumerate(k):
        inside = np.abs(np.hypot(ky, kx) - wave) < 0.5
        np.testing.assert_allclose(power[:, i], modes[:, inside].mean(1), rtol=AGREE)
    # unitary: white noise of unit variance has power one
    np.testing.assert_allclose(np.abs(image_statistics.fourier(x)).__pow__(2).sum(), (x**2).sum())


def test_power_of_a_blob_is_the_gaussian_it_must_be():
    x = blobs.render(np.array([[64.0, 64.0, 1.0]]), 3.0, 128)
    modes = np.abs(image_statistics.fourier(x)[0]) ** 2
    k = 2 * np.pi * np.hypot(*np.indices((128, 128)) - 64.0) / 128
    want = (2 * np.pi * 9) ** 2 * np.exp(-(k**2) * 9) / 128**2
    np.testing.assert_allclose(modes, want, rtol=AGREE, atol=1e-9 * want.max())


def test_they_stream():
    x = _noise(10)
    whole = Averages(lambda maps: {"power": image_statistics.power(maps)})
    for area, part in enumerate(np.array_split(x, 4)):
        whole.update(part, area)
    value, error = whole.compute()
    np.testing.assert_allclose(value, image_statistics.power(x).mean(0))
    assert (error > 0).all()


def test_images_are_near_to_true_ones():
    """Against a tree, and what is near by construction."""
    from scipy.spatial import cKDTree

    true, made = _noise(60, 8)[:40], 0.9 * _noise(60, 8)[40:]
    tree = cKDTree(true.reshape(40, -1))
    limit = np.quantile(tree.query(true.reshape(40, -1), 2)[0][:, 1], 0.7)
    want = (tree.query(made.reshape(20, -1))[0] <= limit).mean()
    assert 0 < want < 1
    assert image_statistics.near(made, true, 0.7) == pytest.approx(want)
    assert image_statistics.near(true, true) == 1
    assert image_statistics.near(true + 100, true) == 0
    for bad in (0, 1.1, np.nan):
        with pytest.raises(ValueError, match="must be in 0 to 1"):
            image_statistics.near(made, true, bad)
    with pytest.raises(ValueError, match="must be images of one size"):
        image_statistics.near(made, true[:, :4, :4])
    with pytest.raises(ValueError, match="1 patches: a statistic of true needs at least 2"):
        image_statistics.near(made, true[:1])


def test_bad_images():
    good = _noise(2)
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        image_statistics.power(np.full((2, 8, 8), np.nan))
    with pytest.raises(ValueError, match=r"must be \(N, n, n\)"):
        image_statistics.marginals(np.zeros((2, 3, 8, 8)))
    with pytest.raises(ValueError, match="must be square images"):
        image_statistics.fourier(np.zeros((2, 8, 9)))
    with pytest.raises(ValueError, match="2 patches: a statistic of images needs at least 5"):
        image_statistics.stack_of(good, 5)
    with pytest.raises(ValueError, match="1 to 1 in 5 bins: must rise"):
        image_statistics.Pixels(1, 1, 5)
    with pytest.raises(ValueError, match="0 patches: a histogram needs at least 1"):
        image_statistics.Pixels(0, 1).compute()
