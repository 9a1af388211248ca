"""Bispectra: against a sum over all triangles, and a field where it is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlsky import seeds
from mlsky.statistics.bandpower import Spectra
from mlsky.statistics.bispectrum import Bispectrum, equilateral, folded, squeezed

PIXEL = 2.0


def _noise(*shape):
    return seeds.generator(4, "truth").standard_normal(shape)


def _by_hand(field, pixel_arcmin, *bands):
    """B from every closed triangle of modes with a side in each band, without aliases."""
    n = len(field)
    pixel = math.radians(pixel_arcmin / 60)
    modes = np.fft.fft2(field - field.mean()) * pixel**2  # the continuous transform
    k = np.rint(np.fft.fftfreq(n) * n).astype(int)
    step = 2 * np.pi / (n * pixel)
    first, second, third = (
        [(a, b) for a in k for b in k if lo <= step * math.hypot(a, b) < hi] for lo, hi in bands
    )
    members = set(third)
    total, triangles = 0.0, 0
    for a, b in first:
        for c, d in second:
            e, f = -a - c, -b - d
            if (e, f) in members:
                total += (modes[b, a] * modes[d, c] * modes[f, e]).real
                triangles += 1
    return total / triangles / (n * pixel) ** 2


@pytest.mark.parametrize("edges", [(1500, 2600), (2600, 4800)])
def test_every_triangle(edges):
    """The second band has triangles whose modes reach three quarters round the grid of pixels."""
    n = 16
    field = _noise(n, n) ** 2
    spectra = Spectra(n, PIXEL, (300, 5000))
    found = Bispectrum(n, PIXEL, equilateral(edges))(spectra.modes(field))
    assert found[0] == pytest.approx(_by_hand(field, PIXEL, edges, edges, edges), rel=1e-3)


@pytest.mark.parametrize(
    "triangles",
    [squeezed((2200, 3600), (1300, 1900)), folded((2600, 4400))],
    ids=["squeezed", "folded"],
)
def test_every_triangle_of_other_shapes(triangles):
    n = 16
    field = _noise(n, n) ** 2
    found = Bispectrum(n, PIXEL, triangles)(Spectra(n, PIXEL, (300, 5000)).modes(field))
    assert found[0] == pytest.approx(_by_hand(field, PIXEL, *triangles[0]), rel=1e-3)


def test_shapes_of_local_non_gaussianity():
    """u = g + f g^2 has B = 2 f (P1 P2 + P2 P3 + P3 P1) with P of any shape, to first order."""
    n, maps, f = 96, 120, 0.3  # the variance of g is small
    spectra = Spectra(n, PIXEL, (300, 5000))
    triangles = squeezed((1800, 2800), (400, 1000)) + folded((1800, 3000))
    estimator = Bispectrum(n, PIXEL, triangles)
    shape = np.where(spectra.ell < 3600, 700 / (spectra.ell + 700), 0.0)  # root of the power
    g = np.fft.irfft2(np.fft.rfft2(_noise(maps, n, n)) * shape, s=(n, n))
    found = np.array([estimator(spectra.modes(m)) for m in g + f * g**2])
    error = found.std(0) / math.sqrt(maps)
    pixel = math.radians(PIXEL / 60)
    # the expected value of each triangle, averaged over triangles by the estimator itself
    power = (pixel * shape) ** 2
    expected = []
    for bands in triangles:
        total = 0.0
        for skip in range(3):
            weighted = [
                _band(spectra.ell, b) * (1 if i == skip else power) for i, b in enumerate(bands)
            ]
            total += _closed(weighted, n) / _closed([_band(spectra.ell, b) for b in bands], n)
        expected.append(2 * f * total)
    assert (np.abs(found.mean(0) / expected - 1) < 4 * error / expected + 0.1).all()
    assert (error < 0.12 * np.array(expected)).all()  # so that this tells something


def _band(ell, band):
    return ((ell >= band[0]) & (ell < band[1])).astype(float)


def _closed(weights, n):
    """Sum over closed triangles of the product of weights of their sides; no aliases here."""
    return np.prod([np.fft.irfft2(w, s=(n, n)) for w in weights], axis=0).mean()


def test_the_long_wave_is_long():
    with pytest.raises(ValueError, match="must end below 1800"):
        squeezed((1800, 2800), (1000, 2000))


def test_local_non_gaussianity():
    """u = g + f g^2 with g of flat power P up to some l has B = 6 f P^2, to first order in f."""
    n, maps, f = 128, 60, 0.1
    spectra = Spectra(n, PIXEL, (300, 5000))
    edges = (700, 1300, 2200, 3400)
    estimator = Bispectrum(n, PIXEL, equilateral(edges))
    white = np.fft.rfft2(_noise(maps, n, n)) * (spectra.ell < 3600)
    g = np.fft.irfft2(white, s=(n, n))
    p = math.radians(PIXEL / 60) ** 2  # white noise of unit variance
    found = np.array([estimator(spectra.modes(m)) for m in g + f * g**2])
    error = found.std(0) / math.sqrt(maps)
    # terms of third order in f: of relative size f^2, a few per cent
    assert (np.abs(found.mean(0) - 6 * f * p**2) < 4 * error + 0.1 * 6 * f * p**2).all()
    assert (error[1:] < 0.15 * 6 * f * p**2).all()  # so that this tells something
    gaussian = np.array([estimator(spectra.modes(m)) for m in g])
    assert (np.abs(gaussian.mean(0)) < 4.5 * gaussian.std(0) / math.sqrt(maps)).all()


def test_it_is_odd_and_takes_stacks():
    spectra = Spectra(64, PIXEL, (300, 5000))
    modes = spectra.modes(np.exp(_noise(3, 64, 64)))
    estimator = Bispectrum(64, PIXEL, equilateral((700, 2000, 3400, 5000)))
    found = estimator(modes)
    assert found.shape == (3, 3)
    np.testing.assert_allclose(estimator(-modes), -found, rtol=1e-5)
    np.testing.assert_allclose(estimator(modes[1]), found[1], rtol=1e-5)


def test_no_triangle():
    with pytest.raises(ValueError, match="holds no closed triangle of modes of 16 pixels"):
        Bispectrum(16, PIXEL, equilateral((700, 800)))


def test_bad_modes():
    estimator = Bispectrum(16, PIXEL, equilateral((1000, 3000)))
    with pytest.raises(ValueError, match=r"modes of shape \(8, 5\): must be \(..., 16, 9\)"):
        estimator(np.zeros((8, 5), complex))
    with pytest.raises(ValueError, match="modes: hold NaN or infinity"):
        estimator(np.full((16, 9), np.nan + 0j))
