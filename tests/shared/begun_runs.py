"""Training runs that have not begun, as checkpoints."""

from __future__ import annotations

import torch

from mlsky.networks.normaliser import Normaliser
from mlsky.training import run as runs
from mlsky.training.recipes import Recipe, recipe

NORMALISER = Normaliser(
    ("kappa", "ksz", "tsz", "cib"), (None, None, 3.7, 17.0), (0, 0, -0.63, 0.6), (0.08, 2, 0.3, 0.3)
)

SMALL = {"widths": (4, 4), "noise": (1, 1)}


def begun_run(folder, name, normaliser=NORMALISER, **changes):
    """A run that has not begun, as a checkpoint."""
    options = {**SMALL, "velocity_levels": 2} if "paint" in name else dict(SMALL)
    if name in ("dcgan", "pixgan"):
        options = {"width": 1}
    critic = {"width": 1} if "gan" in name else recipe(name).critic_options
    fields = recipe(name).to_dict() | {"generator_options": options, "critic_options": critic}
    run = runs.new_run(Recipe(**fields | changes), normaliser, 1, torch.device("cpu"))
    with torch.no_grad():  # so that the average can be told from the generator
        for p in run.averaged.parameters():
            p.add_(0.01)
    run.step, run.seconds = 7, 12.4
    folder.mkdir()
    runs.save_checkpoint(run, folder, 1)
    return run
