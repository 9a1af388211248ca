"""Maps of a sky as a telescope sees them: smooth fields in multipoles, sources in pixels.

Multipoles of a source's pixel do not end where those of the map do, and a beam that is not much
wider than a pixel would ring round it. Every listed source is painted with the profile of the beam
at its place instead; fainter ones, which no one tells apart, go with the smooth fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.io.layers import TOTAL, Layer
from mlsky.sources import catalogue
from mlsky.sphere import beams, discs

if TYPE_CHECKING:
    from astropy.table import Table

    from mlsky.sky import Sky
    from mlsky.sphere.beams import Beam

__all__ = ["smoothed"]


def smoothed(sky: Sky, beam, component: str | None) -> tuple[Layer, list[str]]:
    """Maps of all bands with a beam, as one layer, and what the beams are in words.

    As `mlsky.sky.Sky.smooth`.
    """
    geometry = sky.geometry
    if geometry.kind == "car" and not geometry.cylindrical:
        raise ValueError(
            "beams need HEALPix or cylindrical pixels (CAR, CEA, ...); this map has other ones"
        )
    each = beams.parse(beam, len(sky.bands))
    transforms = [one.transform(geometry.lmax) for one in each]
    layers = _layers(sky, component)
    if any(layer.pixels is not None for _, layer in layers) and sky.catalog is None:
        raise ValueError("beams need the catalogue of the sources that the maps hold")
    maps = np.empty(sky.shape, np.float32)
    for index, (one, transform) in enumerate(zip(each, transforms, strict=True)):
        share = np.eye(len(sky.bands))[index]
        smooth = np.zeros(sky.shape[1:], np.float32)
        listed = []
        for name, layer in layers:
            layer.add_to(smooth, sky.stokes, share)
            if layer.pixels is not None:
                listed.append(_listed(sky, name))
        out = maps[index]
        out[...] = 0
        for table in listed:
            _take_out(smooth, sky, table, index)
            _paint(out, sky, table, index, one)
        out += _convolved(smooth, sky, transform)
    return Layer(maps, np.eye(len(sky.bands)), sky.stokes), [one.describe() for one in each]


def _layers(sky: Sky, component: str | None) -> Sequence[tuple[str, Layer]]:
    """Layers of a component or of all, with their names."""
    if not sky.keys():
        raise ValueError(
            "beams need the components of a sky, and this one holds the total alone: use the HDF5 "
            "file"
        )
    if component is not None and component not in sky:
        raise ValueError(f"component={component!r}: this sky has {', '.join(sky)}")
    names = [name for name in sky if name != TOTAL] if component is None else [component]
    return [(name, layer) for name in names for layer in sky.layers[name]]


def _listed(sky: Sky, name: str) -> Table:
    """Sources of the catalogue that are in the maps of a component."""
    kind = np.asarray(sky.catalog["kind"]) == catalogue.COMPONENTS[name]
    return sky.catalog[kind & np.asarray(sky.catalog["in_map"])]


def _take_out(maps: NDArray[np.float32], sky: Sky, table: Table, index: int) -> None:
    """Subtract sources from the pixels that hold them, in place."""
    band = sky.bands[index]
    pixel, values = catalogue.paint_sparse(table, sky.geometry, (band,), sky.stokes)
    maps.reshape(len(maps), -1)[:, pixel] -= values[0] * np.float32(
        band.convert("uK_CMB", sky.unit)
    )


def _paint(maps: NDArray[np.float32], sky: Sky, table: Table, index: int, beam: Beam) -> None:
    """Add sources with the profile of a beam, in place."""
    band = sky.bands[index]
    (flux,) = catalogue.band_fluxes(table, band)
    amplitude = np.stack(catalogue.stokes_fluxes(table, flux, sky.stokes))
    amplitude *= 1e-3 * band.convert("Jy/sr", sky.unit)
    places = np.stack([np.asarray(table[n], np.float64) for n in ("ra", "dec")], 1)
    around = np.full((len(table), 1), beam.radius_arcmin / 60)
    flat = maps.reshape(len(maps), -1)
    found = discs.pixels(sky.geometry, np.concatenate([places, around], 1))
    for number, (pixel, distance) in enumerate(found):
        flat[:, pixel] += amplitude[:, number, np.newaxis] * beam.profile(distance)


def _convolved(maps: NDArray[np.float32], sky: Sky, transform: NDArray) -> NDArray[np.float32]:
    """Maps (nstokes, *shape) whose multipoles are multiplied by a beam's transform."""
    from mlsky.sphere import gaussian

    geometry, lmax = sky.geometry, len(transform) - 1
    parts = []
    if "T" in sky.stokes:
        alm = gaussian.map_to_alm(maps[0], geometry, lmax)
        parts.append(gaussian.alm_to_map(gaussian.scale_alm(alm, transform), geometry)[np.newaxis])
    if "Q" in sky.stokes:
        alms = gaussian.map_to_alm(maps[-2:], geometry, lmax, spin=2)
        for alm in alms:
            gaussian.scale_alm(alm, transform)
        parts.append(gaussian.alm_to_map(alms, geometry, spin=2))
    return np.concatenate(parts)
