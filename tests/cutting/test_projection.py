"""Fields on the rotated band against closed forms: low harmonics, single sources."""

from __future__ import annotations

import numpy as np
import pytest

from mlsky.cutting import areas, projection
from mlsky.frequency.bands import jy_per_sr_per_uk
from mlsky.sphere.geometry import Car, Healpix

BAND = areas.EquatorialBand(20.0)
ANGLES = [(0.0, 0.0), (35.0, 0.0), (0.0, 50.0), (35.0, 50.0), (15.0, 80.0)]

#: Map to alm is iterated three times; ducc0 is exact beside it, and the map is float32.
HARMONIC_RTOL = 1e-5
#: Error of four points 55' apart on waves of l <= 3, and on the first rings of HEALPix, whose
#: four and eight points are 90 and 45 deg apart.
CUBIC_ATOL, CUBIC_POLE_ATOL = 1e-4, 2e-3


def wave(v):
    """Harmonics of l <= 3 with all kinds of m, in closed form; of order 1."""
    x, y, z = v
    return 0.3 + 0.5 * z + x * y - 0.7 * y * z + x * (x * x - 3 * y * y) + 0.4 * z * (5 * z * z - 3)


def vectors(geometry):
    theta, phi = geometry.angles()
    s = np.sin(theta)
    return np.stack([s * np.cos(phi), s * np.sin(phi), np.cos(theta)])


def fejer(step_deg=1.0):
    enmap = pytest.importorskip("pixell.enmap")
    shape, wcs = enmap.fullsky_geometry(res=np.radians(step_deg), variant="fejer1")
    return Car(shape, wcs)


def clenshaw(step_deg=1.0):
    enmap = pytest.importorskip("pixell.enmap")
    shape, wcs = enmap.fullsky_geometry(res=np.radians(step_deg), variant="cc")
    return Car(shape, wcs)


def band_vectors(angles):
    """Where on the sky the pixels of the turned band came from."""
    ny, nx = BAND.shape
    v = BAND.vectors(np.arange(ny)[:, None], np.arange(nx)[None])
    return np.einsum("ij,jyx->iyx", areas.matrix(angles).T, v)


@pytest.mark.parametrize("angles", ANGLES)
def test_harmonic_is_the_turned_field(angles):
    geometry = Healpix(64)
    alm = projection.to_alm(wave(vectors(geometry)), geometry, 32)
    got = projection.harmonic(alm, angles, BAND)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wave(band_vectors(angles)), atol=HARMONIC_RTOL)


def test_harmonic_from_car():
    geometry = fejer()
    alm = projection.to_alm(wave(vectors(geometry)), geometry, 32)
    got = projection.harmonic(alm, (35.0, 50.0), BAND)
    np.testing.assert_allclose(got, wave(band_vectors((35.0, 50.0))), atol=HARMONIC_RTOL)


@pytest.mark.parametrize("make", [lambda: Healpix(64), fejer, clenshaw])
def test_cubic_everywhere_poles_included(make):
    geometry = make()
    rng = np.random.Generator(np.random.Philox(1))
    v = rng.standard_normal((3, 4000))
    v[:2, :1000] *= 0.005  # close to the poles
    v /= np.linalg.norm(v, axis=0)
    v = np.concatenate([v, np.array([[0, 0], [0, 0], [1, -1]])], axis=1)
    got = projection.cubic(wave(vectors(geometry)), geometry, v)
    want = wave(v)
    np.testing.assert_allclose(got, want, atol=CUBIC_POLE_ATOL)
    away = np.abs(v[2]) < np.cos(np.radians(4))
    np.testing.assert_allclose(got[away], want[away], atol=CUBIC_ATOL)


@pytest.mark.parametrize("make", [lambda: Healpix(16), fejer])
def test_cubic_at_pixel_centres_is_the_pixel(make):
    geometry = make()
    rng = np.random.Generator(np.random.Philox(2))
    values = rng.standard_normal(geometry.npix)
    got = projection.cubic(values, geometry, vectors(geometry))
    np.testing.assert_allclose(got, values, atol=1e-6)  # float32


def test_cubic_refuses_a_cut_out():
    enmap = pytest.importorskip("pixell.enmap")
    shape, wcs = enmap.band_geometry(np.radians(20), res=np.radians(1))
    shape = (shape[0], shape[1] - 1)
    with pytest.raises(ValueError, match="full-sky CAR"):
        projection.cubic(np.zeros(shape), Car(shape, wcs), np.ones((3, 1)))


@pytest.mark.parametrize("angles", ANGLES)
def test_sources_land_whole_in_their_pixels(angles):
    ny, nx = BAND.shape
    rng = np.random.Generator(np.random.Philox(5))
    y, x = rng.integers(0, ny, 50), rng.integers(0, nx, 50)
    offset = rng.uniform(-0.45, 0.45, (2, 50))
    v = areas.matrix(angles).T @ BAND.vectors(y + offset[0], x + offset[1])
    flux = rng.uniform(1, 10, 50)
    got = projection.paint(v, flux, angles, BAND)
    area = BAND.geometry.area().reshape(ny, nx)
    in_mjy = got * area * jy_per_sr_per_uk(148.0) * 1e3
    want = np.zeros((ny, nx))
    np.add.at(want, (y, x), flux)
    np.testing.assert_allclose(in_mjy, want, rtol=1e-6)  # float32


def test_sources_outside_the_band_are_left_out_and_blocks_add_up(monkeypatch):
    rng = np.random.Generator(np.random.Philox(6))
    v = rng.standard_normal((3, 5000))
    v /= np.linalg.norm(v, axis=0)
    flux = rng.uniform(1, 10, 5000)
    whole = projection.paint(v, flux, (15, 20), BAND)
    monkeypatch.setattr(projection, "_BLOCK", 700)
    np.testing.assert_allclose(projection.paint(v, flux, (15, 20), BAND), whole, rtol=1e-6)
    z = (areas.matrix((15, 20)) @ v)[2]
    area = BAND.geometry.area().reshape(BAND.shape)
    total = np.sum(whole * area, dtype=np.float64) * jy_per_sr_per_uk(148.0) * 1e3
    np.testing.assert_allclose(total, flux[np.abs(z) < np.sin(np.radians(10))].sum(), rtol=1e-6)


def test_window_takes_means_over_one_pixel_to_another():
    geometry = Healpix(16)
    rng = np.random.Generator(np.random.Philox(7))
    values = rng.standard_normal(geometry.npix)
    plain = projection.to_alm(values, geometry, 20)
    same = projection.to_alm(values, geometry, 20, geometry.pixel_arcmin)
    np.testing.assert_allclose(same, plain, atol=1e-12)
    finer = projection.to_alm(values, geometry, 20, 1.0)
    assert np.sum(np.abs(finer) ** 2) > np.sum(np.abs(plain) ** 2)


def test_default_lmax_is_what_both_grids_carry():
    assert projection.default_lmax(Healpix(4096), areas.EquatorialBand(0.5)) == 10240
    assert projection.default_lmax(Healpix(8192), areas.EquatorialBand(0.5)) == 20480
    assert projection.default_lmax(Healpix(8192), areas.EquatorialBand(2.0)) == 5400
    assert projection.default_lmax(fejer(), BAND) == 180
