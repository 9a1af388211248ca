"""JSON from files of unknown origin: finite numbers only, and limited depth."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["DEPTH", "loads"]

#: Levels of lists and mappings, our choice; our files have less than ten.
DEPTH = 32


def loads(text: bytes | str) -> Any:
    """Parse a text.

    Raises
    ------
    ValueError
        If it is no JSON, has a number that is not finite, or more levels than `DEPTH`.
    """
    try:
        found = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError(f"more than {DEPTH} levels") from None
    level = [found] if isinstance(found, (dict, list)) else []
    for _ in range(DEPTH):
        parts = (v.values() if isinstance(v, dict) else v for v in level)
        level = [v for part in parts for v in part if isinstance(v, (dict, list))]
    if level:
        raise ValueError(f"more than {DEPTH} levels")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number
