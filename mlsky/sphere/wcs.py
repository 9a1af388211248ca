"""Reading and checking the WCS of a grid.

A WCS may come from pixell, from header cards of any age, or from a cut-out of a larger map.
`check_wcs` returns a copy of its celestial part with steps in CDELT, and refuses grids that this
package does not support.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlsky.arguments import integer, short

__all__ = [
    "CYLINDRICAL",
    "EDGE",
    "check_coordsys",
    "check_shape",
    "check_size",
    "check_wcs",
    "is_cylindrical",
    "is_straight",
    "pixel_sides",
    "projection_name",
]

#: FITS projections whose rows are iso-latitude (Calabretta & Greisen 2002,
#: doi:10.1051/0004-6361:20021327, Sec. 5.2).
CYLINDRICAL = ("CAR", "CEA", "MER", "CYP")

#: Pixels (of a row) by which rounding may put a direction outside the edge of a map.
EDGE = 1e-6

#: Pixels, over the whole circle, by which header cards of a dozen digits may miss a grid that
#: divides it: such a step is corrected. Cards of 7 digits at 0.5' miss it by 0.005.
SNAP = 0.01

#: Allowed sides of pixels (arcmin), and the largest ratio of two sides: our choice.
SIDE_ARCMIN, ASPECT = (0.05, 3600.0), 10.0

#: Deviation (deg) from a linear grid that counts as rounding.
PLAIN_DEG = 1e-9

_EXAMPLE = "as pixell.enmap.fullsky_geometry returns it"


def check_coordsys(name: str, value: object) -> None:
    """Refuse the coordinates of a HEALPix map, as FITS headers name them, if not equatorial.

    Parameters
    ----------
    name
        Of the map, for the error.
    value
        Of the card COORDSYS: 'C' or 'Q' for equatorial (healpy writes 'C'), 'G', 'E'; blank or
        missing is taken for equatorial.

    Raises
    ------
    ValueError
        If the frame is Galactic, ecliptic, or unknown.
    """
    known = str(value or "").strip().strip("'").upper()
    if known in ("", "C", "Q", "EQUATORIAL", "CELESTIAL", "ICRS", "J2000", "CEL"):
        return
    frame = {"G": "Galactic", "E": "ecliptic"}.get(known[:1], "no frame that is known")
    letter = known[:1] if known[:1] in "GE" else "G"
    raise ValueError(
        f"{name}: COORDSYS={known!r}, {frame}: must be equatorial, 'C'; rotate it first, "
        f"as healpy.Rotator(coord='{letter}C').rotate_map_alms does"
    )


def check_shape(shape: object) -> tuple[int, int]:
    allowed = f"must end in (ny, nx), both positive integers, {_EXAMPLE}"
    refused = ValueError(f"geometry shape {short(shape)}: {allowed}")
    if isinstance(shape, (str, bytes)):
        raise refused
    try:
        sizes = [integer("shape", n, "positive", 1) for n in tuple(shape)]
    except (TypeError, ValueError):
        raise refused from None
    if len(sizes) < 2:
        raise refused
    return sizes[-2], sizes[-1]


def check_wcs(wcs):
    """A copy of the celestial part, in degrees, with steps in CDELT and rotations in PC."""
    from astropy.wcs import WCS

    if not (hasattr(wcs, "wcs_pix2world") and hasattr(wcs, "wcs")):
        raise ValueError(
            f"geometry wcs of type {type(wcs).__name__}: must be an astropy.wcs.WCS, {_EXAMPLE}"
        )
    try:
        wcs = wcs.deepcopy()
        wcs.wcs.set()
        with np.errstate(invalid="ignore"):
            matrix = np.array(wcs.pixel_scale_matrix, float)
        numbers = np.concatenate([matrix.ravel(), wcs.wcs.crval, wcs.wcs.crpix])
        if not np.isfinite(numbers).all():
            raise ValueError("a number that is not finite")
        axes = wcs.wcs.lng, wcs.wcs.lat
        _check_axes(wcs, axes)
        if wcs.naxis > 2:
            wcs = wcs.celestial
            wcs.wcs.set()
            matrix = np.array(wcs.pixel_scale_matrix, float)
    except (ValueError, MemoryError, TypeError) as error:
        text = str(error)
        if text.startswith("geometry"):
            raise
        raise ValueError(
            f"geometry wcs cannot be used ({short(' '.join(text.split()), 100).strip(chr(34))}): "
            f"must be a celestial WCS, {_EXAMPLE}"
        ) from None
    _check_frame(wcs)
    if wcs.has_distortion:
        raise ValueError(
            "geometry wcs with distortions (SIP or tables): must have none, reproject the map"
        )
    out = WCS(naxis=2)
    w, old = out.wcs, wcs.wcs
    w.ctype, w.crval, w.crpix = list(old.ctype), old.crval, old.crpix
    w.lonpole, w.latpole = old.lonpole, old.latpole
    w.set_pv(old.get_pv())
    w.radesys = "ICRS"
    sides = np.linalg.norm(matrix, axis=0)
    if min(sides) == 0:
        raise ValueError(f"geometry wcs with pixels of side 0: must be positive, {_EXAMPLE}")
    straight = np.abs(matrix - np.diag(np.diag(matrix))).max() < 1e-12 * sides.min()
    if straight:
        w.cdelt = _snapped(np.diag(matrix), str(old.ctype[0])[5:8])
    else:
        w.cdelt, w.pc = ([1, 1], matrix) if old.has_cd() else (old.cdelt, old.get_pc())
    w.cunit = ["deg", "deg"]
    w.set()
    # Cylindrical grids may be given by pixels more than half a turn from their reference; on
    # others the check keeps the far side of the sphere off the map.
    check = projection_name(out) not in CYLINDRICAL
    w.bounds_check(check, check)
    return out


def _check_axes(wcs, axes: tuple[int, int]) -> None:
    names = ", ".join(repr(str(name)) for name in wcs.wcs.ctype)
    if min(axes) < 0:
        raise ValueError(
            f"geometry wcs with axes {names}: must have right ascension and declination, such as "
            f"'RA---CAR' and 'DEC--CAR', {_EXAMPLE}"
        )
    if axes != (0, 1):
        raise ValueError(
            f"geometry wcs with axes {names}: right ascension must be the first and declination "
            "the second; transpose the map and give wcs.sub([2, 1]), or wcs.celestial"
        )


def _check_frame(wcs) -> None:
    """Refuse what is not ICRS, or FK5 of J2000."""
    first = str(wcs.wcs.ctype[0])
    mend = "; make the sky on an equatorial map and rotate that, or rotate the map given"
    if not first.startswith("RA--"):
        frame = {"GLON": "Galactic", "ELON": "ecliptic", "SLON": "supergalactic"}.get(first[:4])
        raise ValueError(
            f"geometry wcs with axis {first!r} ({frame or 'no equatorial frame'}): must be "
            f"equatorial, 'RA---CAR'{mend}"
        )
    system, equinox = str(wcs.wcs.radesys).strip().upper(), float(wcs.wcs.equinox)
    # FITS standard 4.0, Sec. 8.3: without RADESYS, an EQUINOX before 1984 is FK4, later FK5.
    j2000 = np.isnan(equinox) or equinox == 2000
    if system not in ("", "ICRS", "FK5") or (system != "ICRS" and not j2000):
        raise ValueError(
            f"geometry wcs with RADESYS={system or None!r}, EQUINOX={equinox:g}: must be ICRS, or "
            f"FK5 of equinox 2000{mend}"
        )


def check_size(shape: tuple[int, int], wcs) -> None:
    """Refuse impossible sides and extents before any position is computed."""
    sides = pixel_sides(wcs)
    low, high = SIDE_ARCMIN
    what = f"geometry wcs with pixels of {60 * sides[0]:.6g}' x {60 * sides[1]:.6g}'"
    if not (low <= 60 * min(sides) and 60 * max(sides) <= high):
        raise ValueError(f"{what}: must be from {low:g}' to {high:g}', {_EXAMPLE}")
    if max(sides) > ASPECT * min(sides) * (1 + EDGE):  # rounded steps
        raise ValueError(
            f"{what}: one side may be at most {ASPECT:g} times the other; make square pixels and "
            "average them"
        )
    kind = projection_name(wcs)
    if kind not in CYLINDRICAL or not is_straight(wcs):
        return
    turn = 360 / sides[0]
    if shape[1] > turn * (1 + EDGE):
        raise ValueError(
            f"geometry of {shape[1]} columns of {60 * sides[0]:.6g}': must be at most one turn, "
            f"{int(turn + EDGE)} columns"
        )
    if kind == "CAR":
        rows = (np.array([1, shape[0]]) - wcs.wcs.crpix[1]) * wcs.wcs.cdelt[1]
        if np.abs(rows).max() > 90 + SNAP * sides[1]:
            raise ValueError(
                f"geometry of {shape[0]} rows from {rows[0]:g} to {rows[1]:g} degrees: must not "
                "extend past a pole; cut the map there"
            )


def _snapped(steps: NDArray[np.float64], projection: str) -> NDArray[np.float64]:
    """Steps (deg) without the rounding of header cards, if they then divide the circle."""
    steps = np.array(steps)
    if projection not in CYLINDRICAL:
        return steps
    for axis in (0, 1) if projection == "CAR" else (0,):
        turn = 360 / abs(steps[axis])
        if round(turn) and abs(turn - round(turn)) < SNAP:
            steps[axis] = np.sign(steps[axis]) * 360 / round(turn)
    return steps


def is_cylindrical(shape: tuple[int, int], wcs) -> bool:
    """Whether the poles of the projection are those of the sky, tested with positions."""
    if projection_name(wcs) not in CYLINDRICAL or not is_straight(wcs) or wcs.wcs.crval[1] != 0:
        return False
    y, x = np.meshgrid(*(np.array([0, (n - 1) / 2, n - 1]) for n in shape), indexing="ij")
    w = wcs.wcs
    ra, dec = (part.reshape(3, 3) for part in wcs.wcs_pix2world(x.ravel(), y.ravel(), 0))
    turn = ra - w.crval[0] - (x + 1 - w.crpix[0]) * w.cdelt[0]
    even = np.abs((turn + 180) % 360 - 180).max() < PLAIN_DEG
    level = np.abs(dec - dec[:, :1]).max() < PLAIN_DEG
    if projection_name(wcs) == "CAR":
        level &= np.abs(dec - np.clip((y + 1 - w.crpix[1]) * w.cdelt[1], -90, 90)).max() < PLAIN_DEG
    return bool(even and level)


def is_straight(wcs) -> bool:
    """Whether rows and columns lie along the axes of the projection."""
    return bool(np.array_equal(wcs.wcs.get_pc(), np.eye(2)))


def projection_name(wcs) -> str:
    return str(wcs.wcs.ctype[0])[5:8]


def pixel_sides(wcs) -> tuple[float, float]:
    """Sides of a pixel (deg) in the plane of the projection."""
    return tuple(float(side) for side in np.linalg.norm(wcs.pixel_scale_matrix, axis=0))
