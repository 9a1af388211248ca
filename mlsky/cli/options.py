"""Shared parts of commands: option types, a progress bar, JSON files."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
from click.core import ParameterSource

__all__ = [
    "InPlaceOf",
    "ManyValues",
    "bands",
    "beams",
    "counts",
    "number_pairs",
    "numbers",
    "pairs",
    "progress_bar",
    "resumable",
    "split",
    "which_state",
    "write_json",
]


class ManyValues(click.Command):
    """A command whose options with ``multiple=True`` take every value up to the next option.

    ``--freqs 93 145 225``, ``--freqs 93,145,225`` and ``--freqs 93 --freqs 145`` all work. Neither
    these nor options with ``nargs`` take the next option for a value, as those of click do.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["mlsky.arguments"] = list(args)
        several = {
            name: option
            for option in self.params
            if isinstance(option, click.Option) and (option.multiple or option.nargs > 1)
            for name in option.opts
        }
        merged: list[str] = []
        rest = list(map(str, args))
        while rest:
            merged.append(rest.pop(0))
            name, equals, value = merged[-1].partition("=")
            if name not in several:
                continue
            option = several[name]
            count = next((i for i, word in enumerate(rest) if _is_option(word)), len(rest))
            values = [value] if equals else []
            if option.nargs == 1 and not equals:  # of multiple options
                values, rest = rest[:count], rest[count:]
                merged += [",".join(values)] if values else []
            elif option.nargs > 1:
                values += rest[: min(count, option.nargs - len(values))]
            if len(values) < option.nargs and not ctx.resilient_parsing:  # not while completing
                raise click.BadOptionUsage(name, _too_few(name, option, values), ctx)
        return super().parse_args(ctx, merged)


def _too_few(name: str, option: click.Option, values: list[str]) -> str:
    """Of an option with fewer values than it has to have, in words."""
    given = " ".join([name, *values])
    wanted = option.metavar or "a value"
    text = f"{given}: must be {name} {wanted}"
    return f"{text} ({option.help.rstrip('.')})" if option.help else text


class InPlaceOf(click.Option):
    """An option instead of which the command line may give another one.

    A value from a file of options does not count then.
    """

    def __init__(self, *arguments, other: str, **settings) -> None:
        super().__init__(*arguments, **settings)
        self.other = other

    def consume_value(self, ctx: click.Context, opts):
        given = [name in opts for name in (self.name, self.other)]
        if given == [False, True]:
            return None, ParameterSource.DEFAULT
        return super().consume_value(ctx, opts)


def _is_option(token: str) -> bool:
    """True for ``--out`` and ``-h``; False for values, including negative numbers."""
    if not token.startswith("-") or token == "-":
        return False
    with contextlib.suppress(ValueError):
        float(token)
        return False
    return True


def split(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]):
    """Every value of a repeated, spaced or comma-separated option."""
    parts = [value.replace(",", " ").split() for value in values]
    if not all(parts):
        raise click.BadParameter("is empty; give a value, or leave the option out")
    return [part for found in parts for part in found]


def bands(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list:
    """Frequencies (GHz) and names of bands of a repeated, spaced or comma-separated option."""
    found: list[float | str] = []
    for part in split(ctx, option, values):
        try:
            found.append(float(part))
        except ValueError:
            found.append(part)
    return found


def beams(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]):
    """FWHM (arcmin) of a repeated, spaced or comma-separated option: None, one, or a list."""
    found = _floats(split(ctx, option, values), "arcmin, for example --beam 1.4")
    return None if not found else found[0] if len(found) == 1 else found


def counts(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[int]:
    """Whole numbers of a repeated, spaced or comma-separated option."""
    found = []
    for part in split(ctx, option, values):
        try:
            found.append(int(part))
        except ValueError:
            raise click.BadParameter(f"{part!r} is not a whole number") from None
    return found


def numbers(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[float]:
    """Frequencies of a repeated, spaced or comma-separated option."""
    return _floats(split(ctx, option, values), "GHz, for example --freqs 93 145 225")


def _floats(parts: list[str], what: str) -> list[float]:
    found = []
    for part in parts:
        try:
            found.append(float(part))
        except ValueError:
            raise click.BadParameter(f"{part!r} is no number; give {what}") from None
    return found


def pairs(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """``FIELD=VALUE`` of a repeated or spaced option."""
    found = {}
    for part in split(ctx, option, values):
        name, equals, value = part.partition("=")
        if not (name and equals and value):
            raise click.BadParameter(f"{part!r}: must be FIELD=VALUE, for example cib=143")
        found[name] = value
    return found


def number_pairs(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict:
    """``FIELD=NUMBER`` of a repeated or spaced option."""
    try:
        return {name: float(x) for name, x in pairs(ctx, option, values).items()}
    except ValueError as error:
        raise click.BadParameter(f"{error}; must be FIELD=NUMBER") from None


def _states(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> str | dict:
    """``best``, ``last``, or ``NAME=best NAME=last`` for some networks."""
    parts = split(ctx, option, values)
    if parts in ([], ["best"]):
        return "best"
    if parts == ["last"]:
        return "last"
    named = dict(part.partition("=")[::2] for part in parts)
    for name, state in named.items():
        if not name or state not in ("best", "last") or len(named) < len(parts):
            raise click.BadParameter(
                f"{' '.join(parts)!r}: must be best, last, or once NAME=STATE, for example "
                "vaegan=last"
            )
    return named


#: Option ``--which`` of commands that read runs: one word for all, or words by network.
which_state = click.option(
    "--which",
    multiple=True,
    callback=_states,
    metavar="STATE",
    help="State of the runs, best or last; or of some, as vaegan=last.  [default: best]",
)


@contextlib.contextmanager
def progress_bar() -> Iterator:
    """A progress function: a bar on stderr, named after the stage under way.

    A line for each stage and for every tenth of the work where stderr is no terminal, as in the log
    of a batch system; nothing with ``mlsky --quiet``.
    """
    context = click.get_current_context(silent=True)
    if context is not None and context.meta.get("mlsky.quiet"):
        yield lambda stage, fraction: None
        return
    if not sys.stderr.isatty():
        yield _lines()
        return
    from tqdm import tqdm

    bar: tqdm | None = None

    def progress(stage: str, fraction: float) -> None:
        nonlocal bar
        if bar is None:  # drawn with the first stage, so that an error in the arguments has no bar
            style = "{desc:<24} {percentage:3.0f}% |{bar}| {elapsed}"
            bar = tqdm(total=100.0, file=sys.stderr, bar_format=style)
        bar.set_description_str(stage, refresh=False)
        bar.n = 100 * fraction
        bar.refresh()

    try:
        yield progress
    finally:
        if bar is not None:
            bar.close()


def _lines():
    """A progress function that writes lines."""
    begin, before = time.monotonic(), ["", -1]

    def progress(stage: str, fraction: float) -> None:
        tenth = int(10 * fraction)
        if [stage, tenth] != before:
            before[:] = [stage, tenth]
            seconds = time.monotonic() - begin
            click.echo(f"{seconds:6.0f} s {100 * fraction:3.0f} %  {stage}", err=True)

    return progress


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Of commands that keep what they have done when they are interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        raise click.Abort("interrupted; the same command goes on from what was saved") from None


def write_json(path: Path, values: dict) -> None:
    """Write numbers as JSON, atomically."""
    import json

    from mlsky.io import skies

    with skies.beside(path) as part:
        part.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
