"""The table of clusters of a sky, and tables of clusters given by the user."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.haloes.draw import HaloList, place_of, radial_velocities, redshift_range
from mlsky.haloes.profiles import Interpolation
from mlsky.theory.halo_model import C_KM_S
from mlsky.theory.objects import MASS_CUT, NEAR_MASS_CUT, is_object

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["COLUMNS", "check", "parse", "table"]

_log = logging.getLogger("mlsky")

#: Columns: unit and what they hold.
COLUMNS = {
    "ra": ("deg", "right ascension, ICRS"),
    "dec": ("deg", "declination, ICRS"),
    "z": ("", "cosmological redshift, without that of the peculiar velocity"),
    "m200m": ("solMass", "mass within 200 times the mean density of matter"),
    "m200c": ("solMass", "mass within 200 times the critical density"),
    "m500c": ("solMass", "mass within 500 times the critical density"),
    "y500": ("arcmin2", "Compton y integrated over the circle of radius theta500"),
    "theta500": ("arcmin", "angular radius of R500c"),
    "velocity": ("km/s", "radial peculiar velocity, positive if receding"),
}

#: Required columns of the user's table, and their units; "velocity" is optional.
REQUIRED = {"ra": "deg", "dec": "deg", "z": "", "m200m": "solMass"}

#: Largest peculiar velocity (km/s) allowed: the rms along a line of sight is 300.
VELOCITY_MAX = 5000.0

#: Fraction of a mass bin by which rounding may put a halo below its lower edge.
ON_BORDER = 1e-3


def table(haloes: HaloList, tables: dict, mass_cut: float = MASS_CUT) -> Table:
    """Catalogue of haloes, the most massive first.

    Parameters
    ----------
    haloes
        From `mlsky.haloes.draw.draw` or `parse`.
    tables
        From `mlsky.haloes.tables`.
    mass_cut
        With which the haloes were drawn.

    Returns
    -------
    table
        `astropy.table.Table` with the columns of `COLUMNS`. Compton y and angles are those of the
        painted profiles.
    """
    from astropy.table import Column, Table

    haloes = haloes[np.argsort(-haloes.log10_mass, kind="stable")]
    at = Interpolation.of(tables, haloes.z, haloes.log10_mass, mass_cut)
    values = {
        "ra": np.degrees(haloes.phi) % 360.0,
        "dec": 90.0 - np.degrees(haloes.theta),
        "z": haloes.z,
        "m200m": 10**haloes.log10_mass,
        "velocity": C_KM_S * haloes.velocity,
    }
    values |= {name: at.positive(tables[name]) for name in ("m200c", "m500c", "y500", "theta500")}
    columns = [
        Column(values[name].astype(np.float64), name=name, unit=unit or None, description=text)
        for name, (unit, text) in COLUMNS.items()
    ]
    return Table(columns, meta={"mass_cut": float(mass_cut)}, copy=False)


def parse(
    values: dict[str, NDArray[np.float64]],
    tables: dict,
    mass_cut: float = MASS_CUT,
    seed: int = 0,
    kappa_alm: NDArray[np.complex128] | None = None,
    kappa_cl: NDArray[np.float64] | None = None,
) -> HaloList:
    """The haloes of a user's table.

    Parameters
    ----------
    values
        From `check`.
    tables
        From `mlsky.haloes.tables`, of the sky's cosmology.
    mass_cut
        Lowest mass of an object. Lighter haloes are left out, as the networks paint them. The shell
        and mass bin of a halo decide (`mlsky.theory.objects.is_object`), as for the networks.
    seed, kappa_alm, kappa_cl
        See `mlsky.haloes.draw.draw`; used to draw velocities if none are given.
    """
    z, log10_mass = values["z"], np.log10(values["m200m"])
    _, shell = place_of(tables, z)
    grid = np.asarray(tables["log10_mass"], np.float64)
    # by shell and bin, as in the training of the networks; a mass on an edge belongs to the upper
    # bin
    bin_ = np.floor((log10_mass - grid[0]) / (grid[1] - grid[0]) + 0.5 + ON_BORDER).astype(np.int64)
    objects = is_object(tables["z"], grid, mass_cut)
    kept = (bin_ >= 0) & objects[shell, np.clip(bin_, 0, len(grid) - 1)]
    if not kept.any():
        _log.warning(
            "none of the %d haloes given is painted as a cluster, the heaviest has %.3g Msun: "
            "M200m must be %.3g Msun or more, nearby %.3g; the networks paint lighter ones",
            len(z),
            values["m200m"].max(),
            mass_cut,
            min(mass_cut, NEAR_MASS_CUT),
        )
    theta, phi = np.radians(90.0 - values["dec"]), np.radians(values["ra"] % 360.0)
    # galaxies depend on the position of a halo, to an arcsecond, and not on other rows
    row = np.rint((90.0 + values["dec"]) * 3600).astype(np.uint64)
    column = np.rint(values["ra"] * 3600).astype(np.int64) % (360 * 3600)
    key = row * np.uint64(360 * 3600) + column.astype(np.uint64)
    key |= shell.astype(np.uint64) << np.uint64(40)
    haloes = HaloList(theta, phi, z, log10_mass, np.zeros(len(z)), key)[kept]
    if "velocity" in values:
        velocity = values["velocity"][kept] / C_KM_S
    else:
        velocity = radial_velocities(tables, seed, haloes, kappa_alm, kappa_cl)
    return HaloList(haloes.theta, haloes.phi, haloes.z, haloes.log10_mass, velocity, haloes.key)


def check(catalogue, tables: dict) -> dict[str, NDArray[np.float64]]:
    """Columns of a user's table in the units of `REQUIRED` and km/s.

    Parameters
    ----------
    catalogue
        `astropy.table.Table`, or a mapping of Quantities, with columns ``ra``, ``dec`` (angles),
        ``z`` and ``m200m`` (mass), and ``velocity`` (radial, positive if receding) if it is
        known. Every column but ``z`` must state its unit.
    tables
        From `mlsky.haloes.tables`.

    Raises
    ------
    ValueError
        If a column or its unit is missing, or a value is out of range.
    """
    names = getattr(catalogue, "colnames", None)
    if names is None:
        names = list(catalogue) if hasattr(catalogue, "keys") else []
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise ValueError(
            f"haloes without column {', '.join(missing)}: must be an astropy Table, or a dict of "
            "Quantities, with ra, dec, z and m200m (velocity if known)"
        )
    units = {**REQUIRED, **({"velocity": "km/s"} if "velocity" in names else {})}
    values = {name: _in_unit(catalogue[name], name, unit) for name, unit in units.items()}
    n = len(values["z"])
    if not n or any(v.shape != (n,) for v in values.values()):
        shapes = ", ".join(f"{name} {v.shape}" for name, v in values.items())
        raise ValueError(
            f"haloes with columns {shapes}: must be 1-d, one entry per halo, and at least one"
        )
    low, high = redshift_range(tables)
    heaviest = 10 ** float(np.max(tables["log10_mass"]) + 0.025)
    ranges = {
        "ra": (-360.0, 360.0, "degrees"),
        "dec": (-90.0, 90.0, "degrees"),
        "z": (low, high, "the redshifts of the halo tables"),
        "m200m": (1e8, heaviest, "solar masses"),
        "velocity": (-VELOCITY_MAX, VELOCITY_MAX, "km/s"),
    }
    for name, column in values.items():
        least, most, what = ranges[name]
        bad = ~((column >= least) & (column <= most))
        if bad.any():
            row = int(np.argmax(bad))
            raise ValueError(
                f"haloes: {name}[{row}]={column[row]:g}: must be from {least:.4g} to {most:.4g} "
                f"({what}); correct or drop the row"
            )
    return values


def _in_unit(column, name: str, unit: str) -> NDArray[np.float64]:
    """A column as float64 in a unit."""
    from astropy import units

    mask = getattr(column, "mask", None)  # of a masked Column and of a masked Quantity alike
    if isinstance(mask, np.ndarray) and mask.any():
        raise ValueError(f"haloes: column {name} has masked entries; drop those rows")
    stated = getattr(column, "unit", None)
    if unit and stated is None:
        raise ValueError(
            f'haloes: column {name} states no unit; give it one, as table["{name}"].unit = "{unit}"'
        )
    try:
        values = np.asarray(column)
        if values.dtype.kind not in "iuf":
            raise TypeError(f"they are {values.dtype}")
        values = values.astype(np.float64)
        if stated is not None:
            return np.atleast_1d(units.Quantity(values, stated).to_value(unit))
    except (units.UnitsError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"haloes: column {name} must be numbers in {unit or 'no unit'}: {reason}"
        ) from None
    return np.atleast_1d(values)
