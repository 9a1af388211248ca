"""Number counts of radio sources at 148 GHz, and fluxes drawn from them."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky.theory.radio_sources import FLUX_MAX_MJY, FLUX_MIN_MJY, radio_counts

__all__ = [
    "FLUX_MAX_MJY",
    "FLUX_MIN_MJY",
    "draw_radio_flux",
    "radio_counts",
    "radio_density",
    "rate_gain",
]


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


def rate_gain(mean_rate: float | None, pixel_sr: float, fraction: float = 1.0) -> float:
    """Factor on a network's rate of radio sources that gives the density of the counts.

    Parameters
    ----------
    mean_rate
        Mean of the network's rate over generated maps, sources per pixel; None: no factor.
    pixel_sr
        Solid angle of a pixel.
    fraction
        Fraction of all radio sources that the network paints; the others are in clusters.
    """
    return 1.0 if mean_rate is None else fraction * radio_density() * pixel_sr / mean_rate
