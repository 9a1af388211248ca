"""Correlated, skewed regions with the signs of the truth."""

from __future__ import annotations

import numpy as np
import pytest

from mlsky import seeds
from mlsky.theory import spectra

N, PIXEL, REGIONS = 192, 2.0, 6


def maps(region, seed=31):
    """Correlated, skewed fields with the signs of the truth."""
    rng = seeds.generator(seed, "truth", region)
    k = np.hypot(np.fft.fftfreq(N)[:, None], np.fft.rfftfreq(N)[None])
    g, v, s = (
        np.fft.irfft2(np.fft.rfft2(x) * np.exp(-((6 * k) ** 2)) * 4, s=(N, N))
        for x in rng.standard_normal((3, N, N))
    )
    mass = np.exp(g)
    fields = [0.05 * (mass - 1.6), v * mass, -3 * mass, 5 * mass * np.exp(0.3 * s)]
    return np.stack([*fields, 4 * np.exp(s)]).astype(np.float32)


@pytest.fixture(scope="module")
def camb():
    """A CMB that is not worth waiting for."""
    patch = pytest.MonkeyPatch()
    ell = np.arange(1.0, 4003.0)
    patch.setattr(spectra, "cmb_spectra", lambda lmax: {"tt": (1000 / ell**2.5)[: lmax + 1]})
    yield
    patch.undo()
