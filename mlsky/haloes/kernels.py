"""Sums of Gaussian kernels at points of a flat grid of pixels, by Fourier transform.

Points are distributed over pixels with cubic B-splines, on the coarsest pixels that resolve the
kernel, and their modes are multiplied by the ratio of the transforms of kernel and spline.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["EXTENT", "SAMPLING", "KernelGrid", "spline_factor", "spline_upsample"]

#: A Gaussian ends this many sigmas away: 4e-6 of its peak.
EXTENT = 5.0
#: A Gaussian is painted on pixels of at most this fraction of its sigma.
SAMPLING = 0.8
#: Halvings of the pixels, at most.
MOST_HALVINGS = 3


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

        n_map, _, n = values.shape
        levels = [_level(width) for width in sigma]
        spread = []
        for level in sorted(set(levels)):
            some = [i for i, other in enumerate(levels) if other == level]
            filled, matrix = self._spline(level)
            # all maps at once, so that each weight of a spline is looked up once
            points = np.ascontiguousarray(values[:, some].reshape(-1, n).T, np.float32)
            shared = np.ascontiguousarray((matrix @ points).T).reshape(n_map, len(some), -1)
            spread.append((level, filled, some, shared))
        planes = {}
        for level, *_ in spread:
            ny, nx = (side >> level for side in self.shape)
            planes[level] = (
                np.zeros((ny, nx), np.float32),
                np.empty((ny, nx // 2 + 1), np.complex64),
            )
        for number in range(n_map):
            total = np.zeros((self.shape[0], self.shape[1] // 2 + 1), np.complex64)
            for level, filled, some, shared in spread:
                plane, made = planes[level]  # reusing memory is faster
                for i, pixels in zip(some, shared[number], strict=True):
                    plane.reshape(-1)[filled] = pixels
                    ducc0.fft.r2c(plane, axes=(0, 1), forward=True, out=made, nthreads=1)
                    _add_modes(total, made, _factors(float(sigma[i]), level, self.shape))
            yield total

    def image(self, modes: NDArray[np.complex64]) -> NDArray[np.float32]:
        """The pixels, and `margin` more on each side, of a half plane, which is overwritten."""
        import ducc0

        back = ducc0.fft.c2r(
            modes, axes=(0, 1), forward=False, lastsize=self.shape[1], inorm=2, nthreads=1
        )
        first = self.pad - self.margin
        return back[first : first + self.wanted[0], first : first + self.wanted[1]]

    def _spline(self, level: int):
        """Pixels to which points contribute, and the sparse matrix (pixels, n) of weights."""
        from scipy.sparse import csc_array

        step = 1 << level
        grid = tuple(side >> level for side in self.shape)
        place, weight = _spline((self._y + 0.5) / step - 0.5, (self._x + 0.5) / step - 0.5, grid)
        touched = np.zeros(grid[0] * grid[1], bool)
        touched[place] = True
        filled = np.flatnonzero(touched)
        number = np.empty(touched.size, np.int32)
        number[filled] = np.arange(len(filled), dtype=np.int32)
        # a column for each point, with sixteen weights
        ends = np.arange(0, place.size + 1, 16, dtype=np.int32)
        shape = (len(filled), len(self._y))
        return filled, csc_array((weight, number[place], ends), shape=shape)


def _level(width: float) -> int:
    """Halvings of the grid that still resolve a Gaussian of this sigma (in pixels)."""
    return int(np.clip(np.floor(np.log2(max(width * SAMPLING, 1.0))), 0, MOST_HALVINGS))


def _cubic(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of the four cubic B-splines at a point `u` after a node, (4, n)."""
    return np.stack([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, 3 * (u + u**2 - u**3) + 1, u**3]) / 6


def _spline(y, x, shape: tuple[int, int]):
    """Flat pixels and weights, both (16 n,), of the B-splines of n points."""
    fy, fx = (np.floor(v).astype(np.int32) for v in (y, x))
    wy, wx = (_cubic(v - f).astype(np.float32) for v, f in ((y, fy), (x, fx)))
    tap = np.arange(-1, 3, dtype=np.int32)
    rows = (fy[:, np.newaxis] + tap) % shape[0]
    columns = (fx[:, np.newaxis] + tap) % shape[1]
    place = rows[:, :, np.newaxis] * np.int32(shape[1]) + columns[:, np.newaxis]
    weight = wy.T[:, :, np.newaxis] * wx.T[:, np.newaxis]
    return place.ravel(), weight.ravel()


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
