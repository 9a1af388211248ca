"""Hyperparameter search: many short runs, of which bad ones are stopped early.

Optuna (extra ``mlsky[tune]``) proposes the values, using the results of earlier runs. The search is
kept in a file and can be resumed; each run is a run folder.

    tune(recipe("paint-0.5"), "train.h5", "search", trials=20, minutes=10)

A run is stopped early by its spectra score, the mean of |ln(generated / true power)| over fields
and bands in the training log. Its final score is the same, or the distance of the table of scores
(`mlsky.validation.scores.checkpoint`) if there is a validation set.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlsky import seeds
from mlsky.errors import MissingDependencyError, MlskyError
from mlsky.training import loop
from mlsky.training.curve import read_log
from mlsky.training.recipes import Recipe

__all__ = ["SPACES", "STUDY", "Choice", "Found", "Range", "parse_space", "spectra_score", "tune"]


STUDY = "study.jsonl"
WORST = math.log(100.0)  # a field without power, or with a hundred times too much, is as bad
#: Of a run before it may be stopped, and runs that are never stopped: their power is still rising.
WARM_UP, FIRST = 0.3, 4
MAX_FAILURES = 3  # in a row
SCORED = 0.1  # fraction of a run between two evaluations of its spectra score


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, sampled evenly in their logarithm."""

    low: float
    high: float


@dataclass(frozen=True)
class Choice:
    """A set of values without order."""

    values: tuple


#: Default search spaces, by objective of the recipe.
SPACES: dict[str, dict[str, Range | Choice]] = {
    "relativistic": {
        "generator_rate": Range(1e-4, 3e-3),
        "critic_rate": Range(1e-4, 3e-3),
        "penalty_weight": Range(0.1, 10),
        "match_weight": Range(1, 30),
        "average": Choice((0.99, 0.999, 0.9995)),
        "batch": Choice((4, 8, 16)),
    },
    "wgan-gp": {
        "generator_rate": Range(3e-5, 3e-3),
        "critic_rate": Range(3e-5, 3e-3),
        "penalty_weight": Range(1, 30),
        "critic_steps": Choice((1, 2, 3, 5)),
        "batch": Choice((8, 16, 32)),
    },
    "elbo": {
        "generator_rate": Range(1e-4, 1e-2),
        "critic_rate": Range(1e-4, 1e-2),
        "penalty_weight": Range(0.01, 10),
        "batch": Choice((16, 32, 64)),
    },
}


@dataclass(frozen=True)
class Found:
    """Result of a search so far.

    Attributes
    ----------
    best
        Number of the best run, whose folder is kept whole.
    score
        Its score.
    numbers
        Its numbers.
    folder
        Its run folder.
    trials
        Of every run: ``number``, ``state`` (complete, pruned, failed), ``score`` and ``numbers``.
    """

    best: int
    score: float
    numbers: dict
    folder: Path
    trials: list[dict]


def parse_space(words: Sequence[str], recipe: Recipe) -> dict[str, Range | Choice]:
    """A space from ``FIELD=LOW:HIGH`` and ``FIELD=A/B/C``.

    Raises
    ------
    ValueError
        If one is not of this form, or the recipe has no such number.
    """
    numeric = {
        f.name
        for f in dataclasses.fields(Recipe)
        if isinstance(getattr(recipe, f.name), (int, float))
        and not isinstance(getattr(recipe, f.name), bool)
    }
    out: dict[str, Range | Choice] = {}
    for word in words:
        name, _, text = word.partition("=")
        if name not in numeric:
            raise ValueError(f"{word!r}: {name!r} must be one of {', '.join(sorted(numeric))}")
        whole = isinstance(getattr(recipe, name), int)
        try:
            parts = [int(x) if whole else float(x) for x in text.replace(":", "/").split("/")]
        except ValueError:
            kind = "whole numbers" if whole else "numbers"
            raise ValueError(f"{word!r}: {kind} as LOW:HIGH or A/B/C") from None
        if ":" not in text:
            out[name] = Choice(tuple(parts))
            continue
        if whole or len(parts) != 2 or not 0 < parts[0] < parts[1] < math.inf:
            raise ValueError(f"{word!r}: must be LOW:HIGH with 0 < LOW < HIGH; whole numbers A/B/C")
        out[name] = Range(*parts)
    return out


def spectra_score(ratio: Mapping[str, Sequence[float]]) -> float:
    """Mean of |ln ratio| over fields and bands, none counted more than a factor of 100.

    Parameters
    ----------
    ratio
        Generated over true power by field, one number a band, as the training log has it.
    """
    off = [
        min(abs(math.log(r)), WORST) if r > 0 and math.isfinite(r) else WORST
        for bands in ratio.values()
        for r in bands
    ]
    return sum(off) / len(off)


def tune(
    recipe: Recipe,
    data: str | os.PathLike | None,
    out: str | os.PathLike,
    *,
    trials: int,
    minutes: float | None = None,
    steps: int | None = None,
    space: Mapping[str, Range | Choice] | None = None,
    validation: str | os.PathLike | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: bool = True,
) -> Found:
    """Search for better numbers in a recipe. A search that folder `out` holds is resumed.

    Parameters
    ----------
    recipe
        The start of the search: its own values are the first run.
    data
        Training set; None for a recipe that makes its own images.
    out
        Folder of the search: `STUDY` and one run folder for each run. Of runs that are not the
        best only the log and the recipe are kept.
    trials
        Total number of runs, including earlier calls.
    minutes, steps
        Length of each run: give one.
    space
        Search space, by field of the recipe; that of `SPACES` by default.
    validation
        Validation set, to score the runs.
    device, progress
        As of `mlsky.training.loop.train`.
    seed
        Of every run and of the search.

    Raises
    ------
    ValueError
        If an argument is wrong, or the folder holds another search.
    MissingDependencyError
        If optuna is not installed.
    MlskyError
        If three runs in a row fail, or none is completed.
    """
    space = dict(SPACES[recipe.objective] if space is None else space)
    if trials < 1:
        raise ValueError(f"trials={trials}: must be at least 1")
    unknown = set(space) - {f.name for f in dataclasses.fields(Recipe)}
    if unknown or not space:
        raise ValueError(f"space={sorted(space)}: must be numbers of a recipe, at least one")
    seeds.check(seed)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; name a folder for the search")
    if not folder.exists() and not folder.parent.is_dir():
        raise ValueError(f"{folder}: folder {folder.parent} does not exist; make it first")
    loop.check_length(minutes, steps)
    said = {
        "recipe": json.loads(json.dumps(recipe.to_dict())),
        "space": {k: dataclasses.astuple(v) for k, v in sorted(space.items())},
        "minutes": minutes,
        "steps": steps,
        "seed": seed,
        "validation": None if validation is None else Path(validation).name,
    }
    said = json.loads(json.dumps(said))
    optuna = _optuna()
    folder.mkdir(exist_ok=True)
    study = _open(optuna, folder, said)
    done = len(_ended(optuna, study))
    # a resumed search must not propose again what it proposed at its start
    study.sampler = optuna.samplers.TPESampler(seed=seeds.integer(seed, "training", done) % 2**32)
    options = {"minutes": minutes, "steps": steps, "validation": validation, "device": device}

    def objective(trial) -> float:
        numbers = {name: _propose(trial, name, of) for name, of in space.items()}
        run = folder / f"trial-{trial.number:04d}"
        shutil.rmtree(run, ignore_errors=True)  # of a run that was interrupted
        next_look = SCORED

        def look(done: float, line: Mapping) -> None:
            nonlocal next_look
            if done < next_look:
                return
            next_look = done + SCORED
            trial.report(spectra_score(line["ratio"]), round(100 * done))
            if trial.should_prune():
                raise optuna.TrialPruned

        changed = dataclasses.replace(recipe, **numbers)
        loop.train(changed, data, run, seed=seed, progress=progress, report=look, **options)
        return _judge(run, validation is not None)

    if not study.trials:
        own = {
            name: getattr(recipe, name) for name, of in space.items() if _holds(of, recipe, name)
        }
        study.enqueue_trial(own)
    in_a_row = 0
    while (ended := len(_ended(optuna, study))) < trials and in_a_row < MAX_FAILURES:
        study.optimize(objective, n_trials=1, catch=(MlskyError,))
        _tidy(study, folder)
        in_a_row = in_a_row + 1 if len(_ended(optuna, study)) == ended else 0
    if in_a_row == MAX_FAILURES:
        raise MlskyError(
            f"{folder}: {in_a_row} runs in a row failed, see the warnings above; search lower "
            "rates, or make the runs longer"
        )
    return _found(study, folder)


def _optuna():
    try:
        import optuna
    except ImportError:
        raise MissingDependencyError(
            "optuna is needed to tune a recipe: pip install 'mlsky[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _open(optuna, folder: Path, said: dict):
    """The search in a folder, or a new one; runs that were interrupted have failed."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        storage = JournalStorage(JournalFileBackend(str(folder / STUDY)))
        study = optuna.create_study(
            storage=storage,
            study_name="mlsky",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(
                n_startup_trials=FIRST, n_warmup_steps=round(100 * WARM_UP)
            ),
        )
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{folder / STUDY}: cannot be used as a search ({' '.join(str(error).split())}); name "
            "another folder"
        ) from None
    before = study.user_attrs.get("mlsky")
    if before is None:
        study.set_user_attr("mlsky", said)
    elif before != said:
        other = [name for name in said if before.get(name) != said[name]]
        raise ValueError(
            f"{folder}: holds a search with another {' and '.join(other)}; name another folder"
        )
    running = optuna.trial.TrialState.RUNNING
    for trial in study.get_trials(deepcopy=False, states=(running,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _ended(optuna, study) -> list:
    state = optuna.trial.TrialState
    return study.get_trials(deepcopy=False, states=(state.COMPLETE, state.PRUNED))


def _propose(trial, name: str, of: Range | Choice):
    if isinstance(of, Choice):
        return trial.suggest_categorical(name, list(of.values))
    return trial.suggest_float(name, of.low, of.high, log=True)


def _holds(of: Range | Choice, recipe: Recipe, name: str) -> bool:
    """Whether the recipe's own number is in the space."""
    value = getattr(recipe, name)
    return value in of.values if isinstance(of, Choice) else of.low <= value <= of.high


def _judge(run: Path, by_scores: bool) -> float:
    reports, scores, _ = read_log(run)
    if by_scores:
        values = [line["score"] for line in scores if line["score"] is not None]
        if not values:
            raise MlskyError(f"{run}: was never scored; make the runs longer")
        return min(values)
    if not reports:
        raise MlskyError(
            f"{run}: shorter than {loop.REPORT_EVERY} steps, after which there is a first report; "
            "make the runs longer"
        )
    return spectra_score(reports[-1]["ratio"])


def _tidy(study, folder: Path) -> None:
    """Keep the resumable state of the best run only: each takes tens of megabytes."""
    complete = [t for t in study.get_trials(deepcopy=False) if t.value is not None]
    best = min(complete, key=lambda t: t.value).number if complete else -1
    for run in folder.glob("trial-*"):
        if run.name != f"trial-{best:04d}":
            for file in run.glob("*.safetensors"):
                file.unlink()


def _found(study, folder: Path) -> Found:
    rows = [
        {
            "number": t.number,
            "state": {"FAIL": "failed"}.get(t.state.name, t.state.name.lower()),
            "score": t.value if t.value is not None else t.intermediate_values.get(t.last_step),
            "numbers": dict(t.params),
        }
        for t in study.get_trials(deepcopy=False)
    ]
    complete = [row for row in rows if row["state"] == "complete"]
    if not complete:
        raise MlskyError(f"{folder}: no run came to its end, all were stopped early; add runs")
    best = min(complete, key=lambda row: row["score"])
    run = folder / f"trial-{best['number']:04d}"
    return Found(best["number"], best["score"], best["numbers"], run, rows)
