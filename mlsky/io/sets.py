"""Sets of regions in HDF5, as they are painted or cut, and read for training and validation.

A set holds one dataset per field, each (regions, n, n) float32 in uK_CMB at 148 GHz
(convergences dimensionless).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py

from mlsky import seeds

__all__ = [
    "FIELDS",
    "attributes_of",
    "fields_of",
    "file_hash",
    "painted_seed",
    "refuse_validation_truth",
]

#: What training reads: the painter's fields and the Gaussian start made from kappa_g.
FIELDS = ("kappa", "kappa_g", "ksz", "tsz", "cib", "radio", "kappa_in")


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
        Whether its objects may have been taken apart, so that the fields are without them.

    Yields
    ------
    fields, attributes
        Datasets in the order of `names`, each (regions, n, n), and the attributes of the file.

    Raises
    ------
    ValueError
        If the file is not a training set, lacks a field, or is without objects that it should
        have.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read as HDF5 ({error})") from None
    with file:
        missing = [n for n in names if n not in file]
        if missing or "pixel_arcmin" not in file.attrs:
            lacks = ", ".join(missing) or "the attribute pixel_arcmin"
            raise ValueError(
                f"{path}: lacks {lacks}; a training set has datasets {', '.join(FIELDS)} of shape "
                "(regions, n, n), as `mlsky data paint` writes them"
            )
        if "mass_cut" in file.attrs and not apart:
            raise ValueError(
                f"{path}: its maps are without haloes above {file.attrs['mass_cut']:g} Msun, and "
                "this needs whole ones; paint it without --objects"
            )
        yield [file[n] for n in names], dict(file.attrs)


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
