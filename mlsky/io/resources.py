"""Estimates of the memory and disk space of a sky, before any work starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from mlsky.components import COMPONENTS
from mlsky.io.files import check_disk
from mlsky.io.store import SUFFIX
from mlsky.sphere import charts, coverage
from mlsky.sphere.gaussian import rings
from mlsky.sphere.geometry import Geometry
from mlsky.sphere.pixel_window import padded
from mlsky.sphere.resolution import kappa_grid, kappa_lmax
from mlsky.sphere.threads import threads

__all__ = ["chart_workers", "check", "disk", "memory", "memory_free"]

GIB = 2**30

#: Where Linux tells the limits of a control group, as of a container or a job.
CONTROL_GROUP = Path("/sys/fs/cgroup")

#: How to ignore the estimate.
ANYWAY = "check_resources=False (--no-check-resources) to try all the same"

#: Python with torch, the networks, spectra and tables, bytes; measured at nside 16.
BASE = 0.9 * GIB

#: Number of charts of a sky, the most that can be painted at a time.
CHARTS = 192
#: Bytes per pixel of a chart while it is painted, including what the heap of its thread keeps (we
#: measured 8.0 GiB for two at a time at nside 2048), and of the sources of each chart.
PER_CHART_PIXEL, PER_CHART_SOURCES = 535, 1.0e6

#: Pixels that hold sources, of both kinds: 300 bands of three Stokes parameters took 10.8 GiB more
#: than one.
SOURCE_PIXELS = 3.2e6

#: Bytes per l^2 of a complex alm, and of the grid on which a field is sampled
#: (`mlsky.sphere.field.Field`).
PER_ALM, PER_FIELD = 8, 18

#: Bytes per ring and multipole of a HEALPix map that gets or loses the window of its pixels
#: (`mlsky.sphere.harmonic_filter`), and of the pieces in which it does.
PER_RING_L, WINDOW_PIECES = 8, 0.3 * GIB

#: Maps of every Stokes parameter while a beam is applied: without sources, with a beam, sources,
#: their sum.
PER_BEAMED = 4

#: How far beyond a map the charts reach on which its kappa is made, and its lensed CMB (deg): the
#: first is three degrees and the height of a chart.
CHARTS_REACH, LENSING_REACH = 20.0, 0.5

#: Bytes of the pieces in which maps are transformed, lensed and written: at most, and per pixel
#: of a map that is one piece.
PIECES, PER_PIECE_PIXEL = 0.6 * GIB, 100

#: The same for maps whose rows do not hold whole rings: each pixel is a ring of its own there.
POINT_PIECES, PER_POINT_PIXEL = 0.8 * GIB, 200

#: Bytes per l^2 of the transform of kappa at pixels that lie on no rings (22 found).
PER_POINTS = 23

#: Bytes per halo while the objects of a sky are drawn and listed, with the densities they are drawn
#: from; while they are painted; in the list alone. Found for 1.8 million: 0.9, 0.8 and 0.14 GiB.
PER_DRAWN, PER_OBJECT, PER_LISTED = 540, 480, 80
#: Bytes of their maps per pixel of a chart.
PER_OBJECT_PIXEL = 40


def memory(
    geometry: Geometry,
    pixel_arcmin: float,
    components: tuple[str, ...],
    stokes: str,
    on_disk: bool,
    cib_maps: int = 1,
    haloes: int = 0,
    workers: int = 1,
    nfreq: int = 1,
    pixel_window: bool = True,
    beams: bool = False,
    cut: Geometry | None = None,
    others: Sequence[str] = (),
) -> dict[str, float]:
    """Peak of each stage, bytes: within about 20 % of what we measured, nside 512 to 4096.

    Parameters
    ----------
    geometry
        Pixels on which the sky is painted.
    pixel_arcmin
        Of the networks.
    on_disk
        Whether maps go to a file as they are made.
    cib_maps
        Maps that the CIB is kept as: of its templates, and of their remainder.
    haloes
        Number of the objects of the sky, painted one by one.
    workers
        Charts that are painted at a time.
    nfreq
        Number of bands.
    pixel_window
        Whether maps are averages over pixels.
    beams
        Whether maps have a beam. In memory they need one map per band and component more.
    cut
        Pixels that are kept, if they are not those that are painted.
    others
        Stokes parameters of each component of another package; their maps are in memory.
    """
    one = 4.0 * geometry.npix
    painted = 0.0 if on_disk else one * _painted(components, cib_maps)
    cmb = "cmb" in components
    painted += one * sum(map(len, others))
    held = painted + (0 if on_disk else one)  # kappa
    pieces = min(PIECES, PER_PIECE_PIXEL * geometry.npix)
    networks_lmax = kappa_lmax(pixel_arcmin)
    lmax, grid = kappa_grid(geometry, pixel_arcmin)
    kept = 0.0 if on_disk else 4.0 * grid.npix
    chart = max(c.npix for c in charts.charts(pixel_arcmin))
    sources = CHARTS * PER_CHART_SOURCES if {"cib", "radio"} & set(components) else 0.0
    top = min(geometry.lmax, 10000)
    fields = 1 if stokes == "T" else 3
    peaks = {
        "networks": PER_FIELD * _rows(geometry, CHARTS_REACH) * networks_lmax**2
        + max(PER_ALM * networks_lmax**2, workers * chart * PER_CHART_PIXEL)
        + (workers * chart * PER_OBJECT_PIXEL if haloes else 0.0)
        + haloes * PER_OBJECT
        + painted
        + kept
        + sources,
        "kappa": painted
        + sources
        + max(
            kept + 8.0 * grid.nrings * lmax,
            one + pieces + (PER_POINTS * lmax**2 if rings(geometry) is None else 0.0),
        )
        # pixels with a window need a copy
        + PER_ALM * lmax**2 * (1 + pixel_window if _rows(geometry, 0.0) == 1 else 3),
        "bands": held
        + sources * 5
        + source_maps(geometry, components, stokes, nfreq)
        + (0 if on_disk or not cmb else one * len(stokes))
        + one,
    }
    if cmb:
        # samples on the pixels round the map too, of which its averages are made
        seen = padded(geometry)[0] if pixel_window else geometry
        samples = 4.0 * seen.npix if seen is not geometry else 0.0
        peaks["lensing"] = (
            held
            + sources
            + (2 * samples if on_disk else (one + samples) * len(stokes))
            + (PER_FIELD * _rows(geometry, LENSING_REACH) + PER_ALM) * fields * top**2
            + 2 * PER_ALM * lmax**2
            + deflection(seen, lmax)
        )
    healpix = geometry.kind == "healpix"
    if healpix and (cmb or not pixel_window):
        # the CMB gets a window, or each of the other maps loses the one it was painted with
        together, limit = (min(fields, 2), top) if pixel_window else (1, geometry.lmax)
        rings_l = (4 * geometry.nside - 1) * limit
        peaks["pixel window"] = (
            held
            + sources
            + (0 if on_disk or not cmb else one * len(stokes))
            + PER_ALM * lmax**2
            + together * (one + PER_RING_L * rings_l + PER_ALM * limit**2)
            + min(WINDOW_PIECES, PER_PIECE_PIXEL * geometry.npix)
        )
    kept_npix = (geometry if cut is None else cut).npix
    if beams:
        limit = geometry.lmax
        of_rings = PER_RING_L * (4 * geometry.nside - 1) * limit if healpix else 0.0
        if not healpix:  # all in double precision
            of_rings = 2 * PER_RING_L * geometry.shape[0] * limit + 4 * one
        peaks["beams"] = (
            held
            + sources * 5
            + PER_BEAMED * one * len(stokes)
            + (0 if on_disk else _beamed(components, others, stokes) * nfreq * 4.0 * kept_npix)
            + min(fields, 2) * (of_rings + 2 * PER_ALM * limit**2)
            + pieces
        )
    if cut is not None and not on_disk and not beams:
        maps = 1 + _painted(components, cib_maps) + (len(stokes) if cmb else 0)
        peaks["edges"] = sources * 5 + (one + 4.0 * cut.npix) * maps
    listed = {stage: BASE + peak + haloes * PER_LISTED for stage, peak in peaks.items()}
    if haloes:
        listed["haloes"] = BASE + PER_ALM * networks_lmax**2 + haloes * PER_DRAWN
    return listed


def chart_workers(
    geometry: Geometry,
    pixel_arcmin: float,
    components: tuple[str, ...],
    stokes: str,
    on_disk: bool,
    cib_maps: int = 1,
    haloes: int = 0,
) -> int:
    """Charts to paint at a time on a CPU: one for each core, as far as memory allows.

    Parameters are those of `memory`. It is one at least; whether there is room for that is for
    `check` to say.
    """
    free = memory_free()
    request = (geometry, pixel_arcmin, components, stokes, on_disk, cib_maps, haloes)
    workers = min(threads(), CHARTS)
    while workers > 1 and memory(*request, workers=workers)["networks"] > free:
        workers -= 1
    return workers


def source_maps(geometry: Geometry, components: tuple[str, ...], stokes: str, nfreq: int) -> float:
    """Bytes of the pixels that hold sources, at every band: what grows with their number."""
    kinds = len({"cib", "radio"} & set(components))
    hit = min(geometry.npix, SOURCE_PIXELS / 2)
    return 4.0 * nfreq * len(stokes) * kinds * hit


def deflection(geometry: Geometry, lmax: int) -> float:
    """Bytes of the pieces in which a map is lensed, and of the deflection there.

    Parameters
    ----------
    lmax
        Of kappa.
    """
    layout = rings(geometry)
    if layout is not None and layout.full:
        return min(PIECES, PER_PIECE_PIXEL * geometry.npix)
    pieces = min(POINT_PIECES, PER_POINT_PIXEL * geometry.npix)
    return pieces + 2 * PER_FIELD * _rows(geometry, 0.0) * lmax**2


def disk(
    geometry: Geometry,
    pixel_arcmin: float,
    components: tuple[str, ...],
    stokes: str,
    nfreq: int,
    fits: bool,
    cib_maps: int = 1,
    beams: bool = False,
    cut: Geometry | None = None,
    pixel_window: bool = True,
    monopole_off: Sequence[str] = (),
    others: Sequence[str] = (),
) -> float:
    """Bytes written to disk while one sky is made; parameters as `memory`.

    What is made of other maps is written beside them, also without the window and the means of the
    components `monopole_off`.
    """
    one = 4.0 * geometry.npix
    _, grid = kappa_grid(geometry, pixel_arcmin)
    maps = 1 + _painted(components, cib_maps)
    maps += len(stokes) if "cmb" in components else 0
    copies = 0 if pixel_window else _painted(components, cib_maps)
    copies += _painted(tuple(n for n in components if n in monopole_off), cib_maps)
    total = (maps + copies) * one + 4.0 * grid.npix + CHARTS * PER_CHART_SOURCES
    total += source_maps(geometry, components, stokes, nfreq)
    kept = one if cut is None else 4.0 * cut.npix
    if beams:
        total += (
            kept
            * nfreq
            * sum(len(stokes) if "Q" in COMPONENTS[n].stokes else 1 for n in components)
        )
    elif cut is not None:
        total += kept * maps
    return total + (kept * (nfreq * len(stokes) + 1) if fits else 0.0)


def _rows(geometry: Geometry, reach_deg: float) -> float:
    """Fraction of the rows of a grid that a map and so much round it needs."""
    reach = coverage.colatitudes_of_map(geometry, math.radians(reach_deg))
    return 1.0 if reach is None else float(reach[1] - reach[0]) / math.pi


def _beamed(components: Sequence[str], others: Sequence[str], stokes: str) -> int:
    """Number of maps per band with beams: each component's own."""
    each = [*(COMPONENTS[name].stokes for name in components), *others]
    return sum(len(stokes) if "Q" in one else 1 for one in each)


def _painted(components: tuple[str, ...], cib_maps: int) -> int:
    """Number of maps that networks paint, and the remainder of the CIB."""
    return sum(cib_maps if name == "cib" else name in ("tsz", "ksz") for name in components)


def memory_free() -> float:
    """Bytes of memory still available to this process.

    What the machine has available, or less where the process is in a control group with a limit.
    """
    import psutil

    found = [float(psutil.virtual_memory().available)]
    try:
        limit = (CONTROL_GROUP / "memory.max").read_text().strip()
        if limit != "max":
            used = int((CONTROL_GROUP / "memory.current").read_text())
            lines = (CONTROL_GROUP / "memory.stat").read_text().splitlines()
            stat = dict(line.split() for line in lines)
            # Cached files can be dropped.
            found.append(float(int(limit) - used + int(stat["inactive_file"])))
    except (OSError, KeyError, ValueError):
        pass
    return min(found)


def check(
    geometry: Geometry,
    pixel_arcmin: float,
    components: tuple[str, ...],
    stokes: str,
    nfreq: int,
    out: Path | None,
    cib_maps: int = 1,
    haloes: int = 0,
    pixel_window: bool = True,
    beams: bool = False,
    cut: Geometry | None = None,
    monopole_off: Sequence[str] = (),
    others: Sequence[str] = (),
) -> None:
    """Refuse a sky for which memory or disk space does not suffice.

    Raises
    ------
    ValueError
        States the need in GiB, what is free, and what to change.
    """
    request = (geometry, pixel_arcmin, components, stokes)
    more = {
        "cib_maps": cib_maps,
        "haloes": haloes,
        "nfreq": nfreq,
        "pixel_window": pixel_window,
        "beams": beams,
        "cut": cut,
        "others": others,
    }
    need = max(memory(*request, on_disk=out is not None, **more).values())
    free = memory_free()
    what = f"nside={geometry.nside}" if geometry.kind == "healpix" else f"CAR {geometry.shape}"
    if cut is not None:
        what = f"CAR {cut.shape}, made with what lies round it on {geometry.shape}"
    if need > free:
        fewer = f"fewer pixels{' or bands' if beams else ''}"
        fewer += ", or a narrower beam" if beams and cut is not None else ""
        remedy = f"ask for {fewer}, or {ANYWAY}"
        if out is None:
            less = max(memory(*request, on_disk=True, **more).values())
            remedy = f"give out= to keep maps on disk ({less / GIB:.1f} GiB), or {remedy}"
        raise ValueError(
            f"{what}: {need / GIB:.1f} GiB of memory needed and {free / GIB:.1f} GiB free; {remedy}"
        )
    if out is not None:
        part = out.with_name(out.name + SUFFIX)
        there = part.glob("*") if part.is_dir() else ()
        kept = sum(file.stat().st_blocks * 512 for file in there)
        fits = out.suffix.lower() == ".fits"
        written = {"beams": beams, "cut": cut, "pixel_window": pixel_window, "others": others}
        need = disk(*request, nfreq, fits, cib_maps, monopole_off=monopole_off, **written) - kept
        check_disk(part, need, f"ask for fewer pixels, or {ANYWAY}")
