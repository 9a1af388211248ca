"""Worker processes that may die: a task whose worker was killed goes to a new one.

`concurrent.futures.ProcessPoolExecutor` gives up all its tasks when one worker dies, and its
workers stay behind, at work, when the process that started them is killed. Skies take minutes and
much memory, so both happen: the system ends a process for want of memory, a batch job ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from multiprocessing import connection

from mlsky.errors import MlskyError

__all__ = ["TRIES", "Processes"]

#: Workers that may die over one task before it is given up; our choice.
TRIES = 3

#: Seconds that a worker has to end before it is killed.
GRACE_S = 5.0


class Processes(Executor):
    """Run tasks in processes of this machine, each started afresh ("spawn").

    Parameters
    ----------
    workers
        Number of processes; each is started when a task first needs it, and again if it dies.

    Notes
    -----
    A worker ends by itself when the process that started it is no more. `shutdown` does not wait
    for tasks: it ends the workers at once.
    """

    def __init__(self, workers: int) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="mlsky-worker")
        self._free: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        for _ in range(workers):
            self._free.put(None)
        self._lock = threading.Lock()
        self._started: set[_Worker] = set()
        self._closed = False

    def submit(self, function, /, *args, **kwargs) -> Future:
        """As in `concurrent.futures.Executor`; function, arguments and result are pickled.

        The future raises MlskyError if `TRIES` workers died over the task, or none can be started.
        """
        return self._threads.submit(self._run, (function, args, kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End all workers, at work or not; tasks that wait are cancelled."""
        with self._lock:
            self._closed = True
            started, self._started = self._started, set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in started:
            worker.end()
        self._threads.shutdown(wait=wait, cancel_futures=True)

    def _run(self, task: tuple):
        """Give a task to a free worker, in a thread of its own, and to others if that dies."""
        worker = self._free.get()
        status = None
        try:
            for _ in range(TRIES):
                try:
                    if worker is None:
                        worker = self._start()
                    done, result = worker.call(task)
                except _DiedError as error:
                    status = error.status
                    self._started.discard(worker)
                    worker = None
                    continue
                if done:
                    return result
                raise result
            raise MlskyError(
                f"{TRIES} workers died over it, the last with exit status {status}; the system "
                "ends processes for want of memory: start fewer workers, or look at its log"
            )
        finally:
            self._free.put(worker)

    def _start(self) -> _Worker:
        with self._lock:
            if self._closed:
                raise MlskyError("the workers were ended")
            worker = _Worker()
            self._started.add(worker)
        try:
            worker.receive()
        except _DiedError as error:
            self._started.discard(worker)
            if error.status is not None and error.status >= 0:  # not killed
                raise MlskyError(
                    f"a worker could not start (exit status {error.status}): a script that starts "
                    "workers needs `if __name__ == '__main__':` round the call"
                ) from None
            raise
        return worker


class _DiedError(Exception):
    """A worker is no more; `status` is its exit status, minus the signal that killed it."""

    def __init__(self, status: int | None) -> None:
        super().__init__(status)
        self.status = status


class _Worker:
    """One process and the pipe to it, which closes when the process ends, however it ends."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        try:
            self._process.start()
        except BrokenPipeError:  # killed before it had read what to do
            raise _DiedError(None) from None
        finally:
            theirs.close()

    def receive(self):
        """What the worker sends next."""
        try:
            return self._pipe.recv()
        except (EOFError, OSError):
            raise self._died() from None

    def call(self, task: tuple) -> tuple[bool, object]:
        """Whether the task was done, and its result or exception."""
        try:
            self._pipe.send(task)
        except OSError:
            raise self._died() from None
        return self.receive()

    def _died(self) -> _DiedError:
        self._process.join(GRACE_S)  # its pipe closes a moment before it ends
        return _DiedError(self.end())

    def end(self) -> int | None:
        """End the process, if it has not ended; its exit status."""
        self._process.terminate()
        self._process.join(GRACE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(GRACE_S)
        return self._process.exitcode


def _serve(pipe: connection.Connection) -> None:
    """What a worker does: tasks from the pipe, until it closes."""
    # Ctrl-C reaches every process of a terminal; the one that started this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pipe.send(None)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            function, args, kwargs = pipe.recv()
            try:
                answer = (True, function(*args, **kwargs))
            except Exception as error:
                answer = (False, error)
            try:
                pipe.send(answer)
            except OSError:  # nobody is there to read it
                raise
            except Exception as error:  # it cannot be pickled, of which there are many ways
                found = answer[1] if not answer[0] else error
                pipe.send((False, MlskyError(f"{type(found).__name__}: {found}")))


def _end_with_parent() -> None:
    """End this process when the one that started it is no more."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
