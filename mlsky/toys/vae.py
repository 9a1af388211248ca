"""Variational autoencoders (Kingma & Welling 2014, arXiv:1312.6114).

An `Encoder` makes of an image the mean and the log variance of a normal distribution of latent
numbers; `reparameterise` draws from it so that gradients flow; a `Decoder` makes an image of what
was drawn. Trained on the evidence lower bound (`mlsky.training.elbo`). A decoder alone is an
unconditional network: `mlsky.toys.unconditional.sample` draws its images from N(0, I).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from mlsky.toys.unconditional import initialise, side

__all__ = [
    "Decoder",
    "Encoder",
    "Latents",
    "MapChanges",
    "changes",
    "draw_like",
    "latents",
    "reparameterise",
    "traversal",
]

_SLOPE = 0.2
_SMALLEST = 4  # pixels along a side of the last map of the encoder
_WIDEST = 8  # channels of the coarsest maps, in units of `width`
# exp(8) is a standard deviation of 55: beyond it an untrained encoder overflows.
_LOG_VARIANCE = 8.0
#: A latent whose mean varies less than this over images says nothing about them: Burda,
#: Grosse & Salakhutdinov (2016), arXiv:1509.00519, sect. 5.2.
ACTIVE = 0.01


class Latents(NamedTuple):
    """What an encoder says of many images, latent by latent."""

    #: Mean divergence of q(z|x) from N(0, 1) (nats).
    kl: NDArray[np.float64]
    #: Variance over images of the mean of q(z|x).
    variance: NDArray[np.float64]
    #: Whether that variance is above `ACTIVE`; the others have collapsed.
    active: NDArray[np.bool_]


class MapChanges(NamedTuple):
    """How images change over a map of two latents (`traversal`)."""

    #: Mean square difference of two images of the map, over that of two true images.
    spread: float
    #: Mean square difference of neighbours, over that of two images of the map; 1 if they are as
    #: different as any, 3 / steps^2 if they change linearly with both latents.
    step: float


def _checked(channels: int, size: int, latent: int, width: int) -> dict[str, int]:
    for name, value in (("channels", channels), ("latent", latent), ("width", width)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r}: must be an integer >= 1")
    return {"channels": channels, "size": side(size, 8), "latent": latent, "width": width}


def _channels(size: int, width: int) -> list[int]:
    """Channels of the maps of size / 2, size / 4, ... 4 pixels."""
    levels = size.bit_length() - _SMALLEST.bit_length()
    return [width * min(2**i, _WIDEST) for i in range(levels)]


def cosines(size: int) -> torch.Tensor:
    """(size, size) orthonormal rows: the discrete cosine transform, which has no edges.

    Ahmed, Natarajan & Rao (1974, IEEE Trans. Comput. C-23, 90).
    """
    k, x = torch.arange(size)[:, None], torch.arange(size) + 0.5
    rows = torch.cos(math.pi / size * k * x) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows


def _bands(size: int, bands: int) -> torch.Tensor:
    """(size, size) band of each mode of `cosines`, by the logarithm of one plus its wavenumber."""
    k = torch.arange(size) / 2  # waves per image
    place = torch.log1p(torch.hypot(k[:, None], k[None]))
    return (place / place.max() * bands).long().clamp(max=bands - 1)


class Encoder(nn.Module):
    """Images (N, channels, size, size) to mean and log variance of the latents.

    Parameters
    ----------
    channels
        Of the images.
    size
        Pixels along a side, a power of two from 8.
    latent
        Latent numbers per image.
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
        self,
        channels: int = 1,
        size: int = 128,
        latent: int = 32,
        width: int = 16,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.kwargs = _checked(channels, size, latent, width)
        sizes = [channels, *_channels(size, width)]
        with torch.random.fork_rng(devices=[]):
            self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(sizes))
            self.head = nn.Linear(sizes[-1] * _SMALLEST**2, 2 * latent)
        initialise(self, seed, 1)
        with torch.no_grad():
            self.head.weight.mul_(0.3)  # divergences of order one at the start

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images to mean and log variance, (N, latent) each, float32."""
        wanted = (self.kwargs["channels"], *[self.kwargs["size"]] * 2)
        if x.ndim != 4 or tuple(x.shape[1:]) != wanted:
            raise ValueError(
                f"Encoder input of shape {tuple(x.shape)}: must be (N, C, n, n) of {wanted}"
            )
        for layer in self.down:
            x = F.leaky_relu(layer(x), _SLOPE)
        mean, log_variance = self.head(x.flatten(1)).float().chunk(2, 1)
        return mean, log_variance.clamp(-_LOG_VARIANCE, _LOG_VARIANCE)


class Decoder(nn.Module):
    """Latents (N, latent) to images (N, channels, size, size), the mean of p(x|z).

    The standard deviation of p(x|z), one for all pixels, is learned with it (Rybkin, Daniilidis
    & Levine 2021, arXiv:2006.13202), unless it is given: no weight has to be found between
    likeness and divergence. Of images without noise that a code can hold altogether it goes to
    nothing, and with it what the divergence counts: codes are exact, and lie anywhere.

    With `bands` p(x|z) is a stationary Gaussian field about the mean, whose power is learned by
    channel and wavenumber: what the code cannot hold is not given up but drawn at random
    (`residual`), with the power that the images have and the mean lacks.

    Parameters
    ----------
    channels, size, latent, width, seed
        As of `Encoder`.
    hidden
        Units of two layers between the latents and the first map; 0 for none. Few latents that
        are to say where something is need them.
    noise
        The standard deviation of p(x|z), network units; None learns it.
    bands
        Of wavenumbers, with a standard deviation each; 0 for one of all pixels.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    def __init__(
        self,
        channels: int = 1,
        size: int = 128,
        latent: int = 32,
        width: int = 16,
        *,
        hidden: int = 0,
        noise: float | None = None,
        bands: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.kwargs = _checked(channels, size, latent, width)
        if isinstance(bands, bool) or not isinstance(bands, int) or bands < 0:
            raise ValueError(f"bands={bands!r}: must be an integer >= 0")
        if bands and noise is not None:
            raise ValueError(f"noise={noise}: is learned by band, with bands={bands}; leave it out")
        if isinstance(hidden, bool) or not isinstance(hidden, int) or hidden < 0:
            raise ValueError(f"hidden={hidden!r}: must be an integer >= 0")
        if noise is not None and not (math.isfinite(noise) and noise > 0):
            raise ValueError(f"noise={noise!r}: must be a number > 0, or None to learn it")
        self.kwargs |= {"hidden": hidden, "noise": noise}
        if bands:
            self.kwargs["bands"] = bands
            self.register_buffer("cosines", cosines(size), persistent=False)
            self.register_buffer("band", _bands(size, bands), persistent=False)
        sizes = _channels(size, width)[::-1]
        with torch.random.fork_rng(devices=[]):
            self.hidden = nn.ModuleList(
                nn.Linear(a, hidden) for a in ((latent, hidden) if hidden else ())
            )
            self.project = nn.Linear(hidden or latent, sizes[0] * _SMALLEST**2)
            self.up = nn.ModuleList(
                nn.Conv2d(a, b, 3, 1, 1) for a, b in pairwise([*sizes, sizes[-1]])
            )
            self.head = nn.Conv2d(sizes[-1], channels, 3, 1, 1)
        # a tenth of the logarithm: Adam moves every number by about its rate, this one by ten times
        start = torch.full((channels, bands) if bands else (), math.log(noise or 1.0) / 10)
        self.tenth_log_noise = nn.Parameter(start, requires_grad=noise is None)
        initialise(self, seed, 2)

    @property
    def log_noise(self) -> torch.Tensor:
        """Logarithm of the standard deviation of p(x|z), with its gradient.

        A number, or (channels, size, size) for the `modes`.
        """
        log_noise = 10 * self.tenth_log_noise
        return log_noise[:, self.band] if "bands" in self.kwargs else log_noise

    @property
    def noise(self) -> float:
        """Standard deviation of p(x|z), in network units."""
        return float((2 * self.log_noise.detach()).exp().mean() ** 0.5)

    def modes(self, x: torch.Tensor) -> torch.Tensor:
        """Images as p(x|z) has independent numbers of them: pixels, or cosine modes of `bands`."""
        return self.cosines @ x @ self.cosines.T if "bands" in self.kwargs else x

    def residual(self, n: int, rng: torch.Generator) -> torch.Tensor:
        """A draw of p(x|z) less its mean, if it is by band, and nothing otherwise.

        White noise of all pixels would be no part of an image.
        """
        if "bands" not in self.kwargs:
            return torch.zeros((), device=rng.device)
        shape = (n, self.kwargs["channels"], *self.band.shape)
        drawn = torch.randn(shape, generator=rng, device=rng.device) * self.log_noise.exp()
        return self.cosines.T @ drawn @ self.cosines

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Latents to images in network units."""
        latent = self.kwargs["latent"]
        if z.ndim != 2 or z.shape[1] != latent:
            raise ValueError(f"Decoder input of shape {tuple(z.shape)}: must be (N, {latent})")
        for layer in self.hidden:
            z = F.leaky_relu(layer(z), _SLOPE)
        x = F.leaky_relu(self.project(z), _SLOPE).unflatten(1, (-1, _SMALLEST, _SMALLEST))
        for layer in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = F.leaky_relu(layer(x), _SLOPE)
        return self.head(x)


def reparameterise(
    mean: torch.Tensor, log_variance: torch.Tensor, rng: torch.Generator
) -> torch.Tensor:
    """Z = mean + sigma X, X ~ N(0, I): a draw from q(z|x) that gradients flow through."""
    normal = torch.randn(mean.shape, generator=rng, device=rng.device, dtype=mean.dtype)
    return mean + torch.exp(log_variance / 2) * normal


def latents(mean, log_variance) -> Latents:
    """Which latents say something, from an encoder's outputs (N, latent) for N images.

    Raises
    ------
    ValueError
        If there are fewer than two images, or the shapes differ.
    """
    mean, log_variance = (np.asarray(x, np.float64) for x in (mean, log_variance))
    if mean.ndim != 2 or mean.shape != log_variance.shape or len(mean) < 2:
        raise ValueError(
            f"mean {mean.shape}, log_variance {log_variance.shape}: must have one shape "
            "(images, latent), of at least 2 images"
        )
    kl = (mean**2 + np.exp(log_variance) - 1 - log_variance).mean(0) / 2
    variance = mean.var(0)
    return Latents(kl, variance, variance > ACTIVE)


def draw_like(decoder: Decoder, mean, log_variance) -> None:
    """Change a decoder in place so that draws of N(0, I) are like the codes of images.

    Codes that scatter otherwise than N(0, I) are where no draw comes, and draws are unlike any
    image. Here N(0, I) is taken to the Gaussian with the mean and the covariance of the codes
    (Ghosh et al. 2020, arXiv:1903.12436, fit more than one), by the weights of the first layer:
    the latents become the principal axes of the codes, those of largest variance first. The
    encoder fits it no longer.

    Parameters
    ----------
    decoder
        Of a trained autoencoder.
    mean, log_variance
        Of the encoder, (N, latent) for N images.

    Raises
    ------
    ValueError
        If the codes are not those of the decoder, or of fewer images than latents.
    """
    mean, log_variance = (np.asarray(x, np.float64) for x in (mean, log_variance))
    latent = decoder.kwargs["latent"]
    if mean.shape != log_variance.shape or mean.shape[1:] != (latent,) or len(mean) <= latent:
        raise ValueError(
            f"mean {mean.shape}, log_variance {log_variance.shape}: must be (images, {latent}) of "
            f"more than {latent} images"
        )
    spread = np.atleast_2d(np.cov(mean, rowvar=False)) + np.diag(np.exp(log_variance).mean(0))
    values, vectors = np.linalg.eigh(spread)
    root = torch.from_numpy((vectors * np.sqrt(values))[:, ::-1].copy())
    first = decoder.hidden[0] if len(decoder.hidden) else decoder.project
    with torch.no_grad():
        weight = first.weight.double()
        first.bias += (weight @ torch.from_numpy(mean.mean(0))).to(first.bias)
        first.weight.copy_(weight @ root)


def traversal(
    decoder: nn.Module,
    dimensions: Sequence[int] = (0, 1),
    steps: int = 10,
    reach: float = 2.0,
    centre: torch.Tensor | None = None,
) -> NDArray[np.float32]:
    """The map of figs 8.3 to 8.6: two latents vary over a grid, the others stay.

    Parameters
    ----------
    decoder
        Of a trained autoencoder.
    dimensions
        The two latents: the first varies along the rows of the map, from top to bottom.
    steps
        Images along a side of the map.
    reach
        Largest value of either latent, in standard deviations of N(0, 1).
    centre
        (latent,) values of the others, such as the code of an image; zero by default.

    Returns
    -------
    map : (steps, steps, C, H, W) float32, network units

    Raises
    ------
    ValueError
        If the latents are not two different ones of the decoder's, or a number is out of range.
    """
    latent = decoder.kwargs["latent"]
    if len(set(dimensions)) != 2 or not all(0 <= d < latent for d in dimensions):
        raise ValueError(
            f"dimensions={tuple(dimensions)}: must be two different of 0 to {latent - 1}"
        )
    if steps < 2 or not reach > 0:
        raise ValueError(f"steps={steps}, reach={reach}: must be at least 2, and > 0")
    values = torch.linspace(-reach, reach, steps)
    z = torch.zeros(latent) if centre is None else centre.detach().cpu().float()
    if z.shape != (latent,):
        raise ValueError(f"centre of shape {tuple(z.shape)}: must be ({latent},)")
    z = z.repeat(steps, steps, 1)
    z[..., dimensions[0]], z[..., dimensions[1]] = torch.meshgrid(values, values, indexing="ij")
    device = next(decoder.parameters()).device
    with torch.no_grad():
        images = decoder(z.flatten(0, 1).to(device)).float().cpu()
    return images.unflatten(0, (steps, steps)).numpy()


def changes(sheet: NDArray, true: NDArray) -> MapChanges:
    """How much images differ on a map of two latents, and how gradually they change.

    Parameters
    ----------
    sheet
        (steps, steps, C, H, W), as `traversal` makes it.
    true
        (N, C, H, W) in the same units.

    Raises
    ------
    ValueError
        If the images do not fit, or all true ones are alike.
    """
    sheet, true = np.asarray(sheet, np.float64), np.asarray(true, np.float64)
    if sheet.ndim != 5 or true.ndim != 4 or sheet.shape[2:] != true.shape[1:]:
        raise ValueError(
            f"sheet {sheet.shape} and true {true.shape}: must be (steps, steps, C, H, W) and "
            "(N, C, H, W)"
        )

    def apart(images: NDArray) -> float:
        """Mean square difference of two different ones, per pixel."""
        return float(2 * images.var(0, ddof=1).mean())

    if len(true) < 2 or apart(true) == 0:
        raise ValueError("true: must be at least two images that differ")
    on_map = apart(sheet.reshape(-1, *sheet.shape[2:]))
    near = np.mean([np.square(np.diff(sheet, axis=axis)).mean() for axis in (0, 1)])
    return MapChanges(on_map / apart(true), float(near) / on_map if on_map else 0.0)
