"""Scores of truth against truth: how often a tolerance is missed when nothing is wrong.

    python benchmarks/score_truth.py --data test.h5

Halves of a set are compared as true and generated regions are, in several random divisions.
Every row must pass or be undecided. Divisions of one set share regions, so that the rate of
failures is that of this set, not of all sets.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np

from mlsky import seeds
from mlsky.io.sets import fields_of
from mlsky.validation import scores, table
from mlsky.validation.measure import Measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--divisions", type=int, default=20)
    options = parser.parse_args()
    with fields_of(options.data, scores.FIELDS) as (fields, attributes):
        count, n = fields[0].shape[:2]
        measure = Measure(n, float(attributes["pixel_arcmin"]))
        measured = []
        for i in range(count):
            maps = np.stack([f[i] for f in fields])
            maps[3] = np.maximum(maps[3], 0)
            measured.append(measure(maps, measure.standard(maps)))
    verdicts, failed, distances = Counter(), Counter(), []
    for d in range(options.divisions):
        order = seeds.generator(1, "truth", d).permutation(count)
        half = count // 2
        sides = [
            {name: np.stack([measured[i][name] for i in part]) for name in measured[0]}
            for part in (order[:half], order[half : 2 * half])
        ]
        rows = table.scores(measure, *sides)
        verdicts.update(row["pass"] for row in rows)
        failed.update(row["name"] for row in rows if row["pass"] is False)
        distances.append(table.total(rows)["distance"])
    total = sum(verdicts.values())
    print(f"{count // 2} regions a side, {options.divisions} divisions, {total} rows")
    for verdict, name in ((True, "pass"), (None, "undecided"), (False, "fail")):
        print(f"{name:<10} {verdicts[verdict] / total:.2%}")
    print(f"distance {np.mean(distances):.3f} +- {np.std(distances):.3f}")
    for name, times in failed.most_common():
        print(f"failed {times} times: {name}")


if __name__ == "__main__":
    main()
