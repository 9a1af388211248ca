"""What is measured of a region: each part is that of its own module, of the right fields."""

from __future__ import annotations

import math

import numpy as np
import pytest
from random_regions import N, maps

from mlsky.statistics import minkowski, onepoint
from mlsky.validation import measure
from mlsky.validation.measure import FIELDS, TSZ_CLIP, Measure


@pytest.fixture(scope="module")
def measured():
    m = Measure(N, 0.5)
    return m, m(maps(), m.standard(maps()))


def test_shapes(measured):
    m, found = measured
    bands = len(measure.EDGES) - 1
    shapes = {name: x.shape for name, x in found.items()}
    assert shapes == {
        "power": (6, 6, bands),
        "direction": (5, 4, bands),
        "bispectrum": (4, 4),
        "histogram": (5, 8192),
        "conditional": (4, len(measure.KAPPA_EDGES) + 1),
        "peaks": (4,),
        "minkowski": (5, 3, len(measure.THRESHOLDS)),
        "edge": (5, 2),
    }
    assert all(np.isfinite(x).all() for x in found.values())
    assert m.square_degrees == pytest.approx((N / 120) ** 2)


def test_what_is_clipped(measured):
    """tSZ in spectra, but for its second spectrum; never in means and quantiles."""
    m, found = measured
    tsz = maps()[2]
    assert tsz.min() < 2 * TSZ_CLIP
    for i, field in ((2, np.maximum(tsz, TSZ_CLIP)), (5, tsz)):
        wanted = m.spectra.power(m.spectra.modes(field[None]))[0, 0]
        np.testing.assert_allclose(found["power"][i, i], wanted, rtol=1e-5)
    assert found["conditional"][2].sum() == pytest.approx(tsz.sum(dtype=float), rel=1e-5)
    assert found["conditional"][0].sum() == N**2
    low = measure.HISTOGRAMS["tsz"].quantile(found["histogram"][2], 0.001)
    assert low == pytest.approx(np.quantile(tsz, 0.001), rel=5e-3)


def test_smoothed_fields(measured):
    m, found = measured
    kappa, ksz = maps()[:2]
    beam = onepoint.smooth(np.fft.rfft2(kappa), m.spectra.ell, 1.5)
    smooth = np.fft.irfft2(beam, s=(N, N))
    np.testing.assert_array_equal(found["peaks"], onepoint.peaks(smooth, measure.PEAKS))
    high = smooth > measure.KAPPA_EDGES[-2]
    np.testing.assert_allclose(
        found["conditional"][:2, -2:].sum(1), [high.sum(), (ksz[high] ** 2).sum()]
    )
    nu = (smooth - smooth.mean()) / smooth.std()
    wanted = minkowski.functionals(nu, measure.THRESHOLDS)
    np.testing.assert_allclose(found["minkowski"][0], wanted, atol=1e-4)
    # tSZ is looked at upside down: its clusters are what is above
    assert found["minkowski"][2, 0, -1] > 0


def test_edges_of_patches(measured):
    m, _ = measured
    made = maps()
    near = onepoint.frame(N, 128, 4)
    made[1, near] *= 0.5
    edge, inside = m(made, m.standard(maps()))["edge"][1]
    assert edge / inside == pytest.approx(0.5, rel=0.03)


def test_pixels_whose_nyquist_is_lower():
    m = Measure(64, 2.0)
    assert [*m.spectra][-1] == (4000, 5000)
    assert m.triangles.triangles[-1][0][1] == 5000
    assert m.mjy_per_uk == pytest.approx(393.3e3 * math.radians(2 / 60) ** 2, rel=1e-3)


def test_what_is_not_finite(measured):
    m, _ = measured
    bad = maps()
    bad[FIELDS.index("cib"), 3, 4] = np.nan
    with pytest.raises(ValueError, match="maps of cib: hold NaN or infinity"):
        m(bad, m.standard(maps()))


def test_clusters_count_where_rare_peaks_do(measured):
    """What a sum of rest and clusters gives, for peaks, bins and triangles of kappa and all tSZ."""
    m, found = measured
    whole = maps()
    clusters = {"kappa": 0.3 * whole[0], "tsz": 0.7 * whole[2]}
    rest = whole.copy()
    rest[0] -= clusters["kappa"]
    rest[2] -= clusters["tsz"]
    apart = m(rest, m.standard(rest), clusters)
    alone = m(rest, m.standard(rest))
    np.testing.assert_array_equal(apart["peaks"], found["peaks"])
    np.testing.assert_allclose(apart["conditional"][0], found["conditional"][0], atol=2)
    np.testing.assert_allclose(apart["bispectrum"][0], found["bispectrum"][0], rtol=1e-4)
    np.testing.assert_allclose(apart["power"][5, 5], found["power"][5, 5], rtol=1e-5)
    for name in ("histogram", "minkowski", "edge", "direction"):
        np.testing.assert_array_equal(apart[name], alone[name])
    np.testing.assert_array_equal(apart["power"][:5, :5], alone["power"][:5, :5])


@pytest.mark.parametrize(
    ("pixel", "edges"),
    [(0.5, measure.EDGES), (1, measure.EDGES), (2, measure.EDGES_2), (4, measure.EDGES_4)],
)
def test_bands_are_those_that_the_pixels_resolve(pixel, edges):
    m = Measure(64, pixel)
    assert [low for low, _ in m.spectra] == list(edges[:-1])
    assert edges[-1] <= 10800 / pixel
