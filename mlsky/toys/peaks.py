"""Peaks of images: local maxima, with stacks and profiles.

`mlsky.toys.matched` finds blobs with a matched filter instead, which is robust to noise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky.statistics import checks
from mlsky.toys.image_statistics import stack_of

__all__ = ["HALF", "PeakStack", "Stacked", "local_maxima", "radial"]

#: Pixels beside the middle of a cutout of 21 x 21.
HALF = 10


def local_maxima(image: ArrayLike, threshold: float = 0.0) -> NDArray[np.int64]:
    """Pixels above a threshold that are higher than all eight neighbours: rows (peaks, 2) y, x.

    The pixels at the edges count if they are higher than the neighbours that they have. Of a flat
    top none does.
    """
    image = stack_of(image)
    if len(image) != 1:
        raise ValueError(f"{len(image)} images: maxima are of one at a time")
    padded = np.pad(image[0], 1, constant_values=-np.inf)
    n = image.shape[-1]
    is_peak = image[0] > threshold
    for dy in range(3):
        for dx in range(3):
            if (dy, dx) != (1, 1):
                is_peak &= image[0] > padded[dy : dy + n, dx : dx + n]
    return np.argwhere(is_peak)


def radial(cutout: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of a square cutout in rings of one pixel about its middle: radii, values.

    Radii are the mean distance of the pixels of a ring.
    """
    cutout = stack_of(cutout)[0]
    n = len(cutout)
    if n % 2 == 0:
        raise ValueError(f"cutout of {n} pixels: must be odd, to have a middle")
    away = np.hypot(*np.indices((n, n)) - n // 2)
    ring = np.rint(away).astype(int).ravel()
    inside = ring <= n // 2
    many = np.bincount(ring[inside])
    r, value = (np.bincount(ring[inside], x.ravel()[inside]) / many for x in (away, cutout))
    return r, value


class Stacked(NamedTuple):
    """The mean cutout of many peaks."""

    stack: NDArray[np.float64]  # (2 half + 1, 2 half + 1)
    radius: NDArray[np.float64]  # pixels
    profile: NDArray[np.float64]  # mean of the stack at those radii
    peaks: int  # stacked
    per_image: float  # peaks found, those too near an edge for a cutout included


class PeakStack:
    """Stack of cutouts about peaks of many images.

    Parameters
    ----------
    threshold
        Lowest height of a peak.
    half
        Pixels beside the middle of a cutout.
    """

    def __init__(self, threshold: float = 0.0, half: int = HALF) -> None:
        if half < 1:
            raise ValueError(f"half={half}: must be at least 1 pixel")
        self.threshold, self.half = threshold, half
        self._sum = np.zeros((2 * half + 1, 2 * half + 1))
        self._peaks = self._found = self._images = 0

    def update(self, maps: ArrayLike, places: list[NDArray] | None = None) -> None:
        """Add images.

        Parameters
        ----------
        maps
            Images.
        places
            Of each image, rows of y, x (further columns are not read) where something else found
            peaks, such as `mlsky.toys.matched.find`; the nearest pixels are the middles.
            By default the local maxima.

        Raises
        ------
        ValueError
            If images are not square and finite, are smaller than a cutout, or are not as many as
            the places.
        """
        maps = stack_of(maps)
        n, h = maps.shape[-1], self.half
        if n < 2 * h + 1:
            raise ValueError(f"images of {n} pixels: cutouts have {2 * h + 1}; lower half={h}")
        if places is None:
            places = [local_maxima(image, self.threshold) for image in maps]
        if len(places) != len(maps):
            raise ValueError(f"places of {len(places)} images, {len(maps)} images: must be as many")
        for image, found in zip(maps, places, strict=True):
            for place in found:
                y, x = np.rint(place[:2]).astype(int)
                if h <= y < n - h and h <= x < n - h:
                    self._sum += image[y - h : y + h + 1, x - h : x + h + 1]
                    self._peaks += 1
            self._found += len(found)
        self._images += len(maps)

    def compute(self) -> Stacked:
        """The mean cutout, its profile, and how many peaks there were.

        Raises
        ------
        ValueError
            If there was no peak with room for a cutout.
        """
        checks.enough(self._images, 1, "a stack")
        if not self._peaks:
            raise ValueError(
                f"no peak above {self.threshold} with {self.half} pixels about it: lower the "
                "threshold, or give more images"
            )
        stack = self._sum / self._peaks
        return Stacked(stack, *radial(stack), self._peaks, self._found / self._images)
