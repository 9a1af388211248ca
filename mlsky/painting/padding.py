"""How many chart pixels around the owned area a chart needs, so that seams are not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlsky.painting import finer

if TYPE_CHECKING:
    from mlsky.networks.weights import Weights
    from mlsky.sphere.geometry import Geometry

__all__ = ["MARGIN", "of_geometry", "of_halving"]

#: Chart pixels that cubic splines, or means over parts of output pixels, see round a point:
#: a spline's coefficients depend on the values n pixels away by 0.27^n.
SPLINE = 4

#: Chart pixels around the owned area that output pixels may see, the same for every geometry: with
#: another shape a chart would be another sky. Where `of_geometry` is more, networks see less.
MARGIN = 8


def of_geometry(geometry: Geometry, pixel_arcmin: float) -> int:
    """Chart pixels around the owned area that output pixels see.

    Output pixels whose centres are owned extend past it by half their diagonal, and parts of
    them, or splines, by a few chart pixels more.
    """
    widest = min(geometry.pixel_arcmin, 60.0)  # of wider pixels the inner part will do
    # What a network makes depends a little on what it sees far away: at least this much, so that
    # nside 2048, 4096 and 8192 (0.5'), or 512 and 1024 (2'), are one sky.
    widest = max(widest, 3.6 * pixel_arcmin)
    return SPLINE + int(np.ceil(0.75 * widest / pixel_arcmin))


def of_halving(weights: Weights) -> int:
    """Chart pixels that pixels half as large see in addition (`mlsky.painting.finer`).

    The same for every geometry, whether it has such pixels or not: a seed is one sky.
    """
    return finer.FILTER_RADIUS if "split" in weights.header.get("calibration", {}) else 0
