"""``mlsky train`` and ``mlsky train-log``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlsky.cli.options import ManyValues, counts, resumable

if TYPE_CHECKING:
    from mlsky.training.data import Painted
    from mlsky.training.recipes import Recipe

__all__ = ["train", "train_log"]


def _list_recipes(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from mlsky.training.chain import CHAINS
    from mlsky.training.recipes import RECIPES

    for name, r in RECIPES.items():
        what = f"{', '.join(r.inputs) or 'noise'} -> {', '.join(r.outputs)}"
        click.echo(f"{name:<26} {r.generator:<21} {r.pixel_arcmin:g}'  {what}")
    for name, steps in CHAINS.items():
        click.echo(f"{name:<26} {', '.join(steps)}")
    ctx.exit()


@click.command(cls=ManyValues)
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_recipes,
    help="List the recipes and exit.",
)
@click.option("--recipe", required=True, help="Name of a recipe.")
@click.option("--data", type=click.Path(path_type=Path), help="Training set.")
@click.option(
    "--painted",
    type=int,
    metavar="SEED",
    help="Paint regions of this seed on the fly instead of reading a set; for a GPU.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/RECIPE]")
@click.option(
    "--target", type=click.Path(path_type=Path), help="Truth unpaired with --data (vaegan)."
)
@click.option(
    "--init-from",
    type=click.Path(path_type=Path),
    help="Run folder or weight file of the same networks to start from.",
)
@click.option(
    "--normaliser",
    type=click.Choice(["start", "data"]),
    help="Constants of --init-from, or a new fit to the data.  [default: start]",
)
@click.option(
    "--validation",
    type=click.Path(path_type=Path),
    help="Set for scores during training; the best state is kept, and exported.",
)
@click.option(
    "--score-every",
    type=float,
    metavar="N",
    help="Minutes between scores, or steps with --steps.  [default: a tenth of the run]",
)
@click.option(
    "--score-regions",
    type=int,
    help="Of the validation set.  [default: 8 of 512 pixels, or their area]",
)
@click.option(
    "--converged",
    type=float,
    metavar="FRACTION",
    help="Stop early when means of 50 losses differ by less than this, such as 0.01.",
)
@click.option("--minutes", type=float, help="Length of the whole run; or give --steps.")
@click.option(
    "--steps",
    multiple=True,
    callback=counts,
    metavar="N...",
    help="Length of the whole run, reproducible to the bit; of a chain also one for each network.",
)
@click.option(
    "--stop-at",
    type=int,
    metavar="STEP",
    help="End this call at a step; without it, or with a later one, the run continues.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--seed", type=int, default=0, show_default=True, help="Weights, crops and noise.")
def train(
    recipe: str,
    data: Path | None,
    painted: int | None,
    out: Path | None,
    target: Path | None,
    init_from: Path | None,
    normaliser: str | None,
    validation: Path | None,
    score_every: float | None,
    score_regions: int | None,
    converged: float | None,
    minutes: float | None,
    steps: list[int],
    stop_at: int | None,
    device: str,
    seed: int,
) -> None:
    """Train one recipe, or a whole chain of the paper (han2021, han2021-w16 and others).

    A chain consists of three runs of this length. If the folder holds a run, it is resumed.
    """
    from mlsky.training import chain, loop, recipes

    out = Path("runs", recipe) if out is None else out
    own = recipe in recipes.RECIPES and recipes.recipe(recipe).images is not None
    if own and (data is not None or painted is not None):
        raise ValueError(f"--data, --painted: recipe {recipe} makes its own images; leave them out")
    if recipe not in chain.CHAINS:
        recipes.recipe(recipe)  # a wrong name is reported before other errors
    if not own and (data is None) == (painted is None):
        raise ValueError("--data, --painted: give one of them, a training set or a seed")
    length = {"minutes": minutes, "steps": None, "device": device, "seed": seed}
    if recipe in chain.CHAINS:
        refused = {
            "init-from": init_from,
            "painted": painted,
            "target": target,
            "normaliser": normaliser,
            "converged": converged,
            "stop-at": stop_at,
        }
        for name, value in refused.items():
            if value is not None:
                raise ValueError(
                    f"--{name} {value}: the paper's chain starts anew, on a set, and runs to its "
                    "end; leave it out"
                )
        if steps:
            length["steps"] = steps if len(steps) > 1 else steps[0]
        scored = {"validation": validation, "every": score_every, "regions": score_regions}
        with resumable():
            runs = chain.han2021(data, out, chain=recipe, **scored, **length)
        click.echo(f"{out}: {', '.join(runs)} trained")
        return
    if len(steps) > 1:
        raise ValueError(
            f"--steps {' '.join(map(str, steps))}: recipe {recipe} is one network; give one number"
        )
    if steps:
        length["steps"] = steps[0]
    chosen = recipes.recipe(recipe)
    options = {
        "target": target,
        "init_from": init_from,
        "normaliser": normaliser,
        "validation": validation,
        "every": score_every,
        "regions": score_regions,
        "converged": converged,
        "stop": stop_at,
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(resumable())
        if painted is not None:
            data = _painted(painted, chosen, target, device)
            stack.callback(data.close)
        run = loop.train(chosen, data, out, **options, **length)
    click.echo(f"{out}: {run.step} steps in {run.seconds:.0f} s")


def _painted(seed: int, recipe: Recipe, target: Path | None, device: str) -> Painted:
    """Patches of a recipe, painted as they are needed."""
    from mlsky import seeds
    from mlsky.networks.device import pick_device
    from mlsky.training import data

    if target is not None:
        raise ValueError(f"--target {target}: painted patches hold the truth; leave it out")
    seeds.check_set(seed, "--painted")
    names = (*recipe.inputs, *recipe.outputs)
    on = str(pick_device(device))
    return data.painted(seed, names, recipe.pixel_arcmin, recipe.size, device=on)


@click.command("train-log")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Picture.  [default: FOLDER.png]")
@click.option("--overwrite", is_flag=True, help="Replace the picture.")
def train_log(folder: Path, out: Path | None, overwrite: bool) -> None:
    """Draw how the run in FOLDER goes or went: losses, power ratios, scores."""
    from mlsky.io import skies
    from mlsky.plotting import sky_maps
    from mlsky.training import curve

    out = folder.with_name(f"{folder.resolve().name}.png") if out is None else out
    skies.check(out, overwrite, sky_maps.SUFFIXES)
    drawing = curve.figure(folder)
    with skies.beside(out) as part:
        drawing.savefig(part, format=out.suffix[1:].lower(), dpi=110)
    click.echo(out)
