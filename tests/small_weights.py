"""A small untrained weight file of the default family, and what it paints."""

from __future__ import annotations

from unittest import mock

import numpy as np
import torch

from mlsky import foregrounds
from mlsky.networks import default
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.weights import network_header, pack, save
from mlsky.sphere.geometry import Healpix

#: Coarse pixels, so that the whole sky is a second's work.
PIXEL_ARCMIN = 20.0

NARROW = {"widths": (4, 4, 4), "noise": (1, 1, 1)}

PER_PIXEL = 0.5  # radio sources per chart pixel

DUSTY_PER_SR = 300.0


def normaliser() -> Normaliser:
    return Normaliser(
        ("kappa", "ksz", "tsz", "cib", "radio"),
        (None, None, 3.4, 16.4, 6.9),
        (0.0, 0.0, -0.26, 0.75, 1.4),
        (0.1, 2.5, 0.29, 0.32, 0.84),
    )


def write_default(path, constant_rate=True, **header):
    """An untrained file of the default family with small networks."""
    networks = {
        "convergence": default.Convergence(**NARROW, seed=1),
        "paint": default.Paint(-0.26, 0.29, **NARROW, velocity_levels=3, seed=2),
        "points": default.Points(np.log(PER_PIXEL), width=4, seed=3),
    }
    if constant_rate:
        torch.nn.init.zeros_(networks["points"].head.weight)
    entries = {n: network_header(m) for n, m in networks.items()}
    save(
        path,
        pack(networks),
        {
            "networks": entries,
            "normaliser": normaliser().to_dict(),
            "pixel_arcmin": PIXEL_ARCMIN,
            "sources": {
                "dusty": {"per_sr": DUSTY_PER_SR, "flux_mjy": [7.0, 9.0, 20.0], "mean_cib_uk": 20.0}
            },
            **header,
        },
    )
    return path


def on_a_machine(start, weight_file, precision="fp32"):
    """Maps and sources of every twelfth chart, as plain arrays."""
    weights = foregrounds.select(str(weight_file), Healpix(64))
    each = foregrounds._each

    def some(paint, every, on_cpu):
        return each(paint, every[::12], on_cpu)

    with mock.patch.object(foregrounds, "_each", some):
        made = foregrounds.generate(
            start, Healpix(64), weights=weights, seed=3, device="cpu", precision=precision
        )
    sources = {name: np.asarray(made.catalogue[name]) for name in made.catalogue.colnames}
    instructions = foregrounds.made_with(weights)["instructions"]
    return {"kappa": made.kappa, **made.maps, **sources, "instructions": instructions}
