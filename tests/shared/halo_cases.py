"""The halo model and the painted regions that several test modules look at, made once."""

from __future__ import annotations

import copy
import functools
import itertools
from unittest import mock

import numpy as np
import torch

from mlsky.frequency import bands as frequencies
from mlsky.haloes import covariance_factor, tables
from mlsky.haloes.painter import Painter, Region
from mlsky.theory import cosmology, foregrounds, halo_model

#: Regions of 4.3 degrees on 2' pixels: 580 square degrees of them.
REGIONS, PIXEL_ARCMIN, N = 32, 2.0, 128
#: Rare clusters, which rule the power of tSZ on little sky: heavier or nearer than this.
RARE_LOG10_MASS, RARE_Z = 14.4, 0.2
#: What `tables._objects` makes.
OBJECT_TABLES = (
    *("ell_object", "object_class", "m200c", "m500c", "theta500", "y500", "theta_cut_y"),
    *(f"{kind}_object_{name}" for kind in ("phi", "a") for name in ("nfw", "y", "tau")),
)


@functools.cache
def model() -> halo_model.HaloModel:
    return foregrounds._base(cosmology.parse("planck2018"))  # CAMB's part is made once


@functools.cache
def shipped() -> dict:
    return tables.load()


@functools.cache
def painter() -> Painter:
    return Painter(PIXEL_ARCMIN, N, shipped())


@functools.cache
def regions() -> tuple[Region, ...]:
    return tuple(painter().region(11, index) for index in range(REGIONS))


@functools.cache
def maps() -> torch.Tensor:
    """(REGIONS, 6, N, N) float64."""
    return torch.stack([region.maps for region in regions()]).double()


@functools.cache
def masked_tables() -> dict:
    """Tables of a sky without its rare clusters, painted and analytic alike."""
    masked = copy.copy(model())
    masked.number = masked.number.copy()
    masked.number[:, masked.log10_mass > RARE_LOG10_MASS] *= 1e-12
    masked.number[masked.z < RARE_Z] *= 1e-12
    uk_per_jy_sr = 1 / float(frequencies.jy_per_sr_per_uk(148.0))
    # profiles of single haloes, which have nothing to do with their number, take half of the time
    objects = {name: shipped()[name] for name in OBJECT_TABLES}
    with mock.patch.object(tables, "_objects", return_value=objects):
        made = tables.build(masked, uk_per_jy_sr, cosmology.parse("planck2018").to_dict())
    # the same to a few in a million, and so their mixing need not be computed again
    return made | {name: shipped()[name] for name in covariance_factor.INPUTS}


@functools.cache
def masked_maps() -> torch.Tensor:
    """(REGIONS / 2, 6, N, N) float64 of `masked_tables`."""
    p = Painter(PIXEL_ARCMIN, N, masked_tables())
    return torch.stack([p.region(13, index).maps for index in range(REGIONS // 2)]).double()


def bands(ell: np.ndarray, edges: list[float]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(where, weights) of the half-plane modes of each band; conjugates count."""
    weight = np.full(ell.shape, 2.0)
    weight[:, [0, -1]] = 1
    masks = [(ell >= low) & (ell < high) for low, high in itertools.pairwise(edges)]
    return [(torch.as_tensor(mask), torch.as_tensor(weight[mask])) for mask in masks]


def band_powers(a: torch.Tensor, b: torch.Tensor, edges: list[float]) -> np.ndarray:
    """(regions, bands) cross powers (per sr) of maps (regions, N, N) of `painter`."""
    side = painter().side
    fourier = [torch.fft.rfft2(x) * (side / N) ** 2 / side for x in (a, b)]
    product = (fourier[0] * fourier[1].conj()).real
    out = [(product[:, mask] * w).sum(1) / w.sum() for mask, w in bands(painter().ell, edges)]
    return torch.stack(out, 1).numpy()


def expected(name: str, edges: list[float], table: dict | None = None) -> np.ndarray:
    """(bands,) of an analytic spectrum of the tables, averaged over the same modes."""
    table, ell = shipped() if table is None else table, painter().ell
    cl = np.interp(np.log(np.maximum(ell, 1)), np.log(table["ell"]), table[f"analytic_{name}"])
    return np.array([np.average(cl[m.numpy()], weights=w.numpy()) for m, w in bands(ell, edges)])
