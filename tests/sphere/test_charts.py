"""mlsky.sphere.charts: geometry, ownership, and the ways out."""

from __future__ import annotations

import healpy
import numpy as np
import pytest
from astropy.wcs import WCS
from chart_cases import solid_angle
from pixell import enmap
from scipy.ndimage import gaussian_filter

from mlsky.sphere.charts import NSIDE, charts, owned, owned_area, owners
from mlsky.sphere.field import Field
from mlsky.sphere.geometry import Car, Healpix, Legendre
from mlsky.sphere.resampling import average, interpolate, resample

#: Rounding of float64 directions, in chart pixels.
ROUND_TRIP = 1e-8
#: Flux of single chart pixels on nside 1024: rms scatter 0.2 % where HEALPix pixels lie
#: along the chart, 3-5 % in the polar caps; the mean over the sky is better than 0.5 %.
FLUX_EQUATOR, FLUX_CAP, FLUX_MEAN = 0.004, 0.07, 0.005
#: Transfer of `resample` against exact pixel averages times the chart pixel's window, for
#: l < 2 nside: 2e-4 measured.
WINDOW = 1e-3
#: Smoothing (chart pixels) of a field on which the window of parts of a pixel is 1 - 0.02, and the
#: differences of two such windows: 0.012 measured.
SMOOTH, OBLONG = 3.0, 0.02


def white_alm(lmax: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = healpy.Alm.getsize(lmax)
    alm = (rng.standard_normal(n) + 1j * rng.standard_normal(n)) / np.sqrt(2)
    alm[: lmax + 1] = alm[: lmax + 1].real * np.sqrt(2)
    return alm


# The charts


def _area_factor(all_charts) -> float:
    """Area of all chart pixels over the area of the sky."""
    return sum(c.npix * c.pixel_rad**2 for c in all_charts) / (4 * np.pi)


@pytest.mark.parametrize(("pixel_arcmin", "factor"), [(2.0, 1.69), (0.5, 1.35)])
def test_charts_hold_their_pixels_and_margins(pixel_arcmin, factor):
    every = charts(pixel_arcmin)
    assert [c.index for c in every] == list(range(192))
    assert _area_factor(every) == pytest.approx(factor, abs=0.01)
    for c in every:
        assert all(n % 32 == 0 for n in c.shape)
        edge = healpy.boundaries(NSIDE, c.index, step=50, nest=True)
        y, x = c.project_vectors(edge)
        # A hair off 32: the boundary bends between the points the charts are made from.
        assert min(y.min(), x.min()) > 31.4
        assert y.max() < c.shape[0] - 32.4
        assert x.max() < c.shape[1] - 32.4
        assert c.rotation @ c.rotation.T == pytest.approx(np.eye(3), abs=1e-14)
        assert np.linalg.det(c.rotation) == pytest.approx(1)


def test_charts_without_margin_cover_a_quarter_more_than_the_sky():
    assert _area_factor(charts(0.5, margin=0, multiple=1)) < 1.25


@pytest.mark.parametrize("index", [0, 15, 77, 191])
def test_project_inverts_angles(index):
    c = charts(8.0)[index]
    theta, phi = c.angles()
    assert theta.shape == phi.shape == c.shape
    y, x = c.project(theta, phi)
    iy, ix = np.indices(c.shape)
    assert np.abs(y - iy).max() < ROUND_TRIP
    assert np.abs(x - ix).max() < ROUND_TRIP
    flat = c.vectors_at(iy.ravel(), ix.ravel())
    assert flat == pytest.approx(c.vectors(), abs=1e-15)
    part = c.angles(slice(100, 200))
    assert np.array_equal(part[0], theta.ravel()[100:200])


@pytest.mark.parametrize("index", [0, 15])
def test_scale_is_that_of_the_sphere(index):
    c = charts(8.0)[index]
    v = c.vectors().reshape(3, *c.shape)
    side_y = np.linalg.norm(v[:, 2:, 1:-1] - v[:, :-2, 1:-1], axis=0) / 2
    side_x = np.linalg.norm(v[:, 1:-1, 2:] - v[:, 1:-1, :-2], axis=0) / 2
    # Square, and of the size said; chords and differences are off by 1e-5.
    assert side_y / c.pixel_rad == pytest.approx(c.scale()[1:-1, 1:-1], rel=3e-5)
    assert side_x / c.pixel_rad == pytest.approx(c.scale()[1:-1, 1:-1], rel=3e-5)
    assert c.scale().min() > 0.96


def test_level_pixels_are_means_of_the_level_above():
    c = charts(8.0)[7]
    fine = c.project_vectors(c.vectors(level=1))[0].reshape(c.shape[0] // 2, -1)
    assert fine[:, 0] == pytest.approx(np.arange(0.5, c.shape[0], 2))


# Ownership


def cut_out(ra: float) -> Car:
    """A CAR cut-out about a right ascension (deg), off the equator."""
    box = np.radians([[-50, ra + 25], [35, ra - 25]])
    return Car(*enmap.geometry(box, res=np.radians(0.5), proj="car"))


def tangent() -> Car:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [10, -40], [40, 30], [-0.2, 0.2]
    return Car((60, 80), wcs)


GEOMETRIES = {
    "nside 1": lambda: Healpix(1),
    "nside 2": lambda: Healpix(2),
    "nside 64": lambda: Healpix(64),
    "nside 256": lambda: Healpix(256),
    "full sky CAR": lambda: Car(*enmap.fullsky_geometry(res=np.radians(0.5))),
    "CAR with rows at the poles": lambda: Car(
        *enmap.fullsky_geometry(res=np.radians(0.5), variant="CC")
    ),
    "CAR over RA 0": lambda: cut_out(0),
    "CAR over RA 180": lambda: cut_out(180),
    "tangent plane": tangent,
}


@pytest.mark.parametrize("name", [*GEOMETRIES, "Gauss-Legendre"])
def test_every_output_pixel_has_one_owner(name):
    geometry = Legendre(200) if name == "Gauss-Legendre" else GEOMETRIES[name]()
    count = np.zeros(geometry.npix, int)
    for chart in charts(8.0):
        pixel = owned(chart, geometry)
        assert np.all(np.diff(pixel) > 0)
        count[pixel] += 1
        theta, phi = geometry.angles(pixel)
        assert np.all(healpy.ang2pix(NSIDE, theta, phi, nest=True) == chart.index)
    assert np.all(count == 1)


@pytest.mark.parametrize("index", [5, 100])
def test_owned_area_holds_the_pixels_that_are_owned(index):
    chart = charts(8.0)[index]
    area = owned_area(chart)
    mine = healpy.vec2pix(NSIDE, *chart.vectors(), nest=True).reshape(chart.shape) == index
    assert area.mask()[mine].all()
    # a row holds one stretch, but where the border of a HEALPix pixel bends
    assert area.size < 1.03 * mine.sum()
    assert area.size * chart.pixel_rad**2 == pytest.approx(4 * np.pi / 192, rel=0.03)
    assert np.array_equal(owned_area(chart, 5).mask(), area.widened(5).mask())


# Out of the charts


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_constant_stays_and_what_is_positive_stays_positive(name):
    geometry = GEOMETRIES[name]()
    rng = np.random.default_rng(5)
    for chart in charts(8.0)[15::53]:
        maps = np.stack([np.ones(chart.shape), rng.exponential(size=chart.shape) ** 4])
        maps[1, rng.random(chart.shape) < 0.9] = 0
        value = resample(chart, maps, geometry)
        assert value.dtype == np.float32
        assert value[0] == pytest.approx(1, abs=1e-6)
        assert np.all(value[1] >= 0)
        assert np.array_equal(resample(chart, maps[1], geometry, nthreads=1), value[1])
        assert interpolate(chart, maps[0], geometry) == pytest.approx(1, abs=1e-5)


def scattered_flux(index: int, geometry) -> np.ndarray:
    """Output over input flux of chart pixels far from each other."""
    chart, gap = charts(2.0)[index], 16
    sources = np.zeros(chart.shape, np.float32)
    sources[gap // 2 :: gap, gap // 2 :: gap] = 1
    pixel = owned(chart, geometry)
    y, x = chart.project(*geometry.angles(pixel))
    y, x = np.rint(y / gap - 0.5).astype(int), np.rint(x / gap - 0.5).astype(int)
    cell = y * 1000 + x
    number, where = np.unique(cell, return_inverse=True)
    area = geometry.area(pixel) * np.ones(pixel.size)
    whole = np.bincount(where, area) > 0.99 * (gap * chart.scale().min() * chart.pixel_rad) ** 2
    flux = np.bincount(where, resample(chart, sources, geometry, pixel) * area)[whole]
    y, x = np.divmod(number[whole], 1000)
    return flux / solid_angle(chart)[y * gap + gap // 2, x * gap + gap // 2]


@pytest.mark.parametrize(
    ("geometry", "index", "scatter"),
    [
        (Healpix(1024), 100, FLUX_EQUATOR),
        (Healpix(1024), 15, FLUX_CAP),
        (Healpix(1024), 5, FLUX_CAP),
        (Healpix(512), 5, FLUX_CAP),
        (Healpix(2048), 5, FLUX_CAP),
    ],
)
def test_a_source_keeps_its_flux(geometry, index, scatter):
    flux = scattered_flux(index, geometry)
    assert flux.size > 200
    assert flux.std() < scatter
    assert abs(flux.mean() - 1) < FLUX_MEAN


@pytest.mark.parametrize("sides", [(10, 1), (1, 10)])
@pytest.mark.parametrize("mean", [resample, average])
def test_oblong_pixels_are_means_of_square_ones(mean, sides):
    chart = charts(16.0)[100]
    smooth = gaussian_filter(np.random.default_rng(3).standard_normal(chart.shape), SMOOTH)
    square = Car(*enmap.fullsky_geometry(res=np.radians(16 / 60), variant="fejer1"))
    whole = np.full(square.shape, np.nan)
    pixel = owned(chart, square)
    whole.flat[pixel] = mean(chart, smooth, square, pixel)
    ny, nx = square.shape[0] // sides[1], square.shape[1] // sides[0]
    wcs = square.wcs.deepcopy()
    wcs.wcs.cdelt = square.wcs.wcs.cdelt * sides
    wcs.wcs.crpix = (square.wcs.wcs.crpix - 0.5) / sides + 0.5
    oblong = Car((ny, nx), wcs)
    assert oblong.sides_arcmin == pytest.approx([16 * side for side in sides])
    expected = whole[: ny * sides[1], : nx * sides[0]]
    expected = expected.reshape(ny, sides[1], nx, sides[0]).mean((1, 3)).ravel()
    pixel = owned(chart, oblong)
    held = np.isfinite(expected[pixel])
    assert held.sum() > 100
    found = mean(chart, smooth, oblong, pixel)
    np.testing.assert_allclose(
        found[held], expected[pixel][held], atol=OBLONG * expected[pixel][held].std()
    )


def test_resample_and_interpolate_have_the_stated_transfer():
    # nside 128 from 16 arcmin charts: the ratio of nside 1024 to 2 arcmin.
    geometry, lmax = Healpix(128), 270
    alm = white_alm(lmax, 7)
    field = Field(alm)
    out = np.zeros((3, geometry.npix), np.float32)
    for chart in charts(16.0, 8, 1):
        kappa, pixel = field.on(chart), owned(chart, geometry)
        out[0, pixel] = resample(chart, kappa, geometry, pixel)
        out[1, pixel] = interpolate(chart, kappa, geometry, pixel)
    # Exact pixel averages: the mean of the field itself over 64 children.
    for nested in np.arange(geometry.npix).reshape(48, -1):
        child = (nested[:, None] * 64 + np.arange(64)).ravel()
        mean = field(*healpy.pix2ang(1024, child, nest=True)).reshape(-1, 64).mean(1)
        out[2, healpy.nest2ring(128, nested)] = mean
    # Analysis errors of one map are those of the other: the ratio is free of them.
    cross = [healpy.alm2cl(healpy.map2alm(m.astype(float), lmax=lmax, iter=3), alm) for m in out]
    ell = np.arange(lmax + 1)
    chart_pixel = np.exp(-ell * (ell + 1) * np.radians(16 / 60) ** 2 / 24)
    bands = ell[20:260].reshape(-1, 40)
    for band in bands:
        ratio = cross[0][band].sum() / cross[2][band].sum() / chart_pixel[band].mean()
        assert ratio == pytest.approx(1, abs=WINDOW + 0.002 * (band.max() > 200))
    power = healpy.alm2cl(alm)
    for ell_0, transfer in ((64, 1.0), (128, 1.0), (255, 0.997)):
        band = slice(ell_0 - 15, ell_0 + 15)
        measured = cross[1][band].sum() / power[band].sum()
        assert measured == pytest.approx(transfer, abs=0.002)


def test_resampled_white_noise_is_not_aliased():
    # Pixel means of white noise would keep p^2/s^2 of its variance; the chart pixel's own
    # window takes a third more away. Power folded back would add, as in point sampling.
    geometry, rng = Healpix(128), np.random.default_rng(8)
    out = np.zeros(geometry.npix)
    for chart in charts(16.0, 8, 1):
        pixel = owned(chart, geometry)
        noise = rng.standard_normal(chart.shape).astype(np.float32)
        out[pixel] = resample(chart, noise, geometry, pixel)
    ratio = (16.0 / geometry.pixel_arcmin) ** 2
    assert 0.6 * ratio < out.var() < 0.68 * ratio
    assert abs(out.mean()) < 5 * np.radians(16 / 60) / np.sqrt(4 * np.pi)


def test_threads_do_not_change_bits():
    chart, geometry = charts(2.0)[15], Healpix(1024)
    noise = np.random.default_rng(9).standard_normal((2, *chart.shape)).astype(np.float32)
    for function in (resample, interpolate):
        one = function(chart, noise, geometry, nthreads=1)
        assert np.array_equal(one, function(chart, noise, geometry, nthreads=2))


def test_bad_input():
    with pytest.raises(ValueError, match="pixel_arcmin=0"):
        charts(0)
    with pytest.raises(ValueError, match="margin=-1"):
        charts(2.0, margin=-1)
    with pytest.raises(ValueError, match="must end in the chart's"):
        resample(charts(8.0)[0], np.zeros((3, 3)), Healpix(64))


@pytest.mark.parametrize(("level", "beyond"), [(0, 0), (1, 5), (4, 5)])
def test_owners_are_those_of_the_pixel_that_holds_the_centre(level, beyond):
    """Blocks whose surroundings agree are not asked about; all 192 charts, every pixel."""
    step = 1 << level
    for chart in charts(4.0):
        found = owners(chart, level, beyond)
        y, x = ((np.arange(n) - beyond + 0.5) * step - 0.5 for n in found.shape)
        truth = healpy.vec2pix(NSIDE, *chart.vectors_at(y[:, None], x), nest=True)
        assert np.array_equal(found, truth), chart.index
