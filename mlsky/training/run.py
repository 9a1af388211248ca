"""A training run: networks, optimisers and constants, saved and restored."""

from __future__ import annotations

import copy
import functools
import importlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

import torch
from torch import nn

from mlsky import seeds
from mlsky.components import maps_of
from mlsky.networks import default
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.weights import ARCHITECTURES, open_weights
from mlsky.training import matching
from mlsky.training.checkpoints import (
    BEST,
    CHECKPOINT,
    part,
    read_best,
    read_checkpoint,
    write,
)
from mlsky.training.data import OBJECTS, Crops, Painted
from mlsky.training.matched_statistics import matching_of
from mlsky.training.recipes import Recipe

__all__ = ["Run", "load_generator", "state_of"]

LOG_CHANNELS = ("tsz", "cib", "radio")  # with the logarithm of the normaliser


def make(name: str, **options) -> nn.Module:
    """A module by its architecture name, "default:Paint"."""
    short, _, cls = name.partition(":")
    return getattr(importlib.import_module(ARCHITECTURES[short]), cls)(**options)


def fit_normaliser(crops: Crops | Painted) -> Normaliser:
    """Constants of the normaliser from a sample of the regions; kappa_in uses those of kappa.

    Images made during training have their own.
    """
    if hasattr(crops, "normaliser"):
        return crops.normaliser
    names = [n for n in crops.names if n not in ("kappa_in", "kappa_g")]
    index = [crops.names.index(n) for n in names]
    return Normaliser.fit(crops.sample()[:, index], names, [n for n in names if _skewed(n)])


def _skewed(name: str) -> bool:
    """Whether a field takes the logarithm: those of `LOG_CHANNELS`, also of objects."""
    return bool(maps_of([name.removeprefix(OBJECTS)], *LOG_CHANNELS))


def choose_normaliser(
    recipe: Recipe,
    given: Normaliser | str | None,
    resumed: Normaliser | None,
    start: Normaliser | None,
    truth: Crops | Painted,
) -> Normaliser:
    """Constants of the resumed run, of the start, those given, or those of the truth."""
    if isinstance(given, str) and given not in ("data", "start"):
        raise ValueError(f"normaliser={given!r}: must be data, start or a Normaliser")
    if resumed is not None:
        # its own, even if the data have changed, as the weights depend on them
        if isinstance(given, Normaliser) and given != resumed:
            raise ValueError(
                "normaliser: not that of the run that is resumed; leave it out, or start anew"
            )
        return resumed
    if given == "start" and start is None:
        raise ValueError("normaliser='start': there is no start; give init_from=, or leave it out")
    if isinstance(given, Normaliser):
        normaliser = given
    elif start is not None and given != "data":
        normaliser = start
    else:
        normaliser = fit_normaliser(truth).with_constants(recipe.constants)
    for name in (*recipe.inputs, *recipe.outputs):
        if ("kappa" if name == "kappa_in" else name) not in normaliser.channels:
            raise ValueError(
                f"recipe {recipe.name}: the normaliser has {', '.join(normaliser.channels)} and "
                f"not {name}; give normaliser="
            )
    return normaliser


def normalise(fields: torch.Tensor, names, normaliser: Normaliser) -> torch.Tensor:
    """(B, C, H, W) physical to network units; kappa_in counts as kappa, CIB holds no negatives."""
    rows = []
    for i, name in enumerate(names):
        channel = fields[:, i : i + 1]
        if maps_of([name], "cib"):
            channel = channel.clamp(min=0)
        rows.append(normaliser.select(["kappa" if name == "kappa_in" else name]).forward(channel))
    return torch.cat(rows, 1)


@dataclass
class Run:
    """State of a training run."""

    recipe: Recipe
    normaliser: Normaliser
    generator: nn.Module
    critic: nn.Module
    averaged: nn.Module
    generator_adam: torch.optim.Adam
    critic_adam: torch.optim.Adam
    match: matching.Matching | None
    step: int = 0
    seconds: float = 0.0
    rollbacks: int = 0
    recent: dict[str, list[float]] = field(default_factory=dict)  # for training.stopping


def new_run(recipe: Recipe, normaliser: Normaliser, seed: int, device: torch.device) -> Run:
    options = dict(recipe.generator_options)
    if recipe.generator == "default:Paint":
        tsz = normaliser.select(["tsz"])
        options |= {"tsz_mean": tsz.mean[0], "tsz_std": tsz.std[0]}
        if "cib_mix" in options:
            of = normaliser.select(maps_of(recipe.outputs, "cib"))
            options |= {"cib_mean": of.mean, "cib_std": of.std}
    generator = make(recipe.generator, seed=seeds.integer(seed, "weights", 0) % 2**31, **options)
    critic = make(
        recipe.critic, seed=seeds.integer(seed, "weights", 1) % 2**31, **recipe.critic_options
    )
    generator, critic = (
        m.to(device, memory_format=torch.channels_last) for m in (generator, critic)
    )
    # in eval mode: reports must not change its batch-norm statistics
    averaged = copy.deepcopy(generator).requires_grad_(False).eval()
    adam = functools.partial(torch.optim.Adam, fused=True)  # one kernel per weight, not ten
    return Run(
        recipe,
        normaliser,
        generator,
        critic,
        averaged,
        adam(generator.parameters(), recipe.generator_rate, recipe.generator_betas),
        adam(critic.parameters(), recipe.critic_rate, recipe.critic_betas),
        matching_of(recipe, normaliser, device),
    )


def adam_tensors(adam: torch.optim.Adam, prefix: str) -> dict[str, torch.Tensor]:
    return {
        f"{prefix}.{i}.{key}": value
        for i, state in adam.state_dict()["state"].items()
        for key, value in state.items()
    }


def save_checkpoint(run: Run, folder: Path, seed: int) -> None:
    """Write the state of a run, atomically.

    Raises
    ------
    MlskyError
        If it cannot be written (a full disk); the checkpoint before it is left as it was.
    """
    tensors = {}
    for name in ("generator", "critic", "averaged"):
        tensors |= {f"{name}.{k}": v for k, v in getattr(run, name).state_dict().items()}
    tensors |= adam_tensors(run.generator_adam, "generator_adam")
    tensors |= adam_tensors(run.critic_adam, "critic_adam")
    if run.match is not None:
        tensors |= {f"match.{k}": v for k, v in run.match.running.items()}
    write(folder / CHECKPOINT, tensors, _state(run, seed))


def save_best(run: Run, folder: Path, seed: int, score: dict) -> None:
    """Save the averaged generator alone, with its score.

    Raises
    ------
    MlskyError
        As `save_checkpoint`.
    """
    tensors = {f"averaged.{k}": v for k, v in run.averaged.state_dict().items()}
    write(folder / BEST, tensors, {**_state(run, seed), "score": score})


def _state(run: Run, seed: int) -> dict:
    return {
        "recipe": run.recipe.to_dict(),
        "normaliser": run.normaliser.to_dict(),
        "step": run.step,
        "seconds": run.seconds,
        "seed": seed,
        "rollbacks": run.rollbacks,
        "recent": run.recent,
    }


_DEFAULTS = {f.name: f.default for f in fields(Recipe) if f.default is not MISSING}
_DEFAULTS = json.loads(json.dumps(_DEFAULTS))  # lists, as files have them


def find_checkpoint(
    folder: Path, recipe: Recipe, seed: int
) -> tuple[dict[str, torch.Tensor], dict] | None:
    """Checkpoint of a folder, None if there is none; refused if it is another run's."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    tensors, state = read_checkpoint(path)
    mine = json.loads(json.dumps(recipe.to_dict()))
    theirs = _DEFAULTS | state["recipe"]  # of a version that knew fewer fields
    if theirs != mine or state["seed"] != seed:
        changed = [k for k, v in mine.items() if theirs.get(k) != v] or ["seed"]
        raise ValueError(
            f"{path}: was trained with another {', '.join(changed)}; continue it with its own "
            "recipe and seed, or name another folder"
        )
    return tensors, state


#: Fields of a recipe that define its networks; others may differ in a warm start.
NETWORK_FIELDS = ("generator", "generator_options", "critic", "critic_options", "inputs", "outputs")


#: Options of networks that do not change shapes: initial weights, widths of kernels, bounds of
#: outputs, how often a network is used in one image.
STARTING_OPTIONS = (
    *("total", "beam", "contrast", "spread", "grain", "slope", "beyond", "count"),
    *("scaled", "limit", "kernels", "cib_mix", "gain", "positive"),
)


def _shapes(value):
    """A field of a recipe without entries that may differ in a warm start."""
    if not isinstance(value, dict):
        return value
    return {k: v for k, v in value.items() if k not in STARTING_OPTIONS}


OTHER_PIXELS = ", or give normaliser='data'"


def find_start(
    path: str | os.PathLike, recipe: Recipe, other_pixels: bool = False
) -> tuple[Normaliser, dict[str, dict]]:
    """Normaliser and states ("generator", "critic", "averaged") that a new run starts from.

    `path` is a run folder, or a weight file, which has no critic; with `other_pixels` it may have
    been trained at another pixel size, whose normaliser is not that of the recipe's pixels.

    Raises
    ------
    ValueError
        If nothing is there, or it was trained as another network or at other pixels.
    """
    path = Path(path)
    if path.is_dir():
        file = path / CHECKPOINT
        if not file.exists():
            raise ValueError(f"init_from={path}: holds no {file.name}; name a run folder")
        tensors, state = read_checkpoint(file)
        mine = json.loads(json.dumps(recipe.to_dict()))
        wanted = (*NETWORK_FIELDS, *(() if other_pixels else ("pixel_arcmin",)))
        theirs = state["recipe"]
        changed = [k for k in wanted if _shapes(theirs.get(k)) != _shapes(mine[k])]
        if changed:
            raise ValueError(
                f"init_from={path}: trained as {state['recipe'].get('name')}, which differs from "
                f"recipe {recipe.name} in {', '.join(changed)}; start from one of the same networks"
                f"{OTHER_PIXELS if changed == ['pixel_arcmin'] else ''}"
            )
        parts = {n: part(tensors, n) for n in ("generator", "critic", "averaged")}
        return Normaliser.from_dict(state["normaliser"]), parts
    if not path.exists():
        raise ValueError(f"init_from={path}: does not exist; name a run folder or a weight file")
    weights = open_weights(path)
    names = [
        name
        for name, entry in weights.header["networks"].items()
        if entry["architecture"] == recipe.generator
    ]
    if not names:
        raise ValueError(
            f"init_from={path}: holds {', '.join(weights.networks)} and no {recipe.generator}, "
            f"which recipe {recipe.name} trains"
        )
    if weights.pixel_arcmin != recipe.pixel_arcmin and not other_pixels:
        raise ValueError(
            f"init_from={path}: pixels of {weights.pixel_arcmin}', {recipe.pixel_arcmin}' in "
            f"recipe {recipe.name}; start from the same{OTHER_PIXELS}"
        )
    generator = weights[names[0]].state_dict()
    return weights.normaliser, {"generator": generator, "averaged": generator}


def start_from(run: Run, states: dict[str, dict], path) -> None:
    """Load what `find_start` found."""
    for name, state in states.items():
        module = getattr(run, name)
        if name != "critic" and isinstance(module, default._Generator):
            state = default.widened(module, state)
        shapes = {k: v.shape for k, v in module.state_dict().items()}
        theirs = {k: v.shape for k, v in state.items()}
        if shapes != theirs:
            more = sorted(theirs.keys() ^ shapes.keys())
            what = f"has other layers ({more[0]})" if more else "is of another size"
            raise ValueError(
                f"init_from={path}: its {name} {what} than that of recipe {run.recipe.name}; start "
                "from a run of the same networks"
            )
        module.load_state_dict(state)


def _load_adam(adam: torch.optim.Adam, tensors: dict[str, torch.Tensor]) -> None:
    parameters = [p for group in adam.param_groups for p in group["params"]]
    states: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        i, _, field = key.partition(".")
        if field != "step":
            # with the strides of the parameter, as Adam made them, as others change rounding
            value = torch.empty_like(parameters[int(i)], requires_grad=False).copy_(value)
        states.setdefault(int(i), {})[field] = value
    adam.load_state_dict({"state": states, "param_groups": adam.state_dict()["param_groups"]})


def restore(run: Run, tensors: dict[str, torch.Tensor], state: dict) -> None:
    for name in ("generator", "critic", "averaged"):
        getattr(run, name).load_state_dict(part(tensors, name))
    for name in ("generator_adam", "critic_adam"):
        _load_adam(getattr(run, name), part(tensors, name))
    if run.match is not None:
        device = next(run.generator.parameters()).device
        run.match.running = {k: v.to(device) for k, v in part(tensors, "match").items()}
    run.step, run.seconds = state["step"], state["seconds"]
    run.rollbacks = state.get("rollbacks", 0)  # files of version 0.1 have none
    run.recent = state.get("recent", {})


def state_of(which: str | Mapping[str, str], name: str, names: Iterable[str]) -> str:
    """Which state of a run is wanted: the one word for all `names`, or its own, else "best".

    Raises
    ------
    ValueError
        If `which` names another run.
    """
    if isinstance(which, str):
        return which
    names = [*names]
    for other, state in which.items():
        if other not in names:
            raise ValueError(f"which={other}={state}: must be a state of {', '.join(names)}")
    return which.get(name, "best")


def load_generator(
    folder: str | os.PathLike, which: str = "last"
) -> tuple[nn.Module, Normaliser, dict]:
    """An averaged generator of a run in eval mode, its normaliser, and the run's state then.

    Parameters
    ----------
    folder
        Of the run.
    which
        "last", or "best" for the one that scored best on validation truth, with its ``score``
        in the state; the last one too where none was scored.

    Raises
    ------
    ValueError
        If there is none, `which` is neither, or the best is of another run.
    """
    if which not in ("best", "last"):
        raise ValueError(f"which={which!r}: must be best or last")
    folder = Path(folder)
    if which == "best" and (folder / BEST).exists():
        tensors, state = read_best(folder)
    else:
        tensors, state = read_checkpoint(folder / CHECKPOINT)
    normaliser = Normaliser.from_dict(state["normaliser"])
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in state["recipe"].items()}
    run = new_run(Recipe(**fields), normaliser, state["seed"], torch.device("cpu"))
    run.averaged.load_state_dict(part(tensors, "averaged"))
    return run.averaged.eval(), normaliser, state
