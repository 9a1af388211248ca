"""A sky that is made on disk: the same bits when resumed after a stop, nothing half done."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import fakes
import numpy as np
import psutil
import pytest
from pixell import enmap

import mlsky
from mlsky import simulation
from mlsky.io import hdf5, resources, store
from mlsky.sphere.geometry import Healpix

FREQS = [93, 145, 225]


@pytest.fixture
def record(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return fakes.install(monkeypatch)


def car():
    return enmap.fullsky_geometry(res=np.radians(10), variant="fejer1")


@pytest.mark.parametrize("stokes", ["T", "QU", "TQU"])
@pytest.mark.parametrize("suffix", ["h5", "fits"])
@pytest.mark.parametrize("where", [{"nside": 16}, {"geometry": car()}])
def test_a_sky_on_disk_is_the_one_in_memory(record, where, suffix, stokes):
    arguments = {"freqs": FREQS, "seed": 1, "stokes": stokes, "flux_cut_mjy": 20, **where}
    sky = mlsky.simulate(**arguments)
    lazy = mlsky.simulate(**arguments, out=f"sky.{suffix}")
    assert os.listdir() == [f"sky.{suffix}"]
    for found in (lazy, mlsky.Sky.read(f"sky.{suffix}")):
        np.testing.assert_array_equal(found.total, sky.total)
        np.testing.assert_array_equal(found.kappa, sky.kappa)
        assert found.meta["seed"] == 1
        assert len(found.catalog) == len(sky.catalog)
        if suffix == "h5":
            assert found.keys() == sky.keys()
            for name in sky:
                np.testing.assert_array_equal(found[name], sky[name])


@pytest.mark.parametrize("suffix", ["h5", "fits"])
@pytest.mark.parametrize("where", [{"nside": 64}, {"geometry": car()}])
def test_parts_of_a_stored_sky(record, where, suffix):
    sky = mlsky.simulate(FREQS, seed=1, out=f"sky.{suffix}", **where)
    rows = slice(5, 17)
    part = sky.integrate([0, 1, 0], rows=rows, stokes="U")
    np.testing.assert_array_equal(part[0], sky.total[1, 2, rows])
    sky.write("again.h5")
    np.testing.assert_array_equal(mlsky.Sky.read("again.h5").total, sky.total)


def test_what_is_done_is_not_done_again(record, tmp_path):
    kept = {"kappa": ("kappa", (48,)), "tsz": ("components/tsz/0/templates", (1, 1, 48))}
    first = store.Disk(tmp_path / "a.h5", {"seed": 1}, kept)
    first.array("tsz", (48,)).put(np.array([3, 5]), np.array([1.0, 2.0], np.float32))
    first.array("grid", (2, 4))[1] = 7
    assert first.done(0) is None
    first.mark(0, {"flux": np.arange(3.0)})
    first.close(remove=False)
    second = store.Disk(tmp_path / "a.h5", {"seed": 1}, kept)
    np.testing.assert_array_equal(second.done(0)["flux"], [0, 1, 2])
    assert second.done(1) is None
    values = np.asarray(second.array("tsz", (48,)))
    assert (values[3], values[5], values.sum()) == (1, 2, 3)
    np.testing.assert_array_equal(second.array("grid", (2, 4))[...], [[0] * 4, [7] * 4])
    second.close(remove=True)
    assert os.listdir(tmp_path) == []


def test_marks_follow_what_they_stand_for(tmp_path, monkeypatch):
    """A chart is marked after its pixels are on the disk, a few charts at a time.

    A mark has its content on the disk before it has its name.
    """
    disk = store.Disk(tmp_path / "a.h5", {"seed": 1}, {"tsz": ("tsz", (48,))})
    told = []
    monkeypatch.setattr(store.os, "fsync", lambda number: told.append("sync"))
    replace = os.replace
    monkeypatch.setattr(store.os, "replace", lambda *a: (told.append("mark"), replace(*a)))
    for chart in range(store.TOGETHER + 1):
        disk.mark(chart, {})
    assert told == ["sync"] + ["sync", "mark"] * store.TOGETHER
    assert disk.done(0) == {}
    assert disk.done(store.TOGETHER) is None
    disk.close(remove=False)
    assert told[-3:] == ["sync", "sync", "mark"]


def test_another_sky_is_refused(tmp_path):
    kept = {"kappa": ("kappa", (48,))}
    first = store.Disk(tmp_path / "a.h5", {"seed": 1, "stokes": "T"}, kept)
    with pytest.raises(ValueError, match=r"another process is making a\.h5"):
        store.Disk(tmp_path / "a.h5", {"seed": 1, "stokes": "T"}, kept)
    first.array("kappa", (48,))
    first.close(remove=False)
    with pytest.raises(ValueError, match=r"holds another sky, not finished \(seed differ\)"):
        store.Disk(tmp_path / "a.h5", {"seed": 2, "stokes": "T"}, kept)
    # A folder whose beginning was interrupted is begun again.
    (tmp_path / "a.h5.partial" / store.REQUEST).unlink()
    store.Disk(tmp_path / "a.h5", {"seed": 2, "stokes": "T"}, kept).close(remove=True)


def test_what_fails_before_painting_leaves_nothing(record, monkeypatch):
    """Unlike a sky under way, which another call that fails early leaves as it is."""

    def fail(*arguments, **options):
        raise ArithmeticError

    def simulate_with(broken: str | None) -> set[str]:
        with monkeypatch.context() as patch:
            if broken is not None:
                patch.setattr(broken, fail)
            with pytest.raises(ArithmeticError):
                mlsky.simulate(FREQS, 16, 1, out="sky.h5")
        return set(os.listdir())

    monkeypatch.setattr(simulation, "observe", fail)
    early = ("mlsky.simulation.ingredients", "mlsky.theory.spectra.kappa_spectrum")
    early += ("mlsky.theory.response.response", "mlsky.io.store._allocate")
    for name in early:
        assert simulate_with(name) == set()
    assert simulate_with(None) == {"sky.h5.partial"}
    kept = {path.name for path in Path("sky.h5.partial").iterdir()}
    for name in early[:-1]:
        assert simulate_with(name) == {"sky.h5.partial"}
        assert {path.name for path in Path("sky.h5.partial").iterdir()} == kept


def test_an_interrupted_sky_is_no_file_and_goes_on(record, monkeypatch):
    expected = mlsky.simulate(FREQS, 16, 1)

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(simulation, "observe", interrupt)
        with pytest.raises(KeyboardInterrupt):
            mlsky.simulate(FREQS, 16, 1, out="sky.h5")
    with monkeypatch.context() as patch:
        patch.setattr(hdf5, "_write_table", interrupt)
        with pytest.raises(KeyboardInterrupt):
            mlsky.simulate(FREQS, 16, 1, flux_cut_mjy=1e-3, out="sky.h5")
    assert os.listdir() == ["sky.h5.partial"]
    with pytest.raises(ValueError, match="seed, cmb_seed differ") as caught:
        mlsky.simulate(FREQS, 16, 2, out="sky.h5")
    assert "\n" not in str(caught.value)
    sky = mlsky.simulate(FREQS, 16, 1, out="sky.h5")
    np.testing.assert_array_equal(sky.total, expected.total)
    assert os.listdir() == ["sky.h5"]
    with pytest.raises(ValueError, match=r"sky\.h5: exists"):
        mlsky.simulate(FREQS, 16, 1, out="sky.h5")


KEPT = {"kappa": ("kappa", (48,)), "tsz": ("components/tsz/0/templates", (1, 1, 48))}


def begun(folder, charts=3):
    """A sky under way, left as by a kill: values, marks, another array."""
    disk = store.Disk(folder / "a.h5", {"seed": 1}, KEPT)
    disk.array("kappa", (48,))[...] = np.arange(48)
    disk.array("grid", (2, 4))[1] = 7
    for chart in range(charts):
        disk.mark(chart, {"flux": np.arange(3.0)})
    disk.close(remove=False)
    return disk.folder


def gone_on_with(folder):
    """(charts that count as done, kappa) of what a next run finds, and the folder removed."""
    disk = store.Disk(folder / "a.h5", {"seed": 1}, KEPT)
    done = sum(disk.done(chart) is not None for chart in range(10))
    kappa = np.asarray(disk.array("kappa", (48,)))
    disk.close(remove=True)
    assert os.listdir(folder) == []
    return done, kappa


def test_the_same_run_goes_on(tmp_path):
    begun(tmp_path)
    done, kappa = gone_on_with(tmp_path)
    assert done == 3
    np.testing.assert_array_equal(kappa, np.arange(48))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"[" * 9999, b"\xff\xfe", b'{"seed": 1'])
def test_a_damaged_request_means_begin_again(data, tmp_path):
    (begun(tmp_path) / store.REQUEST).write_bytes(data)
    assert gone_on_with(tmp_path)[0] == 0


@pytest.mark.parametrize("data", [b"", b"PK", b"\x00" * 100, None])
def test_a_damaged_mark_is_no_mark(data, tmp_path):
    path = begun(tmp_path) / "chart-001.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if data is None else data)
    assert gone_on_with(tmp_path)[0] == 2


def test_bits_of_marks_that_are_flipped(tmp_path):
    """A mark says what it said, or counts as not there."""
    folder = begun(tmp_path, 1)
    path = folder / "chart-000.npz"
    good, rng = path.read_bytes(), np.random.default_rng(1)
    disk = store.Disk(tmp_path / "a.h5", {"seed": 1}, KEPT)
    for _ in range(50):
        data = bytearray(good)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        assert disk.done(0) is None
    disk.close(remove=True)


@pytest.mark.parametrize("lost", ["grid.f32", "sky.h5"])
@pytest.mark.parametrize("how", ["removed", "short", "empty"])
def test_marks_without_their_maps_mean_begin_again(lost, how, tmp_path):
    path = begun(tmp_path) / lost
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 20 if how == "short" else 0])
    done, kappa = gone_on_with(tmp_path)
    assert done == 0
    assert not kappa.any()


@pytest.mark.parametrize("damage", [b"", b"\0" * 50, b"\xff" * 300])
def test_a_file_damaged_in_its_last_write_is_put_back(damage, tmp_path):
    """Of what HDF5 writes at the end, a kill may leave any part."""
    folder = begun(tmp_path)
    disk = store.Disk(tmp_path / "a.h5", {"seed": 1}, KEPT)
    disk.protect()
    disk.close(remove=False)
    file = folder / store.FILE
    with file.open("rb+") as stream:
        stream.write(damage)
        stream.seek(0, os.SEEK_END)
        stream.write(b"half of a table")
    done, kappa = gone_on_with(tmp_path)
    assert done == 3
    np.testing.assert_array_equal(kappa, np.arange(48))


#: Runs a sky of fakes and kills itself, as kill -9 does, when it comes to the n-th call that
#: changes a file.
KILLED = """
import os, signal, sys
import pytest, fakes, mlsky, h5py
from mlsky.io import store
left = [int(sys.argv[1])]

def counted(real):
    def call(*args, **options):
        left[0] -= 1
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **options)
    return call

import io, pathlib
for name in ("replace", "unlink", "rmdir", "mkdir", "posix_fallocate", "fsync"):
    setattr(os, name, counted(getattr(os, name)))
for name in ("unlink", "rmdir"):
    setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))
for cls, name in ((h5py.Group, "create_dataset"), (h5py.AttributeManager, "__setitem__"),
                  (h5py.File, "close"), (store.DiskArray, "__setitem__"), (store.DiskArray, "put")):
    setattr(cls, name, counted(getattr(cls, name)))
fakes.install(pytest.MonkeyPatch())
mlsky.simulate([93, 145], 8, 1, out=sys.argv[2], overwrite=True)
print("made")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals are POSIX's")
@pytest.mark.parametrize("suffix", ["h5", "fits"])
def test_killed_anywhere_nothing_is_lost(record, suffix, tmp_path):
    """At call after call that changes a file: the next run gives the same bits and cleans up."""
    expected = mlsky.simulate([93, 145], 8, 1)
    file = f"sky.{suffix}"
    mlsky.simulate([93, 145], 8, 1, out="other.h5")
    env = {**os.environ, "PYTHONPATH": str(Path(fakes.__file__).parent), "OMP_NUM_THREADS": "1"}
    for number in KILLS:
        command = [sys.executable, "-W", "ignore", "-c", KILLED, str(number), file]
        ran = subprocess.run(command, env=env, capture_output=True, text=True)
        assert ran.returncode == -9, ran.stderr
        sky = mlsky.simulate([93, 145], 8, 1, out=file, overwrite=True)
        np.testing.assert_array_equal(sky.total, expected.total)
        np.testing.assert_array_equal(sky.kappa, expected.kappa)
        assert sorted(os.listdir()) == ["other.h5", file]
        os.unlink(file)


#: Which calls the run above is killed at: benchmarks/attack.py takes all of some sixty.
KILLS = (45,)


def test_a_folder_of_the_users_own_is_left_alone(record, tmp_path):
    folder = tmp_path / "sky.h5.partial"
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    (folder / "request.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds 'thesis\.tex', which is not of a sky") as caught:
        mlsky.simulate(FREQS, 16, 1, out="sky.h5")
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(folder)) == ["request.json", "thesis.tex"]
    shutil.rmtree(folder)
    folder.write_text("a file")
    with pytest.raises(ValueError, match=r"is in the way and no folder of ours"):
        mlsky.simulate(FREQS, 16, 1, out="sky.h5")
    folder.unlink()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"is in the way and no folder of ours"):
        mlsky.simulate(FREQS, 16, 1, out="sky.h5")
    assert not record.kappa_alm


@pytest.mark.parametrize("suffix", ["h5", "fits"])
def test_a_link_as_output(record, suffix, tmp_path):
    (tmp_path / "scratch").mkdir()
    link = tmp_path / f"sky.{suffix}"
    link.symlink_to(tmp_path / "scratch" / f"real.{suffix}")
    sky = mlsky.simulate(FREQS, 16, 1, out=link)
    assert link.is_symlink()
    assert os.listdir("scratch") == [f"real.{suffix}"]
    assert sorted(os.listdir()) == ["scratch", f"sky.{suffix}"]
    np.testing.assert_array_equal(sky.kappa, mlsky.simulate(FREQS, 16, 1).kappa)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, 524])
def test_a_file_system_without_locks(code, record, monkeypatch, caplog):
    import fcntl

    def refuse(number, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    mlsky.simulate(FREQS, 16, 1, out="sky.h5")
    assert os.listdir() == ["sky.h5"]
    assert "this file system has no locks" in caplog.text


def test_the_folder_is_removed_while_another_takes_it(tmp_path, monkeypatch):
    """Another process finishes between the making of the folder and its locking."""
    real, count = os.open, []

    def slow(path, *arguments, **options):
        if str(path).endswith(store.SUFFIX) and not count:
            count.append(1)
            os.rmdir(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(store.os, "open", slow)
    store.Disk(tmp_path / "a.h5", {"seed": 1}, KEPT).close(remove=True)
    assert count

    def swapped(path, *arguments, **options):
        number = real(path, *arguments, **options)
        if str(path).endswith(store.SUFFIX) and len(count) < 2:
            count.append(1)
            os.rmdir(path)
            os.mkdir(path)
        return number

    monkeypatch.setattr(store.os, "open", swapped)
    disk = store.Disk(tmp_path / "a.h5", {"seed": 1}, KEPT)
    monkeypatch.setattr(store.os, "open", real)
    with pytest.raises(ValueError, match="another process"):
        store.Disk(tmp_path / "a.h5", {"seed": 1}, KEPT)
    disk.close(remove=True)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(number, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    begun(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(store.os, "posix_fallocate", full)
        disk = store.Disk(tmp_path / "a.h5", {"seed": 1}, KEPT)
        with pytest.raises(mlsky.MlskyError, match="No space left on device; make room") as caught:
            disk.array("more", (10**6,))
        disk.close(remove=False)
        with pytest.raises(mlsky.MlskyError, match="No space left on device"):
            store.Disk(tmp_path / "b.h5", {"seed": 1}, KEPT)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b.h5.partial").exists()
    assert gone_on_with(tmp_path)[0] == 3


def test_room_is_taken_at_once(tmp_path):
    disk = store.Disk(tmp_path / "a.h5", {"seed": 1}, {"tsz": ("tsz", (10**6,))})
    paths = [disk.file, disk.array("grid", (10**6,)).path]
    for path in paths:
        assert path.stat().st_blocks * 512 >= 4 * 10**6
    disk.close(remove=True)


class Killed(BaseException):
    """Stands for a signal that ends the process: nothing runs after it."""


@pytest.mark.parametrize("suffix", ["h5", "fits"])
def test_killed_after_the_file_has_its_name(record, monkeypatch, suffix):
    """The folder is left with its request, and for HDF5 without the maps its marks stand for."""
    file = f"sky.{suffix}"

    def let_go(disk, remove):
        os.close(disk._lock)  # as the system does
        disk._lock = None
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(store.Disk, "close", let_go)
        with pytest.raises(Killed):
            mlsky.simulate(FREQS, 16, 1, out=file)
    assert (os.path.exists(file), os.path.exists(f"{file}.partial/request.json")) == (True, True)
    os.mkdir("kept")
    shutil.copytree(f"{file}.partial", f"kept/{file}.partial")
    np.savez(f"kept/{file}.partial/chart-000.npz")
    sky = mlsky.simulate(FREQS, 16, 1, out=file, overwrite=True)
    expected = mlsky.simulate(FREQS, 16, 1)
    np.testing.assert_array_equal(sky.total, expected.total)
    assert sorted(os.listdir()) == ["kept", file]
    if suffix == "h5":  # what belongs to no maps is in nobody's way, nor is it believed
        other = store.Disk(Path("kept", file), {"seed": 2}, {"kappa": ("kappa", (48,))})
        assert other.done(0) is None
        other.close(remove=True)


def test_too_little_memory_or_disk_is_said_before_any_work(record, monkeypatch):
    monkeypatch.setattr(resources, "memory_free", lambda: 2.0 * 2**30)
    with pytest.raises(ValueError, match=r"nside=2048: \d+\.\d GiB of memory needed and 2\.0 GiB"):
        mlsky.simulate(FREQS, 2048)
    mlsky.simulate(FREQS, 16, check_resources=False)
    with pytest.raises(ValueError, match="check_resources='no': must be True or False"):
        mlsky.simulate(FREQS, 16, check_resources="no")
    monkeypatch.setattr(resources, "memory_free", lambda: 2.0**40)
    from mlsky.io import files

    usage = type("Usage", (), {"free": 2**20})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match=r"GiB needed and 0\.00 GiB free.*check_resources=False"):
        mlsky.simulate(FREQS, 2048, out="sky.h5")
    assert os.listdir() == []
    assert len(record.kappa_alm) == 1
    mlsky.simulate(FREQS, 16, out="sky.h5", check_resources=False)


def test_a_sky_on_disk_needs_less_memory():
    names = ("cmb", "tsz", "ksz", "cib", "radio")
    for nside in (1024, 4096):
        request = (Healpix(nside), 0.5 if nside > 1024 else 2.0, names, "T")
        inside = resources.memory(*request, on_disk=False)
        outside = resources.memory(*request, on_disk=True)
        assert all(outside[stage] <= inside[stage] for stage in inside)
    # What was promised for two cores.
    assert max(outside.values()) < 8 * 2**30
    assert 0 < resources.memory_free() <= psutil.virtual_memory().total


#: Memory of machines (GiB) and charts painted at a time for nside 4096 on each, with 64 cores.
MACHINES = ((6.0, 1), (24.0, 8), (96.0, 38), (512.0, 64))


def test_as_many_charts_at_a_time_as_cores_and_memory_allow(monkeypatch):
    names = ("cmb", "tsz", "ksz", "cib", "radio")
    request = (Healpix(4096), 0.5, names, "T", True)
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    for gib, workers in MACHINES:
        monkeypatch.setattr(resources, "memory_free", lambda gib=gib: gib * resources.GIB)
        assert resources.chart_workers(*request) == pytest.approx(workers, abs=0.1 * workers)
        need = resources.memory(*request, workers=resources.chart_workers(*request))["networks"]
        assert need <= gib * resources.GIB or resources.chart_workers(*request) == 1
    for cores in (1, 2, 64):
        monkeypatch.setenv("OMP_NUM_THREADS", str(cores))
        assert resources.chart_workers(Healpix(512), 2.0, names, "T", True) == cores
    monkeypatch.setenv("OMP_NUM_THREADS", "1000")
    assert resources.chart_workers(Healpix(512), 2.0, names, "T", True) <= resources.CHARTS


def test_memory_of_a_control_group(monkeypatch, tmp_path):
    """A limit counts with what is used, but for files in the cache, which make room."""
    gib = 2**30
    for name, text in (("max", f"{8 * gib}"), ("current", f"{5 * gib}")):
        (tmp_path / f"memory.{name}").write_text(f"{text}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {gib}\n")
    monkeypatch.setattr(resources, "CONTROL_GROUP", tmp_path)
    available = SimpleNamespace(available=64 * gib)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: available)
    assert resources.memory_free() == 4 * gib
    (tmp_path / "memory.max").write_text("max\n")
    assert resources.memory_free() == 64 * gib


#: Estimated over found peaks of lensing; the peak found varies by a fifth with what else the
#: machine does, which decides how much memory the threads keep.
LENSING_PEAKS = (0.85, 1.7)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is told by Linux")
@pytest.mark.parametrize(
    ("projection", "corners", "res_arcmin"),
    [("car", [[-20, 175], [20, -175]], (10, 2)), ("tan", [[-25, 25], [25, -25]], (2.5, 2.5))],
)
def test_the_memory_that_lensing_takes(projection, corners, res_arcmin):
    """Of maps of part of the sky, whose pixels are rings of their own or lie on none."""
    lmax = 600
    code = f"""
import re, numpy as np
from pathlib import Path
from pixell import enmap
from mlsky.io import resources
from mlsky.sphere import gaussian, lensing
from mlsky.sphere.geometry import Car
geometry = Car(*enmap.geometry(
    np.radians({corners}), res=np.radians({res_arcmin}) / 60, proj={projection!r}
))
cl = 1 / np.arange(1.0, {lmax} + 2) ** 2
cmb, kappa = gaussian.draw_alm(cl, 1, "cmb"), gaussian.draw_alm(1e-5 * cl, 1)

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

before = peak()
for _ in lensing.pieces(cmb[None], kappa, geometry):
    pass
found = peak() - before
need = resources.deflection(geometry, {lmax})
print(need + (resources.PER_FIELD + resources.PER_ALM) * {lmax}**2, found)
"""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    estimated, found = map(float, ran.stdout.split())
    assert found > 1e8
    assert LENSING_PEAKS[0] < estimated / found < LENSING_PEAKS[1]


def test_the_bands_of_a_sky_are_counted():
    """Sources have values at every band: 10.8 GiB for 300 of them."""
    names = ("cmb", "tsz", "ksz", "cib", "radio")
    request = (Healpix(1024), 2.0, names, "TQU")
    for on_disk in (False, True):
        few, many = (resources.memory(*request, on_disk, nfreq=n)["bands"] for n in (1, 300))
        assert (many - few) / resources.GIB == pytest.approx(10.8, rel=0.1)
    few, many = (resources.disk(*request, n, False) for n in (1, 300))
    assert (many - few) / resources.GIB == pytest.approx(10.8, rel=0.1)
    tiny = (Healpix(16), 2.0, names, "TQU")
    few, many = (resources.memory(*tiny, False, nfreq=n)["bands"] for n in (1, 300))
    assert many - few == 299 * 2 * 3 * 4 * 12 * 16**2
    without = (Healpix(1024), 2.0, ("cmb", "tsz"), "TQU", False)
    few, many = (resources.memory(*without, nfreq=n)["bands"] for n in (1, 300))
    assert many == few


def test_the_objects_of_a_sky_are_counted(monkeypatch):
    """About a gigabyte for those of the default cut, while they are drawn and painted."""
    from mlsky import request

    drawn = request.count_haloes(None, 1e14)
    assert 1.6e6 < drawn < 2.0e6
    assert request.count_haloes(None, None) == 0
    assert request.count_haloes({"z": np.ones(7)}, 1e14) == 7
    arguments = (Healpix(1024), 2.0, ("cmb", "tsz", "ksz", "cib", "radio"), "T", False)
    none, some = resources.memory(*arguments), resources.memory(*arguments, haloes=drawn)
    assert 0.8 * resources.GIB < some["networks"] - none["networks"] < 1.2 * resources.GIB
    assert 0.1 * resources.GIB < some["lensing"] - none["lensing"] < 0.2 * resources.GIB
    assert some["haloes"] > resources.BASE + 0.8 * resources.GIB
    monkeypatch.setattr(resources, "memory_free", lambda: max(none.values()) + 1e6)
    names = arguments[:4]
    resources.check(*names, 1, None)
    with pytest.raises(ValueError, match="GiB of memory needed"):
        resources.check(*names, 1, None, haloes=drawn)


def test_charts_that_are_done_are_not_painted_again(tmp_path, monkeypatch):
    """Real networks, stopped half way: the same bits as in memory, on other threads too."""
    from fakes import coarse_weights

    from mlsky.networks import evaluate
    from mlsky.painting import foregrounds
    from mlsky.sphere import gaussian

    # every fourth chart tells as much as all do
    each = foregrounds._each
    monkeypatch.setattr(foregrounds, "_each", lambda one, every, cpu: each(one, every[::4], cpu))
    start = gaussian.draw_alm(np.r_[0, 0, 1e-3 / np.arange(2.0, 541) ** 1.5], seed=5)
    pixels = Healpix(32)
    weights = foregrounds.select(str(coarse_weights(tmp_path / "small.safetensors")), pixels)
    arguments = (start, pixels)
    options = {"weights": weights, "seed": 3, "device": "cpu"}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    expected = foregrounds.generate(*arguments, **options)

    def stop(stage, fraction):
        if stage == "networks" and fraction > 0.12:
            raise KeyboardInterrupt

    kept = {name: (name, pixels.shape) for name in ("kappa", "tsz", "ksz", "cib")}
    disk = store.Disk(tmp_path / "a.h5", {}, kept)
    with pytest.raises(KeyboardInterrupt):
        foregrounds.generate(*arguments, **options, progress=stop, store=disk)
    disk.close(remove=False)
    done = len(list(disk.folder.glob("chart-*.npz")))
    assert 12 < done < 48

    painted = []
    real = evaluate.evaluate
    spy = lambda *args, **options: painted.append(1) or real(*args, **options)  # noqa: E731
    monkeypatch.setattr(evaluate, "evaluate", spy)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    disk = store.Disk(tmp_path / "a.h5", {}, kept)
    found = foregrounds.generate(*arguments, **options, store=disk)
    assert len(painted) == 48 - done
    for name, values in expected.maps.items():
        np.testing.assert_array_equal(np.asarray(found.maps[name]), values)
    np.testing.assert_array_equal(np.asarray(found.kappa), expected.kappa)
    np.testing.assert_array_equal(found.kappa_alm, expected.kappa_alm)
    assert found.catalogue.colnames == expected.catalogue.colnames
    for name in found.catalogue.colnames:
        np.testing.assert_array_equal(found.catalogue[name], expected.catalogue[name])
    disk.close(remove=True)
