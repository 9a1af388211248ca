"""What only a stitched sky shows, fitted once per weight file and kept in its header.

Three things are measured on one full sky that the networks make of a Gaussian kappa: the gain
of kappa by multipole; the large scales that networks trained on patches do not know
(`mlsky.painting.large_scales`); and the transfer from patches to the sky, the ratio of the
spectra of stitched maps to those of the same networks on periodic regions, by band, with one
amplitude per component where it is significant. Weights are never touched.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import seeds
from mlsky.components import REFERENCE_GHZ
from mlsky.frequency import bands
from mlsky.painting import foregrounds, large_scales
from mlsky.sphere import gaussian, windows
from mlsky.sphere.geometry import Healpix

if TYPE_CHECKING:
    from mlsky.networks.weights import Weights

__all__ = ["calibrate", "fit_gain", "fit_large_scales", "fit_transfer", "truth_spectra", "tsz_join"]

#: Seed of the sky measured, far from those that users begin with.
SEED = 20_000
#: Bands in which large scales are measured: wide enough that a network's answer is known to a
#: few per cent, narrow enough that it varies little in one.
EDGES = (2, 30, 50, 75, 105, 140, 180, 225, 275, 330, 390, 455, 530)
#: Further ones, for tSZ.
EDGES += (620, 730, 860, 1010, 1190, 1400, 1650, 1950, 2300)
#: Multipoles at which the table is kept; linear in between.
NODES = (0, 2, 5, 10, 15, 20, 25, 30, 35, 40, 50, 60, 70, 80, 90, 100, *range(120, 481, 20))
NODES += (*range(520, 1001, 40), *range(1040, 1921, 80))
#: Pixels of the networks from which `large_scales.JOIN` holds for tSZ too; smaller ones were
#: trained on patches smaller in proportion, and tSZ of clusters wider than them is missing up to
#: higher l.
JOINED_ARCMIN = 2.0
#: Lowest multipole of `mlsky.theory.foreground_spectra`; below it the coherence with kappa stays.
MODEL_FROM = 20
#: Share of the mean of tSZ that the clusters on large scales make up: more of them are smoother,
#: and take more of the sky near zero, whose deepest half per cent is 0.1 of the mean.
CLUSTERED = 0.1
#: Flux above which radio sources are not in the truth, mJy.
RADIO_MAX_MJY = 7.0
#: Bands of the transfer, from 500 on, where patches have modes enough.
TRANSFER_FROM, TRANSFER_BANDS = 500, 8
#: An amplitude is applied where it differs from one by this many of its errors.
SIGNIFICANT = 3.0
FLAT_PIXELS = 256
#: Share of a field's root power below which nothing else is made to follow what it lacks.
NEGLIGIBLE = 0.05
#: What a sky fits, and `calibrate` replaces.
FITTED = ("kappa", "large_scales", "completion", "amplitude", "sky")


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
    """Fit what only a sky shows, and write a weight file that has it.

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
        Regions of 256 pixels that the sky is compared with.
    device
        As of `mlsky.simulate`.
    progress
        Called as ``progress(stage, fraction)``.

    Returns
    -------
    dict
        ``sha256``, ``large_scales`` (rows of the table printed by ``mlsky calibrate``),
        ``transfer``, ``amplitude`` and ``gain``.

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
    cl = spectra.kappa_spectrum(foregrounds.kappa_lmax(weights))
    join = tsz_join(weights.pixel_arcmin)
    truth = truth_spectra(min(e for e in EDGES if e > join[1]))
    start = gaussian.draw_alm(cl, seed, field="kappa")
    made = foregrounds.generate(
        start,
        geometry,
        weights=bare,
        seed=seed,
        device=device,
        progress=lambda stage, fraction: report(stage, 0.02 + 0.7 * fraction),
    )
    gain = fit_gain(start, made.kappa_alm)
    report("spectra of the sky", 0.72)
    top = min(3 * nside // 2, round(10800 / weights.pixel_arcmin / 2))
    window = _window(geometry, weights.pixel_arcmin, top)
    alm = {
        name: gaussian.scale_alm(gaussian.map_to_alm(m, geometry, top), 1 / window)
        for name, m in made.maps.items()
    }
    means = {name: float(m.mean(dtype=np.float64)) for name, m in made.maps.items()}
    low = {"start": start, "kappa": made.kappa_alm, **alm}
    density = _radio_density(made.catalogue, min(top, EDGES[-1]))
    if density is not None:
        low["radio"] = density[0]
    shot = 0.0 if density is None else density[1]
    table, rows = fit_large_scales(low, means, truth, shot, join)
    report("spectra of patches", 0.85)
    transfer, amplitude = fit_transfer(bare, cl, alm, patches, seed)
    calibration = dict(bare.header.get("calibration", {}))
    calibration |= {"kappa": gain, "large_scales": table}
    if amplitude:
        calibration["amplitude"] = {n: a["applied"] for n, a in amplitude.items()}
    calibration["sky"] = {"seed": seed, "nside": nside, "patches": patches}
    state, header = load(path)
    digest = save(out, state, {**header, "calibration": calibration}, max_bytes=None)
    report("done", 1.0)
    return {
        "sha256": digest,
        "large_scales": rows,
        "transfer": transfer,
        "amplitude": amplitude,
        "gain": gain,
    }


def fit_gain(start: NDArray[np.complex128], made: NDArray[np.complex128], bins: int = 60) -> dict:
    """Gain of kappa by multipole that gives a sky the power of its Gaussian start.

    Parameters
    ----------
    start, made
        Alm before and after the networks, without a gain.

    Returns
    -------
    dict
        ``ell`` and ``gain``, for the weight file's ``calibration["kappa"]``.
    """
    import healpy

    lmax = min(gaussian.alm_lmax(made), gaussian.alm_lmax(start))
    before, after = (healpy.alm2cl(_cut(a, lmax)) for a in (start, made))
    first = min(foregrounds.KAPPA_JOIN[1], lmax // 2)
    edges = np.unique(np.geomspace(first, lmax + 1, bins + 1).astype(int))
    modes = 2 * np.arange(lmax + 1) + 1
    total = [np.add.reduceat(c * modes, edges[:-1]) for c in (before, after)]
    return {
        "ell": np.sqrt(edges[1:] * edges[:-1]).round(1).tolist(),
        "gain": np.sqrt(total[0] / total[1]).round(5).tolist(),
        "of": "sky",  # it undoes the interpolation of charts too
    }


def truth_spectra(lmax: int) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Spectra of the truth at 148 GHz on large scales, (lmax + 1,) each.

    Of pairs among "kappa", "tsz", "cib", "ksz" and "radio", which here is the density of
    sources relative to its mean, shot noise left out. `mlsky.theory.foreground_spectra` begins
    at l = 20; below, the part in two haloes goes on in proportion to C_l^kk, the rest as a
    constant.
    """
    from mlsky.theory import foreground_spectra, radio_sources, spectra

    ell = np.arange(lmax + 1)
    inside = np.maximum(ell, MODEL_FROM)
    names = ("kappa", "tsz", "cib", "radio", "ksz")
    nodes = np.unique(np.geomspace(MODEL_FROM, max(lmax, MODEL_FROM + 10), 60).round())
    parts = foreground_spectra(
        nodes, REFERENCE_GHZ, components=names, flux_cut_mjy=RADIO_MAX_MJY, parts=True
    )
    kk = spectra.kappa_spectrum(max(lmax, MODEL_FROM))
    falling = kk[: lmax + 1] / kk[inside]
    cut = (RADIO_MAX_MJY * 1e-3, REFERENCE_GHZ)
    mean = radio_sources.moment((REFERENCE_GHZ,), cut) / float(
        bands.jy_per_sr_per_uk(REFERENCE_GHZ)
    )
    out = {("kappa", "kappa"): kk[: lmax + 1]}
    for i, a in enumerate(names):
        for b in names[i:]:
            if a == b == "kappa":
                continue
            part = {k: np.interp(inside, nodes, v) for k, v in parts[f"{a} x {b}"].items()}
            unit = mean ** -((a, b).count("radio"))
            one = part["one_halo"] + (0 if a == b == "radio" else part["shot"])
            out[a, b] = (one + falling * part["two_halo"]) * unit
            out[b, a] = out[a, b]
    return out


def tsz_join(pixel_arcmin: float) -> tuple[int, int]:
    """`large_scales.JOIN` of what tSZ lacks, for networks of pixels of this size."""
    low, high = large_scales.JOIN
    wider = max(1.0, JOINED_ARCMIN / pixel_arcmin)
    return round(low * wider), round(high * wider)


def fit_large_scales(
    alm: Mapping[str, NDArray[np.complex128]],
    means: Mapping[str, float],
    truth: Mapping[tuple[str, str], NDArray[np.float64]],
    shot: float = 0.0,
    join: tuple[int, int] = large_scales.JOIN,
) -> tuple[dict, list[dict]]:
    """What a sky of networks lacks on large scales.

    Every field is split into its answer to the Gaussian start s and the rest, x = r s + e, in
    bands; r and the spectra of e over those of the truth are smooth in l. Wanted are a response a
    and power G so that x + a s + g has the truth's spectra, with kappa too.

    Parameters
    ----------
    alm
        Of "start", "kappa", and some of "tsz", "cib", "ksz", "radio", windows taken off.
    means
        Of "tsz" and "cib", uK.
    truth
        From `truth_spectra`.
    shot
        Power of the shot noise in "radio".
    join
        Multipoles over which the clusters that are added to tSZ fade out, from `tsz_join`. All
        else fades out over `large_scales.JOIN`.

    Returns
    -------
    table
        For `mlsky.painting.large_scales.prepare`.
    rows
        By band: ``ell``, ``error`` (cosmic, of an auto spectrum), ``auto`` and ``kappa``: ratios
        to the truth of what the networks make, alone and with kappa.
    """
    import healpy
    from scipy.interpolate import PchipInterpolator

    lmax = min(len(truth["kappa", "kappa"]) - 1, *(gaussian.alm_lmax(a) for a in alm.values()))
    names = [n for n in ("kappa", "tsz", "cib", "radio", "ksz") if n in alm]
    edges = [e for e in EDGES if e <= lmax] + [lmax + 1]
    if edges[-1] - edges[-2] < (edges[-2] - edges[-3]) / 2:
        del edges[-2]
    ell, modes = np.arange(lmax + 1), 2 * np.arange(lmax + 1.0) + 1
    weight = np.add.reduceat(modes, edges[:-1])[: len(edges) - 1]

    def banded(c) -> NDArray[np.float64]:
        return np.add.reduceat((c * modes)[: edges[-1]], edges[:-1]) / weight

    weight[-1] = modes[edges[-2] : edges[-1]].sum()
    centre = banded(ell)
    cut = {n: _cut(a, lmax) for n, a in alm.items()}
    spectra = {
        (a, b): banded(healpy.alm2cl(cut[a], cut[b])) for a in ("start", *names) for b in names
    }
    ss = banded(healpy.alm2cl(cut["start"]))
    theory = truth["kappa", "kappa"][: lmax + 1]

    def smooth(values, scale=1.0):
        ratio = PchipInterpolator(centre, values / banded(scale * np.ones_like(theory)))
        return ratio(np.clip(ell, centre[0], centre[-1])) * scale

    t = {pair: c[: lmax + 1] for pair, c in truth.items()}
    # kappa's own answer is one; kSZ answers to nothing
    gain = {n: spectra["start", n] / ss for n in names}
    slope = {
        n: smooth(gain[n], t[n, "kappa"] / np.maximum(theory, theory[2]) if n != "kappa" else 1.0)
        for n in names
        if n != "ksz"
    }
    rest = {}
    for i, a in enumerate(names):
        for b in names[i:]:
            left = spectra[a, b] - gain[a] * gain[b] * ss
            if a == b == "radio":
                left = left - shot
            scale = np.sqrt(t[a, a] * t[b, b])
            rest[a, b] = rest[b, a] = smooth(left, scale)
    response = {
        n: np.divide(
            t[n, "kappa"] - slope[n] * slope["kappa"] * theory - rest[n, "kappa"],
            slope["kappa"] * theory,
            out=np.zeros_like(theory),
            where=theory > 0,
        )
        for n in large_scales.CORRELATED
        if n in names
    }
    share = _taper(ell)
    response = {n: r * share for n, r in response.items()}
    roots = _roots(names, t, rest, slope, response, theory)
    for key in roots:
        roots[key] = roots[key] * (_taper(ell, join) if key == ("tsz",) else share)
    nodes = np.array([n for n in NODES if n <= min(lmax, join[1])])
    pick = np.maximum(nodes, 2)
    table = {
        "ell": nodes.tolist(),
        "response": {
            n: _short(response[n][pick]) if n in response else [0.0] * len(nodes)
            for n in large_scales.CORRELATED
        },
        "root": {" ".join(k): _short(r[pick]) for k, r in roots.items()},
        "mean_cib": float(f"{means.get('cib', 1.0):.6g}"),
        "clusters": 1,
    }
    if "tsz" in means and roots["tsz",][2] > 0:
        per_sr = (CLUSTERED * means["tsz"] / roots["tsz",][2]) ** 2
        table["clusters"] = max(1, round(4 * math.pi * per_sr))
    rows = [
        {
            "ell": float(centre[i].round(1)),
            "error": float(np.sqrt(2 / weight[i])),
            "auto": {
                n: _ratio(spectra[n, n][i] - (shot if n == "radio" else 0), banded(t[n, n])[i])
                for n in names
            },
            "kappa": {
                n: _ratio(
                    spectra[n, "kappa"][i] / spectra["kappa", "kappa"][i],
                    banded(t[n, "kappa"])[i] / banded(theory)[i],
                )
                for n in response
            },
        }
        for i in range(len(centre))
    ]
    return table, rows


def _roots(names, t, rest, slope, response, theory) -> dict[tuple[str, ...], NDArray[np.float64]]:
    """Lower triangle, by multipole, of the Cholesky factor of the power that is missing."""
    order = [n for n in large_scales.CORRELATED if n in names]
    zero = np.zeros_like(theory)
    missing = {
        (a, b): t[a, b] - (slope[a] + response[a]) * (slope[b] + response[b]) * theory - rest[a, b]
        for a in order
        for b in order
    }
    root: dict[tuple[str, ...], NDArray[np.float64]] = {}
    for i, a in enumerate(order):
        left = np.maximum(missing[a, a], 0)
        for j, b in enumerate(order[:i]):
            have = sum((root[a, c] * root[b, c] for c in order[:j]), zero)
            own = root[b,]
            there = own > NEGLIGIBLE * np.sqrt(t[b, b])
            value = np.divide(missing[a, b] - have, own, out=zero.copy(), where=there)
            # no more than there is: networks may have too much of a correlation already
            value = np.clip(value, -np.sqrt(left), np.sqrt(left))
            root[a, b] = value
            left = np.maximum(left - value**2, 0)
        root[a,] = np.sqrt(left)
    root["ksz",] = zero
    if "ksz" in names:
        root["ksz",] = np.sqrt(np.maximum(t["ksz", "ksz"] - rest["ksz", "ksz"], 0))
    return root


def fit_transfer(
    weights: Weights,
    cl: NDArray[np.float64],
    alm: Mapping[str, NDArray[np.complex128]],
    patches: int,
    seed: int,
) -> tuple[list[dict], dict]:
    """Spectra of a sky over those of the same networks on periodic regions.

    Parameters
    ----------
    weights
        As the sky was made with.
    cl
        C_L^kk that both start from.
    alm
        Of the maps of the sky, windows taken off.
    patches
        How many regions.
    seed
        Of their kappa and noise.

    Returns
    -------
    rows
        By band: ``ell`` and {component: [ratio, error]}.
    amplitude
        {component: {fitted, error, applied}}: what brings the sky to the regions.
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
    ell = flat.ell
    root = (
        np.sqrt(np.interp(ell, np.arange(len(cl)), cl, right=0))
        * n
        * n
        / (n * math.radians(pixel / 60))
    )
    powers = []
    for i in range(patches):
        rng = seeds.generator(seed, "truth", i)
        kappa = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((n, n))) / n * root, s=(n, n))
        made = regions.run(weights, kappa.astype(np.float32), seed, i, periodic=True)
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
            rows[b] |= {"ell": round(math.sqrt(low * high), 1), name: [_four(ratio), _four(error)]}
            log.append(np.log(of_patches / of_patches.mean()))
        ratios, errors = np.array([row[name] for row in rows]).T
        # bands of one region rise and fall together: the error is that of their mean
        share = (ratios / errors) ** 2 / ((ratios / errors) ** 2).sum()
        spread = float((share @ np.array(log)).std(ddof=1) / math.sqrt(patches))
        fitted = float(np.exp(-0.5 * share @ np.log(ratios)))
        used = abs(fitted - 1) > SIGNIFICANT * spread / 2
        amplitude[name] = {
            "fitted": _four(fitted),
            "error": _four(spread / 2),
            "applied": _four(fitted) if used else 1.0,
        }
    return rows, amplitude


def _bare(weights: Weights) -> Weights:
    """The same weights without what is fitted on a sky."""
    old = weights.header.get("calibration", {})
    kept = {k: v for k, v in old.items() if k not in FITTED}
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


def _taper(ell: NDArray, join: tuple[int, int] = large_scales.JOIN) -> NDArray[np.float64]:
    low, high = join
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((ell - low) / (high - low), 0, 1))


def _cut(alm: NDArray[np.complex128], lmax: int) -> NDArray[np.complex128]:
    import healpy

    have = gaussian.alm_lmax(alm)
    return alm if have == lmax else healpy.resize_alm(alm, have, have, lmax, lmax)


def _short(values: NDArray) -> list[float]:
    return [_four(v) for v in values]


def _four(value: float) -> float:
    return float(f"{value:.4g}")


def _ratio(a: float, b: float) -> float:
    return round(float(a / b), 3)
