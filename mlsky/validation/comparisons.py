"""The comparisons of the table of scores: statistics of generated and true regions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from mlsky.statistics.bandpower import DIRECTIONS
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

__all__ = [
    "COLOURED",
    "MAIN",
    "OTHERS",
    "STATISTICS",
    "Number",
    "Row",
]

LARGE = (300, 700)

MAIN = (700, 8000)  # multipoles


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    statistic
        Name of the statistic, a key of `STATISTICS`.
    fields
        Fields that it is about; a row about kappa alone says nothing of painting.
    tolerance, goal
        Largest deviation to be usable, and to be good.
    mmdl
        The paper's, in words.
    options
        Further arguments of the function.
    """

    statistic: str
    fields: tuple[str, ...]
    tolerance: float
    goal: float
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


OTHERS = ("kappa", "tsz", "cib", "radio")

_Means = Mapping[str, NDArray]


def _words(options: tuple) -> str:
    if options in (MAIN, LARGE):
        return f"l {options[0]}-{options[1]}"
    return ", ".join(f"{x:g}" for x in options)


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


def _conditional_mean(row: Row, measure: Measure, true: _Means, made: _Means) -> Iterator[Number]:
    """Rms of kSZ, or mean of another field, in bins of smoothed kappa."""
    i = 1 + ("ksz", "tsz", "cib").index(row.fields[1])
    edges = ["", *(f"{e:g}" for e in KAPPA_EDGES), ""]
    for b, (lo, hi) in enumerate(pairwise(edges)):
        where = f"kappa {lo}..{hi}" if lo and hi else f"kappa < {hi}" if hi else f"kappa > {lo}"
        pair = [m["conditional"][i, b] / (m["conditional"][0, b] or math.inf) for m in (true, made)]
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
    """Shift of a quantile, relative to its distance from the median of the truth.

    If that distance is zero, as for a mostly empty field, there is nothing to compare.
    """
    i, histogram = FIELDS.index(row.fields[0]), HISTOGRAMS[row.fields[0]]
    middle = float(histogram.quantile(true["histogram"][i], 0.5))
    for fraction in row.options:
        pair = [float(histogram.quantile(m["histogram"][i], fraction)) for m in (true, made)]
        distance = abs(pair[0] - middle)
        shift = pair[1] - pair[0]
        near = distance < 1e-2 * histogram.scale
        yield Number(f"{100 * fraction:g} %", *pair, math.nan if near else shift / distance)


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


def _isotropy(row: Row, measure: Measure, true: _Means, made: _Means) -> Iterator[Number]:
    """Ratio of the power along a direction to that of all directions, relative to the truth."""
    i = FIELDS.index(row.fields[0])
    used = [b for b, _ in _bands(measure, *MAIN)]
    for d, name in enumerate(DIRECTIONS):
        pair = []
        for m in (true, made):
            every = m["power"][i, i, used]
            fraction = m["direction"][i, d, used] / np.where(every > 0, every, math.inf)
            pair.append(float(fraction.mean()))
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


STATISTICS = {
    "power": _power,
    "correlation": _correlation,
    "conditional mean": _conditional_mean,
    "peaks": _peaks,
    "quantiles": _quantiles,
    "counts": _counts,
    "bispectrum": _bispectrum,
    "minkowski": _minkowski,
    "isotropy": _isotropy,
    "edge": _edge,
    "cib bands power": _cib_bands_power,
    "cib bands correlation": _cib_bands_correlation,
    "cib bands cross": _cib_bands_cross,
}

#: Those that need templates of the CIB.
COLOURED = ("cib bands power", "cib bands correlation", "cib bands cross")
