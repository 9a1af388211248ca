"""Training steps and generated patches per second.

    python benchmarks/training.py [--recipes paint-0.5 convergence-0.5] [--steps 12] [--pictures 4]

Steps run on made-up fields, whose values do not matter for the time, with `--threads` threads.
Patches of 128 x 128 pixels are those of pictures that the default networks make as in a
simulation: bfloat16, one core per picture, two pictures at a time on two cores. CPU time is
given beside the clock's, for machines that do other things too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import torch

from mlsky import seeds
from mlsky.networks import evaluate
from mlsky.networks.device import pick_device
from mlsky.painting.foregrounds import select
from mlsky.sphere.geometry import Healpix
from mlsky.training import loop
from mlsky.training import run as runs
from mlsky.training.recipes import RECIPES, recipe
from mlsky.training.steps import one_step

DEFAULT_FAMILY = [name for name, r in RECIPES.items() if r.generator.startswith("default:")]
TILE = 128


def clocked(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock and of all cores together."""
    clock, cores = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - cores


def make_set(path: Path, pixel_arcmin: float, regions: int = 2, n: int = 512) -> Path:
    """Log-normal fields with the signs of the truth."""
    rng = seeds.generator(0, "training", 0)
    g = rng.standard_normal((3, regions, n, n)).astype(np.float32)
    mass = np.exp(g[0])
    fields = {"kappa": 0.05 * (mass - 1.6), "kappa_in": 0.08 * g[0], "ksz": 2 * g[1] * mass}
    fields |= {"tsz": -3 * mass, "cib": 10 * mass * np.exp(0.3 * g[2])}
    fields["radio"] = np.where(g[2] > 2, 20 * mass, 0)
    with h5py.File(path, "w") as file:
        file.attrs["pixel_arcmin"] = pixel_arcmin
        for name, values in fields.items():
            file[name] = values.astype(np.float32)
    return path


def training(name: str, steps: int, device: torch.device, data: Path) -> None:
    """Print the pace of one recipe."""
    r = recipe(name)
    truth, conditions = loop._open_sets(r, data, None, 0)
    run = runs.new_run(r, runs.fit_normaliser(truth), 0, device)
    batch = loop._make_batch(r, truth, conditions, run)

    def work(count: int) -> None:
        for _ in range(count):
            one_step(run, batch, 0, 0.0)
        if device.type == "cuda":
            torch.cuda.synchronize()

    work(r.penalty_every)
    steps = -(-steps // r.penalty_every) * r.penalty_every  # whole rounds of the lazy penalty
    clock, cores = clocked(lambda: work(steps))
    print(
        f"{name:<18} {steps / clock:7.2f} steps/s   {cores / steps:.3f} core seconds a step   "
        f"batch {r.batch}",
        flush=True,
    )


def generation(weights: str, size: int, pictures: int, workers: int) -> None:
    """Print patches per second of each generator alone and of the chain from a Gaussian kappa."""
    chosen = select(weights, Healpix(4096))
    for network in chosen.networks.values():
        network.to(memory_format=torch.channels_last)
    rng = torch.Generator().manual_seed(0)
    noise = {
        name: [torch.randn(c, size >> level, size >> level, generator=rng) for level, c in levels]
        for name, levels in evaluate.noise_channels(chosen).items()
    }
    kappa = 0.1 * torch.randn(size, size, generator=rng)

    @torch.no_grad()
    def alone(name: str) -> None:
        network = chosen[name]
        of = [z[None].contiguous(memory_format=torch.channels_last) for z in noise[name]]
        with torch.autocast("cpu", torch.bfloat16):
            network(kappa[None, None], of)

    jobs = {name: lambda name=name: alone(name) for name in noise}
    jobs["whole chain"] = lambda: evaluate.evaluate(chosen, kappa, noise)
    for name, job in jobs.items():
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:

            def work(count: int, pool=pool, job=job) -> None:
                for future in [pool.submit(job) for _ in range(count)]:
                    future.result()

            work(workers)
            clock, cores = clocked(lambda: work(pictures))
        patches = pictures * (size / TILE) ** 2
        print(
            f"{name:<18} {patches / clock:7.1f} patches/s on {workers} cores   "
            f"{patches / cores:.1f} per core second",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="*", default=DEFAULT_FAMILY)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1, help="of a training step")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--size", type=int, default=1024, help="pixels of a picture's side")
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--cores", type=int, default=2, help="pictures at a time")
    options = parser.parse_args()
    device = pick_device(options.device)
    if device.type == "cpu":
        loop._keep_memory()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.recipes:
            pixel = recipe(name).pixel_arcmin
            path = Path(folder) / f"{pixel}.h5"
            if not path.exists():
                make_set(path, pixel)
            training(name, options.steps, device, path)
    if options.pictures:
        generation(options.weights, options.size, options.pictures, options.cores)


if __name__ == "__main__":
    main()
