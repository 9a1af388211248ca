"""The catalogue of a sky for other programs: PySM, toast, tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.io import skies
from mlsky.sources import catalogue

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["SUFFIXES", "write"]

#: Formats by suffix.
SUFFIXES = (".h5", ".hdf5", ".toml", ".fits", ".ecsv")

#: Range (GHz) of the polynomials in ln nu for PySM, which has no other form of a spectrum, by kind,
#: and their degree: right to 3e-3 of a flux, our choice. Fluxes of DSFGs rise too steeply for more.
PYSM_GHZ, PYSM_DEGREE, PYSM_POINTS = {"radio": (20.0, 400.0), "dsfg": (70.0, 350.0)}, 10, 60

#: Frequencies of the spectra for toast, which interpolates them in logarithms.
TOAST_GHZ = np.round(np.geomspace(20.0, 900.0, 33), 3)


def write(table: Table, path: str | os.PathLike, overwrite: bool = False) -> None:
    """Write a catalogue of `mlsky.Sky`; the suffix selects the format.

    As `mlsky.sky.Sky.write_catalog`.
    """
    path = skies.check(path, overwrite, SUFFIXES)
    suffix = path.suffix.lower()
    with skies.beside(path) as part:
        if suffix in (".h5", ".hdf5"):
            _pysm(table[np.asarray(table["in_map"])], part)
        elif suffix == ".toml":
            _toast(table[np.asarray(table["in_map"])], part)
        else:
            form = "fits" if suffix == ".fits" else "ascii.ecsv"
            table.write(part, format=form, overwrite=True)


def _pysm(table: Table, path: Path) -> None:
    """HDF5 as `pysm3.PointSourceCatalog` reads it: (power, source) coefficients of the flux, Jy."""
    import h5py

    coefficients = np.empty((PYSM_DEGREE + 1, len(table)))
    for kind, ends in PYSM_GHZ.items():
        chosen = np.flatnonzero(np.asarray(table["kind"]) == kind)
        coefficients[:, chosen] = _polynomials(table[chosen], ends)
    values = {
        "theta": (np.radians(90 - np.asarray(table["dec"], np.float64)), "rad"),
        "phi": (np.radians(np.asarray(table["ra"], np.float64)), "rad"),
        "logpolycoefflux": (coefficients, "Jy"),
        "logpolycoefpolflux": (coefficients * np.asarray(table["pol_frac"], np.float64), "Jy"),
    }
    with h5py.File(path, "w") as file:
        for name, (array, unit) in values.items():
            file[name] = array
            file[name].attrs["units"] = np.bytes_(unit)
        for kind, ends in PYSM_GHZ.items():
            file.attrs[f"ghz_{kind}"] = ends


def _polynomials(table: Table, ends_ghz: tuple[float, float]) -> NDArray[np.float64]:
    """(degree + 1, n) coefficients of the fluxes (Jy) in ln(nu / GHz), highest power first."""
    low, high = np.log(ends_ghz)
    node = np.polynomial.chebyshev.chebpts1(PYSM_POINTS)
    x = (low + high) / 2 + (high - low) / 2 * node
    flux = 1e-3 * catalogue.band_fluxes(table, np.exp(x)) if len(table) else np.empty((len(x), 0))
    powers = x[:, np.newaxis] ** np.arange(PYSM_DEGREE, -1, -1)
    basis = np.polynomial.chebyshev.chebvander(node, PYSM_DEGREE)
    to_powers = np.linalg.lstsq(powers, basis, rcond=None)[0]
    coefficients = np.empty((PYSM_DEGREE + 1, len(table)))
    for row in range(len(table)):  # relative errors count
        weight = 1 / flux[:, row]
        fit = np.linalg.lstsq(basis * weight[:, np.newaxis], np.ones(len(x)), rcond=None)[0]
        coefficients[:, row] = to_powers @ fit
    return coefficients


def _toast(table: Table, path: Path) -> None:
    """TOML as toast's SimCatalog reads it."""
    flux = catalogue.band_fluxes(table, TOAST_GHZ) if len(table) else None
    freqs = ", ".join(f"{nu:g}" for nu in TOAST_GHZ)
    with path.open("w", encoding="utf-8") as file:
        file.write(
            "# mlsky sources; ra_deg, dec_deg: ICRS, degrees; freqs_ghz: GHz; flux_density_mJy: "
            "mJy;\n# pol_angle_deg: degrees, COSMO convention\n"
        )
        for row, source in enumerate(table):
            fluxes = ", ".join(f"{value:.6g}" for value in flux[:, row])
            file.write(
                f"\n[source_{row:07d}]\nra_deg = {source['ra']:.8f}\ndec_deg = {source['dec']:.8f}"
                f"\nfreqs_ghz = [{freqs}]\nflux_density_mJy = [{fluxes}]"
                f"\npol_frac = {source['pol_frac']:.6f}"
                f"\npol_angle_deg = {source['pol_angle']:.5f}\n"
            )
