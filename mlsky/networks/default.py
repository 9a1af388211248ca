"""The default family of networks, used by `mlsky.simulate`.

Fully convolutional, white noise at every scale, no normalisation layers, no transposed convolutions
(no checkerboard): one network works on patches of any size that is a multiple of its stride, and on
a chart of the full sky as in training.

There are two generators with the same backbone: `Convergence` turns a Gaussian kappa into a
nonlinear one, `Paint` turns a nonlinear kappa into kSZ, tSZ and CIB. `PointSources` gives the rate
of radio sources.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from mlsky.networks.backbone import (
    NOISE,
    WIDTHS,
    Backbone,
    act,
    add,
    channels_last,
    conv,
    initialise,
)
from mlsky.networks.blurs import blur, pooling, wide_blur
from mlsky.networks.inputs import asinh_compression

__all__ = ["Convergence", "Critic", "Paint", "PointSources", "colours", "widened"]

SATURATION = 15.0  # outputs are 15 tanh(x / 15): linear in the range of the data, bounded outside
VELOCITY_CHANNELS = 4
#: Logarithm of the initial fraction of every further colour of the CIB, relative to the first.
OTHER_COLOURS = -2.4
#: Sharpness of the softplus that keeps a CIB of several templates positive.
BEND = 4.0
#: Rms of the differences between templates of the CIB, in normalised units, from painted regions
#: of 1': 353 minus 148 GHz, and 857 minus 353. The last value serves for further ones.
COLOUR_RMS = (0.19, 0.42)
KERNEL_WIDTHS = (0.6, 1.2, 2.4, 4.8, 9.6)  # standard deviations, pixels


class _Generator(nn.Module):
    """Base class of both generators: the shapes of their noise."""

    backbone: Backbone

    @property
    def noise_levels(self) -> list[tuple[int, int]]:
        """(level, channels) of each noise tensor that `forward` takes, in order."""
        return list(enumerate(self.backbone.noise))

    @property
    def stride(self) -> int:
        """Sides of the input must be multiples of this."""
        return 2 ** max(level for level, _ in self.noise_levels)

    def draw_noise(self, batch: int, ny: int, nx: int, rng: torch.Generator) -> list[torch.Tensor]:
        """White noise for a batch of (ny, nx) patches, on the device of `rng`."""
        return [
            channels_last(
                torch.randn(batch, c, ny >> level, nx >> level, generator=rng, device=rng.device)
            )
            for level, c in self.noise_levels
        ]


class Convergence(_Generator):
    """Gaussian kappa and noise to nonlinear kappa, both divided by the same standard deviation.

    kappa = 3 sinh((L + N) / 3): L a learned linear blur pyramid of the input, N the backbone's
    residual, so that large scales pass through and cores can be sharp.

    With ``objects`` further inputs, maps of the clusters that kappa leaves out, L also contains the
    first of them, the kappa of the clusters, smoothed with `OBJECT_BLURS`: mass in clusters is
    missing around them. Its gains are initially zero.
    """

    BLURS = (0.8, 1.6, 3.2)  # pixels
    OBJECT_BLURS = (3.2, 6.4, 12.8)  # pixels

    def __init__(
        self,
        widths: Sequence[int] = WIDTHS,
        noise: Sequence[int] = NOISE,
        objects: int = 0,
        seed: int = 0,
    ):
        super().__init__()
        self.kwargs = {"widths": list(widths), "noise": list(noise)}
        if objects:
            self.kwargs["objects"] = objects
        self.objects = objects
        with torch.random.fork_rng(devices=[]):
            self.backbone = Backbone(1, widths, noise, 1 + objects)
        initialise(self, seed)
        rng = torch.Generator().manual_seed(seed + 1)
        nn.init.normal_(self.backbone.head.weight, 0, 0.03, generator=rng)
        self.gain = nn.Parameter(torch.tensor([0.3, 0.3, 0.2, 0.2]))
        if objects:
            self.object_gain = nn.Parameter(torch.zeros(len(self.OBJECT_BLURS)))

    @property
    def stride(self) -> int:
        return max(super().stride, pooling(self.OBJECT_BLURS[-1]) if self.objects else 1)

    def forward(self, kappa: torch.Tensor, noise: Sequence[torch.Tensor]) -> torch.Tensor:
        """(B, 1 + objects, H, W) normalised inputs to (B, 1, H, W) normalised kappa."""
        out = self.backbone(asinh_compression(kappa), noise).float()
        with torch.autocast(kappa.device.type, enabled=False):
            kappa = kappa.float()
            return self.joined(kappa[:, :1], out + self.around_objects(kappa))

    def around_objects(self, inputs: torch.Tensor) -> torch.Tensor:
        """The part of L due to the objects: (B, 1, H, W)."""
        part = torch.zeros_like(inputs[:, :1])
        if self.objects:
            for g, sigma in zip(self.object_gain, self.OBJECT_BLURS, strict=True):
                part = part + g * wide_blur(inputs[:, 1:2], sigma)
        return part

    def joined(self, kappa: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Nonlinear kappa from the Gaussian one, its blurs, and everything else that is added."""
        linear = self.gain[0] * kappa
        for g, sigma in zip(self.gain[1:], self.BLURS, strict=True):
            linear = linear + g * blur(kappa, sigma)
        return 3 * torch.sinh((linear + out).clamp(-9, 12) / 3)


class Paint(_Generator):
    """Nonlinear kappa and noise to kSZ, tSZ and CIB (normalised units).

    kSZ is a sum of positive amplitudes times linear, bias-free functions of a noise of its own, so
    that it is exactly odd in that noise and does not correlate with any other field. tSZ is a sum
    of non-negative amplitude maps each convolved with an isotropic Gaussian: round, smooth and of
    one sign.

    Parameters
    ----------
    tsz_mean, tsz_std
        Of the normaliser.
    widths, noise
        Of the backbone.
    velocities, velocity_levels
        Linear fields of the kSZ head, and levels of its noise.
    kernels
        Widths (pixels) of the kernels of tSZ.
    objects
        Further inputs: maps of the clusters that the outputs leave out.
    cib_mix : (n, k)
        For a CIB of n template maps: the k colours that are mixed, each as the ratios of the
        templates (in units of their scales in the normaliser) to the first template, so that the
        first row is ones. Every pixel is a mixture of them, so that its colours lie between theirs
        and all templates contain the same sources.
    cib_mean, cib_std : (n,)
        Of the templates in the normaliser.
    seed
        Of the first weights.
    """

    OUTPUTS = ("ksz", "tsz", "cib")

    def __init__(
        self,
        tsz_mean: float,
        tsz_std: float,
        widths: Sequence[int] = WIDTHS,
        noise: Sequence[int] = NOISE,
        velocities: int = 6,
        velocity_levels: int = 6,
        kernels: Sequence[float] = KERNEL_WIDTHS,
        objects: int = 0,
        cib_mix: Sequence[Sequence[float]] = ((1.0,),),
        cib_mean: Sequence[float] = (0.0,),
        cib_std: Sequence[float] = (1.0,),
        seed: int = 0,
    ):
        super().__init__()
        self.kernel_widths = tuple(kernels)
        self.objects = objects
        self.cib_templates, self.cib_fields = len(cib_mix), len(cib_mix[0])
        self.tsz_mean, self.tsz_std = float(tsz_mean), float(tsz_std)
        self.velocities, self.velocity_levels = velocities, velocity_levels
        self.kwargs = {
            "tsz_mean": self.tsz_mean,
            "tsz_std": self.tsz_std,
            "widths": list(widths),
            "noise": list(noise),
            "velocities": velocities,
            "velocity_levels": velocity_levels,
            "kernels": list(kernels),
        }
        if objects:
            self.kwargs["objects"] = objects
        if self.cib_templates > 1:
            self.kwargs["cib_mix"] = [list(row) for row in cib_mix]
            self.kwargs |= {"cib_mean": list(cib_mean), "cib_std": list(cib_std)}
        for name, values in (("mix", cib_mix), ("mean", cib_mean), ("std", cib_std)):
            self.register_buffer(f"cib_{name}", torch.tensor(values), persistent=False)
        outputs = velocities + len(self.kernel_widths) + self.cib_fields
        with torch.random.fork_rng(devices=[]):
            self.backbone = Backbone(outputs, widths, noise, 1 + objects)
            self.velocity_kernels = nn.ModuleList(
                nn.Conv2d(VELOCITY_CHANNELS, velocities, 7, 1, 3, bias=False)
                for _ in range(velocity_levels)
            )
        initialise(self, seed)
        rng = torch.Generator().manual_seed(seed + 1)
        nn.init.normal_(self.backbone.head.weight, 0, 0.1, generator=rng)
        for layer in self.velocity_kernels:
            nn.init.normal_(layer.weight, 0, 1 / 35, generator=rng)
        with torch.no_grad():  # kernels start with equal, low amplitudes
            bias = self.backbone.head.bias
            for i, sigma in enumerate(self.kernel_widths):
                bias[velocities + i] = -3.5 - math.log(max(1.0, math.sqrt(2 * math.pi) * sigma)) / 2
            # mostly of the first colour
            bias[velocities + len(self.kernel_widths) + 1 :] = OTHER_COLOURS

    @property
    def noise_levels(self) -> list[tuple[int, int]]:
        velocity = [(level, VELOCITY_CHANNELS) for level in range(self.velocity_levels)]
        return list(enumerate(self.backbone.noise)) + velocity

    @property
    def stride(self) -> int:
        return max(super().stride, pooling(self.kernel_widths[-1]))

    def velocity(self, noise: Sequence[torch.Tensor]) -> torch.Tensor:
        """Linear fields (B, velocities, H, W) of the noise of kSZ, from coarse to fine."""
        v = None
        for level in range(self.velocity_levels - 1, -1, -1):
            here = self.velocity_kernels[level](noise[level].float()).float()
            if v is not None:
                v = F.interpolate(v, scale_factor=2, mode="bilinear", align_corners=False)
                here = here + v
            v = here
        return v

    def _convolved(self, amplitude: torch.Tensor) -> list[torch.Tensor]:
        """Amplitude maps convolved with their kernels: parts of |tSZ| in units of its scale."""
        return [
            wide_blur(amplitude[:, i : i + 1], sigma) for i, sigma in enumerate(self.kernel_widths)
        ]

    def tsz_parts(self, kappa: torch.Tensor, noise: Sequence[torch.Tensor]) -> torch.Tensor:
        """The parts of tSZ, by width of kernel: (B, kernels, H, W), positive."""
        out = self.backbone(asinh_compression(kappa), noise[: len(self.backbone.widths)]).float()
        with torch.autocast(kappa.device.type, enabled=False):
            n = self.velocities
            log_amplitude = out[:, n : n + len(self.kernel_widths)].contiguous()
            return torch.cat(self._convolved(torch.exp(log_amplitude.clamp(-12, 5))), 1)

    def forward(
        self,
        kappa: torch.Tensor,
        noise: Sequence[torch.Tensor],
        velocity: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, 1 + objects, H, W) normalised inputs to (B, 2 + n, H, W) kSZ, tSZ, n maps of CIB.

        The argument `velocity` is the result of the method `velocity`, if it was made for a larger
        area.
        """
        levels = len(self.backbone.widths)
        # contiguous channels, as the following steps work on single channels
        out = self.backbone(asinh_compression(kappa), noise[:levels])
        out = out.to(torch.float32, memory_format=torch.contiguous_format)
        if velocity is None:
            velocity = self.velocity(noise[levels:])
        with torch.autocast(kappa.device.type, enabled=False):
            n = self.velocities
            speed, log_amplitude, cib = out.split([n, len(self.kernel_widths), self.cib_fields], 1)
            bounded = self.bounded(speed, velocity, cib)
            return torch.cat([bounded[:, :1], self.tsz(log_amplitude), bounded[:, 1:]], 1)

    def bounded(
        self, speed: torch.Tensor, velocity: torch.Tensor, cib: torch.Tensor
    ) -> torch.Tensor:
        """kSZ and CIB from their channels of the backbone."""
        ksz = (F.softplus(speed) * velocity).sum(1, keepdim=True)
        fields = SATURATION * torch.tanh(torch.cat([ksz, cib], 1) / SATURATION)
        if self.cib_templates == 1:
            return fields
        level = self.cib_std[0] * fields[:, 1:2] + self.cib_mean[0]
        first = torch.expm1(F.softplus(level, BEND))
        fractions = torch.softmax(torch.cat([torch.zeros_like(level), fields[:, 2:]], 1), 1)
        heights = first * torch.einsum("ij,bjyx->biyx", self.cib_mix, fractions)
        mean, std = (x[:, None, None] for x in (self.cib_mean, self.cib_std))
        return torch.cat([fields[:, :1], (torch.log1p(heights) - mean) / std], 1)

    def tsz(self, log_amplitude: torch.Tensor) -> torch.Tensor:
        """tSZ from the logarithms of the amplitudes of its kernels."""
        amplitude = torch.exp(log_amplitude.clamp(-12, 5))
        return (-torch.log1p(sum(self._convolved(amplitude))) - self.tsz_mean) / self.tsz_std


def colours(fields: torch.Tensor) -> torch.Tensor:
    """Outputs of `Paint` (B, 2 + n, H, W), with differences of successive CIB templates.

    Templates agree to a few per cent, so that their differences would be lost in statistics of
    each. The differences are in units of their rms, and those of rare red or blue sources are
    compressed.
    """
    first = fields[:, :3]
    n = fields.shape[1] - 3
    if n == 0:
        return first
    rms = torch.tensor([COLOUR_RMS[min(i, len(COLOUR_RMS) - 1)] for i in range(n)])
    differences = (fields[:, 3:] - fields[:, 2:-1]) / rms.to(fields.device)[:, None, None]
    return torch.cat([first, asinh_compression(differences)], 1)


def widened(module: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Extend the state of a network without objects, or with one CIB template, to one with more.

    The weights of further inputs are zero; further outputs, and the gains of objects, are taken
    from `module`. States of other shapes are returned unchanged.
    """
    out = dict(state)
    mine = module.state_dict()
    entered, head = "backbone.enter.0.weight", ("backbone.head.weight", "backbone.head.bias")
    if "object_gain" in mine:
        out.setdefault("object_gain", mine["object_gain"])
    if entered in out:
        old, new = out[entered], mine[entered]
        further = new.shape[1] - old.shape[1]
        if further > 0:  # fields come first, noise after them
            nothing = old.new_zeros(len(old), further, *old.shape[2:])
            out[entered] = torch.cat([old[:, :1], nothing, old[:, 1:]], 1)
    for name in head:
        if name in out and len(out[name]) < len(mine[name]):
            own = mine[name][len(out[name]) :].to(out[name])
            out[name] = torch.cat([out[name], own])
    return out


class PointSources(nn.Module):
    """Log of the expected number of radio sources per pixel, given kappa, tSZ and CIB.

    A Poisson process fitted by maximum likelihood: no haze, no negative flux. Fluxes are drawn from
    the counts.
    """

    INPUTS = ("kappa", "tsz", "cib")

    def __init__(self, log_rate: float = -5.0, width: int = 12, seed: int = 0):
        super().__init__()
        self.log_rate = float(log_rate)
        self.kwargs = {"log_rate": self.log_rate, "width": width}
        with torch.random.fork_rng(devices=[]):
            self.near = nn.Conv2d(len(self.INPUTS), width, 3, 1, 1)
            self.middle = nn.Conv2d(width, width, 3, 1, 2, 2)
            self.far = nn.Conv2d(width, width, 3, 1, 4, 4)
            self.head = nn.Conv2d(width, 1, 1)
        initialise(self, seed)
        nn.init.normal_(
            self.head.weight, 0, 0.05, generator=torch.Generator().manual_seed(seed + 1)
        )

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) normalised kappa, tSZ, CIB to (B, 1, H, W) ln(sources per pixel)."""
        x = act(self.near(asinh_compression(fields)))
        x = add(x, act(self.middle(x)))
        x = add(x, act(self.far(x)))
        return self.head(x).float() + self.log_rate


class Critic(nn.Module):
    """Fully convolutional critic: scores averaged over two receptive fields."""

    def __init__(self, channels: int, widths: Sequence[int] = (32, 64, 96, 128), seed: int = 0):
        super().__init__()
        sizes = (channels, *widths)
        with torch.random.fork_rng(devices=[]):
            self.down = nn.ModuleList(conv(a, b, 4, 2) for a, b in pairwise(sizes))
            self.middle = conv(widths[-1], widths[-1])
            self.coarse = conv(widths[-1], 1, 1)
            self.fine = conv(widths[1], 1)
        initialise(self, seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) squashed fields to (B,) scores."""
        fine = 0
        for i, layer in enumerate(self.down):
            x = act(layer(x))
            if i == 1:
                fine = self.fine(x).float().mean((1, 2, 3))
        return self.coarse(act(self.middle(x))).float().mean((1, 2, 3)) + fine
