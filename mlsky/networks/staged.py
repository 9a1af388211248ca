"""Backbones layer by layer over large pictures, each layer only where it is needed.

A U-Net evaluated block by block needs an overlap of its full receptive radius around every block.
Here it is evaluated level by level, all blocks of one level before those of the next. The overlap
is then the receptive radius of two or three convolutions (`OVERLAP` pixels), and the maps between
the levels are kept for the whole picture, about 100 bytes per pixel. The result is the same as of
one evaluation.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from mlsky.networks import default
from mlsky.networks.backbone import Backbone, act, add, channels_last, join
from mlsky.networks.inputs import asinh_compression
from mlsky.sphere.chart_area import Area

__all__ = ["BLOCK", "OVERLAP", "backbone", "point_sources", "reads", "velocity", "velocity_block"]

#: Largest number of rows and columns of a block, by level, tuned by timing: smaller blocks overlap
#: more, larger ones do not fit the cache.
BLOCK = ((256, 1024), (256, 512), (512, 512), (512, 512))
#: Pixels read around a block: two 3 x 3 convolutions, and one row for the 4 x 4 one that halves,
#: rounded to whole pixels of the next level.
OVERLAP = 4
#: Pixels of noise that `velocity` may have outside the picture, at every level but the finest:
#: half a kernel of 7 pixels, and the loss in interpolating each level to the next.
NOISE_PADDING = 5

_Slices = tuple[slice, slice]


def _read(block: slice, overlap: int, n: int) -> tuple[slice, slice]:
    """Slice of an axis of `n` pixels that is read for a block, and the slice of the block in it."""
    lo, hi = max(0, block.start - overlap), min(n, block.stop + overlap)
    return slice(lo, hi), slice(block.start - lo, block.stop - lo)


def reads(block: _Slices, overlap: int, shape: Sequence[int]) -> tuple[_Slices, _Slices]:
    """Slices read for a block with its overlap, and the slices of the block in them."""
    y, x = (_read(b, overlap, n) for b, n in zip(block, shape, strict=True))
    return (y[0], x[0]), (y[1], x[1])


def _scaled(block: _Slices, up: int = 1, down: int = 1) -> _Slices:
    """The block in pixels smaller by `up` or larger by `down`."""
    return tuple(slice(s.start * up // down, -(-s.stop * up // down)) for s in block)


_kept = threading.local()


def _zeros(slot: str, size: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Zeros; on a CPU in memory that this thread keeps, as new pages are slow."""
    if like.device.type != "cpu":
        return like.new_zeros(size)
    n = math.prod(size)
    memory = _kept.__dict__.setdefault(slot, like.new_empty(0))
    if memory.dtype != like.dtype or memory.numel() < n:
        memory = _kept.__dict__[slot] = like.new_empty(n)
    return memory[:n].zero_().view(size)


class _Canvas:
    """A map of the whole picture, zero where nothing was written."""

    def __init__(self, shape: tuple[int, int], slot: str):
        self.shape, self.slot = shape, slot
        self.values: torch.Tensor | None = None

    def put(self, block: _Slices, made: torch.Tensor, kept: _Slices) -> None:
        if self.values is None:
            size = (1, *self.shape, made.shape[1])
            self.values = _zeros(self.slot, size, made).permute(0, 3, 1, 2)
        self.values[(..., *block)] = made[(..., *kept)]


def backbone(
    network: Backbone,
    x: torch.Tensor,
    noise: Sequence[torch.Tensor],
    area: Area,
    padding: int,
    finish: Callable[[torch.Tensor, _Slices], None],
) -> None:
    """Evaluate a backbone on an area of a picture.

    Parameters
    ----------
    network
        The backbone.
    x
        (1, inputs, H, W) the inputs, before their asinh compression.
    noise
        (1, channels, H >> level, W >> level) by level.
    area
        Where the outputs are wanted.
    padding
        Pixels around the area on which the encoder is evaluated: at least the receptive radius of
        the network for an exact result; farther out everything is zero.
    finish
        Called as ``finish(output, (rows, columns))`` with each block of the outputs.
    """
    ny, nx = x.shape[-2:]
    levels = len(network.widths)
    noise = [_entered(z) for z in noise]
    wide = area.widened(padding)
    # the decoder needs the blocks that the level above reads
    needed = [area]
    for _ in range(levels - 1):
        needed.append(needed[-1].widened(2).halved())
    skips = [_Canvas((ny >> i, nx >> i), f"skip {i}") for i in range(levels)]
    below: torch.Tensor = x
    for i in range(levels):
        last = i == levels - 1
        target = wide.halved(i) if last else wide.halved(i + 1)
        halved = None if last else _Canvas((ny >> i + 1, nx >> i + 1), f"down {i}")
        height, width = BLOCK[min(i, len(BLOCK) - 1)]
        if not last:
            height, width = height // 2, width // 2
        for block in target.blocks(height, width):
            here = block if last else _scaled(block, up=2)
            read, kept = reads(here, OVERLAP, skips[i].shape)
            part = below[(..., *read)]
            if i == 0:
                part = asinh_compression(part)
            made = join(network.enter[i], [part], noise[i][(..., *read)])
            made = add(made, act(network.enter_residual[i](made)))
            skips[i].put(here, made, kept)
            if halved is not None:
                less = act(network.down[i](made))
                halved.put(block, less, _scaled(kept, down=2))
        below = skips[i].values if last else halved.values
    for i in range(levels - 2, -1, -1):
        canvas = _Canvas(skips[i].shape, f"up {i}") if i else None
        for block in needed[i].within(wide.halved(i)).blocks(*BLOCK[min(i, len(BLOCK) - 1)]):
            read, kept = reads(block, 2, skips[i].shape)
            part = network.up[i](below[(..., *_scaled(read, down=2))])
            part = F.interpolate(part, scale_factor=2, mode="nearest")
            extra = [noise[0][(..., *read)]] if i == 0 else []
            made = join(network.leave[i], [part, skips[i].values[(..., *read)]], *extra)
            made = add(made, act(network.leave_residual[i](made)))
            if canvas is None:
                finish(network.head(made)[(..., *kept)], block)
            else:
                canvas.put(block, made, kept)
        if canvas is not None:
            below = canvas.values


def _entered(noise: torch.Tensor) -> torch.Tensor:
    """Noise in the memory layout and precision of the convolutions."""
    device = noise.device.type
    kind = noise.dtype
    if torch.is_autocast_enabled(device):
        kind = torch.get_autocast_dtype(device)
    return noise.to(kind, memory_format=torch.channels_last)


def velocity(paint: default.Paint, noise: Sequence[torch.Tensor]) -> tuple[torch.Tensor, int]:
    """Velocities of the kSZ head from all levels but the finest.

    Parameters
    ----------
    noise
        (1, channels, (H >> level) + 2 e, (W >> level) + 2 e) by level: e pixels outside
        the picture, 0 at the finest level and 0 or `NOISE_PADDING` at the others.

    Returns
    -------
    velocity, padding
        (1, velocities, (H >> 1) + 2 padding, (W >> 1) + 2 padding), at half the resolution.
    """
    nx = noise[0].shape[-1]
    v, padding = None, 0
    for level in range(len(noise) - 1, 0, -1):
        z = _entered(noise[level])
        extra = (z.shape[-1] - (nx >> level)) // 2
        here = paint.velocity_kernels[level](z).float()
        keep = 0 if extra == 0 else extra - 3
        here = _cropped(here, extra - keep)
        if v is not None:
            v = F.interpolate(v, scale_factor=2, mode="bilinear", align_corners=False)
            here = here + _cropped(v, 2 * padding - keep)
        v, padding = here, keep
    return v, padding


def _cropped(x: torch.Tensor, by: int) -> torch.Tensor:
    return x[..., by : x.shape[-2] - by, by : x.shape[-1] - by] if by else x


def velocity_block(
    paint: default.Paint, coarse: tuple[torch.Tensor, int], fine: torch.Tensor, block: _Slices
) -> torch.Tensor:
    """Velocities on a block: `velocity` interpolated, plus that of the finest level."""
    values, padding = coarse
    read, kept = reads(block, 4, fine.shape[-2:])
    v = paint.velocity_kernels[0](_entered(fine[(..., *read)])).float()[(..., *kept)]
    half = tuple(slice(s.start + padding, s.stop + padding) for s in _scaled(block, down=2))
    read, kept = reads(half, 1, values.shape[-2:])
    up = F.interpolate(values[(..., *read)], scale_factor=2, mode="bilinear", align_corners=False)
    start = tuple(2 * k.start + b.start % 2 for k, b in zip(kept, block, strict=True))
    size = tuple(b.stop - b.start for b in block)
    return v + up[..., start[0] : start[0] + size[0], start[1] : start[1] + size[1]]


def point_sources(
    network: default.PointSources, fields: Callable[[_Slices], torch.Tensor], area: Area
) -> torch.Tensor:
    """Rate of point sources (H, W) on an area, -inf elsewhere; from the fields of any block."""
    radius = 7  # 1 + 2 + 4, the dilations of its convolutions
    out = None
    for block in area.blocks(*BLOCK[0]):
        read, kept = reads(block, radius, area.shape)
        made = network(channels_last(fields(read)))[(0, 0, *kept)]
        if out is None:
            out = made.new_full(area.shape, -torch.inf)
        out[block] = made
    return out
