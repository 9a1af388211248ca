"""Maps of a sky as a telescope sees them: smooth fields in multipoles, sources in pixels.

Multipoles of a source's pixel do not end where those of the map do, and a beam that is not much
wider than a pixel would ring round it. Every listed source is painted with the profile of the beam
at its place instead; fainter ones, which no one tells apart, go with the smooth fields. In skies
with the window of their pixels the painted sources have it too.

Part of the sky is made with what lies round it, and cut; `mlsky.Sky.smooth` has only the map
(docs/beams).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.components import COMPONENTS
from mlsky.io.layers import TOTAL, Layer
from mlsky.sources import catalogue, cuts
from mlsky.sphere import beams, discs, harmonic_filter, pixel_window
from mlsky.sphere.gaussian import alm_to_map, map_to_alm, scale_alm
from mlsky.sphere.geometry import Geometry, Healpix
from mlsky.sphere.margins import crop

if TYPE_CHECKING:
    from astropy.table import Table

    from mlsky.io.store import Store
    from mlsky.sky import Sky
    from mlsky.sphere.beams import Beam
    from mlsky.sphere.margins import Inside

__all__ = ["array_name", "smoothed", "stokes_of", "take_out", "warn_narrow", "with_beams"]


def warn_narrow(each: Sequence[Beam], geometry: Geometry) -> None:
    """Warn of beams that are narrower than the pixels of a map, which do not sample them."""
    pixel = max(geometry.sides_arcmin)
    narrow = min(one.fwhm_arcmin for one in each)
    if narrow < pixel:
        warnings.warn(
            f"beam of FWHM {narrow:.3g} arcmin on pixels of {pixel:.3g} arcmin: fluxes of single "
            "sources are not kept, by up to a factor of a few; ask for finer pixels",
            stacklevel=3,
        )


def stokes_of(name: str, stokes: str) -> str:
    """Stokes parameters of the maps of a component, of those that a sky has; may be none."""
    return "".join(s for s in stokes if s in COMPONENTS[name].stokes)


def array_name(name: str) -> str:
    """Name in a store of the maps of a component with beams."""
    return f"{name}_beamed"


def with_beams(
    sky: Sky, each: Sequence[Beam], store: Store, inside: Inside | None
) -> dict[str, list[Layer]]:
    """Layers of the components with the beams of the bands, one map per band, in a store.

    Parameters
    ----------
    inside
        What is kept of the maps, as `mlsky.sphere.margins.crop`.
    """
    layers = {}
    where = crop(np.empty(sky.geometry.shape, bool), inside).shape
    for name in sky:
        # components of other packages have what their maps have
        own = {s for layer in sky.layers[name] for s in layer.stokes}
        stokes = "".join(s for s in sky.stokes if s in own)
        if name in COMPONENTS:
            stokes = stokes_of(name, sky.stokes)
        if not stokes:
            layers[name] = []
            continue
        # set and not added to: an interrupted run may have written some of it
        out = store.array(array_name(name), (len(sky.bands), len(stokes), *where))
        for index, maps in enumerate(_convolve(sky, each, sky.layers[name], name, stokes)):
            out[index] = crop(maps, inside)
        layers[name] = [Layer(out, np.eye(len(sky.bands)), stokes)]
    return layers


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
    for one in each:
        one.transform(geometry.lmax)  # a table may end too early
    wanted = _layers(sky, component)
    warn_narrow(each, geometry)
    maps = np.zeros(sky.shape, np.float32)
    for name, layers in wanted:
        for out, convolved in zip(
            maps, _convolve(sky, each, layers, name, sky.stokes), strict=True
        ):
            out += convolved
    told = [one.describe() for one in each]
    before = sky.meta.get("beams")
    if before:  # the maps have both
        told = [f"{old}; {new}" for old, new in zip(before, told, strict=True)]
    return Layer(maps, np.eye(len(sky.bands)), sky.stokes), told


def _convolve(
    sky: Sky, each: Sequence[Beam], layers: Sequence[Layer], name: str, stokes: str
) -> Iterator[NDArray[np.float32]]:
    """Maps (len(stokes), *shape) of the layers of a component with beams, band by band."""
    has_sources = any(layer.pixels is not None for layer in layers)
    if has_sources and sky.catalog is None:
        raise ValueError("beams need the catalogue of the sources that the maps hold")
    for index, (one, share) in enumerate(zip(each, np.eye(len(sky.bands)), strict=True)):
        smooth = np.zeros((len(stokes), *sky.geometry.shape), np.float32)
        for layer in layers:
            layer.add_to(smooth, stokes, share)
        made = np.float32(0)
        if has_sources:
            table = _listed(sky, name, index)
            take_out(smooth, sky, table, index, stokes)
            made = _painted(sky, table, index, one, stokes)
        yield _convolved(smooth, sky, stokes, one.transform(sky.geometry.lmax)) + made


def _layers(sky: Sky, component: str | None) -> Sequence[tuple[str, Sequence[Layer]]]:
    """Names and layers of a component or of all."""
    if not sky.keys():
        raise ValueError(
            "beams need the components of a sky, and this one holds the total alone: use the HDF5 "
            "file"
        )
    if component is not None and component not in sky:
        raise ValueError(f"component={component!r}: this sky has {', '.join(sky)}")
    names = [name for name in sky if name != TOTAL] if component is None else [component]
    return [(name, sky.layers[name]) for name in names]


def _listed(sky: Sky, name: str, index: int) -> Table:
    """Sources of the catalogue that are in the maps of a component in a band."""
    kind = np.asarray(sky.catalog["kind"]) == catalogue.COMPONENTS[name]
    return sky.catalog[kind & cuts.in_band(sky.catalog, index)]


def take_out(maps: NDArray[np.float32], sky: Sky, table: Table, index: int, stokes: str) -> None:
    """Subtract sources from the pixels that hold them, in place."""
    band = sky.bands[index]
    pixel, values = catalogue.paint_sparse(table, sky.geometry, (band,), stokes)
    maps.reshape(len(maps), -1)[:, pixel] -= values[0] * np.float32(
        band.convert("uK_CMB", sky.unit)
    )


def _painted(sky: Sky, table: Table, index: int, beam: Beam, stokes: str) -> NDArray[np.float32]:
    """Maps (len(stokes), *shape) of sources with the profile of a beam.

    With the window of the pixels, if the sky has it.
    """
    band, geometry = sky.bands[index], sky.geometry
    window = sky.meta.get("pixel_window", True)
    if window and geometry.kind == "healpix":
        beam = pixel_window.broadened(beam, geometry.nside)
    (flux,) = catalogue.band_fluxes(table, band)
    amplitude = np.stack(catalogue.stokes_fluxes(table, flux, stokes))
    amplitude *= 1e-3 * band.convert("Jy/sr", sky.unit)
    places = np.stack([np.asarray(table[n], np.float64) for n in ("ra", "dec")], 1)
    around = np.full((len(table), 1), beam.radius_arcmin / 60)
    maps = np.zeros((len(stokes), *geometry.shape), np.float32)
    flat = maps.reshape(len(maps), -1)
    found = discs.pixels(geometry, np.concatenate([places, around], 1))
    for number, (pixel, distance) in enumerate(found):
        flat[:, pixel] += amplitude[:, number, np.newaxis] * beam.profile(distance)
    if window and geometry.kind == "car" and len(table):
        pixel_window.apply(maps, geometry)
    return maps


def _convolved(
    maps: NDArray[np.float32], sky: Sky, stokes: str, transform: NDArray
) -> NDArray[np.float32]:
    """Maps (nstokes, *shape) whose multipoles are multiplied by a beam's transform."""
    geometry, lmax = sky.geometry, len(transform) - 1
    parts = []
    for letter, part, spin in (("T", maps[:1], 0), ("Q", maps[-2:], 2)):
        if letter not in stokes:
            continue
        if isinstance(geometry, Healpix):
            parts.append(harmonic_filter.filtered(part, geometry, transform, spin))
            continue
        alms = np.atleast_2d(map_to_alm(part if spin else part[0], geometry, lmax, spin))
        for alm in alms:
            scale_alm(alm, transform)
        made = alm_to_map(alms if spin else alms[0], geometry, spin)
        parts.append(made.reshape(part.shape))
    return np.concatenate(parts)
