"""The training loop: reproducible, resumable, and hard to spoil."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import math

import h5py
import numpy as np
import pytest
import torch
from stub_painter import StubPainter

from mlsky import seeds
from mlsky.errors import MlskyError, RegistryError
from mlsky.networks import device
from mlsky.networks.normaliser import Normaliser
from mlsky.training import chain, loop, selection, steps
from mlsky.training import run as runs
from mlsky.training.data import Crops, Painted
from mlsky.training.loop import train
from mlsky.training.recipes import recipe
from mlsky.training.run import load_generator

NORMALISER = Normaliser(("kappa", "ksz", "tsz", "cib"), (None, None, 4, 17), (0,) * 4, (1,) * 4)
FIELDS = ("kappa", "ksz", "tsz", "cib", "radio", "kappa_in")
STEPS = 4


def _set(path, n=64, regions=2, pixel_arcmin=0.5, seed=0, leave_out=()):
    """Correlated fields with the signs and rough sizes of the truth."""
    rng = seeds.generator(seed, "truth")
    g = rng.standard_normal((3, regions, n, n)).astype(np.float32)
    mass = np.exp(g[0])
    fields = {
        "kappa": 0.05 * (mass - 1.6),
        "kappa_in": 0.08 * g[0],
        "ksz": 2 * g[1] * mass,
        "tsz": -3 * mass,
        "cib": 10 * mass * np.exp(0.3 * g[2]),
        "radio": np.where(g[2] > 2, 20 * mass, 0),
    }
    with h5py.File(path, "w") as file:
        file.attrs["pixel_arcmin"] = pixel_arcmin
        for name in set(fields) - set(leave_out):
            file[name] = fields[name].astype(np.float32)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return _set(tmp_path_factory.mktemp("data") / "train.h5")


def _tiny(name="paint-0.5", **changes):
    small = {"widths": (4, 4, 4, 4), "noise": (1, 1, 1, 1)}
    base = recipe(name)
    options = {**small, "velocity_levels": 3} if "paint" in name else small
    changes = {
        "size": 64,
        "batch": 2,
        "generator_options": options,
        "critic_options": {**base.critic_options, "widths": (4, 4, 4, 4)},
        "warm_up": 2,
        **changes,
    }
    return dataclasses.replace(base, **changes)


def _thin(name, **changes):
    return dataclasses.replace(
        recipe(name),
        generator_options={"width": 2},
        critic_options={"width": 2},
        batch=2,
        critic_steps=2,
        **changes,
    )


def _train(recipe, data, out, **options):
    options = {"steps": STEPS, "device": "cpu", "seed": 1, "progress": False, **options}
    return train(recipe, data, out, **options)


def _state(run) -> dict[str, torch.Tensor]:
    state = {}
    for name in ("generator", "critic", "averaged"):
        state |= {f"{name}.{k}": v for k, v in getattr(run, name).state_dict().items()}
    for name in ("generator_adam", "critic_adam"):
        state |= runs.adam_tensors(getattr(run, name), name)
    if run.match is not None:
        state |= {f"match.{k}": v for k, v in run.match.running.items()}
    return state


def _assert_same(a, b):
    a, b = _state(a), _state(b)
    assert set(a) == set(b)
    different = [k for k in a if not torch.equal(a[k], b[k])]
    assert not different, different


def _stop_after(monkeypatch, step):
    """Save after every step, and be interrupted in the middle of a later one."""
    real = steps.relativistic_step

    def stop(run, *args):
        if run.step == step:
            raise KeyboardInterrupt
        return real(run, *args)

    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    monkeypatch.setattr(steps, "relativistic_step", stop)


@pytest.mark.parametrize("name", ["paint-0.5", "convergence-0.5"])
def test_interrupted_and_resumed_is_bit_for_bit_the_same(data, tmp_path, monkeypatch, name):
    state = torch.get_rng_state()
    whole = _train(_tiny(name), data, tmp_path / "whole")
    assert whole.step == STEPS
    with monkeypatch.context() as context:
        _stop_after(context, 2)
        with pytest.raises(KeyboardInterrupt):
            _train(_tiny(name), data, tmp_path / "stopped")
    _, _, saved = load_generator(tmp_path / "stopped")
    assert saved["step"] == 2
    resumed = _train(_tiny(name), data, tmp_path / "stopped")
    assert resumed.step == STEPS
    _assert_same(whole, resumed)
    steps = {k: v for k, v in _state(resumed).items() if k.endswith(".step")}
    assert {v.item() for v in steps.values()} == {STEPS}
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["paint-0.5", "convergence-0.5"])
def test_a_warm_start_takes_networks_and_normaliser(data, tmp_path, name):
    old = _train(_tiny(name), data, tmp_path / "old")
    other = _set(tmp_path / "other.h5", seed=5)
    faint = _tiny(name, generator_rate=1e-12, critic_rate=1e-12, average=1.0)
    new = _train(faint, other, tmp_path / "new", seed=3, init_from=tmp_path / "old", steps=1)
    assert new.step == 1
    assert (
        new.normaliser
        == old.normaliser
        != runs.fit_normaliser(Crops(other, new.recipe.inputs + new.recipe.outputs, 64))
    )
    for part in ("generator", "critic"):
        a, b = getattr(old, part).state_dict(), getattr(new, part).state_dict()
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=1e-6, atol=1e-9)
    assert {s["step"].item() for s in new.generator_adam.state.values()} == {1}
    # once the new run has a checkpoint of its own, it goes on with that
    again = _train(faint, other, tmp_path / "new", seed=3, init_from=tmp_path / "gone", steps=2)
    assert again.step == 2


def test_a_warm_start_from_a_weight_file(data, tmp_path):
    from mlsky.networks import weights

    old = _train(_tiny(), data, tmp_path / "old")
    header = {
        "networks": {"paint": weights.network_header(old.averaged)},
        "normaliser": old.normaliser.to_dict(),
        "pixel_arcmin": 0.5,
    }
    file = tmp_path / "w.safetensors"
    weights.save(file, weights.pack({"paint": old.averaged}), header, "float32")
    faint = _tiny(generator_rate=1e-12, critic_rate=1e-12)
    new = _train(faint, data, tmp_path / "new", seed=3, init_from=file, steps=1)
    for a, b in zip(old.averaged.parameters(), new.averaged.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match=r"holds paint and no default:Convergence, which recipe"):
        _train(_tiny("convergence-0.5"), data, tmp_path / "bad", init_from=file)
    wide = {**_tiny().generator_options, "widths": (4, 4, 4, 8)}
    with pytest.raises(ValueError, match=r"w.safetensors: its generator is of another size"):
        _train(_tiny(generator_options=wide), data, tmp_path / "bad", init_from=file)
    assert not (tmp_path / "bad").exists()


def test_bad_warm_starts(data, tmp_path):
    _train(_tiny(), data, tmp_path / "old", steps=1)
    out = tmp_path / "new"
    with pytest.raises(ValueError, match=r"init_from=.*none: does not exist; name a run folder"):
        _train(_tiny(), data, out, init_from=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"init_from=.*empty: holds no checkpoint.safetensors"):
        _train(_tiny(), data, out, init_from=tmp_path / "empty")
    with pytest.raises(ValueError, match=r"differs from recipe convergence-0.5 in generator, gen"):
        _train(_tiny("convergence-0.5"), data, out, init_from=tmp_path / "old")
    (tmp_path / "text").write_text("not weights")
    with pytest.raises(RegistryError, match="not a safetensors file"):
        _train(_tiny(), data, out, init_from=tmp_path / "text")
    assert not out.exists()


def test_resumed_optimisers_have_the_strides_of_their_weights(data, tmp_path):
    """Otherwise a GPU or a vectorised CPU loop may round another way."""
    _train(_tiny(), data, tmp_path, steps=1)
    run = _train(_tiny(), data, tmp_path, steps=1)
    for adam in (run.generator_adam, run.critic_adam):
        for parameter, state in adam.state.items():
            assert state["exp_avg"].stride() == parameter.stride()


def _logged(monkeypatch):
    monkeypatch.setattr(loop, "REPORT_EVERY", 1)


def _lines(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_the_seed_sets_the_losses_and_reports_change_nothing(data, tmp_path, monkeypatch):
    silent = _train(_tiny(), data, tmp_path / "silent")
    _logged(monkeypatch)
    a = _train(_tiny(), data, tmp_path / "a")
    _train(_tiny(), data, tmp_path / "b")
    other = _train(_tiny(), data, tmp_path / "other", seed=2)
    _assert_same(silent, a)
    first = _lines(tmp_path / "a")
    assert [line["step"] for line in first] == [1, 2, 3, 4]
    assert first == _lines(tmp_path / "b") != _lines(tmp_path / "other")
    assert set(first[0]) >= {"critic", "distance", "gradient", "ratio", *_tiny().match}
    assert set(first[0]["ratio"]) == {"ksz", "tsz", "cib"}
    assert not torch.equal(a.generator.backbone.head.weight, other.generator.backbone.head.weight)


def test_a_run_folder(data, tmp_path):
    run = _train(_tiny(), data, tmp_path / "deep" / "run")
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
    _assert_same(run, _train(_tiny(), data, folder))


def test_another_recipe_or_seed_is_refused(data, tmp_path):
    _train(_tiny(), data, tmp_path, steps=1)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"trained with another seed; continue it"):
        _train(_tiny(), data, tmp_path, seed=2)
    with pytest.raises(ValueError, match=r"trained with another generator_rate, clip;"):
        _train(_tiny(generator_rate=1e-3, clip=1.0), data, tmp_path)
    other = Normaliser(("kappa", "ksz", "tsz", "cib"), (None, None, 1, 1), (0,) * 4, (1,) * 4)
    with pytest.raises(ValueError, match="not that of the weights to go on with"):
        _train(_tiny(), data, tmp_path, normaliser=other)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    assert json.loads((tmp_path / "recipe.json").read_text())["clip"] == 20.0
    rng = np.random.default_rng(1)
    for _ in range(100):  # one bit anywhere: refused, never other numbers
        changed = bytearray(before)
        changed[rng.integers(len(before))] ^= 1 << rng.integers(8)
        (tmp_path / "checkpoint.safetensors").write_bytes(changed)
        with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
            runs.read_checkpoint(tmp_path / "checkpoint.safetensors")
    (tmp_path / "checkpoint.safetensors").write_bytes(before[:-8])
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        _train(_tiny(), data, tmp_path)


def test_a_resumed_run_keeps_its_normaliser_on_other_data(data, tmp_path):
    first = _train(_tiny(), data, tmp_path / "run", steps=1)
    second = _train(_tiny(), _set(tmp_path / "other.h5", seed=9), tmp_path / "run", steps=2)
    assert second.normaliser == first.normaliser
    assert second.generator.tsz_std == first.generator.tsz_std


BAD = [
    ({"steps": None}, "minutes=None, steps=None: give exactly one"),
    ({"minutes": 1.0}, "minutes=1.0, steps=4: give exactly one"),
    ({"steps": 0}, "steps=0: must be > 0"),
    ({"steps": None, "minutes": -1.0}, "minutes=-1.0: must be > 0"),
    ({"steps": None, "minutes": math.nan}, "minutes=nan: must be > 0"),
    ({"steps": None, "minutes": math.inf}, "minutes=inf: must be > 0"),
    ({"device": "tpu9"}, "device='tpu9': must be auto, cpu or cuda"),
    ({"seed": -1}, "seed=-1: must be an integer"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options(data, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        _train(_tiny(), data, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_no_gpu(data, tmp_path):
    with pytest.raises(ValueError, match="no CUDA device is here; use device='cpu'"):
        _train(_tiny(), data, tmp_path / "run", device="cuda")
    assert device.pick_device("auto").type == "cpu"


def test_bad_data(data, tmp_path):
    coarse = _set(tmp_path / "coarse.h5", pixel_arcmin=2.0)
    with pytest.raises(ValueError, match=r"pixels of 2.0' in the data, 0.5' in recipe paint-0.5"):
        _train(_tiny(), coarse, tmp_path / "run")
    poor = _set(tmp_path / "poor.h5", leave_out=("ksz", "cib"))
    with pytest.raises(ValueError, match=r"poor.h5: lacks ksz, cib"):
        _train(_tiny(), poor, tmp_path / "run")
    with pytest.raises(ValueError, match="regions of 64 pixels, crops of 128"):
        _train(_tiny(size=128), data, tmp_path / "run")
    with pytest.raises(ValueError, match="dcgan has no condition to unpair"):
        _train(_thin("dcgan"), data, tmp_path / "run", target=data)
    with pytest.raises(
        ValueError, match=r"paint-0.5: the normaliser has ksz, tsz, cib and not kap"
    ):
        _train(_tiny(), data, tmp_path / "run", target=data)
    assert not (tmp_path / "run").exists()


def test_minutes_follow_the_clock(data, tmp_path):
    run = _train(_tiny(), data, tmp_path, steps=None, minutes=0.2 / 60)
    assert run.seconds >= 0.2
    assert run.step >= 1


def test_a_bad_batch_is_skipped(data, tmp_path, monkeypatch):
    """NaN in one step leaves weights, optimisers and running statistics as they were."""
    real = loop._make_batch
    states = []

    def make(*args):
        batch, run = real(*args), args[-1]

        def spoiled(number):
            states.append({k: v.clone() for k, v in _state(run).items()})
            condition, fields = batch(number)
            return (condition * math.nan if number == 2 else condition), fields

        return spoiled

    monkeypatch.setattr(loop, "_make_batch", make)
    run = _train(_tiny(average=0.0), data, tmp_path)
    assert all(torch.isfinite(v).all() for v in _state(run).values())
    before, after = states[2], states[3]
    spoiled = [k for k in before if not torch.equal(before[k], after[k])]
    # the truth's own statistics do not see the condition, and go on
    assert all(k.startswith("match.real.") for k in spoiled)
    assert not torch.equal(
        after["generator.backbone.head.weight"], run.generator.backbone.head.weight
    )


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    return _set(folder / "truth.h5", 128), _set(folder / "other.h5", 128, seed=8)


@pytest.mark.parametrize("name", ["dcgan", "pixgan", "vaegan"])
def test_the_papers_steps(large, tmp_path, monkeypatch, name):
    _logged(monkeypatch)
    truth, other = large
    options = {"steps": 2}
    if name == "vaegan":  # unpaired: PIXGAN's patches against the truth
        options["target"] = truth
    run = _train(_thin(name), other if name == "vaegan" else truth, tmp_path / "a", **options)
    first = runs.new_run(run.recipe, run.normaliser, 1, torch.device("cpu")).generator
    for a, b in zip(first.parameters(), run.generator.parameters(), strict=True):
        assert torch.isfinite(b).all()
        assert not torch.equal(a, b)
    for a, b in zip(
        run.averaged.state_dict().values(), run.generator.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)  # no averaging in the paper
    line = _lines(tmp_path / "a")[-1]
    names = {"step", "distance", "penalty", "critic", "generator", "gradient", "ratio"}
    assert set(line) == names
    assert set(line["ratio"]) == set(run.recipe.outputs)
    again = _train(_thin(name), other if name == "vaegan" else truth, tmp_path / "b", **options)
    _assert_same(run, again)
    # resumed: state of Adam and of the batch norms
    if name == "vaegan":
        _train(_thin(name), other, tmp_path / "b", **{**options, "steps": 3})
        assert load_generator(tmp_path / "b")[2]["step"] == 3


def test_an_unpaired_run_draws_its_conditions_apart(large, tmp_path):
    truth, other = large
    names = ("kappa", "ksz", "tsz", "cib", "radio")
    paired, none = loop._open_sets(_thin("pixgan"), truth, None, 1)
    assert none is None
    assert paired.names == names
    of_truth, of_condition = loop._open_sets(_thin("vaegan"), other, truth, 1)
    assert of_truth.names == of_condition.names == names
    assert not torch.equal(of_truth.batch(0, 2), of_condition.batch(0, 2))


def test_the_rate():
    r = dataclasses.replace(recipe("paint-0.5"), warm_up=40, decay_from=0.4)
    assert steps.learning_rate(r, 0, 0.0) == pytest.approx(1 / 40)
    assert steps.learning_rate(r, 39, 0.1) == 1
    assert steps.learning_rate(r, 1000, 0.4) == 1
    assert steps.learning_rate(r, 1000, 0.7) == pytest.approx(0.51)
    assert steps.learning_rate(r, 1000, 1.0) == pytest.approx(0.01)
    assert steps.learning_rate(recipe("dcgan"), 0, 0.99) == 1


def test_the_papers_chain(large, tmp_path, monkeypatch):
    """Three runs and two intermediate sets; a second call has nothing left to do."""
    thin = {n: _thin(n) for n in ("dcgan", "pixgan", "vaegan")}
    monkeypatch.setattr(chain, "recipe", thin.__getitem__)
    options = {"minutes": 0.01 / 60, "device": "cpu", "seed": 1, "progress": False}
    runs = chain.han2021(large[0], tmp_path, **options)
    assert list(runs) == list(thin)
    normalisers = {str(load_generator(folder)[1]) for folder in runs.values()}
    assert len(normalisers) == 1
    # two regions of the size of a patch: DCGAN gives four times as many, PIXGAN one for each
    for name, patches in (("intermediate1.h5", 8), ("intermediate2.h5", 2)):
        with h5py.File(tmp_path / name) as file:
            assert {k: file[k].shape for k in file} == {
                k: (patches, 128, 128) for k in chain.FIELDS
            }
            assert file["kappa"][:].std() > 0
    # kappa of the second is the Gaussian one, turned and flipped
    with h5py.File(tmp_path / "intermediate2.h5") as made, h5py.File(large[0]) as truth:
        start = np.sort(truth["kappa_in"][:].reshape(2, -1), 1)
        for patch in made["kappa"][:]:
            errors = np.abs(np.sort(patch.ravel()) - start).max(1)
            assert errors.min() < 1e-3
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.h5")}
    steps = [load_generator(folder)[2]["step"] for folder in runs.values()]
    chain.han2021(large[0], tmp_path, **options)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.glob("*.h5")}
    assert steps == [load_generator(folder)[2]["step"] for folder in runs.values()]


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
    plain = _train(_tiny(), data, tmp_path / "plain", steps=2)
    monkeypatch.setattr(loop, "BAD_STEPS", 3)
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    calls = _spoil(monkeypatch, {3}, _break_weights)
    run = _train(_tiny(), data, tmp_path / "run", steps=5)
    # two good steps; three bad ones, of which none is kept; then from the second on
    assert calls == [0, 1, 2, 3, 4, 2, 3, 4]
    assert (run.step, run.rollbacks) == (5, 1)
    assert all(torch.isfinite(v).all() for v in _state(run).values())
    (line,) = [x for x in _lines(tmp_path / "run") if "rolled_back_to" in x]
    assert line == {
        "step": 5,
        "rolled_back_to": 2,
        "why": "3 steps in a row gave NaN or infinity",
        "rate_factor": 0.5,
    }
    assert "back to step 2 at 0.5 of the rate" in caplog.text
    # what was good is what an undisturbed run has; what follows is not
    monkeypatch.undo()
    whole = _train(_tiny(), data, tmp_path / "plain", steps=5)
    assert plain.step == 2
    assert not torch.equal(whole.generator.backbone.head.weight, run.generator.backbone.head.weight)
    # the rollback is part of the run: it goes on with the same noise and rate
    resumed = _train(_tiny(), data, tmp_path / "run", steps=6)
    assert resumed.rollbacks == 1
    rate = steps.learning_rate(_tiny(), 5, 5 / 6) * _tiny().generator_rate
    assert resumed.generator_adam.param_groups[0]["lr"] == pytest.approx(rate / 2)


def test_a_run_that_was_rolled_back_resumes_bit_for_bit(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "BAD_STEPS", 1)
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    with monkeypatch.context() as context:
        _spoil(context, {2}, _break_weights)
        whole = _train(_tiny(), data, tmp_path / "whole")
    with monkeypatch.context() as context:
        _spoil(context, {2}, _break_weights)
        _stop_after(context, 2)
        with pytest.raises(KeyboardInterrupt):
            _train(_tiny(), data, tmp_path / "stopped")
    resumed = _train(_tiny(), data, tmp_path / "stopped")
    assert whole.rollbacks == resumed.rollbacks == 1
    _assert_same(whole, resumed)


def test_rollbacks_are_limited(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "BAD_STEPS", 1)
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    _spoil(monkeypatch, set(range(2, 99)), _break_weights)
    with pytest.raises(
        MlskyError, match=r"gave NaN or infinity, after 3 rollbacks; the last good .* of step 1, is"
    ):
        _train(_tiny(), data, tmp_path)
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
    run = _train(_tiny(), data, tmp_path, steps=5)
    (line,) = [x for x in _lines(tmp_path) if "rolled_back_to" in x]
    assert line["why"] == "the power of cib went off by a factor of 100"
    # the fourth step was suspect already
    assert (line["step"], line["rolled_back_to"]) == (5, 3)
    assert (run.step, run.rollbacks) == (5, 1)


def test_a_run_that_ends_badly_keeps_its_last_good_checkpoint(data, tmp_path, monkeypatch, caplog):
    _train(_tiny(), data, tmp_path, steps=2)
    _spoil(monkeypatch, {1}, _break_weights)
    _train(_tiny(), data, tmp_path, steps=3)
    assert load_generator(tmp_path)[2]["step"] == 2
    assert "ended badly; its last good checkpoint is kept" in caplog.text


def test_watch():
    watch = loop._Watch()
    run = runs.new_run(_tiny(), NORMALISER, 0, torch.device("cpu"))
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


@pytest.fixture
def full_disk(monkeypatch):
    """Nothing above 20 kB can be written, from the call on."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_the_last_good_checkpoint(data, tmp_path, full_disk, caplog):
    _train(_tiny(), data, tmp_path, steps=1)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    assert len(before) > 20_000
    full_disk()
    with pytest.raises(MlskyError, match=r"the checkpoint of step 2 cannot be written .* is kept"):
        _train(_tiny(), data, tmp_path, steps=2)
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
    run = _train(_tiny(), data, tmp_path)
    assert run.step == STEPS
    assert load_generator(tmp_path)[2]["step"] == STEPS
    told = [r.getMessage() for r in caplog.records]
    assert len(told) == 2
    assert all("No space left on device" in t and "\n" not in t for t in told)


def test_too_few_patches(data, tmp_path):
    with pytest.raises(ValueError, match=r"2 patches of 64 pixels in the data: recipe paint"):
        _train(_tiny(batch=8), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_painted_on_the_fly(tmp_path):
    """Regions come from any painter; the run is resumed where it was."""
    names = ("kappa", "ksz", "tsz", "cib")

    def source():
        return Painted(StubPainter(128), names, 64, seed=5, regions=1)

    whole = _train(_tiny(), source(), tmp_path / "whole")
    _train(_tiny(), source(), tmp_path / "parts", steps=2)
    _train(_tiny(), source(), tmp_path / "parts", steps=3)
    steps = []
    second = source()
    batch = second.batch
    second.batch = lambda step, size: (steps.append(step), batch(step, size))[1]
    resumed = _train(_tiny(), second, tmp_path / "parts")
    assert steps == [3]
    assert whole.normaliser == resumed.normaliser
    with pytest.raises(ValueError, match=r"painted kappa, ksz, tsz, cib of 64 pixels: recipe conv"):
        _train(_tiny("convergence-0.5"), source(), tmp_path / "bad")


@pytest.fixture(scope="module")
def validation(tmp_path_factory):
    return _set(tmp_path_factory.mktemp("validation") / "val.h5", 192, seed=7)


def _scored(monkeypatch, distances):
    """Scores of one's own; tells the steps that were scored."""
    seen, left = [], iter(distances)

    def checkpoint(networks, normaliser, data, regions):
        seen.append((*networks, regions))
        return {"rows": 4, "met": 1, "failed": 2, "undecided": 1, "distance": next(left)}

    monkeypatch.setattr(selection.scores, "checkpoint", checkpoint)
    return seen


def _score_lines(folder):
    return {x["step"]: (x["score"], x["best"]) for x in _lines(folder) if "score" in x}


@pytest.mark.parametrize("name", ["paint-0.5", "convergence-0.5"])
def test_scores_change_nothing_and_the_best_is_kept(data, validation, tmp_path, name):
    """With the real scores: not a bit of the run or of the random state."""
    state = torch.get_rng_state()
    plain = _train(_tiny(name), data, tmp_path / "plain")
    scored = _train(
        _tiny(name), data, tmp_path / "scored", validation=validation, every=3, regions=1
    )
    _assert_same(plain, scored)
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
    sizes = [(tmp_path / "scored" / n).stat().st_size for n in (runs.BEST, runs.CHECKPOINT)]
    assert sizes[0] < sizes[1] / 4


def test_the_best_survives_worse_scores_and_interruption(data, validation, tmp_path, monkeypatch):
    options = {"validation": validation, "every": 1}
    seen = _scored(monkeypatch, [3.0, 2.0, 2.5, None])
    with monkeypatch.context() as context:
        _stop_after(context, 3)
        with pytest.raises(KeyboardInterrupt):
            _train(_tiny(), data, tmp_path / "run", **options)
    assert load_generator(tmp_path / "run", "best")[2]["step"] == 2
    run = _train(_tiny(), data, tmp_path / "run", **options)
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
    _assert_same(run, _train(_tiny(), data, tmp_path / "plain"))
    _assert_same(run, _train(_tiny(), data, tmp_path / "run", **options))  # nothing is left to do
    assert len(seen) == 4


def test_scores_on_other_regions_start_anew(data, validation, tmp_path, monkeypatch, caplog):
    _scored(monkeypatch, [1.0, 2.0])
    _train(_tiny(), data, tmp_path, steps=1, validation=validation)
    other = _set(tmp_path / "other.h5", 192, seed=8)
    _train(_tiny(), data, tmp_path, steps=2, validation=other)
    assert "was chosen on other regions" in caplog.text
    assert load_generator(tmp_path, "best")[2]["step"] == 2


def test_what_cannot_be_scored_costs_a_warning(data, validation, tmp_path, monkeypatch, caplog):
    def checkpoint(*args):
        raise ValueError("no peaks")

    monkeypatch.setattr(selection.scores, "checkpoint", checkpoint)
    run = _train(_tiny(), data, tmp_path, validation=validation)
    assert run.step == STEPS
    assert "cannot be scored (no peaks)" in caplog.text
    assert load_generator(tmp_path, "best")[2]["step"] == STEPS  # the last, for want of a best


def test_minutes_between_scores(data, validation, tmp_path, monkeypatch):
    _scored(monkeypatch, iter(range(1000)))
    options = {"steps": None, "minutes": 0.4 / 60, "validation": validation, "every": 0.2 / 60}
    _train(_tiny(), data, tmp_path, **options)
    lines = _score_lines(tmp_path)
    assert 1 <= len(lines) <= 3
    assert max(lines) == load_generator(tmp_path)[2]["step"]


def test_bad_validation_sets(data, validation, tmp_path):
    out = tmp_path / "run"
    poor = _set(tmp_path / "poor.h5", leave_out=("radio",))
    coarse = _set(tmp_path / "coarse.h5", pixel_arcmin=2.0)
    for options, message in (
        ({"validation": poor}, "poor.h5: lacks radio"),
        ({"validation": coarse}, r"pixels of 2.0', 0.5' in recipe paint-0.5"),
        ({"validation": data}, "the same sky is trained on"),
        ({"validation": tmp_path / "none.h5"}, "none.h5: cannot be read"),
        ({"validation": validation, "every": 0}, "every=0: must be whole steps > 0"),
        ({"validation": validation, "every": 0.5}, "every=0.5: must be whole steps > 0"),
        ({"validation": validation, "regions": 0}, "regions=0: must be at least 1"),
        ({"every": 5}, "every=5: there is nothing to score on"),
    ):
        with pytest.raises(ValueError, match=message):
            _train(_tiny(), data, out, **options)
    with pytest.raises(ValueError, match=r"recipe dcgan is scored once its chain is whole"):
        _train(_thin("dcgan"), data, out, validation=validation)
    with h5py.File(data, "r") as a, h5py.File(tmp_path / "a.h5", "w") as b:
        for name in a:
            a.copy(name, b)
        b.attrs.update({"pixel_arcmin": 0.5, "seed": 3, "source": '{"cosmology": {}}'})
    (tmp_path / "b.h5").write_bytes((tmp_path / "a.h5").read_bytes())
    with pytest.raises(ValueError, match="the same sky is trained on"):
        _train(_tiny(), tmp_path / "a.h5", out, validation=tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5", "a") as file:
        file.attrs["seed"] = 4
    with pytest.raises(ValueError, match=r"b\.h5: painted with seed 4, on whose regions"):
        _train(_tiny(), tmp_path / "a.h5", out, validation=tmp_path / "b.h5")
    with pytest.raises(ValueError, match="which='first': must be best or last"):
        load_generator(out, "first")
    assert not out.exists()


def test_normaliser_of_a_warm_start(data, tmp_path):
    old = _train(_tiny(), data, tmp_path / "old", steps=1)
    other = _set(tmp_path / "other.h5", seed=5)
    fitted = runs.fit_normaliser(Crops(other, ("kappa", "ksz", "tsz", "cib"), 64))
    assert fitted != old.normaliser
    for given, wanted in (
        ("data", fitted),
        ("start", old.normaliser),
        (None, old.normaliser),
        (NORMALISER, NORMALISER),
    ):
        out = tmp_path / f"new-{given if given is None or isinstance(given, str) else 'own'}"
        options = {"init_from": tmp_path / "old", "normaliser": given, "seed": 3}
        new = _train(_tiny(), other, out, steps=1, **options)
        assert new.normaliser == wanted
        assert new.generator.tsz_std == wanted.select(["tsz"]).std[0]
        if not isinstance(given, Normaliser):  # the same command goes on
            assert _train(_tiny(), data, out, steps=2, **options).normaliser == wanted
    with pytest.raises(ValueError, match="normaliser='start': there is no start"):
        _train(_tiny(), data, tmp_path / "bad", normaliser="start")
    with pytest.raises(ValueError, match="normaliser='mine': must be data, start or a Norm"):
        _train(_tiny(), data, tmp_path / "bad", normaliser="mine")
    assert not (tmp_path / "bad").exists()


def test_a_warm_start_at_other_pixels_asks_for_the_normaliser_of_the_truth(data, tmp_path):
    coarse = _set(tmp_path / "coarse.h5", pixel_arcmin=2.0)
    old = _train(_tiny(pixel_arcmin=2.0), coarse, tmp_path / "old", steps=1)
    out, start = tmp_path / "new", tmp_path / "old"
    with pytest.raises(ValueError, match=r"in pixel_arcmin; .*, or give normaliser='data'"):
        _train(_tiny(), data, out, init_from=start)
    assert not out.exists()
    faint = _tiny(generator_rate=1e-12, critic_rate=1e-12)
    new = _train(faint, data, out, init_from=start, normaliser="data", steps=1)
    assert new.normaliser == runs.fit_normaliser(Crops(data, ("kappa", "ksz", "tsz", "cib"), 64))
    for a, b in zip(old.generator.parameters(), new.generator.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


RARE = 70000.0  # beyond half precision


def test_what_clusters_leave_is_learned_given_them(data, tmp_path):
    """A set with objects taken apart, large numbers too; a whole set is refused by its fields."""
    rest = _set(tmp_path / "rest.h5", pixel_arcmin=1.0)
    with h5py.File(rest, "a") as file:
        file.attrs["mass_cut"] = 1e14
        file["objects_kappa"] = np.abs(file["kappa"][:])
        file["objects_tsz"] = 3 * file["tsz"][:]
        file["cib_353"] = 20 * file["cib"][:]
        file["cib_857"] = RARE / 10 * file["cib"][:]
        largest = float(file["cib_857"][:].max())
    names = ("cib_857", "objects_tsz")
    crops = Crops(rest, names, 64)
    assert largest > RARE
    assert crops.sample()[:, 0].max() == pytest.approx(largest, rel=1e-3)
    assert crops.batch(0, 8)[:, 0].max() == pytest.approx(largest, rel=1e-3)
    for name in ("paint-1-objects", "convergence-1-objects"):
        tiny = _tiny(name)
        options = {**recipe(name).generator_options, **tiny.generator_options}
        tiny = dataclasses.replace(tiny, generator_options=options)
        run = _train(tiny, rest, tmp_path / name, steps=2)
        assert run.step == 2
        again, normaliser, _ = load_generator(tmp_path / name)
        assert again.objects == 2
        assert "objects_tsz" in normaliser.channels
        with pytest.raises(ValueError, match=r"lacks objects_kappa, objects_tsz"):
            _train(dataclasses.replace(tiny, pixel_arcmin=0.5), data, tmp_path / "bad")
    with pytest.raises(ValueError, match=r"without haloes above 1e\+14 Msun"):
        _train(_tiny(pixel_arcmin=1.0), rest, tmp_path / "bad")


def test_a_second_run_in_a_folder_is_refused(data, tmp_path, monkeypatch):
    """In a new folder, and in one that holds a run; the first one goes on undisturbed."""
    monkeypatch.setattr(loop, "REPORT_EVERY", 2)
    for _ in range(2):
        seen = []

        def again(done, line, seen=seen):
            with pytest.raises(ValueError, match="another process trains in it; wait for it") as no:
                train(_tiny(), data, tmp_path / "run", steps=99, device="cpu", progress=False)
            seen.append(str(no.value))

        found = (tmp_path / "run" / runs.CHECKPOINT).exists()
        train(
            *(_tiny(), data, tmp_path / "run"),
            steps=loop.REPORT_EVERY * (1 + found),
            device="cpu",
            progress=False,
            report=again,
        )
        assert len(seen) == 1
        assert "\n" not in seen[0]
    train(_tiny(), data, tmp_path / "run", steps=2 * loop.REPORT_EVERY, device="cpu")


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
        train(_tiny(), data, tmp_path / "run", steps=STEPS, device="cpu", progress=False)


def test_where_there_are_no_locks_a_run_goes_on(data, tmp_path, monkeypatch, caplog):
    def refuse(number, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    train(_tiny(), data, tmp_path / "run", steps=1, device="cpu", progress=False)
    assert "no locks" in caplog.text
