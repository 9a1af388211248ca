"""Files known by their sha256: where copies may be, and how one is fetched.

A file is an *item*: a mapping with ``file``, its name; ``sha256``; ``urls``, addresses that are
tried in order; and ``bytes``, its size, for messages alone. The hash is checked whatever the place
a copy comes from. A copy is looked for in

1. ``MLSKY_DATA_DIR``, a folder of your own (a wrong file there is an error, not skipped);
2. the cache, ``MLSKY_CACHE_DIR`` or the user's cache folder;
3. ``weights/`` beside the registry, and inside the installed package;
4. the item's urls, then ``MLSKY_WEIGHTS_URL``, the address of a folder with the files of
   ``data/weights`` of the repository; what is found there is put into the cache by pooch.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlsky.errors import MissingDependencyError, RegistryError

__all__ = ["cache_dir", "fetch", "local_copies", "package_data", "places", "require", "sha256_of"]

#: What to do about a file that is nowhere.
_MEND = (
    "name a folder that has it by MLSKY_DATA_DIR (data/weights of a checkout has all), or the "
    "address of one by MLSKY_WEIGHTS_URL"
)


def cache_dir() -> Path:
    """Folder of everything fetched or computed once: ``MLSKY_CACHE_DIR`` or the user's cache."""
    own = os.environ.get("MLSKY_CACHE_DIR")
    try:
        if own:
            return Path(own).expanduser()
        try:
            import pooch
        except ImportError:
            return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlsky"
        return Path(pooch.os_cache("mlsky")).expanduser()
    except (RuntimeError, KeyError, OSError):
        # A user without a home, as in containers and batch jobs: nothing is kept.
        return Path(os.devnull) / "mlsky"


def package_data() -> Path:
    """Folder of the shipped files; beside the package in a checkout that is not installed."""
    spec = importlib.util.find_spec("mlsky.data")
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(__file__).resolve().parents[2] / "data"


def places(folder: Path, file: str, digest: str | None = None) -> list[Path]:
    """Where a file may be on this machine, in the order it is looked for.

    Parameters
    ----------
    folder
        The registry's.
    file
        Its name.
    digest
        Its sha256. Without it the cache, where files stand under their hash, is left out.
    """
    own = os.environ.get("MLSKY_DATA_DIR")
    found = [Path(own).expanduser() / file] if own else []
    if digest is not None:
        found.append(_cached(file, digest))
    found += [folder / "weights" / file, package_data() / "weights" / file]
    return list(dict.fromkeys(place.absolute() for place in found))


def local_copies(folder: Path, item: Mapping[str, Any], what: str) -> tuple[tuple[Path, ...], list]:
    """Good copies of an item on this machine, and the addresses it could be fetched from.

    Raises
    ------
    RegistryError
        If a copy is altered or truncated, or there is neither a copy nor an address.
    """
    good = tuple(p for p in places(folder, item["file"], item["sha256"]) if _is_there(p))
    for copy in good:
        require(copy, item, what)
    addresses = _addresses(item)
    if not good and not addresses:
        raise RegistryError(
            f"{what}: {item['file']} is nowhere to be found and has no url; {_MEND}"
        )
    return good, addresses


def _is_there(path: Path) -> bool:
    """Whether there is a file that this process may read; a folder that refuses has none."""
    try:
        return path.is_file() and os.access(path, os.R_OK)
    except OSError:
        return False


def fetch(folder: Path, item: Mapping[str, Any], what: str) -> Path:
    """A good copy of an item on this machine, fetched if need be.

    Parameters
    ----------
    folder
        The registry's.
    what
        What the file is of, for messages.

    Raises
    ------
    RegistryError
        If no copy with the right sha256 can be had.
    MissingDependencyError
        If it must be fetched and pooch is not installed.
    """
    own = os.environ.get("MLSKY_DATA_DIR")
    wrong = []
    for place in places(folder, item["file"], item["sha256"]):
        if not _is_there(place):
            continue
        try:
            require(place, item, what)
        except RegistryError as error:
            if own and place.parent == Path(own).expanduser().absolute():
                raise
            wrong.append(str(error))
            continue
        return place
    if _addresses(item):
        return _download(what, item)
    if wrong:
        raise RegistryError(wrong[0])
    raise RegistryError(
        f"{what}: {item['file']} is not on this machine and the registry gives no url; {_MEND}"
    )


def require(path: Path, item: Mapping[str, Any], what: str) -> None:
    """Refuse a copy whose sha256 is not the item's."""
    digest = sha256_of(path)
    if digest != item["sha256"]:
        size = path.stat().st_size
        wanted = item.get("bytes")
        state = f"has {size} of {wanted} bytes" if wanted and wanted != size else "is altered"
        raise RegistryError(
            f"{what}: {path} {state} (sha256 {digest[:16]}..., not {item['sha256'][:16]}...); "
            "delete it and fetch it again"
        )


def sha256_of(path: Path) -> str:
    """sha256 of a file, 64 hexadecimal digits."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RegistryError(f"{path}: cannot be read ({error.strerror})") from None


def _cached(file: str, digest: str) -> Path:
    # The hash in the path: two registries may use one file name for two files.
    return cache_dir() / "weights" / digest[:16] / file


def _addresses(item: Mapping[str, Any]) -> list[str]:
    base = os.environ.get("MLSKY_WEIGHTS_URL")
    return [*item["urls"], *([f"{base.rstrip('/')}/{item['file']}"] if base else [])]


def _download(what: str, item: Mapping[str, Any]) -> Path:
    try:
        import pooch
    except ImportError:
        raise MissingDependencyError(
            f"{what}: fetching {item['file']} needs pooch: pip install 'mlsky[fetch]', or {_MEND}"
        ) from None
    target = _cached(item["file"], item["sha256"])
    reasons = []
    for url in _addresses(item):
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
