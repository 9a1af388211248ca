"""JSON from files of unknown origin: finite numbers only, and limited depth."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

__all__ = ["DEPTH", "loads"]

#: Levels of lists and mappings, our choice; our files have less than ten.
DEPTH = 32


def loads(text: bytes | str) -> Any:
    """Parse a text.

    Raises
    ------
    ValueError
        If it is no JSON, has a number that is not finite, which the message names, or more levels
        than `DEPTH`.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError(f"more than {DEPTH} levels") from None
    level = [("", found)]
    for _ in range(DEPTH + 1):
        for name, value in level:
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name.lstrip('.') or 'it'} is {value}; numbers must be finite")
        level = [inner for name, value in level for inner in _parts(name, value)]
    if level:
        raise ValueError(f"more than {DEPTH} levels")
    return found


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Entries of a mapping or list, with their full names."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield f"{name}.{key}", part
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield f"{name}[{number}]", part
