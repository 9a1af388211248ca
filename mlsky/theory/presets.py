"""Presets of the training truth: parameters fitted to one experiment or simulation each.

What each was fitted to, and what it reaches, is in docs/truth; `benchmarks/fit_truth.py` is the
fit.
"""

from __future__ import annotations

from mlsky.theory.halo_model import Parameters

__all__ = ["DEFAULT", "names", "parameters"]

DEFAULT = "act-dr6"

_ACT = Parameters()

_PRESETS = {
    #: Best fit of ACT DR6 (Louis et al. 2025, arXiv:2503.14452).
    "act-dr6": _ACT,
}


def names() -> tuple[str, ...]:
    """Names of the presets, the default first."""
    return tuple(_PRESETS)


def parameters(preset: str = DEFAULT) -> Parameters:
    """Parameters of a preset.

    Raises
    ------
    ValueError
        If there is no such preset.
    """
    if preset not in names():
        raise ValueError(f"preset={preset!r}: must be one of {', '.join(names())}")
    return _PRESETS[preset]
