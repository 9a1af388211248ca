"""Patches of the steps of the paper's chain beside true ones.

Matplotlib's object interface only: no pyplot, no global state, no display needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.plotting.style import TITLES, figure_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure"]

#: Fields in the order of the networks, and their units.
FIELDS = {"kappa": "", "ksz": "uK", "tsz": "uK", "cib": "uK", "radio": "uK"}
#: Fraction of the true pixels that a colour scale covers, on either side. Sources of radio are at
#: less than a per cent of the pixels.
COVERED = 0.998


def figure(patches: Mapping[str, NDArray[np.floating]], pixel_arcmin: float) -> Figure:
    """One row of five fields for each step, and one for the truth.

    Parameters
    ----------
    patches
        A patch (5, n, n) by the name of its row: kappa, kSZ, tSZ, CIB and radio (uK_CMB). The
        colours of a field are those of the first row, the truth.
    pixel_arcmin
        Size of the pixels.

    Raises
    ------
    ValueError
        If there is no patch, or one does not have five fields of the same size.
    MissingDependencyError
        If matplotlib is not installed.
    """
    shapes = {name: np.shape(patch) for name, patch in patches.items()}
    if not shapes or any(
        len(s) != 3 or s[0] != len(FIELDS) or s != next(iter(shapes.values()))
        for s in shapes.values()
    ):
        raise ValueError(f"patches of shapes {shapes}: must be (5, n, n), all of one size")
    truth = next(iter(patches.values()))
    drawing = figure_class()(figsize=(2 * len(FIELDS), 2.15 * len(patches)), layout="constrained")
    panels = drawing.subplots(len(patches), len(FIELDS), squeeze=False)
    side = truth.shape[-1] * pixel_arcmin
    scales = [np.quantile(field, (1 - COVERED, COVERED)) for field in truth]
    for row, (name, patch) in zip(panels, patches.items(), strict=True):
        for axes, field, values, (low, high) in zip(row, FIELDS, patch, scales, strict=True):
            axes.imshow(values, vmin=low, vmax=high, origin="lower", extent=(0, side, 0, side))
            unit = f" {FIELDS[field]}".rstrip()
            axes.set_title(f"{values.min():.3g} to {values.max():.3g}{unit}", fontsize=7)
            axes.set_xticks([])
            axes.set_yticks([])
        row[0].set_ylabel(name, fontsize=8)
    for axes, field in zip(panels[0], FIELDS, strict=True):
        axes.set_title(f"{TITLES[field]}\n{axes.get_title()}", fontsize=8)
    return drawing
