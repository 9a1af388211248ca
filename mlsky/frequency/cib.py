"""Cosmic infrared background: the mean colour, a modified blackbody.

S_nu ~ nu^beta B_nu(T_d) with T_d = 9.6 K and beta = 1.865, the CIB of the ACT DR6 foreground
model (Louis et al. 2025, arXiv:2503.14452; beta is the best fit, T_d is held fixed there).

This describes power spectra from 93 to 280 GHz (checked against the DR6 best fit to 0.1 per cent in
power) and has one colour for the whole sky. It is the law for weight files that paint the CIB only
at 148 GHz, and the mean law of sources. The mean colour, relative to 148 GHz, of the halo model
that paints the training truth differs from it by +0.1 % at 93 GHz, -0.9 % at 217, -1.0 % at 225,
-2.0 % at 280 and -3.5 % at 353 (in uK_CMB, galaxies below 7 mJy). Above 353 GHz, where one modified
blackbody does not hold, the colour continues as that of the halo model
(`mlsky.frequency.cib_templates`), which is fitted to Planck's monopole to 857 GHz. Skies whose
weights paint several templates have many colours and do not use this law for their maps.
"""

from __future__ import annotations

import numpy as np

from mlsky.components import REFERENCE_GHZ
from mlsky.frequency import cib_templates
from mlsky.frequency.bands import BOLTZMANN_J_PER_K, PLANCK_J_S, dimensionless, jy_per_sr_per_uk

__all__ = ["BETA", "T_DUST_K", "factor", "flux", "index", "index_of"]

#: Effective (observed) dust temperature (K): held fixed in Louis et al. 2025, arXiv:2503.14452.
T_DUST_K = 9.6

#: Emissivity index: best fit of Louis et al. 2025, arXiv:2503.14452 (beta_p = beta_c).
BETA = 1.865

#: Highest frequency (GHz) of the modified blackbody.
BLACKBODY_MAX_GHZ = 353.0

#: For galaxies of a flux at 148 GHz (mJy) in the halo model ("act-dr6"): their mean index there,
#: and its scatter due to redshift (`mlsky.theory.infrared`, whose test repeats it).
INDEX_BY_FLUX = (
    (0.5, 3.449, 0.100),
    (1.0, 3.452, 0.108),
    (2.0, 3.471, 0.125),
    (3.0, 3.499, 0.136),
    (5.0, 3.556, 0.138),
    (7.0, 3.598, 0.122),
    (10.0, 3.632, 0.094),
    (15.0, 3.654, 0.061),
    (30.0, 3.666, 0.024),
    (100.0, 3.669, 0.004),
)

#: Scatter of the emissivity index from galaxy to galaxy, `cib_beta_scatter` of the halo model.
EMISSIVITY_SCATTER = 0.2

#: Fraction of the variance of the index due to redshift: 0.1^2 of 0.1^2 + 0.2^2.
REDSHIFT_FRACTION = 0.2


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


def index_of(normal, flux_mjy) -> np.ndarray:
    """Spectral indices of infrared galaxies at 148 GHz, from standard normal numbers.

    A normal distribution with mean and scatter of the galaxies of that flux in the halo model:
    those brighter than 10 mJy are nearby and warm, fainter ones are at all redshifts. The
    emissivity index also scatters.

    Parameters
    ----------
    normal
        One number for each source, any shape. The index grows with it.
    flux_mjy
        Fluxes at 148 GHz (mJy), a shape that broadcasts with it.

    Returns
    -------
    alpha
        The common shape.
    """
    with np.errstate(divide="ignore"):  # no flux: the faintest of the table
        log_flux = np.log(np.asarray(flux_mjy, np.float64))
    flux, mean, redshifts = np.array(INDEX_BY_FLUX).T
    mean, redshifts = (np.interp(log_flux, np.log(flux), v) for v in (mean, redshifts))
    return mean + np.hypot(redshifts, EMISSIVITY_SCATTER) * np.asarray(normal, np.float64)


def flux(flux_mjy, alpha, nu_ghz, reference: float = REFERENCE_GHZ) -> np.ndarray:
    """Flux of dusty sources at `nu_ghz`.

    The mean colour of the CIB, tilted so that `alpha` is the local index of each source at
    `reference`: by a power law for the part of the scatter due to the emissivity index, by another
    temperature for the part due to redshift.

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

    Notes
    -----
    The mean over sources of one index, good to a per cent from 90 to 353 GHz. At 857 GHz sources
    scatter about it by 0.4 in ln S, and nearby ones above 7 mJy are brighter by half.
    """
    nu = np.asarray(nu_ghz, dtype=np.float64)[..., None]
    ratio = _intensity(nu) / _intensity(reference)
    tilt = np.asarray(alpha, dtype=np.float64) - index(reference)
    return np.asarray(flux_mjy, dtype=np.float64) * ratio * np.exp(tilt * _lever(nu, reference))


def _lever(nu_ghz, reference: float):
    """d ln(S_nu / S_reference) / d alpha, the shape of `nu_ghz`."""
    x, x_0 = _dust_x(nu_ghz), _dust_x(reference)
    # of a blackbody of varying temperature: ratio of x / (1 - exp(-x)) to that at the reference
    slope = x_0 / -np.expm1(-x_0)
    of_temperature = (x / -np.expm1(-x) - slope) / (slope * (1 - x_0 / np.expm1(x_0)))
    power_law = np.log(np.asarray(nu_ghz) / reference)
    return REDSHIFT_FRACTION * of_temperature + (1 - REDSHIFT_FRACTION) * power_law


def _dust_x(nu_ghz):
    """h nu / (k T_d)."""
    dimensionless(nu_ghz)  # the check
    nu = np.asarray(nu_ghz, dtype=np.float64)
    return PLANCK_J_S * nu * 1e9 / (BOLTZMANN_J_PER_K * T_DUST_K)


def _intensity(nu_ghz):
    """Mean intensity, any normalisation, the shape of `nu_ghz`."""
    nu = np.asarray(nu_ghz, dtype=np.float64)
    low = np.minimum(nu, BLACKBODY_MAX_GHZ)
    x = _dust_x(low)
    out = x ** (BETA + 3) / np.expm1(x)
    if np.any(nu > low):
        law = cib_templates.load()
        ends = (law.colour(v) * jy_per_sr_per_uk(v) for v in (np.maximum(nu, low), low))
        out = np.where(nu > low, out * np.divide(*ends), out)
    return out[()]
