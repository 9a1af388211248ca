"""Full-sky maps and catalogues of others, read, checked, and brought to uK_CMB at 148 GHz."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments, old_names
from mlsky.components import COMPONENTS, REFERENCE_GHZ
from mlsky.frequency import bands, cib, radio, scaling, tsz
from mlsky.sphere import fitsmaps, gaussian
from mlsky.sphere.geometry import Car, Geometry, Healpix

__all__ = ["FIELDS", "POINT_LIKE", "Catalogue", "FullSky", "open_catalogue", "open_map"]

#: Fields that can be cut out, in the order in which they are written.
FIELDS = ("kappa", "ksz", "tsz", "cib", "radio")

#: Those made of sources.
POINT_LIKE = ("cib", "radio")

#: Range of the rms over the sky (uK_CMB at 148 GHz; dimensionless for kappa) outside which the
#: unit must be wrong: a hundred times less or more than in Sehgal et al. 2010, or further.
#: Mistaking K for uK, or Jy for MJy, is a factor of 1e6.
PLAUSIBLE_RMS = {
    "kappa": (1e-3, 10.0),
    "ksz": (0.02, 200.0),
    "tsz": (0.05, 1e3),
    "cib": (0.02, 2e3),
    "radio": (1e-3, 2e4),
}

#: Share of the tSZ's strength at 148 GHz below which a map of it tells nothing.
_TSZ_LEAST = 0.02

#: Units as FITS headers write them, and those of ours that they may stand for.
_HEADER_UNITS = {
    "uK": ("uK_CMB", "uK_RJ"),
    "muK": ("uK_CMB", "uK_RJ"),
    "microK": ("uK_CMB", "uK_RJ"),
    "uK_CMB": ("uK_CMB",),
    "uK_RJ": ("uK_RJ",),
    "uKCMB": ("uK_CMB",),
    "1": ("dimensionless",),
    "dimensionless": ("dimensionless",),
    "y": ("y",),
    "K": ("K_CMB",),
    "K_CMB": ("K_CMB",),
    "KCMB": ("K_CMB",),
    "Jy/sr": ("Jy/sr",),
    "Jysr-1": ("Jy/sr",),
    "MJy/sr": ("MJy/sr",),
    "MJysr-1": ("MJy/sr",),
}


@dataclass(frozen=True)
class FullSky:
    """A checked full-sky map, read anew when it is needed.

    Parameters
    ----------
    field
        One of `FIELDS`.
    source
        Path or array.
    geometry
        Its pixels.
    unit, nu_ghz
        Of the values in `source`.
    digest
        Hash of the values, by which an interrupted run knows its inputs again.
    nonnegative
        Whether no value is below zero.
    scale
        Number that values are multiplied by.
    """

    field: str
    source: object = field(repr=False)
    geometry: Geometry
    unit: str
    nu_ghz: float
    nest: bool
    digest: str
    nonnegative: bool
    scale: float = 1.0

    def read(self) -> NDArray[np.float32]:
        """Values, *(npix,)*, uK_CMB at 148 GHz (kappa: dimensionless), RING order."""
        values, _, _ = _load(self.field, self.source, self.nest)
        factor = np.float32(_factor(self.field, self.unit, self.nu_ghz) * self.scale)
        return values if factor == 1 else values * factor

    def describe(self) -> dict:
        """What a set remembers of its map."""
        about = {"unit": self.unit, "nu_ghz": self.nu_ghz, "scale": self.scale}
        return about | {"blake2b": self.digest} | _name(self.source)


@dataclass(frozen=True)
class Catalogue:
    """Checked point sources.

    Parameters
    ----------
    vectors
        Unit vectors, *(3, n)*.
    flux_mjy
        At 148 GHz, *(n,)*.
    """

    vectors: NDArray[np.float64]
    flux_mjy: NDArray[np.float64]
    about: dict = field(default_factory=dict)

    def below(self, flux_cut_mjy: float | None) -> Catalogue:
        """Sources of at most `flux_cut_mjy`; all for None."""
        if flux_cut_mjy is None:
            return self
        keep = self.flux_mjy <= flux_cut_mjy
        return Catalogue(self.vectors[:, keep], self.flux_mjy[keep], self.about)


def open_map(
    name: str,
    source,
    unit: str | None = None,
    nu_ghz: float = REFERENCE_GHZ,
    nest: bool = False,
    scale: float = 1.0,
) -> FullSky:
    """Read a map once and check all of it.

    Parameters
    ----------
    name
        One of `FIELDS`.
    source
        Path of a FITS file (HEALPix, or CAR with its WCS) or of a ``.npy`` file (HEALPix), a
        HEALPix array *(npix,)*, or a pixell enmap *(ny, nx)*; full-sky.
    unit
        "dimensionless" for kappa; "y" or a unit of `mlsky.frequency.bands.UNITS` for tsz; such a
        unit for the others. None takes that of the FITS header, or else uK_CMB.
    nu_ghz
        Frequency of the map.
    nest
        Whether a HEALPix array is in NESTED order; FITS headers say so themselves.
    scale
        Number to multiply the map by.

    Raises
    ------
    ValueError
        If the file cannot be read, the map is not full-sky, a pixel is NaN or UNSEEN, or the
        unit or frequency is wrong.
    """
    unit, scale = _check_unit(name, unit), _check_scale(name, scale)
    nu_ghz, nest = _check_frequency(name, nu_ghz), arguments.boolean(f"{name}: nest", nest)
    values, geometry, header_unit = _load(name, source, nest)
    known = _HEADER_UNITS.get(header_unit.replace(" ", "").replace("thermo", ""), ())
    if header_unit and not known and unit is None:
        raise ValueError(
            f"{name}: its unit is {header_unit!r}, none of {', '.join(allowed_units(name))}; "
            "convert the map, or state which of them it is in"
        )
    if unit is None:
        default = "dimensionless" if name == "kappa" else "uK_CMB"
        unit = known[0] if known and name != "kappa" else default
    if known and unit not in known:
        raise ValueError(
            f"{name}: unit {unit!r} was stated, but the file says {header_unit!r}; state "
            f"{known[0]!r} or mend its header"
        )
    factor = _factor(name, unit, nu_ghz)
    bad = int(np.count_nonzero(~np.isfinite(values) | (np.abs(values) > 1e30)))
    if bad:
        raise ValueError(
            f"{name}: {bad} of {values.size} pixels are NaN, infinite or UNSEEN; fill them first"
        )
    rms = float(np.std(values, dtype=np.float64)) * abs(factor)
    low, high = PLAUSIBLE_RMS[name]
    if not low <= rms <= high:
        meant = "" if name == "kappa" else " uK_CMB at 148 GHz"
        raise ValueError(
            f"{name}: rms of {rms:.3g}{meant} if its unit is {unit!r}, where {low:g} to {high:g} "
            "is expected; state the unit it has"
        )
    digest = hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16).hexdigest()
    nonnegative = bool(values.min() >= 0)
    return FullSky(name, source, geometry, unit, float(nu_ghz), nest, digest, nonnegative, scale)


def open_catalogue(
    name: str, source, nu_ghz: float = REFERENCE_GHZ, scale: float = 1.0
) -> Catalogue:
    """Read the sources of a field and check them.

    Parameters
    ----------
    name
        "cib" or "radio".
    source
        Path of a file that `astropy.table.Table.read` knows, a table, or a mapping of columns:
        ``ra`` and ``dec`` (deg), ``flux_mjy`` at `nu_ghz`, and if there are, ``alpha``, the
        index of each flux at 148 GHz, and ``kind``, "dsfg" (cib) or "radio". Columns with
        units are converted.
    scale
        Number to multiply fluxes by.

    Raises
    ------
    ValueError
        If it cannot be read, lacks a column, or a source lies outside the sky or has no flux.
    """
    if name not in POINT_LIKE:
        raise ValueError(f"catalogue of {name!r}: only {' and '.join(POINT_LIKE)} have sources")
    scale = _check_scale(name, scale)
    columns = _columns(name, source)
    flux = columns["flux_mjy"]
    checks = (
        ("ra", "degrees from -360 to 360", np.abs(columns["ra"]) <= 360),
        ("dec", "degrees from -90 to 90", np.abs(columns["dec"]) <= 90),
        ("flux_mjy", "mJy, finite, >= 0", np.isfinite(flux) & (flux >= 0)),
        ("alpha", "finite", np.isfinite(columns.get("alpha", 0.0))),
    )
    for column, allowed, good in checks:
        good = np.broadcast_to(good, flux.shape)
        if not good.all():
            row = int(np.argmin(good))
            raise ValueError(
                f"{name} catalogue: {column}[{row}]={columns[column][row]:g}, must be {allowed}; "
                "mend or drop the row"
            )
    digest = hashlib.blake2b(digest_size=16)
    for column in sorted(columns):
        digest.update(np.ascontiguousarray(columns[column]).data)
    nu_ghz = _check_frequency(name, nu_ghz)
    about = {"nu_ghz": float(nu_ghz), "scale": scale, "blake2b": digest.hexdigest()}
    if nu_ghz != REFERENCE_GHZ:
        law, alpha = (cib, cib.index()) if name == "cib" else (radio, radio.ALPHA_MEAN)
        flux = flux / law.flux(np.ones_like(flux), columns.get("alpha", alpha), nu_ghz)
    ra, dec = np.radians(columns["ra"]), np.radians(columns["dec"])
    vectors = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    return Catalogue(vectors, flux * scale, about | _name(source))


def _columns(name: str, source) -> dict[str, np.ndarray]:
    """Columns of a catalogue as float64, one entry per source of this kind."""
    from astropy.table import Table
    from astropy.units import Quantity, UnitConversionError

    if isinstance(source, (str, os.PathLike)):
        with arguments.reading(f"{name} catalogue {source}"):
            table = Table.read(source)
    else:
        table = source
    try:
        names = set(table.keys() if isinstance(table, (Mapping, Table)) else table.dtype.names)
    except (AttributeError, TypeError):
        names = set()
    missing = {"ra", "dec", "flux_mjy"} - names
    if missing:
        raise ValueError(
            f"{name} catalogue: lacks {', '.join(sorted(missing))}; it must have columns ra and "
            "dec (deg) and flux_mjy"
        )
    out = {}
    for column, unit in {"ra": "deg", "dec": "deg", "flux_mjy": "mJy", "alpha": None}.items():
        if column not in names:
            continue
        values = table[column]
        if getattr(values, "mask", None) is not None and np.any(values.mask):
            raise ValueError(f"{name} catalogue: {column} has masked rows; drop them")
        if unit and getattr(values, "unit", None) is not None:
            try:
                values = Quantity(values).to_value(unit)
            except UnitConversionError:
                raise ValueError(
                    f"{name} catalogue: {column} in {values.unit}, must be in {unit}"
                ) from None
        out[column] = np.atleast_1d(np.asarray(values, np.float64))
    if len({v.shape for v in out.values()}) > 1 or out["ra"].ndim != 1:
        raise ValueError(f"{name} catalogue: columns must be of one length")
    if "kind" in names:
        mine = old_names.kinds(table["kind"]) == ("dsfg" if name == "cib" else "radio")
        out = {column: values[mine] for column, values in out.items()}
    return out


def _name(source) -> dict:
    """Name of the file, not where one machine keeps it."""
    return {"file": Path(source).name} if isinstance(source, (str, os.PathLike)) else {}


def _check_unit(name: str, unit: str | None) -> str | None:
    if name not in FIELDS:
        raise ValueError(f"field {name!r}: must be one of {', '.join(FIELDS)}")
    allowed = allowed_units(name)
    if unit is not None and unit not in allowed:
        raise ValueError(f"{name}: unit {unit!r}, must be one of {', '.join(allowed)}")
    return unit


def allowed_units(name: str) -> tuple[str, ...]:
    """Units that a map of a field may have."""
    return {"kappa": ("dimensionless",), "tsz": ("y", *bands.UNITS)}.get(name, bands.UNITS)


def _check_scale(name: str, scale: float) -> float:
    allowed = "a number > 0, for example 0.75"
    least = np.finfo(float).tiny
    return arguments.number(f"{name}: scale", scale, allowed, least, np.finfo(float).max)


def _check_frequency(name: str, nu_ghz) -> float:
    """One frequency, a number or a Quantity, in GHz."""
    try:
        (found,) = bands.parse_freqs(nu_ghz)
    except ValueError as error:
        raise ValueError(f"{name}: {error}; give one") from None
    return float(found)


def _factor(name: str, unit: str, nu_ghz: float) -> float:
    """Takes a map in `unit` at `nu_ghz` to uK_CMB at 148 GHz."""
    if unit == "dimensionless":
        return 1.0
    if unit == "y":
        return float(tsz.uk_per_y(REFERENCE_GHZ))
    _check_frequency(name, nu_ghz)
    if name == "radio":  # no law for maps: the mean index stands for all sources
        to_uk = bands.jy_per_sr_per_uk(REFERENCE_GHZ) / bands.jy_per_sr_per_uk(nu_ghz)
        law = float(np.squeeze(radio.flux(1.0, radio.ALPHA_MEAN, nu_ghz))) * to_uk
    else:
        law = scaling.factor(COMPONENTS[name].scaling, nu_ghz)
    if name == "tsz" and abs(law) < _TSZ_LEAST:
        raise ValueError(f"tsz: nu_ghz={nu_ghz:g} is its null; give a map at another frequency")
    return float(bands.convert(nu_ghz, unit) / law)


def _load(name: str, source, nest: bool) -> tuple[NDArray[np.float32], Geometry, str]:
    """Values in RING order, *(npix,)*, their pixels, and the unit of the header, or ''."""
    unit, wcs = "", None
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.is_file():
            raise ValueError(f"{name}: no file {path}")
        if path.suffix == ".npy":
            with arguments.reading(f"{name}: {path}"):
                source = np.load(path, mmap_mode="r", allow_pickle=False)
        if path.suffix != ".npy":
            found = fitsmaps.read_fits(name, path)
            source, wcs, unit, nest = found.values, found.wcs, found.unit, False
    else:
        wcs, unit = getattr(source, "wcs", None), str(getattr(source, "unit", None) or "")
        if unit:
            source = source.value
    values = np.asarray(arguments.unmask(source))
    if values.dtype.kind not in "iuf":
        raise ValueError(f"{name}: map of type {values.dtype}, must be real numbers")
    if wcs is not None and values.ndim == 2:
        try:
            geometry: Geometry = Car(values.shape, wcs)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        _check_full(name, geometry)
    else:
        nside = round(np.sqrt(values.size / 12))
        if values.ndim != 1 or values.size != 12 * nside**2 or nside < 1 or nside & (nside - 1):
            raise ValueError(
                f"{name}: map of shape {values.shape}, must be HEALPix (12 nside^2,) or a "
                "pixell enmap (ny, nx)"
            )
        geometry = Healpix(nside)
        if nest:
            import healpy

            values = healpy.reorder(np.array(values), n2r=True)
    with np.errstate(over="ignore"):  # refused as infinite
        values = np.ascontiguousarray(values, np.float32).reshape(-1)
    return values, geometry, unit


def _check_full(name: str, geometry: Car) -> None:
    ring = gaussian.rings(geometry)
    good = ring is not None and ring.full
    if good:
        step = np.radians(geometry.pixel_arcmin / 60) * 1.01
        good = ring.theta.min() < step and ring.theta.max() > np.pi - step
    if not good:
        raise ValueError(
            f"{name}: CAR map of shape {geometry.shape} does not cover the full sky in whole "
            "rings, as pixell.enmap.fullsky_geometry does"
        )
