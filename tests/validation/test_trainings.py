"""The scatter of scores from one training to another."""

from __future__ import annotations

import numpy as np
import pytest

from mlsky.validation.trainings import spread


def _found(*values, regions=8, where="a"):
    numbers = [{"where": w, "value": v} for w, v in zip((where, "b"), values, strict=True)]
    row = {"name": "power cib", "job": "end_to_end", "calibration": "after", "numbers": numbers}
    return {"regions": regions, "pixel_arcmin": 0.5, "scores": [{**row, **numbers[0]}]}


def test_scatter():
    found = [_found(0.1, 1.0), _found(0.2, 2.0), _found(0.6, 3.0)]
    (row,) = spread(found)
    values = np.array([0.1, 0.2, 0.6])
    assert row["value"] == 0.1  # of the first weights
    assert row["trainings"] == row["numbers"][0]["trainings"]
    assert row["trainings"]["mean"] == pytest.approx(values.mean(), rel=1e-3)
    assert row["trainings"]["scatter"] == pytest.approx(values.std(ddof=1), rel=1e-3)
    assert row["trainings"]["error"] == pytest.approx(values.std(ddof=1) / np.sqrt(3), rel=1e-3)
    assert row["numbers"][1]["trainings"] == {"mean": 2.0, "scatter": 1.0, "error": 0.5774}
    assert "trainings" not in found[0]["scores"][0]  # nothing given is changed


def test_numbers_that_one_has_not():
    (row,) = spread([_found(0.1, 1.0), _found(None, 2.0)])
    assert row["numbers"][0]["trainings"] is None
    (row,) = spread([_found(0.1, 1.0), _found(0.1, 2.0, where="elsewhere")])
    assert row["trainings"] is None
    assert row["numbers"][1]["trainings"]["mean"] == 1.5


def test_what_it_refuses():
    with pytest.raises(ValueError, match="must be the same for all"):
        spread([_found(0.1, 1.0), _found(0.1, 1.0, regions=9)])
    with pytest.raises(ValueError, match="1 trainings: a scatter needs at least 2 seeds"):
        spread([_found(0.1, 1.0)])
