"""Fields to network units and back, with the transforms of Han et al. (2021), arXiv:2105.11444.

A network trains well on numbers of order one with short tails. kappa and kSZ are
nearly Gaussian and are only divided by their standard deviation; tSZ, CIB and
radio are skewed and take a signed logarithm first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

__all__ = ["Normaliser"]

# The channel axis of (..., C, H, W).
_AXIS = -3


def _compress(x, s: float):
    """sign(x) ln(|x|/s + 1).

    Two clipped branches instead of sign(x): the derivative at x = 0 is then 1/s as it
    must be, not the 0 that autograd gives |x| (most pixels of a point-source map are 0).
    """
    xp = torch if isinstance(x, torch.Tensor) else np
    x = x / s
    return xp.where(x < 0, -xp.log1p(xp.clip(-x, 0, None)), xp.log1p(xp.clip(x, 0, None)))


def _expand(x, s: float):
    """The inverse, sign(x) s (exp|x| - 1)."""
    if isinstance(x, torch.Tensor) and not torch.is_grad_enabled():
        return x.abs().expm1_().copysign_(x).mul_(s)  # a third of the time of the branches
    xp = torch if isinstance(x, torch.Tensor) else np
    y = xp.where(x < 0, -xp.expm1(xp.clip(-x, 0, None)), xp.expm1(xp.clip(x, 0, None)))
    return y * s


def _floating(x):
    """`x` as float32 or float64 of its own kind; halves and integers become float32."""
    if isinstance(x, torch.Tensor):
        return x if x.dtype in (torch.float32, torch.float64) else x.to(torch.float32)
    x = np.asarray(x)
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)


@dataclass(frozen=True)
class Normaliser:
    """The map between fields and network units, one row of numbers per channel.

    ``x' = sign(x) ln(|x|/s + 1)`` if there is a scale s, else ``x' = x``; then ``x'' = (x' - m) /
    d``.

    Parameters
    ----------
    channels
        Names of the channels, in the order of the channel axis.
    scale
        s of each channel, in the field's unit; None (or 0) for a linear channel.
    mean, std
        m and d of each channel, after the logarithm.

    Raises
    ------
    ValueError
        If lengths differ, a name is repeated, or a number cannot be inverted.
    """

    channels: tuple[str, ...]
    scale: tuple[float | None, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        channels = tuple(str(name) for name in self.channels)
        if not channels or len(set(channels)) != len(channels):
            raise ValueError(f"channels={channels!r}: must be one or more different names")
        for field in ("scale", "mean", "std"):
            values = getattr(self, field)
            if len(values) != len(channels):
                raise ValueError(
                    f"{field} has {len(values)} numbers: must be {len(channels)}, one per "
                    f"channel ({', '.join(channels)})"
                )
        scale = tuple(float(s) if s else None for s in self.scale)
        mean = tuple(float(m) for m in self.mean)
        std = tuple(float(d) for d in self.std)
        for name, s, m, d in zip(channels, scale, mean, std, strict=True):
            if s is not None and not (math.isfinite(s) and s > 0):
                raise ValueError(
                    f"scale={s!r} of {name}: must be > 0, or None for a linear channel"
                )
            if not math.isfinite(m):
                raise ValueError(f"mean={m!r} of {name}: must be finite")
            if not (math.isfinite(d) and d > 0):
                raise ValueError(f"std={d!r} of {name}: must be > 0 (a constant channel has none)")
        for field, value in (
            ("channels", channels),
            ("scale", scale),
            ("mean", mean),
            ("std", std),
        ):
            object.__setattr__(self, field, value)

    @classmethod
    def fit(
        cls,
        fields: np.ndarray | torch.Tensor,
        channels: Sequence[str],
        log: Iterable[str] = (),
        sparse: Iterable[str] | None = None,
    ) -> Normaliser:
        """Measure the numbers on training patches, as Han et al. (2021) did.

        Parameters
        ----------
        fields
            Patches, (..., C, H, W), in the fields' own units.
        channels
            Names of the C channels.
        log
            Channels that take the logarithm; s is the standard deviation of all pixels.
        sparse
            Channels whose m and d are taken over non-zero pixels only, so that empty sky
            does not set them; by default the `log` channels.

        Notes
        -----
        Linear channels keep m = 0, so that a sign flip (kSZ) stays a sign flip.
        Sums are float64.
        """
        channels, log = tuple(channels), tuple(log)
        sparse = log if sparse is None else tuple(sparse)
        for name in (*log, *sparse):
            if name not in channels:
                raise ValueError(f"channel {name!r}: must be one of {', '.join(channels)}")
        _check_shape(fields, channels)
        scale, mean, std = [], [], []
        for index, name in enumerate(channels):
            x = fields[..., index, :, :]
            x = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
            x = x.astype(np.float64).ravel()
            if not np.isfinite(x).all():
                raise ValueError(f"channel {name!r} holds NaN or infinity: mask or mend it first")
            s = float(x.std()) if name in log else None
            if name in sparse:
                x = x[x != 0]
            if x.size == 0 or s == 0 or x.min() == x.max():
                raise ValueError(f"channel {name!r} is constant: it cannot be normalised")
            if s is not None:
                x = _compress(x, s)
            scale.append(s)
            mean.append(float(x.mean()) if s is not None else 0.0)
            std.append(float(x.std()))
        return cls(channels, tuple(scale), tuple(mean), tuple(std))

    def forward(self, fields: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
        """Field units to network units.

        Parameters
        ----------
        fields
            (..., C, H, W); kappa dimensionless, the others in uK_CMB at 148 GHz.

        Returns
        -------
        ndarray or Tensor
            Same kind and shape; float64 stays float64, all else is float32.
        """
        x = _check_shape(fields, self.channels)
        rows = []
        for index, (s, m, d) in enumerate(zip(self.scale, self.mean, self.std, strict=True)):
            row = x[..., index, :, :]
            rows.append(((_compress(row, s) if s is not None else row) - m) / d)
        return torch.stack(rows, _AXIS) if isinstance(x, torch.Tensor) else np.stack(rows, _AXIS)

    def inverse(self, fields: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
        """Network units to field units: the exact inverse of `forward`, same shapes."""
        x = _check_shape(fields, self.channels)
        rows = []
        for index, (s, m, d) in enumerate(zip(self.scale, self.mean, self.std, strict=True)):
            row = x[..., index, :, :] * d + m
            rows.append(_expand(row, s) if s is not None else row)
        return torch.stack(rows, _AXIS) if isinstance(x, torch.Tensor) else np.stack(rows, _AXIS)

    def select(self, names: Sequence[str]) -> Normaliser:
        """The normaliser of some of the channels, in that order."""
        for name in names:
            if name not in self.channels:
                raise ValueError(f"channel {name!r}: must be one of {', '.join(self.channels)}")
        index = [self.channels.index(name) for name in names]
        return Normaliser(
            tuple(self.channels[i] for i in index),
            tuple(self.scale[i] for i in index),
            tuple(self.mean[i] for i in index),
            tuple(self.std[i] for i in index),
        )

    def with_constants(self, constants: Iterable[Sequence]) -> Normaliser:
        """The same normaliser with other numbers of some channels.

        Parameters
        ----------
        constants
            (channel, s, m, d) of each.

        Raises
        ------
        ValueError
            If a channel is unknown.
        """
        rows = dict(
            zip(self.channels, zip(self.scale, self.mean, self.std, strict=True), strict=True)
        )
        for name, *numbers in constants:
            self.select([name])  # refuses unknown ones
            rows[name] = tuple(numbers)
        return Normaliser(self.channels, *zip(*rows.values(), strict=True))

    def to_dict(self) -> dict[str, list]:
        """Plain JSON form: four lists in the order of the channels."""
        return {
            "channels": list(self.channels),
            "scale": list(self.scale),
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> Normaliser:
        """Inverse of `to_dict`, exact to the bit."""
        wanted = {"channels", "scale", "mean", "std"}
        if not isinstance(numbers, Mapping) or set(numbers) != wanted:
            raise ValueError(f"normaliser={numbers!r}: must have {', '.join(sorted(wanted))}")
        return cls(*(tuple(numbers[key]) for key in ("channels", "scale", "mean", "std")))


def _check_shape(fields, channels: tuple[str, ...]):
    """`fields` as floats, its channel axis checked."""
    x = _floating(fields)
    if x.ndim < 3 or x.shape[_AXIS] != len(channels):
        raise ValueError(
            f"fields of shape {tuple(x.shape)}: must be (..., {len(channels)}, H, W) with the "
            f"channels {', '.join(channels)}"
        )
    return x
