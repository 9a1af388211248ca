"""Speed and memory of the painter: patches of 128 x 128 pixels, all fields, per second.

    python benchmarks/painter.py [--regions 20] [--device cuda] [--freqs 93 150] [--objects 1e14]

A region of 512 x 512 pixels of 0.5' is 16 patches. On a CPU one thread paints, so that the
figure is that of one core; processor time is shown too, which other work on the machine
disturbs less than the clock.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from mlsky.haloes.painter import Painter

PATCHES = 16  # of 128 x 128 in a region of 512 x 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--regions", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--freqs", type=float, nargs="*", default=())
    parser.add_argument("--objects", type=float, help="take haloes above this mass apart")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    painter = Painter(0.5, 512, device=options.device, freqs=options.freqs, objects=options.objects)
    painter.region(1, 0)
    cuda = painter.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
    print(f"set up and first region {time.perf_counter() - started:.1f} s")
    wall, processor = [], []
    for i in range(options.regions):
        before = time.perf_counter(), time.process_time()
        painter.region(1, i + 1)
        if cuda:
            torch.cuda.synchronize()
        wall.append(time.perf_counter() - before[0])
        processor.append(time.process_time() - before[1])
    for name, values in (("clock", wall), ("processor", processor)):
        mean = sum(values) / len(values)
        print(
            f"{name}: {mean:.3f} s per region, best {min(values):.3f}: {PATCHES / mean:.0f} "
            f"patches per second, best {PATCHES / min(values):.0f}"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB")
    if cuda:
        print(f"on the device {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
