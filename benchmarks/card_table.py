"""The table of a card of weights (docs/weights), of what ``mlsky validate --json`` wrote.

    mlsky validate --weights han2021 --json scores.json
    python benchmarks/card_table.py scores.json [--published]

Prints one line of Markdown for each row of scores, with a column for each job, and the totals.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def cell(row: dict | None) -> str:
    """Deviation, its error, where it is worst, and whether it fails."""
    if row is None:
        return ""
    if row["value"] is None:
        return f"none, {row['where']} **fails**"
    error = "" if row["error"] is None else f" +- {row['error']:.3f}"
    verdict = {True: "", False: " **fails**", None: " (undecided)"}[row["pass"]]
    return f"{row['value']:+.3f}{error}, {row['where']}{verdict}"


def lines(figures: dict, published: bool):
    """Markdown of the scores after calibration."""
    rows = [row for row in figures["scores"] if row["calibration"] == "after"]
    jobs = [*dict.fromkeys(row["job"] for row in rows)]
    found = {(row["name"], row["job"]): row for row in rows}
    heads = ["statistic", "tolerance", "goal", *["Han et al."] * published, *jobs]
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    for name in dict.fromkeys(row["name"] for row in rows):
        first = next(found[name, job] for job in jobs if (name, job) in found)
        cells = [name, f"{first['tolerance']:g}", f"{first['goal']:g}"]
        cells += [first["mmdl"] or ""] * published
        cells += [cell(found.get((name, job))) for job in jobs]
        yield "| " + " | ".join(cells) + " |"
    yield ""
    totals = (
        f"{job}: {t['met']} of {t['rows']} met, {t['failed']} failed, {t['undecided']} undecided, "
        f"distance {t['distance']:.2f}"
        for job, t in ((job, figures["totals"][job]) for job in jobs)
    )
    yield "; ".join(totals) + f" ({figures['square_degrees']:.0f} square degrees)."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path)
    parser.add_argument("--published", action="store_true", help="a column of the paper's")
    options = parser.parse_args()
    print("\n".join(lines(json.loads(options.json.read_text()), options.published)))


if __name__ == "__main__":
    main()
