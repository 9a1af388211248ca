"""Names in files of earlier versions, and what they are called today.

Weight files, checkpoints, reports and catalogues are never rewritten: the readers of this package
pass what they read through `keys` and `tensor`, and the rest of the code knows today's names alone.
"""

from __future__ import annotations

from typing import Any

__all__ = ["JOBS", "NAMES", "header", "job", "keys", "tensor"]

#: Keys of headers, recipes, reports, and parts of tensors' names: old to new.
NAMES = {
    # 0.1.0: tensors and options of networks
    "trunk": "backbone",
    "flow": "velocity_kernels",
    "stamps": "kernels",
    # calibrations; "completion" until version 4 of the default weights
    "flow_gains": "velocity_kernel_gains",
    "stamp_gains": "kernel_gains",
    "completion": "large_scales",
    # scores
    "floor": "tolerance",
}

#: What was generated from what, in scores of 0.1.0; "paint" is also the name of a network.
JOBS = {}


def tensor(name: str) -> str:
    """The name of a tensor, "paint.trunk.head.weight", with each of its parts renamed."""
    return ".".join(NAMES.get(part, part) for part in name.split("."))


def keys(value: Any, names: dict[str, str] = NAMES) -> Any:
    """JSON with the keys of all mappings in it renamed, as a copy."""
    if isinstance(value, dict):
        return {names.get(key, key): keys(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [keys(part, names) for part in value]
    return value


def job(name: str) -> str:
    """What a job of `mlsky.validation` is called."""
    return JOBS.get(name, name)


def header(value: dict[str, Any]) -> dict[str, Any]:
    """The header of a weight file, or the report of a version, with its scores."""
    renamed = keys(value)
    if "scores" in renamed:
        renamed["scores"] = keys(renamed["scores"], JOBS)
    return renamed
