"""What a network is given, the same in training and in simulation."""

from __future__ import annotations

import torch

__all__ = ["kappa_lmax", "squash"]

KAPPA_LMAX = 10800  # spherical transforms beyond cost more than they give; the noise goes on


def kappa_lmax(pixel_arcmin: float) -> int:
    """Band limit of the Gaussian kappa on pixels of this size: Nyquist, 10800 at most."""
    return int(min(KAPPA_LMAX, round(180 * 60 / pixel_arcmin)))


def squash(x: torch.Tensor) -> torch.Tensor:
    """3 asinh(x / 3): linear near zero, logarithmic where one halo core would rule."""
    return 3 * torch.asinh(x / 3)
