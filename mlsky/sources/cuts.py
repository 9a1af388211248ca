"""Cuts of sources by flux, in one band or in each, and which sources they leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlsky import arguments, components
from mlsky.frequency import passbands
from mlsky.sources import catalogue

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["in_band", "is_per_band", "kept", "parse", "parse_flux_cut"]


def parse_flux_cut(flux_cut_mjy) -> float | None:
    """A flux cut (number of mJy, or Quantity of flux) as float (mJy), or None for none.

    Raises
    ------
    ValueError
        If it is negative, not finite or not a number.
    """
    if flux_cut_mjy is None:
        return None
    allowed = (
        "a flux in mJy at 148 GHz, finite and >= 0, for example flux_cut_mjy=15, or None to keep "
        "every source"
    )
    return arguments.number("flux_cut_mjy", flux_cut_mjy, allowed, 0, np.inf, "mJy")


def parse(
    flux_cut_mjy, flux_cut, bands: Sequence[passbands.Band]
) -> tuple[tuple[float, passbands.Band], ...] | None:
    """The arguments `flux_cut_mjy` and `flux_cut` as fluxes (mJy) with their bands; None for none.

    Parameters
    ----------
    flux_cut
        ``(mJy, band)``; or a list of these, one for each of the bands of the sky.

    Raises
    ------
    ValueError
        If both are given, a flux or band is not valid, or a list has another length than `bands`.
    """
    cut = parse_flux_cut(flux_cut_mjy)
    if flux_cut is None:
        return None if cut is None else ((cut, passbands.Band(components.REFERENCE_GHZ)),)
    if cut is not None:
        raise ValueError("flux_cut_mjy and flux_cut: give one of the two")
    allowed = (
        "(mJy, GHz or band), for example flux_cut=(15, 150), or a list of such pairs, one per band"
    )
    text = f"flux_cut={arguments.short(flux_cut)}: must be {allowed}"
    if not isinstance(flux_cut, (list, tuple)) or not flux_cut:
        raise ValueError(text)
    several = is_per_band(flux_cut)
    pairs = list(flux_cut) if several else [flux_cut]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(text)
    if several and len(pairs) != len(bands):
        raise ValueError(
            f"flux_cut: {len(pairs)} cuts for {len(bands)} bands; give one pair for all, or one "
            "for each band"
        )
    found = []
    for mjy, where in pairs:
        flux = arguments.number("flux_cut", mjy, allowed, 0, np.inf, "mJy")
        band = passbands.parse(where)
        if len(band) != 1:
            raise ValueError(text)
        found.append((flux, band[0]))
    return tuple(found)


def is_per_band(flux_cut) -> bool:
    """Whether the argument `flux_cut` is a list of cuts, one per band."""
    return all(isinstance(part, (list, tuple)) for part in flux_cut)


def kept(
    table: Table, cuts: Sequence[tuple[float, passbands.Band]] | None, per_band: bool = False
) -> np.ndarray:
    """Which sources cuts leave: (n,) bool; (n, nfreq) if there is one cut per band."""
    if cuts is None:
        return np.ones(len(table), bool)
    left = [
        (
            catalogue.column(table, "flux_mjy")
            if band == passbands.Band(components.REFERENCE_GHZ)
            else catalogue.band_fluxes(table, band)[0]
        )
        <= mjy
        for mjy, band in cuts
    ]
    return np.stack(left, 1) if per_band else left[0]


def in_band(table: Table, index: int) -> np.ndarray:
    """Which sources of `mlsky.Sky.catalog` are in the maps of a band, (n,) bool."""
    if "in_bands" in table.colnames:
        return np.asarray(table["in_bands"])[:, index]
    return np.asarray(table["in_map"])
