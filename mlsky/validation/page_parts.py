"""What the pictures of the page of `mlsky validate --html` share: colours, words, axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.validation.measure import FIELDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "BAND",
    "COLOURS",
    "NAMES",
    "UNITS",
    "WORDS",
    "few_ticks",
    "figure",
    "floats",
    "label",
    "legend",
    "log",
    "log_range",
    "made",
    "pairs",
    "points",
    "ratio_range",
    "shifts",
]

#: Colour-blind safe (Okabe & Ito 2008).
COLOURS = {"true": "#000000", "from_kappa": "#0072b2", "end_to_end": "#d55e00"}

WORDS = {
    "true": "truth",
    "from_kappa": "generated from the true kappa",
    "end_to_end": "generated",
}

#: What is over l (l + 1) C_l / 2 pi of kappa, and the unit of every other.
NAMES = {"kappa": r"$\kappa$", "ksz": "kSZ", "tsz": "tSZ", "cib": "CIB", "radio": "radio"}

UNITS = {"kappa": "", "ksz": r"$\mu$K", "tsz": r"$\mu$K", "cib": r"$\mu$K", "radio": r"$\mu$K"}

BAND = 0.05  # drawn about agreement


def figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def floats(values: Sequence) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)  # None is NaN


def label(field: str) -> str:
    return " x ".join(NAMES[f] for f in field.split(" x "))


def few_ticks(norm):
    from matplotlib.ticker import FixedLocator

    low, high = norm.vmin, norm.vmax
    return FixedLocator([low, (low + high) / 2, high])


def log(axes, *directions: str) -> None:
    """Logarithmic axes with plain numbers at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import FixedLocator, NullFormatter

    for direction in directions:
        axes.set(**{f"{direction}scale": "log"})
        axis = getattr(axes, f"{direction}axis")
        low, high = getattr(axes, f"get_{direction}lim")()
        ticks = [m * 10.0**e for e in range(-3, 6) for m in (1, 2, 5)]
        axis.set_major_locator(FixedLocator([t for t in ticks if low <= t <= high]))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def legend(drawing, axes, columns: int = 5) -> None:
    """What is what, under all panels."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        drawing.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9)


def pairs(names: Sequence[str], columns: int, ratio: str) -> tuple[Figure, dict]:
    """Panels with a smaller one below each; by name (above, below)."""
    rows = -(-len(names) // columns)
    drawing = figure(4.0 * columns, 3.9 * rows)
    outer = drawing.add_gridspec(rows, columns)
    out = {}
    for i, name in enumerate(names):
        inner = outer[divmod(i, columns)].subgridspec(2, 1, height_ratios=(2.4, 1), hspace=0.0)
        above = drawing.add_subplot(inner[0])
        below = drawing.add_subplot(inner[1], sharex=above)
        above.tick_params(labelbottom=False, which="both")
        above.set_title(label(name) if name in FIELDS else name, fontsize=11)
        below.set_ylabel(ratio, fontsize=8)
        for axes in (above, below):
            axes.grid(alpha=0.25, lw=0.5)
            axes.tick_params(labelsize=8)
        out[name] = (above, below)
    return drawing, out


def points(axes, x: NDArray, row: Mapping, side: str, shift: float = 0.0, **style) -> None:
    """Values with errors; sides are moved apart a little, so that bars can be told."""
    value, error = floats(row["value"]), np.nan_to_num(floats(row["error"]))
    at = x * (1 + shift) if np.all(np.asarray(x) > 0) else x + shift
    look = {"fmt": "o", "ms": 3, "lw": 1, "color": COLOURS[side], **style}
    axes.errorbar(at, value, error, **look)


def made(found: Mapping) -> list[str]:
    return [side for side in COLOURS if side in found and side != "true"]


def shifts(jobs: Sequence[str]) -> dict[str, float]:
    return dict(zip(jobs, (0.0, 0.03), strict=False))


def ratio_range(axes, values: Sequence[NDArray], least: float = 0.12, most: float = 0.6) -> None:
    every = np.concatenate([np.abs(floats(v) - 1) for v in values])
    every = every[np.isfinite(every)]
    reach = float(np.quantile(every, 0.9)) * 1.3 if every.size else least
    reach = min(max(reach, least), most)
    axes.set_ylim(1 - reach, 1 + reach)


def log_range(axes, values: NDArray) -> None:
    from matplotlib.ticker import NullFormatter

    axes.set_xscale("log")
    known = values[np.isfinite(values) & (values > 0)]
    if known.size:
        axes.set_yscale("log")
        axes.set_ylim(known.min() / 3, known.max() * 4)
        axes.yaxis.set_minor_formatter(NullFormatter())
