"""Run folders: checkpoints, what is resumed, what is refused."""

from __future__ import annotations

import errno
import fcntl
import json

import numpy as np
import pytest
import torch
from tiny_runs import STEPS, assert_same, state_of, stop_after, tiny_recipe, train_tiny, write_set

from mlsky.errors import MlskyError
from mlsky.networks.normaliser import Normaliser
from mlsky.training import loop
from mlsky.training import run as runs
from mlsky.training.checkpoints import CHECKPOINT, read_checkpoint
from mlsky.training.loop import train
from mlsky.training.run import load_generator


@pytest.mark.parametrize("name", ["paint-0.5", "convergence-0.5"])
def test_interrupted_and_resumed_is_bit_for_bit_the_same(data, tmp_path, monkeypatch, name):
    state = torch.get_rng_state()
    whole = train_tiny(tiny_recipe(name), data, tmp_path / "whole")
    assert whole.step == STEPS
    with monkeypatch.context() as context:
        stop_after(context, 2)
        with pytest.raises(KeyboardInterrupt):
            train_tiny(tiny_recipe(name), data, tmp_path / "stopped")
    _, _, saved = load_generator(tmp_path / "stopped")
    assert saved["step"] == 2
    resumed = train_tiny(tiny_recipe(name), data, tmp_path / "stopped")
    assert resumed.step == STEPS
    assert_same(whole, resumed)
    steps = {k: v for k, v in state_of(resumed).items() if k.endswith(".step")}
    assert {v.item() for v in steps.values()} == {STEPS}
    assert torch.equal(torch.get_rng_state(), state)


def test_resumed_optimisers_have_the_strides_of_their_weights(data, tmp_path):
    """Otherwise a GPU or a vectorised CPU loop may round another way."""
    train_tiny(tiny_recipe(), data, tmp_path, steps=1)
    run = train_tiny(tiny_recipe(), data, tmp_path, steps=1)
    for adam in (run.generator_adam, run.critic_adam):
        for parameter, state in adam.state.items():
            assert state["exp_avg"].stride() == parameter.stride()


def test_a_run_folder(data, tmp_path):
    run = train_tiny(tiny_recipe(), data, tmp_path / "deep" / "run")
    folder = tmp_path / "deep" / "run"
    assert {p.name for p in folder.iterdir()} == {
        "checkpoint.safetensors",
        "log.jsonl",
        "recipe.json",
    }
    assert json.loads((folder / "recipe.json").read_text())["name"] == "paint-0.5"
    generator, normaliser, state = load_generator(folder)
    assert normaliser == run.normaliser
    assert (state["step"], state["seed"]) == (STEPS, 1)
    assert not generator.training
    for a, b in zip(generator.parameters(), run.averaged.parameters(), strict=True):
        assert torch.equal(a, b)
    # a finished run stays as it is
    assert_same(run, train_tiny(tiny_recipe(), data, folder))


def test_another_recipe_or_seed_is_refused(data, tmp_path):
    train_tiny(tiny_recipe(), data, tmp_path, steps=1)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"trained with another seed; continue it"):
        train_tiny(tiny_recipe(), data, tmp_path, seed=2)
    with pytest.raises(ValueError, match=r"trained with another generator_rate, clip;"):
        train_tiny(tiny_recipe(generator_rate=1e-3, clip=1.0), data, tmp_path)
    other = Normaliser(("kappa", "ksz", "tsz", "cib"), (None, None, 1, 1), (0,) * 4, (1,) * 4)
    with pytest.raises(ValueError, match="not that of the run that is resumed"):
        train_tiny(tiny_recipe(), data, tmp_path, normaliser=other)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert json.loads((tmp_path / "recipe.json").read_text())["clip"] == 20.0
    rng = np.random.default_rng(1)
    for _ in range(100):  # one bit anywhere: refused, never other numbers
        changed = bytearray(before)
        changed[rng.integers(len(before))] ^= 1 << rng.integers(8)
        (tmp_path / "checkpoint.safetensors").write_bytes(changed)
        with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
            read_checkpoint(tmp_path / "checkpoint.safetensors")
    (tmp_path / "checkpoint.safetensors").write_bytes(before[:-8])
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        train_tiny(tiny_recipe(), data, tmp_path)


def test_a_run_of_a_version_with_fewer_fields_is_resumed(data, tmp_path, monkeypatch):
    first = train_tiny(tiny_recipe(), data, tmp_path, steps=1)
    told = first.recipe.to_dict()

    def older(recipe):
        return {k: v for k, v in told.items() if k not in ("symmetries", "bfloat16")}

    with monkeypatch.context() as patch:
        patch.setattr(type(first.recipe), "to_dict", older)
        runs.save_checkpoint(first, tmp_path, 1)
    assert train_tiny(tiny_recipe(), data, tmp_path, steps=2).step == 2


def test_a_resumed_run_keeps_its_normaliser_on_other_data(data, tmp_path):
    first = train_tiny(tiny_recipe(), data, tmp_path / "run", steps=1)
    second = train_tiny(
        tiny_recipe(), write_set(tmp_path / "other.h5", seed=9), tmp_path / "run", steps=2
    )
    assert second.normaliser == first.normaliser
    assert second.generator.tsz_std == first.generator.tsz_std


@pytest.fixture
def full_disk(monkeypatch):
    """Nothing above 20 kB can be written, from the call on."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_the_last_good_checkpoint(data, tmp_path, full_disk, caplog):
    train_tiny(tiny_recipe(), data, tmp_path, steps=1)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    assert len(before) > 20_000
    full_disk()
    with pytest.raises(MlskyError, match=r"the checkpoint of step 2 cannot be written .* is kept"):
        train_tiny(tiny_recipe(), data, tmp_path, steps=2)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert not (tmp_path / "checkpoint.part").exists()


def test_a_disk_full_for_a_while_costs_a_warning(data, tmp_path, monkeypatch, caplog):
    """As safetensors and the operating system tell of it."""
    import safetensors.torch

    real = safetensors.torch.save_file
    calls = []

    def save_file(*args, **options):
        calls.append(args)
        if len(calls) in (2, 3):
            raise OSError(28, "No space left on device")
        return real(*args, **options)

    monkeypatch.setattr(safetensors.torch, "save_file", save_file)
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    run = train_tiny(tiny_recipe(), data, tmp_path)
    assert run.step == STEPS
    assert load_generator(tmp_path)[2]["step"] == STEPS
    told = [r.getMessage() for r in caplog.records]
    assert len(told) == 2
    assert all("No space left on device" in t and "\n" not in t for t in told)


def test_a_second_run_in_a_folder_is_refused(data, tmp_path, monkeypatch):
    """In a new folder, and in one that holds a run; the first one goes on undisturbed."""
    monkeypatch.setattr(loop, "REPORT_EVERY", 2)
    for _ in range(2):
        seen = []

        def again(done, line, seen=seen):
            with pytest.raises(ValueError, match="another process trains in it; wait for it") as no:
                train(tiny_recipe(), data, tmp_path / "run", steps=99, device="cpu", progress=False)
            seen.append(str(no.value))

        found = (tmp_path / "run" / CHECKPOINT).exists()
        train(
            *(tiny_recipe(), data, tmp_path / "run"),
            steps=loop.REPORT_EVERY * (1 + found),
            device="cpu",
            progress=False,
            report=again,
        )
        assert len(seen) == 1
        assert "\n" not in seen[0]
    train(tiny_recipe(), data, tmp_path / "run", steps=2 * loop.REPORT_EVERY, device="cpu")


def test_a_run_begun_by_another_meanwhile_is_refused(data, tmp_path, monkeypatch):
    """Between the look for a checkpoint and the making of the folder."""
    real = loop.new_run

    def late(*arguments):
        made = real(*arguments)
        (tmp_path / "run").mkdir()
        runs.save_checkpoint(made, tmp_path / "run", 0)
        return made

    monkeypatch.setattr(loop, "new_run", late)
    with pytest.raises(ValueError, match="another process trains in it"):
        train(tiny_recipe(), data, tmp_path / "run", steps=STEPS, device="cpu", progress=False)


def test_where_there_are_no_locks_a_run_goes_on(data, tmp_path, monkeypatch, caplog):
    def refuse(number, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    train(tiny_recipe(), data, tmp_path / "run", steps=1, device="cpu", progress=False)
    assert "no locks" in caplog.text
