"""Maxima and minima: of a map made by hand, and of Gaussian fields."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlsky import seeds
from mlsky.statistics import extrema

SIGMAS = 4.0  # sampling errors
#: A pixel that is not the top of its maximum is lower than it; the field is smooth over 5 pixels.
PIXELS = 0.01


def _of_gaussian(nu: np.ndarray, sigmas: tuple[float, float, float]) -> np.ndarray:
    """Maxima above each height per unit area, expected of an isotropic Gaussian field.

    Minima below minus the height are as many.

    Parameters
    ----------
    nu
        Heights in standard deviations.
    sigmas
        Standard deviation of the field, of its gradient and of its Laplacian: root of the
        sums of C_l l^0, l^2 and l^4.

    Notes
    -----
    Bond & Efstathiou 1987 (MNRAS 226, 655), eqs A1.6 to A1.9 of two dimensions.
    """
    from scipy.integrate import quad
    from scipy.special import erfc

    gamma, radius = sigmas[1] ** 2 / (sigmas[0] * sigmas[2]), np.sqrt(2) * sigmas[1] / sigmas[2]
    narrow, wide = 1 - gamma**2, 3 - 2 * gamma**2

    def density(x: float) -> float:
        y = gamma * x
        inside = 1 - erfc(y / np.sqrt(2 * narrow)) / 2
        shape = (y**2 - gamma**2) * inside
        shape += y * narrow * np.exp(-(y**2) / (2 * narrow)) / np.sqrt(2 * np.pi * narrow)
        inside = 1 - erfc(y / np.sqrt(2 * narrow * wide)) / 2
        shape += np.exp(-(y**2) / wide) / np.sqrt(wide) * inside
        return np.exp(-(x**2) / 2) * shape / (2 * np.pi) ** 1.5 / radius**2

    return np.array([quad(density, x, 12, epsrel=1e-8)[0] for x in np.atleast_1d(nu)])


def test_all_maxima_of_the_published_integral():
    """Without a threshold: 1 / (4 pi sqrt(3)) per theta*^2 (their eq. A1.9)."""
    sigmas = (1.3, 0.4, 0.2)
    found = _of_gaussian(-12, sigmas)
    assert found == pytest.approx(sigmas[2] ** 2 / sigmas[1] ** 2 / (8 * math.pi * math.sqrt(3)))


def test_gaussian_fields():
    n, smooth, maps = 256, 5.0, 40
    k = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None]) * 2 * np.pi
    beam = np.exp(-((k * smooth) ** 2) / 2)
    nu = np.array([-1.0, 0.0, 1.0, 2.0])
    white = seeds.generator(6, "truth").standard_normal((maps, n, n))
    fields = np.fft.irfft2(np.fft.rfft2(white) * beam, s=(n, n))
    # integrals of k^(1 + 2 i) exp(-k^2 s^2)
    sigmas = [math.sqrt(math.factorial(i) / smooth ** (2 * i + 2) / (4 * np.pi)) for i in range(3)]
    assert fields.std() == pytest.approx(sigmas[0], rel=0.02)
    found = np.array([extrema.counts(f, nu * sigmas[0]) for f in fields])
    above = _of_gaussian(nu, tuple(sigmas)) * n**2
    below = _of_gaussian(-nu, tuple(sigmas)) * n**2
    for expected, rows in ((above, found[:, 0]), (below, found[:, 1])):
        error = rows.std(0) / math.sqrt(maps)
        assert (error < 0.05 * expected.max()).all()
        assert (np.abs(rows.mean(0) - expected) < SIGMAS * error + PIXELS * expected).all()


def test_by_hand():
    field = np.zeros((6, 6))
    field[1, 1], field[4, 4], field[0, 5] = 3, 1, -2
    assert extrema.counts(field, [-1, 0.5, 2]).tolist() == [[2, 2, 1], [1, 1, 1]]
    # an edge has no neighbours beyond it
    assert extrema.counts(field, [-1, 0.5, 2], periodic=False).tolist() == [[2, 2, 1], [0, 0, 0]]


def test_what_it_refuses():
    with pytest.raises(ValueError, match="must be square images"):
        extrema.counts(np.zeros((4, 5)), [0])
    with pytest.raises(ValueError, match="must be one map"):
        extrema.counts(np.zeros((2, 4, 4)), [0])
    with pytest.raises(ValueError, match="hold NaN"):
        extrema.counts(np.full((4, 4), np.nan), [0])
