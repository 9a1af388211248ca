"""Locks on folders, for one process at a time."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["holding", "release", "take"]

LOG = logging.getLogger("mlsky")


def take(folder: Path, what: str, wait: bool = False) -> int | None:
    """Lock a folder until `release`, or until this process ends, however it ends.

    Parameters
    ----------
    folder
        It exists. The lock is on the folder itself and leaves no file.
    what
        What other processes must not do, for the warning where there are no locks.
    wait
        Whether to wait for the process that holds it.

    Returns
    -------
    number
        For `release`; None where the system or the file system has no locks, with a warning.

    Raises
    ------
    BlockingIOError
        If another process, or this one, holds it.
    OSError
        If the folder cannot be opened.
    """
    try:
        import fcntl
    except ImportError:  # not POSIX
        return None
    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        os.close(number)
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            raise BlockingIOError(error.errno, "in use", str(folder)) from None
        LOG.warning(
            "%s: this file system has no locks (%s): see to it that no other process %s",
            folder,
            error.strerror,
            what,
        )
        return None
    except BaseException:
        os.close(number)
        raise
    return number


def release(number: int | None) -> None:
    """Release a folder."""
    if number is not None:
        os.close(number)


@contextlib.contextmanager
def holding(folder: Path, what: str) -> Iterator[None]:
    """Hold the lock of a folder, waiting for it first; errors as for `take`."""
    number = take(folder, what, wait=True)
    try:
        yield
    finally:
        release(number)
