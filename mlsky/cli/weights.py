"""``mlsky weights``: the registry."""

from __future__ import annotations

import click

__all__ = ["weights"]


@click.group()
def weights() -> None:
    """The networks: which there are, what they are worth, where they are."""


@weights.command("list")
def weights_list() -> None:
    """Every entry of the registry, one a line; * marks the default."""
    from mlsky import registry

    for name in registry.names():
        entry = registry.describe(name)
        pixels = ", ".join(f"{item['pixel_arcmin']:g}'" for item in entry["files"])
        mark = "*" if entry["default"] else " "
        click.echo(f"{mark} {name:<16} {entry['version']:<4} {entry['kind']:<10} {pixels}")


@weights.command("show")
@click.argument("name", default="default")
def weights_show(name: str) -> None:
    """Files, licence, citation, recipe, data and scores of NAME (or NAME@v1)."""
    import yaml

    from mlsky import registry

    click.echo(yaml.safe_dump(registry.describe(name), sort_keys=False, width=100).rstrip())


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
