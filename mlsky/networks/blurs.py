"""Gaussian blurs of the default family, with gradients, fast on a CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

__all__ = ["beam_matrix", "blur", "pooling", "wide_blur"]


def _gaussian_kernel(sigma: float) -> torch.Tensor:
    radius = int(3 * sigma + 0.5)
    x = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    return kernel / kernel.sum()


def beam_matrix(n: int, sigma: torch.Tensor) -> torch.Tensor:
    """Matrix (n, n) that convolves a side of `n` pixels with a Gaussian of height 1.

    Images (..., n, n) are convolved by ``matrix @ images @ matrix``, zero beyond the edges: two
    products of matrices, as convolutions of one channel are slow on CPUs. A pixel of 1 becomes a
    blob of height 1. Gradients reach `sigma`, the standard deviation (pixels, a float32 scalar).
    """
    pixels = torch.arange(n, device=sigma.device, dtype=torch.float32)
    away = (pixels[:, None] - pixels[None]) / sigma
    return torch.exp(-(away**2) / 2)


def _sum_of_shifts(x: torch.Tensor, kernel: Sequence[float], axis: int) -> torch.Tensor:
    """Correlation of every channel of (B, C, H, W) with one kernel along an axis, no padding.

    On a CPU as a sum of shifted copies: convolution libraries are ten times slower on a single
    channel.
    """
    if x.device.type != "cpu":
        shape = (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
        weight = torch.tensor(kernel, dtype=x.dtype, device=x.device).view(shape)
        return F.conv2d(x, weight.expand(x.shape[1], -1, -1, -1), groups=x.shape[1])
    n = x.shape[axis] - len(kernel) + 1
    out = x.narrow(axis, 0, n) * kernel[0]
    for i, k in enumerate(kernel[1:], 1):
        out.add_(x.narrow(axis, i, n), alpha=k)
    return out


class _Convolve(torch.autograd.Function):
    """`_sum_of_shifts` with a symmetric kernel, which is also that of the gradient."""

    @staticmethod
    def forward(ctx, x, kernel, axis):
        ctx.kernel, ctx.axis = kernel, axis
        return _sum_of_shifts(x, kernel, axis)

    @staticmethod
    def backward(ctx, gradient):
        pad = len(ctx.kernel) - 1
        padded = F.pad(gradient, (0, 0, pad, pad) if ctx.axis == 2 else (pad, pad))
        return _Convolve.apply(padded, ctx.kernel, ctx.axis), None, None


def blur(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Separable Gaussian of `sigma` pixels, edges replicated; (B, C, H, W)."""
    kernel = _gaussian_kernel(sigma).tolist()
    pad = len(kernel) // 2
    x = F.pad(x, (pad, pad, pad, pad), mode="replicate")
    return _Convolve.apply(_Convolve.apply(x, kernel, 3), kernel, 2)


def pooling(sigma: float) -> int:
    """Factor by which a map may be pooled before a blur: sigma stays at 1.2 pixels or more."""
    return 2 ** max(0, round(math.log2(sigma / 1.2)))


def wide_blur(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """`blur` on a pooled map: the same picture at a fraction of the cost."""
    factor = pooling(sigma)
    if factor == 1:
        return blur(x, sigma)
    x = blur(F.avg_pool2d(x, factor), sigma / factor)
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
