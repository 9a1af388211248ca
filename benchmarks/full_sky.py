"""Seconds and memory of a full sky by stage, against the floors of its parts.

python benchmarks/full_sky.py --nside 1024 [--bands 93 145 225] [--stokes T] [--out sky.h5]

The floors are measured in the same run, on the same threads: the spherical harmonic transforms
that no lensed sky with a kappa does without, each done once, and the networks alone on the pixels
of the sphere, without charts, aprons, noise, sampling and sources. Ratios of one run do not
depend on the machine; processor time, of all threads, hardly on what else it does.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ducc0
import numpy as np

import mlsky
from mlsky import simulation
from mlsky.frequency import cib_templates
from mlsky.io import resources
from mlsky.painting import foregrounds
from mlsky.request import count_haloes
from mlsky.sphere.geometry import Healpix
from mlsky.sphere.threads import threads

GIB = 2**30
SIDE = 512  # of the picture on which the networks' floor is measured, pixels
PATCH_ARCMIN = 64.0  # side of the patches in which speed is given: 128 pixels of 0.5'

#: Stage of the estimate (mlsky.io.resources) for each stage of the progress.
ESTIMATED = {"networks": "networks", "kappa": "kappa", "lensing of the CMB": "lensing"}


class Meter:
    """Wall and processor seconds and peak memory between the stages of a progress."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, float, float]] = []
        self._stage, self._began = "checks", self._now()
        self._reset()

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    @staticmethod
    def _reset() -> None:
        try:  # peak memory from here on; Linux alone can do that
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pass

    @staticmethod
    def peak() -> float:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return 1024.0 * int(line.split()[1])
        return float("nan")

    def __call__(self, stage: str, fraction: float) -> None:
        if stage == self._stage:
            return
        now = self._now()
        wall, cpu = (b - a for a, b in zip(self._began, now, strict=True))
        self.rows.append((self._stage, wall, cpu, self.peak()))
        print(
            f"{self._stage:32s} {wall:8.1f} s {cpu:8.1f} s {self.rows[-1][3] / GIB:6.2f} GiB",
            flush=True,
        )
        self._stage, self._began = stage, now
        self._reset()


def timed(work) -> tuple[float, float]:
    """Wall and processor seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def transforms_floor(nside: int, stokes: str) -> tuple[float, float]:
    """kappa analysed once and synthesised, the deflection, and the CMB synthesised."""
    pixels = Healpix(nside)
    info = ducc0.healpix.Healpix_Base(nside, "RING").sht_info()

    def synthesis(lmax: int, spin: int) -> None:
        size = (lmax + 1) * (lmax + 2) // 2
        one = spin == 1
        alm = np.ones((1 if spin == 0 or one else 2, size), np.complex64)
        mode = "GRAD_ONLY" if one else "STANDARD"
        ducc0.sht.synthesis(alm=alm, lmax=lmax, spin=spin, mode=mode, nthreads=threads(), **info)

    def work() -> None:
        lmax, cmb = pixels.lmax, min(pixels.lmax, simulation.CMB_LMAX)
        values = np.zeros((1, pixels.npix), np.float32)
        ducc0.sht.adjoint_synthesis(map=values, lmax=lmax, spin=0, nthreads=threads(), **info)
        del values
        synthesis(lmax, 0)
        synthesis(lmax, 1)
        synthesis(cmb, 0)
        if stokes != "T":
            synthesis(cmb, 2)

    return timed(work)


def networks_floor(weights) -> tuple[float, float, float]:
    """Seconds (wall, processor) of the networks for the sphere's pixels, and patches per second."""
    import torch

    from mlsky.networks import evaluate

    rng = np.random.default_rng(0)
    kappa = 0.05 * rng.standard_normal((SIDE, SIDE)).astype(np.float32)
    noise = {
        name: [
            rng.standard_normal((n, SIDE >> level, SIDE >> level)).astype(np.float32)
            for level, n in wanted
        ]
        for name, wanted in evaluate.noise_channels(weights).items()
    }
    given = {"kappa": np.abs(kappa), "tsz": -np.abs(kappa)}
    objects = given if evaluate.takes_objects(weights) else None
    workers = threads()

    def once(_=None) -> None:
        evaluate.evaluate(weights, kappa, noise, objects=objects)

    once()  # compiles and warms up
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:

        def work() -> None:
            list(pool.map(once, range(workers)))

        wall, cpu = timed(work)
    pictures = 4 * np.pi / (SIDE * np.radians(weights.pixel_arcmin / 60)) ** 2
    patches = workers * (SIDE * weights.pixel_arcmin / PATCH_ARCMIN) ** 2 / wall
    return wall * pictures / workers, cpu * pictures / workers, patches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nside", type=int, default=1024)
    parser.add_argument("--bands", type=float, nargs="+", default=[93.0, 145.0, 225.0])
    parser.add_argument("--stokes", default="T")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--out", help="keep the file; by default a temporary one")
    parser.add_argument("--in-memory", action="store_true", help="without out=")
    options = parser.parse_args()
    pixels = Healpix(options.nside)
    weights = foregrounds.select(options.weights, pixels)
    names = ("cmb", "tsz", "ksz", "cib", "radio")
    asked = (
        pixels,
        weights.pixel_arcmin,
        names,
        options.stokes,
        not options.in_memory,
        cib_templates.map_count(weights.header),
        count_haloes(None, weights.mass_cut),
    )
    estimate = resources.memory(
        *asked, workers=resources.chart_workers(*asked), nfreq=len(options.bands)
    )
    print(
        f"nside {options.nside}, {len(options.bands)} bands, {options.stokes}, {threads()} threads"
    )
    print(f"{'stage':32s} {'wall':>10s} {'processor':>10s} {'peak':>10s}")
    with tempfile.TemporaryDirectory() as folder:
        meter = Meter()
        sky = mlsky.simulate(
            options.bands,
            options.nside,
            options.seed,
            stokes=options.stokes,
            weights=options.weights,
            progress=meter,
            out=None if options.in_memory else options.out or Path(folder) / "sky.h5",
        )
        meter("end", 1.0)
        repr(sky)
    wall, cpu, peak = (f([r[i] for r in meter.rows]) for i, f in ((1, sum), (2, sum), (3, max)))
    print(f"{'total':32s} {wall:8.1f} s {cpu:8.1f} s {peak / GIB:6.2f} GiB")
    for stage, row in ESTIMATED.items():
        found = max((r[3] for r in meter.rows if r[0] == stage), default=float("nan"))
        print(f"    estimated for {stage}: {estimate[row] / GIB:.2f} GiB, found {found / GIB:.2f}")
    print(f"{1e6 * cpu / pixels.npix:.3g} us of processor time per pixel")
    sht = transforms_floor(options.nside, options.stokes)
    net = networks_floor(weights)
    print(f"floor of the transforms: {sht[0]:.1f} s, processor {sht[1]:.1f} s")
    print(
        f"floor of the networks: {net[0]:.1f} s, processor {net[1]:.1f} s "
        f"({net[2]:.0f} patches of {PATCH_ARCMIN:g}'/s)"
    )
    print(
        f"total / floors: {wall / (sht[0] + net[0]):.2f}, processor {cpu / (sht[1] + net[1]):.2f}"
    )


if __name__ == "__main__":
    main()
