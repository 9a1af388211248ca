"""Statistics of images in batches, with errors from areas of the sky.

For example::

    power = Averages(measure)
    for area, patches in stream:
        power.update(patches, area)
    value, error = power.compute()

Only sums by area are kept, so that memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky.statistics.checks import enough
from mlsky.statistics.jackknife import jackknife

__all__ = ["Averages", "over_trainings"]


class Averages:
    """Means of quantities measured on images, and functions of those means.

    Parameters
    ----------
    measure
        Function of images *(patches, ...)* to numbers by name, each *(patches, ...)*.
    """

    def __init__(self, measure: Callable[[NDArray], Mapping[str, NDArray]]) -> None:
        self._measure = measure
        self._sums: dict[int, dict[str, NDArray[np.float64]]] = {}
        self._counts: dict[int, int] = {}

    def update(self, maps: NDArray, area: int = 0) -> None:
        """Add images *(patches, ...)* of one area of the sky.

        Raises
        ------
        ValueError
            If what is measured has another shape than before.
        """
        found = {k: np.asarray(v, np.float64).sum(0) for k, v in self._measure(maps).items()}
        first = next(iter(self._sums.values()), found)
        for name, values in found.items():
            if name not in first or values.shape != first[name].shape:
                had = first[name].shape if name in first else "nothing"
                raise ValueError(f"{name} of shape {values.shape}: was {had} in the first images")
        old = self._sums.get(area)
        self._sums[area] = found if old is None else {k: v + old[k] for k, v in found.items()}
        self._counts[area] = self._counts.get(area, 0) + len(maps)

    @property
    def count(self) -> int:
        """Images so far."""
        return sum(self._counts.values())

    @property
    def areas(self) -> list[int]:
        return sorted(self._sums)

    def samples(self) -> dict[str, NDArray[np.float64]]:
        """Sums by name *(areas, ...)*, and ``count`` *(areas,)*, in the order of `areas`."""
        enough(self.count, 1, "a mean")
        out = {k: np.stack([self._sums[a][k] for a in self.areas]) for k in self._first()}
        return out | {"count": np.array([self._counts[a] for a in self.areas], np.float64)}

    def _first(self) -> dict[str, NDArray]:
        return next(iter(self._sums.values()))

    def compute(
        self, statistic: Callable[[dict[str, NDArray]], ArrayLike] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A function of the means over images, and its error by leaving areas out.

        Parameters
        ----------
        statistic
            Function of the means by name to numbers (k,); by default the only mean there is.

        Returns
        -------
        value, error
            Of the shape that `statistic` gives. Errors of fewer than two areas are NaN.

        Raises
        ------
        ValueError
            If there are no images yet.
        """
        samples = self.samples()
        if statistic is None:
            (name,) = self._first()

            def statistic(means):
                return means[name]

        def of_sums(means):
            count = means.pop("count")
            return np.asarray(statistic({k: v / count for k, v in means.items()}), np.float64)

        return jackknife(of_sums, samples)


def over_trainings(values: Sequence[ArrayLike]) -> dict[str, NDArray[np.float64]]:
    """A number of networks that differ by the seed of their training.

    Parameters
    ----------
    values
        One array for each training, of one shape.

    Returns
    -------
    dict
        ``mean``; ``scatter``, the standard deviation from training to training, which is the
        error that any one of them has; ``error``, that of the mean, which is what a jackknife
        over trainings gives.

    Raises
    ------
    ValueError
        If there are fewer than two trainings, or their shapes differ.
    """
    if len(values) < 2:
        raise ValueError(
            f"{len(values)} trainings: a scatter needs at least 2 seeds; train another"
        )
    shapes = {np.shape(v) for v in values}
    if len(shapes) > 1:
        raise ValueError(f"values of shapes {sorted(shapes)}: must be the same for all trainings")
    stack = np.array([np.asarray(v, np.float64) for v in values])
    scatter = stack.std(0, ddof=1)
    return {"mean": stack.mean(0), "scatter": scatter, "error": scatter / np.sqrt(len(stack))}
