"""The table of scores: comparisons with their tolerances and goals.

A row holds one or more numbers, each a deviation of generated from true regions; the worst number
decides. Tolerances and goals are those set for the default weights; ``mmdl`` is the deviation of
the maps of Han, Sehgal & Villaescusa-Navarro (2021), from their figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mlsky.statistics.jackknife import GROUPS, jackknife
from mlsky.validation.comparisons import COLOURED, LARGE, MAIN, OTHERS, STATISTICS, Number, Row
from mlsky.validation.measure import (
    BISPECTRAL,
    FIELDS,
    Measure,
)

__all__ = [
    "JOBS",
    "ROWS",
    "Number",
    "Row",
    "lines",
    "scores",
    "total",
]

#: Jobs: paint a nonlinear kappa, or make everything from a Gaussian one.
JOBS = ("from_kappa", "end_to_end")


#: Bands (GHz) between which the CIB is compared: those of ACT and SO, and of Planck beyond them.
CIB_BANDS = (93.0, 145.0, 225.0, 280.0, 353.0)

FAR_BANDS = (545.0, 857.0)

#: Errors beyond its tolerance at which a number fails. With 2, two of some 480 rows failed when
#: regions were compared with others of the same truth, with 3 one of 3560: means of tSZ dominated
#: by rare clusters, whose scatter a few regions do not show.
SIGNIFICANT = 3.0

WORST = 10.0  # tolerances: a number counts no more than this in the distance


def _each(statistic: str, fields: Sequence, *arguments, **options) -> list[Row]:
    return [
        Row(statistic, (f,) if isinstance(f, str) else tuple(f), *arguments, **options)
        for f in fields
    ]


ROWS: tuple[Row, ...] = (
    *_each("power", ("kappa", "ksz", "cib", "radio"), 0.05, 0.02, "5 %", options=MAIN),
    *_each("power", ("tsz",), 0.10, 0.03, "5 %", options=MAIN),
    *_each("power", ("tsz all",), 0.20, 0.05, "5 %, +30 % at l = 300", options=MAIN),
    *_each("power", ("kappa", "ksz", "radio"), 0.15, 0.05, options=LARGE),
    *_each("power", ("tsz", "tsz all"), 0.15, 0.05, "+30 %", options=LARGE),
    *_each("power", ("cib",), 0.15, 0.05, "+20 %", options=LARGE),
    *_each("correlation", combinations(OTHERS, 2), 0.05, 0.015, "0.02-0.04"),
    *_each("correlation", [(f, "ksz") for f in OTHERS], 0.02, 0.005, "0.2 in its second step"),
    *_each("conditional mean", [("kappa", f) for f in ("ksz", "tsz", "cib")], 0.15, 0.05),
    *_each("peaks", ("kappa",), 0.03, 0.01, options=(0.1, 0.2)),
    *_each("peaks", ("kappa",), 0.25, 0.05, options=(0.35, 0.5)),
    *_each("quantiles", FIELDS, 0.05, 0.02, "10-50 %", options=(0.01, 0.99)),
    *_each("quantiles", FIELDS, 0.10, 0.05, "10-50 %", options=(0.001, 0.999)),
    *_each("counts", ("cib",), 0.10, 0.03, options=(0.5, 1.0)),
    *_each("counts", ("cib",), 0.25, 0.05, options=(2.0,)),
    *_each("counts", ("cib",), 0.50, 0.10, "-60 to -80 %", options=(5.0,)),
    *_each("counts", ("radio",), 0.10, 0.03, "-40 % above 1 mJy", options=(0.5, 1.0, 2.0, 5.0)),
    *_each("bispectrum", BISPECTRAL, 0.30, 0.10, "factor 0.55 to 6.8"),
    *_each("minkowski", FIELDS, 0.10, 0.03, "few %, radio factor 2"),
    *_each("cib bands power", ("cib",), 0.04, 0.02, options=CIB_BANDS),
    *_each("cib bands power", ("cib",), 0.10, 0.03, options=FAR_BANDS),
    *_each("cib bands correlation", ("cib",), 0.003, 0.001, options=CIB_BANDS),
    *_each("cib bands correlation", ("cib",), 0.02, 0.01, options=(145.0, *FAR_BANDS)),
    *_each("cib bands cross", [("kappa", "cib"), ("tsz", "cib")], 0.03, 0.01, options=CIB_BANDS),
    *_each("isotropy", FIELDS, 0.03, 0.01, "comb, -17 %"),
    *_each("edge", FIELDS, 0.03, 0.01),
)


def scores(
    measure: Measure,
    true: Mapping[str, NDArray],
    made: Mapping[str, NDArray],
    job: str = "end_to_end",
    fields: Sequence[str] = FIELDS,
) -> list[dict]:
    """All rows of the table, for regions measured on both sides.

    Parameters
    ----------
    measure
        That they were measured with.
    true, made
        What it gave, by name *(regions, ...)*: of true regions, and of those generated of them.
    job
        "from_kappa" leaves out rows about kappa alone, which the networks were given.
    fields
        Leave out rows about any other field.

    Returns
    -------
    list of dict
        Per row: ``name``, ``statistic``, ``fields``, ``job``, ``tolerance``, ``goal``, ``mmdl``; of
        its worst number ``where``, ``true``, ``generated``, ``value``, ``error``; ``pass``:
        True, False, or None if undecided; ``reached``: whether the goal is; and all ``numbers``.
        What cannot be had is None. Rows of which the truth has nothing to compare are left
        out, such as the 1 % quantile of a field that is mostly zero.
    """
    wanted = {*fields} | ({"tsz all"} if "tsz" in fields else set())
    rows = [
        row
        for row in ROWS
        if set(row.fields) <= wanted
        and not (job == "from_kappa" and set(row.fields) == {"kappa"})
        and (measure.law is not None or row.statistic not in COLOURED)
    ]
    samples = {f"true {k}": v for k, v in true.items()} | {f"made {k}": v for k, v in made.items()}

    def numbers(means: Mapping[str, NDArray]) -> list[list[Number]]:
        sides = _sides(means)
        return [list(STATISTICS[row.statistic](row, measure, *sides)) for row in rows]

    def values(means: Mapping[str, NDArray]) -> NDArray[np.float64]:
        return np.array([n.value for each in numbers(means) for n in each])

    regions = len(next(iter(samples.values())))
    found = numbers({k: np.sum(x, 0, dtype=np.float64) / regions for k, x in samples.items()})
    errors = iter(jackknife(values, samples)[1])
    pairs = [[(n, float(next(errors))) for n in each] for each in found]
    return [
        _row(row, job, each, min(regions, GROUPS))
        for row, each in zip(rows, pairs, strict=True)
        if any(math.isfinite(n.value) for n, _ in each)
    ]


def _sides(means: Mapping[str, NDArray]) -> list[dict[str, NDArray]]:
    return [
        {k.removeprefix(side): v for k, v in means.items() if k.startswith(side)}
        for side in ("true ", "made ")
    ]


def passed(value: float, error: float, tolerance: float, regions: int) -> bool | None:
    """Whether a deviation is below its tolerance; None if that is not known.

    It is not if the error is larger than the tolerance, or if the deviation is beyond it by
    less than `SIGNIFICANT` errors, or as many more as few regions need, whose scatter is not
    well known (Student's t by the approximation of Wallace 1959, Ann. Math. Stat. 30, 1124).
    """
    if not (math.isfinite(value) and math.isfinite(error)):
        return None
    free = regions - 1
    normal = SIGNIFICANT * (8 * free + 3) / (8 * free + 1)
    significant = math.sqrt(free * math.expm1(normal**2 / free))
    if abs(value) - tolerance > significant * error:
        return False
    return True if abs(value) <= tolerance and error <= tolerance else None


def _row(row: Row, job: str, numbers: Sequence[tuple[Number, float]], regions: int) -> dict:
    each = [
        {
            "where": n.where,
            "true": _plain(n.true),
            "generated": _plain(n.made),
            "value": _plain(n.value),
            "error": _plain(error),
            "pass": passed(n.value, error, row.tolerance, regions),
        }
        for n, error in numbers
    ]
    known = [n for n in each if n["value"] is not None]
    nothing = {"where": "", "true": None, "generated": None, "value": None, "error": None}
    failed = [n for n in known if n["pass"] is False]
    # what has surely failed is worse than what may have
    worst = max(failed or known, key=lambda n: abs(n["value"]), default=nothing)
    verdicts = {n["pass"] for n in known}
    verdict = None if not known or None in verdicts else True
    return {
        "name": row.name,
        "statistic": row.statistic,
        "fields": list(row.fields),
        "job": job,
        **{k: worst[k] for k in nothing},
        "tolerance": row.tolerance,
        "goal": row.goal,
        "mmdl": row.mmdl,
        "pass": False if failed else verdict,
        "reached": bool(known) and all(abs(n["value"]) <= row.goal for n in known),
        "numbers": each,
    }


def total(rows: Sequence[dict]) -> dict:
    """One line for all rows.

    Returns
    -------
    dict
        ``met``, ``failed``, ``undecided``: rows; ``distance``: the mean over rows of the mean
        over their numbers of |value| / tolerance, none counted more than `WORST`; lower is better.
        Checkpoints are chosen by it.
    """
    verdicts = [row["pass"] for row in rows]
    distances = []
    for row in rows:
        values = [abs(n["value"]) for n in row["numbers"] if n["value"] is not None]
        if values:
            distances.append(float(np.minimum(np.array(values) / row["tolerance"], WORST).mean()))
    return {
        "rows": len(rows),
        "met": sum(v is True for v in verdicts),
        "failed": sum(v is False for v in verdicts),
        "undecided": sum(v is None for v in verdicts),
        "distance": _plain(float(np.mean(distances))) if distances else None,
    }


def lines(rows: Sequence[dict], every: bool = False) -> Iterator[str]:
    """The rows as text, one number a line; with `every`, all the numbers of each row."""
    words = {True: "pass", False: "FAIL", None: "undecided"}
    yield f"{'':<54}{'worst of its numbers':<22}{'deviation':>20}{'tolerance':>11}{'goal':>7}  mmDL"
    for row in rows:
        # each band of a spectrum is looked at
        listed = row["numbers"] if every or row["statistic"] == "power" else ()
        tail = f"{row['tolerance']:>11g}{row['goal']:>7g}  {row['mmdl']}"
        name = f"{row['job']:<10} {row['name']}"
        head = f"{words[row['pass']]:<10}{name:<44.44}{row['where']:<22}"
        yield f"{head}{_deviation(row)}{tail}".rstrip()
        if len(row["numbers"]) > 1:
            for n in listed:
                yield (
                    f"{'':<10}{'':<7}{_number(n['true']):>14} -> {_number(n['generated']):<19}"
                    f"{n['where']:<22}{_deviation(n)}  {words[n['pass']]}"
                )


def _deviation(row: dict) -> str:
    if row["value"] is None:
        return f"{'-':>20}"
    error = "?" if row["error"] is None else f"{row['error']:.3f}"
    return f"{row['value']:>+11.3f} +- {error:<5}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _plain(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None
