"""The jackknife: exact for a mean, right for a ratio."""

from __future__ import annotations

import numpy as np
import pytest

from mlsky import seeds
from mlsky.statistics.jackknife import GROUPS, jackknife


def _rng():
    return seeds.generator(7, "truth")


def test_of_a_mean_it_is_the_standard_error():
    x = _rng().standard_normal((30, 4))
    value, error = jackknife(lambda m: m["x"], {"x": x})
    np.testing.assert_allclose(value, x.mean(0))
    np.testing.assert_allclose(error, x.std(0, ddof=1) / np.sqrt(30))


def test_of_a_ratio():
    """Many sets: the error is the scatter, and what both sides share drops out."""
    rng, ratios, errors = _rng(), [], []
    for _ in range(300):
        shared = rng.standard_normal((20, 1))
        a, b = 5 + shared + 0.5 * rng.standard_normal((20, 2)).T[..., None]
        value, error = jackknife(lambda m: m["a"] / m["b"] - 1, {"a": a, "b": b})
        ratios.append(value[0])
        errors.append(error[0])
    assert np.mean(errors) == pytest.approx(np.std(ratios), rel=0.15)
    assert np.std(ratios) == pytest.approx(0.5 * np.sqrt(2 / 20) / 5, rel=0.15)


def test_many_regions_and_one():
    x = _rng().standard_normal((500, 1))
    calls = []

    def mean(m):
        calls.append(1)
        return m["x"]

    _, error = jackknife(mean, {"x": x})
    assert len(calls) == GROUPS + 1
    assert error[0] == pytest.approx(x.std() / np.sqrt(500), rel=0.3)
    value, error = jackknife(mean, {"x": x[:1]})
    assert value == x[0]
    assert np.isnan(error).all()


def test_samples_that_do_not_fit():
    with pytest.raises(ValueError, match="must be the same number in all"):
        jackknife(lambda m: m["a"] + m["b"], {"a": np.zeros((4, 2)), "b": np.zeros((3, 2))})
    with pytest.raises(ValueError, match="0 patches: a mean over regions needs at least 1"):
        jackknife(lambda m: m["a"], {"a": np.zeros((0, 2))})
