"""Worker processes: what they return and raise, and what happens when they are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from process_cases import die_at_first, unpicklable

import mlsky
from mlsky.processes import TRIES, Processes

#: Seconds within which a process of its own must have ended.
SOON = 20


def wait_for(condition):
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def workers():
    with Processes(1) as found:
        yield found


def test_results_and_errors(workers):
    first = workers.submit(os.getpid)
    assert first.result() not in (None, os.getpid())
    with pytest.raises(ZeroDivisionError):
        workers.submit(divmod, 1, 0).result()
    with pytest.raises(mlsky.MlskyError, match="lambda"):
        workers.submit(unpicklable).result()
    with pytest.raises((AttributeError, TypeError, OSError), match="lambda"):
        workers.submit(lambda: None).result()
    assert workers.submit(os.getpid).result() == first.result()  # the same process all the time


def test_a_task_goes_on_in_another_process(workers, tmp_path):
    before = workers.submit(os.getpid).result()
    assert workers.submit(die_at_first, tmp_path / "a", TRIES - 1).result() != before
    with pytest.raises(mlsky.MlskyError, match=f"{TRIES} workers died over it, .* status -9") as e:
        workers.submit(die_at_first, tmp_path / "b", TRIES).result()
    assert "\n" not in str(e.value)
    assert workers.submit(divmod, 7, 2).result() == (3, 1)


def test_an_idle_worker_may_be_killed(workers):
    os.kill(workers.submit(os.getpid).result(), signal.SIGKILL)
    assert workers.submit(divmod, 7, 2).result() == (3, 1)


def test_the_end_does_not_wait_for_tasks():
    begin = time.monotonic()
    with Processes(1) as found:
        number = found.submit(os.getpid).result()
        task, next_one = found.submit(time.sleep, 100), found.submit(os.getpid)
        wait_for(task.running)
    assert time.monotonic() - begin < SOON
    assert isinstance(task.exception(), mlsky.MlskyError)
    assert next_one.cancelled()
    assert not psutil.pid_exists(number)


SCRIPT = """
import os, time
from mlsky.processes import Processes
{guard}
    workers = Processes(1)
    print(workers.submit(os.getpid).result(), flush=True)
    print(workers.submit(time.sleep, 100).result())
"""


def start(path, guard):
    path.write_text(SCRIPT.format(guard=guard))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, path], text=True, **pipes)


def test_workers_end_with_the_process_that_started_them(tmp_path):
    script = start(tmp_path / "script.py", "if __name__ == '__main__':")
    number = int(script.stdout.readline())
    script.kill()
    script.communicate()
    wait_for(lambda: not psutil.pid_exists(number))


def test_a_script_without_its_guard(tmp_path):
    script = start(tmp_path / "script.py", "if True:")
    _, error = script.communicate(timeout=SOON)
    assert script.returncode == 1
    assert "a worker could not start (exit status 1): a script that starts workers" in error
