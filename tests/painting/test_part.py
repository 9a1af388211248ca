"""A patch is the same pixels of the full sky, from the charts that it needs alone."""

import numpy as np
import pytest
from fakes import coarse_weights
from pixell import enmap

from mlsky.painting import foregrounds, part
from mlsky.sphere import charts, coverage, gaussian
from mlsky.sphere.geometry import Car, Healpix, Legendre

#: Places of pixels of a cut-out and of the whole differ in their last bits: float32 rounding of
#: what is sampled there, relative to the largest value.
ROUNDING = 1e-6
#: Error of kappa of a patch, of its rms, with untrained networks, whose kappa is another one than
#: the Gaussian on all scales; docs/performance has it for the networks that ship.
KAPPA = 0.06

#: Rows and columns of the full sky of 15': over RA 0, and at a pole.
PATCHES = [np.s_[340:372, 700:741], np.s_[0:20, 0:90]]


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory):
    return coarse_weights(tmp_path_factory.mktemp("weights") / "small.safetensors")


@pytest.fixture(scope="module")
def start():
    ell = np.arange(541)
    cl = np.zeros(541)
    cl[2:] = 1e-3 / ell[2:] ** 1.5
    return gaussian.draw_alm(cl, seed=5)


@pytest.fixture(scope="module")
def full():
    shape, wcs = enmap.fullsky_geometry(res=np.radians(0.25), variant="fejer1")
    return enmap.zeros(shape, wcs, np.float32)


def generate(start, weight_file, geometry, **options):
    weights = foregrounds.select(str(weight_file), geometry)
    return foregrounds.generate(start, geometry, weights=weights, seed=3, device="cpu", **options)


@pytest.fixture(scope="module")
def whole(start, weight_file, full):
    return generate(start, weight_file, Car(full.shape, full.wcs))


@pytest.mark.parametrize("where", PATCHES)
def test_a_patch_is_the_same_pixels_of_the_full_sky(where, start, weight_file, full, whole):
    cut = full[where]
    geometry = Car(cut.shape, cut.wcs)
    asked = []
    made = generate(
        start,
        weight_file,
        geometry,
        progress=lambda stage, fraction: asked.append((stage, fraction)),
    )
    assert sum(stage == "networks" for stage, _ in asked) < 60  # of 192 charts
    for name, values in made.maps.items():
        expected = whole.maps[name].reshape(full.shape)[where]
        atol = ROUNDING * np.abs(expected).max()
        np.testing.assert_allclose(values.reshape(cut.shape), expected, rtol=1e-5, atol=atol)
    kappa = whole.kappa[where]
    assert np.std(made.kappa - kappa) < KAPPA * kappa.std()
    # the sources that lie on it, with all that was drawn for them
    table = whole.catalogue
    theta, phi = np.radians(90 - table["dec"]), np.radians(table["ra"])
    on = geometry.pixel(theta, phi) >= 0
    assert len(made.catalogue) == on.sum() > 10
    for name in table.colnames:
        np.testing.assert_array_equal(np.sort(made.catalogue[name]), np.sort(table[name][on]))


def test_the_farther_kappa_is_made_the_nearer_it_is_to_that_of_the_sky(
    start, weight_file, full, whole, monkeypatch
):
    where = PATCHES[0]
    cut = full[where]
    errors = []
    for reach in (0.0, 25.0):
        monkeypatch.setattr(part, "KAPPA_REACH", reach)
        made = generate(start, weight_file, Car(cut.shape, cut.wcs), components=["radio"])
        errors.append(np.std(made.kappa - whole.kappa[where]))
    assert errors[1] < 0.7 * errors[0]


def test_a_nonlinear_kappa_needs_no_more_than_the_map(full):
    every = charts.charts(20.0, 8, 32)
    cut = full[300:332, 700:741]
    geometry = Car(cut.shape, cut.wcs)
    needed = part.of_map(geometry, every, 4, 8, kappa=False)
    assert {chart.index for chart in needed.charts} == needed.painted
    more = part.of_map(geometry, every, 4, 8)
    assert needed.painted == more.painted
    assert len(more.charts) > len(needed.charts)
    for chart in more.charts:
        if chart.index in more.painted:
            assert more.areas[chart.index].size == charts.owned_area(chart, 4).size
        else:
            assert more.areas[chart.index].size < charts.owned_area(chart, 4).size
    grid = Legendre(300)
    rows = more.rows(grid)
    pixel = np.concatenate([more.owned(chart, grid) for chart in more.charts])
    assert np.unique(pixel).size == pixel.size
    assert rows.start <= pixel.min() // grid.shape[1]
    assert pixel.max() // grid.shape[1] < rows.stop
    low, high = more.colatitude
    theta, _ = grid.angles(pixel)
    assert low <= theta.min()
    assert theta.max() <= high
    assert part.of_map(Healpix(4), every, 4, 8).is_whole
    assert coverage.charts_near(coverage.outline(Car(full.shape, full.wcs)), 0.0) == list(
        range(192)
    )


@pytest.mark.parametrize("index", [0, 15, 100])
def test_all_within_reach_is_in_the_area_near_a_map(full, index):
    chart = charts.charts(20.0, 8, 32)[index]
    cut = full[300:332, 700:741]
    geometry = Car(cut.shape, cut.wcs)
    theta, phi = geometry.angles()
    map_ = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])
    cosine = (chart.vectors().T @ map_).max(1)
    mask = coverage.area_near(coverage.outline(geometry), chart, 3.0).mask().ravel()
    assert mask[cosine > np.cos(np.radians(3.0))].all()
    # a little farther: points half a degree apart, pixels of 160', and all between two in a row
    assert np.mean(mask) < np.mean(cosine > np.cos(np.radians(12.0))) + 0.01
