"""The registry of weights: which versions exist, how good they are, what to cite.

``data/registry.yaml`` lists the versions of each entry, and the files of each version with their
sha256, which is always checked (`mlsky.io.fetch`). A file beside the weights, the `report` of a
version, says how and on what it was trained, and lists all its scores.

``MLSKY_REGISTRY``, or ``registry=`` of any function here, names a registry of your own.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlsky import old_names
from mlsky.errors import RegistryError
from mlsky.io import fetch as copies
from mlsky.io import locks, plain_json, registry_file
from mlsky.io.fetch import cache_dir
from mlsky.io.files import open_regular, whole, write_whole
from mlsky.io.registry_file import DEFAULT

__all__ = [
    "Check",
    "add",
    "cache_dir",
    "cite",
    "describe",
    "fetch",
    "names",
    "of_file",
    "report",
    "verify",
    "versions",
]

#: What the report of a version says; registries of earlier versions have it in the YAML itself.
REPORTED = ("recipe", "data", "scores")
#: The largest report, our choice; those of the package have 30 kB.
REPORT_BYTES = 2**24


@dataclass(frozen=True)
class Check:
    """Result of `verify` for one file."""

    name: str
    version: str
    file: str
    sha256: str
    #: Good local copies, in the order they would be taken; empty if it must be fetched.
    paths: tuple[Path, ...]
    urls: tuple[str, ...]


def names(registry: str | os.PathLike | None = None) -> list[str]:
    """Names of all entries, in the registry's order."""
    return list(registry_file.read(_registry_path(registry)))


def versions(name: str = DEFAULT, registry: str | os.PathLike | None = None) -> list[str]:
    """Versions of an entry, oldest first."""
    entries = registry_file.read(_registry_path(registry))
    name, _ = _find(entries, name, None)
    return _ordered(entries[name]["versions"])


def describe(
    name: str = DEFAULT, version: str | None = None, registry: str | os.PathLike | None = None
) -> dict[str, Any]:
    """The entry of one version.

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
    entries = registry_file.read(_registry_path(registry))
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
        As `describe`; or the report is not on this machine, or cannot be read.
    """
    path = _registry_path(registry)
    entries = registry_file.read(path)
    name, version = _find(entries, name, version)
    record = entries[name]["versions"][version]
    if any(key in record for key in REPORTED):
        found = {key: record.get(key, {}) for key in REPORTED}
        return old_names.header(found)
    file = _report_file(name, version)
    for place in copies.places(path.parent, file):
        try:
            with open_regular(place, REPORT_BYTES) as file:
                found = plain_json.loads(file.read())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise RegistryError(f"{place}: cannot be read ({error}); take it anew") from None
        if not isinstance(found, dict):
            raise RegistryError(f"{place}: cannot be read (no mapping); take it anew")
        return old_names.header(found)
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
    entries = registry_file.read(path)
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


def of_file(sha256: str, registry: str | os.PathLike | None = None) -> str | None:
    """The version that a file of this hash is of, as "name@v1"; None if there is none.

    Raises
    ------
    RegistryError
        If the registry cannot be read.
    """
    for name, entry in registry_file.read(_registry_path(registry)).items():
        for version, record in entry["versions"].items():
            if any(item["sha256"] == sha256 for item in record["files"]):
                return f"{name}@{version}"
    return None


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
    if not registry_file.NAME.match(name) or name == DEFAULT:
        raise ValueError(f"name={name!r}: must be letters, digits, . _ - and not {DEFAULT!r}")
    try:
        # Plain values only: what is written must be read back.
        record = json.loads(
            json.dumps(
                {
                    "licence": licence,
                    "cite": list(cite),
                    "inputs": list(inputs),
                    "outputs": list(outputs),
                    "score": str(score),
                },
                allow_nan=False,
            )
        )
        report = {"recipe": dict(recipe), "data": dict(data), "scores": dict(scores)}
        report_text = json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: must be plain finite values ({error})") from None
    given = [_item(file) for file in files]
    record = {"files": [item for _, item in given], **record}
    path.parent.mkdir(parents=True, exist_ok=True)
    with locks.holding(path.parent, f"adds to {path.name}"):
        entries = registry_file.read_anew(path) if path.exists() else {}
        version = _enter(entries, name, kind, version, default, record)
        registry_file.check(path, entries)
        weights = path.parent / "weights"
        missing = [source for source, item in given if not _is_copied(source, weights, item)]
        text = _comment(path) + registry_file.dump(entries)
        weights.mkdir(exist_ok=True)
        for source in missing:
            with whole(weights / source.name) as temporary:
                shutil.copyfile(source, temporary)
        write_whole(weights / _report_file(name, version), report_text.encode())
        write_whole(path, text.encode())
    return version


def _item(given: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """A file to be published, and what the registry says of it."""
    source = Path(given["path"])
    digest = copies.sha256_of(source)
    return source, {
        "file": source.name,
        "sha256": digest,
        "bytes": source.stat().st_size,
        "pixel_arcmin": float(given["pixel_arcmin"]),
        "urls": list(given.get("urls", ())),
    }


def _is_copied(source: Path, weights: Path, item: Mapping[str, Any]) -> bool:
    """Whether a file is among the weights already; another one of its name is refused."""
    target = weights / source.name
    if not target.exists():
        return False
    if copies.sha256_of(target) != item["sha256"]:
        raise ValueError(
            f"{source.name}: weights/ has another file of that name; rename the new one, for "
            f"example {source.stem}-new{source.suffix}"
        )
    return True


def _enter(
    entries: dict[str, Any],
    name: str,
    kind: str,
    version: str | None,
    default: bool,
    record: dict[str, Any],
) -> str:
    """Put a version into the entries of a registry; its name."""
    entry = entries.setdefault(name, {"kind": kind, "default": False, "versions": {}})
    if entry["kind"] != kind:
        raise ValueError(f"kind={kind!r}: {name} is of kind {entry['kind']!r}; take another name")
    taken = entry["versions"]
    if version is None:
        version = f"v{max((int(v[1:]) for v in taken), default=0) + 1}"
    if not registry_file.VERSION.match(version) or version in taken:
        raise ValueError(
            f"version={version!r} of {name}: must be v1, v2, ... and new "
            f"(there is {', '.join(_ordered(taken)) or 'none'}); published versions are not edited"
        )
    taken[version] = record
    if default:
        for other in entries.values():
            other["default"] = False
        entry["default"] = True
    return version


def _comment(path: Path) -> str:
    """The lines of comment that a registry begins with."""
    if not path.exists():
        return "# A registry of mlsky weights.\n"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join(lines[:end])


def _registry_path(registry: str | os.PathLike | None) -> Path:
    if registry is not None:
        return Path(registry)
    own = os.environ.get("MLSKY_REGISTRY")
    return Path(own).expanduser() if own else copies.package_data() / "registry.yaml"


def _report_file(name: str, version: str) -> str:
    return f"{name}-{version}.json"


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
