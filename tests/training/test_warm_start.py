"""Runs that start from the weights of others."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import NORMALISER, tiny_recipe, train_tiny, write_set

from mlsky.errors import RegistryError
from mlsky.networks.normaliser import Normaliser
from mlsky.training import run as runs
from mlsky.training.data import Crops


@pytest.mark.parametrize("name", ["paint-0.5", "convergence-0.5"])
def test_a_warm_start_takes_networks_and_normaliser(data, tmp_path, name):
    old = train_tiny(tiny_recipe(name), data, tmp_path / "old")
    other = write_set(tmp_path / "other.h5", seed=5)
    faint = tiny_recipe(name, generator_rate=1e-12, critic_rate=1e-12, average=1.0)
    new = train_tiny(faint, other, tmp_path / "new", seed=3, init_from=tmp_path / "old", steps=1)
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
    again = train_tiny(faint, other, tmp_path / "new", seed=3, init_from=tmp_path / "gone", steps=2)
    assert again.step == 2


def test_a_warm_start_from_a_weight_file(data, tmp_path):
    from mlsky.networks import weights

    old = train_tiny(tiny_recipe(), data, tmp_path / "old")
    header = {
        "networks": {"paint": weights.network_header(old.averaged)},
        "normaliser": old.normaliser.to_dict(),
        "pixel_arcmin": 0.5,
    }
    file = tmp_path / "w.safetensors"
    weights.save(file, weights.pack({"paint": old.averaged}), header, "float32")
    faint = tiny_recipe(generator_rate=1e-12, critic_rate=1e-12)
    new = train_tiny(faint, data, tmp_path / "new", seed=3, init_from=file, steps=1)
    for a, b in zip(old.averaged.parameters(), new.averaged.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match=r"holds paint and no default:Convergence, which recipe"):
        train_tiny(tiny_recipe("convergence-0.5"), data, tmp_path / "bad", init_from=file)
    wide = {**tiny_recipe().generator_options, "widths": (4, 4, 4, 8)}
    with pytest.raises(ValueError, match=r"w.safetensors: its generator is of another size"):
        train_tiny(tiny_recipe(generator_options=wide), data, tmp_path / "bad", init_from=file)
    assert not (tmp_path / "bad").exists()


def test_bad_warm_starts(data, tmp_path):
    train_tiny(tiny_recipe(), data, tmp_path / "old", steps=1)
    out = tmp_path / "new"
    with pytest.raises(ValueError, match=r"init_from=.*none: does not exist; name a run folder"):
        train_tiny(tiny_recipe(), data, out, init_from=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"init_from=.*empty: holds no checkpoint.safetensors"):
        train_tiny(tiny_recipe(), data, out, init_from=tmp_path / "empty")
    with pytest.raises(ValueError, match=r"differs from recipe convergence-0.5 in generator, gen"):
        train_tiny(tiny_recipe("convergence-0.5"), data, out, init_from=tmp_path / "old")
    (tmp_path / "text").write_text("not weights")
    with pytest.raises(RegistryError, match="not a safetensors file"):
        train_tiny(tiny_recipe(), data, out, init_from=tmp_path / "text")
    assert not out.exists()


def test_normaliser_of_a_warm_start(data, tmp_path):
    old = train_tiny(tiny_recipe(), data, tmp_path / "old", steps=1)
    other = write_set(tmp_path / "other.h5", seed=5)
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
        new = train_tiny(tiny_recipe(), other, out, steps=1, **options)
        assert new.normaliser == wanted
        assert new.generator.tsz_std == wanted.select(["tsz"]).std[0]
        if not isinstance(given, Normaliser):  # the same command goes on
            assert train_tiny(tiny_recipe(), data, out, steps=2, **options).normaliser == wanted
    with pytest.raises(ValueError, match="normaliser='start': there is no start"):
        train_tiny(tiny_recipe(), data, tmp_path / "bad", normaliser="start")
    with pytest.raises(ValueError, match="normaliser='mine': must be data, start or a Norm"):
        train_tiny(tiny_recipe(), data, tmp_path / "bad", normaliser="mine")
    assert not (tmp_path / "bad").exists()


def test_a_warm_start_at_other_pixels_asks_for_the_normaliser_of_the_truth(data, tmp_path):
    coarse = write_set(tmp_path / "coarse.h5", pixel_arcmin=2.0)
    old = train_tiny(tiny_recipe(pixel_arcmin=2.0), coarse, tmp_path / "old", steps=1)
    out, start = tmp_path / "new", tmp_path / "old"
    with pytest.raises(ValueError, match=r"in pixel_arcmin; .*, or give normaliser='data'"):
        train_tiny(tiny_recipe(), data, out, init_from=start)
    assert not out.exists()
    faint = tiny_recipe(generator_rate=1e-12, critic_rate=1e-12)
    new = train_tiny(faint, data, out, init_from=start, normaliser="data", steps=1)
    assert new.normaliser == runs.fit_normaliser(Crops(data, ("kappa", "ksz", "tsz", "cib"), 64))
    for a, b in zip(old.generator.parameters(), new.generator.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_a_recipe_has_constants_of_its_own(data, tmp_path):
    recipe = tiny_recipe(constants=(("tsz", 0.5, 0.25, 2.0),))
    run = train_tiny(recipe, data, tmp_path / "run", steps=1)
    fitted = runs.fit_normaliser(Crops(data, ("kappa", "ksz", "tsz", "cib"), 64))
    assert run.normaliser == fitted.with_constants(recipe.constants)
    # and goes on with them
    assert train_tiny(recipe, data, tmp_path / "run", steps=2).normaliser == run.normaliser
