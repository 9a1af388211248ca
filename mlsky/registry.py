"""The registry of weights: which exist, where they are, what they are worth, what to cite.

``data/registry.yaml`` says of each name its versions, and of each version its files with
their sha256, which is checked whatever the place a file comes from. A file is looked for in

1. ``MLSKY_DATA_DIR``, a folder of your own (a wrong file there is an error, not skipped);
2. the cache, ``MLSKY_CACHE_DIR`` or the user's cache folder;
3. ``weights/`` beside the registry and inside the installed package;
4. the registry's urls, fetched into the cache by pooch.

``MLSKY_REGISTRY``, or ``registry=`` of any function here, names a registry of your own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlsky.errors import MissingDependencyError, RegistryError
from mlsky.io.files import whole, write_whole

__all__ = ["Check", "add", "cache_dir", "cite", "describe", "fetch", "names", "verify", "versions"]

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_VERSION = re.compile(r"v([1-9][0-9]*)\Z")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*\Z")
# A file name, never a path: a registry must not reach outside its folders.
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")
#: The name that stands for the entry marked so.
DEFAULT = "default"


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
        name, kind, default, version, files, licence, cite, inputs, outputs, recipe, data,
        scores.

    Raises
    ------
    RegistryError
        If the name or version is unknown (the message lists what there is), or the
        registry itself cannot be read.
    """
    entries = _read(_registry_path(registry))
    name, version = _find(entries, name, version)
    entry = entries[name]
    return {
        "name": name,
        "kind": entry.get("kind"),
        "default": bool(entry.get("default", False)),
        "version": version,
        **entry["versions"][version],
    }


def fetch(
    name: str = DEFAULT, version: str | None = None, registry: str | os.PathLike | None = None
) -> list[Path]:
    """Local paths of a version's files, in the registry's order; fetched if need be.

    Parameters are those of `describe`.

    Raises
    ------
    RegistryError
        As `describe`; or no copy with the right sha256 can be had.
    MissingDependencyError
        If a file must be fetched and pooch is not installed.
    """
    path = _registry_path(registry)
    entry = describe(name, version, path)
    return [_fetch(path, f"{entry['name']} {entry['version']}", item) for item in entry["files"]]


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
            what = f"{entry_name} {version}"
            good = tuple(p for p in _places(path, item) if p.is_file())
            for copy in good:
                _require(copy, item, what)
            if not good and not item["urls"]:
                raise RegistryError(
                    f"{what}: {item['file']} is nowhere to be found and has no url; put it into "
                    "a folder named by MLSKY_DATA_DIR"
                )
            checks.append(
                Check(entry_name, version, item["file"], item["sha256"], good, tuple(item["urls"]))
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
    kind, licence, cite, inputs, outputs, recipe, data, scores
        As in the comment of ``data/registry.yaml``; plain JSON values.
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
    entries = _read(path) if path.exists() else {}
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
    copies, items = [], []
    for given in files:
        source = Path(given["path"])
        target = path.parent / "weights" / source.name
        digest = _sha256(source)
        if target.exists() and _sha256(target) != digest:
            raise ValueError(
                f"{source.name}: weights/ has another file of that name; rename the new one, "
                f"for example {source.stem}-{version}{source.suffix}"
            )
        copies.append((source, target))
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
                    "recipe": dict(recipe),
                    "data": dict(data),
                    "scores": dict(scores),
                },
                allow_nan=False,
            )
        )
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
    for source, target in copies:
        if not target.exists():
            with whole(target) as temporary:
                shutil.copyfile(source, temporary)
    write_whole(path, text.encode())
    return version


def cache_dir() -> Path:
    """Folder of everything fetched or computed once: ``MLSKY_CACHE_DIR`` or the user's cache."""
    own = os.environ.get("MLSKY_CACHE_DIR")
    if own:
        return Path(own).expanduser()
    try:
        import pooch
    except ImportError:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlsky"
    return Path(pooch.os_cache("mlsky"))


def _registry_path(registry: str | os.PathLike | None) -> Path:
    if registry is not None:
        return Path(registry)
    own = os.environ.get("MLSKY_REGISTRY")
    return Path(own).expanduser() if own else _package_data() / "registry.yaml"


def _package_data() -> Path:
    """Folder of the shipped files; beside the package in a checkout that is not installed."""
    spec = importlib.util.find_spec("mlsky.data")
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(__file__).resolve().parents[1] / "data"


def _read(path: Path) -> dict[str, Any]:
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryError(
            f"registry {path}: cannot be read ({error}); check MLSKY_REGISTRY or registry="
        ) from None
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


def _places(registry: Path, item: Mapping[str, Any]) -> list[Path]:
    """Where a file may be, in the order it is looked for."""
    own = os.environ.get("MLSKY_DATA_DIR")
    places = [Path(own).expanduser() / item["file"]] if own else []
    places += [
        _cached(item),
        registry.parent / "weights" / item["file"],
        _package_data() / "weights" / item["file"],
    ]
    return list(dict.fromkeys(place.absolute() for place in places))


def _cached(item: Mapping[str, Any]) -> Path:
    # The hash in the path: two registries may use one file name for two files.
    return cache_dir() / "weights" / item["sha256"][:16] / item["file"]


def _fetch(registry: Path, what: str, item: Mapping[str, Any]) -> Path:
    own = os.environ.get("MLSKY_DATA_DIR")
    wrong = []
    for place in _places(registry, item):
        if not place.is_file():
            continue
        try:
            _require(place, item, what)
        except RegistryError as error:
            if own and place.parent == Path(own).expanduser().absolute():
                raise
            wrong.append(str(error))
            continue
        return place
    if item["urls"]:
        return _download(what, item)
    if wrong:
        raise RegistryError(wrong[0])
    raise RegistryError(
        f"{what}: {item['file']} is not on this machine and the registry gives no url; put it "
        "into a folder named by MLSKY_DATA_DIR"
    )


def _download(what: str, item: Mapping[str, Any]) -> Path:
    try:
        import pooch
    except ImportError:
        raise MissingDependencyError(
            f"{what}: fetching {item['file']} needs pooch; pip install pooch, or put the file "
            "into a folder named by MLSKY_DATA_DIR"
        ) from None
    target = _cached(item)
    reasons = []
    for url in item["urls"]:
        try:
            return Path(
                pooch.retrieve(
                    url,
                    known_hash=f"sha256:{item['sha256']}",
                    fname=target.name,
                    path=target.parent,
                )
            )
        # requests' errors are OSErrors; a wrong hash or address is a ValueError.
        except (OSError, ValueError) as error:
            reasons.append(f"{url}: {' '.join(str(error).split())}")
    raise RegistryError(f"{what}: {item['file']} cannot be fetched ({'; '.join(reasons)})")


def _require(path: Path, item: Mapping[str, Any], what: str) -> None:
    digest = _sha256(path)
    if digest != item["sha256"]:
        size = path.stat().st_size
        wanted = item.get("bytes")
        state = f"has {size} of {wanted} bytes" if wanted and wanted != size else "is altered"
        raise RegistryError(
            f"{what}: {path} {state} (sha256 {digest[:16]}..., not {item['sha256'][:16]}...); "
            "delete it and fetch it again"
        )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RegistryError(f"{path}: cannot be read ({error.strerror})") from None
