"""Spectra and correlations of one whole sky over those of the analytic halo model, by band.

    python benchmarks/sky_power.py [--nside 1024] [--seed 1] [--weights default]

Sources above 7 mJy at 148 GHz are left out, of the sky and of the model. Ratios contain the cosmic
variance of the sky, and that of its clusters; correlations are differences.
"""

from __future__ import annotations

import argparse
import itertools

import healpy
import numpy as np

import mlsky
from mlsky.painting import foregrounds
from mlsky.sphere import gaussian, pixel_window, windows
from mlsky.sphere.geometry import Healpix
from mlsky.training.large_scale_fit import truth_ksz, truth_spectra

BANDS_GHZ = (148.0, 353.0)
CUT_MJY = 7.0
EDGES = (2, 10, 20, 50, 100, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 4000, 5000, 6000)
NAMES = ("kappa", "tsz", "cib", "cib_353")
PAIRS = (("kappa", "tsz"), ("kappa", "cib"), ("tsz", "cib"), ("cib", "cib_353"))


def maps_of(sky) -> dict[str, np.ndarray]:
    """Kappa, and components at 148 GHz; the CIB at 353 GHz too."""
    first = {name: np.asarray(sky.band(0, name)[0]) for name in ("tsz", "ksz", "cib")}
    return {
        "kappa": np.asarray(sky.kappa),
        **first,
        "cib_353": np.asarray(sky.band(1, "cib")[0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nside", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weights", default="default")
    options = parser.parse_args()
    grid = Healpix(options.nside)
    pixel = foregrounds.select(options.weights, grid).pixel_arcmin
    sky = mlsky.simulate(
        BANDS_GHZ,
        options.nside,
        options.seed,
        stokes="T",
        components=("tsz", "ksz", "cib", "radio"),
        flux_cut_mjy=CUT_MJY,
        weights=options.weights,
    )
    lmax = 3 * options.nside // 2
    ell = np.arange(lmax + 1)
    of_pixels = pixel_window.healpix(options.nside, lmax)
    alm = {}
    for name, values in maps_of(sky).items():
        alm[name] = gaussian.map_to_alm(values.astype(np.float32), grid, lmax)
        # kappa, and clusters, which make nearly all of tSZ, have no window of chart pixels
        of_charts = 1.0 if name in ("kappa", "tsz") else windows.square(ell, pixel)
        gaussian.scale_alm(alm[name], 1 / (of_pixels * of_charts))
    model = truth_spectra(lmax, None, BANDS_GHZ)
    model["ksz", "ksz"] = truth_ksz(lmax)
    edges = np.array([e for e in EDGES if e < lmax] + [lmax])
    modes = 2.0 * ell + 1

    def bands(cl: np.ndarray) -> np.ndarray:
        return np.array(
            [np.average(cl[a:b], weights=modes[a:b]) for a, b in itertools.pairwise(edges)]
        )

    found = {
        pair: bands(healpy.alm2cl(alm[pair[0]], alm[pair[1]]))
        for pair in [*((n, n) for n in alm), *PAIRS]
    }
    wanted = {pair: bands(model[pair]) for pair in found}
    print(f"nside {options.nside}, networks of {pixel:g}', seed {options.seed}")
    print("l from          " + "".join(f"{e:8d}" for e in edges[:-1]))
    for name in alm:
        ratio = found[name, name] / wanted[name, name]
        print(f"{name:16s}" + "".join(f"{x:8.3f}" for x in ratio))
    for a, b in PAIRS:
        r = [c[a, b] / np.sqrt(c[a, a] * c[b, b]) for c in (found, wanted)]
        print(f"{'r ' + a + ' ' + b:16s}" + "".join(f"{x:+8.3f}" for x in r[0] - r[1]))


if __name__ == "__main__":
    main()
