"""Last layers of networks: a scale and an offset per channel, a bound, a beam.

`LinearChannel`, `ScaledTanh` and `ScaledArcTanh` are those of Han, Sehgal & Villaescusa-Navarro
(2021), arXiv:2105.11444; `Softplus` and `LearnedBeam` take the place of the bound, or follow it,
where recipes of docs/blobs ask for it.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from mlsky.networks.blurs import beam_matrix

__all__ = ["LearnedBeam", "LinearChannel", "ScaledArcTanh", "ScaledTanh", "Softplus", "single"]

#: Bound of the networks' outputs, in network units (Han et al. 2021, sect. 3).
BOUND = 15.0
# Largest |x|/BOUND given to artanh: 1 is infinite, and its slope 1/(1 - x^2) is 5e3 here.
_ARCTANH_LIMIT = 0.9999


def single(x: torch.Tensor) -> torch.Tensor:
    """At least float32: bfloat16 keeps 3 digits, too few for a bounded output."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class ScaledTanh(nn.Module):
    """15 tanh(2x/15): slope 2 at zero, bounded by +-15."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return BOUND * torch.tanh(single(x) * (2 / BOUND))


class ScaledArcTanh(nn.Module):
    """(15/2) artanh(x/15), the inverse of `ScaledTanh`.

    |x| is clamped to 0.9999 * 15: the released code is infinite at 15 and NaN beyond.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.clamp(single(x) / BOUND, -_ARCTANH_LIMIT, _ARCTANH_LIMIT)
        return (BOUND / 2) * torch.atanh(x)


class Softplus(nn.Module):
    """u ln(1 + exp(2x/u)): never negative; nearly 0 and 2x, the slope of `ScaledTanh`, beyond u.

    Parameters
    ----------
    unit
        u, in network units.
    """

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.unit * functional.softplus(single(x) * (2 / self.unit))


class LearnedBeam(nn.Module):
    """Images (N, C, n, n) convolved with an isotropic Gaussian, zero beyond their edges.

    The squares of the Gaussian sum to 1, exp(-r^2 / 2 sigma^2) / (sqrt(pi) sigma), so that white
    noise stays as strong as it was.

    Parameters
    ----------
    sigma
        Standard deviation in the beginning (pixels); learned from there on.
    """

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.log_sigma = nn.Parameter(torch.tensor(math.log(sigma)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            sigma = torch.exp(self.log_sigma.float())
            smear = beam_matrix(x.shape[-1], sigma)
            return smear @ single(x) @ smear / (math.sqrt(math.pi) * sigma)


class LinearChannel(nn.Module):
    """y_c = w_c x_c + b_c: one scale and one offset per channel of (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight[:, None, None] + self.bias[:, None, None]
