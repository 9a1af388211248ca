"""Distances between two sets of patches, from features of each patch.

Fréchet distance (Heusel et al. 2017, arXiv:1706.08500), kernel distance (KID, Binkowski et al.
2018, arXiv:1801.01401), density and coverage (Naeem et al. 2020, arXiv:2002.09797). The features
are fixed, not learnt: scattering coefficients (`mlsky.statistics.scattering`).

For example::

    distances = Distances()
    for area, true, made in stream:
        distances.update(features(true), features(made), area)
    distances.compute()["kernel"]

Features are kept, 0.1 GB for 200,000 patches of 60 numbers; computations on all pairs of patches
are done in blocks, or with at most `MOST` patches.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mlsky.statistics.checks import Pairs, enough, rows

__all__ = ["Distances", "density_coverage", "frechet", "kernel"]

NEIGHBOURS = 5  # the k of Naeem et al. 2020
BLOCK = 1000  # patches: distances of a block to `MOST` others take 80 MB
MOST = 10_000  # patches, evenly chosen, of which neighbours are sought
GROUPS = 16  # jackknife: areas are left out in so many groups
TINY = 1e-12


def frechet(true: NDArray, made: NDArray) -> float:
    """Squared Fréchet distance of the Gaussians with the means and covariances of two sets.

    Parameters
    ----------
    true, made
        Features (patches, k); there should be many more patches than features: it is biased
        upwards by about k^2 / patches, so compare sets of equal size.

    Notes
    -----
    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2), the last from the eigenvalues of the symmetric
    C1^1/2 C2 C1^1/2.
    """
    true, made = _pair(true, made, 2)
    c1, c2 = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (true, made))
    values, vectors = np.linalg.eigh(c1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ c2 @ root), 0)).sum()
    shift = ((true.mean(0) - made.mean(0)) ** 2).sum()
    return float(shift + np.trace(c1) + np.trace(c2) - 2 * cross)


def kernel(true: NDArray, made: NDArray) -> float:
    """Kernel distance: the unbiased squared maximum mean discrepancy, kernel (x.y / k + 1)^3.

    Its mean over blocks of `BLOCK` patches, if there are more. It may be negative.
    """
    true, made = _pair(true, made, 2)
    size = min(len(true), len(made))
    blocks = max(1, size // BLOCK)
    pairs = zip(np.array_split(true, blocks), np.array_split(made, blocks), strict=True)
    return float(np.mean([_discrepancy(a, b) for a, b in pairs]))


def _discrepancy(a: NDArray, b: NDArray) -> float:
    def similar(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    own = 0.0
    for x in (a, b):
        k = similar(x, x)
        own += (k.sum() - np.trace(k)) / (len(x) * (len(x) - 1))
    return own - 2 * similar(a, b).mean()


def density_coverage(
    true: NDArray, made: NDArray, neighbours: int = NEIGHBOURS
) -> tuple[float, float]:
    """Density and coverage of Naeem et al. 2020, eqs 3 and 4.

    Density is how many spheres about true patches a generated one lies in, over `neighbours`: 1 if
    the sets are alike, lower for patches unlike any true one. Coverage is the fraction of true
    patches with a generated one in their sphere, lower if some kinds are never generated. A sphere
    extends to the k-th nearest true patch. Of more than `MOST` patches evenly chosen ones are used.

    Returns
    -------
    density, coverage : float
        Of two like sets of equal size 1 and about 1 - 2^-k (their eq. 6).
    """
    true, made = _pair(true, made, neighbours + 1)
    true, made = (
        x[np.linspace(0, len(x) - 1, min(len(x), MOST)).astype(int)] for x in (true, made)
    )
    radius = np.concatenate(
        [
            # the nearest patch to itself is itself; a copy, or all distances would be kept
            np.partition(_squares(part, true), neighbours, 1)[:, neighbours].copy()
            for part in _blocks(true)
        ]
    )
    inside, covered = 0, np.zeros(len(true), bool)
    for part in _blocks(made):
        within = _squares(part, true) <= radius
        inside += int(within.sum())
        covered |= within.any(0)
    return inside / (neighbours * len(made)), float(covered.mean())


def _blocks(x: NDArray) -> list[NDArray]:
    return np.array_split(x, -(-len(x) // BLOCK))


def _squares(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Squared distances (len(a), len(b))."""
    from scipy.spatial.distance import cdist

    return cdist(a, b, "sqeuclidean")


def _pair(true: NDArray, made: NDArray, least: int) -> tuple[NDArray, NDArray]:
    true = rows(true, name="true features")
    made = rows(made, true.shape[1], "generated features")
    enough(min(len(true), len(made)), least, "a distance between sets of patches")
    return true, made


class Distances:
    """Distances between generated and true patches, accumulated, with errors.

    Features are standardised with mean and standard deviation of the truth, so that all have equal
    weight and a Fréchet distance of one is one true standard deviation squared.
    """

    def __init__(self) -> None:
        self._pairs = Pairs("features")

    def update(self, true: NDArray, made: NDArray, area: int = 0) -> None:
        """Add features *(patches, k)* of true and generated patches of one area of the sky.

        Raises
        ------
        ValueError
            If they are not tables of equal width, or not finite.
        """
        self._pairs.add(true, made, area)

    def compute(self) -> dict[str, dict[str, float]]:
        """``frechet``, ``kernel``, ``density`` and ``coverage``, each ``value`` and ``error``.

        Errors are of a jackknife over areas, NaN for one area.

        Raises
        ------
        ValueError
            If there are too few patches.
        """
        kept = self._pairs.areas
        have = sum(len(a) for parts in kept.values() for a, _ in parts)
        enough(have, NEIGHBOURS + 1, "a distance between sets of patches")
        areas = [
            tuple(np.concatenate(side) for side in zip(*kept[area], strict=True))
            for area in sorted(kept)
        ]
        groups = np.array_split(np.arange(len(areas)), min(GROUPS, len(areas)))
        out = {}
        for names, function in (
            (("frechet",), frechet),
            (("kernel",), kernel),
            (("density", "coverage"), density_coverage),
        ):
            value = _of(function, areas)
            without = [
                _of(function, [a for i, a in enumerate(areas) if i not in group])
                for group in groups
                if len(groups) > 1
            ]
            error = np.full_like(value, np.nan)
            if without:
                spread = np.var(np.array(without), 0)
                error = np.sqrt((len(groups) - 1) * spread)
            for name, v, e in zip(names, value, error, strict=True):
                out[name] = {"value": float(v), "error": float(e)}
        return out


def _of(function: Callable, areas: list[tuple[NDArray, NDArray]]) -> NDArray[np.float64]:
    true, made = (np.concatenate(side) for side in zip(*areas, strict=True))
    mean, std = true.mean(0, dtype=np.float64), true.std(0, dtype=np.float64)
    std = np.where(std > TINY, std, 1.0)
    return np.atleast_1d(function((true - mean) / std, (made - mean) / std))
