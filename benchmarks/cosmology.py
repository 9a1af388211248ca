"""Maps rescaled to another cosmology against maps painted in it.

python benchmarks/cosmology.py [--part rest] [--regions 8] [--cosmology sigma8+10 wmap5 ...]

Regions are painted from tables of Planck 2018 and of the other cosmology, with the same random
numbers. The former are filtered as a sky is (`mlsky.painting.rescale`), and compared in power with
the latter: auto spectra of tSZ, kSZ and CIB, the correlations of pairs, means, the deepest and
brightest pixels, and the share of pixels that had to be set to zero. Errors are jackknifes over
regions. With ``--part rest`` maps are without the objects (`mlsky.theory.objects`), as networks
beside a list of clusters paint them: then tSZ does not hang on a few rare haloes.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from mlsky.haloes import tables as halo_tables
from mlsky.haloes.painter import FIELDS, Painter
from mlsky.painting.rescale import Rescaling
from mlsky.plugins import camb
from mlsky.theory import parse
from mlsky.theory.objects import MASS_CUT
from mlsky.theory.response import response

EDGES = (200, 500, 1000, 2000, 3500, 5000)
NAMES = ("tsz", "ksz", "cib")
PAIRS = (("kappa", "tsz"), ("kappa", "cib"), ("tsz", "cib"))


def cases() -> dict[str, object]:
    """Cosmologies by the name they have in the table."""
    base = parse()
    sigma8, matter = camb.sigma8(base), (base.ombh2 + base.omch2) / base.h**2
    out: dict[str, object] = {}
    for sign, word in ((1, "+10"), (-1, "-10")):
        factor = 1 + 0.1 * sign
        out[f"sigma8{word}"] = {"sigma8": factor * sigma8}
        dark = factor * matter * base.h**2 - base.ombh2
        out[f"Omega_m{word}"] = {"omch2": dark, "sigma8": sigma8}
    return {**out, "act-dr6": "act-dr6", "wmap5": "wmap5"}


def powers(maps: dict[str, np.ndarray], pixel_arcmin: float) -> dict[tuple[str, str], np.ndarray]:
    """Band powers of every pair of maps, (n_band,)."""
    n = len(maps["tsz"])
    step = 2 * np.pi / np.radians(pixel_arcmin / 60)
    ell = np.hypot(np.fft.fftfreq(n)[:, None] * step, np.fft.rfftfreq(n)[None] * step)
    band = np.digitize(ell, EDGES)
    modes = {name: np.fft.rfft2(values - values.mean()) for name, values in maps.items()}
    names = list(maps)
    out = {}
    for i, a in enumerate(names):
        for b in names[i:]:
            product = (modes[a] * modes[b].conj()).real
            out[a, b] = np.array([product[band == k].sum() for k in range(1, len(EDGES))])
    return out


def region(painter: Painter, index: int) -> dict[str, np.ndarray]:
    painted = painter.region(1, index).maps.numpy()
    return {name: painted[FIELDS.index(name)] for name in ("kappa", *NAMES)}


def compare(cosmology: object, part: str, trained: Painter, painted: list[dict]) -> dict:
    """Ratios of rescaled to painted, with errors, of one cosmology."""
    parsed, n, pixel_arcmin = parse(cosmology), trained.n, trained.pixel_arcmin
    told = response(parsed, {"part": part})
    rescaling = Rescaling(told)
    tables = halo_tables.build_for(parsed)
    truth = Painter(pixel_arcmin, n, tables=tables, objects=trained.mass_cut)
    kappa = np.sqrt(truth_power(truth) / truth_power(trained))
    every = np.ones((n, n), bool)
    pixel = np.radians(pixel_arcmin / 60)
    old, new, plain = [], [], []
    figures: dict[str, list] = {}
    for index, before in enumerate(painted):
        after = region(truth, index)
        made = {name: rescaling.filtered(name, before[name].copy(), pixel, every) for name in NAMES}
        made["kappa"] = np.fft.irfft2(np.fft.rfft2(before["kappa"]) * kappa, s=(n, n))
        for out, maps in ((old, made), (new, after), (plain, before)):
            out.append(powers(maps, pixel_arcmin))
        for name in ("tsz", "cib"):
            clipped = float(np.mean((made[name] == 0) & (before[name] != 0)))
            deep = [np.percentile(np.abs(m[name]), [50, 99, 99.99]) for m in (made, after)]
            row = (made[name].mean() / after[name].mean(), clipped, *(deep[0] / deep[1]))
            figures.setdefault(name, []).append([float(x) for x in row])
    table = {"response": told.describe()}
    for name in NAMES:
        table[name] = _ratio(old, new, (name, name))
        table[f"{name} left alone"] = _ratio(plain, new, (name, name))
    for pair in PAIRS:
        both = [[_correlation(p, pair) for p in which] for which in (old, new)]
        table["r " + " x ".join(pair)] = [
            [round(float(x), 3) for x in np.mean(which, 0)] for which in both
        ]
    for name, rows in figures.items():
        keys = ("mean", "clipped", "median", "99 %", "99.99 %")
        mean = np.mean(rows, 0)
        table[f"{name} pixels"] = dict(zip(keys, (float(f"{x:.3g}") for x in mean), strict=True))
    return table


def truth_power(painter: Painter) -> np.ndarray:
    """C_l of kappa at the modes of a painter's maps."""
    return painter.grid.at(painter.ell, painter.t["analytic_kk"])


def _ratio(old: list, new: list, pair: tuple[str, str]) -> list:
    """Ratio of summed powers and its jackknife error, by band."""
    a, b = (np.array([p[pair] for p in which]) for which in (old, new))
    ratio = a.sum(0) / b.sum(0)
    left = (a.sum(0) - a) / (b.sum(0) - b)
    error = np.sqrt((len(a) - 1) / len(a) * ((left - ratio) ** 2).sum(0))
    return [[round(float(x), 3), round(float(e), 3)] for x, e in zip(ratio, error, strict=True)]


def _correlation(p: dict, pair: tuple[str, str]) -> np.ndarray:
    a, b = pair
    cross = p[pair] if pair in p else p[b, a]
    return cross / np.sqrt(p[a, a] * p[b, b])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("all", "rest"), default="all")
    parser.add_argument("--regions", type=int, default=8)
    parser.add_argument("--cosmology", nargs="*", help="names of the table, or all")
    parser.add_argument("--pixel", type=float, default=2.0, help="arcmin")
    parser.add_argument("--size", type=int, default=512, help="pixels along a side")
    parser.add_argument("--out", help="JSON file for the figures")
    given = parser.parse_args()
    known = cases()
    figures = {}
    objects = MASS_CUT if given.part == "rest" else None
    trained = Painter(given.pixel, given.size, objects=objects)
    painted = [region(trained, index) for index in range(given.regions)]
    for name in given.cosmology or known:
        begin = time.monotonic()
        figures[name] = compare(known[name], given.part, trained, painted)
        print(f"\n{name}: {figures[name].pop('response')}")
        print(f"  bands of l: {EDGES}; {time.monotonic() - begin:.0f} s")
        for key, value in figures[name].items():
            print(f"  {key:18} {value}", flush=True)
    if given.out:
        with open(given.out, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
