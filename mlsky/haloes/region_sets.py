"""Sets of painted regions in HDF5: maps of every field, and the catalogue of every region.

A set holds one dataset per field, each (regions, n, n) float32 in uK_CMB at 148 GHz (convergences
dimensionless), periodic at its edges: the fields of the painter and ``kappa_in``, the Gaussian
kappa made from kappa_g. CIB and radio at further frequencies are ``cib_93``, ``radio_93`` and so
on. ``sources`` (N, 7) float32 has a row for every listed source, columns as
`mlsky.haloes.galaxies.SOURCE_COLUMNS`; those of region i are rows ``sources_end[i - 1]`` to
``sources_end[i]``.

A set with separate objects has the attribute ``mass_cut`` (Msun). Its fields do not contain the
objects; ``objects_kappa``, ``objects_tsz``, ``objects_cib_93`` and so on are their maps
(`mlsky.haloes.region.OBJECT_FIELDS`), ``objects`` (N, 5) and ``objects_end`` list them as sources
are listed, columns as `mlsky.haloes.region.OBJECT_COLUMNS`, and ``sources_object`` has for every
listed source the row of its host among the objects of its region, or -1.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from mlsky import seeds
from mlsky.components import maps_of
from mlsky.frequency.bands import parse_freqs
from mlsky.haloes import tables as painter_tables
from mlsky.haloes.galaxies import SOURCE_COLUMNS
from mlsky.haloes.painter import Painter, with_header
from mlsky.haloes.region import FIELDS as PAINTED
from mlsky.haloes.region import OBJECT_COLUMNS, OBJECT_FIELDS, Region
from mlsky.io import checksums, sets
from mlsky.io.files import check_disk
from mlsky.theory.objects import check_mass_cut, is_object

__all__ = ["FIELDS", "band_names", "load_tables", "map_names", "paint"]

#: Datasets of every set.
FIELDS = (*PAINTED, "kappa_in")
#: Sources per square degree above 1 mJy at 148 GHz, twice the measured number, and the slope of
#: their counts, for the estimate of disk space.
SOURCES_PER_DEG2, COUNTS_SLOPE = 60.0, -1.9
#: Tables of a set: the dataset, and its columns. Rows of region i end at row ``<name>_end[i]``.
SOURCES, OBJECTS = ("sources", SOURCE_COLUMNS), ("objects", OBJECT_COLUMNS)


def paint(
    path: str | os.PathLike,
    regions: int,
    seed: int,
    pixel_arcmin: float = 0.5,
    n: int = 512,
    tables: dict | str | os.PathLike | None = None,
    freqs: Sequence[float] = (),
    catalogue_mjy: float = 1.0,
    objects: float | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> None:
    """Paint a set of regions into an HDF5 file; an interrupted run is resumed.

    The file is called ``<path>.part`` until it is complete.

    Parameters
    ----------
    path
        File to write.
    regions
        How many.
    seed
        Seed of the set; region i depends on (seed, i) alone. `mlsky.seeds.VALIDATION` is not
        allowed.
    pixel_arcmin, n, catalogue_mjy, objects, device
        Of `mlsky.haloes.painter.Painter`.
    tables
        Painter tables, or their file; the shipped ones by default.
    freqs
        Frequencies (GHz) at which CIB and radio are painted besides 148 GHz.
    progress
        Whether to show a bar.

    Raises
    ------
    ValueError
        Before any work starts: if the file exists, cannot be written or does not fit on the disk,
        an unfinished file is of another set, the tables are of another version, or an argument is
        not allowed.
    """
    path = Path(path)
    if path.exists():
        raise ValueError(f"{path}: exists already; give another name or remove it")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: folder {path.parent} does not exist; make it first")
    if isinstance(regions, bool) or not isinstance(regions, (int, np.integer)) or regions < 1:
        raise ValueError(f"regions={regions!r}: must be a whole number, at least 1")
    seeds.check_set(seed)
    freqs = tuple(float(nu) for nu in parse_freqs(freqs)) if len(freqs) else ()
    if len({f"{nu:g}" for nu in freqs}) < len(freqs):
        raise ValueError(f"freqs={list(freqs)}: each may occur only once")
    t = with_header(tables) if isinstance(tables, dict) else load_tables(tables)
    attributes = {
        "pixel_arcmin": float(pixel_arcmin),
        "seed": seed,
        "freqs": np.array(freqs, np.float64),
        "catalogue_mjy": float(catalogue_mjy),
        "source": json.dumps(t["header"], sort_keys=True),
    }
    mass_cut = None
    if objects is not None:
        mass_cut = check_mass_cut(objects, t["log10_mass"], "objects")
        attributes["mass_cut"] = mass_cut
    per_deg2 = 0.0 if mass_cut is None else _per_square_degree(t, mass_cut)
    part = path.with_name(path.name + ".part")
    if part.exists():
        with sets.begin(part, "r") as file:
            _check_same(file, part, attributes, (regions, n, n))
    need = _size(regions, n, pixel_arcmin, map_names(freqs, mass_cut), catalogue_mjy, per_deg2)
    check_disk(part, need, "paint fewer regions")
    painter = Painter(pixel_arcmin, n, t, device, freqs, catalogue_mjy, mass_cut)
    with sets.begin(part, "a") as file:
        _begin(file, attributes, (regions, n, n))
        _fill(file, painter, seed, progress, path.name)
        sets.seal(file)
    os.replace(part, path)


def load_tables(path: str | os.PathLike | None = None) -> dict[str, np.ndarray]:
    """Painter tables from a file, the shipped ones by default.

    Raises
    ------
    ValueError
        If the file is not there, or is no table file of this version.
    """
    if path is not None and not Path(path).is_file():
        raise ValueError(f"{path}: no such file of painter tables; `mlsky tables build` makes them")
    return painter_tables.load(path)


def band_names(freqs: Sequence[float]) -> list[tuple[str, str]]:
    """Datasets of CIB and radio at each of the further frequencies (GHz)."""
    return [(f"cib_{nu:g}", f"radio_{nu:g}") for nu in freqs]


def map_names(freqs: Sequence[float], mass_cut: float | None = None) -> list[str]:
    """Datasets of maps of a set, those of objects last."""
    names = [*FIELDS, *(name for pair in band_names(freqs) for name in pair)]
    if mass_cut is not None:
        names += [f"objects_{name}" for name in maps_of(names, *OBJECT_FIELDS)]
    return [name for name in names if name not in ("objects_kappa_g", "objects_kappa_in")]


def _per_square_degree(tables: dict, mass_cut: float) -> float:
    """Objects per square degree, with a margin for rich regions."""
    number = tables["number"][is_object(tables["z"], tables["log10_mass"], mass_cut)].sum()
    return 2 * float(number) * math.radians(1) ** 2


def _size(
    regions: int,
    n: int,
    pixel_arcmin: float,
    maps: Sequence[str],
    catalogue_mjy: float,
    objects_per_deg2: float = 0.0,
) -> float:
    """Bytes of a set."""
    area = (n * pixel_arcmin / 60) ** 2
    faintest = max(catalogue_mjy, 1e-2)  # fainter ones are few, as the counts turn over
    rows = (len(SOURCE_COLUMNS) + 1) * SOURCES_PER_DEG2 * faintest**COUNTS_SLOPE
    rows += len(OBJECT_COLUMNS) * objects_per_deg2
    return regions * 4.0 * (len(maps) * n**2 + rows * area)


def _check_same(file: h5py.File, part: Path, attributes: dict, shape: tuple) -> None:
    """An unfinished file must be of the same set."""
    if "done" not in file.attrs:
        return
    found = sets.attributes_in(file)
    same = set(attributes) | {"done"} == set(found) - {checksums.ATTRIBUTE} and all(
        np.array_equal(found[key], value) for key, value in attributes.items()
    )
    if not same or "sources_end" not in file or file["kappa"].shape != shape:
        raise ValueError(f"{part}: was begun with other settings; remove it to start anew")


def _begin(file: h5py.File, attributes: dict, shape: tuple[int, int, int]) -> None:
    """Create the datasets of a new file."""
    if "done" in file.attrs:
        return
    for name in list(file):  # of a run that was stopped at this point
        del file[name]
    sets.put_attributes(file, attributes)
    mass_cut = attributes.get("mass_cut")
    for name in map_names(attributes["freqs"], mass_cut):
        sets.add_maps(file, name, shape)
    for name, columns in (SOURCES,) if mass_cut is None else (SOURCES, OBJECTS):
        width = len(columns)
        rows = file.create_dataset(
            name,
            (0, width),
            "f4",
            chunks=(4096, width),
            maxshape=(None, width),
            fletcher32=True,
        )
        sets.put_attributes(rows, {"columns": list(columns)})
        file.create_dataset(f"{name}_end", data=np.zeros(shape[0], np.int64))
    if mass_cut is not None:
        file.create_dataset("sources_object", (0,), "i4", chunks=(4096,), maxshape=(None,))
    file.attrs["done"] = 0


def _fill(file: h5py.File, painter: Painter, seed: int, progress: bool, title: str) -> None:
    """Paint the missing regions; region i depends on (seed, i) alone."""
    from tqdm import tqdm

    done, regions = int(file.attrs["done"]), len(file["kappa"])
    bar = tqdm(total=regions, initial=done, disable=not progress, desc=f"painting {title}")
    with bar:
        for i in range(done, regions):
            region = painter.region(seed, i)
            gaussian_kappa = painter.gaussian_kappa(region.maps[1])
            maps = _maps(region, file.attrs["freqs"])
            for name, values in {**maps, "kappa_in": gaussian_kappa}.items():
                file[name][i] = values.cpu().numpy()
            first = int(file["sources_end"][i - 1]) if i else 0
            _add_rows(file, "sources", i, region.sources)
            if region.objects is not None:
                _add_rows(file, "objects", i, region.objects.rows)
                members = file["sources_object"]
                members.resize(first + len(region.sources), 0)
                members[first:] = region.objects.members.cpu().numpy()
            file.attrs["done"] = i + 1
            file.flush()  # so that a killed run loses one region at most
            bar.update()


def _maps(region: Region, freqs: Sequence[float]) -> dict:
    """Maps of a region by the names of their datasets."""
    whole = [(PAINTED, region, "")]
    if region.objects is not None:
        whole.append((OBJECT_FIELDS, region.objects, "objects_"))
    out = {}
    for fields, part, prefix in whole:
        out |= {prefix + name: values for name, values in zip(fields, part.maps, strict=True)}
        for pair, bands in zip(
            band_names(freqs), zip(part.cib, part.radio, strict=True), strict=True
        ):
            out |= {prefix + name: values for name, values in zip(pair, bands, strict=True)}
    return out


def _add_rows(file: h5py.File, name: str, index: int, rows) -> None:
    """Rows of region `index`; rows of a half-written region are overwritten."""
    table, ends = file[name], file[f"{name}_end"]
    first = int(ends[index - 1]) if index else 0
    table.resize(first + len(rows), 0)
    table[first:] = rows.cpu().numpy()
    ends[index] = first + len(rows)
