"""The matched statistics of each recipe, and those of images that are made without a condition.

Nothing is common to a batch of generated images and one of true images, so the running averages
of their statistics need a longer memory than those of fields that grow from one condition
(`match_memory` of a recipe). With `match_steady` the truth is averaged over all batches, and those
of the critic count as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
import torch

from mlsky.networks.normaliser import Normaliser
from mlsky.toys.image_statistics import rings
from mlsky.training import matching
from mlsky.training.recipes import Recipe

__all__ = ["image_statistics", "matching_of", "ring_edges"]

#: Of the edges of bins of the power.
RATIO = 1.12


def matching_of(
    recipe: Recipe, normaliser: Normaliser, device: torch.device
) -> matching.Matching | None:
    """The running comparison of a recipe's statistics; None if it has none."""
    if not recipe.match:
        return None
    if recipe.images is not None:
        statistics = image_statistics(recipe.size, device, recipe.match)
        return matching.Matching(
            statistics, recipe.match, recipe.match_memory, even=True, steady=recipe.match_steady
        )
    make = {
        "default:Paint": matching.paint_statistics,
        "default:Convergence": matching.convergence_statistics,
    }[recipe.generator]
    statistics = make(matching.Spectra(recipe.size, recipe.pixel_arcmin, device), normaliser)
    return matching.Matching(statistics, recipe.match, recipe.match_memory)


def ring_edges(size: int) -> list[int]:
    """First rings of bins of the power (cycles per image), and the end of the last.

    Single rings up to 8 and logarithmic bins beyond: with single rings throughout, most of them
    would be at high frequencies, where all say the same about the edges.
    """
    steps = np.arange(1 + int(np.log(size / 2) / np.log(RATIO)))
    return [*np.unique(np.rint(RATIO**steps).astype(int)).tolist(), size // 2 + 1]


def image_statistics(
    size: int,
    device: torch.device | str = "cpu",
    names: Iterable[str] = ("power", "profile", "pixel"),
) -> Callable:
    """Power spectrum, mean profiles, pixels and fluxes of images.

    Parameters
    ----------
    size
        Pixels along a side.
    device
        Of the images.
    names
        The statistics that are wanted.

    Returns
    -------
    callable
        Function (condition, images (B, C, size, size)) to the statistics

        power
            Power (C, bins) between `ring_edges`, without a window: that of blobs at the highest
            frequencies is the power of blobs cut off by an edge.
        profile
            Share of all light below each row and left of each column (C, 2, size), the mean over
            images: a straight line where objects are as frequent everywhere.
        pixel
            Means of the sorted pixels between quantiles (`mlsky.training.matching.quantiles`).
        flux
            Sum of the pixels of each image over `size` (C, B), in rising order: the distribution
            over images. Beside one true blob, an image without any and one with two differ in it.
    """
    _, ring = rings(size)
    # from the zero mode in the middle to the order of rfft2, which has half of the columns
    ring = torch.fft.ifftshift(torch.from_numpy(ring))[:, : size // 2 + 1].reshape(-1)
    column = torch.arange(size // 2 + 1).expand(size, -1).reshape(-1)
    weight = torch.where((column == 0) | (column == size // 2), 1.0, 2.0)
    bins = pairwise(ring_edges(size))
    binning = torch.stack([((ring >= a) & (ring < b)) * weight for a, b in bins], 1)
    binning = (binning / binning.sum(0)).to(device)

    def power(x):
        modes = torch.fft.rfft2(x, norm="ortho").flatten(2)
        return (modes.real**2 + modes.imag**2).mean(0) @ binning

    def profile(x):
        light = x.mean(0)
        sums = torch.stack([light.sum(-1), light.sum(-2)], 1).cumsum(-1)
        return sums / sums[..., -1:]

    def flux(x):
        return x.sum((-2, -1)).t().sort(-1).values / size

    known = {
        "power": ("power", power),
        "profile": ("quantile", profile),
        "pixel": ("quantile", matching.quantiles),
        "flux": ("quantile", flux),
    }
    wanted = {name: known[name] for name in names}

    def statistics(condition: torch.Tensor, x: torch.Tensor) -> dict:
        return {name: (kind, measure(x.float())) for name, (kind, measure) in wanted.items()}

    return statistics
