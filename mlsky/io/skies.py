"""Sky files: HDF5 with everything, FITS (HEALPix, CAR) with the total, provenance in both.

A file appears whole or not at all: it is written beside, under a temporary name, and moved
into place.

HDF5 files hold the layers of a sky (`mlsky.io.layers`), so they are no larger at many bands than at
one and read back to the bit.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments
from mlsky.errors import MlskyError
from mlsky.io import checksums
from mlsky.io.files import real, temporary_name, whole
from mlsky.io.layers import Layer, Stored
from mlsky.io.skies_fits import (
    FORMAT,
    FORMAT_VERSION,
    NotOurs,
    build_geometry,
    check_version,
    describe_geometry,
    now,
    read_fits,
    write_fits,
)

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = [
    "SUFFIXES",
    "beside",
    "build_geometry",
    "check",
    "describe_geometry",
    "read",
    "template_path",
    "verify",
    "write",
    "write_fits",
    "write_hdf5",
]

HDF5 = (".h5", ".hdf5")
FITS = (".fits",)
SUFFIXES = HDF5 + FITS
#: Bytes of one HDF5 chunk: large enough for disks, small enough to read one band of one map.
CHUNK_BYTES = 4 * 2**20


def check(path: str | os.PathLike, overwrite: bool = False, suffixes=SUFFIXES) -> Path:
    """Check that a file may be written at `path`, before any work; nothing is left behind.

    Raises
    ------
    ValueError
        If the suffix is unknown, `path` exists and `overwrite` is False, is a folder, or its
        folder is missing or cannot be written to.
    """
    path = arguments.path("out", path)
    overwrite = arguments.boolean("overwrite", overwrite)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{path}: suffix must be one of {', '.join(suffixes)}")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, give the name of a file")
    if path.exists() and not overwrite:
        raise ValueError(
            f"{path}: exists; choose another name, or overwrite=True (--overwrite) to replace it"
        )
    target = real(path)
    if not target.parent.is_dir():
        raise ValueError(f"{path}: folder {target.parent} does not exist, make it first")
    trial = temporary_name(target)
    try:
        # The only sure test: permissions, read-only and full file systems differ.
        trial.touch(exist_ok=False)
    except OSError as error:
        raise ValueError(
            f"{path}: folder {target.parent} cannot be written to ({error.strerror}), choose "
            "another"
        ) from None
    trial.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder, moved to `path` at the end and removed on failure."""
    try:
        with whole(path) as temporary:
            yield temporary
    except OSError as error:
        reason = error.strerror or str(error)
        raise MlskyError(f"{path}: cannot be written ({reason}); nothing was kept") from error


def write(
    sky,
    path: str | os.PathLike,
    *,
    overwrite: bool = False,
    component: str | None = None,
    ordering: str = "RING",
) -> None:
    """Write a `mlsky.sky.Sky`; see `mlsky.sky.Sky.write`."""
    path = check(path, overwrite)
    if ordering not in ("RING", "NESTED"):
        raise ValueError(f"ordering={ordering!r}: must be 'RING' or 'NESTED'")
    if path.suffix.lower() in HDF5:
        if component is not None or ordering != "RING":
            raise ValueError(
                f"{path}: HDF5 files hold every component in RING order; component= and "
                "ordering= are for .fits"
            )
        with beside(path) as temporary:
            write_hdf5(sky, temporary)
        return
    if component is not None and component not in sky:
        raise ValueError(f"component={component!r}: this sky has {', '.join(sky)}")
    with beside(path) as temporary:
        write_fits(sky, temporary, component, ordering)


def template_path(component: str) -> str:
    """Where an HDF5 file holds the first layer of a component."""
    return f"components/{component}/0/templates"


def read(path: str | os.PathLike, lazy: bool = False) -> dict:
    """Content of a file that `write` has written, as arguments of `mlsky.sky.Sky`.

    With `lazy`, maps stay in the file (`mlsky.io.layers.Stored`, `StoredFits`); those of a NESTED
    FITS file are read all the same.

    Raises
    ------
    ValueError
        If there is no such file, it is not one of mlsky's, or is damaged.
    """
    path = arguments.path("path", path)
    lazy = arguments.boolean("lazy", lazy)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: suffix must be one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    hdf5 = path.suffix.lower() in HDF5
    with _one_line(path):
        content = _read_hdf5(path, lazy) if hdf5 else read_fits(path, lazy)
        _check_content(content)
    return content


#: What the readers of a damaged file raise.
_DAMAGE = (
    OSError,
    KeyError,
    TypeError,
    IndexError,
    ValueError,
    AttributeError,
    RuntimeError,
    OverflowError,
    MemoryError,
    RecursionError,
)


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes its readers raise, as one ValueError."""
    from astropy.utils.exceptions import AstropyUserWarning

    try:
        with warnings.catch_warnings():
            # Of a truncated file astropy only warns.
            warnings.simplefilter("error", AstropyUserWarning)
            yield
    except NotOurs:
        raise
    except (*_DAMAGE, AstropyUserWarning) as error:
        reason = arguments.short(" ".join(str(error).split()), 160).strip("'\"")
        raise ValueError(
            f"{path}: damaged or not a file of mlsky's ({reason}); make it again"
        ) from error


def verify(path: str | os.PathLike) -> str:
    """Compare a sky file with the checksums in it, piece by piece; what was found, in words.

    Raises
    ------
    ValueError
        If there is no such file, or it is not as it was written.
    """
    path = arguments.path("path", path)
    version = read(path, lazy=True)["version"]
    if version < 2:
        return "has no checksums, as files written by earlier versions have none"
    with _one_line(path):
        if path.suffix.lower() in HDF5:
            import h5py

            with h5py.File(path) as file:
                checksums.check_hdf5(file)
        else:
            checksums.check_fits(path)
    return "as it was written"


def _check_content(content: dict) -> None:
    """Whether the parts of a sky are of the right kind and fit each other; ValueError if not."""
    freqs = np.asarray(content["freqs_ghz"], np.float64)
    if freqs.ndim != 1 or not freqs.size or not (np.isfinite(freqs) & (freqs > 0)).all():
        raise ValueError(f"frequencies of shape {freqs.shape}, or not positive")
    if str(content["stokes"]) not in ("T", "QU", "TQU"):
        raise ValueError(f"Stokes parameters {content['stokes']!r}")
    if not isinstance(content["meta"], dict) or not isinstance(content["unit"], str):
        raise ValueError("meta or unit of another type")
    shape = content["geometry"].shape
    for layers in content["components"].values():
        for layer in layers:
            layer.check(freqs.size, shape)
    kappa = content["kappa"]
    if kappa is not None and tuple(kappa.shape) != tuple(shape):
        raise ValueError(f"kappa of shape {tuple(kappa.shape)}")


def write_hdf5(sky, path: Path, there: Collection[str] = ()) -> None:
    """Write a sky to an HDF5 file; maps that are `there` already (paths in the file) stay."""
    import h5py

    with h5py.File(path, "a") as file:
        file.attrs.update(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            meta=json.dumps(sky.meta),
            geometry=json.dumps(describe_geometry(sky.geometry)),
            stokes=sky.stokes,
            unit=sky.unit,
            created=now(),
        )
        file["freqs_ghz"] = sky.freqs_ghz
        components = _group(file, "components")
        for name, layers in sky.layers.items():
            group = _group(components, name)
            for number, layer in enumerate(layers):
                entry = group.require_group(str(number))
                entry.attrs["stokes"] = layer.stokes
                entry["weights"] = layer.weights
                _dataset(entry, "templates", layer.templates)
                if layer.pixels is not None:
                    _dataset(entry, "pixels", layer.pixels)
        if "kappa" not in file and sky.kappa is not None:
            _dataset(file, "kappa", sky.kappa)
        if sky.catalog is not None:
            _write_table(_group(file, "catalog"), sky.catalog)
        if sky.clusters is not None:
            _write_table(_group(file, "clusters"), sky.clusters)
        checksums.seal_hdf5(file)


def _group(parent, name: str):
    """A group that keeps the order of what is in it, made if it is not there."""
    return parent[name] if name in parent else parent.create_group(name, track_order=True)


def _dataset(group, name: str, values: NDArray) -> None:
    """One array, chunked along its last axes so that a part can be read alone."""
    if name in group:
        return
    values = np.asarray(values)
    if not values.size:
        group[name] = values
        return
    chunks = list(values.shape)
    for axis in range(values.ndim):
        rest = int(np.prod(chunks[axis + 1 :], dtype=np.int64)) * values.dtype.itemsize
        chunks[axis] = max(1, min(chunks[axis], CHUNK_BYTES // max(1, rest)))
    group.create_dataset(name, data=values, chunks=tuple(chunks))


def _write_table(group, table: Table) -> None:
    group.attrs["meta"] = json.dumps(dict(table.meta))
    for name in table.colnames:
        column = table[name]
        values = np.asarray(column)
        text = values.dtype.kind == "U"
        group[name] = np.char.encode(values, "utf-8") if text else values
        group[name].attrs.update(
            unit="" if column.unit is None else str(column.unit),
            description=column.description or "",
            text=text,
        )


def _read_table(group) -> Table:
    from astropy.table import Column, Table

    columns = []
    for name, entry in group.items():
        values = entry[()]
        columns.append(
            Column(
                np.char.decode(values, "utf-8") if entry.attrs["text"] else values,
                name=name,
                unit=entry.attrs["unit"] or None,
                description=entry.attrs["description"] or None,
            )
        )
    return Table(columns, meta=json.loads(group.attrs["meta"]), copy=False)


def _read_hdf5(path: Path, lazy: bool) -> dict:
    import h5py

    with h5py.File(path) as file:
        if file.attrs.get("format") != FORMAT:
            raise NotOurs(f"{path}: an HDF5 file, but no sky written by mlsky")
        version = int(file.attrs["format_version"])
        check_version(path, version)
        for _ in checksums.hdf5_parts(file):
            """Nothing leads out of the file; a bare loop, as parts are only looked at."""
        if version > 1 and not lazy:
            checksums.check_hdf5(file)
        components = {
            name: [_read_layer(group[number], path, lazy) for number in group]
            for name, group in file["components"].items()
        }
        return {
            "freqs_ghz": file["freqs_ghz"][()],
            "geometry": build_geometry(json.loads(file.attrs["geometry"])),
            "stokes": file.attrs["stokes"],
            "unit": file.attrs["unit"],
            "components": components,
            "kappa": _array(file["kappa"], path, lazy) if "kappa" in file else None,
            "catalog": _read_table(file["catalog"]) if "catalog" in file else None,
            "clusters": _read_table(file["clusters"]) if "clusters" in file else None,
            "meta": json.loads(file.attrs["meta"]),
            "version": version,
        }


def _array(entry, path: Path, lazy: bool) -> NDArray | Stored:
    if entry.dtype != np.float32:
        raise ValueError(f"{entry.name} is of type {entry.dtype}")
    return Stored(path.absolute(), entry.name, entry.shape) if lazy else entry[()]


def _read_layer(entry, path: Path, lazy: bool) -> Layer:
    return Layer(
        templates=_array(entry["templates"], path, lazy),
        weights=entry["weights"][()],
        stokes=entry.attrs["stokes"],
        pixels=entry["pixels"][()] if "pixels" in entry else None,
    )
