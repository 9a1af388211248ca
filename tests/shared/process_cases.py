"""Tasks of worker processes, which import this module by its name."""

from __future__ import annotations

import os
import signal


def die_at_first(path, number):
    """Kill this process, the first `number` times that it is called."""
    with open(path, "a") as file:
        file.write(".")
    if os.path.getsize(path) <= number:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def unpicklable():
    return lambda: None
