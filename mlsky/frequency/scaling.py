"""Scaling of each field with frequency: tSZ, CIB, radio and flat laws.

tSZ, CIB and flat fields have one factor per band for the whole map (`factor`); radio sources
have one spectral index each (`mlsky.frequency.radio`). One CIB factor per band means that the
CIB maps of two bands are fully correlated; in the sky they are a few per cent less so.
"""

from __future__ import annotations

import numpy as np

from mlsky.components import REFERENCE_GHZ
from mlsky.frequency import cib, radio, relativistic, tsz
from mlsky.frequency.bands import dimensionless

__all__ = ["cib", "factor", "radio", "relativistic", "tsz"]


def factor(
    scaling: str,
    nu_ghz,
    reference: float = REFERENCE_GHZ,
    tsz_temperature_kev: float | None = None,
):
    """Factor that takes a map in uK_CMB from `reference` to `nu_ghz`, by the law `scaling`.

    Parameters
    ----------
    scaling
        "flat", "tsz" or "cib", as in `mlsky.components.Component.scaling`.
    nu_ghz
        Frequencies (GHz), any shape.
    reference
        Frequency (GHz) of the map.
    tsz_temperature_kev
        Electron temperature for relativistic corrections of the law "tsz", see
        `mlsky.frequency.relativistic`; other laws ignore it.

    Returns
    -------
    factor
        uK_CMB/uK_CMB, the shape of `nu_ghz`.

    Raises
    ------
    ValueError
        If there is no such law, or it holds for sources and not for maps ("radio").
    """
    if scaling == "flat":
        return np.ones_like(dimensionless(nu_ghz))[()]
    if scaling == "tsz":
        return tsz.factor(nu_ghz, reference, tsz_temperature_kev)
    if scaling == "cib":
        return cib.factor(nu_ghz, reference)
    raise ValueError(
        f"scaling={scaling!r}: must be flat, tsz or cib; radio sources scale one by one, "
        "with mlsky.frequency.radio.flux"
    )
