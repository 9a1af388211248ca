"""Files of a training run: tensors with a state in JSON, and a checksum of both.

`checkpoint.safetensors` in the run's folder holds weights, averages and optimisers: enough to
resume exactly. `best.safetensors` holds the averaged generator that scored best.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import torch

from mlsky import old_names
from mlsky.arguments import short
from mlsky.errors import MlskyError
from mlsky.io.files import open_regular, whole

__all__ = ["BEST", "CHECKPOINT", "part", "read_best", "read_checkpoint", "read_state", "write"]

BEST, CHECKPOINT = "best.safetensors", "checkpoint.safetensors"


def write(path: Path, tensors: dict[str, torch.Tensor], state: dict) -> None:
    """Write tensors and a state with ``step``, atomically.

    Raises
    ------
    MlskyError
        If it cannot be written (a full disk); the file before it is left as it was.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    try:
        with whole(path) as temporary:
            text = json.dumps({**state, "checked": True})
            metadata = {"state": text, "sha256": _checksum(tensors, text)}
            save_file(tensors, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise MlskyError(
            f"{path.parent}: the {path.stem} of step {state['step']} cannot be written ({error}); "
            "the one before it is kept: make room and train on"
        ) from None


def _checksum(tensors: dict[str, torch.Tensor], text: str) -> str:
    """Sha256 of the state and of every tensor with its name, type and shape."""
    out = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        values = tensors[name]
        out.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        out.update(values.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return out.hexdigest()


#: The largest checkpoint, our choice, and what is raised by readers of other files.
CHECKPOINT_BYTES = 2**35
UNREADABLE = (OSError, LookupError, ValueError, TypeError, RecursionError, MemoryError)


@contextlib.contextmanager
def _opened(path: Path):
    """A checkpoint file and its metadata; whatever is wrong with them is one error."""
    from safetensors import SafetensorError, safe_open

    try:
        open_regular(path, CHECKPOINT_BYTES).close()  # a pipe would be waited for
        with safe_open(path, "pt") as file:
            yield file, file.metadata() or {}
    except (SafetensorError, *UNREADABLE) as error:
        reason = short(" ".join(str(error).split()), 160).strip("'\"")
        raise ValueError(f"{path}: cannot be read as a checkpoint ({reason}); remove it") from None


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and state of a checkpoint.

    Raises
    ------
    ValueError
        If it cannot be read, or is not as it was written.
    """
    with _opened(path) as (file, metadata):
        state = json.loads(metadata["state"])
        tensors = {k: file.get_tensor(k) for k in file.keys()}
        if not isinstance(state, dict) or not isinstance(state.get("recipe"), dict):
            raise ValueError("it has no recipe")
        # those of earlier versions have no checksum, and no state that says so
        found = {"sha256", "checked"} & {*metadata, *state}
        if found and metadata.get("sha256") != _checksum(tensors, metadata["state"]):
            raise ValueError("its checksum differs")
    state.pop("checked", None)
    return {old_names.tensor(k): v for k, v in tensors.items()}, old_names.keys(state)


def read_state(path: Path) -> dict:
    """State of a checkpoint, without its tensors; raises as `read_checkpoint`."""
    with _opened(path) as (_, metadata):
        return old_names.keys(json.loads(metadata["state"]))


def read_best(folder: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and state of the best generator of a run.

    Raises
    ------
    ValueError
        If it cannot be read, or is not of the run whose checkpoint lies beside it.
    """
    path = folder / BEST
    tensors, state = read_checkpoint(path)
    if (folder / CHECKPOINT).exists():
        run = read_state(folder / CHECKPOINT)
        mine, theirs = (
            f"recipe {s['recipe'].get('name')} and seed {s.get('seed')}" for s in (run, state)
        )
        if mine != theirs:
            raise ValueError(f"{path}: is of {theirs}, the run of {mine}; remove it")
    return tensors, state


def part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k[len(prefix) + 1 :]: v for k, v in tensors.items() if k.startswith(prefix + ".")}
