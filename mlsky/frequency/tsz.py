"""Thermal Sunyaev-Zel'dovich effect at a single frequency.

Sunyaev & Zel'dovich 1972; Carlstrom et al. 2002, doi:10.1146/annurev.astro.40.060401.093803, eqs.
1-2: dT/T_CMB = y f(x) with f(x) = x coth(x/2) - 4 and x = h nu / (k T_CMB). Corrections for gas of
several keV (their eq. 2, delta_SZE) are in `mlsky.frequency.relativistic`.
"""

from __future__ import annotations

import numpy as np

from mlsky.components import REFERENCE_GHZ
from mlsky.frequency import relativistic
from mlsky.frequency.bands import T_CMB_K, dimensionless

__all__ = ["factor", "spectral_function", "uk_per_y"]


def spectral_function(nu_ghz):
    """f(x) = x coth(x/2) - 4 (Carlstrom et al. 2002, eq. 2), zero at 217.5 GHz.

    Parameters
    ----------
    nu_ghz
        Frequencies (GHz), any shape.

    Returns
    -------
    f
        The shape of `nu_ghz`; -2 at low frequency, positive above the null.
    """
    x = dimensionless(nu_ghz)
    return (x / np.tanh(x / 2) - 4.0)[()]


def factor(nu_ghz, reference: float = REFERENCE_GHZ, temperature_kev: float | None = None):
    """f(nu) / f(reference): takes a tSZ map in uK_CMB from `reference` to `nu_ghz`.

    Parameters
    ----------
    nu_ghz
        Frequencies (GHz), any shape.
    reference
        Frequency (GHz) of the map; not the null. The map is made without relativistic corrections.
    temperature_kev
        Electron temperature of all gas, for f with corrections at `nu_ghz`; none by default.

    Returns
    -------
    factor
        uK_CMB/uK_CMB, the shape of `nu_ghz`; negative above the null.
    """
    if temperature_kev is None:
        return spectral_function(nu_ghz) / spectral_function(reference)
    return relativistic.spectral_function(nu_ghz, temperature_kev) / spectral_function(reference)


def uk_per_y(nu_ghz):
    """T_CMB f(nu) in uK_CMB for Compton y = 1 (Carlstrom et al. 2002, eq. 1)."""
    return 1e6 * T_CMB_K * spectral_function(nu_ghz)
