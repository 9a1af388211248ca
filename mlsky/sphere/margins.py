"""Pixels round a map of part of the sky.

Filters and beams mix a pixel with its neighbours. Part of the sky is therefore made on a wider map,
filtered there and cut, and has the values of the whole sky up to its edges.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mlsky.sphere.car import Car
from mlsky.sphere.geometry import Geometry, Healpix

__all__ = ["Inside", "crop", "widened"]

#: Rows and columns of a wider map that are those of the map.
Inside = tuple[slice, slice]

#: Fraction of a pixel that counts as rounding.
ROUNDING = 1e-3


def widened(geometry: Geometry, pixels: int, arcmin: float = 0.0) -> tuple[Geometry, Inside | None]:
    """The pixels of a map with those around it, and where the map lies in them.

    Parameters
    ----------
    geometry
        Of the map.
    pixels
        Rows and columns beyond the distance `arcmin`.
    arcmin
        Distance on the sky; of cylindrical pixels alone.

    Returns
    -------
    wider : Geometry
        All columns if the rows come that near to a pole: over the pole lies the rest of the turn.
    inside : tuple of slice or None
        For `crop`. None if nothing is needed: on HEALPix pixels, which are of the whole sky, and
        where the map is closed; and for projections that end where the map does.
    """
    if isinstance(geometry, Healpix):
        return geometry, None
    ny, nx = geometry.shape
    rows, columns = (pixels, pixels), (pixels, pixels)
    if geometry.cylindrical:
        reach = math.radians(arcmin / 60)
        rows, poles = zip(*(_rows(geometry, end, reach, pixels) for end in (0, -1)), strict=True)
        columns = _columns(geometry, reach, pixels, any(poles))
    if not any((*rows, *columns)):
        return geometry, None
    wcs = geometry.wcs.deepcopy()
    wcs.wcs.crpix += np.array([columns[0], rows[0]])
    wcs.wcs.set()
    try:
        wider = Car((ny + sum(rows), nx + sum(columns)), wcs)
    except ValueError:  # other projections end where the sphere does
        return geometry, None
    return wider, (slice(rows[0], rows[0] + ny), slice(columns[0], columns[0] + nx))


def crop(values: NDArray, inside: Inside | None) -> NDArray:
    """Maps (..., ny, nx) on the pixels of `widened`, cut to those of the map."""
    return values if inside is None else values[(..., *inside)]


def _rows(geometry: Car, end: int, reach: float, pixels: int) -> tuple[int, bool]:
    """Number of rows beyond the first (end 0) or last (-1), and whether a pole ends them."""
    if geometry.axes is not None:
        theta, step = geometry.axes[0][end], abs(geometry.steps[1])
        wanted = pixels + math.ceil(reach / step - ROUNDING)
        falls = geometry.steps[1] > 0  # colatitude falls from row to row
        room = np.pi - theta if falls == (end == 0) else theta
        room = int(room / step + ROUNDING)
        return min(wanted, room), room < wanted
    # rows of other spacings: outwards until they are far enough, off the sphere or at a pole,
    # which the rows of MER never reach
    number, step = 2 * pixels + 16, abs(geometry.steps[1])
    while True:
        away = np.arange(number + 1)
        y = -away if end == 0 else geometry.shape[0] - 1 + away
        theta, _ = geometry.angles_at(y, np.zeros(number + 1))
        on_sky = np.minimum(theta, np.pi - theta) >= step / 2
        good = int(np.argmin(np.append(on_sky, False))) - 1
        far = np.flatnonzero(np.abs(theta[: good + 1] - theta[0]) >= reach)
        wanted = int(far[0]) + pixels if far.size else number + 1
        if good < number or wanted <= number:
            return max(0, min(wanted, good)), good < wanted
        number *= 2


def _columns(geometry: Car, reach: float, pixels: int, pole: bool) -> tuple[int, int]:
    """Number of columns before the first and beyond the last."""
    step, nx = abs(geometry.steps[0]), geometry.shape[1]
    room = max(0, int(2 * np.pi / step + ROUNDING) - nx)
    wanted = room
    if not pole:
        ends = geometry.angles_at(np.array([0, geometry.shape[0] - 1]), np.zeros(2))[0]
        # longitudes of a disc of this radius, from the row nearest to a pole
        wide = math.asin(min(1.0, math.sin(reach) / float(np.sin(ends).min())))
        wanted = pixels + math.ceil(wide / step - ROUNDING)
    first = min(wanted, room // 2)
    return first, min(wanted, room - room // 2)
