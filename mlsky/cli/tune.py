"""``mlsky tune``."""

from __future__ import annotations

from pathlib import Path

import click

from mlsky.cli.options import resumable

__all__ = ["tune"]


@click.command()
@click.argument("recipe")
@click.option("--data", type=click.Path(path_type=Path), help="Training set.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the search.")
@click.option("--trials", type=int, default=20, show_default=True, help="Runs in all.")
@click.option("--minutes", type=float, help="Length of each run; or give --steps.")
@click.option("--steps", type=int, help="Length of each run.")
@click.option(
    "--vary",
    multiple=True,
    metavar="FIELD=LOW:HIGH",
    help="Number of the recipe to search, or FIELD=A/B/C.  [default: rates and weights]",
)
@click.option(
    "--validation", type=click.Path(path_type=Path), help="Judge runs by their scores on this set."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every run.")
def tune(
    recipe: str,
    data: Path | None,
    out: Path,
    trials: int,
    minutes: float | None,
    steps: int | None,
    vary: tuple[str, ...],
    validation: Path | None,
    device: str,
    seed: int,
) -> None:
    """Search the numbers of RECIPE by many short runs; those that go badly are stopped early.

    The search is kept in --out, and the same command resumes it.
    """
    from mlsky.training import tune as search
    from mlsky.training.recipes import recipe as named

    chosen = named(recipe)
    with resumable():
        found = search.tune(
            chosen,
            data,
            out,
            trials=trials,
            minutes=minutes,
            steps=steps,
            space=search.parse_space(vary, chosen) if vary else None,
            validation=validation,
            device=device,
            seed=seed,
        )
    for row in found.trials:
        score = "-" if row["score"] is None else f"{row['score']:.4g}"
        click.echo(f"{row['number']:>4} {row['state']:<9}{score:>9}  {_words(row['numbers'])}")
    click.echo(f"best {found.score:.4g}: {_words(found.numbers)}")
    click.echo(f"{found.folder}: its run, which can be resumed or exported")


def _words(numbers: dict) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in numbers.items())
