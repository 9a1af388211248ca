"""D_3000 of each component at 150 GHz from the finest networks, on flat regions with clusters.

    python benchmarks/patch_power.py [--regions 24] [--weights default]

Regions of 512 x 512 pixels are painted for their Gaussian kappa and their clusters. The networks
make the rest, and sources between 7 and 15 mJy are added as Poisson power, as in ACT DR6's maps.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from mlsky.frequency import bands, cib, scaling
from mlsky.haloes.painter import Painter
from mlsky.haloes.region import OBJECT_FIELDS
from mlsky.networks import evaluate
from mlsky.painting.foregrounds import select
from mlsky.sources import counts
from mlsky.sphere.geometry import Healpix
from mlsky.training.matching import Spectra
from mlsky.validation import scores

ACT_DR6 = {"ksz": 0.987, "tsz": 3.50, "cib": 11.45, "radio": 2.89}  # uK^2, Louis et al. 2025
KSZ_MEAN = 1.48  # posterior mean of the same, +- 0.9
N = 512
CUT_MJY = 15.0


def poisson(flux_mjy, per_sr: float) -> float:
    """C_l in uK^2 at 148 GHz of sources with these fluxes."""
    uk_sr = np.asarray(flux_mjy) * 1e-3 / bands.jy_per_sr_per_uk(148.0)
    return per_sr * float((uk_sr**2).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--regions", type=int, default=24)
    parser.add_argument("--weights", default="default")
    options = parser.parse_args()
    weights = select(options.weights, Healpix(4096))
    painter = Painter(weights.pixel_arcmin, N, objects=weights.mass_cut)
    spectra = Spectra(N, weights.pixel_arcmin, torch.device("cpu"), 120)
    band = (spectra.ell > 2800) & (spectra.ell < 3200)
    power = []
    for i in range(options.regions):
        region = painter.region(5, i)
        kappa, clusters = painter.gaussian_kappa(region.maps[1]).numpy(), None
        if weights.mass_cut is not None:
            clusters = dict(zip(OBJECT_FIELDS, region.objects.maps.numpy(), strict=True))
        given = None
        if evaluate.takes_objects(weights):
            given = {name: clusters[name] for name in evaluate.OBJECT_MAPS}
        made = scores.generate(weights, kappa, 5, i, periodic=True, objects=given)
        if clusters is not None:
            made += [clusters[name] for name in scores.FIELDS]
        maps = torch.from_numpy(made)[None]
        maps = maps - maps.mean((2, 3), keepdim=True)
        auto = torch.diagonal(spectra.pairs(spectra.modes(maps))).t()[:, band]
        power.append(auto.mean(1).double().numpy())
    power = np.array(power)
    mean, error = power.mean(0), power.std(0) / np.sqrt(len(power))
    c = dict(zip(scores.FIELDS, zip(mean, error, strict=True), strict=True))
    u = (np.arange(200000) + 0.5) / 200000
    flux = counts.draw_radio_flux(u)
    share = (flux > 7) & (flux < CUT_MJY)
    between = {"radio": poisson(flux[share], counts.radio_density() * share.mean())}
    dsfg = weights.header.get("sources", {}).get("dsfg")
    if dsfg:
        tail = np.interp(u, np.linspace(0, 1, len(dsfg["flux_mjy"])), dsfg["flux_mjy"])
        keep = tail < CUT_MJY
        between["cib"] = poisson(tail[keep], dsfg["per_sr"] * keep.mean())
    factor = {n: scaling.factor(n, 150.0) for n in ("tsz", "cib")}
    factor["radio"] = (150 / 148) ** -0.78 / (
        bands.jy_per_sr_per_uk(150.0) / bands.jy_per_sr_per_uk(148.0)
    )
    area = options.regions * (N * weights.pixel_arcmin / 60) ** 2
    print(f"D_3000 at 150 GHz, sources < {CUT_MJY:g} mJy, {area:.0f} square degrees, uK^2")
    d = 3000 * 3001 / (2 * np.pi)
    for name, observed in ACT_DR6.items():
        value, sigma = (x * float(factor.get(name, 1.0)) ** 2 * d for x in c[name])
        value += between.get(name, 0.0) * float(factor.get(name, 1.0)) ** 2 * d
        note = f" (mean {KSZ_MEAN})" if name == "ksz" else ""
        print(f"    {name:6s} {value:6.2f} +- {sigma:.2f}   ACT DR6 {observed:.2f}{note}")
    print(f"    (colour of the CIB, 150 over 148 GHz: {float(cib.factor(150.0)):.4f})")


if __name__ == "__main__":
    main()
