"""Scores of the paper's chain, step by step."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from tiny_runs import thin_recipe, write_set

from mlsky import cli
from mlsky.networks import evaluate
from mlsky.networks.weights import open_weights
from mlsky.painting import regions
from mlsky.training import chain, chain_scores, paper_corrections
from mlsky.training import run as runs
from mlsky.training.assemble import assemble
from mlsky.validation import scores

PATCHES = 16
# Weight files are in half precision, 5e-4 per weight.
HALF = 2e-3


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A chain of one step each, and a held-out set."""
    folder = tmp_path_factory.mktemp("chain")
    truth = write_set(folder / "truth.h5", 128)
    held_out = write_set(folder / "held.h5", 128, seed=5, regions=4)
    thin = {n: thin_recipe(n) for n in chain.STEPS}
    options = {"steps": 1, "device": "cpu", "seed": 1, "progress": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain, "recipe", thin.__getitem__)
        chain.han2021(truth, folder / "run", **options)
    return folder / "run", held_out


def test_every_step_is_scored(trained, tmp_path, capsys):
    folder, held_out = trained
    out, drawn = tmp_path / "scores.json", tmp_path / "steps.png"
    arguments = ["validate-chain", str(folder), "--data", str(held_out), "--patches", str(PATCHES)]
    assert cli.main([*arguments, "--json", str(out), "--out", str(drawn)]) == 0
    assert drawn.read_bytes().startswith(b"\x89PNG")
    found = json.loads(out.read_text())
    assert list(found) == [*chain_scores.STAGES]
    for stage, figures in found.items():
        named = figures["summary"]
        # kappa is given to PIXGAN and made by the others
        assert ("power of kappa" in named) == (stage != "painted")
        assert {f"power of {f}" for f in ("ksz", "tsz", "cib", "radio")} <= {*named}
        assert "correlation of kappa and ksz" in named
        assert ("same in all patches of kappa" in named) == (stage != "painted")
        assert "same in all patches of ksz" in named
    printed = capsys.readouterr().out
    assert "drawn, dcgan of 1 steps: " in printed
    verdicts = [line.split()[-1] for line in printed.splitlines() if line.startswith("  ")]
    assert {*verdicts} <= {"ok", "NOT"}  # apart from what is wanted


def test_the_truth_is_perfect(trained):
    """Pairs of equal maps have no deviation, and the summary says so."""
    _, held_out = trained
    crops = chain_scores.Crops(held_out, scores.FIELDS, 128, 1)
    fields = crops.batch(0, PATCHES).numpy()
    fields[:, 3:] = np.maximum(fields[:, 3:], 0)
    named = chain_scores.summary(
        scores.compare(zip(fields, fields, strict=True), 0.5, periodic=False)
    )
    assert all(n["good"] for name, n in named.items() if "correlation" not in name)
    assert {n["value"] for name, n in named.items() if "power" in name} == {1.0}
    assert {n["value"] for name, n in named.items() if "quantiles" in name} == {0.0}
    half = fields * np.array([1, 0.5, 1, 1, 1], np.float32)[:, None, None]
    named = chain_scores.summary(
        scores.compare(zip(fields, half, strict=True), 0.5, periodic=False)
    )
    assert named["power of ksz"]["value"] == pytest.approx(0.25, rel=1e-3)
    assert not named["power of ksz"]["good"]
    # the width of a bin of the histogram
    assert abs(named["quantiles of ksz"]["value"]) == pytest.approx(0.5, abs=0.02)


def test_painted_from_the_true_kappa(trained):
    """Kappa of the painted patches is the truth's, and that of the chain is not."""
    folder, held_out = trained
    crops = chain_scores.Crops(held_out, ("kappa_in", *scores.FIELDS), 128, 0)
    for stage, same in (("painted", True), ("chain", False)):
        networks, normaliser, _ = chain_scores._networks(folder, stage, "best")
        for truth, made in chain_scores._made(stage, networks, normaliser, crops, 2, 0):
            assert np.allclose(truth[0], made[0], atol=1e-3) == same
            assert made[2].max() <= 0
            assert made[3:].min() >= 0


def test_what_is_the_same_in_all_patches():
    """A picture under independent noise: the ratio of its variance to the sum of both."""
    rng = np.random.default_rng(3)
    under = rng.normal(0, 1, (5, 32, 32)) * np.array([0, 0.1, 0.5, 1, 2])[:, None, None]
    seen = chain_scores._Common()
    patches = ((None, 7 + under + rng.normal(0, 1, under.shape)) for _ in range(64))
    assert sum(1 for _ in seen.of(patches)) == 64
    wanted = under.var((1, 2)) / (under.var((1, 2)) + 1)
    # the error of a mean of 64 x 1024 numbers
    assert seen.fractions() == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize("level", [0.0, 5.3, -1e-5])
def test_a_constant_field_is_the_same_in_all_patches(level):
    """Also after rounding, which gives it a variance of either sign."""
    seen = chain_scores._Common()
    constant = np.full((5, 32, 32), level, np.float32)
    constant[4] += np.arange(32, dtype=np.float32)  # and one that is not constant
    for _ in seen.of((None, constant) for _ in range(37)):
        pass
    assert seen.fractions() == pytest.approx(np.ones(5))


def test_examples_are_of_one_place(trained):
    folder, held_out = trained
    patches, pixel_arcmin = chain_scores.examples(folder, held_out)
    assert [*patches] == ["truth", *chain_scores.STAGES]
    assert pixel_arcmin == 0.5
    assert np.allclose(patches["truth"][0], patches["painted"][0], atol=1e-3)
    assert not np.allclose(patches["truth"][0], patches["drawn"][0], atol=1e-3)


@pytest.mark.parametrize("stage", chain_scores.STAGES)
def test_examples_are_the_first_that_are_scored(trained, monkeypatch, stage):
    """Also with noise, which is drawn for as many patches at once as are made."""
    folder, held_out = trained
    asked = []
    made = chain_scores._made

    def watched(stage, networks, normaliser, crops, patches, seed):
        asked.append(patches)
        return made(stage, networks, normaliser, crops, patches, seed)

    monkeypatch.setattr(chain_scores, "_made", watched)
    patches, _ = chain_scores.examples(folder, held_out, 2, [stage])
    crops = chain_scores.Crops(held_out, ("kappa_in", *scores.FIELDS), 128, 2)
    networks, normaliser, _ = chain_scores._networks(folder, stage, "best")
    truth, first = next(made(stage, networks, normaliser, crops, chain_scores.CHUNK, 2))
    assert np.array_equal(patches["truth"], truth)
    assert np.array_equal(patches[stage], first)
    assert asked == [chain_scores.CHUNK]


@pytest.mark.parametrize("stage", ["drawn", "painted", "chain"])
def test_a_run_is_scored_as_its_folder(trained, stage):
    """While it trains, a run has the scores that its checkpoint will have; not a bit changes."""
    folder, held_out = trained
    before, normaliser, _ = chain_scores._networks(folder, stage, "best")
    made = runs.new_run(thin_recipe(chain_scores.STAGES[stage]), normaliser, 1, torch.device("cpu"))
    made.averaged.load_state_dict(before.pop().state_dict())
    held = {name: tensor.clone() for name, tensor in made.averaged.state_dict().items()}
    random = torch.get_rng_state()
    found = chain_scores.measure(stage, before, made, held_out, 1)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(held[k], v) for k, v in made.averaged.state_dict().items())
    wanted = chain_scores.score(folder, held_out, chain_scores.LEAST, 0, [stage])
    assert found == wanted[stage]["total"]


def test_a_missing_matplotlib_is_said_before_work(trained, tmp_path, monkeypatch, capsys):
    folder, held_out = trained
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(chain_scores, "score", lambda *_: pytest.fail("it worked first"))
    out = tmp_path / "a.png"
    arguments = ["validate-chain", str(folder), "--data", str(held_out), "--out", str(out)]
    assert cli.main(arguments) != 0
    assert "pip install 'mlsky[plot]'" in capsys.readouterr().err
    assert not out.exists()


def test_wrong_input(trained, tmp_path):
    folder, held_out = trained
    with pytest.raises(ValueError, match="patches=3: must be at least 16"):
        chain_scores.score(folder, held_out, 3)
    with pytest.raises(ValueError, match="has no run of dcgan, pixgan, vaegan; train it first"):
        chain_scores.score(tmp_path, held_out)
    with pytest.raises(ValueError, match="stages='best': must be some of drawn"):
        chain_scores.score(folder, held_out, stages=["best"])
    shutil.copytree(folder / "dcgan", tmp_path / "dcgan")
    with pytest.raises(ValueError, match="has no run of vaegan"):
        chain_scores.score(tmp_path, held_out, stages=["chain"])
    coarse = write_set(tmp_path / "coarse.h5", 128, pixel_arcmin=2.0)
    with pytest.raises(ValueError, match=r"pixels of 2.0', the runs' are 0.5'"):
        chain_scores.score(tmp_path, coarse)


def test_the_chain_is_exported(trained, tmp_path, monkeypatch):
    """One file of PIXGAN and VAEGAN, which makes what the runs make."""
    folder, held_out = trained
    monkeypatch.chdir(tmp_path)
    arguments = f"export --out chain.safetensors --data {held_out} --parts"
    assert cli.main([*arguments.split(), f"pixgan={folder}/pixgan", f"vaegan={folder}/vaegan"]) == 0
    weights = open_weights("chain.safetensors")
    assert evaluate.kind(weights) == "han2021"
    crops = chain_scores.Crops(held_out, ("kappa_in", *scores.FIELDS), 128, 0)
    kappa = crops.batch(0, chain_scores.CHUNK)[0, 0]
    out = evaluate.evaluate(weights, kappa, {}, precision="fp32")
    networks, normaliser, _ = chain_scores._networks(folder, "chain", "best")
    _, made = next(chain_scores._made("chain", networks, normaliser, crops, 1, 0))
    for name, field in zip(scores.FIELDS, made, strict=True):
        np.testing.assert_allclose(out[name], field, rtol=HALF, atol=HALF)


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("first", "'first': must be best, last, or once NAME=STATE, for example vaegan=last"),
        ("best,last", "'best last': must be best, last, or once NAME=STATE"),
        ("vaegan=first", "'vaegan=first': must be best, last, or once NAME=STATE"),
        ("vaegan=last,vaegan=best", "'vaegan=last vaegan=best': must be best, last, or once"),
        ("=last", "'=last': must be best, last, or once NAME=STATE"),
        ("paint=last", "which=paint=last: must be a state of "),
    ],
)
def test_states_that_there_are_not(trained, tmp_path, capsys, which, message):
    folder, held_out = trained
    parts = [f"{name}={folder}/{name}" for name in ("pixgan", "vaegan")]
    out = tmp_path / "chain.safetensors"
    for command in (
        ["export", "--out", out, "--data", held_out, "--which", which, "--parts", *parts],
        ["validate-chain", folder, "--data", held_out, "--which", which],
    ):
        assert cli.main([str(word) for word in command]) != 0
        assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("corrections", ["matched", "paper"])
def test_the_exported_chain_is_corrected(trained, tmp_path, corrections):
    """The header says by what, and the maps have the corrections."""
    folder, held_out = trained
    out = tmp_path / "chain.safetensors"
    arguments = f"export --out {out} --data {folder.parent}/truth.h5 --validation {held_out}"
    parts = [f"pixgan={folder}/pixgan", f"vaegan={folder}/vaegan"]
    command = [*arguments.split(), "--corrections", corrections, "--parts", *parts]
    assert cli.main(command) == 0
    weights = open_weights(out)
    found = weights.header["calibration"]
    assert found["corrections"] == corrections
    assert {"kappa", "ksz", "tsz", "cib", "radio"} <= {*found}
    if corrections == "paper":
        assert found["radio"] == paper_corrections.radio([], [], 0.5)
    bare = regions.uncalibrated(weights)
    kappa = np.random.default_rng(1).normal(0, 0.1, (128, 128)).astype(np.float32)
    plain, made = (evaluate.evaluate(w, kappa, {}, precision="fp32") for w in (bare, weights))
    assert any((plain[name] - made[name]).abs().max() > 0 for name in scores.FIELDS)
    assert made["radio"].min() >= 0


def test_corrections_that_there_are_not(trained, tmp_path):
    folder, held_out = trained
    parts = {name: folder / name for name in ("pixgan", "vaegan")}
    with pytest.raises(ValueError, match="corrections='none': must be 'matched', or 'paper' for"):
        assemble(tmp_path / "a", parts, folder.parent / "truth.h5", held_out, corrections="none")
    with pytest.raises(ValueError, match="corrections='paper': the default family has 'matched'"):
        assemble(tmp_path / "a", {"paint": folder}, held_out, held_out, corrections="paper")
    assert not (tmp_path / "a").exists()
