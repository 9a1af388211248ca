"""The U-Net of the default family, and its convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["Backbone", "act", "add", "channels_last", "concatenated", "conv", "initialise", "join"]

#: Channels by level, and channels of noise.
WIDTHS = (16, 32, 64, 96)
NOISE = (4, 4, 4, 8)
SLOPE = 0.2


def act(x: torch.Tensor) -> torch.Tensor:
    """Activation in place, for the result of a convolution that nothing else needs."""
    return F.leaky_relu(x, SLOPE, inplace=True)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Channels last in memory, for which convolutions are fastest."""
    return x.contiguous(memory_format=torch.channels_last)


def concatenated(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Channels of all parts, channels last: three times as fast as torch.cat along axis 1."""
    return torch.cat([x.permute(0, 2, 3, 1) for x in parts], 3).permute(0, 3, 1, 2)


def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x + y; without gradients, the sum is written into the memory of y."""
    return x + y if torch.is_grad_enabled() else y.add_(x)


class _JoinedConv(torch.autograd.Function):
    """Activated convolution of fields and constants, joined channel by channel.

    As autograd, but without the gradient of the constants (noise), which is not needed, and with
    the gradients of the fields in the memory layout of the layers before.
    """

    @staticmethod
    def forward(ctx, weight, bias, count, *parts):
        joined = concatenated(parts)
        padding = (weight.shape[-1] - 1) // 2
        out = act(F.conv2d(joined, weight, bias, padding=padding))
        ctx.padding, ctx.widths = padding, [x.shape[1] for x in parts[:count]]
        ctx.rest = len(parts) - count
        ctx.save_for_backward(joined, weight, out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        joined, weight, out = ctx.saved_tensors
        gradient = torch.ops.aten.leaky_relu_backward(gradient, out, SLOPE, True)

        def convolution(x, w, wanted):
            pad = [ctx.padding] * 2
            return torch.ops.aten.convolution_backward(
                gradient, x, w, [len(w)], [1, 1], pad, [1, 1], False, [0, 0], 1, wanted
            )

        _, of_weight, of_bias = convolution(joined, weight, [False, True, True])
        of_fields: list[torch.Tensor | None] = [None] * len(ctx.widths)
        if any(ctx.needs_input_grad[3 : 3 + len(ctx.widths)]):
            kept = sum(ctx.widths)
            # only the shape of the fields is needed
            like = torch.empty_like(joined[:, :kept], memory_format=torch.channels_last)
            whole, _, _ = convolution(like, channels_last(weight[:, :kept]), [True, False, False])
            of_fields = [channels_last(x) for x in whole.split(ctx.widths, 1)]
        return of_weight, of_bias, None, *of_fields, *[None] * ctx.rest


def join(layer: nn.Conv2d, fields: Sequence[torch.Tensor], *noise: torch.Tensor) -> torch.Tensor:
    """Activated `layer` of fields and noise, in the precision of the autocast around it."""
    device = layer.weight.device.type
    kind = layer.weight.dtype
    if torch.is_autocast_enabled(device):
        kind = torch.get_autocast_dtype(device)
    weight, bias, *parts = (x.to(kind) for x in (layer.weight, layer.bias, *fields, *noise))
    with torch.autocast(device, enabled=False):
        return _JoinedConv.apply(weight, bias, len(fields), *parts)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2)


def initialise(module: nn.Module, seed: int) -> None:
    """He initialisation of every convolution, from an explicit seed."""
    rng = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, 0.2, generator=rng)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Backbone(nn.Module):
    """U-Net with white noise at every scale.

    Parameters
    ----------
    outputs
        Channels out, no activation.
    widths
        Channels by level; level l has pixels 2^l times as large.
    noise
        Noise channels by level.
    inputs
        Channels in.
    """

    def __init__(
        self,
        outputs: int,
        widths: Sequence[int] = WIDTHS,
        noise: Sequence[int] = NOISE,
        inputs: int = 1,
    ):
        super().__init__()
        self.widths, self.noise = tuple(widths), tuple(noise)
        w, z, levels = self.widths, self.noise, len(widths)
        # encoder: conv, residual conv; decoder: the same after the skip
        self.enter = nn.ModuleList(
            conv((inputs if i == 0 else w[i]) + z[i], w[i]) for i in range(levels)
        )
        self.enter_residual = nn.ModuleList(conv(c, c) for c in w)
        self.down = nn.ModuleList(conv(w[i], w[i + 1], 4, 2) for i in range(levels - 1))
        self.up = nn.ModuleList(conv(w[i + 1], w[i], 1) for i in range(levels - 1))
        self.leave = nn.ModuleList(
            conv(2 * w[i] + (z[0] if i == 0 else 0), w[i]) for i in range(levels - 1)
        )
        self.leave_residual = nn.ModuleList(conv(w[i], w[i]) for i in range(levels - 1))
        self.head = nn.Conv2d(w[0], outputs, 1)

    def forward(self, x: torch.Tensor, noise: Sequence[torch.Tensor]) -> torch.Tensor:
        skips = []
        levels = len(self.widths)
        for i in range(levels):
            x = join(self.enter[i], [x], noise[i])
            x = add(x, act(self.enter_residual[i](x)))
            if i < levels - 1:
                skips.append(x)
                x = act(self.down[i](x))
        for i in range(levels - 2, -1, -1):
            x = F.interpolate(self.up[i](x), scale_factor=2, mode="nearest")
            x = join(self.leave[i], [x, skips[i]], *([noise[0]] if i == 0 else []))
            x = add(x, act(self.leave_residual[i](x)))
        return self.head(x)
