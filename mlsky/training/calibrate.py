"""Calibration of a weight file on validation truth: what is stored beside the weights.

Two things, both of which a sky cannot do without: an isotropic gain of kappa by multipole,
because its power is given by theory and must be exact; and the mean rate of radio sources
on generated maps, by which the rate is divided so that their density is that of the counts.
"""

from __future__ import annotations

import math
import os

import numpy as np

from mlsky.networks.weights import Weights
from mlsky.statistics.scores import run
from mlsky.training.data import fields_of

__all__ = ["fit_calibration"]

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
    (kappa, start), attrs = fields_of(data, ("kappa", "kappa_in"))
    if attrs["pixel_arcmin"] != weights.pixel_arcmin:
        raise ValueError(
            f"{data}: pixels of {attrs['pixel_arcmin']}', the weights want {weights.pixel_arcmin}'"
        )
    count = len(kappa) if regions is None else min(regions, len(kappa))
    n = kappa.shape[-1]
    pixel = math.radians(attrs["pixel_arcmin"] / 60)
    window = np.hanning(n + 2)[1:-1]
    window = window[:, None] * window[None]
    ell = np.hypot(
        2 * np.pi * np.fft.fftfreq(n, pixel)[:, None], 2 * np.pi * np.fft.rfftfreq(n, pixel)[None]
    )
    edges = np.geomspace(150, np.pi / pixel, BINS + 1)
    index = np.digitize(ell, edges)
    power, rate = np.zeros((2, BINS + 2)), 0.0
    for i in range(count):
        made = run(weights, start[i], seed, i)
        for j, field in enumerate((kappa[i], made["kappa"].numpy())):
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
