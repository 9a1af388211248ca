"""Headers of weight files of unknown origin: read within limits, and checked.

A wrong entry is refused in one line that names it, before any tensor is read. Of entries without
effect on maps (recipes, scores, training) only the type is checked.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from mlsky import old_names
from mlsky.arguments import short
from mlsky.components import maps_of
from mlsky.errors import RegistryError
from mlsky.io import plain_json
from mlsky.io.files import open_regular
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.tiles import LARGEST_OVERLAP

__all__ = [
    "FILE_BYTES",
    "FORMAT_VERSION",
    "METADATA_KEY",
    "check",
    "open_file",
    "parse",
    "read",
]

FORMAT_VERSION = 1
METADATA_KEY = "mlsky"

#: Limits of a weight file, our choice; the largest of ours has 12 MB, 30 kB of header and 190
#: tensors: bytes, bytes of its header, tensors, networks, and characters of a name.
FILE_BYTES, HEADER_BYTES, TENSORS, NETWORKS, NAME_LENGTH = 2**30, 2**22, 10_000, 64, 200
#: Types of tensors: those that we write, and the counters of batch norms.
DTYPES = ("F16", "F32", "I64")
#: Limits of the arguments of a network: the largest integer, and the length of a list.
INTEGER, ENTRIES = 4096, 64
#: The largest number of a table: half the range of single precision.
LARGEST = 1e19
#: Allowed pixel sizes of networks (arcmin).
PIXELS_ARCMIN = (0.05, 600.0)
#: The most clusters on a sky, and bright dusty galaxies per steradian, in a table: hundreds are
#: usual.
CLUSTERS, PER_SR = 10**6, 1e6

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")


def open_file(path: Path) -> BinaryIO:
    """Open a weight file to be read.

    Raises
    ------
    RegistryError
        If it cannot be read, is no regular file, or is larger than `FILE_BYTES`.
    """
    try:
        return open_regular(path, FILE_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RegistryError(f"{short(str(path), 300)[1:-1]}: cannot be read ({reason})") from None


def read(path: Path, file: BinaryIO) -> dict[str, Any]:
    """The header of an open file, from its start.

    Raises
    ------
    RegistryError
        If it has none, one larger than `HEADER_BYTES`, or one that `parse` refuses.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if length > HEADER_BYTES and length <= size:
        raise RegistryError(
            f"{path}: has a header of {length} bytes, at most {HEADER_BYTES} are read: not a "
            "weight file of mlsky"
        )
    return parse(path, file.read(length) if 0 < length <= size - 8 else b"", size)


def parse(path: Path, text: bytes, size: int) -> dict[str, Any]:
    """Our header from a safetensors header, which also gives the length of the file.

    Its names are those of the version that wrote it.

    Raises
    ------
    RegistryError
        If the file is not of safetensors, does not have `size` bytes, or is not ours.
    """
    table = _json(text)
    if not isinstance(table, dict) or not all(isinstance(v, dict) for v in table.values()):
        raise RegistryError(f"{path}: not a safetensors file, or truncated; fetch it again")
    tensors = {name: entry for name, entry in table.items() if name != "__metadata__"}
    try:
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        whole = 8 + len(text) + int(end)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        raise RegistryError(f"{path}: not a safetensors file; fetch it again") from None
    if size != whole:
        raise RegistryError(
            f"{path}: has {size} bytes, its header says {short(whole)}: truncated or altered; "
            "fetch it again"
        )
    own = table.get("__metadata__", {}).get(METADATA_KEY)
    header = _json(own) if isinstance(own, str) else None
    if header is None:
        raise RegistryError(f"{path}: a safetensors file without mlsky's header")
    if not isinstance(header, dict) or header.get("format_version") != FORMAT_VERSION:
        version = header.get("format_version") if isinstance(header, dict) else None
        raise RegistryError(
            f"{path}: header format {short(version)}, this mlsky reads {FORMAT_VERSION}; update "
            "mlsky"
        )
    if len(tensors) > TENSORS:
        raise RegistryError(f"{path}: has {len(tensors)} tensors, at most {TENSORS} are read")
    for name, entry in tensors.items():
        if entry.get("dtype") not in DTYPES:
            raise RegistryError(
                f"{path}: tensor {short(name)} is of type {short(entry.get('dtype'))}: must be one "
                f"of {', '.join(DTYPES)}"
            )
    check(old_names.header(header), RegistryError, str(path))
    return header


def check(header: Mapping[str, Any], error: type[Exception], what: str) -> None:
    """Check type and size of everything that is used in computations.

    Parameters
    ----------
    error
        What is raised.
    what
        Of what the header is, for the message.
    """
    entries = _Entries(error, what)
    _check_networks(header, entries)
    entries.number("pixel_arcmin", header.get("pixel_arcmin"), *PIXELS_ARCMIN)
    _check_normaliser(header.get("normaliser"), entries)
    _check_part(header, entries)
    for name in ("recipe", "data", "training", "scores", "calibration", "sources"):
        entries.mapping(name, header.get(name, {}))
    _check_calibration(header.get("calibration", {}), entries)
    dsfg = header.get("sources", {}).get("dsfg")
    if dsfg is not None:
        name = "sources.dsfg"
        entries.mapping(name, dsfg)
        entries.number(f"{name}.per_sr", dsfg.get("per_sr"), 0, PER_SR)
        entries.number(f"{name}.mean_cib_uk", dsfg.get("mean_cib_uk"), 1e-9)
        entries.numbers(f"{name}.flux_mjy", dsfg.get("flux_mjy"), 0)
    templates = header.get("cib_templates")
    if templates is not None:
        entries.mapping("cib_templates", templates)
        entries.numbers("cib_templates.ghz", templates.get("ghz"), 0)
        entries.text("cib_templates.preset", templates.get("preset"))
    overlap = header.get("overlap", 0)
    if (
        isinstance(overlap, bool)
        or not isinstance(overlap, int)
        or not 0 <= overlap <= LARGEST_OVERLAP
    ):
        entries.refuse("overlap", overlap, f"an integer, 0 to {LARGEST_OVERLAP} pixels")
    entries.text("preset", header.get("preset", ""))
    _check_cosmology(header.get("cosmology"), entries)


class _Entries:
    """Refuses entries of a header, by name and value."""

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
        if not _is_number(value) or not low <= value <= high:
            self.refuse(name, value, f"a number from {low:g} to {high:g}")

    def numbers(
        self,
        name: str,
        value: object,
        low: float = -LARGEST,
        *,
        least: int = 1,
        like: object = None,
        increasing: bool = False,
    ) -> None:
        """A list of at least `least` numbers, as many as `like` has, each above the one before."""
        if not isinstance(value, list) or len(value) < least:
            self.refuse(name, value, f"a list of at least {least} numbers")
        for item in value:
            self.number(name, item, low)
        if isinstance(like, list) and len(value) != len(like):
            self.refuse(name, value, f"a list of {len(like)} numbers")
        if increasing and any(b <= a for a, b in pairwise(value)):
            self.refuse(name, value, "a list of increasing numbers")


def _json(text: bytes | str) -> Any:
    """Parsed JSON of finite numbers; None if it is not valid, or too deep."""
    try:
        return plain_json.loads(text)
    except ValueError:
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_networks(header: Mapping[str, Any], entries: _Entries) -> None:
    networks, error, what = header.get("networks"), entries.error, entries.what
    if not isinstance(networks, Mapping) or not networks:
        raise error(f"{what}: 'networks' must name at least one network")
    if len(networks) > NETWORKS:
        raise error(f"{what}: has {len(networks)} networks, at most {NETWORKS} are read")
    for name, entry in networks.items():
        if not isinstance(name, str) or not _NAME.match(name) or len(name) > NAME_LENGTH:
            raise error(f"{what}: network name {short(name)} must be letters, digits and _")
        if (
            not isinstance(entry, Mapping)
            or not isinstance(entry.get("architecture"), str)
            or not isinstance(entry.get("kwargs"), Mapping)
        ):
            raise error(f"{what}: network {name!r} must have an architecture and its kwargs")
        for key in ("inputs", "outputs"):
            listed = entry.get(key)
            if not isinstance(listed, list) or len(listed) > ENTRIES:
                entries.refuse(f"{key} of {name}", listed, f"a list of at most {ENTRIES} names")
            for field in listed:
                entries.text(f"{key} of {name}", field)
        if len(entry["kwargs"]) > ENTRIES:
            entries.refuse(f"kwargs of {name}", entry["kwargs"], f"at most {ENTRIES} options")
        for key, value in entry["kwargs"].items():
            _check_option(f"{short(key)[1:-1]} of {name}", value, entries)


def _check_option(name: str, value: object, entries: _Entries, depth: int = 0) -> None:
    """Check the arguments of a network: numbers, and short lists of numbers or of lists."""
    if isinstance(value, list) and depth < 2 and len(value) <= ENTRIES:
        for item in value:
            _check_option(name, item, entries, depth + 1)
    elif _is_number(value):
        entries.number(name, value, *((-INTEGER, INTEGER) if isinstance(value, int) else ()))
    elif value is not None and not isinstance(value, bool):
        entries.refuse(name, value, f"a number, or a list of at most {ENTRIES}")


def _check_normaliser(value: object, entries: _Entries) -> None:
    entries.mapping("normaliser", value)
    try:
        Normaliser.from_dict(value)
    except (TypeError, ValueError, OverflowError) as error:
        reason = short(str(error), 160)[1:-1]
        raise entries.error(f"{entries.what}: its normaliser cannot be used ({reason})") from None
    for name in value["channels"]:
        entries.text("normaliser.channels", name)
    for key in ("scale", "mean", "std"):
        for number in value[key]:
            if number is not None:
                entries.number(f"normaliser.{key}", number)


def _check_part(header: Mapping[str, Any], entries: _Entries) -> None:
    part, mass_cut = header.get("part", "all"), header.get("mass_cut")
    if part not in ("all", "rest"):
        entries.refuse("part", part, "'all' or 'rest', what the networks paint")
    if part == "all" and mass_cut is not None:
        raise entries.error(
            f"{entries.what}: mass_cut={short(mass_cut)} without part='rest': networks that paint "
            "all leave no objects out; give the part, or no mass_cut"
        )
    if part == "rest" and not (_is_number(mass_cut) and 0 < mass_cut < 1e17):
        entries.refuse("mass_cut", mass_cut, "the mass (Msun) of the objects left out")


def _check_calibration(calibration: Mapping[str, Any], entries: _Entries) -> None:
    """Gains and tables that are applied to maps (`mlsky.training.calibrate`)."""
    for name in ("kappa", "kappa_sky", "ksz", "tsz", *maps_of(calibration, "cib"), "radio"):
        table, what = calibration.get(name), f"calibration.{name}"
        if not table:
            continue
        entries.mapping(what, table)
        entries.numbers(f"{what}.ell", table.get("ell"), 0, least=2, increasing=True)
        entries.numbers(f"{what}.gain", table.get("gain"), 0, like=table["ell"])
        if not name.startswith("k"):  # kappa and kSZ have a gain alone
            values = table.get("from")
            entries.numbers(f"{what}.from", values, least=2, increasing=True)
            entries.numbers(f"{what}.to", table.get("to"), 0, like=values)
    for name in ("velocity_gains", "velocity_kernel_gains", "kernel_gains"):
        entries.numbers(f"calibration.{name}", calibration.get(name, []), 0, least=0)
    amplitude = calibration.get("amplitude", {})
    entries.mapping("calibration.amplitude", amplitude)
    for name, factor in amplitude.items():
        entries.number(f"calibration.amplitude.{name}", factor, 0)
    for name, low, high in (("radio_mean_rate", 0, LARGEST), ("radio_fraction", 0, 1)):
        if calibration.get(name) is not None:
            entries.number(f"calibration.{name}", calibration[name], low, high)
    split = calibration.get("split")
    if split is not None:
        entries.mapping("calibration.split", split)
        values = split.get("value")
        entries.numbers("calibration.split.value", values, increasing=True)
        entries.numbers("calibration.split.width", split.get("width"), 0, like=values)
    if calibration.get("large_scales"):
        _check_large_scales("calibration.large_scales", calibration["large_scales"], entries)


def _check_large_scales(what: str, table: object, entries: _Entries) -> None:
    """The table of `mlsky.painting.large_scales`."""
    entries.mapping(what, table)
    ell = table.get("ell")
    entries.numbers(f"{what}.ell", ell, 0, increasing=True)
    for name in ("response", "root"):
        entries.mapping(f"{what}.{name}", table.get(name))
        for key, values in table[name].items():
            entries.numbers(f"{what}.{name}.{key}", values, like=ell)
    if "ksz" not in table["root"]:
        entries.refuse(f"{what}.root", sorted(table["root"]), "a mapping with ksz")
    if "ksz_of_objects" in table:
        entries.numbers(f"{what}.ksz_of_objects", table["ksz_of_objects"], 0, like=ell)
    mean = table.get("mean", {"cib": table.get("mean_cib")})
    entries.mapping(f"{what}.mean", mean)
    for name, value in mean.items():
        entries.number(f"{what}.mean of {name}", value)
        if value == 0:
            entries.refuse(f"{what}.mean of {name}", value, "other than zero")
    clusters = table.get("clusters", 0)
    entries.number(f"{what}.clusters", clusters, 0, CLUSTERS)


def _check_cosmology(value: object, entries: _Entries) -> None:
    """A name, or parameters by name; which of them there are is known to `mlsky.theory`."""
    if isinstance(value, Mapping):
        for name, number in value.items():
            entries.number(f"cosmology.{name}", number)
    elif value is not None:
        entries.text("cosmology", value)
