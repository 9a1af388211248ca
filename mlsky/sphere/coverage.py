"""Which part of the sphere a map covers: its charts, and the colatitudes that it needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlsky.sphere.charts import NSIDE, Chart
from mlsky.sphere.geometry import Geometry

__all__ = ["charts_near", "colatitudes_of_charts", "colatitudes_of_map", "points"]

#: Spacing (deg) of the points that stand for a map, and of the places that are compared with them
#: (HEALPix pixels of nside 64, whose corners are at most 0.9 deg from their centres).
SPACING, PLACES, PLACE_RADIUS = 0.5, 64, 0.9

#: Spacing (pixels) of the points that stand for the rectangle of a chart.
CHART_STEP = 16


def points(geometry: Geometry) -> NDArray[np.float64]:
    """Unit vectors (n, 3) of points of a map, its edges among them, at most `SPACING` apart."""
    ny, nx = geometry.shape
    step = max(1, int(60 * SPACING / geometry.pixel_arcmin))
    y, x = (np.append(np.arange(-0.5, n - 0.5, step), n - 0.5) for n in (ny, nx))
    theta, phi = geometry.angles_at(y[:, np.newaxis], x)
    on_sky = np.isfinite(theta) & np.isfinite(phi)
    theta, phi = theta[on_sky], phi[on_sky]
    sine = np.sin(theta)
    return np.stack([sine * np.cos(phi), sine * np.sin(phi), np.cos(theta)], 1)


def charts_near(geometry: Geometry, reach_deg: float) -> list[int]:
    """Numbers of the charts that own a place at most so far from a map; some a little farther."""
    import healpy
    from scipy.spatial import cKDTree

    if geometry.kind == "healpix":
        return list(range(12 * NSIDE**2))
    place = np.stack(healpy.pix2vec(PLACES, np.arange(12 * PLACES**2), nest=True), 1)
    away = np.radians(min(180.0, reach_deg + SPACING + PLACE_RADIUS))
    distance, _ = cKDTree(points(geometry)).query(place, distance_upper_bound=2 * np.sin(away / 2))
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


def colatitudes_of_charts(charts: Sequence[Chart]) -> tuple[float, float]:
    """Range of colatitudes (rad) of the rectangles of charts."""
    low, high = np.pi, 0.0
    for chart in charts:
        ny, nx = chart.shape
        y, x = (np.append(np.arange(0, n - 1, CHART_STEP), n - 1) for n in (ny, nx))
        z = chart.vectors_at(*np.meshgrid(y, x, indexing="ij"))[2]
        pad = CHART_STEP * chart.pixel_rad
        low = min(low, float(np.arccos(np.clip(z.max(), -1, 1))) - pad)
        high = max(high, float(np.arccos(np.clip(z.min(), -1, 1))) + pad)
    return max(0.0, low), min(np.pi, high)
