"""Pixel windows: the effect of averages over pixels on the multipoles of a map."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["square"]


def square(ell: ArrayLike, side_arcmin: float) -> NDArray[np.float64]:
    """Window of a square pixel: the root mean square over directions of its transform.

    Parameters
    ----------
    ell
        Multipoles, any shape.
    side_arcmin
        Side of the pixel; for HEALPix that of the square with the pixel's area.

    Returns
    -------
    window
        The shape of `ell`; multiplies the power of a map once squared.
    """
    x = np.asarray(ell, np.float64)[..., np.newaxis] * np.radians(side_arcmin / 60) / (2 * np.pi)
    angle = (np.arange(16) + 0.5) * np.pi / 32
    product = np.sinc(x * np.cos(angle)) * np.sinc(x * np.sin(angle))
    return np.sqrt((product**2).mean(-1))
