"""One training loop for every recipe; the steps differ by data and loss, not by code.

    train(recipe("paint-0.5"), "train.h5", "runs/paint", minutes=60)

The run folder holds `checkpoint.safetensors` (weights, averages, optimisers: enough to go
on as if never stopped), `log.jsonl` (one line per report: losses, and the ratio of
generated to true power by band) and `recipe.json`. With `steps=` a run is reproducible to
the bit on one device, interrupted or not; with `minutes=` its schedule follows the clock.

A step that gives NaN is skipped. A run that gives nothing else, or whose fields lose the
power they had, goes back to its last good checkpoint and on from there with other noise,
other crops and half the rate, a few times at most.
"""

from __future__ import annotations

import copy
import ctypes
import functools
import importlib
import json
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mlsky import seeds
from mlsky.errors import MlskyError
from mlsky.networks.inputs import squash
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.weights import ARCHITECTURES, open_weights
from mlsky.training import losses, matching
from mlsky.training.data import Crops, Painted
from mlsky.training.recipes import Recipe

__all__ = ["Run", "load_generator", "train"]

logger = logging.getLogger("mlsky")

LOG_CHANNELS = ("tsz", "cib", "radio")  # take the logarithm of eq. 5.2
REPORT_EVERY = 25  # steps
SAVE_EVERY = 120.0  # seconds
POWER_MEMORY = 0.1  # share of a report's batch in the logged running power ratios

BAD_STEPS = 10  # in a row: one NaN is an accident, ten are not
MAX_ROLLBACKS = 3  # in a run
ROLLBACK_RATE = 0.5  # of the learning rates, per rollback
#: Crops of a run that was rolled back: batches far from any that a run comes to.
ROLLBACK_BATCHES = 10**8
#: Reports before the running power ratios mean something.
RIPE_REPORTS = 20
# Factors by which the power of some field in some band is off. Runs that went well came
# within 3 and stayed within 5 (4 recipes, 80 to 115 reports each).
SETTLED, SPOILED, COLLAPSED = 3.0, 10.0, 30.0


def make(name: str, **options) -> nn.Module:
    """A module by its architecture name, "default:Paint"."""
    short, _, cls = name.partition(":")
    return getattr(importlib.import_module(ARCHITECTURES[short]), cls)(**options)


def pick_device(device: str) -> torch.device:
    """The device asked for; "auto" takes CUDA where there is one.

    Raises
    ------
    ValueError
        If the device is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device={device!r}: must be auto, cpu or cuda") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device!r}: no CUDA device is here; use device='cpu'")
    return found


def fit_normaliser(crops: Crops | Painted) -> Normaliser:
    """Eqs 5.2, 5.3 constants from a sample of the regions; kappa_in shares kappa's."""
    names = [n for n in ("kappa", "ksz", "tsz", "cib", "radio") if n in crops.names]
    index = [crops.names.index(n) for n in names]
    return Normaliser.fit(crops.sample()[:, index], names, [n for n in names if n in LOG_CHANNELS])


def normalise(fields: torch.Tensor, names, normaliser: Normaliser) -> torch.Tensor:
    """(B, C, H, W) physical to network units; kappa_in counts as kappa, CIB holds no negatives."""
    rows = []
    for i, name in enumerate(names):
        channel = fields[:, i : i + 1]
        if name == "cib":
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


def _new_run(recipe: Recipe, normaliser: Normaliser, seed: int, device: torch.device) -> Run:
    options = dict(recipe.generator_options)
    if recipe.generator == "default:Paint":
        tsz = normaliser.select(["tsz"])
        options |= {"tsz_mean": tsz.mean[0], "tsz_std": tsz.std[0]}
    generator = make(recipe.generator, seed=seeds.integer(seed, "weights", 0) % 2**31, **options)
    critic = make(
        recipe.critic, seed=seeds.integer(seed, "weights", 1) % 2**31, **recipe.critic_options
    )
    generator, critic = (
        m.to(device, memory_format=torch.channels_last) for m in (generator, critic)
    )
    # in eval mode: reports must not move its batch-norm statistics
    averaged = copy.deepcopy(generator).requires_grad_(False).eval()
    match = None
    if recipe.match:
        spectra = matching.Spectra(recipe.size, recipe.pixel_arcmin, device)
        make_statistics = {
            "default:Paint": matching.paint_statistics,
            "default:Convergence": matching.convergence_statistics,
        }[recipe.generator]
        match = matching.Matching(make_statistics(spectra, normaliser), recipe.match)
    adam = functools.partial(torch.optim.Adam, fused=True)  # one kernel per weight, not ten
    return Run(
        recipe,
        normaliser,
        generator,
        critic,
        averaged,
        adam(generator.parameters(), recipe.generator_rate, recipe.generator_betas),
        adam(critic.parameters(), recipe.critic_rate, recipe.critic_betas),
        match,
    )


# ------------------------------------------------------------------ checkpoints


def _adam_tensors(adam: torch.optim.Adam, prefix: str) -> dict[str, torch.Tensor]:
    return {
        f"{prefix}.{i}.{key}": value
        for i, state in adam.state_dict()["state"].items()
        for key, value in state.items()
    }


def save_checkpoint(run: Run, folder: Path, seed: int) -> None:
    """Write the state of a run, beside and then renamed.

    Raises
    ------
    MlskyError
        If it cannot be written (a full disk); the checkpoint before it is left as it was.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {}
    for name in ("generator", "critic", "averaged"):
        tensors |= {f"{name}.{k}": v for k, v in getattr(run, name).state_dict().items()}
    tensors |= _adam_tensors(run.generator_adam, "generator_adam")
    tensors |= _adam_tensors(run.critic_adam, "critic_adam")
    if run.match is not None:
        tensors |= {f"match.{k}": v for k, v in run.match.running.items()}
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    state = {
        "recipe": run.recipe.to_dict(),
        "normaliser": run.normaliser.to_dict(),
        "step": run.step,
        "seconds": run.seconds,
        "seed": seed,
        "rollbacks": run.rollbacks,
    }
    part = folder / "checkpoint.part"
    try:
        save_file(tensors, part, metadata={"state": json.dumps(state)})
        os.replace(part, folder / "checkpoint.safetensors")
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise MlskyError(
            f"{folder}: the checkpoint of step {run.step} cannot be written ({error}); the one "
            "before it is kept: make room and train on"
        ) from None


def _read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            state = json.loads((file.metadata() or {})["state"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a checkpoint ({error}); remove it") from None
    return tensors, state


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k[len(prefix) + 1 :]: v for k, v in tensors.items() if k.startswith(prefix + ".")}


def _find_checkpoint(
    folder: Path, recipe: Recipe, seed: int
) -> tuple[dict[str, torch.Tensor], dict] | None:
    """Checkpoint of a folder, None if there is none; refused if it is another run's."""
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return None
    tensors, state = _read_checkpoint(path)
    mine = json.loads(json.dumps(recipe.to_dict()))
    if state["recipe"] != mine or state["seed"] != seed:
        changed = [k for k, v in mine.items() if state["recipe"].get(k) != v] or ["seed"]
        raise ValueError(
            f"{path}: was trained with another {', '.join(changed)}; continue it with its own "
            "recipe and seed, or name another folder"
        )
    return tensors, state


#: What a recipe's networks are made of; the rest of a recipe may differ in a warm start.
NETWORK_FIELDS = ("generator", "generator_options", "critic", "critic_options", "inputs", "outputs")


def _find_start(path: str | os.PathLike, recipe: Recipe) -> tuple[Normaliser, dict[str, dict]]:
    """Normaliser and states ("generator", "critic", "averaged") that a new run starts from.

    `path` is a run folder, or a weight file, which has no critic.

    Raises
    ------
    ValueError
        If nothing is there, or it was trained as another network or at other pixels.
    """
    path = Path(path)
    if path.is_dir():
        file = path / "checkpoint.safetensors"
        if not file.exists():
            raise ValueError(f"init_from={path}: holds no {file.name}; name a run folder")
        tensors, state = _read_checkpoint(file)
        mine = json.loads(json.dumps(recipe.to_dict()))
        wanted = (*NETWORK_FIELDS, "pixel_arcmin")
        changed = [k for k in wanted if state["recipe"].get(k) != mine[k]]
        if changed:
            raise ValueError(
                f"init_from={path}: trained as {state['recipe'].get('name')}, which differs from "
                f"recipe {recipe.name} in {', '.join(changed)}; start from one of the same networks"
            )
        parts = {n: _part(tensors, n) for n in ("generator", "critic", "averaged")}
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
    if weights.pixel_arcmin != recipe.pixel_arcmin:
        raise ValueError(
            f"init_from={path}: pixels of {weights.pixel_arcmin}', {recipe.pixel_arcmin}' in "
            f"recipe {recipe.name}"
        )
    generator = weights[names[0]].state_dict()
    return weights.normaliser, {"generator": generator, "averaged": generator}


def _start(run: Run, states: dict[str, dict], path) -> None:
    """Load what `_find_start` found."""
    for name, state in states.items():
        module = getattr(run, name)
        shapes = {k: v.shape for k, v in module.state_dict().items()}
        if shapes != {k: v.shape for k, v in state.items()}:
            raise ValueError(
                f"init_from={path}: its {name} is of another size than that of recipe "
                f"{run.recipe.name}; start from a run of the same networks"
            )
        module.load_state_dict(state)


def _load_adam(adam: torch.optim.Adam, tensors: dict[str, torch.Tensor]) -> None:
    parameters = [p for group in adam.param_groups for p in group["params"]]
    states: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        i, _, field = key.partition(".")
        if field != "step":
            # strides of the parameter, as Adam made them: other strides, other rounding
            value = torch.empty_like(parameters[int(i)], requires_grad=False).copy_(value)
        states.setdefault(int(i), {})[field] = value
    adam.load_state_dict({"state": states, "param_groups": adam.state_dict()["param_groups"]})


def _restore(run: Run, tensors: dict[str, torch.Tensor], state: dict) -> None:
    for name in ("generator", "critic", "averaged"):
        getattr(run, name).load_state_dict(_part(tensors, name))
    for name in ("generator_adam", "critic_adam"):
        _load_adam(getattr(run, name), _part(tensors, name))
    if run.match is not None:
        device = next(run.generator.parameters()).device
        run.match.running = {k: v.to(device) for k, v in _part(tensors, "match").items()}
    run.step, run.seconds = state["step"], state["seconds"]
    run.rollbacks = state.get("rollbacks", 0)  # files of version 0.1 have none


def load_generator(folder: str | os.PathLike) -> tuple[nn.Module, Normaliser, dict]:
    """The averaged generator of a run in eval mode, its normaliser, and the run's state."""
    tensors, state = _read_checkpoint(Path(folder) / "checkpoint.safetensors")
    normaliser = Normaliser.from_dict(state["normaliser"])
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in state["recipe"].items()}
    run = _new_run(Recipe(**fields), normaliser, state["seed"], torch.device("cpu"))
    run.averaged.load_state_dict(_part(tensors, "averaged"))
    return run.averaged.eval(), normaliser, state


# ------------------------------------------------------------------ one step


def _rate(recipe: Recipe, step: int, done: float) -> float:
    """Learning-rate factor: linear warm-up, constant, cosine to 1 %."""
    factor = min(1.0, (step + 1) / recipe.warm_up) if recipe.warm_up else 1.0
    if done > recipe.decay_from:
        phase = (done - recipe.decay_from) / (1 - recipe.decay_from)
        factor *= 0.5 * (1 + math.cos(math.pi * phase)) + 0.01
    return factor


def _view(run: Run, condition: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
    """What the critic is shown."""
    if run.recipe.objective == "wgan-gp":
        # PIXGAN's critic sees the kappa it is conditioned on; the others the five fields
        conditional = run.recipe.generator == "han2021:PIXGAN"
        return torch.cat([condition, fields], 1) if conditional else fields
    shown = [squash(condition), squash(fields)]
    if "tsz" in run.recipe.outputs:
        i = run.recipe.outputs.index("tsz")
        m, d = (getattr(run.normaliser.select(["tsz"]), k)[0] for k in ("mean", "std"))
        # bright clusters again in linear units, where their profiles can be told apart
        shown.append(torch.expm1(-(fields[:, i : i + 1] * d + m).clamp(-6, 0)) / 10)
    return torch.cat(shown, 1)


def _generate(run: Run, module: nn.Module, condition: torch.Tensor, rng) -> torch.Tensor:
    if run.recipe.generator == "han2021:DCGAN":
        latent = torch.randn(
            condition.shape[0], module.kwargs["latent"], generator=rng, device=rng.device
        )
        return module(latent)
    if run.recipe.objective == "wgan-gp":
        return module(condition)
    noise = module.draw_noise(len(condition), *condition.shape[-2:], rng)
    return module(condition.contiguous(memory_format=torch.channels_last), noise)


def _apply(module: nn.Module, adam: torch.optim.Adam, loss: torch.Tensor, clip: float) -> float:
    adam.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(module.parameters(), clip).item()
    if math.isfinite(norm):  # one bad batch is skipped, not learnt
        adam.step()
    return norm


def _relativistic_step(run: Run, condition, real, rng, autocast) -> dict[str, float]:
    """Critic and generator on the same fakes; R1 + R2 every few steps."""
    r = run.recipe
    with autocast():
        fake = _generate(run, run.generator, condition, rng)
    # channels last once, and not at every convolution
    shown_real, shown_fake = (
        _view(run, condition, x).contiguous(memory_format=torch.channels_last) for x in (real, fake)
    )
    n = len(real)
    both = torch.cat([shown_real, shown_fake.detach()])

    def score(x):
        with autocast():
            return run.critic(x)

    penalty = 0.0
    if run.step % r.penalty_every == 0:
        scores, norms = losses.scores_and_norms(score, both)
        # R1 + R2: each the mean over its own n patches of |grad D|^2 / 2
        penalty = r.penalty_every * r.penalty_weight * (norms**2).sum() / (2 * n)
    else:
        scores = score(both)
    loss = losses.relativistic_critic(scores[:n], scores[n:])
    log = {"critic": loss.item(), "distance": (scores[:n] - scores[n:]).mean().item()}
    loss = loss + penalty
    _apply(run.critic, run.critic_adam, loss, float("inf"))
    run.critic.requires_grad_(False)
    with autocast():
        of_fake = run.critic(shown_fake)
        with torch.no_grad():  # apart: nothing flows back through the truth
            of_real = run.critic(shown_real)
    loss = losses.relativistic_generator(of_real, of_fake)
    matched, parts = run.match(condition, fake, real)
    log["gradient"] = _apply(
        run.generator, run.generator_adam, loss + r.match_weight * matched, r.clip
    )
    run.critic.requires_grad_(True)
    return log | parts


def _wgan_step(run: Run, batches, rng, autocast) -> dict[str, float]:
    """`critic_steps` critic steps, then one of the generator (the paper's order)."""
    r = run.recipe
    for condition, real in batches:
        with torch.no_grad(), autocast():
            fake = _generate(run, run.generator, condition, rng)
        eps = torch.rand(len(real), generator=rng, device=rng.device)
        critic = losses.wgan_gp_critic(
            run.critic,
            _view(run, condition, real),
            _view(run, condition, fake),
            eps,
            r.penalty_weight,
        )
        _apply(run.critic, run.critic_adam, critic.loss, float("inf"))
    run.critic.requires_grad_(False)
    condition, real = batches[0]
    with autocast():
        fake = _generate(run, run.generator, condition, rng)
        loss = losses.generator_loss(run.critic(_view(run, condition, fake)))
    if r.variance_weight:
        loss = loss + r.variance_weight * losses.variance_l1(real, fake)
    gradient = _apply(run.generator, run.generator_adam, loss, r.clip)
    run.critic.requires_grad_(True)
    return {
        "distance": critic.distance.item(),
        "penalty": critic.penalty.item(),
        "generator": loss.item(),
        "gradient": gradient,
    }


def _power_report(run: Run, spectra: matching.Spectra, condition, real, rng, ratios: dict) -> dict:
    """Running ratio of generated to true power, three wide bands per field."""
    with torch.no_grad():
        fake = _generate(run, run.averaged, condition, rng)
        p_fake, p_real = (
            torch.diagonal(spectra.pairs(spectra.modes(x)), dim1=0, dim2=1).t()
            for x in (fake, real)
        )
    bands = torch.arange(len(spectra.ell)).tensor_split(3)
    out = {}
    for i, name in enumerate(run.recipe.outputs):
        for j, band in enumerate(bands):
            key = f"{name}{j}"
            now = (p_fake[i, band].mean().item(), p_real[i, band].mean().item())
            old = ratios.get(key, now)
            ratios[key] = tuple(
                (1 - POWER_MEMORY) * a + POWER_MEMORY * b for a, b in zip(old, now, strict=True)
            )
        out[name] = [round(ratios[f"{name}{j}"][0] / ratios[f"{name}{j}"][1], 3) for j in range(3)]
    return out


def _update_average(run: Run) -> None:
    """Averaged weights after a step; early on the memory is shorter."""
    memory = min(run.recipe.average, run.step / (run.step + 20)) if run.recipe.average else 0.0
    with torch.no_grad():
        for a, b in zip(run.averaged.parameters(), run.generator.parameters(), strict=True):
            a.lerp_(b, 1 - memory)
        for a, b in zip(run.averaged.buffers(), run.generator.buffers(), strict=True):
            a.copy_(b)


def _one_step(run: Run, batch: Callable, seed: int, done: float) -> tuple[dict[str, float], tuple]:
    """One step of any recipe: its log, and (condition, real, rng) for the report."""
    recipe = run.recipe
    device = next(run.generator.parameters()).device

    def autocast():
        return torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16)

    factor = _rate(recipe, run.step, done) * ROLLBACK_RATE**run.rollbacks
    run.generator_adam.param_groups[0]["lr"] = recipe.generator_rate * factor
    run.critic_adam.param_groups[0]["lr"] = recipe.critic_rate * factor
    # a generator of its own for each step: nothing to save, nothing to restore
    again = (run.rollbacks,) if run.rollbacks else ()
    key = seeds.integer(seed, "training", run.step, 1, *again)
    rng = torch.Generator(device=device).manual_seed(key)
    first = ROLLBACK_BATCHES * run.rollbacks
    if recipe.objective == "wgan-gp":
        k = recipe.critic_steps
        batches = [batch(first + run.step * k + i) for i in range(k)]
        log = _wgan_step(run, batches, rng, autocast)
        condition, real = batches[-1]
    else:
        condition, real = batch(first + run.step)
        log = _relativistic_step(run, condition, real, rng, autocast)
    run.step += 1
    _update_average(run)
    return log, (condition, real, rng)


# ------------------------------------------------------------------ a whole run


def _keep_memory() -> None:
    """Have glibc keep freed memory for the next step instead of giving it back each time.

    Otherwise every large tensor is fresh pages that the kernel has to clear: a tenth of a step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
    mallopt(mmap_threshold, 2**25)  # the most that glibc takes
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 2**26)


def _check_length(minutes: float | None, steps: int | None) -> None:
    if (minutes is None) == (steps is None):
        raise ValueError(f"minutes={minutes}, steps={steps}: give exactly one of them")
    name, length = ("minutes", minutes) if steps is None else ("steps", steps)
    if not (length > 0 and math.isfinite(length)):
        raise ValueError(f"{name}={length}: must be > 0")


def _open_sets(
    recipe: Recipe, data, target, seed: int
) -> tuple[Crops | Painted, Crops | Painted | None]:
    """Crops of the truth (with its condition, if paired), and of an unpaired condition."""
    if target is None:
        truth, conditions = _open(data, (*recipe.inputs, *recipe.outputs), recipe, seed), None
    else:
        if not recipe.inputs:
            raise ValueError(f"target={target}: recipe {recipe.name} has no condition to unpair")
        truth = _open(target, recipe.outputs, recipe, seed)
        conditions = _open(data, recipe.inputs, recipe, seed + 1)
    for crops in (truth, conditions):
        if crops is None:
            continue
        if crops.attrs["pixel_arcmin"] != recipe.pixel_arcmin:
            raise ValueError(
                f"pixels of {crops.attrs['pixel_arcmin']}' in the data, {recipe.pixel_arcmin}' in "
                f"recipe {recipe.name}: paint or cut the data at the recipe's pixel size"
            )
        if crops.patches < recipe.batch:
            raise ValueError(
                f"{crops.patches} patches of {recipe.size} pixels in the data: recipe "
                f"{recipe.name} needs at least a batch of {recipe.batch}, and good networks "
                "thousands; paint or cut more"
            )
    return truth, conditions


def _open(data, names: tuple[str, ...], recipe: Recipe, seed: int) -> Crops | Painted:
    """Crops of a set, or patches painted on the fly as they came."""
    if not isinstance(data, Painted):
        return Crops(data, names, recipe.size, seed)
    if data.names != names or data.size != recipe.size:
        raise ValueError(
            f"painted {', '.join(data.names)} of {data.size} pixels: recipe {recipe.name} takes "
            f"{', '.join(names)} of {recipe.size}, in that order"
        )
    return data


def _choose_normaliser(
    recipe: Recipe, given: Normaliser | None, stored: Normaliser | None, truth: Crops | Painted
) -> Normaliser:
    """Constants that weights were trained with, those given, or those of the truth."""
    if stored is not None:
        # their own, even if the data have changed: weights mean nothing with others
        if given not in (None, stored):
            raise ValueError(
                "normaliser: not that of the weights to go on with; leave it out, or start anew"
            )
        return stored
    normaliser = fit_normaliser(truth) if given is None else given
    for name in (*recipe.inputs, *recipe.outputs):
        if ("kappa" if name == "kappa_in" else name) not in normaliser.channels:
            raise ValueError(
                f"recipe {recipe.name}: the normaliser has {', '.join(normaliser.channels)} and "
                f"not {name}; give normaliser="
            )
    return normaliser


def _make_batch(recipe: Recipe, truth, conditions, run: Run) -> Callable:
    """Function of a batch number to (condition, real) in network units, on the run's device."""
    names, split = (*recipe.inputs, *recipe.outputs), len(recipe.inputs)
    device = next(run.generator.parameters()).device

    def batch(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        fields = truth.batch(number, recipe.batch)
        if conditions is not None:
            fields = torch.cat([conditions.batch(number, recipe.batch), fields], 1)
        fields = normalise(fields.to(device), names, run.normaliser)
        return fields[:, :split], fields[:, split:]

    return batch


class _Watch:
    """Tells when a run has gone astray, and when its state is fit to be kept."""

    def __init__(self) -> None:
        self.bad = 0  # steps in a row that gave NaN or infinity
        self.reports = 0
        self.settled = False
        self.off = 1.0  # factor by which the power of some field in some band is off

    def step(self, run: Run, log: dict[str, float]) -> str | None:
        """What is wrong after a step, if anything."""
        self.bad = 0 if all(map(math.isfinite, log.values())) else self.bad + 1
        if self.bad >= BAD_STEPS:
            return f"{self.bad} steps in a row gave NaN or infinity"
        return None

    def report(self, run: Run, power: dict[str, list[float]]) -> str | None:
        """What is wrong with the running ratios of power, or with the weights."""
        if not _finite(run):
            return "weights are NaN or infinite"
        self.reports += 1
        if self.reports < RIPE_REPORTS:
            return None
        ratios = [max(r, 1 / r) if r > 0 else math.inf for rs in power.values() for r in rs]
        # NaN compares as false: named first, it stays the largest
        self.off = math.inf if any(map(math.isnan, ratios)) else max(ratios)
        self.settled |= self.off < SETTLED
        if self.settled and self.off > COLLAPSED:
            worst = max(power, key=lambda name: max(abs(math.log(r or 1e-9)) for r in power[name]))
            return f"the power of {worst} went off by a factor of {self.off:.3g}"
        return None

    def good(self, run: Run) -> bool:
        """Whether the state may replace the last good checkpoint.

        Steps that gave NaN were skipped and do not count.
        """
        return not (self.settled and self.off > SPOILED) and _finite(run)


def _finite(run: Run) -> bool:
    parameters = [*run.generator.parameters(), *run.critic.parameters()]
    return all(bool(torch.isfinite(p).all()) for p in parameters)


def _begin(run: Run, folder: Path, seed: int, fresh: bool) -> None:
    """Make the run folder, with a first state to come back to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.json").write_text(json.dumps(run.recipe.to_dict(), indent=1))
        (folder / "log.jsonl").touch()
    except OSError as error:
        raise MlskyError(f"{folder}: cannot be written ({error.strerror})") from None
    if fresh:
        save_checkpoint(run, folder, seed)


def _write_log(folder: Path, line: dict) -> None:
    """One line of the log; a run does not end for want of it."""
    try:
        with (folder / "log.jsonl").open("a") as file:
            print(json.dumps(line), file=file)
    except OSError as error:
        logger.warning("%s: cannot be written (%s)", folder / "log.jsonl", error.strerror)


def _roll_back(run: Run, folder: Path, seed: int, trouble: str) -> None:
    """Back to the last good checkpoint, with other numbers and a lower rate from there on."""
    at, rollbacks, seconds = run.step, run.rollbacks, run.seconds
    _restore(run, *_read_checkpoint(folder / "checkpoint.safetensors"))
    if rollbacks == MAX_ROLLBACKS:
        raise MlskyError(
            f"{folder}: step {at}: {trouble}, after {rollbacks} rollbacks; the last good "
            f"checkpoint, of step {run.step}, is kept: lower the recipe's rates or check the data"
        )
    run.rollbacks, run.seconds = rollbacks + 1, seconds  # the clock goes on
    rate = ROLLBACK_RATE**run.rollbacks
    _write_log(
        folder, {"step": at, "rolled_back_to": run.step, "why": trouble, "rate_factor": rate}
    )
    logger.warning(
        "%s: step %d: %s; back to step %d at %g of the rate", folder, at, trouble, run.step, rate
    )
    save_checkpoint(run, folder, seed)  # so that it counts, should the run be stopped


def train(
    recipe: Recipe,
    data: str | os.PathLike | Painted,
    out: str | os.PathLike,
    *,
    target: str | os.PathLike | Painted | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    device: str = "auto",
    seed: int = 0,
    normaliser: Normaliser | None = None,
    init_from: str | os.PathLike | None = None,
    progress: bool = True,
) -> Run:
    """Train one recipe; continues the run in folder `out` if there is one.

    Parameters
    ----------
    recipe
        What to train.
    data
        Training set (HDF5) of the condition, and of the truth unless `target` is given; or
        `mlsky.training.data.painted` patches.
    out
        Run folder.
    target
        Another set for the truth, unpaired with the condition (the paper's third step).
    minutes, steps
        Length of the whole run: give one.
    device
        "auto", "cpu" or "cuda".
    seed
        Of weights, crops and noise.
    normaliser
        Constants to use; by default fitted on the truth.
    init_from
        Run folder or weight file of the same networks that a new run starts from: generator,
        critic (a weight file has none) and averages with their normaliser; optimisers, rates
        and running statistics start anew. Without effect once folder `out` holds a checkpoint.

    Raises
    ------
    ValueError
        For a bad set, folder, device or length; before anything is trained.
    MlskyError
        If the run goes astray too often, or its folder cannot be written; its last good
        checkpoint is kept.
    """
    from tqdm import tqdm

    _check_length(minutes, steps)
    seeds.check(seed)
    device = pick_device(device)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; name a folder for the run")
    found = _find_checkpoint(folder, recipe, seed)
    start = _find_start(init_from, recipe) if init_from is not None and found is None else None
    if device.type == "cpu":
        _keep_memory()
    truth, conditions = _open_sets(recipe, data, target, seed)
    if found is not None:
        stored = Normaliser.from_dict(found[1]["normaliser"])
    else:
        stored = start[0] if start else None
    normaliser = _choose_normaliser(recipe, normaliser, stored, truth)
    run = _new_run(recipe, normaliser, seed, device)
    if found is not None:
        _restore(run, *found)
    elif start:
        _start(run, start[1], init_from)
    _begin(run, folder, seed, fresh=found is None)
    spectra = matching.Spectra(recipe.size, recipe.pixel_arcmin, device)
    batch = _make_batch(recipe, truth, conditions, run)

    def done():
        return run.seconds / (60 * minutes) if steps is None else run.step / steps

    watch = _Watch()
    ratios: dict = {}
    saved = time.monotonic()
    bar = tqdm(total=100, disable=not progress, desc=recipe.name, unit="%")
    with bar:
        while done() < 1:
            began = time.monotonic()
            log, shown = _one_step(run, batch, seed, done())
            trouble = watch.step(run, log)
            if trouble is None and run.step % REPORT_EVERY == 0:
                log = {k: float(f"{v:.4g}") for k, v in log.items()}
                log["power"] = _power_report(run, spectra, *shown, ratios)
                _write_log(folder, {"step": run.step, "seconds": round(run.seconds, 1), **log})
                bar.set_postfix_str(f"step {run.step}")
                trouble = watch.report(run, log["power"])
            run.seconds += time.monotonic() - began
            if trouble is not None:
                _roll_back(run, folder, seed, trouble)
                watch, ratios = _Watch(), {}
            bar.update(min(100, 100 * done()) - bar.n)
            if time.monotonic() - saved > SAVE_EVERY and watch.good(run):
                try:
                    save_checkpoint(run, folder, seed)
                except MlskyError as error:  # there may be room the next time
                    logger.warning("%s", error)
                saved = time.monotonic()
    if watch.good(run):
        save_checkpoint(run, folder, seed)
    else:
        logger.warning("%s: the run ended badly; its last good checkpoint is kept", folder)
    return run
