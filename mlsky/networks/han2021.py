"""The networks of Han, Sehgal & Villaescusa-Navarro (2021), arXiv:2105.11444.

All of them work on 128 x 128 pixel patches of 0.5 arcmin in network units
(`mlsky.networks.normaliser`), channels kappa, kSZ, tSZ, CIB, radio:

========  =============================  =================================  ==========
network   from                           to                                 parameters
========  =============================  =================================  ==========
DCGAN     256 normal numbers             5 channels                         15 361 871
PIXGAN    kappa                          kSZ, tSZ, CIB, radio               41 833 484
VAEGAN    5 channels (Gaussian kappa)    5 channels                         22 301 199
Critic    5 channels                     one score                          11 164 609
========  =============================  =================================  ==========

The counts are for the paper's ``width=64``; `width` scales every layer. The released
code has 16 432 (PIXGAN) and 8 240 (VAEGAN) further parameters that are not used.

Every convolution is 4 x 4, stride 2, padding 1. The first weights are drawn from
``(seed, class)`` alone; the global random state is neither read nor changed.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from mlsky import seeds
from mlsky.arguments import number
from mlsky.networks.outputs import (
    LearnedBeam,
    LinearChannel,
    ScaledArcTanh,
    ScaledTanh,
    Softplus,
    single,
)

__all__ = ["DCGAN", "PIXGAN", "VAEGAN", "Critic"]

#: Side of a patch (pixels).
SIZE = 128

# Slope of the leaky ReLU and standard deviation of the first weights, Radford et al. (2016),
# arXiv:1511.06434, as in the paper, whose width is 64.
_SLOPE = 0.2
_SPREAD = 0.02
_WIDTH = 64
# Of options of DCGAN, our choice: far beyond what is useful, and patches are finite in float32.
# A Gaussian narrower than a fifth of a pixel is one pixel; wider than a patch, it is flat.
_RANGES = {"gain": (1e-6, 1e6), "positive": (1e-4, 1e4), "beam": (0.2, 128.0)}


def _widths(width: int, multiples: Sequence[int]) -> list[int]:
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise ValueError(f"width={width!r}: must be an integer >= 1; the paper's is 64")
    return [width * multiple for multiple in multiples]


def _count(value: int, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r}: must be an integer >= 1")
    return value


def _option(value: float, name: str, none: bool = True) -> float:
    """A number in the range of its name, or 0 for none."""
    low, high = _RANGES[name]
    allowed = f"a number from {low:g} to {high:g}{', or 0 for none' if none else ''}"
    if none and not isinstance(value, bool) and isinstance(value, (int, float)) and value == 0:
        return 0.0
    return number(name, value, allowed, low, high)


def _check_patches(x: torch.Tensor, channels: int, what: str) -> None:
    if x.ndim != 4 or tuple(x.shape[1:]) != (channels, SIZE, SIZE):
        raise ValueError(
            f"{what} input of shape {tuple(x.shape)}: must be (N, {channels}, {SIZE}, {SIZE}); "
            "cut the map into such patches first"
        )


def _down(inputs: int, outputs: int, activation: nn.Module, norm: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 4, 2, 1)]
    if norm:
        layers.append(nn.BatchNorm2d(outputs))
    return nn.Sequential(*layers, activation)


def _double(inputs: int, outputs: int, bilinear: bool = False) -> nn.Module:
    """Twice as many pixels along each side: the paper's transposed convolution, or another way.

    A transposed convolution of stride 2 has weights of its own for each of the four positions of a
    pixel on the coarser grid, so that a map with the same value everywhere becomes a lattice.
    Interpolation and a convolution of stride 1 treat all positions alike (Odena et al. 2016,
    doi:10.23915/distill.00003).
    """
    if not bilinear:
        return nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        nn.Conv2d(inputs, outputs, 3, 1, 1),
    )


def _up(inputs: int, outputs: int, activation: nn.Module, bilinear: bool = False) -> nn.Sequential:
    return nn.Sequential(_double(inputs, outputs, bilinear), nn.BatchNorm2d(outputs), activation)


def _leaky() -> nn.Module:
    return nn.LeakyReLU(_SLOPE)


def _initialise(network: nn.Module, seed: int) -> None:
    """First weights of the paper, from a generator of their own.

    Convolutions N(0, 0.02), batch norms and linear channels N(1, 0.02) with offsets 0 and
    N(0, 0.02); the rest (dense layers, biases) uniform in +-1/sqrt(fan-in), torch's rule.
    Convolutions between layers of another width than the paper's have N(0, 0.02 sqrt(64/width)),
    so that signals are as strong as in the paper's: with 0.02, a critic of width 16 weakens them
    sixteen times more.
    """
    narrow = (_WIDTH / network.kwargs["width"]) ** 0.5
    # layers that take fields have as many inputs whatever the width
    of_fields = network.kwargs.get("channels", network.kwargs.get("inputs", 0))
    of_fields += network.kwargs.get("noise", 0)
    stream = zlib.crc32(type(network).__name__.encode())
    generator = torch.Generator().manual_seed(seeds.integer(seed, "training", stream))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                dense = isinstance(module, nn.Linear)
                # fan-in as torch counts it: weight.shape[1] times the kernel.
                bound = module.weight[0].numel() ** -0.5
                if dense:
                    module.weight.uniform_(-bound, bound, generator=generator)
                else:
                    first = isinstance(module, nn.Conv2d) and module.in_channels == of_fields
                    spread = _SPREAD if first else _SPREAD * narrow
                    module.weight.normal_(0, spread, generator=generator)
                module.bias.uniform_(-bound, bound, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.normal_(1, _SPREAD, generator=generator)
                module.bias.zero_()
            elif isinstance(module, LinearChannel):
                gain = network.kwargs.get("gain", 1.0)
                module.weight.normal_(1, _SPREAD, generator=generator).mul_(gain)
                module.bias.normal_(0, _SPREAD, generator=generator).mul_(gain)


class Critic(nn.Module):
    """The critic of all three steps: five strided convolutions, no norm, one score.

    Parameters
    ----------
    channels
        Channels of a patch; in step 2 kappa and the four outputs, so 5 as well.
    width
        Channels of the first layer; the paper's is 64.
    seed
        First weights; see the module's docstring.
    """

    def __init__(self, channels: int = 5, width: int = 64, *, seed: int = 0) -> None:
        super().__init__()
        self.kwargs = {"channels": _count(channels, "channels"), "width": width}
        sizes = [channels, *_widths(width, (1, 2, 4, 8, 16))]
        with torch.random.fork_rng(devices=[]):
            self.body = nn.Sequential(
                *(_down(a, b, _leaky(), norm=False) for a, b in pairwise(sizes))
            )
            self.score = nn.Linear(sizes[-1] * 4 * 4, 1)
        _initialise(self, seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Patches (N, channels, 128, 128) in network units to scores (N,)."""
        _check_patches(x, self.kwargs["channels"], "Critic")
        x = self.body(x)
        # bfloat16 would round scores to a hundredth of their distance
        with torch.autocast(x.device.type, enabled=False):
            return self.score(single(x).flatten(1))[:, 0]


class DCGAN(nn.Module):
    """Step 1: random numbers to patches of all channels, no condition.

    Parameters
    ----------
    channels, width, seed
        As `Critic`.
    latent
        Normal numbers per patch; the paper's is 256, at any width.
    gain
        Of the first weights of the linear channels. With 1, the paper's, the first patches have a
        standard deviation of 0.5, right for fields that are normalised to about 1.
    noise
        Maps of white noise beside the input of each of the five transposed convolutions; the paper
        has none. With them, places on a patch need not be functions of the numbers of all of it.
    bilinear
        Whether maps grow by bilinear interpolation and 3 x 3 convolutions, instead of by the
        paper's transposed convolutions.
    positive
        Unit of a softplus that takes the place of the scaled tanh (`Softplus`); 0 for the tanh.
    beam
        Standard deviation in the beginning of a Gaussian that patches are convolved with at the
        very end (pixels), learned from there on; 0 for none, as the paper.
    """

    def __init__(
        self,
        channels: int = 5,
        width: int = 64,
        latent: int = 256,
        gain: float = 1.0,
        noise: int = 0,
        bilinear: bool = False,
        positive: float = 0.0,
        beam: float = 0.0,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        gain = _option(gain, "gain", none=False)
        if not isinstance(bilinear, bool):
            raise ValueError(f"bilinear={bilinear!r}: must be True or False")
        positive, beam = _option(positive, "positive"), _option(beam, "beam")
        self.kwargs = {
            "channels": _count(channels, "channels"),
            "width": width,
            "latent": _count(latent, "latent"),
        }
        if gain != 1:  # files of networks with the paper's do not name it
            self.kwargs["gain"] = gain
        if noise:
            self.kwargs["noise"] = _count(noise, "noise")
        if bilinear:
            self.kwargs["bilinear"] = True
        if positive:
            self.kwargs["positive"] = positive
        if beam:
            self.kwargs["beam"] = beam
        sizes = _widths(width, (16, 8, 4, 2, 1))
        with torch.random.fork_rng(devices=[]):
            self.project = nn.Linear(latent, sizes[0] * 4 * 4)
            self.body = nn.Sequential(
                nn.BatchNorm2d(sizes[0]),
                _leaky(),
                *(_up(a + noise, b, _leaky(), bilinear) for a, b in pairwise(sizes)),
                _double(sizes[-1] + noise, channels, bilinear),
            )
            self.head = nn.Sequential(
                LinearChannel(channels),
                Softplus(positive) if positive else ScaledTanh(),
                *([LearnedBeam(beam)] if beam else []),
            )
        _initialise(self, seed)

    @property
    def noise_sides(self) -> list[int]:
        """Pixels along a side of each map of noise that `forward` takes."""
        return [side for side in (4, 8, 16, 32, 64) for _ in range(self.kwargs.get("noise", 0))]

    def forward(self, z: torch.Tensor, noise: Sequence[torch.Tensor] = ()) -> torch.Tensor:
        """Normal numbers (N, latent) to patches (N, channels, 128, 128) in network units.

        Parameters
        ----------
        z
            Normal numbers.
        noise
            White noise (N, 1, side, side) for each of `noise_sides`.
        """
        latent, maps = self.kwargs["latent"], self.kwargs.get("noise", 0)
        if z.ndim != 2 or z.shape[1] != latent:
            raise ValueError(f"DCGAN input of shape {tuple(z.shape)}: must be (N, {latent})")
        if len(noise) != len(self.noise_sides):
            raise ValueError(
                f"DCGAN takes {len(self.noise_sides)} maps of noise: {len(noise)} given"
            )
        first, activation, *up = self.body
        x = activation(first(self.project(z).unflatten(1, (-1, 4, 4))))
        for i, layer in enumerate(up):
            x = layer(torch.cat([x, *noise[maps * i : maps * (i + 1)]], 1) if maps else x)
        return self.head(x)


class PIXGAN(nn.Module):
    """Step 2: kappa to the other channels, a U-Net down to 1 x 1 pixel.

    In the paper no noise goes in, so that every field is a function of kappa.

    Parameters
    ----------
    inputs, outputs
        Channels: kappa to kSZ, tSZ, CIB and radio.
    width, seed
        As `Critic`.
    noise
        Maps of white noise beside the input of each of the seven layers down; the paper has none.
    """

    #: Levels of noise, and the multiple that sides of a picture have to be.
    LEVELS, stride = 7, SIZE

    def __init__(
        self, inputs: int = 1, outputs: int = 4, width: int = 64, noise: int = 0, *, seed: int = 0
    ) -> None:
        super().__init__()
        self.kwargs = {
            "inputs": _count(inputs, "inputs"),
            "outputs": _count(outputs, "outputs"),
            "width": width,
        }
        if noise:  # files of networks without it do not name it
            self.kwargs["noise"] = _count(noise, "noise")
        down = _widths(width, (1, 2, 4, 8, 8, 8, 8))
        up = _widths(width, (8, 8, 8, 4, 2, 1))
        # Each step up, except the first, also takes the step down of the same size.
        skips = [0, *down[-2:0:-1]]
        with torch.random.fork_rng(devices=[]):
            self.down = nn.ModuleList(
                [
                    _down(inputs + noise, down[0], _leaky(), norm=False),
                    *(_down(a + noise, b, _leaky()) for a, b in pairwise(down[:-1])),
                    # A single pixel has no variance to normalise with.
                    _down(down[-2] + noise, down[-1], nn.ReLU(), norm=False),
                ]
            )
            self.up = nn.ModuleList(
                _up(below + skip, above, nn.ReLU())
                for below, skip, above in zip([down[-1], *up[:-1]], skips, up, strict=True)
            )
            self.last = nn.ConvTranspose2d(up[-1] + down[0], outputs, 4, 2, 1)
            self.head = nn.Sequential(LinearChannel(outputs), ScaledTanh())
        _initialise(self, seed)

    @property
    def noise_levels(self) -> list[tuple[int, int]]:
        """Level and channels of each tensor of noise."""
        noise = self.kwargs.get("noise", 0)
        return [(level, noise) for level in range(self.LEVELS)] if noise else []

    def draw_noise(self, batch: int, ny: int, nx: int, rng: torch.Generator) -> list[torch.Tensor]:
        """White noise for `batch` patches of (ny, nx) pixels."""
        return [
            torch.randn(batch, c, ny >> level, nx >> level, generator=rng, device=rng.device)
            for level, c in self.noise_levels
        ]

    def forward(self, kappa: torch.Tensor, noise: Sequence[torch.Tensor] = ()) -> torch.Tensor:
        """Patches (N, inputs, 128, 128) to (N, outputs, 128, 128), in network units."""
        _check_patches(kappa, self.kwargs["inputs"], "PIXGAN")
        if len(noise) != len(self.noise_levels):
            raise ValueError(
                f"PIXGAN takes noise of {len(self.noise_levels)} levels: {len(noise)} given"
            )
        levels = []
        x = kappa
        for i, layer in enumerate(self.down):
            x = layer(torch.cat([x, noise[i]], 1) if noise else x)
            levels.append(x)
        levels.pop()
        for layer in self.up:
            x = torch.cat([layer(x), levels.pop()], dim=1)
        return self.head(self.last(x))


class VAEGAN(nn.Module):
    """Step 3: PIXGAN's output from a Gaussian kappa to the statistics of the truth.

    An autoencoder with a skip around the whole: the last step adds its output to the input, within
    the bound. In spite of its name it is not variational.

    Parameters
    ----------
    channels, width, seed
        As `Critic`.
    """

    def __init__(self, channels: int = 5, width: int = 64, *, seed: int = 0) -> None:
        super().__init__()
        self.kwargs = {"channels": _count(channels, "channels"), "width": width}
        sizes = _widths(width, (1, 2, 4, 8, 16))
        back = sizes[::-1]
        with torch.random.fork_rng(devices=[]):
            self.body = nn.Sequential(
                _down(channels, sizes[0], _leaky(), norm=False),
                *(_down(a, b, _leaky()) for a, b in pairwise(sizes)),
                *(_up(a, b, _leaky()) for a, b in pairwise(back)),
                nn.ConvTranspose2d(sizes[0], channels, 4, 2, 1),
                LinearChannel(channels),
            )
            self.unbound = ScaledArcTanh()
            self.bound = ScaledTanh()
        _initialise(self, seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Patches (N, channels, 128, 128) to the same shape, in network units."""
        _check_patches(x, self.kwargs["channels"], "VAEGAN")
        return self.bound(self.body(x) + self.unbound(x))
