"""Plots of a training run from its log: losses, statistics, power ratios, scores.

Matplotlib's object interface only: no pyplot, no global state, no display needed.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mlsky.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure", "read_log"]

#: Entries of a report on critic and optimisers; all others are matched statistics.
OF_THE_CRITIC = ("critic", "distance", "penalty", "generator", "gradient")
NOT_DRAWN = ("step", "seconds", "ratio", *OF_THE_CRITIC)
BANDS = ("large", "middle", "small")  # scales of the power ratios
SMOOTH = 8  # reports in a running mean, as single batches are noisy
COLUMNS = 3


def read_log(folder: str | os.PathLike) -> tuple[list[dict], list[dict], list[dict]]:
    """Reports, scores and rollbacks of a run, each in order of steps.

    If steps were repeated, after a stop or rollback, the last report is used.

    Raises
    ------
    ValueError
        If the folder has no log, or it cannot be read.
    """
    path = Path(folder) / "log.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}); name the folder of a run"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: is not a log of training ({error})") from None
    reports, scores, rollbacks = [], [], []
    for line in lines:
        if "rolled_back_to" in line:
            rollbacks.append(line)
            for kept in (reports, scores):
                kept[:] = [x for x in kept if x["step"] <= line["rolled_back_to"]]
            continue
        kept = scores if "score" in line else reports
        while kept and kept[-1]["step"] >= line["step"]:
            kept.pop()
        kept.append(line)
    return reports, scores, rollbacks


def figure(folder: str | os.PathLike) -> Figure:
    """Draw the log of a run: the critic's losses, the mismatch of each statistic, the ratio of
    generated to true power of each field, and the scores on validation truth if there are.

    Raises
    ------
    ValueError
        If the folder has no log, or nothing was reported yet.
    MissingDependencyError
        If matplotlib is not installed.
    """
    reports, scores, rollbacks = read_log(folder)
    if not reports and not scores:
        raise ValueError(f"{folder}: its log is empty; train on")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError(
            "matplotlib is needed to draw a run: pip install 'mlsky[plot]'"
        ) from None
    statistics = sorted({k for line in reports for k in line if k not in NOT_DRAWN})
    fields = list(reports[-1]["ratio"]) if reports else []
    panels = ["critic"] * bool(reports) + ["statistics"] * bool(statistics) + fields
    panels += ["score"] * bool(scores)
    rows = -(-len(panels) // COLUMNS)
    drawing: Figure = Figure(figsize=(4.6 * COLUMNS, 3.2 * rows), layout="constrained")
    grid = drawing.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for name, axes in zip(panels, grid, strict=False):
        if name == "score":
            _draw_scores(axes, scores)
        elif name in fields:
            _draw_power(axes, reports, name)
        else:
            keys = OF_THE_CRITIC if name == "critic" else statistics
            _draw_losses(axes, reports, keys)
            title = {"critic": "critic and gradient", "statistics": "mismatch of statistics"}[name]
            axes.set_title(f"{title}, means of {SMOOTH} reports", fontsize=10)
        for line in rollbacks:
            axes.axvline(line["rolled_back_to"], color="0.6", ls=":")
        axes.set_xlabel("step")
        axes.legend(fontsize=7, ncols=2, framealpha=0.5)
    drawing.suptitle(str(Path(folder).resolve().name))
    return drawing


def _draw_losses(axes, reports: list[dict], keys) -> None:
    for i, key in enumerate(keys):
        lines = [x for x in reports if _finite(x.get(key))]
        if lines:
            values = _running([abs(x[key]) for x in lines])
            style = "-" if i < 10 else "--"  # colours repeat
            axes.semilogy([x["step"] for x in lines], values, style, lw=1, label=key)


def _draw_power(axes, reports: list[dict], field: str) -> None:
    steps = [x["step"] for x in reports]
    axes.axhspan(0.95, 1.05, color="0.9")
    for i, band in enumerate(BANDS):
        ratios = [x["ratio"][field][i] for x in reports]
        shown = [r if _finite(r) and r > 0 else math.nan for r in ratios]
        axes.semilogy(steps, shown, lw=1, label=f"{band} scales")
    axes.set_ylim(0.5, 2)
    axes.set_yticks([0.5, 0.7, 0.9, 1, 1.1, 1.4, 2], minor=False)
    axes.set_yticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_title(f"{field}: generated / true power", fontsize=10)


def _draw_scores(axes, scores: list[dict]) -> None:
    known = [x for x in scores if x["score"] is not None]
    axes.plot([x["step"] for x in known], [x["score"] for x in known], "o-", lw=1, label="score")
    if known:
        best = min(known, key=lambda x: x["score"])
        label = f"best: {best['score']:.3g} at step {best['step']}"
        axes.plot(best["step"], best["score"], "*", ms=12, label=label)
    axes.set_title("distance from validation truth, in tolerances", fontsize=10)


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _running(values: list[float]) -> list[float]:
    """Means of the last few."""
    parts = (values[max(0, i - SMOOTH + 1) : i + 1] for i in range(len(values)))
    return [sum(part) / len(part) for part in parts]
