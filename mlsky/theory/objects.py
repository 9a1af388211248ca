"""The mass cut of objects: haloes drawn individually on the sphere, not painted by networks.

Haloes above a mass make most of the thermal SZ signal at all relevant multipoles, and are few. A
sky lists them and paints each of them. Networks paint the rest. The painter of training patches,
the analytic model and the sphere all use this module, so that nothing is painted twice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["MASS_CUT", "NEAR_MASS_CUT", "NEAR_Z", "check_mass_cut", "is_object", "mass_cut_at"]

#: Haloes above this mass (M200m, Msun) are objects at any redshift: they make 99 % of the tSZ
#: power at l = 1000 and 96 % at l = 3000, and there are 1.4 million of them.
MASS_CUT = 1e14
#: In shells whose centres lie below this redshift lighter haloes are objects too. There a halo of
#: 1e14 Msun is wider than 10 arcmin, so that a training patch of one or two degrees does not
#: contain its surroundings, and the lensing kernel of the CMB is too small for kappa to show it.
NEAR_Z = 0.2
NEAR_MASS_CUT = 1e13


def mass_cut_at(z: ArrayLike, mass_cut: float = MASS_CUT) -> NDArray[np.float64]:
    """Lowest mass (M200m, Msun) of an object at redshift `z`, the shape of `z`.

    Parameters
    ----------
    z
        Redshifts of shells or of haloes.
    mass_cut
        Lowest mass of an object at any redshift. Below `NEAR_Z` it is `NEAR_MASS_CUT` if that
        is less.
    """
    z = np.asarray(z, dtype=np.float64)
    return np.where(z < NEAR_Z, min(mass_cut, NEAR_MASS_CUT), mass_cut)


def is_object(
    z: ArrayLike, log10_mass: ArrayLike, mass_cut: float | None = MASS_CUT
) -> NDArray[np.bool_]:
    """Which bins of shell and mass are objects, *(n_shell, n_mass)*.

    Parameters
    ----------
    z
        Redshifts of the shells, *(n_shell,)*.
    log10_mass
        Centres of the bins of M200m (Msun), *(n_mass,)*.
    mass_cut
        As for `mass_cut_at`; None for no objects at all.
    """
    z, log10_mass = np.asarray(z, dtype=np.float64), np.asarray(log10_mass, dtype=np.float64)
    if mass_cut is None:
        return np.zeros((z.size, log10_mass.size), dtype=bool)
    return log10_mass >= np.log10(mass_cut_at(z, mass_cut))[:, np.newaxis] - 1e-6


def check_mass_cut(
    mass_cut: float | None, log10_mass: ArrayLike, name: str = "mass_cut"
) -> float | None:
    """Return `mass_cut` as a float, or None, checked against the bins of mass of tables.

    Parameters
    ----------
    mass_cut
        Lowest mass of an object, M200m in Msun.
    log10_mass
        Centres of the bins of M200m (Msun), evenly spaced.
    name
        Of the argument, for the message.

    Raises
    ------
    ValueError
        If it is not a number within the masses of the tables.
    """
    if mass_cut is None:
        return None
    centres = np.asarray(log10_mass, dtype=np.float64)
    half = (centres[-1] - centres[0]) / (len(centres) - 1) / 2
    low, high = 10 ** (centres[0] - half), 10 ** (centres[-1] + half)
    number = np.asarray(mass_cut)
    plain = number.ndim == 0 and number.dtype.kind in "iuf"
    if not plain or not low * (1 - 1e-4) <= number < high:
        raise ValueError(
            f"{name}={mass_cut!r}: must be a mass M200m in Msun from {low:.3g} to {high:.3g}, "
            "the range of the halo tables, or None for no objects"
        )
    return float(number)
