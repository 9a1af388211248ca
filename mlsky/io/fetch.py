"""Files identified by their sha256: where copies are looked for, and how one is fetched.

A file is an *item*: a mapping with ``file``, its name; ``sha256``; ``urls``, addresses that are
tried in order; and ``bytes``, its size, beyond which nothing is read from a server. The hash of
every copy is checked. Copies are looked for in

1. ``MLSKY_DATA_DIR``, a folder of your own (a wrong file there is an error, not skipped);
2. the cache, ``MLSKY_CACHE_DIR`` or the user's cache folder;
3. ``weights/`` beside the registry, and inside the installed package;
4. the item's urls, then ``MLSKY_WEIGHTS_URL``, the address of a folder with the files of
   ``data/weights`` of the repository; what is found there is put into the cache by pooch.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlsky.errors import MissingDependencyError, RegistryError
from mlsky.io import locks

__all__ = ["cache_dir", "fetch", "local_copies", "package_data", "places", "require", "sha256_of"]

#: Seconds without a response after which a server is given up, the lowest speed in bytes per
#: second, and the largest size of a file of unknown size: our choice.
PATIENCE, SLOWEST, BYTES = 30.0, 10_000.0, 2**30
#: What to do if a file cannot be found.
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
            f"{what}: {item['file']} was not found on this machine and has no url; {_MEND}"
        )
    return good, addresses


def _is_there(path: Path) -> bool:
    """Whether there is a file that this process may read."""
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
    """Fetch an item into the cache; of several processes that want it, only one does."""
    try:
        import pooch
    except ImportError:
        raise MissingDependencyError(
            f"{what}: fetching {item['file']} needs pooch: pip install 'mlsky[fetch]', or {_MEND}"
        ) from None
    target = _cached(item["file"], item["sha256"])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locks.holding(target.parent, f"fetches {item['file']}"):
            return _retrieve(pooch, what, item, target)
    except OSError as error:
        raise RegistryError(
            f"{what}: {item['file']} cannot be kept in {target.parent} ({error.strerror}); name "
            "another folder by MLSKY_CACHE_DIR"
        ) from None


def _retrieve(pooch, what: str, item: Mapping[str, Any], target: Path) -> Path:
    """The file in the cache, from the first address that has it."""
    reasons = []
    for url in _addresses(item):
        try:
            # looks first whether it is there by now
            found = pooch.retrieve(
                url,
                known_hash=f"sha256:{item['sha256']}",
                fname=target.name,
                path=target.parent,
                downloader=functools.partial(_read_url, most=item.get("bytes", BYTES)),
            )
        # requests' errors are OSErrors; a wrong hash or address is a ValueError.
        except (OSError, ValueError) as error:
            reasons.append(f"{url}: {' '.join(str(error).split())}")
        else:
            return Path(found)
    raise RegistryError(f"{what}: {item['file']} cannot be fetched ({'; '.join(reasons)})")


def _read_url(url: str, path: str, pooch: object, *, most: int) -> None:
    """Download an address to a file: at most `most` bytes, within a limited time.

    Raises
    ------
    OSError
        If there is more, the server is slower than `SLOWEST`, or says nothing for `PATIENCE`.
    ValueError
        If the address is of another kind than http, https and doi.
    """
    seconds, ended, errors = PATIENCE + most / SLOWEST, threading.Event(), []

    def read() -> None:
        try:
            _copy(_of_doi(url) if url.startswith("doi:") else url, path, most, ended)
        except (OSError, ValueError) as error:
            errors.append(error)

    # A server can make every single step of a connection last: a thread that can be left behind.
    thread = threading.Thread(target=read, daemon=True, name="mlsky-fetch")
    thread.start()
    thread.join(seconds)
    ended.set()
    if thread.is_alive():
        raise OSError(f"takes longer than {seconds:.0f} s; given up")
    if errors:
        raise errors[0]


def _copy(url: str, path: str, most: int, ended: threading.Event) -> None:
    """Copy the response of a web address until it ends or its time is over."""
    import requests

    if not url.startswith(("http://", "https://")):
        raise ValueError("must begin with http://, https:// or doi:")
    left = most
    with requests.get(url, stream=True, timeout=PATIENCE) as response, open(path, "wb") as file:
        response.raise_for_status()
        for chunk in response.iter_content(2**16):
            left -= len(chunk)
            if left < 0:
                raise OSError(f"gives more than the {most} bytes of the file")
            if ended.is_set():
                return
            file.write(chunk)


def _of_doi(url: str) -> str:
    """Address of a file of a data repository, "doi:10.5281/zenodo.4924875/name"."""
    from pooch.downloaders import doi_to_repository

    doi, _, name = url.removeprefix("doi:").strip("/").rpartition("/")
    return doi_to_repository(doi, timeout=PATIENCE).download_url(name)
