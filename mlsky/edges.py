"""Part of the sky, made with what lies round it, cut to the map that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlsky import smoothing
from mlsky.io import content
from mlsky.io.layers import Layer
from mlsky.sky import Sky
from mlsky.sphere.margins import crop

if TYPE_CHECKING:
    from astropy.table import Table

    from mlsky.io.store import Store
    from mlsky.request import Request
    from mlsky.sphere.geometry import Geometry
    from mlsky.sphere.margins import Inside

__all__ = ["array_name", "as_asked"]


def array_name(name: str) -> str:
    """Name in a store of the maps of a component, or of kappa, without the margin."""
    return f"{name}_inside"


def as_asked(sky: Sky, request: Request, store: Store) -> Sky:
    """A sky on the pixels it was painted on, with its beams, on the pixels that are asked for."""
    inside = request.inside
    if request.beams is not None:
        request.progress("beams", 0.96)
        sky = sky._with(smoothing.with_beams(sky, request.beams, store, inside))
    elif inside is not None:
        sky = sky._with(_layers(sky, inside, store))
    return sky if inside is None else _cut(sky, request.geometry, inside, store)


def _layers(sky: Sky, inside: Inside, store: Store) -> dict[str, list[Layer]]:
    """Layers of the components, without the margin, in a store.

    Maps of sources without a beam have no margin: there are none here.
    """
    return {
        name: [
            Layer(_inside(name, layer.templates, inside, store), layer.weights, layer.stokes)
            for layer in layers
        ]
        for name, layers in sky.layers.items()
    }


def _cut(sky: Sky, geometry: Geometry, inside: Inside, store: Store) -> Sky:
    """The sky on the pixels asked for.

    Parameters
    ----------
    sky
        On the wider pixels but for its layers, which are cut already; kappa, sources and clusters
        are cut here.
    geometry, inside
        The pixels asked for, and where they lie in those of `sky`.
    """
    return Sky(
        freqs_ghz=sky.freqs_ghz,
        bands=sky.bands,
        geometry=geometry,
        stokes=sky.stokes,
        unit=sky.unit,
        components=sky.layers,
        kappa=_inside("kappa", sky.kappa[np.newaxis], inside, store).reshape(geometry.shape),
        catalog=_on_map(sky.catalog, geometry),
        clusters=_on_map(sky.clusters, geometry),
        meta={**sky.meta, "geometry": content.describe_geometry(geometry)},
    )


def _inside(name: str, maps, inside: Inside, store: Store):
    """Maps (n, ...) without the margin, one after the other."""
    shape = crop(np.empty(maps.shape[-2:], bool), inside).shape
    out = store.array(array_name(name), (*maps.shape[:-2], *shape))
    for row in range(len(maps)):
        out[row] = crop(np.asarray(maps[row]), inside)
    return out


def _on_map(table: Table | None, geometry: Geometry) -> Table | None:
    """The rows of a table whose "ra" and "dec" (deg) lie on a map."""
    if table is None:
        return None
    theta = np.radians(90 - np.asarray(table["dec"], np.float64))
    return table[geometry.pixel(theta, np.radians(np.asarray(table["ra"], np.float64))) >= 0]
