"""Window of a square pixel, against averages of plane waves over the square."""

from __future__ import annotations

import numpy as np

from mlsky.sphere import windows

#: Sums over 400 points a side and 64 directions.
SUMS = 1e-5


def test_window_is_the_rms_over_directions_of_averages_of_waves():
    ell = np.array([0, 300, 1000])
    side = np.radians(10 / 60)
    t = (np.arange(400) + 0.5) / 400 - 0.5
    x, y = np.meshgrid(t * side, t * side)
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    averages = [[np.cos(n * (x * np.cos(a) + y * np.sin(a))).mean() for a in angle] for n in ell]
    np.testing.assert_allclose(
        windows.square(ell, 10.0), np.sqrt(np.mean(np.square(averages), 1)), atol=SUMS
    )
