"""Networks on large pictures: block by block, with aprons, in bounded memory.

Blocks start at multiples of the network's stride and see an apron wider than its reach,
so the result is that of one evaluation of the whole picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from mlsky.networks import default
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.weights import Weights

__all__ = [
    "APRON",
    "BLOCK",
    "SETS",
    "calibrated",
    "evaluate",
    "filtered",
    "kind",
    "multiple",
    "noise_channels",
]

BLOCK = 1024  # pixels along a side of a block, without its apron
# Measured reach (tests/test_evaluate.py): Convergence 58 pixels, Paint 96; a multiple of the stride
APRON = 96
TILE = 128  # the paper's networks take patches of this size alone
#: Networks that make a sky, in order of evaluation.
SETS = {"default": ("convergence", "paint", "points"), "han2021": ("pixgan", "vaegan")}


def kind(weights: Weights) -> str:
    """Which of `SETS` a weight file holds.

    Raises
    ------
    ValueError
        If it holds none.
    """
    for name, members in SETS.items():
        if set(members) <= set(weights.networks):
            return name
    wanted = " or ".join("+".join(m) for m in SETS.values())
    raise ValueError(
        f"{weights.path.name} holds {', '.join(weights.networks)}: a sky needs {wanted}"
    )


def noise_channels(weights: Weights) -> dict[str, list[tuple[int, int]]]:
    """Noise that each network takes: (level, channels) in order."""
    return {
        name: weights[name].noise_levels
        for name in SETS[kind(weights)]
        if hasattr(weights[name], "noise_levels")
    }


def multiple(weights: Weights) -> int:
    """Sides of a picture must be multiples of this many pixels."""
    if kind(weights) == "han2021":
        return TILE
    return max(weights[name].stride for name in noise_channels(weights))


def _blocks(n: int, stride: int) -> Iterator[tuple[slice, slice, slice]]:
    """Slices of one axis: what is read, what is kept of it, where it goes."""
    count = -(-n // BLOCK)
    size = -(-n // (count * stride)) * stride
    for start in range(0, n, size):
        stop = min(start + size, n)
        lo, hi = max(0, start - APRON), min(n, stop + APRON)
        yield slice(lo, hi), slice(start - lo, stop - lo), slice(start, stop)


def _last(x: torch.Tensor) -> torch.Tensor:
    """Channels last in memory: convolutions are a sixth faster (measured in bfloat16)."""
    return x.contiguous(memory_format=torch.channels_last)


def _run(
    network: torch.nn.Module,
    kappa: torch.Tensor,
    noise: Sequence[torch.Tensor],
    outputs: int,
    extra: torch.Tensor | None = None,
) -> torch.Tensor:
    """A generator of the default family on (1, 1, H, W), in blocks."""
    ny, nx = kappa.shape[-2:]
    out = torch.empty(1, outputs, ny, nx, device=kappa.device)
    levels = [level for level, _ in network.noise_levels][: len(noise)]
    for ry, ky, oy in _blocks(ny, network.stride):
        for rx, kx, ox in _blocks(nx, network.stride):
            part = [
                _last(z[..., ry.start >> l : ry.stop >> l, rx.start >> l : rx.stop >> l])
                for l, z in zip(levels, noise, strict=True)
            ]
            block = _last(kappa[..., ry, rx])
            more = () if extra is None else (extra[..., ry, rx],)
            with torch.autocast(kappa.device.type, torch.bfloat16):
                made = network(block, part, *more)
            out[..., oy, ox] = made[..., ky, kx]
    return out


def _default(weights: Weights, kappa: torch.Tensor, noise: dict) -> dict[str, torch.Tensor]:
    start = weights.normaliser.select(["kappa"]).forward(kappa)
    grown = _run(weights["convergence"], start, noise["convergence"], 1)
    paint: default.Paint = weights["paint"]
    split = len(paint.trunk.widths)
    velocity = paint.velocity(noise["paint"][split:])
    painted = _run(paint, grown, noise["paint"][:split], len(paint.OUTPUTS), velocity)
    names = ("kappa", *paint.OUTPUTS)
    fields = torch.cat([grown, painted], 1)
    physical = weights.normaliser.select(names).inverse(fields)
    out = dict(zip(names, physical[0], strict=True))
    index = [names.index(n) for n in weights["points"].INPUTS]
    out["log_rate"] = weights["points"](fields[:, index])[0, 0]
    return out


def _han2021(weights: Weights, kappa: torch.Tensor) -> dict[str, torch.Tensor]:
    """The paper's chain in aligned tiles of 128; edges of the picture are padded by reflection."""
    normaliser: Normaliser = weights.normaliser
    ny, nx = kappa.shape[-2:]
    pad_y, pad_x = -ny % TILE, -nx % TILE
    x = F.pad(normaliser.select(["kappa"]).forward(kappa), (0, pad_x, 0, pad_y), mode="reflect")
    rows, columns = (ny + pad_y) // TILE, (nx + pad_x) // TILE
    tiles = x.reshape(rows, TILE, columns, TILE).transpose(1, 2).reshape(-1, 1, TILE, TILE)
    names = normaliser.channels
    out = torch.empty(len(tiles), len(names), TILE, TILE, device=kappa.device)
    for i in range(0, len(tiles), 32):
        part = tiles[i : i + 32]
        fields = torch.cat([part, weights["pixgan"](part).float()], 1)
        out[i : i + 32] = weights["vaegan"](fields).float()
    out = normaliser.inverse(out)
    out = out.reshape(rows, columns, len(names), TILE, TILE).permute(2, 0, 3, 1, 4)
    out = out.reshape(len(names), rows * TILE, columns * TILE)[:, :ny, :nx]
    return dict(zip(names, out, strict=True))


def filtered(x: torch.Tensor, pixel_arcmin: float, table: dict) -> torch.Tensor:
    """A picture (H, W) whose modes are multiplied by ``gain`` at the multipoles ``ell``.

    Opposite edges meet, so ``gain`` must vary slowly and the apron take what crosses them.
    """
    ny, nx = x.shape
    step = 10800 / pixel_arcmin * 2
    ell = torch.hypot(torch.fft.fftfreq(ny)[:, None] * step, torch.fft.rfftfreq(nx)[None] * step)
    gain = _polygon(ell.clamp(table["ell"][0], table["ell"][-1]), table["ell"], table["gain"])
    return torch.fft.irfft2(torch.fft.rfft2(x) * gain.to(x.device), s=(ny, nx))


def _polygon(x: torch.Tensor, start, target) -> torch.Tensor:
    """Values mapped on a polygon, along whose sides at the ends it goes on."""
    start, target = (torch.tensor(t, dtype=torch.float32, device=x.device) for t in (start, target))
    i = torch.searchsorted(start, x.contiguous()).clamp(1, len(start) - 1)
    slope = (target[i] - target[i - 1]) / (start[i] - start[i - 1])
    return target[i - 1] + slope * (x - start[i - 1])


def calibrated(cib: torch.Tensor, pixel_arcmin: float, table: dict) -> torch.Tensor:
    """CIB (H, W) in uK with the power and the values of the truth, never negative.

    First a gain by multipole (``ell``, ``gain``), then values mapped to those of the same rank
    (``from``, ``to``, in uK).
    """
    cib = filtered(cib, pixel_arcmin, table)
    return _polygon(cib, table["from"], table["to"]).clamp(min=0)


@torch.no_grad()
def evaluate(
    weights: Weights, kappa: np.ndarray | torch.Tensor, noise: dict[str, Sequence]
) -> dict[str, torch.Tensor]:
    """All fields of one picture from a Gaussian kappa.

    Parameters
    ----------
    weights
        An opened weight file.
    kappa
        (H, W) Gaussian kappa; sides multiples of 32.
    noise
        Per network of `noise_channels`, its tensors (channels, H >> level, W >> level).

    Returns
    -------
    dict
        "kappa" (H, W) and "ksz", "tsz", "cib" in uK_CMB at 148 GHz, tSZ nowhere positive
        and CIB nowhere negative, its values as calibrated; with "log_rate", ln of radio sources
        per pixel (default family), or "radio", a map (the paper's chain).

    Raises
    ------
    ValueError
        If a side is not a multiple of the networks' stride, or the file makes no sky.
    """
    stride = max([weights[name].stride for name in noise_channels(weights)], default=1)
    if any(side % stride for side in kappa.shape):
        shape = tuple(kappa.shape)
        raise ValueError(f"kappa of shape {shape}: sides must be multiples of {stride}")
    device = next(weights[SETS[kind(weights)][0]].parameters()).device
    kappa = torch.as_tensor(kappa, dtype=torch.float32, device=device)[None, None]
    if kind(weights) == "default":
        noise = {
            name: [torch.as_tensor(z, device=device)[None] for z in tensors]
            for name, tensors in noise.items()
        }
        out = _default(weights, kappa, noise)
    else:
        out = _han2021(weights, kappa)
        out["radio"] = out["radio"].clamp(min=0)
    out["tsz"] = out["tsz"].clamp(max=0)
    table = weights.header.get("calibration", {}).get("cib")
    out["cib"] = out["cib"].clamp(min=0)
    if table:
        out["cib"] = calibrated(out["cib"], weights.pixel_arcmin, table)
    return out
