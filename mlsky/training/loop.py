"""One training loop for every recipe; the steps differ by data and loss, not by code.

    train(recipe("paint-0.5"), "train.h5", "runs/paint", minutes=60)

The run folder holds `checkpoint.safetensors` (weights, averages, optimisers: enough to resume
exactly), `log.jsonl` (one line per report: losses, and the ratio of generated to true power by
band) and `recipe.json`; with a validation set also `best.safetensors`, the averaged generator that
scored best. With `steps=` a run is reproducible to the bit on one device, interrupted or not; with
`minutes=` its schedule follows the clock.

A step that gives NaN is skipped. A run with many such steps, or whose fields lose their power, is
rolled back to its last good checkpoint and continues with other noise, other crops and half the
rate, a few times at most.
"""

from __future__ import annotations

import ctypes
import json
import logging
import math
import os
import time
from collections.abc import Callable
from numbers import Integral
from pathlib import Path

import torch

from mlsky import seeds
from mlsky.errors import MlskyError
from mlsky.networks.device import pick_device
from mlsky.networks.normaliser import Normaliser
from mlsky.toys import images
from mlsky.training import matching, stopping
from mlsky.training.checkpoints import BEST, CHECKPOINT, read_checkpoint, read_state
from mlsky.training.claim import Claim
from mlsky.training.data import Crops, Painted
from mlsky.training.recipes import Recipe
from mlsky.training.run import (
    Run,
    choose_normaliser,
    find_checkpoint,
    find_start,
    new_run,
    normalise,
    restore,
    save_checkpoint,
    start_from,
)
from mlsky.training.selection import Measure, select_by
from mlsky.training.steps import ROLLBACK_RATE, one_step, power_report

__all__ = ["train"]

logger = logging.getLogger("mlsky")

REPORT_EVERY = 25  # steps
SAVE_EVERY = 120.0  # seconds

BAD_STEPS = 10  # in a row: a single NaN is tolerated
MAX_ROLLBACKS = 3  # in a run
#: Reports before the running power ratios are meaningful.
RIPE_REPORTS = 20
# Factors by which the power of some field in some band may be wrong. Good runs came within 3 and
# stayed within 5 (4 recipes, 80 to 115 reports each).
SETTLED, SPOILED, COLLAPSED = 3.0, 10.0, 30.0


def _keep_memory() -> None:
    """Make glibc keep freed memory for the next step instead of returning it.

    Otherwise the kernel has to clear new pages for every large tensor, a tenth of the time of a
    step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
    mallopt(mmap_threshold, 2**25)  # the most that glibc takes
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 2**26)


def check_length(minutes: float | None, steps: int | None) -> None:
    """Refuse the length of a run that is not one positive number, of steps a whole one."""
    if (minutes is None) == (steps is None):
        raise ValueError(f"minutes={minutes}, steps={steps}: give exactly one of them")
    if steps is not None:
        if isinstance(steps, bool) or not isinstance(steps, Integral):
            raise ValueError(f"steps={steps!r}: must be an integer > 0")
        if not 0 < steps < 2**63:
            raise ValueError(f"steps={steps}: must be > 0 and below 2**63")
    elif not (minutes > 0 and math.isfinite(minutes)):
        raise ValueError(f"minutes={minutes}: must be > 0")


def check_stop(stop: int | None, steps: int | None) -> None:
    """Refuse a step to stop at that is not one of the run's."""
    if stop is None:
        return
    last = math.inf if steps is None else steps
    if isinstance(stop, bool) or not isinstance(stop, int) or not 0 <= stop <= last:
        most = "" if steps is None else f" to steps={steps}"
        raise ValueError(f"stop={stop!r}: must be an integer from 0{most}, a step of the run")


def _check_given(recipe: Recipe, data, target, converged: float | None) -> None:
    """Check that a recipe has its data, and losses that may converge."""
    if data is None and recipe.images is None:
        raise ValueError(f"data=None: recipe {recipe.name} is trained on a set; name its file")
    if target is None and {*recipe.inputs} & {*recipe.outputs}:
        raise ValueError(
            f"target=None: recipe {recipe.name} changes fields of one set into those of another; "
            "name the other"
        )
    if recipe.images is not None and isinstance(data, (str, os.PathLike)):
        raise ValueError(f"data={data}: recipe {recipe.name} makes its own images; leave it out")
    if converged is None:
        return
    if not 0 < converged < 1:
        raise ValueError(f"converged={converged}: must be a share in 0 to 1, such as 0.1 or 0.01")
    if recipe.objective not in stopping.LOSSES:
        raise ValueError(
            f"converged={converged}: recipe {recipe.name} matches statistics, whose losses level "
            "off long before its networks; leave it out"
        )


def _open_sets(
    recipe: Recipe, data, target, seed: int
) -> tuple[Crops | Painted, Crops | Painted | None]:
    """Crops of the truth (with its condition, if paired), and of an unpaired condition."""
    if recipe.paired and target is None:
        raise ValueError(f"target=None: recipe {recipe.name} is trained on pairs; name their truth")
    if target is None:
        truth, conditions = _open(data, (*recipe.inputs, *recipe.outputs), recipe, seed), None
    else:
        if not recipe.inputs:
            raise ValueError(f"target={target}: recipe {recipe.name} has no condition to unpair")
        truth = _open(target, recipe.outputs, recipe, seed)
        conditions = _open(data, recipe.inputs, recipe, seed + (not recipe.paired))
        if recipe.paired and conditions.patches != truth.patches:
            raise ValueError(
                f"{conditions.patches} patches in {data}, {truth.patches} in {target}: recipe "
                f"{recipe.name} is trained on pairs, which are as many of each"
            )
    for crops in (truth, conditions):
        if crops is None:
            continue
        if crops.attrs["pixel_arcmin"] != recipe.pixel_arcmin:
            raise ValueError(
                f"pixels of {crops.attrs['pixel_arcmin']}' in the data, {recipe.pixel_arcmin}' in "
                f"recipe {recipe.name}: paint or cut the data at the recipe's pixel size"
            )
        if crops.patches < recipe.batch:
            raise ValueError(
                f"{crops.patches} patches of {recipe.size} pixels in the data: recipe "
                f"{recipe.name} needs at least a batch of {recipe.batch}, and good networks "
                "thousands; paint or cut more"
            )
    return truth, conditions


def _open(data, names: tuple[str, ...], recipe: Recipe, seed: int) -> Crops | Painted:
    """Crops of a set, or the patches painted on the fly unchanged."""
    if recipe.images is not None and data is None:
        data = images.named(recipe.images, recipe.pixel_arcmin, seed)
    if isinstance(data, (str, os.PathLike)):
        return Crops(data, names, recipe.size, seed, symmetries=recipe.symmetries)
    if data.names != names or data.size != recipe.size:
        raise ValueError(
            f"painted {', '.join(data.names)} of {data.size} pixels: recipe {recipe.name} takes "
            f"{', '.join(names)} of {recipe.size}, in that order"
        )
    return data


def _make_batch(recipe: Recipe, truth, conditions, run: Run) -> Callable:
    """Function of a batch number to (condition, real) in network units, on the run's device."""
    names, split = (*recipe.inputs, *recipe.outputs), len(recipe.inputs)
    device = next(run.generator.parameters()).device

    def batch(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        fields = truth.batch(number, recipe.batch)
        if conditions is not None:
            fields = torch.cat([conditions.batch(number, recipe.batch), fields], 1)
        fields = normalise(fields.to(device), names, run.normaliser)
        return fields[:, :split], fields[:, split:]

    return batch


class _Watch:
    """Detects runs that diverge, and states that may be saved."""

    def __init__(self) -> None:
        self.bad = 0  # steps in a row that gave NaN or infinity
        self.reports = 0
        self.settled = False
        self.off = 1.0  # largest factor by which the power of a field in a band is wrong

    def step(self, run: Run, log: dict[str, float]) -> str | None:
        """What is wrong after a step, if anything."""
        self.bad = 0 if all(map(math.isfinite, log.values())) else self.bad + 1
        if self.bad >= BAD_STEPS:
            return f"{self.bad} steps in a row gave NaN or infinity"
        return None

    def report(self, run: Run, power: dict[str, list[float]]) -> str | None:
        """What is wrong with the running ratios of power, or with the weights."""
        if not _finite(run):
            return "weights are NaN or infinite"
        self.reports += 1
        if self.reports < RIPE_REPORTS:
            return None
        ratios = [max(r, 1 / r) if r > 0 else math.inf for rs in power.values() for r in rs]
        # comparisons with NaN are false: as the first argument it stays the largest
        self.off = math.inf if any(map(math.isnan, ratios)) else max(ratios)
        self.settled |= self.off < SETTLED
        if self.settled and self.off > COLLAPSED:
            worst = max(power, key=lambda name: max(abs(math.log(r or 1e-9)) for r in power[name]))
            return f"the power of {worst} went off by a factor of {self.off:.3g}"
        return None

    def good(self, run: Run) -> bool:
        """Whether the state may be saved as the last good checkpoint.

        Steps that gave NaN were skipped and do not count.
        """
        return not (self.settled and self.off > SPOILED) and _finite(run)


def _finite(run: Run) -> bool:
    parameters = [*run.generator.parameters(), *run.critic.parameters()]
    return all(bool(torch.isfinite(p).all()) for p in parameters)


def _write_log(folder: Path, line: dict) -> None:
    """Write one line of the log; failures do not end a run."""
    try:
        with (folder / "log.jsonl").open("a") as file:
            print(json.dumps(line), file=file)
    except OSError as error:
        logger.warning("%s: cannot be written (%s)", folder / "log.jsonl", error.strerror)


def _roll_back(run: Run, folder: Path, seed: int, trouble: str) -> None:
    """Return to the last good checkpoint, with other random numbers and a lower rate."""
    at, rollbacks, seconds = run.step, run.rollbacks, run.seconds
    restore(run, *read_checkpoint(folder / CHECKPOINT))
    if rollbacks == MAX_ROLLBACKS:
        raise MlskyError(
            f"{folder}: step {at}: {trouble}, after {rollbacks} rollbacks; the last good "
            f"checkpoint, of step {run.step}, is kept: lower the recipe's rates or check the data"
        )
    run.rollbacks, run.seconds = rollbacks + 1, seconds  # the clock goes on
    rate = ROLLBACK_RATE**run.rollbacks
    _write_log(
        folder, {"step": at, "rolled_back_to": run.step, "why": trouble, "rate_factor": rate}
    )
    logger.warning(
        "%s: step %d: %s; back to step %d at %g of the rate", folder, at, trouble, run.step, rate
    )
    save_checkpoint(run, folder, seed)  # so that it counts, should the run be stopped


def train(
    recipe: Recipe,
    data: str | os.PathLike | Painted | images.Blobs | images.Pictures | None,
    out: str | os.PathLike,
    *,
    target: str | os.PathLike | Painted | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    stop: int | None = None,
    device: str = "auto",
    seed: int = 0,
    normaliser: Normaliser | str | None = None,
    init_from: str | os.PathLike | None = None,
    validation: str | os.PathLike | None = None,
    every: float | None = None,
    regions: int | None = None,
    measure: Measure | None = None,
    converged: float | None = None,
    progress: bool = True,
    report: Callable[[float, dict], None] | None = None,
) -> Run:
    """Train one recipe; continues the run in folder `out` if there is one.

    Parameters
    ----------
    recipe
        What to train.
    data
        Training set (HDF5) of the condition, and of the truth unless `target` is given; or
        `mlsky.training.data.painted` patches, or `mlsky.toys.images`. None for a recipe whose
        images training makes itself.
    out
        Run folder.
    target
        Another set for the truth, unpaired with the condition (the paper's third step) unless
        the recipe says otherwise.
    minutes, steps
        Length of the whole run: give one.
    stop
        Step at which this call ends, before the run does; 0 makes the untrained networks. The
        schedules are those of the whole run, which the same call without it continues. A run that
        is beyond this step stays as it is.
    device
        "auto", "cpu" or "cuda".
    seed
        Of weights, crops and noise.
    normaliser
        Constants to use, "data" for those of the truth, "start" for those of `init_from`; by
        default those of `init_from` if it is given. If amplitudes have changed since `init_from`
        was trained, "data" keeps the normalised fields similar. A resumed run keeps its own.
    init_from
        Run folder or weight file of the same networks, at the same pixel size or with
        ``normaliser="data"`` at any, that a new run starts from: generator,
        critic (a weight file has none) and averages; optimisers, rates and running statistics
        are new. Without effect if the folder `out` contains a checkpoint.
    validation
        A different set, with all fields, on which the averaged generator is scored during training;
        the best one is kept as `best.safetensors`. For the recipes of the default family, and for
        others with `measure`.
    every
        Minutes between scores, or steps in a run of `steps`; a tenth of the run by default. It is
        also scored at the end. Scoring does not count as part of `minutes`.
    regions
        Of the validation set; by default 8 of 512 pixels, or smaller ones of the same area.
    measure
        What scores the run on a number of regions of the validation set, for a recipe that has no
        scores of its own.
    converged
        Stop early if the losses have converged: the mean of the last 50 of each is within this
        fraction of that of the 50 before (`mlsky.training.stopping`), for example 0.1, 0.01 or
        0.001. The run is then complete and cannot be resumed.
    report
        Called with the finished fraction of the run and each line of reports in the log; an
        exception from it ends the run.

    Raises
    ------
    ValueError
        For a bad set, folder, device or length, or a folder in which another process trains;
        before training starts.
    MlskyError
        If the run diverges too often, or its folder cannot be written; its last good
        checkpoint is kept.
    """
    from tqdm import tqdm

    check_length(minutes, steps)
    check_stop(stop, steps)
    seeds.check(seed)
    _check_given(recipe, data, target, converged)
    device = pick_device(device)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; name a folder for the run")
    with Claim(folder) as claim:
        chosen = select_by(
            *(validation, every, regions, recipe, data, folder, seed),
            length=minutes if steps is None else steps,
            by_steps=steps is not None,
            measure=measure,
        )
        found = find_checkpoint(folder, recipe, seed)
        start = None
        if init_from is not None and found is None:
            start = find_start(init_from, recipe, other_pixels=normaliser == "data")
        if device.type == "cpu":
            _keep_memory()
        truth, conditions = _open_sets(recipe, data, target, seed)
        stored = Normaliser.from_dict(found[1]["normaliser"]) if found is not None else None
        normaliser = choose_normaliser(
            recipe, normaliser, stored, start[0] if start else None, truth
        )
        run = new_run(recipe, normaliser, seed, device)
        if found is not None:
            restore(run, *found)
        elif start:
            start_from(run, start[1], init_from)

        def done():
            if converged is not None and stopping.converged(run.recent, converged):
                return 1.0
            return run.seconds / (60 * minutes) if steps is None else run.step / steps

        if found is not None and done() >= 1:
            return run  # others may have links to a finished run: nothing is written
        claim.begin(run, seed, fresh=found is None)
        if chosen is not None:
            chosen.start(run)
        elif found is not None and (folder / BEST).exists():
            logger.warning(
                "%s: stays the state of step %d, as the run goes on without a validation set",
                *(folder / BEST, read_state(folder / BEST).get("step", -1)),
            )
        spectra = matching.Spectra(recipe.size, recipe.pixel_arcmin, device)
        batch = _make_batch(recipe, truth, conditions, run)
        watch = _Watch()
        ratios: dict = {}
        saved = time.monotonic()
        bar = tqdm(total=100, disable=not progress, desc=recipe.name, unit="%")
        with bar:
            while done() < 1 and (stop is None or run.step < stop):
                began = time.monotonic()
                log, shown = one_step(run, batch, seed, done())
                trouble = watch.step(run, log)
                stopping.remember(run.recent, recipe.objective, log)
                if trouble is None and run.step % REPORT_EVERY == 0:
                    log = {k: float(f"{v:.4g}") for k, v in log.items()}
                    log["ratio"] = power_report(run, spectra, *shown, ratios)
                    line = {"step": run.step, "seconds": round(run.seconds, 1), **log}
                    _write_log(folder, line)
                    if report is not None:
                        report(done(), line)
                    bar.set_postfix_str(f"step {run.step}")
                    trouble = watch.report(run, log["ratio"])
                run.seconds += time.monotonic() - began
                if trouble is not None:
                    _roll_back(run, folder, seed, trouble)
                    watch, ratios = _Watch(), {}
                    if chosen is not None:
                        chosen.start(run)
                elif chosen is not None and watch.good(run) and chosen.due(run):
                    _write_log(folder, chosen.score(run))
                bar.update(min(100, 100 * done()) - bar.n)
                # the end is saved once it is scored: a run that is finished on disk stays so
                if done() < 1 and time.monotonic() - saved > SAVE_EVERY and watch.good(run):
                    try:
                        save_checkpoint(run, folder, seed)
                    except MlskyError as error:  # the disk may have room the next time
                        logger.warning("%s", error)
                    saved = time.monotonic()
        if watch.good(run):
            if chosen is not None and done() >= 1 and chosen.due(run, end=True):
                _write_log(folder, chosen.score(run))
            save_checkpoint(run, folder, seed)
        else:
            logger.warning("%s: the run ended badly; its last good checkpoint is kept", folder)
        return run
