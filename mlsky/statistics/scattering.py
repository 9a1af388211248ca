"""Wavelet scattering coefficients of images: means of moduli of wavelet transforms.

Mallat 2012 (Comm. Pure Appl. Math. 65, 1331); for cosmology Cheng et al. 2020 (MNRAS 499, 5902).
With * a convolution, psi(j, t) a Morlet wavelet of scale 2^j pixels and angle t, and <> the mean
of the image,

    S1(j, t) = < |x * psi(j, t)| >
    S2(j, t, j', t') = < | |x * psi(j, t)| * psi(j', t') | >,  j' > j.

The wavelets are those of kymatio (Andreux et al. 2020, JMLR 21, 1), opposite edges of an image
join, and every modulus is taken at the pixels that its scale needs.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mlsky.statistics.checks import images

__all__ = ["Scattering", "morlet"]

#: Standard deviation (pixels), wave number (radians per pixel) and shape of the smallest wavelet:
#: those of kymatio 0.3.
WIDTH, WAVE = 0.8, 3 * math.pi / 4
BATCH = 16  # images at once: 40 MB for 128 pixels


def morlet(n: int, j: int, angle: float, angles: int) -> NDArray[np.float32]:
    """Transform (n, n) of a Morlet wavelet, which is real.

    Parameters
    ----------
    n
        Pixels along a side.
    j
        Its scale is 2^j pixels.
    angle
        Of its wave, in radians.
    angles
        How many angles there are; the more, the narrower each.
    """
    sigma, wave, slant = WIDTH * 2**j, WAVE / 2**j, 4 / angles
    cos, sin = math.cos(angle), math.sin(angle)
    # periodic: the images within two sides
    y, x = np.meshgrid(np.arange(-2 * n, 3 * n), np.arange(-2 * n, 3 * n), indexing="xy")
    along, across = x * cos + y * sin, -x * sin + y * cos
    bell = np.exp(-(along**2 + (slant * across) ** 2) / (2 * sigma**2))
    envelope = _folded(bell, n)
    signal = _folded(bell * np.exp(1j * wave * along), n)
    signal -= envelope * (signal.sum() / envelope.sum())
    signal *= slant / (2 * math.pi * sigma**2)
    return np.fft.fft2(signal).real.astype(np.float32)


def _folded(field: NDArray, n: int) -> NDArray:
    """Sum over the images of a periodic plane, the origin first."""
    return field.reshape(5, n, 5, n).sum((0, 2))


class Scattering:
    """Scattering coefficients of images of one size, averaged over the image and over turns.

    Parameters
    ----------
    n
        Pixels along a side, a multiple of 2^scales.
    scales
        Wavelets of 1, 2, 4 ... pixels.
    angles
        Angles of the wavelets within half a turn, even.

    Raises
    ------
    ValueError
        If the size does not suit the scales, or there are too few scales or angles.
    """

    def __init__(self, n: int, scales: int = 5, angles: int = 4) -> None:
        if scales < 1 or n % 2**scales:
            raise ValueError(
                f"scales={scales}: must be 1 or more and {n} pixels a multiple of 2^scales"
            )
        if angles < 2 or angles % 2:
            raise ValueError(f"angles={angles}: must be even and at least 2")
        self.n, self.scales, self.angles = n, scales, angles
        turns = [(angles // 2 - 1 - t) * math.pi / angles for t in range(angles)]
        whole = [np.stack([morlet(n, j, t, angles) for t in turns]) for j in range(scales)]
        # of images with fewer pixels only the lower wave numbers are there
        self._psi = {
            (j, r): _lower(psi, r) for j, psi in enumerate(whole) for r in range(max(j, 1))
        }
        #: Pairs of scales of the second order.
        self.pairs = [(a, b) for a in range(scales) for b in range(a + 1, scales)]

    @property
    def names(self) -> list[str]:
        """Of the features: first order by scale, second by scales and the turn between them."""
        first = [f"S1 {2**j}" for j in range(self.scales)]
        steps = [180 * t / self.angles for t in range(self.angles // 2 + 1)]
        return first + [f"S2 {2**a} {2**b} {t:g}" for a, b in self.pairs for t in steps]

    def coefficients(self, maps: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """All coefficients of images (..., n, n).

        Returns
        -------
        first : (..., scales, angles)
        second : (..., pairs, angles, angles)
            In the order of `pairs`; the angle of the first wavelet before that of the second.

        Raises
        ------
        ValueError
            If images are of another size, or not finite.
        """
        maps = images(maps, self.n)
        flat = maps.reshape(-1, self.n, self.n).astype(np.float32)
        parts = [self._batch(flat[i : i + BATCH]) for i in range(0, len(flat), BATCH)]
        first, second = (np.concatenate(p) for p in zip(*parts, strict=True))
        lead = maps.shape[:-2]
        return first.reshape(*lead, *first.shape[1:]), second.reshape(*lead, *second.shape[1:])

    def _batch(self, maps: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
        from scipy import fft

        turns = self.angles
        first = np.empty((len(maps), self.scales, turns))
        second = np.empty((len(maps), len(self.pairs), turns, turns))
        modes = fft.fft2(maps)
        for a in range(self.scales):
            moduli = np.abs(fft.ifft2(_fewer(modes[:, None] * self._psi[a, 0], a)))
            first[:, a] = moduli.mean((-2, -1), dtype=np.float64)
            again = fft.fft2(moduli) if a + 1 < self.scales else None
            for b in range(a + 1, self.scales):
                psi = self._psi[b, a]
                for t in range(turns):
                    turned = fft.ifft2(_fewer(again[:, t, None] * psi, b - a))
                    mean = np.abs(turned).mean((-2, -1), dtype=np.float64)
                    second[:, self.pairs.index((a, b)), t] = mean
        return first, second

    def features(self, maps: NDArray) -> NDArray[np.float64]:
        """ln S1 and ln S2 / S1 of images (..., n, n) by scale, as (..., features).

        Averaged over turns and reflections of the image; S2 over the S1 of its first wavelet does
        not depend on the amplitude.

        Raises
        ------
        ValueError
            If an image is constant, of another size, or not finite.
        """
        first, second = self.coefficients(images(maps, self.n, varied=True))
        s1 = first.mean(-1)
        between = abs(np.subtract.outer(np.arange(self.angles), np.arange(self.angles)))
        between = np.minimum(between, self.angles - between)
        s2 = np.stack([second[..., between == t].mean(-1) for t in range(self.angles // 2 + 1)], -1)
        below = s1[..., [a for a, _ in self.pairs], None]
        tiny = np.finfo(np.float64).tiny
        ratios = np.log(np.maximum(s2, tiny) / np.maximum(below, tiny))
        return np.concatenate(
            [np.log(np.maximum(s1, tiny)), ratios.reshape(*ratios.shape[:-2], -1)], -1
        )


def _lower(modes: NDArray, r: int) -> NDArray:
    """The wave numbers (..., n / 2^r, n / 2^r) nearest to zero."""
    if not r:
        return modes
    half = modes.shape[-1] >> (r + 1)
    keep = np.r_[:half, -half:0]
    return np.ascontiguousarray(modes[..., keep, :][..., keep])


def _fewer(modes: NDArray, r: int) -> NDArray:
    """Transform of every 2^r-th pixel: aliases added up."""
    if not r:
        return modes
    n, step = modes.shape[-1] >> r, 1 << r
    return modes.reshape(*modes.shape[:-2], step, n, step, n).mean((-4, -2))
