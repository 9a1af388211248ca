"""Figures of one sky: time, memory, kappa against theory, signs.

python benchmarks/first_sky.py [--nside 1024] [--seed 1] [--weights default] [--picture sky.png]

D_3000 against ACT DR6, beyond the pixels of nside 1024, is in patch_power.py.
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

    if options.picture:
        from mlsky.plotting import sky_maps

        sky_maps.save(sky, options.picture)


if __name__ == "__main__":
    main()
