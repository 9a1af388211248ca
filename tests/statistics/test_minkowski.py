"""Minkowski functionals: discs and rings, and the closed form of a Gaussian field."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlsky import seeds
from mlsky.statistics import minkowski

N = 400
NU = (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
#: Boundaries of smooth shapes by four directions of lines: octagons do to 1.2 per cent.
LENGTH = 0.015
EXACT = 1e-9  # the same sums in another order


def _of_gaussian(nu: np.ndarray, gradient2: float) -> np.ndarray:
    """V0, V1 and V2 (3, thresholds) expected of an isotropic Gaussian field.

    Parameters
    ----------
    nu
        Thresholds in standard deviations.
    gradient2
        <|grad u|^2> of the field with unit variance, per pixel^2.

    Notes
    -----
    Tomita (1986, Prog. Theor. Phys. 76, 952); with tau = <|grad u|^2> / 2,
    V1 = sqrt(tau) / 8 exp(-nu^2 / 2) and V2 = tau nu / (2 pi)^(3/2) exp(-nu^2 / 2).
    """
    from scipy.special import erfc

    nu = np.asarray(nu, np.float64)
    tau, bell = gradient2 / 2, np.exp(-(nu**2) / 2)
    return np.stack(
        [
            erfc(nu / np.sqrt(2)) / 2,
            np.sqrt(tau) / 8 * bell,
            tau * nu * bell / (2 * np.pi) ** 1.5,
        ]
    )


def _distance(y0, x0):
    y, x = np.mgrid[:N, :N]
    return np.hypot(y - y0 + 0.3, x - x0 + 0.1)


def _shapes(field):
    area, length, number = minkowski.functionals(field, (0.0,))[:, 0]
    return area * N**2, 4 * length * N**2, number * (N - 1) ** 2


def test_discs_and_rings():
    radius, hole = 60.0, 25.0
    disc = radius - _distance(120, 150)
    area, length, number = _shapes(disc)
    assert area == pytest.approx(math.pi * radius**2, rel=0.005)
    assert length == pytest.approx(2 * math.pi * radius, rel=LENGTH)
    assert number == pytest.approx(1)
    ring = np.minimum(disc, _distance(120, 150) - hole)
    area, length, number = _shapes(ring)
    assert area == pytest.approx(math.pi * (radius**2 - hole**2), rel=0.005)
    assert length == pytest.approx(2 * math.pi * (radius + hole), rel=LENGTH)
    assert number == pytest.approx(0, abs=1e-9)
    two = np.maximum(disc, 30 - _distance(300, 300))
    assert _shapes(two)[2] == pytest.approx(2)
    # what is above and what is below share the boundary; a hole counts against
    assert _shapes(-two)[1] == pytest.approx(_shapes(two)[1])
    assert _shapes(-two)[2] == pytest.approx(-2)


def test_a_gaussian_field():
    """Twenty fields of a scale of 3 pixels."""
    n, fields = 512, 20
    k = 2 * np.pi * np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None])
    beam = np.exp(-((3.0 * k) ** 2) / 2)
    found = []
    for i in range(fields):
        white = seeds.generator(6, "truth", i).standard_normal((n, n))
        field = np.fft.irfft2(np.fft.rfft2(white) * beam, s=(n, n))
        found.append(minkowski.functionals(field / field.std(), NU))
    found = np.array(found)
    error = found.std(0) / math.sqrt(fields)
    # <|grad u|^2> / <u^2> = 1 / (2 sigma^2) * 2 / 2 for a Gaussian beam of sigma: 1 / sigma^2
    wanted = _of_gaussian(NU, 1 / 3.0**2)
    # the lattice misses pairs of crossings within a pixel: 1 per cent of V1, 2 of V2
    allowed = np.array([0.002, 0.012, 0.025])[:, None] * np.abs(wanted).max(1, keepdims=True)
    assert (np.abs(found.mean(0) - wanted) < allowed + 4 * error).all()


def test_gradient_of_that_field():
    """The number that the closed form was given, from finite differences."""
    n = 512
    k = 2 * np.pi * np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None])
    white = seeds.generator(6, "truth").standard_normal((n, n))
    field = np.fft.irfft2(np.fft.rfft2(white) * np.exp(-((6.0 * k) ** 2) / 2), s=(n, n))
    gradient2 = sum((np.diff(field, axis=a) ** 2).mean() for a in (0, 1)) / field.var()
    assert gradient2 == pytest.approx(1 / 6.0**2, rel=0.05)


def test_nothing_and_everything():
    flat = np.zeros((8, 8))
    np.testing.assert_array_equal(
        minkowski.functionals(flat, (-1.0, 1.0)), [[1, 0], [0, 0], [0, 0]]
    )


def test_labels_and_pairs_of_pixels():
    """Another way to the same numbers: labelled components and holes, and products of pixels."""
    from scipy.ndimage import gaussian_filter, label

    white = seeds.generator(9, "truth").standard_normal((150, 150))
    field = gaussian_filter(white, 2.0)
    field /= field.std()
    found = minkowski.functionals(field, NU)
    for t, nu in enumerate(NU):
        above = field > nu
        assert found[0, t] == pytest.approx(np.mean(above), rel=EXACT)
        # |a - b| = a + b - 2 a b, along x, y and both diagonals
        rates = []
        for a, b, apart in (
            (above[1:], above[:-1], 1),
            (above[:, 1:], above[:, :-1], 1),
            (above[1:, 1:], above[:-1, :-1], math.sqrt(2)),
            (above[1:, :-1], above[:-1, 1:], math.sqrt(2)),
        ):
            a, b = a.astype(float), b.astype(float)
            rates.append((a.mean() + b.mean() - 2 * (a * b).mean()) / apart)
        assert found[1, t] == pytest.approx(np.mean(rates) * math.pi / 8, rel=EXACT)
        # with all below around it, what is above has components and holes to be counted; pixels
        # that touch at corners are joined, or are not, and the mean of both is asked for
        numbers = []
        for corners in (True, False):
            grid = np.pad(above, 1)
            eight, four = np.ones((3, 3)), None
            parts = label(grid, eight if corners else four)[1]
            gaps = label(~grid, four if corners else eight)[1] - 1
            numbers.append(parts - gaps)
        padded = minkowski.functionals(np.pad(field, 1, constant_values=-99.0), (nu,))[2, 0]
        assert padded * 151**2 == pytest.approx(np.mean(numbers), abs=1e-6)


def test_bad_maps():
    for bad, message in (
        (np.full((8, 8), np.nan), "field: hold NaN or infinity"),
        (np.zeros((3, 8, 8)), r"must be one map \(n, m\)"),
        (np.zeros((1, 8)), "of 2 x 2 pixels or more"),
    ):
        with pytest.raises(ValueError, match=message):
            minkowski.functionals(bad, (0.0,))
