"""Local maxima and blobs found by their beam; what noise does to either."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from mlsky import seeds
from mlsky.toys import blobs, matched, peaks

SIGMA = 3.0
NOISE = 0.15
#: A fitted height scatters by noise / (sqrt(pi) sigma); the mean of 60 is good to 0.4 %.
UNBIASED = 0.02
#: Neighbours are fitted together within four sigma, where a blob is 3e-4 of its height (pixels).
PLACED = 5e-3
#: Isolated, noiseless blobs are found to rounding.
EXACT = 1e-5


def _noisy(n):
    x = blobs.sample(1, n, 11)[:, 0].astype(float)
    return x + NOISE * seeds.generator(12, "truth").standard_normal(x.shape)


def test_local_maxima_are_scipys():
    x = seeds.generator(1, "truth").standard_normal((40, 40))
    highest = maximum_filter(x, 3, mode="constant", cval=-np.inf)
    want = np.argwhere((x == highest) & (x > 0.5))
    np.testing.assert_array_equal(peaks.local_maxima(x, 0.5), want)
    assert len(peaks.local_maxima(np.ones((9, 9)))) == 0


def test_the_stack_of_blobs_on_pixels_is_the_blob():
    rows = np.array([[30.0, 40.0, 1.0], [90.0, 80.0, 1.0]])
    stack = peaks.PeakStack(0.3)
    stack.update(blobs.render(rows, SIGMA, 128))
    found = stack.compute()
    r = np.hypot(*np.indices((21, 21)) - 10)
    np.testing.assert_allclose(found.stack, np.exp(-(r**2) / 18), atol=EXACT)
    assert (found.peaks, found.per_image) == (2, 2.0)
    assert found.radius[0] == 0
    # means over a ring of one pixel: of a Gaussian, nearly its value at the mean radius
    np.testing.assert_allclose(found.profile, np.exp(-(found.radius**2) / 18), atol=0.01)


def test_blobs_too_near_an_edge_are_counted_and_not_stacked():
    stack = peaks.PeakStack(0.3)
    stack.update(blobs.render(np.array([[3.0, 64.0, 1.0], [60.0, 64.0, 1.0]]), SIGMA, 128))
    found = stack.compute()
    assert (found.peaks, found.per_image) == (1, 2.0)


def test_filtered_heights_are_least_squares_also_at_the_edge():
    image = seeds.generator(3, "truth").standard_normal((24, 24))
    height, significance = matched.filtered(image, SIGMA)
    y, x = np.indices((24, 24))
    for place in ((0, 0), (5, 23), (12, 12)):
        beam = np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / 18)
        want = (beam * image).sum() / (beam**2).sum()
        np.testing.assert_allclose(height[place], want, rtol=1e-9)
        np.testing.assert_allclose(significance[place], want * np.sqrt((beam**2).sum()), rtol=1e-9)


@pytest.mark.parametrize("count", [1, 4])
def test_every_blob_is_found_where_it_is(count):
    kind = blobs.Blobs(count)
    for i in range(10):
        true = blobs.table(kind, 21, i)
        apart = np.hypot(*(true[:, None, :2] - true[None, :, :2]).transpose(2, 0, 1))
        if count > 1 and apart[~np.eye(count, dtype=bool)].min() < 3 * SIGMA:
            continue
        found = matched.find(blobs.render(true, SIGMA, 128), SIGMA)
        order = [np.hypot(*(found[:, :2] - t[:2]).T).argmin() for t in true]
        assert sorted(order) == list(range(count)) == list(range(len(found)))
        np.testing.assert_allclose(found[order], true, atol=PLACED)


def test_ten_blobs_of_one_height_are_counted():
    images = blobs.sample(10, 20, 5)
    counts = [matched.number(matched.find(x, SIGMA, 0.25)[:, 2]) for x in images]
    assert np.mean(np.array(counts) == 10) >= 0.9
    assert matched.number([]) == 0
    assert matched.number([1.0, 0.98, 2.03], 1.0) == 4


def test_shapes_are_those_of_the_blob():
    y, x = np.indices((64, 64))
    u, v = (y - 30.2) + (x - 33.7), (y - 30.2) - (x - 33.7)  # turned by 45 degrees
    blob = 0.7 * np.exp(-(u**2) / (2 * 2 * 3.3**2) - v**2 / (2 * 2 * 2.5**2))
    found = matched.shape(blob, (30, 34), SIGMA)
    want = (0.7, 30.2, 33.7, np.sqrt(3.3 * 2.5), 2.5 / 3.3)
    np.testing.assert_allclose(found, want, rtol=1e-6)


def test_noise_fools_local_maxima_and_not_the_beam():
    """Section 6.5 of the report: the bias of the one, and that the other has none."""
    images = _noisy(60)
    stack = peaks.PeakStack(0.8)  # no pixel of noise alone comes to that
    stack.update(images)
    biased = stack.compute()
    found = [matched.find(x, SIGMA, 0.5) for x in images]
    beam = peaks.PeakStack()
    beam.update(images, found)
    fair = beam.compute()
    true = peaks.PeakStack()
    clean = blobs.sample(1, 60, 11)[:, 0]
    true.update(clean, [blobs.table(1, 11, i) for i in range(60)])
    want = true.compute()
    # several maxima of the noise sit on each blob, and the middle of the stack is one of them
    assert biased.per_image > 1.3
    assert biased.profile[0] > want.profile[0] + 0.03
    assert biased.profile[0] - biased.profile[1] > 3 * (want.profile[0] - want.profile[1])
    assert biased.profile[1] < 0.85 * want.profile[1]
    assert fair.per_image == 1
    np.testing.assert_allclose(fair.profile[1:4], want.profile[1:4], atol=UNBIASED)
    assert abs(fair.profile[0] - want.profile[0]) < 4 * NOISE / np.sqrt(fair.peaks)
    heights = np.concatenate([f[:, 2] for f in found])
    assert abs(heights.mean() - 1) < UNBIASED


def test_bad_input():
    good = blobs.sample(1, 2, 1)
    with pytest.raises(ValueError, match="2 images: maxima are of one at a time"):
        peaks.local_maxima(good)
    with pytest.raises(ValueError, match="2 images: blobs are found in one at a time"):
        matched.find(good, SIGMA)
    with pytest.raises(ValueError, match=r"sigma=0.1: must be from 0.3 pixels"):
        matched.find(good[0], 0.1)
    with pytest.raises(ValueError, match=r"threshold=0: must be > 0"):
        matched.find(good[0], SIGMA, 0)
    with pytest.raises(ValueError, match="hold NaN"):
        matched.find(np.full((32, 32), np.nan), SIGMA)
    with pytest.raises(ValueError, match="there is nothing"):
        matched.shape(np.zeros((64, 64)), (30, 30), SIGMA)
    with pytest.raises(ValueError, match="outside the image of 64 pixels"):
        matched.shape(np.ones((64, 64)), (300, 30), SIGMA)
    with pytest.raises(ValueError, match="images of 16 pixels: cutouts have 21"):
        peaks.PeakStack().update(np.ones((2, 16, 16)))
    with pytest.raises(ValueError, match="places of 1 images, 2 images"):
        peaks.PeakStack().update(good, [np.zeros((0, 3))])
    empty = peaks.PeakStack()
    empty.update(np.ones((2, 32, 32)))
    with pytest.raises(ValueError, match=r"no peak above 0\.0"):
        empty.compute()
    with pytest.raises(ValueError, match="must be odd"):
        peaks.radial(np.ones((4, 4)))
    assert len(matched.find(np.zeros((32, 32)), SIGMA)) == 0
