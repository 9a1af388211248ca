"""Sums over the regions of a painted set: band powers, histograms, counts.

Regions are periodic, so their Fourier modes need no window; errors are those of the mean over
regions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mlsky.components import REFERENCE_GHZ
from mlsky.frequency import bands

__all__ = [
    "ACCURACY",
    "BAND_3000",
    "COUNTS_MJY",
    "EDGES",
    "ELL_ACCURATE",
    "FIELDS",
    "HISTOGRAM_BINS",
    "KAPPA_BINS",
    "SPECTRA",
    "Sums",
    "compare",
    "rounded",
    "rounds",
]

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
ACCURACY, ELL_ACCURATE = 0.03, (500, 9000)  # what painting is to reach, and where
BAND_3000 = (2500, 3500)
COUNTS_MJY = (1.0, 2.0, 5.0)
KAPPA_BINS = (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0)  # in standard deviations of kappa
HISTOGRAM_BINS = 160


class Sums:
    """Sums that are accumulated region by region.

    Parameters
    ----------
    n, pixel_arcmin
        Pixels along a side, and their size.
    names
        Of the maps of a region: `FIELDS`, then CIB and radio at each further frequency, then
        `FIELDS` of its objects, as ``objects_kappa``, if they are apart, and the CIB made from
        templates, as ``made_93``, if it can be.
    """

    def __init__(self, n: int, pixel_arcmin: float, names: Sequence[str] = FIELDS) -> None:
        self.n, self.pixel, self.names = n, math.radians(pixel_arcmin / 60), list(names)
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
        self.inside = np.concatenate([inside for inside, _, _ in self.bands])
        self.root = np.sqrt(np.concatenate([w for _, _, w in self.bands]))
        sizes = [len(inside) for inside, _, _ in self.bands]
        self.starts = np.cumsum([0, *sizes[:-1]])
        #: modes of each band
        self.modes = np.array([weight.ravel()[inside].sum() for inside, _, _ in self.bands])
        cibs = [m for m in self.names if m.startswith("cib_")]
        radios = [m for m in self.names if m.startswith("radio_")]
        self.pairs = [(a, b) for a, b, _ in SPECTRA.values()]
        self.pairs += [("kappa", "ksz"), *itertools.combinations_with_replacement(cibs, 2)]
        self.pairs += [(m, m) for m in radios]
        made = [m for m in self.names if m.startswith("made_")]
        if made:
            self.pairs += itertools.combinations_with_replacement(made, 2)
            self.pairs += itertools.product(("kappa", "tsz"), (*made, *cibs))
        self.apart = [m for m in FIELDS if f"objects_{m}" in self.names]
        if self.apart:
            for one, other in itertools.product(("objects", "rest"), repeat=2):
                self.pairs += [(f"{one}_{a}", f"{other}_{b}") for a, b, _ in SPECTRA.values()]
        #: per uK of a pixel
        self.mjy = 1e3 * float(bands.jy_per_sr_per_uk(REFERENCE_GHZ)) * self.pixel**2
        self.powers: list[list[NDArray]] = []
        self.ranges: list[tuple[float, float]] = []
        self.histograms = np.zeros((len(FIELDS), HISTOGRAM_BINS))
        self.above = np.zeros((2, len(COUNTS_MJY)))
        self.tsz: list[tuple[float, float]] = []  # deepest pixel and variance of each region
        self.ksz_by_kappa = np.zeros((2, len(KAPPA_BINS) + 1))

    def add(self, maps: NDArray[np.float64]) -> None:
        """Take in one region (names, n, n)."""
        if not self.ranges:
            self._choose_ranges(maps)
        modes = dict(zip(self.names, map(self._modes, maps), strict=True))
        for name in self.apart:
            modes[f"rest_{name}"] = modes[name] - modes[f"objects_{name}"]
        self.powers.append([self._power(modes[a], modes[b]) for a, b in self.pairs])
        for row, m, (lo, hi) in zip(self.histograms, maps, self.ranges, strict=False):
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
        for m in maps[: len(FIELDS)]:
            lo, hi = float(m.min()), float(m.max())
            self.ranges.append((lo, hi if hi > lo else lo + 1))

    def _modes(self, m: NDArray[np.float64]) -> NDArray[np.complex128]:
        """Of all bands, one band after the other, times the roots of their weights."""
        modes = np.fft.rfft2(m - m.mean()).ravel()[self.inside]
        return modes * (self.root * (self.pixel / self.n))

    def _power(self, a: NDArray, b: NDArray) -> NDArray[np.float64]:
        return np.add.reduceat((a * b.conj()).real, self.starts)

    def power(self, a: str, b: str) -> NDArray[np.float64]:
        """Band powers of a pair of maps, (regions, bands)."""
        index = self.pairs.index((a, b))
        return np.array([row[index] for row in self.powers])

    def mean_and_error(self, values: NDArray) -> tuple[NDArray, NDArray]:
        """Over regions; the error of a single one is not known (NaN)."""
        number = len(values)
        if number == 1:
            return values[0], np.full_like(values[0], np.nan)
        return values.mean(0), values.std(0, ddof=1) / math.sqrt(number)

    def binned(self, ell: NDArray, cl: NDArray) -> NDArray[np.float64]:
        """Band means of a spectrum, cubic in l^2 C_l against ln l between the multipoles given."""
        from scipy.interpolate import CubicSpline

        law = CubicSpline(np.log(ell), np.asarray(ell, np.float64) ** 2 * cl)
        return np.array([(law(np.log(at)) / at**2) @ w for _, at, w in self.bands])

    @property
    def band_3000(self) -> int | None:
        return self.edges.index(BAND_3000) if BAND_3000 in self.edges else None


def compare(sums: Sums, powers: NDArray, analytic: NDArray) -> dict:
    """Band powers (regions, bands) beside their expectation."""
    from scipy.stats import norm
    from scipy.stats import t as student

    number = len(powers)
    # three standard errors, widened for few regions, whose scatter is not well known
    three = student.ppf(norm.cdf(3), number - 1) if number > 1 else math.nan
    mean, error = sums.mean_and_error(powers)
    ratio, error = mean / analytic, np.abs(error / analytic)
    inside = [ELL_ACCURATE[0] <= a and b <= ELL_ACCURATE[1] for a, b in sums.edges]
    far = np.abs(ratio - 1) > np.maximum(ACCURACY, three * error)
    return {
        "measured": rounds(mean),
        "analytic": rounds(analytic),
        "ratio": rounds(ratio),
        "error": rounds(error),
        "accurate": bool(not np.any(far & inside)) if number > 1 and any(inside) else None,
    }


def rounded(value: float, digits: int = 4) -> float | None:
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def rounds(values: NDArray) -> list[float | None]:
    return [rounded(v) for v in values]
