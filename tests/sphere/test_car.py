"""Pixels of CAR and other grids, against positions that astropy alone gives for the same WCS."""

import healpy
import numpy as np
import pytest
from astropy.wcs import WCS
from pixell import enmap
from wcs_cases import BOX, arcmin, cd, from_fits, full, header, patch, pc, rounded, third_axis

from mlsky.sphere import charts, gaussian, lensing
from mlsky.sphere.car import Car

#: rad: positions worked out by two formulas.
ROUNDING = 1e-9
#: rad: header cards of 12 digits, over a map.
CARDS = 1e-8
#: Of the rms of a field: synthesis at single points against synthesis on rings.
SYNTHESIS = 1e-5

CHARTS = charts.charts(30.0)

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
