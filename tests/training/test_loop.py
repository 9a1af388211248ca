"""The training loop: reproducible, its options and its data."""

from __future__ import annotations

import dataclasses
import math

import h5py
import numpy as np
import pytest
import torch
from stub_painter import StubPainter
from tiny_runs import (
    assert_same,
    log_lines,
    logged,
    thin_recipe,
    tiny_recipe,
    train_tiny,
    write_set,
)

from mlsky.networks import device
from mlsky.training import steps
from mlsky.training.data import Crops, Painted
from mlsky.training.recipes import recipe
from mlsky.training.run import load_generator


def test_the_seed_sets_the_losses_and_reports_change_nothing(data, tmp_path, monkeypatch):
    silent = train_tiny(tiny_recipe(), data, tmp_path / "silent")
    logged(monkeypatch)
    a = train_tiny(tiny_recipe(), data, tmp_path / "a")
    train_tiny(tiny_recipe(), data, tmp_path / "b")
    other = train_tiny(tiny_recipe(), data, tmp_path / "other", seed=2)
    assert_same(silent, a)
    first = log_lines(tmp_path / "a")
    assert [line["step"] for line in first] == [1, 2, 3, 4]
    assert first == log_lines(tmp_path / "b") != log_lines(tmp_path / "other")
    assert set(first[0]) >= {"critic", "distance", "gradient", "ratio", *tiny_recipe().match}
    assert set(first[0]["ratio"]) == {"ksz", "tsz", "cib"}
    assert not torch.equal(a.generator.backbone.head.weight, other.generator.backbone.head.weight)


BAD = [
    ({"steps": None}, "minutes=None, steps=None: give exactly one"),
    ({"minutes": 1.0}, "minutes=1.0, steps=4: give exactly one"),
    ({"steps": 0}, "steps=0: must be > 0"),
    ({"steps": None, "minutes": -1.0}, "minutes=-1.0: must be > 0"),
    ({"steps": None, "minutes": math.nan}, "minutes=nan: must be > 0"),
    ({"steps": None, "minutes": math.inf}, "minutes=inf: must be > 0"),
    ({"stop": 5}, "stop=5: must be an integer from 0 to steps=4, a step of the run"),
    ({"stop": -1}, "stop=-1: must be an integer from 0 to steps=4, a step of the run"),
    ({"stop": 1.5}, "stop=1.5: must be an integer from 0 to steps=4, a step of the run"),
    ({"steps": None, "minutes": 1.0, "stop": -1}, "stop=-1: must be an integer from 0, a step"),
    ({"device": "tpu9"}, "device='tpu9': must be auto, cpu or cuda"),
    ({"seed": -1}, "seed=-1: must be an integer"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options(data, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        train_tiny(tiny_recipe(), data, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_no_gpu(data, tmp_path):
    with pytest.raises(ValueError, match="no CUDA device is here; use device='cpu'"):
        train_tiny(tiny_recipe(), data, tmp_path / "run", device="cuda")
    assert device.pick_device("auto").type == "cpu"


def test_bad_data(data, tmp_path):
    coarse = write_set(tmp_path / "coarse.h5", pixel_arcmin=2.0)
    with pytest.raises(ValueError, match=r"pixels of 2.0' in the data, 0.5' in recipe paint-0.5"):
        train_tiny(tiny_recipe(), coarse, tmp_path / "run")
    poor = write_set(tmp_path / "poor.h5", leave_out=("ksz", "cib"))
    with pytest.raises(ValueError, match=r"poor.h5: lacks ksz, cib"):
        train_tiny(tiny_recipe(), poor, tmp_path / "run")
    with pytest.raises(ValueError, match="regions of 64 pixels, crops of 128"):
        train_tiny(tiny_recipe(size=128), data, tmp_path / "run")
    with pytest.raises(ValueError, match="dcgan has no condition to unpair"):
        train_tiny(thin_recipe("dcgan"), data, tmp_path / "run", target=data)
    with pytest.raises(
        ValueError, match=r"paint-0.5: the normaliser has ksz, tsz, cib and not kap"
    ):
        train_tiny(tiny_recipe(), data, tmp_path / "run", target=data)
    assert not (tmp_path / "run").exists()


def test_minutes_follow_the_clock(data, tmp_path):
    run = train_tiny(tiny_recipe(), data, tmp_path, steps=None, minutes=0.2 / 60)
    assert run.seconds >= 0.2
    assert run.step >= 1


def test_the_rate():
    r = dataclasses.replace(recipe("paint-0.5"), warm_up=40, decay_from=0.4)
    assert steps.learning_rate(r, 0, 0.0) == pytest.approx(1 / 40)
    assert steps.learning_rate(r, 39, 0.1) == 1
    assert steps.learning_rate(r, 1000, 0.4) == 1
    assert steps.learning_rate(r, 1000, 0.7) == pytest.approx(0.51)
    assert steps.learning_rate(r, 1000, 1.0) == pytest.approx(0.01)
    assert steps.learning_rate(recipe("dcgan"), 0, 0.99) == 1


def test_too_few_patches(data, tmp_path):
    with pytest.raises(ValueError, match=r"2 patches of 64 pixels in the data: recipe paint"):
        train_tiny(tiny_recipe(batch=8), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_painted_on_the_fly(tmp_path):
    """Regions come from any painter; the run is resumed where it was."""
    names = ("kappa", "ksz", "tsz", "cib")

    def source():
        return Painted(StubPainter(128), names, 64, seed=5, regions=1)

    whole = train_tiny(tiny_recipe(), source(), tmp_path / "whole")
    train_tiny(tiny_recipe(), source(), tmp_path / "parts", steps=2)
    train_tiny(tiny_recipe(), source(), tmp_path / "parts", steps=3)
    steps = []
    second = source()
    batch = second.batch
    second.batch = lambda step, size: (steps.append(step), batch(step, size))[1]
    resumed = train_tiny(tiny_recipe(), second, tmp_path / "parts")
    assert steps == [3]
    assert whole.normaliser == resumed.normaliser
    with pytest.raises(ValueError, match=r"painted kappa, ksz, tsz, cib of 64 pixels: recipe conv"):
        train_tiny(tiny_recipe("convergence-0.5"), source(), tmp_path / "bad")


RARE = 70000.0  # beyond half precision


def test_what_clusters_leave_is_learned_given_them(data, tmp_path):
    """A set with objects taken apart, large numbers too; a whole set is refused by its fields."""
    rest = write_set(tmp_path / "rest.h5", pixel_arcmin=1.0)
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
        tiny = tiny_recipe(name)
        options = {**recipe(name).generator_options, **tiny.generator_options}
        tiny = dataclasses.replace(tiny, generator_options=options)
        run = train_tiny(tiny, rest, tmp_path / name, steps=2)
        assert run.step == 2
        again, normaliser, _ = load_generator(tmp_path / name)
        assert again.objects == 2
        assert "objects_tsz" in normaliser.channels
        with pytest.raises(ValueError, match=r"lacks objects_kappa, objects_tsz"):
            train_tiny(dataclasses.replace(tiny, pixel_arcmin=0.5), data, tmp_path / "bad")
    with pytest.raises(ValueError, match=r"without haloes above 1e\+14 Msun"):
        train_tiny(tiny_recipe(pixel_arcmin=1.0), rest, tmp_path / "bad")
