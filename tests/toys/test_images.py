"""Images that training makes itself, runs on them, the stopping rule, files of such runs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mlsky.toys import blobs, images
from mlsky.toys.unconditional import sample
from mlsky.training import loop, stopping, unconditional
from mlsky.training.loop import train
from mlsky.training.paper_recipes import BLOBS_CHANGED
from mlsky.training.recipes import recipe

KIND = blobs.Blobs(1, size=32)
SMALL = {"size": 32, "nodes": 16, "latent": 4, "width": 2}


def _tiny(name="blobs-1", **changes):
    base = recipe(name)
    kept = ("total", "contrast", "count")
    options = {k: v for k, v in base.generator_options.items() if k in kept}
    return dataclasses.replace(
        base,
        size=32,
        batch=4,
        generator_options={**SMALL, **options},
        critic_options={"channels": 1, "size": 32, "width": 2},
        **changes,
    )


def _train(out, steps=3, name="blobs-1", **options):
    return train(
        *(_tiny(name), images.Blobs(KIND), out),
        **{"steps": steps, "device": "cpu", "progress": False, **options},
    )


def test_batches_are_blobs_that_never_come_twice():
    source = images.Blobs(10, seed=3)
    first, again, second = source.batch(0, 4), source.batch(0, 4), source.batch(1, 4)
    assert torch.equal(first, again)
    np.testing.assert_array_equal(torch.cat([first, second]), blobs.sample(10, 8, 3))
    assert (source.names, source.size) == (("blobs",), 128)


def test_pictures_are_drawn_from_the_set():
    x = np.arange(10.0)[:, None, None, None] + np.arange(16.0).reshape(1, 1, 4, 4) / 100
    source = images.Pictures(x, ("a",), seed=1)
    batch = source.batch(5, 6).numpy()
    assert all(np.isclose(x, b).all((1, 2, 3)).any() for b in batch)
    assert len({b[0, 0, 0] for b in batch}) > 1
    assert source.normaliser.forward(x).std() == pytest.approx(1)
    for bad, message in (
        (x[:, 0], "must be"),
        (np.ones((3, 1, 4, 4)), "images of a are constant"),
        (np.full((3, 1, 4, 4), np.nan), "hold NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            images.Pictures(bad, ("a",))


def test_patches_of_photographs():
    """Each patch is part of one of the two photographs, at multiples of eight pixels."""
    datasets = pytest.importorskip("sklearn.datasets")
    source = images.named("photographs", 0.5, 1)
    flower = datasets.load_sample_image("flower.jpg")
    rows, columns = ((n - images.PATCH) // images.STRIDE + 1 for n in flower.shape[:2])
    assert source.images.shape == (2 * rows * columns, 1, 32, 32)
    red, green, blue = flower[16:48, 8:40].astype(float).transpose(2, 0, 1) / 255
    patch = source.images[(1 * rows + 2) * columns + 1, 0]
    np.testing.assert_allclose(patch, 0.299 * red + 0.587 * green + 0.114 * blue, atol=1e-6)
    assert recipe("vae-photographs").size == source.size


@pytest.mark.parametrize("bad", ["blobs-7", "blobs", "faces", "blobs-x"])
def test_unknown_images(bad):
    with pytest.raises(ValueError, match=r"must be one of|blobs=7"):
        images.named(bad, 0.5, 1)


def test_resumed_is_bit_for_bit_the_same(tmp_path):
    whole = _train(tmp_path / "whole", 4)
    for stop, step in ((0, 0), (2, 2), (1, 2)):
        assert _train(tmp_path / "parts", 4, stop=stop).step == step
    parts = _train(tmp_path / "parts", 4)
    for a, b in zip(whole.generator.parameters(), parts.generator.parameters(), strict=True):
        assert torch.equal(a, b)
    assert whole.recent == parts.recent
    assert {k: len(v) for k, v in whole.recent.items()} == {"critic": 4, "generator": 4}


@pytest.mark.parametrize("change", [*BLOBS_CHANGED, recipe("blobs-50-report-beam")])
def test_one_change_of_the_reports_network_trains(change, tmp_path):
    """Two steps of a thin one: images of the right shape, whose file is the same network."""
    thin = {"generator_options": {**change.generator_options, "width": 1, "latent": 4}}
    thin |= {"critic_options": {**change.critic_options, "width": 1}, "batch": 4}
    base = recipe(f"{change.images}-report")
    changed = {
        k
        for k, v in change.to_dict().items()
        if v != base.to_dict()[k] and not k.startswith("match_")
    }
    options = ("match", "generator_options", "average", "variance_weight")
    assert changed in ({"name", option} for option in options)
    assert len(set(change.generator_options) ^ set(base.generator_options)) <= 1
    run = train(
        *(dataclasses.replace(change, **thin), None, tmp_path / "run"),
        **{"steps": 2, "device": "cpu", "progress": False},
    )
    assert run.step == 2
    assert (run.match is None) == (not change.match)
    unconditional.to_file(tmp_path / "run", tmp_path / "a.safetensors")
    made = sample(tmp_path / "a.safetensors", 2, seed=1)
    assert made.shape == (2, 1, 128, 128)
    assert np.isfinite(made).all()


def test_a_start_without_a_beam_is_refused(tmp_path):
    """Its width, which is learned, is not in the other network."""
    thin = {"width": 1, "latent": 4}
    folders = tmp_path / "plain", tmp_path / "beam"
    options = {"steps": 1, "stop": 0, "device": "cpu", "progress": False}
    plain, beam = (
        dataclasses.replace(r, generator_options={**r.generator_options, **thin})
        for r in map(recipe, ("blobs-1-report", "blobs-1-report-beam"))
    )
    train(plain, None, folders[0], **options)
    with pytest.raises(ValueError, match=r"its generator has other layers \(head.2.log_sigma\) t"):
        train(beam, None, folders[1], init_from=folders[0], **options)
    assert not folders[1].exists()


def test_one_set_starts_from_another(tmp_path):
    """Transfer learning of section 6.6: the sets share their networks."""
    _train(tmp_path / "one")
    ten = _train(tmp_path / "ten", 1, "blobs-10", init_from=tmp_path / "one")
    assert ten.recipe.generator_options["total"] == 10.0
    assert ten.generator.numbers == 10 * SMALL["latent"]
    with pytest.raises(ValueError, match="differs from recipe blobs-1-report in generator"):
        train(
            *(recipe("blobs-1-report"), None, tmp_path / "bad"),
            **{"steps": 1, "init_from": tmp_path / "one", "device": "cpu"},
        )
    assert not (tmp_path / "bad").exists()


def test_the_rule_of_the_report():
    recent = {}
    for i in range(100):
        log = {"critic": -4.0 if i < 50 else -3.7, "generator": 1.0}
        assert not stopping.converged(recent, 0.1)
        stopping.remember(recent, "wgan-gp", log)
    assert stopping.converged(recent, 0.1)
    assert not stopping.converged(recent, 0.01)
    for _ in range(60):
        stopping.remember(recent, "wgan-gp", {"critic": -3.7, "generator": float("nan")})
    assert [len(x) for x in recent.values()] == [100, 100]
    assert stopping.converged(recent, 0.1)
    assert not stopping.converged({}, 0.1)


def test_a_run_stops_when_it_has_converged(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "WINDOW", 2)
    run = _train(tmp_path / "a", 200, converged=0.9)
    assert 4 <= run.step < 200
    again = _train(tmp_path / "a", 200, converged=0.9)
    assert again.step == run.step  # complete, and not resumed
    for bad in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match=r"must be a share in 0 to 1"):
            _train(tmp_path / "b", 3, converged=bad)


def test_bad_data(tmp_path):
    with pytest.raises(ValueError, match="recipe dcgan is trained on a set; name its file"):
        train(recipe("dcgan"), None, tmp_path / "a", steps=1)
    with pytest.raises(ValueError, match="recipe blobs-1 makes its own images; leave it out"):
        train(recipe("blobs-1"), tmp_path / "x.h5", tmp_path / "a", steps=1)
    with pytest.raises(ValueError, match="matches statistics"):
        train(recipe("paint-0.5"), tmp_path / "x.h5", tmp_path / "a", steps=1, converged=0.1)
    with pytest.raises(ValueError, match="of 32 pixels: recipe blobs-1 takes blobs of 128"):
        train(recipe("blobs-1"), images.Blobs(KIND), tmp_path / "a", steps=1, device="cpu")
    assert not (tmp_path / "a").exists()


def test_a_run_becomes_a_file_that_is_sampled(tmp_path):
    run = _train(tmp_path / "run")
    opened = unconditional.opened(tmp_path / "run")
    made = sample(opened, 2, seed=1)
    for parameter, stored in zip(
        run.averaged.parameters(), opened["images"].parameters(), strict=True
    ):
        assert torch.equal(parameter, stored)
    unconditional.to_file(tmp_path / "run", tmp_path / "w.safetensors")
    file = unconditional.opened(tmp_path / "w.safetensors")
    np.testing.assert_allclose(sample(file, 2, seed=1), made, atol=0.02)
    assert unconditional.blobs_of(file) == blobs.BLOBS[1]
    true = unconditional.truth(file, 3, seed=5)
    np.testing.assert_array_equal(true, blobs.sample(1, 3, 5))
    with pytest.raises(ValueError, match="was trained on blobs-1; leave it out"):
        unconditional.truth(file, 3, 5, data="x.h5")
    with pytest.raises(ValueError, match="is no autoencoder"):
        unconditional.autoencoder(tmp_path / "run")
    assert loop.REPORT_EVERY > 3  # nothing was reported, and the log is there
    assert (tmp_path / "run" / "log.jsonl").read_text() == ""
