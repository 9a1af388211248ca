"""How fast patches are cut from maps, and what cubic interpolation keeps of waves.

    OMP_NUM_THREADS=1 python benchmarks/cut_patches.py

First seconds per step, on a map of nside 1024 and the band of 2' pixels. Then, for waves of one
multipole on a map of nside 256, the slope of the interpolated values against the exact ones
(the transfer in amplitude) and the rms of what is left over, in parts of the rms of the wave.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from mlsky import seeds
from mlsky.cutting import areas, photometry, projection
from mlsky.sphere import gaussian
from mlsky.sphere.geometry import Healpix

SEED = 1
ANGLES = (15.0, 20.0)


def timed(what: str, call: Callable):
    start = time.perf_counter()
    result = call()
    print(f"{what:58s} {time.perf_counter() - start:8.3f} s")
    return result


def steps() -> None:
    geometry, band = Healpix(1024), areas.EquatorialBand(2.0)
    values = seeds.generator(SEED, "truth", 0).standard_normal(geometry.npix).astype(np.float32)
    lmax = projection.default_lmax(geometry, band)
    alm = timed(
        f"harmonics of a map, lmax {lmax}", lambda: projection.to_alm(values, geometry, lmax)
    )
    timed("a turn of the sky and its band", lambda: projection.harmonic(alm, ANGLES, band))
    pixel = np.arange(128)
    v = band.vectors(pixel[:, None], pixel[None])
    timed("one patch by cubic interpolation", lambda: projection.cubic(values, geometry, v))
    split, fine = areas.Split(), areas.EquatorialBand(0.5)
    timed("places of 20000 patches of 64'", lambda: areas.plan("test", 20000, 1, fine, 128, split))
    values = np.abs(values)
    values[::1000] += 100
    found = timed("sources found on a map", lambda: photometry.find_sources(values, 1024, 1.0))
    print(f"   ({len(found[1])} sources)")
    x = seeds.generator(SEED, "truth", 1).standard_normal((3, 10**6))
    x /= np.linalg.norm(x, axis=0)
    flux = np.ones(x.shape[1])
    timed("a million sources on the band of 0.5'", lambda: projection.paint(x, flux, ANGLES, fine))


def transfer() -> None:
    geometry, band = Healpix(256), areas.EquatorialBand(10.0)
    print("\n  l / nside   transfer   rest (rms)   pixels per wave")
    for ratio in (0.25, 0.5, 1.0, 1.5, 2.0):
        ell = int(ratio * geometry.nside)
        cl = np.zeros(ell + 1)
        cl[ell] = 1
        alm = gaussian.draw_alm(cl, SEED, "truth")
        values = gaussian.alm_to_map(alm, geometry)
        exact = gaussian.alm_to_map(alm, band.geometry)
        y, x = np.indices(band.shape, sparse=True)
        got = projection.cubic(values, geometry, band.vectors(y, x))
        slope = np.mean(got * exact) / np.mean(exact * exact)
        rest = np.std(got - slope * exact) / np.std(exact)
        waves = 21600 / ell / geometry.pixel_arcmin
        print(f"{ratio:11.2f} {slope:10.4f} {rest:12.4f} {waves:17.1f}")


if __name__ == "__main__":
    steps()
    transfer()
