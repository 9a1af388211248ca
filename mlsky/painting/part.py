"""The charts that a map needs: those it lies on, and those whose kappa matters to it.

On charts that are left out, and far from the map on those that it does not touch, the kappa of the
networks is taken to be the Gaussian one: the two differ on small scales, which neither lens the CMB
nor change kappa far away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.painting.padding import SPLINE
from mlsky.sphere import charts, coverage
from mlsky.sphere.chart_area import Area

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
    areas
        By number of the chart, the pixels for which its networks are evaluated.
    painted
        Numbers of those on which the map lies: all that they own is made.
    near
        By number of each other chart, the pixels on which kappa is wanted.
    colatitude
        Range (rad) of the pixels that the networks see; None for the whole sphere.
    """

    charts: tuple[Chart, ...]
    areas: Mapping[int, Area]
    painted: frozenset[int]
    near: Mapping[int, Area]
    colatitude: tuple[float, float] | None

    @property
    def is_whole(self) -> bool:
        """Whether kappa is made everywhere."""
        return self.colatitude is None

    def rows(self, grid: Legendre) -> slice:
        """Rings of a grid on which `owned` has points."""
        if self.is_whole:
            return slice(None)
        low, high = coverage.colatitudes_of_areas(self.charts, self.areas)
        theta = grid.axes()[0]
        (held,) = np.nonzero((theta >= low) & (theta <= high))
        return slice(int(held[0]), int(held[-1]) + 1)

    def owned(self, chart: Chart, grid: Legendre) -> NDArray[np.int64]:
        """Flat numbers of the points of a grid that get their kappa from a chart."""
        pixel = charts.owned(chart, grid)
        if chart.index not in self.near:
            return pixel
        y, x = (np.rint(c).astype(np.int64) for c in chart.project(*grid.angles(pixel)))
        return pixel[self.near[chart.index].mask()[y, x]]


def of_map(
    geometry: Geometry, every: Sequence[Chart], overlap: int, padding: int, kappa: bool = True
) -> Part:
    """What a map needs.

    Parameters
    ----------
    every
        All charts of the sky.
    overlap
        Pixels around what a chart owns for which its networks are evaluated.
    padding
        Pixels around those that the networks see.
    kappa
        Whether the kappa of the networks is wanted, around the map too.
    """
    outline = coverage.outline(geometry)
    close = coverage.charts_near(outline, 0.0)
    painted = frozenset(index for index in close if charts.owned(every[index], geometry).size)
    needed = painted.union(coverage.charts_near(outline, KAPPA_REACH)) if kappa else painted
    areas = {index: charts.owned_area(every[index], overlap) for index in sorted(needed)}
    if len(needed) == len(every):
        return Part(tuple(every), areas, painted, {}, None)
    near = {}
    for index in needed - painted:
        near[index] = coverage.area_near(outline, every[index], KAPPA_REACH)
        areas[index] = areas[index].within(near[index].widened(SPLINE))
    chosen = tuple(every[index] for index in areas if areas[index].size)
    seen = {index: area.widened(padding) for index, area in areas.items()}
    return Part(chosen, areas, painted, near, coverage.colatitudes_of_areas(chosen, seen))
