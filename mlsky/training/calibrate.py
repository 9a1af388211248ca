"""Calibration on validation truth: what is stored in a weight file beside the weights.

An isotropic gain of kappa by multipole, because its power is that of the Gaussian start,
which theory gives; the mean rate of radio sources on generated maps, by which the rate is
divided so that their density is that of the counts; and the balance of the scales that
kSZ is made of, which training on small patches cannot see.
"""

from __future__ import annotations

import math
import os

import numpy as np
import torch

from mlsky import seeds
from mlsky.networks.default import Paint
from mlsky.networks.inputs import kappa_lmax
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.weights import Weights
from mlsky.statistics.scores import run
from mlsky.training.data import fields_of
from mlsky.training.matching import Spectra

__all__ = ["balance_flow", "fit_calibration"]

BINS = 20  # logarithmic bins of the kappa gain
LARGEST_GAIN = 1.5  # beyond it a network is bad, not in need of a factor


def fit_calibration(
    weights: Weights, data: str | os.PathLike, regions: int | None = None, seed: int = 1
) -> dict:
    """Gain of kappa and mean rate of radio sources.

    Parameters
    ----------
    weights
        An uncalibrated weight file.
    data
        Validation set.
    regions
        How many to use, all by default.
    seed
        Of the networks' noise.

    Returns
    -------
    dict
        For the header's ``calibration``: ``kappa`` {ell, gain}, ``radio_mean_rate`` (per pixel).

    Raises
    ------
    ValueError
        If the set has other pixels than the weights.
    """
    (start,), attrs = fields_of(data, ("kappa_in",))
    if attrs["pixel_arcmin"] != weights.pixel_arcmin:
        raise ValueError(
            f"{data}: pixels of {attrs['pixel_arcmin']}', the weights want {weights.pixel_arcmin}'"
        )
    count = len(start) if regions is None else min(regions, len(start))
    n = start.shape[-1]
    pixel = math.radians(attrs["pixel_arcmin"] / 60)
    window = np.hanning(n + 2)[1:-1]
    window = window[:, None] * window[None]
    ell = np.hypot(
        2 * np.pi * np.fft.fftfreq(n, pixel)[:, None], 2 * np.pi * np.fft.rfftfreq(n, pixel)[None]
    )
    edges = np.geomspace(150, kappa_lmax(weights.pixel_arcmin), BINS + 1)
    index = np.digitize(ell, edges)
    power, rate = np.zeros((2, BINS + 2)), 0.0
    for i in range(count):
        made = run(weights, start[i], seed, i)
        for j, field in enumerate((start[i], made["kappa"].numpy())):
            mode = np.abs(np.fft.rfft2((field - field.mean()) * window)) ** 2
            power[j] += np.bincount(index.ravel(), mode.ravel(), BINS + 2)
        if "log_rate" in made:
            rate += float(made["log_rate"].double().exp().mean()) / count
    centre, power = np.sqrt(edges[1:] * edges[:-1]), power[:, 1 : BINS + 1]
    filled = power[1] > 0  # small regions have no modes in some of the first bins
    gain = np.clip(np.sqrt(power[0, filled] / power[1, filled]), 1 / LARGEST_GAIN, LARGEST_GAIN)
    calibration = {
        "kappa": {"ell": np.round(centre[filled], 1).tolist(), "gain": np.round(gain, 4).tolist()},
        "regions": count,
    }
    if rate:
        calibration["radio_mean_rate"] = float(f"{rate:.5g}")
    return calibration


@torch.no_grad()
def balance_flow(
    paint: Paint,
    normaliser: Normaliser,
    data: str | os.PathLike,
    regions: int = 20,
    seed: int = 1,
) -> np.ndarray:
    """Scale the levels of the kSZ flow so that its power is the truth's, in place.

    The flow is a sum of independent fields, one per level of the pyramid, and the coarsest
    reach beyond the patches of training. Given kappa the power of kSZ is then a sum of one
    power per level, so the squares of the gains follow from non-negative least squares on
    ln-spaced bands of whole regions, every band counting by its relative error.

    Parameters
    ----------
    paint
        Trained network, changed in place.
    normaliser
        Of its fields.
    data
        Validation set.

    Returns
    -------
    gains : (levels,)
    """
    from scipy.optimize import nnls

    (kappa, ksz), attrs = fields_of(data, ("kappa", "ksz"))
    n, count = kappa.shape[-1], min(regions, len(kappa))
    pixel = math.radians(attrs["pixel_arcmin"] / 60)
    spectra = Spectra(n, attrs["pixel_arcmin"], "cpu", BINS)
    levels, split = paint.velocity_levels, len(paint.trunk.widths)
    truth, parts = 0.0, [0.0] * levels
    for i in range(count):
        field = torch.from_numpy(kappa[i])[None, None]
        start = normaliser.select(["kappa"]).forward(field)
        rng = torch.Generator().manual_seed(seeds.integer(seed, "network", i))
        noise = paint.draw_noise(1, n, n, rng)
        for level in range(levels):
            alone = [z if k == level else torch.zeros_like(z) for k, z in enumerate(noise[split:])]
            with torch.autocast("cpu", torch.bfloat16):
                made = paint(start, [*noise[:split], *alone])[:, :1]
            made = made * normaliser.select(["ksz"]).std[0]
            parts[level] += spectra.pairs(spectra.modes(made))[0, 0].double().numpy()
        field = torch.from_numpy(ksz[i])[None, None]
        truth += spectra.pairs(spectra.modes(field))[0, 0].double().numpy()
    used = spectra.ell > 2 * 2 * np.pi / (n * pixel)  # the window mixes the first modes
    design = (np.array(parts) / truth)[:, used].T
    square, _ = nnls(design, np.ones(used.sum()))
    gains = np.sqrt(square)
    for layer, gain in zip(paint.flow, gains, strict=True):
        layer.weight.mul_(float(gain))
    return gains
