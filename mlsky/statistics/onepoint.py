"""One-point statistics: histograms, quantiles, counts, peaks, conditional means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky.statistics import checks

__all__ = ["Histogram", "conditional_sums", "frame", "peaks", "smooth"]


class Histogram:
    """Counts in fixed bins that are fine near zero and logarithmic far from it.

    Counts of many maps may be added, and quantiles taken of the sum.

    Parameters
    ----------
    scale
        Value up to which bins are about equally wide.
    largest
        Values beyond plus or minus this one are counted at it.
    bins
        Their number.
    """

    def __init__(self, scale: float, largest: float, bins: int = 8192) -> None:
        self.scale, self.bins = float(scale), bins
        self._reach = float(np.arcsinh(largest / scale))
        self.edges = scale * np.sinh(np.linspace(-self._reach, self._reach, bins + 1))

    def count(self, values: NDArray) -> NDArray[np.int32]:
        """Counts (bins,) of values of any shape.

        Raises
        ------
        ValueError
            If there are NaN among them.
        """
        if np.isnan(np.min(values, initial=0)):
            raise ValueError("values: hold NaN; they have no place in a histogram")
        position = np.arcsinh(values.ravel() * np.float32(1 / self.scale))
        position = (position / self._reach + 1) * (self.bins / 2)
        index = np.clip(position, 0, self.bins - 1).astype(np.int64)
        return np.bincount(index, minlength=self.bins).astype(np.int32)

    def quantile(self, counts: NDArray, fraction: ArrayLike) -> NDArray[np.float64]:
        """Values below which these fractions of the counts lie, interpolated in the bins."""
        below = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])
        wanted = np.asarray(fraction) * below[-1]
        bin = np.clip(np.searchsorted(below, wanted, side="left") - 1, 0, self.bins - 1)
        inside = (wanted - below[bin]) / np.maximum(below[bin + 1] - below[bin], 1e-300)
        return self.edges[bin] + np.clip(inside, 0, 1) * (self.edges[bin + 1] - self.edges[bin])

    def above(self, counts: NDArray, value: ArrayLike) -> NDArray[np.float64]:
        """Number of counts above values."""
        below = np.concatenate([[0.0], np.cumsum(counts, dtype=np.float64)])
        return below[-1] - np.interp(value, self.edges, below)


def smooth(modes: NDArray, ell: NDArray, fwhm_arcmin: float) -> NDArray:
    """Fourier modes times a Gaussian beam; `ell` is the multipole of each."""
    sigma = np.radians(fwhm_arcmin / 60) / np.sqrt(8 * np.log(2))
    return modes * np.exp(-((ell * sigma) ** 2) / 2).astype(np.float32)


def peaks(field: NDArray, thresholds: Sequence[float], periodic: bool = True) -> NDArray[np.int64]:
    """Number of pixels above each threshold that are higher than their eight neighbours.

    Pixels at the edge of a map that is not periodic are left out.

    Raises
    ------
    ValueError
        If it is not one map, or not finite.
    """
    field = checks.plane(field)
    if periodic:
        field = np.pad(field, 1, mode="wrap")
    middle = field[1:-1, 1:-1]
    candidates = middle > min(thresholds)
    ny, nx = middle.shape
    for dy in range(3):
        for dx in range(3):
            if (dy, dx) != (1, 1):
                candidates &= middle > field[dy : dy + ny, dx : dx + nx]
    heights = middle[candidates]
    return np.array([np.count_nonzero(heights > t) for t in thresholds])


def conditional_sums(
    condition: NDArray, edges: Sequence[float], values: Sequence[NDArray]
) -> NDArray[np.float64]:
    """Sums in bins of a condition, (1 + values, bins): of ones, then of each of the values.

    There is one bin below the first edge, and one above the last.
    """
    where = np.digitize(condition.ravel(), edges)
    rows = [np.bincount(where, minlength=len(edges) + 1).astype(np.float64)]
    rows += [np.bincount(where, v.ravel(), len(edges) + 1) for v in values]
    return np.array(rows)


def frame(n: int, patch: int, width: int) -> NDArray[np.bool_]:
    """Pixels (n, n) within `width` of the edges of the patches that a map is a mosaic of."""
    place = np.arange(n) % patch
    near = (place < width) | (place >= patch - width)
    return near[:, None] | near[None]
