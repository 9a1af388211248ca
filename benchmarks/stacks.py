"""What lies round clusters: profiles of the rest, as networks make it and in painted truth.

    mlsky data paint --out set.h5 --regions 40 --seed 12 --pixel-arcmin 1 --objects 1e14
    python benchmarks/stacks.py --weights file.safetensors --data set.h5

The maps are without the clusters themselves. Each number is a mean over rings round the clusters
of a bin of mass and redshift, and the ratio of what is generated to the truth.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from itertools import pairwise

import numpy as np
import torch

from mlsky.io import sets
from mlsky.networks import evaluate
from mlsky.networks.weights import open_weights
from mlsky.painting.regions import run

FIELDS = ("kappa", "tsz", "cib")
#: Edges of the rings (arcmin), of the masses (Msun) and of the redshifts.
RINGS = (0.0, 2.0, 4.0, 7.0, 12.0, 20.0, 30.0)
MASSES = (1e13, 1e14, 2e14, 4e14, 1e16)  # near ones are objects from 1e13 on
REDSHIFTS = (0.0, 0.3, 0.7, 10.0)


def rings(field: np.ndarray, y: np.ndarray, x: np.ndarray, pixel: float) -> np.ndarray:
    """Means (n, rings) round pixels of a periodic map."""
    far = int(RINGS[-1] / pixel) + 1
    dy, dx = np.mgrid[-far : far + 1, -far : far + 1]
    ring = np.digitize(np.hypot(dy, dx).ravel() * pixel, RINGS) - 1
    n = len(RINGS) - 1
    count = np.bincount(ring, minlength=n + 1)[:n]
    out = np.empty((len(y), n))
    for i, (row, column) in enumerate(zip(y, x, strict=True)):
        values = field[(row + dy) % field.shape[0], (column + dx) % field.shape[1]].ravel()
        out[i] = np.bincount(ring, values, n + 1)[:n] / count
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help="Weight file that is given clusters.")
    parser.add_argument("--data", required=True, help="Set painted with --objects, same pixels.")
    parser.add_argument("--regions", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="Of the networks' noise.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    weights = open_weights(options.weights)
    if not evaluate.takes_objects(weights):
        parser.error(f"--weights {options.weights}: its networks take no clusters")
    found = defaultdict(list)
    names = ("kappa_in", *FIELDS, *evaluate.OBJECTS, "objects", "objects_end")
    with sets.fields_of(options.data, names, apart=True) as (opened, _):
        of = dict(zip(names, opened, strict=True))
        for i in range(min(options.regions, len(of["kappa"]))):
            objects = {
                n: of[m][i] for n, m in zip(evaluate.OBJECT_MAPS, evaluate.OBJECTS, strict=True)
            }
            made = run(weights, of["kappa_in"][i], options.seed, i, True, objects)
            first = int(of["objects_end"][i - 1]) if i else 0
            y, x, z, mass, _ = of["objects"][first : int(of["objects_end"][i])].T
            place = (y.astype(int), x.astype(int))
            bins = np.digitize(mass, MASSES) - 1, np.digitize(z, REDSHIFTS) - 1
            for field in FIELDS:
                truth = np.maximum(of[field][i], 0) if field == "cib" else of[field][i]
                pair = truth, made[field].numpy()
                stacked = [rings(m, *place, weights.pixel_arcmin) for m in pair]
                for key in set(zip(*bins, strict=True)):
                    inside = (bins[0] == key[0]) & (bins[1] == key[1])
                    found[field, *key].append(np.stack(stacked, 1)[inside])
    edges = "  ".join(f"{a:g}-{b:g}'" for a, b in pairwise(RINGS))
    print(f"{'':<46}{edges}")
    for (field, m, k), parts in sorted(found.items()):
        each = np.concatenate(parts)
        truth, made = each.mean(0)
        error = (each[:, 1] - each[:, 0]).std(0) / np.sqrt(len(each))
        where = f"{field} M {MASSES[m]:.0e}-{MASSES[m + 1]:.0e} z {REDSHIFTS[k]}-{REDSHIFTS[k + 1]}"
        for label, values in (("truth", truth), ("made", made), ("error", error)):
            line = "  ".join(f"{v:8.4f}" for v in values)
            print(f"{where if label == 'truth' else '':<34}{len(each):>6} {label:<6}{line}")


if __name__ == "__main__":
    main()
