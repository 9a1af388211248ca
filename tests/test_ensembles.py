"""Many skies: each that of `simulate`, resumed to the bit, whatever made them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from concurrent.futures import Executor, Future

import fakes
import numpy as np
import pytest
from astropy import units as u
from pixell import enmap

import mlsky
from mlsky import ensembles, simulation
from mlsky.io import resources

NSIDE = 16


class Inline(Executor):
    """One task after the other, in this process."""

    def submit(self, function, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def record(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return fakes.install(monkeypatch)


def make(folder, seeds=range(3), executor=None, **options):
    options = {"nside": NSIDE, "stokes": "T", **options}
    return mlsky.ensemble(seeds, [93, 150], out=folder, executor=executor or Inline(), **options)


def contents(folder):
    """Maps of every sky of a folder, by file."""
    found = {}
    for path in sorted(folder.glob("sky_*.h5")):
        sky = mlsky.Sky.read(path)
        found[path.name] = hashlib.sha256(sky.total.tobytes() + sky.kappa.tobytes()).hexdigest()
    return found


def test_each_sky_is_that_of_simulate(record, tmp_path):
    paths = make(tmp_path / "set", [4, 0, 70000])
    assert [path.name for path in paths] == ["sky_00004.h5", "sky_00000.h5", "sky_70000.h5"]
    for path, seed in zip(paths, [4, 0, 70000], strict=True):
        sky = mlsky.simulate([93, 150], NSIDE, seed, stokes="T")
        np.testing.assert_array_equal(mlsky.Sky.read(path).total, sky.total)
    manifest = ensembles.read_manifest(tmp_path / "set")
    assert set(manifest["skies"]) == {"4", "0", "70000"}
    assert manifest["skies"]["4"]["bytes"] == paths[0].stat().st_size
    assert manifest["made_of"]["bands"] == ["93", "150"]
    assert manifest["gib_per_worker"] > 0
    assert {path.name for path in (tmp_path / "set").iterdir()} == {
        "manifest.json",
        *(path.name for path in paths),
    }


def test_fits_and_other_options(record, tmp_path):
    (path,) = make(tmp_path / "set", [1], suffix=".fits", unit="K_CMB", components="tsz")
    assert path.name == "sky_00001.fits"
    assert mlsky.Sky.read(path).unit == "K_CMB"


def test_what_is_missing_or_damaged_is_made_and_nothing_else(record, tmp_path):
    folder = tmp_path / "set"
    paths = make(folder, range(4))
    before = contents(folder)
    paths[1].unlink()
    data = bytearray(paths[2].read_bytes())
    data[len(data) // 2] ^= 1
    paths[2].write_bytes(data)
    times = {path: path.stat().st_mtime_ns for path in (paths[0], paths[3])}
    calls = len(record.generate)
    (folder / "notes.txt").write_text("of the user")
    make(folder, range(4))
    assert len(record.generate) == calls + 2
    assert contents(folder) == before
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert (folder / "notes.txt").read_text() == "of the user"
    make(folder, range(6))  # more of the same
    assert len(record.generate) == calls + 4
    assert set(ensembles.read_manifest(folder)["skies"]) == {"0", "1", "2", "3", "4", "5"}


def test_one_that_fails_leaves_the_others(record, tmp_path, monkeypatch):
    run = ensembles.run

    def fails(request):
        if request.seed == 1:
            raise OSError("the disk\nis gone")
        return run(request)

    monkeypatch.setattr(ensembles, "run", fails)
    with pytest.raises(
        mlsky.MlskyError, match="1 of 3 skies are not done, the first of seed 1"
    ) as e:
        make(tmp_path / "set")
    assert "\n" not in str(e.value)
    assert set(ensembles.read_manifest(tmp_path / "set")["skies"]) == {"0", "2"}
    monkeypatch.setattr(ensembles, "run", run)
    make(tmp_path / "set")
    assert len(contents(tmp_path / "set")) == 3


def test_progress_has_the_rate_and_the_time_left(record, tmp_path):
    seen = []
    make(tmp_path / "set", progress=lambda text, fraction: seen.append((text, fraction)))
    assert seen[0] == ("0 of 3 skies", 0.0)
    assert "per hour" in seen[1][0]
    assert seen[1][0].endswith("left")
    assert [fraction for _, fraction in seen] == [0.0, 1 / 3, 2 / 3, 1.0]
    seen.clear()
    make(tmp_path / "set", progress=lambda text, fraction: seen.append((text, fraction)))
    assert seen[-1] == ("3 of 3 skies", 1.0)  # nothing was made: no rate


def test_threads_of_workers(record, tmp_path):
    make(tmp_path / "set", [0], threads=3)
    assert os.environ.pop("OMP_NUM_THREADS") == "3"
    assert ensembles.read_manifest(tmp_path / "set")["threads_per_worker"] == 3


BAD = [
    ({"seeds": []}, "seeds: empty"),
    ({"seeds": [1, 2, 1]}, "seeds hold 1 more than once"),
    ({"seeds": [-1]}, "seed=-1: must be an integer >= 0"),
    ({"seeds": 5}, "seeds=5: must be integers"),
    ({"executor": 3}, r"executor=3: must have submit\(\)"),
    ({"suffix": ".npy"}, r"suffix='.npy': must be one of .h5, .hdf5, .fits"),
    ({"threads": 0}, "threads=0: must be an integer from 1"),
    ({"workers": 2}, "workers=2 with an executor"),
    ({"progress": 3}, "progress=3: must be None or a function"),
    ({"nside": 1000}, "nside=1000: must be a power of two"),
    ({"folder": "missing/set"}, "missing does not exist, make it first"),
    ({"folder": "file"}, "file: is a file; give the name of a folder"),
    ({"folder": "other"}, "holds other files and no manifest.json"),
    ({"folder": "broken"}, r"manifest.json: no manifest of an ensemble"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_input_is_one_line_before_any_work(record, tmp_path, change, message):
    (tmp_path / "file").write_text("")
    for name, file in (("other", "photo.jpg"), ("broken", "manifest.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{}")
    folder = tmp_path / change.get("folder", "set")
    options = {name: value for name, value in change.items() if name != "folder"}
    with pytest.raises(ValueError, match=message) as caught:
        make(folder, **options)
    assert "\n" not in str(caught.value)
    assert not record.kappa_alm
    assert not (tmp_path / "set").exists()


def test_a_folder_of_other_arguments_is_refused(record, tmp_path):
    make(tmp_path / "set", [0])
    for change in ({"nside": 32}, {"unit": "K_CMB"}, {"components": "tsz"}, {"suffix": ".fits"}):
        with pytest.raises(ValueError, match="holds an ensemble of other arguments"):
            make(tmp_path / "set", [0], **change)
    with pytest.raises(ValueError, match=r"other arguments \(bands\)"):
        mlsky.ensemble([0], [93, 151], NSIDE, stokes="T", out=tmp_path / "set", executor=Inline())
    with pytest.raises(TypeError, match="'seed' is set for each sky by the ensemble itself"):
        make(tmp_path / "set", [0], seed=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nsid'"):
        make(tmp_path / "set", [0], nsid=3)


ELL = np.arange(60)
#: A table of the same length and FWHM, to four digits, as its neighbour.
TABLES = [
    np.exp(-0.5 * ELL * (ELL + 1) * 0.06**2),
    np.exp(-0.5 * ELL**1.0001 * (ELL + 1) * 0.06**2),
]
HOLES = np.where(np.arange(12 * NSIDE**2) < 9, np.nan, 0.0)
CLUSTERS = {
    "ra": [10.0] * u.deg,
    "dec": [20.0] * u.deg,
    "z": [0.5],
    "m200m": [5e14] * u.Msun,
}

#: Arguments that change the maps: what each is asked for with, and two values that are others.
CHANGES = [
    ("freqs", {}, [93, 150], [93, 151]),
    ("freqs", {}, [150.0], [150.00001]),
    ("freqs", {}, mlsky.Band.top_hat(140, 160), mlsky.Band.top_hat(140, 161)),
    ("freqs", {}, mlsky.Band([90], beam=400), mlsky.Band([90], beam=600)),
    ("nside", {}, 16, 32),
    ("geometry", {"nside": None}, fakes.patch(10), fakes.patch(11)),
    ("components", {}, ["tsz"], ["tsz", "ksz"]),
    ("stokes", {}, "T", "TQU"),
    ("kappa", {}, None, np.zeros(12 * NSIDE**2)),
    ("kappa", {}, np.ones(12 * NSIDE**2), np.zeros(12 * NSIDE**2)),
    ("kappa_kind", {"kappa": np.zeros(12 * NSIDE**2)}, "gaussian", "nonlinear"),
    ("fill_kappa", {}, {"kappa": np.nan_to_num(HOLES)}, {"kappa": HOLES, "fill_kappa": True}),
    ("cosmology", {}, "planck2018", {"ns": 0.97}),
    ("weights", {}, "default", "other"),
    ("flux_cut_mjy", {}, None, 15),
    ("flux_cut_mjy", {}, 15, 16),
    ("flux_cut", {}, (15, 150), (15, 90)),
    ("flux_cut", {}, (15, 150), (15, 150.00001)),
    ("flux_cut", {}, [(15, 150), (15, 90)], [(15, 150), (16, 90)]),
    ("tsz_temperature_kev", {}, None, 5),
    ("haloes", {"weights": "rest"}, None, CLUSTERS),
    ("haloes", {"weights": "rest"}, {**CLUSTERS, "z": [0.6]}, CLUSTERS),
    ("monopole", {}, True, False),
    ("monopole", {}, False, ("cib",)),
    ("unit", {}, "uK_CMB", "y"),
    ("beam", {}, None, 400),
    ("beam", {}, 400, 600),
    ("beam", {}, 400, 400.0001),
    ("beam", {}, [400, 500], [500, 400]),
    ("beam", {}, *TABLES),
    ("pixel_window", {"components": "tsz"}, True, False),
    ("cmb_seed", {}, None, 0),
    ("cmb_seed", {}, 0, 1),
]

#: Arguments on which maps do not depend, or that an ensemble sets itself.
HARMLESS = {*ensembles.OWN, "device", "check_resources"}


@pytest.fixture
def any_weights(record, monkeypatch):
    """Three weights, of which the rest leave clusters out."""
    found = {
        "default": fakes.FakeWeights(),
        "other": fakes.FakeWeights(sha256="1" * 64),
        "rest": fakes.FakeWeights(mass_cut=1e14),
    }
    monkeypatch.setattr("mlsky.painting.foregrounds.select", lambda name, geometry: found[name])
    return record


@pytest.mark.parametrize(("name", "more", "one", "other"), CHANGES)
def test_every_argument_that_changes_maps_is_compared(
    any_weights, tmp_path, monkeypatch, name, more, one, other
):
    monkeypatch.setattr(ensembles, "_make", lambda *args: {"seconds": None})
    values = [value if name == "fill_kappa" else {name: value} for value in (one, other)]
    first, second = ({"freqs": [93, 150], "nside": NSIDE, **more, **value} for value in values)
    for again in (first, first):
        mlsky.ensemble([0], out=tmp_path / "set", executor=Inline(), **again)
    with pytest.raises(ValueError, match="holds an ensemble of other arguments"):
        mlsky.ensemble([0], out=tmp_path / "set", executor=Inline(), **second)


def test_every_argument_is_tried():
    """A new argument of `simulate` is to be listed here, above or as harmless."""
    assert {name for name, *_ in CHANGES} | HARMLESS == set(mlsky.signature.DEFAULTS)


@pytest.mark.parametrize(
    "options",
    [
        {"suffix": ".fits", "cmb_seed": 3},
        {"nside": None, "geometry": fakes.patch(9), "beam": 90},
    ],
)
def test_a_file_of_another_sky_is_none_of_the_ensemble(record, tmp_path, options):
    asked = {"nside": NSIDE, "components": ["radio"], "flux_cut": (15, "so_lat/f150"), **options}

    def ask(seeds, out, **more):
        bands = [1e3 / 7, "so_lat/f090"]
        return mlsky.ensemble(seeds, bands, out=out, executor=Inline(), **{**asked, **more})

    def content():
        skies = [mlsky.Sky.read(path) for path in paths]
        return [(sky.meta, sky.total.tobytes(), sky.kappa.tobytes()) for sky in skies]

    folder = tmp_path / "set"
    paths = ask([1, 2], folder)
    before, calls = content(), len(record.generate)
    ask([1, 2], folder)
    assert len(record.generate) == calls  # these are its own
    strangers = [paths[0]]
    for number, more in enumerate([{"unit": "K_CMB"}, {"beam": 300}]):
        strangers += ask([2], tmp_path / f"other_{number}", **more)
    for stranger in strangers:
        shutil.copy(stranger, paths[1])
        calls = len(record.generate)
        ask([1, 2], folder)
        assert len(record.generate) == calls + 1
    assert content() == before


def test_workers_have_the_memory_that_they_need(record, tmp_path, monkeypatch):
    request = ensembles.check(mlsky.signature.Arguments([93, 150], NSIDE, stokes="T"))
    each = max(request.memory().values())
    monkeypatch.setattr(ensembles, "cores", lambda: 64)
    monkeypatch.setattr(resources, "memory_free", lambda: 5.5 * each)
    share = lambda *args: ensembles._share(request, mlsky.signature.Arguments(93), *args, True)  # noqa: E731
    assert share(None, None, 100) == (5, 12)
    assert share(None, None, 2) == (2, 32)
    assert share(None, 16, 100)[0] <= 4  # cores
    assert share(3, None, 100) == (3, 21)
    with pytest.raises(ValueError, match=r"workers=9: each needs .* at most 5, or check_res"):
        share(9, None, 100)


def test_a_sky_that_was_killed_half_way_goes_on(record, tmp_path, monkeypatch):
    """With the bits of an undisturbed one; benchmarks/ensemble_kills.py kills real processes."""
    make(tmp_path / "whole", range(3))
    observe = simulation.observe

    def dies(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(simulation, "observe", dies)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "set", range(3))
    assert [path.name for path in (tmp_path / "set").glob("*.partial")] == ["sky_00000.h5.partial"]
    monkeypatch.setattr(simulation, "observe", observe)
    make(tmp_path / "set", range(3))
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")
    assert not list((tmp_path / "set").glob("*.partial"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Options of a real sky that takes a second: few coarse charts, a kappa of the user's own."""
    weights = fakes.coarse_weights(tmp_path_factory.mktemp("weights") / "small.safetensors")
    rng = np.random.default_rng(1)
    lmax = 540
    alm = rng.standard_normal((lmax + 1) * (lmax + 2) // 2) * 1e-4 + 0j
    patch = enmap.geometry(np.radians([[-4, 4], [4, -4]]), res=np.radians(1), proj="car")
    return {
        "kappa": alm,
        "weights": str(weights),
        "components": ["tsz"],
        "nside": None,
        "geometry": patch,
    }


def same_as_simulate(paths, options):
    options = {"stokes": "T", **options}
    for seed, path in enumerate(paths):
        sky = mlsky.simulate([93, 150], seed=seed, **options)
        np.testing.assert_array_equal(mlsky.Sky.read(path).total, sky.total)


def test_processes_of_this_machine(small, tmp_path):
    """Started afresh, with real networks."""
    paths = mlsky.ensemble(range(2), [93, 150], out=tmp_path / "a", workers=1, stokes="T", **small)
    same_as_simulate(paths, small)
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["workers"] == 1


def test_dask(small, tmp_path):
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        paths = make(tmp_path / "set", range(2), client.get_executor(), threads=1, **small)
    same_as_simulate(paths, small)
