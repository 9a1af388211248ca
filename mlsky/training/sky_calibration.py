"""Calibrations that need a stitched sky, fitted once per weight file and kept in its header.

Three quantities are measured on one full sky of the networks: the gain
of kappa by multipole; the large scales that networks trained on patches do not know
(`mlsky.painting.large_scales`); and the transfer from patches to the sky, the ratio of the
spectra of stitched maps to those of the same networks on periodic regions, by band, with one
amplitude per component where it is significant. The weights are never changed.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import seeds
from mlsky.components import REFERENCE_GHZ
from mlsky.frequency import cib_templates
from mlsky.haloes import shells
from mlsky.haloes.region import OBJECT_FIELDS
from mlsky.painting import finer, foregrounds, large_scales
from mlsky.sphere import gaussian, windows
from mlsky.sphere.geometry import Healpix
from mlsky.sphere.multipoles import truncate
from mlsky.training import velocity_gains
from mlsky.training.calibrate import gain_beside
from mlsky.training.large_scale_fit import (
    EDGES,
    fit_large_scales,
    follow_objects,
    rms_added,
    rounded,
    truth_ksz,
    truth_spectra,
    tsz_join,
)

if TYPE_CHECKING:
    from mlsky.haloes.paint import HaloPainter
    from mlsky.networks.weights import Weights

__all__ = ["calibrate", "fit_gain", "fit_transfer"]

#: Seed of the measured sky, far from typical seeds of users.
SEED = 20_000
#: Bands of the transfer, from 500 on, where patches have enough modes.
TRANSFER_FROM, TRANSFER_BANDS = 500, 8
#: An amplitude is applied where it differs from one by this many of its errors.
SIGNIFICANT = 3.0
FLAT_PIXELS = 256
#: Entries that `calibrate` fits and replaces, in addition to the gain of kappa.
FITTED = ("large_scales", "amplitude", "velocity_gains", "radio_fraction", "sky")
#: Regions on which the power of kSZ by level is measured.
LEVEL_REGIONS, LEVEL_PIXELS = 4, 512


def calibrate(
    path: str | os.PathLike,
    out: str | os.PathLike | None = None,
    *,
    seed: int = SEED,
    nside: int = 2048,
    patches: int = 24,
    device: str = "auto",
    progress: Callable[[str, float], None] | None = None,
) -> dict:
    """Fit the calibrations that need a sky, and write a weight file with them.

    Parameters
    ----------
    path
        Weight file; its networks and every other calibration are kept.
    out
        File to write; `path` itself by default, replaced when all is done.
    seed
        Of the sky.
    nside
        Of the sky; spectra are compared up to l = 1.5 nside.
    patches
        Number of regions of 256 pixels with which the sky is compared.
    device
        As of `mlsky.simulate`.
    progress
        Called as ``progress(stage, fraction)``.

    Returns
    -------
    dict
        ``sha256``, ``large_scales`` (rows of the table printed by ``mlsky calibrate``), ``added``
        (from `rms_added`), ``transfer``, ``amplitude`` and ``gain``.

    Raises
    ------
    RegistryError
        If the file is not a weight file.
    ValueError
        If it holds no networks that make a sky, or an argument is not allowed.
    """
    from mlsky.networks import evaluate
    from mlsky.networks.weights import load, open_weights, save
    from mlsky.theory import spectra
    from mlsky.theory.foregrounds import radio_fraction

    path = Path(path)
    out = path if out is None else Path(out)
    seeds.check(seed)
    geometry = Healpix(nside)
    if isinstance(patches, bool) or not isinstance(patches, int) or patches < 2:
        raise ValueError(
            f"patches={patches!r}: must be an integer from 2, for an error; 24 is good"
        )
    if not out.parent.is_dir():
        raise ValueError(f"{out}: folder {out.parent} does not exist; make it first")
    weights = open_weights(path)
    evaluate.kind(weights)
    report = progress or (lambda stage, fraction: None)
    bare = _bare(weights)
    report("spectra", 0.0)
    lmax = foregrounds.kappa_lmax(weights)
    rest = weights.mass_cut is not None
    cl = spectra.kappa_spectrum(max(lmax, shells.LMAX) if rest else lmax)
    join = large_scales.JOIN if rest else tsz_join(weights.pixel_arcmin)
    truth = truth_spectra(
        min(e for e in EDGES if e > join[1]), weights.mass_cut, _templates_ghz(weights)
    )
    gaussian_kappa = gaussian.draw_alm(cl, seed, field="kappa")
    objects = _objects(weights, gaussian_kappa, cl, seed, geometry) if rest else None
    gaussian_kappa = truncate(gaussian_kappa, lmax)
    made = foregrounds.generate(
        gaussian_kappa,
        geometry,
        weights=bare,
        seed=seed,
        objects=objects,
        add_objects=False,
        device=device,
        progress=lambda stage, fraction: report(stage, 0.02 + 0.7 * fraction),
    )
    del objects
    gain = fit_gain(gaussian_kappa, made.kappa_alm, made.objects_alm)
    report("spectra of the sky", 0.72)
    top = min(3 * nside // 2, round(10800 / weights.pixel_arcmin / 2))
    window = _window(geometry, weights.pixel_arcmin, top)
    maps = {name: m for name, m in made.maps.items() if name != "cib"}
    rows = made.maps["cib"].reshape(-1, *geometry.shape)  # the noise maps of the remainder follow
    maps |= zip(cib_templates.map_names(_templates_ghz(weights)), rows, strict=False)
    alm = {
        name: gaussian.scale_alm(gaussian.map_to_alm(m, geometry, top), 1 / window)
        for name, m in maps.items()
    }
    means = {name: float(m.mean(dtype=np.float64)) for name, m in maps.items()}
    whole = made.kappa_alm if made.objects_alm is None else made.kappa_alm + made.objects_alm
    low = {"gaussian_kappa": gaussian_kappa, "kappa": whole, **alm}
    density = _radio_density(made.catalogue, min(top, EDGES[-1]))
    if density is not None:
        low["radio"] = density[0]
    shot = 0.0 if density is None else density[1]
    report("levels of kSZ", 0.75)
    velocities = fit_velocities(bare, cl, alm["ksz"], seed)
    if velocities is not None:
        low["ksz"] = gaussian.scale_alm(alm["ksz"].copy(), np.sqrt(velocities[1]))
    table, rows = fit_large_scales(low, means, truth, shot, join, clusters=not rest)
    table = follow_objects(table, weights.mass_cut) if rest else table
    report("spectra of patches", 0.85)
    transfer, amplitude = fit_transfer(bare, cl, alm, patches, seed)
    calibration = dict(bare.header.get("calibration", {}))
    calibration |= {_gain_name(weights): gain, "large_scales": table}
    if velocities is not None:
        calibration["velocity_gains"] = velocities[0]
    if rest:
        calibration["radio_fraction"] = rounded(radio_fraction("rest", weights.mass_cut))
    if amplitude:
        calibration["amplitude"] = {n: a["applied"] for n, a in amplitude.items()}
    calibration["sky"] = {"seed": seed, "nside": nside, "patches": patches}
    state, header = load(path)
    digest = save(out, state, {**header, "calibration": calibration}, max_bytes=None)
    report("done", 1.0)
    return {
        "sha256": digest,
        "large_scales": rows,
        "added": rms_added(table, truth["kappa", "kappa"]),
        "transfer": transfer,
        "amplitude": amplitude,
        "gain": gain,
        "velocity_gains": None if velocities is None else velocities[0],
    }


def fit_velocities(
    weights: Weights, cl: NDArray[np.float64], ksz: NDArray[np.complex128], seed: int
) -> tuple[list[float], NDArray[np.float64]] | None:
    """Gains of the velocity levels of kSZ, and the resulting factor of its power at l = 0 to lmax.

    The model is compared with the sky, and at higher multipoles with regions. None for networks
    without such levels, and for a sky of few multipoles.
    """
    import healpy

    lmax = gaussian.alm_lmax(ksz)
    n = LEVEL_PIXELS
    of_sky = velocity_gains.edges(lmax, n * weights.pixel_arcmin)
    if of_sky is None or not hasattr(weights.networks.get("paint"), "velocity_levels"):
        return None
    edges = velocity_gains.beyond(of_sky, weights.pixel_arcmin)
    starts = _kappas(weights, cl, n, seed)
    parts = velocity_gains.level_spectra(weights, starts, edges, n, LEVEL_REGIONS, seed)

    def bands(c: NDArray, band_edges: NDArray) -> NDArray[np.float64]:
        modes = 2 * np.arange(len(c)) + 1
        inside = [slice(math.ceil(a), math.ceil(b)) for a, b in itertools.pairwise(band_edges)]
        return np.array([(c * modes)[s].sum() / modes[s].sum() for s in inside])

    sky = bands(healpy.alm2cl(ksz), of_sky)
    sky = np.concatenate([sky, parts.sum(0)[len(sky) :]])
    model = bands(truth_ksz(math.ceil(edges[-1]), weights.mass_cut), edges)
    gains = velocity_gains.fit_gains(sky, model, parts, np.sqrt(edges[1:] * edges[:-1]))
    return gains, velocity_gains.change(gains, parts, np.arange(lmax + 1), edges)


def fit_gain(
    gaussian_kappa: NDArray[np.complex128],
    made: NDArray[np.complex128],
    objects: NDArray[np.complex128] | None = None,
    bins: int = 60,
) -> dict:
    """Gain of kappa by multipole that gives a sky the power of its Gaussian kappa.

    Parameters
    ----------
    gaussian_kappa, made
        Alm before and after the networks, without this gain.
    objects
        Alm of the objects, which are added without a gain.

    Returns
    -------
    dict
        ``ell`` and ``gain``, for the weight file's calibration.
    """
    import healpy

    lmax = min(gaussian.alm_lmax(made), gaussian.alm_lmax(gaussian_kappa))
    before, after, *others = (
        truncate(a, lmax) for a in (gaussian_kappa, made, objects) if a is not None
    )
    pairs = [(before, before), (after, after)]
    pairs += [pair for own in others for pair in ((after, own), (own, own))]
    first = min(foregrounds.KAPPA_JOIN[1], lmax // 2)
    edges = np.unique(np.geomspace(first, lmax + 1, bins + 1).astype(int))
    modes = 2 * np.arange(lmax + 1) + 1
    power = [np.add.reduceat(healpy.alm2cl(*pair) * modes, edges[:-1]) for pair in pairs]
    return {
        "ell": np.sqrt(edges[1:] * edges[:-1]).round(1).tolist(),
        "gain": gain_beside(*power).round(5).tolist(),
        "of": "sky",  # it also corrects the interpolation of charts
    }


def fit_transfer(
    weights: Weights,
    cl: NDArray[np.float64],
    alm: Mapping[str, NDArray[np.complex128]],
    patches: int,
    seed: int,
) -> tuple[list[dict], dict]:
    """Ratio of the spectra of a sky to those of the same networks on periodic regions.

    Parameters
    ----------
    weights
        Weights of the sky.
    cl
        C_L^kk of the Gaussian kappa of both.
    alm
        Spectra of the maps of the sky, without pixel windows.
    patches
        How many regions.
    seed
        Of their kappa and noise.

    Returns
    -------
    rows
        By band: ``ell`` and {component: [ratio, error]}.
    amplitude
        {component: {fitted, error, applied}}: amplitudes that make the sky agree with the regions.
    """
    import healpy

    from mlsky.painting import regions
    from mlsky.statistics.bandpower import Spectra

    lmax = gaussian.alm_lmax(next(iter(alm.values())))
    n, pixel = FLAT_PIXELS, weights.pixel_arcmin
    first = max(TRANSFER_FROM, 4 * 10800 / pixel * 2 / n)
    edges = np.geomspace(first, lmax, TRANSFER_BANDS + 1) if first < lmax / 2 else None
    if edges is None:
        return [], {}
    flat = Spectra(n, pixel, edges.tolist())
    starts = _kappas(weights, cl, n, seed)
    powers = []
    for i in range(patches):
        kappa, objects = starts(i)
        made = regions.run(weights, kappa, seed, i, periodic=True, objects=objects)
        maps = np.stack([made[name].cpu().numpy() for name in alm])
        power = flat.power(flat.modes(maps))
        powers.append(power[range(len(alm)), range(len(alm))])
    powers = np.array(powers)
    modes = 2 * np.arange(lmax + 1) + 1
    rows: list[dict] = [{} for _ in range(TRANSFER_BANDS)]
    amplitude = {}
    for k, (name, a) in enumerate(alm.items()):
        c = healpy.alm2cl(a)
        log = []
        for b, (low, high) in enumerate(flat):
            inside = slice(math.ceil(low), math.ceil(high))
            sky = (c * modes)[inside].sum() / modes[inside].sum()
            of_patches = powers[:, k, b]
            ratio = sky / of_patches.mean()
            error = ratio * of_patches.std(ddof=1) / of_patches.mean() / math.sqrt(patches)
            rows[b] |= {
                "ell": round(math.sqrt(low * high), 1),
                name: [rounded(ratio), rounded(error)],
            }
            log.append(np.log(of_patches / of_patches.mean()))
        ratios, errors = np.array([row[name] for row in rows]).T
        # bands of one region are correlated: the error is that of their mean
        fraction = (ratios / errors) ** 2 / ((ratios / errors) ** 2).sum()
        spread = float((fraction @ np.array(log)).std(ddof=1) / math.sqrt(patches))
        fitted = float(np.exp(-0.5 * fraction @ np.log(ratios)))
        used = abs(fitted - 1) > SIGNIFICANT * spread / 2
        amplitude[name] = {
            "fitted": rounded(fitted),
            "error": rounded(spread / 2),
            "applied": rounded(fitted) if used else 1.0,
        }
    return rows, amplitude


def _kappas(weights: Weights, cl: NDArray[np.float64], n: int, seed: int) -> Callable:
    """Function of a number that gives the Gaussian kappa of a region, and its objects or None."""
    if weights.mass_cut:
        return _painted_kappas(weights, n, seed)
    side = math.radians(weights.pixel_arcmin / 60) * n
    step = 2 * math.pi / side
    ell = np.hypot(np.fft.fftfreq(n, 1 / n)[:, np.newaxis], np.fft.rfftfreq(n, 1 / n)) * step
    root = np.sqrt(np.interp(ell, np.arange(len(cl)), cl, right=0)) * n / side

    def kappa_of(index: int) -> tuple[NDArray[np.float32], None]:
        rng = seeds.generator(seed, "truth", index)
        modes = np.fft.rfft2(rng.standard_normal((n, n))) * root
        return np.fft.irfft2(modes, s=(n, n)).astype(np.float32), None

    return kappa_of


def _painted_kappas(weights: Weights, n: int, seed: int) -> Callable:
    """Function of a number that gives the Gaussian kappa of a painted region, and its objects.

    Networks that are given objects cannot be compared on regions without: these show them the
    kappa and tSZ of the objects that belong to the kappa, as they lie on a sky.
    """
    from mlsky.haloes.painter import Painter
    from mlsky.networks import evaluate

    painter = Painter(weights.pixel_arcmin, n, objects=weights.mass_cut)

    def kappa_of(index: int) -> tuple[NDArray[np.float32], dict | None]:
        region = painter.region(seed, index)
        kappa = painter.gaussian_kappa(region.maps[1]).cpu().numpy()
        if not evaluate.takes_objects(weights):
            return kappa, None
        maps = dict(zip(OBJECT_FIELDS, region.objects.maps.cpu().numpy(), strict=True))
        return kappa, {name: maps[name] for name in ("kappa", "tsz")}

    return kappa_of


def _objects(
    weights: Weights,
    gaussian_kappa: NDArray[np.complex128],
    cl: NDArray[np.float64],
    seed: int,
    geometry: Healpix,
) -> HaloPainter:
    """The haloes of the sky as networks are shown them."""
    from mlsky.haloes import tables
    from mlsky.painting.objects import objects_of_sky

    _, objects = objects_of_sky(
        gaussian_kappa,
        cl,
        seed,
        weights=weights,
        tables=tables.load(),
        geometry=geometry,
        components=("tsz",),
        halved=finer.halves_pixels(weights, geometry),
    )
    return objects


def _templates_ghz(weights: Weights) -> tuple[float, ...]:
    law = cib_templates.of_header(weights.header)
    return (REFERENCE_GHZ,) if law is None else tuple(law.templates_ghz)


def _gain_name(weights: Weights) -> str:
    """Where the gain of kappa is kept.

    Networks beside objects have one of regions too, without what charts add to it.
    """
    return "kappa" if weights.mass_cut is None else "kappa_sky"


def _bare(weights: Weights) -> Weights:
    """The same weights without what is fitted on a sky."""
    old = weights.header.get("calibration", {})
    kept = {k: v for k, v in old.items() if k not in (*FITTED, _gain_name(weights))}
    return dataclasses.replace(weights, header={**weights.header, "calibration": kept})


def _radio_density(catalogue, lmax: int) -> tuple[NDArray[np.complex128], float] | None:
    """Alm of the relative density of radio sources, and their shot noise."""
    if catalogue is None:
        return None
    kept = np.asarray(catalogue["kind"]) == "radio"
    count = int(kept.sum())
    if not count:
        return None
    grid = Healpix(max(16, 1 << math.ceil(math.log2(lmax))))
    theta = np.radians(90 - np.asarray(catalogue["dec"])[kept])
    pixel = grid.pixel(theta, np.radians(np.asarray(catalogue["ra"])[kept]))
    number = np.bincount(pixel, minlength=grid.npix) * (grid.npix / count) - 1
    return gaussian.map_to_alm(number, grid, lmax), 4 * math.pi / count


def _window(geometry: Healpix, pixel_arcmin: float, lmax: int) -> NDArray[np.float64]:
    """Of an output pixel and a chart's."""
    ell = np.arange(lmax + 1)
    return windows.square(ell, geometry.pixel_arcmin) * windows.square(ell, pixel_arcmin)
