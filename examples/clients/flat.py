"""What the clients share: a square patch of sky, its Fourier modes, and their power in bands."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from pixell import enmap, utils

import mlsky

__all__ = ["Flat", "beam", "patch", "sky"]

#: Part of a side over which the window falls to zero, at either end.
TAPER = 0.15
#: Steps of the multipole at which a function is averaged.
FINE = 10.0


def patch(side_deg: float, pixel_arcmin: float) -> tuple:
    """Geometry (shape, wcs) of a square on the equator, where CAR pixels are nearly square."""
    half = side_deg / 2 * utils.degree
    box = [[-half, half], [half, -half]]
    return enmap.geometry(box, res=pixel_arcmin * utils.arcmin, proj="car")


def sky(path: str | None, freqs, side_deg: float, pixel_arcmin: float, **arguments) -> mlsky.Sky:
    """Read the sky of a patch, or make it and, if a path is given, keep it there."""
    if path is not None and Path(path).exists():
        return mlsky.Sky.read(path, lazy=True)
    geometry = patch(side_deg, pixel_arcmin)
    return mlsky.simulate(freqs, geometry=geometry, stokes="T", out=path, **arguments)


def beam(ell, fwhm_arcmin: float):
    """Transform of a Gaussian beam."""
    return np.exp(
        -0.5 * np.square(ell) * (fwhm_arcmin * utils.arcmin / np.sqrt(8 * np.log(2))) ** 2
    )


class Flat:
    """Fourier modes of maps of one shape; |modes|^2 is an estimate of C_l.

    Parameters
    ----------
    shape, wcs
        Of the patch.
    """

    def __init__(self, shape: tuple, wcs) -> None:
        self.shape = tuple(shape[-2:])
        self.pixel = np.abs(enmap.pixshape(self.shape, wcs))  # (dec, ra), radians
        ny, nx = self.shape
        self.ly = 2 * np.pi * np.fft.fftfreq(ny, self.pixel[0])[:, None]
        self.lx = 2 * np.pi * np.fft.rfftfreq(nx, self.pixel[1])[None]
        self.ell = np.hypot(self.ly, self.lx)
        # A mode of the half plane stands for its conjugate too.
        self.weight = np.full(self.ell.shape, 2.0)
        self.weight[:, 0] = 1
        if nx % 2 == 0:
            self.weight[:, -1] = 1
        limits = np.arange(0, self.ell.max() + FINE, FINE)
        number, _ = np.histogram(self.ell, limits, weights=self.weight)
        self._fine = limits[:-1] + FINE / 2, number
        window = np.outer(*(_taper(n) for n in self.shape))
        self.window = window / np.sqrt(np.mean(window**2))
        self._norm = np.sqrt(self.pixel.prod() / (ny * nx))

    def modes(self, maps, window: bool = True):
        """Modes *(..., ny, nx // 2 + 1)*, of maps without their mean, tapered unless told."""
        maps = maps - np.mean(maps, axis=(-2, -1), keepdims=True)
        return np.fft.rfft2(maps * self.window if window else maps) * self._norm

    def map(self, modes):
        """The map of modes, without a window."""
        return np.fft.irfft2(modes / self._norm, s=self.shape)

    def smooth(self, maps, transfer):
        """Maps times a function of the multipole, on a periodic patch."""
        return np.fft.irfft2(np.fft.rfft2(maps) * transfer, s=self.shape)

    def white(self, uk_arcmin: float, rng: np.random.Generator):
        """A map of white noise."""
        pixel_arcmin = np.sqrt(self.pixel.prod()) / utils.arcmin
        return rng.standard_normal(self.shape) * (uk_arcmin / pixel_arcmin)

    def gaussian(self, power, rng: np.random.Generator):
        """Modes of a periodic Gaussian field with a power, given at every mode."""
        return (
            np.fft.rfft2(rng.standard_normal(self.shape))
            / np.sqrt(np.prod(self.shape))
            * (np.sqrt(power))
        )

    def bands(self, edges) -> list[np.ndarray]:
        """Where the modes of each band are."""
        return [(self.ell >= a) & (self.ell < b) for a, b in pairwise(edges)]

    def power(self, a, b, edges) -> np.ndarray:
        """Cross power of two sets of modes, in bands."""
        return self.average((a * np.conj(b)).real, edges)

    def counts(self, edges) -> np.ndarray:
        """Independent modes of each band: real and imaginary part count as two, the window less."""
        kept = np.mean(self.window**2) ** 2 / np.mean(self.window**4)
        return np.array([self.weight[i].sum() for i in self.bands(edges)]) * kept

    def mean(self, function, edges) -> np.ndarray:
        """A function of the multipole, averaged over the modes of each band."""
        middle, number = self._fine
        inside = [(middle >= a) & (middle < b) for a, b in pairwise(edges)]
        return np.array([np.average(function(middle[i]), weights=number[i]) for i in inside])

    def average(self, values, edges) -> np.ndarray:
        """A number for every mode, averaged over the modes of each band."""
        return np.array([np.average(values[i], weights=self.weight[i]) for i in self.bands(edges)])

    def spread(self, power, edges) -> np.ndarray:
        """Band powers at every mode: ln l^2 C_l interpolated, constant beyond the outer bands."""
        middle = self.mean(lambda ell: ell, edges)
        ell = np.clip(self.ell, middle[0], middle[-1])
        return np.exp(np.interp(ell, middle, np.log(middle**2 * power))) / ell**2


def _taper(n: int) -> np.ndarray:
    """One in the middle, with a cosine to zero at the ends."""
    x = (np.arange(n) + 0.5) / n
    edge = np.minimum(np.minimum(x, 1 - x) / TAPER, 1)
    return 0.5 - 0.5 * np.cos(np.pi * edge)
