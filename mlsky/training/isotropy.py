"""The kernels of the kSZ flow made isotropic, after training.

Each level of the flow is a white noise convolved with learned kernels of 7 x 7 pixels. What
training asks of its power by angle it asks within the noise of its batches, and the kernels keep an
orientation of some per cent. The power is a function of the kernels alone, so it is mended without
data: the kernels are moved until all auto and cross spectra of the velocities are, in each ring of
wave numbers, the means that they were.
"""

from __future__ import annotations

import math

import torch

from mlsky.networks.default import Paint

__all__ = ["anisotropy", "make_isotropic"]

GRID = 24  # wave numbers along a side, several per degree of freedom of a kernel
RINGS = 10  # to the Nyquist frequency: beyond it there are corners, and no rings
STEPS = 400
RATE = 0.01  # Adam's, of the rms of a level's kernels
FLOOR = 1e-3  # of the largest power of a level: below, a ring need not be round


def _rings() -> torch.Tensor:
    """(rings, wave numbers), each row ones where a wave number belongs to a ring."""
    k = 2 * math.pi * torch.fft.fftfreq(GRID)
    radius = torch.hypot(k[:, None], k[None]).ravel()
    index = (radius / (math.pi / RINGS)).round()
    member = torch.stack([(index == r) & (radius <= math.pi) for r in range(RINGS + 1)])
    return member[member.sum(1) > 0].float()


def _spectra(weight: torch.Tensor) -> torch.Tensor:
    """Auto and cross power (v, v, wave numbers) of kernels (v, noise channels, n, n)."""
    modes = torch.fft.fft2(weight, s=(GRID, GRID)).flatten(2)
    return torch.einsum("vck,uck->vuk", modes, modes.conj()).real


def _misfit(weight: torch.Tensor, goal: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Mean square of the spectra less `goal`, over the geometric means of the goal's powers."""
    power = torch.diagonal(goal).T
    scale = torch.sqrt(power[:, None] * power[None]) + FLOOR * power.max()
    return ((_spectra(weight) - goal) / scale)[..., inside].square().mean()


def _goal(weight: torch.Tensor, rings: torch.Tensor) -> torch.Tensor:
    """Spectra with their mean of each ring all over it."""
    return _spectra(weight) @ (rings / rings.sum(1, keepdim=True)).T @ rings


def anisotropy(weight: torch.Tensor) -> float:
    """Rms deviation of the spectra of a level's kernels (v, c, n, n) from their means in rings.

    Relative, over wave numbers below the Nyquist frequency and all pairs of velocities.
    """
    rings = _rings()
    with torch.no_grad():
        return _misfit(weight, _goal(weight, rings), rings.sum(0) > 0).sqrt().item()


def make_isotropic(paint: Paint) -> list[float]:
    """Move the kernels of the flow, in place, until their spectra do not depend on the angle.

    Returns
    -------
    list
        What is left of `anisotropy`, by level.
    """
    rings = _rings()
    for layer in paint.flow:
        start = layer.weight.detach()
        goal = _goal(start, rings)
        with torch.enable_grad():
            weight = start.clone().requires_grad_(True)
            adam = torch.optim.Adam([weight], lr=RATE * start.std().item())
            for _ in range(STEPS):
                adam.zero_grad()
                _misfit(weight, goal, rings.sum(0) > 0).backward()
                adam.step()
        with torch.no_grad():
            layer.weight.copy_(weight)
    return [anisotropy(layer.weight) for layer in paint.flow]
