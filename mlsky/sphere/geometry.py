"""Output pixelisations, HEALPix RING and CAR, with one interface.

A geometry knows the shape of a map and the positions and areas of its pixels. The rest of the
package never branches on the kind of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlsky.arguments import integer, short
from mlsky.sphere.car import Car

__all__ = ["Car", "Geometry", "Healpix", "Legendre", "geometry"]

NSIDE_MAX = 8192


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
        allowed = f"a power of two from 1 to {NSIDE_MAX}, for example 1024"
        n = integer("nside", self.nside, allowed, 1, NSIDE_MAX)
        if n & (n - 1):
            raise ValueError(f"nside={n}: must be {allowed}")
        object.__setattr__(self, "nside", n)

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
    def sides_arcmin(self) -> tuple[float, float]:
        """That side twice, as of rectangular pixels."""
        return self.pixel_arcmin, self.pixel_arcmin

    @property
    def lmax(self) -> int:
        """Band limit of fields synthesised on these pixels, 3 nside - 1."""
        return 3 * self.nside - 1

    def angles(self, pixel=None) -> tuple[np.ndarray, np.ndarray]:
        """Colatitude and longitude (rad) of pixel centres; all of them by default."""
        import healpy

        return healpy.pix2ang(self.nside, np.arange(self.npix) if pixel is None else pixel)

    def pixel(self, theta, phi) -> np.ndarray:
        """Index of the pixel that contains each direction, int64."""
        import healpy

        return healpy.ang2pix(self.nside, theta, phi)

    def area(self, pixel=None) -> np.ndarray | float:
        """Solid angle (sr) of the pixels asked for."""
        return 4 * np.pi / self.npix


@dataclass(frozen=True)
class Legendre:
    """Gauss-Legendre rings: a grid for harmonic analysis, not for output.

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
        """Distance between the rings."""
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
    if hasattr(shape_wcs, "wcs") and hasattr(shape_wcs, "shape"):  # a map of pixell's
        return Car(shape_wcs.shape, shape_wcs.wcs)
    if not isinstance(shape_wcs, (tuple, list)) or len(shape_wcs) != 2:
        raise ValueError(
            f"geometry={short(shape_wcs)}: must be (shape, wcs), "
            "as pixell.enmap.fullsky_geometry returns it, or a map of pixell's"
        )
    return Car(*shape_wcs)
