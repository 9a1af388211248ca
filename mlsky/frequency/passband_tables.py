"""Tables of frequency and response: read from files, checked, integrated."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments
from mlsky.io.files import open_regular

__all__ = ["CONVENTIONS", "EXAMPLE", "read", "response", "trapezoid"]

#: Quantity that the weights of a passband respond to, and the power of frequency that converts them
#: to a response to intensity: intensity itself (PySM, Planck HFI), Rayleigh-Jeans temperature (2 k
#: nu^2 / c^2 of intensity; the files of ACT DR6), or the number of photons (intensity over h nu).
CONVENTIONS = {"power": 0, "rj": -2, "photon": -1}

EXAMPLE = 'for example mlsky.Band([140, 150, 160], [0.5, 1, 0.5], name="f150")'

#: The largest file of a passband that is read, our choice: a million frequencies.
FILE_BYTES = 2**26


def read(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies (GHz) and weights of a file, not checked.

    Text of two columns or more, or an IPAC table (``.tbl``) as those of mapsims.

    Raises
    ------
    ValueError
        If it cannot be read as one of the two formats.
    """
    try:
        with open_regular(path, FILE_BYTES) as file:
            text = file.read().decode()
        if path.suffix.lower() != ".tbl":
            table = np.loadtxt(io.StringIO(text), ndmin=2)
            if table.shape[1] < 2:
                raise ValueError(f"{table.shape[1]} column, two are needed")
            return table[:, 0], table[:, 1]
        from astropy import units
        from astropy.table import QTable

        found = QTable.read(text.splitlines(), format="ascii.ipac")
        nu, weights = found["bandpass_frequency"], found["bandpass_weight"]
        return (units.Quantity(nu, nu.unit or "GHz").to_value("GHz"), np.asarray(weights, float))
    except (OSError, ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        reason = arguments.short(" ".join(str(error).split()), 120).strip("'\"")
        raise ValueError(
            f"{path}: cannot be read ({reason}); must be two columns, GHz and response, or an IPAC "
            "table with bandpass_frequency and bandpass_weight"
        ) from None


def response(weights, nu: NDArray, convention: str) -> NDArray[np.float64]:
    """Response to intensity at `nu`, checked, of any normalisation."""
    if weights is None:
        values = np.ones(len(nu))
    else:
        what = f"one per frequency, {len(nu)} of them, {EXAMPLE}"
        values = np.atleast_1d(arguments.array("weights", weights, what)).astype(np.float64)
        if values.shape != nu.shape:
            raise ValueError(f"weights of shape {values.shape}: must be {what}")
    for bad, why in (
        (~np.isfinite(values), "finite"),
        (values < 0, "zero or positive: set what noise made negative to zero"),
    ):
        if bad.any():
            at = int(np.argmax(bad))
            raise ValueError(f"weights: {values[at]:g} at {nu[at]:g} GHz, must be {why}")
    if not values.any():
        raise ValueError(f"weights are all zero: must be positive somewhere, {EXAMPLE}")
    # relative to the middle of the band, so that no power of a frequency overflows
    return values * (nu / nu[len(nu) // 2]) ** CONVENTIONS[convention]


def trapezoid(nu: NDArray) -> NDArray[np.float64]:
    """Weights of the trapezoidal rule at `nu`; 1 for a single point."""
    if len(nu) == 1:
        return np.ones(1)
    step = np.diff(nu)
    return 0.5 * (np.append(step, 0.0) + np.insert(step, 0, 0.0))
