"""Conversion of arguments to plain Python and numpy types, or one line of error.

Every argument of a caller passes through here. A Quantity is converted to the expected unit, or
refused if its unit is of another kind; a mask becomes NaN; text, dates and dictionaries in place of
a number are refused, and so is a number in place of a boolean.
"""

from __future__ import annotations

import contextlib
import operator
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "array",
    "boolean",
    "choice",
    "integer",
    "number",
    "path",
    "reading",
    "short",
    "unmask",
]

#: Bytes that a file system allows in one name (NAME_MAX of Linux and of macOS), and characters of a
#: value that an error shows (our choice).
NAME_BYTES, SHOWN = 255, 60


def short(value: object, length: int = SHOWN) -> str:
    """A value on one line of at most `length` characters; for an array, its shape and type."""
    if isinstance(value, np.ndarray) and value.ndim:
        return f"{type(value).__name__} of shape {value.shape} and type {value.dtype}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # whatever the repr of an unknown object raises
        text = f"<{type(value).__name__}>"
    return text if len(text) <= length else text[: length - 3] + "..."


def boolean(name: str, value: object) -> bool:
    """A truth value.

    Raises
    ------
    ValueError
        If it is no boolean of Python or numpy: the text "False" would count as true.
    """
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise ValueError(f"{name}={short(value)}: must be True or False")


def choice(name: str, value: object, allowed: Sequence[str]) -> str:
    """One of several names.

    Raises
    ------
    ValueError
        If it is not one of them.
    """
    if isinstance(value, str) and str(value) in allowed:
        return str(value)
    raise ValueError(f"{name}={short(value)}: must be one of {', '.join(allowed)}")


def integer(name: str, value: object, allowed: str, low: int, high: int | None = None) -> int:
    """A whole number from `low` to `high`.

    Parameters
    ----------
    allowed
        What may be given, with an example, for the error: "an integer >= 0, for example 1".

    Raises
    ------
    ValueError
        If it is no integer of Python or numpy, or out of range.
    """
    text = f"{name}={short(value)}: must be {allowed}"
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, np.ndarray) and value.ndim):
        raise ValueError(text)
    if np.ma.is_masked(value):  # its index is the number under the mask
        raise ValueError(text)
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(text) from None
    if number < low or (high is not None and number > high):
        raise ValueError(text)
    return number


def number(
    name: str,
    value: object,
    allowed: str,
    low: float,
    high: float,
    unit: str | None = None,
    equivalencies: Sequence = (),
) -> float:
    """A real number from `low` to `high`, in `unit`.

    Parameters
    ----------
    allowed
        What may be given, with an example, for the error.
    unit
        Of plain numbers; a Quantity is converted to it. None refuses every unit but 1.
    equivalencies
        Of astropy, for the conversion.

    Raises
    ------
    ValueError
        If it is not one real number, of another kind of unit, not finite, or out of range.
    """
    text = f"{name}={short(value)}: must be {allowed}"
    if hasattr(value, "unit"):
        value = _in_unit(name, value, unit, allowed, equivalencies)
    if np.ma.is_masked(value):
        raise ValueError(text)
    try:
        values = np.asarray(value)
    except (TypeError, ValueError):
        raise ValueError(text) from None
    # text and booleans would be taken for numbers by float()
    if values.ndim or values.dtype.kind not in "iuf":
        if isinstance(value, int) and not isinstance(value, bool):  # beyond 64 bits
            values = np.asarray(_float(value))
        else:
            raise ValueError(text)
    found = float(values)
    if not (np.isfinite(found) and low <= found <= high):
        raise ValueError(text)
    return found


def array(
    name: str, value: object, allowed: str, unit: str | None = None, kinds: str = "iuf"
) -> NDArray:
    """An array of numbers in `unit`, its own type kept; masked values become NaN.

    Parameters
    ----------
    allowed
        What may be given, for the error.
    unit
        Of plain numbers; a Quantity is converted to it. None refuses every unit but 1.
    kinds
        Kinds of numpy types that are allowed, as letters.

    Raises
    ------
    ValueError
        If it is no array of such a type, or of another kind of unit.
    """
    text = f"{name}={short(value)}: must be {allowed}"
    value = unmask(value)
    if hasattr(value, "unit"):
        value = _in_unit(name, value, unit, allowed)
    try:
        values = np.asarray(value)
    except (TypeError, ValueError):
        raise ValueError(text) from None
    if values.dtype.kind not in kinds:
        raise ValueError(text)
    return values


def unmask(value: object) -> object:
    """The array without its mask: masked values become NaN. `numpy.asarray` ignores masks.

    Masks of numpy, astropy columns and astropy masked quantities are known; units are kept.
    """
    mask = getattr(value, "mask", None)
    if not isinstance(mask, (np.ndarray, np.bool_)) or callable(mask):
        return value
    unit = getattr(value, "unit", None)
    bare = getattr(value, "unmasked", None)
    values = np.asarray(getattr(value, "data", value) if bare is None else bare)
    if np.any(mask):
        if values.dtype.kind in "iu":
            values = values.astype(np.float64)
        values = np.where(mask, np.nan, values)
    if unit is None:
        return values
    from astropy import units

    return units.Quantity(values, unit, copy=False)


def path(name: str, value: object, what: str = "the name of a file, as text or a Path") -> Path:
    """The path of a file; errors say that it must be `what`.

    Raises
    ------
    ValueError
        If it is no text or path, empty, holds control characters or others that no file name can
        have, or a name longer than file systems allow.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError(f"{name}={short(value)}: must be {what}")
    text = os.fspath(value)
    if isinstance(text, bytes):
        raise ValueError(f"{name}={short(value)}: must be text, not bytes; give os.fsdecode of it")
    if not text or any(ord(character) < ord(" ") for character in text):
        raise ValueError(
            f"{name}={short(text)}: must be a name without NUL and control characters, and not "
            "empty"
        )
    try:
        parts = [len(os.fsencode(part)) for part in Path(text).parts]
    except UnicodeEncodeError:
        raise ValueError(
            f"{name}={short(text)}: has characters that no file name can have here"
        ) from None
    if max(parts, default=0) > NAME_BYTES:
        raise ValueError(
            f"{name}={short(text)}: has a name of {max(parts)} bytes, file systems allow "
            f"{NAME_BYTES}"
        )
    return Path(text)


@contextlib.contextmanager
def reading(what: str, must: str = "") -> Iterator[None]:
    """Turn any error that is raised while a file of a caller is read into one line.

    Parsers of damaged files raise errors of any kind, those of numpy and astropy among them.

    Parameters
    ----------
    what
        The file, and what it `must` be, for the message.

    Raises
    ------
    ValueError
        Instead of any other error.
    """
    try:
        yield
    except Exception as error:
        reason = short(" ".join(str(error).split()) or type(error).__name__, 160)[1:-1]
        end = f"; must be {must}" if must else ""
        raise ValueError(f"{what} cannot be read ({reason}){end}") from None


def _float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _in_unit(name: str, value, unit: str | None, allowed: str, equivalencies: Sequence = ()):
    """The values of a Quantity in `unit`."""
    from astropy import units

    meant = value.unit
    try:
        if meant is None:
            return getattr(value, "value", value)
        return units.Quantity(value).to_value(unit or "", equivalencies=list(equivalencies))
    except (units.UnitsError, TypeError, ValueError):
        wanted = "a plain number" if unit is None else unit
        raise ValueError(
            f"{name} in {' '.join(str(meant).split())}: must be convertible to {wanted}; {allowed}"
        ) from None
