"""Networks that take patches of one size alone, on large pictures: tiles that may overlap.

As Han et al. (2021), arXiv:2105.11444, in overlapping patches with a cosine window: the mean of the
tiles at a pixel, weighted with the window of each. A mean of two tiles that differ is weaker than
either, so that maps lose variance where tiles overlap.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F

__all__ = ["LARGEST_OVERLAP", "SIDE", "blended", "fits", "window"]

SIDE = 128  # pixels
LARGEST_OVERLAP = SIDE // 2
_BATCH = 32  # tiles made at a time


def window(overlap: int) -> torch.Tensor:
    """(SIDE,) weights of a tile along one axis: 1, falling as a cosine over `overlap` pixels."""
    ramp = (torch.arange(overlap) + 0.5) / max(overlap, 1)  # nowhere zero
    out = torch.ones(SIDE)
    out[:overlap] = torch.sin(ramp * math.pi / 2) ** 2
    out[SIDE - overlap :] = out[:overlap].flip(0)
    return out


def fits(overlap: int, levels: Sequence[int]) -> bool:
    """Whether tiles begin on whole pixels of noise of these levels, ``2**level`` times as large."""
    return (SIDE - overlap) % (1 << max(levels, default=0)) == 0


def blended(
    x: torch.Tensor,
    noise: Sequence[tuple[int, torch.Tensor]],
    make: Callable[[torch.Tensor, list[torch.Tensor]], torch.Tensor],
    overlap: int = 0,
) -> torch.Tensor:
    """What networks make of a picture, tile by tile.

    Parameters
    ----------
    x
        (C, H, W) picture; edges that are no whole tile are padded by reflection.
    noise
        Level and (channels, H >> level, W >> level) of each tensor of noise.
    make
        Function of tiles (N, C, SIDE, SIDE) and their noise to fields (N, fields, SIDE, SIDE).
    overlap
        Pixels by which neighbouring tiles overlap, 0 to `LARGEST_OVERLAP`.

    Returns
    -------
    (fields, H, W)
    """
    ny, nx = x.shape[-2:]
    step = SIDE - overlap
    rows, columns = (max(0, -(-(n - SIDE) // step)) + 1 for n in (ny, nx))
    pad = [0, (columns - 1) * step + SIDE - nx, 0, (rows - 1) * step + SIDE - ny]
    x = F.pad(x, pad, mode="reflect")
    noise = [(level, F.pad(z, [p >> level for p in pad], mode="reflect")) for level, z in noise]
    weight = window(overlap).to(x)
    weight = weight[:, None] * weight
    total = torch.zeros(x.shape[-2:], device=x.device)
    out = None
    corners = [(i * step, j * step) for i in range(rows) for j in range(columns)]
    for some in _batches(corners):
        parts = [
            torch.stack([z[(..., *_tile(corner, level))] for corner in some])
            for level, z in [(0, x), *noise]
        ]
        made = make(parts[0], parts[1:])
        if out is None:
            out = made.new_zeros(made.shape[1], *x.shape[-2:])
        for corner, tile in zip(some, made, strict=True):
            place = _tile(corner, 0)
            out[(..., *place)] += weight * tile
            total[place] += weight
    return (out / total)[..., :ny, :nx]


def _tile(corner: tuple[int, int], level: int) -> tuple[slice, slice]:
    y, x = (slice(c >> level, (c + SIDE) >> level) for c in corner)
    return y, x


def _batches(items: Sequence) -> Iterator[list]:
    each = iter(items)
    while some := list(itertools.islice(each, _BATCH)):
        yield some
