"""The result of `mlsky.validation.truth.check` as text."""

from __future__ import annotations

from collections.abc import Iterator

from mlsky.components import REFERENCE_GHZ
from mlsky.validation import act_dr6, observed, truth, truth_templates

__all__ = ["lines"]

WORDS = {True: "yes", False: "NO", None: "-"}


def lines(figures: dict) -> Iterator[str]:
    """The figures as tables, line by line."""
    yield (
        f"{figures['regions']} regions, {figures['square_degrees']:g} square degrees of "
        f"{figures['pixel_arcmin']:g}' pixels, sources below {figures['flux_cut_mjy']:g} mJy"
    )
    names = [f"{a}-{b}" for a, b in figures["ell"]]
    yield ""
    yield f"painted / analytic at {REFERENCE_GHZ:g} GHz"
    yield from _ratios(names, figures["spectra"])
    lo, hi = truth.ELL_ACCURATE
    yield f"accurate: within {truth.ACCURACY:.0%} or three errors in every band of {lo} < l < {hi}"
    for name, row in figures["spectra"].items():
        if row["note"]:
            yield f"{name}: {row['note']}"
    yield "without rare clusters painted and analytic are compared in the tests, not here"
    if figures["apart"] is not None:
        yield ""
        yield from _apart(figures["apart"], names)
    frequencies = figures["frequencies"]
    if frequencies["spectra"]:
        yield ""
        yield "painted / analytic at the further frequencies"
        yield from _ratios(names, frequencies["spectra"])
    if frequencies["bands"]:
        yield "correlation of the CIB of two bands (GHz) at l = 2500 to 3500"
        for name, row in frequencies["bands"].items():
            agora = "" if row["agora"] is None else f", Agora {row['agora']:g}"
            cell = _with_error(row["measured"], row["error"], 5)
            yield f"  {name}: {cell}, analytic {row['analytic']:.5f}{agora}"
    if figures["templates"] is not None:
        yield ""
        yield from _templates(figures["templates"])
    yield ""
    yield from _d3000(figures["d3000"])
    yield ""
    yield from _shapes(figures)
    yield ""
    yield from _kappa_ksz(figures, names)
    yield ""
    yield from _counts(figures)


def _apart(table: dict, names: list[str]) -> Iterator[str]:
    number = table["number"]
    yield (
        f"objects above {table['mass_cut']:g} Msun (lighter near ones): "
        f"{_with_error(number['painted'], number['error'], 2)} per square degree, mass function "
        f"{number['model']:g}"
    )
    for part in ("objects", "rest"):
        yield f"painted / analytic, {part}"
        yield from _ratios(names, table[part])
    yield "objects with the rest, both orders: painted less analytic, over the whole spectrum"
    yield f"{'l':<12}" + "".join(f"{name:>16}" for name in table["cross"])
    for i, band in enumerate(names):
        rows = table["cross"].values()
        cells = [_with_error(row["difference"][i], row["error"][i]) for row in rows]
        yield f"{band:<12}" + "".join(f"{cell:>16}" for cell in cells)


def _templates(table: dict) -> Iterator[str]:
    made_of = ", ".join(f"{nu:g}" for nu in table["templates_ghz"])
    yield f"CIB made of its templates at {made_of} GHz and a white remainder, over the painted one"
    yield f"{'l':<12}" + "".join(f"{nu + ' GHz':>12}" for nu in table["power"])
    for i, (low, high) in enumerate(table["ell"]):
        cells = "".join(f"{row[i]:>12.4f}" for row in table["power"].values())
        yield f"{f'{low}-{high}':<12}" + cells
    for title, rows in (("two bands", table["r"]), ("a band with", table["cross"])):
        cells = ", ".join(f"{name}: {value:g}" for name, value in rows.items())
        yield f"largest difference of the correlation of {title}, {cells}"
    yield (
        f"within what decision 0007 asks (correlations {truth_templates.R_NEAR:g}, power "
        f"{truth_templates.POWER_NEAR:.0%}; beyond 353 GHz {truth_templates.R_FAR:g} and "
        f"{truth_templates.POWER_FAR:.0%}): {WORDS[table['reached']]}"
    )


def _ratios(names: list[str], rows: dict) -> Iterator[str]:
    yield f"{'l':<12}" + "".join(f"{name:>16}" for name in rows)
    for i, band in enumerate(names):
        cells = [_with_error(row["ratio"][i], row["error"][i]) for row in rows.values()]
        yield f"{band:<12}" + "".join(f"{cell:>16}" for cell in cells)
    good = (WORDS[row["accurate"]] for row in rows.values())
    yield f"{'accurate':<12}" + "".join(f"{word:>16}" for word in good)


def _d3000(table: dict) -> Iterator[str]:
    cut, at = act_dr6.CUT_MJY, act_dr6.CUT_GHZ
    yield f"D_3000, uK^2, sources below {cut:g} mJy at {at:g} GHz, against ACT DR6"
    yield f"{'GHz':<5}{'':<15}{'ACT DR6':>10}{'model':>10}{'ratio':>8}{'painted':>20}{'reached':>9}"
    for nu, rows in table.items():
        for name, row in rows.items():
            yield (
                f"{nu:<5}{name:<15}{row['act_dr6']:>10.4g}{row['model']:>10.4g}"
                f"{row['ratio']:>8.3f}{_with_error(row['painted'], row['error']):>20}"
                f"{WORDS[row['reached']]:>9}"
            )
    yield (
        f"reached: the model within {observed.WITHIN:.0%}, the parts of the CIB within "
        f"{observed.WITHIN_PARTS:.0%}; painted: the maps (of the CIB and radio if the set has "
        "that frequency), and what the model has between the flux cuts of the set and of ACT"
    )


def _shapes(figures: dict) -> Iterator[str]:
    yield f"tSZ at 150 GHz, D_l in uK^2 (shape: over ACT DR6, over that at l = 3000; to be within \
{observed.WITHIN_SHAPE:.0%})"
    for ell, row in figures["tsz_shape"].items():
        yield (
            f"  l = {ell}: ACT DR6 {row['act_dr6']:g}, model {row['model']:.3f}, painted "
            f"{_with_error(row['painted'], row['error'])}, shape {row['shape']:.3f}"
        )
    row = figures["kappa_camb"]
    cells = ", ".join(f"{ell}: {value:.4f}" for ell, value in row["model"].items())
    yield f"kappa, model over CAMB (nonlinear), by l: {cells}; within 1 %: {WORDS[row['reached']]}"
    cells = ", ".join(
        f"{name}: {_with_error(r['ratio'], r['error'])}" for name, r in row["painted"].items()
    )
    yield f"kappa, painted over CAMB: {cells}"


def _kappa_ksz(figures: dict, names: list[str]) -> Iterator[str]:
    table = figures["correlation"]
    cells = [
        f"{a}: {_with_error(v, e)}"
        for a, v, e in zip(names, table["value"], table["error"], strict=True)
    ]
    yield f"correlation of kappa with kSZ: {', '.join(cells)}"
    whole, (lo, hi) = table["all"], truth.ELL_ACCURATE
    yield (
        f"  over {lo} < l < {hi}: {_with_error(whole['value'], whole['error'], 5)}; within "
        f"{truth.NO_SIGN}: {WORDS[whole['reached']]}"
    )
    cells = [f"{_bin(row)}: {_number(row['rms'])}" for row in figures["ksz_rms"]]
    yield f"rms of kSZ (uK) by kappa in standard deviations: {', '.join(cells)}"
    row = figures["heaviest"]
    yield (
        f"most tSZ: region {row['region']}, down to {row['deepest']:g} uK, holds "
        f"{row['fraction']:.1%} of the variance of all regions"
    )


def _counts(figures: dict) -> Iterator[str]:
    yield "sources per square degree brighter than a flux; painted: the catalogue of the set"
    for flux, row in figures["sources"]["radio"].items():
        yield (
            f"  radio 148 GHz > {flux}: Tucci {row['tucci']:g}, Lagache {_number(row['lagache'])}, "
            f"model {row['model']:g}, painted {_with_error(row['painted'], row['error'], 4)}, "
            f"between within {observed.WITHIN_RADIO:.0%}: {WORDS[row['reached']]}"
        )
    for nu, rows in figures["sources"]["dsfg"].items():
        for flux, row in rows.items():
            yield (
                f"  dsfg {nu} GHz > {flux}: Bethermin {row['bethermin']:g}, model "
                f"{row['model']:g} ({row['dex']:+.2f} dex), painted "
                f"{_with_error(row['painted'], row['error'], 4)}, within "
                f"{observed.WITHIN_DSFG_DEX} dex: {WORDS[row['reached']]}"
            )
    yield (
        "  ACT DR6 leaves no room for the published counts of dusty sources above 1 mJy: see "
        "docs/decisions/0004"
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


def _with_error(value: float | None, error: float | None, digits: int = 3) -> str:
    if value is None:
        return "-"
    text = f"{value:.{digits}f}"
    return text if error is None else f"{text} +- {error:.{digits}f}"
