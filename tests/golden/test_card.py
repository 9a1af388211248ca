"""The card of the default weights states the scores that the registry has of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: What the card says of one pixel size and one job.
LINE = r"(\d+) of (\d+) met, (\d+) failed, (\d+) undecided, distance (\d+\.\d+)"


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
