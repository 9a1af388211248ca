"""The corrections that the paper applies to its stitched maps, as tables of a weight file.

Han, Sehgal & Villaescusa-Navarro 2021 (doi:10.1103/PhysRevD.104.123521), section 3.5, with the
numbers of the code that they released: transfer functions of kSZ and tSZ, and fluxes of pixels
remapped by formulas that were set by hand. The cut of pixels above 7 mJy is left out, since a flux
cut is an argument of `mlsky.simulate`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from mlsky.components import REFERENCE_GHZ
from mlsky.frequency.passbands import Band
from mlsky.training.value_matching import match_power

__all__ = ["cib", "ksz", "radio", "tsz"]

#: Factor of the CIB, and its power above one mJy.
CIB_FACTOR, CIB_POWER = 1.1, 0.63
#: Fluxes (mJy) between which the formulas are taken to be straight, besides zero; one where that of
#: the CIB bends.
NODES_MJY = np.sort(np.append(np.geomspace(1e-3, 100, 81), 1 / CIB_FACTOR))
#: Power of the Box-Cox transform of the radio sources.
RADIO_POWER = 1.25
#: A transfer function beyond this is none: the field has no power there.
LARGEST_TRANSFER = 10.0


def ksz(made: list[torch.Tensor], truth: list[torch.Tensor], pixel_arcmin: float) -> dict:
    """Transfer function, the root of the ratio of smoothed powers; parameters as `match_power`."""
    return match_power(made, truth, pixel_arcmin, LARGEST_TRANSFER)


def tsz(made: list[torch.Tensor], truth: list[torch.Tensor], pixel_arcmin: float) -> dict:
    """The same for tSZ, whose values are kept otherwise."""
    table = match_power(made, truth, pixel_arcmin, LARGEST_TRANSFER)
    return table | {"from": [0.0, 1.0], "to": [0.0, 1.0]}


def cib(made: list[torch.Tensor], truth: list[torch.Tensor], pixel_arcmin: float) -> dict:
    """Fluxes of pixels times 1.1, and to the power 0.63 above 1 mJy."""

    def remapped(flux_mjy):
        scaled = CIB_FACTOR * flux_mjy
        return np.where(scaled > 1, scaled**CIB_POWER, scaled)

    return _fluxes(remapped, pixel_arcmin)


def radio(made: list[torch.Tensor], truth: list[torch.Tensor], pixel_arcmin: float) -> dict:
    """Fluxes S of pixels (mJy) to ((S + 1)^1.25 - 1) / 1.25."""
    return _fluxes(lambda s: ((s + 1) ** RADIO_POWER - 1) / RADIO_POWER, pixel_arcmin)


def _fluxes(formula: Callable, pixel_arcmin: float) -> dict:
    """A formula for the fluxes (mJy) of pixels as a map of values (uK); no gain by multipole."""
    flux = np.concatenate([[0.0], NODES_MJY])
    pixel_sr = np.radians(pixel_arcmin / 60) ** 2
    uk = 1e-3 / pixel_sr / Band(REFERENCE_GHZ).convert("uK_CMB", "Jy/sr")
    source, target = (np.round(x * uk, 4).tolist() for x in (flux, formula(flux)))
    return {"ell": [100.0, 10000.0], "gain": [1.0, 1.0], "from": source, "to": target}
