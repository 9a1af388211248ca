"""Smooth fields on a chart: evaluated on coarser pixels, then interpolated."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mlsky.sphere.charts import Chart

__all__ = ["on_chart", "refine"]

#: Coarse pixels looked up around a chart: at its edge a spline still feels the end of its values
#: by 0.27 to this power.
EDGE = 5


def on_chart(field: Callable, chart: Chart, coarsest_arcmin: float) -> NDArray[np.float32]:
    """Values of smooth fields on a chart, (ny, nx) float32, or (n, ny, nx) for n fields.

    Parameters
    ----------
    field
        Called with colatitudes and longitudes (rad), as `mlsky.sphere.field.Field`.
    coarsest_arcmin
        Side of the pixels on which the fields are evaluated, at most; pixels of the chart are
        combined by powers of two as far as its sides allow.
    """
    level = 0
    while chart.pixel_arcmin * 2 ** (level + 1) <= coarsest_arcmin and not (
        chart.shape[0] | chart.shape[1]
    ) % 2 ** (level + 1):
        level += 1
    step = 1 << level
    edge = EDGE if level else 0  # coarse pixels around the chart
    larger = dataclasses.replace(chart, shape=tuple(n + 2 * edge * step for n in chart.shape))
    v = larger.vectors(level=level)
    theta, phi = np.arctan2(np.hypot(v[0], v[1]), v[2]), np.arctan2(v[1], v[0])
    values = field(theta, phi)
    coarse = values.reshape(*values.shape[:-1], *(n >> level for n in larger.shape))
    fine = refine(coarse, step)
    ny, nx = chart.shape
    return fine[..., edge * step : edge * step + ny, edge * step : edge * step + nx]


def refine(coarse: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Maps (..., ny, nx) on `factor` times finer pixels, by cubic splines through their values.

    Beyond the edges the values are mirrored. The error for a wave of nine pixels is 2e-3.
    """
    if factor == 1:
        return coarse
    from scipy.ndimage import spline_filter

    rows, columns = (_weights(n, factor) for n in coarse.shape[-2:])
    out = []
    for values in coarse.reshape(-1, *coarse.shape[-2:]):
        c = spline_filter(values, 3, output=np.float32, mode="mirror")
        # along the short side of the memory first, so that the large product goes row by row
        out.append(rows @ np.ascontiguousarray((columns @ np.ascontiguousarray(c.T)).T))
    return np.stack(out).reshape(*coarse.shape[:-2], *out[0].shape)


@functools.lru_cache(maxsize=32)
def _weights(n: int, factor: int):
    """Sparse (factor n, n) matrix from coefficients of cubic B-splines to values."""
    from scipy.sparse import csr_array

    place = (np.arange(n * factor) + 0.5) / factor - 0.5
    first = np.floor(place).astype(int)
    u = place - first
    taps = [(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, 3 * (u + u**2 - u**3) + 1, u**3]
    index = np.abs(first[:, np.newaxis] + np.arange(-1, 3))
    index = n - 1 - np.abs(n - 1 - index)
    row = np.repeat(np.arange(n * factor), 4)
    weights = (np.stack(taps, 1) / 6).astype(np.float32)
    return csr_array((weights.ravel(), (row, index.ravel())), shape=(n * factor, n))
