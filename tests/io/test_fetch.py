"""Where files are looked for on machines without a home, and in folders that refuse."""

import os
from pathlib import Path

import pytest

from mlsky import registry
from mlsky.io import fetch
from mlsky.theory import spectra


@pytest.fixture
def no_home(monkeypatch):
    for name in ("HOME", "MLSKY_CACHE_DIR", "XDG_CACHE_HOME", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)

    def homeless(path):
        return path  # what os.path.expanduser gives a uid that no passwd entry has

    monkeypatch.setattr(os.path, "expanduser", homeless)


def test_without_a_home_nothing_is_kept(no_home):
    assert fetch.cache_dir() == Path(os.devnull) / "mlsky"
    assert not fetch._is_there(fetch.cache_dir() / "x")
    spectra.keep(fetch.cache_dir() / "spectra" / "a.npz", {})
    assert registry.fetch("default")[0].is_file()


def test_a_cache_in_a_home_that_is_not_there(no_home, monkeypatch):
    monkeypatch.setenv("MLSKY_CACHE_DIR", "~/cache")
    assert fetch.cache_dir() == Path(os.devnull) / "mlsky"


@pytest.mark.parametrize("variable", ["MLSKY_DATA_DIR", "MLSKY_CACHE_DIR"])
def test_folders_that_refuse_hide_no_shipped_file(variable, tmp_path, monkeypatch):
    """Root may read everything, so the refusal is made here."""
    monkeypatch.setenv(variable, str(tmp_path))
    real = os.stat

    def refuse(path, *arguments, **options):
        if str(path).startswith(str(tmp_path)):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", refuse)
    assert registry.fetch("default")[0].is_file()
    assert registry.verify("default")
