"""Binned auto and cross power of square maps, over all angles and by direction.

Each map gives its own band powers, so that errors come from the scatter of maps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mlsky.statistics import checks

__all__ = ["DIRECTIONS", "Spectra", "multipoles"]

#: Angles of the wave vector (radians), the centres of sectors of half width `HALF_WIDTH`.
DIRECTIONS = {"x": 0.0, "y": math.pi / 2, "diagonal": math.pi / 4, "antidiagonal": -math.pi / 4}
HALF_WIDTH = math.pi / 16


def multipoles(n: int, pixel_arcmin: float) -> NDArray[np.float64]:
    """Multipole of each mode of `numpy.fft.rfft2`, (n, n // 2 + 1)."""
    return np.hypot(*_wave_vectors(n, pixel_arcmin))


def _wave_vectors(n: int, pixel_arcmin: float) -> tuple[NDArray, NDArray]:
    pixel = math.radians(pixel_arcmin / 60)
    return (
        2 * np.pi * np.fft.fftfreq(n, pixel)[:, None],
        2 * np.pi * np.fft.rfftfreq(n, pixel)[None],
    )


class Spectra:
    """Band powers of maps of one size.

    Parameters
    ----------
    n
        Pixels along a side.
    pixel_arcmin
        Pixel size.
    edges
        Multipoles between bands; a band without a mode has power NaN.
    periodic
        Whether the maps are periodic; if not, a Hann window is applied.

    Raises
    ------
    ValueError
        If the edges do not rise, or exceed the Nyquist multipole.
    """

    def __init__(
        self, n: int, pixel_arcmin: float, edges: Sequence[float], periodic: bool = True
    ) -> None:
        nyquist = 60 * 180 / pixel_arcmin
        if any(a >= b for a, b in pairwise(edges)) or edges[-1] > nyquist:
            raise ValueError(
                f"edges {list(edges)}: must rise and end at most at {nyquist:g}, the Nyquist "
                f"multipole of {pixel_arcmin:g}' pixels"
            )
        self.n, self.edges = n, tuple(edges)
        self._norm = math.radians(pixel_arcmin / 60) / n
        self._window = None
        if not periodic:
            window = np.hanning(n + 2)[1:-1]
            window = window[:, None] * window[None]
            self._window = (window / np.sqrt((window**2).mean())).astype(np.float32)
        ky, kx = _wave_vectors(n, pixel_arcmin)
        self.ell = np.hypot(ky, kx)
        angle = np.arctan2(ky, kx)  # of the half plane kx >= 0: -pi/2 to pi/2
        weight = np.full(self.ell.shape, 2.0)  # each mode also represents its conjugate
        weight[:, 0] = 1
        if n % 2 == 0:
            weight[:, -1] = 1
        self._bands = [self._select((self.ell >= a) & (self.ell < b), weight) for a, b in self]
        self._sectors = [
            [
                self._select(
                    (self.ell >= a) & (self.ell < b) & (_apart(angle, centre) < HALF_WIDTH), weight
                )
                for a, b in self
            ]
            for centre in DIRECTIONS.values()
        ]

    def __iter__(self):
        """The bands, as (lowest, highest) multipole."""
        return iter(pairwise(self.edges))

    @staticmethod
    def _select(inside: NDArray[np.bool_], weight: NDArray) -> tuple[NDArray, NDArray]:
        """Flat indices of modes, and the roots of their weights."""
        index = np.flatnonzero(inside)
        fraction = weight.ravel()[index]
        return index, np.sqrt(fraction / fraction.sum()).astype(np.float32)

    def modes(self, maps: NDArray) -> NDArray[np.complex64]:
        """Fourier modes *(..., n, n // 2 + 1)* of maps *(..., n, n)*; the mean is subtracted.

        |modes|^2 is an estimate of C_l, in the square of the unit of the map and steradian.

        Raises
        ------
        ValueError
            If maps are of another size, or not finite.
        """
        maps = checks.images(maps, self.n)
        maps = (maps - maps.mean((-2, -1), keepdims=True, dtype=np.float64)).astype(np.float32)
        if self._window is not None:
            maps = maps * self._window
        return np.fft.rfft2(maps) * np.float32(self._norm)

    def power(self, modes: NDArray[np.complex64]) -> NDArray[np.float64]:
        """Spectra of all pairs (fields, fields, bands) of modes (fields, n, n // 2 + 1).

        Raises
        ------
        ValueError
            If they are no such modes, or not finite.
        """
        modes = checks.modes(modes, self.n, lead=1)
        flat = modes.reshape(len(modes), -1)
        out = np.full((len(modes), len(modes), len(self._bands)), np.nan)
        for b, (index, root) in enumerate(self._bands):
            if len(index):
                part = (flat[:, index] * root).astype(np.complex128)
                out[..., b] = (part @ part.conj().T).real
        return out

    def by_direction(self, modes: NDArray[np.complex64]) -> NDArray[np.float64]:
        """Auto spectra (fields, directions, bands) of wave vectors along `DIRECTIONS`."""
        flat = modes.reshape(len(modes), -1)
        out = np.full((len(modes), len(DIRECTIONS), len(self._bands)), np.nan)
        for d, sector in enumerate(self._sectors):
            for b, (index, root) in enumerate(sector):
                if len(index):
                    part = np.abs(flat[:, index] * root)
                    out[:, d, b] = np.square(part, dtype=np.float64).sum(1)
        return out


def _apart(angle: NDArray, centre: float) -> NDArray:
    """Angle between lines, 0 to pi / 2."""
    apart = np.abs(angle - centre) % np.pi
    return np.minimum(apart, np.pi - apart)
