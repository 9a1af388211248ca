"""Which part of the sphere a map covers: its charts, and the colatitudes that it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.sphere.chart_area import Area
from mlsky.sphere.charts import NSIDE, Chart
from mlsky.sphere.geometry import Geometry

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

__all__ = [
    "area_near",
    "charts_near",
    "colatitudes_of_areas",
    "colatitudes_of_map",
    "outline",
    "points",
]

#: Spacing (deg) of the points that stand for a map, and of the places that are compared with them
#: (HEALPix pixels of nside 64, whose corners are at most 0.9 deg from their centres).
SPACING, PLACES, PLACE_RADIUS = 0.5, 64, 0.9

#: Angle (rad) by which rounding may change the place of a pixel, and far more; also that of ratios.
ROUNDING = 1e-9

#: Halvings of a gap between two points, at most: the last row of CEA pixels, from a pole on, needs
#: 9 of them. Only where a projection is torn would there be more to halve.
MOST_HALVINGS = 12

#: Halvings of a chart's pixels for the comparison with a map.
HALVINGS = 3


def points(geometry: Geometry) -> NDArray[np.float64]:
    """Unit vectors (n, 3) of points of a map, its edges among them.

    Neighbours are at most `SPACING` apart along the rows and along the columns, whatever the sides
    of the pixels and wherever the projection stretches them, so that every place of the map is at
    most `SPACING` from one of them.
    """
    y, x = (
        _along(n, side) for n, side in zip(geometry.shape, geometry.sides_deg[::-1], strict=True)
    )
    longest = 2 * np.sin(np.radians(SPACING) / 2) + ROUNDING
    for _ in range(MOST_HALVINGS):
        vectors = _vectors(geometry, y, x)
        far = [_gaps(vectors, axis) > longest for axis in (0, 1)]
        if not any(part.any() for part in far):
            break
        y, x = (_halved(places, part) for places, part in zip((y, x), far, strict=True))
    vectors = _vectors(geometry, y, x).reshape(-1, 3)
    return vectors[np.isfinite(vectors[:, 0])]


def _along(n: int, side_deg: float) -> NDArray[np.float64]:
    """Pixel coordinates from one edge of n pixels to the other, by their nominal side."""
    pixels = SPACING / side_deg
    step = int(pixels + ROUNDING) if pixels >= 1 else 1 / np.ceil(1 / pixels - ROUNDING)
    return np.append(np.arange(-0.5, n - 0.5, step), n - 0.5)


def _vectors(
    geometry: Geometry, y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Unit vectors (len(y), len(x), 3) of pixel coordinates; NaN off the sphere."""
    theta, phi = geometry.angles_at(y[:, np.newaxis], x)
    sine = np.sin(theta)
    return np.stack([sine * np.cos(phi), sine * np.sin(phi), np.cos(theta)], -1)


def _gaps(vectors: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Longest chord between neighbours along one axis, by their number; 0 off the sphere."""
    chords = np.linalg.norm(np.diff(vectors, axis=axis), axis=-1)
    return np.nan_to_num(chords).max(1 - axis)


def _halved(places: NDArray[np.float64], far: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Coordinates with the middles of the gaps that are too long."""
    return np.sort(np.append(places, (places[:-1] + places[1:])[far] / 2))


def outline(geometry: Geometry) -> cKDTree | None:
    """A search tree of `points`, for the functions below; None for HEALPix maps, which are whole.

    It takes the longest of all that is asked of a map: make one for all charts.
    """
    from scipy.spatial import cKDTree

    return None if geometry.kind == "healpix" else cKDTree(points(geometry))


def charts_near(tree: cKDTree | None, reach_deg: float) -> list[int]:
    """Numbers of the charts that own a place at most so far from a map; some a little farther.

    Parameters
    ----------
    tree
        Of the map, from `outline`.
    """
    import healpy

    if tree is None:
        return list(range(12 * NSIDE**2))
    place = np.stack(healpy.pix2vec(PLACES, np.arange(12 * PLACES**2), nest=True), 1)
    away = np.radians(min(180.0, reach_deg + SPACING + PLACE_RADIUS))
    distance, _ = tree.query(place, distance_upper_bound=2 * np.sin(away / 2))
    near = np.flatnonzero(np.isfinite(distance))
    return np.unique(near // (PLACES // NSIDE) ** 2).tolist()


def colatitudes_of_map(geometry: Geometry, pad: float) -> tuple[float, float] | None:
    """Range of colatitudes (rad) of a map and of what is at most `pad` (rad) away; None for all."""
    if geometry.kind == "healpix":
        return None
    z = np.clip(points(geometry)[:, 2], -1, 1)
    pad += np.radians(SPACING)
    low, high = float(np.arccos(z.max())) - pad, float(np.arccos(z.min())) + pad
    return max(0.0, low), min(np.pi, high)


def area_near(tree: cKDTree, chart: Chart, reach_deg: float) -> Area:
    """Pixels of a chart at most so far from a map, and some a little farther.

    Parameters
    ----------
    tree
        Of the map, from `outline`.
    chart
        Both of its sides are multiples of ``2**HALVINGS`` pixels.
    """
    ny, nx = (n >> HALVINGS for n in chart.shape)
    # to the farthest corner of a larger pixel
    away = np.radians(min(180.0, reach_deg + SPACING)) + chart.pixel_rad * (1 << HALVINGS)
    distance, _ = tree.query(
        chart.vectors(level=HALVINGS).T, distance_upper_bound=2 * np.sin(away / 2)
    )
    mask = np.isfinite(distance).reshape(ny, nx)
    return Area.of(mask.repeat(1 << HALVINGS, 0).repeat(1 << HALVINGS, 1))


def colatitudes_of_areas(charts: Sequence[Chart], areas: Mapping[int, Area]) -> tuple[float, float]:
    """Range of colatitudes (rad) of the pixels of charts in areas, by number of the chart."""
    low, high = np.pi, 0.0
    for chart in charts:
        theta, _ = chart.angles(np.flatnonzero(areas[chart.index].mask()))
        low, high = min(low, float(theta.min())), max(high, float(theta.max()))
    return max(0.0, low - ROUNDING), min(np.pi, high + ROUNDING)
