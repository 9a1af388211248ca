"""Skies in FITS (HEALPix, CAR): the total or one component, with provenance."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.io import checksums
from mlsky.io.content import (
    FORMAT_VERSION,
    NotOurs,
    are_plain,
    build_geometry,
    check_version,
    describe_geometry,
    now,
)
from mlsky.io.layers import TOTAL, Layer, StoredFits

if TYPE_CHECKING:
    from astropy.io.fits import Header

__all__ = [
    "read_fits",
    "write_fits",
]

#: Column names that healpy.write_map gives to T, Q and U.
COLUMNS = {"T": "TEMPERATURE", "Q": "Q_POLARISATION", "U": "U_POLARISATION"}

#: Values of a HEALPix column in one table row, the number healpy writes and reads fastest.
ROW = 1024

#: Pixels of a FITS file written at once, and the length to which its parts are filled up (FITS
#: standard 4.0, Sec. 3.1).
BLOCK, FITS_RECORD = 2**22, 2880

#: Characters of a text in one FITS card (FITS standard 4.0, Sec. 4.2.1).
CARD = 68


def _provenance(sky, header: Header, component: str | None) -> None:
    """The provenance: cards that people can read, and all of it as JSON."""
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
        "CREATED": (now(), "UTC"),
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
    """A text shortened to one FITS card; METAJSON has all of it."""
    plain = text.encode("ascii", "backslashreplace").decode()
    plain = "".join(c if c.isprintable() and c not in "'&" else "?" for c in plain)
    return plain if len(plain) <= CARD else plain[: CARD - 3] + "..."


def write_fits(sky, path: Path, component: str | None = None, ordering: str = "RING") -> None:
    """Write the total or one component to a new FITS file."""
    if sky.geometry.kind == "healpix":
        _write_healpix(sky, path, component, ordering)
    else:
        _write_car(sky, path, component)
    checksums.seal_fits(path)


def _number_of_hdus(sky) -> int:
    bands = len(sky.freqs_ghz) if sky.geometry.kind == "healpix" else 0
    tables = (sky.kappa, sky.catalog, sky.clusters)
    return 2 + bands + sum(part is not None for part in tables) + (not are_plain(sky.bands))


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
    if not are_plain(sky.bands):
        _append(path, _bands_hdu(sky.bands))


def _bands_hdu(bands: Sequence):
    """Table of the points of all passbands: number of the band, frequency, response."""
    from astropy.io import fits

    number = np.repeat(np.arange(len(bands)), [len(band.nu_ghz) for band in bands])
    columns = [
        fits.Column("BAND", "J", array=number),
        fits.Column("NU", "D", unit="GHz", array=np.concatenate([b.nu_ghz for b in bands])),
        fits.Column("RESPONSE", "D", array=np.concatenate([b.weights for b in bands])),
    ]
    hdu = fits.BinTableHDU.from_columns(columns, name="BANDS")
    for index, band in enumerate(bands):
        hdu.header[f"NAME{index}"] = json.dumps(band.name)
    return hdu


def _read_bands(file, nfreq: int) -> list[dict] | None:
    """Passbands as `mlsky.frequency.passbands.Band.from_dict` takes them; None without."""
    if "BANDS" not in file:
        return None
    hdu = file["BANDS"]
    number, nu, weights = (np.array(hdu.data[name]) for name in ("BAND", "NU", "RESPONSE"))
    return [
        {
            "nu_ghz": nu[number == band].astype(np.float64),
            "weights": weights[number == band].astype(np.float64),
            "name": json.loads(hdu.header[f"NAME{band}"]),
        }
        for band in range(nfreq)
    ]


def read_fits(path: Path, lazy: bool) -> dict:
    from astropy.io import fits
    from astropy.table import Table

    with fits.open(path, memmap=False) as file:
        header = file[0].header
        if "METAJSON" not in header:
            raise NotOurs(f"{path}: a FITS file, but no sky written by mlsky")
        version = int(header.get("MLSKYFMT", 1))
        check_version(path, version)
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
            "bands": _read_bands(file, nfreq),
            "geometry": geometry,
            "stokes": stokes,
            "unit": header["UNITS"],
            "components": {header["COMPONEN"]: [Layer(templates, np.eye(nfreq), stokes)]},
            "kappa": kappa,
            "catalog": catalog,
            "clusters": clusters,
            "meta": json.loads(header["METAJSON"]),
            "version": version,
        }


def _healpix_maps(hdu, geometry) -> NDArray[np.float32]:
    """(ncolumns, npix) in RING order."""
    maps = np.stack([hdu.data[name].ravel().astype(np.float32) for name in hdu.columns.names])
    if hdu.header["ORDERING"] == "NESTED":
        import healpy

        maps = np.stack([healpy.reorder(one, n2r=True) for one in maps])
    return maps
