"""``mlsky verify``."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["verify"]


@click.command()
@click.argument(
    "paths", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="FILE..."
)
def verify(paths: tuple[Path, ...]) -> None:
    """Compare skies and training sets with the checksums in them, value by value."""
    from mlsky.io import sets, skies

    for path in paths:
        found = sets.verify(path) if sets.is_set(path) else skies.verify(path)
        click.echo(f"{path}: {found}")
