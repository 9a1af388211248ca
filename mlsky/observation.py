"""The sky at the bands: maps at 148 GHz scaled, sources painted, units; nothing random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import components as fields
from mlsky.frequency import passbands
from mlsky.io.disk_array import Array
from mlsky.io.layers import Layer
from mlsky.sky import Sky
from mlsky.sources import catalogue, cuts
from mlsky.sphere import geometry as pixels

if TYPE_CHECKING:
    from astropy.table import Table

    from mlsky.component_plugins import Templates
    from mlsky.frequency.cib_templates import CibTemplates

__all__ = [
    "CATALOG_MIN_MJY",
    "Realisation",
    "list_sources",
    "observe",
]

#: Sources fainter than this at 148 GHz are in the maps but not in `Sky.catalog`.
CATALOG_MIN_MJY = catalogue.LISTED_MJY


@dataclass(frozen=True, eq=False)
class Realisation:
    """One sky at the reference frequency, before the bands are applied.

    Attributes
    ----------
    maps
        Name to (n, nstokes, *shape) float32, in memory or in a file; without sources; nstokes is 1
        (T), 2 (Q, U) or 3. One map in uK_CMB at 148 GHz; for a CIB of several templates, the
        template maps followed by the noise maps of `cib`.
    catalog
        All sources, including faint ones, from `mlsky.sources.catalogue`.
    clusters
        Haloes above the mass cut, from `mlsky.haloes.catalogue`; None if the weights paint them.
    kappa
        (*shape,) float32, dimensionless.
    flux_cuts
        From `mlsky.sources.cuts.parse`: one, or one for each band.
    others
        Components of other packages, each with its templates (n, nstokes, *shape).
    cib
        Law of a CIB of several templates; None for one map and one colour.
    placed
        The sources of a component on the pixels, with Q and U or not: what `observe` finds once for
        all bands.
    """

    geometry: pixels.Geometry
    components: tuple[str, ...]
    maps: dict[str, Array]
    catalog: Table | None
    clusters: Table | None
    kappa: Array
    flux_cuts: tuple[tuple[float, passbands.Band], ...] | None
    tsz_temperature_kev: float | None
    meta: dict
    cib: CibTemplates | None = None
    cut_per_band: bool = False
    others: Templates = field(default_factory=dict)
    placed: dict[tuple[str, bool], tuple[catalogue.Placed, NDArray[np.bool] | None]] = field(
        default_factory=dict
    )


def observe(
    realisation: Realisation, bands: Sequence[passbands.Band], *, stokes: str, unit: str
) -> Sky:
    """The sky at the bands: spectra averaged over them, sources painted, units; nothing random.

    Parameters
    ----------
    bands
        From `mlsky.frequency.passbands.parse`.
    """
    to_unit = passbands.convert(bands, "uK_CMB", unit)
    layers: dict[str, list[Layer]] = {name: [] for name in realisation.components}
    for name, values in realisation.maps.items():
        weights = _weights(realisation, name, bands) * to_unit[:, np.newaxis]
        held = {1: "T", 2: "QU", 3: "TQU"}[values.shape[1]]
        layers[name] += _kept(values, weights, held, stokes)
    for name, (plugin, values) in realisation.others.items():
        weights = plugin.at_bands(bands, len(values)) * to_unit[:, np.newaxis]
        layers[name] = _kept(values, weights, plugin.stokes, stokes)
    catalog = realisation.catalog
    if catalog is not None:
        for name in catalogue.COMPONENTS:
            if name not in layers:
                continue
            placed, painted = _placed(realisation, name, stokes != "T")
            if placed.pixel.size:
                hit, templates = catalogue.paint_placed(placed, bands, stokes, painted)
                layers[name].append(Layer(templates, np.diag(to_unit), stokes, hit))
    return Sky(
        freqs_ghz=passbands.centres(bands),
        bands=bands,
        geometry=realisation.geometry,
        stokes=stokes,
        unit=unit,
        components=layers,
        kappa=realisation.kappa,
        catalog=list_sources(realisation),
        clusters=realisation.clusters,
        meta={
            **realisation.meta,
            "unit": unit,
            "freqs_ghz": passbands.centres(bands).tolist(),
        },
    )


def _kept(values: Array, weights: NDArray[np.float64], held: str, stokes: str) -> list[Layer]:
    """A layer of the Stokes parameters that are asked for; none if there are none of them."""
    kept = "".join(s for s in held if s in stokes)
    if not kept:
        return []
    if kept != held:
        values = values[:, [held.index(s) for s in kept]]
    return [Layer(values, weights, kept)]


def list_sources(realisation: Realisation) -> Table | None:
    """The table `Sky.catalog`; None if no component has sources."""
    if realisation.catalog is None:
        return None
    listed = np.asarray(realisation.catalog["flux_mjy"]) >= CATALOG_MIN_MJY
    catalog = realisation.catalog[listed]
    painted = _painted(catalog, realisation)
    catalog["in_map"] = painted if painted.ndim == 1 else painted.any(1)
    if painted.ndim == 2:
        catalog["in_bands"] = painted
    return catalog


def _placed(
    realisation: Realisation, name: str, polarised: bool
) -> tuple[catalogue.Placed, NDArray[np.bool_] | None]:
    """The sources of a component that are in some map, on its pixels, kept for other bands.

    And the bands in which each is painted, (n, nfreq); None for all.
    """
    found = realisation.placed.get((name, polarised))
    if found is None:
        catalog = realisation.catalog
        painted = _painted(catalog, realisation)
        of_all = painted.ndim == 1
        chosen = np.asarray(catalog["kind"]) == catalogue.COMPONENTS[name]
        chosen &= painted if of_all else painted.any(1)
        placed = catalogue.place(catalog[chosen], realisation.geometry, polarised)
        found = (placed, None if of_all else painted[chosen])
        realisation.placed[name, polarised] = found
    return found


def _painted(catalog: Table, realisation: Realisation) -> NDArray[np.bool_]:
    """Which sources are in the maps: (n,), or (n, nfreq) if every band has a cut of its own."""
    found = realisation.flux_cuts
    return cuts.kept(catalog, found, per_band=found is not None and realisation.cut_per_band)


def _weights(
    realisation: Realisation, name: str, bands: Sequence[passbands.Band]
) -> NDArray[np.float64]:
    """Weights of the maps of a component at the bands, (nfreq, n)."""
    return passbands.average(bands, lambda nu_ghz: _spectra(realisation, name, nu_ghz))


def _spectra(realisation: Realisation, name: str, nu_ghz: NDArray) -> NDArray[np.float64]:
    """Weights of the maps of a component at single frequencies, (n_nu, n)."""
    from mlsky.frequency import relativistic, scaling

    law = realisation.cib
    if name == "cib" and law is not None:
        return np.concatenate([law.weights(nu_ghz), law.noise_weights(nu_ghz)], axis=1)
    factor = scaling.factor(
        fields.COMPONENTS[name].scaling,
        nu_ghz,
        tsz_temperature_kev=realisation.tsz_temperature_kev,
    )
    terms = len(realisation.maps[name]) - 1
    if name != "tsz" or not terms:
        return factor[:, np.newaxis]
    # clusters have temperatures of their own; their maps are in uK at 148 GHz, not relativistic
    own = relativistic.relativistic_terms(nu_ghz, terms - 1)
    own = own.T / scaling.tsz.uk_per_y(fields.REFERENCE_GHZ)
    return np.concatenate([factor[:, np.newaxis], own], axis=1)
