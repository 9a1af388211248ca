"""The registry of weights: which exist, what they are worth, what to cite.

``data/registry.yaml`` says of each name its versions, and of each version its files with their
sha256, which is checked whatever the place a file comes from (`mlsky.io.fetch`). How a version was
trained, on what, and all its scores are in a file beside the weights, its `report`.

``MLSKY_REGISTRY``, or ``registry=`` of any function here, names a registry of your own.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlsky import old_names
from mlsky.errors import RegistryError
from mlsky.io import fetch as copies
from mlsky.io.fetch import cache_dir
from mlsky.io.files import whole, write_whole

__all__ = [
    "Check",
    "add",
    "cache_dir",
    "cite",
    "describe",
    "fetch",
    "names",
    "report",
    "verify",
    "versions",
]

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_VERSION = re.compile(r"v([1-9][0-9]*)\Z")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*\Z")
# A file name, never a path: a registry must not reach outside its folders.
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
#: The name that stands for the entry marked so.
DEFAULT = "default"
#: What the report of a version says; registries of earlier versions have it in the YAML itself.
REPORTED = ("recipe", "data", "scores")


@dataclass(frozen=True)
class Check:
    """What `verify` found of one file of one version."""

    name: str
    version: str
    file: str
    sha256: str
    #: Good local copies, in the order they would be taken; empty if it must be fetched.
    paths: tuple[Path, ...]
    urls: tuple[str, ...]


def names(registry: str | os.PathLike | None = None) -> list[str]:
    """Names of all entries, in the registry's order."""
    return list(_read(_registry_path(registry)))


def versions(name: str = DEFAULT, registry: str | os.PathLike | None = None) -> list[str]:
    """Versions of an entry, oldest first."""
    entries = _read(_registry_path(registry))
    name, _ = _find(entries, name, None)
    return _ordered(entries[name]["versions"])


def describe(
    name: str = DEFAULT, version: str | None = None, registry: str | os.PathLike | None = None
) -> dict[str, Any]:
    """All the registry says of one version.

    Parameters
    ----------
    name
        An entry, ``"default"``, or ``"name@v1"``.
    version
        Such as "v1"; the highest by default.
    registry
        A registry file of your own.

    Returns
    -------
    dict
        name, kind, default, version, files, licence, cite, inputs, outputs, score (one line). For
        more of a version see `report`.

    Raises
    ------
    RegistryError
        If the name or version is unknown (the message lists what there is), or the
        registry itself cannot be read.
    """
    entries = _read(_registry_path(registry))
    name, version = _find(entries, name, version)
    entry = entries[name]
    record = {k: v for k, v in entry["versions"][version].items() if k not in REPORTED}
    return {
        "name": name,
        "kind": entry.get("kind"),
        "default": bool(entry.get("default", False)),
        "version": version,
        **copy.deepcopy(record),  # the registry itself is kept
    }


def report(
    name: str = DEFAULT, version: str | None = None, registry: str | os.PathLike | None = None
) -> dict[str, Any]:
    """How a version was trained (``recipe``), on what (``data``), and its ``scores``.

    Parameters are those of `describe`.

    Raises
    ------
    RegistryError
        As `describe`; or the report is on no place of this machine, or cannot be read.
    """
    path = _registry_path(registry)
    entries = _read(path)
    name, version = _find(entries, name, version)
    record = entries[name]["versions"][version]
    if any(key in record for key in REPORTED):
        told = {key: record.get(key, {}) for key in REPORTED}
        return old_names.header(told)
    file = _report_file(name, version)
    for place in copies.places(path.parent, file):
        try:
            return old_names.header(json.loads(place.read_text(encoding="utf-8")))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise RegistryError(f"{place}: cannot be read ({error}); take it anew") from None
    raise RegistryError(
        f"{name} {version}: its report {file} is not on this machine; name a folder that has it by "
        "MLSKY_DATA_DIR"
    )


def fetch(
    name: str = DEFAULT,
    version: str | None = None,
    registry: str | os.PathLike | None = None,
    file: str | None = None,
) -> list[Path]:
    """Local paths of a version's files, in the registry's order; fetched if need be.

    Parameters
    ----------
    name, version, registry
        As of `describe`.
    file
        Name of the one file that is wanted; all by default.

    Raises
    ------
    RegistryError
        As `describe`; or the version has no such file, or no copy with the right sha256 can be had.
    MissingDependencyError
        If a file must be fetched and pooch is not installed.
    """
    path = _registry_path(registry)
    entry = describe(name, version, path)
    what = f"{entry['name']} {entry['version']}"
    wanted = [item for item in entry["files"] if file in (None, item["file"])]
    if not wanted:
        have = ", ".join(item["file"] for item in entry["files"])
        raise RegistryError(f"{what}: has no file {file!r}; there are: {have}")
    return [copies.fetch(path.parent, item, what) for item in wanted]


def verify(name: str | None = None, registry: str | os.PathLike | None = None) -> list[Check]:
    """Check the sha256 of every local copy of every version; nothing is fetched.

    Parameters
    ----------
    name
        One entry, or None for all.

    Raises
    ------
    RegistryError
        If a copy is altered or truncated, or a file has neither a copy nor a url.
    """
    path = _registry_path(registry)
    entries = _read(path)
    if name is None:
        wanted = [(n, v) for n, entry in entries.items() for v in _ordered(entry["versions"])]
    else:
        found, version = _find(entries, name, None)
        wanted = [
            (found, v)
            for v in _ordered(entries[found]["versions"])
            if "@" not in name or v == version
        ]
    checks = []
    for entry_name, version in wanted:
        for item in entries[entry_name]["versions"][version]["files"]:
            good, urls = copies.local_copies(path.parent, item, f"{entry_name} {version}")
            checks.append(
                Check(entry_name, version, item["file"], item["sha256"], good, tuple(urls))
            )
    return checks


def cite(
    name: str = DEFAULT, version: str | None = None, registry: str | os.PathLike | None = None
) -> list[dict[str, str]]:
    """What to cite for a version: a list of ``{"key", "why"}``."""
    return describe(name, version, registry)["cite"]


def add(
    name: str,
    files: Iterable[Mapping[str, Any]],
    *,
    kind: str,
    licence: str,
    cite: Sequence[Mapping[str, str]],
    inputs: Sequence[str],
    outputs: Sequence[str],
    recipe: Mapping[str, Any],
    data: Mapping[str, Any],
    scores: Mapping[str, Any],
    score: str = "",
    version: str | None = None,
    default: bool = False,
    registry: str | os.PathLike | None = None,
) -> str:
    """Publish weights: copy their files into ``weights/`` beside the registry and enter them.

    Versions already there are left as they are. The registry's leading comment is kept.

    Parameters
    ----------
    name
        Entry to make, or to add a version to.
    files
        ``{"path", "pixel_arcmin", "urls" (optional)}`` each; hash and size are measured.
    kind, licence, cite, inputs, outputs, score
        As in the comment of ``data/registry.yaml``; plain JSON values.
    recipe, data, scores
        Of the `report`, which is written beside the weights; plain JSON values.
    version
        "v1", "v2", ...; the next by default.
    default
        Make this entry the one ``weights="default"`` means.
    registry
        The registry file; by default the package's own. Made if it does not exist.

    Returns
    -------
    str
        The version.

    Raises
    ------
    ValueError
        The version exists, a file's name is taken by other content, or a value is not plain.
    """
    path = _registry_path(registry)
    entries = copy.deepcopy(_read(path)) if path.exists() else {}
    if not _NAME.match(name) or name == DEFAULT:
        raise ValueError(f"name={name!r}: must be letters, digits, . _ - and not {DEFAULT!r}")
    entry = entries.setdefault(name, {"kind": kind, "default": False, "versions": {}})
    if entry["kind"] != kind:
        raise ValueError(f"kind={kind!r}: {name} is of kind {entry['kind']!r}; take another name")
    taken = entry["versions"]
    if version is None:
        version = f"v{max((int(v[1:]) for v in taken), default=0) + 1}"
    if not _VERSION.match(version) or version in taken:
        raise ValueError(
            f"version={version!r} of {name}: must be v1, v2, ... and new "
            f"(there is {', '.join(_ordered(taken)) or 'none'}); published versions are not edited"
        )
    to_copy, items = [], []
    for given in files:
        source = Path(given["path"])
        target = path.parent / "weights" / source.name
        digest = copies.sha256_of(source)
        if target.exists() and copies.sha256_of(target) != digest:
            raise ValueError(
                f"{source.name}: weights/ has another file of that name; rename the new one, "
                f"for example {source.stem}-{version}{source.suffix}"
            )
        to_copy.append((source, target))
        items.append(
            {
                "file": source.name,
                "sha256": digest,
                "bytes": source.stat().st_size,
                "pixel_arcmin": float(given["pixel_arcmin"]),
                "urls": list(given.get("urls", ())),
            }
        )
    try:
        # Plain values only: yaml.safe_load must read back what is written.
        taken[version] = json.loads(
            json.dumps(
                {
                    "files": items,
                    "licence": licence,
                    "cite": list(cite),
                    "inputs": list(inputs),
                    "outputs": list(outputs),
                    "score": str(score),
                },
                allow_nan=False,
            )
        )
        told = {"recipe": dict(recipe), "data": dict(data), "scores": dict(scores)}
        report_text = json.dumps(told, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} {version}: must be plain finite values ({error})") from None
    if default:
        for other in entries.values():
            other["default"] = False
        entry["default"] = True
    _check(path, entries)
    comment = "# A registry of mlsky weights.\n"
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
        comment = "".join(lines[:end])
    text = comment + yaml.safe_dump(entries, sort_keys=False, width=100, allow_unicode=True)
    path.parent.joinpath("weights").mkdir(parents=True, exist_ok=True)
    for source, target in to_copy:
        if not target.exists():
            with whole(target) as temporary:
                shutil.copyfile(source, temporary)
    write_whole(path.parent / "weights" / _report_file(name, version), report_text.encode())
    write_whole(path, text.encode())
    return version


def _registry_path(registry: str | os.PathLike | None) -> Path:
    if registry is not None:
        return Path(registry)
    own = os.environ.get("MLSKY_REGISTRY")
    return Path(own).expanduser() if own else copies.package_data() / "registry.yaml"


def _report_file(name: str, version: str) -> str:
    return f"{name}-{version}.json"


def _read(path: Path) -> dict[str, Any]:
    """The entries of a registry, to be read and not to be changed."""
    try:
        found = path.stat()
    except OSError as error:
        raise RegistryError(_unreadable(path, error)) from None
    return _parse(path.absolute(), found.st_mtime_ns, found.st_size)


def _unreadable(path: Path, error: Exception) -> str:
    return f"registry {path}: cannot be read ({error}); check MLSKY_REGISTRY or registry="


@functools.lru_cache(maxsize=8)
def _parse(path: Path, changed: int, size: int) -> dict[str, Any]:
    """As `_read`; once for each state of the file, told by when it was changed and its size."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryError(_unreadable(path, error)) from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise RegistryError(f"registry {path}: not YAML ({reason})") from None
    entries = {} if entries is None else entries
    _check(path, entries)
    return entries


def _check(path: Path, entries: Any) -> None:
    """The parts of the registry that are acted upon are as they must be."""

    def require(good: bool, where: str, must: str) -> None:
        if not good:
            raise RegistryError(f"registry {path}: {where} must be {must}")

    require(isinstance(entries, dict), "the whole", "a mapping of names")
    for name, entry in entries.items():
        good = isinstance(name, str) and bool(_NAME.match(name)) and name != DEFAULT
        require(good, f"name {name!r}", f"letters, digits, . _ - and not {DEFAULT!r}")
        found = entry.get("versions") if isinstance(entry, dict) else None
        require(isinstance(found, dict) and bool(found), f"versions of {name}", "a mapping")
        for version, record in found.items():
            where = f"{name} {version!r}"
            require(isinstance(version, str) and bool(_VERSION.match(version)), where, "v1, v2 ...")
            files = record.get("files") if isinstance(record, dict) else None
            require(isinstance(files, list) and bool(files), f"files of {where}", "a list")
            require(isinstance(record.setdefault("cite", []), list), f"cite of {where}", "a list")
            for item in files:
                require(isinstance(item, dict), f"a file of {where}", "a mapping")
                file = str(item.get("file"))
                what = f"{file!r} of {where}"
                require(bool(_FILE.match(file)), what, "a file name without folders")
                require(bool(_SHA256.match(str(item.get("sha256")))), f"sha256 of {what}", "64 hex")
                urls = item.setdefault("urls", [])
                good = isinstance(urls, list) and all(isinstance(url, str) for url in urls)
                require(good, f"urls of {what}", "a list of addresses")
    chosen = [name for name, entry in entries.items() if entry.get("default")]
    require(len(chosen) < 2, f"default ({', '.join(chosen)})", "one entry only")


def _ordered(found: Iterable[str]) -> list[str]:
    return sorted(found, key=lambda version: int(version[1:]))


def _find(entries: dict[str, Any], name: str, version: str | None) -> tuple[str, str]:
    """The entry and version meant."""
    listed = ", ".join(entries) or "none"
    if version is None and isinstance(name, str) and "@" in name:
        name, _, version = name.partition("@")
    if name == DEFAULT:
        name = next((n for n, entry in entries.items() if entry.get("default")), None)
        if name is None:
            raise RegistryError(
                f"weights 'default': no entry is marked default; there are: {listed}"
            )
    if name not in entries:
        raise RegistryError(f"weights {name!r}: unknown; there are: {DEFAULT}, {listed}")
    ordered = _ordered(entries[name]["versions"])
    version = ordered[-1] if version is None else version
    if version not in ordered:
        raise RegistryError(
            f"weights {name!r} version {version!r}: unknown; there are: {', '.join(ordered)}"
        )
    return name, version
