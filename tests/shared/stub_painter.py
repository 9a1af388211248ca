"""A painter of nothing in particular, fast."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from mlsky import seeds


class StubPainter:
    """Correlated log-normal fields with the signs of the truth; counts what it paints."""

    def __init__(self, n: int, pixel_arcmin: float = 0.5) -> None:
        self.n, self.pixel_arcmin = n, pixel_arcmin
        self.painted: list[int] = []

    def region(self, seed: int, index: int) -> SimpleNamespace:
        self.painted.append(index)
        rng = torch.Generator().manual_seed(seeds.integer(seed, "truth", index))
        g, v, s = torch.randn(3, self.n, self.n, generator=rng)
        mass = torch.exp(g)
        maps = [0.05 * (mass - 1.6), 0.05 * g, 2 * v * mass, -3 * mass]
        maps += [10 * mass * torch.exp(0.3 * s), torch.where(s > 2, 20 * mass, 0.0)]
        return SimpleNamespace(maps=torch.stack(maps))

    def gaussian_kappa(self, kappa_g: torch.Tensor) -> torch.Tensor:
        return 1.5 * kappa_g


class CountingPainter(StubPainter):
    """Every pixel of every region has a number of its own."""

    def region(self, seed: int, index: int) -> SimpleNamespace:
        self.painted.append(index)
        pixels = torch.arange(self.n**2, dtype=torch.float32).reshape(self.n, self.n)
        return SimpleNamespace(maps=(pixels + 1 + index * self.n**2).expand(6, -1, -1))
