"""Attacks with files of strangers, repeated and counted: see benchmarks/attack.py.

    python benchmarks/attack_strangers.py --weights 1000 --registries 1000 --sets 500 --inputs 500

Weight files and registries are changed in what they say, with digests that are right; those that
are accepted are used: a few charts are painted, a file is looked for.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "shared"))
sys.path.insert(0, str(Path(__file__).parent))

from attack import attack_file, in_child, judged, show

SECONDS = 30  # of one attack; what takes longer hangs
MEMORY = 8 * 2**30
ODD = [
    None, True, False, 0, 1, -1, 3, 10**30, 4096, 1.5, -0.0, 1e-300, 1e18, 1e30, "", "a", "148",
    "x" * 999, "\0", "é\ud7ff", [], [1], [[]], [1, "a"], [1.0, 2.0], [2, 1], {}, {"a": 1},
    {"ell": [1]}, [None], list(range(70)), {"a": {"a": {"a": {}}}},
]  # fmt: skip


def places(value, at=()):
    """Paths of everything in a JSON value."""
    found = [at] if at else []
    if isinstance(value, dict):
        for key in value:
            found += places(value[key], (*at, key))
    elif isinstance(value, list):
        for i in range(len(value)):
            found += places(value[i], (*at, i))
    return found


def changed(value, rng: random.Random):
    """A JSON value with one entry replaced, scaled, removed, doubled or added."""
    value = copy.deepcopy(value)
    # each name as often as each number of a long list
    paths = collections.defaultdict(list)
    for path in places(value):
        paths[tuple(p for p in path if isinstance(p, str))].append(path)
    path = rng.choice(paths[rng.choice(list(paths))])
    inside = value
    for step in path[:-1]:
        inside = inside[step]
    old, how = inside[path[-1]], rng.randrange(6)
    if how == 0 or (how < 3 and not isinstance(old, (int, float, str))):
        inside[path[-1]] = copy.deepcopy(rng.choice(ODD))
    elif how < 3:
        factor = rng.choice([0, -1, 1e-6, 1e3, 1e9, 1e25])
        inside[path[-1]] = old * factor if not isinstance(old, str) else old[1:] + "x"
    elif how == 3:
        del inside[path[-1]]
    elif how == 4 and isinstance(inside, list):
        inside.append(copy.deepcopy(old))
    elif isinstance(inside, dict):
        inside[rng.choice(["a", "kappa", "default", "v2", "seed", "objects"])] = copy.deepcopy(old)
    else:
        inside.insert(0, copy.deepcopy(rng.choice(ODD)))
    return value


def batches(what: str, number: int, one, size: int = 25, first: int = 0) -> None:
    """Count how `one` of a number ends, in processes with limits of time and memory."""
    found, start = collections.Counter(), time.time()

    def batch(low: int) -> str:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        ends = []
        for i in range(low, min(low + size, number)):
            signal.alarm(SECONDS)
            ends.append(one(i))
        return "|".join(ends)

    for low in range(first, number, size):
        text = in_child(lambda low=low: batch(low))
        found.update(text.split("|"))
        if text.startswith("signal"):
            print(f"   {what}: {text} in {low} to {low + size}", flush=True)
    show(what, found, time.time() - start)


def attack_weights(folder: Path, number: int) -> None:
    import healpy
    import safetensors.numpy
    from fakes import coarse_rest, coarse_weights
    from few_charts import every_charts

    from mlsky.networks import weights
    from mlsky.painting import foregrounds
    from mlsky.sphere.geometry import Healpix

    tables = {
        "kappa": {"ell": [0, 500], "gain": [1.0, 0.9]},
        "cib": {"ell": [0, 500], "gain": [1.0, 0.9], "from": [0.0, 9.0], "to": [0.0, 8.0]},
        "velocity_gains": [1.0, 0.9, 1.1],
        "amplitude": {"tsz": 1.1},
        "radio_mean_rate": 0.5,
        "large_scales": {
            "ell": [0, 200, 480],
            "response": {"cib": [1.0, 0.5, 0.0], "radio": [0.1, 0.1, 0.0]},
            "root": {"ksz": [0.01, 0.01, 0.0], "cib": [0.01, 0.01, 0.0], "radio cib": [0.0] * 3},
            "mean": {"cib": 20.0},
        },
    }  # fmt: skip
    paths = [
        coarse_weights(folder / "all.safetensors", calibration=tables, cosmology={"h": 0.6736}),
        coarse_rest(folder / "rest.safetensors", calibration={"kappa": tables["kappa"]}),
    ]
    whole = []
    for path in paths:
        state, header = weights.load(path)
        header.pop("digest")
        whole.append(({name: t.numpy().copy() for name, t in state.items()}, header))
    start = np.zeros(healpy.Alm.getsize(540), np.complex128)
    start[1:] = 1e-4

    def write(path: Path, arrays: dict, header: dict) -> None:
        head = {**header, "digest": weights._digest(header, arrays)}
        path.write_bytes(safetensors.numpy.save(arrays, metadata={"mlsky": json.dumps(head)}))

    def one(i: int) -> str:
        rng = random.Random(i)
        arrays, header = whole[i % 2]
        path = folder / "changed.safetensors"
        with contextlib.suppress(ValueError):  # NaN and the like, which no header can hold
            if rng.random() < 0.85:
                write(path, arrays, changed(header, rng))
            else:
                write(path, other_tensors(arrays, rng), header)
        made = []
        ended = judged(lambda: made.append(foregrounds.select(str(path), Healpix(16))))
        if ended != "accepted" or i % 2:
            return ended

        def paint():
            with every_charts(96):
                sky = foregrounds.generate(
                    start, Healpix(16), weights=made[0], seed=3, device="cpu"
                )
            made.append(all(np.isfinite(m).all() for m in (*sky.maps.values(), sky.kappa)))

        ended = judged(paint)
        if ended == "accepted":
            return "painted" if made[1] else "PAINTED NAN"
        return f"{ended} when painted"

    batches("changed weight files", number, one)


def other_tensors(arrays: dict, rng: random.Random) -> dict:
    """Tensors with one of another type, shape or size, or missing."""
    arrays, name = dict(arrays), rng.choice(list(arrays))
    old = arrays[name]
    arrays[name] = rng.choice(
        [
            lambda: old.astype("i8"), lambda: old.astype("f8"), lambda: old.astype("c8"),
            lambda: old > 0, lambda: old.reshape(-1), lambda: old[..., None], lambda: old[:0],
            lambda: old * np.float32(1e20), lambda: old * np.float32(1e38),
            lambda: np.full_like(old, np.nan), lambda: old.astype("f2"), lambda: -old,
        ]
    )()  # fmt: skip
    if rng.random() < 0.2:
        arrays[rng.choice(["a.b", "paint.x", name + "2"])] = arrays.pop(name)
    return arrays


def attack_bytes_of_weights(folder: Path, number: int) -> None:
    from fakes import coarse_weights

    from mlsky.networks import weights

    def content(path: Path):
        state, header = weights.load(path)
        return {name: t.numpy().tobytes() for name, t in state.items()}, header

    path = coarse_weights(folder / "bytes.safetensors")
    attack_file("bytes of weight files", path, content, number)


def attack_registries(folder: Path, number: int) -> None:
    import yaml

    from mlsky import registry
    from mlsky.painting import foregrounds
    from mlsky.sphere.geometry import Healpix

    package = Path(registry.__file__).parents[1] / "data"
    good = yaml.safe_load((package / "registry.yaml").read_text())
    os.environ["MLSKY_CACHE_DIR"] = str(folder / "cache")

    def one(i: int) -> str:
        rng = random.Random(i)
        path = folder / "registry.yaml"
        text = yaml.safe_dump(changed(good, rng), allow_unicode=True)
        if rng.random() < 0.3:
            at = rng.randrange(len(text))
            piece = rng.choice(["*a", "&a ", "!!set ", "? ", "[", "}", "\0", "\t", "- ", ": ", "'"])
            text = text[:at] + piece + text[at + rng.randrange(9) :]
        path.write_text(text, errors="surrogatepass")

        def use():
            for name in registry.names(path):
                registry.describe(name, registry=path)
                registry.cite(name, registry=path)
                registry.report(name, registry=path)
            registry.verify(registry=path)
            os.environ["MLSKY_REGISTRY"] = str(path)
            try:
                foregrounds.select("default", Healpix(16))
            finally:
                del os.environ["MLSKY_REGISTRY"]

        return judged(use)

    batches("changed registries", number, one)


def attack_sets(folder: Path, number: int) -> None:
    from mlsky.io import sets

    path, names = folder / "set.h5", ("kappa", "tsz", "cib")
    rng = np.random.default_rng(1)
    with sets.begin(path) as file:
        sets.put_attributes(file, {"pixel_arcmin": 2.0, "seed": 3, "source": "{}"})
        for name in names:
            sets.add_maps(file, name, (4, 16, 16))
            file[name][:] = rng.standard_normal((4, 16, 16))
        sets.seal(file)

    def content(path: Path):
        with sets.fields_of(path, names) as (fields, attributes):
            known = {key: str(attributes.get(key)) for key in ("pixel_arcmin", "seed", "source")}
            return [f[:].tobytes() for f in fields], known

    attack_file("training sets", path, content, number)


def attack_inputs(folder: Path, number: int, first: int = 0) -> None:
    """Maps, haloes and passbands given to ``mlsky simulate``, with pieces changed."""
    import healpy
    from astropy.table import QTable

    from mlsky import cli, simulation

    def stop(request):
        raise SystemExit(0)

    simulation.run = stop
    rng = np.random.default_rng(1)
    healpy.write_map(folder / "k.fits", rng.normal(0, 0.1, 12 * 16**2).astype("f4"))
    np.save(folder / "k.npy", rng.normal(0, 0.1, 12 * 16**2))
    haloes = QTable(
        {"ra": [10.0, 20.0], "dec": [5.0, -5.0], "z": [0.3, 0.6], "m200m": [3e14, 4e14]}
    )
    for suffix in ("fits", "ecsv", "hdf5"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            haloes.write(folder / f"h.{suffix}")
    (folder / "band.txt").write_text("".join(f"{nu} {1 + nu % 3}\n" for nu in range(120, 180, 2)))
    given = [("--kappa", "k.fits"), ("--kappa", "k.npy"), ("--freqs", "band.txt")]
    given += [("--haloes", f"h.{suffix}") for suffix in ("fits", "ecsv", "hdf5")]
    good = {name: (folder / name).read_bytes() for _, name in given}

    def one(i: int) -> str:
        rng = random.Random(i)
        option, name = given[i % len(given)]
        data, path = bytearray(good[name]), folder / f"x{name}"
        for _ in range(rng.choice([1, 1, 3, 20])):
            at, how = rng.randrange(len(data)), rng.randrange(5)
            head = rng.randrange(min(len(data), 6000))
            if how == 0:
                data[head] ^= 1 << rng.randrange(8)
            elif how == 1:
                data[head : head + 8] = rng.randbytes(8)
            elif how == 2:
                data[head] = rng.choice(b"0123456789-+.eE'/ \n\0")
            elif how == 3:
                data[at : at + 64] = bytes(64)
            else:
                del data[max(1, at) :]
        path.write_bytes(data)
        words = {"--freqs": "145", "--nside": "16", "--out": str(folder / "a.h5")}
        words[option] = str(path)
        told, plain = io.StringIO(), [word for pair in words.items() for word in pair]
        try:
            with contextlib.redirect_stderr(told), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                status = cli.main(["simulate", *plain])
        except SystemExit as error:
            return "accepted" if error.code in (0, None) else f"exit {error.code}"
        except Exception as error:
            print("  ", name, i, type(error).__name__, str(error)[:100])
            return f"TRACEBACK {type(error).__name__}"
        lines = sum(
            "% |" not in line and bool(line.strip()) for line in told.getvalue().splitlines()
        )
        return "accepted" if status == 0 else "refused" if lines == 1 else "MANY LINES"

    batches("changed files of maps, haloes and bands", number, one, first=first)


def attack_kinds(folder: Path) -> None:
    """Pipes, devices, folders, huge and deep files in place of each kind of file."""
    import mlsky
    from mlsky import registry
    from mlsky.io import sets
    from mlsky.networks import weights
    from mlsky.training import checkpoints

    def make(name: str, suffix: str) -> Path:
        path = folder / f"{name}{suffix}"
        if path.exists() or path.is_symlink():
            return path
        if name == "pipe":
            os.mkfifo(path)
        elif name == "zeros":
            path.symlink_to("/dev/zero")
        elif name == "loop":
            path.symlink_to(path)
        elif name == "folder":
            path.mkdir()
        elif name == "sparse":
            with path.open("wb") as file:
                file.truncate(40 * 2**30)
        elif name == "deep":
            path.write_bytes(b"[" * 10**6)
        elif name == "header":
            path.write_bytes(struct.pack("<Q", 10**8) + b"{" * 10**8)
        elif name == "empty":
            path.touch()
        return path

    cases = [
        (weights.load, ".safetensors"),
        (weights.read_header, ".safetensors"),
        (weights.open_weights, ".safetensors"),
        (checkpoints.read_checkpoint, "-run.safetensors"),
        (registry.names, ".yaml"),
        (mlsky.Sky.read, ".h5"),
        (lambda p: mlsky.Sky.read(p, lazy=True), ".h5"),
        (mlsky.Sky.read, ".fits"),
        (lambda p: mlsky.Sky.read(p, lazy=True), ".fits"),
        (lambda p: sets.attributes_of(p, ("kappa",)), "-set.h5"),
        (sets.verify, "-set.h5"),
    ]
    names = ("pipe", "zeros", "loop", "folder", "sparse", "deep", "header", "empty")
    cases = [(read, make(name, suffix)) for name in names for read, suffix in cases]

    def one(i: int) -> str:
        read, path = cases[i]
        start = time.monotonic()
        ended = judged(lambda: read(path))
        seconds = time.monotonic() - start
        if ended != "refused" or seconds > 1:
            print(f"   {path.name} {ended} in {seconds:.1f} s", flush=True)
        return ended

    batches("files of another kind", len(cases), one, 1)


def attack_at_once(folder: Path, number: int) -> None:
    """Processes that want one file, and half as many that add three versions each to a registry."""
    import http.server
    import threading

    from mlsky import registry

    os.environ["MLSKY_CACHE_DIR"] = str(folder / "cache")
    asked = []

    class Served(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            asked.append(self.path)
            time.sleep(0.5)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"content")

    def add(path: Path, *urls: str) -> str:
        path.write_text(path.name if not urls else "content")
        given = [{"path": path, "pixel_arcmin": 2.0, "urls": urls}]
        told = {"recipe": {}, "data": {}, "scores": {}}
        return registry.add(
            "a", given, kind="default", licence="x", cite=[], inputs=[], outputs=[],
            registry=folder / "mine" / "registry.yaml", **told,
        )  # fmt: skip

    def at_once(count: int, work) -> list[str]:
        ready, go = os.pipe()
        pipes = []
        for i in range(count):
            read, write = os.pipe()
            if not os.fork():
                os.close(go)
                os.read(ready, 1)  # until the parent closes its end
                text = "failed"
                with contextlib.suppress(BaseException):
                    text = work(i)
                os.write(write, text.encode())
                os._exit(0)
            os.close(write)
            pipes.append(read)
        os.close(go)
        found = [os.fdopen(read).read() for read in pipes]
        for _ in pipes:
            os.wait()
        return found

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Served)
    start, address = time.time(), f"http://127.0.0.1:{server.server_port}/a"
    add(folder / "a.safetensors", address)
    (folder / "mine" / "weights" / "a.safetensors").unlink()

    def fetch(i: int) -> str:
        (path,) = registry.fetch("a@v1", registry=folder / "mine" / "registry.yaml")
        return path.read_text()

    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = collections.Counter(at_once(number, fetch))
    found[f"requests {len(asked)}"] = 1
    show("processes that want one file", found, time.time() - start)
    start = time.time()
    at_once(number // 2, lambda i: [add(folder / f"{i}-{j}.safetensors") for j in range(3)][-1])
    versions = registry.versions("a", folder / "mine" / "registry.yaml")
    found = collections.Counter({f"versions {len(versions) - 1} of {number // 2 * 3}": 1})
    show("processes that add", found, time.time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("weights", "bytes", "registries", "sets", "inputs", "processes"):
        parser.add_argument(f"--{name}", type=int, default=0, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="the first of inputs")
    parser.add_argument("--kinds", action="store_true")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="mlsky-attack-"))
    os.chdir(folder)
    try:
        for name, attack in (
            ("weights", attack_weights),
            ("bytes", attack_bytes_of_weights),
            ("registries", attack_registries),
            ("sets", attack_sets),
            ("inputs", lambda *given: attack_inputs(*given, asked.first)),
            ("processes", attack_at_once),
        ):
            if getattr(asked, name):
                attack(folder, getattr(asked, name))
        if asked.kinds:
            attack_kinds(folder)
    finally:
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
