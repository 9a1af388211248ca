"""Minkowski functionals of a map: area, boundary and Euler characteristic above thresholds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlsky.statistics import checks

__all__ = ["functionals"]


def functionals(field: NDArray, thresholds: Sequence[float]) -> NDArray[np.float64]:
    """V0, V1 and V2 (3, thresholds) of the parts of a map (n, m) above each threshold.

    V0 is their fraction of the area, V1 a quarter of the length of their boundary per area, V2
    their number minus that of their holes per area; lengths in pixels. Nothing is assumed outside
    the edges of the map.

    Raises
    ------
    ValueError
        If it is not one map, or not finite.

    Notes
    -----
    The boundary is measured by Crofton's formula from how often lines of pixels along x, y
    and both diagonals cross it: length per area = pi / 2 times crossings per length. The Euler
    characteristic counts squares of four pixels with one or with three above the threshold,
    (n1 - n3) / 4, the mean of its values for pixels that touch at corners being joined and not
    (Gray 1971, IEEE Trans. Comput. C-20, 551). Both are those of the continuous field where
    it is smooth on the scale of a pixel.
    """
    field = checks.plane(field)
    out = np.empty((3, len(thresholds)))
    for t, threshold in enumerate(thresholds):
        above = (field > threshold).view(np.uint8)
        square = above[:-1, :-1] + above[:-1, 1:] + above[1:, :-1] + above[1:, 1:]
        kinds = np.bincount(square.ravel(), minlength=5)
        rates = (
            np.count_nonzero(above[1:] != above[:-1]) / above[1:].size,
            np.count_nonzero(above[:, 1:] != above[:, :-1]) / above[:, 1:].size,
            np.count_nonzero(above[1:, 1:] != above[:-1, :-1]) / square.size / np.sqrt(2),
            np.count_nonzero(above[1:, :-1] != above[:-1, 1:]) / square.size / np.sqrt(2),
        )
        out[:, t] = (
            above.mean(dtype=np.float64),
            np.pi / 8 * np.mean(rates),
            (kinds[1] - kinds[3]) / 4 / square.size,
        )
    return out
