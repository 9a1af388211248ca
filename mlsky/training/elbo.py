"""The evidence lower bound (Kingma & Welling 2014, arXiv:1312.6114) and one training step on it.

A run with the objective "elbo" has a decoder in place of a generator and an encoder in place of a
critic; both minimise the same loss.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from mlsky.toys.vae import reparameterise
from mlsky.training.recipes import Recipe
from mlsky.training.run import Run

__all__ = ["Elbo", "beta", "elbo", "elbo_step"]


class Elbo(NamedTuple):
    """The bound and its parts, means over images (nats)."""

    #: The objective, log p(x|z) - beta D_KL.
    bound: torch.Tensor
    #: E_q log p(x|z), estimated with one draw of z.
    likelihood: torch.Tensor
    #: D_KL(q(z|x) || N(0, I)), analytic, or log q(z|x) - log p(z) at the draw.
    divergence: torch.Tensor


def elbo(
    images: torch.Tensor,
    decoded: torch.Tensor,
    log_noise: torch.Tensor,
    mean: torch.Tensor,
    log_variance: torch.Tensor,
    z: torch.Tensor | None = None,
    beta: float = 1.0,
) -> Elbo:
    """log p(x|z) + log p(z) - log q(z|x), the lower bound of log p(x).

    Parameters
    ----------
    images, decoded
        (N, C, H, W): images, and the decoder output for a draw of z; or the modes of both.
    log_noise
        Log of the standard deviation of p(x|z), of all pixels or (C, H, W).
    mean, log_variance
        (N, latent) of q(z|x).
    z
        The draw (N, latent), for the estimate from this draw alone; by default the expectation
        of log p(z) - log q(z|x) is taken in closed form (Kingma & Welling 2014, appendix B), which
        has the same mean and less noise.
    beta
        Weight of the divergence; 1 is the bound (Higgins et al. 2017 for others).

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    if images.shape != decoded.shape or mean.shape != log_variance.shape:
        raise ValueError(
            f"images {tuple(images.shape)} and decoded {tuple(decoded.shape)}, mean "
            f"{tuple(mean.shape)} and log_variance {tuple(log_variance.shape)}: must pair up"
        )
    square = ((images - decoded) * torch.exp(-log_noise)) ** 2
    likelihood = -(square / 2 + math.log(2 * math.pi) / 2 + log_noise).flatten(1).sum(1).mean()
    if z is None:
        each = (mean**2 + torch.exp(log_variance) - 1 - log_variance) / 2
    else:
        each = (z**2 - (z - mean) ** 2 * torch.exp(-log_variance) - log_variance) / 2
    divergence = each.sum(1).mean()
    return Elbo(likelihood - beta * divergence, likelihood, divergence)


def beta(recipe: Recipe, done: float) -> float:
    """Weight of the divergence after the fraction `done` of a run.

    It rises exponentially from `penalty_start` times its value until `decay_from` (Bowman et al.
    2016, arXiv:1511.06349). Otherwise latent numbers with little information are given up early.
    """
    left = max(0.0, 1 - done / recipe.decay_from) if recipe.decay_from else 0.0
    return recipe.penalty_weight * recipe.penalty_start**left


def elbo_step(
    run: Run, real: torch.Tensor, rng: torch.Generator, autocast, done: float = 1.0
) -> dict[str, float]:
    """One step of both networks; its log is per pixel, but for the divergence (nats per image)."""
    decoder, encoder = run.generator, run.critic
    real = real.contiguous()
    with autocast():
        mean, log_variance = encoder(real)
        decoded = decoder(reparameterise(mean, log_variance, rng))
    weight = beta(run.recipe, done)
    modes = (decoder.modes(x) for x in (real, decoded.float()))
    found = elbo(*modes, decoder.log_noise, mean, log_variance, beta=weight)
    loss = -found.bound / real[0].numel()
    optimisers = (run.generator_adam, run.critic_adam)
    for adam in optimisers:
        adam.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [*decoder.parameters(), *encoder.parameters()]
    norm = nn.utils.clip_grad_norm_(parameters, run.recipe.clip).item()
    if math.isfinite(norm):  # one bad batch is skipped
        for adam in optimisers:
            adam.step()
    return {
        "loss": loss.item(),
        "divergence": found.divergence.item(),
        "noise": decoder.noise,
        "gradient": norm,
    }
