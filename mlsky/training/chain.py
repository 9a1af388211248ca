"""The three steps of Han, Sehgal & Villaescusa-Navarro (2021), one after the other.

DCGAN learns the truth. Patches drawn from it (intermediate product 1) train PIXGAN to make four
fields from kappa; PIXGAN on *Gaussian* kappa gives intermediate product 2, which VAEGAN learns to
map to the truth, unpaired. Four times as many patches are drawn from DCGAN as the truth holds, as
in the paper.

Chains that differ from the paper's in one step (`CHAINS`) can share the others: a folder that
holds finished runs and sets, or links to them, goes on from there.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from mlsky import seeds
from mlsky.io import sets
from mlsky.io.files import whole
from mlsky.networks.normaliser import Normaliser
from mlsky.training import chain_scores
from mlsky.training.checkpoints import CHECKPOINT, read_state
from mlsky.training.data import Crops
from mlsky.training.loop import check_length, train
from mlsky.training.recipes import Recipe, recipe
from mlsky.training.run import find_checkpoint, load_generator, normalise

__all__ = ["CHAINS", "han2021"]

FIELDS = ("kappa", "ksz", "tsz", "cib", "radio")
STEPS = ("dcgan", "pixgan", "vaegan")
#: Names that `mlsky train --recipe` takes for a whole chain, and the recipes of its steps: the
#: paper's, narrower ones, with noise for PIXGAN, and with a critic that compares pairs in VAEGAN.
CHAINS = {
    "han2021": STEPS,
    "han2021-w16": ("dcgan-w16", "pixgan-w16", "vaegan-w16"),
    "han2021-w32": ("dcgan-w32", "pixgan-w32", "vaegan-w32"),
    "han2021-w16-flips": ("dcgan-w16-flips", "pixgan-w16-flips", "vaegan-w16-flips"),
    "han2021-w16-noise": ("dcgan-w16", "pixgan-w16-noise", "vaegan-w16"),
    "han2021-w16-paired": ("dcgan-w16", "pixgan-w16", "vaegan-w16-paired"),
}
MULTIPLE = 4  # patches of intermediate 1 per patch of the truth
CHUNK = 64  # patches made at a time


def _write(path: Path, patches: int, size: int, pixel_arcmin: float, make: Callable) -> None:
    """A set of independent patches, made by ``make(first, count) -> (count, 5, size, size)``."""
    with whole(path) as part, sets.begin(part, "w") as file:
        file.attrs["pixel_arcmin"] = pixel_arcmin
        for name in FIELDS:
            sets.add_maps(file, name, (patches, size, size))
        for first in range(0, patches, CHUNK):
            fields = make(first, min(CHUNK, patches - first))
            for i, name in enumerate(FIELDS):
                file[name][first : first + len(fields)] = fields[:, i]
        sets.seal(file)


def _draw(generator: nn.Module, normaliser: Normaliser, seed: int) -> Callable:
    """Intermediate product 1: patches of DCGAN."""

    @torch.no_grad()
    def make(first: int, count: int):
        rng = torch.Generator().manual_seed(seeds.integer(seed, "network", 10, first))
        latent = torch.randn(count, generator.kwargs["latent"], generator=rng)
        return normaliser.inverse(generator(latent)).numpy()

    return make


def _from_gaussian(
    generator: nn.Module, normaliser: Normaliser, crops: Crops, seed: int
) -> Callable:
    """Intermediate product 2: PIXGAN on Gaussian kappa."""

    @torch.no_grad()
    def make(first: int, count: int):
        kappa = normalise(crops.batch(first, count)[:, :1], ("kappa_in",), normaliser)
        rng = torch.Generator().manual_seed(seeds.integer(seed, "network", 11, first))
        made = generator(kappa, generator.draw_noise(count, *kappa.shape[-2:], rng))
        return normaliser.inverse(torch.cat([kappa, made], 1)).numpy()

    return make


def _check_made(made: Path, run: Path, minutes: float | None, steps: int | None) -> None:
    """Refuse to train a network on after a set was made of its earlier state."""
    if not (made.exists() and (run / CHECKPOINT).exists()):
        return
    state = read_state(run / CHECKPOINT)
    if steps is not None and state["step"] < steps:
        wanted = f"steps={steps}"
    elif minutes is not None and state["seconds"] < 60 * minutes:
        wanted = f"minutes={minutes:g}"
    else:
        return
    raise ValueError(
        f"{made}: was made by {run.name} of {state['step']} steps; for {wanted} name another "
        "folder, or remove it and the runs behind it"
    )


def _lengths(minutes: float | None, steps: int | Sequence[int] | None) -> dict[str, int | None]:
    """Steps of each network."""
    single = isinstance(steps, str) or not isinstance(steps, Iterable)
    of_each = [steps] * len(STEPS) if single else list(steps)
    if len(of_each) != len(STEPS):
        raise ValueError(
            f"steps={steps}: must be one number for all networks, or one for each of "
            f"{', '.join(STEPS)}"
        )
    for name, length in zip(STEPS, of_each, strict=True):
        try:
            check_length(minutes, length)
        except ValueError as error:
            raise ValueError(str(error) if single else f"{name}: {error}") from None
    return dict(zip(STEPS, of_each, strict=True))


def han2021(
    data: str | os.PathLike,
    out: str | os.PathLike,
    *,
    minutes: float | None = None,
    steps: int | Sequence[int] | None = None,
    chain: str = "han2021",
    device: str = "auto",
    seed: int = 0,
    validation: str | os.PathLike | None = None,
    every: float | None = None,
    regions: int | None = None,
    progress: bool = True,
) -> dict[str, Path]:
    """Train DCGAN, PIXGAN and VAEGAN; a stopped run is resumed.

    With a validation set, each network is the one of its states that scores best, as the paper
    chose its epochs: the intermediate sets are made with it.

    Parameters
    ----------
    data
        Truth, with `kappa_in` for the Gaussian kappa.
    out
        Folder of the three runs and the two intermediate sets.
    minutes, steps
        Length of each of the three runs: give one. `steps` may be one number for all of them, or
        one for each, in the order of the chain. The last network can be trained on later; the
        others cannot, as sets have been made with them.
    chain
        One of `CHAINS`: "han2021" for the paper's size.
    validation, every, regions
        As in `mlsky.training.loop.train`: a set that is not trained on, minutes or steps between
        scores of each run, and how much of the set is scored. `mlsky.training.chain_scores` says
        how.

    Returns
    -------
    dict
        Run folders by network name.

    Raises
    ------
    ValueError
        As `mlsky.training.loop.train`, for truth without `kappa_in`, for a number of `steps` that
        is neither one nor three, for a folder with runs of other recipes or seeds, and if a network
        would be trained on after its set was made; before training starts.
    """
    lengths = _lengths(minutes, steps)
    with sets.fields_of(data, ("kappa_in", *FIELDS)):  # DCGAN alone needs no `kappa_in`
        pass
    out = Path(out)
    recipes: dict[str, Recipe] = dict(zip(STEPS, map(recipe, CHAINS[chain]), strict=True))
    runs = {name: out / name for name in recipes}
    if (out / CHECKPOINT).exists():
        raise ValueError(f"{out}: is the run of one network; name another folder for the chain")
    for name, run in runs.items():  # also those that are trained hours later
        find_checkpoint(run, recipes[name], seed)
    for name, made in (("dcgan", "intermediate1.h5"), ("pixgan", "intermediate2.h5")):
        _check_made(out / made, runs[name], minutes, lengths[name])
    size, pixel = recipes["dcgan"].size, recipes["dcgan"].pixel_arcmin
    options = {
        "minutes": minutes,
        "device": device,
        "seed": seed,
        "progress": progress,
        "validation": validation,
        "every": every,
        "regions": regions,
    }

    def measured(name: str, stage: str, *before: nn.Module) -> dict:
        measure = functools.partial(chain_scores.measure, stage, before)
        return options | {"steps": lengths[name], "measure": measure}

    run = train(recipes["dcgan"], data, runs["dcgan"], **measured("dcgan", "drawn"))
    normaliser = run.normaliser
    crops = Crops(data, ("kappa_in", *FIELDS), size, seed + 2)
    per_region = (crops.data.shape[-1] // size) ** 2
    patches = len(crops.data) * per_region
    first = out / "intermediate1.h5"
    if not first.exists():
        generator, _, _ = load_generator(runs["dcgan"], "best")
        _write(first, MULTIPLE * patches, size, pixel, _draw(generator, normaliser, seed))

    more = measured("pixgan", "painted")
    train(recipes["pixgan"], first, runs["pixgan"], normaliser=normaliser, **more)
    generator, _, _ = load_generator(runs["pixgan"], "best")
    second, target = out / "intermediate2.h5", Path(data)
    if not second.exists():
        make = _from_gaussian(generator, normaliser, crops, seed)
        _write(second, patches, size, pixel, make)
    if recipes["vaegan"].paired:
        target = out / "intermediate2_truth.h5"
        if not target.exists():
            make = lambda first, count: crops.batch(first, count)[:, 1:].numpy()  # noqa: E731
            _write(target, patches, size, pixel, make)

    more = measured("vaegan", "chain", generator)
    train(recipes["vaegan"], second, runs["vaegan"], target=target, normaliser=normaliser, **more)
    return runs
