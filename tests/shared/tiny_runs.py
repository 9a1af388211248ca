"""Runs of tiny networks on tiny sets."""

from __future__ import annotations

import dataclasses
import json

import h5py
import numpy as np
import torch

from mlsky import seeds
from mlsky.networks.normaliser import Normaliser
from mlsky.training import loop, steps
from mlsky.training import run as runs
from mlsky.training.loop import train
from mlsky.training.recipes import recipe

NORMALISER = Normaliser(("kappa", "ksz", "tsz", "cib"), (None, None, 4, 17), (0,) * 4, (1,) * 4)


STEPS = 4


def write_set(path, n=64, regions=2, pixel_arcmin=0.5, seed=0, leave_out=()):
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


def tiny_recipe(name="paint-0.5", **changes):
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


def thin_recipe(name, **changes):
    return dataclasses.replace(
        recipe(name),
        generator_options={"width": 2},
        critic_options={"width": 2},
        batch=2,
        critic_steps=2,
        **changes,
    )


def train_tiny(recipe, data, out, **options):
    options = {"steps": STEPS, "device": "cpu", "seed": 1, "progress": False, **options}
    return train(recipe, data, out, **options)


def state_of(run) -> dict[str, torch.Tensor]:
    state = {}
    for name in ("generator", "critic", "averaged"):
        state |= {f"{name}.{k}": v for k, v in getattr(run, name).state_dict().items()}
    for name in ("generator_adam", "critic_adam"):
        state |= runs.adam_tensors(getattr(run, name), name)
    if run.match is not None:
        state |= {f"match.{k}": v for k, v in run.match.running.items()}
    return state


def assert_same(a, b):
    a, b = state_of(a), state_of(b)
    assert set(a) == set(b)
    different = [k for k in a if not torch.equal(a[k], b[k])]
    assert not different, different


def stop_after(monkeypatch, step):
    """Save after every step, and be interrupted in the middle of a later one."""
    real = steps.relativistic_step

    def stop(run, *args):
        if run.step == step:
            raise KeyboardInterrupt
        return real(run, *args)

    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    monkeypatch.setattr(steps, "relativistic_step", stop)


def logged(monkeypatch):
    monkeypatch.setattr(loop, "REPORT_EVERY", 1)


def log_lines(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
