"""Grids written as header cards in several ways."""

import numpy as np
from astropy.wcs import WCS
from pixell import enmap

BOX = np.radians([[-5, 5], [5, -5]])


def patch(res=0.5, box=BOX):
    return enmap.geometry(box, res=np.radians(res), proj="car")


def full(res=2.0, variant="fejer1"):
    return enmap.fullsky_geometry(res=np.radians(res), variant=variant)


def header(shape_wcs, **cards):
    """The WCS of a header in which some cards are others; None leaves one out."""
    cards = {"RADESYS": None, **cards}
    h = shape_wcs[1].to_header()
    for key, value in cards.items():
        h.pop(key, None)
        if value is not None:
            h[key] = value
    return shape_wcs[0], WCS(h)


def cd():
    s, w = patch()
    return header((s, w), CDELT1=None, CDELT2=None, CD1_1=w.wcs.cdelt[0], CD2_2=w.wcs.cdelt[1])


def pc():
    s, w = patch()
    return header((s, w), CDELT1=1.0, CDELT2=1.0, PC1_1=w.wcs.cdelt[0], PC2_2=w.wcs.cdelt[1])


def arcmin():
    cards = {"CUNIT1": "arcmin", "CUNIT2": "arcmin", "CDELT1": -30.0, "CDELT2": 30.0}
    return header(patch(), **cards)


def third_axis(last="STOKES"):
    s, w = patch()
    cards = {"WCSAXES": 3, "CTYPE3": last, "CRVAL3": 1, "CRPIX3": 1, "CDELT3": 1}
    return header(((3, *s), w), **cards)


def rounded(digits):
    s, w = full(1 / 3)
    step = float(f"{1 / 3:.{digits}g}")
    return header((s, w), CDELT1=-step, CDELT2=step)


def from_fits(shape_wcs, tmp_path):
    enmap.write_map(str(tmp_path / "m.fits"), enmap.zeros(*shape_wcs))
    return enmap.read_map_geometry(str(tmp_path / "m.fits"))
