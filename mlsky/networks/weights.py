"""Weight files: safetensors with one JSON header, and nothing that can run code.

One file holds one or more networks. A tensor's name is ``<network>.<name in the module>``; the
header describes how each network is built, so that the modules can be made from the file alone. The
same state and header give the same bytes, hence the same sha256.

Header (``metadata["mlsky"]`` of the safetensors file, JSON)::

    format_version   1
    networks         {name: {architecture: "han2021:PIXGAN", kwargs, inputs, outputs}}
    normaliser       Normaliser.to_dict()
    pixel_arcmin     pixel size the networks were trained on
    recipe, data, training, calibration, scores
                     how they were trained, on what, for how long, and how well they do
    digest           sha256 of the header without this line and of every tensor
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from mlsky import old_names
from mlsky.arguments import short
from mlsky.errors import RegistryError
from mlsky.io import plain_json
from mlsky.io.files import write_whole
from mlsky.networks import headers
from mlsky.networks.headers import FORMAT_VERSION
from mlsky.networks.normaliser import Normaliser

__all__ = [
    "ARCHITECTURES",
    "FORMAT_VERSION",
    "SIZE_LIMIT",
    "Weights",
    "architecture",
    "build",
    "load",
    "network_header",
    "open_weights",
    "pack",
    "read_header",
    "save",
]

#: Files above this cannot be shipped in the wheel.
SIZE_LIMIT = 25 * 2**20
#: The only modules a weight file may name: "han2021:PIXGAN" is mlsky.networks.han2021.PIXGAN.
ARCHITECTURES = {
    "default": "mlsky.networks.default",
    "han2021": "mlsky.networks.han2021",
    "unconditional": "mlsky.toys.unconditional",
    "vae": "mlsky.toys.vae",
}

#: Number of weights a network may always have, our choice: 64 MiB are made quickly.
SMALL = 2**24
#: Errors that constructors raise for impossible arguments.
BUILDING = (TypeError, ValueError, LookupError, ArithmeticError, MemoryError, RuntimeError)
_DTYPES = {"float16": np.float16, "float32": np.float32}


@dataclass(frozen=True)
class Weights:
    """The networks of one file, ready to run, with the header of the file."""

    networks: dict[str, torch.nn.Module]
    header: dict[str, Any]
    path: Path
    sha256: str

    def __getitem__(self, name: str) -> torch.nn.Module:
        if name not in self.networks:
            raise ValueError(f"network {name!r}: {self.path.name} has {', '.join(self.networks)}")
        return self.networks[name]

    @property
    def normaliser(self) -> Normaliser:
        """The normaliser the networks were trained with."""
        return Normaliser.from_dict(self.header["normaliser"])

    @property
    def pixel_arcmin(self) -> float:
        """Side of a training pixel (arcmin)."""
        return float(self.header["pixel_arcmin"])

    @property
    def mass_cut(self) -> float | None:
        """Mass (M200m, Msun) above which the networks leave haloes out.

        Of a header whose ``part`` is "rest", see `mlsky.theory.objects`; None for networks that
        paint all.
        """
        if self.header.get("part", "all") == "all":
            return None
        return float(self.header["mass_cut"])


def save(
    path: str | os.PathLike,
    state: Mapping[str, torch.Tensor],
    header: Mapping[str, Any],
    dtype: str = "float16",
    *,
    max_bytes: int | None = SIZE_LIMIT,
) -> str:
    """Write a weight file and return its sha256.

    Parameters
    ----------
    path
        The file; written beside and moved into place, so it is whole or absent.
    state
        Tensors by ``<network>.<name>``; `pack` makes it from modules.
    header
        JSON-able; ``networks`` is required (see the module's docstring).
    dtype
        "float16" or "float32" for matrices and kernels. Vectors (biases, norms and their
        running statistics) stay float32: they need little space and set the scale of the outputs.
    max_bytes
        Largest file allowed; None for no limit.

    Raises
    ------
    ValueError
        A tensor is not finite or too large for half precision, the header is not JSON or
        does not fit the tensors, or the file would exceed `max_bytes`.
    """
    from safetensors.numpy import save as to_bytes

    if dtype not in _DTYPES:
        raise ValueError(f"dtype={dtype!r}: must be one of {', '.join(_DTYPES)}")
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"{path}: folder {path.parent} does not exist; make it first")
    try:
        # The form that a reader sees: JSON turns tuples into lists and keys into strings.
        header = plain_json.loads(json.dumps({**header, "format_version": FORMAT_VERSION}))
    except (TypeError, ValueError) as error:
        raise ValueError(f"header: must be plain finite JSON ({error})") from None
    header.pop("digest", None)
    headers.check(header, ValueError, "header")
    arrays = {name: _array(name, tensor, dtype) for name, tensor in sorted(state.items())}
    _owners(arrays, header, ValueError, "state")
    header["digest"] = _digest(header, arrays)
    # One metadata key only: safetensors keeps metadata in a hash map of random order.
    data = to_bytes(arrays, metadata={headers.METADATA_KEY: _json(header)})
    if max_bytes is not None and len(data) > max_bytes:
        raise ValueError(
            f"{path.name} would be {len(data)} bytes: at most {max_bytes} can be shipped; "
            "use a smaller width, or max_bytes=None for a file of your own"
        )
    write_whole(path, data)
    return hashlib.sha256(data).hexdigest()


def load(
    path: str | os.PathLike, sha256: str | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a weight file: its tensors (floats as float32, on the CPU) and its header.

    Parameters
    ----------
    path
        The file.
    sha256
        The file's hash, where it is known; checked before anything is read from it.

    Raises
    ------
    RegistryError
        The file is missing, truncated, altered, not safetensors, or not ours.
    """
    state, header, _ = _load(Path(path), sha256)
    return state, header


def read_header(path: str | os.PathLike) -> dict[str, Any]:
    """The header alone; the tensors are neither read nor checked (`load` does both)."""
    path = Path(path)
    with headers.open_file(path) as file:
        return old_names.header(headers.read(path, file))


def network_header(
    module: torch.nn.Module, inputs: Sequence[str] = (), outputs: Sequence[str] = ()
) -> dict[str, Any]:
    """The header entry of one network; `module.kwargs` must be the arguments of its class."""
    return {
        "architecture": architecture(module),
        "kwargs": dict(module.kwargs),
        "inputs": list(inputs),
        "outputs": list(outputs),
    }


def architecture(module: torch.nn.Module) -> str:
    """Name of a module's class in a weight file, for example "han2021:PIXGAN"."""
    cls = type(module)
    for name, full in ARCHITECTURES.items():
        if cls.__module__ == full:
            return f"{name}:{cls.__name__}"
    raise ValueError(
        f"{cls.__module__}.{cls.__name__}: must be a class of {' or '.join(ARCHITECTURES.values())}"
    )


def pack(networks: Mapping[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    """One state of several networks: tensors by ``<network>.<name>``."""
    return {
        f"{prefix}.{name}": tensor
        for prefix, module in networks.items()
        for name, tensor in module.state_dict().items()
    }


def build(
    path: str | os.PathLike, device: str | torch.device = "cpu", sha256: str | None = None
) -> dict[str, torch.nn.Module]:
    """The networks of a weight file, by name: in eval mode, without gradients, on `device`.

    Raises
    ------
    RegistryError
        As `load`; or the architecture is unknown or its tensors are not the file's
        (missing, unexpected or of another shape; the message names the first).
    """
    return open_weights(path, device, sha256).networks


def open_weights(
    path: str | os.PathLike, device: str | torch.device = "cpu", sha256: str | None = None
) -> Weights:
    """As `build`, with the header and the hash."""
    path = Path(path)
    state, header, digest = _load(path, sha256)
    networks = {}
    for name, entry in header["networks"].items():
        prefix = f"{name}."
        part = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        networks[name] = _build(path, name, entry, part).to(device)
    return Weights(networks, header, path, digest)


def _build(
    path: Path, name: str, entry: Mapping[str, Any], state: dict[str, torch.Tensor]
) -> torch.nn.Module:
    what = f"{path.name}: network {name!r}"
    cls = _resolve(what, entry["architecture"])
    try:
        # Constructors draw initial weights, which are replaced below: keep the random state of the
        # caller.
        with torch.random.fork_rng(devices=[]), _no_larger_than(state):
            module = cls(**entry["kwargs"])
    except (
        TypeError,
        ValueError,
        LookupError,
        ArithmeticError,
        MemoryError,
        RuntimeError,
    ) as error:
        raise RegistryError(
            f"{what}: {entry['architecture']} cannot be built with {short(entry['kwargs'], 200)} "
            f"({short(str(error), 200)[1:-1]})"
        ) from None
    wanted = module.state_dict()
    for key, tensor in wanted.items():
        if key not in state:
            raise RegistryError(
                f"{what}: tensor {key!r} of {entry['architecture']} is missing; "
                "the file is of another architecture or size"
            )
        if state[key].shape != tensor.shape:
            raise RegistryError(
                f"{what}: tensor {key!r} has shape {tuple(state[key].shape)}, "
                f"{entry['architecture']} needs {tuple(tensor.shape)}"
            )
        if state[key].is_floating_point() != tensor.is_floating_point():
            raise RegistryError(
                f"{what}: tensor {key!r} is of type {state[key].dtype}, {entry['architecture']} "
                f"needs {tensor.dtype}"
            )
    for key in state:
        if key not in wanted:
            raise RegistryError(f"{what}: {entry['architecture']} has no tensor {key!r}")
    module.load_state_dict(state, strict=True)
    return module.eval().requires_grad_(False)


@contextlib.contextmanager
def _no_larger_than(state: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Stop the construction of a network, in this thread, once it has more weights than its file.

    A header may describe a network of any size, which is known only during construction.
    """
    left, mine = max(SMALL, sum(t.numel() for t in state.values())), threading.get_ident()

    def count(module: torch.nn.Module, name: str, weight: torch.nn.Parameter | None) -> None:
        nonlocal left
        if threading.get_ident() != mine or weight is None:
            return
        left -= weight.numel()
        if left < 0:
            raise ValueError("a larger network than the tensors of the file")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _resolve(what: str, name: str) -> type[torch.nn.Module]:
    """The class of "module:Class", only from the modules of `ARCHITECTURES`."""
    known, _, cls_name = name.partition(":")
    if known in ARCHITECTURES:
        module = importlib.import_module(ARCHITECTURES[known])
        cls = vars(module).get(cls_name) if cls_name in module.__all__ else None
        if isinstance(cls, type) and issubclass(cls, torch.nn.Module):
            return cls
    raise RegistryError(
        f"{what}: architecture {short(name)} is unknown to this mlsky; known are the classes of "
        f"{', '.join(ARCHITECTURES)} (a newer mlsky may know it)"
    )


def _array(name: str, tensor: torch.Tensor, dtype: str) -> np.ndarray:
    """The tensor as it is stored."""
    array = tensor.detach().cpu()
    if not array.is_floating_point():
        # A copy in C order: np.ascontiguousarray would make a scalar one-dimensional.
        return array.numpy().copy(order="C")
    array = array.to(torch.float64).numpy()
    if not np.isfinite(array).all():
        raise ValueError(f"tensor {name!r} holds NaN or infinity: these weights are not usable")
    kind = _DTYPES[dtype] if array.ndim > 1 else np.float32
    largest = float(np.abs(array).max(initial=0.0))
    if largest > float(np.finfo(kind).max):
        raise ValueError(
            f"tensor {name!r} reaches {largest:.4g}: at most {np.finfo(kind).max:.4g} fits in "
            f"{np.dtype(kind).name}; save with dtype='float32' or rescale it"
        )
    return array.astype(kind, order="C")


def _load(path: Path, sha256: str | None) -> tuple[dict[str, torch.Tensor], dict[str, Any], str]:
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    with headers.open_file(path) as file:
        if sha256 is None:  # a file of unknown origin: limit the bytes that are read
            headers.read(path, file)
            file.seek(0)
        data = file.read()
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256:
        raise RegistryError(
            f"{path}: sha256 is {digest}, {sha256} was expected: the file is altered or "
            "truncated; fetch it again"
        )
    header = headers.read(path, io.BytesIO(data))
    try:
        state = from_bytes(data)
        arrays = {name: tensor.numpy() for name, tensor in sorted(state.items())}
        of_content = _digest({k: v for k, v in header.items() if k != "digest"}, arrays)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise RegistryError(f"{path}: not a whole safetensors file ({short(error)})") from None
    if header.get("digest") != of_content:
        raise RegistryError(
            f"{path}: its tensors or header do not give its digest: the file is altered; "
            "fetch it again"
        )
    _owners(arrays, header, RegistryError, str(path))
    for name, tensor in state.items():
        if tensor.is_floating_point():
            if not torch.isfinite(tensor).all():
                raise RegistryError(f"{path}: tensor {name!r} holds NaN or infinity")
            state[name] = tensor.to(torch.float32)
    state = {old_names.tensor(name): tensor for name, tensor in state.items()}
    return state, old_names.header(header), digest


def _owners(names, header: Mapping[str, Any], error: type[Exception], what: str) -> None:
    """Every tensor belongs to a network of the header, and no network is empty."""
    owners = {name.partition(".")[0] for name in names}
    for name in names:
        if name.partition(".")[0] not in header["networks"]:
            raise error(
                f"{what}: tensor {name!r} belongs to no network of the header "
                f"({', '.join(header['networks'])})"
            )
    for name in header["networks"]:
        if name not in owners:
            raise error(f"{what}: network {name!r} has no tensors")


def _json(header: Mapping[str, Any]) -> str:
    return json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    total = hashlib.sha256(_json(header).encode())
    for name in sorted(arrays):
        array = arrays[name]
        total.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()
