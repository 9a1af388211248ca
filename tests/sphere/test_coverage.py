"""Charts and colatitudes of a map, against every pixel of it."""

import numpy as np
import pytest
from pixell import enmap

from mlsky.sphere import charts, coverage
from mlsky.sphere.geometry import Car, Healpix


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


@pytest.mark.parametrize("name", PATCHES)
def test_every_pixel_lies_on_a_chart_that_is_near(name):
    geometry = PATCHES[name]
    every = charts.charts(8.0, 8, 32)
    own = [chart.index for chart in every if charts.owned(chart, geometry).size]
    near = coverage.charts_near(geometry, 0.0)
    assert set(own) <= set(near)
    # a chart that owns no pixel begins within a degree or two
    assert set(near) <= set(coverage.charts_near(geometry, 1.0))
    assert len(near) <= 1.2 * len(own) + 8
    assert set(near) <= set(coverage.charts_near(geometry, 5.0))


@pytest.mark.parametrize("name", PATCHES)
def test_colatitudes_hold_every_pixel(name):
    geometry = PATCHES[name]
    theta = geometry.angles()[0]
    low, high = coverage.colatitudes_of_map(geometry, 0.0)
    assert low <= theta.min()
    assert theta.max() <= high
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
    assert coverage.charts_near(full, 0.0) == list(range(192))
    assert coverage.charts_near(Healpix(4), 0.0) == list(range(192))
    assert coverage.colatitudes_of_map(Healpix(4), 0.1) is None
