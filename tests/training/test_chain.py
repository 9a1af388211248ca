"""The three steps of the paper."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from tiny_runs import assert_same, log_lines, logged, thin_recipe, train_tiny, write_set

from mlsky.networks.weights import open_weights
from mlsky.training import chain, loop, losses, steps
from mlsky.training import run as runs
from mlsky.training.assemble import assemble
from mlsky.training.recipes import recipe
from mlsky.training.run import load_generator


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    return write_set(folder / "truth.h5", 128), write_set(folder / "other.h5", 128, seed=8)


@pytest.mark.parametrize("name", ["dcgan", "pixgan", "vaegan"])
def test_the_papers_steps(large, tmp_path, monkeypatch, name):
    logged(monkeypatch)
    truth, other = large
    options = {"steps": 2}
    if name == "vaegan":  # unpaired: PIXGAN's patches against the truth
        options["target"] = truth
    run = train_tiny(
        thin_recipe(name), other if name == "vaegan" else truth, tmp_path / "a", **options
    )
    first = runs.new_run(run.recipe, run.normaliser, 1, torch.device("cpu")).generator
    for a, b in zip(first.parameters(), run.generator.parameters(), strict=True):
        assert torch.isfinite(b).all()
        assert not torch.equal(a, b)
    for a, b in zip(
        run.averaged.state_dict().values(), run.generator.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)  # no averaging in the paper
    line = log_lines(tmp_path / "a")[-1]
    names = {"step", "distance", "penalty", "critic", "generator", "gradient", "ratio"}
    assert set(line) == names
    assert set(line["ratio"]) == set(run.recipe.outputs)
    again = train_tiny(
        thin_recipe(name), other if name == "vaegan" else truth, tmp_path / "b", **options
    )
    assert_same(run, again)
    # resumed: state of Adam and of the batch norms
    if name == "vaegan":
        train_tiny(thin_recipe(name), other, tmp_path / "b", **{**options, "steps": 3})
        assert load_generator(tmp_path / "b")[2]["step"] == 3


def test_an_unpaired_run_draws_its_conditions_apart(large, tmp_path):
    truth, other = large
    names = ("kappa", "ksz", "tsz", "cib", "radio")
    paired, none = loop._open_sets(thin_recipe("pixgan"), truth, None, 1)
    assert none is None
    assert paired.names == names
    of_truth, of_condition = loop._open_sets(thin_recipe("vaegan"), other, truth, 1)
    assert of_truth.names == of_condition.names == names
    assert not torch.equal(of_truth.batch(0, 2), of_condition.batch(0, 2))


def test_pairs_stay_together(large, tmp_path):
    """Of a recipe of pairs, crop i of the condition is turned as crop i of the truth."""
    paired = thin_recipe("vaegan-w16-paired")
    truth, conditions = loop._open_sets(paired, large[0], large[0], 1)
    assert torch.equal(truth.batch(3, 4), conditions.batch(3, 4))
    with pytest.raises(ValueError, match="is trained on pairs; name their truth"):
        loop._open_sets(paired, large[0], None, 1)
    short = write_set(tmp_path / "short.h5", 128, regions=3)
    with pytest.raises(ValueError, match=r"3 patches in .*short.h5, 2 in .*: recipe vaegan-w16-p"):
        loop._open_sets(paired, short, large[0], 1)


def test_a_chain_with_noise_and_pairs(large, tmp_path, monkeypatch):
    """PIXGAN with noise makes other fields of one kappa; pairs are written side by side."""
    names = {"dcgan-w16": {}, "pixgan-w16-noise": {"noise": 1}, "vaegan-w16-paired": {}}
    thin = {}
    for name, options in names.items():
        base = thin_recipe(name)
        critic = {**recipe(name).critic_options, "width": 2}
        generator = {**base.generator_options, **options}
        thin[name] = replace(base, generator_options=generator, critic_options=critic)
    monkeypatch.setattr(chain, "recipe", thin.__getitem__)
    monkeypatch.setitem(chain.CHAINS, "han2021-w16", tuple(names))
    made = chain.han2021(
        large[0], tmp_path, chain="han2021-w16", steps=1, device="cpu", seed=1, progress=False
    )
    with h5py.File(tmp_path / "intermediate2.h5") as second:
        with h5py.File(tmp_path / "intermediate2_truth.h5") as truth, h5py.File(large[0]) as whole:
            # kappa_in and kappa of one region, wherever it came from
            for given, wanted in zip(second["kappa"], truth["kappa"], strict=True):
                of = [np.sort(k.ravel()) for k in (given, wanted)]
                errors = [
                    max(
                        np.abs(np.sort(whole[name][i].ravel()) - k).max()
                        for name, k in zip(("kappa_in", "kappa"), of, strict=True)
                    )
                    for i in range(2)
                ]
                assert min(errors) < 1e-2  # half precision
    network, _, _ = load_generator(made["pixgan"])
    rng = torch.Generator().manual_seed(1)
    kappa = torch.randn(1, 1, 128, 128, generator=rng)
    a, b = (network(kappa, network.draw_noise(1, 128, 128, rng)) for _ in range(2))
    assert not torch.equal(a, b)


def test_the_papers_chain(large, tmp_path, monkeypatch):
    """Three runs and two intermediate sets; a second call has nothing left to do."""
    thin = {n: thin_recipe(n) for n in ("dcgan", "pixgan", "vaegan")}
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


def test_the_best_state_of_each_network_goes_on(large, tmp_path, monkeypatch):
    """The sets, the later networks and the exported file are those of the states that score best.

    Scores change nothing else: networks and sets are those of shorter runs.
    """
    thin = {n: thin_recipe(n) for n in ("dcgan", "pixgan", "vaegan")}
    monkeypatch.setattr(chain, "recipe", thin.__getitem__)
    before = []

    def score(stage, networks, run, data, regions):
        before.append((stage, run.step, networks))
        return {"rows": 4, "met": run.step % 2, "distance": 2.0 if run.step == 1 else 3.0}

    monkeypatch.setattr(chain.chain_scores, "measure", score)
    options = {"device": "cpu", "seed": 1, "progress": False}
    held = {"validation": large[1], "every": 1, "regions": 1}
    made = chain.han2021(large[0], tmp_path / "scored", steps=2, **held, **options)
    plain = chain.han2021(large[0], tmp_path / "short", steps=1, **options)
    stages = ("drawn", "painted", "chain")
    assert [(s, n) for s, n, _ in before] == [(s, n) for s in stages for n in (1, 2)]
    for name, folder in made.items():
        last, best = (load_generator(folder, which)[2]["step"] for which in ("last", "best"))
        assert (last, best) == (2, 1)
        for a, b in zip(
            load_generator(folder, "best")[0].parameters(),
            load_generator(plain[name])[0].parameters(),
            strict=True,
        ):
            assert torch.equal(a, b)
    painter = load_generator(plain["pixgan"])[0]
    for (given,) in (networks for stage, _, networks in before if stage == "chain"):
        for a, b in zip(given.parameters(), painter.parameters(), strict=True):
            assert torch.equal(a, b)
    for name in ("intermediate1.h5", "intermediate2.h5"):
        with h5py.File(tmp_path / "scored" / name) as a, h5py.File(tmp_path / "short" / name) as b:
            assert all(np.array_equal(a[k], b[k]) for k in chain.FIELDS)
    assert (tmp_path / "short" / "dcgan" / "best.safetensors").exists() is False


def test_states_can_be_chosen_by_network(large, tmp_path, monkeypatch):
    """To be scored and to be exported: the best of each, the last, or some of both."""
    thin = {n: thin_recipe(n) for n in ("dcgan", "pixgan", "vaegan")}
    monkeypatch.setattr(chain, "recipe", thin.__getitem__)
    first = lambda stage, before, run, data, n: {"rows": 4, "met": 0, "distance": run.step}  # noqa: E731
    monkeypatch.setattr(chain.chain_scores, "measure", first)
    options = {"device": "cpu", "seed": 1, "progress": False, "validation": large[1], "every": 1}
    runs = chain.han2021(large[0], tmp_path / "run", steps=2, **options)
    parts = {name: runs[name] for name in ("pixgan", "vaegan")}
    for which, wanted in (
        ("best", [1, 1, 1]),
        ("last", [2, 2, 2]),
        ({"vaegan": "last"}, [1, 1, 2]),
        ({"pixgan": "last", "vaegan": "best"}, [1, 2, 1]),
    ):
        found = chain.chain_scores.score(tmp_path / "run", large[1], patches=16, which=which)
        told = [found[stage]["steps"] for stage in ("drawn", "painted", "chain")]
        assert told == wanted
        assemble(tmp_path / "chain.safetensors", parts, large[0], which=which)
        training = open_weights(tmp_path / "chain.safetensors").header["training"]
        assert [training[name]["steps"] for name in parts] == wanted[1:]


def _files(folder):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*.*")}


def test_finished_networks_stay_as_they_are(large, tmp_path, monkeypatch):
    """Also with another validation set, for another chain that has links to them, or unscored."""
    thin = {n: thin_recipe(n) for n in ("dcgan", "pixgan", "vaegan")}
    monkeypatch.setattr(chain, "recipe", thin.__getitem__)
    steps = iter([3.0, 2.0, 4.0] * 9)  # the first of two states is never the best

    def score(stage, networks, run, data, regions):
        return {"rows": 4, "met": 1, "distance": next(steps)}

    monkeypatch.setattr(chain.chain_scores, "measure", score)
    options = {"device": "cpu", "seed": 1, "progress": False}
    other = write_set(tmp_path / "third.h5", 128, seed=9)
    held = {"validation": large[1], "every": 1}
    chain.han2021(large[0], tmp_path / "scored", steps=3, **held, **options)
    chain.han2021(large[0], tmp_path / "plain", steps=3, **options)
    assert load_generator(tmp_path / "scored" / "dcgan", "best")[2]["step"] == 2
    before = _files(tmp_path)
    for changed in (held, {"validation": other}, held | {"regions": 1}, {}):
        for name in ("scored", "plain"):
            chain.han2021(large[0], tmp_path / name, steps=3, **changed, **options)
            assert _files(tmp_path) == before
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("dcgan", "intermediate1.h5"):
        (linked / name).symlink_to(tmp_path / "plain" / name)
    chain.han2021(large[0], linked, steps=2, validation=other, **options)
    assert {p: f for p, f in _files(tmp_path).items() if linked not in p.parents} == before
    # a longer run would make another set than the one that is there
    message = r"intermediate1.h5: was made by dcgan of 3 steps; for steps=4 .* remove it"
    with pytest.raises(ValueError, match=message):
        chain.han2021(large[0], tmp_path / "plain", steps=4, **options)
    (tmp_path / "plain" / "intermediate1.h5").unlink()
    message = r"intermediate2.h5: was made by pixgan of 3 steps; for minutes=9 .* remove it"
    with pytest.raises(ValueError, match=message):
        chain.han2021(large[0], tmp_path / "plain", minutes=9, **options)


def test_each_network_of_a_chain_can_have_its_own_length(large, tmp_path, monkeypatch):
    thin = {n: thin_recipe(n) for n in ("dcgan", "pixgan", "vaegan")}
    monkeypatch.setattr(chain, "recipe", thin.__getitem__)
    options = {"device": "cpu", "seed": 1, "progress": False}
    run = tmp_path / "run"

    def lengths(steps):
        runs = chain.han2021(large[0], run, steps=steps, **options)
        return [load_generator(folder)[2]["step"] for folder in runs.values()]

    assert lengths([1, 2, 1]) == [1, 2, 1]
    kept = {p: f for p, f in _files(run).items() if "vaegan" not in p.parts}
    assert lengths((1, 2, 3)) == [1, 2, 3]  # the last one goes on
    assert {p: f for p, f in _files(run).items() if "vaegan" not in p.parts} == kept
    assert lengths(np.int64(1)) == [1, 2, 3]
    with pytest.raises(ValueError, match="made by dcgan of 1 steps; for steps=2 "):
        lengths((2, 2, 3))
    with pytest.raises(ValueError, match="made by pixgan of 2 steps; for steps=3 "):
        lengths((1, 3, 3))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([1, 2], r"steps=\[1, 2\]: must be one number for all networks, or one for each of dcgan"),
        ([], r"steps=\[\]: must be one number"),
        ([1, 0, 1], "pixgan: steps=0: must be > 0"),
        ([1, 1, None], "vaegan: minutes=None, steps=None: give exactly one"),
        ((True, 1, 1), "dcgan: steps=True: must be an integer > 0"),
        (0, "steps=0: must be > 0"),
        (True, "steps=True: must be an integer > 0"),
        (2.5, "steps=2.5: must be an integer > 0"),
        ("600", "steps='600': must be an integer > 0"),
        (10**400, "steps=1000.*: must be > 0 and below 2"),
        (None, "steps=None: give exactly one"),
    ],
)
def test_bad_lengths_of_a_chain_are_refused_before_anything_is_made(
    large, tmp_path, steps, message
):
    with pytest.raises(ValueError, match=message):
        chain.han2021(large[0], tmp_path / "run", steps=steps, progress=False)
    assert not (tmp_path / "run").exists()


def test_vaegan_needs_two_sets(large, tmp_path):
    with pytest.raises(ValueError, match=r"target=None: recipe vaegan.* changes fields of one"):
        train_tiny(thin_recipe("vaegan"), large[0], tmp_path / "run", steps=1, validation=None)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["", "dcgan", "pixgan", "vaegan"])
def test_runs_of_other_recipes_are_refused_before_training(large, tmp_path, monkeypatch, place):
    """Wherever they are in the folder of a chain."""
    thin = {n: thin_recipe(n) for n in ("dcgan", "pixgan", "vaegan")}
    monkeypatch.setattr(chain, "recipe", thin.__getitem__)
    other = replace(thin["dcgan"], name="another")
    train_tiny(other, large[0], tmp_path / "run" / place, steps=1, validation=None)
    before = _files(tmp_path)
    message = "was trained with another .*name" if place else "run: is the run of one network"
    with pytest.raises(ValueError, match=message):
        chain.han2021(large[0], tmp_path / "run", steps=1, device="cpu", progress=False)
    assert _files(tmp_path) == before


def test_bad_validation_sets_of_a_chain(large, tmp_path, monkeypatch):
    thin = {n: thin_recipe(n) for n in ("dcgan", "pixgan", "vaegan")}
    monkeypatch.setattr(chain, "recipe", thin.__getitem__)
    coarse = write_set(tmp_path / "coarse.h5", 128, seed=9, pixel_arcmin=2.0)
    small = write_set(tmp_path / "small.h5", 64, seed=9)
    spoilt = write_set(tmp_path / "spoilt.h5", 128, seed=9)
    with h5py.File(spoilt, "r+") as file:
        file["tsz"][1, 2, 3] = np.nan
    options = {"device": "cpu", "seed": 1, "progress": False, "steps": 1}
    for more, message in (
        ({"validation": large[0]}, "the same sky is trained on"),
        ({"validation": coarse}, r"pixels of 2.0', 0.5' in recipe dcgan"),
        ({"validation": tmp_path / "none.h5"}, "none.h5: cannot be read"),
        ({"validation": small}, "small.h5: regions of 64 pixels, crops of 128 asked for"),
        ({"validation": spoilt}, "spoilt.h5: tsz holds NaN or infinity"),
        ({"every": 3}, "every=3: there is nothing to score on; give validation="),
    ):
        with pytest.raises(ValueError, match=message):
            chain.han2021(large[0], tmp_path / "run", **more, **options)
        assert not (tmp_path / "run").exists()


def test_truth_without_gaussian_kappa_is_refused_before_training(tmp_path, monkeypatch):
    thin = {n: thin_recipe(n) for n in ("dcgan", "pixgan", "vaegan")}
    monkeypatch.setattr(chain, "recipe", thin.__getitem__)
    data = write_set(tmp_path / "cut.h5", 128, leave_out=("kappa_in",))
    with pytest.raises(ValueError, match=r"cut\.h5: lacks kappa_in"):
        chain.han2021(data, tmp_path / "run", steps=1, device="cpu", progress=False)
    assert not (tmp_path / "run").exists()


def test_lazy_penalties_weigh_as_much(large, monkeypatch):
    """Of the penalties of a step, fewer are heavier; the log has the loss with one of weight 1."""
    seen, whole = [], losses.wgan_gp_critic

    def critic(score, real, fake, eps, weight):
        seen.append((eps is not None, weight))
        return whole(score, real, fake, eps, weight)

    monkeypatch.setattr(losses, "wgan_gp_critic", critic)
    for every, wanted in ((1, [10.0] * 5), (2, [50 / 3] * 3), (5, [50.0])):
        r = replace(thin_recipe("dcgan"), critic_steps=5, penalty_every=every)
        truth, _ = loop._open_sets(r, large[0], None, 1)
        run = runs.new_run(r, runs.fit_normaliser(truth), 1, torch.device("cpu"))
        seen.clear()
        log, _ = steps.one_step(run, loop._make_batch(r, truth, None, run), 1, 0.0)
        assert [weight for used, weight in seen if used] == pytest.approx(wanted)
        assert [used for used, _ in seen] == [i % every == 0 for i in range(5)]
        assert log["critic"] == pytest.approx(10 * log["penalty"] - log["distance"], abs=1e-6)
