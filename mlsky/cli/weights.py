"""``mlsky weights``: the registry."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["weights"]


@click.group()
def weights() -> None:
    """The networks: list, quality, and location of their files."""


@weights.command("list")
def weights_list() -> None:
    """Every entry of the registry, one a line; * marks the default."""
    from mlsky import registry

    for name in registry.names():
        entry = registry.describe(name)
        pixels = ", ".join(f"{item['pixel_arcmin']:g}'" for item in entry["files"])
        if entry.get("inputs") == []:  # nothing of a sky, whose pixels would have a size
            pixels = f"images of {', '.join(entry['outputs'])}"
        mark = "*" if entry["default"] else " "
        line = f"{mark} {name:<16} {entry['version']:<4} {entry['kind']:<14} {pixels:<17}"
        click.echo(f"{line} {entry.get('score', '')}".rstrip())


@weights.command("show")
@click.argument("name", default="default")
def weights_show(name: str) -> None:
    """Files, licence, citation, recipe, data and scores of NAME (or NAME@v1)."""
    import yaml

    from mlsky import registry

    found = {**registry.describe(name), **registry.report(name)}
    click.echo(yaml.safe_dump(found, sort_keys=False, width=100).rstrip())


@weights.command("fetch")
@click.argument("name", default="default")
def weights_fetch(name: str) -> None:
    """Make sure that the files of NAME are on this machine, and say where."""
    from mlsky import registry

    for path in registry.fetch(name):
        click.echo(path)


@weights.command("verify")
@click.argument("name", required=False)
def weights_verify(name: str | None) -> None:
    """Check the sha256 of every file on this machine; of all entries by default."""
    from mlsky import registry

    for found in registry.verify(name):
        state = "good" if found.paths else "not here yet, to be fetched"
        click.echo(f"{found.name} {found.version} {found.file}: {state}")


@weights.command("add")
@click.argument("name")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--licence", required=True, help="SPDX identifier, such as CC-BY-4.0.")
@click.option(
    "--scores",
    multiple=True,
    type=click.Path(path_type=Path),
    help="What mlsky validate, or validate-images, wrote of one of the files by --json; once for "
    "each.",
)
@click.option(
    "--cite",
    multiple=True,
    metavar="KEY:WHY",
    help="ADS bibcode or DOI, and why; as often as needed.",
)
@click.option("--default", is_flag=True, help="Make this the entry that default means.")
@click.option(
    "--registry",
    "where",
    type=click.Path(path_type=Path),
    help="Registry file, made if it is not there.  [default: MLSKY_REGISTRY, or the package's]",
)
def weights_add(
    name: str,
    files: tuple[Path, ...],
    licence: str,
    scores: tuple[Path, ...],
    cite: tuple[str, ...],
    default: bool,
    where: Path | None,
) -> None:
    """Enter FILES, one for each pixel size, as the next version of NAME."""
    from mlsky import registry
    from mlsky.networks.weights import open_weights

    opened = [open_weights(path) for path in files]
    by_pixel = {f"{w.pixel_arcmin:g}'": w for w in opened}
    kind, inputs, outputs = _contents(opened[0])
    found = [_scores(path) for path in scores]
    references = []
    for text in cite:
        key, colon, why = text.partition(":")
        if not (colon and why):
            raise ValueError(f"--cite {text}: must be KEY:WHY")
        references.append({"key": key.strip(), "why": why.strip()})
    version = registry.add(
        name,
        [{"path": w.path, "pixel_arcmin": w.pixel_arcmin} for w in opened],
        kind=kind,
        licence=licence,
        cite=references,
        inputs=inputs,
        outputs=outputs,
        recipe={pixel: w.header.get("recipe", {}) for pixel, w in by_pixel.items()},
        data={pixel: w.header.get("data", {}) for pixel, w in by_pixel.items()},
        scores=dict(found),
        score="; ".join(f"{pixel}: {_in_a_line(figures)}" for pixel, figures in found),
        default=default,
        registry=where,
    )
    place = "the registry" if where is None else where
    click.echo(f"{place}: {name} {version}{', the default' if default else ''}")


def _contents(weights) -> tuple[str, list[str], list[str]]:
    """Kind, inputs and outputs of a file: of a sky, or of one network of random numbers alone."""
    from mlsky.networks import evaluate

    entries = list(weights.header["networks"].values())
    if len(entries) == 1 and not entries[0].get("inputs") and entries[0].get("outputs"):
        return entries[0]["architecture"].partition(":")[0], [], list(entries[0]["outputs"])
    kind = evaluate.kind(weights)
    radio = "radio" if kind == "han2021" else "radio_rate"
    return kind, ["kappa_in"], ["kappa", "ksz", "tsz", "cib", radio]


def _in_a_line(figures: dict) -> str:
    """How many of the goals of a report are met."""
    if "totals" in figures:
        total = figures["totals"].get("all") or next(iter(figures["totals"].values()))
        return f"{total['met']} of {total['rows']} goals met, {total['failed']} failed"
    good = sum(bool(row["good"]) for row in figures.values())
    return f"{good} of {len(figures)} goals met"


def _scores(path: Path) -> tuple[str, dict]:
    """Pixel size that figures are of, and the figures in short."""
    import json

    from mlsky.validation.scores import summary

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        pixel = f"{found['pixel_arcmin']:g}'"
        return pixel, found["lines"] if "lines" in found else summary(found)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: cannot be read as scores ({error}); mlsky validate --json writes them"
        ) from None
