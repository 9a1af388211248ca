"""Gaussian kappa to a correlated sky at 148 GHz, chart by chart.

For each of the 192 charts: sample kappa, draw noise anchored to the sky, run the networks, draw the
point sources, and resample the part that the chart owns onto the output maps. Memory is bounded by
the output maps and one chart.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import registry
from mlsky.frequency import cib_templates
from mlsky.io import content
from mlsky.io.store import Memory
from mlsky.painting.kappa import KAPPA_JOIN, gain, join, kappa_gain
from mlsky.painting.noise import chart_noise
from mlsky.sphere import resolution
from mlsky.sphere.gaussian import alm_lmax
from mlsky.sphere.geometry import Geometry, Legendre
from mlsky.sphere.multipoles import truncate

if TYPE_CHECKING:
    from astropy.table import Table

    from mlsky.haloes.paint import HaloPainter
    from mlsky.io.disk_array import Array
    from mlsky.io.store import Store
    from mlsky.networks.weights import Weights
    from mlsky.painting.large_scales import LargeScales
    from mlsky.painting.objects import SkyObjects
    from mlsky.painting.part import Part
    from mlsky.painting.rescale import Rescaling
    from mlsky.sphere.charts import Chart
    from mlsky.theory.response import Response

__all__ = [
    "Foregrounds",
    "generate",
    "kappa_gain",
    "kappa_lmax",
    "made_with",
    "select",
]

_log = logging.getLogger("mlsky")

#: Factor by which networks' pixels may be wider than those of a map, for rounded header cards.
WIDER = 1 + 1e-4

#: Libraries of which another version may change the last bits.
LIBRARIES = ("torch", "numpy", "scipy", "camb", "ducc0", "healpy")

#: Names of the stored maps of kappa: of everything, or of the rest and of the objects.
KAPPA_MAPS = ("kappa_grid", "kappa_grid_objects")

#: Charts painted at a time if the available memory is unknown.
FEW = 4


@dataclass(frozen=True, eq=False)
class Foregrounds:
    """The foregrounds of one kappa.

    Attributes
    ----------
    kappa_alm
        Nonlinear convergence, healpy order, to slightly above the band limit of the output.
    kappa
        (*shape,) float32, the convergence on the output pixels: its average over them, or its value
        at their centres.
    maps
        "tsz", "ksz", "cib" (*shape,) float32, uK_CMB at 148 GHz, pixel averages. Weights that
        paint several templates of the CIB give (n, *shape): the template maps, uK_CMB at their
        frequencies, then the noise maps of the remainder, sr^(-1/2)
        (`mlsky.frequency.cib_templates`).
    catalogue
        All point sources: radio sources, and dusty galaxies too bright for the CIB map.
    objects_alm
        Convergence of the objects if they were left out of all of the above, else None.
    """

    kappa_alm: NDArray[np.complex128]
    kappa: Array
    maps: dict[str, Array]
    catalogue: Table | None
    objects_alm: NDArray[np.complex128] | None = None


def select(name: str, geometry: Geometry) -> Weights:
    """The weight file for a geometry: the coarsest pixels that still resolve the map.

    Of oblong pixels the shorter side counts.

    Parameters
    ----------
    name
        Entry of the registry, "default", "name@version", or the path of a file.

    Raises
    ------
    RegistryError
        If there is no such entry or file, or it cannot be used.
    ValueError
        If the file holds no networks that make a sky.
    """
    from mlsky.networks.consistency import check_sky
    from mlsky.networks.weights import open_weights

    name = os.fspath(name)
    if name.endswith(".safetensors"):
        weights = open_weights(name)
    else:
        files = registry.describe(name)["files"]
        order = np.argsort([f["pixel_arcmin"] for f in files])  # finest first
        least = min(geometry.sides_arcmin)
        fine = [i for i in order if files[i]["pixel_arcmin"] <= least * WIDER]
        index = fine[-1] if fine else order[0]
        (path,) = registry.fetch(name, file=files[index]["file"])
        weights = open_weights(path, sha256=files[index]["sha256"])
    check_sky(weights)
    return weights


def kappa_lmax(weights: Weights) -> int:
    """Band limit of the Gaussian kappa that these weights start from."""
    return resolution.kappa_lmax(weights.pixel_arcmin)


def made_with(weights: Weights, device: str = "auto") -> dict[str, str]:
    """Everything besides the code on which the last bits of a sky depend.

    Returns
    -------
    made_with
        Versions of `LIBRARIES` by name; "instructions", the instruction set that torch uses;
        "device" of the networks; "precision" of their convolutions.
    """
    import torch

    from mlsky.networks import evaluate
    from mlsky.networks.device import pick_device, pick_precision

    target = pick_device(device)
    name = target.type if target.type == "cpu" else torch.cuda.get_device_name(target)
    return {
        **{library: content.version_of(library) for library in LIBRARIES},
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": name,
        "precision": pick_precision(evaluate.TRAINED[evaluate.kind(weights)], target),
    }


def generate(
    kappa_alm: NDArray[np.complex128],
    geometry: Geometry,
    *,
    weights: Weights,
    seed: int,
    nonlinear: bool = False,
    response: Response | None = None,
    objects: HaloPainter | None = None,
    add_objects: bool = True,
    components: Sequence[str] = ("tsz", "ksz", "cib", "radio"),
    device: str = "auto",
    progress: Callable[[str, float], None] | None = None,
    store: Store | None = None,
    precision: str | None = None,
    workers: int | None = None,
    averaged: bool = False,
) -> Foregrounds:
    """Run the networks over the whole sky.

    Parameters
    ----------
    kappa_alm
        Kappa with the full nonlinear power, healpy order, to `kappa_lmax`.
    geometry
        Output pixels.
    weights
        From `select`.
    seed
        Of noise and sources.
    nonlinear
        Whether kappa is nonlinear already. It is then painted on, and returned, unchanged.
    response
        Response of the maps to the cosmology of `kappa_alm`, from `mlsky.theory.response`; None if
        the cosmology is that of the networks.
    objects
        Haloes to add to what the networks paint, for weights that leave them out. A nonlinear
        kappa holds them already.
    add_objects
        If False, the networks are given the objects, but kappa, maps and sources are those of the
        rest. `Foregrounds.objects_alm` is then the kappa of the objects.
    components
        Maps to make; kappa is always made, and sources if cib or radio is.
    device
        "auto", "cpu", "cuda", "cuda:N".
    progress
        Called as ``progress(stage, fraction)``.
    store
        Storage of the maps and of the state of the charts; memory by default.
    precision
        Precision of the convolutions, "bf16" or "fp32"; by default that of their training, or
        "fp32" on a processor without instructions for bfloat16.
    workers
        Charts to paint at a time on a CPU, for instance `mlsky.io.resources.chart_workers`; by
        default one for each core, `FEW` at most. The sky is the same.
    averaged
        Whether `Foregrounds.kappa` is averaged over the output pixels, as maps always are.

    Raises
    ------
    ValueError
        If the device does not exist.
    """
    import torch

    from mlsky.networks import evaluate
    from mlsky.networks.device import pick_device
    from mlsky.painting import large_scales, padding, part
    from mlsky.painting.objects import SkyObjects
    from mlsky.painting.regions import painting
    from mlsky.painting.rescale import Rescaling
    from mlsky.sphere import charts, gaussian, pixel_window
    from mlsky.sphere.field import Field
    from mlsky.sphere.threads import threads

    rescaling, sky_alm = None, kappa_alm
    if response is not None:
        _log.warning("%s", response.describe())
        rescaling = Rescaling(response)
        kappa_alm = rescaling.to_networks(kappa_alm)
    if nonlinear:
        weights = painting(weights)
    report = progress or (lambda stage, fraction: None)
    target = pick_device(device)
    for network in weights.networks.values():
        network.to(target, memory_format=torch.channels_last)
    multiple = evaluate.multiple(weights)
    pixel = weights.pixel_arcmin
    margin = padding.MARGIN + padding.of_halving(weights) + sum(evaluate.STEP_PADDING)
    report("Gaussian kappa on charts", 0.0)
    store = store or Memory()
    lmax, grid = resolution.kappa_grid(geometry, pixel)
    moving = objects.alm if objects is not None and "ksz" in objects.fields else None
    large = large_scales.prepare(weights.header.get("calibration", {}), kappa_alm, seed, moving)
    every = charts.charts(pixel, margin, multiple)
    overlap = padding.of_geometry(geometry, pixel) + padding.of_halving(weights)
    seen = evaluate.noise_reach(weights) + padding.BEYOND
    needed = part.of_map(geometry, every, overlap, seen, kappa=not nonlinear)
    kappa_field = Field(kappa_alm, colatitude=needed.colatitude, local=True)
    # For a full sky the join needs only the lowest multipoles.
    known = nonlinear or not needed.is_whole
    kappa_alm = truncate(kappa_alm, lmax if known else KAPPA_JOIN[1])
    sky_alm = truncate(sky_alm, min(lmax, KAPPA_JOIN[1]))
    whole = SkyObjects(objects, nonlinear, add_objects, gain(weights, rescaling))
    kappa_maps, maps, sources = _paint_sky(
        kappa_field,
        every,
        needed,
        (grid, geometry),
        weights,
        seed,
        components,
        (large, rescaling),
        whole,
        lambda fraction: report("networks", 0.05 + 0.85 * fraction),
        store,
        precision,
        workers or min(FEW, threads()),
    )
    del kappa_field
    report("kappa", 0.92)
    alm, objects_alm = kappa_alm, None
    if not nonlinear:
        rows = needed.rows(grid)
        alm, *others = (gaussian.legendre_to_alm(m, grid, lmax, rows) for m in kappa_maps)
        if not needed.is_whole:  # of what was made the difference to the Gaussian kappa was kept
            alm += kappa_alm
        ell = np.arange(lmax + 1)
        if others:
            (objects_alm,) = others
            sky_alm = sky_alm - truncate(objects_alm, alm_lmax(sky_alm))
        if objects is None:
            # calibrated here, at no cost: there are no objects, which would have to stay unchanged
            alm = join(alm, kappa_alm, kappa_gain(weights, ell))
        else:
            alm = join(alm, sky_alm, np.ones(lmax + 1))
    del kappa_maps
    if rescaling is not None and (nonlinear or objects is None):
        alm = rescaling.to_sky(alm)
    for name in KAPPA_MAPS:
        store.drop(name)
    law = cib_templates.of_header(weights.header)
    if law is not None and "cib" in maps:
        from mlsky.painting.remainder import add_remainder

        report("CIB remainder", 0.95)
        add_remainder(maps["cib"], law, geometry, seed)
    kappa = store.array("kappa", geometry.shape)
    synthesised = pixel_window.of_alm if averaged else gaussian.alm_to_map
    kappa[...] = synthesised(truncate(alm, geometry.lmax), geometry)
    listed = None
    if sources:
        from mlsky.sources import catalogue

        report("sources", 0.97)
        listed = catalogue.of_drawn(sources, seed)
    return Foregrounds(alm, kappa, maps, listed, objects_alm)


def _paint_sky(
    kappa_field: Callable,
    every: Sequence[Chart],
    needed: Part,
    grids: tuple[Legendre, Geometry],
    weights: Weights,
    seed: int,
    components: Sequence[str],
    corrections: tuple[LargeScales, Rescaling | None],
    whole: SkyObjects,
    report: Callable[[float], None],
    store: Store,
    precision: str | None,
    workers: int,
) -> tuple[list[Array], dict[str, Array], list[dict]]:
    """Networks on every chart: kappa on the first grid, the other maps on the second, sources."""
    from mlsky.networks import evaluate
    from mlsky.painting import finer, padding
    from mlsky.sources import draw
    from mlsky.sphere import charts, resampling

    grid, geometry = grids
    large, rescaling = corrections
    seen = evaluate.noise_reach(weights) + padding.BEYOND
    table = weights.header.get("calibration", {}).get("split")
    halve = finer.halves_pixels(weights, geometry)
    kappa_maps = [store.array(name, grid.shape) for name in KAPPA_MAPS[: whole.kappa_maps]]
    names = [n for n in ("tsz", "ksz", "cib") if n in components]
    law = cib_templates.of_header(weights.header)
    painted = {n: (n,) for n in names}  # a CIB of several templates is a stack of maps
    rows = {}
    if law is not None and "cib" in painted:
        painted["cib"] = cib_templates.map_names(law.templates_ghz)
        rows["cib"] = law.n_templates + law.n_noise
    own = whole.tsz_names()
    if "tsz" in painted and own:
        painted["tsz"] = ("tsz", *own)
        rows["tsz"] = len(painted["tsz"])
    maps = {
        n: store.array(n, (rows[n], *geometry.shape) if n in rows else geometry.shape)
        for n in names
    }
    want_sources = bool({"cib", "radio"} & set(components))

    def paint(chart: Chart) -> dict[str, np.ndarray]:
        found = store.done(chart.index)
        if found is not None:
            return found
        area, painted_on = needed.areas[chart.index], chart.index in needed.painted
        shown_on = finer.finer_chart(chart) if halve else chart
        shown_haloes, members = whole.on(shown_on)
        haloes = shown_haloes
        if halve:
            haloes = {name: finer.coarser(field) for name, field in shown_haloes.items()}
        noise = chart_noise(every, chart.index, weights, seed, area, halve, not painted_on)
        normals = noise.pop("split", None)
        made = evaluate.evaluate(
            weights,
            whole.without(kappa_field.on(chart, area.widened(seen)), chart, haloes),
            noise,
            area,
            precision,
            whole.shown(haloes) if evaluate.takes_objects(weights) else None,
            kappa_alone=not painted_on,
        )
        made = {name: field.cpu().numpy() for name, field in made.items()}
        if painted_on:
            large.apply(chart, made)
        evaluate.check_finite(made, chart.index)
        found = {}
        if want_sources and painted_on:
            found = draw.of_chart(chart, made, weights.header, seed)
            if members and whole.added:
                found = {key: np.concatenate([found[key], members[key]], -1) for key in found}
            found = draw.on_map(found, geometry)
        pixel = needed.owned(chart, grid)
        kappas = [
            resampling.interpolate(chart, convergence, grid, pixel)
            for convergence in whole.kappa(made, chart, area, haloes)
        ]
        if not needed.is_whole:
            kappas[0] -= kappa_field(*grid.angles(pixel))
        for one, values in zip(kappa_maps, kappas, strict=True):
            one.put(pixel, values)
        owned = charts.owned(chart, geometry)
        if maps and owned.size:
            shown = made if rescaling is None else rescaling.maps(chart, made, area)
            each = [(n, row, m) for n in maps for row, m in enumerate(painted[n])]
            if halve:
                shown = finer.halved(shown, normals, table)
            shown = whole.with_sources(shown, shown_haloes)
            none = np.zeros(shown_on.shape, np.float32)
            stack = np.stack([shown.get(m, none) for _, _, m in each])
            values = resampling.resample(shown_on, stack, geometry, owned)
            by_name = {m: value for (_, _, m), value in zip(each, values, strict=True)}
            whole.add(by_name, shown_on, shown_haloes, geometry, owned)
            for (n, row, _), value in zip(each, values, strict=True):
                maps[n].put(owned + row * geometry.npix, value)
        store.mark(chart.index, found)
        return found

    sources = []
    on_cpu = next(next(iter(weights.networks.values())).parameters()).device.type == "cpu"
    for number, found in enumerate(_each(paint, needed.charts, workers if on_cpu else None)):
        report((number + 1) / len(needed.charts))
        if found:
            sources.append(found)
    return kappa_maps, maps, sources


def _each(paint: Callable, all_charts: Sequence[Chart], workers: int | None) -> Iterator:
    """Results of `paint` in the order of the charts, `workers` charts at a time on a CPU.

    The networks of a chart use one core: the last bits of a convolution depend on its number of
    threads, and most other work on a chart is not parallel.
    """
    import torch

    from mlsky.sphere.threads import trim_memory

    before = torch.get_num_threads()
    each = (before,) if workers is None else (1,)
    pool = ThreadPoolExecutor(workers or 1, initializer=torch.set_num_threads, initargs=each)
    try:
        yield from pool.map(paint, all_charts)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
        trim_memory()
