"""Headers of weight files of unknown origin: read within limits, and checked.

A wrong entry is refused in one line that names it, before any tensor is read. Of entries without
effect on maps (recipes, scores, training) only the type is checked.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from mlsky import old_names
from mlsky.arguments import short
from mlsky.components import maps_of
from mlsky.errors import RegistryError
from mlsky.io import plain_json
from mlsky.io.files import open_regular
from mlsky.networks.entries import NAME_LENGTH, Entries, is_number
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
#: tensors: bytes, bytes of its header, tensors, and networks.
FILE_BYTES, HEADER_BYTES, TENSORS, NETWORKS = 2**30, 2**22, 10_000, 64
#: Types of tensors: those that we write, and the counters of batch norms.
DTYPES = ("F16", "F32", "I64")
#: Limits of the arguments of a network: the largest integer, and the length of a list.
INTEGER, ENTRIES = 4096, 64
#: Allowed pixel sizes of networks (arcmin).
PIXELS_ARCMIN = (0.05, 600.0)
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
    if not isinstance(own, str):
        raise RegistryError(f"{path}: a safetensors file without mlsky's header")
    try:
        header = plain_json.loads(own)
    except ValueError as error:
        reason = short(str(error), 160)[1:-1]
        raise RegistryError(f"{path}: mlsky's header in it cannot be read: {reason}") from None
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
    entries = Entries(error, what)
    _check_networks(header, entries)
    entries.number("pixel_arcmin", header.get("pixel_arcmin"), *PIXELS_ARCMIN)
    _check_normaliser(header.get("normaliser"), entries)
    _check_part(header, entries)
    for name in ("recipe", "data", "training", "scores"):
        entries.mapping(name, header.get(name, {}))
    for name in ("calibration", "sources"):
        entries.table(name, header.get(name, {}))
    _check_calibration(header.get("calibration", {}), entries)
    dsfg = header.get("sources", {}).get("dsfg")
    if dsfg is not None:
        entries.members("sources.dsfg", dsfg, "per_sr", "mean_cib_uk", "flux_mjy")
    templates = header.get("cib_templates")
    if templates is not None:
        entries.table("cib_templates", templates)
        entries.members("cib_templates", templates, "ghz")
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


def _json(text: bytes | str) -> Any:
    """Parsed JSON of finite numbers; None if it is not valid, or too deep."""
    try:
        return plain_json.loads(text)
    except ValueError:
        return None


def _check_networks(header: Mapping[str, Any], entries: Entries) -> None:
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


def _check_option(name: str, value: object, entries: Entries, depth: int = 0) -> None:
    """Check the arguments of a network: numbers, and short lists of numbers or of lists."""
    if isinstance(value, list) and depth < 2 and len(value) <= ENTRIES:
        for item in value:
            _check_option(name, item, entries, depth + 1)
    elif is_number(value):
        entries.number(name, value, *((-INTEGER, INTEGER) if isinstance(value, int) else ()))
    elif value is not None and not isinstance(value, bool):
        entries.refuse(name, value, f"a number, or a list of at most {ENTRIES}")


def _check_normaliser(value: object, entries: Entries) -> None:
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


def _check_part(header: Mapping[str, Any], entries: Entries) -> None:
    part, mass_cut = header.get("part", "all"), header.get("mass_cut")
    if part not in ("all", "rest"):
        entries.refuse("part", part, "'all' or 'rest', what the networks paint")
    if part == "all" and mass_cut is not None:
        raise entries.error(
            f"{entries.what}: mass_cut={short(mass_cut)} without part='rest': networks that paint "
            "all leave no objects out; give the part, or no mass_cut"
        )
    if part == "rest" and not (is_number(mass_cut) and 0 < mass_cut < 1e17):
        entries.refuse("mass_cut", mass_cut, "the mass (Msun) of the objects left out")


def _check_calibration(calibration: Mapping[str, Any], entries: Entries) -> None:
    """Members that the tables applied to maps must have (`mlsky.training.calibrate`)."""
    for name in ("kappa", "kappa_sky", "ksz", "tsz", *maps_of(calibration, "cib"), "radio"):
        table, what = calibration.get(name), f"calibration.{name}"
        if table:
            entries.members(what, table, "ell", "gain")
        if table and not name.startswith("k"):  # kappa and kSZ have a gain alone
            entries.members(what, table, "from", "to")
    if calibration.get("split") is not None:
        entries.members("calibration.split", calibration["split"], "value", "width")
    large = calibration.get("large_scales")
    if large:
        what = "calibration.large_scales"
        entries.members(what, large, "ell", "response", "root")
        if "ksz" not in large["root"]:
            entries.refuse(f"{what}.root", sorted(large["root"]), "a mapping with ksz")
        for name, value in large.get("mean", {"cib": large.get("mean_cib")}).items():
            if not value:
                entries.refuse(f"{what}.mean of {name}", value, "other than zero")


def _check_cosmology(value: object, entries: Entries) -> None:
    """A name, or parameters by name; which of them there are is known to `mlsky.theory`."""
    if isinstance(value, Mapping):
        for name, number in value.items():
            entries.number(f"cosmology.{name}", number)
    elif value is not None:
        entries.text("cosmology", value)
