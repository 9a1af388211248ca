"""Splines between nodes, and light beyond the edges."""

from __future__ import annotations

import numpy as np
import torch

from mlsky.toys import node_maps

# Sums of float32 numbers.
ROUNDING = 1e-5


def test_splines_reproduce_quadratics_and_constants():
    s = node_maps.spline(16, 64).double()
    node = torch.arange(16.0).double()
    pixel = (torch.arange(64).double() + 0.5) / 4 - 0.5
    inner = slice(8, -8)
    np.testing.assert_allclose(s.sum(1), 1, atol=ROUNDING)
    # cubic B-splines of a square are the square and a third
    np.testing.assert_allclose((s @ node**2)[inner], (pixel**2 + 1 / 3)[inner], atol=ROUNDING * 100)
    # values go on linearly beyond the edges
    np.testing.assert_allclose(s @ node, pixel, atol=ROUNDING)


def test_light_beyond_the_edges_is_folded_back():
    fold = node_maps.folding(32, 4)
    light = torch.zeros(40)
    light[4 + 7], light[0], light[3], light[36], light[39] = 1.0, 2.0, 4.0, 8.0, 16.0
    inside = fold @ light
    # four pixels beyond lie on the fourth, the first beyond on the outermost
    assert {int(i): float(inside[i]) for i in inside.nonzero()} == {
        7: 1.0,
        3: 2.0,
        0: 4.0,
        31: 8.0,
        28: 16.0,
    }
    assert (fold.sum(0) == 1).all()
