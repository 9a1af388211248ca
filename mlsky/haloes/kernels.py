"""Sums of Gaussian kernels at points of a flat grid of pixels, by Fourier transform.

Points are distributed over pixels with cubic B-splines, on the coarsest pixels that resolve the
kernel, and their modes are multiplied by the ratio of the transforms of kernel and spline.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mlsky.sphere.compiled import compiled

__all__ = ["EXTENT", "SAMPLING", "KernelGrid", "spline_factor", "spline_upsample"]

#: A Gaussian ends this many sigmas away: 4e-6 of its peak.
EXTENT = 5.0
#: A Gaussian is painted on pixels of at most this fraction of its sigma.
SAMPLING = 0.8
#: Halvings of the pixels, at most.
MOST_HALVINGS = 3
#: Pixels of a cubic B-spline, from the one below its centre.
_TAPS = np.arange(-1, 3, dtype=np.int32)


class KernelGrid:
    """The grid of pixels; a margin keeps opposite edges apart.

    Parameters
    ----------
    shape
        ``(ny, nx)`` of the pixels wanted.
    y, x : (n,)
        Positions of the points, in pixels from the centre of the first pixel.
    widest
        Largest sigma, in pixels: points lie at most `EXTENT` times this outside the pixels.
    margin
        Additional pixels on each side of the maps.
    """

    def __init__(self, shape: tuple[int, int], y, x, widest: float, margin: int = 0) -> None:
        import ducc0

        self.margin, self.pad = margin, int(np.ceil(EXTENT * widest)) + margin
        self.wanted = tuple(n + 2 * margin for n in shape)
        step = 1 << MOST_HALVINGS
        self.shape = tuple(
            step * ducc0.fft.good_size(-(-(n + 2 * self.pad + 4) // step), True) for n in shape
        )
        self._y, self._x = y + self.pad, x + self.pad

    def modes(
        self, values: NDArray[np.float32], sigma: NDArray[np.float64]
    ) -> Iterator[NDArray[np.complex64]]:
        """Half planes (ny, nx / 2 + 1) of sums of Gaussians, map by map.

        Parameters
        ----------
        values : (n_map, n_sigma, n)
            Flux of every point in the Gaussian of each width, per pixel of the grid.
        sigma : (n_sigma,)
            Standard deviations in pixels.
        """
        import ducc0

        levels = [_level(width) for width in sigma]
        splines = {level: self._spline(level) for level in set(levels)}
        planes = {}
        for level in splines:
            ny, nx = (side >> level for side in self.shape)
            planes[level] = (
                np.empty((ny, nx), np.float32),
                np.empty((ny, nx // 2 + 1), np.complex64),
            )
        for of_map in values:
            total = np.zeros((self.shape[0], self.shape[1] // 2 + 1), np.complex64)
            for width, level, flux in zip(sigma, levels, of_map, strict=True):
                plane, made = planes[level]  # reusing memory is faster
                plane.fill(0)
                _spread(plane, *splines[level], flux)
                ducc0.fft.r2c(plane, axes=(0, 1), forward=True, out=made, nthreads=1)
                _add_modes(total, made, _factors(float(width), level, self.shape))
            yield total

    def image(self, modes: NDArray[np.complex64]) -> NDArray[np.float32]:
        """The pixels, and `margin` more on each side, of a half plane, which is overwritten."""
        import ducc0

        back = ducc0.fft.c2r(
            modes, axes=(0, 1), forward=False, lastsize=self.shape[1], inorm=2, nthreads=1
        )
        first = self.pad - self.margin
        return back[first : first + self.wanted[0], first : first + self.wanted[1]]

    def _spline(self, level: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:
        """Rows and columns of the points' B-splines, and their weights, (n, 4) each."""
        step = 1 << level
        out = []
        for place, side in ((self._y, self.shape[0]), (self._x, self.shape[1])):
            place = (place + 0.5) / step - 0.5
            first = np.floor(place)
            pixel = (first[:, np.newaxis].astype(np.int32) + _TAPS) % np.int32(side >> level)
            out.append((pixel, _cubic(place - first).T.astype(np.float32)))
        (rows, by_row), (columns, by_column) = out
        return rows, columns, by_row, by_column


@compiled
def _spread(plane, rows, columns, by_row, by_column, flux):
    """Add the flux of every point to the pixels of its spline, in the order of the points.

    Parameters
    ----------
    plane : (ny, nx) float32
        Changed in place. Indices are not checked.
    rows, columns, by_row, by_column : (n, 4)
        From `KernelGrid._spline`.
    flux : (n,) float32
    """
    for i in range(flux.size):
        for j in range(4):
            part = by_row[i, j] * flux[i]
            line = plane[rows[i, j]]
            for k in range(4):
                line[columns[i, k]] += by_column[i, k] * part


def _level(width: float) -> int:
    """Halvings of the grid that still resolve a Gaussian of this sigma (in pixels)."""
    return int(np.clip(np.floor(np.log2(max(width * SAMPLING, 1.0))), 0, MOST_HALVINGS))


def _cubic(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of the four cubic B-splines at a point `u` after a node, (4, n)."""
    return np.stack([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, 3 * (u + u**2 - u**3) + 1, u**3]) / 6


@functools.lru_cache(maxsize=128)
def _factors(width: float, level: int, shape: tuple[int, int]) -> tuple[NDArray, NDArray]:
    """Factors by row and column of a coarse grid that turn sums of splines into Gaussians.

    `width` is the sigma of the Gaussian in pixels of the fine grid, whose shape it is. They are
    real where the grid is the fine one.
    """
    step = 1 << level
    ky, kx = np.fft.fftfreq(shape[0] // step), np.fft.rfftfreq(shape[1] // step)
    out = []
    for k in (ky, kx):
        factor = np.exp(-0.5 * (2 * np.pi * k / step * width) ** 2) / np.sinc(k) ** 4
        factor[len(k) // 2 if k is ky else -1] = 0
        if level:  # from the centres of the coarse pixels to those of the fine ones
            factor = factor * np.exp(-1j * np.pi * (step - 1) * k / step)
        out.append(factor.astype(np.complex64 if level else np.float32))
    return tuple(out)


def _add_modes(total: NDArray, modes: NDArray, factors: tuple[NDArray, NDArray]) -> None:
    """Add the modes of a coarse grid, times factors, to those of a fine one of the same period."""
    half, width = modes.shape[0] // 2, modes.shape[1]
    by_row, by_column = factors
    for target, rows in ((slice(half), slice(half)), (slice(-half, None), slice(half, None))):
        modes[rows] *= by_row[rows, np.newaxis] * by_column
        total[target, :width] += modes[rows]


def spline_factor(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Half plane of the filter from values on `shape` pixels to cubic B-spline coefficients."""
    ky, kx = np.fft.fftfreq(shape[0])[:, np.newaxis], np.fft.rfftfreq(shape[1])
    along = [3 / (2 + np.cos(2 * np.pi * k)) for k in (ky, kx)]
    return (along[0] * along[1]).astype(np.float32)


def spline_upsample(coefficients: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Values of a cubic B-spline on `factor` times finer pixels.

    Parameters
    ----------
    coefficients : (ny + 4, nx + 4)
        On the coarse pixels, and two more on each side.
    factor
        Fine pixels along the side of a coarse one.

    Returns
    -------
    values
        (factor ny, factor nx) float32.
    """
    rows, columns = (_upsampling(n - 4, factor) for n in coefficients.shape)
    # along the short side of the memory first, so that the large product goes row by row
    return rows @ np.ascontiguousarray((columns @ np.ascontiguousarray(coefficients.T)).T)


@functools.lru_cache(maxsize=32)
def _upsampling(n: int, factor: int):
    """Sparse (factor n, n + 4) matrix of `spline_upsample`."""
    from scipy.sparse import csr_array

    place = (np.arange(n * factor) + 0.5) / factor - 0.5
    first = np.floor(place).astype(int)
    taps = _cubic(place - first).T.astype(np.float32)
    index = first[:, np.newaxis] + 2 + np.arange(-1, 3)
    row = np.repeat(np.arange(n * factor), 4)
    return csr_array((taps.ravel(), (row, index.ravel())), shape=(n * factor, n + 4))
