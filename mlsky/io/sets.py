"""Sets of painted or cut regions in HDF5, for training and validation.

A set holds one dataset per field, each (regions, n, n) float32 in uK_CMB at 148 GHz
(convergences dimensionless).

Each region of each field has a checksum of its own (HDF5's Fletcher32), which is compared whenever
it is read; a set that is whole has digests of its attributes, compared when it is opened, and of
its datasets, which `verify` compares. Sets of earlier versions have neither.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from mlsky import seeds
from mlsky.arguments import number, short
from mlsky.io import checksums
from mlsky.io.files import open_regular

__all__ = [
    "FIELDS",
    "add_maps",
    "attributes_in",
    "attributes_of",
    "begin",
    "fields_of",
    "file_hash",
    "is_set",
    "painted_seed",
    "put_attributes",
    "refuse_validation_truth",
    "seal",
    "verify",
]

#: What training reads: the painter's fields and the Gaussian kappa made from kappa_g.
FIELDS = ("kappa", "kappa_g", "ksz", "tsz", "cib", "radio", "kappa_in")

#: What h5py raises where the structure of a file is damaged.
DAMAGED = (OSError, KeyError, ValueError, RuntimeError, TypeError, OverflowError)


@contextlib.contextmanager
def fields_of(
    path: str | os.PathLike, names: Sequence[str], apart: bool = False
) -> Iterator[tuple[list[h5py.Dataset], dict]]:
    """Open the fields of a set; the file is closed at the end of the ``with`` block.

    Parameters
    ----------
    path
        HDF5 set.
    names
        Of the fields.
    apart
        Whether its objects may be stored separately, so that the fields are without them.

    Yields
    ------
    fields, attributes
        Datasets in the order of `names`, each (regions, n, n), and the attributes of the file.

    Raises
    ------
    ValueError
        If the file is not a training set, is damaged, lacks a field, or is without objects that it
        should have; also in the ``with`` block, if what is read there is damaged.
    """
    with _opened(path) as file:
        try:
            missing, attributes = [n for n in names if n not in file], attributes_in(file)
        except DAMAGED as error:
            raise ValueError(_damaged(path, error)) from None
        if missing or "pixel_arcmin" not in attributes:
            lacks = ", ".join(missing) or "the attribute pixel_arcmin"
            raise ValueError(
                f"{path}: lacks {lacks}; a training set has datasets {', '.join(FIELDS)} of shape "
                "(regions, n, n), as `mlsky data paint` writes them"
            )
        for name in ("pixel_arcmin", *(("mass_cut",) if "mass_cut" in attributes else ())):
            number(f"{path}: {name}", attributes[name], "a number > 0", 1e-9, 1e17)
        if "mass_cut" in attributes and not apart:
            raise ValueError(
                f"{path}: its maps are without haloes above {attributes['mass_cut']:g} Msun, and "
                "this needs whole ones; paint it without --objects"
            )
        fields = [_field(file, path, name) for name in names]
        if len({d.shape for d in fields}) > 1:
            raise ValueError(f"{path}: its fields have different shapes; paint or cut it anew")
        yield fields, attributes


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[h5py.File]:
    """An HDF5 file whose attributes are as they were written; what is damaged is a ValueError."""
    try:
        open_regular(path, sys.maxsize).close()  # HDF5 would wait for a pipe
        file = h5py.File(path, "r")
    except (OSError, ValueError) as error:
        reason = short(" ".join(str(error).split()), 160)[1:-1]
        raise ValueError(f"{path}: cannot be read as HDF5 ({reason})") from None
    with file:
        try:
            if checksums.ATTRIBUTE in file.attrs:
                checksums.check_attributes(file)
        except DAMAGED as error:
            raise ValueError(_damaged(path, error)) from None
        try:
            yield file
        except OSError as error:
            # errors of the code inside the block are not ours
            if "read data" not in str(error):
                raise
            raise ValueError(_damaged(path, error)) from None


def _damaged(path: str | os.PathLike, error: Exception) -> str:
    reason = short(" ".join(str(error).split()), 160)[1:-1]
    return f"{path}: damaged ({reason}); paint, cut or copy it anew"


def _field(file: h5py.File, path: str | os.PathLike, name: str) -> h5py.Dataset:
    """A dataset of maps; nothing in it is stored elsewhere."""
    try:
        found = checksums.part(file, name)
    except DAMAGED as error:
        raise ValueError(_damaged(path, error)) from None
    if found.dtype.kind != "f" or found.ndim != 3 or found.shape[-1] != found.shape[-2]:
        raise ValueError(
            f"{path}: {name} is of shape {found.shape} and type {found.dtype}: must be "
            "(regions, n, n) of floats"
        )
    return found


def begin(path: str | os.PathLike, mode: str = "a") -> h5py.File:
    """Open a set that is being made; its structure has checksums too (HDF5 1.10 on).

    Raises
    ------
    ValueError
        If another process has it open, or it cannot be opened.
    """
    try:
        file = h5py.File(path, mode, libver="v110")
    except BlockingIOError:
        raise ValueError(f"{path}: another process is making it; wait for it") from None
    except OSError as error:
        reason = short(" ".join(str(error).split()), 160)[1:-1]
        raise ValueError(f"{path}: cannot be resumed ({reason}); remove it") from None
    if mode != "r" and checksums.ATTRIBUTE in file.attrs:  # killed when all was done
        del file.attrs[checksums.ATTRIBUTE]
    return file


def put_attributes(part: h5py.File | h5py.Dataset, values: Mapping) -> None:
    """Write attributes, texts and lists of texts of fixed length (`mlsky.io.checksums.text`)."""
    for name, value in values.items():
        if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
            part.attrs[name] = np.array([v.encode() for v in value])
        else:
            part.attrs[name] = checksums.text(value) if isinstance(value, str) else value


def attributes_in(part: h5py.File | h5py.Dataset) -> dict:
    """Attributes as `put_attributes` was given them, lists as arrays."""
    return {name: checksums.decoded(value) for name, value in part.attrs.items()}


def add_maps(file: h5py.File, name: str, shape: tuple[int, int, int]) -> None:
    """Make the dataset of a field, (regions, n, n) float32, with a checksum for each region."""
    file.create_dataset(name, shape, "f4", chunks=(1, *shape[1:]), fletcher32=True)


def seal(file: h5py.File) -> None:
    """Put the digests of all that is in a set into it: the last that is written."""
    checksums.seal_hdf5(file)


def is_set(path: str | os.PathLike) -> bool:
    """Whether a file is a training set, and not one of skies."""
    try:
        with _opened(path) as file:
            return "pixel_arcmin" in file.attrs and "format" not in file.attrs
    except ValueError:
        return False


def verify(path: str | os.PathLike) -> str:
    """Compare a set with the digests in it, piece by piece; what was found, in words.

    Raises
    ------
    ValueError
        If it is not as it was written.
    """
    with _opened(path) as file:
        if checksums.ATTRIBUTE not in file.attrs:
            return "has no checksums, as sets made by earlier versions have none"
        try:
            checksums.check_hdf5(file)
        except DAMAGED as error:
            raise ValueError(_damaged(path, error)) from None
    return "as it was written"


def attributes_of(path: str | os.PathLike, names: Sequence[str], apart: bool = False) -> dict:
    """Attributes of a set that has the fields `names`; as `fields_of`."""
    with fields_of(path, names, apart) as (_, attributes):
        return attributes


def file_hash(path: str | os.PathLike) -> str:
    """sha256 of a file."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def painted_seed(attrs: Mapping) -> int | None:
    """Seed of a set painted by `mlsky.haloes.region_sets`, from its attributes; None of others.

    Sets that are cut from one sky may share their seed, and are told apart by their part.
    """
    try:
        painted = "cosmology" in json.loads(attrs["source"])
    except (KeyError, TypeError, ValueError):
        return None
    return int(attrs["seed"]) if painted and "seed" in attrs else None


def refuse_validation_truth(path, attrs: Mapping) -> None:
    """Refuse a set, with these attributes, of the regions that networks are scored on.

    Raises
    ------
    ValueError
        If it was painted with `mlsky.seeds.VALIDATION`.
    """
    if painted_seed(attrs) == seeds.VALIDATION:
        raise ValueError(
            f"{path}: painted with seed {seeds.VALIDATION}, on whose regions mlsky validate scores "
            "networks; take a set of another seed"
        )
