"""Pictures of generated images of blobs beside true ones.

Matplotlib's object interface only: no pyplot, no global state, no display needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky.plotting.style import figure_class
from mlsky.toys.image_statistics import (
    HISTOGRAM_IMAGES,
    Pixels,
    fourier,
    marginals,
    power,
    rings,
    stack_of,
)
from mlsky.toys.peaks import PeakStack, Stacked

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure", "grid"]

NAMES = ("true", "generated")
COLOURS = ("0.35", "tab:red")
EXAMPLES = 3


def _figure(width: float, height: float) -> Figure:
    return figure_class()(figsize=(width, height), layout="constrained")


def _stacked(maps: NDArray, threshold: float) -> Stacked | None:
    stack = PeakStack(threshold)
    stack.update(maps)
    try:
        return stack.compute()
    except ValueError:  # a network that has learned nothing makes no peak
        return None


def figure(made: ArrayLike, true: ArrayLike, title: str = "", threshold: float = 0.3) -> Figure:
    """Everything of section 6.1: examples, histogram, marginal sums, stacked peaks, Fourier modes.

    Parameters
    ----------
    made, true
        Generated and true images, (N, n, n) or (N, 1, n, n).
    title
        Of the picture.
    threshold
        Lowest local maximum that is stacked.

    Raises
    ------
    ValueError
        If they are not finite images of one size, three or more.
    MissingDependencyError
        If matplotlib is not installed.
    """
    sets = [stack_of(x, EXAMPLES, name) for x, name in zip((true, made), NAMES, strict=True)]
    if sets[0].shape[1:] != sets[1].shape[1:]:
        raise ValueError(f"made {sets[1].shape}, true {sets[0].shape}: must be of one size")
    drawing = _figure(15, 12)
    drawing.suptitle(title)
    panels = drawing.subplots(4, 4)
    low, high = float(min(x.min() for x in sets)), float(max(x.max() for x in sets))
    top = float(np.quantile(sets[0][:, ::4, ::4], 0.9995)) or high
    for row, (maps, name) in enumerate(zip(sets, NAMES, strict=True)):
        for column in range(EXAMPLES):
            axes = panels[row, column]
            shown = axes.imshow(maps[column], vmin=min(0, low), vmax=top, origin="lower")
            axes.set_title(f"{name} {column}", fontsize=9)
        drawing.colorbar(shown, ax=panels[row, EXAMPLES - 1])
    _draw_histogram(panels[0, 3], sets, low, high)
    _draw_marginals(panels[1, 3], sets)
    _draw_peaks(panels[2], sets, threshold)
    _draw_fourier(panels[3], sets)
    return drawing


def _draw_histogram(axes, sets: list[NDArray], low: float, high: float) -> None:
    for maps, name, colour in zip(sets, NAMES, COLOURS, strict=True):
        pixels = Pixels(low, high + 1e-6 * (high - low), 60)
        pixels.update(maps[:HISTOGRAM_IMAGES])
        axes.stairs(pixels.compute(), pixels.edges, color=colour, label=name)
    axes.set_yscale("log")
    axes.set_title("pixels", fontsize=9)
    axes.legend(fontsize=8)


def _draw_marginals(axes, sets: list[NDArray]) -> None:
    for maps, name, colour in zip(sets, NAMES, COLOURS, strict=True):
        along_y, along_x = marginals(maps[:1])[0]
        axes.plot(along_y, color=colour, label=f"{name}, along y")
        axes.plot(along_x, color=colour, ls=":", label="along x")
    axes.set_title("marginal sums of image 0", fontsize=9)
    axes.legend(fontsize=7)


def _draw_peaks(panels, sets: list[NDArray], threshold: float) -> None:
    found = [_stacked(maps, threshold) for maps in sets]
    for axes, stack, name in zip(panels, found, NAMES, strict=False):
        if stack is None:
            axes.set_title(f"{name}: no peak", fontsize=9)
            continue
        axes.imshow(stack.stack, origin="lower")
        axes.set_title(f"{name}: {stack.peaks} peaks, {stack.per_image:.2f} per image", fontsize=9)
    for stack, name, colour in zip(found, NAMES, COLOURS, strict=True):
        if stack is not None:
            for axes in panels[2:]:
                axes.plot(stack.radius, stack.profile, "o-", ms=3, color=colour, label=name)
    panels[2].set_title("stack by radius (pixels)", fontsize=9)
    panels[3].set_title("the same, logarithmic", fontsize=9)
    panels[3].set_yscale("log")
    panels[2].legend(fontsize=8)


def _draw_fourier(panels, sets: list[NDArray]) -> None:
    modes = [np.sqrt((np.abs(fourier(x - x.mean())) ** 2).mean(0)) for x in sets]
    top = float(modes[0].max())
    for axes, mode, name in zip(panels, modes, NAMES, strict=False):
        # one colour scale for both
        axes.imshow(np.log10(mode / top + 1e-12), vmin=-4, vmax=0, origin="lower")
        axes.set_title(f"2-D modes, {name} (log)", fontsize=9)
    k, _ = rings(sets[0].shape[-1])
    spectra = [power(x - x.mean()).mean(0)[1:] for x in sets]
    for p, name, colour in zip(spectra, NAMES, COLOURS, strict=True):
        panels[2].loglog(k[1:], p, color=colour, label=name)
    panels[2].set_title("power, cycles per image", fontsize=9)
    panels[2].legend(fontsize=8)
    panels[3].axhspan(0.95, 1.05, color="0.9")
    panels[3].semilogx(k[1:], spectra[1] / spectra[0], color=COLOURS[1])
    panels[3].set_ylim(0, 2)
    panels[3].set_title("generated over true power", fontsize=9)


def grid(images: ArrayLike, title: str = "") -> Figure:
    """A map of images such as `mlsky.toys.vae.traversal` makes, (rows, columns, n, n).

    One channel (rows, columns, 1, n, n) will do too. All share one colour scale.

    Raises
    ------
    ValueError
        If they are not such a map.
    MissingDependencyError
        If matplotlib is not installed.
    """
    images = np.asarray(images)
    if images.ndim == 5 and images.shape[2] == 1:
        images = images[:, :, 0]
    if images.ndim != 4:
        raise ValueError(f"images of shape {images.shape}: must be (rows, columns, n, n)")
    rows, columns, height, width = images.shape
    drawing = _figure(0.9 * columns, 0.9 * rows + 0.4)
    axes = drawing.subplots()
    gap = 1
    sheet = np.full((rows * (height + gap), columns * (width + gap)), np.nan)
    for i in range(rows):
        for j in range(columns):
            y, x = i * (height + gap), j * (width + gap)
            sheet[y : y + height, x : x + width] = images[i, j]
    axes.imshow(sheet)
    axes.set_axis_off()
    axes.set_title(title, fontsize=9)
    return drawing
