"""Comparison of objects and rest of a painted set with their analytic spectra."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlsky.components import REFERENCE_GHZ
from mlsky.validation.observed import Model
from mlsky.validation.truth_sums import SPECTRA, Sums, compare, rounds

__all__ = ["figures"]


def figures(sums: Sums, model: Model, mass_cut: float) -> dict:
    """Spectra of the objects, of the rest, and of one with the other, painted and analytic.

    Parameters
    ----------
    sums
        Sums of regions with separate objects.
    model, mass_cut
        Of the set.

    Returns
    -------
    dict
        ``objects`` and ``rest``: by pair as `mlsky.validation.truth_sums.compare` gives them;
        ``cross``: both orders of a pair together, painted less analytic, over the analytic
        spectrum of the whole, with its error.
    """
    ell = model.t["ell"].astype(np.float64)

    def analytic(first: str, second: str) -> dict[str, NDArray[np.float64]]:
        part = (first, second)
        found = model.spectra(ell, REFERENCE_GHZ, part=part, mass_cut=mass_cut)
        return {name: sums.binned(ell, found[name]) for name in SPECTRA}

    out: dict = {"mass_cut": mass_cut, "objects": {}, "rest": {}, "cross": {}}
    for part in ("objects", "rest"):
        expected = analytic(part, part)
        for name, (a, b, _) in SPECTRA.items():
            powers = sums.power(f"{part}_{a}", f"{part}_{b}")
            out[part][name] = compare(sums, powers, expected[name])
    orders = ("objects", "rest"), ("rest", "objects")
    expected = [analytic(*order) for order in orders]
    whole = analytic("all", "all")
    for name, (a, b, _) in SPECTRA.items():
        powers = sum(sums.power(f"{one}_{a}", f"{other}_{b}") for one, other in orders)
        mean, error = sums.mean_and_error(powers)
        missed = (mean - sum(e[name] for e in expected)) / whole[name]
        error = np.abs(error / whole[name])
        out["cross"][name] = {"difference": rounds(missed), "error": rounds(error)}
    return out
