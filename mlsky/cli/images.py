"""``mlsky validate-images``."""

from __future__ import annotations

import math
from pathlib import Path

import click

from mlsky.cli.options import write_json

__all__ = ["validate_images"]


@click.command("validate-images")
@click.argument("source")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Held-out set, if it was trained on one."
)
@click.option("--images", type=int, default=512, show_default=True, help="Of either kind.")
@click.option("--seed", type=int, default=1000, show_default=True, help="Of either kind.")
@click.option("--json", "table", type=click.Path(path_type=Path), help="Write all figures here.")
@click.option("--out", type=click.Path(path_type=Path), help="Draw everything here (PNG or PDF).")
@click.option(
    "--map", "sheet", type=click.Path(path_type=Path), help="Draw the map of two latents."
)
@click.option("--export", type=click.Path(path_type=Path), help="Write a weight file of the run.")
@click.option("--overwrite", is_flag=True, help="Replace files.")
def validate_images(
    source: str,
    data: Path | None,
    images: int,
    seed: int,
    table: Path | None,
    out: Path | None,
    sheet: Path | None,
    export: Path | None,
    overwrite: bool,
) -> None:
    """Compare images drawn from SOURCE with true ones: a run folder, a weight file or a name.

    For networks without input fields: the recipes blobs-* and vae-*.
    """
    from mlsky.io import skies
    from mlsky.plotting import blob_figures, sky_maps, style
    from mlsky.training import unconditional

    for path, suffixes in (
        (table, (".json",)),
        (out, sky_maps.SUFFIXES),
        (sheet, sky_maps.SUFFIXES),
        (export, (".safetensors",)),
    ):
        if path is not None:
            skies.check(path, overwrite, suffixes)
    if out is not None or sheet is not None:
        style.figure_class()
    folder = Path(source)
    if not folder.is_dir() and (sheet is not None or export is not None):
        raise ValueError(f"{source}: --map and --export are made from the folder of a run")
    weights = unconditional.opened(source)
    made, true, lines = _compared(weights, images, seed, data)
    found = _findings(weights, made, true)
    names = list(lines)
    if sheet is not None or _is_autoencoder(weights, folder):
        lines |= _latents(folder, true)
    for name, row in lines.items():
        verdict = "" if row.get("good") is None else ("  ok" if row["good"] else "  NOT")
        true_value = "" if row.get("true") is None else f"true {row['true']:<10.4g}"
        click.echo(f"{name:<52} {row['made']:<10.4g} {true_value} {row['wanted']}{verdict}")
    good = [lines[name]["good"] for name in names]
    for name, (of_made, of_true) in found.items():
        click.echo(f"{name:<52} {of_made:<10.4g} true {of_true:<10.4g}")
    click.echo(f"{source}: {sum(good)} of {len(good)} as wanted")
    if table is not None:
        training = weights.header.get("training", {})
        plain = {name: {k: _plain(v) for k, v in row.items()} for name, row in lines.items()}
        write_json(
            table,
            {
                "source": source,
                "images": images,
                "pixel_arcmin": weights.pixel_arcmin,
                "training": training,
                "lines": plain,
                "findings": {name: [_plain(v) for v in row] for name, row in found.items()},
            },
        )
    for path, make in (
        (out, lambda: blob_figures.figure(made[:, 0], true[:, 0], folder.name)),
        (sheet, lambda: _map(folder, true)),
    ):
        if path is not None:
            with skies.beside(path) as part:
                make().savefig(part, format=path.suffix[1:].lower(), dpi=90)
    if export is not None:
        with skies.beside(export) as part:
            like = true if _is_autoencoder(weights, folder) else None
            unconditional.to_file(folder, part, like=like)


def _plain(value):
    """A value for JSON, which has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _compared(weights, images: int, seed: int, data: Path | None):
    """Generated images, true ones, and the lines of their comparison by name."""
    from mlsky.toys import comparison
    from mlsky.toys.unconditional import sample
    from mlsky.training import unconditional

    kind = unconditional.blobs_of(weights)
    made = sample(weights, images, seed)  # refuses networks that take fields
    true = unconditional.truth(weights, images, seed, data)
    rows = {}
    channels = next(iter(weights.header["networks"].values()))["outputs"]
    for i, channel in enumerate(channels):
        if kind is None:
            found = comparison.distribution(made[:, i], true[:, i])
        else:
            found = comparison.compare(made, true, kind.count, kind.sigma, kind.scaled)
        prefix = f"{channel}: " if len(channels) > 1 else ""
        rows |= {prefix + name: line._asdict() for name, line in found.items()}
    return made, true, rows


def _findings(weights, made, true) -> dict[str, tuple[float, float]]:
    """What the pictures of images of blobs show, as numbers; nothing of others."""
    from mlsky.toys import comparison
    from mlsky.training import unconditional

    kind = unconditional.blobs_of(weights)
    return {} if kind is None else comparison.findings(made, true, kind.count, kind.sigma)


def _is_autoencoder(weights, folder: Path) -> bool:
    entries = weights.header["networks"].values()
    return folder.is_dir() and any(e["architecture"] == "vae:Decoder" for e in entries)


def _latents(folder: Path, true) -> dict[str, dict]:
    """Information on true images in the latents of an autoencoder."""
    from mlsky.training import unconditional

    encoder, decoder, normaliser = unconditional.autoencoder(folder)
    _, found = unconditional.codes(encoder, normaliser, true)
    rows = {
        "latents that say something": float(found.active.sum()),
        "latents that have collapsed": float((~found.active).sum()),
        "divergence (nats per image)": float(found.kl.sum()),
        "noise of p(x|z), network units": decoder.noise,
    }
    return {k: {"made": v, "true": None, "wanted": "", "good": None} for k, v in rows.items()}


def _map(folder: Path, true):
    """The map of the two most informative latents."""
    from mlsky.plotting import blob_figures
    from mlsky.toys.vae import traversal
    from mlsky.training import unconditional

    encoder, decoder, normaliser = unconditional.autoencoder(folder)
    _, found = unconditional.codes(encoder, normaliser, true)
    most = [int(i) for i in found.kl.argsort()[::-1][:2]]
    images = normaliser.inverse(traversal(decoder, most))[:, :, 0]
    steps = unconditional.opened(folder).header["training"]["images"]["steps"]
    return blob_figures.grid(images, f"latents {most[0]} and {most[1]} after {steps} steps")
