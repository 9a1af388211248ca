"""Names in files of earlier versions, and what they are called today.

Weight files, checkpoints, reports and catalogues are never rewritten: the readers of this package
pass what they read through `keys` and `tensor`, and the rest of the code knows today's names alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["CLASSES", "NAMES", "SCORES", "header", "keys", "kinds", "scores", "tensor"]

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
    # statistics that training matches
    "given2": "conditional2",
    "given4": "conditional4",
    "given8": "conditional8",
    # scores
    "floor": "tolerance",
}

#: Classes of networks.
CLASSES = {"Points": "PointSources"}

#: First words of keys of scores: what was generated from what ("paint" is also the name of a
#: network), and statistics.
SCORES = {
    "paint": "from_kappa",
    "chain": "end_to_end",
    "given": "conditional mean",
    "direction": "isotropy",
}


def tensor(name: str) -> str:
    """The name of a tensor, "paint.trunk.head.weight", with each of its parts renamed."""
    return ".".join(NAMES.get(part, part) for part in name.split("."))


def keys(value: Any) -> Any:
    """JSON with the keys of all mappings in it renamed, as a copy."""
    if isinstance(value, dict):
        return {NAMES.get(key, key): keys(part) for key, part in value.items()}
    if isinstance(value, list):
        return [keys(part) for part in value]
    return value


def kinds(values: ArrayLike) -> NDArray[np.str_]:
    """Kinds of source, a column of a catalogue, of any shape."""
    import numpy as np  # not above, so that the help of the command line is quick

    values = np.asarray(values, dtype=str)
    return np.where(values == "dusty", NAMES["dusty"], values)


def scores(value: Any) -> Any:
    """Scores (`mlsky.validation.scores.score`, `summary`), names of rows and jobs included."""
    if isinstance(value, list):
        return [scores(part) for part in value]
    if not isinstance(value, dict):
        return value
    renamed = {_score(NAMES.get(key, key)): scores(part) for key, part in value.items()}
    texts = {k: renamed[k] for k in ("name", "job", "statistic") if isinstance(renamed.get(k), str)}
    return renamed | {key: _score(text) for key, text in texts.items()}


def _score(text: str) -> str:
    first, space, others = text.partition(" ")
    return SCORES.get(first, first) + space + others


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
        renamed["scores"] = scores(renamed["scores"])
    return renamed
