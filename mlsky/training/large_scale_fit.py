"""The large scales that networks lack on a sky, compared with the analytic model of the truth.

The result is a table in the header of a weight file, from which `mlsky.painting.large_scales` makes
fields.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mlsky.components import REFERENCE_GHZ
from mlsky.frequency import bands, cib_templates
from mlsky.painting import large_scales
from mlsky.sphere import gaussian
from mlsky.sphere.multipoles import truncate

__all__ = [
    "EDGES",
    "fit_large_scales",
    "follow_objects",
    "rms_added",
    "rounded",
    "truth_ksz",
    "truth_spectra",
    "tsz_join",
]

#: Bands in which large scales are measured: wide enough that a network's response is known to a
#: few per cent, narrow enough that it varies little in one.
EDGES = (2, 30, 50, 75, 105, 140, 180, 225, 275, 330, 390, 455, 530)
#: Further ones, for tSZ.
EDGES += (620, 730, 860, 1010, 1190, 1400, 1650, 1950, 2300)
#: Multipoles at which the table is kept; linear in between.
NODES = (0, 2, 5, 10, 15, 20, 25, 30, 35, 40, 50, 60, 70, 80, 90, 100, *range(120, 481, 20))
NODES += (*range(520, 1001, 40), *range(1040, 1921, 80))
#: Pixels of the networks from which `large_scales.JOIN` holds for tSZ too; networks of smaller
#: pixels were trained on smaller patches, and lack tSZ of clusters wider than these up to higher l.
JOINED_ARCMIN = 2.0
#: Lowest multipole of `mlsky.theory.foreground_spectra`; below it the coherence with kappa is
#: constant.
MODEL_FROM = 20
#: Fraction of the mean of tSZ in the clusters added on large scales. With a larger fraction they
#: are smoother and bring more of the sky near zero, where the shallowest half per cent is at 0.1 of
#: the mean.
CLUSTERED = 0.1
#: Flux above which radio sources are not in the truth, mJy.
RADIO_MAX_MJY = 7.0
#: Fraction of the root of the power of a field below which other fields do not follow its
#: correction.
NEGLIGIBLE = 0.05


def rounded(value: float) -> float:
    """To four digits, for a header."""
    return float(f"{value:.4g}")


def truth_spectra(
    lmax: int,
    mass_cut: float | None = None,
    templates_ghz: Sequence[float] = (REFERENCE_GHZ,),
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Spectra of the truth on large scales, (lmax + 1,) each.

    Of pairs among "kappa", "tsz", "cib", "cib_353" and so on, "ksz" and "radio", which here is the
    density of sources relative to its mean, without shot noise. Templates of the CIB are in uK_CMB
    at their frequency, tSZ and radio at 148 GHz. `mlsky.theory.foreground_spectra` begins at l =
    20; below, the two-halo part is extrapolated in proportion to C_l^kk, the rest as a constant.

    Parameters
    ----------
    mass_cut
        Lowest mass of objects, which are left out (Msun); None for none. Kappa is always the total.
    templates_ghz
        Frequencies of the maps of the CIB.
    """
    from mlsky.theory import foreground_spectra, radio_sources, spectra
    from mlsky.theory.foregrounds import radio_fraction

    part = "all" if mass_cut is None else "rest"
    cib = dict(zip(cib_templates.map_names(templates_ghz), templates_ghz, strict=True))
    fields = ("kappa", "tsz", *cib, "radio", "ksz")
    ell = np.arange(lmax + 1)
    inside = np.maximum(ell, MODEL_FROM)
    nodes = np.unique(np.geomspace(MODEL_FROM, max(lmax, MODEL_FROM + 10), 60).round())
    kk = spectra.kappa_spectrum(max(lmax, MODEL_FROM))
    falling = kk[: lmax + 1] / kk[inside]
    cut = (RADIO_MAX_MJY * 1e-3, REFERENCE_GHZ)
    mean = radio_sources.moment((REFERENCE_GHZ,), cut) * radio_fraction(part, mass_cut)
    mean /= float(bands.jy_per_sr_per_uk(REFERENCE_GHZ))
    out = {("kappa", "kappa"): kk[: lmax + 1]}
    for a, b in itertools.combinations_with_replacement(fields, 2):
        if a == b == "kappa":
            continue
        names = tuple("cib" if f in cib else f for f in (a, b))
        spectrum = foreground_spectra(
            nodes,
            *(cib.get(f, REFERENCE_GHZ) for f in (a, b)),
            components=dict.fromkeys(names),
            flux_cut_mjy=RADIO_MAX_MJY,
            parts=True,
            part=tuple("all" if f == "kappa" else part for f in (a, b)),
            mass_cut=mass_cut,
        )[" x ".join(names)]
        terms = {k: np.interp(inside, nodes, v) for k, v in spectrum.items()}
        unit = mean ** -((a, b).count("radio"))
        one = terms["one_halo"] + (0 if a == b == "radio" else terms["shot"])
        out[a, b] = out[b, a] = (one + falling * terms["two_halo"]) * unit
    return out


def truth_ksz(
    lmax: int, mass_cut: float | None = None, part: str | tuple[str, str] = "rest"
) -> NDArray[np.float64]:
    """C_l of kSZ of the truth, (lmax + 1,); constant below l = 20.

    Parameters
    ----------
    mass_cut
        Lowest mass of objects (Msun); None for the kSZ of every halo.
    part
        "rest", "objects", or a pair of them, with a mass cut.
    """
    from mlsky.theory import foreground_spectra

    nodes = np.unique(np.geomspace(MODEL_FROM, max(lmax, MODEL_FROM + 10), 60).round())
    options = {"part": "all" if mass_cut is None else part, "mass_cut": mass_cut}
    power = foreground_spectra(nodes, REFERENCE_GHZ, components="ksz", **options)["ksz x ksz"]
    return np.interp(np.arange(lmax + 1), nodes, power)


def follow_objects(table: Mapping, mass_cut: float) -> dict:
    """Let a part of the kSZ that is added on large scales follow the kSZ of the objects.

    Haloes of every mass move together, so that the kSZ of the rest is correlated with that of the
    objects, which on scales of degrees adds up to half of the power. The networks draw velocities
    of their own. Let A be the power that they lack, C the spectrum of the objects, and X the cross
    spectrum of the objects and the rest. The response to the kSZ of the objects is b = X / C, and
    the power A - b^2 C is drawn at random. Where b^2 C is above A, nothing is drawn, and b is such
    that the total has the power of the truth: b^2 C + 2 b C = A + 2 X.

    Parameters
    ----------
    table
        From `fit_large_scales`, with the root of A for "ksz".
    mass_cut
        Lowest mass of the objects (Msun).

    Returns
    -------
    table
        With the response, ``ksz_of_objects``, and the root of what remains to be drawn.
    """
    ell = np.asarray(table["ell"])
    top = int(ell[-1])
    objects, cross = (
        truth_ksz(top, mass_cut, part)[ell] for part in ("objects", ("objects", "rest"))
    )
    lacking = np.square(table["root"]["ksz"])
    full = cross / objects
    total = np.sqrt(1 + (lacking + 2 * cross) / objects) - 1
    response = np.where(full**2 * objects <= lacking, full, total) * _taper(ell)
    left = np.sqrt(np.maximum(lacking - response**2 * objects, 0))
    root = {**table["root"], "ksz": [rounded(x) for x in left]}
    return {**table, "root": root, "ksz_of_objects": [rounded(x) for x in response]}


def tsz_join(pixel_arcmin: float) -> tuple[int, int]:
    """`large_scales.JOIN` for tSZ, for networks of this pixel size."""
    low, high = large_scales.JOIN
    wider = max(1.0, JOINED_ARCMIN / pixel_arcmin)
    return round(low * wider), round(high * wider)


def fit_large_scales(
    alm: Mapping[str, NDArray[np.complex128]],
    means: Mapping[str, float],
    truth: Mapping[tuple[str, str], NDArray[np.float64]],
    shot: float = 0.0,
    join: tuple[int, int] = large_scales.JOIN,
    clusters: bool = True,
) -> tuple[dict, list[dict]]:
    """Fit the large scales that a sky of networks lacks.

    Every field is split into its response r to the Gaussian kappa s and a residual e, x = r s + e,
    in bands; r and the spectra of e over those of the truth are smooth in l. The fit gives a
    response a and the power of a Gaussian g such that x + a s + g has the spectra of the truth,
    including those with kappa.

    Parameters
    ----------
    alm
        Of "gaussian_kappa", "kappa", and some of "tsz", "cib", "cib_353" and so on, "ksz", "radio",
        without pixel windows. Kappa is the total, even if the maps are those of the rest.
    means
        Of tSZ and the templates of the CIB, uK.
    truth
        From `truth_spectra`.
    shot
        Power of the shot noise in "radio".
    join
        Multipoles over which the clusters added to tSZ are tapered, from `tsz_join`. Other fields
        are tapered over `large_scales.JOIN`.
    clusters
        Whether the networks paint clusters, so that the correction of tSZ consists of clusters.
        Otherwise tSZ is multiplied by a field, as the CIB is.

    Returns
    -------
    table
        For `mlsky.painting.large_scales.prepare`.
    rows
        By band: ``ell``, ``error`` (cosmic, of an auto spectrum), ``auto`` and ``kappa``: ratios of
        the auto spectra, and of the cross spectra with kappa, to the truth.
    """
    import healpy
    from scipy.interpolate import PchipInterpolator

    lmax = min(len(truth["kappa", "kappa"]) - 1, *(gaussian.alm_lmax(a) for a in alm.values()))
    order = large_scales.correlated(alm)
    names = ["kappa", *order, *(n for n in ("ksz",) if n in alm)]
    edges = [e for e in EDGES if e <= lmax] + [lmax + 1]
    if edges[-1] - edges[-2] < (edges[-2] - edges[-3]) / 2:
        del edges[-2]
    ell, modes = np.arange(lmax + 1), 2 * np.arange(lmax + 1.0) + 1
    weight = np.add.reduceat(modes, edges[:-1])[: len(edges) - 1]

    def banded(c) -> NDArray[np.float64]:
        return np.add.reduceat((c * modes)[: edges[-1]], edges[:-1]) / weight

    weight[-1] = modes[edges[-2] : edges[-1]].sum()
    centre = banded(ell)
    cut = {n: truncate(a, lmax) for n, a in alm.items()}
    spectra = {
        (a, b): banded(healpy.alm2cl(cut[a], cut[b]))
        for a in ("gaussian_kappa", *names)
        for b in names
    }
    ss = banded(healpy.alm2cl(cut["gaussian_kappa"]))
    theory = truth["kappa", "kappa"][: lmax + 1]

    def smooth(values, scale=1.0):
        ratio = PchipInterpolator(centre, values / banded(scale * np.ones_like(theory)))
        return ratio(np.clip(ell, centre[0], centre[-1])) * scale

    t = {pair: c[: lmax + 1] for pair, c in truth.items()}
    # kappa's own response is one; kSZ responds to nothing
    gain = {n: spectra["gaussian_kappa", n] / ss for n in names}
    slope = {
        n: smooth(gain[n], t[n, "kappa"] / np.maximum(theory, theory[2]) if n != "kappa" else 1.0)
        for n in names
        if n != "ksz"
    }
    residual = {}
    for i, a in enumerate(names):
        for b in names[i:]:
            left = spectra[a, b] - gain[a] * gain[b] * ss
            if a == b == "radio":
                left = left - shot
            scale = np.sqrt(t[a, a] * t[b, b])
            residual[a, b] = residual[b, a] = smooth(left, scale)
    response = {
        n: np.divide(
            t[n, "kappa"] - slope[n] * slope["kappa"] * theory - residual[n, "kappa"],
            slope["kappa"] * theory,
            out=np.zeros_like(theory),
            where=theory > 0,
        )
        for n in order
    }
    fraction = _taper(ell)
    response = {n: r * fraction for n, r in response.items()}
    roots = _roots(order, t, residual, slope, response, theory)
    for key in roots:
        roots[key] = roots[key] * (_taper(ell, join) if key == ("tsz",) else fraction)
    nodes = np.array([n for n in NODES if n <= min(lmax, join[1])])
    pick = np.maximum(nodes, 2)
    table = {
        "ell": nodes.tolist(),
        "response": {n: _short(r[pick]) for n, r in response.items()},
        "root": {" ".join(k): _short(r[pick]) for k, r in roots.items()},
    }
    if clusters:
        table |= {"mean_cib": float(f"{means.get('cib', 1.0):.6g}"), "clusters": 1}
        if "tsz" in order and roots["tsz",][2] > 0:
            per_sr = (CLUSTERED * means["tsz"] / roots["tsz",][2]) ** 2
            table["clusters"] = max(1, round(4 * math.pi * per_sr))
    else:
        table["mean"] = {n: float(f"{means[n]:.6g}") for n in order if n != "radio"}
    rows = [
        {
            "ell": float(centre[i].round(1)),
            "error": float(np.sqrt(2 / weight[i])),
            "auto": {
                n: _ratio(spectra[n, n][i] - (shot if n == "radio" else 0), banded(t[n, n])[i])
                for n in names
            },
            "kappa": {
                n: _ratio(
                    spectra[n, "kappa"][i] / spectra["kappa", "kappa"][i],
                    banded(t[n, "kappa"])[i] / banded(theory)[i],
                )
                for n in response
            },
        }
        for i in range(len(centre))
    ]
    return table, rows


def rms_added(table: Mapping, cl: NDArray[np.float64]) -> dict[str, float]:
    """Rms of the fields of a table of large scales over a sky.

    Parameters
    ----------
    cl
        Of the Gaussian kappa.

    Returns
    -------
    rms
        By name: over the mean for maps that are multiplied and for the density of radio sources,
        in uK for maps to which fields are added.
    """
    ell = np.arange(2, min(table["ell"][-1], len(cl) - 1) + 1)
    modes = (2 * ell + 1) / (4 * math.pi)
    mean = {"cib": table["mean_cib"]} if "mean_cib" in table else table["mean"]
    out = {}
    for name in (*table["response"], "ksz"):
        parts = [np.square(v) for key, v in table["root"].items() if key.split()[0] == name]
        power = sum(np.interp(ell, table["ell"], v) for v in parts)
        if name in table["response"]:
            power = power + np.interp(ell, table["ell"], table["response"][name]) ** 2 * cl[ell]
        out[name] = rounded(math.sqrt((modes * power).sum()) / abs(mean.get(name, 1.0)))
    return out


def _roots(
    order, t, residual, slope, response, theory
) -> dict[tuple[str, ...], NDArray[np.float64]]:
    """Lower triangle, by multipole, of the Cholesky factor of the power that is missing."""
    zero = np.zeros_like(theory)
    missing = {
        (a, b): t[a, b]
        - (slope[a] + response[a]) * (slope[b] + response[b]) * theory
        - residual[a, b]
        for a in order
        for b in order
    }
    root: dict[tuple[str, ...], NDArray[np.float64]] = {}
    for i, a in enumerate(order):
        left = np.maximum(missing[a, a], 0)
        for j, b in enumerate(order[:i]):
            have = sum((root[a, c] * root[b, c] for c in order[:j]), zero)
            own = root[b,]
            there = own > NEGLIGIBLE * np.sqrt(t[b, b])
            value = np.divide(missing[a, b] - have, own, out=zero.copy(), where=there)
            # limited, as networks may already have too much correlation
            value = np.clip(value, -np.sqrt(left), np.sqrt(left))
            root[a, b] = value
            left = np.maximum(left - value**2, 0)
        root[a,] = np.sqrt(left)
    root["ksz",] = zero
    if ("ksz", "ksz") in residual:
        root["ksz",] = np.sqrt(np.maximum(t["ksz", "ksz"] - residual["ksz", "ksz"], 0))
    return root


def _taper(ell: NDArray, join: tuple[int, int] = large_scales.JOIN) -> NDArray[np.float64]:
    low, high = join
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((ell - low) / (high - low), 0, 1))


def _short(values: NDArray) -> list[float]:
    return [rounded(v) for v in values]


def _ratio(a: float, b: float) -> float:
    return round(float(a / b), 3)
