"""How long ``import mlsky`` takes, in a fresh interpreter each time.

    python benchmarks/import_time.py

Prints the fastest and the median of 20 runs, the interpreter's own start taken off. The goal is
0.3 s; a test keeps heavy packages out (tests/test_architecture.py), none looks at the clock.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 20


def seconds(code: str) -> list[float]:
    """Wall time of `RUNS` interpreters that run `code`."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    bare, full = seconds("pass"), seconds("import mlsky")
    print(f"import mlsky: fastest {min(full) - min(bare):.3f} s, ", end="")
    print(f"median {statistics.median(full) - statistics.median(bare):.3f} s")


if __name__ == "__main__":
    main()
