"""``mlsky train``."""

from __future__ import annotations

from pathlib import Path

import click

from mlsky.cli.options import to_be_gone_on_with

__all__ = ["train"]


def _list_recipes(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from mlsky.training.recipes import RECIPES

    for name, r in RECIPES.items():
        what = f"{', '.join(r.inputs) or 'noise'} -> {', '.join(r.outputs)}"
        click.echo(f"{name:<16} {r.generator:<20} {r.pixel_arcmin:g}'  {what}")
    ctx.exit()


@click.command()
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_recipes,
    help="List the recipes and exit.",
)
@click.option("--recipe", required=True, help="Name of a recipe.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Training set.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder.")
@click.option(
    "--target", type=click.Path(path_type=Path), help="Truth unpaired with --data (vaegan)."
)
@click.option(
    "--init-from",
    type=click.Path(path_type=Path),
    help="Run folder or weight file of the same networks to start from.",
)
@click.option("--minutes", type=float, help="Length of the whole run; or give --steps.")
@click.option("--steps", type=int, help="Length of the whole run, reproducible to the bit.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--seed", type=int, default=0, show_default=True, help="Weights, crops and noise.")
def train(
    recipe: str,
    data: Path,
    out: Path,
    target: Path | None,
    init_from: Path | None,
    minutes: float | None,
    steps: int | None,
    device: str,
    seed: int,
) -> None:
    """Train one recipe, or the whole chain of the paper (han2021, han2021-w16: three runs of
    this length each); goes on with the run in the folder if there is one."""
    from mlsky.training import chain, loop, recipes

    length = {"minutes": minutes, "steps": steps, "device": device, "seed": seed}
    if recipe in chain.CHAINS:
        if init_from is not None:
            raise ValueError(f"init_from={init_from}: the paper's chain starts anew; leave it out")
        with to_be_gone_on_with():
            runs = chain.han2021(data, out, suffix=chain.CHAINS[recipe], **length)
        click.echo(f"{out}: {', '.join(runs)} trained")
        return
    chosen = recipes.recipe(recipe)
    with to_be_gone_on_with():
        run = loop.train(chosen, data, out, target=target, init_from=init_from, **length)
    click.echo(f"{out}: {run.step} steps in {run.seconds:.0f} s")
