"""Regions as networks make them, to be measured against the true ones.

A job is a set of networks in which some do nothing, so that every job runs the code that
makes skies (`mlsky.networks.evaluate`).
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from mlsky import seeds
from mlsky.components import REFERENCE_GHZ, maps_of
from mlsky.frequency import bands
from mlsky.networks import evaluate
from mlsky.networks.default import PointSources
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.weights import Weights
from mlsky.sources import counts

__all__ = ["FIELDS", "generate", "in_training", "painting", "run", "uncalibrated"]

#: Fields of a region, in the order of its maps.
FIELDS = ("kappa", "ksz", "tsz", "cib", "radio")

RADIO_MAX_MJY = 7.0  # brighter sources are left out of the training truth


class _Unchanged(nn.Module):
    """Stands where a network would, and hands on what it gets."""

    noise_levels: Sequence[tuple[int, int]] = ()
    stride = 1
    objects = 0  # takes as many as it gets, and needs none

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(0), requires_grad=False)  # tells the device

    def forward(self, x: torch.Tensor, noise: Sequence[torch.Tensor] = ()) -> torch.Tensor:
        return x


class _Nothing(_Unchanged):
    """Stands where `Paint` would, and paints zeros."""

    backbone = SimpleNamespace(widths=())

    def __init__(self, cib_templates: int = 1) -> None:
        super().__init__()
        self.cib_templates = cib_templates

    def velocity(self, noise: Sequence[torch.Tensor]) -> None:
        return None

    def forward(self, x: torch.Tensor, noise: Sequence[torch.Tensor] = ()) -> torch.Tensor:
        return x.new_zeros(len(x), 2 + self.cib_templates, *x.shape[2:])


def painting(weights: Weights) -> Weights:
    """The same weights for a kappa that is nonlinear already.

    Of the default family `Paint` and `PointSources`, of the paper's chain PIXGAN alone.
    """
    skipped = {"default": "convergence", "han2021": "vaegan"}[evaluate.kind(weights)]
    calibration = dict(weights.header.get("calibration", {}))
    for name in ("kappa", "kappa_sky"):
        calibration.pop(name, None)
    return dataclasses.replace(
        weights,
        networks={**weights.networks, skipped: _Unchanged()},
        header={**weights.header, "calibration": calibration},
    )


def uncalibrated(weights: Weights) -> Weights:
    """The same weights before they were calibrated (`mlsky.training.calibrate`).

    Gains put into the networks themselves are undone if the header tells them, as
    ``velocity_kernel_gains`` and ``kernel_gains`` of its calibration.
    """
    calibration = weights.header.get("calibration", {})
    networks = dict(weights.networks)
    velocity, kernels = (calibration.get(f"{part}_gains") for part in ("velocity_kernel", "kernel"))
    if velocity or kernels:
        paint = networks["paint"] = copy.deepcopy(networks["paint"])
        with torch.no_grad():
            for layer, gain in zip(paint.velocity_kernels, velocity or (), strict=bool(velocity)):
                if gain:  # a level that was balanced away is gone
                    layer.weight.div_(gain)
            if kernels:
                first = paint.velocities
                bias = paint.backbone.head.bias[first : first + len(kernels)]
                bias -= torch.log(torch.tensor(kernels, device=bias.device))
    header = {k: v for k, v in weights.header.items() if k != "calibration"}
    return dataclasses.replace(weights, networks=networks, header=header)


def in_training(
    networks: Mapping[str, nn.Module],
    normaliser: Normaliser,
    pixel_arcmin: float,
    mass_cut: float | None = None,
) -> Weights:
    """Networks of the default family under training as weights; those not given do nothing.

    Parameters
    ----------
    networks
        Some of "convergence", "paint", "point_sources".
    normaliser
        Of their fields.
    """
    stand_ins = {"convergence": _Unchanged(), "point_sources": PointSources()}
    known = dict(
        zip(
            normaliser.channels,
            zip(normaliser.scale, normaliser.mean, normaliser.std, strict=True),
            strict=True,
        )
    )
    cib = maps_of(known, "cib") or ["cib"]
    stand_ins["paint"] = _Nothing(len(cib))
    channels = ("kappa", "ksz", "tsz", *cib, *(n for n in evaluate.OBJECTS if n in known))
    rows = [known.get(name, (None, 0.0, 1.0)) for name in channels]
    whole = Normaliser(channels, *zip(*rows, strict=True))
    part = {"part": "rest", "mass_cut": float(mass_cut)} if mass_cut else {}
    return Weights(
        {**stand_ins, **networks},
        {"normaliser": whole.to_dict(), "pixel_arcmin": pixel_arcmin, **part},
        Path("in training"),
        "",
    )


def run(
    weights: Weights,
    kappa: np.ndarray,
    seed: int,
    tile: int,
    periodic: bool = False,
    objects: Mapping[str, np.ndarray] | None = None,
) -> dict[str, torch.Tensor]:
    """What the networks make of a kappa (n, n), with white noise of `seed` and `tile`.

    `objects` are the maps of clusters that they leave out, if they take them.

    With `periodic`, opposite edges join: the networks see kappa and noise go on around them,
    as the maps of a sky do beyond a chart, and not the padding that they meet otherwise.
    """
    n = kappa.shape[-1]
    pad = 0
    if periodic and evaluate.kind(weights) == "default":
        step = max(evaluate.multiple(weights), 1)
        pad = -(-evaluate.PADDING // step) * step
        kappa = _around(kappa, n, pad)
        if objects is not None:
            objects = {name: _around(field, n, pad) for name, field in objects.items()}
    noise = {}
    for i, (name, levels) in enumerate(evaluate.noise_channels(weights).items()):
        rng = torch.Generator().manual_seed(seeds.integer(seed, "network", tile, i))
        noise[name] = [
            _around(torch.randn(c, n >> l, n >> l, generator=rng), n >> l, pad >> l)
            for l, c in levels
        ]
    made = evaluate.evaluate(weights, kappa, noise, objects=objects)
    return {name: m[..., pad : pad + n, pad : pad + n] for name, m in made.items()}


def _around(field, n: int, pad: int):
    """A periodic picture (..., n, n) with what lies beyond its edges."""
    if not pad:
        return field
    index = np.arange(-pad, n + pad) % n
    return field[..., index, :][..., :, index]


def generate(
    weights: Weights,
    kappa: np.ndarray,
    seed: int,
    tile: int,
    periodic: bool = False,
    objects: Mapping[str, np.ndarray] | None = None,
    templates: bool = False,
) -> np.ndarray:
    """All of `FIELDS` (5, n, n) from a kappa (n, n), calibrated as the weights say.

    With `templates`, the further ones of the CIB follow, if the networks paint some.

    Radio sources above 7 mJy are left out, as in the training truth.
    """
    made = {name: m.cpu() for name, m in run(weights, kappa, seed, tile, periodic, objects).items()}
    calibration = weights.header.get("calibration", {})
    if "radio" not in made:
        rng = seeds.generator(seed, "point_sources", tile)
        pixel_sr = math.radians(weights.pixel_arcmin / 60) ** 2
        fraction = calibration.get("radio_fraction", 1.0)
        gain = counts.rate_gain(calibration.get("radio_mean_rate"), pixel_sr, fraction)
        rate = gain * np.exp(made["log_rate"].double().numpy())
        number = rng.poisson(rate).ravel()
        flux = counts.draw_radio_flux(rng.random(number.sum()))
        flux[flux > RADIO_MAX_MJY] = 0
        pixel = np.repeat(np.arange(number.size), number)
        uk = np.bincount(pixel, flux, number.size) * 1e-3 / _jy_per_uk(weights.pixel_arcmin)
        made["radio"] = torch.from_numpy(uk.reshape(kappa.shape))
    names = [*FIELDS, *(evaluate.cib_names(weights)[1:] if templates else ())]
    maps = np.stack([made[name].numpy().astype(np.float32) for name in names])
    table = calibration.get("kappa")
    # a gain fitted on skies makes up for their interpolation as well, which regions do not need
    if table and table.get("of") != "sky":
        maps[0] = _gained(maps[0], weights.pixel_arcmin, table)
    return maps


def _gained(kappa: np.ndarray, pixel_arcmin: float, table: Mapping) -> np.ndarray:
    """Kappa with its modes multiplied by the calibrated gain, as on a full sky."""
    n = kappa.shape[-1]
    frequency = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None])
    ell = 2 * np.pi * frequency / math.radians(pixel_arcmin / 60)
    gain = np.interp(ell, table["ell"], table["gain"])
    return np.fft.irfft2(np.fft.rfft2(kappa) * gain, s=(n, n))


def _jy_per_uk(pixel_arcmin: float) -> float:
    """Flux (Jy) of one pixel of 1 uK at the reference frequency."""
    return bands.jy_per_sr_per_uk(REFERENCE_GHZ) * math.radians(pixel_arcmin / 60) ** 2
