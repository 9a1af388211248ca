"""Output pixelisations: HEALPix RING and CAR, behind the same few questions.

A geometry knows the shape of a map, where its pixels are and how large; the
rest of the package asks it and never branches on the kind of pixels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

__all__ = ["Car", "Geometry", "Healpix", "Legendre", "geometry"]

NSIDE_MAX = 8192

#: Pixels (of a row) by which a direction may lie beyond the edge of a map through rounding.
EDGE = 1e-6

#: FITS projections whose rows are iso-latitude (Calabretta & Greisen 2002, Sec. 5.2).
CYLINDRICAL = {"CAR", "CEA", "MER", "CYP"}


@dataclass(frozen=True)
class Healpix:
    """HEALPix RING pixels (Gorski et al. 2005, doi:10.1086/427976).

    Parameters
    ----------
    nside
        A power of two, 1 <= nside <= 8192.
    """

    nside: int

    kind = "healpix"

    def __post_init__(self) -> None:
        n = self.nside
        if (
            isinstance(n, bool)
            or not isinstance(n, (int, np.integer))
            or not 1 <= n <= NSIDE_MAX
            or n & (n - 1)
        ):
            raise ValueError(
                f"nside={n!r}: must be a power of two from 1 to {NSIDE_MAX}, for example 1024"
            )
        object.__setattr__(self, "nside", int(n))

    @property
    def npix(self) -> int:
        return 12 * self.nside**2

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.npix,)

    @property
    def pixel_arcmin(self) -> float:
        """Side of the square with the area of a pixel."""
        return float(np.degrees(np.sqrt(4 * np.pi / self.npix)) * 60)

    @property
    def lmax(self) -> int:
        """Band limit of fields synthesised on these pixels, 3 nside - 1."""
        return 3 * self.nside - 1

    def angles(self, pixel=None) -> tuple[np.ndarray, np.ndarray]:
        """Colatitude and longitude (rad) of pixel centres; all of them by default."""
        import healpy

        return healpy.pix2ang(self.nside, np.arange(self.npix) if pixel is None else pixel)

    def pixel(self, theta, phi) -> np.ndarray:
        """Index of the pixel that holds each direction, int64."""
        import healpy

        return healpy.ang2pix(self.nside, theta, phi)

    def area(self, pixel=None) -> np.ndarray | float:
        """Solid angle (sr) of the pixels asked for."""
        return 4 * np.pi / self.npix


@dataclass(frozen=True)
class Car:
    """A CAR (or any celestial) grid given by ``(shape, wcs)`` as in pixell.

    Parameters
    ----------
    map_shape
        ``(ny, nx)``; leading axes, as of a stack of maps, are dropped.
    wcs
        An `astropy.wcs.WCS` with ra, dec axes in degrees, equatorial.
    """

    map_shape: tuple[int, int]
    wcs: object

    kind = "car"

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.map_shape)[-2:]
        if len(shape) != 2 or min(shape) < 1:
            raise ValueError(
                f"geometry shape {self.map_shape!r}: must end in (ny, nx), both positive, "
                "as pixell.enmap.fullsky_geometry returns it"
            )
        if not hasattr(self.wcs, "wcs_pix2world"):
            raise ValueError(
                f"geometry wcs of type {type(self.wcs).__name__}: must be an astropy.wcs.WCS, "
                "as pixell.enmap.fullsky_geometry returns it"
            )
        object.__setattr__(self, "map_shape", shape)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.map_shape

    @property
    def npix(self) -> int:
        return self.map_shape[0] * self.map_shape[1]

    @property
    def cylindrical(self) -> bool:
        """Whether rows are iso-latitude and columns evenly spaced in RA."""
        kinds = {str(name)[5:8] for name in self.wcs.wcs.ctype}
        return len(kinds) == 1 and kinds <= CYLINDRICAL and float(self.wcs.wcs.crval[1]) == 0

    @functools.cached_property
    def _area(self) -> np.ndarray:
        """Pixel area (sr), *(ny, 1)* for the cylindrical grids, *(ny, nx)* otherwise."""
        from pixell import enmap

        return np.asarray(enmap.pixsizemap(self.map_shape, self.wcs, broadcastable=True))

    @property
    def pixel_arcmin(self) -> float:
        """Side of a pixel along declination."""
        return float(abs(self.wcs.wcs.cdelt[1]) * 60)

    @property
    def lmax(self) -> int:
        """Band limit: Nyquist of the declination spacing."""
        return round(180 * 60 / self.pixel_arcmin)

    def angles(self, pixel=None) -> tuple[np.ndarray, np.ndarray]:
        """Colatitude and longitude (rad) of pixel centres (flat index)."""
        pixel = np.arange(self.npix) if pixel is None else np.asarray(pixel)
        y, x = np.divmod(pixel, self.map_shape[1])
        ra, dec = self.wcs.wcs_pix2world(x, y, 0)
        return np.radians(90.0 - np.asarray(dec)), np.radians(np.asarray(ra)) % (2 * np.pi)

    def pixel(self, theta, phi) -> np.ndarray:
        """Flat index of the pixel that holds each direction; -1 outside the map."""
        ny, nx = self.map_shape
        ra, dec = np.degrees(phi), 90.0 - np.degrees(theta)
        x, y = self.wcs.wcs_world2pix(ra, dec, 0)
        # The poles lie on the outer edges of a full-sky grid; rounding must not lose them.
        y = np.where(np.abs(y + 0.5) < EDGE, 0, np.where(np.abs(y + 0.5 - ny) < EDGE, ny - 1, y))
        x, y = np.floor(x + 0.5), np.floor(y + 0.5)
        if self.cylindrical:
            # After rounding, so that a direction half a pixel off the seam cannot fall
            # between the last column and the first.
            x = x % abs(360.0 / self.wcs.wcs.cdelt[0])
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


@dataclass(frozen=True)
class Legendre:
    """Gauss-Legendre rings: a grid between maps and multipoles, not one of output pixels.

    The analysis of a field on it is exact, in one transform, if no multipole l of the field
    and no l' of the result add up to 2 nrings or more.

    Parameters
    ----------
    nrings
        Number of rings, >= 2.
    """

    nrings: int

    @property
    def shape(self) -> tuple[int, int]:
        """``(nrings, nphi)``; nphi is 2 nrings or a little more, with small prime factors."""
        import ducc0

        return self.nrings, 2 * ducc0.fft.good_size(self.nrings)

    @property
    def npix(self) -> int:
        nrings, nphi = self.shape
        return nrings * nphi

    @property
    def pixel_arcmin(self) -> float:
        """Distance of the rings."""
        return 10800 / self.nrings

    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Colatitude of the rings and longitude of the columns, rad."""
        import ducc0

        nrings, nphi = self.shape
        return ducc0.misc.GL_thetas(nrings), 2 * np.pi * np.arange(nphi) / nphi

    def angles(self, pixel) -> tuple[np.ndarray, np.ndarray]:
        """Colatitude and longitude (rad) of points by their flat numbers."""
        theta, phi = self.axes()
        row, column = np.divmod(np.asarray(pixel), self.shape[1])
        return theta[row], phi[column]


Geometry = Healpix | Car


def geometry(nside=None, shape_wcs=None) -> Geometry:
    """One geometry from the arguments `nside` and `geometry` of `simulate`.

    Raises
    ------
    ValueError
        If both or neither are given, or the one given is not valid.
    """
    if (nside is None) == (shape_wcs is None):
        raise ValueError(
            f"nside={nside!r} with geometry={'given' if shape_wcs is not None else None}: "
            "give exactly one, nside=1024 or geometry=(shape, wcs)"
        )
    if nside is not None:
        return Healpix(nside)
    if isinstance(shape_wcs, (Healpix, Car)):
        return shape_wcs
    try:
        shape, wcs = shape_wcs
    except (TypeError, ValueError):
        raise ValueError(
            f"geometry={shape_wcs!r}: must be (shape, wcs), "
            "as pixell.enmap.fullsky_geometry returns it"
        ) from None
    return Car(tuple(np.atleast_1d(shape)), wcs)
