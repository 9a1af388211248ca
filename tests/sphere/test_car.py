"""The one door of a WCS: every way to write a grid means the same grid, or is refused in a line.

Positions are compared with those of the WCS as it was given, worked out by astropy alone.
"""

import healpy
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from pixell import enmap

from mlsky.sphere import charts, gaussian, lensing
from mlsky.sphere.car import Car, check_coordsys
from mlsky.sphere.geometry import geometry

#: rad: positions worked out by two formulas.
ROUNDING = 1e-9
#: rad: header cards of 12 digits, over a map.
CARDS = 1e-8
#: Of the rms of a field: synthesis at single points against synthesis on rings.
SYNTHESIS = 1e-5

CHARTS = charts.charts(30.0)

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


SAME = {
    "cd": cd,
    "pc": pc,
    "arcmin": arcmin,
    "stokes": third_axis,
    "freq": lambda: third_axis("FREQ"),
}


@pytest.mark.parametrize("kind", SAME)
def test_one_grid_written_in_several_ways(kind):
    plain, car = Car(*patch()), Car(*SAME[kind]())
    assert car.shape == plain.shape
    assert car.plain
    assert car.pixel_arcmin == plain.pixel_arcmin == 30
    assert car.lmax == plain.lmax
    np.testing.assert_allclose(car.angles(), plain.angles(), atol=ROUNDING)
    np.testing.assert_allclose(car.area(), plain.area(), rtol=ROUNDING)


def test_the_wcs_is_copied():
    shape, wcs = patch()
    car = Car(shape, wcs)
    before = car.angles()
    wcs.wcs.crval = [90, 0]
    np.testing.assert_array_equal(car.angles(), before)


def over_180():
    return enmap.subgeo(*full(0.5), np.radians([[-10, 190], [10, 170]]))


def far_turn():
    s, w = patch()
    w = w.deepcopy()
    w.wcs.crpix[0] += 3 * 720
    return s, w


def falling_from_360():
    w = WCS(naxis=2)
    w.wcs.ctype = ["RA---CAR", "DEC--CAR"]
    w.wcs.crval, w.wcs.crpix, w.wcs.cdelt = [360, 0], [1, 45.5], [-2, 2]
    return (90, 180), w


def south_up():
    return enmap.zeros(*full())[::-1, ::-1].geometry


def rotated(angle=20.0):
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return header(patch(), PC1_1=c, PC1_2=-s, PC2_1=s, PC2_2=c)


def off_equator():
    return header(patch(), CRVAL2=40.0, LONPOLE=None, LATPOLE=None)


def sheared():
    return header(patch(), PC1_2=0.1)


ODD = {
    "over 180": over_180,
    "far turn": far_turn,
    "no divisor": lambda: patch(0.503, np.radians([[-5, 185], [5, 175]])),
    "no divisor, across 0": lambda: patch(7 / 60, np.radians([[-2, 3], [2, -3]])),
    "no divisor, wide": lambda: patch(0.77, np.radians([[-4, 170], [4, -180]])),
    "falling from 360": falling_from_360,
    "south up": south_up,
    "rotated": rotated,
    "upright": lambda: rotated(90.0),
    "sheared": sheared,
    "lonpole": lambda: header(patch(), LONPOLE=90.0, LATPOLE=0.0),
    "lonpole 180": lambda: header(patch(), LONPOLE=180.0, LATPOLE=None),
    "off equator": off_equator,
    "tan": lambda: enmap.geometry(np.radians([[50, 7], [60, -7]]), res=0.01, proj="tan"),
    "tan at pole": lambda: enmap.geometry(np.radians([[85, 7], [89, -7]]), res=0.01, proj="zea"),
    "cea": lambda: enmap.geometry(BOX, res=0.01, proj="cea"),
    "mer": lambda: enmap.geometry(BOX, res=0.01, proj="mer"),
    "clenshaw-curtis": lambda: full(2.0, "CC"),
}


def directions(wcs, y, x):
    """By astropy, without its checks of bounds."""
    wcs = wcs.celestial
    if str(wcs.wcs.ctype[0]).endswith(("CAR", "CEA", "MER")):
        wcs.wcs.bounds_check(False, False)
    return healpy.ang2vec(*wcs.wcs_pix2world(x, y, 0), lonlat=True)


@pytest.mark.parametrize("kind", ODD)
def test_pixels_are_where_the_wcs_says(kind):
    shape, wcs = ODD[kind]()
    car = Car(shape, wcs)
    theta, phi = car.angles()
    where = np.mgrid[: car.shape[0], : car.shape[1]].reshape(2, -1)
    assert np.all((theta >= 0) & (theta <= np.pi) & (phi >= 0) & (phi < 2 * np.pi))
    np.testing.assert_allclose(healpy.ang2vec(theta, phi), directions(wcs, *where), atol=CARDS)
    at_pole = np.sin(theta) < ROUNDING
    back = car.pixel(theta, phi)
    np.testing.assert_array_equal(back[~at_pole], np.flatnonzero(~at_pole))
    assert np.all(back >= 0)
    turned = car.pixel(theta, phi + 4 * np.pi)
    np.testing.assert_array_equal(turned, back)


@pytest.mark.parametrize("kind", ODD)
def test_area_is_that_between_the_corners(kind):
    """Two triangles each (Van Oosterom & Strackee 1983, doi:10.1109/TBME.1983.325207)."""
    shape, wcs = ODD[kind]()
    car = Car(shape, wcs)
    ny, nx = car.shape
    y, x = np.mgrid[1 : ny - 1 : 3, 1 : nx - 1 : 3].reshape(2, -1)  # polar rows end at the pole
    a, b, c, d = (
        directions(wcs, y + dy, x + dx)
        for dy, dx in ((-0.5, -0.5), (-0.5, 0.5), (0.5, 0.5), (0.5, -0.5))
    )
    expected = _triangle(a, b, c) + _triangle(a, c, d)
    # the rows of cylindrical grids are no great circles, the less the nearer they are to a pole
    far = np.sin(car.angles(y * nx + x)[0]) > 0.5
    rtol = 4 * np.radians(car.pixel_arcmin / 60) ** 2
    np.testing.assert_allclose(car.area(y * nx + x)[far], expected[far], rtol=rtol)


def _triangle(a, b, c):
    volume = np.abs(np.einsum("ij,ij->i", a, np.cross(b, c)))
    dot = [np.einsum("ij,ij->i", *pair) for pair in ((a, b), (b, c), (c, a))]
    return 2 * np.arctan2(volume, 1 + sum(dot))


@pytest.mark.parametrize("kind", ODD)
def test_fields_and_charts_on_odd_grids(kind):
    car = Car(*ODD[kind]())
    rng = np.random.default_rng(1)
    lmax = 32
    ell, m = healpy.Alm.getlm(lmax)
    alm = rng.standard_normal((2, ell.size)) * (ell >= 2) / np.maximum(ell, 2)
    alm = alm[0] + 1j * alm[1] * (m > 0)
    values = gaussian.alm_to_map(alm, car).ravel()
    theta, phi = car.angles()
    some = rng.choice(car.npix, 60)
    expected = _by_hand(alm, lmax, theta[some], phi[some])
    np.testing.assert_allclose(values[some], expected, atol=SYNTHESIS * values.std())
    lensed = lensing.lens(alm[None], 0 * alm, car)[0].ravel()
    np.testing.assert_allclose(lensed, values, atol=5e-4 * values.std())
    owned = [charts.owned(chart, car) for chart in CHARTS]
    np.testing.assert_array_equal(np.sort(np.concatenate(owned)), np.arange(car.npix))


def _by_hand(alm, lmax, theta, phi):
    """Sum of spherical harmonics, by scipy's."""
    from scipy.special import sph_harm_y

    ell, m = healpy.Alm.getlm(lmax)
    out = np.zeros(theta.size)
    for a, n, k in zip(alm, ell, m, strict=True):
        term = (a * sph_harm_y(n, k, theta, phi)).real
        out += term if k == 0 else 2 * term
    return out


@pytest.mark.parametrize("variant", ["fejer1", "CC"])
def test_a_grid_from_a_file_is_the_grid(variant, tmp_path):
    made = full(2 / 3, variant)
    car, back = Car(*made), Car(*from_fits(made, tmp_path))
    np.testing.assert_allclose(back.angles(), car.angles(), atol=ROUNDING)
    np.testing.assert_array_equal(back.pixel(*car.angles()), car.pixel(*car.angles()))
    np.testing.assert_allclose(back.area(), car.area(), rtol=ROUNDING, atol=1e-15)
    assert back.pixel_arcmin == car.pixel_arcmin


@pytest.mark.parametrize("digits", [7, 9, 12, 15])
def test_a_rounded_step_divides_the_circle(digits):
    car = Car(*rounded(digits))
    assert car.pixel_arcmin == 20
    assert gaussian.rings(car).full
    np.testing.assert_array_equal(np.sort(car.pixel(*car.angles())), np.arange(car.npix))


@pytest.mark.parametrize("side", [0.5, 1.0, 2.0, 20 / 3])
def test_sides_are_those_meant(side):
    """What chooses the networks: not 2.0000000000000004."""
    shape, wcs = enmap.geometry(BOX, res=np.radians(side / 60), proj="car")
    assert Car(shape, wcs).pixel_arcmin == pytest.approx(side, rel=1e-12)
    assert Car(shape, wcs).pixel_arcmin == float(f"{side:.12g}")
    back = WCS(wcs.to_header())
    assert Car(shape, back).pixel_arcmin == Car(shape, wcs).pixel_arcmin


@pytest.mark.parametrize("kind", ODD)
def test_described_and_built_again(kind):
    import json

    car = Car(*ODD[kind]())
    back = Car.build(json.loads(json.dumps(car.describe())))
    assert back == car
    np.testing.assert_array_equal(back.angles(), car.angles())
    assert back.plain == car.plain


def test_a_description_of_earlier_versions():
    car = Car(*patch())
    old = car.describe()
    for name in ("lonpole", "latpole", "radesys"):
        del old["wcs"][name]
    np.testing.assert_array_equal(Car.build(old).angles(), car.angles())


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
    "beyond a pole": (beyond_a_pole, "must not reach beyond a pole"),
    "horizon": (horizon, "a place of its own"),
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
    "crpix far": (lambda: off(crpix=[1, 1e9]), "must not reach beyond a pole"),
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
