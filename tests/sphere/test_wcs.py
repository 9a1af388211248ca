"""Reading a WCS: what no grid can be is refused in one line."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from pixell import enmap
from wcs_cases import BOX, full, header, patch

from mlsky.sphere.car import Car
from mlsky.sphere.geometry import geometry
from mlsky.sphere.wcs import check_coordsys


def wide():
    s, w = full()
    return (s[0], s[1] + 10), w


def beyond_a_pole():
    s, w = full()
    return (s[0] + 4, s[1]), w


def horizon():
    w = WCS(naxis=2)
    w.wcs.ctype, w.wcs.cdelt = ["RA---SIN", "DEC--SIN"], [-1, 1]
    w.wcs.crval, w.wcs.crpix = [0, 0], [100, 100]
    return (200, 200), w


def ellipse():
    w = WCS(naxis=2)
    w.wcs.ctype, w.wcs.cdelt = ["RA---AIT", "DEC--AIT"], [-1, 1]
    w.wcs.crval, w.wcs.crpix = [0, 0], [180, 90]
    return (180, 360), w


def sip():
    s, w = enmap.geometry(BOX, res=0.01, proj="tan")
    h = w.to_header()
    h["CTYPE1"], h["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    h["A_ORDER"], h["B_ORDER"], h["A_2_0"], h["B_0_2"] = 2, 2, 1e-6, 1e-6
    return s, WCS(h)


def steps(x, y):
    w = WCS(naxis=2)
    w.wcs.ctype, w.wcs.cdelt, w.wcs.crval = ["RA---CAR", "DEC--CAR"], [x, y], [0, 0]
    return (10, 10), w


def off(**values):
    s, w = patch()
    w = w.deepcopy()
    for name, value in values.items():
        setattr(w.wcs, name, value)
    return s, w


def swapped():
    return header(patch(), CTYPE1="DEC--CAR", CTYPE2="RA---CAR", LONPOLE=None, LATPOLE=None)


def frame(first, second, **cards):
    return header(patch(), CTYPE1=first, CTYPE2=second, **cards)


def frequency_first():
    w = WCS(naxis=3)
    w.wcs.ctype = ["FREQ", "RA---CAR", "DEC--CAR"]
    w.wcs.cdelt = [1, -0.5, 0.5]
    return (20, 20, 3), w


BAD = {
    "wide": (wide, "must be at most one turn, 180 columns"),
    "beyond a pole": (beyond_a_pole, "must not extend past a pole"),
    "horizon": (horizon, "its own position"),
    "ellipse": (ellipse, "lies off the sphere"),
    "sip": (sip, "distortions"),
    "step 0": (lambda: steps(0, 1), "geometry wcs cannot be used"),
    "step nan": (lambda: steps(np.nan, 1), "geometry wcs cannot be used"),
    "step inf": (lambda: steps(1, np.inf), "geometry wcs cannot be used"),
    "step tiny": (lambda: steps(1e-9, 1e-9), "must be from 0.05' to 3600'"),
    "step huge": (lambda: steps(1e6, 1e6), "must be from 0.05' to 3600'"),
    "long pixels": (lambda: steps(6, 0.5), "at most 10 times the other"),
    "crval nan": (lambda: off(crval=[np.nan, 0]), "not finite"),
    "crpix inf": (lambda: off(crpix=[np.inf, 0]), "not finite"),
    "crpix far": (lambda: off(crpix=[1, 1e9]), "must not extend past a pole"),
    "swapped": (swapped, "right ascension must be the first"),
    "frequency first": (frequency_first, "right ascension must be the first"),
    "no ctype": (lambda: frame(None, None, LONPOLE=None, LATPOLE=None), "with axes '', ''"),
    "linear": (lambda: frame("LINEAR", "LINEAR"), "with axes 'LINEAR', 'LINEAR'"),
    "galactic": (lambda: frame("GLON-CAR", "GLAT-CAR"), r"'GLON-CAR' \(Galactic\)"),
    "ecliptic": (lambda: frame("ELON-CAR", "ELAT-CAR"), r"'ELON-CAR' \(ecliptic\)"),
    "supergalactic": (lambda: frame("SLON-CAR", "SLAT-CAR"), "supergalactic"),
    "half of a pair": (lambda: off(ctype=["RA---CAR", "GLAT-CAR"]), "geometry wcs cannot be used"),
    "FK4": (lambda: header(patch(), RADESYS="FK4", EQUINOX=1950.0), "RADESYS='FK4'"),
    "B1950": (lambda: header(patch(), EQUINOX=1950.0), "EQUINOX=1950"),
    "FK5 of date": (lambda: header(patch(), RADESYS="FK5", EQUINOX=2020.5), "EQUINOX=2020.5"),
    "no projection": (lambda: off(ctype=["RA---XYZ", "DEC--XYZ"]), "geometry wcs cannot be used"),
    "text": (lambda: ((4, 4), "CAR"), r"must be an astropy\.wcs\.WCS"),
    "none": (lambda: (patch()[0], None), r"must be an astropy\.wcs\.WCS"),
    **{
        f"shape {shape!r}": (lambda shape=shape: (shape, patch()[1]), "geometry shape")
        for shape in (None, "20", b"20", (20,), 20, (20.0, 20), (0, 20), (-20, 20), (True, 20))
    },
    "shape nan": (lambda: ((np.nan, 20), patch()[1]), "geometry shape"),
    "shape dict": (lambda: ({}, patch()[1]), "geometry shape"),
    "shape huge": (lambda: ((20, 10**12), patch()[1]), "must be at most one turn"),
}


@pytest.mark.parametrize("kind", BAD)
def test_refused_in_one_line(kind):
    make, message = BAD[kind]
    with pytest.raises(ValueError, match=message) as caught:
        geometry(shape_wcs=make())
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("bad", [5, "car", b"car", {}, ((4, 4),), np.zeros((400, 400)), object()])
def test_what_is_no_geometry_at_all(bad):
    with pytest.raises(ValueError, match=r"must be \(shape, wcs\)") as caught:
        geometry(shape_wcs=bad)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_a_map_of_pixells_is_its_geometry():
    shape, wcs = patch()
    assert geometry(shape_wcs=enmap.zeros((3, *shape), wcs)) == Car(shape, wcs)


@pytest.mark.parametrize("cards", [{"RADESYS": "FK5"}, {"EQUINOX": 2000.0}, {"RADESYS": "ICRS"}])
def test_frames_that_are_equatorial(cards):
    assert Car(*header(patch(), **cards)) == Car(*patch())


@pytest.mark.parametrize("value", [None, "", "C", "c ", "Q", "EQUATORIAL"])
def test_healpix_frames_that_are_equatorial(value):
    check_coordsys("kappa", value)


@pytest.mark.parametrize("value", ["G", "E", "GALACTIC", "Ecliptic", "H", 7])
def test_healpix_frames_that_are_not(value):
    with pytest.raises(ValueError, match=r"kappa: COORDSYS=.*must be equatorial"):
        check_coordsys("kappa", value)


def test_a_header_that_only_fits_knows():
    """Blank cards and comments around the WCS do not matter."""
    shape, wcs = patch()
    h = fits.Header()
    h["OBJECT"] = "sky"
    h.update(wcs.to_header())
    assert Car(shape, WCS(h)) == Car(shape, wcs)


@pytest.mark.parametrize("side", [1 / 3, 0.1, 1.1 / 60])
def test_ten_times_the_other_side_may_be_rounded(side):
    assert Car(*steps(10 * side, side)).sides_arcmin == pytest.approx((600 * side, 60 * side))
    assert Car(*steps(side, 10 * side)).sides_arcmin == pytest.approx((60 * side, 600 * side))
