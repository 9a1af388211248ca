"""Radio sources: a curved power law in flux with a different index for each source.

ln S_nu / S_148 = alpha L + c L^2 / 2 with L = ln(nu / 148 GHz): alpha ~ N(-0.78, 0.42) is the index
at 148 GHz, and c = -0.35 the curvature, the same for all. As c = -2 sigma^2, power spectra scale as
for sources with the mean index, which ACT DR6 fits: scatter increases the power at other bands as
much as curvature reduces it. Spectra are flat at 20 GHz (median index -0.07) and steepen to -1.1 at
353 GHz. Bands decorrelate: r of their power is exp(-sigma^2 ln^2(nu / nu') / 2), 0.979 between 93
and 150 GHz, 0.937 between 93 and 220.

The law is compared with counts and indices from 20 to 280 GHz; beyond 353 GHz it is an
extrapolation, where radio sources are negligible beside the CIB.
"""

from __future__ import annotations

import numpy as np

from mlsky.components import REFERENCE_GHZ
from mlsky.frequency.bands import dimensionless

__all__ = ["ALPHA_MEAN", "ALPHA_SCATTER", "CURVATURE", "flux", "index_of", "log_colour"]

#: Mean index of the flux: beta_s = -2.78 in Rayleigh-Jeans temperature, the posterior mean of
#: the ACT DR6 foreground model (Louis et al. 2025, arXiv:2503.14452), plus 2.
ALPHA_MEAN = -0.78

#: Scatter of the index from source to source. Our choice, supported by two measurements (decision
#: 0010): the median index from 20 to 148 GHz of sources above 50 mJy at 148, -0.39 +- 0.04
#: (Marriage et al. 2011, arXiv:1007.5256; -0.43 here), and the counts at 31 GHz, (16.7 +- 1.7) per
#: square degree above 1 mJy (Mason et al. 2009, arXiv:0901.4330), which a scatter raises.
ALPHA_SCATTER = 0.42

#: Curvature d^2 ln S / d (ln nu)^2: keeps the scaling of power spectra at the index of DR6.
CURVATURE = -2 * ALPHA_SCATTER**2


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
    """Flux of radio sources at `nu_ghz`, of index `alpha` at the reference, with `CURVATURE`.

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
    return np.asarray(flux_mjy, dtype=np.float64) * np.exp(log_colour(alpha, nu, reference))


def log_colour(alpha, nu_ghz, reference: float = REFERENCE_GHZ):
    """ln of the flux at `nu_ghz` over that at the reference; any arrays that broadcast."""
    lever = np.log(np.asarray(nu_ghz) / reference)
    return alpha * lever + 0.5 * CURVATURE * lever**2
