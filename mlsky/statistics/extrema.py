"""Maxima and minima of maps by height, and how many a Gaussian field has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky.statistics import onepoint
from mlsky.statistics.checks import images

__all__ = ["counts", "of_gaussian"]


def counts(field: NDArray, thresholds: Sequence[float], periodic: bool = True) -> NDArray[np.int64]:
    """Maxima above and minima below each threshold (2, thresholds) of a map (n, n).

    A maximum is higher, a minimum lower than its eight neighbours.

    Parameters
    ----------
    field
        The map; smooth it first, or noise decides.
    thresholds
        In the unit of the map, rising.
    periodic
        Whether opposite edges join; if not, pixels at the edges are left out.

    Raises
    ------
    ValueError
        If it is not one square map, or not finite.
    """
    field = images(field, name="field")
    if field.ndim != 2:
        raise ValueError(f"field of shape {field.shape}: must be one map, (n, n)")
    above = onepoint.peaks(field, thresholds, periodic)
    below = onepoint.peaks(-field, [-t for t in thresholds], periodic)
    return np.stack([above, below])


def of_gaussian(nu: ArrayLike, sigmas: tuple[float, float, float]) -> NDArray[np.float64]:
    """Maxima above each height per unit area, expected of an isotropic Gaussian field.

    Minima below minus the height are as many.

    Parameters
    ----------
    nu
        Heights in standard deviations.
    sigmas
        Standard deviation of the field, of its gradient and of its Laplacian: root of the
        sums of C_l l^0, l^2 and l^4.

    Notes
    -----
    Bond & Efstathiou 1987 (MNRAS 226, 655), eqs A1.6 to A1.9 of two dimensions.
    """
    from scipy.integrate import quad
    from scipy.special import erfc

    gamma, radius = sigmas[1] ** 2 / (sigmas[0] * sigmas[2]), np.sqrt(2) * sigmas[1] / sigmas[2]
    narrow, wide = 1 - gamma**2, 3 - 2 * gamma**2

    def density(x: float) -> float:
        y = gamma * x
        inside = 1 - erfc(y / np.sqrt(2 * narrow)) / 2
        shape = (y**2 - gamma**2) * inside
        shape += y * narrow * np.exp(-(y**2) / (2 * narrow)) / np.sqrt(2 * np.pi * narrow)
        inside = 1 - erfc(y / np.sqrt(2 * narrow * wide)) / 2
        shape += np.exp(-(y**2) / wide) / np.sqrt(wide) * inside
        return np.exp(-(x**2) / 2) * shape / (2 * np.pi) ** 1.5 / radius**2

    return np.array([quad(density, x, 12, epsrel=1e-8)[0] for x in np.atleast_1d(nu)])
