"""Regions with some of everything, by their number."""

from __future__ import annotations

import numpy as np

from mlsky import seeds

N = 256


def maps(index=0):
    """A region with some of everything."""
    rng = seeds.generator(11, "truth", index)
    g = rng.standard_normal((5, N, N)).astype("f4")
    kappa = 0.11 * g[0]
    radio = np.where(g[3] > 2.5, 60 * g[3], 0).astype("f4")
    return np.stack([kappa, 2 * g[1], -3 * np.exp(g[0]), 20 * np.exp(0.5 * g[2]), radio])
