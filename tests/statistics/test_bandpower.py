"""Band powers: against sums over modes by hand, and fields of known spectra."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlsky import seeds
from mlsky.statistics.bandpower import DIRECTIONS, Spectra, multipoles

N, PIXEL = 256, 0.5
EDGES = (700, 1500, 3000, 5000, 8000)
#: Standard errors; white noise of 40 maps has some 10^4 modes in the lowest band.
SIGMAS = 4.5


def _white(*shape, stream=1):
    return seeds.generator(stream, "truth").standard_normal(shape).astype("f4")


def _field(cl, n=N, pixel=PIXEL, maps=40, stream=1):
    """Gaussian maps (maps, n, n) with the power cl(ell)."""
    rad = math.radians(pixel / 60)
    amplitude = np.sqrt(cl(np.maximum(multipoles(n, pixel), 1))) / rad
    return np.fft.irfft2(np.fft.rfft2(_white(maps, n, n, stream=stream)) * amplitude, s=(n, n))


def test_modes_by_hand():
    """An odd and an even side, every mode of the full plane counted once."""
    for n in (15, 16):
        x, y = _white(2, n, n).astype(float)
        rad = math.radians(PIXEL / 60)
        spectra = Spectra(n, PIXEL, (2000, 9000, 21000))
        power = spectra.power(spectra.modes(np.array([x, y])))
        modes = [np.fft.fft2(m - m.mean()) * rad / n for m in (x, y)]
        k = 2 * np.pi * np.fft.fftfreq(n, rad)
        ell = np.hypot(k[:, None], k[None])
        for b, (lo, hi) in enumerate(spectra):
            inside = (ell >= lo) & (ell < hi)
            for i in range(2):
                for j in range(2):
                    wanted = (modes[i] * modes[j].conj()).real[inside].mean()
                    assert power[i, j, b] == pytest.approx(wanted, rel=1e-4, abs=1e-12)


@pytest.mark.parametrize("periodic", [True, False])
def test_a_known_spectrum(periodic):
    maps = _field(lambda ell: 1e-9 * (ell / 3000) ** -1.0)
    spectra = Spectra(N, PIXEL, EDGES, periodic)
    power = np.array([spectra.power(spectra.modes(m[None]))[0, 0] for m in maps])
    error = power.std(0) / math.sqrt(len(maps))
    for b, (lo, hi) in enumerate(spectra):
        ell = spectra.ell[(spectra.ell >= lo) & (spectra.ell < hi)]
        wanted = 1e-9 * np.mean(3000 / ell)
        assert power[:, b].mean() == pytest.approx(wanted, rel=0.01, abs=SIGMAS * error[b])


def test_correlation():
    a, b = (_field(lambda ell: 1 / ell, stream=s) for s in (1, 2))
    spectra = Spectra(N, PIXEL, EDGES)
    pairs = np.stack([a, 0.6 * a + 0.8 * b], 1)
    p = np.mean([spectra.power(spectra.modes(m)) for m in pairs], 0)
    np.testing.assert_allclose(p[0, 1] / np.sqrt(p[0, 0] * p[1, 1]), 0.6, atol=0.03)
    np.testing.assert_array_equal(p, p.transpose(1, 0, 2))


def test_directions():
    """A wave shows along its own direction only, and isotropic noise in all alike."""
    spectra = Spectra(N, PIXEL, EDGES)
    y, x = np.mgrid[:N, :N] * 2 * np.pi / N
    k = 20  # l = 3375
    waves = {"x": k * x, "y": k * y, "diagonal": k * (x + y), "antidiagonal": k * (x - y)}
    assert list(waves) == list(DIRECTIONS)
    modes = spectra.modes(np.cos(np.array([*waves.values()])))
    found = spectra.by_direction(modes).sum(-1)
    np.testing.assert_array_equal(found > 1e-3 * found.max(), np.eye(4, dtype=bool))
    noise = spectra.modes(_white(40, N, N))
    fraction = spectra.by_direction(noise) / np.moveaxis(np.diagonal(spectra.power(noise)), -1, 0)[
        ..., None, :
    ].reshape(40, 1, -1)
    error = fraction.std(0) / math.sqrt(40)
    assert (np.abs(fraction.mean(0) - 1) < SIGMAS * error).all()


def test_bands_that_cannot_be():
    with pytest.raises(ValueError, match="must rise and end at most at 5400"):
        Spectra(64, 2.0, (300, 8000))
    with pytest.raises(ValueError, match="must rise"):
        Spectra(64, 2.0, (700, 300))
    # a small map has no mode there, and says so
    assert np.isnan(Spectra(16, 0.5, (300, 700, 9000)).power(np.zeros((1, 16, 9), "c8"))[0, 0, 0])


def test_bad_maps():
    spectra = Spectra(16, 2.0, (1000, 3000))
    with pytest.raises(ValueError, match="must be images of 16 x 16 pixels"):
        spectra.modes(np.zeros((2, 8, 8)))
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        spectra.modes(np.full((2, 16, 16), np.nan))
    with pytest.raises(ValueError, match=r"modes of shape \(2, 8, 5\): must be \(fields, 16, 9\)"):
        spectra.power(np.zeros((2, 8, 5), complex))
    with pytest.raises(ValueError, match="modes: hold NaN or infinity"):
        spectra.power(np.full((2, 16, 9), np.inf + 0j))
