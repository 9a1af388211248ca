"""Figures of one sky: time, memory, spectra against theory and ACT DR6.

python benchmarks/first_sky.py [--nside 1024] [--seed 1] [--weights default] [--picture sky.png]
"""

from __future__ import annotations

import argparse
import resource
import time
from itertools import pairwise

import healpy
import numpy as np

import mlsky
from mlsky.theory import kappa_spectrum

FREQS = (93.0, 150.0, 225.0)
FLUX_CUT_MJY = 15.0  # of ACT DR6's source mask
#: D_3000 at 150 GHz, uK^2 (ACT DR6 best fit, Louis et al. 2025); CIB clustered + Poisson
ACT_DR6 = {"tsz": 3.50, "ksz": 0.987, "cib": 11.45, "radio": 2.89}


def window(ell, side_arcmin: float):
    """Power window of a square pixel of that side, averaged over angle."""
    angle = np.linspace(0, np.pi / 2, 64, endpoint=False)[:, None]
    x = ell * np.radians(side_arcmin / 60) / 2 / np.pi
    return (np.sinc(x * np.cos(angle)) ** 2 * np.sinc(x * np.sin(angle)) ** 2).mean(0)


def band(cl, lo: int, hi: int) -> float:
    """Mean of C_l with weights 2 l + 1."""
    ell = np.arange(lo, hi)
    return float(((2 * ell + 1) * cl[lo:hi]).sum() / (2 * ell + 1).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nside", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--picture")
    options = parser.parse_args()
    stages: list[tuple[str, float]] = []
    began = time.perf_counter()

    def progress(stage: str, _: float) -> None:
        if not stages or stages[-1][0] != stage:
            stages.append((stage, time.perf_counter() - began))

    sky = mlsky.simulate(
        FREQS,
        nside=options.nside,
        seed=options.seed,
        weights=options.weights,
        flux_cut_mjy=FLUX_CUT_MJY,
        progress=progress,
    )
    total = time.perf_counter() - began
    print(f"simulate, nside {options.nside}, {len(FREQS)} bands: {total:.0f} s")
    for (name, start), (_, stop) in zip(stages, [*stages[1:], ("", total)], strict=True):
        print(f"    {stop - start:7.1f} s  {name}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory: {peak:.2f} GiB")

    lmax = 2 * options.nside
    theory = kappa_spectrum(lmax)
    alm = healpy.map2alm(sky.kappa, lmax=lmax, iter=1)
    cl = healpy.alm2cl(alm)
    print("kappa: C_L / theory, and its distance from 1 in units of the cosmic variance")
    edges = np.unique(np.geomspace(2, lmax, 14).astype(int))
    for lo, hi in pairwise(edges):
        ratio = band(cl / np.where(theory > 0, theory, 1), lo, hi)
        sigma = np.sqrt(2 / ((2 * np.arange(lo, hi) + 1).sum()))
        print(f"    {lo:5d}-{hi:5d}  {ratio:.4f}  {(ratio - 1) / sigma:+.1f}")

    low = sky.freqs_ghz < 217
    tsz = sky["tsz"][:, 0]
    print(f"tSZ: max below 217 GHz {tsz[low].max():.3g}, min above {tsz[~low].min():.3g} uK")
    for name in ("cib", "radio"):
        print(f"{name}: min {sky[name][:, 0].min():.3g} uK")
    ksz = sky["ksz"][0, 0]
    rho = np.corrcoef(ksz, sky.kappa)[0, 1]
    print(f"kSZ: min {ksz.min():.1f}, max {ksz.max():.1f} uK, rho(kappa, kSZ) {rho:+.4f}")

    pixel = np.degrees(healpy.nside2resol(options.nside)) * 60
    own = float(sky.meta["weights"]["pixel_arcmin"])
    ell = np.arange(3 * options.nside)
    hi = min(3100, ell[-1])
    lo = hi - 200
    loss = band(window(ell, pixel) * window(ell, own), lo, hi)
    factor = (lo + hi) / 2 * ((lo + hi) / 2 + 1) / (2 * np.pi)
    print(f"D_l at 150 GHz, l = {lo}-{hi}, sources < {FLUX_CUT_MJY:g} mJy;")
    print(f"    pixel windows undone, {loss:.2f} of the power")
    for name, observed in ACT_DR6.items():
        values = sky.band(1, name)[0]
        cl = healpy.anafast(values - values.mean(), lmax=3 * options.nside - 1, iter=0)
        d = band(cl, lo, hi) / loss * factor
        print(f"    {name:6s} {d:6.2f} uK^2   ACT DR6 {observed:5.2f}   ratio {d / observed:.2f}")
    if options.picture:
        from mlsky import plotting

        plotting.save(sky, options.picture)


if __name__ == "__main__":
    main()
