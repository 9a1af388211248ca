"""Clusters found by a matched filter at SO's bands, beside the sky's own list of them.

    python examples/clients/clusters.py clusters.png sky.h5    # sky.h5 of ilc.py, or made

The filter is that of Melin, Bartlett & Delabrouille (2006, doi:10.1051/0004-6361:20065034, eqs. 8
and 9) with the covariance of the maps themselves, and isothermal profiles (beta = 1) of a few
sizes. The completeness that is expected needs the tSZ of the sky and the rms of the filtered map.
"""

import sys
from itertools import pairwise

import numpy as np
from flat import Flat, sky
from ilc import CUT_MJY, FREQS, PIXEL_ARCMIN, SEED, SIDE_DEG, SURVEYS, Survey, response
from matplotlib.figure import Figure
from scipy.ndimage import maximum_filter
from scipy.special import erf

SURVEY = "SO"
EDGES = (60, 300, 600, 1000, 1500, 2100, 2800, 3600, 4500, 5500, 6500, 7500, 9000)
CORES_ARCMIN = (0.5, 1.0, 2.0, 4.0)
THRESHOLD = 5.0
MATCH_ARCMIN = 2.0
Y_EDGES = np.geomspace(3e-5, 6e-3, 10)  # arcmin^2


def matched_filter(survey: Survey, core_arcmin: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights *(channels, modes)* of each band of l; their sum over channels is in units of y."""
    flat, out = survey.flat, []
    y, x = (
        np.minimum(np.arange(n), n - np.arange(n)) * p
        for n, p in zip(flat.shape, flat.pixel, strict=True)
    )
    radius = np.degrees(np.hypot(y[:, None], x[None])) * 60
    # cut off where the patch would feel its own copies
    profile = (1 + (radius / core_arcmin) ** 2) ** -1.0 * (radius < 20 * core_arcmin)
    shape = np.fft.rfft2(profile).real * flat.pixel.prod()
    total = sum(survey.parts.values())
    norm = 0.0
    for use, inside in zip(survey.used, flat.bands(survey.edges), strict=True):
        cov = survey.covariance(total[use][:, inside], inside)
        solved = np.linalg.solve(cov, response("tsz", survey.nu[use]))
        norm += (flat.weight[inside] * shape[inside] ** 2).sum() * (
            solved @ response("tsz", survey.nu[use])
        )
        out.append((use, solved[:, None] * shape[inside]))
    norm /= flat.pixel.prod() * np.prod(flat.shape)
    return [(use, w / norm) for use, w in out]


def filtered(survey: Survey, part: np.ndarray, weights) -> np.ndarray:
    """A part of the sky, filtered: at a cluster, its central y."""
    flat, modes = survey.flat, np.zeros(survey.flat.ell.shape, complex)
    for (use, w), inside in zip(weights, flat.bands(survey.edges), strict=True):
        modes[inside] = (w * part[use][:, inside]).sum(0)
    return flat.map(modes)


def peaks(snr: np.ndarray, inside: np.ndarray, radius: int) -> np.ndarray:
    """Places *(n, 2)* of maxima above the threshold."""
    high = (snr > THRESHOLD) & (snr == maximum_filter(snr, 2 * radius + 1)) & inside
    return np.argwhere(high)


def main(path: str, sky_path: str | None = None) -> dict:
    made = sky(sky_path, FREQS, SIDE_DEG, PIXEL_ARCMIN, seed=SEED, flux_cut_mjy=CUT_MJY)
    flat = Flat(made.geometry.shape, made.geometry.wcs)
    survey = Survey(flat, made, SURVEYS[SURVEY], np.random.default_rng(SEED), EDGES)
    inside = flat.window > 0.999 * flat.window.max()  # where the window is flat
    snr, signal, infill = (np.full(flat.shape, -np.inf) for _ in range(3))
    for core in CORES_ARCMIN:
        weights = matched_filter(survey, core)
        parts = {
            "all": filtered(survey, sum(survey.parts.values()), weights),
            "tsz": filtered(survey, survey.parts["tsz"], weights),
            "sources": filtered(survey, survey.parts["cib"] + survey.parts["radio"], weights),
        }
        rms = 1.4826 * np.median(np.abs(parts["all"][inside] - np.median(parts["all"][inside])))
        best = parts["all"] / rms > snr
        for target, name in ((snr, "all"), (signal, "tsz"), (infill, "sources")):
            target[best] = parts[name][best] / rms
    radius = int(np.ceil(MATCH_ARCMIN / PIXEL_ARCMIN))
    found = peaks(snr, inside, radius)
    table = made.clusters
    row, column = np.rint(
        made.geometry.wcs.wcs_world2pix(np.asarray(table["ra"]), np.asarray(table["dec"]), 0)[::-1]
    ).astype(int)
    held = (row >= 0) & (column >= 0) & (row < flat.shape[0]) & (column < flat.shape[1])
    held[held] = inside[row[held], column[held]]
    table, place = table[held], np.stack([row[held], column[held]], 1)
    y500 = np.asarray(table["y500"])
    apart = np.hypot(*(found[:, None] - place[None]).transpose(2, 0, 1)) * PIXEL_ARCMIN
    # Centres of wide clusters are found less well.
    near = apart < np.maximum(MATCH_ARCMIN, np.asarray(table["theta500"]) / 2)
    # Each detection belongs to the cluster of largest Y that is near.
    owner = np.where(near.any(1), np.argmax(near * y500, axis=1), -1)
    detected = np.isin(np.arange(len(y500)), owner)
    at = signal[place[:, 0], place[:, 1]]
    chance = 0.5 + 0.5 * erf((at - THRESHOLD) / np.sqrt(2))
    true = (owner >= 0) & (y500[owner] > Y_EDGES[0])
    area = inside.sum() * np.prod(np.degrees(flat.pixel))
    bright = at > THRESHOLD
    filling = infill[place[:, 0], place[:, 1]][bright].sum() / max(at[bright].sum(), 1e-300)
    print(
        f"{len(found)} detections above {THRESHOLD:g} sigma on {area:.0f} square degrees, "
        f"{true.mean():.2f} of them with a cluster above {Y_EDGES[0]:g} arcmin^2"
    )
    print(f"infrared and radio sources change the signal of detectable clusters by {filling:+.3f}")
    result = completeness(y500, detected, chance)
    for low, high, n, measured, error, expectation in result:
        print(
            f"Y500 {low:.1e} to {high:.1e} arcmin^2: {n:5d} clusters, "
            f"found {measured:.3f} +- {error:.3f}, expected {expectation:.3f}"
        )
    draw(path, flat, snr, inside, found, table, detected, result)
    return {"rows": result, "purity": true.mean(), "detections": len(found), "infill": filling}


def completeness(y500, detected, chance) -> list[tuple]:
    """Of each bin of Y: limits, number, part that was found, its error, part expected."""
    out = []
    for low, high in pairwise(Y_EDGES):
        these = (y500 >= low) & (y500 < high)
        n = int(these.sum())
        if n:
            part = detected[these].mean()
            # of a binomial with one success and one failure more, so that 0 and 1 have an error
            error = np.sqrt((part * n + 1) * ((1 - part) * n + 1) / (n + 2) ** 2 / (n + 3))
            out.append((low, high, n, part, error, chance[these].mean()))
    return out


def draw(path, flat, snr, inside, found, table, detected, result) -> None:
    drawing = Figure(figsize=(14, 4.6), layout="constrained")
    first, second, third = drawing.subplots(1, 3)
    low, high, _, part, error, expectation = np.array(result).T
    middle = np.sqrt(low * high)
    first.errorbar(middle, part, error, fmt="ko", ms=4, label="found")
    first.plot(middle, expectation, "C1-", label="expected from tSZ and the rms")
    first.set(xscale="log", xlabel="Y500 [arcmin$^2$]", ylabel="completeness", ylim=(-0.03, 1.05))
    first.legend(fontsize=8)
    mass, z = np.asarray(table["m500c"]) / 1e14, np.asarray(table["z"])
    second.scatter(z[~detected], mass[~detected], s=1, color="0.75", label="missed")
    second.scatter(z[detected], mass[detected], s=8, color="C3", label="found")
    second.set(yscale="log", xlabel="z", ylabel="M500c [$10^{14}$ Msun]", xlim=(0, 2))
    second.legend(fontsize=8)
    middle_row, middle_column = (n // 2 for n in flat.shape)
    half = min(flat.shape) // 6
    where = np.s_[
        middle_row - half : middle_row + half, middle_column - half : middle_column + half
    ]
    third.imshow(snr[where], cmap="gray_r", vmin=-2, vmax=10, origin="lower")
    shown = (np.abs(found - [middle_row, middle_column]) < half).all(1)
    third.plot(
        found[shown][:, 1] - middle_column + half,
        found[shown][:, 0] - middle_row + half,
        "o",
        mfc="none",
        mec="C3",
        ms=9,
    )
    third.set(xticks=[], yticks=[], title="signal to noise of the best size; detections")
    drawing.savefig(path, dpi=75)


if __name__ == "__main__":
    main(*sys.argv[1:3]) if len(sys.argv) > 1 else main("clusters.png")
