"""Entries of headers of weight files: refused in one line that names them and their value.

What a number or a list of numbers must be follows from what it is called, wherever in a header it
stands: nodes of a table rise, gains are factors of order one, what values are mapped to does not
fall. `KINDS` has these rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from mlsky.arguments import short

__all__ = ["KINDS", "LARGEST", "NAME_LENGTH", "Entries", "Kind", "is_number"]

#: Characters of a text or name, our choice.
NAME_LENGTH = 200

#: The largest number of a header: half the range of single precision.
LARGEST = 1e19

#: Limits of our choice. The largest gain or amplitude (those of our files lie between 0.4 and 1.6);
#: the largest value of a map, in uK (the CIB at 857 GHz has some 10^7); the highest multipole.
GAIN, MAP_UK, MULTIPOLE = 10.0, 1e12, 1e6

#: The most clusters on a sky, and bright dusty galaxies per steradian: hundreds are usual.
CLUSTERS, PER_SR = 10**6, 1e6


@dataclass(frozen=True)
class Kind:
    """What a number, or each number of a list, must be.

    Attributes
    ----------
    low, high
        Its range.
    order
        Of a list: "increasing", "not falling" or "".
    along
        Name of the list of nodes, in the same table, that a list has as many numbers as.
    is_list
        Whether it must be a list; a single number otherwise.
    by_name
        Whether it is a mapping of names to such lists or numbers.
    """

    low: float = -LARGEST
    high: float = LARGEST
    order: str = ""
    along: str | None = None
    is_list: bool = True
    by_name: bool = False


#: By the name of the entry. Names that end in "gains" are lists of factors, too, of any size.
#: Numbers with other names may be any up to `LARGEST`.
KINDS = {
    # gains of modes, and values that are mapped to others (`mlsky.training.calibrate`)
    "ell": Kind(0, MULTIPOLE, "increasing"),
    "gain": Kind(0, GAIN, along="ell"),
    "velocity_gains": Kind(0, GAIN),
    "from": Kind(-MAP_UK, MAP_UK, "increasing"),
    "to": Kind(0, MAP_UK, "not falling", along="from"),
    "amplitude": Kind(0, GAIN, is_list=False, by_name=True),
    # of `mlsky.painting.large_scales`
    "response": Kind(-MAP_UK, MAP_UK, along="ell", by_name=True),
    "root": Kind(-MAP_UK, MAP_UK, along="ell", by_name=True),
    "ksz_of_objects": Kind(0, GAIN, along="ell"),
    "mean": Kind(-MAP_UK, MAP_UK, is_list=False, by_name=True),
    "mean_cib": Kind(1e-9, MAP_UK, is_list=False),
    "clusters": Kind(0, CLUSTERS, is_list=False),
    # of `mlsky.painting.finer`: widths are tabulated to 8
    "value": Kind(-MAP_UK, MAP_UK, "increasing"),
    "width": Kind(0, 8, along="value"),
    # of `mlsky.sources`
    "radio_mean_rate": Kind(1e-9, 1e6, is_list=False),
    "radio_fraction": Kind(0, 1, is_list=False),
    "per_sr": Kind(0, PER_SR, is_list=False),
    "mean_cib_uk": Kind(1e-9, MAP_UK, is_list=False),
    "flux_mjy": Kind(0, 1e9, "not falling"),
    # of `mlsky.frequency.cib_templates`
    "ghz": Kind(1, 1e5, "increasing"),
}
#: By what a network's own weights are multiplied when it is exported: any that balanced them.
_GAINS = Kind(0, LARGEST)

#: Fewest numbers of a list: lists of gains may be empty, and a table is interpolated.
_LEAST = {"ell": 2, "from": 2, "velocity_gains": 0, "velocity_kernel_gains": 0, "kernel_gains": 0}


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Entries:
    """Refuses entries of a header, by name and value.

    Parameters
    ----------
    error
        What is raised.
    what
        Of what the header is, for the message.
    """

    def __init__(self, error: type[Exception], what: str) -> None:
        self.error, self.what = error, what

    def refuse(self, name: str, value: object, must: str) -> None:
        raise self.error(f"{self.what}: {short(name)[1:-1]}={short(value)}: must be {must}")

    def mapping(self, name: str, value: object) -> None:
        if not isinstance(value, Mapping):
            self.refuse(name, value, "a mapping")

    def text(self, name: str, value: object) -> None:
        if not isinstance(value, str) or len(value) > NAME_LENGTH:
            self.refuse(name, value, f"text of at most {NAME_LENGTH} characters")

    def number(
        self, name: str, value: object, low: float = -LARGEST, high: float = LARGEST
    ) -> None:
        if not is_number(value) or not low <= value <= high:
            self.refuse(name, value, f"a number from {low:g} to {high:g}")

    def numbers(
        self, name: str, value: object, kind: Kind, least: int = 1, nodes: object = None
    ) -> None:
        """A list of at least `least` numbers of a kind, as many as there are `nodes`."""
        if not isinstance(value, list) or len(value) < least:
            self.refuse(name, value, f"a list of at least {least} numbers")
        for item in value:
            self.number(name, item, kind.low, kind.high)
        if kind.along is not None and (not isinstance(nodes, list) or len(value) != len(nodes)):
            wanted = len(nodes) if isinstance(nodes, list) else "as many"
            self.refuse(name, value, f"a list of {wanted} numbers, as {kind.along} beside it has")
        pairs = list(pairwise(value))
        if kind.order == "increasing" and any(b <= a for a, b in pairs):
            self.refuse(name, value, "a list of increasing numbers")
        if kind.order == "not falling" and any(b < a for a, b in pairs):
            self.refuse(name, value, "a list of numbers that do not fall")

    def table(self, name: str, table: object) -> None:
        """A mapping whose members, and theirs, are of the kinds that their names say."""
        self.mapping(name, table)
        for key, value in table.items():
            kind, label = _kind(key), f"{name}.{key}"
            if kind is None:
                self._unnamed(label, value)
            elif kind.by_name:
                self.mapping(label, value)
                for member, one in value.items():
                    self._of_kind(f"{label}.{member}", one, kind, key, table)
            elif kind.is_list or value is not None:
                self._of_kind(label, value, kind, key, table)

    def members(self, name: str, table: object, *wanted: str) -> None:
        """A mapping that must have some members; their values are for `table` to check."""
        self.mapping(name, table)
        for key in wanted:
            if table.get(key) is None:
                kind = KINDS[key]
                must = "a mapping" if kind.by_name else "a list" if kind.is_list else "a number"
                self.refuse(f"{name}.{key}", None, must)

    def _of_kind(self, name: str, value: object, kind: Kind, key: str, table: Mapping) -> None:
        if kind.is_list:
            self.numbers(name, value, kind, _LEAST.get(key, 1), table.get(kind.along))
        else:
            self.number(name, value, kind.low, kind.high)

    def _unnamed(self, name: str, value: object) -> None:
        """An entry whose name says nothing of it."""
        if isinstance(value, Mapping):
            self.table(name, value)
        elif isinstance(value, list):
            for number, one in enumerate(value):
                self._unnamed(f"{name}[{number}]", one)
        elif is_number(value):
            self.number(name, value)


def _kind(name: object) -> Kind | None:
    """What an entry of this name must be; None if its name says nothing."""
    if not isinstance(name, str):
        return None
    return KINDS.get(name, _GAINS if name.endswith("gains") else None)
