"""Scores while training, and the state they choose."""

from __future__ import annotations

import shutil

import h5py
import pytest
import torch
from tiny_runs import (
    STEPS,
    assert_same,
    log_lines,
    stop_after,
    thin_recipe,
    tiny_recipe,
    train_tiny,
    write_set,
)

from mlsky.training import selection
from mlsky.training.checkpoints import BEST, CHECKPOINT
from mlsky.training.run import load_generator


@pytest.fixture(scope="module")
def validation(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("validation") / "val.h5", 192, seed=7)


def _scored(monkeypatch, distances):
    """Scores of one's own; tells the steps that were scored."""
    seen, left = [], iter(distances)

    def checkpoint(networks, normaliser, data, regions):
        seen.append((*networks, regions))
        return {"rows": 4, "met": 1, "failed": 2, "undecided": 1, "distance": next(left)}

    monkeypatch.setattr(selection.scores, "checkpoint", checkpoint)
    return seen


def _score_lines(folder):
    return {x["step"]: (x["score"], x["best"]) for x in log_lines(folder) if "score" in x}


@pytest.mark.parametrize("name", ["paint-0.5", "convergence-0.5"])
def test_scores_change_nothing_and_the_best_is_kept(data, validation, tmp_path, name):
    """With the real scores: not a bit of the run or of the random state."""
    state = torch.get_rng_state()
    plain = train_tiny(tiny_recipe(name), data, tmp_path / "plain")
    scored = train_tiny(
        tiny_recipe(name), data, tmp_path / "scored", validation=validation, every=3, regions=1
    )
    assert_same(plain, scored)
    assert torch.equal(torch.get_rng_state(), state)
    lines = _score_lines(tmp_path / "scored")
    assert list(lines) == [3, 4]
    best = min(lines, key=lambda step: lines[step][0])
    generator, normaliser, saved = load_generator(tmp_path / "scored", "best")
    assert (saved["step"], saved["score"]["step"]) == (best, best)
    assert saved["score"]["distance"] == lines[best][0]
    assert saved["score"]["regions"] == 1
    assert normaliser == scored.normaliser
    assert not generator.training
    if best == STEPS:
        for a, b in zip(generator.parameters(), plain.averaged.parameters(), strict=True):
            assert torch.equal(a, b)
    sizes = [(tmp_path / "scored" / n).stat().st_size for n in (BEST, CHECKPOINT)]
    assert sizes[0] < sizes[1] / 4


def test_the_best_survives_worse_scores_and_interruption(data, validation, tmp_path, monkeypatch):
    options = {"validation": validation, "every": 1}
    seen = _scored(monkeypatch, [3.0, 2.0, 2.5, None])
    with monkeypatch.context() as context:
        stop_after(context, 3)
        with pytest.raises(KeyboardInterrupt):
            train_tiny(tiny_recipe(), data, tmp_path / "run", **options)
    assert load_generator(tmp_path / "run", "best")[2]["step"] == 2
    run = train_tiny(tiny_recipe(), data, tmp_path / "run", **options)
    assert seen == [("paint", 2)] * 4
    assert _score_lines(tmp_path / "run") == {
        1: (3.0, True),
        2: (2.0, True),
        3: (2.5, False),
        4: (None, False),
    }
    _, _, saved = load_generator(tmp_path / "run", "best")
    assert (saved["step"], saved["score"]["distance"]) == (2, 2.0)
    assert load_generator(tmp_path / "run")[2]["step"] == 4
    assert_same(run, train_tiny(tiny_recipe(), data, tmp_path / "plain"))
    assert_same(
        run, train_tiny(tiny_recipe(), data, tmp_path / "run", **options)
    )  # nothing is left to do
    assert len(seen) == 4


def test_the_best_is_of_the_run(data, validation, tmp_path, caplog):
    """A fresh run has none of an earlier one; one of other networks or seed is refused."""
    options = {"validation": validation, "every": 1, "regions": 1}
    train_tiny(tiny_recipe(), data, tmp_path / "a", steps=1, **options)
    train_tiny(tiny_recipe("convergence-0.5"), data, tmp_path / "b", steps=1, **options)
    (tmp_path / "a" / CHECKPOINT).unlink()
    train_tiny(tiny_recipe(), data, tmp_path / "a", steps=1)
    assert not (tmp_path / "a" / BEST).exists()
    shutil.copy(tmp_path / "b" / BEST, tmp_path / "a" / BEST)
    message = r"best.safetensors: is of recipe convergence-0.5 and seed 1, the run of .*; remove it"
    with pytest.raises(ValueError, match=message):
        load_generator(tmp_path / "a", "best")
    with pytest.raises(ValueError, match=message):
        train_tiny(tiny_recipe(), data, tmp_path / "a", steps=2, **options)
    assert load_generator(tmp_path / "a", "last")[2]["step"] == 1


def test_going_on_without_scores_is_said(data, validation, tmp_path, caplog):
    """The best state stays one of the earlier ones."""
    train_tiny(tiny_recipe(), data, tmp_path, steps=1, validation=validation, regions=1)
    train_tiny(tiny_recipe(), data, tmp_path, steps=2)
    (line,) = (r.getMessage() for r in caplog.records if "without a validation set" in r.message)
    assert "best.safetensors: stays the state of step 1" in line
    caplog.clear()
    train_tiny(tiny_recipe(), data, tmp_path, steps=2)
    assert not caplog.records


def test_scores_on_other_regions_start_anew(data, validation, tmp_path, monkeypatch, caplog):
    _scored(monkeypatch, [1.0, 2.0])
    train_tiny(tiny_recipe(), data, tmp_path, steps=1, validation=validation)
    other = write_set(tmp_path / "other.h5", 192, seed=8)
    train_tiny(tiny_recipe(), data, tmp_path, steps=2, validation=other)
    assert "was chosen on other regions" in caplog.text
    assert load_generator(tmp_path, "best")[2]["step"] == 2


def test_what_cannot_be_scored_costs_a_warning(data, validation, tmp_path, monkeypatch, caplog):
    def checkpoint(*args):
        raise ValueError("no peaks")

    monkeypatch.setattr(selection.scores, "checkpoint", checkpoint)
    run = train_tiny(tiny_recipe(), data, tmp_path, validation=validation)
    assert run.step == STEPS
    assert "cannot be scored (no peaks)" in caplog.text
    assert load_generator(tmp_path, "best")[2]["step"] == STEPS  # the last, for want of a best


def test_minutes_between_scores(data, validation, tmp_path, monkeypatch):
    _scored(monkeypatch, iter(range(1000)))
    options = {"steps": None, "minutes": 0.4 / 60, "validation": validation, "every": 0.2 / 60}
    train_tiny(tiny_recipe(), data, tmp_path, **options)
    lines = _score_lines(tmp_path)
    assert 1 <= len(lines) <= 3
    assert max(lines) == load_generator(tmp_path)[2]["step"]


def test_bad_validation_sets(data, validation, tmp_path):
    out = tmp_path / "run"
    poor = write_set(tmp_path / "poor.h5", leave_out=("radio",))
    coarse = write_set(tmp_path / "coarse.h5", pixel_arcmin=2.0)
    for options, message in (
        ({"validation": poor}, "poor.h5: lacks radio"),
        ({"validation": coarse}, r"pixels of 2.0', 0.5' in recipe paint-0.5"),
        ({"validation": data}, "the same sky is trained on"),
        ({"validation": tmp_path / "none.h5"}, "none.h5: cannot be read"),
        ({"validation": validation, "every": 0}, "every=0: must be whole steps > 0"),
        ({"validation": validation, "every": 0.5}, "every=0.5: must be whole steps > 0"),
        ({"validation": validation, "regions": 0}, "regions=0: must be at least 1"),
        ({"every": 5}, "every=5: there is nothing to score on"),
        ({"regions": 5}, "regions=5: there is nothing to score on"),
    ):
        with pytest.raises(ValueError, match=message):
            train_tiny(tiny_recipe(), data, out, **options)
    with pytest.raises(ValueError, match=r"recipe dcgan has no scores of its own; leave it out"):
        train_tiny(thin_recipe("dcgan"), data, out, validation=validation)
    with h5py.File(data, "r") as a, h5py.File(tmp_path / "a.h5", "w") as b:
        for name in a:
            a.copy(name, b)
        b.attrs.update({"pixel_arcmin": 0.5, "seed": 3, "source": '{"cosmology": {}}'})
    (tmp_path / "b.h5").write_bytes((tmp_path / "a.h5").read_bytes())
    with pytest.raises(ValueError, match="the same sky is trained on"):
        train_tiny(tiny_recipe(), tmp_path / "a.h5", out, validation=tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5", "a") as file:
        file.attrs["seed"] = 4
    with pytest.raises(ValueError, match=r"b\.h5: painted with seed 4, on whose regions"):
        train_tiny(tiny_recipe(), tmp_path / "a.h5", out, validation=tmp_path / "b.h5")
    with pytest.raises(ValueError, match="which='first': must be best or last"):
        load_generator(out, "first")
    assert not out.exists()
