"""Scores of the paper's chain, step by step (docs/paper_chain).

Patches of each step beside those of held-out truth, by the rows of `mlsky.validation.table`: those
that DCGAN draws, those that PIXGAN makes of the true kappa and of a Gaussian one, and those that
VAEGAN makes of the latter. `summary` says the numbers that the steps are judged by.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mlsky import seeds
from mlsky.networks.normaliser import Normaliser
from mlsky.toys.unconditional import draw
from mlsky.training.checkpoints import CHECKPOINT
from mlsky.training.data import Crops
from mlsky.training.run import Run, load_generator, normalise, state_of
from mlsky.validation import scores

__all__ = ["STAGES", "examples", "lines", "measure", "score", "summary"]

#: What is scored, and the run that it needs: the last column of the paper's figure 1.
STAGES = {
    "drawn": "dcgan",
    "painted": "pixgan",
    "painted from Gaussian kappa": "pixgan",
    "chain": "vaegan",
}
LEAST = 16  # patches
CHUNK = 32  # patches made at a time
#: What the steps should reach: factor of the power in any band, by field; |correlation| of kappa
#: and kSZ; quantiles of pixels. The project's own aims for networks of a quarter of the width.
FACTORS = {"kappa": 1.5, "ksz": 1.5, "tsz": 2.0, "cib": 1.5, "radio": 1.5}
CORRELATION, QUANTILES = 0.1, 0.15
#: Largest fraction of a field's variance that may be the same in all patches, the project's own
#: aim. 256 true patches have less than 0.0002.
COMMON = 0.01
#: Variance over the mean square of a field that is constant but for rounding of float64 sums.
ROUNDING = 1e-12


def score(
    folder: str | os.PathLike,
    data: str | os.PathLike,
    patches: int = 256,
    seed: int = 0,
    stages: Sequence[str] | None = None,
    which: str | Mapping[str, str] = "best",
) -> dict[str, dict]:
    """Scores of the steps of a chain that have been trained.

    Parameters
    ----------
    folder
        Of `mlsky.training.chain.han2021`, with some of its runs.
    data
        Held-out set, of the pixel size of the networks, with all five fields and `kappa_in`.
    patches
        Number of patches of either kind.
    seed
        Of the crops, and of the networks' noise.
    stages
        Some of `STAGES`; by default all whose runs have a checkpoint.
    which
        State of the runs, "best" or "last"; or either of them by name, "best" for the others.

    Returns
    -------
    dict
        By stage: ``steps`` of its run, ``rows`` of `mlsky.validation.table.scores`, their
        ``total``, and the `summary`.

    Raises
    ------
    ValueError
        If a run is missing, the set cannot be used, or the patches are fewer than 16.
    """
    if patches < LEAST:
        raise ValueError(f"patches={patches}: must be at least {LEAST}")
    folder = Path(folder)
    out = {}
    for stage in _chosen(folder, stages):
        networks, normaliser, state = _networks(folder, stage, which)
        crops, pixel = _held_out(data, state["recipe"], seed)
        rows, same = _score(stage, networks, normaliser, crops, pixel, patches, seed)
        out[stage] = {
            "steps": state["step"],
            "patches": patches,
            "summary": summary(rows) | _common(same),
            "total": scores.total(rows),
            "rows": rows,
        }
    return out


def measure(stage: str, before: Sequence[nn.Module], run: Run, data: Path, regions: int) -> dict:
    """Score the averaged generator of a run of the chain while it trains.

    On the CPU, wherever the run is. Neither the run nor any random state is changed.

    Parameters
    ----------
    stage
        One of `STAGES`.
    before
        PIXGAN, on the CPU, for "chain"; none for the others.
    run
        Of the step of this stage.
    data
        Held-out set, as for `score`.
    regions
        As many patches are scored as these regions hold, at random places of the whole set.

    Returns
    -------
    dict
        As `mlsky.validation.scores.total`; its ``distance`` is the number to choose by.
    """
    networks = [*before, copy.deepcopy(run.averaged).cpu()]
    crops, pixel = _held_out(data, run.recipe.to_dict(), 0)
    patches = max(LEAST, regions * (crops.data.shape[-1] // run.recipe.size) ** 2)
    rows, _ = _score(stage, networks, run.normaliser, crops, pixel, patches, 0)
    return scores.total(rows)


def examples(
    folder: str | os.PathLike,
    data: str | os.PathLike,
    seed: int = 0,
    stages: Sequence[str] | None = None,
    which: str | Mapping[str, str] = "best",
) -> tuple[dict[str, NDArray], float]:
    """A patch of the truth and of every step, to be drawn.

    The kappa of a "painted" patch is that of the true one; "painted from Gaussian kappa" and
    "chain" begin with the Gaussian kappa from which the true one grew; "drawn" is another sky.

    Parameters
    ----------
    folder, data, seed, stages, which
        As for `score`, whose first patches these are.

    Returns
    -------
    patches
        (5, n, n) each: kappa, and kSZ, tSZ, CIB and radio (uK_CMB at 148 GHz); "truth" first.
    pixel_arcmin

    Raises
    ------
    ValueError
        As `score`.
    """
    folder = Path(folder)
    out = {}
    for stage in _chosen(folder, stages):
        networks, normaliser, state = _networks(folder, stage, which)
        crops, pixel_arcmin = _held_out(data, state["recipe"], seed)
        # as many as `score` makes at a time, as the noise of a patch depends on their number
        truth, made = next(_made(stage, networks, normaliser, crops, CHUNK, seed))
        out |= {"truth": truth, stage: made}  # the truth is the same for all
    return out, pixel_arcmin


def _chosen(folder: Path, stages: Sequence[str] | None) -> list[str]:
    """The stages that are asked for, or all whose runs have a checkpoint."""
    trained = {s: r for s, r in STAGES.items() if (folder / r / CHECKPOINT).exists()}
    chosen = [*trained] if stages is None else [*stages]
    for stage in chosen:
        if stage not in STAGES:
            raise ValueError(f"stages={stage!r}: must be some of {', '.join(STAGES)}")
    if not chosen or set(chosen) - set(trained):
        missing = sorted({STAGES[s] for s in chosen or STAGES} - {*trained.values()})
        raise ValueError(f"{folder}: has no run of {', '.join(missing)}; train it first")
    return chosen


def _networks(
    folder: Path, stage: str, which: str | Mapping[str, str]
) -> tuple[list[nn.Module], Normaliser, dict]:
    """The networks of a stage, and the state of its run."""
    runs = [*dict.fromkeys(STAGES.values())]
    names = ("pixgan", "vaegan") if stage == "chain" else (STAGES[stage],)
    loaded = [load_generator(folder / name, state_of(which, name, runs)) for name in names]
    return [network for network, *_ in loaded], loaded[0][1], loaded[-1][2]


def _held_out(data, recipe: dict, seed: int) -> tuple[Crops, float]:
    """Crops of the held-out set as a recipe wants them, and their pixel size."""
    size, pixel = recipe["size"], recipe["pixel_arcmin"]
    crops = Crops(data, ("kappa_in", *scores.FIELDS), size, seed)
    if crops.attrs["pixel_arcmin"] != pixel:
        raise ValueError(
            f"{data}: pixels of {crops.attrs['pixel_arcmin']}', the runs' are {pixel}'"
        )
    return crops, pixel


def _score(
    stage: str,
    networks: Sequence[nn.Module],
    normaliser: Normaliser,
    crops: Crops,
    pixel: float,
    patches: int,
    seed: int,
) -> tuple[list[dict], dict[str, float]]:
    """Rows of scores of a stage, and by field what is the same in all patches."""
    job = "from_kappa" if stage == "painted" else "end_to_end"
    seen = _Common()
    pairs = seen.of(_made(stage, networks, normaliser, crops, patches, seed))
    rows = scores.compare(pairs, pixel, job, periodic=False)
    same = dict(zip(scores.FIELDS, seen.fractions(), strict=True))
    if stage == "painted":
        del same["kappa"]  # given
    return rows, same


@torch.no_grad()
def _made(
    stage: str,
    networks: Sequence[nn.Module],
    normaliser: Normaliser,
    crops: Crops,
    patches: int,
    seed: int,
) -> Iterator[tuple[NDArray, NDArray]]:
    """True and generated patches (5, n, n), in physical units."""
    for first in range(0, patches, CHUNK):
        count = min(CHUNK, patches - first)
        fields = crops.batch(first // CHUNK, CHUNK)[:count]
        rng = torch.Generator().manual_seed(seeds.integer(seed, "network", 12, first))
        if stage == "drawn":
            made = draw(networks[0], count, rng)
        else:
            of = 1 if stage == "painted" else 0
            kappa = normalise(fields[:, of : of + 1], ("kappa",), normaliser)
            noise = networks[0].draw_noise(count, *kappa.shape[-2:], rng)
            made = torch.cat([kappa, networks[0](kappa, noise)], 1)
            if stage == "chain":
                made = networks[1](made)
        physical = normaliser.inverse(made.float()).numpy()
        truth = fields[:, 1:].numpy()
        for x in (physical, truth):  # as a sky has them
            x[:, 3:] = np.maximum(x[:, 3:], 0)
            x[:, 2] = np.minimum(x[:, 2], 0)
        yield from zip(truth, physical, strict=True)


class _Common:
    """What is the same in many generated patches (5, n, n), at the same pixels."""

    def __init__(self) -> None:
        self.count, self.sum, self.squares = 0, 0.0, 0.0

    def of(self, pairs: Iterator[tuple[NDArray, NDArray]]) -> Iterator[tuple[NDArray, NDArray]]:
        """The pairs of true and generated patches, which are counted as they pass."""
        for truth, made in pairs:
            self.count += 1
            self.sum = self.sum + made.astype(np.float64)
            self.squares = self.squares + made.astype(np.float64) ** 2
            yield truth, made

    def fractions(self) -> NDArray:
        """(5,) fraction of the variance in the mean patch; zero if patches have nothing in common.

        A field with one value everywhere has no variance; it is the same in all patches, and has 1.
        The mean of independent patches has their variance over their number, which is subtracted.
        """
        mean = self.sum / self.count
        scatter = (self.squares / self.count - mean**2) * self.count / (self.count - 1)
        level = mean.mean((1, 2))
        common = (mean**2).mean((1, 2)) - level**2 - scatter.mean((1, 2)) / self.count
        whole = self.squares.mean((1, 2)) / self.count - level**2
        varies = whole > ROUNDING * self.squares.mean((1, 2)) / self.count
        return np.where(varies, common / np.where(varies, whole, 1.0), 1.0)


def _common(fractions: dict[str, float]) -> dict[str, dict]:
    """Lines of the summary: the networks of a chain may add the same picture to every patch."""
    wanted = f"< {COMMON:g}"
    return {
        f"same in all patches of {field}": _number(value, wanted, value < COMMON)
        for field, value in fractions.items()
    }


def summary(rows: Sequence[dict]) -> dict[str, dict]:
    """The numbers that the steps are judged by: ``value``, ``wanted`` and ``good`` by name.

    `score` adds the fraction of the variance that is the same in all patches.

    Factors of the power are those of the worst band of 300 < l < 8000; correlations the largest of
    any band; quantiles (1 % and 99 %) the worst relative deviation.
    """
    by_name: dict[str, list[dict]] = {}
    for row in rows:
        key = f"{row['statistic']} {' x '.join(row['fields'])}"
        by_name.setdefault(key, []).extend(row["numbers"])
    out = {}
    for field, most in FACTORS.items():
        ratios = [
            n["generated"] / n["true"]
            for n in by_name.get(f"power {field}", ())
            if n["true"] and n["generated"] is not None
        ]
        if ratios:
            worst = max(ratios, key=lambda r: abs(np.log(max(r, 1e-12))))
            good = 1 / most <= worst <= most
            out[f"power of {field}"] = _number(worst, f"within a factor {most:g}", good)
    found = [n["generated"] for n in by_name.get("correlation kappa x ksz", ())]
    known = [abs(f) for f in found if f is not None]
    if known:
        good = max(known) < CORRELATION
        out["correlation of kappa and ksz"] = _number(max(known), f"< {CORRELATION:g}", good)
    for field in FACTORS:
        off = [n["value"] for n in by_name.get(f"quantiles {field}", ()) if _inside(n["where"])]
        known = [v for v in off if v is not None]
        if known:
            worst = max(known, key=abs)
            good = abs(worst) <= QUANTILES
            out[f"quantiles of {field}"] = _number(worst, f"within {QUANTILES:.0%}", good)
    return out


def _inside(where: str) -> bool:
    """Whether a quantile is one of 1 % to 99 %."""
    return where in ("1 %", "99 %")


def _number(value: float, wanted: str, good: bool) -> dict:
    return {"value": float(f"{value:.4g}"), "wanted": wanted, "good": bool(good)}


def lines(found: dict[str, dict]) -> Iterator[str]:
    """What `score` found, as text."""
    for stage, figures in found.items():
        total = figures["total"]
        yield (
            f"{stage}, {STAGES[stage]} of {figures['steps']} steps: {total['met']} of "
            f"{total['rows']} tolerances met, distance {total['distance']:g}"
        )
        for name, n in figures["summary"].items():
            verdict = "ok" if n["good"] else "NOT"
            yield f"  {name:<32}{n['value']:>10.3g}  {n['wanted']:<20}{verdict}"
