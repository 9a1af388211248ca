"""Pixels one by one, against numpy and scipy on the pixels themselves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, maximum_filter

from mlsky import seeds
from mlsky.statistics import onepoint
from mlsky.statistics.bandpower import multipoles

FRACTIONS = (0.001, 0.01, 0.5, 0.99, 0.999)
AGREE = 1e-3  # values of single precision within a rounding of an edge go to either side


def _values(*shape):
    return seeds.generator(5, "truth").standard_normal(shape).astype("f4")


@pytest.mark.parametrize("skewed", [False, True])
def test_quantiles(skewed):
    values = 20 * np.exp(_values(300, 300)) if skewed else 3 * _values(300, 300)
    histogram = onepoint.Histogram(1.0, 1e4)
    counts = histogram.count(values[:150]) + histogram.count(values[150:])
    assert counts.sum() == values.size
    wanted = np.quantile(values, FRACTIONS)
    # a bin is 0.25 per cent wide, 0.0025 near zero
    np.testing.assert_allclose(histogram.quantile(counts, FRACTIONS), wanted, rtol=3e-3, atol=3e-3)
    for threshold in (2.0, 30.0):
        above = np.count_nonzero(values > threshold)
        assert histogram.above(counts, threshold) == pytest.approx(above, rel=0.01, abs=2)


def test_counts_are_numpys():
    """Counts, and those above an edge, such as the counts of sources: to a rounding of an edge."""
    values = 20 * np.exp(_values(300, 300))
    histogram = onepoint.Histogram(1.0, 1e4)
    counts = histogram.count(values)
    wanted, _ = np.histogram(values, histogram.edges)
    assert np.abs(np.cumsum(counts) - np.cumsum(wanted)).max() <= AGREE * values.size
    for i in (5000, 6000, 6500):
        edge = histogram.edges[i]
        above = np.count_nonzero(values > edge)
        assert above > 100
        assert histogram.above(counts, edge) == pytest.approx(above, rel=AGREE)


def test_sparse_and_extreme_values():
    values = np.zeros((100, 100), "f4")
    values[:1, :50] = 40
    histogram = onepoint.Histogram(2.0, 1e3)
    counts = histogram.count(values)
    assert histogram.quantile(counts, 0.99) == pytest.approx(0, abs=4e-3)  # within the bin of zero
    assert histogram.quantile(counts, 0.999) == pytest.approx(40, rel=3e-3)
    assert histogram.above(counts, 20) == pytest.approx(50)
    assert histogram.above(histogram.count(np.array([-1e9, 1e9])), 0) == pytest.approx(1)


def test_smoothing_is_a_gaussian():
    """Against scipy's kernel, on a periodic map."""
    values = _values(64, 64)
    modes = onepoint.smooth(np.fft.rfft2(values), multipoles(64, 0.5), 1.5)
    sigma = 1.5 / 0.5 / np.sqrt(8 * np.log(2))
    wanted = gaussian_filter(values, sigma, mode="wrap", truncate=6)
    np.testing.assert_allclose(np.fft.irfft2(modes, s=(64, 64)), wanted, atol=2e-3)


def test_peaks():
    values = gaussian_filter(_values(200, 200), 1.5, mode="wrap")
    high = (0.1, 0.2, 0.4)
    for periodic in (True, False):
        top = maximum_filter(values, 3, mode="wrap") == values
        if not periodic:
            top = top[1:-1, 1:-1]
        inner = values if periodic else values[1:-1, 1:-1]
        wanted = [np.count_nonzero(top & (inner > t)) for t in high]
        np.testing.assert_array_equal(onepoint.peaks(values, high, periodic), wanted)
    assert wanted[0] > wanted[1] > wanted[2] > 0


def test_given_another_field():
    condition, other = _values(2, 50, 50)
    edges = (-1.0, 0.0, 2.0)
    sums = onepoint.conditional_sums(condition, edges, [other, other**2])
    borders = (-np.inf, *edges, np.inf)
    for b in range(4):
        inside = (condition >= borders[b]) & (condition < borders[b + 1])
        wanted = inside.sum(), other[inside].sum(), (other[inside] ** 2).sum()
        np.testing.assert_allclose(sums[:, b], wanted, rtol=1e-4, atol=1e-4)


def test_frame():
    near = onepoint.frame(12, 6, 1)
    assert near[0].all()
    assert near[5, :].all()
    assert near[6].all()
    assert not near[1:5, 1:5].any()
    assert near.sum() == 144 - 4 * 16


def test_bad_values():
    with pytest.raises(ValueError, match="values: hold NaN"):
        onepoint.Histogram(1.0, 10).count(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="field: hold NaN or infinity"):
        onepoint.peaks(np.full((4, 4), np.nan), (0,))
    with pytest.raises(ValueError, match=r"must be one map \(n, m\)"):
        onepoint.peaks(np.zeros((2, 4, 4)), (0,))
