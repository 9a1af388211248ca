"""mlsky.haloes.kernels: Gaussians at points against their closed form, splines of polynomials."""

from __future__ import annotations

import numpy as np
import pytest

from mlsky.haloes import kernels

#: What cubic B-splines leave of a Gaussian of 1.25 pixels and wider, as a share of its peak.
GAUSSIAN = 6e-3
#: float32 of sums of some hundred numbers.
SINGLE = 3e-6

Y, X = np.array([20.3, 31.9, -4.0]), np.array([25.6, 40.2, 50.0])
FLUX = np.array([1.0, -2.0, 3.0])


def painted(sigma: float, margin: int = 0, widest: float = 12.0) -> np.ndarray:
    grid = kernels.KernelGrid((48, 64), Y, X, widest, margin)
    ((modes,),) = (list(grid.modes(FLUX[np.newaxis, np.newaxis], np.array([sigma]))),)
    return grid.image(modes)


def exact(sigma: float, margin: int = 0) -> np.ndarray:
    y, x = np.arange(-margin, 48 + margin)[:, np.newaxis], np.arange(-margin, 64 + margin)
    rows = [
        f * np.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * sigma**2))
        for f, a, b in zip(FLUX, Y, X, strict=True)
    ]
    return sum(rows) / (2 * np.pi * sigma**2)


# one on the fine grid, one on each coarser one
@pytest.mark.parametrize("sigma", [1.3, 2.6, 5.2, 10.5])
@pytest.mark.parametrize("margin", [0, 2])
def test_points_become_gaussians(sigma, margin):
    want = exact(sigma, margin)
    got = painted(sigma, margin)
    assert got.shape == want.shape
    assert np.abs(got - want).max() < GAUSSIAN * np.abs(want).max()


def test_maps_and_widths_add_up():
    grid = kernels.KernelGrid((48, 64), Y, X, 12.0)
    sigma = np.array([1.5, 2.6, 5.2])
    values = np.stack([[FLUX, 2 * FLUX, 0 * FLUX], [0 * FLUX, FLUX, -FLUX]])
    first, second = (grid.image(modes) for modes in grid.modes(values, sigma))
    one, two, three = (painted(s) for s in sigma)
    assert first == pytest.approx(one + 2 * two, abs=SINGLE)
    assert second == pytest.approx(two - three, abs=SINGLE)


def test_flux_is_that_of_the_points():
    """Also of a point beyond the pixels, of a core narrower than one, and on the coarsest grid."""
    for sigma in (0.3, 10.0):
        grid = kernels.KernelGrid((48, 64), Y, X, 12.0)
        (modes,) = grid.modes(FLUX[np.newaxis, np.newaxis], np.array([sigma]))
        assert modes[0, 0].real == pytest.approx(FLUX.sum(), rel=1e-5)


def test_splines_of_smooth_maps_are_kept_on_finer_pixels():
    factor, sigma = 8, 2.0
    y, x = np.mgrid[-2:18, -2:22].astype(float)
    grid = kernels.KernelGrid((16, 20), np.array([7.3]), np.array([9.1]), sigma, margin=2)
    (modes,) = grid.modes(np.ones((1, 1, 1)), np.array([sigma]))
    modes *= kernels.spline_factor(grid.shape)
    got = kernels.spline_upsample(grid.image(modes), factor)
    assert got.shape == (128, 160)
    y, x = ((np.arange(n) + 0.5) / factor - 0.5 for n in got.shape)
    square = (y[:, np.newaxis] - 7.3) ** 2 + (x - 9.1) ** 2
    want = np.exp(-square / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    assert np.abs(got - want).max() < GAUSSIAN / 2 * want.max()


def test_cubic_splines_reproduce_straight_lines():
    line = np.arange(-2.0, 10.0)
    plane = (2 * line[:, np.newaxis] - line).astype(np.float32)
    got = kernels.spline_upsample(plane, 4)
    fine = (np.arange(32) + 0.5) / 4 - 0.5
    assert got == pytest.approx(2 * fine[:, np.newaxis] - fine, abs=1e-5)
