"""Jackknife errors of any statistic of means over regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from mlsky.statistics.checks import enough

__all__ = ["jackknife"]

GROUPS = 64  # at most so many evaluations; more regions are left out several at a time


def jackknife(
    statistic: Callable[[dict[str, NDArray]], NDArray], samples: Mapping[str, NDArray]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A statistic of the means over regions, and its error.

    Parameters
    ----------
    statistic
        Function of the means *(...)* by name to numbers (k,).
    samples
        By name, *(regions, ...)*, the same regions in all; truth and generated maps of one
        region are left out together, so that common variance does not count as error.

    Returns
    -------
    value, error : (k,)
        Errors of fewer than two regions are NaN.

    Raises
    ------
    ValueError
        If there are no regions, or not the same number in all samples.
    """
    counts = {name: len(x) for name, x in samples.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"samples of {counts} regions: must be the same number in all")
    enough(min(counts.values()), 1, "a mean over regions")
    sums = {name: np.sum(x, 0, dtype=np.float64) for name, x in samples.items()}
    regions = len(next(iter(samples.values())))
    value = np.asarray(statistic({name: x / regions for name, x in sums.items()}), np.float64)
    groups = min(regions, GROUPS)
    if groups < 2:
        return value, np.full_like(value, np.nan)
    without = []
    for part in np.array_split(np.arange(regions), groups):
        left = regions - len(part)
        means = {
            name: (total - np.sum(samples[name][part], 0, dtype=np.float64)) / left
            for name, total in sums.items()
        }
        without.append(statistic(means))
    without = np.array(without)
    spread = ((without - without.mean(0)) ** 2).sum(0)
    return value, np.sqrt((groups - 1) / groups * spread)
