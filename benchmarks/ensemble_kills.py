"""Kill workers of an ensemble with SIGKILL at random moments, resume, and compare the bits.

    python benchmarks/ensemble_kills.py --kills 50 --seeds 8 --nside 64 --weights FILE

Every round starts the same call in a process of its own, kills one of its workers (every third
time the call itself) after a random time, and goes on until so many were killed. Then the call is
made to its end, and each file is compared with that of an undisturbed call.
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
from pathlib import Path

import numpy as np
import psutil

import mlsky
from mlsky import ensembles

CALL = """
import sys, mlsky
if __name__ == "__main__":
    mlsky.ensemble(range({seeds}), [93, 150], {nside}, out={out!r}, workers={workers},
                   weights={weights!r}, components={components!r}, stokes="T")
"""


def start(options: argparse.Namespace, out: Path) -> subprocess.Popen:
    # spawned workers import the script, so it is a file
    script = out.with_suffix(".py")
    script.write_text(CALL.format(**{**vars(options), "out": str(out)}))
    return subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)


def workers_of(call: subprocess.Popen) -> list[psutil.Process]:
    children = psutil.Process(call.pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--nside", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--components", nargs="+", default=["tsz", "ksz"])
    parser.add_argument("--longest", type=float, default=60.0, help="seconds before a kill")
    options = parser.parse_args()
    draw = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        if start(options, whole).wait():
            sys.exit("the undisturbed call failed")
        begun = time.monotonic()
        for number in range(options.kills):
            call = start(options, broken)
            time.sleep(draw.uniform(0, options.longest))
            try:
                found = workers_of(call)
                victim = call.pid if number % 3 == 2 or not found else draw.choice(found).pid
                os.kill(victim, signal.SIGKILL)
            except (psutil.Error, ProcessLookupError):
                pass  # it had ended by itself
            status = call.wait(timeout=600)
            done = len(list(broken.glob("sky_*.h5"))) if broken.is_dir() else 0
            print(
                f"kill {number + 1}: status {status}, {done} of {options.seeds} skies", flush=True
            )
            if done == options.seeds:  # begin again with some of them gone
                for path in list(broken.glob("sky_*.h5"))[:: draw.randint(1, 3)]:
                    path.unlink()
        if start(options, broken).wait():
            sys.exit("the last call failed")
        for path in sorted(whole.glob("sky_*.h5")):
            one, other = mlsky.Sky.read(path), mlsky.Sky.read(broken / path.name)
            np.testing.assert_array_equal(one.total, other.total)
            np.testing.assert_array_equal(one.kappa, other.kappa)
        left = [path.name for path in broken.iterdir() if path.suffix != ".h5"]
        skies = ensembles.read_manifest(broken)["skies"]
        print(f"{len(skies)} skies with the bits of an undisturbed call; beside them: {left}")
        print(f"{options.kills} kills in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
