"""Equilateral bispectrum of flat maps, by Fourier transforms.

A map filtered to one band of multipoles has the mean cube
B N / A^2, with B the bispectrum averaged over the N closed triangles of modes of
the band and A the area: <a(l1) a(l2) a(l3)> = (2 pi)^2 delta(l1 + l2 + l3) B(l1, l2, l3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mlsky.statistics.bandpower import multipoles

__all__ = ["Equilateral"]


class Equilateral:
    """Bispectra of equal bands, for periodic maps of one size.

    Parameters
    ----------
    n
        Pixels along a side.
    pixel_arcmin
        Pixel size.
    edges
        Multipoles between the bands, at most Nyquist's.

    Raises
    ------
    ValueError
        If a band holds no closed triangle of modes.
    """

    def __init__(self, n: int, pixel_arcmin: float, edges: Sequence[float]) -> None:
        pixel = math.radians(pixel_arcmin / 60)
        self.n, self.edges = n, tuple(edges)
        ell = multipoles(n, pixel_arcmin)
        highest = int(edges[-1] * n * pixel / (2 * np.pi))
        # three modes of the highest number must not add up to a whole turn of the grid
        self._grid = max(32, -(-(3 * highest + 1) // 16) * 16)
        self._keep = min(n // 2, self._grid // 2)
        self._masks = [
            self._regrid(((ell >= a) & (ell < b)).astype(np.complex64)).real.astype(np.float32)
            for a, b in pairwise(edges)
        ]
        # times m^6 of the grid, the number of triangles (an irfft2 divides by m^2)
        cubes = [np.mean(self._field(m).astype(np.float64) ** 3) for m in self._masks]
        triangles = np.array(cubes) * self._grid**6
        if (triangles < 0.5).any():
            bad = list(pairwise(edges))[int(triangles.argmin())]
            raise ValueError(
                f"band {bad}: holds no closed triangle of modes of {n} pixels of {pixel_arcmin:g}'"
            )
        area = (n * pixel) ** 2
        # modes are those of Spectra: pixel / n times the transform; ours must be its 1 / n^2 parts
        self._factor = (self._grid**2 / (n * pixel)) ** 3 * area**2 / triangles

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
        """B (..., bands) of modes (..., n, n // 2 + 1) as `Spectra.modes` gives them."""
        modes = self._regrid(modes)
        out = np.empty((*modes.shape[:-2], len(self._masks)))
        for b, (mask, factor) in enumerate(zip(self._masks, self._factor, strict=True)):
            field = self._field(modes * mask).astype(np.float64)
            out[..., b] = factor * (field * field * field).mean((-2, -1))
        return out
