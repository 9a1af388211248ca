"""The table of scores: what is compared, where, how good it must be, how good it should be.

A row holds one or more numbers, each a deviation of generated from true regions; the row is
as good as its worst number. Floors and aims are those set for the default weights; ``mmdl`` is
what is known of the maps of Han, Sehgal & Villaescusa-Navarro (2021), from their figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from mlsky.statistics.bandpower import DIRECTIONS
from mlsky.statistics.jackknife import GROUPS, jackknife
from mlsky.validation.measure import (
    BISPECTRAL,
    FIELDS,
    HISTOGRAMS,
    KAPPA_EDGES,
    PEAKS,
    SPECTRAL,
    THRESHOLDS,
    Measure,
)

__all__ = ["JOBS", "ROWS", "Number", "Row", "lines", "scores", "total"]

#: What networks are asked: to paint a nonlinear kappa, or to make all from a Gaussian one.
JOBS = ("paint", "chain")
MAIN = (700, 8000)  # multipoles
LARGE = (300, 700)
#: Bands (GHz) between which the CIB is compared: those of ACT and SO, and of Planck beyond them.
CIB_BANDS = (93.0, 145.0, 225.0, 280.0, 353.0)
FAR_BANDS = (545.0, 857.0)
#: Errors beyond its floor at which a number has failed. With 2, two of some 480 rows failed when
#: regions were compared with others of the same truth, with 3 one of 3560: means of tSZ that rare
#: clusters rule, whose scatter few regions do not show.
SIGNIFICANT = 3.0
WORST = 10.0  # floors: a number counts no more than this in the distance


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    statistic
        Function of this module, ``_<statistic>``, that gives its numbers.
    fields
        Fields that it is about; a row about kappa alone says nothing of painting.
    floor, aim
        Largest deviation to be usable, and to be good.
    mmdl
        The paper's, in words.
    options
        Further arguments of the function.
    """

    statistic: str
    fields: tuple[str, ...]
    floor: float
    aim: float
    mmdl: str = ""
    options: tuple = ()

    @property
    def name(self) -> str:
        more = "" if not self.options else f" {_words(self.options)}"
        return f"{self.statistic}{more} {' x '.join(self.fields)}"


@dataclass(frozen=True)
class Number:
    """One number of a row: where, what the truth has, what was generated, the deviation."""

    where: str
    true: float
    made: float
    value: float


def _words(options: tuple) -> str:
    if options in (MAIN, LARGE):
        return f"l {options[0]}-{options[1]}"
    return ", ".join(f"{x:g}" for x in options)


def _each(statistic: str, fields: Sequence, *arguments, **options) -> list[Row]:
    return [
        Row(statistic, (f,) if isinstance(f, str) else tuple(f), *arguments, **options)
        for f in fields
    ]


_OTHERS = ("kappa", "tsz", "cib", "radio")
ROWS: tuple[Row, ...] = (
    *_each("power", ("kappa", "ksz", "cib", "radio"), 0.05, 0.02, "5 %", options=MAIN),
    *_each("power", ("tsz",), 0.10, 0.03, "5 %", options=MAIN),
    *_each("power", ("tsz all",), 0.20, 0.05, "5 %, +30 % at l = 300", options=MAIN),
    *_each("power", ("kappa", "ksz", "radio"), 0.15, 0.05, options=LARGE),
    *_each("power", ("tsz", "tsz all"), 0.15, 0.05, "+30 %", options=LARGE),
    *_each("power", ("cib",), 0.15, 0.05, "+20 %", options=LARGE),
    *_each("correlation", combinations(_OTHERS, 2), 0.05, 0.015, "0.02-0.04"),
    *_each("correlation", [(f, "ksz") for f in _OTHERS], 0.02, 0.005, "0.2 in its second step"),
    *_each("given", [("kappa", f) for f in ("ksz", "tsz", "cib")], 0.15, 0.05),
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
    *_each("direction", FIELDS, 0.03, 0.01, "comb, -17 %"),
    *_each("edge", FIELDS, 0.03, 0.01),
)

_Means = Mapping[str, NDArray]


def _ratio(where: str, true: float, made: float) -> Number:
    return Number(where, true, made, made / true - 1 if true else math.nan)


def _bands(measure: Measure, low: float, high: float) -> list[tuple[int, str]]:
    return [
        (b, f"l {lo:g}-{hi:g}")
        for b, (lo, hi) in enumerate(measure.spectra)
        if low <= lo and hi <= high
    ]


def _power(row: Row, measure: Measure, true: _Means, made: _Means) -> Iterator[Number]:
    """Ratio of auto spectra less one, band by band."""
    i = SPECTRAL.index(row.fields[0])
    for b, where in _bands(measure, *row.options):
        yield _ratio(where, true["power"][i, i, b], made["power"][i, i, b])


def _correlation(row: Row, measure: Measure, true: _Means, made: _Means) -> Iterator[Number]:
    """Difference of coefficients; with kSZ, which must have none, the generated coefficient."""
    i, j = (SPECTRAL.index(f) for f in row.fields)
    for b, where in _bands(measure, *MAIN):
        r = [_coefficient(p, i, j, b) for p in (true["power"], made["power"])]
        yield Number(where, *r, r[1] if "ksz" in row.fields else r[1] - r[0])


def _given(row: Row, measure: Measure, true: _Means, made: _Means) -> Iterator[Number]:
    """Rms of kSZ, or mean of another field, in bins of smoothed kappa."""
    i = 1 + ("ksz", "tsz", "cib").index(row.fields[1])
    edges = ["", *(f"{e:g}" for e in KAPPA_EDGES), ""]
    for b, (lo, hi) in enumerate(pairwise(edges)):
        where = f"kappa {lo}..{hi}" if lo and hi else f"kappa < {hi}" if hi else f"kappa > {lo}"
        pair = [m["given"][i, b] / (m["given"][0, b] or math.inf) for m in (true, made)]
        if row.fields[1] == "ksz":
            pair = [math.sqrt(x) for x in pair]
        yield _ratio(where, *pair)


def _peaks(row: Row, measure: Measure, true: _Means, made: _Means) -> Iterator[Number]:
    """Density of peaks of smoothed kappa."""
    for height in row.options:
        i = PEAKS.index(height)
        pair = [m["peaks"][i] / measure.square_degrees for m in (true, made)]
        yield _ratio(f"> {height:g} per deg2", *pair)


def _quantiles(row: Row, measure: Measure, true: _Means, made: _Means) -> Iterator[Number]:
    """Shift of a quantile over its distance from the median of the truth.

    Where that distance is none, as for a field that is mostly zero, there is nothing to compare.
    """
    i, histogram = FIELDS.index(row.fields[0]), HISTOGRAMS[row.fields[0]]
    middle = float(histogram.quantile(true["histogram"][i], 0.5))
    for share in row.options:
        pair = [float(histogram.quantile(m["histogram"][i], share)) for m in (true, made)]
        distance = abs(pair[0] - middle)
        shift = pair[1] - pair[0]
        near = distance < 1e-2 * histogram.scale
        yield Number(f"{100 * share:g} %", *pair, math.nan if near else shift / distance)


def _counts(row: Row, measure: Measure, true: _Means, made: _Means) -> Iterator[Number]:
    """Density of pixels with more flux than a threshold, above the median of the map."""
    i, histogram = FIELDS.index(row.fields[0]), HISTOGRAMS[row.fields[0]]
    for mjy in row.options:
        pair = []
        for m in (true, made):
            counts = m["histogram"][i]
            middle = float(histogram.quantile(counts, 0.5))
            above = histogram.above(counts, middle + mjy / measure.mjy_per_uk)
            pair.append(float(above) / measure.square_degrees)
        yield _ratio(f"> {mjy:g} mJy per deg2", *pair)


def _bispectrum(row: Row, measure: Measure, true: _Means, made: _Means) -> Iterator[Number]:
    """Ratio of equilateral bispectra less one."""
    i = BISPECTRAL.index(row.fields[0])
    for b, ((lo, hi), *_) in enumerate(measure.triangles.triangles):
        yield _ratio(f"l {lo:g}-{hi:g}", true["bispectrum"][i, b], made["bispectrum"][i, b])


def _minkowski(row: Row, measure: Measure, true: _Means, made: _Means) -> Iterator[Number]:
    """Differences of the functionals over the largest of the truth's at any threshold."""
    i = FIELDS.index(row.fields[0])
    for v, name in enumerate(("V0", "V1", "V2")):
        a, b = (m["minkowski"][i, v] for m in (true, made))
        largest = np.abs(a).max() or math.nan
        for t, nu in enumerate(THRESHOLDS):
            yield Number(f"{name} {nu:+g} sigma", a[t], b[t], (b[t] - a[t]) / largest)


def _direction(row: Row, measure: Measure, true: _Means, made: _Means) -> Iterator[Number]:
    """Power along a direction over that of all, over the same of the truth."""
    i = FIELDS.index(row.fields[0])
    used = [b for b, _ in _bands(measure, *MAIN)]
    for d, name in enumerate(DIRECTIONS):
        pair = []
        for m in (true, made):
            every = m["power"][i, i, used]
            share = m["direction"][i, d, used] / np.where(every > 0, every, math.inf)
            pair.append(float(share.mean()))
        yield _ratio(f"along {name}", *pair)


def _edge(row: Row, measure: Measure, true: _Means, made: _Means) -> Iterator[Number]:
    """Mean distance from the mean at the edges of patches over that inside, over the truth's.

    A standard deviation would be that of the few brightest sources or clusters.
    """
    i = FIELDS.index(row.fields[0])
    pair = [float(m["edge"][i, 0] / (m["edge"][i, 1] or math.inf)) for m in (true, made)]
    yield _ratio("edge / inside", *pair)


def _at_bands(measure: Measure, means: _Means, bands: Sequence[float]) -> NDArray[np.float64]:
    """Spectra (2 + bands, 2 + bands, l) of kappa, tSZ and the CIB at bands (GHz), remainder too."""
    law, of = measure.law, means["colours"]
    weights = np.zeros((2 + len(bands), len(of)))
    weights[:2, :2] = np.eye(2)
    weights[2:, 2:] = law.weights(np.array(bands))
    out = np.einsum("ai,bj,ijl->abl", weights, weights, of)
    nu = np.array(bands)
    out[2:, 2:] += law.remainder_covariance(nu[:, None], nu)[..., None]
    return out


def _cib_bands_power(row: Row, measure: Measure, true: _Means, made: _Means) -> Iterator[Number]:
    """Ratio of auto spectra of the CIB less one, at each band."""
    true, made = (_at_bands(measure, m, row.options) for m in (true, made))
    for i, nu in enumerate(row.options, 2):
        for b, where in _bands(measure, *MAIN):
            yield _ratio(f"{nu:g} GHz {where}", true[i, i, b], made[i, i, b])


def _cib_bands_correlation(
    row: Row, measure: Measure, true: _Means, made: _Means
) -> Iterator[Number]:
    """Difference of the coefficients of the CIB at two bands, all pairs."""
    true, made = (_at_bands(measure, m, row.options) for m in (true, made))
    for i, j in combinations(range(len(row.options)), 2):
        pair = f"{row.options[i]:g} x {row.options[j]:g}"
        for b, where in _bands(measure, *MAIN):
            r = [_coefficient(p, i + 2, j + 2, b) for p in (true, made)]
            yield Number(f"{pair} {where}", *r, r[1] - r[0])


def _cib_bands_cross(row: Row, measure: Measure, true: _Means, made: _Means) -> Iterator[Number]:
    """Difference of the coefficients of kappa or tSZ with the CIB at each band."""
    i = ("kappa", "tsz").index(row.fields[0])
    true, made = (_at_bands(measure, m, row.options) for m in (true, made))
    for j, nu in enumerate(row.options, 2):
        for b, where in _bands(measure, *MAIN):
            r = [_coefficient(p, i, j, b) for p in (true, made)]
            yield Number(f"{nu:g} GHz {where}", *r, r[1] - r[0])


def _coefficient(power: NDArray, i: int, j: int, b: int) -> float:
    scale = math.sqrt(power[i, i, b] * power[j, j, b])
    return float(power[i, j, b] / scale) if scale else 0.0


_STATISTICS = {
    "power": _power,
    "correlation": _correlation,
    "given": _given,
    "peaks": _peaks,
    "quantiles": _quantiles,
    "counts": _counts,
    "bispectrum": _bispectrum,
    "minkowski": _minkowski,
    "direction": _direction,
    "edge": _edge,
    "cib bands power": _cib_bands_power,
    "cib bands correlation": _cib_bands_correlation,
    "cib bands cross": _cib_bands_cross,
}
#: Those that need templates of the CIB.
_COLOURED = ("cib bands power", "cib bands correlation", "cib bands cross")


def scores(
    measure: Measure,
    true: Mapping[str, NDArray],
    made: Mapping[str, NDArray],
    job: str = "chain",
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
        "paint" leaves out what is about kappa alone, which was given.
    fields
        Leave out rows about any other field.

    Returns
    -------
    list of dict
        Per row: ``name``, ``statistic``, ``fields``, ``job``, ``floor``, ``aim``, ``mmdl``; of
        its worst number ``where``, ``true``, ``generated``, ``value``, ``error``; ``pass``:
        True, False, or None if undecided; ``reached``: whether the aim is; and all ``numbers``.
        What cannot be had is None. Rows of which the truth has nothing to compare are left
        out, such as the 1 % quantile of a field that is mostly zero.
    """
    wanted = {*fields} | ({"tsz all"} if "tsz" in fields else set())
    rows = [
        row
        for row in ROWS
        if set(row.fields) <= wanted
        and not (job == "paint" and set(row.fields) == {"kappa"})
        and (measure.law is not None or row.statistic not in _COLOURED)
    ]
    samples = {f"true {k}": v for k, v in true.items()} | {f"made {k}": v for k, v in made.items()}

    def numbers(means: Mapping[str, NDArray]) -> list[list[Number]]:
        sides = _sides(means)
        return [list(_STATISTICS[row.statistic](row, measure, *sides)) for row in rows]

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


def passed(value: float, error: float, floor: float, regions: int) -> bool | None:
    """Whether a deviation is below its floor; None if that is not known.

    It is not if the error is larger than the floor, or if the deviation is beyond the floor by
    less than `SIGNIFICANT` errors, or as many more as few regions need, whose scatter is not
    well known (Student's t by the approximation of Wallace 1959, Ann. Math. Stat. 30, 1124).
    """
    if not (math.isfinite(value) and math.isfinite(error)):
        return None
    free = regions - 1
    normal = SIGNIFICANT * (8 * free + 3) / (8 * free + 1)
    significant = math.sqrt(free * math.expm1(normal**2 / free))
    if abs(value) - floor > significant * error:
        return False
    return True if abs(value) <= floor and error <= floor else None


def _row(row: Row, job: str, numbers: Sequence[tuple[Number, float]], regions: int) -> dict:
    each = [
        {
            "where": n.where,
            "true": _plain(n.true),
            "generated": _plain(n.made),
            "value": _plain(n.value),
            "error": _plain(error),
            "pass": passed(n.value, error, row.floor, regions),
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
        "floor": row.floor,
        "aim": row.aim,
        "mmdl": row.mmdl,
        "pass": False if failed else verdict,
        "reached": bool(known) and all(abs(n["value"]) <= row.aim for n in known),
        "numbers": each,
    }


def total(rows: Sequence[dict]) -> dict:
    """One line for all rows.

    Returns
    -------
    dict
        ``met``, ``failed``, ``undecided``: rows; ``distance``: the mean over rows of the mean
        over their numbers of |value| / floor, none counted more than `WORST`; lower is better.
        Checkpoints are chosen by it.
    """
    verdicts = [row["pass"] for row in rows]
    distances = []
    for row in rows:
        values = [abs(n["value"]) for n in row["numbers"] if n["value"] is not None]
        if values:
            distances.append(float(np.minimum(np.array(values) / row["floor"], WORST).mean()))
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
    yield f"{'':<54}{'worst of its numbers':<22}{'deviation':>20}{'floor':>7}{'aim':>7}  mmDL"
    for row in rows:
        # each band of a spectrum is looked at
        listed = row["numbers"] if every or row["statistic"] == "power" else ()
        tail = f"{row['floor']:>7g}{row['aim']:>7g}  {row['mmdl']}"
        name = f"{row['job']:<6} {row['name']}"
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
