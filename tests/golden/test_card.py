"""The cards of the weights state the scores that the registry has of them."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: What the card says of one pixel size and one job.
LINE = r"(\d+) of (\d+) met, (\d+) failed, (\d+) undecided, distance (\d+\.\d+)"


def card_table():
    """The benchmark that prints the table of a card."""
    spec = importlib.util.spec_from_file_location("t", ROOT / "benchmarks" / "card_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def newest() -> dict:
    """Scores of the newest version, by pixel size."""
    card = (ROOT / "docs" / "weights" / "convolutional.md").read_text(encoding="utf-8")
    version = re.search(r"^## (v\d+), the default$", card, re.MULTILINE)[1]
    file = ROOT / "data" / "weights" / f"convolutional-{version}.json"
    return json.loads(file.read_text())["scores"]


@pytest.mark.parametrize("pixel", ["1'", "2'", "4'"])
@pytest.mark.parametrize("job", ["from_kappa", "end_to_end"])
def test_totals_of_the_card(pixel, job):
    card = (ROOT / "docs" / "weights" / "convolutional.md").read_text(encoding="utf-8")
    line = next(text for text in card.splitlines() if text.startswith(f"At {pixel} ("))
    found = re.search(f"{job}: {LINE}", line).groups()
    told = newest()[pixel]["totals"][job]
    names = ("met", "rows", "failed", "undecided")
    assert [int(x) for x in found[:4]] == [told[name] for name in names]
    assert float(found[4]) == pytest.approx(told["distance"], abs=0.0051)


def test_the_whole_card_of_the_papers_chain():
    """Deviations and errors, as ``benchmarks/card_table.py`` prints them, and the totals."""
    card = (ROOT / "docs" / "weights" / "han2021.md").read_text(encoding="utf-8")
    version = re.search(r"^## (v\d+)$", card, re.MULTILINE)[1]
    file = ROOT / "data" / "weights" / f"han2021-{version}.json"
    (told,) = json.loads(file.read_text())["scores"].values()
    table = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| ")]
    heads = next(cells for cells in table if cells[0] == "statistic")
    for job in ("from_kappa", "end_to_end"):
        column = heads.index(job)
        cells = {row[0]: row[column] for row in table if len(row) > column}
        for name, row in told[job].items():
            assert cells[name].startswith(card_table().cell({**row, "where": ""}).split(",")[0])
            assert ("**fails**" in cells[name]) == (row["pass"] is False)
        total = told["totals"][job]
        names = ("met", "rows", "failed", "undecided")
        found = re.search(rf"{job}: {LINE}", card).groups()
        assert [int(x) for x in found[:4]] == [total[name] for name in names]


@pytest.mark.parametrize(
    ("value", "error", "good", "wanted"),
    [
        (0.0123, 0.004, True, "+0.012 +- 0.004, l 300-700"),
        (-1.5, 0.1, False, "-1.500 +- 0.100, l 300-700 **fails**"),
        (0.2, None, None, "+0.200, l 300-700 (undecided)"),
        (None, None, False, "none, l 300-700 **fails**"),
    ],
)
def test_a_cell_of_a_card(value, error, good, wanted):
    row = {"value": value, "error": error, "where": "l 300-700", "pass": good}
    assert card_table().cell(row) == wanted
    assert card_table().cell(None) == ""
