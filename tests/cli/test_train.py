"""mlsky train and tune, and the way from data to a sky."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path

import pytest
from command_line import error_of
from tiny_sets import tiny_set

from mlsky import cli


@pytest.fixture
def tiny_recipe(monkeypatch, tmp_path):
    """A recipe that trains in a second, a set for it, and the folder they are in."""

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
    tiny_set("set.h5")


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
        "stop": None,
        "device": "cpu",
        "seed": 3,
        "converged": None,
    }
    assert seen == everything
    assert cli.main([*TRAIN, "--steps", "2", "--stop-at", "1"]) == 0
    unsaid = ("target", "init_from", "normaliser", "validation", "every", "regions")
    plain = {"minutes": None, "steps": 2, "stop": 1}
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


def test_a_chain_is_scored_as_asked(tmp_path, monkeypatch, capsys):
    from mlsky.training import chain

    asked = {}
    monkeypatch.setattr(
        chain, "han2021", lambda data, out, **options: asked.update(options) or {"dcgan": out}
    )
    command = "train --recipe han2021-w16 --data set.h5 --out run --steps 9 --validation val.h5"
    assert cli.main(f"{command} --score-every 3 --score-regions 2".split()) == 0
    wanted = {"validation": Path("val.h5"), "every": 3, "regions": 2, "chain": "han2021-w16"}
    assert {name: asked[name] for name in wanted} == wanted
    assert "run: dcgan trained" in capsys.readouterr().out
    for line, steps in (("9", 9), ("9 9 18", [9, 9, 18]), ("9,9,18", [9, 9, 18])):
        command = "train --recipe han2021-w16 --data set.h5 --out run --steps"
        assert cli.main([*command.split(), *line.split()]) == 0
        assert asked["steps"] == steps


@pytest.mark.parametrize("change", [["--target", "set.h5"], ["--normaliser", "data"]])
def test_a_chain_refuses_what_it_would_ignore(tiny_recipe, capsys, change):
    command = "train --recipe han2021-w16 --data set.h5 --out run --steps 9".split()
    message = f"{' '.join(change)}: the paper's chain starts anew, on a set"
    assert message in error_of(capsys, command + change)


def test_train_scores_and_draws_its_log(tiny_recipe, monkeypatch, capsys):
    from mlsky.training import loop
    from mlsky.training.run import load_generator

    monkeypatch.setattr(loop, "REPORT_EVERY", 1)
    tiny_set("val.h5", n=192)
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
        (["--steps", "2", "3"], "--steps 2 3: recipe tiny is one network; give one number"),
        (["--steps", "1.5"], "'1.5' is not a whole number"),
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
    tiny_set("poor.h5", leave_out=("tsz",))
    tiny_set("coarse.h5", pixel_arcmin=2.0)
    assert message in error_of(capsys, TRAIN + change)


def test_interrupted_training_says_what_is_kept(tiny_recipe, capsys, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("mlsky.training.loop.train", interrupt)
    line = error_of(capsys, [*TRAIN, "--steps", "1"], status=130)
    assert "the same command goes on from what was saved" in line


def test_from_data_to_a_sky(tiny_recipe, monkeypatch, capsys):
    """The walk-through of docs/training.rst in miniature, command by command."""
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
        tiny_set(name, n=192, seed=seed)
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
