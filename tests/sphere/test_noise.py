"""mlsky.sphere.noise: white, independent, anchored to the sky, frozen."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mlsky.sphere import noise
from mlsky.sphere.charts import charts, owned_area
from mlsky.sphere.noise import chart_noise, lattice, normal

CHARTS = charts(2.0)

#: Moments and correlations of fixed streams: five standard deviations, so that a correct
#: hash fails with a chance of 1e-6 and a wrong one surely.
SIGMAS = 5.0
#: The smallest Kolmogorov-Smirnov p-value to be believed of a fixed stream.
P_VALUE = 1e-4
#: log and cos of float32 differ in the last bit from one CPU's vector unit to another's.
ULP = 2e-6
#: Share of noise numbers that adjacent charts have in common where one of them owns the sky, and
#: correlation of one chart's noise with that of the other's nearest pixel: measured 0.89 to 0.98
#: and 0.85 to 0.95.
SHARED, SAME_PLACE = 0.85, 0.7

N = 1_000_000


def test_moments_and_distribution():
    x = normal(12, 3, np.arange(N)).astype(np.float64)
    assert abs(x.mean()) < SIGMAS / np.sqrt(N)
    assert abs(x.var() - 1) < SIGMAS * np.sqrt(2 / N)
    assert abs(stats.skew(x)) < SIGMAS * np.sqrt(6 / N)
    assert abs(stats.kurtosis(x)) < SIGMAS * np.sqrt(24 / N)
    assert stats.kstest(x[::10], "norm").pvalue > P_VALUE


@pytest.mark.parametrize("other", [(12, 4), (13, 3), (3, 12), (12, 3 + (1 << 16)), (12, 1 << 40)])
def test_streams_are_independent(other):
    pixel = np.arange(N)
    x, y = normal(12, 3, pixel), normal(*other, pixel)
    assert abs(np.mean(x * y)) < SIGMAS / np.sqrt(N)
    assert abs(np.mean(x * x * y * y) - 1) < SIGMAS * np.sqrt(8 / N)


def test_channels_are_drawn_in_pairs_and_one_by_one_alike():
    pixel = lattice(CHARTS, 15, 3)
    drawn = chart_noise(pixel, 5, 3, key=4)
    for c in range(5):
        assert np.array_equal(drawn[c], normal(4, 3 * (1 << 16) + c, pixel))


def test_the_two_deviates_of_a_hash_are_independent():
    x, y = (normal(12, c, np.arange(N)).astype(np.float64) for c in (4, 5))
    assert abs(np.mean(x * y)) < SIGMAS / np.sqrt(N)
    assert abs(np.mean(x * x * y * y) - 1) < SIGMAS * np.sqrt(8 / N)
    assert stats.kstest(y[::10], "norm").pvalue > P_VALUE


@pytest.mark.parametrize("lag", [1, 2, 64, 4096, 1 << 32])
def test_pixels_are_independent(lag):
    pixel = np.arange(N)
    assert abs(np.mean(normal(5, 0, pixel) * normal(5, 0, pixel + lag))) < SIGMAS / np.sqrt(N)


def test_pure_function_of_the_pixel():
    pixel = np.random.default_rng(0).integers(0, 1 << 40, 200_001)
    whole = normal(9, 1, pixel, nthreads=1)
    assert np.array_equal(whole, normal(9, 1, pixel, nthreads=2))
    assert np.array_equal(whole[::-1], normal(9, 1, pixel[::-1]))
    pieces = [normal(9, 1, pixel[i : i + 777]) for i in range(0, pixel.size, 777)]
    assert np.array_equal(whole, np.concatenate(pieces))
    assert whole[7] == normal(9, 1, pixel[7])


def test_stream_is_frozen():
    pixel = np.array([0, 1, 123456789012, 12 * 8192**2])
    golden = {
        (0, 0): (
            [-0.8164986, 1.158705, -0.1495145, -0.4490466],
            [0.43884774405515203, 0.33341702961063835, 0.9861372274873647, 0.893634222343593],
        ),
        (1, 2): (
            [-0.2798989, -0.4408353, 1.2068458, 1.6615822],
            [0.8883692139416116, 0.45342643947643346, 0.4552026099888483, 0.23834771896502083],
        ),
        (9223372036854775807, 65536): (
            [0.7033459, 0.3467138, 0.3099164, 0.6966931],
            [0.675864237569309, 0.8924074280356381, 0.029592324227241673, 0.7736358596099234],
        ),
    }
    for (key, channel), (gauss, flat) in golden.items():
        assert normal(key, channel, pixel) == pytest.approx(gauss, abs=ULP)
        bits = noise._hash(pixel, noise._words(key, channel))
        assert (((bits >> np.uint64(12)) + 0.5) * 2.0**-52).tolist() == flat


@pytest.mark.parametrize(
    ("key", "channel", "pixel"),
    [(-1, 0, 0), (1 << 64, 0, 0), (0, -1, 0), (0.5, 0, 0), (True, 0, 0), (0, 0, 0.5)],
)
def test_bad_input(key, channel, pixel):
    with pytest.raises(ValueError, match="must be"):
        normal(key, channel, pixel)


def test_bad_level_and_channels():
    with pytest.raises(ValueError, match="level=9"):
        lattice(CHARTS, 0, 9)
    with pytest.raises(ValueError, match="channels=-1"):
        chart_noise(lattice(CHARTS, 0, 4), -1, 4, 0)


@pytest.mark.parametrize("index", [5, 15, 100])
@pytest.mark.parametrize(("level", "beyond"), [(0, 0), (1, 3), (5, 2)])
def test_no_two_pixels_of_a_chart_share_a_number(index, level, beyond):
    pixel = lattice(CHARTS, index, level, beyond)
    assert pixel.shape == tuple((n >> level) + 2 * beyond for n in CHARTS[index].shape)
    assert np.unique(pixel).size == pixel.size
    assert pixel.min() >= 0
    assert np.array_equal(pixel, lattice(CHARTS, index, level, beyond, nthreads=1))
    inner = pixel[beyond : pixel.shape[0] - beyond, beyond : pixel.shape[1] - beyond]
    assert np.mean(inner == lattice(CHARTS, index, level)) > 0.9  # but where two want one number


def test_an_area_has_the_numbers_of_the_whole_where_it_owns():
    area = owned_area(CHARTS[15], 3)
    whole, part = lattice(CHARTS, 15), lattice(CHARTS, 15, area=area)
    mask, owned = area.mask(), owned_area(CHARTS[15]).mask()
    assert (part[~mask] == -1).all()
    assert np.array_equal(part[owned], whole[owned])
    assert np.mean(part[mask] == whole[mask]) > 0.99
    noise = chart_noise(part, 1, 0, key=4)[0]
    assert (noise[~mask] == 0).all()
    assert np.array_equal(noise[owned], chart_noise(whole, 1, 0, key=4)[0][owned])


def test_chart_noise_is_white():
    pixel = lattice(CHARTS, 15)
    noise = chart_noise(pixel, 3, 0, key=4)
    n = noise[0].size
    for a in noise:
        assert abs(a.mean()) < SIGMAS / np.sqrt(n)
        assert abs(a.var() - 1) < SIGMAS * np.sqrt(2 / n)
        for pair in (
            (a[1:], a[:-1]),
            (a[:, 1:], a[:, :-1]),
            (a[1:, 1:], a[:-1, :-1]),
            (a[1:, :-1], a[:-1, 1:]),
            (a[2:], a[:-2]),
        ):
            assert abs(np.mean(pair[0] * pair[1])) < SIGMAS / np.sqrt(n)
    assert abs(np.mean(noise[0] * noise[1])) < SIGMAS / np.sqrt(n)
    # Levels: a deeper level knows nothing of the mean of the pixels above it.
    deep = chart_noise(lattice(CHARTS, 15, 1), 3, 1, key=4)
    mean = noise.reshape(3, deep.shape[1], 2, deep.shape[2], 2).mean((2, 4)) * 2
    assert abs(np.mean(deep * mean)) < SIGMAS / np.sqrt(deep.size)
    assert np.array_equal(noise[:2], chart_noise(pixel, 2, 0, key=4))


@pytest.mark.parametrize(("one", "other"), [(5, 4), (15, 31), (70, 71)])
def test_charts_agree_where_they_overlap(one, other):
    a, b = CHARTS[one], CHARTS[other]
    y, x = b.project(*a.angles())
    inside = (y > 1) & (y < b.shape[0] - 2) & (x > 1) & (x < b.shape[1] - 2)
    own = [owned_area(CHARTS[i]).mask() for i in (one, other)]
    row, column = np.rint(y[inside]).astype(int), np.rint(x[inside]).astype(int)
    either = own[0][inside] | own[1][row, column]
    assert either.sum() > 5000
    numbers = lattice(CHARTS, one), lattice(CHARTS, other)
    assert np.isin(numbers[0][inside][either], numbers[1]).mean() > SHARED
    # The same number lies at the same place, to about the side of a pixel.
    noise_a, noise_b = (chart_noise(p, 1, 0, 8)[0] for p in numbers)
    nearest = noise_b[row, column]
    assert np.corrcoef(noise_a[inside][either], nearest[either])[0, 1] > SAME_PLACE
