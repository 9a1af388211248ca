"""The three steps of the paper."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from tiny_runs import assert_same, log_lines, logged, thin_recipe, train_tiny, write_set

from mlsky.training import chain, loop
from mlsky.training import run as runs
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
