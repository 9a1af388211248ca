"""White noise of the sky: one field for all pixelisations; finer maps refine coarser ones.

A HEALPix pixel's value is that of its parent plus a sum of three random numbers a, b, c that belong
to the parent, of the signs +++, +--, -+-, --+ in its four children: these average to the parent,
are independent, and have four times its variance. So the map of one nside is that of another
averaged over pixels, and costs four thirds of a random number per pixel. On other pixels the field
is the sum of the HEALPix pixels, no larger than they, whose centres they hold: noise of points.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.sphere.coverage import points
from mlsky.sphere.noise import normal

if TYPE_CHECKING:
    from mlsky.sphere.geometry import Geometry

__all__ = ["white_map", "white_pieces"]

#: Channels of one field of noise, and of one of its levels.
PER_FIELD, PER_LEVEL = 256, 4

#: Finest HEALPix pixels that other pixels are filled from: 0.43'.
NSIDE_MAX = 8192

#: Pixels of one piece, which is one or more pixels of this nside.
PIECE, PIECES_NSIDE = 1 << 22, 16


def white_pieces(
    key: int, number: int, nside: int, nthreads: int = 0, inside: NDArray[np.int64] | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """White noise of the sky on HEALPix pixels, a piece at a time.

    Parameters
    ----------
    key
        From `mlsky.seeds.integer`.
    number
        Of the field, from 0: fields of other numbers are independent.
    nside
        A power of two.
    inside
        NESTED numbers, growing, of the pixels of nside `PIECES_NSIDE` to which the noise is
        restricted.

    Yields
    ------
    pixel
        RING numbers, *(n,)*; each pixel occurs once.
    values
        Gaussian, of unit power: C_l = 1 sr, variance 1 / (pixel area in sr), *(n,)*.
    """
    import healpy

    order = nside.bit_length() - 1
    coarse = min(order, PIECES_NSIDE.bit_length() - 1)
    values, nest = _level_zero(key, number, nthreads), np.arange(12)
    for level in range(coarse):
        values, nest = _children(values, nest, key, number, level, nthreads)
    if inside is not None and nside >= PIECES_NSIDE:
        values, nest = values[inside], nest[inside]
    parents = max(1, PIECE >> 2 * (order - coarse))
    for start in range(0, len(nest), parents):
        piece, pixel = values[start : start + parents], nest[start : start + parents]
        for level in range(coarse, order):
            piece, pixel = _children(piece, pixel, key, number, level, nthreads)
        yield healpy.nest2ring(nside, pixel), piece


def white_map(key: int, number: int, geometry: Geometry, nthreads: int = 0) -> NDArray[np.float32]:
    """As `white_pieces`, the whole of it on the pixels of a geometry, *(*shape,)*."""
    out = np.zeros(geometry.npix, np.float32)
    if geometry.kind == "healpix":
        for pixel, values in white_pieces(key, number, geometry.nside, nthreads):
            out[pixel] = values
        return out.reshape(geometry.shape)
    import healpy

    nside, side = 1, min(geometry.sides_arcmin)
    while nside < NSIDE_MAX and healpy.nside2resol(nside, arcmin=True) > side:
        nside *= 2
    total = np.zeros(geometry.npix)
    for ring, values in white_pieces(key, number, nside, nthreads, _pieces_of(geometry)):
        pixel = geometry.pixel(*healpy.pix2ang(nside, ring))
        inside = pixel >= 0
        np.add.at(total, pixel[inside], values[inside].astype(np.float64))
    total *= healpy.nside2pixarea(nside)
    np.divide(total, geometry.area(), out=out, casting="same_kind")
    return out.reshape(geometry.shape)


def _pieces_of(geometry: Geometry) -> NDArray[np.int64]:
    """NESTED numbers of the pixels of nside `PIECES_NSIDE` on and beside a map."""
    import healpy

    on = np.unique(healpy.vec2pix(PIECES_NSIDE, *points(geometry).T, nest=True))
    beside = healpy.get_all_neighbours(PIECES_NSIDE, on, nest=True).ravel()
    return np.unique(np.concatenate([on, beside[beside >= 0]]))


def _level_zero(key: int, number: int, nthreads: int) -> NDArray[np.float32]:
    channel = number * PER_FIELD + PER_FIELD - 1
    return normal(key, channel, np.arange(12), nthreads) * np.float32(np.sqrt(12 / (4 * np.pi)))


def _children(
    parent: NDArray[np.float32],
    nest: NDArray[np.int64],
    key: int,
    number: int,
    level: int,
    nthreads: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Values and NEST numbers of the pixels of the next level."""
    scale = np.float32(2.0**level * np.sqrt(12 / (4 * np.pi)))
    first = number * PER_FIELD + level * PER_LEVEL
    a, b, c = (normal(key, first + column, nest, nthreads) * scale for column in range(3))
    out = np.empty((len(nest), 4), np.float32)
    for pair, side, other in (((0, 1), parent + a, b + c), ((2, 3), parent - a, b - c)):
        np.add(side, other, out=out[:, pair[0]])
        np.subtract(side, other, out=out[:, pair[1]])
    return out.reshape(-1), (nest[:, None] * 4 + np.arange(4)).reshape(-1)
