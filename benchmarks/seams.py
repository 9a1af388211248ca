"""Seams and isotropy of one sky, pictures across a border of charts and at a pole.

python benchmarks/seams.py [--nside 1024] [--seed 1] [--weights default] [--sky maps.npz]
                           [--picture seams.png]

Charts meet on the borders of nside-4 pixels. Printed, each with its jackknife error over the
nside-2 pixels of the sky:

- variance, skewness (of |kSZ|, as kSZ has none) and squared gradients (differences of neighbouring
  pixels of the map, and of the map in pixels 2 and 4 times as wide) in strips of 30' along the
  borders, over those of the rest of the sky; and those of the whole sky over those of the rest;
- power along x and y of the HEALPix faces at multiples of the charts' frequency, over that of the
  frequencies beside them;
- variance and skewness by declination, over those of the whole sky; sources per sr likewise.

tSZ is clipped at -100 uK: rarer clusters would make every error too large to tell anything.
"""

from __future__ import annotations

import argparse

import healpy
import numpy as np

from mlsky.haloes import shells, tables
from mlsky.painting import finer, foregrounds
from mlsky.painting.objects import objects_of_sky
from mlsky.sphere import charts, gaussian
from mlsky.sphere.geometry import Healpix
from mlsky.sphere.multipoles import truncate
from mlsky.theory import kappa_spectrum

NAMES = ("kappa", "ksz", "tsz", "cib")
HALF_STRIP_ARCMIN = 15.0
CLIP_UK = -100.0
BANDS = {
    "|dec| < 20": (0, 20),
    "20-60": (20, 60),
    "60-80": (60, 80),
    "caps > 80": (80, 90.1),
}
#: The jackknife leaves out one pixel of this nside at a time.
JACKKNIFE_NSIDE = 2


def made(nside: int, seed: int, weights: str) -> dict[str, np.ndarray]:
    """Maps (NESTED) and unit vectors of the sources."""
    opened = foregrounds.select(weights, Healpix(nside))
    lmax, objects = foregrounds.kappa_lmax(opened), None
    if opened.mass_cut is None:
        start = gaussian.draw_alm(kappa_spectrum(lmax), seed, field="kappa")
    else:
        cl = kappa_spectrum(max(lmax, shells.LMAX))
        start = gaussian.draw_alm(cl, seed, field="kappa")
        _, objects = objects_of_sky(
            start,
            cl,
            seed,
            weights=opened,
            tables=tables.load(),
            geometry=Healpix(nside),
            components=("tsz", "ksz", "cib", "radio"),
            halved=finer.halves_pixels(opened, Healpix(nside)),
        )
        start = truncate(start, lmax)
    sky = foregrounds.generate(start, Healpix(nside), weights=opened, seed=seed, objects=objects)
    maps = {"kappa": sky.kappa, **sky.maps}
    if maps["cib"].ndim > 1:  # templates: that at 148 GHz
        maps["cib"] = maps["cib"][0]
    out = {n: np.asarray(maps[n][...], np.float32).ravel() for n in NAMES}
    table = sky.catalogue
    where = healpy.ang2vec(np.asarray(table["ra"]), np.asarray(table["dec"]), lonlat=True)
    return {**out, "sources": where.T, "dsfg": np.asarray(table["kind"]) == "dsfg"}


def border(nside: int) -> np.ndarray:
    """Whether each pixel (NESTED) is nearer than half a strip to a border of charts."""
    out = np.zeros(healpy.nside2npix(nside), bool)
    radius = np.radians(HALF_STRIP_ARCMIN / 60)
    for block in range(0, out.size, 1 << 20):
        pixel = np.arange(block, min(block + (1 << 20), out.size))
        v = np.stack(healpy.pix2vec(nside, pixel, nest=True))
        east = np.stack([-v[1], v[0], np.zeros_like(v[0])]) / np.hypot(v[0], v[1])
        north = np.cross(v, east, axis=0)
        own = pixel // (nside // charts.NSIDE) ** 2
        for angle in np.arange(8) * np.pi / 4:
            there = v + np.tan(radius) * (east * np.cos(angle) + north * np.sin(angle))
            out[pixel] |= healpy.vec2pix(charts.NSIDE, *there, nest=True) != own
    return out


def gradients(maps: np.ndarray, step: int) -> np.ndarray:
    """Mean squared difference from neighbours by side, of pixels `step` times as wide."""
    wide = maps.reshape(len(maps), -1, step**2).mean(2)
    nside = healpy.npix2nside(wide.shape[1])
    out = np.zeros(wide.shape, np.float32)
    for start in range(0, wide.shape[1], 1 << 18):
        pixel = np.arange(start, min(start + (1 << 18), wide.shape[1]))
        near = healpy.get_all_neighbours(nside, pixel, nest=True)[::2]
        for n in near:
            out[:, pixel] += np.where(n >= 0, (wide[:, n] - wide[:, pixel]) ** 2, 0) / 4
    return out


class Sums:
    """Sums by area of the jackknife and by class of pixels, and ratios of means with errors."""

    def __init__(self, label: np.ndarray, classes: int):
        self.label, self.classes = label, classes

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """(areas, classes) sums."""
        areas = 12 * JACKKNIFE_NSIDE**2
        step = self.label.size // values.size
        label = self.label[::step]
        index = np.arange(values.size) // (values.size // areas) * self.classes + label
        return np.bincount(index, values, areas * self.classes).reshape(areas, self.classes)


def ratio(sums: list[np.ndarray], one, other, statistic) -> tuple[float, float]:
    """statistic(mean sums of class one) over that of the other, and its jackknife error."""
    total = [s.sum(0) for s in sums]

    def of(parts):
        return statistic(*(p[one].sum() for p in parts)) / statistic(
            *(p[other].sum() for p in parts)
        )

    n = len(sums[0])
    left_out = np.array(
        [of([t - s[i] for t, s in zip(total, sums, strict=True)]) for i in range(n)]
    )
    # areas without any of a class leave nothing out and count for nothing
    return of(total), float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))


def variance(n, x, xx):
    return xx / n - (x / n) ** 2


def third(n, x, xx, xxx):
    m = x / n
    return xxx / n - 3 * m * xx / n + 2 * m**3


def skewness(n, x, xx, xxx):
    return third(n, x, xx, xxx) / variance(n, x, xx) ** 1.5


def mean(n, x):
    return x / n


def _powers(sums: Sums, maps: dict[str, np.ndarray], name: str) -> list[np.ndarray]:
    x = maps[name].astype(np.float64)
    x -= x.mean()
    cube = np.abs(x) ** 3 if name == "ksz" else x**3  # kSZ has no skewness
    return [sums(np.ones_like(x)), sums(x), sums(x**2), sums(cube)]


def _row(name: str, pairs) -> None:
    print(f"    {name:12s}" + "".join(f"  {r:7.4f} ({e:.4f})" for r, e in pairs))


def strips(maps: dict[str, np.ndarray], near: np.ndarray) -> None:
    """Table of strips over the interior, and of the whole sky over the interior."""
    sums = Sums(near.astype(np.int64), 2)
    titles = ("variance", "skewness", "gradient^2", "at 2 pixels", "at 4 pixels")
    rows = {"strips / interior": ([1], [0]), "whole sky / interior": ([0, 1], [0])}
    printed: dict[str, list] = {title: [] for title in rows}
    squared = [gradients(np.stack([maps[n] for n in NAMES]), step) for step in (1, 2, 4)]
    for i, name in enumerate(NAMES):
        p = _powers(sums, maps, name)
        # a wide pixel is of a strip if its first small one is
        steps = [[sums(np.ones_like(g[i])), sums(g[i])] for g in squared]
        for title, (one, other) in rows.items():
            pairs = [ratio(p[:3], one, other, variance), ratio(p, one, other, skewness)]
            pairs += [ratio(s, one, other, mean) for s in steps]
            printed[title].append((name, pairs))
    for title, table in printed.items():
        print(f"{title} ({near.mean():.3f} of the sky in strips)")
        print(" " * 16 + "".join(f"  {t:16s}" for t in titles))
        for name, pairs in table:
            _row(name, pairs)


def isotropy(maps: dict[str, np.ndarray], nside: int) -> None:
    """Table of variance and skewness by declination over those of the whole sky."""
    pixel = np.arange(healpy.nside2npix(nside))
    dec = np.abs(90 - np.degrees(healpy.pix2ang(nside, pixel, nest=True)[0]))
    label = np.searchsorted([hi for _, hi in BANDS.values()], dec, side="right")
    sums = Sums(label, len(BANDS))
    whole = list(range(len(BANDS)))
    print("by declination, over the whole sky: variance, skewness")
    print(" " * 16 + "".join(f"  {t:34s}" for t in BANDS))
    for name in NAMES:
        p = _powers(sums, maps, name)
        pairs = []
        for i in whole:
            pairs += [ratio(p[:3], [i], whole, variance), ratio(p, [i], whole, skewness)]
        _row(name, pairs)
    ones = sums(np.ones(pixel.size))
    for name, chosen in (("radio", ~maps["dsfg"]), ("dsfg", maps["dsfg"])):
        at = healpy.vec2pix(nside, *maps["sources"][:, chosen], nest=True)
        number = sums(np.bincount(at, minlength=pixel.size).astype(float))
        pairs = [ratio([ones, number], [i], whole, mean) for i in whole]
        print(f"    {name:12s}" + "".join(f"  {r:7.4f} ({e:.4f})" + " " * 18 for r, e in pairs))


def lattice(maps: dict[str, np.ndarray], nside: int) -> None:
    """Power of maps at the charts' own frequencies over that beside them.

    Maps are folded on the (x, y) of HEALPix base pixels, where borders are 1/4 apart: a mark on
    every border shows as power at multiples of four in the folded map.
    """
    side = nside
    bits = np.arange(nside)
    spread = np.zeros(nside, np.int64)
    for i in range(int(np.log2(nside))):
        spread |= ((bits >> i) & 1) << (2 * i)
    index = spread[None, :] + 2 * spread[:, None]
    print(
        "power at multiples of the charts' frequency over that of their neighbours, along x and y"
    )
    for name in NAMES:
        power = np.zeros((2, side // 2 + 1))
        for face in range(12):
            x = maps[name][face * side**2 : (face + 1) * side**2][index].astype(np.float64)
            x = (x - x.mean()) * np.hanning(side)[:, None] * np.hanning(side)[None]
            power[0] += (np.abs(np.fft.rfft(x, axis=1)) ** 2).sum(0)
            power[1] += (np.abs(np.fft.rfft(x, axis=0)) ** 2).sum(1)
        both = power.sum(0)
        tooth = np.arange(16, side // 4, charts.NSIDE)
        beside = (both[tooth - 2] + both[tooth + 2]) / 2
        r = both[tooth] / beside
        print(f"    {name:12s}  {r.mean():.4f} ({r.std() / np.sqrt(r.size):.4f})")


def picture(maps: dict[str, np.ndarray], nside: int, path: str) -> None:
    """Maps across a corner where four charts meet, and round the north pole."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    # a corner of nside-4 pixels on the equator, and the pole, where four charts meet too
    centres = {"corner of charts": (22.5, 0.0), "pole": (0.0, 90.0)}
    n, size_deg = 300, 6.0
    figure, axes = plt.subplots(len(centres), len(NAMES), figsize=(20, 10.5))
    u = np.radians(np.linspace(-size_deg / 2, size_deg / 2, n))
    for row, (title, (lon, lat)) in zip(axes, centres.items(), strict=True):
        z = np.array(healpy.ang2vec(lon, lat, lonlat=True))
        east = np.array([-np.sin(np.radians(lon)), np.cos(np.radians(lon)), 0])
        north = np.cross(z, east)
        v = (
            z[:, None, None]
            + east[:, None, None] * u[None, None]
            + north[:, None, None] * u[:, None]
        )
        pixel = healpy.vec2pix(nside, *v, nest=True)
        owner = healpy.vec2pix(charts.NSIDE, *v, nest=True)
        edge = (np.diff(owner, axis=0, append=owner[-1:]) != 0) | (
            np.diff(owner, axis=1, append=owner[:, -1:]) != 0
        )
        for axis, name in zip(row, NAMES, strict=True):
            x = maps[name][pixel]
            lo, hi = np.quantile(x, [0.005, 0.995])
            axis.imshow(x, vmin=lo, vmax=hi, cmap="RdBu_r" if name == "ksz" else "viridis")
            y0, x0 = np.nonzero(edge)
            out = (np.minimum(y0, x0) < 12) | (np.maximum(y0, x0) > n - 12)
            axis.plot(x0[out], y0[out], "r.", ms=3)  # borders are marked at the rim alone
            axis.set(title=f"{name}, {title}", xticks=[], yticks=[])
    figure.tight_layout()
    figure.savefig(path, dpi=60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nside", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--sky", help="maps of an earlier run; written if it is not there")
    parser.add_argument("--picture")
    options = parser.parse_args()
    try:
        with np.load(options.sky or "") as file:
            maps = dict(file)
    except FileNotFoundError:
        maps = made(options.nside, options.seed, options.weights)
        if options.sky:
            np.savez(options.sky, **maps)
    nside = healpy.npix2nside(maps["kappa"].size)
    for name in NAMES:
        maps[name] = healpy.reorder(maps[name], r2n=True)
    if options.picture:
        picture(maps, nside, options.picture)
    maps["tsz"] = np.maximum(maps["tsz"], CLIP_UK)
    strips(maps, border(nside))
    lattice(maps, nside)
    isotropy(maps, nside)


if __name__ == "__main__":
    main()
