"""Skies in HDF5: all layers of all components. The size does not grow with the bands.

Maps read back to the bit (`mlsky.io.layers`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.io import checksums
from mlsky.io.checksums import decoded, text
from mlsky.io.content import (
    FORMAT,
    FORMAT_VERSION,
    NotOurs,
    are_plain,
    build_geometry,
    check_version,
    describe_geometry,
    now,
)
from mlsky.io.layers import Layer, Stored

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = [
    "read_hdf5",
    "template_path",
    "write_hdf5",
]

#: Bytes of one HDF5 chunk: large enough for disks, small enough to read one band of one map.
CHUNK_BYTES = 4 * 2**20


def template_path(component: str) -> str:
    """Where an HDF5 file holds the first layer of a component."""
    return f"components/{component}/0/templates"


def write_hdf5(sky, path: Path, there: Collection[str] = ()) -> None:
    """Write a sky to an HDF5 file; maps that are `there` already (paths in the file) stay."""
    import h5py

    with h5py.File(path, "a") as file:
        file.attrs.update(
            format=text(FORMAT),
            format_version=FORMAT_VERSION,
            meta=text(json.dumps(sky.meta)),
            geometry=text(json.dumps(describe_geometry(sky.geometry))),
            stokes=text(sky.stokes),
            unit=text(sky.unit),
            created=text(now()),
        )
        file["freqs_ghz"] = sky.freqs_ghz
        _write_bands(file, sky.bands)
        components = _group(file, "components")
        for name, layers in sky.layers.items():
            group = _group(components, name)
            for number, layer in enumerate(layers):
                entry = group.require_group(str(number))
                entry.attrs["stokes"] = text(layer.stokes)
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


def _write_bands(file, bands: Sequence) -> None:
    """Passbands, unless ``freqs_ghz`` describes them completely."""
    if are_plain(bands):
        return
    group = _group(file, "bands")
    for number, band in enumerate(bands):
        entry = group.require_group(str(number))
        entry.attrs["name"] = text(band.name or "")
        entry["nu_ghz"], entry["weights"] = band.nu_ghz, band.weights


def _read_bands(file) -> list[dict] | None:
    """Passbands as `mlsky.frequency.passbands.Band.from_dict` takes them; None without."""
    if "bands" not in file:
        return None
    return [
        {
            "nu_ghz": entry["nu_ghz"][()],
            "weights": entry["weights"][()],
            "name": decoded(entry.attrs["name"]) or None,
        }
        for entry in (file["bands"][str(number)] for number in range(len(file["bands"])))
    ]


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
    group.attrs["meta"] = text(json.dumps(dict(table.meta)))
    for name in table.colnames:
        column = table[name]
        values = np.asarray(column)
        is_text = values.dtype.kind == "U"
        group[name] = np.char.encode(values, "utf-8") if is_text else values
        group[name].attrs.update(
            unit=text("" if column.unit is None else str(column.unit)),
            description=text(column.description or ""),
            text=is_text,
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
                unit=decoded(entry.attrs["unit"]) or None,
                description=decoded(entry.attrs["description"]) or None,
            )
        )
    return Table(columns, meta=json.loads(group.attrs["meta"]), copy=False)


def read_hdf5(path: Path, lazy: bool) -> dict:
    import h5py

    with h5py.File(path) as file:
        if decoded(file.attrs.get("format")) != FORMAT:
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
            "bands": _read_bands(file),
            "geometry": build_geometry(json.loads(file.attrs["geometry"])),
            "stokes": decoded(file.attrs["stokes"]),
            "unit": decoded(file.attrs["unit"]),
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
        stokes=decoded(entry.attrs["stokes"]),
        pixels=entry["pixels"][()] if "pixels" in entry else None,
    )
