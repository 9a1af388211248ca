"""Connected covariance of band powers of tSZ, CIB and radio, from many small skies.

    python examples/clients/covariance.py covariance.png 14 skies    # seeds, folder of the skies

Every seed gives a strip of sky of its own, cut into squares, so that clusters, large-scale modes
and bright sources differ: this is what one simulation of the sky cannot give. `mlsky.ensemble`
makes the strips; those in the folder already are not made again, so that a longer run continues a
shorter one. Beside the covariance of the squares stands that of Gaussian fields with the same power
and cross power, through the same estimator, and the formula 2 C_b^2 / N_b (Knox 1995,
doi:10.1103/PhysRevD.52.4307).
"""

import sys

import numpy as np
from flat import Flat, patch
from ilc import CUT_MJY
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from pixell import enmap, utils

import mlsky

SEEDS = 14
SIDE_DEG, SQUARES, PIXEL_ARCMIN = 10, 9, 2.0
NU_GHZ = 150
FIELDS = ("tsz", "cib", "radio")
EDGES = (200, 400, 700, 1000, 1400, 1900, 2400, 3000)  # tSZ of clusters fades above 3078 at 2'
GAUSSIAN_SEED = 1


def strip() -> tuple:
    """Geometry (shape, wcs) of a row of squares along the equator."""
    side = SIDE_DEG * utils.degree
    box = [[-side / 2, SQUARES * side], [side / 2, 0]]
    return enmap.geometry(box, res=PIXEL_ARCMIN * utils.arcmin, proj="car")


def gather(seeds: int, folder: str) -> np.ndarray:
    """Cross powers *(seeds, squares, fields, fields, bands)*, uK_CMB^2 sr."""
    paths = mlsky.ensemble(
        range(1, seeds + 1),
        [NU_GHZ],
        geometry=strip(),
        stokes="T",
        components=FIELDS,
        flux_cut_mjy=CUT_MJY,
        out=folder,
    )
    return np.array([powers(mlsky.Sky.read(path, lazy=True)) for path in paths])


def powers(made) -> np.ndarray:
    """Cross powers *(squares, fields, fields, bands)* of one sky."""
    maps = np.array([made.band(0, name)[0] for name in FIELDS], float)
    pieces = np.array_split(maps, SQUARES, axis=2)
    flats = {p.shape: Flat(p.shape, made.geometry.wcs) for p in pieces}
    return np.array([crossed(flats[p.shape], flats[p.shape].modes(p)) for p in pieces])


def crossed(flat: Flat, modes: np.ndarray) -> np.ndarray:
    """Power of all pairs of fields *(fields, fields, bands)*."""
    return np.array([[flat.power(a, b, EDGES) for b in modes] for a in modes])


def gaussian(flat: Flat, mean: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """The same as `powers`, *(n, ...)*, of Gaussian fields with a power and cross power."""
    rms = np.sqrt(np.einsum("iib->ib", mean))
    spectra = [flat.spread(p, EDGES) for p in rms**2]
    roots = np.linalg.cholesky(np.moveaxis(mean / (rms[:, None] * rms[None]), 2, 0))
    out = []
    for _ in range(n):
        unit = np.array([flat.gaussian(np.ones(()), rng) for _ in FIELDS])
        for root, inside in zip(roots, flat.bands(EDGES), strict=True):
            unit[:, inside] = root @ unit[:, inside]
        maps = [flat.map(u * np.sqrt(p)) for u, p in zip(unit, spectra, strict=True)]
        out.append(crossed(flat, flat.modes(np.array(maps))))
    return np.array(out)


def connected(samples: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Correlation of band powers, and their variance over that of Gaussian fields.

    Parameters
    ----------
    samples
        *(seeds, squares, n)*.
    counts
        Independent modes of each of the n band powers.

    Returns
    -------
    results
        ``correlation`` *(n, n)*, ``ratio`` *(n,)*, and ``correlation_error``, ``ratio_error``: by
        leaving out one seed at a time, as variances of heavy tails have no formula, and squares of
        one seed may belong together.
    """
    n = len(samples)

    def of(some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = some.reshape(-1, some.shape[-1])
        ratio = rows.var(0, ddof=1) / (2 * rows.mean(0) ** 2 / counts)
        return np.corrcoef(rows, rowvar=False), ratio

    correlation, ratio = of(samples)
    each = [of(np.delete(samples, i, 0)) for i in range(n)]
    errors = [np.sqrt((n - 1) * np.var([e[k] for e in each], axis=0)) for k in range(2)]
    return {
        "correlation": correlation,
        "ratio": ratio,
        "correlation_error": errors[0],
        "ratio_error": errors[1],
    }


def neighbours(samples: np.ndarray) -> tuple[float, float]:
    """Correlation of the logarithms of band powers of adjacent squares, and its error."""
    log = np.log(samples) - np.log(samples).mean((0, 1))
    product = (log[:, 1:] * log[:, :-1] / log.var((0, 1))).mean((1, 2))
    return product.mean(), product.std(ddof=1) / np.sqrt(len(product))


def main(path: str, seeds: int = SEEDS, folder: str = "skies") -> dict:
    crosses = gather(seeds, folder)
    flat = Flat(*patch(SIDE_DEG, PIXEL_ARCMIN))
    counts, ell = flat.counts(EDGES), flat.mean(lambda x: x, EDGES)
    total = crosses.shape[0] * crosses.shape[1]
    rng = np.random.default_rng(GAUSSIAN_SEED)
    drawn = gaussian(flat, crosses.mean((0, 1)), total, rng).reshape(crosses.shape)
    rows, rows_gaussian = (
        np.einsum("sqiib->sqib", x).reshape(*x.shape[:2], -1) for x in (crosses, drawn)
    )
    every = np.tile(counts, len(FIELDS))
    result, same = connected(rows, every), connected(rows_gaussian, every)
    title = f"{total} small skies of {SIDE_DEG} degrees, {len(crosses)} seeds"
    print(f"{title}; variance of band powers over the Gaussian one")
    for label, of in (("skies", result), ("Gaussian", same)):
        values = of["ratio"].reshape(len(FIELDS), -1), of["ratio_error"].reshape(len(FIELDS), -1)
        for name, r, e in zip(FIELDS, *values, strict=True):
            said = " ".join(f"{a:.2f}+-{b:.2f}" for a, b in zip(r, e, strict=True))
            print(f"{label:<9}{name:<6}{said}")
    off = ~np.eye(len(every), dtype=bool)
    for label, of in (("skies", result), ("Gaussian", same)):
        error = np.median(of["correlation_error"][off])
        print(f"{label:<9}error of a correlation, median {error:.3f}")
        for i, a in enumerate(FIELDS):
            for j, b in enumerate(FIELDS[: i + 1]):
                k = len(ell)
                block = of["correlation"][i * k : (i + 1) * k, j * k : (j + 1) * k]
                block = block[off[:k, :k]] if i == j else block
                print(f"{label:<9}{a} with {b}: mean correlation {block.mean():+.2f}")
    print(
        "band powers of adjacent squares correlate by {:+.3f} +- {:.3f}".format(*neighbours(rows))
    )
    draw(path, title, ell, rows, result, same)
    return {"skies": result, "gaussian": same}


def draw(path, title, ell, rows, result, same) -> None:
    drawing = Figure(figsize=(16, 8.6), layout="constrained")
    above, below = drawing.subfigures(2, 1)
    first, second = above.subplots(1, 2)
    unit, n = ell**2 / (2 * np.pi), len(ell)
    powers = rows.reshape(-1, len(FIELDS), n)
    for i, name in enumerate(FIELDS):
        first.plot(ell, (powers[:, i] * unit).T, color=f"C{i}", lw=0.3, alpha=0.4)
        first.plot(ell, powers[:, i].mean(0) * unit, color=f"C{i}", lw=2, label=name)
        for of, style in ((result, "o-"), (same, "s:")):
            one = slice(i * n, (i + 1) * n)
            second.errorbar(
                ell * 1.02**i,
                of["ratio"][one],
                of["ratio_error"][one],
                fmt=style,
                ms=4,
                lw=0.8,
                color=f"C{i}",
                mfc=f"C{i}" if of is result else "w",
                label=name if of is result else f"{name}, Gaussian fields",
            )
    first.set(
        xscale="log", yscale="log", xlabel=r"$\ell$", ylabel=r"$\ell^2C_\ell/2\pi$ [$\mu$K$^2$]"
    )
    first.set_title(f"{title}, {NU_GHZ} GHz, and their mean", fontsize=10)
    second.axhline(1, color="0.5", lw=0.8)
    second.set(xscale="log", yscale="log", xlabel=r"$\ell$")
    second.set_title("variance of band powers over the Gaussian one", fontsize=10)
    for axes in (first, second):
        axes.set_xticks([300, 500, 1000, 2000, 4000], ["300", "500", "1000", "2000", "4000"])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.legend(fontsize=8)
    panels = below.subplots(1, 3)
    shown = (
        ("correlation of band powers", result["correlation"], 1),
        ("Gaussian fields of the same power", same["correlation"], 1),
        ("error of the first", result["correlation_error"], 0.3),
    )
    for axes, (label, matrix, limit) in zip(panels, shown, strict=True):
        low, colours = (-limit, "RdBu_r") if limit == 1 else (0, "viridis")
        image = axes.imshow(matrix, cmap=colours, vmin=low, vmax=limit)
        for k in range(1, len(FIELDS)):
            for line in (axes.axhline, axes.axvline):
                line(k * n - 0.5, color="k", lw=0.8)
        ticks = (np.arange(len(FIELDS)) + 0.5) * n - 0.5
        axes.set(xticks=ticks, yticks=ticks)
        axes.set_xticklabels(FIELDS)
        axes.set_yticklabels(FIELDS, rotation=90, va="center")
        axes.set_title(label, fontsize=10)
        below.colorbar(image, ax=axes)
    drawing.savefig(path, dpi=75)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1], *(int(n) for n in sys.argv[2:3]), *sys.argv[3:4])
    else:
        main("covariance.png")
