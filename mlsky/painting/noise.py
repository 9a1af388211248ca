"""Noise of the networks on a chart, anchored to the sky."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlsky import seeds

if TYPE_CHECKING:
    from mlsky.networks.weights import Weights
    from mlsky.sphere.chart_area import Area
    from mlsky.sphere.charts import Chart

__all__ = [
    "STREAMS",
    "chart_noise",
]

#: Streams of the networks' noise.
STREAMS = {"convergence": 0, "paint": 1, "split": 2, "pixgan": 3}


def chart_noise(
    all_charts: Sequence[Chart],
    index: int,
    weights: Weights,
    seed: int,
    area: Area,
    split: bool = False,
    kappa_alone: bool = False,
) -> dict[str, list[np.ndarray]]:
    """Noise of every network on a chart; equal where charts overlap.

    With `split`, also that of `mlsky.painting.finer.split`. With `kappa_alone`, only that of the
    networks on which kappa depends.
    """
    from mlsky.networks import evaluate
    from mlsky.painting import finer
    from mlsky.sphere import noise

    channels, padding = evaluate.noise_channels(weights), evaluate.noise_padding(weights)
    if kappa_alone:
        channels = {name: channels[name] for name in evaluate.kappa_networks(weights, channels)}
    elif split:
        channels, padding = channels | {"split": [(0, finer.CHILDREN)]}, padding | {"split": [0]}
    seen = area.widened(evaluate.noise_reach(weights))
    levels = sorted({level for z in channels.values() for level, _ in z})
    far = dict.fromkeys(levels, 0)
    for name, wanted in channels.items():
        for (level, _), e in zip(wanted, padding[name], strict=True):
            far[level] = max(far[level], e)
    lattice = {
        level: noise.lattice(
            all_charts, index, level, far[level], seen.halved(level).widened(2 if level else 0)
        )
        for level in levels
    }
    out = {}
    for name, wanted in channels.items():
        key = seeds.integer(seed, "network", STREAMS[name])
        total = {level: sum(c for l, c in wanted if l == level) for level in levels}
        drawn = {
            level: noise.chart_noise(lattice[level], n, level, key) for level, n in total.items()
        }
        used = dict.fromkeys(levels, 0)
        parts = []
        for (level, c), e in zip(wanted, padding[name], strict=True):
            part = drawn[level][used[level] : used[level] + c]
            cut = far[level] - e
            parts.append(part[:, cut : part.shape[1] - cut, cut : part.shape[2] - cut])
            used[level] += c
        out[name] = parts
    return out
