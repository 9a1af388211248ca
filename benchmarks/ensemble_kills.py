"""Kill workers of an ensemble with SIGKILL at random moments, resume, and compare the bits.

    python benchmarks/ensemble_kills.py --kills 50 --seeds 6 --nside 64 --weights FILE

A call runs in a process of its own. After each random time one of its workers is killed, and every
fifth time the call itself, which is then made again. A call that ends before so many were killed
is made again with some of its skies removed. At the last the call is made undisturbed, each file is
compared with that of a call that never was disturbed, and no worker may be left behind.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil

import mlsky
from mlsky import ensembles

CALL = """
import sys, mlsky
if __name__ == "__main__":
    try:
        mlsky.ensemble(range({seeds}), [93, 150], {nside}, out={out!r}, workers={workers},
                       weights={weights!r}, components={components!r}, stokes="T")
    except mlsky.MlskyError as error:
        sys.exit(str(error))
"""

#: A call is killed, and not one of its workers, once in so many times.
CALL_TOO = 5

#: Seconds that workers have to end after the call that started them was killed.
END_S = 20


def start(options: argparse.Namespace, out: Path) -> subprocess.Popen:
    # spawned workers import the script, so it is a file
    script = out.with_suffix(".py")
    script.write_text(CALL.format(**{**vars(options), "out": str(out)}))
    return subprocess.Popen([sys.executable, str(script)])


def workers_of(call: subprocess.Popen) -> list[psutil.Process]:
    try:
        children = psutil.Process(call.pid).children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.Error:  # one that has just ended
        return []


def disturb(options: argparse.Namespace, out: Path) -> tuple[Counter, set[psutil.Process]]:
    """Make the call again and again until so many were killed: what was killed, all workers."""
    draw, killed, seen = random.Random(options.draw), Counter(), set()
    call = start(options, out)
    while killed.total() < options.kills:
        time.sleep(draw.uniform(0, options.longest))
        status = call.poll()
        if status is not None:
            skies = sorted(out.glob("sky_*.h5"))
            print(f"{killed.total()} killed; status {status}, {len(skies)} skies", flush=True)
            if len(skies) == options.seeds:  # begin again with some of them gone
                for path in skies[draw.randrange(3) :: draw.randint(1, 3)]:
                    path.unlink()
            call = start(options, out)
            continue
        found = workers_of(call)
        seen.update(found)
        if killed.total() % CALL_TOO == CALL_TOO - 1:
            os.kill(call.pid, signal.SIGKILL)
            killed["calls"] += 1
            call.wait()
        elif found:
            os.kill(draw.choice(found).pid, signal.SIGKILL)
            killed["workers"] += 1
    call.kill()
    call.wait()
    return killed, seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--nside", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--components", nargs="+", default=["tsz", "ksz"])
    parser.add_argument("--longest", type=float, default=15.0, help="seconds before a kill")
    parser.add_argument("--draw", type=int, default=1, help="seed of the moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        if start(options, whole).wait():
            sys.exit("the undisturbed call failed")
        begun = time.monotonic()
        killed, seen = disturb(options, broken)
        _, left = psutil.wait_procs(seen, timeout=END_S)
        if left:
            sys.exit(f"{len(left)} workers are at work after their call was killed")
        if start(options, broken).wait():
            sys.exit("the last call failed")
        for path in sorted(whole.glob("sky_*.h5")):
            one, other = mlsky.Sky.read(path), mlsky.Sky.read(broken / path.name)
            np.testing.assert_array_equal(one.total, other.total)
            np.testing.assert_array_equal(one.kappa, other.kappa)
        beside = [path.name for path in broken.iterdir() if path.suffix != ".h5"]
        skies = ensembles.read_manifest(broken)["skies"]
        print(f"{len(skies)} skies with the bits of an undisturbed call; beside them: {beside}")
        print(f"{dict(killed)} killed in {time.monotonic() - begun:.0f} s; no worker is left")


if __name__ == "__main__":
    main()
