"""Means that come one batch at a time: the same as of all at once, with errors by area."""

from __future__ import annotations

import numpy as np
import pytest

from mlsky import seeds
from mlsky.statistics.jackknife import jackknife
from mlsky.statistics.streaming import Averages, over_trainings


def _moments(maps):
    return {"mean": maps.mean((1, 2)), "square": (maps**2).mean((1, 2))}


def test_in_any_order_and_batches():
    maps = seeds.generator(8, "truth").standard_normal((30, 8, 8))
    areas = np.arange(30) % 5
    whole, parts = Averages(_moments), Averages(_moments)
    for area in range(5):
        whole.update(maps[areas == area], area)
    for i in np.argsort(areas)[::-1]:
        parts.update(maps[i : i + 1], areas[i])

    def variance(m):
        return m["square"] - m["mean"] ** 2

    value, error = whole.compute(variance)
    again = parts.compute(variance)
    assert value == pytest.approx(maps.var(), rel=1e-12)
    np.testing.assert_allclose(again, (value, error), rtol=1e-10)
    by_area = {k: v.reshape(5, -1).mean(1) for k, v in _moments(_by(maps, areas)).items()}
    assert error == pytest.approx(jackknife(variance, by_area)[1], rel=1e-10)
    assert parts.count == 30
    assert parts.areas == [0, 1, 2, 3, 4]


def _by(maps, areas):
    return maps[np.argsort(areas, kind="stable")]


def test_areas_of_unequal_size():
    """A mean weighs patches, not areas."""
    stream = Averages(lambda x: {"x": x})
    stream.update(np.ones((9, 1)), 0)
    stream.update(np.zeros((1, 1)), 1)
    assert stream.compute()[0] == pytest.approx([0.9])


def test_trainings():
    rows = seeds.generator(9, "truth").standard_normal((6, 3))
    found = over_trainings(list(rows))
    np.testing.assert_allclose(found["mean"], rows.mean(0))
    _, error = jackknife(lambda m: m["x"], {"x": rows})
    np.testing.assert_allclose(found["error"], error)
    np.testing.assert_allclose(found["scatter"], rows.std(0, ddof=1))


def test_what_they_refuse():
    with pytest.raises(ValueError, match="1 trainings: a scatter needs at least 2 seeds"):
        over_trainings([np.zeros(3)])
    with pytest.raises(ValueError, match="must be the same for all trainings"):
        over_trainings([np.zeros(3), np.zeros(2)])
    stream = Averages(lambda x: {"x": x})
    with pytest.raises(ValueError, match="0 patches: a mean needs at least 1"):
        stream.compute()
    stream.update(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"x of shape \(4,\): was \(3,\)"):
        stream.update(np.zeros((2, 4)))
