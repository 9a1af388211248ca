"""Random haloes of a region: number and masses in each cell of each shell, given its density.

The number of haloes of every mass depends on the density d as exp(b min(d, cap)). Its mean over the
Gaussian densities is that of the mass function.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from mlsky.haloes import keyed
from mlsky.haloes.densities import Grid, uniform
from mlsky.theory.clustering import CAP_SIGMA

__all__ = ["Abundance", "Haloes", "poisson"]

#: Densities at which abundances are tabulated, in standard deviations, and steps of the table of
#: rates between two of them.
DELTA_SIGMAS = np.linspace(-6, 7, 96)
FINE = 32
#: Numbers of `uniform` are multiples of 2^-24: adding half of that makes their mean 1/2.
HALF_STEP = 2.0**-25
#: Rate above which Poisson numbers are not found by stepping through them.
RATE_MAX = 20.0
#: Quantities of a halo that its key decides; those of its galaxies are in `mlsky.haloes.galaxies`.
Y, X, RESPONSE, MASS, SLICE, VELOCITY = range(6)


class Haloes(NamedTuple):
    """Haloes of a region.

    Parameters
    ----------
    shell, mass : (n,) int32
        Rows and columns in the tables.
    y, x : (n,)
        Positions in pixels.
    key : (n,) int64
        Of the random numbers of each halo (`mlsky.haloes.keyed`).
    """

    shell: torch.Tensor
    mass: torch.Tensor
    y: torch.Tensor
    x: torch.Tensor
    key: torch.Tensor


def poisson(u: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
    """Poisson numbers from uniform ones by inversion, as `mlsky.seeds.poisson`.

    Parameters
    ----------
    u : (n,)
        Numbers in (0, 1).
    rate : (n,)
        Expected numbers, mostly small.

    Returns
    -------
    number : (n,) int64
        n, where P(N > n) <= u < P(N >= n).
    """
    number = torch.zeros_like(u, dtype=torch.int64)
    some = (u < -torch.expm1(-rate)).nonzero()[:, 0]
    number[some] = _more_than_none(rate[some], u[some])
    return number


def _more_than_none(rate: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Poisson numbers for `u` below 1 - exp(-rate), the probability of one or more.

    The number is n if u is below the probability of n or more, but not of n + 1 or more.
    """
    number = torch.ones_like(u, dtype=torch.int64)
    large = (rate > RATE_MAX).nonzero()[:, 0]
    if len(large):
        number[large] = _many(rate[large].double(), u[large].double())
    rate = torch.where(rate > RATE_MAX, torch.zeros_like(rate), rate).double()
    term = rate * torch.exp(-rate)
    chance = -torch.expm1(-rate) - term
    where, k = torch.arange(len(u), device=u.device), 1
    while True:
        more = (u < chance).nonzero()[:, 0]
        if not len(more):
            return number
        k += 1
        where, u, rate, term, chance = (v[more] for v in (where, u, rate, term, chance))
        number[where] = k
        term = term * rate / k
        chance = chance - term


def _many(rate: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Poisson numbers of large rates: the same inversion, by bisection."""
    # P(N > n) is the incomplete gamma function of n + 1; 12 standard deviations are never reached
    low = torch.zeros_like(rate)
    high = rate + 12 * rate.sqrt() + 12
    while bool((high - low > 0.5).any()):
        middle = torch.floor((low + high) / 2)
        enough = torch.special.gammainc(middle + 1, rate) <= u
        high = torch.where(enough, middle, high)
        low = torch.where(enough, low, middle + 1)
    return low.long()


def _alias(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walker alias tables of the rows of `weights` (n, m): index and acceptance."""
    n, m = weights.shape
    q = weights / weights.sum(1, keepdims=True) * m
    index = np.tile(np.arange(m), (n, 1))
    for row in range(n):
        small = [i for i in range(m) if q[row, i] < 1]
        large = [i for i in range(m) if q[row, i] >= 1]
        while small and large:
            i, j = small.pop(), large[-1]
            index[row, i] = j
            q[row, j] -= 1 - q[row, i]
            if q[row, j] < 1:
                small.append(large.pop())
        q[row, small] = 1
    return index, q


def _mean_weights() -> np.ndarray:
    """Weights of values at `DELTA_SIGMAS` in the Gaussian mean of their linear interpolation."""
    x = np.linspace(-9, 9, 36001)
    gauss = np.exp(-0.5 * x**2)
    step = DELTA_SIGMAS[1] - DELTA_SIGMAS[0]
    place = np.clip((x - DELTA_SIGMAS[0]) / step, 0, len(DELTA_SIGMAS) - 1 - 1e-9)
    j = place.astype(int)
    fraction = place - j
    n = len(DELTA_SIGMAS)
    weights = np.bincount(j, gauss * (1 - fraction), n) + np.bincount(j + 1, gauss * fraction, n)
    return weights / weights.sum()


def response(b: np.ndarray, sigma: float, cap: float) -> np.ndarray:
    """Abundance over its mean at `DELTA_SIGMAS`, (densities, masses), for biases `b`.

    Its linear interpolation has mean 1 over Gaussian densities for every mass.
    """
    exponent = np.minimum(DELTA_SIGMAS * sigma, cap)[:, None] * b
    values = np.exp(exponent - exponent.max(0))
    return values / (_mean_weights() @ values)


class Abundance:
    """Draws the haloes of a region.

    Parameters
    ----------
    t
        Painter tables.
    grid
        Of the region.
    variance : (n_shell,)
        Of the densities in cells.

    Attributes
    ----------
    n_mass
        Columns of the tables.
    cap : (n_shell,)
        Density above which the number of haloes stays constant: that of the tables, or `CAP_SIGMA`
        standard deviations of these cells, which lack modes larger than the region. In the nearest
        shells this is a third of the value in the tables; without it one region in a hundred has
        dozens of rich clusters at one place.
    """

    def __init__(self, t: dict, grid: Grid, variance: np.ndarray) -> None:
        self.grid = grid
        ns, self.n_mass = t["number"].shape
        sigma = np.sqrt(variance)
        self.cap = np.minimum(t["delta_cap"], CAP_SIGMA * sigma)
        n = len(DELTA_SIGMAS)
        rate, index, accept = np.empty((ns, n)), [], []
        for i in range(ns):
            number = t["number"][i] * response(
                t["bias"][i].astype(np.float64), sigma[i], float(self.cap[i])
            )
            rate[i] = number.sum(1)
            alias, q = _alias(number)
            index.append(alias)
            accept.append(q)
        self.rate = grid.tensor(rate.ravel())
        self.alias_index = grid.tensor(np.concatenate(index).ravel(), torch.int32)
        self.alias_accept = grid.tensor(np.concatenate(accept).ravel())
        # of cells: position in the table of rates, which is linear between the densities above
        fine = np.arange((n - 1) * FINE + 1) / FINE
        in_cell = np.array([np.interp(fine, np.arange(n), row) for row in rate]) * grid.cell**2
        self.n_fine = len(fine)
        self.in_cell = grid.tensor(in_cell.ravel())
        self.occupied = grid.tensor(-np.expm1(-in_cell.ravel()) - HALF_STEP)
        step = (DELTA_SIGMAS[1] - DELTA_SIGMAS[0]) * sigma
        self.per_delta = grid.tensor(1 / step)
        self.offset = float(-DELTA_SIGMAS[0] / (DELTA_SIGMAS[1] - DELTA_SIGMAS[0]))

    def draw(self, rng: torch.Generator, start: int, density: torch.Tensor) -> Haloes:
        """Haloes in the order of shells and cells, for densities (n_shell, cells, cells).

        `rng` decides how many haloes are in each cell, the key `start` their masses and places.
        """
        grid, nc = self.grid, self.grid.cells
        flat = density.reshape(len(density), -1)
        shells = torch.arange(len(density), dtype=torch.int32, device=grid.device)[:, None]
        parts = []
        for block in grid.blocks(len(density)):
            some, shell = flat[block], shells[block]
            fine = (some * (self.per_delta[block, None] * FINE)).add_(self.offset * FINE + 0.5)
            fine = fine.clamp_(0, self.n_fine - 0.5).int().add_(shell * self.n_fine).flatten()
            u = uniform(rng, some.numel())
            where = (u < self.occupied.index_select(0, fine)).nonzero()[:, 0]
            u = u.index_select(0, where) + HALF_STEP
            rate = self.in_cell.index_select(0, fine.index_select(0, where))
            number = _more_than_none(rate, u)
            parts.append((where + block.start * nc * nc, number))
        cell, number = (torch.cat(p) for p in zip(*parts, strict=True))
        within = keyed.numbers_within(number)
        cell = cell.index_select(0, torch.repeat_interleave(number))
        key = keyed.keys(keyed.keys(start, cell), within)
        shell, cell_in = torch.div(cell, nc * nc, rounding_mode="floor").int(), cell % (nc * nc)
        mass = self._mass(key, shell, flat.reshape(-1).index_select(0, cell))
        per = grid.n // nc
        y = torch.div(cell_in, nc, rounding_mode="floor")
        x = cell_in - y * nc
        places = [
            (p + keyed.uniform(key, quantity)).mul_(per).clamp_(max=grid.n - 1e-3)
            for p, quantity in ((y, Y), (x, X))
        ]
        return Haloes(shell, mass, *places, key)

    def _mass(self, key: torch.Tensor, shell: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """Masses of haloes in cells of these shells and densities."""
        n = len(DELTA_SIGMAS)
        place = delta.mul_(self.per_delta.index_select(0, shell)).add_(self.offset)
        place = place.clamp_(0, n - 1.001)
        bin_ = place.int()
        fraction = place - bin_
        table = bin_.add_(shell * n)
        # abundances, not fractions of masses, are interpolated between two densities
        below = self.rate.index_select(0, table) * (1 - fraction)
        above = self.rate.index_select(0, table + 1) * fraction
        table += keyed.uniform(key, RESPONSE) * (below + above) < above
        # a slot and whether it is kept, in double precision: float32 numbers are 0 once in 2^24,
        # which would give haloes of masses that do not exist
        slot = keyed.double(key, MASS) * self.n_mass
        mass = slot.int()
        index = table.mul_(self.n_mass).add_(mass)
        kept = slot.sub_(mass) < self.alias_accept.index_select(0, index)
        return torch.where(kept, mass, self.alias_index.index_select(0, index))
