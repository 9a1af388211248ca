"""A painted training set against the analytic model that it was painted from.

One pass over the regions, one in memory at a time. Regions are periodic, so their Fourier
modes need no window; errors are those of the mean over regions.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mlsky import bands
from mlsky.components import REFERENCE_GHZ
from mlsky.datasets import tables as painter_tables
from mlsky.scaling import tsz
from mlsky.sources import counts
from mlsky.training.data import fields_of

__all__ = ["FIELDS", "SPECTRA", "check", "lines", "region"]

FIELDS = ("kappa", "ksz", "tsz", "cib", "radio")
EDGES = (200, 500, 1000, 1500, 2000, 2500, 3500, 4500, 5200, 6000, 7500, 9000, 12000, 16000, 20000)
#: Two fields and their analytic spectrum in the tables; tSZ is in units of y there.
SPECTRA = {
    "kappa x kappa": ("kappa", "kappa", "kk"),
    "ksz x ksz": ("ksz", "ksz", "ksz"),
    "tsz x tsz": ("tsz", "tsz", "yy"),
    "cib x cib": ("cib", "cib", "cc"),
    "kappa x tsz": ("kappa", "tsz", "ky"),
    "kappa x cib": ("kappa", "cib", "kc"),
    "tsz x cib": ("tsz", "cib", "yc"),
    "radio x radio": ("radio", "radio", None),
}
RADIO_MAX_MJY = 7.0  # the painter leaves brighter radio sources out of its maps
TSZ_CLIP = -40.0  # uK: also shown is tSZ cut here, without the rare clusters
ACCURACY, ELL_ACCURATE = 0.03, (500, 9000)  # what painting is to reach, and where
BAND_3000 = (2500, 3500)
COUNTS_MJY = (1.0, 2.0, 5.0)
KAPPA_BINS = (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0)  # in standard deviations of kappa
HISTOGRAM_BINS = 160
#: Best fit of ACT DR6 at l = 3000 (uK^2; Louis et al. 2025, arXiv:2503.14452), its 150 GHz
#: amplitudes taken to 148 GHz by their own laws; CIB is clustered plus Poisson.
ACT_DR6_D3000 = {"ksz": 0.987, "tsz": 3.69, "cib": 10.72, "radio": 3.02}
ACT_CUT_MJY = 15.0  # of its radio sources

NOTES = {
    "tsz x tsz": "rare clusters rule it: even 1000 square degrees tell it to 5-10 % only, and the "
    "error is itself unsure",
    "kappa x tsz": "feels rare clusters, most below l = 2000",
    "tsz x cib": "feels rare clusters, most below l = 2000",
    "radio x radio": f"over the Poisson level of the counts below {RADIO_MAX_MJY:g} mJy; sources "
    "that share a host add to it on all scales",
}


def check(
    path: str | os.PathLike,
    tables: str | os.PathLike | None = None,
    regions: int | None = None,
    progress: bool = True,
) -> dict:
    """Measure a painted set and compare it with its analytic model.

    Parameters
    ----------
    path
        Set that `mlsky.datasets.painted.paint` wrote.
    tables
        Tables that it was painted from; the shipped ones by default.
    regions
        Use so many; all by default.
    progress
        Whether to show a bar.

    Returns
    -------
    dict
        ``spectra``: per pair the measured and analytic C_l of each band of ``ell``, their ratio
        with its error, and whether all bands are accurate; ``d3000`` against ACT DR6 (uK^2);
        ``correlation`` of kappa with kSZ; ``ksz_rms`` by kappa; the ``heaviest`` region;
        ``counts`` per square degree; ``histograms`` of the pixels. Figures that cannot be had
        are None.

    Raises
    ------
    ValueError
        If the set cannot be read, was not painted from the tables, or `regions` < 1.
    """
    if regions is not None and regions < 1:
        raise ValueError(f"regions={regions}: must be at least 1")
    data, attributes = fields_of(path, FIELDS)
    with data[0].file:
        t = _tables_of(path, attributes, tables)
        pixel_arcmin, (total, n) = float(attributes["pixel_arcmin"]), data[0].shape[:2]
        used = total if regions is None else min(regions, total)
        sums = _Sums(n, pixel_arcmin)
        for i in _bar(used, progress, f"checking {os.path.basename(path)}"):
            sums.add(np.stack([f[i] for f in data]).astype(np.float64))
    spectra = _spectra(sums, t)
    return {
        "regions": used,
        "square_degrees": _round(used * (n * pixel_arcmin / 60) ** 2),
        "pixel_arcmin": pixel_arcmin,
        "cosmology": t["header"]["cosmology"],
        "ell": [[int(a), int(b)] for a, b in sums.edges],
        "spectra": spectra,
        "d3000": _d3000(sums, t, spectra),
        "correlation": _correlation(sums),
        "ksz_rms": _ksz_rms(sums),
        "heaviest": _heaviest(sums),
        "counts": _counts(sums, t, used * (n * pixel_arcmin / 60) ** 2),
        "histograms": {
            name: {"from": lo, "to": hi, "pixels": row.astype(int).tolist()}
            for name, (lo, hi), row in zip(FIELDS, sums.ranges, sums.histograms, strict=True)
        },
    }


def region(path: str | os.PathLike, index: int = 0) -> NDArray[np.float32]:
    """Maps of one region, (fields, n, n) in the order of `FIELDS`."""
    data, _ = fields_of(path, FIELDS)
    with data[0].file:
        return np.stack([field[index] for field in data])


def _bar(total: int, progress: bool, title: str):
    from tqdm import tqdm

    return tqdm(range(total), disable=not progress, desc=title)


def _tables_of(path, attributes: dict, tables) -> dict:
    """The tables, if they are those in the header of the set."""
    try:
        header = json.loads(attributes["source"])
        header["format"], header["cosmology"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{path}: does not say from which tables it was painted; only sets that `mlsky data "
            "paint` made have an analytic model to be checked against"
        ) from None
    t = painter_tables.load(tables)
    which = "the shipped tables" if tables is None else f"{tables}"
    differ = [k for k in sorted({*header, *t["header"]}) if header.get(k) != t["header"].get(k)]
    if differ:
        raise ValueError(
            f"{path}: was painted from other tables than {which} ({', '.join(differ)} differ); "
            "name those with --tables FILE, or paint it anew"
        )
    return t


class _Sums:
    """What is gathered region by region.

    Parameters
    ----------
    n, pixel_arcmin
        Pixels along a side, and their size.
    """

    def __init__(self, n: int, pixel_arcmin: float) -> None:
        self.n, self.pixel = n, math.radians(pixel_arcmin / 60)
        ell = np.hypot(
            2 * np.pi * np.fft.fftfreq(n, self.pixel)[:, None],
            2 * np.pi * np.fft.rfftfreq(n, self.pixel)[None],
        )
        weight = np.full(ell.shape, 2.0)  # the half plane stands for its conjugates
        weight[:, [0, -1]] = 1
        self.edges, self.bands = [], []
        for lo, hi in pairwise(EDGES):
            inside = np.flatnonzero((ell.ravel() >= lo) & (ell.ravel() < hi))
            if len(inside) and hi <= math.pi / self.pixel:
                w = weight.ravel()[inside]
                self.edges.append((lo, hi))
                self.bands.append((inside, ell.ravel()[inside], w / w.sum()))
        #: per uK of a pixel
        self.mjy = 1e3 * float(bands.jy_per_sr_per_uk(REFERENCE_GHZ)) * self.pixel**2
        self.powers, self.clipped = [], []
        self.ranges: list[tuple[float, float]] = []
        self.histograms = np.zeros((len(FIELDS), HISTOGRAM_BINS))
        self.above = np.zeros((2, len(COUNTS_MJY)))
        self.tsz: list[tuple[float, float]] = []  # deepest pixel and variance of each region
        self.ksz_by_kappa = np.zeros((2, len(KAPPA_BINS) + 1))

    def add(self, maps: NDArray[np.float64]) -> None:
        """Take in one region (fields, n, n)."""
        if not self.ranges:
            self._choose_ranges(maps)
        modes = [self._modes(m) for m in maps]
        self.powers.append(
            [
                self._power(modes[FIELDS.index(a)], modes[FIELDS.index(b)])
                for a, b in [*((a, b) for a, b, _ in SPECTRA.values()), ("kappa", "ksz")]
            ]
        )
        clipped = self._modes(np.maximum(maps[FIELDS.index("tsz")], TSZ_CLIP))
        self.clipped.append(self._power(clipped, clipped))
        for row, m, (lo, hi) in zip(self.histograms, maps, self.ranges, strict=True):
            row += np.histogram(np.clip(m, lo, hi), HISTOGRAM_BINS, (lo, hi))[0]
        for row, name in zip(self.above, ("radio", "cib"), strict=True):
            m = maps[FIELDS.index(name)] * self.mjy
            # the CIB's sources stand on a background
            m = m - (np.median(m) if name == "cib" else 0)
            row += [(m >= s).sum() for s in COUNTS_MJY]
        m = maps[FIELDS.index("tsz")]
        self.tsz.append((float(m.min()), float(m.var())))
        kappa, ksz = maps[0].ravel(), maps[1].ravel()
        where = np.digitize(kappa / self.kappa_std, KAPPA_BINS)
        for row, weights in zip(self.ksz_by_kappa, (np.ones_like(ksz), ksz**2), strict=True):
            row += np.bincount(where, weights, len(KAPPA_BINS) + 1)

    def _choose_ranges(self, maps: NDArray[np.float64]) -> None:
        """Ranges of the histograms and the width of kappa, from the first region."""
        self.kappa_std = float(maps[0].std()) or 1.0
        for m in maps:
            lo, hi = float(m.min()), float(m.max())
            self.ranges.append((lo, hi if hi > lo else lo + 1))

    def _modes(self, m: NDArray[np.float64]) -> NDArray[np.complex128]:
        return np.fft.rfft2(m - m.mean()).ravel() * (self.pixel / self.n)

    def _power(self, a: NDArray, b: NDArray) -> list[float]:
        product = (a * b.conj()).real
        return [float(product[inside] @ w) for inside, _, w in self.bands]

    def mean_and_error(self, values: NDArray) -> tuple[NDArray, NDArray]:
        """Over regions; the error of a single one is not known (NaN)."""
        number = len(values)
        if number == 1:
            return values[0], np.full_like(values[0], np.nan)
        return values.mean(0), values.std(0, ddof=1) / math.sqrt(number)

    def binned(self, t: dict, cl: NDArray) -> NDArray[np.float64]:
        """Band means of a spectrum of the tables."""
        grid = np.log(t["ell"])
        return np.array([np.interp(np.log(ell), grid, cl) @ w for _, ell, w in self.bands])


def _radio_poisson(t: dict, cut_mjy: float) -> float:
    """C_l (uK^2) of the counts of radio sources fainter than a flux."""
    log_s = np.linspace(np.log(counts.FLUX_MIN_MJY * 1e-3), np.log(cut_mjy * 1e-3), 2000)
    flux = np.exp(log_s)
    power = np.trapezoid(flux**3 * counts.radio_counts(flux), log_s)
    return float(power * t["uk_per_jy_sr"] ** 2)


def _analytic(t: dict, name: str) -> NDArray[np.float64]:
    """Analytic C_l on the multipoles of the tables, of maps in uK and dimensionless kappa."""
    spectrum = SPECTRA[name][2]
    if spectrum is None:
        return np.full(len(t["ell"]), _radio_poisson(t, RADIO_MAX_MJY))
    return t[f"analytic_{spectrum}"] * float(tsz.uk_per_y(REFERENCE_GHZ)) ** spectrum.count("y")


def _spectra(sums: _Sums, t: dict) -> dict:
    from scipy.stats import norm
    from scipy.stats import t as student

    powers = np.array(sums.powers)
    number = len(powers)
    # three standard errors, widened for few regions, whose scatter is not well known
    three = student.ppf(norm.cdf(3), number - 1) if number > 1 else math.nan
    out = {}
    for i, name in enumerate(SPECTRA):
        analytic = sums.binned(t, _analytic(t, name))
        mean, error = sums.mean_and_error(powers[:, i])
        ratio, error = mean / analytic, np.abs(error / analytic)
        inside = [ELL_ACCURATE[0] <= a and b <= ELL_ACCURATE[1] for a, b in sums.edges]
        far = np.abs(ratio - 1) > np.maximum(ACCURACY, three * error)
        out[name] = {
            "measured": _rounds(mean),
            "analytic": _rounds(analytic),
            "ratio": _rounds(ratio),
            "error": _rounds(error),
            "accurate": bool(not np.any(far & inside)) if number > 1 and any(inside) else None,
            "note": NOTES.get(name, ""),
        }
    return out


def _d3000(sums: _Sums, t: dict, spectra: dict) -> dict:
    """D_l at l = 3000 (uK^2): the analytic one times the ratio in the band around it."""
    act = dict(ACT_DR6_D3000)
    act["radio"] *= _radio_poisson(t, RADIO_MAX_MJY) / _radio_poisson(t, ACT_CUT_MJY)
    band = sums.edges.index(BAND_3000) if BAND_3000 in sums.edges else None
    out = {}
    for name in ("ksz", "tsz", "cib", "radio"):
        pair = f"{name} x {name}"
        cl = np.interp(np.log(3000), np.log(t["ell"]), _analytic(t, pair))
        analytic = 3000 * 3001 / (2 * np.pi) * cl
        row = {"act_dr6": _round(act[name]), "analytic": _round(analytic)}
        row["measured"] = row["error"] = None
        if band is not None:
            row["measured"] = _round(analytic * spectra[pair]["ratio"][band])
            error = spectra[pair]["error"][band]
            row["error"] = None if error is None else _round(analytic * error)
        out[name] = row
    if band is not None:
        mean, error = sums.mean_and_error(np.array(sums.clipped))
        per_cl = 3000 * 3001 / (2 * np.pi)
        out["tsz_clipped"] = {
            "act_dr6": None,
            "analytic": None,
            "measured": _round(per_cl * mean[band]),
            "error": _round(per_cl * error[band]),
        }
    return out


def _correlation(sums: _Sums) -> dict:
    """Coefficient of kappa with kSZ by band: velocities have no sign, so it must vanish."""
    powers = np.array(sums.powers)
    names = list(SPECTRA)
    scale = np.sqrt(
        powers[:, names.index("kappa x kappa")].mean(0)
        * powers[:, names.index("ksz x ksz")].mean(0)
    )
    mean, error = sums.mean_and_error(powers[:, -1] / scale)
    return {"value": _rounds(mean), "error": _rounds(error)}


def _ksz_rms(sums: _Sums) -> list[dict]:
    """Rms of kSZ (uK) where kappa is in each bin of its standard deviation."""
    pixels, squares = sums.ksz_by_kappa
    edges = [None, *KAPPA_BINS, None]
    return [
        {"from": lo, "to": hi, "pixels": int(m), "rms": _round(math.sqrt(s / m)) if m else None}
        for (lo, hi), m, s in zip(pairwise(edges), pixels, squares, strict=True)
    ]


def _heaviest(sums: _Sums) -> dict:
    """The region of most tSZ variance: rare clusters can rule a whole set."""
    variance = np.array([v for _, v in sums.tsz])
    i = int(variance.argmax())
    share = variance[i] / variance.sum() if variance[i] else 0.0
    return {"region": i, "deepest": _round(sums.tsz[i][0]), "share": _round(share)}


def _counts(sums: _Sums, t: dict, area: float) -> dict:
    """Pixels per square degree that hold more than a flux, and sources of the model that do."""
    per_degree = math.radians(1) ** 2
    radio = []
    for low in COUNTS_MJY:
        log_s = np.linspace(np.log(low * 1e-3), np.log(RADIO_MAX_MJY * 1e-3), 500)
        number = np.trapezoid(np.exp(log_s) * counts.radio_counts(np.exp(log_s)), log_s)
        radio.append(number * per_degree)
    dusty = _dusty_above(t, np.array(COUNTS_MJY)) * per_degree
    return {
        name: {
            f"{s:g} mJy": {"pixels": _round(m / area), "sources": _round(e)}
            for s, m, e in zip(COUNTS_MJY, row, expected, strict=True)
        }
        for name, row, expected in zip(("radio", "dusty"), sums.above, (radio, dusty), strict=True)
    }


def _dusty_above(t: dict, flux_mjy: NDArray) -> NDArray[np.float64]:
    """Infrared galaxies per steradian between a flux and the flux cut of the tables."""
    from scipy.special import ndtr

    scatter, uk = float(t["scatter"]), float(t["uk_per_jy_sr"])

    def share(mean_uk_sr, low):
        """Of lognormal fluxes of this mean, between `low` (uK sr) and the cut."""
        log_mean = np.log(np.maximum(mean_uk_sr, 1e-30))
        above = [
            ndtr((log_mean - math.log(s)) / scatter - scatter / 2)
            for s in (low, float(t["flux_cut_uk_sr"]))
        ]
        return above[0] - above[1]

    out = []
    for low in np.asarray(flux_mjy) * 1e-3 * uk:
        central = share(t["central_uk_sr"].astype(float), low)
        by_sub = share(t["satellite_uk_sr"].astype(float), low)
        satellites = by_sub[:, t["satellite_inverse"].astype(int)].mean(2)
        out.append((t["number"] * (central + t["satellite_number"] * satellites)).sum())
    return np.array(out)


def lines(figures: dict) -> Iterator[str]:
    """The figures of `check` as a table, line by line."""
    yield (
        f"{figures['regions']} regions, {figures['square_degrees']:g} square degrees of "
        f"{figures['pixel_arcmin']:g}' pixels"
    )
    names = [f"{a}-{b}" for a, b in figures["ell"]]
    yield ""
    yield "measured / analytic"
    heads = list(SPECTRA)
    yield f"{'l':<12}" + "".join(f"{name:>16}" for name in heads)
    for i, band in enumerate(names):
        rows = [figures["spectra"][name] for name in heads]
        cells = [_with_error(row["ratio"][i], row["error"][i]) for row in rows]
        yield f"{band:<12}" + "".join(f"{cell:>16}" for cell in cells)
    words = {True: "yes", False: "NO", None: "-"}
    good = (words[figures["spectra"][name]["accurate"]] for name in heads)
    yield f"{'accurate':<12}" + "".join(f"{word:>16}" for word in good)
    lo, hi = ELL_ACCURATE
    yield f"accurate: within {ACCURACY:.0%} or three errors in every band of {lo} < l < {hi}"
    for name in heads:
        if figures["spectra"][name]["note"]:
            yield f"{name}: {figures['spectra'][name]['note']}"
    yield ""
    yield f"D_3000 at {REFERENCE_GHZ:g} GHz, uK^2       measured        analytic   ACT DR6"
    for name, row in figures["d3000"].items():
        title = f"tsz cut at {TSZ_CLIP:g} uK" if name == "tsz_clipped" else name
        yield (
            f"{title:<22}{_with_error(row['measured'], row['error']):>20}"
            f"{_number(row['analytic']):>16}{_number(row['act_dr6']):>10}"
        )
    yield (
        f"ACT masks radio sources at {ACT_CUT_MJY:g} mJy: its power is taken to "
        f"{RADIO_MAX_MJY:g} mJy by the counts"
    )
    yield ""
    cells = [
        f"{a}: {_with_error(v, e)}"
        for a, v, e in zip(names, *figures["correlation"].values(), strict=True)
    ]
    yield f"correlation of kappa with kSZ: {', '.join(cells)}"
    cells = [f"{_bin(row)}: {_number(row['rms'])}" for row in figures["ksz_rms"]]
    yield f"rms of kSZ (uK) by kappa in standard deviations: {', '.join(cells)}"
    row = figures["heaviest"]
    yield (
        f"most tSZ: region {row['region']}, down to {row['deepest']:g} uK, holds "
        f"{row['share']:.1%} of the variance of all regions"
    )
    for name, rows in figures["counts"].items():
        cells = [f">{s}: {r['pixels']:g} ({r['sources']:g})" for s, r in rows.items()]
        yield f"{name}, pixels (sources of the model) per square degree: {', '.join(cells)}"
    yield "the coarser the pixels, the more of them pass a flux with several faint sources"


def _bin(row: dict) -> str:
    if row["from"] is None:
        return f"<{row['to']:g}"
    return f">{row['from']:g}" if row["to"] is None else f"{row['from']:g}..{row['to']:g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if error is None else f"{value:.3f} +- {error:.3f}"


def _round(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _rounds(values: NDArray) -> list[float | None]:
    return [_round(v) for v in values]
