"""Cosmic infrared background: the mean colour, a modified blackbody.

S_nu ~ nu^beta B_nu(T_d) with T_d = 9.6 K and beta = 1.865, the CIB of the ACT DR6 foreground
model (Louis et al. 2025, arXiv:2503.14452; beta is the best fit, T_d is held fixed there).

This describes power spectra from 93 to 280 GHz (checked against the DR6 best fit to 0.1 per
cent in power) and is one colour for the whole sky. The mean colour, relative to 148 GHz, of the
halo model that paints the training truth differs from it by +0.1 % at 93 GHz, -0.9 % at 217,
-1.0 % at 225, -2.0 % at 280 and -3.5 % at 353 (in uK_CMB, galaxies below 7 mJy).
"""

from __future__ import annotations

import numpy as np

from mlsky.bands import BOLTZMANN_J_PER_K, PLANCK_J_S, dimensionless, jy_per_sr_per_uk
from mlsky.components import REFERENCE_GHZ

__all__ = ["BETA", "T_DUST_K", "factor", "flux", "index", "index_of"]

#: Effective (observed) dust temperature (K): held fixed in Louis et al. 2025, arXiv:2503.14452.
T_DUST_K = 9.6

#: Emissivity index: best fit of Louis et al. 2025, arXiv:2503.14452 (beta_p = beta_c).
BETA = 1.865


def factor(nu_ghz, reference: float = REFERENCE_GHZ):
    """Factor that takes a CIB map in uK_CMB from `reference` to `nu_ghz`.

    Parameters
    ----------
    nu_ghz
        Frequencies (GHz), any shape.
    reference
        Frequency (GHz) of the map.

    Returns
    -------
    factor
        uK_CMB/uK_CMB, the shape of `nu_ghz`; always positive.
    """
    to_uk = jy_per_sr_per_uk(reference) / jy_per_sr_per_uk(nu_ghz)
    return _intensity(nu_ghz) / _intensity(reference) * to_uk


def index(nu_ghz=REFERENCE_GHZ):
    """Local spectral index of the flux, d ln S / d ln nu; 3.45 at 148 GHz.

    Parameters
    ----------
    nu_ghz
        Frequencies (GHz), any shape.

    Returns
    -------
    alpha
        The shape of `nu_ghz`.
    """
    x = _dust_x(nu_ghz)
    return (BETA + 3 + x / np.expm1(-x))[()]


def index_of(normal) -> np.ndarray:
    """Spectral indices at 148 GHz from standard normal numbers: of every source that of the CIB.

    Parameters
    ----------
    normal
        One number for each source, any shape.

    Returns
    -------
    alpha
        The shape of `normal`.
    """
    return np.full(np.shape(normal), index())


def flux(flux_mjy, alpha, nu_ghz, reference: float = REFERENCE_GHZ) -> np.ndarray:
    """Flux of dusty sources at `nu_ghz`.

    The modified blackbody of the CIB, tilted by (nu/reference)^(alpha - index(reference)), so
    that `alpha` is the local index of each source at `reference` and ``alpha =
    index(reference)`` is the modified blackbody itself.

    Parameters
    ----------
    flux_mjy, alpha
        Flux (mJy) and spectral index of each source at `reference`, *(n,)*.
    nu_ghz
        Frequencies (GHz), any shape.
    reference
        Frequency (GHz) of the fluxes.

    Returns
    -------
    flux_mjy
        mJy, *(*nu_ghz.shape, n)*.
    """
    nu = np.asarray(nu_ghz, dtype=np.float64)[..., None]
    ratio = _intensity(nu) / _intensity(reference)
    tilt = np.asarray(alpha, dtype=np.float64) - index(reference)
    return np.asarray(flux_mjy, dtype=np.float64) * ratio * np.exp(tilt * np.log(nu / reference))


def _dust_x(nu_ghz):
    """h nu / (k T_d)."""
    dimensionless(nu_ghz)  # the check
    nu = np.asarray(nu_ghz, dtype=np.float64)
    return PLANCK_J_S * nu * 1e9 / (BOLTZMANN_J_PER_K * T_DUST_K)


def _intensity(nu_ghz):
    """Modified blackbody in intensity, any normalisation, the shape of `nu_ghz`."""
    x = _dust_x(nu_ghz)
    return (x ** (BETA + 3) / np.expm1(x))[()]
