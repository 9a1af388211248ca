"""Radio sources: a power law in flux, with an index of its own for each source.

S_nu = S_148 (nu / 148 GHz)^alpha, alpha ~ N(-0.78, 0.3). With a scatter the bands are not
fully correlated, and the mean flux away from 148 GHz is exp(sigma^2 ln^2(nu/148) / 2) times
that of a source of mean index: 1.01 at 93, 1.14 at 27 GHz.
"""

from __future__ import annotations

import numpy as np

from mlsky.bands import dimensionless
from mlsky.components import REFERENCE_GHZ

__all__ = ["ALPHA_MEAN", "ALPHA_SCATTER", "flux", "index_of"]

#: Mean index of the flux: beta_s = -2.78 in Rayleigh-Jeans temperature, the posterior mean of
#: the ACT DR6 foreground model (Louis et al. 2025, arXiv:2503.14452), plus 2.
ALPHA_MEAN = -0.78

#: Scatter of the index from source to source. Our choice: DR6 fits one index to all sources.
ALPHA_SCATTER = 0.3


def index_of(normal) -> np.ndarray:
    """Spectral indices at 148 GHz from standard normal numbers, one for each source.

    Parameters
    ----------
    normal
        Any shape. The index grows with it, so that a source has one index by its number.

    Returns
    -------
    alpha
        The shape of `normal`.
    """
    return ALPHA_MEAN + ALPHA_SCATTER * np.asarray(normal, dtype=np.float64)


def flux(flux_mjy, alpha, nu_ghz, reference: float = REFERENCE_GHZ) -> np.ndarray:
    """Flux of radio sources at `nu_ghz`, S (nu / reference)^alpha.

    Parameters
    ----------
    flux_mjy, alpha
        Flux (mJy) at `reference` and spectral index of each source, *(n,)*.
    nu_ghz
        Frequencies (GHz), any shape.
    reference
        Frequency (GHz) of the fluxes.

    Returns
    -------
    flux_mjy
        mJy, *(*nu_ghz.shape, n)*.
    """
    dimensionless(nu_ghz)  # the check
    nu = np.asarray(nu_ghz, dtype=np.float64)[..., None]
    alpha = np.asarray(alpha, dtype=np.float64)
    return np.asarray(flux_mjy, dtype=np.float64) * np.exp(alpha * np.log(nu / reference))
