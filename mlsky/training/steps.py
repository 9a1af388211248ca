"""One step of training: generated fields, losses, both optimisers, and what is reported of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from mlsky import seeds
from mlsky.networks.default import colours
from mlsky.networks.inputs import asinh_compression
from mlsky.toys.unconditional import draw
from mlsky.training import losses, matching
from mlsky.training.elbo import elbo_step
from mlsky.training.recipes import Recipe
from mlsky.training.run import Run

__all__ = ["follow", "learning_rate", "one_step", "power_report"]

POWER_MEMORY = 0.1  # weight of the batch of a report in the logged running power ratios
CRITIC_CHANNELS = 5  # of the paper's critic, by default
ROLLBACK_RATE = 0.5  # of the learning rates, per rollback
#: Batch numbers of a run that was rolled back, far from those of any run.
ROLLBACK_BATCHES = 10**8


def learning_rate(recipe: Recipe, step: int, done: float) -> float:
    """Learning-rate factor: linear warm-up, constant, cosine to 1 %."""
    factor = min(1.0, (step + 1) / recipe.warm_up) if recipe.warm_up else 1.0
    if done > recipe.decay_from:
        phase = (done - recipe.decay_from) / (1 - recipe.decay_from)
        factor *= 0.5 * (1 + math.cos(math.pi * phase)) + 0.01
    return factor


def _view(run: Run, condition: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
    """The input of the critic."""
    if run.recipe.objective == "wgan-gp":
        # PIXGAN's critic sees the kappa it is conditioned on; the others the five fields
        seen = run.recipe.critic_options.get("channels", CRITIC_CHANNELS)
        return torch.cat([condition, fields], 1) if seen > fields.shape[1] else fields
    several = "cib" in run.recipe.outputs
    shown = [
        asinh_compression(condition),
        asinh_compression(colours(fields) if several else fields),
    ]
    if "tsz" in run.recipe.outputs:
        i = run.recipe.outputs.index("tsz")
        m, d = (getattr(run.normaliser.select(["tsz"]), k)[0] for k in ("mean", "std"))
        # bright clusters also in linear units, where their profiles differ visibly
        shown.append(torch.expm1(-(fields[:, i : i + 1] * d + m).clamp(-6, 0)) / 10)
    return torch.cat(shown, 1)


def _generate(run: Run, module: nn.Module, condition: torch.Tensor, rng) -> torch.Tensor:
    if not run.recipe.inputs:
        return draw(module, len(condition), rng)
    condition = condition.contiguous(memory_format=torch.channels_last)
    if not hasattr(module, "draw_noise"):
        return module(condition)
    return module(condition, module.draw_noise(len(condition), *condition.shape[-2:], rng))


def _apply(module: nn.Module, adam: torch.optim.Adam, loss: torch.Tensor, clip: float) -> float:
    adam.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(module.parameters(), clip).item()
    if math.isfinite(norm):  # one bad batch is skipped
        adam.step()
    return norm


def relativistic_step(run: Run, condition, real, rng, autocast) -> dict[str, float]:
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


def wgan_step(run: Run, batches, rng, autocast) -> dict[str, float]:
    """`critic_steps` critic steps, then one of the generator (the paper's order).

    Every `penalty_every`-th critic step has a gradient penalty, the first one always; the weights
    of the penalties of a step add up to `critic_steps` times that of the recipe.
    """
    r = run.recipe
    penalised = range(0, len(batches), r.penalty_every)

    def score(x):
        with autocast():
            return run.critic(x)

    drawn = []
    for i, (condition, real) in enumerate(batches):
        with torch.no_grad(), autocast():
            fake = _generate(run, run.generator, condition, rng)
        drawn.append(fake)
        # channels last once, and not at every convolution
        shown_real, shown_fake = (
            _view(run, condition, x).contiguous(memory_format=torch.channels_last)
            for x in (real, fake)
        )
        eps = torch.rand(len(real), generator=rng, device=rng.device)
        weight = r.penalty_weight * len(batches) / len(penalised)
        critic = losses.wgan_gp_critic(
            score, shown_real, shown_fake, eps if i in penalised else None, weight
        )
        if i in penalised:
            penalty = critic.penalty.item()
        _apply(run.critic, run.critic_adam, critic.loss, float("inf"))
    run.critic.requires_grad_(False)
    condition, real = batches[0]
    with autocast():
        fake = _generate(run, run.generator, condition, rng)
    loss = losses.generator_loss(score(_view(run, condition, fake)))
    if r.variance_weight:
        loss = loss + r.variance_weight * losses.variance_l1(real, fake)
    parts = {}
    if run.match is not None:
        compared = condition, fake, real
        if r.match_steady:  # the critic's images are of the same generator, and cost nothing more
            compared = (
                torch.cat([condition, *(c for c, _ in batches)]),
                torch.cat([fake, *drawn]),
                torch.cat([x for _, x in batches]),
            )
        rate = run.generator_adam.param_groups[0]["lr"] / r.generator_rate
        matched, parts = run.match(*compared, rate, len(fake))
        loss = loss + r.match_weight * matched
    gradient = _apply(run.generator, run.generator_adam, loss, r.clip)
    run.critic.requires_grad_(True)
    return {
        "distance": critic.distance.item(),
        "penalty": penalty,
        "critic": r.penalty_weight * penalty - critic.distance.item(),
        "generator": loss.item(),
        "gradient": gradient,
    } | parts


def power_report(run: Run, spectra: matching.Spectra, condition, real, rng, ratios: dict) -> dict:
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


@torch.no_grad()
def follow(average: torch.nn.Module, network: torch.nn.Module, memory: float) -> None:
    """One step of a running average of weights; a memory of 0 copies those of the network."""
    for a, b in zip(average.parameters(), network.parameters(), strict=True):
        a.lerp_(b, 1 - memory)
    # statistics of batch norms are averaged as the weights that they belong to
    for a, b in zip(average.buffers(), network.buffers(), strict=True):
        if a.is_floating_point():
            a.lerp_(b, 1 - memory)
        else:
            a.copy_(b)


def _update_average(run: Run) -> None:
    """Averaged weights after a step; early on the memory is shorter."""
    memory = min(run.recipe.average, run.step / (run.step + 20)) if run.recipe.average else 0.0
    follow(run.averaged, run.generator, memory)


def one_step(run: Run, batch: Callable, seed: int, done: float) -> tuple[dict[str, float], tuple]:
    """One step of any recipe: its log, and (condition, real, rng) for the report."""
    recipe = run.recipe
    device = next(run.generator.parameters()).device

    def autocast():
        return torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16)

    factor = learning_rate(recipe, run.step, done) * ROLLBACK_RATE**run.rollbacks
    run.generator_adam.param_groups[0]["lr"] = recipe.generator_rate * factor
    run.critic_adam.param_groups[0]["lr"] = recipe.critic_rate * factor
    # a new generator for each step, so that nothing has to be saved or restored
    again = (run.rollbacks,) if run.rollbacks else ()
    key = seeds.integer(seed, "training", run.step, 1, *again)
    rng = torch.Generator(device=device).manual_seed(key)
    first = ROLLBACK_BATCHES * run.rollbacks
    if recipe.objective == "wgan-gp":
        k = recipe.critic_steps
        batches = [batch(first + run.step * k + i) for i in range(k)]
        log = wgan_step(run, batches, rng, autocast)
        condition, real = batches[-1]
    elif recipe.objective == "elbo":
        condition, real = batch(first + run.step)
        log = elbo_step(run, real, rng, autocast, done)
    else:
        condition, real = batch(first + run.step)
        log = relativistic_step(run, condition, real, rng, autocast)
    run.step += 1
    _update_average(run)
    return log, (condition, real, rng)
