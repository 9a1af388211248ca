"""Connected covariance of band powers of tSZ, CIB and radio, from many skies.

    python examples/clients/covariance.py covariance.png 30 powers.npz    # skies, where to keep
    python examples/clients/covariance.py covariance.png 1 powers.npz sky.h5    # that of ilc.py

Every sky has its own seed, so that clusters, large-scale modes and bright sources differ: this is
what one simulation of the sky cannot give. A sky is a patch that is cut into pieces. Band powers
that are in the file already are kept, so that more skies can be added later. Beside the covariance
of the pieces stands that of Gaussian fields of the same power, 2 C_b^2 / N_b (Knox 1995,
doi:10.1103/PhysRevD.52.4307).
"""

import sys
from pathlib import Path

import numpy as np
from flat import Flat, patch, sky
from ilc import CUT_MJY, PIXEL_ARCMIN, SIDE_DEG
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

SKIES = 30
PIECES = 4  # along a side
NU_GHZ = 150
FIELDS = ("tsz", "cib", "radio")
EDGES = (200, 500, 900, 1400, 2000, 2800, 3800, 5000)
FIRST_SEED = 1


def powers(made) -> np.ndarray:
    """Band powers *(pieces, fields, bands)* of one sky, uK_CMB^2 sr."""
    place = int(np.argmin(np.abs(made.freqs_ghz - NU_GHZ)))
    maps = np.array([made.band(place, name)[0] for name in FIELDS], float)
    out = []
    for rows in np.array_split(maps, PIECES, axis=1):
        for piece in np.array_split(rows, PIECES, axis=2):
            flat = Flat(piece.shape, made.geometry.wcs)
            out.append([flat.power(m, m, EDGES) for m in flat.modes(piece)])
    return np.array(out)


def gather(skies: int, keep: str | None, first: str | None = None) -> np.ndarray:
    """Band powers *(skies, pieces, fields, bands)*; those in the file are not made again."""
    done = []
    if keep is not None and Path(keep).exists():
        done = list(np.load(keep)["powers"][:skies])
    for i in range(len(done), skies):
        made = sky(
            first if i == 0 else None,
            [NU_GHZ],
            SIDE_DEG,
            PIXEL_ARCMIN,
            seed=FIRST_SEED + i,
            components=FIELDS,
            flux_cut_mjy=CUT_MJY,
        )
        done.append(powers(made))
        if keep is not None:
            np.savez(keep, powers=done, edges=EDGES)
    return np.array(done)


def connected(samples: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlation of band powers *(n, n)*, their variance over the Gaussian one *(n,)*, its error.

    Parameters
    ----------
    samples
        *(pieces, n)*.
    counts
        Independent modes of each of the n band powers.
    """
    cov = np.cov(samples, rowvar=False)
    gaussian = 2 * samples.mean(0) ** 2 / counts
    ratio = np.diag(cov) / gaussian
    # by leaving out one piece at a time: variances of heavy tails have no error of a formula
    n = len(samples)
    each = [
        np.delete(samples, i, 0).var(0, ddof=1)
        / (2 * np.delete(samples, i, 0).mean(0) ** 2 / counts)
        for i in range(n)
    ]
    error = np.sqrt((n - 1) * np.var(each, axis=0))
    return np.corrcoef(samples, rowvar=False), ratio, error


def main(
    path: str, skies: int | None = None, keep: str | None = None, first: str | None = None
) -> dict:
    samples = gather(skies or SKIES, keep, first)
    n_skies, samples = len(samples), samples.reshape(-1, *samples.shape[2:])
    flat = Flat(*patch(SIDE_DEG / PIECES, PIXEL_ARCMIN))
    counts, ell = flat.counts(EDGES), flat.mean(lambda x: x, EDGES)
    rows = samples.reshape(len(samples), -1)
    correlation, ratio, error = connected(rows, np.tile(counts, len(FIELDS)))
    ratio, error = (x.reshape(len(FIELDS), -1) for x in (ratio, error))
    title = f"{n_skies} skies, {len(samples)} pieces of {SIDE_DEG / PIECES:g} degrees"
    print(f"{title}; variance of band powers over the Gaussian one")
    for name, r, e in zip(FIELDS, ratio, error, strict=True):
        print(f"{name:<6}", " ".join(f"{a:.2f}+-{b:.2f}" for a, b in zip(r, e, strict=True)))
    draw(path, title, ell, samples, correlation, ratio, error)
    return {"ratio": ratio, "error": error, "correlation": correlation}


def draw(path, title, ell, samples, correlation, ratio, error) -> None:
    drawing = Figure(figsize=(15, 4.6), layout="constrained")
    first, second, third = drawing.subplots(1, 3)
    unit = ell**2 / (2 * np.pi)
    for i, name in enumerate(FIELDS):
        first.plot(ell, (samples[:, i] * unit).T, color=f"C{i}", lw=0.4, alpha=0.5)
        first.plot(ell, samples[:, i].mean(0) * unit, color=f"C{i}", lw=2, label=name)
        second.errorbar(ell, ratio[i], error[i], fmt="o-", ms=4, color=f"C{i}", label=name)
    first.set(
        xscale="log", yscale="log", xlabel=r"$\ell$", ylabel=r"$\ell^2C_\ell/2\pi$ [$\mu$K$^2$]"
    )
    first.set_title(f"{title}, {NU_GHZ} GHz, and their mean", fontsize=9)
    first.legend()
    second.axhline(1, color="0.5", lw=0.8)
    second.set(xscale="log", yscale="log", xlabel=r"$\ell$")
    second.set_title("variance of band powers over the Gaussian one", fontsize=10)
    for axes in (first, second):
        axes.set_xticks([500, 1000, 2000, 4000], ["500", "1000", "2000", "4000"])
        axes.xaxis.set_minor_formatter(NullFormatter())
    image = third.imshow(correlation, cmap="RdBu_r", vmin=-1, vmax=1)
    n = len(ell)
    for k in range(1, len(FIELDS)):
        for line in (third.axhline, third.axvline):
            line(k * n - 0.5, color="k", lw=0.8)
    third.set(xticks=(np.arange(3) + 0.5) * n - 0.5, yticks=(np.arange(3) + 0.5) * n - 0.5)
    third.set_xticklabels(FIELDS)
    third.set_yticklabels(FIELDS, rotation=90, va="center")
    third.set_title(r"correlation of band powers; Gaussian: none off the diagonal", fontsize=10)
    drawing.colorbar(image, ax=third)
    drawing.savefig(path, dpi=75)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None, *sys.argv[3:5])
    else:
        main("covariance.png")
