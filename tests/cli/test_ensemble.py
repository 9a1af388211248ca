"""The command that makes many skies."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import fakes
import numpy as np
import pytest
from command_line import error_of

import mlsky
from mlsky import cli, ensembles
from mlsky.cli.ensemble import Seeds

ARGUMENTS = ["ensemble", "--freqs", "93", "so_lat/f150", "--nside", "16", "--out", "set"]


@pytest.fixture
def record(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return fakes.install(monkeypatch)


@pytest.mark.parametrize(
    ("text", "expected", "again"),
    [
        ("0:3", [0, 1, 2], "0:3"),
        ("5", [5], "5"),
        ("0:2,7 9:11", [0, 1, 7, 9, 10], "0:2,7,9:11"),
        ([3, 2, 1], [3, 2, 1], "3,2,1"),  # as a TOML file may have them
        (7, [7], "7"),
    ],
)
def test_seeds(text, expected, again):
    assert Seeds().convert(text, None, None) == expected
    assert Seeds.text(expected) == again
    assert Seeds().convert(again, None, None) == expected


@pytest.mark.parametrize("seeds", ['"4:6"', "[4, 5]"])
def test_options_from_a_file(record, capsys, monkeypatch, seeds):
    text = 'freqs = [93, "so_lat/f150"]\nnside = 16\nout = "set"\nworkers = 1\ncomponents = "tsz"\n'
    Path("set.toml").write_text(f"{text}seeds = {seeds}\n")
    assert cli.main(["ensemble", "--config", "set.toml", "--stokes", "T", "--dump-config"]) == 0
    dumped = capsys.readouterr().out
    assert 'seeds = "4:6"' in dumped
    assert not Path("set").exists()
    Path("again.toml").write_text(dumped)
    assert cli.main(["ensemble", "--config", "again.toml", "--dump-config"]) == 0
    assert capsys.readouterr().out == dumped
    calls = []
    monkeypatch.setattr(ensembles, "ensemble", lambda s, **options: calls.append((s, options)) or s)
    assert cli.main(["ensemble", "--config", "again.toml"]) == 0
    ((seed_list, options),) = calls
    assert seed_list == [4, 5]
    assert (options["stokes"], options["components"], options["workers"]) == ("T", ["tsz"], 1)
    assert options["freqs"] == [93.0, "so_lat/f150"]
    capsys.readouterr()
    # what a sky has and a set has not
    Path("sky.toml").write_text(text + "seed = 1\n")
    error = error_of(capsys, ["ensemble", "--config", "sky.toml", "--seeds", "1"])
    assert "'seed' is no option of ensemble; may be beam" in error


def test_what_reaches_ensemble(record, capsys, monkeypatch):
    calls = []

    def ensemble(seed_list, **options):
        calls.append((seed_list, options))
        return [Path("a")] * len(seed_list)

    monkeypatch.setattr(ensembles, "ensemble", ensemble)
    assert cli.main([*ARGUMENTS, "--seeds", "0:3", "--workers", "2", "--stokes", "T"]) == 0
    assert "set: 3 skies, listed in manifest.json" in capsys.readouterr().out
    ((seed_list, options),) = calls
    assert seed_list == [0, 1, 2]
    assert options["freqs"] == [93.0, "so_lat/f150"]
    assert (options["nside"], options["workers"], options["executor"]) == (16, 2, None)
    assert (options["stokes"], options["suffix"], options["components"]) == ("T", ".h5", None)
    assert not set(ensembles.OWN) & set(options) - {"out", "progress"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seeds", "0:x"], "'0:x': must be whole numbers or ranges"),
        (["--seeds", "3:3"], "seeds: empty"),
        (["--seeds", "0:3", "--scheduler", "tcp://localhost:1", "--mpi"], "give one of them"),
        (["--seeds", "0:3", "--workers", "0"], "workers=0: must be an integer from 1"),
        (["--seeds", "0:3", "--nside", "1000"], "nside=1000: must be a power of two"),
    ],
)
def test_bad_input_is_one_line(record, capsys, more, message):
    assert message in error_of(capsys, [*ARGUMENTS, *more])


@pytest.mark.parametrize(
    ("more", "module", "message"),
    [
        (["--mpi"], "mpi4py", "--mpi needs mpi4py"),
        (["--scheduler", "tcp://localhost:1"], "dask", "pip install distributed"),
    ],
)
def test_what_is_not_installed_is_named(record, capsys, monkeypatch, more, module, message):
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    assert message in error_of(capsys, [*ARGUMENTS, "--seeds", "0:3", *more])


def test_a_scheduler_that_is_not_there(record, capsys, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("mlsky.cli.ensemble.TIMEOUT_S", 0.2)
    error = error_of(capsys, [*ARGUMENTS, "--seeds", "0:3", "--scheduler", "tcp://localhost:1"])
    assert "no Dask scheduler answers there" in error


def test_one_process_of_mpi_is_too_few(record, capsys, monkeypatch):
    world = SimpleNamespace(Get_size=lambda: 1)
    mpi4py = SimpleNamespace(MPI=SimpleNamespace(COMM_WORLD=world))
    monkeypatch.setitem(sys.modules, "mpi4py", mpi4py)
    monkeypatch.setitem(sys.modules, "mpi4py.futures", SimpleNamespace(MPICommExecutor=None))
    error = error_of(capsys, [*ARGUMENTS, "--seeds", "0:3", "--mpi"])
    assert "--mpi: MPI has 1 process, must have 2 or more" in error


#: What Open MPI asks of containers, which are run by root and have few cores.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}


@pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or shutil.which("mpiexec") is None,
    reason="mpi4py or mpiexec is not installed",
)
def test_mpi(tmp_path):
    """Two processes, of which one works and the other hands out."""
    weights = fakes.coarse_weights(tmp_path / "small.safetensors")
    options = ["--nside", "16", "--stokes", "T", "--components", "tsz", "--weights", str(weights)]
    command = [sys.executable, "-m", "mlsky.cli", *ARGUMENTS, *options, "--seeds", "3", "--mpi"]
    ran = subprocess.run(
        ["mpiexec", "-n", "2", *command, "--threads", "1"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | OPEN_MPI,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("1 skies, listed in") == 1  # the worker says nothing
    bands = [93, "so_lat/f150"]
    sky = mlsky.simulate(bands, 16, 3, stokes="T", components="tsz", weights=weights)
    np.testing.assert_array_equal(mlsky.Sky.read(tmp_path / "set/sky_00003.h5").total, sky.total)
