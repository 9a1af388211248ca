"""Networks that make images of random numbers alone, and draws from any of them.

`Stamped` is the DCGAN of Han et al. (2021) with its known failings designed out:

- It makes a map of amplitudes, never negative, that is convolved with an isotropic Gaussian whose
  width is learned (as `mlsky.networks.default.Paint` makes tSZ): blobs are round and smooth, and
  no pixel can be noise.
- Amplitudes are shares of one total, so that what one blob gains others lose, and nothing is
  brighter than the total.
- Maps grow by interpolation and not by transposed convolutions: no checkerboard; the last step is
  a spline, so a blob may lie anywhere between pixels.
- Light that falls beyond an edge is folded back. Otherwise what should lie there ends on the
  outermost pixel, where no gradient moves it: without this 7 % of the blobs lay within half a
  pixel of an edge along each axis instead of 1.6 %, and the others were a tenth too bright.
- Every level receives the coordinates of its pixels and is modulated by the random numbers. A
  network without coordinates cannot choose where a blob lies (Liu et al. 2018, arXiv:1807.03247).
- White noise enters at every level, with a learned strength: numbers common to all pixels make one
  maximum well, and many badly.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from mlsky import registry, seeds
from mlsky.networks.blurs import beam_matrix
from mlsky.networks.weights import Weights, open_weights
from mlsky.toys.node_maps import folding, spline

__all__ = ["Critic", "Stamped", "draw", "initialise", "sample", "side"]

_SLOPE = 0.2  # of the leaky ReLU
_COARSEST = 4  # pixels along a side of the first map
_BEYOND = 8  # size over the pixels beyond each edge, if it is not said
# Images drawn at once, and maps of amplitudes that they may have together: less than 1 GB
_BATCH, _MAPS = 64, 640
# Channels of each level, the coarsest first, in units of `width`.
_MULTIPLES = (8, 8, 4, 2, 1)


def _positive(value, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r}: must be an integer >= 1")
    return value


def side(size: int, smallest: int = 16) -> int:
    """`size`, if it is a power of two that networks with halved maps can have.

    Raises
    ------
    ValueError
        If it is not.
    """
    if _positive(size, "size") < smallest or size & (size - 1):
        raise ValueError(f"size={size}: must be a power of two, at least {smallest}")
    return size


def initialise(module: nn.Module, seed: int, stream: int) -> torch.Generator:
    """He initialisation of every layer, from a stream that is handed on."""
    rng = torch.Generator().manual_seed(seeds.integer(seed, "training", stream))
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, _SLOPE, generator=rng)
            nn.init.zeros_(layer.bias)
    return rng


class Stamped(nn.Module):
    """Random numbers to images (N, 1, size, size): amplitudes convolved with a learned beam.

    Parameters
    ----------
    size
        Pixels along a side, a power of two.
    latent
        Normal numbers per image.
    width
        Channels of the finest level.
    total
        Sum of the amplitudes in the beginning, in units of the height of one blob; learned from
        there on.
    beam
        Standard deviation of the Gaussian in the beginning (pixels); learned from there on.
    nodes
        Nodes along a side of the splines that amplitudes are the exponential of, from beyond one
        edge to beyond the other; a power of two, at most `size`.
    contrast
        Of the logarithm of the amplitudes in the beginning, in units of about one; learned from
        there on. Images of few blobs are to begin with few (10 for one): on average over images a
        smooth one is like those with a blob somewhere, and a critic has to learn what a blob is
        before it can tell.
    grain
        Strength of the white noise in the beginning, at the finest level; half as much at each
        coarser one. Learned from there on.
    slope
        Of what a pixel's place adds in the beginning, along a random direction; learned from there
        on. It makes one maximum where noise makes many.
    beyond
        Pixels beyond each edge where light may fall that is folded back; an eighth of `size` by
        default. 0 where an image has many blobs, whose light would be doubled there.
    count
        Maps of amplitudes that are added up, each from `latent` numbers of its own with an equal
        share of the total: as many blobs of one height, where one map makes one blob. They cost
        as much as that many images.
    scaled
        Whether each image is divided by its largest pixel, which no layer that sees a part of it
        knows.
    spread
        Largest logarithm by which the totals of images may differ from that of all; 0 where they
        are the same, so that nothing can be brighter than that total.
    limit
        Bound of the logarithm of the amplitudes before they become shares of the total, by a
        scaled tanh as that of the paper; 0 for none. Without one, a spot of an image of many blobs
        may take the light of all.
    seed
        First weights.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    def __init__(
        self,
        size: int = 128,
        latent: int = 64,
        width: int = 16,
        total: float = 1.0,
        beam: float = 2.5,
        nodes: int = 64,
        contrast: float = 1.0,
        spread: float = 0.0,
        grain: float = 0.0,
        slope: float = 1.0,
        beyond: int | None = None,
        count: int = 1,
        scaled: bool = False,
        limit: float = 0.0,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        bounds = (("spread", spread), ("grain", grain), ("slope", slope), ("limit", limit))
        for name, value in bounds:
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}={value!r}: must be a number >= 0")
        for name, value in (("total", total), ("beam", beam), ("contrast", contrast)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name}={value!r}: must be a number > 0")
        self.kwargs = {
            "size": side(size),
            "latent": _positive(latent, "latent"),
            "width": _positive(width, "width"),
            "total": float(total),
            "beam": float(beam),
            "nodes": side(nodes, _COARSEST),
            "contrast": float(contrast),
            "spread": float(spread),
            "grain": float(grain),
            "slope": float(slope),
            "count": _positive(count, "count"),
            "scaled": bool(scaled),
        }
        if limit:  # files of networks without one do not name it
            self.kwargs["limit"] = float(limit)
        self.kwargs["beyond"] = beyond = size // _BEYOND if beyond is None else beyond
        if isinstance(beyond, bool) or not isinstance(beyond, int) or not 0 <= beyond <= size:
            raise ValueError(f"beyond={beyond!r}: must be an integer, 0 to the size, {size}")
        if nodes > size:
            raise ValueError(f"nodes={nodes}: must be at most the size, {size}")
        self.scale = math.log(total)
        self.sides = [2**k for k in range(2, nodes.bit_length())]
        multiples = [_MULTIPLES[min(i, len(_MULTIPLES) - 1)] for i in range(len(self.sides))]
        channels = [width * m for m in multiples]
        self.register_buffer("spline", spline(nodes, size + 2 * beyond), persistent=False)
        self.register_buffer("fold", folding(size, beyond), persistent=False)
        with torch.random.fork_rng(devices=[]):
            self.project = nn.Linear(latent, channels[0] * _COARSEST**2)
            self.layers = nn.ModuleList(
                nn.Conv2d(a, b, 3, 1, 1) for a, b in pairwise([channels[0], *channels])
            )
            self.slopes = nn.ParameterList(torch.zeros(c, 2) for c in channels)
            self.modulate = nn.ModuleList(nn.Linear(latent, 2 * c) for c in channels)
            self.head = nn.Conv2d(channels[-1], 1, 1)
            self.brightness = nn.Linear(latent, 1)
        self.noise_gains = nn.ParameterList(
            torch.full((c,), grain * n / nodes) for c, n in zip(channels, self.sides, strict=True)
        )
        self.log_total = nn.Parameter(torch.zeros(()))
        # apart from the weights that it multiplies: theirs grow a thousandth of one per step, and
        # have to grow by whole numbers before light is as sharp as points
        self.log_contrast = nn.Parameter(torch.zeros(()))
        self.log_beam = nn.Parameter(torch.tensor(math.log(beam)))
        self._initialise(seed)

    def _initialise(self, seed: int) -> None:
        rng = initialise(self, seed, 0)
        with torch.no_grad():
            for slope in self.slopes:
                slope.normal_(generator=rng).mul_(self.kwargs["slope"])
            for layer in self.modulate:
                layer.weight.mul_(0.3)  # of order one at the start would drown what comes below
            self.brightness.weight.zero_()  # images are as bright as one another until they differ
            self.head.weight.mul_(self.kwargs["contrast"])

    @property
    def numbers(self) -> int:
        """Normal numbers per image."""
        return self.kwargs["latent"] * self.kwargs["count"]

    @property
    def noise_sides(self) -> list[int]:
        """Pixels along a side of each map of noise that `forward` takes."""
        return self.sides

    @property
    def beam(self) -> float:
        """Standard deviation of the beam as learned (pixels)."""
        return float(self.log_beam.detach().exp())

    def amplitudes(self, z: torch.Tensor, noise: list[torch.Tensor]) -> torch.Tensor:
        """Maps (N, size, size) of how much light comes from each pixel, before the beam."""
        # uniform numbers, -1 to 1: a place anywhere in the image is then a linear function
        count = self.kwargs["count"]
        u = torch.erf(z.reshape(-1, self.kwargs["latent"]) / math.sqrt(2))
        if count > 1:
            noise = [n.repeat_interleave(count, 0) for n in noise]
        x = self.project(u).unflatten(1, (-1, _COARSEST, _COARSEST))
        for i, layer in enumerate(self.layers):
            if i:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            n = x.shape[-1]
            ramp = (torch.arange(n, device=x.device) + 0.5) * (2 / n) - 1  # where a pixel is
            y, right = self.slopes[i].T[..., None, None]
            where = y * ramp[:, None] + right * ramp
            x = layer(x) + where + self.noise_gains[i][:, None, None] * noise[i]
            gain, offset = self.modulate[i](u)[..., None, None].chunk(2, 1)
            x = F.leaky_relu(x * (1 + gain) + offset, _SLOPE)
        x = self.head(x)[:, 0].float()
        x = self.spline @ (x * torch.exp(self.log_contrast.float())) @ self.spline.T
        if limit := self.kwargs.get("limit"):
            x = limit * torch.tanh(x / limit)
        fractions = torch.softmax(x.flatten(1), 1).view(x.shape)
        spread = self.kwargs["spread"] * torch.tanh(self.brightness(u).float())
        total = torch.exp(self.scale + self.log_total + spread)
        light = (fractions * (total[..., None] / count)).unflatten(0, (-1, count)).sum(1)
        return self.fold @ light @ self.fold.T

    def forward(self, z: torch.Tensor, noise: list[torch.Tensor]) -> torch.Tensor:
        """Normal numbers (N, numbers) and noise [(N, 1, n, n)] to images (N, 1, size, size)."""
        if z.ndim != 2 or z.shape[1] != self.numbers:
            raise ValueError(
                f"Stamped input of shape {tuple(z.shape)}: must be (N, {self.numbers})"
            )
        light = self.amplitudes(z, noise)
        with torch.autocast(z.device.type, enabled=False):
            smear = beam_matrix(self.kwargs["size"], torch.exp(self.log_beam.float()))
            image = smear @ light.float() @ smear
            if self.kwargs["scaled"]:
                image = image / image.amax((1, 2), keepdim=True)
            return image[:, None]


class Critic(nn.Module):
    """Images (N, channels, size, size) to one score each: the critic of Han et al. (2021).

    Its layers are those of `mlsky.networks.han2021.Critic`, for images of any power of two. The
    first weights are He's, which know the width: the paper's N(0, 0.02), right for its 64
    channels, lets a signal through 8 channels fade by a factor of some thousand.

    Parameters
    ----------
    channels
        Of the images.
    size
        Pixels along a side, a power of two.
    width
        Channels of the first layer.
    seed
        First weights.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    def __init__(
        self, channels: int = 1, size: int = 128, width: int = 16, *, seed: int = 0
    ) -> None:
        super().__init__()
        self.kwargs = {
            "channels": _positive(channels, "channels"),
            "size": side(size),
            "width": _positive(width, "width"),
        }
        levels = size.bit_length() - _COARSEST.bit_length()
        sizes = [channels, *(width * 2**i for i in range(levels))]
        with torch.random.fork_rng(devices=[]):
            self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(sizes))
            self.score = nn.Linear(sizes[-1] * _COARSEST**2, 1)
        initialise(self, seed, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (N,)."""
        if x.ndim != 4 or x.shape[1] != self.kwargs["channels"]:
            raise ValueError(f"Critic input of shape {tuple(x.shape)}: of other channels")
        for layer in self.down:
            x = F.leaky_relu(layer(x), _SLOPE)
        return self.score(x.flatten(1))[:, 0]


def draw(module: nn.Module, n: int, rng: torch.Generator) -> torch.Tensor:
    """Images (n, C, H, W) in network units of a network that takes random numbers alone.

    Parameters
    ----------
    module
        `Stamped`, `mlsky.networks.han2021.DCGAN` or `mlsky.toys.vae.Decoder`.
    n
        Number of images.
    rng
        Generator on the device of the network.

    Raises
    ------
    ValueError
        If the network takes something else.
    """
    latent = getattr(module, "kwargs", {}).get("latent")
    if latent is None:
        raise ValueError(
            f"{type(module).__name__}: is made from fields, not from random numbers alone; its "
            "maps are made by mlsky.simulate"
        )
    numbers = getattr(module, "numbers", latent)
    z = torch.randn(n, numbers, generator=rng, device=rng.device)
    if hasattr(module, "residual"):  # a decoder gives the mean of what is to be drawn
        return module(z) + module.residual(n, rng)
    if not hasattr(module, "noise_sides"):
        return module(z)
    noise = [
        torch.randn(n, 1, side, side, generator=rng, device=rng.device)
        for side in module.noise_sides
    ]
    return module(z, noise)


def _unconditional(weights: Weights) -> tuple[str, nn.Module]:
    """The one network of a file that takes nothing, and its name."""
    found = [name for name, entry in weights.header["networks"].items() if not entry["inputs"]]
    found = [name for name in found if "latent" in getattr(weights[name], "kwargs", {})]
    if len(found) != 1:
        raise ValueError(
            f"weights {weights.path.name}: hold {len(found)} networks that take random numbers "
            f"alone, one is needed (there are {', '.join(weights.networks)}); maps of the sky are "
            "made by mlsky.simulate"
        )
    return found[0], weights[found[0]]


def _open(weights: Weights | str | os.PathLike) -> Weights:
    if isinstance(weights, Weights):
        return weights
    if isinstance(weights, os.PathLike) or Path(weights).suffix == ".safetensors":
        return open_weights(weights)
    return open_weights(registry.fetch(weights)[0])


def batches(
    module: nn.Module, n: int, seed: int, most: int | None = None
) -> Iterator[torch.Tensor]:
    """Images of a network, in network units, batch by batch; image i of a seed is always the same
    in a call for more images, as far as whole batches go."""
    if most is None:
        most = max(1, min(_BATCH, _MAPS // getattr(module, "kwargs", {}).get("count", 1)))
    rng_device = next(module.parameters()).device
    with torch.no_grad():
        for number, first in enumerate(range(0, n, most)):
            key = seeds.integer(seed, "network", number)
            rng = torch.Generator(device=rng_device).manual_seed(key)
            # the whole batch, also of the last: the same numbers whatever n is
            yield draw(module, most, rng)[: n - first]


def sample(weights: Weights | str | os.PathLike, n: int, seed: int):
    """Images drawn from an unconditional network.

    Parameters
    ----------
    weights
        Name in the registry, weight file, or opened weights. The file must hold one network
        that takes random numbers alone.
    n
        Number of images.
    seed
        Image i of a seed is the same for any n.

    Returns
    -------
    images : (n, C, H, W) float32 ndarray
        In the unit of what the network was trained on.

    Raises
    ------
    ValueError
        If the weights hold no such network, or a number is out of range.
    RegistryError
        If the weights are unknown or cannot be read.
    """
    _positive(n, "n")
    seeds.check(seed)
    opened = _open(weights)
    name, module = _unconditional(opened)
    normaliser = opened.normaliser.select(opened.header["networks"][name]["outputs"])
    return torch.cat(
        [normaliser.inverse(x.float().cpu()) for x in batches(module, int(n), seed)]
    ).numpy()
