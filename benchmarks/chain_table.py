"""The tables of docs/paper_chain, of what ``mlsky validate-chain --json`` wrote.

    mlsky validate-chain runs/han2021 --data test.h5 --json steps.json
    python benchmarks/chain_table.py steps.json [--keep FILE]

Prints the worst band or quantile of each step, and the power of the last one by multipole.
``--keep`` writes the few numbers that the tables are made of.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

STAGES = ("drawn", "painted", "painted from Gaussian kappa", "chain")
HEADS = ("drawn", "painted", "from Gaussian", "chain")
#: Rows: how `mlsky.training.chain_scores` and the page call them, and what is wanted.
ROWS = (
    ("power of kappa", "power of kappa", "within a factor 1.5"),
    ("power of ksz", "power of kSZ", "within a factor 1.5"),
    ("power of tsz", "power of tSZ, clipped", "within a factor 2"),
    ("power of cib", "power of CIB", "within a factor 1.5"),
    ("power of radio", "power of radio", "within a factor 1.5"),
    ("correlation of kappa and ksz", r"\|r(kappa, kSZ)\|", "< 0.1"),
    ("quantiles of kappa", "quantiles 1 %, 99 % of kappa", "within 15 %"),
    ("quantiles of ksz", "quantiles of kSZ", "within 15 %"),
    ("quantiles of tsz", "quantiles of tSZ", "within 15 %"),
    ("quantiles of cib", "quantiles of CIB", "within 15 %"),
    ("same in all patches of kappa", "kappa, the same in all", "< 0.01"),
    ("same in all patches of ksz", "kSZ, the same in all", "< 0.01"),
    ("same in all patches of tsz", "tSZ, the same in all", "< 0.01"),
    ("same in all patches of cib", "CIB, the same in all", "< 0.01"),
)
FIELDS = {"kappa": "kappa", "ksz": "kSZ", "tsz": "tSZ, clipped", "cib": "CIB", "radio": "radio"}


def kept(found: dict) -> dict:
    """Of scores, what the tables show."""
    return {
        stage: {
            "steps": scored["steps"],
            "total": {key: scored["total"][key] for key in ("rows", "met", "distance")},
            "summary": {key: row["value"] for key, row in scored["summary"].items()},
            "power": _bands(scored["rows"]) if stage == "chain" else {},
        }
        for stage, scored in found.items()
    }


def _bands(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Generated over true power by field and multipoles; of tSZ, of clipped maps."""
    powers: dict[str, dict[str, float]] = {}
    for row in rows:
        (field, *_) = row["fields"]
        if row["statistic"] == "power" and field in FIELDS and not row["name"].endswith(" all"):
            for n in row["numbers"]:
                powers.setdefault(field, {})[n["where"]] = n["generated"] / n["true"]
    return powers


def cell(key: str, value: float) -> str:
    """A number as the page writes it."""
    if key.startswith("quantiles"):
        return f"{100 * value:.0f} %"
    if key.startswith("same"):
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    return f"{value:.2f}" if abs(value) >= 0.05 else f"{value:.3f}"


def steps_table(numbers: dict) -> Iterator[list[str]]:
    """Cells of the table of the steps."""
    yield ["worst band or quantile", "aim", *HEADS]
    for key, name, aim in ROWS:
        # PIXGAN is given its kappa
        cells = [
            cell(key, numbers[stage]["summary"][key])
            if not (stage.startswith("painted") and key.endswith("kappa"))
            else "given"
            for stage in STAGES
        ]
        yield [name, aim, *cells]
    totals = [numbers[stage]["total"] for stage in STAGES]
    yield [
        "tolerances met, distance",
        "all, 0",
        *(f"{total['met']}, {total['distance']:.2f}" for total in totals),
    ]
    yield ["steps of the network", "", *(str(numbers[stage]["steps"]) for stage in STAGES)]


def bands_table(numbers: dict) -> Iterator[list[str]]:
    """Cells of the table of the power of the chain by multipole."""
    powers = numbers["chain"]["power"]
    # bands of one field may come from two rows, with the largest scales last
    bands = sorted(powers["ksz"], key=lambda where: int(where.split()[-1].partition("-")[0]))
    yield ["l", *(where.split()[-1] for where in bands)]
    for field, name in FIELDS.items():
        yield [name, *(f"{powers[field][where]:.2f}" for where in bands)]


def table(rows: list[list[str]]) -> str:
    """reStructuredText of cells; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    bar = " ".join("=" * width for width in widths)
    lines = [" ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([bar, lines[0], bar, *lines[1:], bar])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", type=Path)
    parser.add_argument("--keep", type=Path, help="write the numbers of the tables here")
    options = parser.parse_args()
    numbers = kept(json.loads(options.json.read_text()))
    print(table([*steps_table(numbers)]), table([*bands_table(numbers)]), sep="\n\n")
    if options.keep:
        options.keep.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
