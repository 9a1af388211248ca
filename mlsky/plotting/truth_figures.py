"""Pictures of a checked training set: spectra, ratios, histograms, one region of each field.

Matplotlib's object interface only: no pyplot, no global state, no display needed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.io.files import whole
from mlsky.plotting.style import figure_class
from mlsky.validation import observed, truth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["OBJECTS_PICTURE", "PICTURES", "check_folder", "draw"]

PICTURES = ("spectra.png", "ratios.png", "observed.png", "histograms.png", "region.png")
OBJECTS_PICTURE = "objects.png"  # of sets with objects apart
COLUMNS = 4
SHOWN = 256  # pixels of a region along a side
UNITS = {"kappa": "", "ksz": " (uK)", "tsz": " (uK)", "cib": " (uK)", "radio": " (uK)"}


def check_folder(folder: str | os.PathLike, overwrite: bool) -> None:
    """Raise, before any work, if the pictures cannot be put there.

    Raises
    ------
    ValueError
        If `folder` is a file, its parent is not there, or it holds pictures and may not
        be overwritten.
    MissingDependencyError
        If matplotlib is not installed.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; --out must be a folder")
    if not folder.parent.is_dir():
        raise ValueError(f"{folder}: folder {folder.parent} does not exist; make it first")
    there = [name for name in (*PICTURES, OBJECTS_PICTURE) if (folder / name).exists()]
    if there and not overwrite:
        raise ValueError(f"{folder / there[0]}: exists; give --overwrite or another folder")
    figure_class()


def draw(
    figures: dict,
    region: NDArray[np.float32],
    folder: str | os.PathLike,
    apart: NDArray[np.float32] | None = None,
) -> list[Path]:
    """Write the pictures of what `mlsky.validation.truth.check` found.

    Parameters
    ----------
    figures
        Its result.
    region
        Maps of one region (fields, n, n), in the order of `mlsky.validation.truth.FIELDS`.
    folder
        Made if it is not there.
    apart
        Maps of its objects and of the rest (2, fields, n, n), if they are apart.

    Returns
    -------
    paths
        The files of `PICTURES`, and `OBJECTS_PICTURE` if there are any, each written beside and
        then renamed.
    """
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    drawings = [
        _spectra(figures),
        _ratios(figures),
        _observed(figures),
        _histograms(figures),
        _region(region, figures["pixel_arcmin"]),
    ]
    paths = [folder / name for name in PICTURES]
    if apart is not None:
        drawings.append(_apart(np.stack([region, *apart]), figures["pixel_arcmin"]))
        paths.append(folder / OBJECTS_PICTURE)
    for drawing, path in zip(drawings, paths, strict=True):
        with whole(path) as temporary:
            drawing.savefig(temporary, dpi=120)
    return paths


def _panels(names, height: float):
    from matplotlib.figure import Figure

    rows = -(-len(names) // COLUMNS)
    drawing: Figure = Figure(figsize=(4 * COLUMNS, height * rows), layout="constrained")
    grid = drawing.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    return drawing, dict(zip(names, grid, strict=False))


def _centres(figures: dict) -> NDArray[np.float64]:
    return np.sqrt([a * b for a, b in figures["ell"]])


def _floats(values: list) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)  # None is NaN


def _spectra(figures: dict) -> Figure:
    ell = _centres(figures)
    factor = ell * (ell + 1) / (2 * np.pi)
    drawing, panels = _panels(list(truth.SPECTRA), 3.2)
    for name, axes in panels.items():
        row = figures["spectra"][name]
        analytic, measured = (np.abs(_floats(row[k])) for k in ("analytic", "measured"))
        error = np.nan_to_num(_floats(row["error"])) * analytic
        axes.loglog(ell, factor * analytic, color="0.5", label="analytic")
        axes.errorbar(ell, factor * measured, factor * error, fmt="o", ms=3, label="painted")
        if name == "tsz x tsz":
            axes.set_title(f"{name} (rare clusters rule)", fontsize=10)
        else:
            axes.set_title(name, fontsize=10)
        axes.set_xlabel(r"$\ell$")
        axes.set_ylabel(r"$|D_\ell|$")
    first = next(iter(panels.values()))
    first.legend(fontsize=8)
    for name in ("ksz", "tsz", "cib", "radio"):
        # at 150 GHz, and the sources below 15 mJy: a few per cent from what is drawn
        act = figures["d3000"]["150"][name]["act_dr6"]
        panels[f"{name} x {name}"].plot(3000, act, "k*", ms=9, label="ACT DR6, 150 GHz")
        panels[f"{name} x {name}"].legend(fontsize=8)
    return drawing


def _ratios(figures: dict) -> Figure:
    ell = _centres(figures)
    rows = {**figures["spectra"], **figures["frequencies"]["spectra"]}
    drawing, panels = _panels(list(rows), 2.8)
    for name, axes in panels.items():
        row = rows[name]
        ratio, error = _floats(row["ratio"]), np.nan_to_num(_floats(row["error"]))
        axes.axhspan(1 - truth.ACCURACY, 1 + truth.ACCURACY, color="0.9")
        axes.axhline(1, color="0.5", lw=0.8)
        axes.errorbar(ell, ratio, error, fmt="o", ms=3)
        axes.set_xscale("log")
        reach = max(0.12, 1.1 * float(np.nanmax(np.abs(ratio - 1), initial=0)))
        axes.set_ylim(1 - min(reach, 1), 1 + min(reach, 1))
        axes.set_title(name, fontsize=10)
        axes.set_xlabel(r"$\ell$")
        axes.set_ylabel("painted / analytic")
    return drawing


def _observed(figures: dict) -> Figure:
    """Model and painted maps beside what was measured on the sky."""
    titles = ("D_3000 over ACT DR6", "tSZ, 150 GHz", "radio counts", "counts of DSFGs")
    titles += ("kappa over CAMB", "kappa and kSZ", "rms of kSZ")
    drawing, panels = _panels(titles, 3.2)
    for name, axes in panels.items():
        axes.set_title(name, fontsize=10)
    _draw_d3000(panels["D_3000 over ACT DR6"], figures["d3000"])
    _draw_tsz(panels["tSZ, 150 GHz"], figures["tsz_shape"])
    _draw_counts(panels["radio counts"], panels["counts of DSFGs"], figures["sources"])
    ell = _centres(figures)
    axes = panels["kappa over CAMB"]
    row = figures["kappa_camb"]
    axes.axhspan(1 - observed.WITHIN_KAPPA, 1 + observed.WITHIN_KAPPA, color="0.9")
    axes.plot([float(x) for x in row["model"]], list(row["model"].values()), "k-", label="model")
    painted = list(row["painted"].values())
    ratio, error = (_floats([r[k] for r in painted]) for k in ("ratio", "error"))
    axes.errorbar(ell[: len(painted)], ratio, np.nan_to_num(error), fmt="o", ms=3, label="painted")
    axes.set(xscale="log", xlabel=r"$\ell$", ylim=(0.94, 1.06))
    axes.legend(fontsize=8)
    axes = panels["kappa and kSZ"]
    axes.axhspan(-truth.NO_SIGN, truth.NO_SIGN, color="0.9")
    row = figures["correlation"]
    value, error = _floats(row["value"]), np.nan_to_num(_floats(row["error"]))
    axes.errorbar(ell, value, error, fmt="o", ms=3)
    axes.set(xscale="log", xlabel=r"$\ell$", ylabel="correlation", ylim=(-0.05, 0.05))
    axes = panels["rms of kSZ"]
    rows = [r for r in figures["ksz_rms"] if r["rms"] is not None]
    middle = [
        r["to"] - 0.5 if r["from"] is None else r["from"] + 0.5 for r in rows
    ]  # of bins a standard deviation wide
    axes.plot(middle, [r["rms"] for r in rows], "o-", ms=4)
    axes.set(xlabel="kappa (standard deviations)", ylabel="uK", ylim=(0, None))
    return drawing


def _draw_d3000(axes, table: dict) -> None:
    names = ("tsz", "ksz", "cib", "cib clustered", "cib poisson", "radio")
    axes.axhspan(1 - observed.WITHIN, 1 + observed.WITHIN, color="0.9")
    for i, (nu, rows) in enumerate(table.items()):
        shown = [
            (k + 0.15 * (i - 1.5), rows[n]["ratio"])
            for k, n in enumerate(names)
            if rows[n]["reached"] is not None
        ]
        axes.plot(*zip(*shown, strict=True), "o", ms=4, label=f"{nu} GHz")
    axes.set_xticks(range(len(names)), names, fontsize=7, rotation=20)
    axes.set_ylabel("model / ACT DR6")
    axes.legend(fontsize=7)


def _draw_tsz(axes, table: dict) -> None:
    ell = [float(x) for x in table]
    rows = table.values()
    axes.loglog(ell, [r["act_dr6"] for r in rows], "k*", ms=8, label="ACT DR6")
    axes.loglog(ell, [r["model"] for r in rows], color="0.5", label="model")
    painted, error = (_floats([r[k] for r in rows]) for k in ("painted", "error"))
    axes.errorbar(ell, painted, np.nan_to_num(error), fmt="o", ms=3, label="painted")
    axes.set_xlabel(r"$\ell$")
    axes.set_ylabel(r"$D_\ell$ (uK$^2$)")
    axes.legend(fontsize=8)


def _draw_counts(radio_axes, dsfg_axes, table: dict) -> None:
    sets = [(radio_axes, table["radio"], "", ("tucci", "lagache"))]
    sets += [(dsfg_axes, rows, f" {nu} GHz", ("bethermin",)) for nu, rows in table["dsfg"].items()]
    for axes, rows, title, published in sets:
        flux = [float(x.split()[0]) for x in rows]
        (line,) = axes.plot(flux, [r["model"] for r in rows.values()], label=f"model{title}")
        for name, marker in zip(published, ("*", "^"), strict=False):
            values = _floats([r[name] for r in rows.values()])
            axes.plot(flux, values, marker, color=line.get_color(), label=f"{name}{title}")
        painted, error = (_floats([r[k] for r in rows.values()]) for k in ("painted", "error"))
        keep = painted > 0
        axes.errorbar(
            np.array(flux)[keep], painted[keep], error[keep], fmt="o", ms=3, color="k", capsize=2
        )
        axes.set(xscale="log", yscale="log", xlabel="mJy", ylabel="per square degree, brighter")
        axes.legend(fontsize=7)


def _histograms(figures: dict) -> Figure:
    drawing, panels = _panels(list(truth.FIELDS), 2.8)
    for name, axes in panels.items():
        row = figures["histograms"][name]
        edges = np.linspace(row["from"], row["to"], len(row["pixels"]) + 1)
        axes.stairs(row["pixels"], edges, fill=True)
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.5)
        axes.set_xlabel(f"{name}{UNITS[name]}")
        axes.set_ylabel("pixels")
    return drawing


def _blocks(maps: NDArray[np.float32], pixels: int) -> NDArray[np.float32]:
    """Means over blocks of the pixels: single ones would be lost between those of a picture."""
    n = maps.shape[-1]
    step = max(1, n // pixels)
    whole = n // step
    cut = maps[..., : whole * step, : whole * step]
    return cut.reshape(*maps.shape[:-2], whole, step, whole, step).mean((-3, -1))


def _region(region: NDArray[np.float32], pixel_arcmin: float) -> Figure:
    drawing, panels = _panels(list(truth.FIELDS), 3.8)
    side = region.shape[-1] * pixel_arcmin / 60
    for values, (name, axes) in zip(_blocks(region, SHOWN), panels.items(), strict=True):
        low, high = np.quantile(values, (0.005, 0.995))
        image = axes.imshow(
            values, origin="lower", extent=(0, side, 0, side), vmin=low, vmax=high, cmap="magma"
        )
        axes.set_title(f"{name}{UNITS[name]}", fontsize=10)
        axes.set_xlabel("deg")
        drawing.colorbar(image, ax=axes, shrink=0.8)
    return drawing


def _apart(parts: NDArray[np.float32], pixel_arcmin: float) -> Figure:
    """A region, its objects and the rest (3, fields, n, n), each field in one range of colours."""
    from matplotlib.figure import Figure

    fields = len(truth.FIELDS)
    side = parts.shape[-1] * pixel_arcmin / 60
    drawing = Figure(figsize=(3.6 * fields, 10), layout="constrained")
    grid = drawing.subplots(3, fields)
    maps = _blocks(parts, SHOWN)
    for name, column, values in zip(truth.FIELDS, grid.T, maps.transpose(1, 0, 2, 3), strict=True):
        # medians apart: the rest of the CIB stands on its mean, its objects do not
        values = values - np.median(values, (1, 2), keepdims=True)
        low, high = np.quantile(values[0], (0.002, 0.998))
        for title, axes, image in zip(("all", "objects", "rest"), column, values, strict=True):
            shown = axes.imshow(
                image, origin="lower", extent=(0, side, 0, side), vmin=low, vmax=high, cmap="magma"
            )
            axes.set_title(f"{name}{UNITS[name]}, {title}", fontsize=10)
        drawing.colorbar(shown, ax=list(column), shrink=0.5, location="bottom")
    return drawing
