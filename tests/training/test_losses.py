"""Losses against closed forms in float64, and under bfloat16 autocast."""

from __future__ import annotations

import math

import pytest
import torch

from mlsky.networks import default
from mlsky.networks.han2021 import Critic
from mlsky.training import losses

# Double precision sums over a few hundred numbers.
TOLERANCE = 1e-12
# float32 rounding through six layers, there and back twice.
FLOAT32 = 1e-5
# bfloat16 keeps 8 bits (0.4 %) a layer; measured 0.1 % on values and 3 % on gradients.
BF16 = 0.05


def patches(n=6, c=2, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(n, c, size, size, generator=generator, dtype=torch.float64) for _ in "ab"]
    return draw[0], 1.5 * draw[1] + 0.3, torch.rand(n, generator=generator, dtype=torch.float64)


def test_linear_critic_has_its_closed_form():
    real, fake, eps = patches()
    w = torch.randn(real[0].numel(), generator=torch.Generator().manual_seed(9)).double()
    norm = w.norm().item()
    wanted = (fake.flatten(1) @ w).mean().item() - (real.flatten(1) @ w).mean().item()

    def critic(x):
        return x.flatten(1) @ w

    standard = losses.wgan_gp_critic(critic, real, fake, eps)
    assert standard.loss.item() == pytest.approx(wanted + 10 * (norm - 1) ** 2, rel=TOLERANCE)
    assert standard.distance.item() == pytest.approx(-wanted, rel=TOLERANCE)
    assert standard.penalty.item() == pytest.approx((norm - 1) ** 2, rel=TOLERANCE)
    lighter = losses.wgan_gp_critic(critic, real, fake, eps, 3.0)
    assert lighter.loss.item() == pytest.approx(wanted + 3 * (norm - 1) ** 2, rel=TOLERANCE)


def test_quadratic_critic_sees_the_interpolated_patches():
    # D = |x|^2/2 per patch, so |grad| is |x| at eps real + (1 - eps) fake (eq. 3.3).
    real, fake, eps = patches()
    mixed = torch.stack([e * r + (1 - e) * f for e, r, f in zip(eps, real, fake, strict=True)])
    norms = mixed.flatten(1).norm(dim=1)
    result = losses.wgan_gp_critic(
        lambda x: (x**2).sum((1, 2, 3)).unsqueeze(1) / 2, real, fake, eps
    )
    assert result.penalty.item() == pytest.approx(((norms - 1) ** 2).mean().item(), rel=TOLERANCE)
    assert result.loss.dtype == torch.float64


def test_gradients_reach_the_critic_only():
    # D = a . x: d/da of (|a| - 1)^2 is 2 (|a| - 1) a/|a|.
    real, fake, eps = patches()
    a = torch.full((real[0].numel(),), 0.3, dtype=torch.float64, requires_grad=True)
    real.requires_grad_(True)
    fake.requires_grad_(True)
    losses.wgan_gp_critic(lambda x: x.flatten(1) @ a, real, fake, eps).loss.backward()
    norm = a.detach().norm()
    wanted = 10 * 2 * (norm - 1) * a.detach() / norm
    wanted += (fake - real).detach().flatten(1).mean(0)
    torch.testing.assert_close(a.grad, wanted, rtol=TOLERANCE, atol=TOLERANCE)
    assert real.grad is None
    assert fake.grad is None


def test_a_penalty_left_out():
    real, fake, eps = patches()

    def critic(x):
        return (x**2).sum((1, 2, 3)) / 2

    without = losses.wgan_gp_critic(critic, real, fake, None)
    full = losses.wgan_gp_critic(critic, real, fake, eps)
    assert without.distance.item() == pytest.approx(full.distance.item(), rel=TOLERANCE)
    assert without.loss.item() == -without.distance.item()
    assert without.penalty.item() == 0


def test_a_flat_critic_gives_no_nan():
    real, fake, eps = patches()
    a = torch.zeros(real[0].numel(), dtype=torch.float64, requires_grad=True)
    losses.wgan_gp_critic(lambda x: x.flatten(1) @ a, real, fake, eps).loss.backward()
    assert torch.isfinite(a.grad).all()


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, FLOAT32), (True, BF16)])
def test_penalty_of_the_critic_agrees_with_float64(bf16, tolerance):
    critic = Critic(channels=2, width=4)
    exact = Critic(channels=2, width=4).double()
    real, fake, eps = patches(n=2, size=128)
    # First scores are near 0: scale the weights so that gradients are those of training.
    with torch.no_grad():
        for network in (critic, exact):
            for parameter in network.parameters():
                parameter.mul_(4)
    want = losses.wgan_gp_critic(exact, real, fake, eps)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        got = losses.wgan_gp_critic(critic, real.float(), fake.float(), eps)
    assert got.loss.dtype == torch.float32
    assert got.penalty.item() == pytest.approx(want.penalty.item(), rel=tolerance)
    assert got.loss.item() == pytest.approx(want.loss.item(), rel=tolerance)
    # The penalty's pull on the weights. The distance's is not compared in bfloat16: it is a
    # difference of two nearly equal numbers, whatever the implementation.
    want.penalty.backward()
    got.penalty.backward()
    pairs = [(a.grad, b.grad) for a, b in zip(critic.parameters(), exact.parameters(), strict=True)]
    error = sum(((a - b) ** 2).sum().item() for a, b in pairs if b is not None)
    assert (
        error**0.5 < tolerance * sum((b**2).sum().item() for _, b in pairs if b is not None) ** 0.5
    )


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, FLOAT32), (True, BF16)])
def test_scores_and_penalty_of_the_default_critic_agree_with_float64(bf16, tolerance):
    """R1 and R2 of one pass through the critic, as the default family is trained."""
    critic = default.Critic(5, (8, 8, 8, 8), seed=2)
    exact = default.Critic(5, (8, 8, 8, 8), seed=2).double()
    x = torch.randn(6, 5, 32, 32, generator=torch.Generator().manual_seed(1))

    def score(patches):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return critic(patches)

    scores, norms = losses.scores_and_norms(score, x)
    wanted_scores, wanted_norms = losses.scores_and_norms(exact, x.double())
    assert scores.dtype == norms.dtype == torch.float32
    spread = wanted_scores.std().item()
    torch.testing.assert_close(scores, wanted_scores.float(), rtol=0, atol=tolerance * spread)
    torch.testing.assert_close(norms.double(), wanted_norms, rtol=tolerance, atol=0)
    assert (norms**2).mean().item() == pytest.approx((wanted_norms**2).mean().item(), rel=tolerance)
    (norms**2).mean().backward()
    (wanted_norms**2).mean().backward()
    pairs = [
        (a.grad, b.grad)
        for a, b in zip(critic.parameters(), exact.parameters(), strict=True)
        if b.grad is not None
    ]
    error = sum(((a - b) ** 2).sum().item() for a, b in pairs)
    assert error**0.5 < tolerance * sum((b**2).sum().item() for _, b in pairs) ** 0.5


def test_generator_losses():
    real, fake = torch.tensor([1.0, -2.0]), torch.tensor([[0.5], [3.0]])
    assert losses.generator_loss(fake).item() == pytest.approx(-1.75)
    margin = [1.0 - 0.5, -2.0 - 3.0]
    critic = sum(math.log1p(math.exp(-m)) for m in margin) / 2
    generator = sum(math.log1p(math.exp(m)) for m in margin) / 2
    assert losses.relativistic_critic(real, fake).item() == pytest.approx(critic, rel=1e-6)
    assert losses.relativistic_generator(real, fake).item() == pytest.approx(generator, rel=1e-6)


def test_variance_l1():
    real = torch.zeros(2, 2, 4, 4, dtype=torch.float64)
    real[..., ::2] = 2.0  # variance 1
    fake = real.clone()
    fake[0, 1] *= 3  # variance 9
    assert losses.variance_l1(real, fake).item() == pytest.approx(8 / 4, rel=TOLERANCE)
    assert losses.variance_l1(real, real + 5).item() == pytest.approx(0, abs=TOLERANCE)


def test_wrong_arguments():
    real, fake, eps = patches()
    with pytest.raises(ValueError, match="one per patch"):
        losses.wgan_gp_critic(torch.sum, real, fake, eps[:2])
    with pytest.raises(ValueError, match="must have one shape"):
        losses.wgan_gp_critic(torch.sum, real, fake[:2], eps)
    with pytest.raises(ValueError, match="must have one shape"):
        losses.variance_l1(real, fake[:, :1])
