"""PySM's transform of maps: beam, rotation and other pixels, with its keywords checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments
from mlsky.sphere.geometry import Healpix

if TYPE_CHECKING:
    from astropy.units import Quantity

__all__ = ["apply", "check"]

#: Widest beam, arcmin: half of a great circle. Lowest lmax with polarisation, which has spin 2.
WIDEST_ARCMIN, LMAX_MIN = 180 * 60, 2

#: Multipoles per nside that a transform may ask for: a ring of HEALPix has 4 nside pixels.
LMAX_PER_NSIDE = 4

#: Rows of a full-sky CAR map, as of ``mlsky simulate --car``, and how near to a whole number
#: 180 degrees over the resolution must be for pixell.
ROWS, WHOLE = (1, 43200), 1e-6

#: healpy's letters of coordinate systems: equatorial (celestial), ecliptic, Galactic.
FRAMES = ("C", "E", "G")


def check(nside: int, given: dict) -> dict | None:
    """Keywords of PySM's transform, checked; None if there is nothing to do.

    Parameters
    ----------
    nside
        Of the maps.
    given
        Arguments of ``pysm3.apply_smoothing_and_coord_transform``; "rot" in healpy's letters.

    Raises
    ------
    ValueError
        If a value is not allowed, no map is asked for, or a beam is too short or given twice.
    """
    given = dict(given)
    for name in ("return_healpix", "return_car"):
        given[name] = arguments.boolean(name, given[name])
    if given["rot"] is not None:
        given["rot"] = _parse_coord(given["rot"])
    if given["return_car"] and given["output_car_resol"] is None:
        raise ValueError("return_car=True: give output_car_resol, for example 2 * u.arcmin")
    if not (given["return_healpix"] or given["return_car"]):
        raise ValueError("return_healpix=False: must be True unless return_car=True")
    if given["fwhm"] is not None:
        allowed = "an angle with its unit, from 0 to 180 degrees, for example 5 * u.arcmin"
        _arcmin("fwhm", given["fwhm"], allowed, 0, WIDEST_ARCMIN)
    if given["output_car_resol"] is not None:
        _check_resolution(given["output_car_resol"])
    out = nside
    if given["output_nside"] is not None:
        try:
            out = Healpix(given["output_nside"]).nside
        except ValueError as error:
            raise ValueError(f"output_{error}") from None
        given["output_nside"] = None if out == nside else out
    lmax = int((1.5 if out < nside else 2.5) * max(out, nside))  # PySM's own
    if given["lmax"] is not None:
        highest = LMAX_PER_NSIDE * max(out, nside)
        allowed = f"an integer from {LMAX_MIN} to {highest}, 4 nside; or None for {lmax}"
        given["lmax"] = lmax = arguments.integer(
            "lmax", given["lmax"], allowed, LMAX_MIN, max(LMAX_MIN, highest)
        )
    if given["beam_window"] is not None:
        if given["fwhm"] is not None:
            raise ValueError("fwhm and beam_window: give one of them")
        given["beam_window"] = _parse_window(given["beam_window"], lmax)
    changed = ("fwhm", "beam_window", "rot", "output_nside")
    if not given["return_car"] and all(given[name] is None for name in changed):
        return None
    if given["rot"] is not None:
        import healpy

        given["rot"] = healpy.Rotator(coord=given["rot"])
    return given


def apply(maps: Quantity, keywords: dict | None) -> Quantity:
    """Maps as PySM smooths, turns and resamples them; unchanged for None."""
    if keywords is None:
        return maps
    import pysm3

    return pysm3.apply_smoothing_and_coord_transform(maps, **keywords)


def _arcmin(name: str, value, allowed: str, low: float, high: float) -> float:
    """An angle, which must have a unit."""
    if getattr(value, "unit", None) is None:
        raise ValueError(f"{name}={arguments.short(value)}: must be {allowed}")
    return arguments.number(name, value, allowed, low, high, "arcmin")


def _parse_coord(value) -> tuple[str, str]:
    """Two of healpy's letters, from which and to which coordinates maps are turned."""
    if isinstance(value, (tuple, list)) and len(value) == 2:
        letters = tuple(one[:1].upper() if isinstance(one, str) else None for one in value)
        if set(letters) <= set(FRAMES):
            return letters
    raise ValueError(
        f"coord={arguments.short(value)}: must be two of C (equatorial), E (ecliptic) and "
        'G (Galactic), from and to, for example ("C", "G")'
    )


def _check_resolution(value) -> None:
    allowed = (
        "an angle with its unit that divides 180 degrees, from 0.25 arcmin up, for example "
        "2 * u.arcmin"
    )
    rows = WIDEST_ARCMIN / _arcmin("output_car_resol", value, allowed, 1e-3, WIDEST_ARCMIN)
    if not ROWS[0] <= round(rows) <= ROWS[1] or abs(rows - round(rows)) > WHOLE:
        raise ValueError(f"output_car_resol={arguments.short(value)}: must be {allowed}")


def _parse_window(window, lmax: int) -> NDArray[np.float64]:
    """(n,) or (3, n) finite factors of multipoles, up to `lmax` at least."""
    values = np.asarray(arguments.array("beam_window", window, "b_l from l = 0"), np.float64)
    if values.ndim not in (1, 2) or (values.ndim == 2 and len(values) != 3):
        raise ValueError(f"beam_window of shape {values.shape}: must be (n,), or (3, n)")
    if values.shape[-1] <= lmax:
        raise ValueError(
            f"beam_window of {values.shape[-1]} multipoles: must reach lmax={lmax}; give a longer "
            "one, or lmax="
        )
    if not np.isfinite(values).all():
        raise ValueError("beam_window has values that are not finite: must be finite everywhere")
    return values
