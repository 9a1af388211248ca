"""``mlsky validate-chain``."""

from __future__ import annotations

from pathlib import Path

import click

from mlsky.cli.options import ManyValues, which_state, write_json

__all__ = ["validate_chain"]


@click.command("validate-chain", cls=ManyValues)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="Held-out set of 0.5' pixels."
)
@click.option("--patches", type=int, default=256, show_default=True, help="Of either kind.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of patches and noise.")
@which_state
@click.option("--json", "table", type=click.Path(path_type=Path), help="Write all figures here.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Draw a patch of each step (PNG, PDF or JPG)."
)
@click.option("--overwrite", is_flag=True, help="Replace these files.")
def validate_chain(
    folder: Path,
    data: Path,
    patches: int,
    seed: int,
    which: str | dict,
    table: Path | None,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Score each step of a chain of the paper in FOLDER (train --recipe han2021-w16).

    Patches of 128 pixels that DCGAN draws, PIXGAN paints and VAEGAN changes, beside true ones.
    """
    from mlsky.io import skies
    from mlsky.plotting import chain_figures, sky_maps, style
    from mlsky.training import chain_scores

    if table is not None:
        skies.check(table, overwrite, (".json",))
    if out is not None:
        skies.check(out, overwrite, sky_maps.SUFFIXES)
        style.figure_class()

    found = chain_scores.score(folder, data, patches, seed, which=which)
    for line in chain_scores.lines(found):
        click.echo(line)
    if table is not None:
        write_json(table, found)
    if out is not None:
        drawing = chain_figures.figure(*chain_scores.examples(folder, data, seed, which=which))
        with skies.beside(out) as part:
            drawing.savefig(part, format=out.suffix[1:].lower(), dpi=90)
