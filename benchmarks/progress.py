"""What batches and critic steps reach in the same time of a core.

    python benchmarks/progress.py [--recipe blobs-1-report] [--data train.h5 --test test.h5]
        [--pairs 16x3 32x5 8x3 16x1] [--minutes 10] [--json progress.json]

Every pair BATCHxCRITIC trains the same first weights for `--minutes` of processor time on one
thread, scores not counted. The critic steps of one generator step share one gradient penalty, as
in the narrow recipes, and the rates are the recipe's. Four times on the way, images of the last
weights are compared with true ones; lower is better:

power
    mean of |ln(P / P_true)| over 1 to 32 waves per image and over the fields
pixels
    mean distance of the quantiles from 1 % to 99.9 %, over the spread of true pixels
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mlsky import seeds
from mlsky.toys.comparison import FRACTIONS, WAVES
from mlsky.toys.image_statistics import power
from mlsky.toys.unconditional import batches
from mlsky.training import loop
from mlsky.training import run as runs
from mlsky.training.hyperparameters import Recipe
from mlsky.training.recipes import recipe
from mlsky.training.steps import one_step

MARKS = (0.25, 0.5, 0.75, 1.0)  # of the time, when images are scored
TEST_SEED = 1000  # of true images when the recipe makes its own, other than those of training
LOWEST = 1e-12  # of a ratio of powers: a network may make constant images


def distances(made: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """How far images (N, C, n, n) are from true ones, in the same unit of each field."""
    waves = slice(WAVES[0], WAVES[1] + 1)
    logs, quantiles = [], []
    for a, b in zip(np.swapaxes(made, 0, 1), np.swapaxes(true, 0, 1), strict=True):
        p = [power(x - x.mean()).mean(0)[waves] for x in (a, b)]
        logs.append(np.abs(np.log(np.maximum(p[0] / p[1], LOWEST))).mean())
        q = [np.quantile(x, FRACTIONS) for x in (a, b)]
        quantiles.append(np.abs(q[0] - q[1]).mean() / b.std())
    return {"power": float(np.mean(logs)), "pixels": float(np.mean(quantiles))}


def progress(
    changed: Recipe, data: Path | None, true: np.ndarray, seconds: float, seed: int
) -> Iterator[dict[str, float]]:
    """Scores of a recipe at each of `MARKS` of the seconds."""
    truth, _ = loop._open_sets(changed, data, None, seed)
    run = runs.new_run(changed, runs.fit_normaliser(truth), seed, torch.device("cpu"))
    batch = loop._make_batch(changed, truth, None, run)
    used, marks = 0.0, [seconds * mark for mark in MARKS]
    while marks:
        start = time.process_time()
        one_step(run, batch, seed, 0.0)
        used += time.process_time() - start
        if used >= marks[0]:
            marks.pop(0)
            made = torch.cat(list(batches(run.averaged, len(true), TEST_SEED))).float().numpy()
            yield {"steps": run.step, "seconds": round(used, 1), **distances(made, true)}


def true_images(
    base: Recipe, data: Path | None, test: Path | None, n: int, seed: int
) -> np.ndarray:
    """True images that training does not see, in network units of the set that it sees."""
    trained, held_out = (
        loop._open_sets(base, path, None, of)[0] for path, of in ((data, seed), (test, TEST_SEED))
    )
    normaliser = runs.fit_normaliser(trained)
    return runs.normalise(held_out.batch(0, n), base.outputs, normaliser).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="blobs-1-report", help="of random numbers alone")
    parser.add_argument("--data", type=Path, help="training set, if the recipe has one")
    parser.add_argument("--test", type=Path, help="held-out set, likewise")
    parser.add_argument("--pairs", nargs="*", default=["16x3", "32x5", "8x3", "16x1"])
    parser.add_argument("--minutes", type=float, default=10.0, help="of processor time, each pair")
    parser.add_argument("--images", type=int, default=256, help="of either kind, for a score")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all scores here, after every pair")
    options = parser.parse_args()
    base = recipe(options.recipe)
    if base.inputs or base.objective != "wgan-gp":
        parser.error(f"--recipe {base.name}: must be a WGAN of random numbers alone, as dcgan-w16")
    if (base.images is None) != (options.data is not None and options.test is not None):
        parser.error(f"--data, --test: recipe {base.name} needs both, or makes its own images")
    if options.seed == TEST_SEED:
        parser.error(f"--seed {TEST_SEED}: is that of the true images; choose another")
    if not all(re.fullmatch("[1-9][0-9]*x[1-9][0-9]*", pair) for pair in options.pairs):
        parser.error(f"--pairs {' '.join(options.pairs)}: must be BATCHxCRITIC, as 16x3")
    torch.set_num_threads(1)
    loop._keep_memory()
    seeds.check(options.seed)
    true = true_images(base, options.data, options.test, options.images, options.seed)
    print("batch critic  steps  seconds   power  pixels")
    found = {}
    for pair in options.pairs:
        batch, critic = map(int, pair.split("x"))
        # the averaged weights of a run without averaging are the last ones, ready for use
        changed = replace(base, batch=batch, critic_steps=critic, penalty_every=critic, average=0.0)
        found[pair] = []
        seconds = 60 * options.minutes
        for row in progress(changed, options.data, true, seconds, options.seed):
            found[pair].append(row)
            print(
                f"{batch:5} {critic:6} {row['steps']:6} {row['seconds']:8.1f} "
                f"{row['power']:7.3f} {row['pixels']:7.4f}",
                flush=True,
            )
        if options.json:
            options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
