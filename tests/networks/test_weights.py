"""Weight files: exact round trip, the same bytes again, and every way a file can be wrong."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from han2021_normaliser import HAN2021

from mlsky.errors import RegistryError
from mlsky.networks import weights
from mlsky.networks.default import Paint
from mlsky.networks.han2021 import DCGAN, PIXGAN, Critic

# Half precision keeps 11 bits; below 6e-5 it keeps a fixed 6e-8.
HALF_RTOL, HALF_ATOL = 2.0**-11, 2.0**-25
# A file that is refused takes milliseconds; on a crowded machine a hundred times as long.
SLOW_SECONDS = 20.0
# Characters of an error that count as one line, besides the path.
LONGEST_LINE = 600


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


def forged(path, header=b"{}", tensors=b"{}", data=b"", text=None):
    """A safetensors file of any header: the bytes of our header and of the table of tensors."""
    own = json.dumps({"mlsky": header.decode()})
    table = tensors.decode()[1:-1]
    if text is None:
        text = f'{{"__metadata__":{own}{"," * bool(table)}{table}}}'.encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_files_of_any_kind_or_size(tmp_path):
    """Each is refused in one line, in less than a second."""
    started = time.monotonic()
    path = tmp_path / "a.safetensors"
    fifo = tmp_path / "fifo.safetensors"
    os.mkfifo(fifo)
    cases = [
        (fifo, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path, "cannot be read"),
        (Path("a\0b.safetensors"), "cannot be read"),
        (tmp_path / ("x" * 300), "cannot be read"),
    ]
    huge = tmp_path / "huge.safetensors"
    with huge.open("wb") as file:
        file.truncate(40 * 2**30)
    cases.append((huge, "at most 1073741824 are read"))
    long = tmp_path / "long.safetensors"
    with long.open("wb") as file:
        file.write(struct.pack("<Q", 100 * 2**20) + b"{")
        file.truncate(101 * 2**20)
    cases.append((long, "header of 104857600 bytes, at most 4194304"))
    for bad, message in cases:
        for call in (weights.load, weights.read_header, weights.open_weights):
            with pytest.raises(RegistryError, match=message) as caught:
                call(bad)
            assert "\n" not in str(caught.value)
    deep = b"[" * 200_000 + b"]" * 200_000
    levels = "more than 32 levels"
    for header, reason in (
        (deep, levels),
        (b"[" * 900 + b"]" * 900, levels),
        (b'{"a":' + deep + b"}", levels),
        (b"1e400", "it is inf; numbers must be finite"),
        (b'{"format_version": 1e400}', "format_version is inf; numbers must be finite"),
        (b"NaN", "it is nan; numbers must be finite"),
        (
            b'{"calibration": {"kappa": {"gain": [1, NaN]}}}',
            r"calibration\.kappa\.gain\[1\] is nan",
        ),
        (b"{", "Expecting"),
    ):
        forged(path, header)
        with pytest.raises(RegistryError, match=f"mlsky's header in it cannot be read: {reason}"):
            weights.load(path)
    forged(path, text=deep)
    with pytest.raises(RegistryError, match="not a safetensors file"):
        weights.load(path)
    for offsets in (b"[0, 1e400]", b"[0, 1e300]", b'[0, "a"]', b"{}", b"[[], {}]", b"[0, -5]"):
        forged(path, tensors=b'{"a": {"data_offsets": %s}}' % offsets)
        with pytest.raises(RegistryError, match=r"not a safetensors file|truncated"):
            weights.load(path)
    # a second for all of these some thirty files, where the machine has nothing else to do
    assert time.monotonic() - started < SLOW_SECONDS


@pytest.mark.parametrize("kind", ["bool", "int32", "complex64", "float64", "bfloat16"])
def test_tensors_of_other_types(saved, kind):
    path, _, _ = saved
    state, head = weights.load(path)
    arrays = {name: tensor.numpy().copy() for name, tensor in state.items()}
    name = "paint.up.2.1.weight"
    data = safetensors.torch.save({**state, name: state[name].to(getattr(torch, kind))})
    length = struct.unpack("<Q", data[:8])[0]
    table = json.loads(data[8 : 8 + length])
    head.pop("digest")
    head["digest"] = weights._digest(head, arrays)
    table["__metadata__"] = {"mlsky": json.dumps(head)}
    text = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    with pytest.raises(RegistryError, match="must be one of F16, F32, I64"):
        weights.load(path)


def test_whole_numbers_in_place_of_weights(saved):
    path, _, _ = saved
    state, _ = weights.load(path)
    name = "paint.up.2.1.weight"
    rewrite(path, {**state, name: state[name].to(torch.int64)})
    with pytest.raises(RegistryError, match=r"is of type torch\.int64, .* needs torch\.float32"):
        weights.build(path)


TABLE = {"ell": [2, 9], "gain": [1.0, 1.0]}
VALUES = {"ell": [2, 9], "gain": [1, 1], "from": [0, 1], "to": [0, 2]}
LARGE = {"ell": [0, 9], "response": {"cib": [1, 1]}, "root": {"ksz": [1, 1]}, "mean": {"cib": 2.0}}


def in_calibration(**entries):
    return lambda head: head.update(calibration=entries)


def following(response):
    return in_calibration(large_scales={**LARGE, "ksz_of_objects": response})


def dsfg(**changed):
    entry = {"per_sr": 1.0, "flux_mjy": [7.0, 9.0], "mean_cib_uk": 20.0, **changed}
    return lambda head: head.update(sources={"dsfg": entry})


def in_kwargs(**options):
    return lambda head: head["networks"]["paint"]["kwargs"].update(options)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda h: h.pop("pixel_arcmin"), "pixel_arcmin=None: must be a number from 0.05 to 600"),
        (lambda h: h.update(overlap=100), "overlap=100: must be an integer, 0 to 64 pixels"),
        (lambda h: h.update(pixel_arcmin=1e-9), "pixel_arcmin=1e-09: must be a number"),
        (lambda h: h.update(pixel_arcmin="2"), "pixel_arcmin='2': must be a number"),
        (lambda h: h.update(pixel_arcmin=True), "pixel_arcmin=True: must be a number"),
        (lambda h: h.update(pixel_arcmin=10**400), "pixel_arcmin=10+...: must be a number"),
        (lambda h: h.pop("normaliser"), "normaliser=None: must be a mapping"),
        (lambda h: h["normaliser"].pop("std"), "its normaliser cannot be used"),
        (lambda h: h["normaliser"].update(std=3), "its normaliser cannot be used"),
        (lambda h: h["normaliser"]["std"].__setitem__(0, "a"), "its normaliser cannot be used"),
        (lambda h: h["normaliser"]["std"].__setitem__(0, 10**400), "normaliser cannot be used"),
        (lambda h: h["normaliser"]["std"].__setitem__(0, 1e300), "normaliser.std=1e.300: must be"),
        (lambda h: h["normaliser"]["std"].__setitem__(0, True), "normaliser.std=True: must be"),
        (lambda h: h["normaliser"]["channels"].__setitem__(0, []), "channels=.*: must be text"),
        (lambda h: h.update(recipe=[1]), "recipe=.*: must be a mapping"),
        (lambda h: h.update(calibration=3), "calibration=3: must be a mapping"),
        (lambda h: h.update(part=[]), r"part=\[\]: must be 'all' or 'rest'"),
        (lambda h: h["networks"].update({"a" * 999: {}}), "network name .* must be letters"),
        (lambda h: h["networks"]["paint"].pop("inputs"), "inputs of paint=None: must be a list"),
        (lambda h: h["networks"]["paint"].update(outputs=[3]), "outputs of paint=3: must be text"),
        (
            in_kwargs(width=10**9),
            "width of paint=10+: must",
        ),
        (
            in_kwargs(w="a"),
            "w of paint='a': must be a numb",
        ),
        (in_kwargs(w=[1] * 99), "or a list of at most 64"),
        (in_kwargs(w=[[[1]]]), "w of paint=.*: must be a"),
        (
            in_calibration(kappa={"ell": [2]}),
            "kappa.ell=.*: must be a list of at least",
        ),
        (in_calibration(kappa=3), "calibration.kappa=3: must be a mapping"),
        (in_calibration(kappa={**TABLE, "ell": [9, 2]}), "must be a list of increasing numbers"),
        (in_calibration(cib={**TABLE, "gain": [1]}), "cib.gain=.*: must be a list of 2 numbers"),
        (in_calibration(cib_353=TABLE), "calibration.cib_353.from=None: must be a list"),
        (in_calibration(kappa_sky={**TABLE, "gain": [1, -1]}), "gain=-1: must be a number from 0"),
        (in_calibration(velocity_gains={"a": 1}), "velocity_gains=.*: must be a list"),
        (in_calibration(amplitude={"cib": None}), "amplitude.cib=None: must be a number"),
        (in_calibration(radio_fraction=2), "radio_fraction=2: must be a number from 0 to 1"),
        (in_calibration(split={"value": [1]}), "split.width=None: must be a list"),
        (in_calibration(completion=[1]), "large_scales=.*: must be a mapping"),
        (in_calibration(large_scales={**LARGE, "root": {}}), "root=.*: must be a mapping with ksz"),
        (in_calibration(large_scales={**LARGE, "mean": {"cib": 0}}), "must be other than zero"),
        (in_calibration(large_scales={**LARGE, "clusters": 1e9}), "clusters=.*: must be a number"),
        (following([1]), "ksz_of_objects=.*: must be a list of 2 numbers"),
        (following([1, -0.1]), "ksz_of_objects=-0.1: must be a number from 0"),
        (following(None), "ksz_of_objects=None: must be a list"),
        (in_calibration(tsz=TABLE), "calibration.tsz.from=None: must be a list"),
        (in_calibration(tsz={**VALUES, "to": [1]}), "tsz.to=.*: must be a list of 2 numbers"),
        (in_calibration(tsz={**VALUES, "to": [-1, 2]}), "tsz.to=-1: must be a number from 0"),
        (in_calibration(tsz={**VALUES, "from": [2, 1]}), "must be a list of increasing numbers"),
        (in_calibration(tsz={**VALUES, "gain": [1, -1]}), "gain=-1: must be a number from 0"),
        (in_calibration(tsz={**VALUES, "to": [3, 2]}), "tsz.to=.*: must be .* that do not fall"),
        (in_calibration(radio={**VALUES, "to": [3, 2]}), "radio.to=.*: must be .* do not fall"),
        (in_calibration(kappa={**TABLE, "gain": [1, 1e19]}), "gain=1e.19: must be .* from 0 to 10"),
        (in_calibration(velocity_gains=[1e19]), "velocity_gains=1e.19: must be .* from 0 to 10"),
        (in_calibration(amplitude={"ksz": 1e19}), "amplitude.ksz=1e.19: must be .* from 0 to 10"),
        (in_calibration(radio_mean_rate=0), "radio_mean_rate=0: must be a number from 1e-09"),
        (in_calibration(large_scales={**LARGE, "ell": [9, 0]}), "ell=.*: must be .* increasing"),
        (dsfg(flux_mjy=[9, 7]), "dsfg.flux_mjy=.*: must be .* do not fall"),
        (lambda h: h.update(cib_templates={"ghz": [353, 148]}), "ghz=.*: must be .* increasing"),
        # of members that nobody has thought of
        (in_calibration(new={**TABLE, "ell": [9, 2]}), "calibration.new.ell=.*: must be .* incre"),
        (in_calibration(new={**VALUES, "to": [3, 2]}), "calibration.new.to=.*: .* do not fall"),
        (in_calibration(new=[{"a": {"gain": [1e19]}}]), r"calibration.new\[0\].a.gain=1e.19: must"),
        (in_calibration(new={"gain": [1, 1]}), "new.gain=.*: .* as many numbers, as ell beside it"),
        (in_calibration(other_gains=[-1]), "calibration.other_gains=-1: must be a number from 0"),
        (in_calibration(new=[1, [1e300]]), r"calibration.new\[1\]\[0\]=1e.300: must be a number"),
        (
            lambda h: h.update(sources={"new": {"ghz": [2, 1]}}),
            "sources.new.ghz=.*: must be .* incr",
        ),
        (lambda h: h.update(sources={"dsfg": {"per_sr": 1e30}}), "dsfg.per_sr=1e.30: must be"),
        (lambda h: h.update(sources={"dsfg": 1}), "sources.dsfg=1: must be a mapping"),
        (lambda h: h.update(cib_templates={"ghz": [148]}), "cib_templates.preset=None: must be"),
        (lambda h: h.update(cosmology={"h": []}), r"cosmology.h=\[\]: must be a number"),
        (lambda h: h.update(preset=[]), r"preset=\[\]: must be text"),
    ],
)
def test_headers_of_strangers(saved, edit, message):
    """Their digest is right, what they say is not."""
    path, _, _ = saved
    rewrite(path, edit=edit)
    for call in (weights.load, weights.read_header, weights.open_weights):
        with pytest.raises(RegistryError, match=message) as caught:
            call(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < LONGEST_LINE


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"width": 4096}, "cannot be built with .*a larger network than the tensors"),
        ({"width": 0}, "cannot be built with"),
        ({"width": 2.5}, "cannot be built with"),
        ({"width": None}, "cannot be built with"),
        ({"width": [2]}, "cannot be built with"),
        ({"width": 2, "outputs": 4096}, "has shape .* needs"),
        ({"self": 1}, "cannot be built with"),
    ],
)
def test_absurd_architectures(saved, kwargs, message):
    path, _, _ = saved
    rewrite(path, edit=lambda head: head["networks"]["paint"].update(kwargs=kwargs))
    started = time.monotonic()
    with pytest.raises(RegistryError, match=message):
        weights.build(path)
    assert time.monotonic() - started < SLOW_SECONDS


@pytest.mark.parametrize("changed", [{"velocity_levels": 4096}, {"widths": [4096] * 64}])
def test_networks_of_many_parts(tmp_path, changed):
    module = Paint(0.0, 1.0, widths=(2, 2), noise=(1, 1), velocities=1, velocity_levels=1)
    path = tmp_path / "a.safetensors"
    head = {**header(networks()), "networks": {"paint": weights.network_header(module)}}
    weights.save(path, weights.pack({"paint": module}), head)
    rewrite(path, edit=in_kwargs(**changed))
    with pytest.raises(RegistryError, match=r"cannot be built|is missing"):
        weights.build(path)


def test_networks_in_other_threads_may_be_larger(saved, monkeypatch):
    path, _, _ = saved
    state, _ = weights.load(path)
    made = []
    monkeypatch.setattr(weights, "SMALL", 0)
    with weights._no_larger_than({"a": state["score.score.bias"]}):
        thread = threading.Thread(target=lambda: made.append(Critic(width=4)))
        thread.start()
        thread.join()
        with pytest.raises(ValueError, match="a larger network"):
            Critic(width=4)
    assert made
    assert Critic(width=4)


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
