"""``mlsky data`` and ``mlsky tables``: sets, and the tables for painting them."""

from __future__ import annotations

from pathlib import Path

import click

from mlsky.cli.options import (
    ManyValues,
    number_pairs,
    numbers,
    pairs,
    resumable,
    write_json,
)

__all__ = ["data", "tables"]

MASS_CUT = 1e14  # of `mlsky.theory.objects`, which is not imported to print a help text


@click.group()
def data() -> None:
    """Training and validation sets."""


@data.command("paint", cls=ManyValues)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="HDF5 file.")
@click.option("--regions", type=int, default=40, show_default=True)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Different for each set, so that sets share no sky.",
)
@click.option("--pixel-arcmin", type=float, default=0.5, show_default=True)
@click.option("--pixels", type=int, default=512, show_default=True, help="Along a side.")
@click.option(
    "--freqs", multiple=True, callback=numbers, help="Further frequencies of CIB and radio (GHz)."
)
@click.option(
    "--tables", type=click.Path(path_type=Path), help="Painter tables.  [default: shipped]"
)
@click.option(
    "--catalogue-mjy", type=float, default=1.0, show_default=True, help="Faintest source listed."
)
@click.option(
    "--objects",
    type=float,
    is_flag=False,
    flag_value=f"{MASS_CUT:g}",
    metavar="[MSUN]",
    help="Store haloes above this M200m separately.  [default without a value: 1e14]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
def data_paint(out: Path, regions: int, pixels: int, device: str, **options: object) -> None:
    """Paint regions of correlated sky from haloes; a stopped run is resumed."""
    from mlsky.haloes import region_sets
    from mlsky.networks.device import pick_device

    with resumable():
        region_sets.paint(out, regions, n=pixels, device=str(pick_device(device)), **options)
    click.echo(f"{out}: {regions} regions, {out.stat().st_size / 1e6:.0f} MB")


@data.command("check")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for pictures (PNG).  [default: SET_check beside the set]",
)
@click.option("--pictures/--no-pictures", default=True, help="Draw them.")
@click.option(
    "--json", "table", type=click.Path(path_type=Path), help="Write the numbers to this file."
)
@click.option(
    "--tables",
    type=click.Path(path_type=Path),
    help="Painter tables of the set.  [default: shipped]",
)
@click.option("--regions", type=int, help="Number of regions.  [default: all]")
@click.option("--overwrite", is_flag=True, help="Replace pictures and JSON file.")
def data_check(
    path: Path,
    out: Path | None,
    pictures: bool,
    table: Path | None,
    overwrite: bool,
    **options: object,
) -> None:
    """Compare a painted set with its analytic model and with observations."""
    from mlsky.io import skies

    if table is not None:
        skies.check(table, overwrite, (".json",))

    from mlsky.plotting import truth_figures
    from mlsky.validation import truth, truth_text

    folder = path.with_name(f"{path.stem}_check") if out is None else out
    if pictures:
        truth_figures.check_folder(folder, overwrite)
    figures = truth.check(path, **options)
    for line in truth_text.lines(figures):
        click.echo(line)
    if table is not None:
        write_json(table, figures)
    if pictures:
        maps = truth.region(path), folder, truth.region_apart(path)
        for picture in truth_figures.draw(figures, *maps):
            click.echo(picture)


@data.command("cut", cls=ManyValues)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="HDF5 file.")
@click.option("--maps", multiple=True, callback=pairs, metavar="FIELD=FILE...")
@click.option("--catalogues", multiple=True, callback=pairs, metavar="FIELD=FILE...")
@click.option("--units", multiple=True, callback=pairs, metavar="FIELD=UNIT...")
@click.option("--freqs", multiple=True, callback=number_pairs, metavar="FIELD=GHZ...")
@click.option("--scale", multiple=True, callback=number_pairs, metavar="FIELD=NUMBER...")
@click.option("--patches", type=int, required=True)
@click.option("--seed", type=int, required=True, help="Seed of the positions of patches.")
@click.option("--part", default="train", show_default=True, help="train, validation or test.")
@click.option("--recipe", help="Use the fields, pixels and size of this recipe.")
@click.option("--pixel-arcmin", type=float, help="[default: of the recipe, or 0.5]")
@click.option("--size", type=int, help="Pixels along a side.  [default: of the recipe, or 128]")
@click.option("--method", default="harmonic", show_default=True, help="harmonic or cubic.")
@click.option("--lmax", type=int, help="For harmonic.  [default: that of maps and pixels]")
@click.option("--flux-cut-mjy", type=float, default=7.0, show_default=True, help="inf: no cut.")
@click.option("--find/--no-find", default=True, help="Find sources of maps without catalogue.")
@click.option("--find-mjy", type=float, help="Faintest source to find.  [default: 5 sigma]")
@click.option("--windows/--no-windows", default=True, help="Replace pixel windows of SZ maps.")
@click.option("--octant", is_flag=True, help="The sky consists of eight copies of one octant.")
def data_cut(
    out: Path, recipe: str | None, freqs: dict, flux_cut_mjy: float, **options: object
) -> None:
    """Cut patches out of full-sky maps of any simulation; a stopped run is resumed."""
    from mlsky.training.recipes import recipe as recipe_of

    chosen = None if recipe is None else recipe_of(recipe)
    for name, default in (("pixel_arcmin", 0.5), ("size", 128)):
        if options[name] is None:
            options[name] = default if chosen is None else getattr(chosen, name)
    options["require"] = () if chosen is None else (*chosen.inputs, *chosen.outputs)
    options["flux_cut_mjy"] = None if flux_cut_mjy == float("inf") else flux_cut_mjy

    from mlsky.cutting import patch_sets as maps

    with resumable():
        maps.cut(out, nu_ghz=freqs, **options)
    click.echo(f"{out}: {options['patches']} patches, {out.stat().st_size / 1e6:.0f} MB")


@click.group()
def tables() -> None:
    """Tables of the painter for a cosmology."""


@tables.command("build")
@click.option("--out", required=True, type=click.Path(path_type=Path), help=".npz file.")
@click.option("--cosmology", default="planck2018", show_default=True)
@click.option(
    "--preset", default="act-dr6", show_default=True, help="Data to which amplitudes are fitted."
)
@click.option("--overwrite", is_flag=True, help="Replace the file.")
def tables_build(out: Path, cosmology: str, preset: str, overwrite: bool) -> None:
    """Compute the painter's tables for a cosmology, in about half a minute."""
    from mlsky.io import skies

    skies.check(out, overwrite, (".npz",))

    from mlsky.haloes import tables as painter_tables

    painter_tables.save(out, painter_tables.build_for(cosmology, preset))
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {cosmology}, preset {preset}")
