"""Comparison of a painted training set with its analytic model and with observations.

One pass over the regions, one in memory at a time. Regions are periodic, so their Fourier
modes need no window; errors are those of the mean over regions.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from itertools import pairwise

import h5py
import numpy as np
from numpy.typing import NDArray

from mlsky.components import REFERENCE_GHZ
from mlsky.frequency import cib, tsz
from mlsky.haloes import region_sets
from mlsky.haloes.galaxies import SOURCE_COLUMNS
from mlsky.io.sets import fields_of
from mlsky.sources.catalogue import KINDS
from mlsky.theory.objects import is_object
from mlsky.validation import act_dr6, observed, truth_split
from mlsky.validation.truth_sums import (
    ACCURACY,
    COUNTS_MJY,
    ELL_ACCURATE,
    FIELDS,
    KAPPA_BINS,
    SPECTRA,
    Sums,
    compare,
    rounded,
    rounds,
)
from mlsky.validation.truth_templates import Templates

__all__ = ["ACCURACY", "ELL_ACCURATE", "FIELDS", "SPECTRA", "check", "region", "region_apart"]

NO_SIGN = 0.005  # what the correlation of kappa and kSZ may be there
SMALL_UK2 = 0.1  # below this a power is nothing to come within 10 % of
CATALOGUE_MJY = 1.0  # sets list all sources above this, or above less

NOTES = {
    "tsz x tsz": "rare clusters rule it: even 1000 square degrees tell it to 5-10 % only, and the "
    "error is itself unsure",
    "kappa x tsz": "feels rare clusters, most below l = 2000",
    "tsz x cib": "feels rare clusters, most below l = 2000",
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
        Set that `mlsky.haloes.region_sets.paint` wrote.
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
        with its error, and whether all bands are accurate; ``frequencies``: the same of CIB and
        radio at the further frequencies of the set, and the correlations of its bands; ``d3000``
        against ACT DR6 (uK^2) at its frequencies; ``tsz_shape``; ``kappa_camb``;
        ``correlation`` of kappa with kSZ; ``ksz_rms`` by kappa; the ``heaviest`` region;
        ``counts`` of pixels and ``sources`` of the catalogue per square degree beside published
        ones; ``histograms`` of the pixels; ``apart``: `mlsky.validation.truth_split.figures` and
        the ``number`` of objects per square degree, if the set has them apart (everything else is
        of both together); ``templates``: `mlsky.validation.truth_templates.Templates.figures`, if
        the set has the frequencies. Figures that cannot be had are None.

    Raises
    ------
    ValueError
        If the set cannot be read, was not painted from the tables, or `regions` < 1.
    """
    if regions is not None and regions < 1:
        raise ValueError(f"regions={regions}: must be at least 1")
    with fields_of(path, FIELDS, apart=True) as (data, attributes):
        file, mass_cut = data[0].file, attributes.get("mass_cut")
        t = _tables_of(path, attributes, tables)
        freqs = [float(nu) for nu in attributes.get("freqs", ())]
        names = (*FIELDS, *itertools.chain(*region_sets.band_names(freqs)))
        if missing := [name for name in names if name not in file]:
            raise ValueError(
                f"{path}: lacks {', '.join(missing)} of its frequencies; paint it anew"
            )
        pixel_arcmin, (total, n) = float(attributes["pixel_arcmin"]), data[0].shape[:2]
        used = total if regions is None else min(regions, total)
        area = used * (n * pixel_arcmin / 60) ** 2
        objects = [] if mass_cut is None else [f"objects_{name}" for name in FIELDS]
        templates = Templates.of(freqs, t["header"]["preset"])
        made = [] if templates is None else templates.names
        sums = Sums(n, pixel_arcmin, (*names, *objects, *made))
        for i in _bar(used, progress, f"checking {os.path.basename(path)}"):
            maps = {name: _whole(file, name, i) for name in names}
            maps |= {name: file[name][i].astype(np.float64) for name in objects}
            if templates is not None:
                maps |= zip(made, templates.make(maps, i, sums.pixel**2), strict=True)
            sums.add(np.stack(list(maps.values())))
        sources = _catalogue(file, used)
        listed = None if mass_cut is None else int(file["objects_end"][used - 1])
    model = observed.Model(t)
    spectra = _spectra(sums, model)
    frequencies = _frequencies(sums, model, freqs)
    apart = None
    if mass_cut is not None:
        apart = truth_split.figures(sums, model, float(mass_cut))
        apart["number"] = _number_of_objects(t, float(mass_cut), listed, area)
    return {
        "regions": used,
        "square_degrees": rounded(area),
        "pixel_arcmin": pixel_arcmin,
        "flux_cut_mjy": model.flux_cut_mjy,
        "cosmology": t["header"]["cosmology"],
        "ell": [[int(a), int(b)] for a, b in sums.edges],
        "spectra": spectra,
        "frequencies": frequencies,
        "apart": apart,
        "templates": None if templates is None else templates.figures(sums),
        "d3000": _d3000(sums, model, spectra, frequencies),
        "tsz_shape": _tsz_shape(sums, model, spectra),
        "kappa_camb": _kappa_camb(sums, model, spectra),
        "correlation": _correlation(sums),
        "ksz_rms": _ksz_rms(sums),
        "heaviest": _heaviest(sums),
        "counts": _counts(sums, model, area),
        "sources": _sources(sources, model, area),
        "histograms": {
            name: {"from": lo, "to": hi, "pixels": row.astype(int).tolist()}
            for name, (lo, hi), row in zip(FIELDS, sums.ranges, sums.histograms, strict=True)
        },
    }


def region(path: str | os.PathLike, index: int = 0) -> NDArray[np.float32]:
    """Maps of one region, (fields, n, n) in the order of `FIELDS`, its objects included."""
    with fields_of(path, FIELDS, apart=True) as (data, _):
        file = data[0].file
        return np.stack([_whole(file, name, index) for name in FIELDS]).astype(np.float32)


def region_apart(path: str | os.PathLike, index: int = 0) -> NDArray[np.float32] | None:
    """Maps of the objects of one region and of the rest, (2, fields, n, n); None if not apart."""
    with fields_of(path, FIELDS, apart=True) as (data, attributes):
        file = data[0].file
        if "mass_cut" not in attributes:
            return None
        prefixes = ("objects_", "")
        return np.stack([[file[p + name][index] for name in FIELDS] for p in prefixes])


def _whole(file: h5py.File, name: str, index: int) -> NDArray[np.float64]:
    """A map with its objects, whether they are apart or not."""
    values = file[name][index].astype(np.float64)
    objects = f"objects_{name}"
    return values + file[objects][index] if objects in file else values


def _number_of_objects(t: dict, mass_cut: float, listed: int, area: float) -> dict:
    """Objects per square degree, of the lists and of the mass function; the error is Poisson's."""
    chosen = is_object(t["z"], t["log10_mass"], mass_cut)
    expected = float(t["number"][chosen].sum()) * math.radians(1) ** 2
    error = math.sqrt(max(listed, 1)) / area
    return {"painted": rounded(listed / area), "error": rounded(error), "model": rounded(expected)}


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
    t = region_sets.load_tables(tables)
    which = "the shipped tables" if tables is None else f"{tables}"
    differ = [k for k in sorted({*header, *t["header"]}) if header.get(k) != t["header"].get(k)]
    if differ:
        raise ValueError(
            f"{path}: was painted from other tables than {which} ({', '.join(differ)} differ); "
            "name those with --tables FILE, or paint it anew"
        )
    return t


def _catalogue(file: h5py.File, used: int) -> NDArray[np.float32] | None:
    """Sources of the regions used, if the set has any catalogue."""
    if "sources_end" not in file:
        return None
    return file["sources"][: int(file["sources_end"][used - 1])]


def _analytic(model: observed.Model, name: str) -> NDArray[np.float64]:
    """Analytic C_l on the multipoles of the tables, of maps in uK and dimensionless kappa."""
    t, spectrum = model.t, SPECTRA[name][2]
    if spectrum is None:
        ell = t["ell"].astype(np.float64)
        return model.spectra(ell, REFERENCE_GHZ, components="radio")[name]
    return t[f"analytic_{spectrum}"] * float(tsz.uk_per_y(REFERENCE_GHZ)) ** spectrum.count("y")


def _spectra(sums: Sums, model: observed.Model) -> dict:
    out = {}
    for name, (a, b, _) in SPECTRA.items():
        analytic = sums.binned(model.t["ell"], _analytic(model, name))
        row = compare(sums, sums.power(a, b), analytic)
        out[name] = {**row, "note": NOTES.get(name, "")}
    return out


def _frequencies(sums: Sums, model: observed.Model, freqs: list[float]) -> dict:
    """CIB and radio at the further frequencies, and the correlation of bands of the CIB."""
    ell = model.t["ell"].astype(np.float64)
    out: dict = {"spectra": {}, "bands": {}}
    for nu, names in zip(freqs, region_sets.band_names(freqs), strict=True):
        found = model.spectra(ell, nu, components=("cib", "radio"))
        for name, field in zip(names, ("cib", "radio"), strict=True):
            analytic = sums.binned(ell, found[f"{field} x {field}"])
            out["spectra"][name] = compare(sums, sums.power(name, name), analytic)
    band = sums.band_3000
    if band is None:
        return out
    for (nu_1, one), (nu_2, other) in itertools.combinations(
        [(nu, pair[0]) for nu, pair in zip(freqs, region_sets.band_names(freqs), strict=True)], 2
    ):
        both = [(one, other), (one, one), (other, other)]
        cross, *autos = (sums.power(*pair)[:, band] for pair in both)
        pairs = ((nu_1, nu_2), (nu_1, nu_1), (nu_2, nu_2))
        found = [model.spectra([3000.0], *pair, components="cib")["cib x cib"][0] for pair in pairs]
        value, error = _coefficient(cross, *autos)
        out["bands"][f"{nu_1:g} x {nu_2:g}"] = {
            "measured": rounded(value, 6),
            "error": rounded(error),
            "analytic": rounded(found[0] / math.sqrt(found[1] * found[2]), 6),
            "agora": observed.AGORA_BANDS.get((nu_1, nu_2)),
        }
    return out


def _coefficient(cross: NDArray, one: NDArray, other: NDArray) -> tuple[float, float]:
    """Correlation coefficient of powers of regions, and its error from leaving each out."""
    number = len(cross)
    value = float(cross.mean() / math.sqrt(one.mean() * other.mean()))
    if number == 1:
        return value, math.nan
    left = [(x.sum() - x) / (number - 1) for x in (cross, one, other)]
    each = left[0] / np.sqrt(left[1] * left[2])
    return value, float(math.sqrt((number - 1) * each.var()))


def _d3000(sums: Sums, model: observed.Model, spectra: dict, frequencies: dict) -> dict:
    """D_l at l = 3000 (uK^2) at the frequencies of ACT DR6.

    ``model`` is the analytic one with ACT's flux cut; ``painted`` adds what painting differs by
    at l = 2500 to 3500, where the set has the field at that frequency.
    """
    band = sums.band_3000
    out = {}
    for nu, act in act_dr6.PARTS.items():
        found, rows = model.d3000(float(nu)), {}
        act = {**act, "cib": act["cib clustered"] + act["cib poisson"]}
        for name in ("tsz", "ksz", "cib", "cib clustered", "cib poisson", "radio"):
            value, goal = found[name], act[name]
            within = observed.WITHIN_PARTS if " " in name else observed.WITHIN
            rows[name] = {
                "act_dr6": rounded(goal),
                "model": rounded(value),
                "ratio": rounded(value / goal),
                "reached": abs(value / goal - 1) <= within if goal > SMALL_UK2 else None,
                "painted": None,
                "error": None,
            }
            # tSZ and kSZ are exact powers of those at 148 GHz
            of_band = frequencies["spectra"].get(f"{name}_{nu:g}")
            compared = spectra[f"{name} x {name}"] if name in ("tsz", "ksz") else of_band
            if band is None or compared is None:
                continue
            # of sources between the flux cuts only the model knows
            own = value
            if compared is of_band:
                own = float(observed.d_ell(3000, compared["analytic"][band]))
            ratio, error = compared["ratio"][band], compared["error"][band]
            rows[name]["painted"] = rounded(value + own * (ratio - 1))
            rows[name]["error"] = None if error is None else rounded(own * error)
        out[str(nu)] = rows
    return out


def _tsz_shape(sums: Sums, model: observed.Model, spectra: dict) -> dict:
    """tSZ at 150 GHz beside ACT DR6, and what is painted of it in the band of each multipole."""
    rows = model.tsz_shape()
    for ell, row in rows.items():
        row.update({k: rounded(v) for k, v in row.items()})
        row["reached"] = abs(row["shape"] - 1) <= observed.WITHIN_SHAPE
        row["painted"] = row["error"] = None
        for i, (lo, hi) in enumerate(sums.edges):
            if lo <= float(ell) < hi:
                ratio = spectra["tsz x tsz"]
                row["painted"] = rounded(row["model"] * ratio["ratio"][i])
                error = ratio["error"][i]
                row["error"] = None if error is None else rounded(row["model"] * error)
    return rows


def _kappa_camb(sums: Sums, model: observed.Model, spectra: dict) -> dict:
    """Kappa, analytic and painted, over the nonlinear one of CAMB."""
    ells = list(observed.KAPPA_ELL)
    ratios = model.kappa_over_camb(ells)
    middle = [math.sqrt(lo * hi) for lo, hi in sums.edges]
    near = [i for i, ell in enumerate(middle) if ell <= max(ells)]
    here = model.kappa_over_camb([middle[i] for i in near])
    row = spectra["kappa x kappa"]
    return {
        "model": {str(n): rounded(r) for n, r in zip(ells, ratios, strict=True)},
        "reached": bool(np.all(np.abs(ratios - 1) <= observed.WITHIN_KAPPA)),
        "painted": {
            "{}-{}".format(*sums.edges[i]): {
                "ratio": rounded(row["ratio"][i] * r),
                "error": row["error"][i],
            }
            for i, r in zip(near, here, strict=True)
        },
    }


def _correlation(sums: Sums) -> dict:
    """Coefficient of kappa with kSZ by band: velocities have no sign, so it must vanish.

    ``all`` is that of the modes of `ELL_ACCURATE`, each over the rms of its band.
    """
    cross = sums.power("kappa", "ksz")
    scale = np.sqrt(sums.power("kappa", "kappa").mean(0) * sums.power("ksz", "ksz").mean(0))
    mean, error = sums.mean_and_error(cross / scale)
    inside = [ELL_ACCURATE[0] <= a and b <= ELL_ACCURATE[1] for a, b in sums.edges]
    weight = sums.modes * inside
    whole = {"value": None, "error": None, "reached": None}
    if weight.any():
        value, sigma = sums.mean_and_error(cross / scale @ weight / weight.sum())
        reached = bool(abs(value) <= NO_SIGN)
        whole = {"value": rounded(float(value)), "error": rounded(float(sigma)), "reached": reached}
    return {"value": rounds(mean), "error": rounds(error), "all": whole}


def _ksz_rms(sums: Sums) -> list[dict]:
    """Rms of kSZ (uK) where kappa is in each bin of its standard deviation."""
    pixels, squares = sums.ksz_by_kappa
    edges = [None, *KAPPA_BINS, None]
    return [
        {"from": lo, "to": hi, "pixels": int(m), "rms": rounded(math.sqrt(s / m)) if m else None}
        for (lo, hi), m, s in zip(pairwise(edges), pixels, squares, strict=True)
    ]


def _heaviest(sums: Sums) -> dict:
    """The region with the largest tSZ variance: rare clusters can dominate a whole set."""
    variance = np.array([v for _, v in sums.tsz])
    i = int(variance.argmax())
    fraction = variance[i] / variance.sum() if variance[i] else 0.0
    return {"region": i, "deepest": rounded(sums.tsz[i][0]), "fraction": rounded(fraction)}


def _counts(sums: Sums, model: observed.Model, area: float) -> dict:
    """Pixels per square degree that hold more than a flux, and sources of the model that do."""
    cut = [model.flux_cut_mjy]
    laws = (("radio", model.radio_above), ("dsfg", model.dsfg_above))
    return {
        name: {
            f"{s:g} mJy": {"pixels": rounded(m / area), "sources": rounded(e)}
            for s, m, e in zip(COUNTS_MJY, row, law(COUNTS_MJY) - law(cut), strict=True)
        }
        for (name, law), row in zip(laws, sums.above, strict=True)
    }


def _sources(rows: NDArray | None, model: observed.Model, area: float) -> dict:
    """Sources per square degree above fluxes: published, of the model, of the catalogue."""
    flux, kind, alpha = (
        (None, None, None)
        if rows is None
        else (rows[:, SOURCE_COLUMNS.index(c)] for c in ("flux_mjy", "kind", "alpha"))
    )

    def found(name, low, at=None):
        """Of the catalogue, with Poisson errors; none fainter than it is complete."""
        if rows is None:
            return {"painted": None, "error": None}
        chosen = kind == KINDS.index(name)
        values = flux[chosen] if at is None else cib.flux(flux[chosen], alpha[chosen], at)
        number = int((values >= low).sum())
        # what at 148 GHz is at the limit of the list is brighter or fainter elsewhere
        factor = 1.0 if at is None else 1.3 * float(cib.flux(1.0, cib.index(), at)[0])
        if low < CATALOGUE_MJY * factor:
            return {"painted": None, "error": None}
        return {"painted": rounded(number / area), "error": rounded(math.sqrt(number) / area)}

    radio = {}
    for low, value in zip(observed.TUCCI, model.radio_above(observed.TUCCI), strict=True):
        tucci, lagache = observed.TUCCI[low], observed.LAGACHE.get(low)
        reached = None
        if lagache is not None:
            reached = tucci * (1 - observed.WITHIN_RADIO) <= value
            reached = bool(reached and value <= lagache * (1 + observed.WITHIN_RADIO))
        radio[f"{low:g} mJy"] = {
            "tucci": tucci,
            "lagache": lagache,
            "model": rounded(value),
            "reached": reached,
            **found("radio", low),
        }
    dsfg: dict = {}
    for nu, table in observed.BETHERMIN.items():
        values = model.dsfg_above(list(table), nu)
        dsfg[str(nu)] = {
            f"{low:g} mJy": {
                "bethermin": table[low],
                "model": rounded(value),
                "dex": rounded(math.log10(value / table[low])),
                "reached": abs(math.log10(value / table[low])) <= observed.WITHIN_DSFG_DEX,
                **found("dsfg", low, float(nu)),
            }
            for low, value in zip(table, values, strict=True)
        }
    return {"radio": radio, "dsfg": dsfg}
