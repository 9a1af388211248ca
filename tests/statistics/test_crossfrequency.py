"""CIB and tSZ over frequencies: fields whose spectra are known, and the laws of their colours."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from mlsky import seeds
from mlsky.frequency import scaling
from mlsky.statistics.bandpower import Spectra
from mlsky.statistics.crossfrequency import coefficients, of_one_frequency

N, PIXEL, EDGES, FREQS = 64, 2.0, (500, 1500, 3000), (93.0, 150.0, 220.0)
SIGMAS = 4.0  # sampling errors


def _scaled(maps, law):
    return np.multiply.outer(scaling.factor(law, np.array(FREQS)), maps)


def _power(tsz, cib):
    """(2, freqs, 2, freqs, bands) of maps at the same frequencies."""
    spectra, f = Spectra(N, PIXEL, EDGES), len(tsz)
    return spectra.power(spectra.modes(np.concatenate([tsz, cib]))).reshape(2, f, 2, f, -1)


def _maps(area, decorrelate=0.0):
    """White noise: tSZ and CIB share a part, and the CIB of each band has one of its own."""
    rng = seeds.generator(21, "truth", area)
    shared, own = rng.standard_normal((2, N, N))
    tsz, cib = -shared, 0.6 * shared + 0.8 * own
    cib = _scaled(cib, "cib")
    if decorrelate:
        apart = rng.standard_normal((len(FREQS), N, N))
        cib = cib + decorrelate * scaling.factor("cib", np.array(FREQS))[:, None, None] * apart
    return _scaled(tsz, "tsz"), cib


@pytest.mark.parametrize("decorrelate", [0.0, 0.5])
def test_known_fields(decorrelate):
    power = np.array([_power(*_maps(area, decorrelate)) for area in range(30)])
    sign = np.sign(-scaling.factor("tsz", np.array(FREQS)))[:, None, None]
    expected = sign * 0.6 / math.sqrt(1 + decorrelate**2) * np.ones((3, 3, 2))
    found = np.array([coefficients(p) for p in power])
    error = found.std(0, ddof=1) / math.sqrt(len(found))
    assert (error < 0.02).all()
    assert (np.abs(found.mean(0) - expected) < SIGMAS * error).all()


def test_maps_of_one_frequency_and_their_power():
    tsz, cib = seeds.generator(22, "truth").standard_normal((2, N, N))
    alone = _power(tsz[None], cib[None]).reshape(2, 2, -1)
    found, wanted = of_one_frequency(alone, FREQS), _power(_scaled(tsz, "tsz"), _scaled(cib, "cib"))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    np.testing.assert_allclose(coefficients(found), coefficients(wanted), rtol=1e-4, atol=1e-6)
    # above its null tSZ is positive, and the correlation turns round
    assert (coefficients(found)[0] * coefficients(found)[2] <= 0).all()


def test_correlation_is_pearsons_of_filtered_maps():
    """Maps of one band of multipoles only: the coefficient is that of their pixels."""
    tsz, cib = _maps(3, 0.5)
    found = coefficients(_power(tsz, cib))
    pixel = math.radians(PIXEL / 60)
    ell = 2 * np.pi * np.hypot(*np.meshgrid(*[np.fft.fftfreq(N, pixel)] * 2, indexing="ij"))
    for b, (low, high) in enumerate(pairwise(EDGES)):
        inside = (ell >= low) & (ell < high)
        maps = [
            np.fft.ifft2(np.fft.fft2(m) * inside).real.reshape(len(FREQS), -1) for m in (tsz, cib)
        ]
        wanted = np.corrcoef(*maps)[: len(FREQS), len(FREQS) :]
        np.testing.assert_allclose(found[..., b], wanted, atol=1e-5)
