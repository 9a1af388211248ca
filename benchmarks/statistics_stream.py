"""Memory and processor time of the streaming statistics over many patches.

    python benchmarks/statistics_stream.py --patches 200000

Patches are small, so that it takes minutes: what is kept does not depend on their size. Times
per patch of 128 pixels are printed by --size 128 --patches 200.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from mlsky import seeds
from mlsky.statistics import extrema
from mlsky.statistics.bandpower import Spectra
from mlsky.statistics.bispectrum import Bispectrum, equilateral
from mlsky.statistics.distances import Distances
from mlsky.statistics.likelihood import LogLikelihood
from mlsky.statistics.scattering import Scattering
from mlsky.statistics.streaming import Averages

PIXEL, BATCH, AREAS = 2.0, 500, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=200_000)
    parser.add_argument("--size", type=int, default=16)
    options = parser.parse_args()
    n = options.size
    spectra = Spectra(n, PIXEL, (700, 2000, 3500, 5000))
    triangles = Bispectrum(n, PIXEL, equilateral((700, 2500, 4500)))
    scattering = Scattering(n, min(5, n.bit_length() - 3))

    def measure(maps):
        modes = spectra.modes(maps)
        return {
            "power": np.square(np.abs(modes)),
            "bispectrum": triangles(modes),
            "extrema": np.array([extrema.counts(m, (0.0, 1.0, 2.0)) for m in maps]),
        }

    means, distances, likelihood = Averages(measure), Distances(), LogLikelihood()
    spent = dict.fromkeys(("draw", "means", "features", "sets", "compute"), 0.0)
    for start in range(0, options.patches, BATCH):
        area = start * AREAS // options.patches
        clock = [time.process_time()]
        rng = seeds.generator(1, "truth", start)
        true, made = rng.standard_normal((2, min(BATCH, options.patches - start), n, n))
        clock.append(time.process_time())
        means.update(true, area)
        clock.append(time.process_time())
        features = [scattering.features(x) for x in (true, made)]
        clock.append(time.process_time())
        distances.update(*features, area)
        likelihood.update(*(f[:, : scattering.scales] for f in features), area)
        clock.append(time.process_time())
        for name, a, b in zip(spent, clock, clock[1:], strict=False):
            spent[name] += b - a
    begin = time.process_time()
    means.compute(lambda m: m["bispectrum"])
    found = distances.compute()
    likelihood.compute()
    spent["compute"] = time.process_time() - begin
    for name, seconds in spent.items():
        print(f"{name:<10}{seconds:8.1f} s {1e3 * seconds / options.patches:8.3f} ms a patch")
    for name, row in found.items():
        print(f"{name:<10}{row['value']:9.5f} +- {row['error']:.5f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{options.patches} patches: {peak:.2f} GiB at most")


if __name__ == "__main__":
    main()
