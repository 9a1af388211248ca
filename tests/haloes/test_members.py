"""Galaxies of clusters that reach over several charts."""

from __future__ import annotations

import numpy as np
import pytest
from chart_cases import solid_angle
from halo_cases import shipped

from mlsky.haloes import draw, paint
from mlsky.sphere import charts

PIXEL_ARCMIN = 4.0
#: Galaxies on the pixels at the border of two charts are of the one or the other.
BORDER = 0.02


def test_satellites_far_from_their_host_are_on_the_charts_beside_it():
    """A cluster of degrees next to a border: all its galaxies' flux is on the sky."""
    t = shipped()
    n = 40
    h = draw.HaloList(
        np.full(n, np.pi / 2),
        np.full(n, np.radians(42.0)),
        np.full(n, 0.016),
        np.full(n, 15.2),
        np.zeros(n),
        np.arange(n, dtype=np.uint64),
    )
    objects = paint.HaloPainter(h, t, 1, fields=("cib",), pixel_arcmin=PIXEL_ARCMIN)
    _, _, flux, _, dy, dx = objects.galaxies.infrared(objects.haloes, objects._at)
    assert np.degrees(np.hypot(dy, dx)).max() > 2
    want = flux[flux < t["flux_cut_uk_sr"]].sum()
    want += objects._flux("cib", np.arange(n)).sum()  # the small ones
    total, owners = 0.0, 0
    for chart in charts.charts(PIXEL_ARCMIN, 2):  # next to nothing beyond what they own
        away = np.arccos(chart.rotation[2] @ h.vectors[:, 0])
        if away < np.radians(20):
            made = objects.on(chart)[0]["cib"]
            mine = charts.owners(chart) == chart.index
            part = (made * solid_angle(chart))[mine].sum()
            owners += part > 0.01 * want
            total += part
    assert owners >= 2
    assert total == pytest.approx(want, rel=BORDER)
