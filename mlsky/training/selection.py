"""Selection of the state of a run with the best score on validation truth.

At intervals the averaged generator is scored (`mlsky.validation.scores.checkpoint`, or as the
caller says), and the best one so far is kept beside the checkpoint. Scoring changes neither weights
nor random state, and its time is not counted, so that a run is the same with and without it.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py

from mlsky.errors import MlskyError
from mlsky.io.sets import fields_of, file_hash, painted_seed, refuse_validation_truth
from mlsky.training.checkpoints import BEST, read_best
from mlsky.training.data import Crops, Painted
from mlsky.training.recipes import Recipe
from mlsky.training.run import Run, save_best
from mlsky.validation import scores

__all__ = ["Measure", "Selection", "check_apart", "select_by"]

logger = logging.getLogger("mlsky")

PIXELS = 8 * 512**2  # to score on: about six seconds of one core
FRACTION = 0.1  # of a run between scores, by default
#: Name of a generator in a weight file, for those that can be scored alone.
NAMES = {"default:Paint": "paint", "default:Convergence": "convergence"}
#: Scores a run on a number of regions of a set: a dictionary as that of
#: `mlsky.validation.scores.total`, whose ``distance`` is the number to choose by.
Measure = Callable[[Run, Path, int], dict]


def _alone(run: Run, data: Path, regions: int) -> dict:
    """Scores of a generator of the default family."""
    name = NAMES[run.recipe.generator]
    return scores.checkpoint({name: run.averaged}, run.normaliser, data, regions)


@dataclass
class Selection:
    """Scores during a run, and the best of them."""

    data: Path
    sha256: str
    every: float  # minutes, or steps
    by_steps: bool
    regions: int
    folder: Path
    seed: int  # of the run
    measure: Measure = _alone
    best: dict | None = None
    seen: int = 0  # intervals behind the run
    scored: int = -1  # step of the last score

    def start(self, run: Run) -> None:
        """Start counting, at the beginning of a run or after it was resumed or rolled back."""
        self.seen, self.scored = self._intervals(run), -1
        path = self.folder / BEST
        self.best = read_best(self.folder)[1].get("score") if path.exists() else None
        if self.best and any(self.best.get(k) != v for k, v in self._truth().items()):
            logger.warning("%s: was chosen on other regions; scores start anew", path)
            self.best = None

    def due(self, run: Run, end: bool = False) -> bool:
        """Whether to score now: once per interval, and at the end of a run."""
        if end:
            return run.step != self.scored
        intervals = self._intervals(run)
        due = intervals > self.seen
        self.seen = intervals
        return due

    def score(self, run: Run) -> dict:
        """Score the averaged generator, keep it if it is best, and return a line for the log."""
        self.scored = run.step
        line: dict = {"step": run.step, "seconds": round(run.seconds, 1)}
        try:
            found = self.measure(run, self.data, self.regions)
        except ValueError as error:  # maps that cannot be measured, which training may improve
            logger.warning("step %d: cannot be scored (%s)", run.step, error)
            return {**line, "score": None, "best": False}
        score = found.pop("distance")
        better = score is not None and (self.best is None or score < self.best["distance"])
        if better:
            self._keep(run, {"distance": score, "step": run.step, **found, **self._truth()})
        return {**line, "score": score, **found, "best": better}

    def _keep(self, run: Run, best: dict) -> None:
        try:
            save_best(run, self.folder, self.seed, best)
            self.best = best
        except MlskyError as error:  # there may be room the next time
            logger.warning("%s", error)

    def _intervals(self, run: Run) -> int:
        return int((run.step if self.by_steps else run.seconds / 60) // self.every)

    def _truth(self) -> dict:
        return {"regions": self.regions, "validation": self.sha256}


def select_by(
    validation: str | os.PathLike | None,
    every: float | None,
    regions: int | None,
    recipe: Recipe,
    data: str | os.PathLike | Painted,
    folder: Path,
    seed: int,
    length: float,
    by_steps: bool,
    measure: Measure | None = None,
) -> Selection | None:
    """Make the selection of the best state of a run; None without a validation set.

    Parameters
    ----------
    validation
        Set that is not trained on, with all fields.
    every
        Minutes or steps between scores, in the unit of `length`; a tenth of it if None.
    regions
        Largest number of regions of the set; by default the area of `PIXELS`.
    data
        What is trained on.
    length, by_steps
        Of the run, in steps or minutes.
    measure
        For a recipe that has no scores of its own.

    Raises
    ------
    ValueError
        If the recipe has no scores of its own, the set cannot be used or is what is trained on,
        or a number is not positive.
    """
    if validation is None:
        for name, value in (("every", every), ("regions", regions)):
            if value is not None:
                raise ValueError(f"{name}={value}: there is nothing to score on; give validation=")
        return None
    if measure is None and recipe.generator not in NAMES:
        raise ValueError(
            f"validation={validation}: recipe {recipe.name} has no scores of its own; leave it out "
            "(the paper's networks are scored in their chain, such as han2021-w16)"
        )
    unit = "steps" if by_steps else "minutes"
    if every is None:
        every = math.ceil(length * FRACTION) if by_steps else length * FRACTION
    if not (every > 0 and math.isfinite(every)) or (by_steps and every != int(every)):
        raise ValueError(f"every={every}: must be {'whole ' * by_steps}{unit} > 0")
    if regions is not None and regions < 1:
        raise ValueError(f"regions={regions}: must be at least 1")
    # a chain is scored from the Gaussian kappa too
    further = ("kappa_in",) if recipe.inputs == ("kappa_in",) or measure is not None else ()
    with fields_of(validation, (*scores.FIELDS, *further)) as (fields, attrs):
        count, n = len(fields[0]), fields[0].shape[-1]
    if regions is None:
        regions = math.ceil(PIXELS / n**2)
    if attrs["pixel_arcmin"] != recipe.pixel_arcmin:
        raise ValueError(
            f"{validation}: pixels of {attrs['pixel_arcmin']}', {recipe.pixel_arcmin}' in recipe "
            f"{recipe.name}"
        )
    check_apart(validation, attrs, data)
    if measure is not None:  # scored on patches: a set without any would be found out at each score
        Crops(validation, (*scores.FIELDS, *further), recipe.size)
    return Selection(
        Path(validation),
        file_hash(validation),
        every,
        by_steps,
        min(regions, count),
        folder,
        seed,
        measure or _alone,
    )


def check_apart(validation, attrs: dict, data: str | os.PathLike | Painted) -> None:
    """Refuse a validation set, with these attributes, of the sky that is trained on or scored on.

    Raises
    ------
    ValueError
        If the files are the same or painted with the same seed, or the set holds the regions of
        ``mlsky validate``.
    """
    refuse_validation_truth(validation, attrs)
    seed = painted_seed(attrs)
    if isinstance(data, Painted):
        same = seed == data.seed
    else:
        try:
            with h5py.File(data, "r") as file:
                same = seed is not None and seed == painted_seed(dict(file.attrs))
            same |= os.path.samefile(validation, data)
        except OSError:  # reported when it is opened for training
            return
    if same:
        raise ValueError(
            f"validation={validation}: the same sky is trained on; paint or cut a set apart from it"
        )
