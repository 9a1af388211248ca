"""Efficiency of an ensemble on several workers, over processes, Dask or MPI.

    python benchmarks/ensemble_efficiency.py --over processes --seeds 8 --nside 256
    mpiexec -n 3 python benchmarks/ensemble_efficiency.py --over mpi --seeds 8 --nside 256

The same skies are made by one worker and by `--workers`, each with one thread. Workers first make a
sky each that does not count, so that modules, weights and spectra are there: what is told is the
rate of a long run. Wall-clock efficiency is time(1) / (workers x time(workers)), which needs a
machine that does nothing else. Processor efficiency is the same with the processor time of the
skies: what they take more when others are made beside them. Use is the sum of the processor time
of the skies over workers x time(workers): near one if no worker waits.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from concurrent.futures import wait
from pathlib import Path

from mlsky import ensembles
from mlsky.processes import Processes
from mlsky.signature import Arguments


def timed(*task) -> tuple[dict, float]:
    """One sky by a worker, and its processor seconds."""
    begin = time.process_time()
    return ensembles._make(*task), time.process_time() - begin


@contextlib.contextmanager
def executor_over(over: str, workers: int):
    """An executor with so many workers; None in the processes of MPI that are workers."""
    if over == "processes":
        with Processes(workers) as executor:
            yield executor
    elif over == "dask":
        from dask.distributed import Client, LocalCluster

        cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
        with cluster, Client(cluster) as client:
            yield client.get_executor()
    else:
        from mpi4py import MPI
        from mpi4py.futures import MPICommExecutor

        # the first process hands out, so that there is one more than workers
        comm = MPI.COMM_WORLD.Split(int(MPI.COMM_WORLD.Get_rank() > workers))
        with contextlib.ExitStack() as stack:
            member = MPI.COMM_WORLD.Get_rank() <= workers
            yield stack.enter_context(MPICommExecutor(comm)) if member else None
        MPI.COMM_WORLD.Barrier()


def measure(options: argparse.Namespace, workers: int) -> tuple[float, float] | None:
    """Wall-clock and processor seconds of the skies; None in a worker of MPI."""
    asked = Arguments(
        freqs=[93, 150],
        nside=options.nside,
        weights=options.weights,
        components=options.components,
        stokes="T",
        check_resources=False,
    )
    over = executor_over(options.over, workers)
    with over as executor, tempfile.TemporaryDirectory() as folder:
        if executor is None:
            return None
        task = lambda seed: (timed, asked, seed, str(Path(folder) / f"{seed}.h5"), 1, {})  # noqa: E731
        wait([executor.submit(*task(10_000 + i)) for i in range(workers)])
        begin = time.monotonic()
        futures = [executor.submit(*task(seed)) for seed in range(options.seeds)]
        found = [future.result() for future in futures]
        return time.monotonic() - begin, sum(seconds for _, seconds in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--over", choices=["processes", "dask", "mpi"], default="processes")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=8, help="a multiple of the workers")
    parser.add_argument("--nside", type=int, default=256)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--components", nargs="+", default=["tsz", "ksz"])
    options = parser.parse_args()
    if options.seeds % options.workers:
        sys.exit(f"--seeds {options.seeds}: must be a multiple of {options.workers}")
    alone, beside = measure(options, 1), measure(options, options.workers)
    if alone is None or beside is None:
        return
    for workers, (wall, processor) in ((1, alone), (options.workers, beside)):
        print(f"{options.over}, {workers} workers: {wall:.1f} s, {processor:.1f} s of processor")
    shared = options.workers * beside[0]
    print(
        f"efficiency {alone[0] / shared:.2f} by the clock, {alone[1] / beside[1]:.2f} by processor "
        f"time; use of the workers {beside[1] / shared:.2f}"
    )


if __name__ == "__main__":
    main()
