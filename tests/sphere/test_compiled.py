"""Compiled loops: numpy's numbers, whatever becomes of numba's cache."""

from __future__ import annotations

import os
import sys
import warnings
from importlib import util

import numpy as np
import pytest

from mlsky.haloes import kernels

#: float32 sums of some ten numbers in another order.
SINGLE = 1e-6

SOURCE = """
from mlsky.sphere.compiled import compiled


@compiled
def weighted(values, weights):
    total = 0.0
    for i in range(values.size):
        total += values[i] * weights[i] / weights[0]
    return total
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads the module of `SOURCE` as a new process does, its cache in a folder of the test."""
    path = tmp_path / "loops.py"
    path.write_text(SOURCE)
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(cache))

    def fresh():
        spec = util.spec_from_file_location("loops", path)
        module = util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "loops", module)
        spec.loader.exec_module(module)
        return module.weighted

    return fresh, cache


def check(function):
    values, weights = np.arange(5.0), np.array([2.0, 1.0, 3.0, 0.5, 4.0])
    assert function(values, weights) == pytest.approx(values @ weights / 2, rel=1e-15)
    # other types are compiled, too
    assert function(values.astype(np.float32), weights) == pytest.approx(values @ weights / 2)


def test_points_are_spread_as_numpy_spreads_them():
    rng = np.random.default_rng(1)
    n, shape = 40, (9, 11)
    rows, columns = (rng.integers(0, side, (n, 4)).astype(np.int32) for side in shape)
    by_row, by_column = rng.random((2, n, 4)).astype(np.float32)
    flux = rng.standard_normal(n).astype(np.float32)
    made, expected = np.zeros(shape, np.float32), np.zeros(shape)
    kernels._spread(made, rows, columns, by_row, by_column, flux)
    weight = by_row[:, :, np.newaxis] * by_column[:, np.newaxis] * flux[:, np.newaxis, np.newaxis]
    np.add.at(expected, (rows[:, :, np.newaxis], columns[:, np.newaxis]), weight)
    np.testing.assert_allclose(made, expected, atol=SINGLE * np.abs(expected).max())


def test_the_machine_code_is_kept(load):
    fresh, cache = load
    check(fresh())
    kept = sorted(cache.rglob("*.nbc"))
    assert len(kept) == 2  # of two types of arguments
    before = [path.stat().st_mtime_ns for path in kept]
    check(fresh())
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_division_by_zero_is_as_numpys(load):
    fresh, _ = load
    assert fresh()(np.ones(1), np.zeros(1)) != 0  # NaN, no error


@pytest.mark.parametrize("name", ["_save_index", "_save_data"])
def test_a_full_disk(load, monkeypatch, name):
    fresh, cache = load

    def full(self, *arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"numba.core.caching.IndexDataCacheFile.{name}", full)
    with pytest.warns(UserWarning, match="No space left on device") as told:
        check(fresh())
    assert len(told) == 1
    assert not list(cache.rglob("*.nbc"))


@pytest.mark.parametrize(
    ("suffix", "text"), [("nbi", b""), ("nbi", b"no pickle"), ("nbc", b"\x80\x05rubbish")]
)
def test_a_damaged_cache(load, suffix, text):
    fresh, cache = load
    check(fresh())
    for path in cache.rglob(f"*.{suffix}"):
        path.write_bytes(text)
    with pytest.warns(UserWarning, match="cannot be used"):
        check(fresh())


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_folders_that_cannot_be_written(load):
    fresh, cache = load
    cache.chmod(0o500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(fresh())
    cache.chmod(0o700)


def test_no_folder_to_write_to(load, monkeypatch):
    fresh, cache = load

    def refuse(self):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("numba.core.caching._CacheLocator.ensure_cache_path", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(fresh())
    assert not list(cache.iterdir())


def test_wrong_arguments_are_errors(load):
    from numba.core.errors import NumbaError

    fresh, _ = load
    with pytest.raises(NumbaError):
        fresh()("text", np.ones(2))
