"""Names in files of earlier versions, and what they are called today.

Weight files, checkpoints, reports and catalogues are never rewritten: the readers of this package
pass what they read through `keys` and `tensor`, and the rest of the code knows today's names alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["CLASSES", "JOBS", "NAMES", "header", "job", "keys", "kinds", "tensor"]

#: Keys of headers, recipes, reports, and parts of tensors' names: old to new.
NAMES = {
    # 0.1.0: tensors and options of networks
    "trunk": "backbone",
    "flow": "velocity_kernels",
    "stamps": "kernels",
    "points": "point_sources",
    # calibrations; "completion" until version 4 of the default weights
    "flow_gains": "velocity_kernel_gains",
    "stamp_gains": "kernel_gains",
    "completion": "large_scales",
    "radio_share": "radio_fraction",
    # catalogues, and what a weight file says of its sources
    "dusty": "dsfg",
    # scores
    "floor": "tolerance",
}

#: Classes of networks.
CLASSES = {"Points": "PointSources"}

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


def kinds(values: ArrayLike) -> NDArray[np.str_]:
    """Kinds of source, a column of a catalogue, of any shape."""
    values = np.asarray(values, dtype=str)
    return np.where(values == "dusty", NAMES["dusty"], values)


def job(name: str) -> str:
    """What a job of `mlsky.validation` is called."""
    return JOBS.get(name, name)


def header(value: dict[str, Any]) -> dict[str, Any]:
    """The header of a weight file, or the report of a version, with its scores.

    It need not be a sound one: what cannot be understood stays as it is.
    """
    renamed = keys(value)
    networks = renamed.get("networks")
    for entry in networks.values() if isinstance(networks, dict) else ():
        if isinstance(entry, dict) and isinstance(entry.get("architecture"), str):
            module, colon, name = entry["architecture"].partition(":")
            entry["architecture"] = module + colon + CLASSES.get(name, name)
    if "scores" in renamed:
        renamed["scores"] = keys(renamed["scores"], JOBS)
    return renamed
