"""Full-sky maps in FITS files of other programs, in any extension, with unit and frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments
from mlsky.sphere.wcs import check_coordsys

__all__ = ["FitsMap", "read_fits"]


@dataclass(frozen=True, eq=False)
class FitsMap:
    """The first map, or alm, of a FITS file.

    Parameters
    ----------
    values
        (npix,) HEALPix in RING order, UNSEEN where there are no data; (ny, nx) of a CAR map; or
        complex (nalm,), healpy-ordered.
    wcs
        Of a CAR map, as its header states it.
    unit
        As the header states it, or "".
    """

    values: NDArray
    wcs: object = None
    unit: str = ""


def read_fits(name: str, path: Path) -> FitsMap:
    """The first map or alm in any extension of a file, including compressed images.

    Parameters
    ----------
    name
        Of the map, for errors.

    Raises
    ------
    ValueError
        If the file cannot be read, holds neither, or a HEALPix map is not equatorial.
    """
    import warnings

    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning

    found = coordsys = None
    with (
        arguments.reading(f"{name}: {path}", "a FITS file of a map or of alm"),
        path.open("rb") as file,
        warnings.catch_warnings(),
    ):
        # of a truncated file and of broken cards astropy only warns
        warnings.simplefilter("error", AstropyWarning)
        for number, hdu in enumerate(fits.open(file, memmap=False)):
            header = hdu.header
            if isinstance(hdu, fits.BinTableHDU):
                found, coordsys = _table(path, number, header), header.get("COORDSYS")
            elif hdu.is_image and header.get("NAXIS", 0) >= 2 and header.get("CTYPE1"):
                found, coordsys = _image(hdu), None
            if found:
                break
    if found is None:
        raise ValueError(
            f"{name}: {path} holds neither a HEALPix nor a CAR map nor an alm (no PIXTYPE, no "
            "CTYPE1); must have one"
        )
    if np.ndim(found.values) == 1 and found.values.dtype.kind != "c":
        check_coordsys(name, coordsys)
    return found


def _table(path: Path, number: int, header) -> FitsMap | None:
    """A HEALPix map or an alm of a table, or None if it is neither."""
    import healpy

    if str(header.get("TTYPE1", "")).strip().lower() == "index":
        return FitsMap(healpy.read_alm(path, hdu=number))
    if str(header.get("PIXTYPE", "")).strip().upper() != "HEALPIX" and "NSIDE" not in header:
        return None
    values = healpy.read_map(path, field=0, hdu=number, dtype=None)
    return FitsMap(values, unit=str(header.get("TUNIT1", "")).strip())


def _image(hdu) -> FitsMap:
    """A CAR map: of several, the first."""
    import warnings

    from astropy.wcs import WCS, FITSFixedWarning

    grid = hdu.data
    while grid.ndim > 2:  # temperature, of the first band
        grid = grid[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)  # dates and old spellings
        wcs = WCS(hdu.header)
    return FitsMap(np.asarray(grid), wcs, str(hdu.header.get("BUNIT", "")).strip())
