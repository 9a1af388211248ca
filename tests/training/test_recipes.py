"""Recipes are data: complete, frozen, and buildable."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from mlsky.haloes.region_sets import map_names
from mlsky.networks import weights
from mlsky.toys import images
from mlsky.training import data, matched_statistics, matching
from mlsky.training import run as runs
from mlsky.training.recipes import RECIPES, recipe

#: Of a set painted on the fly, and of one with objects apart and templates of the CIB.
FIELDS = {*data.FIELDS, *map_names((353.0, 857.0), 1e14)}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_built(name):
    r = recipe(name)
    assert r.name == name
    known = FIELDS if r.images is None else {"blobs", *images.PICTURES}
    assert set(r.inputs) | set(r.outputs) <= known
    options = dict(r.generator_options)
    if r.generator == "default:Paint":
        options |= {"tsz_mean": 0.0, "tsz_std": 1.0}
        if "cib_mix" in options:
            options |= {"cib_mean": (1.0,) * 3, "cib_std": (1.0,) * 3}
    if r.generator.startswith("han2021"):  # the paper's are large: thin ones have one shape
        options["width"] = 2
    generator = runs.make(r.generator, seed=0, **options)
    assert weights.architecture(generator) == r.generator
    if r.images is not None:
        made = images.named(r.images, r.pixel_arcmin, 1)
        assert (made.names, made.size) == (r.outputs, r.size)
        assert made.batch(0, 2).shape == (2, len(r.outputs), r.size, r.size)
    critic = {**r.critic_options, **({"width": 2} if "han2021" in r.critic else {})}
    assert weights.architecture(runs.make(r.critic, seed=0, **critic)) == r.critic
    if r.objective == "relativistic":
        assert r.size % generator.stride == 0
        shown = len(r.inputs) + len(r.outputs) + ("tsz" in r.outputs)
        assert r.critic_options["channels"] == shown
        assert r.match_weight > 0
    elif r.objective == "elbo":  # both halves are of one size
        assert r.generator_options.items() >= r.critic_options.items()
        assert r.critic_options["size"] == r.size
    else:
        assert r.objective == "wgan-gp"
        assert r.size == 128
        # of images without a condition alone
        assert set(r.match) <= ({"power", "profile", "pixel", "flux"} if r.images else set())


def test_the_matched_statistics_exist():
    for r in RECIPES.values():
        if not r.match:
            continue
        if r.images is not None:
            x = torch.rand(8, 1, r.size, r.size, generator=torch.Generator().manual_seed(0))
            found = matched_statistics.image_statistics(r.size, names=r.match)(x[:, :0], x)
            assert set(found) == set(r.match)
            continue
        spectra = matching.Spectra(32, r.pixel_arcmin, "cpu")
        n = len(r.inputs) + len(r.outputs)
        ones = [(1.0,) * n, (0.0,) * n, (1.0,) * n]
        normaliser = matching.Normaliser((*r.inputs, *r.outputs), *ones)
        if "paint" in r.name:
            made = matching.paint_statistics(spectra, normaliser)
        else:
            made = matching.convergence_statistics(spectra)
        rng = torch.Generator().manual_seed(0)
        x = torch.randn(8, n, 32, 32, generator=rng)
        assert set(made(x[:, : len(r.inputs)], x[:, len(r.inputs) :])) == set(r.match)


def test_the_papers_numbers():
    """Han et al. (2021): Adam 1e-4 (0.5, 0.9), lambda 10, five critic steps, L1 weight 100."""
    for name, variance in (("dcgan", 0), ("pixgan", 100), ("vaegan", 100)):
        r = recipe(name)
        assert (r.generator_rate, r.critic_rate) == (1e-4, 1e-4)
        assert r.generator_betas == r.critic_betas == (0.5, 0.9)
        assert (r.penalty_weight, r.critic_steps, r.variance_weight) == (10, 5, variance)
        assert (r.batch, r.size, r.pixel_arcmin) == (32, 128, 0.5)
        assert r.generator_options == r.critic_options == {}  # the paper's width


def test_recipes_are_frozen_and_survive_json():
    r = recipe("paint-0.5")
    with pytest.raises(dataclasses.FrozenInstanceError):
        r.batch = 4
    for r in RECIPES.values():
        back = json.loads(json.dumps(r.to_dict()))
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in back.items()}
        assert json.dumps(type(r)(**fields).to_dict()) == json.dumps(r.to_dict())


def test_an_unknown_recipe():
    with pytest.raises(ValueError, match=r"recipe='best': must be one of paint-0.5, convergence"):
        recipe("best")
