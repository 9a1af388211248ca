"""Objects of a sky on its charts: haloes that are painted whole, beside what networks paint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlsky.sphere.geometry import Geometry

if TYPE_CHECKING:
    from mlsky.haloes.paint import HaloPainter
    from mlsky.sphere.charts import Chart

__all__ = [
    "Objects",
]


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of a sky beside what its networks paint; none of them if there are none."""

    objects: HaloPainter | None
    nonlinear: bool

    def tsz_names(self) -> tuple[str, ...]:
        """Maps of tSZ that the objects have to themselves."""
        if self.objects is None or self.objects.tsz_order is None:
            return ()
        return tuple(name for name in self.objects.terms if name.startswith("tsz"))

    def on(self, chart: Chart) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Maps of the objects on a chart, and their member sources."""
        if self.objects is None:
            return {}, {}
        return self.objects.on(chart)

    @staticmethod
    def add(
        values: dict[str, np.ndarray],
        chart: Chart,
        haloes: dict[str, np.ndarray],
        geometry: Geometry,
        owned: np.ndarray,
    ) -> None:
        """Add the objects of a chart to the output pixels that it owns, in place."""
        from mlsky.sphere import resampling

        shared = [name for name in haloes if name in values]
        smooth = [name for name in shared if name.split("_")[0] in ("tsz", "ksz")]
        points = [name for name in shared if name not in smooth]
        for names, sample in ((smooth, resampling.average), (points, resampling.resample)):
            if names:
                stack = np.stack([haloes[name] for name in names])
                for name, part in zip(names, sample(chart, stack, geometry, owned), strict=True):
                    values[name] += part

    def without(self, kappa, haloes: dict[str, np.ndarray]):
        """The convergence that networks see: without the objects, which they do not paint."""
        return kappa - haloes["kappa"] if self.nonlinear and haloes else kappa
