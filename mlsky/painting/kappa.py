"""Kappa of a sky: Gaussian on the largest scales, from the networks on smaller ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.sphere.gaussian import alm_lmax
from mlsky.sphere.multipoles import truncate

if TYPE_CHECKING:
    from mlsky.networks.weights import Weights
    from mlsky.painting.rescale import Rescaling

__all__ = [
    "KAPPA_JOIN",
    "gain",
    "join",
    "kappa_gain",
]

#: Tables of a calibration whose product is the gain of kappa.
KAPPA_GAINS = ("kappa", "kappa_sky")
#: Below the first multipole kappa is Gaussian, above the second it is the network's. Between them
#: the two are correlated with r = 0.99, so that little power is lost.
KAPPA_JOIN = (40, 120)


def kappa_gain(weights: Weights, ell: NDArray) -> NDArray[np.float64]:
    """Calibration of the networks' kappa at multipoles `ell`.

    The product of the gains measured on regions and on a sky, ``kappa`` and ``kappa_sky``.
    """
    calibration = weights.header.get("calibration", {})
    gain = np.ones(np.shape(ell))
    for table in filter(None, map(calibration.get, KAPPA_GAINS)):
        gain = gain * np.interp(ell, table["ell"], table["gain"])
    return gain


def join(alm: np.ndarray, gaussian_kappa: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """The network's kappa times a gain, with the Gaussian kappa on the largest scales.

    A network trained on patches knows no larger scales: there kappa *is* the Gaussian kappa, and
    low multipoles are never altered.
    """
    import healpy

    lmax = alm_lmax(alm)
    ell = np.arange(lmax + 1)
    phase = np.clip((ell - KAPPA_JOIN[0]) / (KAPPA_JOIN[1] - KAPPA_JOIN[0]), 0, 1)
    fraction = 0.5 - 0.5 * np.cos(np.pi * phase)
    low = np.zeros_like(alm)
    top = min(KAPPA_JOIN[1], alm_lmax(gaussian_kappa), lmax)
    part = truncate(gaussian_kappa, top)
    l, m = healpy.Alm.getlm(top)
    low[healpy.Alm.getidx(lmax, l, m)] = part
    return healpy.almxfl(alm, gain * fraction) + healpy.almxfl(low, 1 - fraction)


def gain(weights: Weights, rescaling: Rescaling | None) -> Callable | None:
    """Gain of the networks' kappa, from calibration and cosmology; None if it is one."""
    calibration = weights.header.get("calibration", {})
    if rescaling is None and not any(calibration.get(name) for name in KAPPA_GAINS):
        return None

    def of_multipole(ell: NDArray) -> NDArray[np.float64]:
        out = kappa_gain(weights, ell)
        return out if rescaling is None else out * rescaling.kappa_gain(ell)

    return of_multipole
