"""CIB and tSZ over frequencies: fields whose spectra are known, and the laws of their colours."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from mlsky import scaling, seeds
from mlsky.statistics.crossfrequency import (
    CrossFrequency,
    coefficients,
    of_one_frequency,
    scaled,
)

N, PIXEL, EDGES, FREQS = 64, 2.0, (500, 1500, 3000), (93.0, 150.0, 220.0)
SIGMAS = 4.0  # sampling errors


def _maps(area, decorrelate=0.0):
    """White noise: tSZ and CIB share a part, and the CIB of each band has one of its own."""
    rng = seeds.generator(21, "truth", area)
    shared, own = rng.standard_normal((2, N, N))
    tsz, cib = -shared, 0.6 * shared + 0.8 * own
    cib = scaled(cib, "cib", FREQS)
    if decorrelate:
        apart = rng.standard_normal((len(FREQS), N, N))
        cib = cib + decorrelate * scaling.factor("cib", np.array(FREQS))[:, None, None] * apart
    return scaled(tsz, "tsz", FREQS), cib


@pytest.mark.parametrize("decorrelate", [0.0, 0.5])
def test_known_fields(decorrelate):
    stream = CrossFrequency(N, PIXEL, EDGES, FREQS)
    for area in range(30):
        stream.update(*_maps(area, decorrelate), area)
    found = stream.compute()
    sign = np.sign(-scaling.factor("tsz", np.array(FREQS)))[:, None, None]
    expected = sign * 0.6 / math.sqrt(1 + decorrelate**2) * np.ones((3, 3, 2))
    value, error = found["correlation"]
    assert (error < 0.02).all()
    assert (np.abs(value - expected) < SIGMAS * error).all()
    white = math.radians(PIXEL / 60) ** 2
    factors = [scaling.factor(law, np.array(FREQS)) for law in ("tsz", "cib")]
    expected = -0.6 * white * np.multiply.outer(*factors)[..., None] * np.ones(2)
    value, error = found["power"]
    assert (np.abs(value - expected) < SIGMAS * error).all()


def test_maps_of_one_frequency_and_their_power():
    stream, one = CrossFrequency(N, PIXEL, EDGES, FREQS), CrossFrequency(N, PIXEL, EDGES, (148.0,))
    rng = seeds.generator(22, "truth")
    tsz, cib = rng.standard_normal((2, N, N))
    stream.update(scaled(tsz, "tsz", FREQS), scaled(cib, "cib", FREQS))
    spectra = one.spectra
    power = of_one_frequency(spectra.power(spectra.modes(np.stack([tsz, cib]))), FREQS)
    np.testing.assert_allclose(power[0, :, 1], stream.compute()["power"][0], rtol=1e-4)
    np.testing.assert_allclose(
        coefficients(power), stream.compute()["correlation"][0], rtol=1e-4, atol=1e-6
    )
    # above its null tSZ is positive, and the correlation turns round
    assert (coefficients(power)[0] * coefficients(power)[2] <= 0).all()


def test_correlation_is_pearsons_of_filtered_maps():
    """Maps of one band of multipoles only: the coefficient is that of their pixels."""
    stream = CrossFrequency(N, PIXEL, EDGES, FREQS)
    tsz, cib = _maps(3, 0.5)
    stream.update(tsz, cib)
    found = stream.compute()["correlation"][0]
    pixel = math.radians(PIXEL / 60)
    ell = 2 * np.pi * np.hypot(*np.meshgrid(*[np.fft.fftfreq(N, pixel)] * 2, indexing="ij"))
    for b, (low, high) in enumerate(pairwise(EDGES)):
        inside = (ell >= low) & (ell < high)
        maps = [
            np.fft.ifft2(np.fft.fft2(m) * inside).real.reshape(len(FREQS), -1) for m in (tsz, cib)
        ]
        wanted = np.corrcoef(*maps)[: len(FREQS), len(FREQS) :]
        np.testing.assert_allclose(found[..., b], wanted, atol=1e-5)


def test_what_it_refuses():
    stream = CrossFrequency(N, PIXEL, EDGES, FREQS)
    tsz, cib = _maps(0)
    with pytest.raises(ValueError, match="must be one map for each of 3 frequencies"):
        stream.update(tsz, cib[:2])
    with pytest.raises(ValueError, match="must be images of 64 x 64 pixels"):
        stream.update(tsz[:, :32, :32], cib)
    cib[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="cib: hold NaN"):
        stream.update(tsz, cib)
