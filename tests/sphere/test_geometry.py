"""Pixelisations: HEALPix against healpy, CAR against pixell."""

import healpy
import numpy as np
import pytest
from pixell import enmap

from mlsky.sphere.geometry import Car, Healpix, geometry

#: Positions and areas go through the same WCS: rounding only (rad, relative).
ROUNDING = 1e-9


def full_sky(res_deg=0.5):
    return enmap.fullsky_geometry(res=np.radians(res_deg), variant="fejer1")


def cut_out(rows=slice(100, 160), columns=slice(300, 400)):
    wcs = full_sky()[1]
    return (rows.stop - rows.start, columns.stop - columns.start), wcs[rows, columns]


def across_the_seam():
    """A cut-out whose RA runs over 180 deg, where a full-sky map has its edge."""
    return enmap.geometry(np.radians([[-6, 190], [4, 170]]), res=np.radians(0.5), proj="car")


def across_zero():
    return enmap.geometry(np.radians([[-6, 8], [4, -12]]), res=np.radians(0.5), proj="car")


CARS = [full_sky, cut_out, across_the_seam, across_zero]


@pytest.mark.parametrize("grid", CARS)
def test_car_angles_are_pixells(grid):
    shape, wcs = grid()
    car = Car(shape, wcs)
    dec, ra = enmap.posmap(shape, wcs)
    theta, phi = car.angles()
    np.testing.assert_allclose(theta, np.pi / 2 - np.ravel(dec), atol=ROUNDING)
    assert np.all((phi >= 0) & (phi < 2 * np.pi))
    turn = np.angle(np.exp(1j * (phi - np.ravel(ra))))
    np.testing.assert_allclose(turn, 0, atol=ROUNDING)


@pytest.mark.parametrize("grid", CARS)
def test_car_area_is_pixells(grid):
    shape, wcs = grid()
    car = Car(shape, wcs)
    expected = np.ravel(enmap.pixsizemap(shape, wcs))
    np.testing.assert_allclose(car.area(), expected, rtol=ROUNDING)
    some = np.array([0, 5, car.npix - 1])
    np.testing.assert_allclose(car.area(some), expected[some], rtol=ROUNDING)


def test_full_sky_area_is_the_sphere():
    np.testing.assert_allclose(Car(*full_sky()).area().sum(), 4 * np.pi, rtol=1e-12)


def test_area_of_a_large_map_is_kept_by_row():
    # 0.5' full sky: 7 GB if kept by pixel
    car = Car(*enmap.fullsky_geometry(res=np.radians(0.5 / 60), variant="fejer1"))
    assert car.area(np.array([0, car.npix // 2])).shape == (2,)
    assert car._area.size == car.shape[0]


@pytest.mark.parametrize("grid", CARS)
def test_car_pixel_inverts_angles(grid):
    car = Car(*grid())
    np.testing.assert_array_equal(car.pixel(*car.angles()), np.arange(car.npix))


@pytest.mark.parametrize("grid", CARS)
def test_car_pixel_is_pixells(grid):
    shape, wcs = grid()
    rng = np.random.default_rng(1)
    theta = np.arccos(rng.uniform(-1, 1, 20_000))
    phi = rng.uniform(-2 * np.pi, 4 * np.pi, 20_000)
    got = Car(shape, wcs).pixel(theta, phi)
    # pixell unwinds RA to the turn nearest the map's centre; the remainder of a turn is ours.
    y, x = enmap.sky2pix(shape, wcs, np.stack([np.pi / 2 - theta, phi]))
    x = np.floor(x + 0.5) % 720
    y = np.floor(y + 0.5)
    inside = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
    np.testing.assert_array_equal(got, np.where(inside, y * shape[1] + x, -1))
    assert (got >= 0).any()


def test_full_sky_has_no_gap():
    """Every direction has a pixel: at the poles, and on both sides of the seam."""
    car = Car(*full_sky())
    edge = np.pi + np.radians(0.25) * np.array(
        [-1 - 1e-13, -1, -1 + 1e-13, 1 - 1e-13, 1, 1 + 1e-13]
    )
    phi = np.concatenate([edge, -edge, edge + 2 * np.pi, np.linspace(-7, 14, 5000)])
    theta = np.resize(np.concatenate([[0.0, np.pi], np.linspace(0, np.pi, 999)]), phi.shape)
    pixel = car.pixel(theta, phi)
    assert pixel.min() >= 0
    assert pixel.max() < car.npix


def test_each_direction_goes_to_the_nearest_pixel():
    car = Car(*full_sky())
    rng = np.random.default_rng(2)
    theta, phi = np.arccos(rng.uniform(-1, 1, 5000)), rng.uniform(0, 2 * np.pi, 5000)
    centre = car.angles(car.pixel(theta, phi))
    half = np.radians(0.25) * (1 + 1e-9)
    assert np.abs(centre[0] - theta).max() <= half
    assert np.abs(np.angle(np.exp(1j * (centre[1] - phi)))).max() <= half


def test_tangent_plane():
    shape, wcs = enmap.geometry(np.radians([[-2, 2], [2, -2]]), res=np.radians(0.1), proj="tan")
    car = Car(shape, wcs)
    assert not car.cylindrical
    np.testing.assert_array_equal(car.pixel(*car.angles()), np.arange(car.npix))
    theta, phi = np.radians([90.0, 90.0, 20.0]), np.radians([0.0, 30.0, 0.0])
    pixel = car.pixel(theta, phi)
    assert pixel[0] >= 0
    np.testing.assert_array_equal(pixel[1:], -1)


def test_car_scales():
    car = Car(*enmap.fullsky_geometry(res=np.radians(0.5 / 60), variant="fejer1"))
    assert car.pixel_arcmin == pytest.approx(0.5)
    assert car.lmax == 21_600
    assert car.shape == (21_600, 43_200)


def test_leading_axes_are_dropped():
    shape, wcs = full_sky()
    assert Car((3, *shape), wcs).shape == shape


def test_healpix_is_healpys():
    pixels = Healpix(64)
    theta, phi = pixels.angles()
    expected = healpy.pix2ang(64, np.arange(pixels.npix))
    np.testing.assert_array_equal([theta, phi], expected)
    np.testing.assert_array_equal(pixels.pixel(theta, phi), np.arange(pixels.npix))
    assert pixels.area() * pixels.npix == pytest.approx(4 * np.pi)
    assert pixels.pixel_arcmin == pytest.approx(healpy.nside2resol(64, arcmin=True))
    assert pixels.shape == (49_152,)
    assert pixels.lmax == 191


@pytest.mark.parametrize("nside", [0, -1, 3, 1000, 16_384, 4.0, "4", True, None])
def test_bad_nside(nside):
    with pytest.raises(ValueError, match=r"nside=.*power of two from 1 to 8192"):
        Healpix(nside)


def test_geometry_needs_exactly_one():
    with pytest.raises(ValueError, match="give exactly one"):
        geometry()
    with pytest.raises(ValueError, match="give exactly one"):
        geometry(4, full_sky())


def test_geometry_passes_on():
    assert geometry(4) == Healpix(4)
    assert geometry(shape_wcs=full_sky()).kind == "car"
    assert geometry(shape_wcs=Healpix(8)).nside == 8


@pytest.mark.parametrize("bad", [5, "car", ((4, 4),), (4, 4, 4)])
def test_bad_geometry(bad):
    with pytest.raises(ValueError, match=r"must be \(shape, wcs\)"):
        geometry(shape_wcs=bad)


def test_bad_car():
    shape, wcs = full_sky()
    with pytest.raises(ValueError, match=r"must end in \(ny, nx\)"):
        Car((7,), wcs)
    with pytest.raises(ValueError, match=r"must be an astropy\.wcs\.WCS"):
        Car(shape, "CAR")
