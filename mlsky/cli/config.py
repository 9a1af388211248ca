"""Files of options: ``--config sky.toml`` and ``--dump-config``."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

__all__ = ["dump", "with_config"]

#: Options that are not written to a file.
OWN = ("config", "dump_config")


def with_config(command):
    """Give a command ``--config`` and ``--dump-config``."""
    command = click.option(
        "--dump-config",
        is_flag=True,
        help="Print these options as a file for --config, and stop.",
    )(command)
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_read,
        help="Take options from a TOML file; those of the command line count before.",
    )(command)


def _read(ctx: click.Context, option: click.Parameter, path: Path | None) -> None:
    """Make the options of a file the defaults of the command."""
    if path is None:
        return
    import tomllib

    if not path.is_file():
        raise ValueError(f"--config {path}: no such file")
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"--config {path}: cannot be read as TOML ({text})") from None
    params = {p.name: p for p in ctx.command.params if p.name not in OWN}
    names = {_shown(p): p.name for p in params.values()} | {name: name for name in params}
    defaults = {}
    for key, value in found.items():
        if key.replace("-", "_") not in names:
            raise ValueError(
                f"--config {path}: {key!r} is no option of {ctx.info_name}; may be "
                f"{', '.join(sorted(map(_shown, params.values())))}"
            )
        name = names[key.replace("-", "_")]
        if isinstance(value, dict):
            raise ValueError(f"--config {path}: {key} is a table; must be a value")
        if name in defaults:
            raise ValueError(
                f"--config {path}: {key} gives {_shown(params[name])} a second time; give it once"
            )
        allowed = _allowed(params[name], value)
        if allowed is not None:
            from mlsky.arguments import short  # imports numpy, which the help does without

            raise ValueError(f"--config {path}: {key} = {short(value)}: must be {allowed}")
        if params[name].multiple:
            many = value if isinstance(value, list) else [value]
            value = [str(one) for one in many]
        defaults[name] = value
    ctx.default_map = {**(ctx.default_map or {}), **defaults}


def _allowed(param: click.Parameter, value: object) -> str | None:
    """What an option takes in a file, if `value` is of another type; None if it is not."""
    if hasattr(param.type, "text"):  # a type of ours, which converts what stands in a file itself
        return None
    if param.multiple:
        many = value if isinstance(value, list) else [value]
        return None if all(map(_is_word, many)) else "one number or text, or a list of them"
    if isinstance(param.type, click.Tuple):
        kinds = param.type.types
        fits = isinstance(value, list) and len(value) == len(kinds) and all(map(_is_word, value))
        fits = fits and all(
            isinstance(kind, click.types.StringParamType) or _mismatch(kind, one) is None
            for kind, one in zip(kinds, value, strict=True)
        )
        return None if fits else f"a list of {len(kinds)}, {param.metavar}"
    return _mismatch(param.type, value)


def _is_word(value: object) -> bool:
    """Whether a value is what one word of the command line says."""
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _mismatch(kind: click.ParamType, value: object) -> str | None:
    """What a type takes in a file, if `value` is of another one; None if it is not."""
    if isinstance(kind, click.types.BoolParamType):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(kind, click.types.IntParamType):
        whole = isinstance(value, int) and not isinstance(value, bool)
        return None if whole else "a whole number, without quotes and point"
    if isinstance(kind, click.types.FloatParamType):
        number = _is_word(value) and not isinstance(value, str)
        return None if number else "a number, without quotes"
    return None if isinstance(value, str) else "text in quotes"


def dump(ctx: click.Context) -> bytes:
    """The options of a command as TOML in UTF-8, whatever the encoding of the terminal.

    Raises
    ------
    ValueError
        If a value has characters that no TOML file holds.
    """
    lines = []
    for param in ctx.command.params:
        value = ctx.params.get(param.name)
        if param.name in OWN:
            continue
        if hasattr(param.type, "text"):  # a type of ours, which has its own way of writing
            value = param.type.text(value)
        elif value in (None, (), []):
            continue
        lines.append(f"{_shown(param)} = {_toml(f'--{_shown(param)}', value)}")
    return "\n".join(lines).encode()


def _toml(option: str, value: object) -> str:
    """A value of an option as TOML."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(option, one) for one in value)}]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # nan and inf, for which JSON has other names
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    text = str(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{option} {text!r}: has bytes that are no text in UTF-8, which files of options "
                "cannot hold; give another name"
            ) from None
    # TOML's basic strings are those of JSON, but that they may not hold DEL
    return json.dumps(text, ensure_ascii=False).replace("\x7f", r"\u007f")


def _shown(param: click.Parameter) -> str:
    """Name of an option as it is written, with underscores."""
    return max(param.opts, key=len).lstrip("-").replace("-", "_")
