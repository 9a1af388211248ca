"""CAR and other celestial grids.

`Car` keeps the WCS as `mlsky.sphere.wcs` has read and checked it. The rest of the package asks
`Car` where pixels are and never looks at the WCS.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlsky.sphere.wcs import (
    CYLINDRICAL,
    EDGE,
    check_shape,
    check_size,
    check_wcs,
    is_cylindrical,
    is_straight,
    pixel_sides,
    projection_name,
)

__all__ = ["Car"]

#: Number of rows and columns at which the positions of a grid are checked, at most.
TRIED = 33

#: Largest error (pixels) of converting a pixel to a position and back.
RETURN = 1e-3

#: Pixels whose corners are computed at once.
_BLOCK = 2**20

#: Attributes that describe a WCS, besides its projection parameters.
_SAVED = ("ctype", "cunit", "crval", "crpix", "cdelt", "pc", "lonpole", "latpole", "radesys")


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
        If the shape or the WCS is not valid, the frame is another one, the axes are linear or
        swapped, a pixel is off the sphere, too small, too large or too long, or two pixels have the
        same position.
    """

    map_shape: tuple[int, int]
    wcs: object
    #: Whether rows are iso-latitude and columns evenly spaced in RA; `plain`: CAR, with rows evenly
    #: spaced too.
    cylindrical: bool = field(init=False, repr=False)
    plain: bool = field(init=False, repr=False)

    kind = "car"

    def __post_init__(self) -> None:
        shape = check_shape(self.map_shape)
        wcs = check_wcs(self.wcs)
        object.__setattr__(self, "map_shape", shape)
        object.__setattr__(self, "wcs", wcs)
        check_size(shape, wcs)
        cylindrical = is_cylindrical(shape, wcs)
        object.__setattr__(self, "cylindrical", cylindrical)
        object.__setattr__(self, "plain", cylindrical and projection_name(wcs) == "CAR")
        self._check_places()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Car) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash((self.map_shape, tuple(self.wcs.wcs.crval), tuple(self.wcs.wcs.crpix)))

    @classmethod
    def build(cls, description: dict) -> Car:
        """The grid of a description; those of earlier versions lack poles and frame."""
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
        """The grid in plain JSON types: numbers, as header cards have only about 12 digits."""
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
        # Rounding may put the row of a pole slightly outside the sphere.
        return np.radians(np.clip(90 - dec, 0, 180)), _turn(np.radians(ra % 360))

    @functools.cached_property
    def _area(self) -> np.ndarray:
        """Pixel area (sr), *(ny, 1)* for the cylindrical grids, *(ny, nx)* otherwise."""
        if not self.cylindrical:
            return self._corner_area()
        from pixell import enmap

        return np.asarray(enmap.pixsizemap(self.map_shape, self.wcs, broadcastable=True))

    def _corner_area(self) -> np.ndarray:
        """Half the cross product of the diagonals, accurate to (side in rad)^2 / 12."""
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

    @property
    def sides_deg(self) -> tuple[float, float]:
        """Sides of a pixel (deg) in the plane of the projection, along a row and along a column."""
        return pixel_sides(self.wcs)

    @functools.cached_property
    def sides_arcmin(self) -> tuple[float, float]:
        """`sides_deg` in arcmin, without the rounding of a conversion.

        The longer one says how far a pixel extends, the shorter one how fine the map is: networks
        are chosen by it.
        """
        return tuple(float(f"{side * 60:.12g}") for side in self.sides_deg)

    @property
    def pixel_arcmin(self) -> float:
        """Side of a pixel along declination."""
        return self.sides_arcmin[1]

    @property
    def lmax(self) -> int:
        """Band limit: Nyquist of the declination spacing, that of rings, whatever the columns."""
        return round(180 * 60 / self.pixel_arcmin)

    def angles_at(self, y, x) -> tuple[np.ndarray, np.ndarray]:
        """Colatitude and longitude (rad) of pixel coordinates, integers at pixel centres."""
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
        """Row and column (integers at pixel centres) of directions; NaN off the projection."""
        w = self.wcs.wcs
        if self.plain:  # eight times faster than the general case
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
        if projection_name(self.wcs) in CYLINDRICAL and is_straight(self.wcs):
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
        """Solid angle (sr) of some pixels, or of all."""
        ny, nx = self.map_shape
        area = np.broadcast_to(self._area, (ny, nx))
        if pixel is None:
            return area.ravel()
        return area[np.divmod(np.asarray(pixel), nx)]

    def _check_places(self) -> None:
        """Refuse a grid with pixels off the sphere, or with two pixels at one position."""
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
                f"geometry of shape {self.map_shape} in {projection_name(self.wcs)}: pixel "
                f"({y[bad]}, {x[bad]}) {why}; every pixel must have its own position on the sky, "
                "cut the map to those that do"
            )


def _turn(phi: np.ndarray) -> np.ndarray:
    """Azimuths below 2 pi, also for tiny negative angles, whose remainder rounds to a full turn."""
    return np.where(phi < 2 * np.pi, phi, 0.0)
