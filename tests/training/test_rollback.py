"""Runs that go wrong are rolled back."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_runs import (
    NORMALISER,
    assert_same,
    log_lines,
    state_of,
    stop_after,
    tiny_recipe,
    train_tiny,
)

from mlsky.errors import MlskyError
from mlsky.training import loop, steps
from mlsky.training import run as runs
from mlsky.training.run import load_generator


def test_a_bad_batch_is_skipped(data, tmp_path, monkeypatch):
    """NaN in one step leaves weights, optimisers and running statistics as they were."""
    real = loop._make_batch
    states = []

    def make(*args):
        batch, run = real(*args), args[-1]

        def spoiled(number):
            states.append({k: v.clone() for k, v in state_of(run).items()})
            condition, fields = batch(number)
            return (condition * math.nan if number == 2 else condition), fields

        return spoiled

    monkeypatch.setattr(loop, "_make_batch", make)
    run = train_tiny(tiny_recipe(average=0.0), data, tmp_path)
    assert all(torch.isfinite(v).all() for v in state_of(run).values())
    before, after = states[2], states[3]
    spoiled = [k for k in before if not torch.equal(before[k], after[k])]
    # the truth's own statistics do not see the condition, and go on
    assert all(k.startswith("match.real.") for k in spoiled)
    assert not torch.equal(
        after["generator.backbone.head.weight"], run.generator.backbone.head.weight
    )


def _spoil(monkeypatch, steps, how):
    """`how` acts on the run before the steps asked for (counted over all calls)."""
    real = loop.one_step
    calls = []

    def step(run, *args):
        calls.append(run.step)
        if len(calls) in steps:
            how(run)
        return real(run, *args)

    monkeypatch.setattr(loop, "one_step", step)
    return calls


def _break_weights(run):
    with torch.no_grad():
        run.generator.backbone.head.weight.fill_(math.nan)


def test_a_run_of_nan_is_rolled_back_with_other_noise_and_a_lower_rate(
    data, tmp_path, monkeypatch, caplog
):
    plain = train_tiny(tiny_recipe(), data, tmp_path / "plain", steps=2)
    monkeypatch.setattr(loop, "BAD_STEPS", 3)
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    calls = _spoil(monkeypatch, {3}, _break_weights)
    run = train_tiny(tiny_recipe(), data, tmp_path / "run", steps=5)
    # two good steps; three bad ones, of which none is kept; then from the second on
    assert calls == [0, 1, 2, 3, 4, 2, 3, 4]
    assert (run.step, run.rollbacks) == (5, 1)
    assert all(torch.isfinite(v).all() for v in state_of(run).values())
    (line,) = [x for x in log_lines(tmp_path / "run") if "rolled_back_to" in x]
    assert line == {
        "step": 5,
        "rolled_back_to": 2,
        "why": "3 steps in a row gave NaN or infinity",
        "rate_factor": 0.5,
    }
    assert "back to step 2 at 0.5 of the rate" in caplog.text
    # what was good is what an undisturbed run has; what follows is not
    monkeypatch.undo()
    whole = train_tiny(tiny_recipe(), data, tmp_path / "plain", steps=5)
    assert plain.step == 2
    assert not torch.equal(whole.generator.backbone.head.weight, run.generator.backbone.head.weight)
    # the rollback is part of the run: it goes on with the same noise and rate
    resumed = train_tiny(tiny_recipe(), data, tmp_path / "run", steps=6)
    assert resumed.rollbacks == 1
    rate = steps.learning_rate(tiny_recipe(), 5, 5 / 6) * tiny_recipe().generator_rate
    assert resumed.generator_adam.param_groups[0]["lr"] == pytest.approx(rate / 2)


def test_a_run_that_was_rolled_back_resumes_bit_for_bit(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "BAD_STEPS", 1)
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    with monkeypatch.context() as context:
        _spoil(context, {2}, _break_weights)
        whole = train_tiny(tiny_recipe(), data, tmp_path / "whole")
    with monkeypatch.context() as context:
        _spoil(context, {2}, _break_weights)
        stop_after(context, 2)
        with pytest.raises(KeyboardInterrupt):
            train_tiny(tiny_recipe(), data, tmp_path / "stopped")
    resumed = train_tiny(tiny_recipe(), data, tmp_path / "stopped")
    assert whole.rollbacks == resumed.rollbacks == 1
    assert_same(whole, resumed)


def test_rollbacks_are_limited(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "BAD_STEPS", 1)
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    _spoil(monkeypatch, set(range(2, 99)), _break_weights)
    with pytest.raises(
        MlskyError, match=r"gave NaN or infinity, after 3 rollbacks; the last good .* of step 1, is"
    ):
        train_tiny(tiny_recipe(), data, tmp_path)
    generator, _, state = load_generator(tmp_path)
    assert (state["step"], state["rollbacks"]) == (1, 3)
    assert all(torch.isfinite(p).all() for p in generator.parameters())


def test_a_collapse_is_rolled_back_and_not_saved(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "REPORT_EVERY", 1)
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    monkeypatch.setattr(loop, "RIPE_REPORTS", 2)
    ratios = iter([0.01, 0.9, 0.8, 0.05, 0.01, 0.9, 0.9])
    monkeypatch.setattr(
        loop, "power_report", lambda *args: {"ksz": [1.0, 1.0, 1.0], "cib": [next(ratios)] * 3}
    )
    run = train_tiny(tiny_recipe(), data, tmp_path, steps=5)
    (line,) = [x for x in log_lines(tmp_path) if "rolled_back_to" in x]
    assert line["why"] == "the power of cib went off by a factor of 100"
    # the fourth step was suspect already
    assert (line["step"], line["rolled_back_to"]) == (5, 3)
    assert (run.step, run.rollbacks) == (5, 1)


def test_a_run_that_ends_badly_keeps_its_last_good_checkpoint(data, tmp_path, monkeypatch, caplog):
    train_tiny(tiny_recipe(), data, tmp_path, steps=2)
    _spoil(monkeypatch, {1}, _break_weights)
    train_tiny(tiny_recipe(), data, tmp_path, steps=3)
    assert load_generator(tmp_path)[2]["step"] == 2
    assert "ended badly; its last good checkpoint is kept" in caplog.text


def test_watch():
    watch = loop._Watch()
    run = runs.new_run(tiny_recipe(), NORMALISER, 0, torch.device("cpu"))
    # young runs are far off, and single reports are noise
    for _ in range(2 * loop.RIPE_REPORTS):
        assert watch.report(run, {"tsz": [0.001, 1.0, 1.0]}) is None
        assert watch.good(run)
    assert watch.report(run, {"tsz": [0.5, 1.0, 2.0]}) is None
    assert watch.report(run, {"tsz": [0.5, 1.0, 20.0]}) is None
    assert not watch.good(run)
    assert watch.report(run, {"tsz": [0.5, 1.0, 2.0]}) is None
    assert watch.good(run)
    assert "factor of inf" in watch.report(run, {"tsz": [math.nan, 1.0, 1.0]})
    assert "power of tsz" in watch.report(run, {"ksz": [1.1], "tsz": [0.0, 1.0, 1.0]})
    _break_weights(run)
    assert watch.report(run, {"tsz": [1.0]}) == "weights are NaN or infinite"
    assert not watch.good(run)
