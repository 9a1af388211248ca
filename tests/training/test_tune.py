"""A search in miniature: proposals, runs stopped early, going on, what it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
import sys

import pytest

from mlsky.errors import MissingDependencyError, MlskyError
from mlsky.training import loop, tune
from mlsky.training.recipes import recipe
from mlsky.training.tune import Choice, Range, parse_space, spectra_score

RECIPE = dataclasses.replace(recipe("paint-0.5"), name="tiny")
SPACE = {"generator_rate": Range(1e-4, 1e-2), "batch": Choice((4, 8))}
BEST_RATE = 1e-3
REPORTS = 10


@pytest.fixture
def trained(monkeypatch):
    """Training whose power is off the more, the further its rate is from the best."""
    pytest.importorskip("optuna")
    runs: list[dict] = []

    def train(recipe, data, out, *, report, steps=None, minutes=None, **options):
        out.mkdir()
        off = 1 + abs(math.log(recipe.generator_rate / BEST_RATE))
        runs.append({"rate": recipe.generator_rate, "batch": recipe.batch, "reports": 0, **options})
        (out / "recipe.json").write_text(json.dumps(recipe.to_dict()))
        (out / "checkpoint.safetensors").write_bytes(b"weights")
        with (out / "log.jsonl").open("w") as log:
            for i in range(REPORTS):
                line = {"step": 25 * (i + 1), "seconds": i, "ratio": {"tsz": [off, 1 / off]}}
                print(json.dumps(line), file=log, flush=True)
                runs[-1]["reports"] += 1
                report((i + 1) / REPORTS, line)

    monkeypatch.setattr(loop, "train", train)
    return runs


def _search(out, trials=12, **options):
    options = {"space": SPACE, "steps": 250, "device": "cpu", "progress": False, **options}
    return tune.tune(RECIPE, "set.h5", out, trials=trials, **options)


def test_it_finds_and_stops_and_keeps_the_best(trained, tmp_path):
    found = _search(tmp_path / "search", 16, seed=3)
    assert trained[0]["rate"] == RECIPE.generator_rate  # starts from the recipe's own
    assert trained[0]["batch"] == RECIPE.batch
    assert len(trained) == len(found.trials) == 16
    assert found.score == pytest.approx(
        math.log(1 + abs(math.log(found.numbers["generator_rate"] / BEST_RATE)))
    )
    assert found.score == min(r["score"] for r in found.trials if r["state"] == "complete")
    pruned = [r for r in found.trials if r["state"] == "pruned"]
    assert pruned
    for row in pruned:
        assert trained[row["number"]]["reports"] < REPORTS
        assert row["score"] > found.score
    kept = sorted(p.parent.name for p in (tmp_path / "search").glob("*/checkpoint.safetensors"))
    assert kept == [found.folder.name] == [f"trial-{found.best:04d}"]
    assert len([*(tmp_path / "search").glob("*/log.jsonl")]) == 16


def test_it_goes_on(trained, tmp_path, monkeypatch):
    out = tmp_path / "search"
    train = loop.train

    def interrupted(*args, **options):
        if len(trained) == 2:
            (out / "trial-0002").mkdir()
            raise KeyboardInterrupt
        train(*args, **options)

    monkeypatch.setattr(loop, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _search(out, 5)
    monkeypatch.setattr(loop, "train", train)
    found = _search(out, 5)
    assert len(trained) == 5
    assert [r["state"] for r in found.trials].count("failed") == 1  # the interrupted one
    assert sum(r["state"] in ("complete", "pruned") for r in found.trials) == 5
    assert len({r["rate"] for r in trained}) == 5  # nothing was proposed twice
    again = _search(out, 5)
    assert len(trained) == 5
    assert again.best == found.best
    with pytest.raises(ValueError, match="holds a search with another steps"):
        _search(out, 6, steps=100)


def test_by_scores_of_a_validation_set(trained, tmp_path, monkeypatch):
    train = loop.train

    def scored(recipe, data, out, **options):
        train(recipe, data, out, **options)
        with (out / "log.jsonl").open("a") as log:
            for step, score in ((100, 9.0), (250, 3 + recipe.batch)):
                print(json.dumps({"step": step, "seconds": 1, "score": score}), file=log)

    monkeypatch.setattr(loop, "train", scored)
    found = _search(tmp_path / "search", 3, validation="valid.h5")
    assert trained[0]["validation"] == "valid.h5"
    assert found.score == 3 + found.numbers["batch"]


def test_runs_that_fail(trained, tmp_path, monkeypatch, caplog):
    """One is told of and gone on from; only such, and there is nothing to show."""
    train = loop.train

    def first_fails(*args, **options):
        if not caplog.records and not trained:
            trained.append({"rate": 0})
            raise MlskyError("gone astray")
        train(*args, **options)

    monkeypatch.setattr(loop, "train", first_fails)
    found = _search(tmp_path / "search", 2)
    assert [r["state"] for r in found.trials].count("failed") == 1
    assert found.trials[found.best]["state"] == "complete"

    def all_fail(*args, **options):
        raise MlskyError("gone astray")

    monkeypatch.setattr(loop, "train", all_fail)
    with pytest.raises(MlskyError, match="3 runs in a row failed"):
        _search(tmp_path / "again", 9)


def test_spectra_score():
    assert spectra_score({"a": [1, 1, 1]}) == 0
    assert spectra_score({"a": [2, 0.5], "b": [1, 1]}) == pytest.approx(math.log(2) / 2)
    assert spectra_score({"a": [0.0, math.nan]}) == pytest.approx(math.log(100))


def test_spaces():
    words = ["generator_rate=1e-4:1e-3", "batch=4/8", "average=0.99/0.999"]
    assert parse_space(words, RECIPE) == {
        "generator_rate": Range(1e-4, 1e-3),
        "batch": Choice((4, 8)),
        "average": Choice((0.99, 0.999)),
    }
    for objective, space in tune.SPACES.items():
        for name, of in space.items():
            value = getattr(RECIPE, name)
            assert isinstance(of, Choice) or isinstance(value, float), (objective, name)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("rate=1:2", "'rate' must be one of average, batch"),
        ("generator_rate=a:b", "numbers as LOW:HIGH"),
        ("generator_rate=2:1", "must be LOW:HIGH with 0 < LOW < HIGH"),
        ("batch=4:8", "whole numbers A/B/C"),
        ("batch=4.5", "whole numbers as"),
        ("bfloat16=1/0", "must be one of"),
    ],
)
def test_bad_spaces(word, message):
    with pytest.raises(ValueError, match=message):
        parse_space([word], RECIPE)


def test_what_it_refuses(trained, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / tune.STUDY).write_text("not a search\n")
    for options, message in (
        ({"trials": 0}, "trials=0: must be at least 1"),
        ({"minutes": 3.0}, "give exactly one of them"),
        ({"space": {}}, "must be numbers of a recipe"),
        ({"out": tmp_path / "file"}, "is a file"),
        ({"out": tmp_path / "no" / "where"}, "does not exist"),
        ({"out": tmp_path / "other"}, "cannot be used as a search"),
    ):
        with pytest.raises(ValueError, match=message):
            _search(**{"out": tmp_path / "search", **options})
    assert not trained
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mlsky\[tune\]'"):
        _search(tmp_path / "search")
