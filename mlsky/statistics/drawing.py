"""Pictures of a checked training set: spectra, ratios, histograms, one region of each field.

Matplotlib's object interface only: no pyplot, no global state, no display needed.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.errors import MissingDependencyError
from mlsky.statistics import truth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "check_folder", "draw"]

PICTURES = ("spectra.png", "ratios.png", "histograms.png", "region.png")
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
    there = [name for name in PICTURES if (folder / name).exists()]
    if there and not overwrite:
        raise ValueError(f"{folder / there[0]}: exists; give --overwrite or another folder")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            "matplotlib is needed to draw: pip install 'mlsky[plot]'"
        ) from None


def draw(figures: dict, region: NDArray[np.float32], folder: str | os.PathLike) -> list[Path]:
    """Write the pictures of what `mlsky.statistics.truth.check` found.

    Parameters
    ----------
    figures
        Its result.
    region
        Maps of one region (fields, n, n), in the order of `mlsky.statistics.truth.FIELDS`.
    folder
        Made if it is not there.

    Returns
    -------
    paths
        The files of `PICTURES`, each written beside and then renamed.
    """
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    drawings = (
        _spectra(figures),
        _ratios(figures),
        _histograms(figures),
        _region(region, figures["pixel_arcmin"]),
    )
    paths = [folder / name for name in PICTURES]
    for drawing, path in zip(drawings, paths, strict=True):
        beside = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
        try:
            drawing.savefig(beside, dpi=120)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
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
    for name, row in figures["d3000"].items():
        pair = f"{name} x {name}"
        if pair in panels and row["act_dr6"] is not None:
            panels[pair].plot(3000, row["act_dr6"], "k*", ms=9, label="ACT DR6")
            panels[pair].legend(fontsize=8)
    return drawing


def _ratios(figures: dict) -> Figure:
    ell = _centres(figures)
    drawing, panels = _panels(list(truth.SPECTRA), 2.8)
    for name, axes in panels.items():
        row = figures["spectra"][name]
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


def _region(region: NDArray[np.float32], pixel_arcmin: float) -> Figure:
    drawing, panels = _panels(list(truth.FIELDS), 3.8)
    n = region.shape[-1]
    side, step = n * pixel_arcmin / 60, max(1, n // SHOWN)
    whole = n // step
    # means of some pixels: single ones would be lost between those of the picture
    blocks = region[:, : whole * step, : whole * step].reshape(-1, whole, step, whole, step)
    for values, (name, axes) in zip(blocks.mean((2, 4)), panels.items(), strict=True):
        low, high = np.quantile(values, (0.005, 0.995))
        image = axes.imshow(
            values, origin="lower", extent=(0, side, 0, side), vmin=low, vmax=high, cmap="magma"
        )
        axes.set_title(f"{name}{UNITS[name]}", fontsize=10)
        axes.set_xlabel("deg")
        drawing.colorbar(image, ax=axes, shrink=0.8)
    return drawing
