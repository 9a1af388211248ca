"""A convergence of the user's own: checked, and completed where it holds no multipoles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky.sphere.geometry import Healpix

__all__ = ["Given", "complete", "parse"]

#: Values beyond this are masks, such as healpy.UNSEEN = -1.6e30, and no convergence.
LARGEST = 1e20

#: Rms that no convergence has: that of CMB lensing is below 0.2 on any pixels.
RMS_MAX = 1.0


@dataclass(frozen=True, eq=False)
class Given:
    """A checked kappa: a healpy-ordered alm up to `lmax`, or a RING map of `nside`."""

    values: NDArray
    lmax: int
    nside: int | None = None


def parse(kappa: ArrayLike) -> Given:
    """Check a kappa: a HEALPix RING map or a healpy-ordered alm, finite, dimensionless.

    Parameters
    ----------
    kappa
        (12 nside^2,) real, used up to l = 2 nside, where HEALPix quadrature is still good; or
        ((lmax+1)(lmax+2)/2,) complex. A Quantity must be dimensionless.

    Raises
    ------
    ValueError
        If the length, a value or the unit is not allowed.
    """
    unit = getattr(kappa, "unit", None)
    if unit is not None:
        if not unit.is_equivalent(""):
            raise ValueError(
                f"kappa in {unit}: must be the dimensionless convergence, L(L+1)/2 times the "
                "lensing potential; divide by its unit"
            )
        kappa = kappa.to_value("")
    values = np.asarray(kappa)
    if values.ndim != 1 or values.dtype.kind not in "iufc" or not values.size:
        raise ValueError(
            f"kappa of shape {values.shape} and type {values.dtype}: must be one HEALPix RING map "
            "(12 nside^2 real numbers) or one healpy-ordered alm ((lmax+1)(lmax+2)/2 complex ones)"
        )
    bad = int(np.count_nonzero(~(np.abs(values) < LARGEST)))
    if bad:
        raise ValueError(
            f"kappa has {bad} NaN, infinite or masked values of {values.size}: "
            "must be finite everywhere, fill them first"
        )
    given = _parse_alm(values) if values.dtype.kind == "c" else _parse_map(values)
    rms = _rms(given)
    if rms > RMS_MAX:
        raise ValueError(
            f"kappa has rms {rms:.3g}: must be the dimensionless convergence (that of the CMB has "
            f"less than 0.2, {RMS_MAX:g} is allowed); check its unit"
        )
    return given


def complete(
    given: Given, lmax: int, drawn: NDArray[np.complex128] | None = None
) -> NDArray[np.complex128]:
    """The alm of `given` up to `lmax`, with those of `drawn` where it holds none.

    Parameters
    ----------
    drawn
        Alm up to `lmax`; not needed if ``given.lmax >= lmax``.
    """
    alm = given.values
    if given.nside is not None:
        from mlsky.sphere import gaussian

        alm = gaussian.map_to_alm(given.values, Healpix(given.nside), given.lmax)
    if given.lmax == lmax:
        return alm
    out = np.zeros((lmax + 1) * (lmax + 2) // 2, np.complex128) if drawn is None else drawn.copy()
    top = min(lmax, given.lmax)
    for m in range(top + 1):
        out[_slice(m, top, lmax)] = alm[_slice(m, top, given.lmax)]
    return out


def _rms(given: Given) -> float:
    """Of the map, without its mean; of an alm, l > 0."""
    if given.nside is not None:
        return float(given.values.std())
    power = np.abs(given.values) ** 2
    zonal = power[: given.lmax + 1]
    return float(np.sqrt((2 * power.sum() - zonal.sum() - zonal[0]) / (4 * np.pi)))


def _slice(m: int, top: int, lmax: int) -> slice:
    """Where an alm of `lmax` keeps l = m..top of one m (healpy: m by m, l fastest)."""
    start = m * (2 * lmax + 1 - m) // 2
    return slice(start + m, start + top + 1)


def _parse_alm(values: NDArray) -> Given:
    lmax = round((np.sqrt(8.0 * values.size + 1) - 3) / 2)
    size = (lmax + 1) * (lmax + 2) // 2
    if size != values.size:
        raise ValueError(
            f"kappa alm of length {values.size}: must be (lmax+1)(lmax+2)/2 with mmax = lmax, "
            f"for example {size} for lmax={lmax}"
        )
    return Given(values.astype(np.complex128), lmax)


def _parse_map(values: NDArray) -> Given:
    side = np.sqrt(values.size / 12)
    nside = 1 << max(0, round(np.log2(side)))
    if 12 * nside**2 != values.size:
        raise ValueError(
            f"kappa map of length {values.size}: must be 12 nside^2 with nside a power of two, "
            f"for example {12 * nside**2} for nside={nside}"
        )
    return Given(values.astype(np.float64), 2 * nside, nside)
