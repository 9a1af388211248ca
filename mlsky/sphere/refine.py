"""Smooth fields on a chart: evaluated on coarser pixels, then interpolated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mlsky.sphere.charts import Chart

__all__ = ["on_chart", "refine"]


def on_chart(field: Callable, chart: Chart, coarsest_arcmin: float) -> NDArray[np.float32]:
    """Values of a smooth field on a chart, (ny, nx) float32.

    Parameters
    ----------
    field
        Called with colatitudes and longitudes (rad), as `mlsky.sphere.field.Field`.
    coarsest_arcmin
        Side of the pixels on which the field is evaluated, at most; pixels of the chart are
        combined by powers of two as far as its sides allow.
    """
    level = 0
    while chart.pixel_arcmin * 2 ** (level + 1) <= coarsest_arcmin and not (
        chart.shape[0] | chart.shape[1]
    ) % 2 ** (level + 1):
        level += 1
    v = chart.vectors(level=level)
    theta, phi = np.arctan2(np.hypot(v[0], v[1]), v[2]), np.arctan2(v[1], v[0])
    coarse = field(theta, phi).reshape([n >> level for n in chart.shape])
    return refine(coarse, 2**level)


def refine(coarse: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Cubic convolution (Keys 1981, doi:10.1109/TASSP.1981.1163711) on `factor` x finer pixels."""
    if factor == 1:
        return coarse
    rows, columns = (_weights(n, factor) for n in coarse.shape)
    # along the short side of the memory first, so that the large product goes row by row
    return rows @ np.ascontiguousarray((columns @ np.ascontiguousarray(coarse.T)).T)


def _weights(n: int, factor: int):
    """Sparse (factor n, n) matrix of cubic convolution, a = -1/2, edges replicated."""
    from scipy.sparse import csr_array

    place = (np.arange(n * factor) + 0.5) / factor - 0.5
    first = np.floor(place).astype(int)
    u = place - first
    taps = np.stack(
        [
            ((2 - u) * u - 1) * u / 2,
            (3 * u - 5) * u * u / 2 + 1,
            ((4 - 3 * u) * u + 1) * u / 2,
            (u - 1) * u * u / 2,
        ],
        1,
    ).astype(np.float32)
    index = np.clip(first[:, None] + np.arange(-1, 3), 0, n - 1)
    row = np.repeat(np.arange(n * factor), 4)
    return csr_array((taps.ravel(), (row, index.ravel())), shape=(n * factor, n))
