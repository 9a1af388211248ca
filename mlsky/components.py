"""The fields of a sky: what each is called, its unit and sign, and how it scales with frequency.

Maps are made at `REFERENCE_GHZ` in uK_CMB and taken to other bands by the law named in
`Component.scaling`: ``"flat"`` (a blackbody shift, the same in uK_CMB at every frequency),
``"tsz"``, ``"cib"`` or ``"radio"`` (`mlsky.frequency.scaling`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mlsky import arguments

__all__ = [
    "COMPONENTS",
    "MEANS",
    "REFERENCE_GHZ",
    "STOKES",
    "Component",
    "maps_of",
    "parse",
    "parse_monopole",
    "parse_stokes",
]

#: Frequency (GHz) at which maps and fluxes are made: the 148 GHz of the simulations of
#: Sehgal et al. 2010, doi:10.1088/0004-637X/709/2/920, and of Han et al. 2021.
REFERENCE_GHZ = 148.0

#: Allowed values of `stokes`.
STOKES = ("T", "QU", "TQU")


def maps_of(names: Iterable[str], *fields: str) -> list[str]:
    """The maps that belong to the given fields, in their order.

    A field may have several maps, called "cib" and "cib_353", or "tsz_0" and "tsz_1".
    """
    return [name for name in names if name.split("_")[0] in fields]


#: Components whose maps have a mean over the sky that can be subtracted.
MEANS = ("tsz", "cib")


@dataclass(frozen=True)
class Component:
    """One field of the sky.

    Parameters
    ----------
    name
        Its name, as in ``sky[name]``.
    unit
        Unit of its map at `REFERENCE_GHZ`.
    sign
        Sign of the signal at `REFERENCE_GHZ`: -1 nowhere positive, +1 nowhere negative,
        0 either.
    scaling
        How it scales with frequency: "flat", "tsz", "cib" or "radio".
    stokes
        Stokes parameters that it has; the others are zero. For the CIB and radio Q and U
        come from the sources of the catalogue alone.
    """

    name: str
    unit: str
    sign: int
    scaling: str
    stokes: str


#: Every component, in the order in which they are listed, summed and written.
COMPONENTS = {
    component.name: component
    for component in (
        Component("cmb", "uK_CMB", 0, "flat", "TQU"),
        Component("tsz", "uK_CMB", -1, "tsz", "T"),
        Component("ksz", "uK_CMB", 0, "flat", "T"),
        Component("cib", "uK_CMB", +1, "cib", "TQU"),
        Component("radio", "uK_CMB", +1, "radio", "TQU"),
    )
}


def parse(names: str | Iterable[str] | None = None, others: Iterable[str] = ()) -> tuple[str, ...]:
    """Names of components, checked, each once, in the order of `COMPONENTS` and of `others`.

    Parameters
    ----------
    names
        One name or several; None for all of `COMPONENTS`.
    others
        Names of components of other packages, which are allowed too.

    Raises
    ------
    ValueError
        If a name is unknown, or none is given.
    """
    if names is None:
        return tuple(COMPONENTS)
    allowed = (*COMPONENTS, *others)
    try:
        single = isinstance(names, (str, bytes, Mapping))
        asked = [names] if single else list(names)
    except TypeError:
        asked = [names]
    for name in asked:
        if not isinstance(name, str) or name not in allowed:
            raise ValueError(
                f"component {arguments.short(name)}: must be one of {', '.join(allowed)}, "
                'for example components=["cmb", "tsz"]'
            )
    if not asked:
        raise ValueError(
            f"components={arguments.short(names)}: give at least one of {', '.join(allowed)}, "
            "or None for all"
        )
    return tuple(name for name in allowed if name in asked)


def parse_stokes(stokes: str) -> str:
    """`stokes` itself if it is one of `STOKES`.

    Raises
    ------
    ValueError
        If it is not.
    """
    return arguments.choice("stokes", stokes, STOKES)


def parse_monopole(monopole: bool | str | Iterable[str]) -> tuple[str, ...]:
    """Names in `MEANS` whose mean is subtracted.

    Parameters
    ----------
    monopole
        True: none; False: "cib"; or the names of the maps that keep their mean.

    Raises
    ------
    ValueError
        If it is neither a boolean nor names of `MEANS`.
    """
    if isinstance(monopole, (bool, np.bool_)):
        return () if monopole else ("cib",)
    # what can be gone through once would be shown as empty in the provenance
    listed = isinstance(monopole, (list, tuple, set, frozenset))
    kept = tuple(monopole) if listed else (monopole,)
    if not all(isinstance(name, str) and name in MEANS for name in kept):
        raise ValueError(
            f"monopole={arguments.short(monopole)}: must be True, False (which takes the mean of "
            "the CIB off), or "
            f'names of {", ".join(MEANS)} that keep theirs, for example monopole=("tsz",)'
        )
    return tuple(name for name in MEANS if name not in kept)
