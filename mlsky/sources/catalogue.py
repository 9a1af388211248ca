"""Catalogue of radio and dusty sources, and its painting onto maps.

Sources are points: each is put into the pixel that contains it, without interpolation or spherical
harmonics, so that nothing rings and fluxes are conserved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlsky import components, old_names, seeds
from mlsky.frequency import cib, passbands, radio

if TYPE_CHECKING:
    from astropy.table import Table

    from mlsky.sphere.geometry import Geometry

__all__ = [
    "COMPONENTS",
    "KINDS",
    "LISTED_MJY",
    "Placed",
    "band_fluxes",
    "column",
    "draw_polarised_fraction",
    "make",
    "of_drawn",
    "of_place",
    "paint",
    "paint_placed",
    "paint_sparse",
    "place",
    "stokes_fluxes",
]

#: Kinds of source, in the order of the law that scales them; "radio" belongs to the component
#: "radio", "dsfg" to "cib".
KINDS = ("radio", "dsfg")

#: Kind of source that belongs to a component.
COMPONENTS = {"cib": "dsfg", "radio": "radio"}

#: Sources fainter than this at 148 GHz (mJy) are in the maps but not in `mlsky.Sky.catalog`.
LISTED_MJY = 1.0

#: Mean squared polarised fraction. Radio sources: SPTpol at 150 GHz, (6.9 +- 1.1)e-4, rms
#: 2.6 %, the same within errors at 95 GHz and for every flux (Gupta et al. 2019,
#: doi:10.1093/mnras/stz2905, abstract); ACTPol too finds no dependence on flux (Datta et al.
#: 2019, doi:10.1093/mnras/sty2934). Dusty sources, rms 1 %: our choice; SPTpol gives a limit
#: only, < 2.6e-3 at 95 per cent, rms 5 % (Gupta et al. 2019, abstract).
POL_MEAN_SQUARE = {"radio": 6.9e-4, "dsfg": 1e-4}

#: Scatter of ln(polarised fraction). Lognormal as in Puglisi et al. 2018 (arXiv:1712.09639);
#: the width is our choice: median 1.6 %, mean 2.1 % for radio sources.
POL_LOG_SCATTER = 0.7

#: No source is more polarised than synchrotron of a uniform field, (p + 1) / (p + 7/3) with
#: p = 2.5 (Rybicki & Lightman 1979, eq. 6.38b).
POL_MAX = 0.72

#: Degree of the polynomial in the index by which sources are averaged over a band: good to 1e-9
#: for bands 30 % wide and indices from -3 to 5.
INDEX_DEGREE = 12

#: Sources at positions that differ by less (deg; 3.6 mas) are taken for the same one.
PLACE_DEG = 1e-6

#: Columns: unit and what they hold.
COLUMNS = {
    "ra": ("deg", "right ascension, ICRS"),
    "dec": ("deg", "declination, ICRS"),
    "flux_mjy": ("mJy", "flux density at 148 GHz"),
    "alpha": ("", "index of the flux at 148 GHz, d ln S / d ln nu"),
    "kind": (None, "radio or dsfg"),
    "pol_frac": ("", "polarised fraction, the same at every frequency"),
    "pol_angle": ("deg", "polarisation angle, COSMO (HEALPix) convention: from south to east"),
}


def make(ra, dec, flux_mjy, kind, seed: int, *, number=None) -> Table:
    """Catalogue of sources with random spectral indices and polarisation.

    Indices are those of `mlsky.frequency.radio.index_of` and `mlsky.frequency.cib.index_of`.
    Polarised fractions are lognormal, angles uniform. The random numbers of a source depend only on
    the seed, its kind and its number (or, without numbers, its position), not on other sources or
    the order of rows.

    Parameters
    ----------
    ra, dec
        Positions, *(n,)*: numbers in degrees or an astropy Quantity.
    flux_mjy
        Flux densities at 148 GHz, *(n,)*: numbers in mJy or an astropy Quantity.
    kind
        "radio" or "dsfg", one for all or *(n,)*.
    seed
        Seed of the sky; the streams "spectral_index" and "polarisation" are used.
    number
        Non-negative integers that identify the sources, *(n,)*. By default their positions do, to
        the nearest `PLACE_DEG`: sources of one kind at the same position then have the same index
        and polarisation.

    Returns
    -------
    table
        `astropy.table.Table` with the columns of `COLUMNS`, in the order given.

    Raises
    ------
    ValueError
        If lengths differ, a value is not finite, a declination or flux is impossible, a kind is
        unknown, or numbers are not integers or negative.
    """
    from astropy.table import Column, Table

    seed = seeds.check(seed)
    ra, dec = np.atleast_1d(_in_unit(ra, "deg")), np.atleast_1d(_in_unit(dec, "deg"))
    flux_mjy = np.atleast_1d(_in_unit(flux_mjy, "mJy"))
    n = ra.size
    dsfg = _is_dsfg(np.asarray(kind, dtype=str))
    dsfg = np.full(n, bool(dsfg)) if dsfg.ndim == 0 else dsfg
    shapes = {"ra": ra, "dec": dec, "flux_mjy": flux_mjy, "kind": dsfg}
    if number is not None:
        shapes["number"] = number = np.atleast_1d(number)
    if any(values.shape != (n,) for values in shapes.values()):
        sizes = ", ".join(f"{name} {values.shape}" for name, values in shapes.items())
        raise ValueError(f"{sizes}: must have one entry per source, all the same number")
    _check_all(np.isfinite(ra), ra, "ra", "finite degrees")
    _check_all(np.abs(dec) <= 90, dec, "dec", "degrees from -90 to 90")
    _check_all((flux_mjy >= 0) & np.isfinite(flux_mjy), flux_mjy, "flux_mjy", "mJy, finite, >= 0")

    if number is None:
        number = of_place(ra, dec)
    is_dsfg = dsfg.astype(np.int64)
    normal = seeds.normal(seed, "spectral_index", is_dsfg, number)
    alpha = np.where(dsfg, cib.index_of(normal, flux_mjy), radio.index_of(normal))
    mean_square = np.where(dsfg, POL_MEAN_SQUARE["dsfg"], POL_MEAN_SQUARE["radio"])
    normal = seeds.normal(seed, "polarisation", 0, is_dsfg, number)
    pol_frac = draw_polarised_fraction(normal, mean_square)
    pol_angle = 180.0 * seeds.uniform(seed, "polarisation", 1, is_dsfg, number)

    values = {
        "ra": ra % 360.0,
        "dec": dec,
        "flux_mjy": flux_mjy,
        "alpha": alpha,
        "kind": np.where(dsfg, "dsfg", "radio"),
        "pol_frac": pol_frac,
        "pol_angle": pol_angle,
    }
    columns = [
        Column(values[name], name=name, unit=unit, description=text)
        for name, (unit, text) in COLUMNS.items()
    ]
    # keys of at most eight letters fit a FITS header
    meta = {"nu_ghz": components.REFERENCE_GHZ, "polconv": "COSMO", "seed": seed}
    return Table(columns, meta=meta, copy=False)


def draw_polarised_fraction(normal, mean_square) -> np.ndarray:
    """Lognormal polarised fractions of the given mean square from standard normal numbers."""
    # <p^2> = median^2 exp(2 sigma^2) for a lognormal
    median = np.sqrt(mean_square) * np.exp(-(POL_LOG_SCATTER**2))
    return np.minimum(median * np.exp(POL_LOG_SCATTER * normal), POL_MAX)


def of_place(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Numbers of positions (deg) to the nearest `PLACE_DEG`, int64."""
    turn = round(360 / PLACE_DEG)
    column = np.rint(ra % 360 / PLACE_DEG).astype(np.int64) % turn
    return np.rint((dec + 90) / PLACE_DEG).astype(np.int64) * turn + column


def of_drawn(sources: list[dict], seed: int) -> Table:
    """Catalogue of the sources that `mlsky.sources.draw.of_chart` drew on each chart."""
    vectors = np.concatenate([s["vectors"] for s in sources], 1)
    flux, dsfg, number = (
        np.concatenate([s[k] for s in sources]) for k in ("flux", "dsfg", "number")
    )
    ra = np.degrees(np.arctan2(vectors[1], vectors[0])) % 360
    dec = np.degrees(np.arctan2(vectors[2], np.hypot(vectors[0], vectors[1])))
    kind = np.where(dsfg, "dsfg", "radio")
    return make(ra, dec, flux, kind, seed, number=number)


def paint(table: Table, geometry: Geometry, freqs, stokes: str = "TQU") -> np.ndarray:
    """Maps of the sources of a catalogue.

    Each source adds its flux to the pixel that contains it: intensity = flux / pixel area. Sources
    outside the map are left out.

    Parameters
    ----------
    table
        Catalogue as `make` returns it.
    geometry
        Pixels to paint on.
    freqs
        *(nfreq,)* bands or frequencies, as `mlsky.frequency.passbands.parse` takes them.
    stokes
        "T", "QU" or "TQU".

    Returns
    -------
    maps
        uK_CMB, float32, *(nfreq, nstokes, *geometry.shape)*; polarisation in the COSMO (HEALPix)
        convention, Q = p S cos 2psi, U = p S sin 2psi. T is nowhere negative.

    Raises
    ------
    ValueError
        If frequencies or stokes are not valid, or the table lacks a column.
    """
    pixel, values = paint_sparse(table, geometry, freqs, stokes)
    maps = np.zeros((*values.shape[:2], geometry.npix), dtype=np.float32)
    maps[..., pixel] = values
    return maps.reshape(*values.shape[:2], *geometry.shape)


def paint_sparse(
    table: Table,
    geometry: Geometry,
    freqs,
    stokes: str = "TQU",
    painted: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """As `paint`, but only for pixels with sources, as a source map is mostly empty.

    Parameters
    ----------
    painted
        *(n, nfreq)* bool: the bands in which each source is painted; all by default.

    Returns
    -------
    pixel
        Flat numbers of those pixels, int64, growing, *(npixels,)*.
    values
        uK_CMB, float32, *(nfreq, nstokes, npixels)*.
    """
    stokes = components.parse_stokes(stokes)
    return paint_placed(place(table, geometry, stokes != "T"), freqs, stokes, painted)


@dataclass(frozen=True, eq=False)
class Placed:
    """Sources on the pixels of a map: what is the same in all bands.

    Attributes
    ----------
    pixel
        Flat numbers of the pixels with sources, int64, growing, *(npixels,)*.
    per_area
        Jy/sr per mJy in each of them.
    inside
        *(n,)* bool of the sources of the catalogue that lie on the map; what follows is of those.
    slot
        Place of the pixel of each source in `pixel`.
    flux, alpha, dsfg
        Columns of the catalogue, and whether a source is a DSFG.
    polarised
        Q and U of a unit flux, if they are wanted.
    """

    pixel: np.ndarray
    per_area: np.ndarray
    inside: np.ndarray
    slot: np.ndarray
    flux: np.ndarray
    alpha: np.ndarray
    dsfg: np.ndarray
    polarised: tuple[np.ndarray, ...]


def place(table: Table, geometry: Geometry, polarised: bool = True) -> Placed:
    """The sources of a catalogue on the pixels of a map, for `paint_placed`."""
    theta = np.radians(90.0 - column(table, "dec"))
    pixel = geometry.pixel(theta, np.radians(column(table, "ra")))
    inside = pixel >= 0
    # sums run over pixels with sources only, so that the memory is that of the catalogue
    pixel, slot = np.unique(pixel[inside], return_inverse=True)
    per_area = 1e-3 / geometry.area(pixel) if pixel.size else np.zeros(0)
    flux, alpha, dsfg = _laws(table, inside)
    parts = tuple(_stokes_of_unit_flux(table, "QU", inside)) if polarised else ()
    return Placed(pixel.astype(np.int64), per_area, inside, slot, flux, alpha, dsfg, parts)


def paint_placed(
    sources: Placed, freqs, stokes: str = "TQU", painted: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """As `paint_sparse`, of sources whose pixels are known."""
    bands = passbands.parse(freqs)
    stokes = components.parse_stokes(stokes)
    values = np.zeros((len(bands), len(stokes), sources.pixel.size), dtype=np.float32)
    if sources.pixel.size:
        weights = dict(zip("TQU", (None, *sources.polarised), strict=False))
        fluxes = _fluxes(sources.flux, sources.alpha, sources.dsfg, bands)
        for i, flux in enumerate(fluxes):
            if painted is not None:
                flux = np.where(painted[sources.inside, i], flux, 0.0)
            uk = sources.per_area / bands[i].convert("uK_CMB", "Jy/sr")
            for j, weight in enumerate(weights[letter] for letter in stokes):
                each = flux if weight is None else weight * flux
                values[i, j] = np.bincount(sources.slot, each, sources.pixel.size) * uk
    return sources.pixel, values


def _stokes_of_unit_flux(table: Table, stokes: str, rows: np.ndarray) -> list:
    """T (None for 1), Q and U of a unit flux, for the requested Stokes parameters."""
    if stokes == "T":
        return [None]
    fraction = column(table, "pol_frac")[rows]
    twice = 2 * np.radians(column(table, "pol_angle")[rows])
    part = {"T": None, "Q": fraction * np.cos(twice), "U": fraction * np.sin(twice)}
    return [part[letter] for letter in stokes]


def band_fluxes(table: Table, freqs) -> np.ndarray:
    """Flux densities of sources in bands: means of S(nu) weighted by the response to intensity.

    Parameters
    ----------
    table
        Catalogue as `make` returns it.
    freqs
        *(nfreq,)* bands or frequencies, as `mlsky.frequency.passbands.parse` takes them.

    Returns
    -------
    flux_mjy
        mJy, *(nfreq, n)*.
    """
    bands = passbands.parse(freqs)
    made = list(_fluxes(*_laws(table, slice(None)), bands))
    return np.array(made).reshape(len(bands), len(table))


def stokes_fluxes(table: Table, flux: np.ndarray, stokes: str) -> list[np.ndarray]:
    """Fluxes of sources in the Stokes parameters asked for, each in the unit of `flux`."""
    part = _stokes_of_unit_flux(table, stokes, np.ones(len(table), bool))
    return [flux if weight is None else weight * flux for weight in part]


def _laws(table: Table, rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flux, index, and whether they are DSFGs, of the sources in `rows`."""
    flux, alpha = column(table, "flux_mjy")[rows], column(table, "alpha")[rows]
    return flux, alpha, _is_dsfg(np.asarray(table["kind"], dtype=str)[rows])


def _fluxes(
    flux: np.ndarray, alpha: np.ndarray, dsfg: np.ndarray, bands: Sequence[passbands.Band]
) -> Iterator[np.ndarray]:
    """Fluxes (mJy) of sources, band by band."""
    laws = [(~dsfg, radio.flux), (dsfg, cib.flux)]
    for band in bands:
        values = np.empty_like(flux)
        for chosen, law in laws:
            values[chosen] = _in_band(law, flux[chosen], alpha[chosen], band)
        yield values


def _in_band(law: Callable, flux: np.ndarray, alpha: np.ndarray, band: passbands.Band):
    """Fluxes in a band of sources of one law.

    ln of the colour is linear in the index at every frequency, so ln of its mean over a band is
    very smooth in it: a polynomial between the extreme indices serves millions of sources.
    """
    if band.is_single or not flux.size:
        return law(flux, alpha, band.nu_ghz[0])
    low, high = alpha.min(), max(alpha.max(), alpha.min() + 1e-6)
    node = np.polynomial.chebyshev.chebpts1(INDEX_DEGREE + 1)
    index = low + (high - low) * (node + 1) / 2
    colour = band.power @ law(np.ones(len(node)), index, band.nu_ghz)
    fit = np.polynomial.chebyshev.chebfit(node, np.log(colour), INDEX_DEGREE)
    at = 2 * (alpha - low) / (high - low) - 1
    return flux * np.exp(np.polynomial.chebyshev.chebval(at, fit))


def _is_dsfg(kind: np.ndarray) -> np.ndarray:
    """True where a kind is "dsfg"; a ValueError where it is neither."""
    kind = old_names.kinds(kind)
    dsfg = kind == "dsfg"
    known = dsfg | (kind == "radio")
    if not np.all(known):
        unknown = str(np.ravel(kind)[np.argmin(np.ravel(known))])
        raise ValueError(f'kind={unknown!r}: must be one of {", ".join(KINDS)}, as kind="radio"')
    return dsfg


def column(table: Table, name: str) -> np.ndarray:
    """A column as float64 in the unit of `COLUMNS`."""
    if name not in table.colnames:
        raise ValueError(
            f"catalogue without column {name!r}: must have {', '.join(COLUMNS)}, "
            "as mlsky.sources.catalogue.make gives them"
        )
    return _in_unit(table[name], COLUMNS[name][0])


def _in_unit(values, unit: str) -> np.ndarray:
    """Values as float64 in `unit`, which is also assumed for values without a unit."""
    if getattr(values, "unit", None) is not None and values.unit != unit:
        values = values.to(unit)
    return np.asarray(values, dtype=np.float64)


def _check_all(good: np.ndarray, values: np.ndarray, name: str, allowed: str) -> None:
    """Raise a ValueError that shows the first value that is not good."""
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(f"{name}[{row}]={values[row]:g}: must be {allowed}; mend or drop the row")
