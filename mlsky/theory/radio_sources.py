"""Radio sources of the training truth: counts at 148 GHz, hosts, and moments below a flux cut."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky.frequency import radio

__all__ = [
    "FLUX_MAX_MJY",
    "FLUX_MIN_MJY",
    "host_rate",
    "moment",
    "radio_counts",
    "redshifts",
]

#: Fainter sources, for counts extrapolated with their slope, add 3.7e-3 of the Poisson power
#: below 7 mJy.
FLUX_MIN_MJY = 0.05
FLUX_MAX_MJY = 2000.0
#: log10(S^2.5 dN/dS [Jy^1.5/sr]) as a polynomial in log10(S/Jy), 0.05 mJy to 2 Jy: our geometric
#: mean (weighted .44 and .56) of model C2Ex of Tucci et al. 2011 (arXiv:1103.5707) and of
#: Lagache et al. 2020 (arXiv:1911.09466), whose Poisson power below 15 mJy is ACT DR6's
COUNTS = (1.15861, 0.25877, -0.29059, -0.19766, -0.05635, -0.00532)

#: Lightest hosts of radio sources: 10^13 Msun (M200m), lower by 0.35 dex per unit of z above 1.5,
#: down to the painted 10^12.3. Bias 1.9, 2.1, 3.6 at z = .34, .5, 1.5 as measured (Lindsay et al.
#: 2014, Nusser & Tiwari 2015, Allison et al. 2015); see docs/decisions/0004.
HOST_LOG10_MASS = (13.0, 0.35, 1.5)
#: Rate of radio sources ~ M^0.65 (Wake et al. 2008, arXiv:0810.1050).
MASS_SLOPE = 0.65


def radio_counts(flux_jy: ArrayLike) -> NDArray[np.float64]:
    """Differential counts dN/dS at 148 GHz, per Jy and steradian."""
    flux_jy = np.asarray(flux_jy, np.float64)
    x = np.log10(flux_jy)
    return 10 ** sum(c * x**i for i, c in enumerate(COUNTS)) * flux_jy**-2.5


def redshifts(z: np.ndarray) -> np.ndarray:
    """dN/dz of radio sources at every flux, any normalisation: mean 1.5, see decision 0004."""
    return z**2 * (z + 0.25) ** -1.4 * np.exp(-z / 0.8)


def host_rate(
    z: np.ndarray, log10_mass: np.ndarray, number: np.ndarray, total: float = 1.0
) -> np.ndarray:
    """Mean number of radio sources of one halo, (n_shell, n_mass).

    Parameters
    ----------
    z : (n_shell,)
        Redshifts of the shells.
    log10_mass : (n_mass,)
        M200m in Msun.
    number : (n_shell, n_mass)
        Haloes per steradian.
    total
        Radio sources per steradian, ``(rate * number).sum()``.
    """
    top, slope, knee = HOST_LOG10_MASS
    lightest = top - slope * np.maximum(z - knee, 0)
    weight = 10 ** (MASS_SLOPE * (log10_mass - 13)) * (log10_mass >= lightest[:, None] - 1e-6)
    per_z = redshifts(z) * np.gradient(z)
    rate = weight * (per_z / (number * weight).sum(1))[:, None]
    return rate * total / (number * rate).sum()


@functools.cache
def _cumulative(order: int) -> tuple[np.ndarray, np.ndarray]:
    """ln S (S in Jy) and the integral of S^order dN/dS below it."""
    log_s = np.log(np.geomspace(FLUX_MIN_MJY, FLUX_MAX_MJY, 4000) * 1e-3)
    per_ln = np.exp((order + 1) * log_s) * radio_counts(np.exp(log_s))
    step = 0.5 * (per_ln[1:] + per_ln[:-1]) * np.diff(log_s)
    return log_s, np.concatenate([[0], np.cumsum(step)])


def moment(frequencies: tuple[float, ...], cut: tuple[float, float] | None = None) -> float:
    """Sum over sources fainter than a cut of the product of their fluxes, Jy^n/sr.

    Parameters
    ----------
    frequencies
        GHz, one for each factor: () counts the sources.
    cut
        Flux (Jy) and frequency (GHz), or None.

    Notes
    -----
    The integral over the counts at 148 GHz, from `FLUX_MIN_MJY` to the cut or `FLUX_MAX_MJY`,
    averaged over the spectral index (`mlsky.frequency.radio`) by Gauss-Hermite quadrature.
    """
    x, weight = np.polynomial.hermite_e.hermegauss(32)
    alpha = radio.ALPHA_MEAN + radio.ALPHA_SCATTER * x
    log_s, below = _cumulative(len(frequencies))
    if cut is None:
        value = np.full_like(alpha, below[-1])
    else:
        limit = np.log(cut[0]) - radio.log_colour(alpha, cut[1])
        value = np.interp(limit, log_s, below)
    colour = sum((radio.log_colour(alpha, nu) for nu in frequencies), np.zeros_like(alpha))
    return float((weight * value * np.exp(colour)).sum() / weight.sum())
