"""Round beams: their transform, and their profile on the sky."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments

__all__ = ["Beam", "of_table", "parse"]

#: Radius to which a profile is painted, in FWHM: 3e-8 of a Gaussian's peak, and the sidelobes
#: within it for other beams.
RADIUS_FWHM = 2.5

#: FWHM (arcmin) that are taken.
FWHM_ARCMIN = (0.05, 600.0)

#: Largest b_l at the end of a table that is shorter than a map needs: beyond it counts as zero.
LAST = 1e-2

_ALLOWED = (
    f"FWHM in arcmin from {FWHM_ARCMIN[0]:g} to {FWHM_ARCMIN[1]:g}, for example 1.4, or b_l from "
    "l = 0 as an array"
)

#: Points of the profile of a beam that is given by its transform.
POINTS = 400


@dataclass(frozen=True, eq=False)
class Beam:
    """A Gaussian, or any beam that is given by its transform.

    Attributes
    ----------
    fwhm_arcmin
        Full width at half maximum.
    b_ell
        (n,) transform from l = 0, one there; None for a Gaussian.
    """

    fwhm_arcmin: float
    b_ell: NDArray[np.float64] | None = None
    _radii: NDArray[np.float64] | None = field(default=None, repr=False)
    _values: NDArray[np.float64] | None = field(default=None, repr=False)

    @property
    def radius_arcmin(self) -> float:
        """Distance to which the profile is painted."""
        return RADIUS_FWHM * self.fwhm_arcmin

    @property
    def _sigma(self) -> float:
        return float(np.radians(self.fwhm_arcmin / 60) / np.sqrt(8 * np.log(2)))

    def transform(self, lmax: int) -> NDArray[np.float64]:
        """(lmax + 1,) factors of multipoles.

        Raises
        ------
        ValueError
            If the beam's table ends before, where it is not small yet.
        """
        ell = np.arange(lmax + 1)
        if self.b_ell is None:
            return np.exp(-0.5 * ell * (ell + 1) * self._sigma**2)
        out = np.zeros(lmax + 1)
        top = min(lmax + 1, len(self.b_ell))
        out[:top] = self.b_ell[:top]
        if top <= lmax and abs(self.b_ell[-1]) > LAST:
            raise ValueError(
                f"beam of {top} multipoles, {self.b_ell[-1]:.3g} at the last: the map has them up "
                f"to {lmax}; give a longer table, or one that falls below {LAST:g}"
            )
        return out

    def profile(self, radius_rad: NDArray) -> NDArray[np.float64]:
        """Response per steradian at distances (rad); its integral over the sky is one."""
        radius = np.asarray(radius_rad, np.float64)
        if self.b_ell is None:
            peak = 1 / (2 * np.pi * self._sigma**2)
            return peak * np.exp(-0.5 * (radius / self._sigma) ** 2)
        return np.interp(radius, self._radii, self._values, right=0.0)

    def describe(self) -> str:
        """In words, for the provenance."""
        kind = "Gaussian" if self.b_ell is None else f"{len(self.b_ell)} multipoles"
        return f"{kind}, FWHM {self.fwhm_arcmin:.4g} arcmin"


def parse(beam, count: int) -> list[Beam]:
    """One beam per band.

    Parameters
    ----------
    beam
        FWHM in arcmin or a Quantity, or b_l from l = 0 as a one-dimensional array, for all bands;
        or a list of these, one per band. An array with a unit of angle is such a list. `Beam`
        objects are taken as they are.
    count
        Number of bands.

    Raises
    ------
    ValueError
        If a beam is not positive and finite, a table too short, or there is another number of
        them than of bands.
    """
    if isinstance(beam, Beam):
        return [beam] * count
    if _has_unit(beam) and np.ndim(getattr(beam, "value", beam)) == 1:
        beam = arguments.array("beam", beam, _ALLOWED, "arcmin").tolist()
    if isinstance(beam, (list, tuple)):
        if len(beam) != count:
            raise ValueError(
                f"{len(beam)} beams for {count} bands: give one for all, or one for each; a table "
                "of multipoles must be an array"
            )
        return [one if isinstance(one, Beam) else _parse_one(one) for one in beam]
    return [_parse_one(beam, count)] * count


def _has_unit(beam) -> bool:
    """Whether a beam has a unit other than 1: then it is no table, whose values have none."""
    unit = getattr(beam, "unit", None)
    return unit is not None and getattr(unit, "physical_type", None) != "dimensionless"


def _parse_one(beam, count: int = 1) -> Beam:
    """One beam; errors are for a caller who has `count` bands."""
    if np.ndim(getattr(beam, "value", beam)) == 0:
        return Beam(arguments.number("beam", beam, _ALLOWED, *FWHM_ARCMIN, unit="arcmin"))
    table = arguments.array("beam", beam, _ALLOWED).astype(np.float64)
    # as many values as bands, and no table that ends where it is small: FWHM are meant
    ends = table.ravel()[[0, -1]] if table.size else np.zeros(2)
    meant = len(table) == count > 1 and abs(ends[1]) > LAST * abs(ends[0])
    if table.ndim != 1 or len(table) < 3 or meant:
        raise ValueError(
            f"beam of shape {table.shape}: an array must be b_l from l = 0, three values or more; "
            "give FWHM in arcmin, or arrays, of several bands as a list, for example "
            "beam=[2.2, 1.4], or FWHM as an array with a unit"
        )
    if not np.isfinite(table).all() or table[0] <= 0:
        bad = int(np.argmax(~np.isfinite(table)))
        raise ValueError(f"beam: {table[bad]:g} at l={bad}; must be finite, and positive at l=0")
    return of_table(table / table[0])


def of_table(b_ell: NDArray[np.float64]) -> Beam:
    """A beam with its profile, B(theta) = sum_l (2l + 1) / (4 pi) b_l P_l(cos theta)."""
    ell = np.arange(len(b_ell))
    weights = (2 * ell + 1) / (4 * np.pi) * b_ell
    # the width of a Gaussian of the same response to white noise sets the scale
    sigma = np.sqrt(
        1 / (4 * np.pi * max(float(((2 * ell + 1) / (4 * np.pi) * b_ell**2).sum()), 1e-9))
    )
    radii = np.linspace(0, 6 * sigma, 4 * POINTS)
    values = _legendre_sum(weights, np.cos(radii))
    below = np.flatnonzero(values < values[0] / 2)
    if values[0] <= 0 or not below.size:
        raise ValueError("beam: its profile has no half maximum; must be a round beam")
    fwhm = 2 * float(radii[below[0]])
    arcmin = float(np.degrees(fwhm) * 60)
    if arcmin > FWHM_ARCMIN[1] and abs(b_ell[-1]) <= LAST:
        raise ValueError(
            f"beam: a table with a FWHM of {arcmin:.4g} arcmin; must be at most {FWHM_ARCMIN[1]:g}"
        )
    radii = np.linspace(0, min(RADIUS_FWHM * fwhm, np.pi), POINTS)
    values = _legendre_sum(weights, np.cos(radii))
    inside = 2 * np.pi * np.trapezoid(values * np.sin(radii), radii)
    return Beam(arcmin, b_ell, radii, values / inside)


def _legendre_sum(weights: NDArray, x: NDArray) -> NDArray[np.float64]:
    """Sum of weights[l] P_l(x), by the recurrence of Legendre polynomials."""
    before, now = np.ones_like(x), x.copy()
    out = weights[0] * before + weights[1] * now
    for l in range(2, len(weights)):
        before, now = now, ((2 * l - 1) * x * now - (l - 1) * before) / l
        out += weights[l] * now
    return out
