"""Scores of a weight file: how well its networks reproduce held-out truth.

Generated regions start from the kappa of the truth, nonlinear for `Paint` alone and Gaussian for
all networks, so that both sides have the same sample variance on large scales.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from torch import nn

from mlsky import old_names, seeds
from mlsky.frequency import cib_templates
from mlsky.haloes.region import OBJECT_FIELDS
from mlsky.io import sets
from mlsky.networks import evaluate
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.weights import Weights
from mlsky.painting.regions import generate, in_training, painting, run, uncalibrated
from mlsky.validation import table
from mlsky.validation.measure import FIELDS, TSZ_CLIP, Measure
from mlsky.validation.table import JOBS, lines, total

__all__ = [
    "FIELDS",
    "JOBS",
    "QUICK",
    "REGIONS",
    "TSZ_CLIP",
    "checkpoint",
    "compare",
    "generate",
    "lines",
    "run",
    "score",
    "summary",
    "total",
]

#: Regions so painted: 608 patches of 128 pixels; and 2000 square degrees of 0.5' pixels, which
#: unclipped tSZ needs.
QUICK, REGIONS = 38, 110
#: Side of painted regions (pixels): 4.3 and 8.5 degrees.
SIDES = {0.5: 512, 1.0: 512, 2.0: 256}


def score(
    weights: Weights,
    data: str | os.PathLike | None = None,
    regions: int | None = None,
    seed: int = 0,
    *,
    jobs: Sequence[str] = JOBS,
    before: bool = False,
    fields: Sequence[str] = FIELDS,
    device: str = "cpu",
    progress: bool = False,
    watch: Callable | None = None,
) -> dict:
    """Score a weight file against held-out truth.

    One region is in memory at a time; its measurements are kept, 0.2 MB per job.

    Parameters
    ----------
    weights
        Opened weight file.
    data
        Held-out set; None paints regions of seed `mlsky.seeds.VALIDATION`.
    regions
        How many; all of a set or `REGIONS` by default.
    seed
        Of the networks' noise.
    jobs
        Of `JOBS`: "from_kappa" starts from the true kappa, "end_to_end" from the Gaussian one.
    before
        Whether to score the weights before calibration, too.
    fields
        Leave out scores about any other field.
    device
        Where networks and painter run.
    progress
        Whether to show a bar.
    watch
        Called with each region's number, the `Measure`, its true maps (5, n, n), the calibrated
        generated ones by job, and the `Measure.standard` of the true ones.

    Returns
    -------
    dict
        ``regions``, ``square_degrees``, ``pixel_arcmin``, ``seconds``; ``totals``, what `total`
        says by job, of "all" jobs, and by "JOB before"; ``scores``: the rows of `table.scores`,
        each with ``calibration`` "after" or "before".

    Raises
    ------
    ValueError
        If the set cannot be read, lacks a field or has other pixels; if `regions` < 1, or a
        job is unknown.
    """
    if regions is not None and regions < 1:
        raise ValueError(f"regions={regions}: must be at least 1")
    unknown = [job for job in jobs if job not in JOBS]
    if unknown or not jobs:
        raise ValueError(f"jobs={[*jobs]}: must be some of {', '.join(JOBS)}")
    begin = time.monotonic()
    variants = {(job, "after"): _for_job(weights, job) for job in jobs}
    if before:
        bare = uncalibrated(weights)
        variants |= {(job, "before"): _for_job(bare, job) for job in jobs}
    for variant in variants.values():
        for network in variant.networks.values():
            network.to(device)
    source = _Painted if data is None else _Set
    mass_cut = weights.mass_cut if evaluate.takes_objects(weights) else None
    law = cib_templates.of_header(weights.header)
    templates = () if law is None else tuple(law.templates_ghz[1:])
    truth = source(data, weights.pixel_arcmin, jobs, device, mass_cut, templates)
    count = truth.count(regions)
    measure = Measure(truth.n, weights.pixel_arcmin, truth.periodic, law)
    true: list[dict] = []
    made: dict[tuple[str, str], list[dict]] = {variant: [] for variant in variants}
    for i in _bar(count, progress):
        maps, starts, objects = truth.region(i)
        standard = measure.standard(maps)
        true.append(measure(maps, standard))
        shown: dict[str, np.ndarray] = {}
        for (job, when), variant in variants.items():
            painted = generate(
                variant, starts[job], seed, i, truth.periodic, objects, templates=bool(templates)
            )
            made[job, when].append(measure(painted, standard))
            if when == "after":
                shown[job] = painted
        if watch is not None:
            five = {job: painted[: len(FIELDS)] for job, painted in shown.items()}
            watch(i, measure, maps[: len(FIELDS)], five, standard)
    rows, totals = [], {}
    for (job, when), samples in made.items():
        found = table.scores(measure, _stack(true), _stack(samples), job, fields)
        rows += [{**row, "calibration": when} for row in found]
        totals[job if when == "after" else f"{job} {when}"] = total(found)
    if len(jobs) > 1:
        totals["all"] = total([row for row in rows if row["calibration"] == "after"])
    return {
        "regions": count,
        "square_degrees": round(count * measure.square_degrees, 1),
        "pixel_arcmin": weights.pixel_arcmin,
        "seconds": round(time.monotonic() - begin, 1),
        "totals": totals,
        "scores": rows,
    }


def summary(found: Mapping) -> dict:
    """What `score` found, short enough for a weight file or the registry.

    Returns
    -------
    dict
        ``regions``, ``square_degrees``, ``totals``, and by job (calibrated) the worst number of
        each row: ``{value, error, tolerance, pass}`` by the row's name.
    """
    brief: dict = {k: found[k] for k in ("regions", "square_degrees", "totals")}
    for row in old_names.scores(found["scores"]):
        if row["calibration"] == "after":
            short = {k: row[k] for k in ("value", "error", "pass", "tolerance")}
            brief.setdefault(row["job"], {})[row["name"]] = short
    return brief


def compare(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    pixel_arcmin: float,
    job: str = "end_to_end",
    periodic: bool = True,
    fields: Sequence[str] = FIELDS,
) -> list[dict]:
    """The rows of `table.scores` for any maps: pairs of true and other regions (5, n, n)."""
    measure, true, made = None, [], []
    for truth, other in pairs:
        if measure is None:
            measure = Measure(truth.shape[-1], pixel_arcmin, periodic)
        standard = measure.standard(truth)
        true.append(measure(truth, standard))
        made.append(measure(other, standard))
    if measure is None:
        raise ValueError("pairs: there are none; give at least one")
    return table.scores(measure, _stack(true), _stack(made), job, fields)


def checkpoint(
    networks: Mapping[str, nn.Module],
    normaliser: Normaliser,
    data: str | os.PathLike,
    regions: int | None = None,
    seed: int = 0,
) -> dict:
    """Score networks of the default family in training, to choose among checkpoints.

    They run where they are, and neither they nor any random state are changed. One region of
    512 pixels takes about a second of one core.

    Parameters
    ----------
    networks
        Some of "convergence", "paint", "point_sources", in eval mode. Without "convergence" they
        paint the true kappa; scores of what no network makes are left out.
    normaliser
        Of their fields.
    data
        Validation set.

    Returns
    -------
    dict
        As `total`; its ``distance`` is the number to choose by.
    """
    attributes = sets.attributes_of(data, FIELDS, apart=True)
    pixel, mass_cut = float(attributes["pixel_arcmin"]), attributes.get("mass_cut")
    weights = in_training(networks, normaliser, pixel, mass_cut)
    makes = {"convergence": ("kappa",), "paint": ("ksz", "tsz", "cib"), "point_sources": ("radio",)}
    fields = {"kappa"}.union(*(makes[name] for name in networks))
    device = str(next(next(iter(networks.values())).parameters()).device)
    job = "end_to_end" if "convergence" in networks else "from_kappa"
    found = score(weights, data, regions, seed, jobs=(job,), fields=sorted(fields), device=device)
    return found["totals"][job]


def _for_job(weights: Weights, job: str) -> Weights:
    return painting(weights) if job == "from_kappa" else weights


def _stack(samples: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([s[name] for s in samples]) for name in samples[0]}


def _bar(count: int, progress: bool) -> Iterator[int]:
    from tqdm import tqdm

    return iter(tqdm(range(count), disable=not progress, desc="regions"))


class _Set:
    """Regions of a held-out set."""

    def __init__(
        self,
        path,
        pixel_arcmin: float,
        jobs: Sequence[str],
        device: str,
        mass_cut: float | None,
        templates: Sequence[float],
    ) -> None:
        self._templates = cib_templates.map_names(templates)
        names = (*FIELDS, *self._templates)
        if "end_to_end" in jobs:
            names += ("kappa_in",)
        objects = evaluate.OBJECTS if mass_cut else ()
        self._open = functools.partial(sets.fields_of, path, (*names, *objects), bool(mass_cut))
        with self._open() as (fields, attributes):
            self._number, self.n = len(fields[0]), fields[0].shape[-1]
        self._names = names
        if mass_cut and attributes["mass_cut"] != mass_cut:
            raise ValueError(
                f"{path}: its objects are above {attributes['mass_cut']:g} Msun, those that the "
                f"weights leave out above {mass_cut:g}; paint it with --objects {mass_cut:g}"
            )
        if attributes["pixel_arcmin"] != pixel_arcmin:
            raise ValueError(
                f"{path}: pixels of {attributes['pixel_arcmin']}', the weights want {pixel_arcmin}'"
            )
        # regions of the size of a patch are pieces of a larger map, see docs/training.rst
        self.periodic = self.n > 128

    def count(self, regions: int | None) -> int:
        return self._number if regions is None else min(regions, self._number)

    def region(self, index: int) -> tuple[np.ndarray, dict, dict | None]:
        """Maps of `FIELDS`, what each job starts from, and maps of objects."""
        with self._open() as (opened, _):
            maps = [field[index] for field in opened]
        fields, of_objects = maps[: len(self._names)], maps[len(self._names) :]
        objects = dict(zip(evaluate.OBJECT_MAPS, of_objects, strict=True)) if of_objects else None
        return *_truth(fields, len(self._templates)), objects


class _Painted:
    """Regions painted as they are needed."""

    periodic = True

    def __init__(
        self,
        path: None,
        pixel_arcmin: float,
        jobs: Sequence[str],
        device: str,
        mass_cut: float | None,
        templates: Sequence[float],
    ) -> None:
        from mlsky.haloes.painter import Painter

        self.n = SIDES.get(pixel_arcmin, 256)
        self._painter = Painter(
            pixel_arcmin, self.n, device=device, freqs=templates, objects=mass_cut
        )

    def count(self, regions: int | None) -> int:
        return REGIONS if regions is None else regions

    def region(self, index: int) -> tuple[np.ndarray, dict, dict | None]:
        painted = self._painter.region(seeds.VALIDATION, index)
        maps = dict(zip(sets.FIELDS, painted.maps, strict=False))
        gaussian_kappa = self._painter.gaussian_kappa(maps["kappa_g"])
        objects = None
        if painted.objects is not None:
            whole = dict(zip(OBJECT_FIELDS, painted.objects.maps, strict=True))
            objects = {name: whole[name].cpu().numpy() for name in evaluate.OBJECT_MAPS}
        fields = [*(maps[f] for f in FIELDS), *painted.cib, gaussian_kappa]
        return *_truth([x.cpu().numpy() for x in fields], len(painted.cib)), objects


def _truth(
    fields: Sequence[np.ndarray], templates: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    count = len(FIELDS) + templates
    maps = np.stack(fields[:count]).astype(np.float32)
    cib = [FIELDS.index("cib"), *range(len(FIELDS), count)]
    maps[cib] = np.maximum(maps[cib], 0)  # as generated maps are
    starts = {"from_kappa": maps[0]}
    if len(fields) > count:
        starts["end_to_end"] = fields[-1]
    return maps, starts
