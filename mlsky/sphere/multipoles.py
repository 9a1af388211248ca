"""Positions of multipoles in alm of healpy's order, and truncation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlsky.sphere.gaussian import alm_lmax

__all__ = ["of_order", "truncate"]


def of_order(m: int, top: int, lmax: int) -> slice:
    """Slice of l = m..top of one m in an alm of `lmax` (healpy: m by m, l fastest)."""
    start = m * (2 * lmax + 1 - m) // 2
    return slice(start + m, start + top + 1)


def truncate(alm: NDArray[np.complex128], top: int) -> NDArray[np.complex128]:
    """The multipoles of an alm up to `top`: a copy, or `alm` itself if it has no higher ones."""
    lmax = alm_lmax(alm)
    if lmax <= top:
        return alm
    out = np.empty((top + 1) * (top + 2) // 2, np.complex128)
    for m in range(top + 1):
        out[of_order(m, top, top)] = alm[of_order(m, top, lmax)]
    return out
