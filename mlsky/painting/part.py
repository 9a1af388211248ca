"""The charts that a map needs: those it lies on, and those whose kappa matters to it.

On charts that are left out, the kappa of the networks is taken to be the Gaussian one: the two
differ on small scales, which neither lens the CMB nor change kappa far away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlsky.sphere import charts, coverage

if TYPE_CHECKING:
    from mlsky.sphere.charts import Chart
    from mlsky.sphere.geometry import Geometry, Legendre

__all__ = ["KAPPA_REACH", "Part", "of_map"]

#: Distance (deg) from a map to which the kappa of the networks is made. Our choice:
#: docs/performance has what it changes.
KAPPA_REACH = 3.0


@dataclass(frozen=True)
class Part:
    """The part of the sphere that is made for a map.

    Attributes
    ----------
    charts
        On which kappa is made, in NESTED order.
    painted
        Numbers of those on which the map lies.
    colatitude
        Range (rad) of their pixels; None for the whole sphere.
    """

    charts: tuple[Chart, ...]
    painted: frozenset[int]
    colatitude: tuple[float, float] | None

    @property
    def is_whole(self) -> bool:
        """Whether kappa is made everywhere."""
        return self.colatitude is None

    def rows(self, grid: Legendre) -> slice:
        """Rings of a grid on which a chart owns points."""
        if self.is_whole:
            return slice(None)
        z = np.cos(grid.axes()[0])
        low, high = zip(*(charts.extent(chart.index)[0] for chart in self.charts), strict=True)
        (held,) = np.nonzero((z >= min(low)) & (z <= max(high)))
        return slice(int(held[0]), int(held[-1]) + 1)


def of_map(geometry: Geometry, every: Sequence[Chart], kappa: bool = True) -> Part:
    """What a map needs.

    Parameters
    ----------
    every
        All charts of the sky.
    kappa
        Whether the kappa of the networks is wanted, around the map too.
    """
    near = coverage.charts_near(geometry, 0.0)
    painted = [index for index in near if charts.owned(every[index], geometry).size]
    needed = painted
    if kappa:
        needed = sorted({*painted, *coverage.charts_near(geometry, KAPPA_REACH)})
    if len(needed) == len(every):
        return Part(tuple(every), frozenset(painted), None)
    chosen = tuple(every[index] for index in needed)
    return Part(chosen, frozenset(painted), coverage.colatitudes_of_charts(chosen))
