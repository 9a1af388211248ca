"""Transforms of the inputs of a network, the same in training and in simulation."""

from __future__ import annotations

import torch

__all__ = ["asinh_compression"]


class _AsinhCompression(torch.autograd.Function):
    """torch.asinh is not vectorised on CPUs: it is twenty times slower."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        a = (x / 3).abs_()
        square = a * a
        root = (square + 1).sqrt_()
        # asinh a = ln(1 + a + a^2 / (1 + sqrt(1 + a^2))), exact to rounding also near zero
        return square.div_(root.add_(1)).add_(a).log1p_().mul_(3).copysign_(x)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return gradient * torch.rsqrt(1 + (x / 3) ** 2)


def asinh_compression(x: torch.Tensor) -> torch.Tensor:
    """3 asinh(x / 3): linear near zero, logarithmic for the large values of halo cores."""
    return _AsinhCompression.apply(x)
