"""The command line: what it writes, what it says, and what it leaves when it fails."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import fakes
import healpy
import numpy as np
import pytest
from command_line import BASE, error_of

import mlsky
from mlsky import cli, request, seeds
from mlsky.cli import simulate
from mlsky.plotting import sky_maps
from mlsky.signature import Arguments
from mlsky.sky import Sky


@pytest.fixture
def record(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return fakes.install(monkeypatch)


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
    options = "--components tsz radio --stokes T --unit K_CMB --flux-cut-mjy 15 --cmb-seed 4"
    options += " --tsz-temperature-kev 5 --no-check-resources"
    options += (
        " --no-monopole --cosmology act-dr6 --weights default --device cpu --car 600 --seed 9"
    )
    assert cli.main(["simulate", "--freqs", "150", *options.split(), "--out", "a.h5"]) == 0
    assert seen.pop("progress") is not None
    assert seen.pop("geometry")[0] == (18, 36)
    assert seen == {
        "freqs": [150.0],
        "nside": None,
        "seed": 9,
        "cmb_seed": 4,
        "components": ["tsz", "radio"],
        "stokes": "T",
        "unit": "K_CMB",
        "flux_cut_mjy": 15.0,
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
    assert Sky.read("a.h5").shape == (1, 1, 18, 36)


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
    (["--car", "2"], "give exactly one"),
    (["--car", "7.1"], "--car 7.1: must be arcmin that divide 180 degrees"),
    (["--car", "0"], "--car 0"),
    (["--out", "sky.txt"], "suffix must be one of"),
    (["--out", "none/sky.h5"], "folder none does not exist"),
    (["--no-such-option"], "No such option"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_input_is_one_line_and_status_2(record, capsys, change, message):
    replaced = {change[0]} & {"--freqs", "--nside", "--out"}
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


@pytest.mark.parametrize("arguments", [["simulate"], ["simulate", "--freqs"], ["paint"]])
def test_wrong_usage(record, capsys, arguments):
    error_of(capsys, arguments)


def test_help_and_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"mlsky, version {mlsky.__version__}"
    for arguments in (["--help"], ["simulate", "-h"], ["weights", "--help"], ["train", "-h"]):
        assert cli.main(arguments) == 0
        assert "Usage: mlsky" in capsys.readouterr().out
    assert cli.main([]) == 2
    assert "simulate" in capsys.readouterr().err


def test_help_is_light():
    code = (
        "import sys; from mlsky import cli; cli.main(['simulate', '--help'])\n"
        "heavy = {'torch', 'numpy', 'healpy', 'astropy', 'camb', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stderr.strip() == "[]"


def test_interrupted(record, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mlsky.io.hdf5._write_table", interrupt)
        assert cli.main([*BASE, "--out", "sky.h5"]) == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    assert os.listdir() == ["sky.h5.partial"]
    assert cli.main([*BASE, "--out", "sky.h5"]) == 0
    assert os.listdir() == ["sky.h5"]


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


def test_errors_of_the_file_system_are_one_line(record, capsys, monkeypatch):
    def full(request):
        raise OSError(28, "No space left on device", "sky.h5.partial")

    monkeypatch.setattr("mlsky.simulation.run", full)
    assert "sky.h5.partial: No space left on device" in error_of(capsys, [*BASE, "--out", "a.h5"])


def test_errors_of_ours_are_bugs_and_shown(record, monkeypatch):
    """Only what mlsky can explain is one line; a bug keeps its traceback."""

    def bug(request):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("mlsky.simulation.run", bug)
    with pytest.raises(ZeroDivisionError):
        cli.main([*BASE, "--out", "sky.h5"])


def test_debug_shows_the_traceback(record):
    with pytest.raises(ValueError, match="nside=3"):
        cli.main(["--debug", "simulate", "--freqs", "93", "--nside", "3", "--out", "a.h5"])


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
    assert sky_maps.SUFFIXES[0] == ".png"


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry of one good file and one altered one."""
    import hashlib

    folder = tmp_path / "registry"
    (folder / "weights").mkdir(parents=True)
    good = b"good weights"
    (folder / "weights" / "good.safetensors").write_bytes(good)
    digest = hashlib.sha256(good).hexdigest()
    text = "".join(
        f"{name}:\n  kind: default\n  default: {str(name == 'good').lower()}\n  versions:\n"
        f"    v1:\n      files:\n        - file: {name}.safetensors\n          sha256: {digest}\n"
        f"          bytes: {len(good)}\n          pixel_arcmin: 2.0\n          urls: []\n"
        "      licence: CC-BY-4.0\n      cite: []\n      inputs: [kappa]\n"
        "      outputs: [tsz]\n      recipe: {}\n      data: {}\n      scores: {}\n"
        for name in ("good", "other")
    )
    (folder / "registry.yaml").write_text(text)
    monkeypatch.setenv("MLSKY_REGISTRY", str(folder / "registry.yaml"))
    monkeypatch.chdir(tmp_path)
    return folder


def test_weights(registry, capsys):
    assert cli.main(["weights", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:6] for line in lines] == ["* good", "  othe"]
    assert lines[0].split() == ["*", "good", "v1", "default", "2'"]
    for name in ("good", "default", "good@v1"):
        assert cli.main(["weights", "show", name]) == 0
        assert "licence: CC-BY-4.0" in capsys.readouterr().out
    assert cli.main(["weights", "fetch", "good"]) == 0
    assert capsys.readouterr().out.strip().endswith("good.safetensors")
    assert cli.main(["weights", "verify", "good"]) == 0
    assert capsys.readouterr().out.strip() == "good v1 good.safetensors: good"
    for command in ("show", "fetch", "verify"):
        assert "'none'" in error_of(capsys, ["weights", command, "none"])
    error_of(capsys, ["weights", "fetch", "other"])
    path = registry / "weights" / "good.safetensors"
    path.write_bytes(b"good wEights")
    assert "altered" in error_of(capsys, ["weights", "verify"])
    path.write_bytes(b"good")
    assert "4 of 12 bytes" in error_of(capsys, ["weights", "fetch", "good"])


def _tiny_set(path, pixel_arcmin=0.5, n=64, leave_out=(), seed=1):
    import h5py

    rng = seeds.generator(seed, "truth")
    mass = np.exp(rng.standard_normal((2, n, n))).astype(np.float32)
    fields = {"kappa": 0.05 * mass, "kappa_in": 0.05 * mass, "tsz": -3 * mass, "cib": 10 * mass}
    fields |= {"ksz": mass - 1.5, "radio": 30 * np.maximum(mass - 6, 0)}
    with h5py.File(path, "w") as file:
        file.attrs["pixel_arcmin"] = pixel_arcmin
        for name in set(fields) - set(leave_out):
            file[name] = fields[name]


@pytest.fixture
def tiny_recipe(monkeypatch, tmp_path):
    """A recipe that trains in a second, a set for it, and the folder they are in."""
    import dataclasses

    from mlsky.training import recipes

    small = {"widths": (4, 4), "noise": (1, 1)}
    base = recipes.recipe("paint-0.5")
    tiny = dataclasses.replace(
        base,
        name="tiny",
        size=64,
        batch=2,
        generator_options={**small, "velocity_levels": 2},
        critic_options={**base.critic_options, "widths": (4, 4)},
    )
    monkeypatch.setitem(recipes.RECIPES, "tiny", tiny)
    monkeypatch.chdir(tmp_path)
    _tiny_set("set.h5")


TRAIN = "train --recipe tiny --data set.h5 --out run --device cpu --seed 3".split()


def test_train(tiny_recipe, capsys):
    from mlsky.training.run import load_generator

    assert cli.main([*TRAIN, "--steps", "2"]) == 0
    assert capsys.readouterr().out.startswith("run: 2 steps in ")
    _, _, state = load_generator("run")
    assert (state["step"], state["seed"], state["recipe"]["name"]) == (2, 3, "tiny")
    assert cli.main([*TRAIN, "--steps", "3"]) == 0  # goes on
    assert load_generator("run")[2]["step"] == 3
    capsys.readouterr()
    assert "another seed" in error_of(capsys, [*TRAIN, "--steps", "4", "--seed", "4"])


def test_every_option_reaches_train(tiny_recipe, monkeypatch):
    from types import SimpleNamespace

    from mlsky.training import loop

    seen = {}

    def spy(recipe, data, out, **options):
        seen.update(recipe=recipe.name, data=str(data), out=str(out), **options)
        return SimpleNamespace(step=1, seconds=1.0)

    monkeypatch.setattr(loop, "train", spy)
    more = "--target truth.h5 --init-from old --minutes 1.5 --normaliser data"
    more += " --validation val.h5 --score-every 0.5 --score-regions 3"
    assert cli.main([*TRAIN, *more.split()]) == 0
    everything = {
        "recipe": "tiny",
        "data": "set.h5",
        "out": "run",
        "target": Path("truth.h5"),
        "init_from": Path("old"),
        "normaliser": "data",
        "validation": Path("val.h5"),
        "every": 0.5,
        "regions": 3,
        "minutes": 1.5,
        "steps": None,
        "device": "cpu",
        "seed": 3,
        "converged": None,
    }
    assert seen == everything
    assert cli.main([*TRAIN, "--steps", "2"]) == 0
    unsaid = ("target", "init_from", "normaliser", "validation", "every", "regions")
    plain = {"minutes": None, "steps": 2}
    assert seen == everything | dict.fromkeys(unsaid) | plain


PAINTED = "train --recipe tiny --painted 11 --out run --device cpu --seed 3 --steps 1".split()


def test_train_on_what_is_painted_as_it_goes(tiny_recipe, monkeypatch, capsys):
    """In miniature: regions of 1 degree by the real painter."""
    from mlsky.training import data
    from mlsky.training.run import load_generator

    made = []
    real = data.painted

    def small(*args, **options):
        made.append(real(*args, **options, n=128, regions=1))
        return made[-1]

    monkeypatch.setattr(data, "painted", small)
    assert cli.main(PAINTED) == 0
    assert capsys.readouterr().out.startswith("run: 1 steps in ")
    (patches,) = made
    assert (patches.seed, patches.names) == (11, ("kappa", "ksz", "tsz", "cib"))
    with pytest.raises(RuntimeError, match="shutdown"):  # closed
        patches.batch(99, 1)
    assert load_generator("run")[1].channels == patches.names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data", "set.h5"], "--data, --painted: give one of them"),
        (["--target", "set.h5"], "--target set.h5: painted patches hold the truth"),
        (["--painted", "4"], "--painted=4: mlsky validate paints its regions with it"),
        (["--recipe", "han2021-w16"], "--painted 11: the paper's chain starts anew, on a set"),
        (["--device", "tpu9"], "device='tpu9'"),
    ],
)
def test_bad_painting_on_the_fly(tiny_recipe, capsys, change, message):
    assert message in error_of(capsys, PAINTED + change)


def test_train_scores_and_draws_its_log(tiny_recipe, monkeypatch, capsys):
    from mlsky.training import loop
    from mlsky.training.run import load_generator

    monkeypatch.setattr(loop, "REPORT_EVERY", 1)
    _tiny_set("val.h5", n=192)
    more = "--steps 2 --validation val.h5 --score-every 1 --score-regions 1"
    assert cli.main([*TRAIN, *more.split()]) == 0
    assert load_generator("run", "best")[2]["score"]["step"] in (1, 2)
    capsys.readouterr()
    for arguments, path in (
        (["train-log", "run"], "run.png"),
        (["train-log", "run", "--out", "curve.pdf"], "curve.pdf"),
    ):
        assert cli.main(arguments) == 0
        assert capsys.readouterr().out.strip() == path
        assert Path(path).stat().st_size > 5000
    assert "run.png: exists" in error_of(capsys, ["train-log", "run"])
    assert "none/log.jsonl: cannot be read" in error_of(capsys, ["train-log", "none"])


def test_tune(tiny_recipe, capsys):
    pytest.importorskip("optuna")
    line = "tune tiny --data set.h5 --out search --trials 2 --steps 25 --device cpu".split()
    line += ["--vary", "generator_rate=1e-4:1e-3", "--vary", "batch=1/2"]
    assert cli.main(line) == 0
    out = capsys.readouterr().out.splitlines()
    assert [x.split()[:2] for x in out[:2]] == [["0", "complete"], ["1", "complete"]]
    best = min(float(x.split()[2]) for x in out[:2])
    assert out[2].startswith(f"best {best:.4g}: generator_rate=")
    run = Path(out[3].split(":")[0])
    assert (run / "checkpoint.safetensors").exists()
    for change, message in (
        (["--vary", "rate=1:2"], "'rate' must be one of"),
        (["--minutes", "3"], "give exactly one of them"),
        (["--trials", "0"], "trials=0: must be at least 1"),
    ):
        assert message in error_of(capsys, [*line, *change])
    assert "recipe='none': must be one of" in error_of(capsys, ["tune", "none", *line[2:]])


def test_train_list(capsys):
    assert cli.main(["train", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == "paint-0.5 default:Paint 0.5' kappa -> ksz, tsz, cib".split()
    assert any(line.startswith("dcgan ") and " noise -> kappa" in line for line in lines)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([], "give exactly one"),
        (["--steps", "1", "--minutes", "1"], "give exactly one"),
        (["--steps", "0"], "steps=0: must be > 0"),
        (["--steps", "1", "--recipe", "best"], "recipe='best': must be one of paint-0.5"),
        (["--steps", "1", "--data", "none.h5"], "none.h5: cannot be read"),
        (["--steps", "1", "--data", "poor.h5"], "poor.h5: lacks tsz"),
        (["--steps", "1", "--data", "coarse.h5"], "pixels of 2.0' in the data"),
        (["--steps", "1", "--device", "tpu9"], "device='tpu9'"),
        (["--steps", "1", "--seed", "-1"], "seed=-1"),
        (["--steps", "1", "--out", "set.h5"], "set.h5: is a file"),
        (["--steps", "1", "--validation", "set.h5"], "the same sky is trained on"),
        (["--steps", "1", "--score-every", "1"], "there is nothing to score on"),
        (["--steps", "1", "--normaliser", "start"], "normaliser='start': there is no start"),
        (["--steps", "1", "--normaliser", "mine"], "'mine' is not one of"),
    ],
)
def test_bad_training(tiny_recipe, capsys, change, message):
    _tiny_set("poor.h5", leave_out=("tsz",))
    _tiny_set("coarse.h5", pixel_arcmin=2.0)
    assert message in error_of(capsys, TRAIN + change)


def test_interrupted_training_says_what_is_kept(tiny_recipe, capsys, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("mlsky.training.loop.train", interrupt)
    line = error_of(capsys, [*TRAIN, "--steps", "1"], status=130)
    assert "the same command goes on from what was saved" in line


def test_data_paint(monkeypatch, tmp_path, capsys):
    from mlsky.haloes import region_sets
    from mlsky.theory.objects import MASS_CUT

    seen = {}

    def spy(out, regions, **options):
        seen.clear()
        seen.update(regions=regions, **options)
        out.write_bytes(b"x" * 2_000_000)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(region_sets, "paint", spy)
    plain = {
        "regions": 40,
        "seed": 0,
        "pixel_arcmin": 0.5,
        "n": 512,
        "tables": None,
        "freqs": [],
        "catalogue_mjy": 1.0,
        "objects": None,
        "device": "cpu",
    }
    assert cli.main("data paint --out plain.h5 --device cpu".split()) == 0
    assert seen == plain
    for given, mass_cut in (("--objects", MASS_CUT), ("--objects 3e13", 3e13)):
        assert cli.main([*"data paint --out plain.h5 --device cpu".split(), *given.split()]) == 0
        assert seen == plain | {"objects": mass_cut}
    capsys.readouterr()
    options = "data paint --out a.h5 --regions 3 --seed 7 --pixel-arcmin 2 --pixels 64"
    more = "--freqs 93 150 --tables t.npz --catalogue-mjy 2 --device cpu"
    assert cli.main([*options.split(), *more.split()]) == 0
    changed = {"regions": 3, "seed": 7, "pixel_arcmin": 2.0, "n": 64, "tables": Path("t.npz")}
    assert seen == plain | changed | {"freqs": [93.0, 150.0], "catalogue_mjy": 2.0}
    assert capsys.readouterr().out.strip() == "a.h5: 3 regions, 2 MB"
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert "a.h5: exists already" in error_of(capsys, options.split())
    bad = ["data", "paint", "--out", "b.h5"]
    for change, message in (
        (["--regions", "0"], "regions=0"),
        (["--pixels", "65"], "n=65: must be a multiple of 16"),
        (["--catalogue-mjy", "8"], "catalogue_mjy=8.0: must be above 0 and at most"),
        (["--tables", "none.npz"], "none.npz: no such file of painter tables"),
        (["--freqs", "1e4"], "10000"),
        (["--objects", "1e10"], "objects=10000000000.0: must be a mass M200m in Msun from 2e+12"),
        (["--objects", "much"], "'much' is not a valid float"),
    ):
        assert message in error_of(capsys, [*bad, *change])
    assert sorted(os.listdir()) == ["a.h5", "plain.h5"]


def test_data_check(monkeypatch, tmp_path, capsys):
    import json

    import analytic_set
    from halo_cases import shipped

    from mlsky.plotting import truth_figures
    from mlsky.validation import observed, truth_text

    # the analytic model of the shipped tables takes seconds and is the same each time
    model = functools.cache(lambda: observed_model(shipped()))
    observed_model = observed.Model
    monkeypatch.setattr(observed, "Model", lambda tables: model())

    def draw(figures, maps, folder, apart):  # tests of validation.truth draw them
        folder.mkdir(exist_ok=True)
        for name in truth_figures.PICTURES:
            (folder / name).write_text("picture")
            yield folder / name

    monkeypatch.setattr(truth_figures, "draw", draw)
    monkeypatch.chdir(tmp_path)
    analytic_set.write("set.h5", 3)
    arguments = ["data", "check", "set.h5", "--out", "pictures", "--json", "figures.json"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out.splitlines()
    figures = json.loads(Path("figures.json").read_text())
    assert figures["regions"] == 3
    assert out[: -len(os.listdir("pictures"))] == list(truth_text.lines(figures))
    assert sorted(out[-len(truth_figures.PICTURES) :]) == sorted(
        f"pictures/{name}" for name in os.listdir("pictures")
    )
    assert "figures.json: exists" in error_of(capsys, arguments)
    assert cli.main([*arguments, "--overwrite", "--regions", "2"]) == 0
    assert json.loads(Path("figures.json").read_text())["regions"] == 2
    capsys.readouterr()
    assert "exists; give --overwrite" in error_of(capsys, arguments[:5])
    # as typed: pictures go beside the set
    assert cli.main(["data", "check", "set.h5"]) == 0
    assert sorted(os.listdir("set_check")) == sorted(os.listdir("pictures"))
    capsys.readouterr()
    assert "set_check/" in error_of(capsys, ["data", "check", "set.h5"])
    assert cli.main(["data", "check", "set.h5", "--no-pictures"]) == 0
    capsys.readouterr()
    _tiny_set("other.h5")
    shutil.rmtree("set_check")
    for change, message in (
        (["none.h5"], "none.h5: cannot be read"),
        (["other.h5"], "other.h5: does not say from which tables it was painted"),
        (["set.h5", "--regions", "0"], "regions=0: must be at least 1"),
        (["set.h5", "--tables", "other.h5"], "other.h5: not a file of painter tables"),
        (["set.h5", "--json", "a.txt"], "suffix must be one of .json"),
        (["set.h5", "--out", "none/pictures"], "folder none does not exist"),
    ):
        assert message in error_of(capsys, ["data", "check", *change])


CUT = "data cut --out a.h5 --patches 5 --seed 7 --maps kappa=k.fits tsz=t=1.fits"


def test_every_option_reaches_cut(monkeypatch, tmp_path, capsys):
    from mlsky.cutting import patch_sets

    seen = {}

    @functools.wraps(patch_sets.cut)
    def spy(out, **options):
        seen.clear()
        seen.update(options)
        out.write_bytes(b"x" * 3_000_000)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(patch_sets, "cut", spy)
    assert cli.main(CUT.split()) == 0
    assert capsys.readouterr().out.strip() == "a.h5: 5 patches, 3 MB"
    plain = {
        "maps": {"kappa": "k.fits", "tsz": "t=1.fits"},
        "catalogues": {},
        "units": {},
        "nu_ghz": {},
        "scale": {},
        "patches": 5,
        "seed": 7,
        "part": "train",
        "require": (),
        "pixel_arcmin": 0.5,
        "size": 128,
        "method": "harmonic",
        "lmax": None,
        "flux_cut_mjy": 7.0,
        "find": True,
        "find_mjy": None,
        "windows": True,
        "octant": False,
    }
    assert seen == plain
    more = "--catalogues radio=r.fits,cib=c.fits --units tsz=y --freqs cib=143 --scale tsz=0.75"
    more += " --recipe paint-2 --part test --method cubic --lmax 100 --flux-cut-mjy inf"
    more += " --no-find --find-mjy 3 --no-windows --octant --size 64"
    assert cli.main([*CUT.split(), *more.split()]) == 0
    assert seen == plain | {
        "catalogues": {"radio": "r.fits", "cib": "c.fits"},
        "units": {"tsz": "y"},
        "nu_ghz": {"cib": 143.0},
        "scale": {"tsz": 0.75},
        "part": "test",
        "require": ("kappa", "ksz", "tsz", "cib"),
        "pixel_arcmin": 2.0,
        "size": 64,
        "method": "cubic",
        "lmax": 100,
        "flux_cut_mjy": None,
        "find": False,
        "find_mjy": 3.0,
        "windows": False,
        "octant": True,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--maps", "kappa"], "'kappa': must be FIELD=VALUE"),
        (["--freqs", "cib=high"], "must be FIELD=NUMBER"),
        (["--recipe", "best"], "recipe='best'"),
        (["--recipe", "paint-0.5"], "fields ksz, cib are missing of kappa, ksz, tsz, cib"),
        (["--method", "best"], "method='best'"),
        (["--part", "rest"], "part='rest'"),
        (["--flux-cut-mjy", "-1"], "flux_cut_mjy=-1"),
        ([], "k.fits"),
    ],
)
def test_bad_cutting(monkeypatch, tmp_path, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    assert message in error_of(capsys, CUT.split() + change)


def test_patches_are_cut(monkeypatch, tmp_path, capsys):
    import h5py

    monkeypatch.chdir(tmp_path)
    values = 0.05 * fakes.normal(3, 0, 12 * 64**2)
    healpy.write_map("k.fits", values.astype(np.float64), dtype=np.float64)
    options = "data cut --out a.h5 --patches 2 --seed 1 --maps kappa=k.fits --size 8"
    assert cli.main([*options.split(), "--pixel-arcmin", "2", "--method", "cubic"]) == 0
    with h5py.File("a.h5") as file:
        assert file["kappa"].shape == (2, 8, 8)
    assert capsys.readouterr().out.startswith("a.h5: 2 patches, ")


def test_tables_build(monkeypatch, tmp_path, capsys):
    from halo_cases import shipped

    from mlsky.haloes import tables
    from mlsky.theory import cosmology, presets

    header = np.frombuffer(b'{"format": %d}' % tables.FORMAT, dtype=np.uint8)

    def build_for(name, preset):
        cosmology.parse(name)
        presets.parameters(preset)
        return {"ell": shipped()["ell"], "header": header}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tables, "build_for", build_for)
    build = ["tables", "build", "--out", "mine.npz"]
    assert cli.main([*build, "--cosmology", "act-dr6"]) == 0
    assert capsys.readouterr().out.strip() == "mine.npz: 0.0 MB, act-dr6, preset act-dr6"
    assert tables.load("mine.npz")["header"] == {"format": tables.FORMAT}
    assert "mine.npz: exists" in error_of(capsys, build)
    assert cli.main([*build, "--overwrite"]) == 0
    capsys.readouterr()
    assert "cosmology='mine'" in error_of(
        capsys, ["tables", "build", "--cosmology", "mine", "--out", "a.npz"]
    )
    assert "preset='mine'" in error_of(
        capsys, ["tables", "build", "--preset", "mine", "--out", "a.npz"]
    )
    assert "suffix must be one of .npz" in error_of(capsys, ["tables", "build", "--out", "a.h5"])


def test_from_data_to_a_sky(tiny_recipe, monkeypatch, capsys):
    """The walk-through of docs/training.rst in miniature, command by command."""
    import dataclasses
    import json

    from mlsky import registry
    from mlsky.networks import weights
    from mlsky.training import assemble, recipes

    tiny = recipes.recipe("tiny")
    start = dataclasses.replace(
        recipes.recipe("convergence-0.5"),
        name="start",
        size=64,
        batch=2,
        generator_options={"widths": (4, 4), "noise": (1, 1)},
        critic_options={"channels": 2, "widths": (4, 4)},
    )
    monkeypatch.setitem(recipes.RECIPES, "start", start)
    assert tiny.pixel_arcmin == start.pixel_arcmin
    quick = functools.partial(assemble.fit_point_sources, steps=2)
    monkeypatch.setattr(
        assemble, "fit_point_sources", lambda d, n, steps, seed: quick(d, n, seed=seed)
    )
    for seed, name in enumerate(("train.h5", "val.h5", "test.h5")):
        _tiny_set(name, n=192, seed=seed)
    scored = "--validation val.h5 --score-every 1 --score-regions 1"
    for recipe in ("start", "tiny"):
        run = f"train --recipe {recipe} --data train.h5 --out runs/{recipe} --steps 2 --device cpu"
        assert cli.main([*run.split(), *scored.split()]) == 0
        assert cli.main(["train-log", f"runs/{recipe}", "--out", f"{recipe}.png"]) == 0
    export = "export --out mine.safetensors --parts convergence=runs/start paint=runs/tiny"
    export += " --data train.h5 --validation val.h5 --trained-on here"
    capsys.readouterr()
    assert cli.main(export.split()) == 0
    digest = capsys.readouterr().out.split("sha256 ")[1].strip()
    header = weights.read_header("mine.safetensors")
    assert header["training"]["paint"]["score"]["step"] in (1, 2)
    assert "mine.safetensors: exists" in error_of(capsys, export.split())
    validate = "validate --weights mine.safetensors --data test.h5 --json scores.json"
    assert cli.main(validate.split()) == 0
    add = "weights add mine mine.safetensors --scores scores.json --licence CC-BY-4.0"
    add += " --registry mine.yaml --default"
    capsys.readouterr()
    assert cli.main(add.split()) == 0
    assert capsys.readouterr().out.strip() == "mine.yaml: mine v1, the default"
    entry = registry.describe("mine", registry="mine.yaml")
    entry |= registry.report("mine", registry="mine.yaml")
    assert re.fullmatch(r"0\.5': \d+ of \d+ goals met, \d+ failed", entry["score"])
    assert entry["files"][0]["sha256"] == digest
    assert (
        entry["scores"]["0.5'"]["totals"] == json.loads(Path("scores.json").read_text())["totals"]
    )
    assert entry["recipe"]["0.5'"]["paint"]["name"] == "tiny"
    monkeypatch.setenv("MLSKY_REGISTRY", "mine.yaml")
    capsys.readouterr()
    assert cli.main(["weights", "verify", "default"]) == 0
    assert capsys.readouterr().out.strip() == "mine v1 mine.safetensors: good"
    for change, message in (
        (["none.safetensors"], "none.safetensors: cannot be read"),
        (["mine.safetensors", "--scores", "none.json"], "none.json: cannot be read"),
        (["mine.safetensors", "--scores", "start.png"], "start.png: cannot be read as scores"),
    ):
        line = ["weights", "add", "other", *change, "--licence", "CC0-1.0"]
        assert message in error_of(capsys, [*line, "--registry", "mine.yaml"])


@pytest.fixture
def tiny_weights(monkeypatch, tmp_path):
    """A registry with networks of 0.5' pixels that have learnt nothing."""
    import yaml

    from mlsky.networks import weights
    from mlsky.networks.default import Convergence, Paint, PointSources
    from mlsky.networks.normaliser import Normaliser

    small = {"widths": (4, 4), "noise": (1, 1)}
    networks = {
        "convergence": Convergence(**small),
        "paint": Paint(-0.6, 0.3, **small, velocity_levels=2),
        "point_sources": PointSources(),
    }
    normaliser = Normaliser(
        ("kappa", "ksz", "tsz", "cib"), (None, None, 3, 10), (0, 0, -0.6, 0.6), (0.1, 2, 0.3, 0.3)
    )
    header = {
        "networks": {n: weights.network_header(m) for n, m in networks.items()},
        "normaliser": normaliser.to_dict(),
        "pixel_arcmin": 0.5,
    }
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / "tiny.safetensors"
    digest = weights.save(path, weights.pack(networks), header)
    file = {"file": path.name, "sha256": digest, "bytes": path.stat().st_size}
    entry = {"files": [file | {"pixel_arcmin": 0.5, "urls": []}], "licence": "CC-BY-4.0"}
    entry |= {"cite": [], "inputs": ["kappa"], "outputs": ["tsz"]}
    entry |= {"recipe": {}, "data": {}, "scores": {}}
    text = yaml.safe_dump({"tiny": {"kind": "default", "default": True, "versions": {"v1": entry}}})
    (tmp_path / "registry.yaml").write_text(text)
    monkeypatch.setenv("MLSKY_REGISTRY", str(tmp_path / "registry.yaml"))
    monkeypatch.chdir(tmp_path)
    _tiny_set("test.h5", n=192)
    return path


def test_validate(tiny_weights, capsys):
    import json

    for name in ("default", "tiny@v1", str(tiny_weights)):
        arguments = ["validate", "--weights", name, "--data", "test.h5", "--quick"]
        assert cli.main([*arguments, "--json", "figures.json", "--overwrite"]) == 0
    out = capsys.readouterr().out.splitlines()
    figures = json.loads(Path("figures.json").read_text())
    assert figures["regions"] == 2  # all that there are
    heads = [i for i, line in enumerate(out) if line.startswith("tiny.safetensors, sha256 ")]
    assert len(heads) == 3
    assert f"{figures['sha256'][:12]}: 2 regions, 5.1 square degrees" in out[heads[-1]]
    lines = out[heads[-1] + 1 :]
    rows = figures["scores"]
    assert {row["job"] for row in rows} == {"from_kappa", "end_to_end"}
    assert set(rows[0]) >= {"name", "value", "error", "tolerance", "goal", "pass", "numbers"}
    named = [x for x in lines if x.startswith(("pass ", "FAIL ", "undecided "))]
    assert len(named) == len(rows)
    for line, row in zip(named, rows, strict=True):
        assert line.split()[1] == row["job"]
        assert row["name"] in line
        assert f"{row['value']:+.3f}" in line
    total = figures["totals"]["all"]
    assert lines[-2].startswith("total chain")
    assert lines[-1].startswith("total all")
    assert f"{total['met']} of {total['rows']} tolerances met" in lines[-1]


def test_page_of_validate(tiny_weights, capsys, monkeypatch):
    """Pictures, tables and the scatter of two trainings; the JSON holds what they show."""
    import json

    pytest.importorskip("matplotlib")
    from mlsky.validation import further, page, page_figures

    # drawing all of them takes a quarter of a minute, and the CMB its time in CAMB
    few = {name: page_figures.PICTURES[name] for name in ("counts", "tsz-cib")}
    monkeypatch.setattr(page_figures, "PICTURES", few)
    monkeypatch.setattr(page, "CARDS", ("counts",))
    monkeypatch.setattr(further.Further, "_reconstruction", lambda self: None)
    line = ["validate", "--data", "test.h5", "--html", "page", "--card", "card"]
    line += ["--also", str(tiny_weights), "--json", "figures.json"]
    assert cli.main(line) == 0
    out = capsys.readouterr().out
    assert "page/index.html" in out
    text = Path("page/index.html").read_text()
    shown = re.findall(r'<img src="([^"]+)"', text)
    assert shown == ["maps.png", "counts.png", "tsz-cib.png"]
    assert sorted(shown) == sorted(p.name for p in Path("page").glob("*.png"))
    assert not re.search(r'(src|href)="https?:', text)  # needs nothing else
    figures = json.loads(Path("figures.json").read_text())
    for row in figures["scores"]:
        assert f"<td>{row['name']}</td>" in text
    assert text.count("<html") == text.count("</html>") == 1
    # the same weights twice: no scatter
    assert {r["trainings"]["scatter"] for r in figures["scores"] if r["trainings"]} == {0.0}
    assert figures["also"] == [figures["sha256"]]
    assert set(figures["further"]) > {"bispectrum", "distances", "likelihood", "extrema"}
    cards = sorted(Path("card").glob("*.png"))
    assert [p.name for p in cards] == ["tiny-counts.png", "tiny-maps.png"]
    assert max(p.stat().st_size for p in cards) < 150_000
    assert "page/index.html: exists" in error_of(capsys, line[:5])
    assert "figures.json: is a file" in error_of(capsys, [*line[:3], "--card", "figures.json"])


def test_options_of_validate(tiny_weights, capsys):
    base = ["validate", "--data", "test.h5", "--regions", "1"]
    assert cli.main([*base, "--job", "end_to_end"]) == 0
    short = capsys.readouterr().out.splitlines()
    assert not [x for x in short if " paint " in x]
    assert cli.main([*base, "--job", "end_to_end", "--every", "--before", "--seed", "1"]) == 0
    long = capsys.readouterr().out.splitlines()
    assert len(long) > 3 * len(short)
    assert {"before calibration", "after calibration"} <= {*long}
    assert long[-2].startswith("total chain")
    assert long[-1].startswith("total chain before")


def test_validation_paints_its_own_regions(tiny_weights, monkeypatch, capsys):
    """From the weights' pixels, 38 or 110 of them."""
    from mlsky.validation import scores

    asked = []

    def score(weights, data, regions, seed, **options):
        asked.append((weights.pixel_arcmin, data, regions, seed, options["jobs"]))
        return {
            "regions": 1,
            "square_degrees": 1.0,
            "pixel_arcmin": 0.5,
            "seconds": 1.0,
            "totals": {},
            "scores": [],
        }

    monkeypatch.setattr(scores, "score", score)
    for options in ([], ["--quick"], ["--quick", "--regions", "3"], ["--pixel", "0.5"]):
        assert cli.main(["validate", *options]) == 0
    assert [a[2] for a in asked] == [None, 38, 3, None]
    assert asked[0] == (0.5, None, None, 0, ("from_kappa", "end_to_end"))
    capsys.readouterr()
    assert "are of 0.5': not of --pixel 2" in error_of(capsys, ["validate", "--pixel", "2"])


def test_bad_validation(tiny_weights, capsys):
    _tiny_set("coarse.h5", pixel_arcmin=2.0)
    _tiny_set("poor.h5", leave_out=("radio",))
    _tiny_set("late.h5", leave_out=("kappa_in",))
    Path("old.json").write_text("precious")
    base = ["validate", "--data", "test.h5"]
    for change, message in (
        (["--data", "none.h5"], "none.h5: cannot be read"),
        (["--data", "poor.h5"], "lacks radio"),
        (["--data", "late.h5"], "lacks kappa_in"),
        (["--data", "coarse.h5"], "--weights default are of 0.5': the set has pixels of 2'"),
        (["--pixel", "2"], "--pixel 2: test.h5 has pixels of 0.5'"),
        (["--weights", "best"], "'best'"),
        (["--weights", "none.safetensors"], "none.safetensors: cannot be read"),
        (["--regions", "0"], "regions=0: must be at least 1"),
        (["--job", "sing"], "'sing' is not one of"),
        (["--device", "abacus"], "abacus"),
        (["--json", "none/a.json"], "folder none does not exist"),
        (["--json", "a.txt"], "suffix must be one of .json"),
        (["--json", "old.json"], "old.json: exists"),
    ):
        assert message in error_of(capsys, base + change)
    assert Path("old.json").read_text() == "precious"


def test_help_takes_no_time():
    """Python itself takes most of it; the limit is five times what a slow machine needs."""
    begin = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "mlsky.cli", "--help"], check=True, stdout=subprocess.DEVNULL
    )
    assert time.monotonic() - begin < 5
