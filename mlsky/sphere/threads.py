"""Number of threads, and distribution of work to them in blocks of fixed size."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["BLOCK", "lock", "run_blocks", "threads", "trim_memory"]

#: Points worked on at a time: the temporary arrays of a block stay in a core's cache.
BLOCK = 16384

_NAME = "mlsky-blocks"


def lock() -> threading.RLock:
    """A lock for threads that is released in a forked child, which has no other threads."""
    made = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=made._at_fork_reinit)
    return made


def threads() -> int:
    """Threads to use: ``OMP_NUM_THREADS``, or every core this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def trim_memory() -> None:
    """Return freed memory to the system; glibc keeps a heap for each thread.

    After the networks of a sky at nside 4096 that is 4 GiB. Other systems do nothing here.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):  # no glibc
        pass


def run_blocks(
    work: Callable[[slice], None], n: int, nthreads: int = 0, block: int = BLOCK
) -> None:
    """Call `work` on consecutive slices of ``range(n)``, on several threads.

    Parameters
    ----------
    work
        Writes its result in place. The slices do not depend on the number of threads.
    nthreads
        0 takes `threads`.
    """
    nthreads = nthreads or threads()
    slices = [slice(i, min(i + block, n)) for i in range(0, n, block)]
    # A thread of a pool that waited for the same pool would wait for ever.
    inside = threading.current_thread().name.startswith(_NAME)
    if nthreads == 1 or len(slices) < 2 or inside:
        for s in slices:
            work(s)
        return
    for _ in _pool(nthreads, os.getpid()).map(work, slices):
        pass


@functools.lru_cache(maxsize=8)
def _pool(nthreads: int, pid: int) -> ThreadPoolExecutor:
    """A pool that is kept, as starting threads costs more than a block. A fork needs its own."""
    return ThreadPoolExecutor(nthreads, thread_name_prefix=_NAME)
