"""Matched statistics of images without a condition, and which statistics a recipe has."""

from __future__ import annotations

from dataclasses import replace

import fakes
import numpy as np
import pytest
import torch

from mlsky.networks.normaliser import Normaliser
from mlsky.toys import blobs
from mlsky.toys.image_statistics import power
from mlsky.training import matched_statistics, matching
from mlsky.training.loop import train
from mlsky.training.recipes import recipe

CPU = torch.device("cpu")
UNIT = Normaliser(("blobs",), (None,), (0.0,), (1.0,))
# Sums of float32 numbers beside float64 ones.
FLOAT32 = 1e-4


def images(n=8, seed=1, **options):
    return torch.from_numpy(blobs.sample(blobs.Blobs(3, size=32, **options), n, seed))


def test_power_is_that_of_image_statistics():
    x = images()
    found = matched_statistics.image_statistics(32)(x[:, :0], x)["power"]
    assert found[0] == "power"
    assert found[1].shape == (1, len(matched_statistics.ring_edges(32)) - 1)
    assert matched_statistics.ring_edges(32)[:8] == list(range(1, 9))
    expected = power(x.numpy()).mean(0)[1:8]
    np.testing.assert_allclose(found[1][0, :7], expected, rtol=FLOAT32)
    # the modes of several rings, all of one power
    spot = torch.zeros(1, 1, 32, 32)
    spot[0, 0, 3, 7] = 32.0
    flat = matched_statistics.image_statistics(32)(spot[:, :0], spot)["power"][1]
    np.testing.assert_allclose(flat, 1, rtol=FLOAT32)


def test_profile_is_the_light_before_a_row_and_a_column():
    x = torch.zeros(2, 1, 16, 16)
    x[0, 0, 4, 10] = x[1, 0, 8, 10] = 3.0
    _, profile = matched_statistics.image_statistics(16)(x[:, :0], x)["profile"]
    assert profile.shape == (1, 2, 16)
    assert profile[0, 0, [3, 4, 7, 8]].tolist() == [0, 0.5, 0.5, 1]
    assert profile[0, 1, [9, 10]].tolist() == [0, 1]


def test_flux_is_the_distribution_over_images():
    x = torch.zeros(3, 1, 16, 16)
    for i, blobs_of in enumerate((2, 0, 1)):  # as many blobs of flux 4
        x[i, 0, 3 : 3 + blobs_of, 5:9] = 1.0
    kind, flux = matched_statistics.image_statistics(16, names=["flux"])(x[:, :0], x)["flux"]
    assert kind == "quantile"
    assert flux.tolist() == [[0, 4 / 16, 8 / 16]]
    # one blob on average, as in the truth, and yet not the same
    true = torch.zeros(3, 1, 16, 16)
    true[:, 0, 3, 5:9] = 1.0
    statistics = matched_statistics.image_statistics(16, names=["flux"])
    found = matching.Matching(statistics, {"flux": 1.0})
    x.requires_grad_(True)
    total, _ = found(x[:, :0], x, true)
    total.backward()
    # the light of the image with two falls, that of the one with none rises
    assert (x.grad[0] > 0).all()
    assert (x.grad[1] < 0).all()
    assert not x.grad[2].any()


def test_a_wrong_width_and_a_wrong_place_are_seen():
    true = images(64, 2)
    match = {"power": 1.0, "profile": 1.0, "pixel": 1.0}
    for made, worse in ((images(64, 2, sigma=4.0), "power"), (true * (true > 1), "profile")):
        made = made if worse == "power" else torch.cat([true[:, :, 16:], true[:, :, :16] * 0], 2)
        found = matching.Matching(matched_statistics.image_statistics(32), match)
        made.requires_grad_(True)
        total, parts = found(true[:, :0], made, true)
        assert parts[worse] > 0.01
        total.backward()
        assert torch.isfinite(made.grad).all()
        assert made.grad.abs().max() > 0


def _power_of(x):
    return power(x.flatten(0, 1).numpy()).mean(0)[1:8]


def _running(batches, memory, kind="steady", **options):
    """The comparison after batches that are generated and true at once."""
    found = matching.Matching(
        matched_statistics.image_statistics(32, names=["power"]),
        {"power": 1.0},
        memory,
        **{kind: True},
    )
    for x in batches:
        found(x[:, :0], x, x, **options)
    return found


@pytest.fixture
def batches():
    return torch.randn(4, 8, 1, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["even", "steady"])
def test_the_first_batches_weigh_the_same(batches, kind):
    """With a long memory the first batch alone would count for many steps."""
    found = _running(batches, 0.01, kind)
    for kind in ("real", "fake"):
        average = found.running[f"{kind}.power"][0, :7]
        np.testing.assert_allclose(average, _power_of(batches), rtol=FLOAT32)


def test_the_truth_is_averaged_over_all_batches(batches):
    """It does not change; of the generated images, those of other weights are to be forgotten."""
    found = _running(batches, 0.5)
    np.testing.assert_allclose(found.running["real.power"][0, :7], _power_of(batches), rtol=FLOAT32)
    each = [_power_of(x[None]) for x in batches]
    expected = ((each[0] + each[1]) / 2 + each[2]) / 4 + each[3] / 2
    np.testing.assert_allclose(found.running["fake.power"][0, :7], expected, rtol=FLOAT32)


def test_averages_that_are_even_alone_forget_the_truth_too(batches):
    """Of recipes without `match_steady`, and without regard to the rate of learning."""
    found = _running(batches, 0.5, "even", rate=0.1)
    each = [_power_of(x[None]) for x in batches]
    expected = ((each[0] + each[1]) / 2 + each[2]) / 4 + each[3] / 2
    for kind in ("real", "fake"):
        np.testing.assert_allclose(found.running[f"{kind}.power"][0, :7], expected, rtol=FLOAT32)


def test_a_generator_that_changes_slowly_is_averaged_over_more_batches(batches):
    found = _running(batches, 0.5, rate=0.1)
    np.testing.assert_allclose(found.running["fake.power"][0, :7], _power_of(batches), rtol=FLOAT32)


@pytest.mark.parametrize("options", [{}, {"rate": 0.1}, {"trained": 4}])
@pytest.mark.parametrize("earlier", [0, 3])
def test_gradients_are_those_of_one_batch(options, earlier):
    """Neither a longer memory nor images without gradients make the loss weaker."""
    found = matching.Matching(
        lambda condition, x: {"mean": ("quantile", x.mean()[None])},
        {"mean": 1.0},
        0.25,
        steady=True,
    )
    far = torch.full((8, 1, 2, 2), 10.0)  # off by more than `matching.BETA`: the loss is linear
    for _ in range(earlier):
        found(far[:, :0], far, 0 * far)
    x = far[:4].clone().requires_grad_(True)
    made = torch.cat([x, far[4:]]) if "trained" in options else x
    found(made[:, :0], made, 0 * far, **options)[0].backward()
    np.testing.assert_allclose(x.grad, 0.25 / x.numel(), rtol=FLOAT32)


@pytest.mark.parametrize("name", ["blobs-1", "blobs-1-fine", "blobs-1000", "vae-digits", "dcgan"])
def test_recipes_have_the_statistics_that_they_name(name):
    r = recipe(name)
    found = matched_statistics.matching_of(r, UNIT, CPU)
    assert (found is None) == (not r.match)
    r = replace(recipe("blobs-1"), match={"power": 2.0}, match_memory=0.5)
    found = matched_statistics.matching_of(r, UNIT, CPU)
    assert (found.weights, found.memory, found.even) == ({"power": 2.0}, 0.5, True)
    assert found.steady == r.match_steady


def test_the_critic_s_images_count_in_steady_averages(monkeypatch, tmp_path):
    """Each of its steps draws and reads a batch that would be thrown away."""
    seen = []
    compare = matching.Matching.__call__

    def watched(self, condition, fake, real, *more):
        seen.append((len(condition), len(fake), len(real), *more))
        return compare(self, condition, fake, real, *more)

    monkeypatch.setattr(matching.Matching, "__call__", watched)
    for steady in (False, True):
        r = replace(fakes.small_blobs(monkeypatch), match_steady=steady, warm_up=0, decay_from=1.0)
        train(r, None, tmp_path / str(steady), steps=1, progress=False, device="cpu")
    assert seen == [(2, 2, 2, 1.0, 2), (6, 6, 4, 1.0, 2)]  # two steps of the critic per step
