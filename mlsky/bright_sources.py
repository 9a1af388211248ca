"""Bright sources of a finished sky: cuts by flux, and masks of them and of clusters."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments
from mlsky.frequency import passbands
from mlsky.io.layers import Layer
from mlsky.sources import catalogue, cuts
from mlsky.sphere import discs

if TYPE_CHECKING:
    from astropy.table import Table

    from mlsky.sky import Sky

__all__ = ["catalogue_of", "fluxes", "mask", "without_beams", "without_sources"]

#: The catalogue is complete above a flux at 148 GHz. In another band it is complete above that flux
#: times this quantile of the colours of its sources. Our choice.
COLOUR_QUANTILE = 0.999


def without_sources(sky: Sky, mjy: float, nu_ghz) -> tuple[dict[str, list[Layer]], Table]:
    """Layers and catalogue of a sky without the sources above a flux in a band.

    Parameters
    ----------
    mjy
        Sources brighter than this are taken out, mJy or a Quantity.
    nu_ghz
        The band: a frequency, a `Band` or a name.

    Raises
    ------
    ValueError
        If the sky has no components or catalogue, or the catalogue is not complete to that flux.
    """
    table = catalogue_of(sky, "a flux cut")
    without_beams(sky, "cut")
    band = one_band(nu_ghz)
    cut = arguments.number(
        "mjy", mjy, "a flux in mJy, positive, for example 15", 0, np.inf, unit="mJy"
    )
    bright = fluxes(table, band, cut) > cut
    gone = np.stack([cuts.in_band(table, i) & bright for i in range(len(sky.bands))], 1)
    layers = {name: list(held) for name, held in sky.layers.items()}
    for name, kind in catalogue.COMPONENTS.items():
        some = gone.any(1) & (np.asarray(table["kind"]) == kind)
        for number, layer in enumerate(layers.get(name, ())):
            if layer.pixels is not None and some.any():
                layers[name][number] = _subtracted(layer, table[some], sky, gone[some])
    listed = table.copy()
    listed["in_map"] = np.asarray(table["in_map"]) & ~bright
    if "in_bands" in table.colnames:
        listed["in_bands"] = np.asarray(table["in_bands"]) & ~bright[:, np.newaxis]
    return layers, listed


def _subtracted(layer: Layer, sources: Table, sky: Sky, gone: NDArray[np.bool_]) -> Layer:
    """A layer of sources without some of them, in the bands where they are `gone`."""
    hit, values = catalogue.paint_sparse(sources, sky.geometry, sky.bands, layer.stokes, gone)
    templates = np.array(layer.templates, np.float32)
    place = np.searchsorted(layer.pixels, hit)
    templates[:, :, place] -= values
    if "T" in layer.stokes:  # what rounding leaves of a bright source may be negative
        row = templates[:, layer.stokes.index("T")]
        np.maximum(row, 0, out=row)
    return dataclasses.replace(layer, templates=templates)


def mask(
    sky: Sky,
    flux_mjy: float | None,
    nu_ghz,
    radius_arcmin: float,
    cluster_mass: float | None,
    cluster_radius: float,
) -> NDArray[np.bool_]:
    """Which pixels of a sky are farther from bright sources and massive clusters than a radius.

    As `Operations.mask`.
    """
    positive = "a positive number, for example 5"
    radius = arguments.number("radius_arcmin", radius_arcmin, positive, 1e-3, 600, unit="arcmin")
    centres = [np.empty((0, 3))]  # ra, dec, radius, all in degrees
    if flux_mjy is not None:
        table = catalogue_of(sky, "a mask of sources")
        band = one_band(nu_ghz)
        cut = arguments.number(
            "flux_mjy", flux_mjy, "a flux in mJy, positive, for example 15", 0, np.inf, unit="mJy"
        )
        bright = table[fluxes(table, band, cut) > cut]
        centres.append(_discs(bright, np.full(len(bright), radius / 60)))
    if cluster_mass is not None:
        least = arguments.number(
            "cluster_mass", cluster_mass, "M500c in Msun, for example 2e14", 0, np.inf, unit="Msun"
        )
        scale = arguments.number("cluster_radius", cluster_radius, positive, 1e-3, 100)
        if sky.clusters is None:
            raise ValueError(
                "cluster_mass: this sky lists no clusters, as its weights paint them; give weights "
                "that leave them out (mlsky weights list)"
            )
        heavy = sky.clusters[np.asarray(sky.clusters["m500c"]) > least]
        theta = scale * np.asarray(heavy["theta500"], np.float64)
        centres.append(_discs(heavy, np.maximum(theta, radius) / 60))
    return discs.outside(sky.geometry, np.concatenate(centres))


def catalogue_of(sky: Sky, what: str) -> Table:
    if sky.catalog is None:
        raise ValueError(
            f"{what} needs the catalogue of sources: make the sky with components 'cib' or 'radio'"
        )
    if not any(name in sky.layers for name in catalogue.COMPONENTS):
        raise ValueError(
            f"{what} needs the components of a sky, and this one holds the total alone: use the "
            "HDF5 file"
        )
    return sky.catalog


def without_beams(sky: Sky, what: str) -> None:
    if sky.meta.get("beams"):
        raise ValueError(
            f"{what}: the sources of this sky have a beam, which hides where they are; do it "
            "before the sky gets the beam, or give simulate flux_cut="
        )


def one_band(nu_ghz) -> passbands.Band:
    found = passbands.parse(nu_ghz)
    if len(found) != 1:
        raise ValueError(f"nu_ghz={arguments.short(nu_ghz)}: must be one band or frequency")
    return found[0]


def fluxes(table: Table, band: passbands.Band, cut: float) -> NDArray[np.float64]:
    """Fluxes (mJy) of listed sources in a band; a cut below which not all are listed is refused."""
    flux = catalogue.band_fluxes(table, band)[0]
    if not len(table):
        return flux
    colour = np.quantile(flux / np.asarray(table["flux_mjy"]), COLOUR_QUANTILE)
    complete = catalogue.LISTED_MJY * float(colour)
    if cut < complete:
        raise ValueError(
            f"{cut:g} mJy in the band {band.label}: the catalogue lists sources above "
            f"{catalogue.LISTED_MJY:g} mJy at 148 GHz, which is all above {complete:.2g} mJy there"
        )
    return flux


def _discs(table: Table, radius_deg: NDArray) -> NDArray[np.float64]:
    """(n, 3): right ascension, declination and radius in degrees."""
    return np.stack(
        [np.asarray(table["ra"], float), np.asarray(table["dec"], float), radius_deg], 1
    )
