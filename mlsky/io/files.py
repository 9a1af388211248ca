"""Atomic writing of files, and checks of free disk space."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "TEMPORARY",
    "check_disk",
    "open_regular",
    "real",
    "temporary_name",
    "whole",
    "write_whole",
]

#: How the names of `temporary_name` begin; those of earlier versions had eight digits.
TEMPORARY = re.compile(r"\.(?:[0-9a-f]{18}|[0-9a-f]{8})\.")
#: Bytes of a file's name that are kept in its temporary name, so that file systems take it (255).
NAME_BYTES = 230


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it at the end; removed if anything fails.

    A reader never sees half a file, and a file that was there before stays until the new one is
    on the disk: its bytes are flushed before the name changes. What a process that was killed left
    of the same file is removed.

    Yields
    ------
    temporary
        A name in the same folder that no file has, with the suffix of `path`.
    """
    path = real(path)
    _remove_abandoned(path)
    temporary = temporary_name(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def real(path: str | os.PathLike) -> Path:
    """The file that a path names; for a symbolic link, its target, whether it exists or not.

    A user who links an output to another disk wants it there, and the link kept.
    """
    path = Path(path)
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def temporary_name(path: Path) -> Path:
    """A name in the folder of `path` that no file has, with its suffix.

    It says on which machine and by which process the file is written.
    """
    writer = f"{_machine()}{os.getpid() % 2**24:06x}{secrets.token_hex(2)}"
    return path.with_name(f".{writer}.{_short_name(path)}")


def _remove_abandoned(path: Path) -> None:
    """Remove what processes of this machine that are no more have left of a file."""
    if not os.path.isdir("/proc/self"):  # no way to know which processes there are
        return
    with contextlib.suppress(OSError):
        for entry in os.scandir(path.parent):
            found = TEMPORARY.match(entry.name)
            if not found or entry.name[found.end() :] != _short_name(path) or len(found[0]) < 20:
                continue
            machine, process = found[0][1:9], found[0][9:15]
            if machine == _machine() and not os.path.exists(f"/proc/{int(process, 16)}"):
                os.unlink(entry.path)


def _short_name(path: Path) -> str:
    """The end of a file's name, so that more fits before it."""
    name = path.name
    while len(os.fsencode(name)) > NAME_BYTES:
        name = name[1:]
    return name


@functools.cache
def _machine() -> str:
    """Eight digits that another machine, boot or container is all but sure not to have."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def open_regular(path: str | os.PathLike, most: int) -> BinaryIO:
    """Open a regular file for reading, of at most `most` bytes.

    Reading a pipe without a writer would wait for ever, and a device never ends.

    Raises
    ------
    OSError
        If it cannot be opened, is not a regular file, or is larger.
    ValueError
        If the path holds a NUL.
    """
    file = open(path, "rb", opener=_open_at_once)
    found = os.fstat(file.fileno())
    if stat.S_ISREG(found.st_mode) and found.st_size <= most:
        return file
    file.close()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    raise OSError(errno.EFBIG, f"has {found.st_size} bytes, at most {most} are read", str(path))


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def write_whole(path: str | os.PathLike, data: bytes) -> None:
    """Write bytes to a file atomically."""
    with whole(path) as temporary:
        temporary.write_bytes(data)


def check_disk(part: Path, need: float, remedy: str) -> None:
    """Check that the rest of `need` bytes, of which `part` holds some, fits on the disk.

    Raises
    ------
    ValueError
        If it does not.
    """
    have = part.stat().st_size if part.exists() else 0
    free = shutil.disk_usage(part.parent).free
    # 1 % and a MiB for the structure of the file
    rest = need * 1.01 + 2**20 - have
    if rest > free:
        raise ValueError(
            f"{part.parent}: {rest / 2**30:.2f} GiB needed and {free / 2**30:.2f} GiB free; "
            f"make room, or {remedy}"
        )
