"""Gains of the levels of kSZ's velocities that give a sky the power of the model.

The velocities of kSZ are a sum of fields, one for each level of a pyramid of pixels, each linear in
its own noise. The power of kSZ is therefore a sum over levels, and a gain of a level, which the
header of a weight file may state, changes it without a filter and without a new network.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.painting import large_scales

if TYPE_CHECKING:
    from mlsky.networks.weights import Weights

__all__ = ["BANDS", "beyond", "change", "edges", "fit_gains", "level_spectra"]

#: Most bands; where the first begins, and how wide it is, in steps between multipoles of a region.
BANDS, FIRST, WIDTH = 10, 2.5, 1.5
#: Up to where regions are compared with the model, as a fraction of their highest multipole.
FINEST = 0.75
#: Relative difference in power between sky and model that is tolerated: sample variance of sky and
#: regions, and the model, which is accurate to 1 %.
TOLERANCE = 0.02
#: Change of a level's power that is as unlikely as a band that is off by `TOLERANCE`, and bounds.
PRIOR, LEAST, MOST = 0.5, 0.25, 2.0


def edges(lmax: int, side_arcmin: float) -> NDArray[np.float64] | None:
    """Edges of the bands of a sky and of regions; None if the sky has too few multipoles."""
    if lmax <= 2 * large_scales.JOIN[0]:
        return None
    first = FIRST * 360 * 60 / side_arcmin
    count = min(BANDS, int(math.log(lmax / first) / math.log1p(WIDTH / FIRST)))
    return np.geomspace(first, lmax, count + 1) if count > 0 else None


def beyond(band_edges: NDArray[np.float64], pixel_arcmin: float) -> NDArray[np.float64]:
    """The bands of a sky, (bands + 1,), and more of them up to `FINEST` of what regions hold.

    The finest levels make most of the power beyond the multipoles of a coarse sky. Without these
    bands they would be weakened to compensate errors of coarser levels.
    """
    last, most = band_edges[-1], FINEST * 10800 / pixel_arcmin
    count = math.ceil(math.log(most / last) / math.log(last / band_edges[-2]))
    if count < 1:
        return band_edges
    return np.append(band_edges, np.geomspace(last, most, count + 1)[1:])


def level_spectra(
    weights: Weights,
    kappa_of: Callable,
    band_edges: Sequence[float],
    pixels: int,
    regions: int,
    seed: int,
) -> NDArray[np.float64]:
    """Power of kSZ by level and band, (levels, bands), on periodic regions.

    Parameters
    ----------
    weights
        Of the default family.
    kappa_of
        Function of the number of a region that gives its Gaussian kappa and its objects or None.
    band_edges
        (bands + 1,) multipoles.
    pixels
        Along a side of a region.
    regions
        How many.
    seed
        Of the noise.
    """
    from mlsky.painting import regions as painting
    from mlsky.statistics.bandpower import Spectra

    flat = Spectra(pixels, weights.pixel_arcmin, list(band_edges))
    levels = weights["paint"].velocity_levels
    alone = [with_gains(weights, np.eye(levels)[level].tolist()) for level in range(levels)]
    power = np.zeros((levels, len(band_edges) - 1))
    for number in range(regions):
        kappa, objects = kappa_of(number)
        for level, one in enumerate(alone):
            made = painting.run(one, kappa, seed, number, periodic=True, objects=objects)["ksz"]
            power[level] += flat.power(flat.modes(made.cpu().numpy()[np.newaxis]))[0, 0] / regions
    return power


def with_gains(weights: Weights, gains: Sequence[float]) -> Weights:
    """The same weights with gains of their levels of velocities."""
    calibration = {**weights.header.get("calibration", {}), "velocity_gains": list(gains)}
    return dataclasses.replace(weights, header={**weights.header, "calibration": calibration})


def fit_gains(sky: NDArray, truth: NDArray, parts: NDArray, ell: NDArray) -> list[float]:
    """Gains of the levels, as close to one as possible, that make a sky agree with the truth.

    Parameters
    ----------
    sky, truth : (bands,)
        Power of kSZ; from regions above the multipoles of the sky.
    parts : (levels, bands)
        From `level_spectra`; their sum is scaled to that of the sky.
    ell : (bands,)
        Their centres. On large scales only excess power counts, as missing power is added.
    """
    from scipy.optimize import lsq_linear

    parts = parts * (sky / parts.sum(0))
    counts = (ell > large_scales.JOIN[0]) | (sky > truth)
    weight = counts / (TOLERANCE * truth)
    design = np.concatenate([(parts * weight).T, np.eye(len(parts)) / PRIOR])
    goal = np.concatenate([(truth - sky) * weight, np.zeros(len(parts))])
    found = lsq_linear(design, goal, bounds=(LEAST - 1, MOST - 1)).x
    return [float(f"{math.sqrt(1 + x):.4g}") for x in found]


def change(gains: Sequence[float], parts: NDArray, ell: NDArray, band_edges: NDArray) -> NDArray:
    """Factor of the power of kSZ at multipoles `ell`; above the bands that of the last."""
    ratio = (np.square(gains)[:, np.newaxis] * parts).sum(0) / parts.sum(0)
    return np.interp(ell, np.sqrt(band_edges[1:] * band_edges[:-1]), ratio)
