"""``mlsky ensemble``: many skies into one folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from mlsky.cli.config import dump, with_config
from mlsky.cli.options import ManyValues, progress_bar, resumable
from mlsky.cli.simulate import read_options, with_options
from mlsky.errors import MissingDependencyError

__all__ = ["ensemble"]

#: Seconds that a scheduler of Dask has to answer.
TIMEOUT_S = 15

#: What a process of MPI gets that has worked for another one, which is done.
WORKER = object()

#: Seeds that one range may have (our choice): many more than the files that a folder bears.
SEEDS_MAX = 1_000_000


class Seeds(click.ParamType):
    """Seeds as "0:500" (the last is not among them), "3", "0:10,20,30:40"; in files lists, too."""

    name = "seeds"

    def convert(self, value, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            value = ",".join(map(str, value))
        found: list[int] = []
        for part in str(value).replace(",", " ").split():
            first, colon, last = part.partition(":")
            try:
                seeds = range(int(first), int(last)) if colon else [int(first)]
            except ValueError:
                self.fail(
                    f"{part!r}: must be whole numbers or ranges, for example 0:500 or 0:10,20",
                    param,
                    ctx,
                )
            if len(seeds) > SEEDS_MAX:
                self.fail(f"{part!r}: must have at most {SEEDS_MAX} seeds", param, ctx)
            found.extend(seeds)
        return found

    @staticmethod
    def text(seeds: list[int]) -> str:
        """Seeds as they are written, runs of them as ranges."""
        runs: list[list[int]] = []
        for seed in seeds:
            if runs and seed == runs[-1][1]:
                runs[-1][1] += 1
            else:
                runs.append([seed, seed + 1])
        return ",".join(f"{a}:{b}" if b > a + 1 else f"{a}" for a, b in runs)


@click.command(cls=ManyValues)
@with_config
@click.option(
    "--seeds",
    "seed_list",
    required=True,
    type=Seeds(),
    metavar="FIRST:STOP",
    help="Seeds: a range without its end, numbers, or several of them with commas.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A folder.")
@click.option("--workers", type=int, help="Processes.  [default: as cores and memory allow]")
@click.option("--threads", type=int, help="Threads of each.  [default: cores / workers]")
@click.option(
    "--suffix", default=".h5", show_default=True, type=click.Choice([".h5", ".hdf5", ".fits"])
)
@click.option("--scheduler", metavar="ADDRESS", help="Of Dask, as tcp://host:8786: its workers.")
@click.option(
    "--mpi", is_flag=True, help="Workers of MPI: mpiexec -n 9 mlsky ensemble --mpi ... has eight."
)
@lambda function: with_options(function, without=("seed", "out", "overwrite"))
@click.pass_context
def ensemble(
    ctx: click.Context,
    /,
    *,
    dump_config: bool,
    scheduler: str | None,
    mpi: bool,
    seed_list: list[int],
    **options,
) -> None:
    """Make one sky per seed and write each into a file in the folder OUT.

    Skies that are there are kept if they are as they were written; the same command makes those
    that are missing or damaged.
    """
    if dump_config:
        click.echo(dump(ctx))
        return
    from mlsky import ensembles

    if scheduler is not None and mpi:
        raise ValueError("--scheduler and --mpi: give one of them")
    read_options(options)
    with resumable(), _executor(scheduler, mpi) as executor:
        if executor is WORKER:
            return
        with progress_bar() as progress:
            paths = ensembles.ensemble(seed_list, executor=executor, progress=progress, **options)
    click.echo(f"{options['out']}: {len(paths)} skies, listed in {ensembles.MANIFEST}")


@contextlib.contextmanager
def _executor(scheduler: str | None, mpi: bool) -> Iterator:
    """Executor of Dask or of MPI; None for processes of this machine; `WORKER` for one of MPI's."""
    if mpi:
        with _mpi() as executor:
            yield executor
    elif scheduler is not None:
        try:
            from dask.distributed import Client
        except ImportError as error:
            raise MissingDependencyError(
                f"--scheduler needs Dask ({error}): pip install distributed"
            ) from None
        try:
            client = Client(scheduler, timeout=TIMEOUT_S, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise ValueError(
                f"--scheduler {scheduler}: no Dask scheduler answers there ({reason})"
            ) from None
        with client:
            yield client.get_executor()
    else:
        yield None


@contextlib.contextmanager
def _mpi() -> Iterator:
    """Executor of MPI, in the first of its processes; the others work until that is done."""
    try:
        from mpi4py import MPI
        from mpi4py.futures import MPICommExecutor
    except (ImportError, RuntimeError) as error:  # the latter without an MPI library
        reason = " ".join(str(error).split())[:160]
        raise MissingDependencyError(
            f"--mpi needs mpi4py ({reason}): pip install mpi4py, beside an MPI"
        ) from None
    processes = MPI.COMM_WORLD.Get_size()
    if processes < 2:
        raise ValueError(
            f"--mpi: MPI has {processes} process, must have 2 or more; the first hands out the "
            "skies: mpiexec -n 9 mlsky ensemble --mpi ... has eight workers"
        )
    with MPICommExecutor(MPI.COMM_WORLD) as executor:
        yield WORKER if executor is None else executor
