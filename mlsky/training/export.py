"""Training runs to one weight file of the registry."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping

from torch import nn

from mlsky.io.sets import file_hash
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.weights import network_header, pack, save
from mlsky.training.run import load_generator, state_of

__all__ = ["export", "file_hash"]


def _plain(recipe: Mapping) -> dict:
    """A recipe as plain JSON; infinity (no limit) becomes null."""
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in recipe.items()
    }


def export(
    path: str | os.PathLike,
    runs: Mapping[str, str | os.PathLike],
    *,
    data: Mapping[str, str],
    device: str,
    extra: Mapping[str, tuple[nn.Module, list[str], list[str]]] | None = None,
    adjust: Mapping[str, Callable[[nn.Module, Normaliser], object]] | None = None,
    which: str | Mapping[str, str] = "best",
    **header,
) -> str:
    """Write the averaged generators of runs as one weight file.

    For a run with scores on validation truth this is the best one, and the file records its step
    and score.

    Parameters
    ----------
    path
        File to write, at most 25 MiB.
    runs
        Network name to run folder, in order of evaluation; they must share pixel size and
        normaliser.
    data
        Name to sha256 of the training sets.
    device
        Description of the machine they were trained on.
    extra
        Further networks: name to (module, inputs, outputs).
    adjust
        Functions of (module, normaliser) that change a run's network in place before it is
        written, such as `mlsky.training.calibrate.balance_velocities`.
    which
        "best", or "last" for the end of each run; or either of them by network name, "best" for
        those that are not named.
    header
        Further entries: calibration, scores, sources.

    Returns
    -------
    sha256

    Raises
    ------
    ValueError
        If the runs do not belong together.
    """
    networks, entries, recipes, training = {}, {}, {}, {}
    normaliser = pixel = None
    for name, folder in runs.items():
        module, used, state = load_generator(folder, state_of(which, name, runs))
        recipe = state["recipe"]
        if normaliser is None:
            normaliser, pixel = used, recipe["pixel_arcmin"]
        shared = [c for c in used.channels if c in normaliser.channels]
        if recipe["pixel_arcmin"] != pixel or used.select(shared) != normaliser.select(shared):
            raise ValueError(
                f"{folder}: has other pixels or another normaliser than the first run; train all "
                "networks of a file on one set with one normaliser"
            )
        if len(used.channels) > len(normaliser.channels):
            normaliser = used
        if adjust and name in adjust:
            adjust[name](module, used)
        networks[name] = module
        entries[name] = network_header(module, recipe["inputs"], recipe["outputs"])
        recipes[name] = _plain(recipe)
        training[name] = {
            "steps": state["step"],
            "seconds": round(state["seconds"]),
            "device": device,
            "seed": state["seed"],
        }
        if "score" in state:
            training[name]["score"] = state["score"]
    for name, (module, inputs, outputs) in (extra or {}).items():
        networks[name] = module
        entries[name] = network_header(module, inputs, outputs)
    return save(
        path,
        pack(networks),
        {
            "networks": entries,
            "normaliser": normaliser.to_dict(),
            "pixel_arcmin": pixel,
            "recipe": recipes,
            "training": training,
            "data": dict(data),
            **header,
        },
    )
