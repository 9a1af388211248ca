"""mlsky data: painted sets, checks, cut patches, tables."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

import fakes
import healpy
import numpy as np
import pytest
from command_line import error_of
from tiny_sets import tiny_set

from mlsky import cli


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
    tiny_set("other.h5")
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
