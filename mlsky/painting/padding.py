"""Width of the padding around the owned area of a chart that avoids visible seams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlsky.painting import finer

if TYPE_CHECKING:
    from mlsky.networks.weights import Weights
    from mlsky.sphere.geometry import Geometry

__all__ = ["BEYOND", "MARGIN", "SPLINE", "of_geometry", "of_halving"]

#: Chart pixels around a point that cubic splines, or means over parts of output pixels, depend on:
#: the influence of values n pixels away on the coefficients of a spline is 0.27^n.
SPLINE = 4

#: Chart pixels around the owned area that output pixels may see, the same for every geometry: with
#: another shape a chart would be another sky. Where `of_geometry` is more, networks see less.
MARGIN = 8

#: Chart pixels around those with noise on which networks see kappa, too: blocks of convolutions
#: cover some of them.
BEYOND = 16


def of_geometry(geometry: Geometry, pixel_arcmin: float) -> int:
    """Chart pixels around the owned area that output pixels see.

    Output pixels whose centres are owned extend past it by half their diagonal, and parts of
    them, or splines, by a few chart pixels more.
    """
    widest = min(max(geometry.sides_arcmin), 60.0)  # for wider pixels the inner part suffices
    # The output of a network depends slightly on distant input. With this minimum, nside 2048, 4096
    # and 8192 (0.5'), or 512 and 1024 (2'), give one sky.
    widest = max(widest, 3.6 * pixel_arcmin)
    return SPLINE + int(np.ceil(0.75 * widest / pixel_arcmin))


def of_halving(weights: Weights) -> int:
    """Additional chart pixels for maps on pixels half as large (`mlsky.painting.finer`).

    The same for every geometry, whether it uses such pixels or not, so that a seed is one sky.
    """
    return finer.FILTER_RADIUS if "split" in weights.header.get("calibration", {}) else 0
