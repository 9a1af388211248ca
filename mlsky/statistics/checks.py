"""Checks of the input of all statistics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pairs", "enough", "finite", "images", "modes", "plane", "rows"]


def images(
    maps: NDArray, n: int | None = None, name: str = "maps", varied: bool = False
) -> NDArray:
    """Square images *(..., n, n)*, all finite.

    Parameters
    ----------
    maps
        The images.
    n
        Pixels along a side, if it is known.
    name
        Their name in messages.
    varied
        Whether an image of one value only is refused, too.

    Raises
    ------
    ValueError
        If they are no images, of another size, hold NaN or infinity, or are constant.
    """
    maps = np.asarray(maps)
    want = "square images" if n is None else f"images of {n} x {n} pixels"
    if maps.ndim < 2 or maps.shape[-1] != maps.shape[-2] or n not in (None, maps.shape[-1]):
        raise ValueError(f"{name} of shape {maps.shape}: must be {want}, (..., n, n)")
    finite(maps, name)
    if varied:
        flat = maps.max((-2, -1)) == maps.min((-2, -1))
        if flat.any():
            raise ValueError(
                f"{name}: {int(flat.sum())} of {flat.size} images are constant; leave them out"
            )
    return maps


def plane(field: NDArray, name: str = "field") -> NDArray:
    """One map (n, m), finite, of two pixels or more along each side.

    Raises
    ------
    ValueError
        If it is none.
    """
    field = np.asarray(field)
    if field.ndim != 2 or min(field.shape) < 2:
        raise ValueError(
            f"{name} of shape {field.shape}: must be one map (n, m), of 2 x 2 pixels or more"
        )
    return finite(field, name)


def finite(values: NDArray, name: str) -> NDArray:
    """Values of any shape without NaN and infinity.

    Raises
    ------
    ValueError
        If there is one.
    """
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: hold NaN or infinity; nothing can be measured of them")
    return values


def modes(values: NDArray, n: int, lead: int | None = None) -> NDArray:
    """Fourier modes *(..., n, n // 2 + 1)* of maps of n pixels along a side.

    Parameters
    ----------
    lead
        Number of dimensions before the last two, if it is fixed.

    Raises
    ------
    ValueError
        If they are of maps of another size, or not finite.
    """
    shape = (n, n // 2 + 1)
    if values.shape[-2:] != shape or lead not in (None, values.ndim - 2):
        want = "..." if lead is None else "fields"
        raise ValueError(f"modes of shape {values.shape}: must be ({want}, {n}, {n // 2 + 1})")
    return finite(values, "modes")


def rows(values: NDArray, columns: int | None = None, name: str = "features") -> NDArray:
    """A table of numbers *(patches, columns)*, all finite.

    Raises
    ------
    ValueError
        If it is no table, has other columns, or holds NaN or infinity.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or columns not in (None, values.shape[-1]):
        want = "" if columns is None else f" with {columns} columns"
        raise ValueError(f"{name} of shape {values.shape}: must be a table{want}, (patches, k)")
    if not np.isfinite(values).all():
        raise ValueError(
            f"{name}: hold NaN or infinity; a patch of them was constant or not finite"
        )
    return values


def enough(have: int, least: int, what: str) -> None:
    """Refuse too few patches or areas.

    Raises
    ------
    ValueError
        If there are fewer than `least`.
    """
    if have < least:
        raise ValueError(f"{have} patches: {what} needs at least {least}; give more")


class Pairs:
    """Tables of true and of generated patches, row by row, kept by area of the sky.

    Parameters
    ----------
    what
        What a row holds, for messages: "features", "summaries".
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.areas: dict[int, list[tuple[NDArray, NDArray]]] = {}

    def add(self, true: NDArray, made: NDArray, area: int) -> None:
        """Add rows of one area; ValueError if widths differ, or a value is not finite."""
        true = rows(true, name=f"true {self.what}")
        made = rows(made, true.shape[1], f"generated {self.what}")
        first = next(iter(self.areas.values()), [(true, made)])[0][0].shape[1]
        if true.shape[1] != first:
            raise ValueError(
                f"true {self.what}: {true.shape[1]} a patch, before there were {first}; give as "
                "many"
            )
        # float32 is enough, and halves what is kept
        pair = (true.astype(np.float32), made.astype(np.float32))
        self.areas.setdefault(area, []).append(pair)
