"""Conversion of any kind of cosmology to one frozen `Cosmology`.

`parse` takes a name, a dict, a `pyccl.Cosmology` or a `camb.CAMBparams`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields, replace

from mlsky import arguments
from mlsky.theory.parameters import DEFAULT, NAMED, RANGES, Cosmology, number

__all__ = [
    "DERIVED",
    "names",
    "parse",
]

_EXAMPLES = {"H0": 67.36, "sigma8": 0.8111}

#: Alternative parameters in a dict: the parameter each one replaces, and its range.
DERIVED = {"H0": ("h", (30.0, 150.0)), "sigma8": ("As", (0.3, 1.5))}


def names() -> tuple[str, ...]:
    """Names that `parse` knows."""
    return tuple(NAMED)


def parse(cosmology: object = DEFAULT) -> Cosmology:
    """Make a `Cosmology` of any of several kinds of object.

    Parameters
    ----------
    cosmology
        A name of `names`; a dict of parameters, with Planck 2018 for missing ones, where H0
        (km/s/Mpc) may replace h and sigma8 may replace As; a `pyccl.Cosmology` (parameters only,
        not its settings for P(k); tau, which CCL does not have, is that of Planck 2018); a
        `camb.CAMBparams`; or a `Cosmology`. CAMB turns a sigma8 into As.

    Raises
    ------
    ValueError
        If the name or a key is unknown, a value is out of range, a parameter is given twice (h and
        H0, As and sigma8), tcmb is not 2.7255 K, or the object is not flat LCDM (curvature, w,
        modified gravity, a running tilt).

    Notes
    -----
    The mass of several massive neutrinos is summed into one eigenstate.
    """
    if isinstance(cosmology, Cosmology):
        return cosmology
    if isinstance(cosmology, str):
        if cosmology not in NAMED:
            shown = arguments.short(cosmology)
            raise ValueError(
                f"cosmology={shown}: must be one of {', '.join(NAMED)}, a dict, "
                "a pyccl.Cosmology or a camb.CAMBparams"
            )
        return Cosmology(**NAMED[cosmology])
    if isinstance(cosmology, Mapping):
        return _from_mapping(cosmology)
    # An object of CAMB or CCL exists only if its package is already loaded.
    for package, kind, adapter in (("camb", "CAMBparams", "camb"), ("pyccl", "Cosmology", "ccl")):
        cls = getattr(sys.modules.get(package), kind, None)
        if cls is not None and isinstance(cosmology, cls):
            return _from_object(cosmology, adapter)
    raise ValueError(
        f"cosmology of type {type(cosmology).__name__}: must be one of {', '.join(NAMED)}, "
        "a dict, a pyccl.Cosmology or a camb.CAMBparams"
    )


def _from_mapping(values: Mapping) -> Cosmology:
    allowed = [field.name for field in fields(Cosmology)] + list(DERIVED)
    unknown = [key for key in values if key not in allowed]
    if unknown:
        raise ValueError(
            f"cosmology has unknown keys {', '.join(map(repr, unknown))}: "
            f"allowed are {', '.join(allowed)}"
        )
    own = dict(values)
    derived = {}
    for name, (replaced, limits) in DERIVED.items():
        if name not in own:
            continue
        if replaced in own:
            raise ValueError(f"cosmology has both {replaced} and {name}: give one of them")
        derived[name] = number(name, own.pop(name), limits, _EXAMPLES[name])
    if "H0" in derived:
        own["h"] = derived["H0"] / 100
    cosmology = Cosmology(**{**NAMED[DEFAULT], **own})
    return _scaled(cosmology, derived["sigma8"]) if "sigma8" in derived else cosmology


def _scaled(cosmology: Cosmology, sigma8: float) -> Cosmology:
    """The cosmology with the As that gives `sigma8`; linear power is proportional to As."""
    from mlsky.plugins import camb

    amplitude = cosmology.As * (sigma8 / camb.sigma8(cosmology)) ** 2
    low, high = RANGES["As"]
    if not low <= amplitude <= high:
        raise ValueError(
            f"cosmology sigma8={sigma8:g}: takes As={amplitude:.3g} with the other parameters, "
            f"which must be from {low:g} to {high:g}"
        )
    return replace(cosmology, As=amplitude)


def _from_object(cosmology: object, adapter: str) -> Cosmology:
    from mlsky.plugins import camb

    if adapter == "camb":
        return Cosmology(**camb.parameters(cosmology))
    from mlsky.plugins import ccl

    values = {"tau": NAMED[DEFAULT]["tau"], **ccl.parameters(cosmology)}
    wanted = values.pop("sigma8", None)
    if wanted is None:
        return Cosmology(**values)
    return _scaled(Cosmology(**values, As=NAMED[DEFAULT]["As"]), wanted)
