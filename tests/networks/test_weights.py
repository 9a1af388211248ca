"""Weight files: exact round trip, the same bytes again, and every way a file can be wrong."""

from __future__ import annotations

import hashlib
import json
import os
import struct

import numpy as np
import pytest
import safetensors.numpy
import torch
from han2021_normaliser import HAN2021

from mlsky.errors import RegistryError
from mlsky.networks import weights
from mlsky.networks.han2021 import DCGAN, PIXGAN, Critic

# Half precision keeps 11 bits; below 6e-5 it keeps a fixed 6e-8.
HALF_RTOL, HALF_ATOL = 2.0**-11, 2.0**-25


def networks():
    return {"paint": PIXGAN(width=2, seed=1).eval(), "score": Critic(width=2, seed=2).eval()}


def header(modules):
    return {
        "networks": {
            "paint": weights.network_header(modules["paint"], ["kappa"], ["ksz", "tsz", "cib"]),
            "score": weights.network_header(modules["score"]),
        },
        "normaliser": HAN2021.to_dict(),
        "pixel_arcmin": 0.5,
        "recipe": {"lr": 1e-4, "betas": (0.5, 0.9)},
    }


@pytest.fixture
def saved(tmp_path):
    modules = networks()
    path = tmp_path / "paint.safetensors"
    digest = weights.save(path, weights.pack(modules), header(modules))
    return path, digest, modules


def rewrite(path, state=None, edit=None):
    """The same file with other tensors or header, its digest made to fit again."""
    old, head = weights.load(path)
    state = old if state is None else state
    arrays = {name: tensor.numpy().copy() for name, tensor in state.items()}
    head.pop("digest")
    if edit:
        edit(head)
    head["digest"] = weights._digest(head, arrays)
    path.write_bytes(safetensors.numpy.save(arrays, metadata={"mlsky": json.dumps(head)}))


def test_round_trip(saved):
    path, digest, modules = saved
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    state, head = weights.load(path, digest)
    assert head["recipe"] == {"lr": 1e-4, "betas": [0.5, 0.9]}
    assert head == weights.read_header(path)
    for name, tensor in weights.pack(modules).items():
        assert state[name].shape == tensor.shape
        if tensor.is_floating_point():
            assert state[name].dtype == torch.float32
            exact = tensor.ndim < 2
            torch.testing.assert_close(
                state[name],
                tensor,
                rtol=0 if exact else HALF_RTOL,
                atol=0 if exact else HALF_ATOL,
            )
        else:
            assert torch.equal(state[name], tensor)


def test_built_networks_are_the_saved_ones(tmp_path):
    modules = networks()
    path = tmp_path / "whole.safetensors"
    weights.save(path, weights.pack(modules), header(modules), dtype="float32")
    before = torch.get_rng_state()
    built = weights.build(path)
    assert torch.equal(before, torch.get_rng_state())
    x = torch.randn(2, 1, 128, 128, generator=torch.Generator().manual_seed(1))
    assert set(built) == {"paint", "score"}
    assert not built["paint"].training
    assert not any(p.requires_grad for p in built["paint"].parameters())
    assert torch.equal(built["paint"](x), modules["paint"](x))


def test_opened_weights(saved):
    path, digest, _ = saved
    opened = weights.open_weights(path, "cpu", digest)
    assert opened.sha256 == digest
    assert opened.normaliser == HAN2021
    assert opened.pixel_arcmin == 0.5
    assert isinstance(opened["paint"], PIXGAN)
    with pytest.raises(ValueError, match=r"network 'dust': paint\.safetensors has paint, score"):
        opened["dust"]


def test_same_state_same_bytes(saved, tmp_path):
    path, digest, modules = saved
    again = tmp_path / "again.safetensors"
    head = header(modules)
    turned = {key: head[key] for key in reversed(head)}
    state = weights.pack(modules)
    state = {name: state[name] for name in reversed(state)}
    assert weights.save(again, state, turned) == digest
    # And what is read back gives the file again.
    opened = weights.open_weights(path)
    assert weights.save(again, weights.pack(opened.networks), opened.header) == digest
    assert os.listdir(tmp_path).count("again.safetensors") == len(os.listdir(tmp_path)) - 1


def test_half_precision_halves_the_file(saved, tmp_path):
    path, _, modules = saved
    whole = tmp_path / "whole.safetensors"
    weights.save(whole, weights.pack(modules), header(modules), dtype="float32")
    assert path.stat().st_size < 0.6 * whole.stat().st_size


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda s, h: s["score.score.weight"].fill_(float("nan")),
            "'score.score.weight' holds NaN",
        ),
        (lambda s, h: s["score.score.weight"].fill_(7e4), "reaches 7e.04: at most 6.55e.04"),
        (lambda s, h: h.pop("networks"), "'networks' must name"),
        (lambda s, h: h["networks"].pop("score"), "belongs to no network"),
        (lambda s, h: h["networks"].update(more=h["networks"]["score"]), "'more' has no tensors"),
        (lambda s, h: h["networks"].update({"a.b": {}}), "network name 'a.b'"),
        (lambda s, h: h["networks"].update(paint={}), "must have an architecture"),
        (lambda s, h: h.update(part="some"), "part='some': must be 'all' or 'rest'"),
        (lambda s, h: h.update(mass_cut=1e14), "mass_cut=.* without part='rest'"),
        (lambda s, h: h.update(part="rest"), "mass_cut=None: must be the mass"),
        (lambda s, h: h.update(scores={"x": float("nan")}), "plain finite JSON"),
        (lambda s, h: h.update(scores={"x": np.float32(1)}), "plain finite JSON"),
    ],
)
def test_what_is_not_saved(tmp_path, edit, message):
    modules = networks()
    state = {name: tensor.clone() for name, tensor in weights.pack(modules).items()}
    head = header(modules)
    edit(state, head)
    with pytest.raises(ValueError, match=message):
        weights.save(tmp_path / "a.safetensors", state, head)
    assert not any(tmp_path.iterdir())


def test_size_limit_type_and_folder(tmp_path):
    modules = networks()
    arguments = weights.pack(modules), header(modules)
    with pytest.raises(ValueError, match="at most 1000 can be shipped"):
        weights.save(tmp_path / "a.safetensors", *arguments, max_bytes=1000)
    with pytest.raises(ValueError, match="dtype='int8': must be one of float16, float32"):
        weights.save(tmp_path / "a.safetensors", *arguments, dtype="int8")
    with pytest.raises(ValueError, match="make it first"):
        weights.save(tmp_path / "none" / "a.safetensors", *arguments)
    with pytest.raises(
        ValueError, match=r"Identity: must be a class of mlsky\.networks\.default or"
    ):
        weights.network_header(torch.nn.Identity())
    assert not any(tmp_path.iterdir())


def test_every_truncation_is_noticed(saved):
    path, digest, _ = saved
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    for size in (0, 1, 7, 8, 9, 8 + length // 2, 8 + length, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        for call in (weights.load, weights.build, weights.read_header):
            with pytest.raises(RegistryError, match="truncated"):
                call(path)
        with pytest.raises(RegistryError, match=f"{digest} was expected"):
            weights.load(path, digest)
    path.write_bytes(data + b"more")
    with pytest.raises(RegistryError, match="truncated or altered"):
        weights.load(path)


def test_every_altered_byte_is_noticed(saved):
    # Somewhere in the length, the table, our header, and the tensors.
    path, digest, _ = saved
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    places = [0, 3, 8, 20, 8 + length // 2, 8 + length - 40, 8 + length, len(data) - 1]
    for place in [*places, *range(100, len(data), len(data) // 40)]:
        bad = bytearray(data)
        bad[place] ^= 1
        path.write_bytes(bytes(bad))
        with pytest.raises(RegistryError):
            weights.load(path)
        with pytest.raises(RegistryError, match="altered"):
            weights.load(path, digest)


def test_foreign_files(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(RegistryError, match="cannot be read"):
        weights.load(path)
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(RegistryError, match="not a safetensors file"):
        weights.load(path)
    path.write_bytes(safetensors.numpy.save({"a": np.zeros(2)}))
    with pytest.raises(RegistryError, match="without mlsky's header"):
        weights.load(path)
    text = json.dumps({"format_version": 99})
    path.write_bytes(safetensors.numpy.save({"a": np.zeros(2)}, metadata={"mlsky": text}))
    with pytest.raises(RegistryError, match="header format 99, this mlsky reads 1"):
        weights.load(path)
    for bad in (b"[1]", b'{"a": 3}', b'{"a": {"data_offsets": 3}}', b'{"a": {}}'):
        path.write_bytes(struct.pack("<Q", len(bad)) + bad)
        with pytest.raises(RegistryError, match="not a safetensors file"):
            weights.load(path)


def test_not_finite_in_a_file(saved):
    path, _, _ = saved
    state, _ = weights.load(path)
    state["score.score.bias"][0] = float("inf")
    rewrite(path, state)
    with pytest.raises(RegistryError, match=r"'score\.score\.bias' holds NaN or infinity"):
        weights.load(path)


def test_tensors_that_do_not_fit(saved):
    path, _, _ = saved
    state, _ = weights.load(path)
    without = {name: tensor for name, tensor in state.items() if name != "paint.up.2.1.weight"}
    rewrite(path, without)
    with pytest.raises(RegistryError, match=r"'up\.2\.1\.weight' of han2021:PIXGAN is missing"):
        weights.build(path)
    more = {**state, "paint.extra": torch.zeros(1)}
    rewrite(path, more)
    with pytest.raises(RegistryError, match="han2021:PIXGAN has no tensor 'extra'"):
        weights.build(path)
    rewrite(path, {**state, "score.score.bias": torch.zeros(2)})
    with pytest.raises(RegistryError, match=r"'score\.bias' has shape \(2,\).*needs \(1,\)"):
        weights.build(path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"architecture": "han2021:DCGAN", "kwargs": {"width": 2}}, "'project.weight'.*missing"),
        ({"kwargs": {"width": 4}}, r"has shape \(2, 1, 4, 4\), han2021:PIXGAN needs"),
        ({"kwargs": {"wide": 4}}, "cannot be built with {'wide': 4}"),
        ({"kwargs": {"width": -1}}, "cannot be built with {'width': -1}"),
        ({"architecture": "os:system"}, "architecture 'os:system' is unknown"),
        ({"architecture": "han2021:nn"}, "architecture 'han2021:nn' is unknown"),
        ({"architecture": "han2021:_down"}, "architecture 'han2021:_down' is unknown"),
        ({"architecture": "PIXGAN"}, "architecture 'PIXGAN' is unknown"),
    ],
)
def test_other_architectures(saved, edit, message):
    path, _, _ = saved
    rewrite(path, edit=lambda head: head["networks"]["paint"].update(edit))
    with pytest.raises(RegistryError, match=message):
        weights.build(path)


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    path, digest, modules = saved

    def fail(*args):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        weights.save(path, weights.pack(modules), header(modules), dtype="float32")
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    weights.load(path, digest)


def test_architecture_names():
    assert weights.architecture(DCGAN(width=1)) == "han2021:DCGAN"
