from __future__ import annotations

import numpy as np
import pytest

from mlsky.sphere.charts import charts
from mlsky.sphere.field import Field
from mlsky.sphere.refine import on_chart, refine

#: Error of a cubic spline through a wave of nine pixels, relative to its amplitude.
SPLINE_ERROR = 2e-3


@pytest.mark.parametrize("factor", [2, 4])
def test_a_wave_on_finer_pixels(factor):
    y, x = np.mgrid[:60, :72] / 9
    coarse = np.cos(2 * np.pi * (0.6 * y + 0.8 * x)).astype(np.float32)
    fy, fx = (((np.arange(n * factor) + 0.5) / factor - 0.5) / 9 for n in coarse.shape)
    exact = np.cos(2 * np.pi * (0.6 * fy[:, None] + 0.8 * fx))
    inside = (slice(8 * factor, -8 * factor),) * 2
    np.testing.assert_allclose(refine(coarse, factor)[inside], exact[inside], atol=SPLINE_ERROR)


def test_a_constant_stays_to_the_edge():
    np.testing.assert_allclose(refine(np.full((2, 8, 12), 3, np.float32), 4), 3, rtol=1e-6)


def test_several_fields_on_coarse_pixels_of_a_chart():
    rng = np.random.default_rng(1)
    lmax = 480
    alm = rng.normal(size=(2, (lmax + 1) * (lmax + 2) // 2)) + 0j
    field, chart = Field(alm), charts(4.0)[15]
    values, exact = on_chart(field, chart, 8.0), field.on(chart)
    assert values.shape == exact.shape
    error = values - exact  # at the edges too
    assert np.abs(error).max() < 5 * SPLINE_ERROR * exact.std()
    assert error.std() < SPLINE_ERROR * exact.std()
    np.testing.assert_array_equal(on_chart(field, chart, 4.0), exact)
