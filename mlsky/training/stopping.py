"""When to stop: losses that no longer change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["LOSSES", "WINDOW", "converged", "remember"]

#: Steps in each of the two means.
WINDOW = 50
#: The losses of a step to which the rule applies, separately, by objective.
LOSSES = {"wgan-gp": ("critic", "generator"), "elbo": ("loss",)}


def remember(recent: dict[str, list[float]], objective: str, log: Mapping[str, float]) -> None:
    """Add the losses of a step to those of the last two windows, in place."""
    for name in LOSSES.get(objective, ()):
        if math.isfinite(log[name]):
            kept = recent.setdefault(name, [])
            kept.append(float(log[name]))
            del kept[: -2 * WINDOW]


def converged(recent: Mapping[str, Sequence[float]], tolerance: float) -> bool:
    """Whether the mean of the last 50 losses is within `tolerance` of that of the 50 before.

    Of every loss separately (critic and generator). The losses of a Wasserstein critic are
    differences that may cross zero, and are noisy: the rule can be met by chance, sooner the
    wider it is. Use it with a minimum of steps.
    """
    if not recent:
        return False
    for losses in recent.values():
        if len(losses) < 2 * WINDOW:
            return False
        before = sum(losses[-2 * WINDOW : -WINDOW]) / WINDOW
        now = sum(losses[-WINDOW:]) / WINDOW
        if abs(now - before) > tolerance * abs(before):
            return False
    return True
