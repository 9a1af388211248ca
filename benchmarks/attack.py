"""Attacks on mlsky, repeated and counted: odd arguments, odd grids, flipped bits, kill -9.

    python benchmarks/attack.py --arguments --grids 300 --flips 1000 --kills 100

Each line of the output is one kind of attack: how many, and how each ended; what must not be is in
capitals. docs/promises.rst has the figures. Networks are stood in for by those of tests/shared, so
it needs a checkout and pytest; ``--real N`` kills a sky of untrained networks N times.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "shared"))

LONGEST = 600  # characters of an error that count as one line


def judged(call) -> str:
    """How a call ended: accepted, refused in one line, or in another way (its type)."""
    from mlsky.errors import MlskyError

    try:
        call()
    except (ValueError, MlskyError) as error:
        text = str(error)
        return "refused" if "\n" not in text and len(text) < LONGEST else "many lines"
    except Exception as error:
        return f"traceback {type(error).__name__}"
    return "accepted"


def show(what: str, found: collections.Counter, seconds: float) -> None:
    text = ", ".join(f"{name} {number}" for name, number in sorted(found.items()))
    print(f"{what}: {sum(found.values())} in {seconds:.0f} s: {text}", flush=True)


def values() -> list:
    """What nobody should give for anything, or not for everything."""
    import array
    import decimal
    import fractions

    from astropy import units

    return [
        decimal.Decimal(145), fractions.Fraction(1, 3), np.str_("145"), memoryview(b"ab"),
        bytearray(b"a"), array.array("d", [145.0]), range(3), slice(1), np.float16(145),
        np.complex64(1), type, Ellipsis, np.array("145"), np.array([145], object), np.void(b"ab"),
        np.ma.array(145, mask=True), {145}, "\uff11\uff14\uff15", "1_45", " 145 ", "145\n93",
        5e-324, 1e308, 2**63, -(2**63), np.uint64(2**64 - 1),
        None, True, np.True_, 0, -1, 3, 10**400, 1.5, float("nan"), float("inf"), 1j, "", "False",
        "nan", "a\0b", "x" * 300, "\udcff", b"a", b"", [], {}, {"a": 1}, (), [None], [[1], [1, 2]],
        object(), lambda: 1, np.array(None), np.zeros(0), np.zeros((3, 3)), np.ma.masked,
        np.ma.masked_array([1.0, 2.0], [True, False]), np.datetime64("2026-01-01"),
        3 * units.kg, 3 * units.GHz, 0.3 * units.Jy, [145 * units.GHz, 3 * units.kg], Path("a"),
    ]  # fmt: skip


def attack_arguments() -> None:
    from mlsky import request
    from mlsky.signature import Arguments

    found, accepted, start = collections.Counter(), [], time.time()
    defaults = {"freqs": [145], "nside": 16, "check_resources": False}
    for name in [f for f in Arguments.__dataclass_fields__]:
        for value in values():
            asked = {**defaults, name: value}
            if name == "geometry":
                asked["nside"] = None
            ended = judged(lambda asked=asked: request.check(Arguments(**asked)))
            found[ended] += 1
            if ended == "accepted" and value is not None:
                accepted.append(f"{name}={value!r}"[:60])
            elif ended not in ("accepted", "refused"):
                print("  ", name, repr(value)[:60], ended)
    show("arguments of simulate", found, time.time() - start)
    print("   accepted:", "; ".join(accepted))


def attack_command_line(folder: Path) -> None:
    from mlsky import cli, simulation

    def stop(request):
        raise SystemExit(0)

    simulation.run = stop
    texts = ["", "nan", "inf", "-1", "1e400", "0", "1.5", "x", "-", "--", "é", "145,", ",", "a b",
             "\udcff", "../" * 90, "x" * 300, "1" * 5000, "None"]  # fmt: skip
    options = ["--freqs", "--nside", "--car", "--seed", "--cmb-seed", "--components", "--stokes",
               "--unit", "--flux-cut-mjy", "--tsz-temperature-kev", "--cosmology", "--weights",
               "--kappa", "--kappa-kind", "--haloes", "--device", "--out"]  # fmt: skip
    base = {"--freqs": "145", "--nside": "16", "--out": str(folder / "a.h5")}
    found, start = collections.Counter(), time.time()
    for option in options:
        for text in texts:
            given = {**base, option: text}
            if option == "--car":
                del given["--nside"]
            words = [word for pair in given.items() for word in pair]
            stderr = io.StringIO()
            try:
                with contextlib.redirect_stderr(stderr):
                    status = cli.main(["simulate", *words])
                told = stderr.getvalue().splitlines()  # the progress bar is no error
                lines = sum("% |" not in line and bool(line.strip()) for line in told)
                ended = "accepted" if status == 0 else "refused" if lines == 1 else "many lines"
            except SystemExit as error:
                ended = "accepted" if error.code in (0, None) else f"exit {error.code}"
            except Exception as error:
                ended = f"traceback {type(error).__name__}"
            found[ended] += 1
            if ended not in ("accepted", "refused"):
                print("  ", option, repr(text)[:40], ended)
    show("options of mlsky simulate", found, time.time() - start)


def random_wcs(rng: random.Random):
    """A shape and a WCS, mostly of a few degrees, written in some way or other."""
    from astropy.wcs import WCS

    naxis = rng.choice([2, 2, 2, 3])
    w = WCS(naxis=naxis)
    kind = rng.choice(["CAR"] * 5 + ["CEA", "MER", "TAN", "ZEA", "SIN", "AIT", "SFL", "XYZ"])
    axes = rng.choice(
        [("RA--", "DEC-")] * 8 + [("GLON", "GLAT"), ("ELON", "ELAT"), ("DEC-", "RA--")]
    )
    w.wcs.ctype = [f"{axes[0]}-{kind}", f"{axes[1]}-{kind}", "STOKES"][:naxis]
    step = rng.choice([0.5, 1 / 3, 0.503, 1, 2, 2.0, 0.0, 1e-7, 400, float("nan")])
    signs = rng.choice([(-1, 1)] * 4 + [(1, 1), (-1, -1), (1, -1)])
    steps = [signs[0] * step, signs[1] * step * rng.choice([1, 1, 1, 0.5, 30])]
    if rng.random() < 0.3:
        digits = rng.choice([5, 7, 12])
        steps = [float(f"{s:.{digits}g}") for s in steps]
    turn = np.radians(rng.choice([0, 0, 0, 20, 90, 180]))
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    whole = np.eye(naxis)
    how = rng.choice(["cdelt", "cd", "pc"])
    if how == "cdelt":
        w.wcs.cdelt = [*steps, 1.0][:naxis]
        whole[:2, :2] = matrix
        if turn:
            w.wcs.pc = whole
    else:
        whole[:2, :2] = np.diag(steps) @ matrix
        setattr(w.wcs, how, whole)
    shape = rng.choice([(20, 20), (20, 30), (180, 360), (7, 5), (1, 1), (400, 10)])
    w.wcs.crval = [rng.choice([0, 0, 180, 359.9, 360, -90, 721]), rng.choice([0, 0, 0, 40, 90]), 1][
        :naxis
    ]
    w.wcs.crpix = [rng.choice([shape[1] / 2 + 0.5, 1, -500, 1e4]), shape[0] / 2 + 0.5, 1][:naxis]
    if rng.random() < 0.2:
        w.wcs.lonpole = rng.choice([0, 90, 180, 33])
    if rng.random() < 0.15:
        w.wcs.radesys = rng.choice(["FK5", "FK4", "ICRS", "GAPPT"])
    if rng.random() < 0.15:
        w.wcs.equinox = rng.choice([2000.0, 1950.0, 2015.5])
    return ((3, *shape) if naxis == 3 else shape), w


def vectors(theta, phi) -> np.ndarray:
    return np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])


def attack_grids(number: int) -> None:

    from mlsky.sphere.geometry import geometry

    rng, found, start = random.Random(1), collections.Counter(), time.time()
    for _ in range(number):
        shape, wcs = random_wcs(rng)
        made = []
        ended = judged(lambda a=(shape, wcs), made=made: made.append(geometry(shape_wcs=a)))
        if ended == "accepted":
            grid = made[0]
            y, x = np.mgrid[: grid.shape[0], : grid.shape[1]].reshape(2, -1)
            plain = wcs.deepcopy().celestial
            if str(plain.wcs.ctype[0])[5:8] in ("CAR", "CEA", "MER"):
                plain.wcs.bounds_check(False, False)
            ra, dec = np.radians(plain.wcs_pix2world(x, y, 0))
            away = np.abs(vectors(*grid.angles()) - vectors(np.pi / 2 - dec, ra)).max()
            away = np.degrees(away) * 60
            back = grid.pixel(*grid.angles())
            pole = np.sin(grid.angles()[0]) < 1e-9
            # a step that cards of seven digits rounded is put back: 0.01 pixel over the circle
            if not away < 0.02 * grid.pixel_arcmin:
                ended = "accepted, elsewhere"
            elif not (back == np.arange(grid.npix))[~pole].all():
                ended = "accepted, pixels mixed up"
        found[ended] += 1
        if ended not in ("accepted", "refused"):
            print("  ", shape, repr(wcs).replace("\n", " ")[:300], ended)
    show("grids", found, time.time() - start)


def in_child(work) -> str:
    """What `work` returns in a forked process, or the signal that ended it."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        text = "failed"
        with contextlib.suppress(BaseException):
            text = work()
        os.write(write, text.encode()[:4000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return text if os.WIFEXITED(status) else f"signal {os.WTERMSIG(status)}"


def attack_file(what: str, path: Path, content, number: int) -> None:
    """Flip bits, cut, fill with zeros, swap pieces; `content` reads all that a file says."""
    good, before = path.read_bytes(), content(path)
    rng, found, start = np.random.default_rng(2), collections.Counter(), time.time()

    def changed() -> bytes:
        data, at = bytearray(good), int(rng.integers(len(good)))
        kind = rng.integers(6)
        if kind < 3:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 3:
            data = data[:at]
        elif kind == 4:
            data[at : at + 64] = bytes(len(data[at : at + 64]))
        else:
            data[at : at + 16] = rng.bytes(len(data[at : at + 16]))
        return bytes(data)

    def batch() -> str:
        ends = []
        for _ in range(min(50, number)):
            data = changed()
            path.write_bytes(data)
            same = []
            ended = judged(lambda same=same: same.append(content(path) == before))
            if ended == "accepted":
                ended = "read as it was" if same[0] else "OTHER VALUES"
            ends.append(ended)
        return "|".join(ends)

    for low in range(0, number, 50):
        text = in_child(batch)
        rng = np.random.default_rng(low + 3)
        found.update(text.split("|"))
    path.write_bytes(good)
    show(f"changed {what}", found, time.time() - start)


def attack_files(folder: Path, number: int) -> None:
    import torch

    import mlsky
    from mlsky.io import store
    from mlsky.training import checkpoints

    sky = mlsky.simulate([93, 145], 4, 1)

    def of_sky(path):
        back = mlsky.Sky.read(path)
        table = [np.asarray(back.catalog[name]).tobytes() for name in back.catalog.colnames]
        return (back.total.tobytes(), back.kappa.tobytes(), back.freqs_ghz.tobytes(), table,
                back.meta, back.unit, back.stokes, back.geometry.shape)  # fmt: skip

    for suffix in ("h5", "fits"):
        path = folder / f"flip.{suffix}"
        sky.write(path, overwrite=True)
        attack_file(f"sky.{suffix}", path, of_sky, number)

    path = folder / "checkpoint.safetensors"
    tensors = {f"generator.{n}": torch.arange(200.0) + n for n in range(4)}
    checkpoints.write(path, tensors, {"step": 3, "recipe": {"name": "a"}, "seed": 1})

    def of_checkpoint(path):
        found, state = checkpoints.read_checkpoint(path)
        return {name: t.numpy().tobytes() for name, t in found.items()}, state

    attack_file("checkpoints", path, of_checkpoint, number)
    mark = folder / "chart-000.npz"
    store._save(mark, flux=np.arange(50.0), ra=np.arange(50.0))
    attack_file(
        "marks", mark, lambda p: {k: v.tobytes() for k, v in store._load(p).items()}, number
    )


def counted(left: list[int]) -> None:
    """Kill this process at the n-th call that changes a file."""
    import pathlib

    import h5py

    from mlsky.io import store

    def wrap(real):
        def call(*arguments, **options):
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for name in ("replace", "unlink", "rmdir", "mkdir", "posix_fallocate", "fsync"):
        setattr(os, name, wrap(getattr(os, name)))
    for cls, names in (
        (pathlib.Path, ("unlink", "rmdir")),
        (h5py.Group, ("create_dataset", "create_group")),
        (h5py.AttributeManager, ("__setitem__",)),
        (h5py.File, ("close",)),
        (store.DiskArray, ("__setitem__", "put")),
    ):
        for name in names:
            setattr(cls, name, wrap(getattr(cls, name)))


def attack_kills(folder: Path, number: int) -> None:
    """At call 1, 2, 3, ... that changes a file, then the same command again."""
    import mlsky

    expected = mlsky.simulate([93, 145], 4, 1)
    for suffix in ("h5", "fits"):
        found, start = collections.Counter(), time.time()
        place = Path(tempfile.mkdtemp(dir=folder))
        file = place / f"sky.{suffix}"
        for call in range(1, number + 1):

            def work(call=call, file=file):
                counted([call])
                mlsky.simulate([93, 145], 4, 1, out=file, overwrite=True)
                return "made before"

            first = in_child(work)
            if first == "made before":
                break

            def again(file=file):
                sky = mlsky.simulate([93, 145], 4, 1, out=file, overwrite=True)
                same = np.array_equal(sky.total, expected.total)
                return (
                    "same bits" if same and np.array_equal(sky.kappa, expected.kappa) else "OTHER"
                )

            ended = in_child(again) if first == "signal 9" else f"first {first}"
            left = sorted(p.name for p in place.iterdir() if p.name != file.name)
            found[ended if not left else f"LEFT {left}"] += 1
            for path in place.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        show(
            f"kill -9 of sky.{suffix}, at each call that changes a file", found, time.time() - start
        )


def attack_real(folder: Path, number: int) -> None:
    """A sky of real networks, killed after a random time and gone on with until it is made."""
    from fakes import coarse_weights

    import mlsky

    weights = str(coarse_weights(folder / "coarse.safetensors"))
    options = {"nside": 16, "seed": 1, "weights": weights}
    start = time.time()
    expected = mlsky.simulate(145, **options)
    once, found, rng = time.time() - start, collections.Counter(), random.Random(4)
    for _ in range(number):
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                mlsky.simulate(145, **options, out=folder / "real.h5", overwrite=True)
            os._exit(0)
        time.sleep(rng.uniform(0.05, 1.1) * once)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    sky = mlsky.simulate(145, **options, out=folder / "real.h5", overwrite=True)
    found["same bits" if np.array_equal(sky.total, expected.total) else "OTHER"] += number
    left = [p.name for p in folder.iterdir() if p.name.startswith(("real.h5.", "."))]
    show(f"kill -9 of a sky of networks (left over: {left})", found, time.time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arguments", action="store_true")
    parser.add_argument("--grids", type=int, default=0, metavar="N")
    parser.add_argument("--flips", type=int, default=0, metavar="N")
    parser.add_argument("--kills", type=int, default=0, metavar="N")
    parser.add_argument("--real", type=int, default=0, metavar="N")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="mlsky-attack-"))
    os.chdir(folder)
    try:
        if asked.real:
            attack_real(folder, asked.real)
        if asked.grids:
            attack_grids(asked.grids)
        import fakes
        import pytest

        fakes.install(pytest.MonkeyPatch())
        if asked.flips:
            attack_files(folder, asked.flips)
        if asked.kills:
            attack_kills(folder, asked.kills)
        if asked.arguments:
            attack_arguments()
            attack_command_line(folder)
    finally:
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
