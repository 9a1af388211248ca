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
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments
from mlsky.errors import MlskyError
from mlsky.io import checksums
from mlsky.io.files import real, temporary_name, whole
from mlsky.io.layers import TOTAL, Layer, Stored, StoredFits
from mlsky.sphere import geometry as pixels

if TYPE_CHECKING:
    from astropy.io.fits import Header
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
FORMAT = "mlsky sky"
#: Since 2 files carry checksums.
FORMAT_VERSION = 2

#: Column names that healpy.write_map gives to T, Q and U.
COLUMNS = {"T": "TEMPERATURE", "Q": "Q_POLARISATION", "U": "U_POLARISATION"}

#: Values of a HEALPix column in one table row, the number healpy writes and reads fastest.
ROW = 1024

#: Pixels of a FITS file written at once, and the length to which its parts are filled up (FITS
#: standard 4.0, Sec. 3.1).
BLOCK, FITS_RECORD = 2**22, 2880

#: Characters of a text in one FITS card (FITS standard 4.0, Sec. 4.2.1).
CARD = 68

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
    from astropy.utils.exceptions import AstropyUserWarning

    hdf5 = path.suffix.lower() in HDF5
    try:
        with warnings.catch_warnings():
            # Of a truncated file astropy only warns.
            warnings.simplefilter("error", AstropyUserWarning)
            content = _read_hdf5(path, lazy) if hdf5 else _read_fits(path, lazy)
            _check_content(content)
            return content
    except _NotOurs:
        raise
    except (*_DAMAGE, AstropyUserWarning) as error:
        reason = arguments.short(" ".join(str(error).split()), 160).strip("'\"")
        raise ValueError(
            f"{path}: damaged or not a file of mlsky's ({reason}); make it again"
        ) from error


class _NotOurs(ValueError):
    """A file of others, or of a later mlsky: said as it is, not as damage."""


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


def verify(path: str | os.PathLike) -> None:
    """Compare a sky file with the checksums in it, and read all of it.

    Raises
    ------
    ValueError
        If there is no such file, or it is not as it was written.
    """
    read(path)


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


def describe_geometry(geometry: pixels.Geometry) -> dict:
    """A geometry in plain JSON types; `build_geometry` gives it back."""
    if geometry.kind == "healpix":
        return {"kind": "healpix", "nside": geometry.nside, "frame": "equatorial"}
    return geometry.describe()


def build_geometry(description: dict) -> pixels.Geometry:
    """The geometry that `describe_geometry` described."""
    if description["kind"] == "healpix":
        return pixels.Healpix(description["nside"])
    return pixels.Car.build(description)


def write_hdf5(sky, path: Path, there: Collection[str] = ()) -> None:
    """Write a sky to an HDF5 file; maps that are `there` already (paths in the file) stay."""
    import h5py

    with h5py.File(path, "a") as file:
        _clear(file, there)
        file.attrs.update(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            meta=json.dumps(sky.meta),
            geometry=json.dumps(describe_geometry(sky.geometry)),
            stokes=sky.stokes,
            unit=sky.unit,
            created=_now(),
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


def _clear(file, there: Collection[str]) -> None:
    """Leave the maps that are `there` alone: a run before may have been stopped right here."""
    layers = [f"components/{c}/{n}" for c, g in file.get("components", {}).items() for n in g]
    for name in ("freqs_ghz", "catalog", "clusters", *layers):
        if name in file and f"{name}/templates" not in there:
            del file[name]
        elif f"{name}/weights" in file:
            del file[f"{name}/weights"]


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
            raise _NotOurs(f"{path}: an HDF5 file, but no sky written by mlsky")
        version = int(file.attrs["format_version"])
        _check_version(path, version)
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
        }


def _check_version(path: Path, version: int) -> None:
    if version > FORMAT_VERSION:
        raise _NotOurs(
            f"{path}: format {version}, this mlsky reads up to {FORMAT_VERSION}; update mlsky"
        )


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


def _provenance(sky, header: Header, component: str | None) -> None:
    """What made the sky: cards to read by eye, and all of it as JSON."""
    meta = sky.meta
    weights = meta.get("weights", {})
    cards = {
        "MLSKY": (meta.get("version"), "version of mlsky"),
        "COMPONEN": (component or TOTAL, "what the maps hold"),
        "STOKES": (sky.stokes, "Stokes parameters"),
        "POLCCONV": ("COSMO", "polarisation convention"),
        "UNITS": (sky.unit, "unit of the maps"),
        "NFREQ": (len(sky.freqs_ghz), "number of bands"),
        "SEED": (meta.get("seed"), "seed of the sky"),
        "CMBSEED": (meta.get("cmb_seed"), "seed of the unlensed CMB"),
        "WEIGHTS": (weights.get("name"), "networks"),
        "WSHA256": (weights.get("sha256"), "sha256 of the weight file"),
        "CREATED": (_now(), "UTC"),
        "MLSKYFMT": (FORMAT_VERSION, "version of the format; since 2 with checksum"),
        "NHDU": (_number_of_hdus(sky), "header and data units of a whole file"),
    }
    for key, (value, comment) in cards.items():
        if value is not None:
            value = _card(value) if isinstance(value, str) else value
            # A long text and its comment do not fit one card.
            header[key] = value if isinstance(value, str) and len(value) > 40 else (value, comment)
    for band, nu in enumerate(sky.freqs_ghz):
        header[f"FREQ{band}"] = (float(nu), "GHz")
    # quotes and ampersands at the end of a card cannot be read back; JSON has other ways for them
    text = json.dumps(meta, ensure_ascii=True)
    header["METAJSON"] = text.replace("'", "\\u0027").replace("&", "\\u0026")
    header["GEOMETRY"] = json.dumps(describe_geometry(sky.geometry))


def _card(text: str) -> str:
    """Any text in the form of one FITS card, to be read by eye; METAJSON has it whole."""
    plain = text.encode("ascii", "backslashreplace").decode()
    plain = "".join(c if c.isprintable() and c not in "'&" else "?" for c in plain)
    return plain if len(plain) <= CARD else plain[: CARD - 3] + "..."


def write_fits(sky, path: Path, component: str | None = None, ordering: str = "RING") -> None:
    """Write the total or one component to a FITS file that is not there yet."""
    if sky.geometry.kind == "healpix":
        _write_healpix(sky, path, component, ordering)
    else:
        _write_car(sky, path, component)
    checksums.seal_fits(path)


def _number_of_hdus(sky) -> int:
    bands = len(sky.freqs_ghz) if sky.geometry.kind == "healpix" else 0
    return 2 + bands + sum(part is not None for part in (sky.kappa, sky.catalog, sky.clusters))


def _write_healpix(sky, path: Path, component: str | None, ordering: str) -> None:
    from astropy.io import fits

    primary = fits.PrimaryHDU()
    _provenance(sky, primary.header, component)
    primary.writeto(path)
    for band, nu in enumerate(sky.freqs_ghz):
        share = np.eye(len(sky.freqs_ghz))[band]
        cards = {"EXTNAME": f"BAND{band}", "FREQ": (float(nu), "GHz")}
        columns = [COLUMNS[s] for s in sky.stokes]
        _append_healpix(
            path,
            sky.geometry,
            ordering,
            columns,
            sky.unit,
            cards,
            lambda rows, share=share: sky.integrate(share, component, rows),
        )
    kappa = sky.kappa
    if kappa is not None:
        _append_healpix(
            path,
            sky.geometry,
            ordering,
            ["KAPPA"],
            "",
            {"EXTNAME": "KAPPA"},
            lambda rows: kappa[np.newaxis, rows],
        )
    _append_tables(sky, path)


def _append_healpix(
    path: Path,
    geometry,
    ordering: str,
    names: list[str],
    unit: str,
    cards: dict,
    values: Callable[[slice], NDArray],
) -> None:
    """One table with a column per name; `values` gives (ncolumns, n) of a slice of pixels."""
    from astropy.io import fits

    if ordering == "NESTED":
        import healpy

        maps = np.stack([healpy.reorder(one, r2n=True) for one in values(slice(None))])

        def values(rows: slice) -> NDArray:
            return maps[:, rows]

    width = min(ROW, geometry.npix)
    while geometry.npix % width:
        width //= 2
    columns = [fits.Column(name=name, format=f"{width}E", unit=unit or None) for name in names]
    header = fits.BinTableHDU.from_columns(columns).header
    header["NAXIS2"] = geometry.npix // width
    header.update(
        PIXTYPE="HEALPIX",
        ORDERING=ordering,
        COORDSYS="C",
        NSIDE=geometry.nside,
        FIRSTPIX=0,
        LASTPIX=geometry.npix - 1,
        INDXSCHM="IMPLICIT",
        OBJECT="FULLSKY",
        POLCCONV="COSMO",
        **cards,
    )
    with path.open("ab") as file:
        file.write(header.tostring(padding=True).encode("ascii"))
        start = file.tell()
        # Block by block: a sky may be larger than memory.
        for low in range(0, geometry.npix, BLOCK):
            part = values(slice(low, min(low + BLOCK, geometry.npix)))
            rows = np.stack([one.reshape(-1, width) for one in part], axis=1)
            file.write(rows.astype(">f4").tobytes())
        file.write(bytes(-(file.tell() - start) % FITS_RECORD))


def _write_car(sky, path: Path, component: str | None) -> None:
    from astropy.io import fits

    header = sky.geometry.wcs.to_header(relax=True)
    # The cards that describe the array come first, and pixell wants the map in the primary HDU.
    top = fits.Header({"SIMPLE": True, "BITPIX": -32, "NAXIS": len(sky.shape)})
    for axis, size in enumerate(reversed(sky.shape)):
        top[f"NAXIS{axis + 1}"] = size
    top.extend(header, unique=True)
    top["BUNIT"] = sky.unit
    _provenance(sky, top, component)
    ny, nx = sky.geometry.shape
    step = max(1, BLOCK // nx)
    with contextlib.closing(fits.StreamingHDU(path, top)) as stream:
        for share in np.eye(len(sky.freqs_ghz)):
            for name in sky.stokes:
                for low in range(0, ny, step):
                    rows = slice(low, min(low + step, ny))
                    stream.write(sky.integrate(share, component, rows, stokes=name)[0])
    if sky.kappa is not None:
        _append(path, fits.ImageHDU(np.asarray(sky.kappa), header=header, name="KAPPA"))
    _append_tables(sky, path)


def _append(path: Path, hdu) -> None:
    from astropy.io import fits

    with fits.open(path, mode="append") as file:
        file.append(hdu)


def _append_tables(sky, path: Path) -> None:
    from astropy.io import fits

    for name, table in (("CATALOG", sky.catalog), ("CLUSTERS", sky.clusters)):
        if table is not None:
            hdu = fits.table_to_hdu(table)
            hdu.name = name
            _append(path, hdu)


def _read_fits(path: Path, lazy: bool) -> dict:
    from astropy.io import fits
    from astropy.table import Table

    with fits.open(path, memmap=False) as file:
        header = file[0].header
        if "METAJSON" not in header:
            raise _NotOurs(f"{path}: a FITS file, but no sky written by mlsky")
        version = int(header.get("MLSKYFMT", 1))
        _check_version(path, version)
        if version > 1 and not lazy:
            checksums.check_fits(path)
        if len(file) != header["NHDU"]:
            raise OSError(f"{len(file)} of {header['NHDU']} parts, truncated")
        geometry = build_geometry(json.loads(header["GEOMETRY"]))
        stokes, nfreq = header["STOKES"], header["NFREQ"]
        kappa = None
        healpix = geometry.kind == "healpix"
        if lazy and not (healpix and file["BAND0"].header["ORDERING"] == "NESTED"):
            shape = (nfreq, len(stokes), *geometry.shape)
            hdus = tuple(f"BAND{band}" for band in range(nfreq)) if healpix else (0,)
            templates = StoredFits(path.absolute(), hdus, shape)
            if "KAPPA" in file:
                kappa = StoredFits(path.absolute(), ("KAPPA",), geometry.shape)
        elif healpix:
            bands = [_healpix_maps(file[f"BAND{band}"], geometry) for band in range(nfreq)]
            templates = np.stack(bands)
            if "KAPPA" in file:
                kappa = _healpix_maps(file["KAPPA"], geometry)[0]
        else:
            templates = file[0].data.astype(np.float32)
            if "KAPPA" in file:
                kappa = file["KAPPA"].data.astype(np.float32)
        if templates.shape != (nfreq, len(stokes), *geometry.shape):
            raise OSError(f"maps of shape {templates.shape}")
        catalog, clusters = (
            Table.read(file[name], character_as_bytes=False) if name in file else None
            for name in ("CATALOG", "CLUSTERS")
        )
        return {
            "freqs_ghz": [header[f"FREQ{band}"] for band in range(nfreq)],
            "geometry": geometry,
            "stokes": stokes,
            "unit": header["UNITS"],
            "components": {header["COMPONEN"]: [Layer(templates, np.eye(nfreq), stokes)]},
            "kappa": kappa,
            "catalog": catalog,
            "clusters": clusters,
            "meta": json.loads(header["METAJSON"]),
        }


def _healpix_maps(hdu, geometry) -> NDArray[np.float32]:
    """(ncolumns, npix) in RING order."""
    maps = np.stack([hdu.data[name].ravel().astype(np.float32) for name in hdu.columns.names])
    if hdu.header["ORDERING"] == "NESTED":
        import healpy

        maps = np.stack([healpy.reorder(one, n2r=True) for one in maps])
    return maps


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="seconds")
