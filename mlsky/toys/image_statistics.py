"""Pixels, marginal sums and Fourier power of single images.

Images are (N, n, n) or (N, 1, n, n), in any unit; lengths are pixels. The functions give
numbers per image, so that `mlsky.statistics.streaming.Averages` can add them up over any number of
images:

    power = Averages(lambda maps: {"power": images.power(maps)})
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky.statistics import checks

__all__ = [
    "Pixels",
    "fourier",
    "marginals",
    "near",
    "power",
    "rings",
    "stack_of",
]

#: Number of images of a histogram.
HISTOGRAM_IMAGES = 128


def stack_of(maps: ArrayLike, least: int = 1, name: str = "images") -> NDArray[np.float64]:
    """Images of one channel as (N, n, n) float64.

    Raises
    ------
    ValueError
        If they are not square, not finite, of several channels, or fewer than `least`.
    """
    maps = checks.images(np.asarray(maps), name=name)
    if maps.ndim == 2:
        maps = maps[None]
    if maps.ndim == 4 and maps.shape[1] == 1:
        maps = maps[:, 0]
    if maps.ndim != 3:
        raise ValueError(f"{name} of shape {maps.shape}: must be (N, n, n) or (N, 1, n, n)")
    checks.enough(len(maps), least, f"a statistic of {name}")
    return maps.astype(np.float64)


class Pixels:
    """Histogram of the pixels of many images, in equal bins, with their range.

    Parameters
    ----------
    lowest, highest
        Of the bins. Pixels beyond count in the first or last bin, and in `range`.
    bins
        Their number.

    Raises
    ------
    ValueError
        If there is no room between `lowest` and `highest`.
    """

    def __init__(self, lowest: float, highest: float, bins: int = 2000) -> None:
        if not lowest < highest or bins < 1:
            raise ValueError(f"{lowest} to {highest} in {bins} bins: must rise, in at least 1 bin")
        self.edges = np.linspace(lowest, highest, bins + 1)
        self.counts = np.zeros(bins, np.int64)
        self.images = 0
        self.range = (np.inf, -np.inf)

    def update(self, maps: ArrayLike) -> None:
        """Add images."""
        maps = stack_of(maps)
        index = (maps.ravel() - self.edges[0]) / (self.edges[1] - self.edges[0])
        last = len(self.counts) - 1
        self.counts += np.bincount(
            np.clip(index, 0, last).astype(np.int64), minlength=len(self.counts)
        )
        self.range = (min(self.range[0], maps.min()), max(self.range[1], maps.max()))
        self.images += len(maps)

    def compute(self) -> NDArray[np.float64]:
        """Probability density of a pixel (bins,)."""
        checks.enough(self.images, 1, "a histogram")
        return self.counts / (self.counts.sum() * np.diff(self.edges))

    def quantile(self, fraction: ArrayLike) -> NDArray[np.float64]:
        """Values below which these shares of all pixels lie, to a bin's width."""
        checks.enough(self.images, 1, "a quantile")
        below = np.concatenate([[0], np.cumsum(self.counts)]) / self.counts.sum()
        # flat parts of the curve hold no pixels: each value of it must be there once
        below, first = np.unique(below, return_index=True)
        return np.interp(fraction, below, self.edges[first])


def marginals(maps: ArrayLike) -> NDArray[np.float64]:
    """Sums over columns, then over rows: (N, 2, n), brightness along y and along x."""
    maps = stack_of(maps)
    return np.stack([maps.sum(2), maps.sum(1)], 1)


def fourier(maps: ArrayLike) -> NDArray[np.complex128]:
    """Modes (N, n, n) with the zero mode in the middle, unitary: |modes|^2 sums as pixels^2 do."""
    modes = np.fft.fft2(stack_of(maps), norm="ortho")
    return np.fft.fftshift(modes, (1, 2))


@functools.lru_cache(maxsize=8)
def rings(n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Wavenumber of each ring (n // 2 + 1,), cycles per image, and the ring of each mode (n, n).

    A ring holds the modes that are nearest to a whole wavenumber; those beyond Nyquist's are in a
    last one that has no number. The zero mode is a ring of its own.
    """
    k = np.fft.fftshift(np.fft.fftfreq(n, 1 / n))
    ring = np.rint(np.hypot(k[:, None], k[None])).astype(np.int64)
    return np.arange(n // 2 + 1.0), np.minimum(ring, n // 2 + 1)


def power(maps: ArrayLike) -> NDArray[np.float64]:
    """Power spectrum (N, n // 2 + 1) of each image: the mean of |modes|^2 in `rings`."""
    modes = fourier(maps)
    n = modes.shape[-1]
    _, ring = rings(n)
    where = ring.ravel()
    many = np.bincount(where, minlength=n // 2 + 2)[:-1]
    square = (modes.real**2 + modes.imag**2).reshape(len(modes), -1)
    sums = [np.bincount(where, row, n // 2 + 2)[:-1] for row in square]
    return np.array(sums) / many


def near(made: ArrayLike, true: ArrayLike, fraction: float = 0.9) -> float:
    """Share of images that are as near to a true one as this fraction of true ones is to another.

    By the distance of all pixels. So it is about `fraction` for other true images. Of the digits of
    8 x 8 pixels, the mean of all is not near to any, and 45 % of the means of two are. Blurred
    images are near to many.

    Parameters
    ----------
    made, true
        (N, n, n) or (N, 1, n, n). True images that occur twice have no distance between them; give
        each once.
    fraction
        Of the true images.

    Raises
    ------
    ValueError
        If the images are of different sizes, the true ones fewer than two, or the fraction is not
        between 0 and 1.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction}: must be in 0 to 1")
    made, true = stack_of(made, 1, "made"), stack_of(true, 2, "true")
    if made.shape[1:] != true.shape[1:]:
        raise ValueError(
            f"made {made.shape} and true {true.shape}: must be images of one size, (N, n, n)"
        )
    to_others = _square_distances(true, true)
    np.fill_diagonal(to_others, np.inf)
    limit = np.quantile(to_others.min(1), fraction)
    return float((_square_distances(made, true).min(1) <= limit).mean())


def _square_distances(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """(len(a), len(b)) sums of squared differences of pixels."""
    a, b = (x.reshape(len(x), -1) for x in (a, b))
    return (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
