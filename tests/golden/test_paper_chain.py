"""The tables of docs/paper_chain state the scores of the chain that is shipped."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Written by ``benchmarks/chain_table.py --keep``.
NUMBERS = json.loads(Path(__file__).with_name("paper_chain.json").read_text())


def chain_table():
    """The benchmark that prints the tables."""
    spec = importlib.util.spec_from_file_location("t", ROOT / "benchmarks" / "chain_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["steps_table", "bands_table"])
def test_the_page_has_the_tables(name):
    page = (ROOT / "docs" / "paper_chain.rst").read_text(encoding="utf-8")
    lines = [" ".join(line.split()) for line in page.splitlines()]
    rows = [" ".join(" ".join(cells).split()) for cells in getattr(chain_table(), name)(NUMBERS)]
    start = lines.index(rows[0])
    shown = [line for line in lines[start : start + len(rows) + 1] if set(line) - set("= ")]
    assert shown == rows


def test_the_page_says_the_version():
    page = (ROOT / "docs" / "paper_chain.rst").read_text(encoding="utf-8")
    registry = sorted((ROOT / "data" / "weights").glob("han2021-v*.json"))
    version = registry[-1].stem.partition("-")[2]
    assert f"``han2021`` {version}, which is shipped" in page


def test_numbers_that_are_kept():
    """Of rows of several fields and bands, the ratios of powers; of summaries, the values."""
    band = {"where": "l 300-700", "generated": 2.0, "true": 4.0}
    row = {"statistic": "power", "fields": ["ksz"], "name": "power l 300-700 ksz"}
    tsz = {"statistic": "power", "fields": ["tsz"], "numbers": [band]}
    rows = [
        row | {"numbers": [band]},
        tsz | {"name": "power l 300-700 tsz all", "numbers": [band | {"generated": 9.0}]},
        tsz | {"name": "power l 300-700 tsz"},
        row | {"statistic": "edge", "name": "edge ksz", "numbers": [band | {"true": 1.0}]},
    ]
    total = {"rows": 59, "met": 2, "failed": 3, "undecided": 4, "distance": 2.5}
    summary = {"power of ksz": {"value": 0.5, "good": True}}
    scored = {"steps": 7, "patches": 256, "total": total, "summary": summary, "rows": rows}
    assert chain_table().kept({"chain": scored, "drawn": scored}) == {
        "chain": {
            "steps": 7,
            "total": {"rows": 59, "met": 2, "distance": 2.5},
            "summary": {"power of ksz": 0.5},
            "power": {"ksz": {"l 300-700": 0.5}, "tsz": {"l 300-700": 0.5}},
        },
        "drawn": {
            "steps": 7,
            "total": {"rows": 59, "met": 2, "distance": 2.5},
            "summary": {"power of ksz": 0.5},
            "power": {},
        },
    }
