"""Maxima and minima of maps by height, and how many a Gaussian field has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlsky.statistics import onepoint
from mlsky.statistics.checks import images

__all__ = ["counts"]


def counts(field: NDArray, thresholds: Sequence[float], periodic: bool = True) -> NDArray[np.int64]:
    """Maxima above and minima below each threshold (2, thresholds) of a map (n, n).

    A maximum is higher, a minimum lower than its eight neighbours.

    Parameters
    ----------
    field
        The map; smooth it first, or noise decides.
    thresholds
        In the unit of the map, rising.
    periodic
        Whether opposite edges join; if not, pixels at the edges are left out.

    Raises
    ------
    ValueError
        If it is not one square map, or not finite.
    """
    field = images(field, name="field")
    if field.ndim != 2:
        raise ValueError(f"field of shape {field.shape}: must be one map, (n, n)")
    above = onepoint.peaks(field, thresholds, periodic)
    below = onepoint.peaks(-field, [-t for t in thresholds], periodic)
    return np.stack([above, below])
