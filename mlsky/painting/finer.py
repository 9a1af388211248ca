"""Maps on pixels half as large as those of the networks.

Above the Nyquist multipole of 1' pixels, l = 10800, kSZ, tSZ and kappa have almost no power: they
are interpolated. kSZ is interpolated linearly, and the window of the large pixels is replaced by
that of the small ones. tSZ contains groups hardly wider than a pixel, around which a linear
interpolation would ring and change sign. Its logarithm is interpolated instead, and the mean of
every four pixels restored. The CIB does have power there, the shot noise of its sources: every
pixel is split at random into four, with the scatter that painted truth has on such pixels. The mean
of the four is kept, so that a seed gives the same sky on both pixel sizes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import seeds
from mlsky.components import maps_of

if TYPE_CHECKING:
    from mlsky.networks.weights import Weights
    from mlsky.sphere.charts import Chart
    from mlsky.sphere.geometry import Geometry

__all__ = [
    "CHILDREN",
    "FILTER_RADIUS",
    "coarser",
    "finer_chart",
    "fit_split",
    "halved",
    "halves_pixels",
    "interpolate",
    "interpolate_positive",
    "split",
]

#: Output pixels smaller than this fraction of the networks' use maps on pixels half as large.
FINE = 0.9
#: Half width of the filter in pixels, and the shape parameter of its Kaiser window.
FILTER_RADIUS, KAISER = 8, 6.0
#: Lower limit, relative to the mean, of values in the logarithm of `interpolate_positive`.
FAINTEST = 0.01
#: Pixels that one is split into.
CHILDREN = 4
#: Widths at which the concentration of the split is tabulated, and the random numbers used for
#: each: accurate to a thousandth.
WIDTHS, DRAWN = np.linspace(0, 8, 65), 20_000
#: Quantiles of the pixels between the nodes of the table of `fit_split`; steps of 3 for bright
#: ones.
FRACTIONS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.85, 0.95, 0.98, 0.993, 0.998, 0.9993, 0.9998)


def halves_pixels(weights: Weights, geometry: Geometry) -> bool:
    """Whether maps are put on pixels half as large as the networks' before they are sampled.

    For weights whose calibration says how their CIB is split (`fit_split`).
    """
    table = weights.header.get("calibration", {}).get("split")
    return table is not None and min(geometry.sides_arcmin) < FINE * weights.pixel_arcmin


def halved(
    maps: Mapping[str, NDArray[np.float32]],
    normals: Sequence[NDArray[np.float32]],
    table: Mapping[str, Sequence[float]],
) -> dict[str, NDArray[np.float32]]:
    """Maps of a chart on pixels half as large: the CIB split, the others interpolated.

    Parameters
    ----------
    maps
        (ny, nx) each, by name.
    normals
        Standard normal numbers (4, ny, nx), in a list of one.
    table
        From `fit_split`.
    """
    cib = maps_of(maps, "cib")
    out = {}
    if "ksz" in maps:
        out["ksz"] = interpolate(maps["ksz"])
    if "tsz" in maps:  # nowhere positive
        out["tsz"] = -interpolate_positive(-maps["tsz"])
    if cib:
        out |= dict(zip(cib, split([maps[n] for n in cib], normals[0], table), strict=True))
    return out


def finer_chart(chart: Chart) -> Chart:
    """The same chart with pixels half as large."""
    ny, nx = chart.shape
    return dataclasses.replace(chart, shape=(2 * ny, 2 * nx), pixel_arcmin=chart.pixel_arcmin / 2)


def coarser(field: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means (..., ny, nx) of four pixels of maps (..., 2 ny, 2 nx)."""
    *rest, ny, nx = field.shape
    return field.reshape(*rest, ny // 2, 2, nx // 2, 2).mean((-3, -1))


def interpolate(fields: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pixel averages (..., ny, nx) as averages (..., 2 ny, 2 nx) over pixels half as large.

    Modes are divided by the window of the large pixels and multiplied by that of the small ones,
    accurate to 2e-3 up to three quarters of the Nyquist wave number. A pixel depends on pixels up
    to `FILTER_RADIUS` away. Outside the map all values count as zero.
    """
    out = np.asarray(fields, np.float32)
    for axis in (-2, -1):
        out = np.moveaxis(out, axis, -1)
        n = out.shape[-1]
        padded = np.pad(out, [(0, 0)] * (out.ndim - 1) + [(FILTER_RADIUS, FILTER_RADIUS)])
        fine = np.zeros((*out.shape, 2), np.float32)
        for phase, taps in enumerate(_taps()):
            for i, tap in enumerate(taps):
                fine[..., phase] += tap * padded[..., i : i + n]
        out = np.moveaxis(fine.reshape(*out.shape[:-1], 2 * n), -1, axis)
    return out


def interpolate_positive(fields: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pixel averages (..., ny, nx) >= 0 as averages (..., 2 ny, 2 nx) over pixels half as large.

    The logarithm is interpolated and the mean of each pixel restored: no value is negative, and
    peaks as narrow as a pixel do not ring. On painted tSZ of groups, from 1' to 0.5' pixels, the
    power is that of the truth within 3 % up to l = 9000 (linear: 10 %), and the correlation
    .98 at 7000-9000 (.96).
    """
    fields = np.asarray(fields, np.float32)
    least = max(FAINTEST * float(fields.mean(dtype=np.float64)), np.finfo(np.float32).tiny)
    fine = np.exp(interpolate(np.log(np.maximum(fields, least))))
    restored = fields / coarser(fine)
    return fine * restored.repeat(2, -2).repeat(2, -1)


@functools.cache
def _taps() -> NDArray[np.float32]:
    """Weights (2, 2 FILTER_RADIUS + 1) of the pixels around the first and the second of a pair.

    The ideal filter multiplied by a Kaiser window.
    """
    k = (np.arange(4096) + 0.5) / 8192  # cycles per pixel, to the Nyquist wave number
    ratio = np.sinc(k / 2) / np.sinc(k)
    away = np.arange(-FILTER_RADIUS, FILTER_RADIUS + 1)
    taps = []
    for shift in (-0.25, 0.25):
        distance = away - shift
        ideal = (ratio * np.cos(2 * np.pi * k * distance[:, None])).mean(1)
        inside = np.sqrt(np.maximum(1 - (distance / (FILTER_RADIUS + 0.5)) ** 2, 0))
        taken = ideal * np.i0(KAISER * inside)
        taps.append(taken / taken.sum())
    return np.array(taps, np.float32)


def split(
    fields: Sequence[NDArray[np.float32]],
    normals: NDArray[np.float32],
    table: Mapping[str, Sequence[float]],
) -> list[NDArray[np.float32]]:
    """Each pixel of maps (ny, nx) as four of random heights, whose mean is its own.

    Parameters
    ----------
    fields
        Maps, nowhere negative, that are split with the same weights, for example the templates of
        the CIB. The width follows from the first one.
    normals : (4, ny, nx)
        Standard normal numbers.
    table
        From `fit_split`.

    Returns
    -------
    list of (2 ny, 2 nx)
    """
    first = fields[0]
    width = np.interp(first, table["value"], table["width"]).astype(np.float32)
    weights = width * normals
    weights -= weights.max(0)
    np.exp(weights, out=weights)
    weights *= CHILDREN / weights.sum(0)
    out = []
    for field in fields:
        ny, nx = field.shape
        fine = np.empty((ny, 2, nx, 2), np.float32)
        for child in range(CHILDREN):
            fine[:, child // 2, :, child % 2] = field * weights[child]
        out.append(fine.reshape(2 * ny, 2 * nx))
    return out


def fit_split(truth: Sequence[NDArray[np.float32]]) -> dict[str, list[float]]:
    """Fit the width of the split as a function of pixel height to painted truth.

    The measure is the mean of the sum of squares of the shares of the four: 1/4 for equal ones,
    1 if one has all.

    Parameters
    ----------
    truth
        Maps (2 ny, 2 nx) on the small pixels; negative values count as zero.

    Returns
    -------
    table
        "value", heights of pixels in the unit of the maps; "width", standard deviation of the
        logarithm of the random weight of each of the four.
    """
    heights, squares = [], []
    for fine in truth:
        four = np.maximum(fine, 0).reshape(fine.shape[0] // 2, 2, fine.shape[1] // 2, 2)
        total = four.sum((1, 3), dtype=np.float64)
        there = total > 0
        heights.append(total[there] / CHILDREN)
        squares.append((four.astype(np.float64) ** 2).sum((1, 3))[there] / total[there] ** 2)
    height, square = np.concatenate(heights), np.concatenate(squares)
    order = np.argsort(height)
    ends = [round(fraction * len(order)) for fraction in (*FRACTIONS, 1.0)]
    value, concentration = [], []
    for low, high in pairwise(ends):
        part = order[low:high]
        # pixels without a source may all be equal: they form one group
        if len(part) == 0 or (value and height[part[-1]] <= value[-1]):
            continue
        weight = height[part] ** 2  # of power
        value.append(float(height[part].mean()))
        concentration.append(float((square[part] * weight).sum() / weight.sum()))
    widths = np.interp(concentration, _concentrations(), WIDTHS)
    return {"value": np.round(value, 5).tolist(), "width": np.round(widths, 4).tolist()}


@functools.cache
def _concentrations() -> NDArray[np.float64]:
    """Mean sum of squares of four shares that are exponentials of normals, for each of `WIDTHS`."""
    normals = seeds.generator(0, "truth").standard_normal((CHILDREN, DRAWN))
    out = []
    for width in WIDTHS:
        weights = np.exp(width * (normals - normals.max(0)))
        weights /= weights.sum(0)
        out.append(float((weights**2).sum(0).mean()))
    return np.maximum.accumulate(np.array(out))
