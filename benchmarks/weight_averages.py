"""How long the weights of the paper's DCGAN should be averaged.

    python benchmarks/weight_averages.py runs/han2021/dcgan --data train.h5 --test test.h5

Training goes on from the checkpoint for some steps, with averages of several memories beside it.
Each is scored as `mlsky validate-chain` scores the patches that DCGAN draws. A memory of 0 is the
last weights, and that of the recipe began with the run. Nothing is written.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import torch

from mlsky import seeds
from mlsky.networks.normaliser import Normaliser
from mlsky.toys.unconditional import draw
from mlsky.training import chain_scores, loop, steps
from mlsky.training.checkpoints import CHECKPOINT, read_checkpoint
from mlsky.training.data import Crops
from mlsky.training.recipes import Recipe
from mlsky.training.run import Run, new_run, restore
from mlsky.validation import scores

BATCH = 32


def continued(folder: Path) -> tuple[Run, Normaliser, int]:
    """The run of a folder as it was when it was saved, and its seed."""
    tensors, state = read_checkpoint(folder / CHECKPOINT)
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in state["recipe"].items()}
    normaliser = Normaliser.from_dict(state["normaliser"])
    run = new_run(Recipe(**fields), normaliser, state["seed"], torch.device("cpu"))
    restore(run, tensors, state)
    return run, normaliser, state["seed"]


@torch.no_grad()
def scored(generator: torch.nn.Module, normaliser: Normaliser, test: Path, patches: int) -> str:
    """Distance from the truth and the summary of `mlsky.training.chain_scores`, in one line."""
    generator.eval()
    crops = Crops(test, scores.FIELDS, 128, 0)

    def pairs():
        for number in range(-(-patches // BATCH)):
            rng = torch.Generator().manual_seed(seeds.integer(0, "network", 12, number * BATCH))
            made = normaliser.inverse(draw(generator, BATCH, rng).float()).numpy()
            truth = crops.batch(number, BATCH).numpy()
            for x in (made, truth):
                x[:, 3:] = np.maximum(x[:, 3:], 0)
                x[:, 2] = np.minimum(x[:, 2], 0)
            yield from zip(truth, made, strict=True)

    rows = scores.compare(pairs(), 0.5, "end_to_end", periodic=False)
    numbers = (f"{name} {n['value']:g}" for name, n in chain_scores.summary(rows).items())
    return f"distance {scores.total(rows)['distance']:.2f}; {', '.join(numbers)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="training set of the run")
    parser.add_argument("--test", type=Path, required=True, help="held-out set")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--memories", type=float, nargs="+", default=[0.0, 0.9, 0.97, 0.99, 0.997])
    parser.add_argument("--patches", type=int, default=128)
    options = parser.parse_args()
    if not (options.folder / CHECKPOINT).exists():
        parser.error(f"{options.folder}: holds no {CHECKPOINT}; name the folder of a run of DCGAN")
    run, normaliser, seed = continued(options.folder)
    truth, conditions = loop._open_sets(run.recipe, options.data, None, seed)
    batch = loop._make_batch(run.recipe, truth, conditions, run)
    averages = {memory: copy.deepcopy(run.generator) for memory in options.memories}
    for _ in range(options.steps):
        steps.one_step(run, batch, seed, 1.0)
        for memory, average in averages.items():
            steps.follow(average, run.generator, memory)
    averages[run.recipe.average] = run.averaged
    for memory, average in averages.items():
        line = scored(average, normaliser, options.test, options.patches)
        print(f"memory {memory:g}: {line}", flush=True)


if __name__ == "__main__":
    main()
