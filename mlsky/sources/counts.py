"""Number counts of radio sources at 148 GHz, and fluxes drawn from them."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "FLUX_MAX_MJY",
    "FLUX_MIN_MJY",
    "draw_radio_flux",
    "radio_counts",
    "radio_density",
    "rate_gain",
]

FLUX_MIN_MJY = 0.05  # fainter sources add 2.4e-3 of the Poisson power below 7 mJy
FLUX_MAX_MJY = 2000.0
#: log10(S^2.5 dN/dS [Jy^1.5/sr]) as a polynomial in log10(S/Jy), 0.05 mJy to 2 Jy: our geometric
#: mean (weighted .44 and .56) of model C2Ex of Tucci et al. 2011 (arXiv:1103.5707) and of
#: Lagache et al. 2020 (arXiv:1911.09466), whose Poisson power below 15 mJy is ACT DR6's
COUNTS = (1.15861, 0.25877, -0.29059, -0.19766, -0.05635, -0.00532)


def radio_counts(flux_jy: ArrayLike) -> NDArray[np.float64]:
    """Differential counts dN/dS at 148 GHz, per Jy and steradian."""
    flux_jy = np.asarray(flux_jy, np.float64)
    x = np.log10(flux_jy)
    return 10 ** sum(c * x**i for i, c in enumerate(COUNTS)) * flux_jy**-2.5


@functools.cache
def _cumulative() -> tuple[np.ndarray, np.ndarray]:
    """ln S (S in Jy) and sources per sr fainter than S."""
    flux = np.geomspace(FLUX_MIN_MJY, FLUX_MAX_MJY, 4000) * 1e-3
    dn = radio_counts(flux)
    below = np.concatenate([[0], np.cumsum(0.5 * (dn[1:] + dn[:-1]) * np.diff(flux))])
    return np.log(flux), below


def radio_density() -> float:
    """Radio sources per steradian between `FLUX_MIN_MJY` and `FLUX_MAX_MJY`."""
    return float(_cumulative()[1][-1])


def draw_radio_flux(uniform: ArrayLike) -> NDArray[np.float64]:
    """Fluxes (mJy at 148 GHz) of the counts from uniform numbers in (0, 1)."""
    log_flux, below = _cumulative()
    return 1e3 * np.exp(np.interp(np.asarray(uniform) * below[-1], below, log_flux))


def rate_gain(mean_rate: float | None, pixel_sr: float) -> float:
    """Factor on a network's rate of radio sources that gives the counts their density.

    Parameters
    ----------
    mean_rate
        Mean of the network's rate over generated maps, sources per pixel; None: no factor.
    pixel_sr
        Solid angle of a pixel.
    """
    return 1.0 if mean_rate is None else radio_density() * pixel_sr / mean_rate
