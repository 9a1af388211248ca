"""Gains by multipole and maps of values that give generated maps the power and values of others."""

from __future__ import annotations

import numpy as np
import torch

from mlsky.networks import evaluate
from mlsky.training.matching import Spectra

__all__ = ["BINS", "LARGEST_GAIN", "match_power", "match_values"]

BINS = 20  # logarithmic bins of the gains
LARGEST_GAIN = 1.5  # a network that needs more is bad
#: Fractions of pixels above which values are matched; above the last their ratio is
#: kept.
FRACTIONS = np.concatenate([1 - np.geomspace(1e-3, 0.3, 8), np.geomspace(0.5, 3e-6, 32)])
ROUNDS = 3
SMOOTHING = 1.5  # bands


def match_values(made: list[torch.Tensor], truth: list[torch.Tensor], pixel_arcmin: float) -> dict:
    """Gain by multipole and map of values that match generated maps to the truth.

    Each slightly changes the effect of the other, so that they are fitted in turns.

    Parameters
    ----------
    made, truth
        Pictures (n, n) of the CIB or of -tSZ, uK, nowhere negative.

    Returns
    -------
    table
        ``ell``, ``gain``, ``from`` and ``to`` (uK), for `mlsky.networks.evaluate.calibrated`.
    """
    goal, now = _Power(truth, pixel_arcmin), made
    gain = np.ones(len(goal.ell))
    for _ in range(ROUNDS):
        gain = goal.gain(now, gain)
        table = goal.table(gain)
        smooth = [evaluate.filtered(m, pixel_arcmin, table) for m in made]
        table |= _match_ranks(
            [m.numpy().ravel() for m in smooth], [m.numpy().ravel() for m in truth]
        )
        now = [evaluate.calibrated(m, pixel_arcmin, table) for m in made]
    return table


def match_power(
    made: list[torch.Tensor],
    truth: list[torch.Tensor],
    pixel_arcmin: float,
    largest: float = LARGEST_GAIN,
) -> dict:
    """Gain by multipole that gives generated maps the power of the truth.

    Parameters
    ----------
    made, truth
        Pictures (n, n) of kSZ, uK.
    largest
        Gain that is not exceeded, nor its inverse.

    Returns
    -------
    table
        ``ell`` and ``gain``, for `mlsky.networks.evaluate.filtered`.
    """
    goal = _Power(truth, pixel_arcmin)
    return goal.table(goal.gain(made, np.ones(len(goal.ell)), largest))


class _Power:
    """Power of true maps, which a smooth gain by multipole gives to others."""

    def __init__(self, truth: list[torch.Tensor], pixel_arcmin: float) -> None:
        self.spectra = Spectra(truth[0].shape[-1], pixel_arcmin, "cpu", BINS)
        ell = self.ell = np.round(self.spectra.ell, 1)
        # the number of modes grows as the square of l: the first bands follow the later ones
        apart = np.subtract.outer(np.arange(len(ell)), np.arange(len(ell)))
        smoothing = np.exp(-0.5 * (apart / SMOOTHING) ** 2) * np.square(ell)
        self.smoothing = smoothing / smoothing.sum(1, keepdims=True)
        self.goal = self.of(truth)

    def of(self, maps: list[torch.Tensor]) -> np.ndarray:
        spectra = self.spectra
        return sum(
            spectra.pairs(spectra.modes((m - m.mean())[None, None]))[0, 0].double().numpy()
            for m in maps
        )

    def gain(
        self, maps: list[torch.Tensor], before: np.ndarray, largest: float = LARGEST_GAIN
    ) -> np.ndarray:
        """The gain of maps that had the gain `before`."""
        gain = before * np.exp(self.smoothing @ (0.5 * np.log(self.goal / self.of(maps))))
        return np.clip(gain, 1 / largest, largest)

    def table(self, gain: np.ndarray) -> dict:
        return {"ell": self.ell.tolist(), "gain": np.round(gain, 4).tolist()}


def _match_ranks(made: list[np.ndarray], truth: list[np.ndarray]) -> dict:
    """Map between values of the same rank in generated and true maps."""
    pairs = []
    for maps in (made, truth):
        ordered = np.sort(np.concatenate(maps))
        rank = np.minimum((len(ordered) * (1 - FRACTIONS)).astype(int), len(ordered) - 1)
        pairs.append(ordered[rank])
    # as they are written, so that no two nodes become one
    source, target = (np.asarray(p, np.float64).round(4) for p in pairs)
    # values of a few pixels are too noisy; only growing nodes define a map
    kept = [0]
    for i in range(1, len(source)):
        step = source[i] - source[kept[-1]]
        many = FRACTIONS[i] * sum(m.size for m in made) >= 30
        if many and step > 1e-3 * abs(source[kept[-1]]):
            kept.append(i)
    target = np.maximum.accumulate(target)
    return {"from": source[kept].tolist(), "to": target[kept].tolist()}
