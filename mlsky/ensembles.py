"""Many skies into one folder, over any executor of `concurrent.futures`.

Each sky is a file of its own, which appears when it is whole; ``manifest.json`` beside them says
what they were made of and which are done. A call that was interrupted, or that lost workers, is
resumed by making it again: skies that are there are compared with their checksums, their seed and
what they were made of, and those that are missing, damaged or others are made, with the same bits.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import Executor
from pathlib import Path

from mlsky import arguments, seeds
from mlsky._version import __version__
from mlsky.errors import MlskyError
from mlsky.frequency.passbands import Band
from mlsky.io import resources, skies
from mlsky.io.files import write_whole
from mlsky.processes import Processes
from mlsky.provenance import WORDS, provenance
from mlsky.request import Request, check
from mlsky.signature import Arguments, Progress
from mlsky.simulation import ingredients, run
from mlsky.sky import Sky
from mlsky.sphere.threads import threads as cores

__all__ = ["MANIFEST", "ensemble", "file_name", "read_manifest"]

#: The file that says what a folder of skies holds.
MANIFEST = "manifest.json"
FORMAT = "mlsky ensemble"

#: Arguments of `mlsky.simulate` that an ensemble sets itself.
OWN = ("seed", "out", "overwrite", "progress")

#: Entries of the provenance that the skies of one ensemble may have different.
OF_EACH = ("seed", "cmb_seed", *WORDS)

#: Digits of the seed in the name of a file.
DIGITS = 5


def file_name(seed: int, suffix: str = ".h5") -> str:
    """Name of the file of a sky: "sky_00012.h5"."""
    return f"sky_{seed:0{DIGITS}d}{suffix}"


def ensemble(
    seed_list: Iterable[int],
    freqs,
    nside: int | None = None,
    *,
    out: str | os.PathLike,
    executor: Executor | None = None,
    workers: int | None = None,
    threads: int | None = None,
    suffix: str = ".h5",
    progress: Progress | None = None,
    **options,
) -> list[Path]:
    """Make many skies; each equals `mlsky.simulate` of the same arguments to the bit.

    Parameters
    ----------
    seed_list
        Seeds, each once, for example ``range(500)``.
    freqs, nside, **options
        As for `mlsky.simulate`, the same for all skies.
    out
        A folder: new, empty, or of an earlier call with the same arguments. A file that has the
        name of a sky of the ensemble but is another sky, or damaged, is replaced; other files stay
        as they are.
    executor
        Anything with the ``submit`` of `concurrent.futures.Executor`, such as
        ``dask.distributed.Client(...).get_executor()`` or ``mpi4py.futures.MPIPoolExecutor()``; it
        is not shut down. None for processes of this machine.
    workers
        Processes on this machine, without `executor`: as many as cores and memory allow by default.
        More than there is memory for are refused.
    threads
        Threads of each worker; by default cores over workers, or what ``OMP_NUM_THREADS`` says
        where an executor's workers are.
    suffix
        ".h5" (everything) or ".fits".
    progress
        Called as ``progress(text, fraction)`` after each sky; the text has the rate and the time
        that is left.

    Returns
    -------
    paths
        Of the files, in the order of `seed_list`.

    Raises
    ------
    ValueError
        For an argument that is not allowed, seeds that come twice, a folder that holds other things
        or another ensemble: before any work starts.
    MlskyError
        If skies failed, after the others are done. What is done stays. A sky whose worker died
        fails only if that happened `mlsky.processes.TRIES` times.

    Notes
    -----
    Processes are started afresh ("spawn"): a script that calls this needs
    ``if __name__ == "__main__":`` round it.
    """
    wanted = _parse_seeds(seed_list)
    suffix = arguments.choice("suffix", suffix, skies.SUFFIXES)
    report = _parse_progress(progress)
    taken = sorted(set(options) & set(OWN))
    if taken:
        raise TypeError(f"ensemble(): {taken[0]!r} is set for each sky by the ensemble itself")
    asked = Arguments(freqs=freqs, nside=nside, **options)
    request = check(dataclasses.replace(asked, seed=wanted[0]))
    folder = _parse_folder(out)
    cmb_seed = None if asked.cmb_seed is None else request.cmb_seed
    told = _told_by_files(request)
    made_of = _made_of(request, suffix, cmb_seed, told)
    manifest = _open_manifest(folder, made_of)
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise ValueError(
            f"executor={arguments.short(executor)}: must have submit(), as "
            "concurrent.futures.ProcessPoolExecutor has, or be None"
        )
    own = executor is None
    workers, threads = _share(request, asked, workers, threads, len(wanted), own)
    folder.mkdir(exist_ok=True)
    manifest |= {"threads_per_worker": threads, "workers": workers if own else "of an executor"}
    manifest["gib_per_worker"] = round(_memory(request, threads or cores()) / resources.GIB, 2)
    write_manifest(folder, manifest)
    with contextlib.ExitStack() as stack:
        if executor is None:
            executor = stack.enter_context(Processes(workers))
            # what there is memory for was reckoned above; each worker sees what all others use
            asked = dataclasses.replace(asked, check_resources=False)
        tasks = {}
        for seed in wanted:
            path = folder / file_name(seed, suffix)
            seeds_of_sky = {"seed": seed, "cmb_seed": seed if cmb_seed is None else cmb_seed}
            task = executor.submit(_make, asked, seed, str(path), threads, told | seeds_of_sky)
            tasks[task] = seed
        _collect(tasks, folder, suffix, manifest, report)
    return [folder / file_name(seed, suffix) for seed in wanted]


def read_manifest(folder: str | os.PathLike) -> dict:
    """What a folder of skies holds: ``made_of``, and ``skies`` by seed.

    Raises
    ------
    ValueError
        If there is no manifest of mlsky's, or it cannot be read.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise ValueError(f"{path}: no such file; the folder holds no ensemble of mlsky's")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT or not isinstance(manifest["skies"], dict):
            raise ValueError("of another format")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = arguments.short(" ".join(str(error).split()), 80)
        raise ValueError(f"{path}: no manifest of an ensemble of mlsky's ({reason})") from None
    return manifest


def write_manifest(folder: Path, manifest: dict) -> None:
    """Write the manifest of a folder, whole or not at all."""
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    write_whole(folder / MANIFEST, text.encode())


def _make(asked: Arguments, seed: int, path: str, threads: int | None, told: dict) -> dict:
    """One sky, by a worker: what the manifest says of it; `told` is what its file has to say."""
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    out, begin = Path(path), time.monotonic()
    kept = out.exists() and _is_whole(out, told)
    if not kept:
        run(check(dataclasses.replace(asked, seed=seed, out=out, overwrite=True)))
    return {
        "file": out.name,
        "bytes": out.stat().st_size,
        "seconds": None if kept else round(time.monotonic() - begin, 1),
    }


def _is_whole(path: Path, told: dict) -> bool:
    """Whether a file is as it was written, and holds the sky that is asked for."""
    try:
        skies.verify(path)
        sky = Sky.read(path, lazy=True)
    except (ValueError, OSError):
        return False
    said = {**sky.meta, **_of_bands(sky.bands, sky.stokes, sky.unit)}
    return all(name in said and said[name] == value for name, value in told.items())


def _collect(
    tasks: dict[concurrent.futures.Future, int],
    folder: Path,
    suffix: str,
    manifest: dict,
    report: Progress,
) -> None:
    """Wait for every sky; note those that are done, and say at the end which failed."""
    begin, made, failed = time.monotonic(), 0, {}
    report(f"0 of {len(tasks)} skies", 0.0)
    try:
        for number, future in enumerate(concurrent.futures.as_completed(tasks), 1):
            seed = tasks[future]
            try:
                entry = future.result()
            except (Exception, concurrent.futures.CancelledError) as error:
                failed[seed] = error
                continue
            before = manifest["skies"].get(str(seed), {})
            if entry["seconds"] is None:  # it was there already
                entry["seconds"] = before.get("seconds")
            else:
                made += 1
            manifest["skies"][str(seed)] = entry
            write_manifest(folder, manifest)
            report(_told(number, len(tasks), made, time.monotonic() - begin), number / len(tasks))
    except BaseException:
        for future in tasks:
            future.cancel()
        raise
    if failed:
        seed, error = next(iter(failed.items()))
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MlskyError(
            f"{folder}: {len(failed)} of {len(tasks)} skies are not done, the first of seed {seed} "
            f"({arguments.short(reason, 300)}); make the same call again for those alone"
        ) from error


def _told(number: int, total: int, made: int, seconds: float) -> str:
    """Progress in words; the rate is of skies that were made, those that were there are quick."""
    text = f"{number} of {total} skies"
    if made and seconds > 0:
        left = (total - number) * seconds / made
        text += f", {3600 * made / seconds:.3g} per hour, {_duration(left)} left"
    return text


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _parse_seeds(seed_list: Iterable[int]) -> list[int]:
    try:
        wanted = [seeds.check(seed) for seed in seed_list]
    except TypeError:
        raise ValueError(
            f"seeds={arguments.short(seed_list)}: must be integers, for example range(100)"
        ) from None
    if not wanted:
        raise ValueError("seeds: empty; must be integers, for example range(100)")
    if len(set(wanted)) < len(wanted):
        twice = next(seed for seed in wanted if wanted.count(seed) > 1)
        raise ValueError(f"seeds hold {twice} more than once: each must come once")
    return wanted


def _parse_progress(progress: Progress | None) -> Progress:
    if progress is None:
        return lambda text, fraction: None
    if not callable(progress):
        shown = arguments.short(progress)
        raise ValueError(f"progress={shown}: must be None or a function of (text, fraction)")
    return progress


def _parse_folder(out: str | os.PathLike) -> Path:
    """The folder of an ensemble, which may be new; one of other things is refused."""
    folder = arguments.path("out", out, "the name of a folder, as text or a Path")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out={folder}: is a file; give the name of a folder")
    if not folder.parent.is_dir():
        raise ValueError(f"out={folder}: folder {folder.parent} does not exist, make it first")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).exists():
        raise ValueError(
            f"out={folder}: holds other files and no {MANIFEST}; choose a new or an empty folder"
        )
    return folder


def _open_manifest(folder: Path, made_of: dict) -> dict:
    """The manifest of a folder, a new one if there is none.

    Raises
    ------
    ValueError
        If it is one of other arguments.
    """
    if not (folder / MANIFEST).exists():
        return {"format": FORMAT, "version": __version__, "made_of": made_of, "skies": {}}
    manifest = read_manifest(folder)
    held = manifest["made_of"]
    other = [name for name in made_of if name not in held or held[name] != made_of[name]]
    if other:
        other = dict.fromkeys(name.removesuffix("_sha256") for name in other)
        raise ValueError(
            f"out={folder}: holds an ensemble of other arguments ({', '.join(other)}); choose "
            "another folder"
        )
    return manifest


def _told_by_files(request: Request) -> dict:
    """What the file of each sky of an ensemble says of it, but for the seeds, in plain JSON types.

    All of the provenance but what is named in `OF_EACH`, so that no argument can be forgotten.
    """
    found = {name: value for name, value in provenance(request).items() if name not in OF_EACH}
    return json.loads(json.dumps(found | _of_bands(request.bands, request.stokes, request.unit)))


def _of_bands(bands: Iterable[Band], stokes: str, unit: str) -> dict:
    """What of a sky is not in its provenance."""
    points = _sha256([band.to_dict() for band in bands])
    return {"bands_sha256": points, "stokes": stokes, "unit": unit}


def _made_of(request: Request, suffix: str, cmb_seed: int | None, told: dict) -> dict:
    """What all skies of an ensemble have in common, in plain JSON types.

    More than `told`, what files say: digests of what the provenance has in words alone.
    """
    found = {name: value for name, value in ingredients(request).items() if name not in OF_EACH}
    beams = [
        [beam.fwhm_arcmin, None if beam.b_ell is None else beam.b_ell.tolist()]
        for beam in request.beams or ()
    ]
    cuts = [[mjy, band.to_dict()] for mjy, band in request.flux_cuts or ()]
    found |= told | {
        "suffix": suffix,
        "cmb_seed": cmb_seed,
        "bands": [band.label for band in request.bands],
        "beams_sha256": _sha256(beams),
        "flux_cuts_sha256": _sha256(cuts),
    }
    return json.loads(json.dumps(found))


def _sha256(values: list) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _memory(request: Request, threads: int) -> float:
    """Bytes that a worker needs, its maps being on disk."""
    return max(request.memory(workers=threads).values())


def _share(
    request: Request,
    asked: Arguments,
    workers: int | None,
    threads: int | None,
    skies_wanted: int,
    own: bool,
) -> tuple[int, int | None]:
    """Workers on this machine and threads of each: one worker per core, memory permitting."""
    allowed = "an integer from 1 to 10000, for example 2"
    if workers is not None:
        workers = arguments.integer("workers", workers, allowed, 1, 10_000)
        if not own:
            raise ValueError(f"workers={workers} with an executor: its workers are its own")
    if threads is not None:
        threads = arguments.integer("threads", threads, allowed, 1, 10_000)
    if not own:
        return 0, threads
    least = threads or 1
    free, each = resources.memory_free(), _memory(request, least)
    fit = int(free // each)
    if workers is None:
        workers = max(1, min(cores() // least, fit, skies_wanted))
    elif workers > max(fit, 1) and asked.check_resources:
        raise ValueError(
            f"workers={workers}: each needs {each / resources.GIB:.1f} GiB and "
            f"{free / resources.GIB:.1f} GiB are free; at most {max(fit, 1)}, or "
            f"{resources.ANYWAY}"
        )
    return workers, threads or max(1, cores() // workers)
