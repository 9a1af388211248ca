"""Matrices from the nodes of splines to pixels, and from pixels beyond the edges to those within.

`mlsky.toys.unconditional.Stamped` multiplies its maps with them along each axis.
"""

from __future__ import annotations

import torch

__all__ = ["folding", "spline"]


def spline(nodes: int, size: int) -> torch.Tensor:
    """(size, nodes): cubic B-splines centred on nodes, at the pixels of an image.

    Any quadratic function of the nodes is one of the pixels, so that a maximum may lie anywhere
    between nodes and is as wide one way as the other; beyond the edge values go on linearly.
    """
    place = (torch.arange(size) + 0.5) * (nodes / size) - 0.5
    away = (place[:, None] - torch.arange(-2, nodes + 2)[None]).abs()
    near = 2 / 3 - away**2 + away**3 / 2
    far = (2 - away).clamp(min=0) ** 3 / 6
    weight = torch.where(away < 1, near, far)
    out = weight[:, 2:-2].clone()
    for k in (1, 2):  # the node k beyond an edge is (1 + k) times the last less k times the next
        for beyond, last, following in ((2 - k, 0, 1), (nodes + 1 + k, nodes - 1, nodes - 2)):
            out[:, last] += (1 + k) * weight[:, beyond]
            out[:, following] -= k * weight[:, beyond]
    return out


def folding(size: int, beyond: int) -> torch.Tensor:
    """(size, size + 2 beyond): light on pixels, some beyond the edges, to that on an image.

    What is `k` pixels beyond an edge comes to lie as far within: nothing is lost.
    """
    place = torch.arange(-beyond, size + beyond)
    inside = torch.where(place < 0, -1 - place, place)
    inside = torch.where(inside >= size, 2 * size - 1 - inside, inside)
    return (inside == torch.arange(size)[:, None]).float()
