"""The YAML file of a registry, which may come from anybody: read within limits, and checked.

A registry is plain: no tags, no anchors and aliases (a kilobyte of which can stand for gigabytes),
no name twice. Every value is checked for its type; errors name the entry and the key.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mlsky.arguments import short
from mlsky.errors import RegistryError
from mlsky.io.files import open_regular

__all__ = ["DEFAULT", "NAME", "VERSION", "check", "dump", "read", "read_anew"]

#: The name that means the entry marked as default.
DEFAULT = "default"

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}\Z")
VERSION = re.compile(r"v([1-9][0-9]{0,5})\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
# A file name, never a path: a registry must not reach outside its folders.
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\Z")

#: Limits, our choice; the package's own registry has 9 kB and 8 levels: bytes of the file, levels,
#: bytes of a weight file, arcmin of its pixels, and characters of a text.
REGISTRY_BYTES, LEVELS, FILE_BYTES, PIXELS_ARCMIN, TEXT = 2**22, 20, 2**30, (1e-3, 1e4), 10_000

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):
    """Writes repeated values in full, without aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def read(path: Path) -> dict[str, Any]:
    """The entries of a registry, to be read and not to be changed; parsed once until it changes.

    Raises
    ------
    RegistryError
        If it cannot be read, is no plain YAML, or `check` refuses it.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise RegistryError(_unreadable(path, error)) from None
    return _parsed(path.absolute(), found.st_mtime_ns, found.st_size, found.st_ino)


@functools.lru_cache(maxsize=8)
def _parsed(path: Path, changed: int, size: int, inode: int) -> dict[str, Any]:
    """As `read`; once for each state of the file."""
    return read_anew(path)


def read_anew(path: Path) -> dict[str, Any]:
    """As `read`, from the file as it is now, to be changed."""
    try:
        with open_regular(path, REGISTRY_BYTES) as file:
            text = file.read().decode()
    except (OSError, ValueError) as error:
        raise RegistryError(_unreadable(path, error)) from None
    try:
        _check_plain(text)
        entries = yaml.load(text, _LOADER)
    # dates and numbers that are none are ValueErrors
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        reason = short(" ".join(str(error).split()), 200)[1:-1]
        raise RegistryError(f"registry {path}: not plain YAML ({reason})") from None
    entries = {} if entries is None else entries
    check(path, entries)
    return entries


def dump(entries: Mapping[str, Any]) -> str:
    """The text of a registry."""
    return yaml.dump(entries, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


def check(path: Path, entries: Any) -> None:
    """Refuse a registry in which something is missing or of the wrong type.

    Optional lists and the line of scores are added if missing.

    Raises
    ------
    RegistryError
        Names the entry and the key, what is there and what is required.
    """

    def require(good: bool, where: str, value: object, must: str) -> None:
        if not good:
            raise RegistryError(f"registry {path}: {where} is {short(value)}: must be {must}")

    require(isinstance(entries, dict), "the whole", entries, "a mapping of names")
    for name, entry in entries.items():
        good = isinstance(name, str) and bool(NAME.match(name)) and name != DEFAULT
        must = f"letters, digits, . _ -, at most 100, and not {DEFAULT!r}"
        require(good, "the name of an entry", name, must)
        require(isinstance(entry, dict), name, entry, "a mapping with kind, default, versions")
        require(_is_text(entry.get("kind")), f"kind of {name}", entry.get("kind"), "text")
        default = entry.setdefault("default", False)
        require(isinstance(default, bool), f"default of {name}", default, "true or false")
        found = entry.get("versions")
        good = isinstance(found, dict) and bool(found)
        require(good, f"versions of {name}", found, "a mapping of v1, v2, ...")
        for version, record in found.items():
            good = isinstance(version, str) and bool(VERSION.match(version))
            require(good, f"a version of {name}", version, "v1, v2, ...")
            _check_version(f"{name} {version}", record, require)
    chosen = [name for name, entry in entries.items() if entry["default"]]
    require(len(chosen) < 2, "default", ", ".join(chosen), "one entry only")


def _check_version(where: str, record: Any, require) -> None:
    require(isinstance(record, dict), where, record, "a mapping with files, licence, cite")
    licence = record.setdefault("licence", "")
    require(_is_text(licence), f"licence of {where}", licence, "text")
    score = record.setdefault("score", "")
    require(_is_text(score), f"score of {where}", score, "text")
    for key in ("inputs", "outputs"):
        listed = record.setdefault(key, [])
        good = isinstance(listed, list) and all(map(_is_text, listed))
        require(good, f"{key} of {where}", listed, "a list of names")
    listed = record.setdefault("cite", [])
    good = isinstance(listed, list) and all(
        isinstance(item, dict) and set(item) == {"key", "why"} and all(map(_is_text, item.values()))
        for item in listed
    )
    require(good, f"cite of {where}", listed, "a list of {key: TEXT, why: TEXT}")
    files = record.get("files")
    good = isinstance(files, list) and bool(files)
    require(good, f"files of {where}", files, "a list of files")
    for item in files:
        require(isinstance(item, dict), f"a file of {where}", item, "a mapping with file, sha256")
        file = item.get("file")
        good = isinstance(file, str) and bool(_FILE.match(file))
        require(good, f"file of {where}", file, "a file name without folders")
        what = f"{file} of {where}"
        digest = item.get("sha256")
        good = isinstance(digest, str) and bool(_SHA256.match(digest))
        require(
            good, f"sha256 of {what}", digest, "64 hexadecimal digits, in quotes if all are 0-9"
        )
        size, most = item.get("bytes"), FILE_BYTES
        good = isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= most
        require(good, f"bytes of {what}", size, f"a whole number, at most {most}")
        pixel, (low, high) = item.get("pixel_arcmin"), PIXELS_ARCMIN
        good = isinstance(pixel, (int, float)) and not isinstance(pixel, bool)
        good = good and low <= pixel <= high
        require(good, f"pixel_arcmin of {what}", pixel, f"a number from {low:g} to {high:g}")
        urls = item.setdefault("urls", [])
        good = isinstance(urls, list) and all(map(_is_text, urls))
        require(good, f"urls of {what}", urls, "a list of addresses")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= TEXT


def _unreadable(path: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or error
    where = short(os.fspath(path), 300)[1:-1]
    return f"registry {where}: cannot be read ({reason}); check MLSKY_REGISTRY or registry="


def _check_plain(text: str) -> None:
    """Refuse anchors, aliases and repeated keys, before the text is parsed.

    Raises
    ------
    ValueError
        For anchors, aliases, more levels than `LEVELS`, and a key that a mapping has twice.
    """
    # of each level: the keys so far of a mapping, None of a list; and whether a key comes next
    levels: list[set[str] | None] = []
    key_next: list[bool] = []

    def one(event: yaml.Event, key: str | None) -> None:
        if not levels or levels[-1] is None:
            return
        if key_next[-1]:
            if key is None:
                raise ValueError(f"{_place(event)}: a key that is no text")
            if key in levels[-1]:
                raise ValueError(f"{_place(event)}: {short(key)} is there twice")
            levels[-1].add(key)
        key_next[-1] = not key_next[-1]

    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ValueError(f"{_place(event)}: anchors and aliases are not read")
        if isinstance(event, yaml.ScalarEvent):
            one(event, event.value)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            one(event, None)
            levels.append(set() if isinstance(event, yaml.MappingStartEvent) else None)
            key_next.append(True)
            if len(levels) > LEVELS:
                raise ValueError(f"{_place(event)}: more than {LEVELS} levels")
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            levels.pop()
            key_next.pop()


def _place(event: yaml.Event) -> str:
    return f"line {event.start_mark.line + 1}"
