"""Random numbers of haloes and galaxies on torch devices, as functions of integers.

The functions of `mlsky.seeds` for tensors: SplitMix64, the same bits as there. The number of
haloes and galaxies of a region follows from rounded fields, so that a sequence of random numbers
would be another one on another machine after the first difference; what belongs to one halo or
galaxy is a function of its key instead.
"""

from __future__ import annotations

import math

import torch

from mlsky import seeds

__all__ = ["double", "keys", "normal", "numbers_within", "uniform"]


def _signed(value: int) -> int:
    """The int64 with the bits of a 64-bit unsigned integer."""
    return value - 2**64 if value >= 2**63 else value


_GAMMA = _signed(int(seeds.GAMMA))
_MULTIPLIERS = [_signed(int(m)) for m in seeds.MULTIPLIERS]
_SHIFTS = [int(s) for s in seeds.SHIFTS]


def _shifted(x: torch.Tensor, bits: int) -> torch.Tensor:
    """x >> bits of the unsigned integers; torch fills with the sign."""
    return (x >> bits).bitwise_and_(2 ** (64 - bits) - 1)


def keys(start: torch.Tensor | int, number: torch.Tensor | int) -> torch.Tensor:
    """Keys of what has a number within what has a key.

    Parameters
    ----------
    start
        int64 key or keys: of `mlsky.seeds.integer`, or of this function.
    number
        Non-negative integers that identify an object among those of `start`, or a quantity of it.
        At least one of `start` and `number` is a tensor; they broadcast.

    Returns
    -------
    keys
        int64, of the broadcast shape.
    """
    steps = (number + 1) * _GAMMA
    x = start + (steps if isinstance(steps, torch.Tensor) else _signed(steps % 2**64))
    for shift, multiplier in zip(_SHIFTS, (*_MULTIPLIERS, None), strict=True):
        x.bitwise_xor_(_shifted(x, shift))
        if multiplier is not None:
            x.mul_(multiplier)
    return x


def uniform(key: torch.Tensor, quantity: int) -> torch.Tensor:
    """Uniform float32 numbers in (0, 1), odd multiples of 2^-24: one quantity of every key."""
    return _shifted(keys(key, quantity), 41).float().add_(0.5).mul_(2.0**-23)


def double(key: torch.Tensor, quantity: int) -> torch.Tensor:
    """Uniform float64 numbers in (0, 1), odd multiples of 2^-53: one quantity of every key."""
    return _shifted(keys(key, quantity), 12).double().add_(0.5).mul_(2.0**-52)


def normal(key: torch.Tensor, quantity: int) -> torch.Tensor:
    """Standard normal float32 numbers, one quantity of every key (Box & Muller 1958).

    Radius and angle are of the upper and lower half of the bits; the largest is 6.8.
    """
    bits = keys(key, quantity)
    radius = _shifted(bits, 32).float().add_(0.5).mul_(2.0**-32).log_().mul_(-2).sqrt_()
    angle = bits.bitwise_and_(2**32 - 1).float().mul_(2 * math.pi * 2.0**-32)
    return radius.mul_(angle.cos_())


def numbers_within(counts: torch.Tensor) -> torch.Tensor:
    """0, 1, ... counts[0] - 1, 0, 1, ... counts[1] - 1, and so on (int64)."""
    before = torch.cumsum(counts, 0) - counts
    every = torch.arange(int(counts.sum()), device=counts.device)
    return every - torch.repeat_interleave(before, counts)
