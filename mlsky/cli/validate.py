"""``mlsky validate``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from mlsky.cli.options import write_json

__all__ = ["validate"]


@click.command()
@click.option("--weights", default="default", show_default=True, help="Name, or a file.")
@click.option("--data", type=click.Path(path_type=Path), help="Held-out set.  [default: paint one]")
@click.option("--quick", is_flag=True, help="Use 38 regions: 608 patches of 128 pixels at 0.5'.")
@click.option("--regions", type=int, help="Use so many.  [default: all of a set, or paint 110]")
@click.option(
    "--pixel", type=float, metavar="ARCMIN", help="Of the weights.  [default: of the set, or 0.5]"
)
@click.option(
    "--job",
    "jobs",
    type=click.Choice(["from_kappa", "end_to_end", "both"]),
    default="both",
    show_default=True,
    help="Start from the true kappa, from the Gaussian one, or both.",
)
@click.option("--before", is_flag=True, help="Score the weights before calibration, too.")
@click.option("--every", is_flag=True, help="Print every number, not only the worst of a row.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the networks' noise.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--json", "table", type=click.Path(path_type=Path), help="Write all figures here.")
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write one page with pictures here; more statistics, a minute longer.",
)
@click.option(
    "--card",
    "cards",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write small pictures for a card of the weights here: FILE-maps.png and others.",
)
@click.option(
    "--also",
    multiple=True,
    metavar="FILE",
    help="Weights of the same recipe and another seed; for the scatter of trainings.",
)
@click.option("--overwrite", is_flag=True, help="Replace the JSON file, or the page.")
def validate(
    weights: str,
    data: Path | None,
    quick: bool,
    regions: int | None,
    pixel: float | None,
    jobs: str,
    before: bool,
    every: bool,
    seed: int,
    device: str,
    table: Path | None,
    page: Path | None,
    cards: Path | None,
    also: tuple[str, ...],
    overwrite: bool,
) -> None:
    """Score weights against held-out truth: one number a line, and one total.

    Each deviation from the truth stands beside the largest one allowed (tolerance) and the one
    aimed at. Without --data regions are painted that no set was trained on.
    """
    from mlsky.io import skies

    if table is not None:
        skies.check(table, overwrite, (".json",))
    if page is not None or cards is not None:
        from mlsky.validation import page as pages

        for folder, option in ((page, "--html"), (cards, "--card")):
            if folder is not None:
                pages.check_folder(folder, option, overwrite or option == "--card")

    from mlsky.io.sets import attributes_of
    from mlsky.networks.device import pick_device
    from mlsky.validation import scores

    if data is not None:
        of_set = float(attributes_of(data, scores.FIELDS)["pixel_arcmin"])
        if pixel not in (None, of_set):
            raise ValueError(f"--pixel {pixel:g}: {data} has pixels of {of_set:g}'; leave it out")
        pixel = of_set
    opened = _weights_of_pixel(weights, pixel, data is not None)
    if quick and regions is None:
        regions = scores.QUICK
    chosen = scores.JOBS if jobs == "both" else (jobs,)
    watcher = None if page is None and cards is None else pages.Watcher(chosen)
    options = {"jobs": chosen, "before": before, "progress": True}
    options |= {"device": str(pick_device(device))}
    others = [_weights_of_pixel(name, pixel, data is not None) for name in also]
    figures = scores.score(opened, data, regions, seed, watch=watcher, **options)
    figures = {"weights": opened.path.name, "sha256": opened.sha256, **figures}
    if others:
        from mlsky.validation import trainings

        found = [scores.score(other, data, regions, seed, **options) for other in others]
        figures["scores"] = trainings.spread([figures, *found])
        figures["also"] = [other.sha256 for other in others]
    if watcher is not None:
        figures["further"] = watcher.further.compute()
    if table is not None:
        write_json(table, figures)
    if page is not None:
        click.echo(pages.write(figures, watcher, page))
    if cards is not None:
        for path in pages.write_cards(figures, watcher, cards, opened.path.stem):
            click.echo(path)
    for line in _report(figures, every):
        click.echo(line)


def _weights_of_pixel(name: str, pixel: float | None, of_set: bool):
    """A file, or that file of a registry entry which has these pixels."""
    from mlsky import registry
    from mlsky.networks.weights import open_weights

    if name.endswith(".safetensors"):
        opened = open_weights(name)
        if pixel not in (None, opened.pixel_arcmin) and not of_set:
            raise ValueError(f"--pixel {pixel:g}: {name} is of {opened.pixel_arcmin:g}' pixels")
        return opened
    files = registry.describe(name)["files"]
    wanted = min(file["pixel_arcmin"] for file in files) if pixel is None else pixel
    for file in files:
        if file["pixel_arcmin"] == wanted:
            (path,) = registry.fetch(name, file=file["file"])
            return open_weights(path, sha256=file["sha256"])
    have = ", ".join(f"{file['pixel_arcmin']:g}'" for file in files)
    why = f"the set has pixels of {wanted:g}'" if of_set else f"not of --pixel {wanted:g}"
    raise ValueError(f"--weights {name} are of {have}: {why}")


def _report(figures: dict, every: bool) -> Iterator[str]:
    from mlsky.validation import scores

    yield (
        f"{figures['weights']}, sha256 {figures['sha256'][:12]}: {figures['regions']} regions, "
        f"{figures['square_degrees']:g} square degrees of {figures['pixel_arcmin']:g}' pixels, "
        f"{figures['seconds']:.0f} s"
    )
    for when in ("before", "after"):
        rows = [row for row in figures["scores"] if row["calibration"] == when]
        if rows:
            yield ""
            yield f"{when} calibration"
            yield from scores.lines(rows, every)
    yield ""
    for name, total in figures["totals"].items():
        yield (
            f"total {name:<13} {total['met']} of {total['rows']} tolerances met, {total['failed']} "
            f"failed, {total['undecided']} undecided; distance {total['distance']:g} tolerances"
        )
