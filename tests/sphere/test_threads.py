"""mlsky.sphere.threads: how many threads, and blocks that do not depend on them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from mlsky.sphere import threads as threads_module
from mlsky.sphere.threads import run_blocks, threads, trim_memory


def _in_child(queue) -> None:
    out = np.zeros(50)

    def work(s):
        out[s] = 1

    run_blocks(work, 50, 2, block=10)
    queue.put(out.sum())


def test_threads_are_those_asked_for(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")  # by nesting level
    assert threads() == 2
    for nonsense in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", nonsense)
        assert threads() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("nthreads", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 10, 95])
def test_every_block_is_worked_on_once(nthreads, n):
    seen = []
    run_blocks(seen.append, n, nthreads, block=10)
    assert sorted(s.start for s in seen) == list(range(0, n, 10))
    assert sum(s.stop - s.start for s in seen) == n


def test_errors_are_passed_on():
    def fail(s):
        raise ZeroDivisionError

    for _ in range(2):  # the pool outlives an error
        with pytest.raises(ZeroDivisionError):
            run_blocks(fail, 100, 2, block=10)


def test_the_pool_is_kept():
    def count():
        run_blocks(lambda s: None, 100, 2, block=10)
        return threading.active_count()

    first = count()
    assert [count() for _ in range(5)] == [first] * 5


def test_blocks_inside_blocks_do_not_wait_for_ever():
    out = np.zeros((4, 30))

    def outer(s):
        def inner(t):
            out[s, t] += 1

        run_blocks(inner, 30, 2, block=10)

    run_blocks(outer, 4, 2, block=1)
    assert np.all(out == 1)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it has threads: so it is
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
def test_a_forked_process_has_a_pool_of_its_own():
    run_blocks(lambda s: None, 100, 2, block=10)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    child.join(20)
    alive = child.is_alive()
    if alive:
        child.kill()
    assert not alive
    assert queue.get() == 50


def test_memory_is_given_back_where_the_system_can(monkeypatch):
    """And nothing happens where its C library has no such call."""
    asked = []
    library = SimpleNamespace(malloc_trim=asked.append)
    monkeypatch.setattr(threads_module.ctypes, "CDLL", lambda name: library)
    trim_memory()
    assert asked == [0]
    monkeypatch.setattr(threads_module.ctypes, "CDLL", lambda name: SimpleNamespace())
    trim_memory()
