"""Point sources: the rate of radio sources, and the bright tail of dusty galaxies.

A pixel either holds a radio source or it does not; with ln(rate) = f(kappa, tSZ, CIB) the
likelihood of an occupied pixel is 1 - exp(-rate). Maximum likelihood gives no haze of
false sources and no negative flux.
"""

from __future__ import annotations

import math
import os

import numpy as np
import torch

from mlsky import seeds
from mlsky.components import REFERENCE_GHZ
from mlsky.frequency import bands
from mlsky.networks.default import PointSources
from mlsky.networks.normaliser import Normaliser
from mlsky.sources.catalogue import KINDS
from mlsky.sources.counts import FLUX_MIN_MJY
from mlsky.training.data import Crops
from mlsky.training.run import normalise

__all__ = ["dsfg_tail", "fit_point_sources"]

RATE = 3e-3  # Adam; cosine to zero
BATCH = 8


def fit_point_sources(
    data: str | os.PathLike, normaliser: Normaliser, steps: int = 600, seed: int = 0
) -> tuple[PointSources, dict]:
    """Fit `PointSources` on a training set.

    Returns
    -------
    points
        In eval mode.
    report
        Mean negative log-likelihood per pixel of the last steps, that of a constant rate,
        and the mean rate (sources per pixel).

    Raises
    ------
    ValueError
        If the set cannot be used, or no pixel or every pixel holds a source.
    """
    names = (*PointSources.INPUTS, "radio")
    # with separate objects, sources in clusters are left out, as they belong to the objects
    crops = Crops(data, names, 128, seed, apart=True)
    pixel = math.radians(crops.attrs["pixel_arcmin"] / 60)
    # flux of the faintest source in one pixel; half of it distinguishes a source from rounding
    faintest = FLUX_MIN_MJY * 1e-3 / bands.jy_per_sr_per_uk(REFERENCE_GHZ) / pixel**2
    occupied = float((crops.data[:, -1] > faintest / 2).mean(dtype=np.float64))
    if not 0 < occupied < 1:
        raise ValueError(f"{data}: {occupied:.0%} of pixels hold a radio source: nothing to fit")
    points = PointSources(
        math.log(-math.log1p(-occupied)), seed=seeds.integer(seed, "weights", 2) % 2**31
    )
    adam = torch.optim.Adam(points.parameters(), RATE)
    history = []
    for step in range(steps):
        adam.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        fields = crops.batch(step, BATCH)
        log_rate = points(normalise(fields[:, :-1], names[:-1], normaliser))
        rate = torch.exp(log_rate.clamp(max=3))
        hit = (fields[:, -1:] > faintest / 2).float()
        loss = (hit * -torch.log(-torch.expm1(-rate) + 1e-12) + (1 - hit) * rate).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        history.append(loss.item())
    constant = -(occupied * math.log(occupied) + (1 - occupied) * math.log1p(-occupied))
    report = {
        "nll": float(np.mean(history[-100:])),
        "nll_constant": constant,
        "rate": -math.log1p(-occupied),
    }
    return points.eval().requires_grad_(False), report


def dsfg_tail(painter, regions: int, seed: int, quantiles: int = 65) -> dict:
    """Density and fluxes of dusty sources above the painter's flux cut.

    Parameters
    ----------
    painter
        A `mlsky.haloes.painter.Painter`.
    regions
        Number of regions of `seed` to paint.

    Returns
    -------
    dict
        ``per_sr``, ``flux_mjy`` (equally spaced quantiles) and ``mean_cib_uk`` of the map
        without them.
    """
    flux, mean = [], 0.0
    for i in range(regions):
        region = painter.region(seed, i)
        wanted = region.sources[:, 3] == KINDS.index("dsfg")
        if region.objects is not None:  # their members are added with them
            wanted &= region.objects.members < 0
        dsfg = region.sources[wanted, 2].double()
        flux.append(dsfg[dsfg >= painter.flux_cut_mjy])
        mean += region.maps[4].double().mean().item() / regions
    flux = torch.cat(flux).numpy()
    return {
        "per_sr": len(flux) / (regions * painter.area),
        "flux_mjy": np.round(np.quantile(flux, np.linspace(0, 1, quantiles)), 4).tolist(),
        "mean_cib_uk": mean,
        "painted": len(flux),
    }
