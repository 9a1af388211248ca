"""``mlsky export``."""

from __future__ import annotations

from pathlib import Path

import click

from mlsky.cli.options import ManyValues, pairs, which_state

__all__ = ["export"]


@click.command(cls=ManyValues)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Weight file.")
@click.option(
    "--parts",
    required=True,
    multiple=True,
    callback=pairs,
    metavar="NAME=PATH",
    help="Run folders: convergence=FOLDER paint=FOLDER. The convergence or "
    "point_sources of a weight file are copied. Of the paper's chain: pixgan=FOLDER vaegan=FOLDER.",
)
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Training set.")
@click.option(
    "--validation",
    type=click.Path(path_type=Path),
    help="Set for the calibration; without it the paper's chain is not corrected.",
)
@click.option("--regions", type=int, help="Regions of the validation set.  [default: all]")
@which_state
@click.option(
    "--corrections",
    type=click.Choice(["matched", "paper"]),
    default="matched",
    show_default=True,
    help="Of the paper's chain: values matched to the truth, or the paper's own formulas.",
)
@click.option("--trained-on", default="unknown", help="Description of the machine, for the header.")
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Seed of the noise of the networks."
)
@click.option("--overwrite", is_flag=True, help="Replace the file.")
def export(
    out: Path,
    parts: dict[str, str],
    data: Path,
    validation: Path | None,
    regions: int | None,
    which: str | dict,
    corrections: str,
    trained_on: str,
    seed: int,
    overwrite: bool,
) -> None:
    """Combine trained runs into one weight file: fit radio sources, balance, calibrate."""
    from mlsky.io import skies

    skies.check(out, overwrite, (".safetensors",))

    from mlsky.training.assemble import assemble

    found = assemble(
        out,
        parts,
        data,
        validation,
        device=trained_on,
        which=which,
        regions=regions,
        seed=seed,
        corrections=corrections,
    )
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, sha256 {found['sha256']}")
