"""Losses of the adversarial training: WGAN-GP, relativistic losses, and additional terms.

Scores are (N,) or (N, 1), patches (N, C, H, W) in network units. Everything returns
float32 scalars (float64 for float64 patches), also under autocast. Random numbers come
in as arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import functional

from mlsky.networks.outputs import single

__all__ = [
    "CriticLoss",
    "generator_loss",
    "gradient_norm",
    "relativistic_critic",
    "relativistic_generator",
    "scores_and_norms",
    "variance_l1",
    "wgan_gp_critic",
]

Critic = Callable[[torch.Tensor], torch.Tensor]

# Added to a squared norm, so that its root has a slope at zero: less than any gradient in float32.
_TINY = 1e-30


class CriticLoss(NamedTuple):
    """A critic's loss and its parts, for the log."""

    loss: torch.Tensor
    #: E D(real) - E D(fake): the estimate of the Wasserstein distance.
    distance: torch.Tensor
    #: The gradient penalty before its weight.
    penalty: torch.Tensor


def scores_and_norms(critic: Critic, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """D(x) and |grad_x D(x)| of each patch (N,), differentiable in the critic's weights.

    One pass through the critic serves both.
    """
    x = patches.detach().requires_grad_(True)
    with torch.enable_grad():
        scores = _scores(critic(x))
        (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    # flattening, as `vector_norm` needs it, would copy patches that are stored channels last
    square = (single(gradient) ** 2).sum(tuple(range(1, gradient.ndim)))
    return scores, torch.sqrt(square + _TINY)


def gradient_norm(critic: Critic, patches: torch.Tensor) -> torch.Tensor:
    """|grad_x D(x)| of each patch (N,), differentiable in the critic's weights."""
    return scores_and_norms(critic, patches)[1]


def wgan_gp_critic(
    critic: Critic,
    real: torch.Tensor,
    fake: torch.Tensor,
    eps: torch.Tensor | None,
    penalty_weight: float = 10.0,
) -> CriticLoss:
    """Critic's loss of a Wasserstein GAN with gradient penalty (Gulrajani et al. 2017, eq. 3).

    ``E D(fake) - E D(real) + lambda E (|grad D(eps real + (1 - eps) fake)| - 1)^2``, the penalty of
    Gulrajani et al. (2017), arXiv:1704.00028, and of the released code of Han et al. (2021).

    Parameters
    ----------
    critic
        Patches (N, C, H, W) to scores.
    real, fake
        Patches of the truth and of the generator; no gradient flows into either.
    eps
        (N,) uniform numbers in [0, 1], one per pair. None leaves the penalty out, for lazy
        regularisation: it takes more than half of the time of a step.
    penalty_weight
        lambda; 10 in the paper.
    """
    if real.shape != fake.shape:
        raise ValueError(
            f"real {tuple(real.shape)} and fake {tuple(fake.shape)}: must have one shape"
        )
    if eps is not None and eps.numel() != len(real):
        raise ValueError(f"eps of shape {tuple(eps.shape)}: must be ({len(real)},), one per patch")
    real, fake = real.detach(), fake.detach()
    of_real, of_fake = _scores(critic(torch.cat([real, fake]))).chunk(2)
    distance = of_real.mean() - of_fake.mean()
    if eps is None:
        return CriticLoss(-distance, distance, torch.zeros_like(distance))
    weight = eps.reshape(-1, *[1] * (real.ndim - 1)).to(real)
    norm = gradient_norm(critic, torch.lerp(fake, real, weight))
    term = ((norm - 1) ** 2).mean()
    return CriticLoss(penalty_weight * term - distance, distance, term)


def generator_loss(scores: torch.Tensor) -> torch.Tensor:
    """Generator's loss of a Wasserstein GAN, -E D(fake)."""
    return -_scores(scores).mean()


def relativistic_critic(real_scores: torch.Tensor, fake_scores: torch.Tensor) -> torch.Tensor:
    """Paired relativistic critic's loss, E ln(1 + exp(D(fake) - D(real))).

    Jolicoeur-Martineau (2018), arXiv:1807.00734; Huang et al. (2024), arXiv:2501.05441.
    """
    return functional.softplus(_scores(fake_scores) - _scores(real_scores)).mean()


def relativistic_generator(real_scores: torch.Tensor, fake_scores: torch.Tensor) -> torch.Tensor:
    """Paired relativistic generator's loss, E ln(1 + exp(D(real) - D(fake)))."""
    return functional.softplus(_scores(real_scores) - _scores(fake_scores)).mean()


def variance_l1(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Mean over patches and channels of |Var_pix(real) - Var_pix(fake)|.

    The only term of Han et al. (2021) that constrains power: weight 100 in PIXGAN and VAEGAN, 0 in
    DCGAN.
    """
    if real.shape != fake.shape:
        raise ValueError(
            f"real {tuple(real.shape)} and fake {tuple(fake.shape)}: must have one shape"
        )
    variances = [single(x).var(dim=(-2, -1), correction=0) for x in (real, fake)]
    return functional.l1_loss(variances[1], variances[0])


def _scores(scores: torch.Tensor) -> torch.Tensor:
    """Scores as (N,), so that (N,) and (N, 1) never broadcast against each other."""
    return single(scores).reshape(-1)
