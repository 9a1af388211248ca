"""``mlsky clusters``."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["clusters"]

#: Formats of the list, and how astropy writes them.
FORMATS = {"csv": {"format": "ascii.ecsv", "delimiter": ","}, "fits": {"format": "fits"}}


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--min-mass", type=float, metavar="MSUN", help="Lowest M200m.  [default: all]")
@click.option(
    "--format",
    "format_",
    type=click.Choice(list(FORMATS)),
    default="csv",
    show_default=True,
    help="csv has units in comment lines (ECSV).",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="[default: PATH with .clusters.FORMAT]"
)
@click.option("--overwrite", is_flag=True, help="Replace the output file.")
def clusters(
    path: Path, min_mass: float | None, format_: str, out: Path | None, overwrite: bool
) -> None:
    """List the clusters of a sky file: positions, redshifts, masses, Y500, velocities."""
    from mlsky.io import skies

    out = path.with_suffix(f".clusters.{format_}") if out is None else out
    skies.check(out, overwrite, (f".{format_}",))
    if min_mass is not None and not 0 <= min_mass < 1e17:
        raise ValueError(f"--min-mass {min_mass:g}: must be a mass in Msun, for example 1e14")

    from mlsky.sky import Sky

    table = Sky.read(path, lazy=True).clusters
    if table is None:
        raise ValueError(
            f"{path}: has no list of clusters: its networks paint the clusters, or it was "
            "written by an earlier version"
        )
    if min_mass is not None:
        table = table[table["m200m"] >= min_mass]
    with skies.beside(out) as temporary:
        table.write(temporary, **FORMATS[format_], overwrite=True)
    click.echo(f"{out}: {len(table)} clusters")
