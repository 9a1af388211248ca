"""Charts and colatitudes of a map, against every pixel of it."""

import healpy
import numpy as np
import pytest
from astropy.wcs import WCS
from pixell import enmap
from scipy.spatial import cKDTree

from mlsky.sphere import charts, coverage
from mlsky.sphere.geometry import Car, Healpix


def turned_wcs(side):
    """TAN pixels at 33 degrees to the meridians."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    cos, sin = np.cos(np.radians(33)), np.sin(np.radians(33))
    wcs.wcs.cd = side * np.array([[-cos, sin], [sin, cos]])
    wcs.wcs.crval, wcs.wcs.crpix = (70, -60), (4, 6.5)
    return wcs


def patch(dec, ra, proj="car"):
    box = np.radians([[dec[0], ra[1]], [dec[1], ra[0]]])
    return Car(*enmap.geometry(box, res=np.radians(0.1), proj=proj))


PATCHES = {
    "equator": patch((-3, 4), (10, 19)),
    "seam": patch((40, 50), (-5, 5)),
    "south": patch((-89.9, -80), (0, 50)),
    "tan": patch((50, 60), (100, 110), "tan"),
    "band": Car(*enmap.band_geometry(np.radians([-20, 10]), res=np.radians(0.5))),
    "pixel": patch((10, 10.1), (30, 30.1)),
}


def grid(shape, cdelt, crval, crpix, proj="CAR"):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{proj}", f"DEC--{proj}"]
    wcs.wcs.cdelt, wcs.wcs.crval, wcs.wcs.crpix = cdelt, crval, crpix
    return Car(shape, wcs)


#: Pixels wider than the spacing of the points, long ones, and projections that stretch them.
WIDE = {
    "15 deg": Car(*enmap.fullsky_geometry(res=np.radians(15))),
    "20 deg": Car(*enmap.fullsky_geometry(res=np.radians(20))),
    "30 deg": Car(*enmap.fullsky_geometry(res=np.radians(30))),
    "long rows": grid((9, 30), (-10, 1), (0, 0), (15, 5)),
    "long columns": grid((16, 80), (-1, 10), (0, 0), (40, 8.5)),
    "one long row": grid((1, 36), (-10, 1), (0, 0), (18, -59)),
    "oblique": grid((18, 9), (-1, 10), (40, 50), (4, 9.5)),
    "turned": Car((12, 12), turned_wcs(3.0)),
    "pole": grid((60, 60), (-0.3, 0.05), (0, 90), (15, 30.5), "TAN"),
    "few at the pole": grid((6, 6), (-3, 3), (10, 90), (4, 3.1), "TAN"),
    "equal areas": grid((57, 180), (-2, 2), (0, 0), (90.5, 29), "CEA"),
    "stretched": grid((60, 60), (-4, 4), (30, 20), (30, 30), "ARC"),
}


@pytest.mark.parametrize("name", PATCHES)
def test_every_pixel_lies_on_a_chart_that_is_near(name):
    geometry = PATCHES[name]
    every = charts.charts(8.0, 8, 32)
    own = [chart.index for chart in every if charts.owned(chart, geometry).size]
    tree = coverage.outline(geometry)
    near = coverage.charts_near(tree, 0.0)
    assert set(own) <= set(near)
    # a chart that owns no pixel begins within a degree or two
    assert set(near) <= set(coverage.charts_near(tree, 1.0))
    assert len(near) <= 1.2 * len(own) + 8
    assert set(near) <= set(coverage.charts_near(tree, 5.0))


@pytest.mark.parametrize("name", WIDE)
def test_charts_of_wide_and_long_pixels_are_near(name):
    geometry = WIDE[name]
    theta, phi = geometry.angles()
    own = set(healpy.ang2pix(charts.NSIDE, theta, phi, nest=True).tolist())
    near = set(coverage.charts_near(coverage.outline(geometry), 0.0))
    assert own <= near
    if "deg" in name:
        assert near == set(range(192))


@pytest.mark.parametrize("name", WIDE | PATCHES)
def test_every_place_of_a_map_is_near_one_of_its_points(name):
    """Random places inside the pixels, not their centres alone."""
    geometry = (WIDE | PATCHES)[name]
    ny, nx = geometry.shape
    y, x = np.random.default_rng(1).uniform(-0.5, [[ny - 0.5], [nx - 0.5]], (2, 3000))
    theta, phi = geometry.angles_at(y, x)
    seen = np.isfinite(theta)
    assert seen.mean() > 0.9
    place = healpy.ang2vec(theta[seen], phi[seen])
    chord, _ = cKDTree(coverage.points(geometry)).query(place)
    assert np.degrees(2 * np.arcsin(chord.max() / 2)) <= coverage.SPACING


@pytest.mark.parametrize("name", WIDE | PATCHES)
def test_colatitudes_hold_every_pixel(name):
    geometry = (WIDE | PATCHES)[name]
    theta = np.clip(geometry.angles()[0], 0, np.pi)
    low, high = coverage.colatitudes_of_map(geometry, 0.0)
    assert low <= theta.min()
    assert theta.max() <= high
    if name in PATCHES:  # centres of wide pixels are far from their edges
        pad = np.radians(2.0)
        assert low >= max(0, theta.min() - pad)
        assert high <= min(np.pi, theta.max() + pad)


def test_colatitudes_of_areas_hold_their_pixels():
    every = charts.charts(8.0, 8, 32)
    for index in (0, 3, 17, 100, 191):
        area = charts.owned_area(every[index], 3)
        theta = every[index].angles()[0][area.mask()]
        found = coverage.colatitudes_of_areas([every[index]], {index: area})
        assert found[0] <= theta.min()
        assert theta.max() <= found[1]
        assert found == pytest.approx((theta.min(), theta.max()), abs=1e-8)


def test_the_full_sky_is_every_chart():
    full = Car(*enmap.fullsky_geometry(res=np.radians(1.0), variant="fejer1"))
    assert coverage.charts_near(coverage.outline(full), 0.0) == list(range(192))
    assert coverage.charts_near(coverage.outline(Healpix(4)), 0.0) == list(range(192))
    assert coverage.colatitudes_of_map(Healpix(4), 0.1) is None
