"""Generated images of blobs against true ones, and their pictures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest

from mlsky import seeds
from mlsky.plotting import blob_figures
from mlsky.toys import blobs
from mlsky.toys import comparison as statistics

SIGMA = blobs.SIGMA


def _bad(found):
    return {name for name, line in found.items() if not line.good}


def _compare(made, count, n=24):
    kind = blobs.BLOBS[count]
    return statistics.compare(made, blobs.sample(count, n, 2), count, kind.sigma, kind.scaled)


@pytest.mark.parametrize("count", [1, 10])
def test_truth_against_truth_is_good(count):
    found = _compare(blobs.sample(count, 24, 1), count)
    assert not _bad(found)
    assert all(np.isfinite([line.made, line.true]).all() for line in found.values())


def test_many_blobs_against_truth():
    """Power is asked for within 5 %: images of 50 blobs scatter by far more than that in a ring of
    few modes, so only the histogram of so few is good for sure."""
    found = _compare(blobs.sample(1000, 64, 1), 1000, 64)
    assert found["histogram, worst quantile of 1 % to 99.9 %"].good
    assert found["noise of pixels over their spread"].good


def test_each_failing_of_the_report_is_seen():
    good = blobs.sample(1, 24, 1)
    second = blobs.sample(1, 24, 9)
    two = good + 0.6 * second  # sometimes two blobs, of different heights
    assert {"images with one blob", "blobs per image"} <= _bad(_compare(two, 1))
    assert _bad(_compare(1.3 * good, 1)) == {"highest pixel"}  # a wider range
    wide = blobs.sample(blobs.Blobs(1, sigma=3.2), 24, 1)
    assert "width of a blob (pixels)" in _bad(_compare(wide, 1))
    salt = good + 0.05 * seeds.generator(1, "truth").standard_normal(good.shape)
    assert "noise of pixels over their spread" in _bad(_compare(salt, 1))
    corner = np.concatenate([good[:, :, 64:], np.zeros((24, 1, 64, 128))], 2)
    corner[:, :, 20:60, 20:60] += blobs.sample(blobs.Blobs(1, size=40), 24, 4)
    assert "centres uniform in y (KS p)" in _bad(_compare(corner, 1))
    assert "blobs per image" in _bad(_compare(blobs.sample(blobs.Blobs(8, scaled=True), 24, 1), 10))


def test_nothing_at_all_is_no_blob():
    found = _compare(np.full((24, 1, 128, 128), 1e-9) + 1e-6 * blobs.sample(1, 24, 1), 1)
    assert found["images with one blob"].made == 0
    assert not found["width of a blob (pixels)"].good


def test_elongated_blobs_are_not_round():
    y, x = np.indices((128, 128))
    one = np.exp(-((y - 60) ** 2) / (2 * 3.3**2) - (x - 64) ** 2 / (2 * (9 / 3.3) ** 2))
    found = statistics.find_all(np.stack([one] * 2), SIGMA)
    np.testing.assert_allclose(found.ratios, (9 / 3.3) / 3.3, rtol=1e-4)
    np.testing.assert_allclose(found.widths, 3, rtol=1e-4)


def test_noise_is_that_of_pixels():
    x = seeds.generator(1, "truth").standard_normal((4, 64, 64))
    assert statistics.noise(x) == pytest.approx(np.sqrt(1.25), rel=0.02)
    with pytest.raises(ValueError, match="images are constant"):
        statistics.noise(np.ones((2, 8, 8)))


def test_findings_of_the_report_as_numbers():
    good, true = blobs.sample(1, 24, 1)[:, 0], blobs.sample(1, 24, 1)[:, 0]
    same = statistics.findings(good, true, 1, SIGMA)
    assert all(a == pytest.approx(b) for a, b in same.values())
    tail = "stacked peaks at 6 pixels over their centre"
    # maxima lie on whole pixels, not on the blobs' centres
    assert same[tail][1] == pytest.approx(np.exp(-2), abs=0.02)
    assert same["images with two blobs or more"] == (0, 0)
    two = statistics.findings(good + 0.6 * blobs.sample(1, 24, 9)[:, 0], true, 1, SIGMA)
    assert two["images with two blobs or more"][0] > 0.8
    wide = statistics.findings(blobs.sample(blobs.Blobs(1, sigma=4.0), 24, 1), true, 1, SIGMA)
    assert wide[tail][0] > 1.5 * wide[tail][1]
    assert wide["power over the truth's, 9 to 16 waves"][0] < 0.7
    nothing = statistics.findings(0.1 * good, true, 1, SIGMA)
    assert np.isnan(nothing[tail][0])
    assert nothing["power over the truth's, 1 to 8 waves"][0] == pytest.approx(0.01)
    with pytest.raises(ValueError, match="must be images of one size"):
        statistics.findings(good[:, :64, :64], true, 1, SIGMA)


def test_distances_of_centres_from_uniform_and_from_the_truth():
    """They do not depend on the number of images, as the probabilities of `compare` do."""
    true = blobs.sample(1, 48, 1)[:, 0]
    rows = np.array([blobs.table(1, 1, i)[0] for i in range(48)])
    upper = true[rows[:, 0] < 55]  # whole blobs, found where they are
    found = statistics.findings(upper, true, 1, SIGMA)
    made, of_truth = found["centres in y, KS distance from uniform"]
    for value, places in ((of_truth, rows[:, 0]), (made, rows[rows[:, 0] < 55, 0])):
        expected = kstest((places + 0.5) / 128, "uniform").statistic
        assert value == pytest.approx(expected, abs=1e-5)
    assert made > 0.5
    expected = ks_2samp(rows[rows[:, 0] < 55, 0], rows[:, 0]).statistic
    assert found["centres in y, KS distance from the true ones"] == (pytest.approx(expected), 0)
    assert found["centres in x, KS distance from uniform"][0] < made / 2
    of_ten = statistics.findings(blobs.sample(10, 16, 1), blobs.sample(10, 16, 1), 10, SIGMA)
    assert of_ten["centres in x, KS distance from the true ones"] == (0, 0)
    nothing = statistics.findings(0.1 * true, true, 1, SIGMA)
    assert np.isnan(nothing["centres in y, KS distance from uniform"][0])


def test_the_error_of_the_power_is_that_of_its_sampling():
    """Ratios of many pairs of sets scatter as far as each of them says."""
    many = np.random.default_rng(1).standard_normal((2, 48, 16, 16, 16)).cumsum(3)
    name = "power over the truth's, worst of 1 to 8 waves"
    lines = [statistics.distribution(a, b)[name] for a, b in zip(*many, strict=True)]
    errors = [float(line.wanted.split("error ")[1].rstrip("%)")) / 100 for line in lines]
    scatter = np.median(np.abs([np.log(line.made) for line in lines]))
    # the median of the largest of eight normal numbers is 1.7; of 16 images errors are rough
    assert 1.2 < scatter / np.median(errors) < 2.5


def test_bad_images():
    good = blobs.sample(1, 16, 1)
    with pytest.raises(ValueError, match="4 patches: a comparison needs at least 16; give more"):
        statistics.compare(good[:4], good, 1, SIGMA)
    with pytest.raises(ValueError, match="must be images of one size"):
        statistics.compare(good, good[:, :, :64, :64], 1, SIGMA)
    with pytest.raises(ValueError, match="made: hold NaN or infinity"):
        statistics.compare(np.full_like(good, np.nan), good, 1, SIGMA)
    with pytest.raises(ValueError, match="images are constant"):
        statistics.compare(np.ones_like(good), np.ones_like(good), 50, SIGMA)


def test_pictures():
    pytest.importorskip("matplotlib")
    good, other = blobs.sample(10, 8, 1), blobs.sample(10, 8, 2)
    drawing = blob_figures.figure(good, other, "ten")
    assert len(drawing.axes) >= 16
    # a network that has learned nothing has no peaks to stack, and is drawn all the same
    assert blob_figures.figure(np.zeros_like(good), other)
    assert blob_figures.grid(good[:6].reshape(2, 3, 128, 128))
    with pytest.raises(ValueError, match="must be \\(rows, columns, n, n\\)"):
        blob_figures.grid(good[0])
    with pytest.raises(ValueError, match="must be of one size"):
        blob_figures.figure(good, other[:, :, :64, :64])
    with pytest.raises(ValueError, match="2 patches"):
        blob_figures.figure(good[:2], other)


def test_a_constant_image_holds_no_blob():
    found = statistics.find_all(np.ones((2, 32, 32)), SIGMA)
    assert found.counts.tolist() == [0, 0]
