"""CAR and other celestial grids: the one place where a WCS is read.

A WCS comes from many hands: pixell, header cards of any age, cut-outs of larger maps. `Car` takes a
copy of its celestial part, decides once what it means, and refuses what it cannot honour; the rest
of the package asks `Car` where pixels are and never looks at the WCS.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlsky.arguments import integer, short

__all__ = ["Car", "check_coordsys"]

#: FITS projections whose rows are iso-latitude (Calabretta & Greisen 2002,
#: doi:10.1051/0004-6361:20021327, Sec. 5.2).
CYLINDRICAL = ("CAR", "CEA", "MER", "CYP")

#: Pixels (of a row) by which a direction may lie beyond the edge of a map through rounding.
EDGE = 1e-6

#: Pixels, over the whole circle, by which header cards of a dozen digits may miss a grid that
#: divides it: such a step is put back. Cards of 7 digits at 0.5' miss it by 0.005.
SNAP = 0.01

#: Sides of pixels (arcmin) that are taken, and how much longer one side may be: our choice.
#: Averages over pixels are sampled at the spacing that the side along declination needs.
SIDE_ARCMIN, ASPECT = (0.05, 3600.0), 10.0

#: Pixels between whose positions a grid is linear enough to be called plain (deg): rounding.
PLAIN_DEG = 1e-9

#: A grid's positions are tried at this many rows and columns, and at all of smaller ones.
TRIED = 33

#: By how much a pixel's position may fail to lead back to it (pixels).
RETURN = 1e-3

#: Pixels whose corners are worked out at once.
_BLOCK = 2**20

_EXAMPLE = "as pixell.enmap.fullsky_geometry returns it"


@dataclass(frozen=True, eq=False)
class Car:
    """A CAR (or any celestial) grid given by ``(shape, wcs)`` as in pixell.

    Parameters
    ----------
    map_shape
        ``(ny, nx)``; leading axes, as of a stack of maps, are dropped.
    wcs
        An `astropy.wcs.WCS` whose first two axes are right ascension and declination, ICRS or
        FK5 of J2000 (they differ by some 0.02 arcsec). It is copied; further axes are dropped.

    Raises
    ------
    ValueError
        If the shape or the WCS is none, the frame is another one, the axes are linear or swapped,
        a pixel is off the sphere, too small, too large or too long, or two pixels share a place.
    """

    map_shape: tuple[int, int]
    wcs: object
    #: Whether rows are iso-latitude and columns evenly spaced in RA; and in CAR, rows too.
    cylindrical: bool = field(init=False, repr=False)
    plain: bool = field(init=False, repr=False)

    kind = "car"

    def __post_init__(self) -> None:
        shape = _check_shape(self.map_shape)
        wcs = _check_wcs(self.wcs)
        object.__setattr__(self, "map_shape", shape)
        object.__setattr__(self, "wcs", wcs)
        _check_size(shape, wcs)
        cylindrical = _is_cylindrical(shape, wcs)
        object.__setattr__(self, "cylindrical", cylindrical)
        object.__setattr__(self, "plain", cylindrical and _projection(wcs) == "CAR")
        self._check_places()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Car) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash((self.map_shape, tuple(self.wcs.wcs.crval), tuple(self.wcs.wcs.crpix)))

    @classmethod
    def build(cls, description: dict) -> Car:
        """The grid that `describe` described; files of earlier versions lack poles and frame."""
        from astropy.wcs import WCS

        wcs = WCS(naxis=2)
        values = dict(description["wcs"])
        wcs.wcs.set_pv([(int(i), int(m), value) for i, m, value in values.pop("pv")])
        for name in _SAVED:
            if name in values:
                setattr(wcs.wcs, name, values[name])
        wcs.wcs.set()
        return cls(tuple(description["shape"]), wcs)

    def describe(self) -> dict:
        """The grid in plain JSON types. Numbers, not header cards: cards have about 12 digits."""
        wcs = self.wcs.wcs
        values = {name: getattr(wcs, name) for name in _SAVED if name not in ("cunit", "pc")}
        values = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}
        values["ctype"] = list(values["ctype"])
        values["cunit"] = [str(unit) for unit in wcs.cunit]
        values["pc"] = wcs.get_pc().tolist()
        values["pv"] = [list(entry) for entry in wcs.get_pv()]
        return {
            "kind": "car",
            "shape": list(self.map_shape),
            "frame": "equatorial",
            "wcs": {name: values[name] for name in (*_SAVED, "pv")},
        }

    @property
    def shape(self) -> tuple[int, ...]:
        return self.map_shape

    @property
    def npix(self) -> int:
        return self.map_shape[0] * self.map_shape[1]

    @functools.cached_property
    def axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Colatitude by row and longitude by column (rad) of a plain grid, else None."""
        if not self.plain:
            return None
        ny, nx = self.map_shape
        w = self.wcs.wcs
        dec = (np.arange(ny) + 1 - w.crpix[1]) * w.cdelt[1]
        ra = w.crval[0] + (np.arange(nx) + 1 - w.crpix[0]) * w.cdelt[0]
        # Rounding may put the row of a pole a hair beyond it.
        return np.radians(np.clip(90 - dec, 0, 180)), _turn(np.radians(ra % 360))

    @functools.cached_property
    def _area(self) -> np.ndarray:
        """Pixel area (sr), *(ny, 1)* for the cylindrical grids, *(ny, nx)* otherwise."""
        if not self.cylindrical:
            return self._corner_area()
        from pixell import enmap

        return np.asarray(enmap.pixsizemap(self.map_shape, self.wcs, broadcastable=True))

    def _corner_area(self) -> np.ndarray:
        """Half the cross product of the diagonals: right to (side in rad)^2 / 12."""
        ny, nx = self.map_shape
        out = np.empty(self.map_shape)
        step = max(1, _BLOCK // nx)
        for low in range(0, ny, step):
            high = min(low + step, ny)
            y, x = np.mgrid[low : high + 1, : nx + 1] - 0.5
            theta, phi = self.angles_at(y, x)
            v = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])
            a, b = v[:, 1:, 1:] - v[:, :-1, :-1], v[:, 1:, :-1] - v[:, :-1, 1:]
            out[low:high] = np.linalg.norm(np.cross(a, b, axis=0), axis=0) / 2
        return out

    @property
    def steps(self) -> tuple[float, float]:
        """Spacing (rad) of the columns in RA and of the rows in declination, with their signs."""
        return tuple(float(step) for step in np.radians(self.wcs.wcs.cdelt))

    @functools.cached_property
    def pixel_arcmin(self) -> float:
        """Side of a pixel along declination, without what a conversion to arcmin adds."""
        return float(f"{_sides(self.wcs)[1] * 60:.12g}")

    @property
    def lmax(self) -> int:
        """Band limit: Nyquist of the declination spacing."""
        return round(180 * 60 / self.pixel_arcmin)

    def angles_at(self, y, x) -> tuple[np.ndarray, np.ndarray]:
        """Colatitude and longitude (rad) of places in pixels, whole at pixel centres."""
        ra, dec = self.wcs.wcs_pix2world(np.asarray(x, float), np.asarray(y, float), 0)
        return np.radians(90.0 - np.asarray(dec)), _turn(np.radians(np.asarray(ra) % 360))

    def angles(self, pixel=None) -> tuple[np.ndarray, np.ndarray]:
        """Colatitude and longitude (rad) of pixel centres (flat index)."""
        pixel = np.arange(self.npix) if pixel is None else np.asarray(pixel)
        y, x = np.divmod(pixel, self.map_shape[1])
        if self.axes is not None:
            return self.axes[0][y], self.axes[1][x]
        theta, phi = self.angles_at(y, x)
        return (np.clip(theta, 0, np.pi) if self.cylindrical else theta), phi

    def places(self, theta, phi) -> tuple[np.ndarray, np.ndarray]:
        """Row and column (pixels, whole at centres) of directions; NaN where there are none."""
        w = self.wcs.wcs
        if self.plain:  # by hand: an eighth of the time
            y = (np.pi / 2 - theta) * (1 / self.steps[1]) + (w.crpix[1] - 1)
            x = (phi - np.radians(w.crval[0])) * (1 / self.steps[0]) + (w.crpix[0] - 1)
            return y, x
        x, y = self.wcs.wcs_world2pix(np.degrees(phi), 90.0 - np.degrees(theta), 0)
        return y, x

    def pixel(self, theta, phi) -> np.ndarray:
        """Flat index of the pixel that holds each direction; -1 outside the map."""
        ny, nx = self.map_shape
        y, x = self.places(np.asarray(theta, float), np.asarray(phi, float))
        # The poles lie on the outer edges of a full-sky grid; rounding must not lose them.
        y = np.where(np.abs(y + 0.5) < EDGE, 0, np.where(np.abs(y + 0.5 - ny) < EDGE, ny - 1, y))
        periodic = False
        if _projection(self.wcs) in CYLINDRICAL and _is_straight(self.wcs):
            turn = abs(360.0 / self.wcs.wcs.cdelt[0])
            periodic = abs(turn - round(turn)) < EDGE
            if not periodic:
                x = (x + 0.5) % turn - 0.5
        x, y = np.floor(x + 0.5), np.floor(y + 0.5)
        if periodic:
            # After rounding, so that a direction half a pixel off the seam cannot fall
            # between the last column and the first.
            x = x % round(turn)
        inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny)
        flat = np.where(inside, y, -1) * nx + np.where(inside, x, nx - 1)
        return flat.astype(np.int64)

    def area(self, pixel=None) -> np.ndarray | float:
        """Solid angle (sr) of the pixels asked for."""
        ny, nx = self.map_shape
        area = np.broadcast_to(self._area, (ny, nx))
        if pixel is None:
            return area.ravel()
        return area[np.divmod(np.asarray(pixel), nx)]

    def _check_places(self) -> None:
        """Refuse a grid on which a pixel's position is none or leads to another pixel."""
        y, x = (
            np.unique(np.linspace(0, n - 1, TRIED).round().astype(np.int64)) for n in self.map_shape
        )
        y, x = (part.ravel() for part in np.meshgrid(y, x, indexing="ij"))
        pixel = y * self.map_shape[1] + x
        theta, phi = self.angles(pixel)
        on_sky = np.isfinite(theta) & np.isfinite(phi)
        with np.errstate(invalid="ignore"):
            back = self.pixel(theta, phi)
            # A pole has no longitude, and all the pixels of its row share it.
            same = (back == pixel) | (np.sin(theta) < 1e-9)
        if not (on_sky & same).all():
            bad = int(np.argmin(on_sky & same))
            why = "leads back to another one" if on_sky[bad] else "lies off the sphere"
            raise ValueError(
                f"geometry of shape {self.map_shape} in {_projection(self.wcs)}: pixel "
                f"({y[bad]}, {x[bad]}) {why}; every pixel must have a place of its own on the sky, "
                "cut the map to those that do"
            )


#: What describes a WCS beside its projection parameters.
_SAVED = ("ctype", "cunit", "crval", "crpix", "cdelt", "pc", "lonpole", "latpole", "radesys")


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


def _check_shape(shape: object) -> tuple[int, int]:
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


def _check_wcs(wcs):
    """A copy of the celestial part, in degrees, with steps in CDELT and turns in PC."""
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
    check = _projection(out) not in CYLINDRICAL
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


def _check_size(shape: tuple[int, int], wcs) -> None:
    """Refuse sides and extents that no sky has, before any position is worked out."""
    sides = _sides(wcs)
    low, high = SIDE_ARCMIN
    what = f"geometry wcs with pixels of {60 * sides[0]:.6g}' x {60 * sides[1]:.6g}'"
    if not (low <= 60 * min(sides) and 60 * max(sides) <= high):
        raise ValueError(f"{what}: must be from {low:g}' to {high:g}', {_EXAMPLE}")
    if max(sides) > ASPECT * min(sides):
        raise ValueError(
            f"{what}: one side may be at most {ASPECT:g} times the other; make square pixels and "
            "average them"
        )
    kind = _projection(wcs)
    if kind not in CYLINDRICAL or not _is_straight(wcs):
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
                "reach beyond a pole; cut the map there"
            )


def _snapped(steps: NDArray[np.float64], projection: str) -> NDArray[np.float64]:
    """Steps (deg) with what header cards rounded put back where they divide the circle."""
    steps = np.array(steps)
    if projection not in CYLINDRICAL:
        return steps
    for axis in (0, 1) if projection == "CAR" else (0,):
        turn = 360 / abs(steps[axis])
        if round(turn) and abs(turn - round(turn)) < SNAP:
            steps[axis] = np.sign(steps[axis]) * 360 / round(turn)
    return steps


def _is_cylindrical(shape: tuple[int, int], wcs) -> bool:
    """Whether the poles of the projection are those of the sky: tried, not read off the cards."""
    if _projection(wcs) not in CYLINDRICAL or not _is_straight(wcs) or wcs.wcs.crval[1] != 0:
        return False
    y, x = np.meshgrid(*(np.array([0, (n - 1) / 2, n - 1]) for n in shape), indexing="ij")
    w = wcs.wcs
    ra, dec = (part.reshape(3, 3) for part in wcs.wcs_pix2world(x.ravel(), y.ravel(), 0))
    turn = ra - w.crval[0] - (x + 1 - w.crpix[0]) * w.cdelt[0]
    even = np.abs((turn + 180) % 360 - 180).max() < PLAIN_DEG
    level = np.abs(dec - dec[:, :1]).max() < PLAIN_DEG
    if _projection(wcs) == "CAR":
        level &= np.abs(dec - np.clip((y + 1 - w.crpix[1]) * w.cdelt[1], -90, 90)).max() < PLAIN_DEG
    return bool(even and level)


def _is_straight(wcs) -> bool:
    """Whether rows and columns lie along the axes of the projection."""
    return bool(np.array_equal(wcs.wcs.get_pc(), np.eye(2)))


def _projection(wcs) -> str:
    return str(wcs.wcs.ctype[0])[5:8]


def _sides(wcs) -> tuple[float, float]:
    """Sides of a pixel (deg) in the plane of the projection."""
    return tuple(float(side) for side in np.linalg.norm(wcs.pixel_scale_matrix, axis=0))


def _turn(phi: np.ndarray) -> np.ndarray:
    """Azimuths below 2 pi: the remainder of a tiny negative angle is a whole turn."""
    return np.where(phi < 2 * np.pi, phi, 0.0)
