"""mlsky simulate and verify: what they write, what they say, and what they leave when they fail."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import fakes
import healpy
import numpy as np
import pytest
from command_line import BASE, error_of

import mlsky
from mlsky import cli, request
from mlsky.cli import simulate
from mlsky.frequency import passbands
from mlsky.plotting import sky_maps
from mlsky.signature import Arguments
from mlsky.sky import Sky


def test_simulate(record, capsys):
    assert cli.main([*BASE, "--out", "sky.h5"]) == 0
    sky = Sky.read("sky.h5")
    np.testing.assert_array_equal(sky.total, mlsky.simulate([93, 145], 16, 1).total)
    assert sky.meta["command"] == "mlsky simulate --freqs 93 145 --nside 16 --seed 1 --out sky.h5"
    out, err = capsys.readouterr()
    assert "sky.h5: " in out
    assert "rms of T at 145 GHz, uK_CMB: cmb " in out
    assert "sources above 1 mJy" in out
    for stage in ("spectra", "networks", "lensing of the CMB", "writing sky.h5"):
        assert stage in err
    assert os.listdir() == ["sky.h5"]


@pytest.mark.parametrize(
    ("unit", "stokes", "suffix"),
    [
        *((unit, "T", ".fits") for unit in passbands.UNITS),
        *(("y", stokes, suffix) for stokes in ("QU", "TQU") for suffix in (".fits", ".h5")),
    ],
)
def test_the_summary_has_an_rms(record, capsys, unit, stokes, suffix):
    command = ["simulate", "--freqs", "150", "--nside", "1", "--components", "cmb", "radio"]
    command += ["--unit", unit, "--stokes", stokes, "--out", f"sky{suffix}"]
    assert cli.main(command) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("rms")]
    sky = Sky.read(f"sky{suffix}")
    names = {".fits": ["total"], ".h5": ["cmb", "radio"]}[suffix]
    rms = ", ".join(f"{name} {sky[name][0, 0].std(dtype=float):.3g}" for name in names)
    assert line == f"rms of {stokes[0]} at 150 GHz, {unit}: {rms}"


@pytest.mark.parametrize(
    "freqs",
    [
        ["--freqs", "93", "145", "225"],
        ["--freqs", "93,145,225"],
        ["--freqs=93,145,225"],
        ["--freqs", "93, 145", "225"],
        ["--freqs", "93", "--freqs", "145", "225"],
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_every_way_to_give_frequencies(record, freqs, last):
    rest = ["--nside", "1", "--out", "a.fits"]
    assert cli.main(["simulate", *(rest + freqs if last else freqs + rest)]) == 0
    np.testing.assert_array_equal(Sky.read("a.fits").freqs_ghz, [93, 145, 225])


def test_every_argument_of_simulate_is_an_option():
    from mlsky.cli import simulate as command

    assert set(command.OPTIONS) == {f.name for f in dataclasses.fields(Arguments)} - {"progress"}


def test_every_option_reaches_simulate(record, monkeypatch):
    seen = {}
    real = request.check

    @functools.wraps(real)
    def spy(asked):
        seen.update(vars(asked))
        return real(asked)

    monkeypatch.setattr("mlsky.request.check", spy)
    options = "--components tsz radio --stokes T --unit K_CMB --flux-cut 15 spt3g/150 --cmb-seed 4"
    options += " --tsz-temperature-kev 5 --no-check-resources --beam 600,400 --no-pixel-window"
    options += (
        " --no-monopole --cosmology act-dr6 --weights default --device cpu --car 360 --seed 9"
    )
    assert cli.main(["simulate", "--freqs", "150", "93", *options.split(), "--out", "a.h5"]) == 0
    assert seen.pop("progress") is not None
    assert seen.pop("geometry")[0] == (30, 60)
    assert seen == {
        "freqs": [150.0, 93.0],
        "nside": None,
        "seed": 9,
        "cmb_seed": 4,
        "components": ["tsz", "radio"],
        "stokes": "T",
        "unit": "K_CMB",
        "flux_cut_mjy": None,
        "flux_cut": (15.0, ["spt3g/150"]),
        "beam": [600.0, 400.0],
        "pixel_window": False,
        "tsz_temperature_kev": 5.0,
        "monopole": False,
        "cosmology": "act-dr6",
        "weights": "default",
        "device": "cpu",
        "kappa_kind": "gaussian",
        "fill_kappa": False,
        "out": Path("a.h5"),
        "overwrite": False,
        "check_resources": False,
        "kappa": None,
        "haloes": None,
    }
    assert Sky.read("a.h5").shape == (2, 1, 30, 60)


def test_kappa_files(record, capsys):
    values = 1e-2 * fakes.normal(3, 0, 12 * 8**2).astype(np.float64)
    healpy.write_map("nested.fits", healpy.reorder(values, r2n=True), nest=True, dtype=np.float64)
    np.save("ring.npy", values)
    alm = np.full(45, 1e-3 + 0j)
    healpy.write_alm("alm.fits", alm)
    np.testing.assert_allclose(simulate._read_kappa(Path("nested.fits")), values)
    np.testing.assert_allclose(simulate._read_kappa(Path("ring.npy")), values)
    np.testing.assert_allclose(simulate._read_kappa(Path("alm.fits")), alm)
    assert cli.main([*BASE, "--kappa", "ring.npy", "--out", "a.h5"]) == 0
    assert Sky.read("a.h5").meta["kappa"] == "given, gaussian, up to l = 16"
    from pixell import enmap

    shape, wcs = enmap.fullsky_geometry(res=np.radians(10), variant="fejer1")
    car = enmap.ndmap(1e-2 * fakes.normal(4, 0, shape).astype(np.float64), wcs)
    car[3, 5] = np.nan
    enmap.write_map("car.fits", car)
    np.testing.assert_allclose(simulate._read_kappa(Path("car.fits"))[0], car)
    capsys.readouterr()
    given = ["--kappa", "car.fits", "--kappa-kind", "nonlinear"]
    assert "--fill-kappa" in error_of(capsys, [*BASE, *given, "--out", "c.h5"])
    capsys.readouterr()
    Path("junk.fits").write_bytes(b"junk" * 100)
    np.save("short.npy", values[:7])
    np.save("object.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name, message in (
        ("none.fits", "no such file"),
        ("junk.fits", "cannot be read"),
        ("object.npy", "cannot be read"),
        ("short.npy", "kappa map of length 7"),
    ):
        assert message in error_of(capsys, [*BASE, "--kappa", name, "--out", "b.h5"])


BAD = [
    (["--nside", "1000"], "nside=1000: must be a power of two"),
    (["--nside", "many"], "'many' is not a valid integer"),
    (["--freqs", "-93"], "-93"),
    (["--freqs", "nan"], "nan"),
    (["--freqs", "93", "inf"], "inf"),
    (["--freqs", "9"], "9 GHz: outside the range of the laws"),
    (["--freqs", "93GHz"], "band '93GHz': no band has that name; freqs may hold GHz"),
    (["--freqs", ","], "'--freqs': is empty"),
    (["--components", "dust"], "component 'dust'"),
    (["--unit", "K"], "unit='K'"),
    (["--stokes", "QT"], "stokes='QT'"),
    (["--weights", "best"], "weights='best'"),
    (["--tsz-temperature-kev", "20"], "tsz_temperature_kev=20.0: must be None or a number from 0"),
    (["--cosmology", "mine"], "cosmology='mine'"),
    (["--flux-cut-mjy", "-1"], "flux_cut_mjy=-1"),
    (["--device", "abacus"], "device='abacus'"),
    (["--seed", "-1"], "seed=-1"),
    (["--nside", "16", "--car", "2"], "give one of --nside N"),
    (["--car", "7.1"], "--car 7.1: must be arcmin that divide 180 degrees"),
    (["--car", "0"], "--car 0"),
    (["--out", "sky.txt"], "suffix must be one of"),
    (["--out", "none/sky.h5"], "folder none does not exist"),
    (["--no-such-option"], "No such option"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_input_is_one_line_and_status_2(record, capsys, change, message):
    replaced = {change[0]} & {"--freqs", "--nside", "--out"}
    if change[0] == "--car":
        replaced.add("--nside")
    arguments = ["simulate"]
    if "--freqs" not in replaced:
        arguments += ["--freqs", "93"]
    if "--nside" not in replaced:
        arguments += ["--nside", "16"]
    if "--out" not in replaced:
        arguments += ["--out", "sky.h5"]
    assert message in error_of(capsys, arguments + change)
    assert not record.kappa_alm


def test_an_empty_option_is_no_missing_one(record, capsys):
    for option in ("--components", "--freqs"):
        assert "is empty" in error_of(capsys, [*BASE, option, "", "--out", "a.h5"])
        assert "is empty" in error_of(capsys, [*BASE, option, ",", "--out", "a.h5"])
    assert not record.kappa_alm


def test_an_existing_file(record, capsys):
    Path("sky.h5").write_text("precious")
    assert "sky.h5: exists" in error_of(capsys, [*BASE, "--out", "sky.h5"])
    assert Path("sky.h5").read_text() == "precious"
    assert not record.kappa_alm
    assert cli.main([*BASE, "--out", "sky.h5", "--overwrite"]) == 0
    assert Sky.read("sky.h5").shape == (2, 3, 3072)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_writing_leaves_no_sky(tmp_path, number, status):
    """A real process, stopped half way through the file."""
    script = tmp_path / "run.py"
    script.write_text(
        "import sys, time, pytest, fakes\n"
        "from mlsky import cli\nfrom mlsky.io import hdf5\n"
        "fakes.install(pytest.MonkeyPatch())\n"
        "def wait(*args):\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
        "hdf5._write_table = wait\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    folder = tmp_path / "out"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, str(script), *BASE, "--out", "sky.h5"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.path.dirname(fakes.__file__)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # a shell that runs the tests in the background has SIGINT ignored, also in children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        assert process.stdout.readline().strip() == "writing"
        process.send_signal(number)
        assert process.wait(30) == status
    # What was made, to go on from; no file that looks like a sky.
    assert os.listdir(folder) == ["sky.h5.partial"]


def test_verify(record, capsys):
    for name in ("sky.h5", "sky.fits"):
        assert cli.main([*BASE, "--out", name]) == 0
        capsys.readouterr()
        assert cli.main(["verify", name]) == 0
        assert capsys.readouterr().out == f"{name}: as it was written\n"
        data = bytearray(Path(name).read_bytes())
        data[len(data) // 2] ^= 1
        Path(name).write_bytes(data)
        assert f"{name}: damaged" in error_of(capsys, ["verify", name])
    assert "no such file" in error_of(capsys, ["verify", "none.h5"])


def test_plot(record, capsys):
    assert cli.main([*BASE, "--out", "sky.h5"]) == 0
    capsys.readouterr()
    assert cli.main(["plot", "sky.h5"]) == 0
    assert capsys.readouterr().out.strip() == "sky.png"
    assert Path("sky.png").read_bytes().startswith(b"\x89PNG")
    assert "sky.png: exists" in error_of(capsys, ["plot", "sky.h5"])
    assert cli.main(["plot", "sky.h5", "--out", "other.pdf", "--freq", "93"]) == 0
    assert Path("other.pdf").read_bytes().startswith(b"%PDF")
    capsys.readouterr()
    assert "no such file" in error_of(capsys, ["plot", "none.h5"])
    assert "suffix must be one of" in error_of(capsys, ["plot", "sky.h5", "--out", "a.txt"])
    for freq in ("nan", "1e9", "-150"):
        said = error_of(capsys, ["plot", "sky.h5", "--out", "a.png", "--freq", freq])
        assert "must be a number of GHz from 20 to 1150" in said
        assert not Path("a.png").exists()
    assert sky_maps.SUFFIXES[0] == ".png"
