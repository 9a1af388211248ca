"""What tests of charts share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlsky.sphere.charts import Chart


def solid_angle(chart: Chart) -> NDArray[np.float64]:
    """Solid angle (sr) of each pixel of a chart, (ny, nx)."""
    return (chart.scale() * chart.pixel_rad) ** 2
