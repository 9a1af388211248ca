"""Average log likelihood of summary statistics of generated patches under those of the truth.

Summaries of true patches are fitted with a Gaussian, ln p(s) = -(d ln 2 pi + ln |C| + (s - m)' C^-1
(s - m)) / 2, on all areas of the sky but one group; the likelihood of generated and true patches of
that group is evaluated, for each group in turn. If generated patches resemble true ones, both
averages agree; patches with too little variety have a higher average.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlsky.statistics.checks import Pairs, enough, rows

__all__ = ["LogLikelihood", "average"]

GROUPS = 10
MARGIN = 4  # patches to fit for each summary


def average(fit: NDArray, summaries: NDArray) -> float:
    """Mean of ln p over `summaries` (patches, d), p fitted to `fit` (patches, d).

    Raises
    ------
    ValueError
        If there are fewer than `MARGIN` d patches to fit, or a summary does not vary.
    """
    fit = rows(fit, name="true summaries")
    summaries = rows(summaries, fit.shape[1], "summaries")
    d = fit.shape[1]
    enough(len(fit), MARGIN * d, f"a fit of {d} summaries")
    mean, covariance = fit.mean(0), np.atleast_2d(np.cov(fit, rowvar=False))
    if not (np.diag(covariance) > 0).all():
        raise ValueError(
            f"summary {int(np.diag(covariance).argmin())}: does not vary; leave it out"
        )
    scale = np.sqrt(np.diag(covariance))
    lower = np.linalg.cholesky(covariance / np.outer(scale, scale))
    from scipy.linalg import solve_triangular

    away = solve_triangular(lower, ((summaries - mean) / scale).T, lower=True)
    log_det = 2 * np.log(np.diag(lower)).sum() + 2 * np.log(scale).sum()
    return float(-0.5 * (d * np.log(2 * np.pi) + log_det + (away**2).sum(0).mean()))


class LogLikelihood:
    """Average log likelihoods of generated and true patches, accumulated, with errors."""

    def __init__(self) -> None:
        self._pairs = Pairs("summaries")

    def update(self, true: NDArray, made: NDArray, area: int = 0) -> None:
        """Add summaries *(patches, d)* of true and generated patches of one area of the sky.

        Raises
        ------
        ValueError
            If they are not tables of equal width, or not finite.
        """
        self._pairs.add(true, made, area)

    def compute(self) -> dict[str, dict[str, float]]:
        """``true``, ``generated`` and their ``difference``, each ``value`` and ``error``.

        Per patch, in units of ln p. The error is from the scatter of groups of areas.

        Raises
        ------
        ValueError
            If there are fewer than two areas, or too few patches to fit.
        """
        areas = sorted(self._pairs.areas)
        if len(areas) < 2:
            raise ValueError(
                f"{len(areas)} areas of the sky: a log likelihood is of patches that were not "
                "fitted; give at least 2"
            )
        groups = np.array_split(np.array(areas), min(GROUPS, len(areas)))
        found = []
        for group in groups:
            others = [a for a in areas if a not in group]
            fit = self._side(others, 0)
            found.append([average(fit, self._side(group, side)) for side in (0, 1)])
        table = np.array(found)
        table = np.column_stack([table, table[:, 1] - table[:, 0]])
        error = table.std(0, ddof=1) / np.sqrt(len(table))
        names = ("true", "generated", "difference")
        return {
            name: {"value": float(v), "error": float(e)}
            for name, v, e in zip(names, table.mean(0), error, strict=True)
        }

    def _side(self, areas, side: int) -> NDArray[np.float64]:
        kept = self._pairs.areas
        return np.concatenate([pair[side] for a in areas for pair in kept[a]]).astype(float)
