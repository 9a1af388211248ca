"""Averages over output pixels, against means over many points of each pixel."""

from __future__ import annotations

import healpy
import numpy as np
import pytest
from pixell import enmap, utils
from scipy.special import eval_legendre

from mlsky.sphere import gaussian, margins, pixel_window
from mlsky.sphere.geometry import Car, Healpix

#: Rounding of float32, in units of the rms of a map whose largest value is four times that.
SINGLE = 5e-7
#: Response of the filter of rectangular pixels up to 0.8 of the Nyquist wave number.
RESPONSE = 1e-3
#: Means over 12 x 12 points of a pixel against its average, for these multipoles.
POINTS = 2e-3
#: The window is the mean over all pixels, whose shapes differ: relative to the field's rms.
SHAPES = 0.02
#: Of HEALPix after one iteration, of what the window changes: rms, and the worst of all pixels,
#: which lie at the poles.
QUADRATURE, WORST = 0.005, 0.04
#: Of the fit to the window of one pixel of nside 64, on a sphere where P_l is not J_0.
ONE_PIXEL = 0.01


def spectrum(lmax):
    return 1.0 / (np.arange(lmax + 1) + 3.0) ** 2 * (np.arange(lmax + 1) > 1)


@pytest.mark.parametrize("power", [1, -1])
def test_the_response_of_the_filter(power):
    taps = pixel_window._taps(power)
    k = np.linspace(0, 0.8 * np.pi, 50)
    response = taps[0] + 2 * (taps[1:] * np.cos(k[:, None] * np.arange(1, len(taps)))).sum(1)
    np.testing.assert_allclose(response, np.sinc(k / (2 * np.pi)) ** power, atol=RESPONSE)
    assert taps[0] + 2 * taps[1:].sum() == pytest.approx(1, abs=1e-6)


def fine_mean(alm, geometry, n=12):
    """Mean of a field over n x n points of each pixel of a plain grid."""
    ny, nx = geometry.shape
    wcs = geometry.wcs.deepcopy()
    wcs.wcs.cdelt /= n
    wcs.wcs.crpix = (wcs.wcs.crpix - 0.5) * n + 0.5
    wcs.wcs.set()
    fine = Car((ny * n, nx * n), wcs)
    values = gaussian.alm_to_map(alm, fine)
    return values.reshape(ny, n, nx, n).mean((1, 3))


@pytest.mark.parametrize("variant", ["fejer1", "cc"])
def test_rectangular_pixels_are_averages(variant):
    """The whole sphere, poles included, and back."""
    geometry = Car(*enmap.fullsky_geometry(6 * utils.degree, variant=variant))
    alm = gaussian.draw_alm(spectrum(15), 1)
    samples = gaussian.alm_to_map(alm, geometry)
    maps = samples[np.newaxis].copy()
    pixel_window.apply(maps, geometry)
    if variant == "fejer1":  # pixels on the poles reach beyond the sphere
        expected = fine_mean(alm, geometry)
        np.testing.assert_allclose(maps[0], expected, atol=POINTS * samples.std())
    assert np.abs(maps[0] - samples).max() > 20 * POINTS * samples.std()
    pixel_window.apply(maps, geometry, power=-1)
    np.testing.assert_allclose(maps[0], samples, atol=5 * RESPONSE * samples.std())


def test_part_of_the_sky_has_the_values_of_the_whole():
    alm = gaussian.draw_alm(spectrum(40), 1)
    shape, wcs = enmap.fullsky_geometry(4 * utils.degree)
    whole = Car(shape, wcs)
    full = gaussian.alm_to_map(alm, whole)
    full = pixel_window.filtered(full, whole)
    cut_shape, cut_wcs = enmap.slice_geometry(shape, wcs, (slice(10, 30), slice(20, 60)))
    part = Car(cut_shape, cut_wcs)
    wider, inside = pixel_window.padded(part)
    made = pixel_window.filtered(gaussian.alm_to_map(alm, wider), wider)
    np.testing.assert_allclose(
        margins.crop(made, inside), full[10:30, 20:60], atol=1e-5 * full.std()
    )


def test_other_projections_are_filtered_along_their_axes():
    geometry = Car(*enmap.geometry(np.radians([[-5, 5], [5, -5]]), res=np.radians(0.5), proj="tan"))
    wider, _ = pixel_window.padded(geometry)
    assert wider.shape == (geometry.shape[0] + 16, geometry.shape[1] + 16)
    flat = pixel_window.filtered(np.ones(wider.shape, np.float32), wider)
    np.testing.assert_allclose(flat, 1, rtol=1e-6)


@pytest.mark.parametrize("spin", [0, 2])
def test_healpix_pixels_are_averages(spin):
    """Against multiplied multipoles; and means over the children of a pixel, for intensity."""
    geometry, lmax = Healpix(32), 64
    alm = gaussian.draw_alm(spectrum(lmax), 1)
    window = pixel_window.healpix(32, lmax, spin)
    alms = np.stack([alm, 0.5 * alm]) if spin else alm[np.newaxis]
    given = gaussian.alm_to_map(alms if spin else alm, geometry, spin=spin).reshape(len(alms), -1)
    maps = given.copy()
    pixel_window.apply(maps, geometry, spin)
    scaled = np.stack([gaussian.scale_alm(a.copy(), window) for a in alms])
    expected = gaussian.alm_to_map(scaled if spin else scaled[0], geometry, spin=spin)
    wrong = (maps - expected.reshape(maps.shape)) / given.std()
    assert wrong.std() < QUADRATURE
    assert np.abs(wrong).max() < WORST
    pixel_window.apply(maps, geometry, spin, power=-1, lmax=lmax)
    assert ((maps - given) / given.std()).std() < 2 * QUADRATURE
    if not spin:
        children = gaussian.alm_to_map(alm, Healpix(256))
        mean = healpy.ud_grade(children, 32)
        away = np.abs(mean - expected).std()
        assert away < SHAPES * given.std()
        assert away < 0.4 * np.abs(mean - given).std()


@pytest.mark.parametrize("spin", [0, 2])
@pytest.mark.parametrize("power", [1, -1])
def test_windows_of_healpix_maps_are_made_in_little_memory(spin, power, monkeypatch):
    """As by transforms of whole maps, with rings in several pieces; the other maps are left."""
    geometry, lmax = Healpix(32), 70
    monkeypatch.setattr("mlsky.sphere.harmonic_filter.PIECE", 1000)
    given = np.random.default_rng(1).standard_normal((3, geometry.npix)).astype(np.float32)
    rows = (0, 2) if spin else (0, 1)
    maps = given.copy()
    pixel_window.apply(maps, geometry, spin, power, lmax, rows)
    change = pixel_window.healpix(32, lmax, spin) ** power - 1
    for together in [rows] if spin else [(0,), (1,)]:
        part = given[list(together)] if spin else given[together[0]]
        alm = np.atleast_2d(gaussian.map_to_alm(part, geometry, lmax, spin, iterations=1))
        for one in alm:
            gaussian.scale_alm(one, change)
        expected = part + gaussian.alm_to_map(alm if spin else alm[0], geometry, spin=spin)
        np.testing.assert_allclose(
            maps[list(together)], np.atleast_2d(expected), atol=SINGLE * given.std()
        )
    left = ({0, 1, 2} - set(rows)).pop()
    np.testing.assert_array_equal(maps[left], given[left])
    given[0, 5] = np.nan
    with pytest.raises(ValueError, match="map has 1 rings that are not finite"):
        pixel_window.apply(given, geometry, lmax=lmax, rows=(0,))


def test_the_window_of_healpix_is_the_mean_of_its_pixels():
    """W^2 = <P_l> over pairs of points of a pixel, averaged over pixels (Gorski et al. 2005)."""
    nside, fine = 64, 8
    ell = np.array([40, 100, 160, 192])
    power = np.zeros(len(ell))
    pixels = np.arange(0, 12 * nside**2, 2311)
    for pixel in pixels:
        children = healpy.ring2nest(nside, pixel) * fine**2 + np.arange(fine**2)
        vectors = np.stack(healpy.pix2vec(nside * fine, children, nest=True), 1)
        cosine = np.clip(vectors @ vectors.T, -1, 1)
        power += [eval_legendre(l, cosine).mean() for l in ell]
    # the children have a window of their own
    window = np.sqrt(power / len(pixels)) * pixel_window.healpix(nside * fine, 192)[ell]
    np.testing.assert_allclose(pixel_window.healpix(nside, 192)[ell], window, rtol=ONE_PIXEL)
