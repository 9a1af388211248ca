"""Fixtures of training runs."""

from __future__ import annotations

import pytest
from tiny_runs import write_set


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("data") / "train.h5")
