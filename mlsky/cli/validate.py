"""``mlsky validate``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from mlsky.cli.options import write_json

__all__ = ["validate"]


@click.command()
@click.option("--weights", default="default", show_default=True, help="Name, or a file.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Held-out set.")
@click.option("--regions", type=int, help="Use so many.  [default: all]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the networks' noise.")
@click.option("--json", "table", type=click.Path(path_type=Path), help="Write the figures here.")
@click.option("--overwrite", is_flag=True, help="Replace the JSON file.")
def validate(
    weights: str, data: Path, regions: int | None, seed: int, table: Path | None, overwrite: bool
) -> None:
    """Compare generated with true fields: power, correlations, pixels; one figure a line."""
    from mlsky import outputs

    if table is not None:
        outputs.check(table, overwrite, (".json",))

    from mlsky.statistics import scores
    from mlsky.training.data import fields_of

    pixel_arcmin = float(fields_of(data, scores.FIELDS)[1]["pixel_arcmin"])
    opened = _weights_of_pixel(weights, pixel_arcmin)
    figures = scores.score(opened, data, regions, seed)
    if table is not None:
        write_json(table, {"weights": opened.sha256, **figures})
    click.echo(
        f"{opened.path.name}, sha256 {opened.sha256[:12]}: {figures['regions']} regions, "
        f"{figures['square_degrees']} square degrees of {pixel_arcmin:g}' pixels"
    )
    for line in _figure_lines(figures):
        click.echo(line)


def _weights_of_pixel(name: str, pixel_arcmin: float):
    """A file, or that file of a registry entry whose pixels are those of the set."""
    from mlsky import registry
    from mlsky.networks.weights import open_weights

    if name.endswith(".safetensors"):
        return open_weights(name)
    files = registry.describe(name)["files"]
    for file, path in zip(files, registry.fetch(name), strict=True):
        if file["pixel_arcmin"] == pixel_arcmin:
            return open_weights(path, sha256=file["sha256"])
    have = ", ".join(f"{file['pixel_arcmin']:g}'" for file in files)
    raise ValueError(f"--weights {name} are of {have}: the set has pixels of {pixel_arcmin:g}'")


def _figure_lines(figures: dict) -> Iterator[str]:
    bands = [f"l {lo}-{hi}" for lo, hi in figures["ell"]]
    for field, row in figures["power"].items():
        for band, ratio, error in zip(bands, row["ratio"], row["error"], strict=True):
            yield f"power        {field:<14} {band:<12} ratio {ratio:<10g} +- {error:g}"
    for pair, row in figures["correlation"].items():
        for band, true, made in zip(bands, row["true"], row["generated"], strict=True):
            yield f"correlation  {pair:<14} {band:<12} true {true:<11g} generated {made:g}"
    for field, rows in figures["pixels"].items():
        for name, row in rows.items():
            true, made = row["true"], row["generated"]
            yield f"pixels       {field:<14} {name:<12} true {true:<11g} generated {made:g}"
