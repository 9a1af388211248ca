"""Training sets from anybody's full-sky maps: patches cut out of a turned sky.

For any simulation (Sehgal et al. 2010, WebSky, Agora, ...), as in Han et al. (2021). The sky is
rotated, and patches are cut from the band |dec| < 10 deg on a CAR grid. Extended fields (kappa,
kSZ, tSZ) are turned as harmonics or interpolated; sources (CIB, radio) come from a catalogue, or
are found on the map by aperture photometry, and are placed at their flux. Unlike in the paper's
set, train, validation and test patches share no sky (`mlsky.cutting.areas`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from mlsky import seeds
from mlsky.components import REFERENCE_GHZ
from mlsky.cutting import areas, mapfiles, photometry, projection
from mlsky.cutting.areas import EquatorialBand, Split
from mlsky.cutting.mapfiles import FIELDS, POINT_LIKE, Catalogue, FullSky
from mlsky.io import sets
from mlsky.io.files import check_disk
from mlsky.sources.cuts import parse_flux_cut
from mlsky.sphere.geometry import Healpix

__all__ = ["FIELDS", "METHODS", "cut"]

#: How extended fields are taken to the band.
METHODS = ("harmonic", "cubic")

#: Flux (mJy at 148 GHz) above which sources are left out: that of Han et al. 2021.
FLUX_CUT_MJY = 7.0

#: Pixels of the maps around a point that cubic interpolation uses.
_SPLINE = 2


@dataclass(frozen=True)
class _Task:
    """All settings of a set."""

    maps: dict[str, FullSky]
    catalogues: dict[str, Catalogue]
    fields: tuple[str, ...]
    band: EquatorialBand
    size: int
    rotations: tuple[tuple[float, float], ...]
    places: NDArray[np.int64]
    method: str
    lmax: int
    windows: bool
    flux_cut_mjy: float | None
    find: bool
    find_mjy: float | None

    def runs(self) -> list[tuple[int, slice]]:
        """Rotations that have patches, and which patches."""
        edges = np.searchsorted(self.places[:, 0], np.arange(len(self.rotations) + 1))
        steps = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        return [(r, slice(low, high)) for r, (low, high) in enumerate(steps) if high > low]


def cut(
    out: str | os.PathLike,
    maps: Mapping[str, object],
    patches: int,
    seed: int,
    part: str = "train",
    *,
    catalogues: Mapping[str, object] | None = None,
    units: Mapping[str, str] | None = None,
    nu_ghz: float | Mapping[str, float] = REFERENCE_GHZ,
    scale: Mapping[str, float] | None = None,
    nest: bool = False,
    require: Sequence[str] = (),
    pixel_arcmin: float = 0.5,
    size: int = 128,
    method: str = "harmonic",
    lmax: int | None = None,
    windows: bool = True,
    rotations: Sequence[tuple[float, float]] | None = None,
    flux_cut_mjy: float | None = FLUX_CUT_MJY,
    find: bool = True,
    find_mjy: float | None = None,
    split_nside: int = 4,
    split_seed: int = 0,
    fractions: tuple[float, float, float] = areas.FRACTIONS,
    octant: bool = False,
    progress: bool = True,
) -> None:
    """Cut patches out of full-sky maps into a training set; an interrupted run is resumed.

    The file is the one that `mlsky.training.data` reads: a dataset *(patches, size, size)*
    float32 for each field, uK_CMB at 148 GHz (kappa dimensionless), and ``places``,
    *(patches, 3)*: rotation, row and column of the first pixel. It grows under ``<out>.part``
    and takes its name when it is whole. Everything is checked before work starts.

    Parameters
    ----------
    out
        HDF5 file to write.
    maps
        Full-sky maps by field, of "kappa", "ksz", "tsz", "cib", "radio": paths or arrays as
        `mlsky.cutting.mapfiles.open_map` takes them, all on the same pixels.
    patches
        How many to cut.
    seed
        Of the places of the patches.
    part
        "train", "validation" or "test". Cut all three with the same `split_nside`,
        `split_seed`, `fractions` and `octant`, and no two of them share sky.
    catalogues
        Sources of "cib" or "radio", as `mlsky.cutting.mapfiles.open_catalogue` takes them.
        A map given in addition must be without the sources; it is interpolated.
    units
        Unit of each map, see `open_map`. None takes that of the file, or uK_CMB.
    nu_ghz
        Frequency of all maps and catalogues, or of each. Those not at 148 GHz are taken there
        by the laws of `mlsky.frequency.scaling`.
    scale
        Numbers to multiply fields by, maps and fluxes: ``{"tsz": 0.75, "cib": 0.75}`` brings
        Sehgal et al. 2010 closer to the data, as Han et al. 2021 do.
    nest
        Whether HEALPix arrays are NESTED; files say so themselves.
    require
        Fields that must be among `maps` or `catalogues`: those a recipe wants.
    pixel_arcmin, size
        Side of a pixel at the equator, and of a patch in pixels.
    method
        "harmonic": kappa, kSZ and tSZ are turned as harmonics and synthesised at the pixel
        centres; or "cubic": they are interpolated, which is faster and smooths a little.
    lmax
        Band limit of "harmonic"; by default that of maps and pixels.
    windows
        With "harmonic": kSZ and tSZ maps hold means over their own pixels, and patches
        shall hold means over theirs. False leaves them as they are, as in the paper.
    rotations
        Turns of the sky (deg) about z and then y; None takes the 25 of the paper.
    flux_cut_mjy
        Sources above this flux at 148 GHz are left out; None keeps all.
    find
        Whether sources of a CIB or radio map without a catalogue are found by aperture
        photometry (HEALPix; needs photutils); else the whole map is interpolated.
    find_mjy
        Least flux of the pixel of a source that is found; None takes five standard deviations.
    split_nside, split_seed, shares, octant
        Areas of the sky for the three sets, see `mlsky.cutting.areas.Split`. Set `octant` for
        Sehgal et al. 2010, whose sky is one octant eight times over.
    progress
        Whether to show a bar.

    Raises
    ------
    ValueError
        If an argument, map or catalogue is not valid, the disk is too small, or what is there
        of an interrupted run was begun with other settings.
    MissingDependencyError
        If photutils is needed and missing.

    Notes
    -----
    On the band the pixels of a CAR grid are narrower than square by up to 1.5 per cent.
    Memory: with "harmonic" 32 bytes per pixel of a map (measured), then 16 lmax^2 bytes and
    the band; one field at a time.
    """
    out = Path(out)
    if out.exists():
        raise ValueError(f"{out}: exists already; give another name or remove it")
    if not out.parent.is_dir():
        raise ValueError(f"{out}: folder {out.parent} does not exist; make it first")
    catalogues = dict(catalogues or {})
    fields = _check_fields(maps, catalogues, require)
    if method not in METHODS:
        raise ValueError(f"method={method!r}: must be one of {', '.join(METHODS)}")
    flux_cut_mjy = parse_flux_cut(flux_cut_mjy)
    found = [f for f in POINT_LIKE if f in maps and f not in catalogues]
    if found and find:
        photometry.require_photutils()
        photometry.check_find_mjy(find_mjy)
    elif found and flux_cut_mjy is not None:
        raise ValueError(
            f"{found[0]}: flux_cut_mjy={flux_cut_mjy:g} needs sources; give a catalogue, "
            "find=True, or flux_cut_mjy=None"
        )
    band, split = EquatorialBand(pixel_arcmin), Split(split_nside, split_seed, fractions, octant)
    rotations = areas.check_rotations(rotations)
    patches, size = areas.check_count("patches", patches), areas.check_count("size", size)
    # the cheap checks come before the maps are read
    areas.plan(part, 1, seed, band, size, split, rotations)
    part_file = out.with_name(out.name + ".part")
    check_disk(part_file, patches * size**2 * 4 * len(fields), "cut fewer patches")

    opened, sources = _open(maps, catalogues, units, nu_ghz, scale, nest)
    guard = _SPLINE
    if opened:
        geometry = next(iter(opened.values())).geometry
        if found and find and not isinstance(geometry, Healpix):
            raise ValueError(
                f"{found[0]}: sources are found on HEALPix maps only; give a catalogue, or "
                "find=False with flux_cut_mjy=None"
            )
        guard = max(_SPLINE, int(np.ceil(_SPLINE * geometry.pixel_arcmin / pixel_arcmin)))
        lmax = _check_lmax(lmax, geometry.lmax, projection.default_lmax(geometry, band))
    places = areas.plan(part, patches, seed, band, size, split, rotations, guard)
    task = _Task(
        opened,
        {name: c.below(flux_cut_mjy) for name, c in sources.items()},
        fields,
        band,
        size,
        rotations,
        places,
        method,
        lmax or 0,
        bool(windows),
        flux_cut_mjy,
        bool(find),
        find_mjy,
    )
    attributes = {
        "pixel_arcmin": float(pixel_arcmin),
        "seed": seeds.check(seed),
        "source": json.dumps(_source(task, part, split, sources), sort_keys=True),
    }
    with sets.begin(part_file) as file:
        _begin(file, part_file, attributes, task)
        _fill(file, task, progress, out.name)
        sets.seal(file)
    os.replace(part_file, out)


def _check_fields(maps: Mapping, catalogues: Mapping, require: Sequence[str]) -> tuple[str, ...]:
    """Fields to cut, in the order of `FIELDS`."""
    if not isinstance(maps, Mapping):
        raise ValueError(f"maps of type {type(maps).__name__}: must be a mapping of fields to maps")
    given = {*maps, *catalogues}
    unknown = [name for name in (*given, *require) if name not in FIELDS]
    if unknown:
        raise ValueError(f"field {unknown[0]!r}: must be one of {', '.join(FIELDS)}")
    wrong = [name for name in catalogues if name not in POINT_LIKE]
    if wrong:
        raise ValueError(f"catalogue of {wrong[0]!r}: only {' and '.join(POINT_LIKE)} have sources")
    missing = [name for name in require if name not in given]
    if missing:
        raise ValueError(
            f"fields {', '.join(missing)} are missing of {', '.join(require)}; give a map of each"
        )
    if not given:
        raise ValueError(f"no field: give maps of some of {', '.join(FIELDS)}")
    return tuple(name for name in FIELDS if name in given)


def _check_lmax(lmax: int | None, most: int, default: int) -> int:
    if lmax is None:
        return default
    if isinstance(lmax, bool) or not isinstance(lmax, (int, np.integer)) or not 1 <= lmax <= most:
        raise ValueError(f"lmax={lmax!r}: must be a whole number from 1 to {most} for these maps")
    return int(lmax)


def _open(maps: Mapping, catalogues: Mapping, units, nu_ghz, scale, nest: bool):
    """Maps and catalogues, read and checked."""
    units, scale = dict(units or {}), dict(scale or {})
    frequencies = nu_ghz if isinstance(nu_ghz, Mapping) else dict.fromkeys(FIELDS, nu_ghz)
    for what, given in (("units", units), ("nu_ghz", frequencies), ("scale", scale)):
        unknown = [name for name in given if name not in FIELDS]
        if unknown:
            raise ValueError(f"{what} of {unknown[0]!r}: must be one of {', '.join(FIELDS)}")
    sources = {
        name: mapfiles.open_catalogue(
            name, table, frequencies.get(name, REFERENCE_GHZ), scale.get(name, 1.0)
        )
        for name, table in catalogues.items()
    }
    opened: dict[str, FullSky] = {}
    for name in FIELDS:
        if name not in maps:
            continue
        nu, factor = frequencies.get(name, REFERENCE_GHZ), scale.get(name, 1.0)
        sky = mapfiles.open_map(name, maps[name], units.get(name), nu, nest, factor)
        for first in list(opened.values())[:1]:
            if _pixels(first) != _pixels(sky):
                raise ValueError(
                    f"{first.field} has {_pixels(first)} and {name} has {_pixels(sky)}; all maps "
                    "must have the same pixels: bring them there, as healpy.ud_grade does"
                )
        opened[name] = sky
    return opened, sources


def _pixels(sky: FullSky) -> str:
    """What must agree between maps, as text."""
    g = sky.geometry
    if isinstance(g, Healpix):
        return f"nside {g.nside}"
    w = g.wcs.wcs
    corner = [f"{v:.6g}" for v in (*w.crval, *w.crpix, *w.cdelt)]
    return f"CAR pixels {g.shape} at {', '.join(corner)}"


def _source(task: _Task, part: str, split: Split, sources: dict[str, Catalogue]) -> dict:
    """Where the set comes from, for its attribute and to know an interrupted run again."""
    about = {
        "kind": "maps",
        "pixels": _pixels(next(iter(task.maps.values()))) if task.maps else None,
        "maps": {name: sky.describe() for name, sky in task.maps.items()},
        "catalogues": {name: c.about for name, c in sources.items()},
        "part": part,
        "split": {
            "nside": split.nside,
            "seed": split.seed,
            "fractions": split.fractions,
            "octant": split.octant,
        },
        "rotations_deg": task.rotations,
        "method": task.method,
        "flux_cut_mjy": task.flux_cut_mjy,
        "find": task.find,
        "find_mjy": task.find_mjy,
    }
    if task.method == "harmonic":
        about |= {"lmax": task.lmax, "windows": task.windows}
    return about


def _begin(file: h5py.File, part: Path, attributes: dict, task: _Task) -> None:
    """Lay out a new file, or check that one begun before is the same set."""
    shape = (len(task.places), task.size, task.size)
    if "steps" not in file.attrs:
        if "done" in file.attrs:  # what `mlsky.haloes.region_sets` began
            raise ValueError(f"{part}: was begun with other settings; remove it to start anew")
        sets.put_attributes(file, attributes)
        for name in task.fields:
            if name in file:  # of a run stopped while it laid the file out
                del file[name]
            sets.add_maps(file, name, shape)
        if "places" in file:
            del file["places"]
        file["places"] = task.places
        file.attrs["steps"] = 0
        file.attrs["done"] = 0
        return
    found = sets.attributes_in(file)
    same = all(found.get(k) == v for k, v in attributes.items())
    if not same or tuple(f for f in FIELDS if f in file) != task.fields:
        raise ValueError(f"{part}: was begun with other settings; remove it to start anew")
    if any(file[name].shape != shape for name in task.fields):
        raise ValueError(f"{part}: was begun with other settings; remove it to start anew")


def _fill(file: h5py.File, task: _Task, progress: bool, title: str) -> None:
    """Cut the missing patches, one field and rotation at a time.

    ``steps`` counts pairs of field and rotation that are whole, ``done`` the patches that have
    every field.
    """
    from tqdm import tqdm

    runs, steps = task.runs(), int(file.attrs["steps"])
    patches = len(task.places)
    whole, rest = divmod(steps, len(runs))
    start = whole * patches + (runs[rest][1].start if rest else 0)
    bar = tqdm(
        total=patches * len(task.fields),
        initial=start,
        disable=not progress,
        desc=f"cutting {title}",
    )
    with bar:
        for i, name in enumerate(task.fields):
            todo = runs[max(0, steps - i * len(runs)) :]
            if not todo:
                continue
            bar.set_postfix_str(name)
            for chosen, stack in _patches(task, name, todo, bar):
                file[name][chosen] = stack
                steps += 1
                file.attrs["steps"] = steps
                if i == len(task.fields) - 1:
                    file.attrs["done"] = chosen.stop
                file.flush()  # so that a killed run loses one rotation at most


def _patches(task: _Task, name: str, runs: list, bar) -> Iterator[tuple[slice, np.ndarray]]:
    """Patches of a field, rotation by rotation."""
    values, sources, alm = _prepare(task, name)
    for r, chosen in runs:
        angles, places = task.rotations[r], task.places[chosen]
        stack = np.zeros((len(places), task.size, task.size), np.float32)
        if alm is not None:
            _take(stack, projection.harmonic(alm, angles, task.band), places, bar)
        elif values is not None:
            _interpolate(stack, task, name, values, angles, places, bar)
        if sources is not None:
            grid = projection.paint(sources.vectors, sources.flux_mjy, angles, task.band)
            _take(stack, grid, places, bar if values is None else None)
        yield chosen, stack


def _prepare(task: _Task, name: str):
    """Map to interpolate, sources, and alm of a field; None for what it has not."""
    sources = task.catalogues.get(name)
    if name not in task.maps:
        return None, sources, None
    sky = task.maps[name]
    values = sky.read()
    if name in POINT_LIKE:
        if sources is None and task.find:
            v, flux, values = photometry.find_sources(values, sky.geometry.nside, task.find_mjy)
            sources = Catalogue(v, flux).below(task.flux_cut_mjy)
        return values, sources, None
    if task.method == "cubic":
        return values, None, None
    own = task.band.pixel_arcmin if task.windows and name != "kappa" else None
    return None, None, projection.to_alm(values, sky.geometry, task.lmax, own)


def _take(stack: np.ndarray, grid: np.ndarray, places: np.ndarray, bar) -> None:
    """Add patches of the band, whose columns are periodic."""
    n, nx = stack.shape[-1], grid.shape[1]
    for patch, (_, y, x) in zip(stack, places.tolist(), strict=True):
        patch += grid[y : y + n, (x + np.arange(n)) % nx]
        if bar is not None:
            bar.update()


def _interpolate(stack, task: _Task, name: str, values, angles, places, bar) -> None:
    """Add patches that are interpolated on the map itself."""
    sky, n = task.maps[name], stack.shape[-1]
    back = areas.matrix(angles).T
    step = np.arange(n)
    for patch, (_, y, x) in zip(stack, places.tolist(), strict=True):
        v = task.band.vectors(y + step[:, None], x + step[None])
        got = projection.cubic(values, sky.geometry, np.einsum("ij,jyx->iyx", back, v))
        # a cubic may overshoot: positive fields stay positive
        patch += np.maximum(got, 0) if name in POINT_LIKE and sky.nonnegative else got
        bar.update()
