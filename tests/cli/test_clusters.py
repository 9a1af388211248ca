"""`mlsky clusters`, and `mlsky simulate --haloes`: files, and what is said of bad ones."""

from __future__ import annotations

import os
from pathlib import Path

import fakes
import numpy as np
import pytest
from astropy import units
from astropy.table import QTable, Table
from command_line import BASE, error_of
from halo_cases import shipped

import mlsky
import mlsky.painting.foregrounds
from mlsky import cli, simulation
from mlsky.haloes import catalogue
from mlsky.sky import Sky


def given() -> QTable:
    return QTable(
        {
            "ra": [10.0, 350.0, 181.0] * units.deg,
            "dec": [-80.0, 0.0, 33.0] * units.deg,
            "z": [0.1, 0.5, 0.3],
            "m200m": [3e13, 4e14, 1.5e14] * units.Msun,
            "velocity": [300.0, -100.0, 20.0] * units.km / units.s,
        }
    )


def listed(columns) -> Table:
    haloes = catalogue.parse(columns, shipped())
    return catalogue.table(haloes, shipped())


@pytest.fixture
def here(monkeypatch, tmp_path):
    """Quick stages, with weights that leave clusters out."""
    monkeypatch.chdir(tmp_path)
    fakes.install(monkeypatch)
    weights = fakes.FakeWeights(mass_cut=1e14)
    monkeypatch.setattr(mlsky.painting.foregrounds, "select", lambda name, geometry: weights)
    monkeypatch.setattr(simulation, "_objects", lambda request, *_: (None, listed(request.haloes)))


@pytest.fixture
def sky(here):
    mlsky.simulate([93, 145], 16, 1, haloes=given(), out="sky.h5")


@pytest.mark.parametrize(("kind", "format_"), [("csv", "ascii.ecsv"), ("fits", "fits")])
def test_clusters(sky, capsys, kind, format_):
    assert cli.main(["clusters", "sky.h5", "--format", kind]) == 0
    assert capsys.readouterr().out == f"sky.clusters.{kind}: 3 clusters\n"
    assert sorted(os.listdir()) == [f"sky.clusters.{kind}", "sky.h5"]
    table = Table.read(f"sky.clusters.{kind}", format=format_)
    expected = Sky.read("sky.h5").clusters
    assert table.colnames == expected.colnames == list(catalogue.COLUMNS)
    for name in table.colnames:
        np.testing.assert_array_equal(table[name], expected[name])
        assert (table[name].unit or "") == (expected[name].unit or "")
    arguments = ["--min-mass", "1e14", "--out", f"heavy.{kind}", "--format", kind]
    assert cli.main(["clusters", "sky.h5", *arguments]) == 0
    heavy = Table.read(f"heavy.{kind}", format=format_)
    np.testing.assert_allclose(heavy["m200m"], [4e14, 1.5e14])
    assert cli.main(["clusters", "sky.h5", *arguments, "--overwrite"]) == 0


def test_the_list_of_a_fits_sky(here):
    mlsky.simulate(145, 16, 1, haloes=given()).write("sky.fits")
    assert cli.main(["clusters", "sky.fits"]) == 0
    assert len(Table.read("sky.clusters.csv", format="ascii.ecsv")) == 3


def test_a_list_can_be_given_to_another_sky(sky):
    assert cli.main(["clusters", "sky.h5"]) == 0
    first, *rows = (r for r in Path("sky.clusters.csv").read_text().splitlines() if r[0] != "#")
    assert first == ",".join(catalogue.COLUMNS)
    assert len(rows) == 3
    assert cli.main([*BASE, "--haloes", "sky.clusters.csv", "--out", "again.h5"]) == 0
    one, two = (Sky.read(name).clusters for name in ("sky.h5", "again.h5"))
    for name in one.colnames:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-9, atol=1e-9)


BAD = [
    (["--min-mass", "-1"], "--min-mass -1: must be a mass in Msun"),
    (["--min-mass", "nan"], "--min-mass nan: must be a mass in Msun"),
    (["--min-mass", "1e99"], "--min-mass 1e+99: must be a mass in Msun"),
    (["--min-mass", "heavy"], "'heavy' is not a valid float"),
    (["--format", "txt"], "'txt' is not one of 'csv', 'fits'"),
    (["--out", "there.csv"], "there.csv: exists"),
    (["--out", "a.fits"], "a.fits: suffix must be one of .csv"),
    (["--out", "none/a.csv"], "folder none does not exist"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_options(sky, capsys, change, message):
    Path("there.csv").write_text("precious")
    capsys.readouterr()
    assert message in error_of(capsys, ["clusters", "sky.h5", *change])
    assert Path("there.csv").read_text() == "precious"


def test_files_without_a_list(here, capsys, monkeypatch):
    monkeypatch.setattr(simulation, "_objects", lambda *_: (None, None))
    mlsky.simulate(145, 16, 1, haloes=given(), out="sky.h5")
    Path("junk.h5").write_bytes(b"junk" * 100)
    capsys.readouterr()
    for name, message in (
        ("sky.h5", "sky.h5: has no list of clusters"),
        ("none.h5", "none.h5: no such file"),
        ("junk.h5", "junk.h5: damaged or not a file of mlsky's"),
        ("sky.txt", "sky.txt: suffix must be one of"),
    ):
        assert message in error_of(capsys, ["clusters", name])


@pytest.mark.parametrize("name", ["a.fits", "a.ecsv", "a.hdf5"])
def test_haloes_of_a_file(here, capsys, name):
    table = Table(given())
    table.write(name, **({"path": "haloes", "serialize_meta": True} if "hdf5" in name else {}))
    assert cli.main([*BASE, "--haloes", name, "--out", "sky.h5"]) == 0
    sky = Sky.read("sky.h5")
    np.testing.assert_allclose(sky.clusters["m200m"], [4e14, 1.5e14, 3e13])
    assert sky.meta["haloes"].startswith("given, 3, ")
    assert "clusters: 3, listed by mlsky clusters sky.h5" in capsys.readouterr().out


def test_bad_files_of_haloes(here, capsys):
    plain = Table({name: np.asarray(given()[name]) for name in given().colnames})
    plain.write("plain.csv")
    plain.write("plain.fits")
    Table(given())["ra", "dec", "z"].write("no_mass.ecsv")
    far = given()
    far["z"][1] = 50.0
    Table(far).write("far.ecsv")
    for suffix in ("fits", "ecsv", "h5", "csv", "nothing"):
        Path(f"junk.{suffix}").write_bytes(b"junk\xff\x00" * 100)
    Path("empty.ecsv").write_text("")
    Path("folder.fits").mkdir()
    Table(given()[:0]).write("none.ecsv")
    capsys.readouterr()
    for name, message in (
        ("lost.fits", "--haloes lost.fits: no such file"),
        ("folder.fits", "--haloes folder.fits: no such file"),
        ("junk.fits", "--haloes junk.fits cannot be read"),
        ("junk.ecsv", "--haloes junk.ecsv cannot be read"),
        ("junk.h5", "--haloes junk.h5 cannot be read"),
        ("junk.csv", "--haloes junk.csv cannot be read"),
        ("junk.nothing", "--haloes junk.nothing cannot be read"),
        ("empty.ecsv", "--haloes empty.ecsv cannot be read"),
        ("plain.csv", "column ra states no unit"),
        ("plain.fits", "column ra states no unit"),
        ("no_mass.ecsv", "haloes without column m200m"),
        ("far.ecsv", "z[1]=50: must be from"),
        ("none.ecsv", "one entry per halo, and at least one"),
    ):
        assert message in error_of(capsys, [*BASE, "--haloes", name, "--out", "b.h5"])


def test_weights_that_paint_clusters_take_no_list(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    fakes.install(monkeypatch)
    given().write("a.ecsv")
    message = "haloes= with weights that paint clusters themselves"
    assert message in error_of(capsys, [*BASE, "--haloes", "a.ecsv", "--out", "b.h5"])
