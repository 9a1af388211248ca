"""Distances between sets: other codes, closed forms, and what they are made to find."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from mlsky import seeds
from mlsky.statistics import distances
from mlsky.statistics.distances import Distances, density_coverage, frechet, kernel

EXACT = 1e-8  # the same numbers another way
SIGMAS = 4.0  # sampling errors


def _noise(seed, *shape):
    return seeds.generator(seed, "truth").standard_normal(shape)


def test_frechet_is_that_of_a_matrix_root():
    from scipy.linalg import sqrtm

    a, b = _noise(1, 300, 6) @ _noise(2, 6, 6), 0.3 + _noise(3, 200, 6) @ _noise(4, 6, 6)
    c1, c2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum()
    expected += np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet(a, a) == pytest.approx(0, abs=EXACT)


def test_frechet_of_known_gaussians():
    """Independent features: the sum of (m1 - m2)^2 + (s1 - s2)^2."""
    s1, s2, shift = np.array([1.0, 2, 3]), np.array([1.5, 2, 1]), np.array([0.0, 1, 0])
    n = 20000
    found = frechet(_noise(5, n, 3) * s1, _noise(6, n, 3) * s2 + shift)
    expected = ((s1 - s2) ** 2).sum() + 1
    assert found == pytest.approx(expected, rel=SIGMAS * 2 / np.sqrt(n))


def test_kernel_is_the_sum_over_pairs():
    a, b = _noise(7, 30, 4), 0.5 + _noise(8, 20, 4)

    def k(x, y):
        return (x @ y / 4 + 1) ** 3

    expected = np.mean([k(a[i], a[j]) for i in range(30) for j in range(30) if i != j])
    expected += np.mean([k(b[i], b[j]) for i in range(20) for j in range(20) if i != j])
    expected -= 2 * np.mean([k(x, y) for x in a for y in b])
    assert kernel(a, b) == pytest.approx(expected, rel=EXACT)


def test_kernel_of_known_gaussians(monkeypatch):
    """One feature, shifted by m: E(1 + xy)^3 = 1 + 3 m m' + 3 (1 + m^2)(1 + m'^2) + q q',
    q = m^3 + 3 m; taken in blocks, and unbiased."""
    monkeypatch.setattr(distances, "BLOCK", 500)
    n, m = 20000, 0.4

    def mean(u, v):
        q = [x**3 + 3 * x for x in (u, v)]
        return 1 + 3 * u * v + 3 * (1 + u**2) * (1 + v**2) + q[0] * q[1]

    expected = mean(0, 0) + mean(m, m) - 2 * mean(0, m)
    parts = [
        kernel(a, b)
        for a, b in zip(
            np.split(_noise(9, n, 1), 20), np.split(_noise(10, n, 1) + m, 20), strict=True
        )
    ]
    error = np.std(parts) / np.sqrt(len(parts))
    assert error < 0.1 * expected
    assert abs(np.mean(parts) - expected) < SIGMAS * error


def test_density_and_coverage_by_trees(monkeypatch):
    from scipy.spatial import cKDTree

    monkeypatch.setattr(distances, "BLOCK", 70)
    true, made = _noise(11, 200, 5), 0.4 + _noise(12, 150, 5)
    radius = cKDTree(true).query(true, 6)[0][:, 5]
    near = np.array([[np.linalg.norm(x - y) for x in true] for y in made]) <= radius
    density, coverage = density_coverage(true, made)
    assert density == pytest.approx(near.sum() / (5 * 150), rel=EXACT)
    assert coverage == pytest.approx(near.any(0).mean(), rel=EXACT)


def test_density_and_coverage_of_like_sets():
    """Naeem et al. 2020, eq. 6: of N and M patches of one distribution the density is 1, the
    coverage 1 - (N - 1) ... (N - k) / ((M + N - 1) ... (M + N - k))."""
    n, k = 300, 5
    found = np.array([density_coverage(_noise(i, n, 4), _noise(99 + i, n, 4)) for i in range(30)])
    error = found.std(0) / np.sqrt(len(found))
    steps = np.arange(1, k + 1)
    expected = np.array([1, 1 - np.prod((n - steps) / (2 * n - steps))])
    assert (error < 0.01).all()
    assert (np.abs(found.mean(0) - expected) < SIGMAS * error).all()


def test_what_they_find():
    true = _noise(13, 400, 6)
    one_kind = np.abs(_noise(14, 400, 6)) * 0.3
    density, coverage = density_coverage(true, one_kind)
    assert density > 1.2  # all near the middle
    assert coverage < 0.6  # and most kinds missing


def test_streams_with_errors():
    whole = Distances()
    for area in range(12):
        for part in range(2):
            true = _noise(100 + area, 40, 5)[20 * part : 20 * part + 20]
            made = _noise(200 + area, 40, 5)[20 * part : 20 * part + 20] + 0.3
            whole.update(true * 7 + 2, made * 7 + 2, area)
    found = whole.compute()
    true = np.concatenate([_noise(100 + a, 40, 5) for a in range(12)])
    made = np.concatenate([_noise(200 + a, 40, 5) + 0.3 for a in range(12)])
    scale = true.std(0)
    expected = frechet(true / scale, made / scale)
    assert found["frechet"]["value"] == pytest.approx(expected, rel=1e-5)
    # shift of 0.3 in each of 5 features of unit variance, error 2 * 0.3 * sqrt(5 * 2 / 480)
    assert found["frechet"]["error"] == pytest.approx(0.6 * np.sqrt(10 / 480), rel=0.4)
    assert set(found) == {"frechet", "kernel", "density", "coverage"}
    alone = Distances()
    alone.update(true, made)
    assert np.isnan(alone.compute()["kernel"]["error"])


def test_what_is_kept_is_small(monkeypatch):
    """Of 200,000 patches: features in single precision, and pairs of few patches at once."""
    patches, columns, areas = 200_000, 4, 40
    monkeypatch.setattr(distances, "MOST", 1000)
    monkeypatch.setattr(distances, "BLOCK", 250)
    monkeypatch.setattr(distances, "GROUPS", 2)
    monkeypatch.setattr(distances, "kernel", lambda a, b: 0.0)  # all pairs of blocks, slow
    features = _noise(15, patches // areas, columns)
    tracemalloc.start()
    try:
        whole = Distances()
        for area in range(areas):
            whole.update(features + area % 7, features - area % 5, area)
        kept = tracemalloc.get_traced_memory()[0]
        found = whole.compute()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert kept < 1.1 * 2 * 4 * patches * columns
    assert peak < 12 * kept
    assert found["frechet"]["value"] > 1


def test_what_they_refuse():
    good = _noise(16, 50, 3)
    with pytest.raises(ValueError, match="3 patches: a distance between sets of patches needs"):
        density_coverage(good[:3], good)
    with pytest.raises(ValueError, match="must be a table with 3 columns"):
        frechet(good, good[:, :2])
    bad = good.copy()
    bad[4, 1] = np.nan
    with pytest.raises(ValueError, match="generated features: hold NaN"):
        kernel(good, bad)
    stream = Distances()
    stream.update(good, good)
    with pytest.raises(ValueError, match="before there were 3"):
        stream.update(good[:, :2], good[:, :2])
    with pytest.raises(ValueError, match="0 patches"):
        Distances().compute()
