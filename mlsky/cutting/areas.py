"""Positions of patches: rotations of the sky, the band around its equator, areas of each set.

The sky is split into the pixels of a coarse HEALPix grid, and every pixel belongs to one set:
train, validation or test. A patch is taken for a set only if all of it, rotated back to where
it came from on the sky, lies in areas of that set. So no patch of one set shares sky with a
patch of another, for any rotations, seeds of the positions or pixel sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlsky import seeds
from mlsky.sphere.geometry import Car

__all__ = [
    "FRACTIONS",
    "HALF_WIDTH_DEG",
    "PARTS",
    "ROTATIONS",
    "EquatorialBand",
    "Split",
    "matrix",
    "plan",
]

#: The sets, and their shares of the sky.
PARTS = ("train", "validation", "test")
FRACTIONS = (0.8, 0.1, 0.1)

#: Half width (deg) of the band that patches are cut from (Han et al. 2021): farther out the pixels
#: of a CAR grid shrink in right ascension by more than 1.5 %.
HALF_WIDTH_DEG = 10.0

#: Turns (deg) about the polar axis and then about the y axis: the 25 of Han et al. 2021, where
#: turns about the polar axis alone are left out, as they map the band onto itself.
ROTATIONS = tuple((a, b) for a in range(0, 90, 15) for b in range(0, 100, 20) if b or not a)

#: Positions drawn at a time, and the number tried before giving up.
_BATCH, _TRIED = 4096, 2**19

#: First key of the streams of this module among those of "training", whose batches of crops
#: have keys of another length.
_SPLIT, _POSITIONS = 0, 1


@dataclass(frozen=True)
class EquatorialBand:
    """Pixels of the CAR grid at ``|dec| < HALF_WIDTH_DEG``, around the whole sky.

    Parameters
    ----------
    pixel_arcmin
        Side of a pixel at the equator; the circle must hold a whole number of them.

    Raises
    ------
    ValueError
        If the circle of 21600 arcmin is not a whole number of pixels, or they are too large.
    """

    pixel_arcmin: float

    def __post_init__(self) -> None:
        pixel = self.pixel_arcmin
        number = isinstance(pixel, (int, float, np.number)) and not isinstance(pixel, bool)
        if not (number and np.isfinite(pixel) and 0.1 <= pixel <= 60):
            raise ValueError(
                f"pixel_arcmin={pixel!r}: must be from 0.1 to 60, for example 0.5 or 2"
            )
        turn = 21600 / pixel
        if abs(turn - round(turn)) > 1e-6:
            raise ValueError(
                f"pixel_arcmin={pixel!r}: must divide the circle of 21600 arcmin, as 0.5 and 2 do"
            )

    @property
    def shape(self) -> tuple[int, int]:
        ny = 2 * int(HALF_WIDTH_DEG * 60 / self.pixel_arcmin + 1e-9)
        return ny, round(21600 / self.pixel_arcmin)

    @property
    def geometry(self) -> Car:
        """The band as a CAR geometry: declination grows with the row, RA falls with the column."""
        from astropy.wcs import WCS

        ny, nx = self.shape
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---CAR", "DEC--CAR"]
        wcs.wcs.cdelt = [-self.pixel_arcmin / 60, self.pixel_arcmin / 60]
        wcs.wcs.crval = [0.0, 0.0]
        wcs.wcs.crpix = [(nx + 1) / 2, (ny + 1) / 2]
        return Car((ny, nx), wcs)

    def vectors(self, y, x) -> NDArray[np.float64]:
        """Unit vectors, *(3, ...)*, of the places (y, x) in pixels, whole at pixel centres."""
        ny, nx = self.shape
        step = np.radians(self.pixel_arcmin / 60)
        dec = (np.asarray(y, np.float64) - (ny - 1) / 2) * step
        ra = ((nx - 1) / 2 - np.asarray(x, np.float64)) * step
        dec, ra = np.broadcast_arrays(dec, ra)
        return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


@dataclass(frozen=True)
class Split:
    """Which set each area of the sky belongs to.

    Parameters
    ----------
    nside
        Of the HEALPix grid of areas.
    seed
        Of the split. It is not the seed of the positions: sets that shall not overlap must
        share it, and all that is below.
    fractions
        Parts of the sky for train, validation and test; they add up to 1.
    octant
        Whether the sky repeats one octant eight times over, by mirrors at the equator and
        the meridians or by turns of 90 deg, as that of Sehgal et al. 2010 does. Areas that are
        images of each other then belong to the same set.

    Raises
    ------
    ValueError
        If nside, seed or fractions are not valid.
    """

    nside: int = 4
    seed: int = 0
    fractions: tuple[float, float, float] = FRACTIONS
    octant: bool = False

    def __post_init__(self) -> None:
        seeds.check(self.seed, "split_seed")
        if self.nside not in (1, 2, 4, 8, 16, 32):
            raise ValueError(f"split_nside={self.nside!r}: must be 1, 2, 4, 8, 16 or 32")
        try:
            fractions = np.asarray(self.fractions, np.float64)
        except (TypeError, ValueError):
            fractions = np.empty(0)
        good = fractions.shape == (3,) and np.isfinite(fractions).all() and (fractions >= 0).all()
        if not good or abs(fractions.sum() - 1) > 1e-6:
            raise ValueError(
                f"fractions={self.fractions!r}: must be three parts of the sky that add up to 1, "
                "for train, validation and test, as (0.8, 0.1, 0.1)"
            )
        object.__setattr__(self, "fractions", tuple(map(float, fractions)))

    def areas(self) -> NDArray[np.int8]:
        """Set of each area, an index into `PARTS`, *(12 nside^2,)*, RING order."""
        import healpy

        number = np.arange(12 * self.nside**2)
        images = number
        if self.octant:
            x, y, z = np.abs(healpy.pix2vec(self.nside, number))
            # the wedge 0 <= ra <= 45 deg, dec >= 0: all mirrors and quarter turns lead here
            images = healpy.vec2pix(self.nside, np.maximum(x, y), np.minimum(x, y), z)
        _, family, size = np.unique(images, return_inverse=True, return_counts=True)
        order = seeds.generator(self.seed, "training", _SPLIT, 0).permutation(len(size))
        # the middle of each family on a line as long as the sky says which share it falls in
        middle = np.cumsum(size[order]) - size[order] / 2
        part = np.searchsorted(np.cumsum(self.fractions)[:2], middle / len(number), side="right")
        owner = np.empty(len(size), np.int8)
        owner[order] = part
        return owner[family]

    def part_of(self, vectors: NDArray[np.float64]) -> NDArray[np.int8]:
        """Set of each direction *(3, ...)* of the sky, an index into `PARTS`."""
        import healpy

        return self.areas()[healpy.vec2pix(self.nside, *vectors)]


def matrix(angles: tuple[float, float]) -> NDArray[np.float64]:
    """Rotation of the sky by `angles` (deg): about z by the first, then about y by the second."""
    a, b = np.radians(angles)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    return about_y @ about_z


def check_rotations(rotations: Sequence | None) -> tuple[tuple[float, float], ...]:
    """Pairs of angles (deg), `ROTATIONS` for None; a ValueError for anything else."""
    if rotations is None:
        rotations = ROTATIONS
    try:
        table = np.asarray(rotations, np.float64)
    except (TypeError, ValueError):
        table = np.empty(0)
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] != 2 or not np.isfinite(table).all():
        raise ValueError(
            f"rotations={rotations!r}: must be pairs of angles in degrees, about z and then y, "
            "for example [(0, 0), (15, 20)]"
        )
    return tuple((float(a), float(b)) for a, b in table)


def check_count(name: str, value: int) -> int:
    """`value` as an int; a ValueError if it is not a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name}={value!r}: must be a whole number, at least 1")
    return int(value)


def plan(
    part: str,
    patches: int,
    seed: int,
    band: EquatorialBand,
    size: int,
    split: Split,
    rotations: Sequence[tuple[float, float]] = ROTATIONS,
    guard: int = 2,
) -> NDArray[np.int64]:
    """Places of the patches of a set.

    Parameters
    ----------
    part
        "train", "validation" or "test".
    patches
        How many.
    seed
        Of the positions.
    band
        Pixels that patches are cut from.
    size
        Pixels along a side of a patch.
    guard
        Pixels around a patch that must also lie in areas of the set, for interpolation.

    Returns
    -------
    ndarray
        *(patches, 3)*: rotation, row and column of the first pixel, sorted by rotation; columns
        go on past the seam of the band. Positions are uniform over what fits, and may overlap
        within a set.

    Raises
    ------
    ValueError
        If an argument is not valid, patches are too large for the areas, or none fits.
    """
    if part not in PARTS:
        raise ValueError(f"part={part!r}: must be one of {', '.join(PARTS)}")
    check_count("patches", patches)
    check_count("size", size)
    seeds.check(seed)
    ny, nx = band.shape
    if size > ny:
        raise ValueError(
            f"size={size}: patches of {size * band.pixel_arcmin / 60:g} deg do not fit into the "
            f"band of {2 * HALF_WIDTH_DEG:g} deg; at most {ny} pixels of {band.pixel_arcmin:g}'"
        )
    # No area may hide inside a patch whose edge is looked at only: it must be the larger one.
    side = (size + 2 * guard) * band.pixel_arcmin / 60
    area = np.degrees(np.sqrt(np.pi / 3)) / split.nside
    if side >= area:
        raise ValueError(
            f"size={size}: patches of {side:.3g} deg with their edges are too large for areas of "
            f"{area:.3g} deg; take a smaller split_nside than {split.nside} or smaller patches"
        )
    wanted, owner = PARTS.index(part), split.areas()
    back = np.stack([matrix(r).T for r in rotations])
    rng = seeds.generator(seed, "training", _POSITIONS, wanted, 0)
    edge = _edge(size, guard)
    found: list[np.ndarray] = []
    tried = held = 0
    while held < patches:
        draw = rng.integers((len(rotations), ny - size + 1, nx), size=(_BATCH, 3))
        for points in (edge[:, :: size + 2 * guard], edge):  # the corners tell most
            draw = draw[_inside(draw, points, band, back, owner, split.nside, wanted)]
        found.append(draw)
        held, tried = held + len(draw), tried + _BATCH
        if tried >= _TRIED and not held:
            raise ValueError(
                f"part={part!r}: no patch of {side:.3g} deg lies wholly in its areas "
                f"({np.mean(owner == wanted):.1%} of the sky in pieces of {area:.3g} deg); take a "
                "larger fraction, a smaller split_nside or another split_seed"
            )
    places = np.concatenate(found)[:patches]
    return places[np.argsort(places[:, 0], kind="stable")]


def _edge(size: int, guard: int) -> NDArray[np.float64]:
    """Corners of the outermost pixels along the edge of a patch and its guard, *(2, 4 n)*."""
    n = size + 2 * guard
    low = -guard - 0.5
    run, zero, full = np.arange(n), np.zeros(n), np.full(n, n)
    y = np.concatenate([zero, run, full, n - run])
    x = np.concatenate([run, full, n - run, zero])
    return np.stack([y, x]) + low


def _inside(draw, points, band: EquatorialBand, back, owner, nside: int, wanted: int) -> np.ndarray:
    """Which places have all `points` in areas of the set."""
    import healpy

    good = np.empty(len(draw), bool)
    for low in range(0, len(draw), 512):  # bounds the memory
        some = draw[low : low + 512]
        v = band.vectors(some[:, 1, None] + points[0], some[:, 2, None] + points[1])
        v = np.einsum("nij,jnk->ink", back[some[:, 0]], v)
        good[low : low + 512] = (owner[healpy.vec2pix(nside, *v)] == wanted).all(axis=1)
    return good
