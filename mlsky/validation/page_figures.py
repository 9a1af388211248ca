"""Pictures of generated beside true regions, for the page of `mlsky validate --html`.

Matplotlib's object interface only: no pyplot, no global state, no display needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.statistics.crossfrequency import AGORA
from mlsky.validation import act_dr6, published
from mlsky.validation import page_parts as parts
from mlsky.validation.measure import BISPECTRAL, FIELDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "PICTURES",
    "maps",
]

MAPS = {"kappa": "viridis", "ksz": "RdBu_r", "tsz": "GnBu_r", "cib": "inferno", "radio": "inferno"}

SHOWN = 192  # pixels of a region along a side, unless it is said


def maps(
    example: Mapping[str, NDArray],
    pixel_arcmin: float,
    sides: Sequence[str] | None = None,
    shown: int = SHOWN,
) -> Figure:
    """One region, fields side by side: the truth above what was generated of it.

    Parameters
    ----------
    example
        By side (5, n, n).
    sides
        Which, from above; all by default.
    shown
        Pixels along a side.
    """
    from matplotlib.colors import AsinhNorm, Normalize

    sides = [s for s in parts.COLOURS if s in example] if sides is None else sides
    n = min(shown, example["true"].shape[-1])
    degrees = n * pixel_arcmin / 60
    drawing = parts.figure(2.25 * len(FIELDS), 2.1 * len(sides) + 0.7)
    grid = drawing.subplots(len(sides), len(FIELDS), squeeze=False)
    for column, name in enumerate(FIELDS):
        cut = {s: example[s][column, :n, :n] for s in sides}
        low, high = np.quantile(cut["true"], (0.003, 0.997))
        if name in ("kappa", "ksz"):
            top = max(-low, high, 1e-30)
            norm = Normalize(-top if name == "ksz" else low, top)
        elif name == "cib":
            norm = Normalize(low, max(high, low + 1e-30))
        else:
            # few clusters or sources on an empty ground: linear near zero, logarithmic beyond
            reach = max(abs(low), abs(high), 1e-30)
            norm = AsinhNorm(0.1 * reach, *((-reach, 0) if name == "tsz" else (0, reach)))
        for row, side in enumerate(sides):
            axes = grid[row, column]
            image = axes.imshow(
                cut[side], origin="lower", cmap=MAPS[name], norm=norm, interpolation="nearest"
            )
            axes.set_xticks(())
            axes.set_yticks(())
            if row == 0:
                unit = f" ({parts.UNITS[name]})" if parts.UNITS[name] else ""
                axes.set_title(f"{parts.NAMES[name]}{unit}", fontsize=11)
            if column == 0:
                axes.set_ylabel(parts.WORDS[side].replace(" from", "\nfrom"), fontsize=10)
        bar = drawing.colorbar(
            image, ax=grid[:, column], orientation="horizontal", pad=0.01, aspect=18
        )
        bar.ax.tick_params(labelsize=7, length=2)
        bar.ax.xaxis.set_major_locator(parts.few_ticks(norm))
        bar.ax.xaxis.set_major_formatter("{x:.2g}")
        bar.ax.minorticks_off()
    drawing.supxlabel(f"{degrees:.1f} degrees across; 148 GHz, CMB units", fontsize=9, color="0.35")
    return drawing


def spectra(found: Mapping) -> Figure:
    """Auto spectra, D_l, with generated over true below; tSZ with and without its clusters."""
    ell = np.array(found["ell"])
    factor = ell * (ell + 1) / (2 * np.pi)
    drawing, panels = parts.pairs(list(found["power"]), 3, "over truth")
    for name, (above, below) in panels.items():
        rows = found["power"][name]
        jobs = parts.made(rows)
        scale = factor * (1e4 if name == "kappa" else 1)
        value, error = (parts.floats(rows["true"][k]) for k in ("value", "error"))
        above.plot(
            ell,
            scale * value,
            color=parts.COLOURS["true"],
            lw=1.5,
            label=parts.WORDS["true"],
        )
        low, high = value - np.nan_to_num(error), value + np.nan_to_num(error)
        above.fill_between(ell, scale * low, scale * high, color="0.85", lw=0)
        below.axhspan(1 - parts.BAND, 1 + parts.BAND, color="0.92", lw=0)
        below.axhline(1, color="0.4", lw=0.8)
        for job, shift in parts.shifts(jobs).items():
            row = {k: scale * parts.floats(v) for k, v in rows[job].items()}
            parts.points(above, ell, row, job, shift, label=parts.WORDS[job])
            parts.points(below, ell, rows[f"{job} / true"], job, shift)
        parts.ratio_range(below, [rows[f"{job} / true"]["value"] for job in jobs])
        act = act_dr6.PARTS[150]
        measured = {"ksz": act["ksz"], "tsz all": act["tsz"], "radio": act["radio"]}
        measured["cib"] = act["cib clustered"] + act["cib poisson"]
        if name in measured:
            note = ", sources < 15 mJy" if name == "radio" else ""
            label = f"ACT DR6, 150 GHz{note}"
            above.plot(3000, measured[name], "k*", ms=9, label=label, zorder=5)
        theirs = published.D_ELL.get({"tsz all": "tsz", "tsz": ""}.get(name, name))
        if theirs:
            style = {"ls": ":", "color": "0.5", "lw": 1.2}
            above.plot(published.ELL, theirs, label="Han et al. 2021", **style)
        parts.log_range(above, scale * value)
        above.set_ylabel(
            r"$10^4\,D_\ell$" if name == "kappa" else r"$D_\ell$ ($\mu$K$^2$)", fontsize=9
        )
        below.set_xlabel(r"$\ell$")
        above.legend(fontsize=6.5, loc="lower right", framealpha=0.8)
        if name in ("tsz", "tsz all"):
            what = "cut at -40" if name == "tsz" else "all clusters, few rule"
            above.set_title(f"tSZ, {what}" + (r" $\mu$K" if name == "tsz" else ""), fontsize=11)
    return drawing


def correlations(found: Mapping) -> Figure:
    """Correlation coefficients, with generated less true below, and those of Han et al. 2021."""
    ell = np.array(found["ell"])
    drawing, panels = parts.pairs([n for n in found["correlation"]], 4, "less truth")
    for name, (above, below) in panels.items():
        rows = found["correlation"][name]
        above.set_title(parts.label(name), fontsize=11)
        parts.points(above, ell, rows["true"], "true", label=parts.WORDS["true"], fmt="-", lw=1.5)
        below.axhspan(-parts.BAND, parts.BAND, color="0.92", lw=0)
        below.axhline(0, color="0.4", lw=0.8)
        for job, shift in parts.shifts(parts.made(rows)).items():
            parts.points(above, ell, rows[job], job, shift, label=parts.WORDS[job])
            parts.points(below, ell, rows[f"{job} - true"], job, shift)
        pair = tuple(name.split(" x "))
        if pair in published.CORRELATION:
            theirs, truth = published.CORRELATION[pair]
            label = "Han et al. 2021"
            above.plot(published.ELL, theirs, ls=":", color="0.5", label=label)
            shown = parts.floats(theirs) - parts.floats(truth)
            below.plot(published.ELL, shown, ls=":", color="0.5")
        above.set_xscale("log")
        below.set(xlabel=r"$\ell$", ylim=(-0.12, 0.12))
    if "kappa x tsz" in panels:
        parts.legend(drawing, panels["kappa x tsz"][0])
    return drawing


def one_point(found: Mapping) -> Figure:
    """Distributions of pixels, with generated over true below."""
    drawing, panels = parts.pairs(list(FIELDS), 3, "over truth")
    for name, (above, below) in panels.items():
        rows = found["histogram"][name]
        edges = np.array(rows["edges"])
        middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
        true = parts.floats(rows["true"]["value"])
        fraction = 1 / (true.sum() * width)
        jobs = parts.made(rows)
        enough = true > 0
        above.stairs(
            true * fraction,
            edges,
            color=parts.COLOURS["true"],
            lw=1.5,
            label=parts.WORDS["true"],
        )
        below.axhspan(1 - parts.BAND, 1 + parts.BAND, color="0.92", lw=0)
        below.axhline(1, color="0.4", lw=0.8)
        for job in jobs:
            made = parts.floats(rows[job]["value"])
            enough &= made > 0
            above.stairs(
                made * fraction,
                edges,
                color=parts.COLOURS[job],
                lw=1.0,
                label=parts.WORDS[job],
            )
            ratio = {k: parts.floats(v) for k, v in rows[f"{job} / true"].items()}
            # of bins with few pixels or with an error as large as the ratio nothing is known
            known = (np.minimum(true, made) > 0) & (ratio["error"] < 0.3)
            part = {k: np.where(known, v, np.nan) for k, v in ratio.items()}
            parts.points(below, middle, part, job, ms=2)
        inside = np.flatnonzero(np.cumsum(true) / max(true.sum(), 1) > 1e-6)
        last = np.flatnonzero(np.cumsum(true[::-1])[::-1] / max(true.sum(), 1) > 1e-6)
        if inside.size and last.size:
            above.set_xlim(edges[inside[0]], edges[last[-1] + 1])
        above.set_yscale("log")
        above.set_ylabel("probability density", fontsize=8)
        below.set_ylim(0.6, 1.4)
        # wide tails: linear near the middle
        linear = {"kappa": None, "ksz": None, "tsz": 2.0, "cib": None, "radio": 5.0}[name]
        if linear:
            above.set_xscale("symlog", linthresh=linear)
        unit = f" ({parts.UNITS[name]})" if parts.UNITS[name] else ""
        below.set_xlabel(f"{parts.NAMES[name]}{unit}")
        above.legend(fontsize=7)
    return drawing


def counts(rows: Sequence[Mapping]) -> Figure:
    """Counts of peaks and bright pixels, and distributions given kappa, of the table of scores."""
    wanted = {
        "peaks kappa": "peaks of kappa above a height, per square degree",
        "counts cib": "pixels of CIB brighter, per square degree",
        "counts radio": "pixels of radio brighter, per square degree",
    }
    drawing = parts.figure(13, 4.0)
    grid = drawing.subplots(1, len(wanted))
    for axes, (key, title) in zip(grid, wanted.items(), strict=True):
        statistic, field = key.split()
        jobs = [j for j in parts.COLOURS if any(r["job"] == j for r in rows)]
        for job in jobs:
            chosen = [
                n
                for r in rows
                if r["job"] == job and r["statistic"] == statistic and r["fields"] == [field]
                for n in r["numbers"]
            ]
            if not chosen:
                continue
            x = [float(n["where"].split()[1]) for n in chosen]
            if job == jobs[-1]:
                true = parts.floats([n["true"] for n in chosen])
                axes.plot(x, true, "k-", lw=1.5, label=parts.WORDS["true"])
            made = parts.floats([n["generated"] for n in chosen])
            error = np.nan_to_num(parts.floats([n["error"] for n in chosen])) * np.abs(made)
            shift = parts.shifts(jobs)[job]
            style = {
                "fmt": "o",
                "ms": 4,
                "color": parts.COLOURS[job],
                "label": parts.WORDS[job],
            }
            axes.errorbar(np.array(x) * (1 + shift), made, error, **style)
        axes.set_yscale("log")
        parts.log(axes, "x")
        axes.set_xlabel("smoothed kappa" if statistic == "peaks" else "mJy above the median")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.25, lw=0.5, which="both")
        if axes.has_data():
            axes.legend(fontsize=8)
    return drawing


def bispectra(found: Mapping) -> Figure | None:
    """Bispectra of every shape, generated over true, with errors."""
    shapes = found["bispectrum"]
    if not shapes:
        return None
    drawing = parts.figure(3.2 * len(BISPECTRAL), 2.6 * len(shapes))
    grid = drawing.subplots(len(shapes), len(BISPECTRAL), squeeze=False)
    for row, (shape, values) in enumerate(shapes.items()):
        x = np.array([np.sqrt(a * b) for (a, b), *_ in values["triangles"]])
        for column, name in enumerate(BISPECTRAL):
            axes, rows = grid[row, column], values["fields"][name]
            axes.axhspan(0.7, 1.3, color="0.92", lw=0)
            axes.axhline(1, color="0.4", lw=0.8)
            true = rows["true"]
            fraction = np.nan_to_num(
                parts.floats(true["error"]) / np.abs(parts.floats(true["value"]))
            )
            parts.points(
                axes,
                x * 0.97,
                {"value": 0 * fraction + 1, "error": fraction},
                "true",
                label="truth",
            )
            for job, shift in parts.shifts(parts.made(rows)).items():
                parts.points(
                    axes, x, rows[f"{job} / true"], job, shift, ms=4, label=parts.WORDS[job]
                )
            if shape == "equilateral" and name in published.RATIOS:
                theirs = published.RATIOS[name]
                label = "Han et al. 2021 / theirs"
                axes.plot(list(theirs), list(theirs.values()), ":", color="0.5", label=label)
            axes.set_ylim(0, 2)
            parts.log(axes, "x")
            axes.grid(alpha=0.25, lw=0.5)
            axes.tick_params(labelsize=8)
            axes.set_title(f"{parts.NAMES[name]}, {shape}", fontsize=10)
            if column == 0:
                axes.set_ylabel("over truth")
            if row == len(shapes) - 1:
                axes.set_xlabel(r"$\ell$ of the first side")
    parts.legend(drawing, grid[0, 1])
    return drawing


def lensing(found: Mapping) -> Figure | None:
    """Biases of a temperature reconstruction of lensing: bispectrum and trispectrum."""
    table = found["lensing"]
    if table is None:
        return None
    edges = np.array(table["edges"])
    x = np.sqrt(edges[1:] * edges[:-1])
    names = [n for n in table if n != "edges"]
    drawing = parts.figure(3.4 * len(names), 5.6)
    grid = drawing.subplots(2, len(names))
    titles = {"bispectrum": r"$\hat\kappa[s] \times \kappa$", "trispectrum": r"trispectrum"}
    for column, name in enumerate(names):
        for row, (kind, title) in enumerate(titles.items()):
            axes, rows = grid[row, column], table[name][kind]
            axes.axhline(0, color="0.4", lw=0.8)
            for side, shift in {"true": -0.03, **parts.shifts(parts.made(rows))}.items():
                value = {k: 100 * parts.floats(v) for k, v in rows[side].items()}
                parts.points(axes, x, value, side, shift, ms=4, label=parts.WORDS[side])
            for at, pair in published.LENSING.get(name, {}).items() if row == 0 else ():
                for value, mark, whose in zip(pair, "x+", ("network", "truth"), strict=True):
                    label = f"Han et al. 2021, {whose}"
                    axes.plot(at, value, mark, color="0.5", ms=7, label=label)
            parts.log(axes, "x")
            axes.grid(alpha=0.25, lw=0.5)
            axes.set_title(f"{parts.NAMES[name]}: {title}", fontsize=10)
            axes.set_xlabel("L")
        grid[0, column].tick_params(labelsize=8)
    grid[0, 0].set_ylabel(r"% of $C_L^{\kappa\kappa}$")
    grid[1, 0].set_ylabel(r"% of $C_L^{\kappa\kappa}$")
    parts.legend(drawing, grid[0, names.index("tsz")])
    return drawing


def morphology(rows: Sequence[Mapping]) -> Figure:
    """Minkowski functionals over thresholds, of the table of scores."""
    drawing = parts.figure(3.0 * len(FIELDS), 7.2)
    grid = drawing.subplots(3, len(FIELDS))
    for column, name in enumerate(FIELDS):
        for row, part in enumerate(("V0", "V1", "V2")):
            axes = grid[row, column]
            jobs = [j for j in parts.COLOURS if any(r["job"] == j for r in rows)]
            for job in jobs:
                chosen = [
                    n
                    for r in rows
                    if r["job"] == job and r["statistic"] == "minkowski" and r["fields"] == [name]
                    for n in r["numbers"]
                    if n["where"].startswith(part)
                ]
                if not chosen:
                    continue
                nu = np.array([float(n["where"].split()[1]) for n in chosen])
                if job == jobs[-1]:
                    true = parts.floats([n["true"] for n in chosen])
                    axes.plot(nu, true, "k-", lw=1.5, label=parts.WORDS["true"])
                made = parts.floats([n["generated"] for n in chosen])
                look = {"ms": 4, "color": parts.COLOURS[job], "label": parts.WORDS[job]}
                axes.plot(nu + 3 * parts.shifts(jobs)[job], made, "o", **look)
            titles = {"V0": "area", "V1": "boundary", "V2": "Euler characteristic"}
            axes.set_title(f"{parts.NAMES[name]}: {titles[part]}", fontsize=9)
            axes.tick_params(labelsize=7)
            axes.grid(alpha=0.25, lw=0.5)
        grid[2, column].set_xlabel("threshold (true standard deviations)", fontsize=8)
    parts.legend(drawing, grid[0, 1])
    return drawing


def extrema(found: Mapping) -> Figure:
    """Maxima above and minima below thresholds of smoothed maps, generated over true."""
    heights = np.array(found["heights"])
    drawing = parts.figure(3.0 * len(FIELDS), 5.0)
    grid = drawing.subplots(2, len(FIELDS))
    for column, name in enumerate(FIELDS):
        for row, (kind, rows) in enumerate(found["extrema"][name].items()):
            axes = grid[row, column]
            axes.axhspan(1 - parts.BAND, 1 + parts.BAND, color="0.92", lw=0)
            axes.axhline(1, color="0.4", lw=0.8)
            for job in parts.made(rows):
                parts.points(axes, heights, rows[f"{job} / true"], job, label=parts.WORDS[job])
            parts.ratio_range(axes, [rows[f"{job} / true"]["value"] for job in parts.made(rows)])
            side = "above" if kind == "maxima" else "below"
            axes.set_title(f"{parts.NAMES[name]}: {kind} {side}", fontsize=9)
            axes.tick_params(labelsize=7)
            axes.grid(alpha=0.25, lw=0.5)
        grid[1, column].set_xlabel("true standard deviations", fontsize=8)
    grid[0, 0].set_ylabel("over truth")
    grid[1, 0].set_ylabel("over truth")
    parts.legend(drawing, grid[0, 1])
    return drawing


def tsz_cib(found: Mapping) -> Figure:
    """tSZ x CIB by multipole at several frequencies, and its correlation beside Agora's."""
    table, ell = found["tsz x cib"], np.array(found["ell"])
    factor = ell * (ell + 1) / (2 * np.pi)
    drawing = parts.figure(3.4 * len(table["freqs_ghz"]), 5.6)
    grid = drawing.subplots(2, len(table["freqs_ghz"]), sharex=True)
    for column, nu in enumerate(table["freqs_ghz"]):
        for row, kind in enumerate(("power", "correlation")):
            axes, rows = grid[row, column], table[kind]
            axes.axhline(0, color="0.4", lw=0.8)
            for side, shift in {"true": -0.02, **parts.shifts(parts.made(rows))}.items():
                scale = factor if kind == "power" else 1.0
                value = {k: scale * parts.floats(v[column]) for k, v in rows[side].items()}
                parts.points(axes, ell, value, side, shift, label=parts.WORDS[side])
            axes.grid(alpha=0.25, lw=0.5)
            axes.tick_params(labelsize=8)
        if int(nu) in AGORA:
            agora = AGORA[int(nu)]
            grid[1, column].plot(
                list(agora), list(agora.values()), "k^", ms=6, mfc="none", label="Agora"
            )
        grid[0, column].set(xscale="log", title=f"tSZ x CIB, {nu:g} GHz")
        grid[1, column].set(xlabel=r"$\ell$", ylim=(-0.5, 0.5))
    grid[0, 0].set_ylabel(r"$D_\ell$ ($\mu$K$^2$)")
    grid[1, 0].set_ylabel("correlation")
    parts.legend(drawing, grid[1, 0])
    return drawing


#: Name of each picture, its title, and what draws it of (further figures, rows of scores).
PICTURES: dict[str, tuple[str, Callable[[Mapping, Sequence[Mapping]], Figure | None]]] = {
    "spectra": ("Power spectra", lambda found, rows: spectra(found)),
    "correlations": ("Correlation coefficients", lambda found, rows: correlations(found)),
    "onepoint": ("Distributions of pixels", lambda found, rows: one_point(found)),
    "counts": ("Counts", lambda found, rows: counts(rows)),
    "bispectra": ("Bispectra", lambda found, rows: bispectra(found)),
    "lensing": ("Lensing reconstruction", lambda found, rows: lensing(found)),
    "minkowski": ("Minkowski functionals", lambda found, rows: morphology(rows)),
    "extrema": ("Maxima and minima", lambda found, rows: extrema(found)),
    "tsz-cib": ("CIB and tSZ over frequency", lambda found, rows: tsz_cib(found)),
}
