"""Bispectra of flat maps, by Fourier transforms: equilateral, squeezed, folded, any triangle.

The product of three copies of a map, each filtered to one band of multipoles, has the mean
B N / A^2, with B the bispectrum averaged over the N closed triangles of modes with a side in
each band and A the area: <a(l1) a(l2) a(l3)> = (2 pi)^2 delta(l1 + l2 + l3) B(l1, l2, l3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mlsky.statistics import checks
from mlsky.statistics.bandpower import multipoles

__all__ = ["Bispectrum", "equilateral", "folded", "squeezed"]

Band = tuple[float, float]
Triangle = tuple[Band, Band, Band]


def equilateral(edges: Sequence[float]) -> list[Triangle]:
    """Triangles with all sides in one band, for each band between the edges."""
    return [(band, band, band) for band in pairwise(edges)]


def squeezed(edges: Sequence[float], long: Band) -> list[Triangle]:
    """Triangles with two sides in one band and the third, of the long wave, in `long`.

    Raises
    ------
    ValueError
        If the long wave is not longer than the others.
    """
    if long[1] > edges[0]:
        raise ValueError(f"long={long}: must end below {edges[0]:g}, the first of the edges")
    return [(band, band, long) for band in pairwise(edges)]


def folded(edges: Sequence[float]) -> list[Triangle]:
    """Triangles with one side in a band and two of half its multipoles, almost a line."""
    return [((a, b), (a / 2, b / 2), (a / 2, b / 2)) for a, b in pairwise(edges)]


class Bispectrum:
    """Bispectra of periodic maps of one size.

    Parameters
    ----------
    n
        Pixels along a side.
    pixel_arcmin
        Pixel size.
    triangles
        Three bands of multipoles each, at most Nyquist's.

    Raises
    ------
    ValueError
        If no closed triangle of modes has a side in each of the bands.
    """

    def __init__(self, n: int, pixel_arcmin: float, triangles: Sequence[Triangle]) -> None:
        pixel = math.radians(pixel_arcmin / 60)
        self.n, self.triangles = n, [tuple(map(tuple, t)) for t in triangles]
        ell = multipoles(n, pixel_arcmin)
        bands = sorted({band for t in self.triangles for band in t})
        highest = int(max(b for _, b in bands) * n * pixel / (2 * np.pi))
        # three modes of the highest number must not add up to a whole turn of the grid
        self._grid = max(32, -(-(3 * highest + 1) // 16) * 16)
        self._keep = min(n // 2, self._grid // 2)
        self._masks = {
            (a, b): self._regrid(((ell >= a) & (ell < b)).astype(np.complex64)).real.astype("f4")
            for a, b in bands
        }
        # times m^6 of the grid, the number of triangles (an irfft2 divides by m^2)
        ones = {band: self._field(mask).astype(np.float64) for band, mask in self._masks.items()}
        number = np.array([np.mean(ones[a] * ones[b] * ones[c]) for a, b, c in self.triangles])
        number *= self._grid**6
        if (number < 0.5).any():
            bad = sorted(set(self.triangles[int(number.argmin())]))
            raise ValueError(
                f"band {', '.join(map(str, bad))}: holds no closed triangle of modes of {n} pixels "
                f"of {pixel_arcmin:g}'"
            )
        area = (n * pixel) ** 2
        # modes are those of Spectra: pixel / n times the transform; ours must be its 1 / n^2 parts
        self._factor = (self._grid**2 / (n * pixel)) ** 3 * area**2 / number

    def _regrid(self, modes: NDArray) -> NDArray[np.complex64]:
        """Modes (n, n // 2 + 1) on the grid of `_field`; those beyond it are left out."""
        k, m = self._keep, self._grid
        out = np.zeros((*modes.shape[:-2], m, m // 2 + 1), np.complex64)
        out[..., :k, :k] = modes[..., :k, :k]
        out[..., -k + 1 :, :k] = modes[..., -k + 1 :, :k]
        return out

    def _field(self, modes: NDArray) -> NDArray[np.float32]:
        return np.fft.irfft2(modes, s=(self._grid, self._grid))

    def __call__(self, modes: NDArray[np.complex64]) -> NDArray[np.float64]:
        """B (..., triangles) of modes (..., n, n // 2 + 1) as `Spectra.modes` gives them.

        Raises
        ------
        ValueError
            If they are of maps of another size, or not finite.
        """
        modes = self._regrid(checks.modes(modes, self.n))
        fields = {
            band: self._field(modes * mask).astype(np.float64) for band, mask in self._masks.items()
        }
        out = np.empty((*modes.shape[:-2], len(self.triangles)))
        for t, ((a, b, c), factor) in enumerate(zip(self.triangles, self._factor, strict=True)):
            out[..., t] = factor * (fields[a] * fields[b] * fields[c]).mean((-2, -1))
        return out
