"""`mlsky validate-images`, and `mlsky train` of recipes that make their own images."""

from __future__ import annotations

import json

import fakes
import pytest

from mlsky import registry
from mlsky.cli import main
from mlsky.training import recipes


@pytest.fixture
def tiny(monkeypatch):
    """The recipe blobs-1 in miniature, with a set of its own size."""
    monkeypatch.setitem(recipes.RECIPES, "blobs-1", fakes.small_blobs(monkeypatch))


def _train(*more):
    return main(["train", "--recipe", "blobs-1", "--device", "cpu", "--steps", "2", *more])


def test_a_run_is_stopped_on_its_way(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for more, steps in ((["--stop-at", "0"], 0), (["--stop-at", "1"], 1), ([], 2)):
        assert _train(*more) == 0
        assert f"runs/blobs-1: {steps} steps in" in capsys.readouterr().out
    assert _train("--stop-at", "3") == 2
    assert "stop=3: must be an integer from 0 to steps=2" in capsys.readouterr().err


def test_from_nothing_to_figures_pictures_and_weights(tiny, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert _train() == 0  # no --data, no --out
    assert (tmp_path / "runs" / "blobs-1" / "checkpoint.safetensors").exists()
    files = ["--json", "f.json", "--out", "p.png", "--export", "w.safetensors"]
    assert main(["validate-images", "runs/blobs-1", "--images", "16", *files]) == 0
    said = capsys.readouterr().out
    assert "images with one blob" in said
    assert "as wanted" in said
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["training"]["images"]["steps"] == 2
    assert set(figures["lines"]["blobs per image"]) == {"made", "true", "wanted", "good"}
    assert "images with two blobs or more" in figures["findings"]
    assert (tmp_path / "p.png").stat().st_size > 10_000
    assert main(["validate-images", "w.safetensors", "--images", "16"]) == 0
    book = ["--registry", "book.yaml"]
    licence = ["--licence", "CC0-1.0", "--scores", "f.json"]
    assert main(["weights", "add", "tiny", "w.safetensors", *licence, *book]) == 0
    monkeypatch.setenv("MLSKY_REGISTRY", "book.yaml")
    entry = registry.describe("tiny")
    assert (entry["kind"], entry["inputs"], entry["outputs"]) == ("unconditional", [], ["blobs"])
    assert registry.report("tiny")["scores"]["0.5'"] == figures["lines"]
    good = sum(row["good"] for row in figures["lines"].values())
    score = f"0.5': {good} of {len(figures['lines'])} goals met"
    capsys.readouterr()
    assert main(["weights", "list"]) == 0
    said = capsys.readouterr().out.split()
    assert said == f"tiny v1 unconditional images of blobs {score}".split()
    assert main(["weights", "show", "tiny"]) == 0
    assert main(["validate-images", "tiny", "--images", "16"]) == 0


def test_networks_of_no_sky_are_refused_where_a_sky_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["simulate", "--freqs", "148", "--nside", "64", "--out", "x.fits"],
        ["validate"],
    ):
        assert main([*arguments, "--weights", "blobs-1"]) == 2
        said = capsys.readouterr().err
        last = said.splitlines()[-1]  # simulate has drawn its bar by then
        assert last.startswith("mlsky: error: blobs-1-v3.safetensors holds images: a sky needs")
        assert "mlsky.toys.unconditional.sample" in last
        assert said.count("error") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "blobs-7"], "recipe='blobs-7': must be one of"),
        (["--recipe", "blobs-1", "--data", "x.h5"], "makes its own images; leave them out"),
        (["--recipe", "blobs-1", "--painted", "1"], "makes its own images; leave them out"),
        (["--recipe", "vae-sky"], "--data, --painted: give one of them"),
        (["--recipe", "blobs-1", "--converged", "2"], "converged=2.0: must be a share in 0 to 1"),
    ],
)
def test_bad_training(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--steps", "1", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_bad_sources(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        (["nothing"], "nothing"),
        (["default"], "hold 0 networks that take random numbers alone"),
        (["default", "--map", "m.png"], "--map and --export are made from the folder of a run"),
        (["default", "--json", "x.txt"], "suffix must be one of .json"),
    ):
        assert main(["validate-images", *arguments]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert len(said.splitlines()) == 1
    assert _train() == 0
    assert main(["validate-images", "runs/blobs-1", "--images", "3"]) == 2
    assert "needs at least 16" in capsys.readouterr().err
