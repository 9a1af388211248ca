"""The velocity field of kSZ made isotropic, after training.

Each level of the velocity field is a white noise convolved with learned kernels of 7 x 7 pixels,
and brought to the finest pixels by bilinear interpolation, whose response is not isotropic.
Training constrains the power by angle only within the noise of its batches, so that an anisotropy
of a few per cent remains. As the power is a function of the kernels alone, it is corrected without
data: the kernels are changed until all auto and cross spectra of the velocities, summed over
levels, equal at each wave number their initial means over angle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from mlsky.networks.default import Paint

__all__ = ["anisotropy", "make_isotropic"]

RADII = 40  # wave numbers, logarithmic, from half a wave across the widest kernel to Nyquist
ANGLES = 24  # of half a turn
STEPS = 600
RATE = 0.01  # Adam's, of the rms of a level's kernels


def _wave_numbers(levels: int) -> torch.Tensor:
    """(radii, angles, 2), radians per pixel of the finest level."""
    radius = torch.logspace(math.log10(math.pi / 7 / 2 ** (levels - 1)), math.log10(math.pi), RADII)
    angle = torch.arange(ANGLES) * (math.pi / ANGLES)
    return radius[:, None, None] * torch.stack([angle.sin(), angle.cos()], 1)


def _responses(k: torch.Tensor, levels: int) -> list[torch.Tensor]:
    """Power of white noise of unit variance at each level, brought to the finest: (radii, angles).

    Doubling by `torch.nn.functional.interpolate` is the filter (1, 3, 3, 1) / 4.
    """
    power, out = torch.ones(k.shape[:-1]), []
    for level in range(levels):
        out.append(power)
        half = 2**level * k / 2
        power = 4 * power * (0.75 * half.cos() + 0.25 * (3 * half).cos()).prod(-1).square()
    return out


def _spectra(
    kernels: Sequence[torch.Tensor], k: torch.Tensor, responses: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Auto and cross power (v, v, radii, angles) of the velocities; kernels (v, c, n, n)."""
    total = 0
    for level, (weight, response) in enumerate(zip(kernels, responses, strict=True)):
        place = torch.arange(weight.shape[-1]) - weight.shape[-1] // 2
        phase = 2**level * k[..., None] * place  # (radii, angles, 2, n)
        y, x = torch.polar(torch.ones_like(phase), phase).unbind(-2)
        modes = torch.einsum("vcij,rai,raj->vcra", weight.to(y.dtype), y, x)
        total = total + torch.einsum("vcra,ucra->vura", modes, modes.conj()).real * response
    return total


def _misfit(spectra: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """Mean square of the spectra minus `goal`, relative to the geometric means of its powers."""
    power = torch.diagonal(goal).movedim(-1, 0)
    return ((spectra - goal) / torch.sqrt(power[:, None] * power[None])).square().mean()


def anisotropy(kernels: Sequence[torch.Tensor]) -> float:
    """Rms deviation of the velocities' spectra from their means over angle, relative.

    Parameters
    ----------
    kernels
        Of each level, finest first: (velocities, noise channels, n, n).
    """
    k = _wave_numbers(len(kernels))
    with torch.no_grad():
        spectra = _spectra(kernels, k, _responses(k, len(kernels)))
        return _misfit(spectra, spectra.mean(-1, keepdim=True)).sqrt().item()


def make_isotropic(paint: Paint) -> float:
    """Make the spectra of the velocity field independent of the angle, in place.

    To be done after `mlsky.training.calibrate.balance_velocities`: only the sum over levels is
    isotropic.

    Returns
    -------
    left : float
        The `anisotropy` after.
    """
    start = [layer.weight.detach().clone() for layer in paint.velocity_kernels]
    k = _wave_numbers(len(start))
    responses = _responses(k, len(start))
    goal = _spectra(start, k, responses).mean(-1, keepdim=True)
    with torch.enable_grad():
        kernels = [w.clone().requires_grad_(True) for w in start]
        groups = [
            {"params": [w], "lr": RATE * a.std().item()}
            for w, a in zip(kernels, start, strict=True)
        ]
        adam = torch.optim.Adam(groups)
        for step in range(STEPS):
            for group, a in zip(adam.param_groups, start, strict=True):
                group["lr"] = RATE * a.std().item() * 0.5 * (1 + math.cos(math.pi * step / STEPS))
            adam.zero_grad()
            _misfit(_spectra(kernels, k, responses), goal).backward()
            adam.step()
    with torch.no_grad():
        for layer, weight in zip(paint.velocity_kernels, kernels, strict=True):
            layer.weight.copy_(weight)
    return anisotropy([layer.weight for layer in paint.velocity_kernels])
