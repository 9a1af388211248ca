"""Bispectra, scattering coefficients, topology, minima: networks beside truth that they never saw.

The statistics that chapter 7 of the seed report asks for, of regions that are painted here, each
with an error from a jackknife over regions. Less than a minute of one core:

    python examples/sky_statistics.py statistics.png

`mlsky validate --html DIR` has all of them, on more regions.
"""

import sys

import numpy as np
from matplotlib.figure import Figure

from mlsky import registry
from mlsky.haloes.painter import Painter
from mlsky.networks.weights import open_weights
from mlsky.painting.regions import generate
from mlsky.statistics import extrema, minkowski, onepoint
from mlsky.statistics.bandpower import Spectra
from mlsky.statistics.bispectrum import Bispectrum, equilateral, folded, squeezed
from mlsky.statistics.distances import Distances
from mlsky.statistics.jackknife import jackknife
from mlsky.statistics.scattering import Scattering
from mlsky.statistics.streaming import Averages
from mlsky.training import data
from mlsky.validation.measure import FIELDS, HISTOGRAMS

REGIONS, SIDE, PIXEL = 10, 256, 2.0
SHOWN = ("kappa", "tsz", "cib")
EDGES = (700, 1300, 2200, 3400, 5000)
SHAPES = {
    "equilateral": equilateral(EDGES),
    "squeezed": squeezed(EDGES[1:], (200, 800)),
    "folded": folded((1400, 2600, 5000)),
}
HEIGHTS = (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
FWHM_ARCMIN, SCALES, PATCH = 4.0, 4, 128
TSZ_CLIP = -40.0  # uK: a few clusters rule everything else


def regions():
    """True and generated maps (3, SIDE, SIDE) of each region."""
    painter = Painter(PIXEL, SIDE)
    files = [open_weights(path) for path in registry.fetch("convolutional@v4")]
    weights = next(w for w in files if w.pixel_arcmin == PIXEL)
    for i in range(REGIONS):
        maps = dict(zip(data.FIELDS, painter.region(12, i).maps, strict=False))
        gaussian_kappa = painter.gaussian_kappa(maps["kappa_g"]).cpu().numpy()
        made = dict(
            zip(FIELDS, generate(weights, gaussian_kappa, 12, i, periodic=True), strict=True)
        )
        true = {name: maps[name].cpu().numpy() for name in SHOWN}
        yield tuple(
            np.stack([np.maximum(m[f], TSZ_CLIP if f == "tsz" else -np.inf) for f in SHOWN])
            for m in (true, made)
        )


class Measure:
    """What is measured of each region."""

    def __init__(self) -> None:
        self.spectra = Spectra(SIDE, PIXEL, EDGES)
        self.triangles = {k: Bispectrum(SIDE, PIXEL, v) for k, v in SHAPES.items()}
        self.scattering = Scattering(PATCH, SCALES)
        self.standard: np.ndarray | None = None

    def features(self, maps: np.ndarray) -> np.ndarray:
        """Scattering features (fields, patches, k), heavy tails tamed."""
        k = SIDE // PATCH
        cut = maps.reshape(len(maps), k, PATCH, k, PATCH).swapaxes(2, 3)
        scale = np.array([HISTOGRAMS[f].scale for f in SHOWN])[:, None, None, None]
        return self.scattering.features(
            np.arcsinh(cut.reshape(len(maps), k * k, PATCH, PATCH) / scale)
        )

    def __call__(self, regions: np.ndarray) -> dict[str, np.ndarray]:
        (maps,) = regions
        modes = self.spectra.modes(maps)
        smooth = np.fft.irfft2(
            onepoint.smooth(np.fft.rfft2(maps), self.spectra.ell, FWHM_ARCMIN), s=(SIDE, SIDE)
        )
        if self.standard is None:  # thresholds of the first true region, for all
            self.standard = np.array([smooth.mean((1, 2)), smooth.std((1, 2))])
        signs = [-1 if f == "tsz" else 1 for f in SHOWN]  # clusters are what is high
        levels = [x * (m - a) / s for x, m, a, s in zip(signs, smooth, *self.standard, strict=True)]
        out = {f"bispectrum {k}": t(modes) for k, t in self.triangles.items()}
        out["minkowski"] = np.array([minkowski.functionals(x, HEIGHTS) for x in levels])
        out["extrema"] = np.array([extrema.counts(x, HEIGHTS) for x in levels], float)
        out["scattering"] = self.features(maps).mean(1)
        return {k: v[None] for k, v in out.items()}


def ratio(true: Averages, made: Averages, of) -> tuple[np.ndarray, np.ndarray]:
    """Generated over true, and its error by leaving regions out, both together."""
    both = {f"true {k}": v for k, v in true.samples().items()}
    both |= {f"made {k}": v for k, v in made.samples().items()}

    def statistic(means):
        a, b = (
            of({k.removeprefix(f"{s} "): v for k, v in means.items() if k.startswith(s)})
            for s in ("true", "made")
        )
        return np.divide(b, a, out=np.full_like(b, np.nan), where=a != 0)

    return jackknife(statistic, both)


def main(path: str) -> None:
    measure = Measure()
    true, made = Averages(measure), Averages(measure)
    distances = {name: Distances() for name in SHOWN}
    for area, (a, b) in enumerate(regions()):
        true.update(a[None], area)
        made.update(b[None], area)
        for name, x, y in zip(SHOWN, measure.features(a), measure.features(b), strict=True):
            distances[name].update(x[:, :SCALES], y[:, :SCALES], area)
    drawing = Figure(figsize=(13, 9.5), layout="constrained")
    panels = drawing.subplots(4, len(SHOWN))
    for i, name in enumerate(SHOWN):
        for shape, triangles in SHAPES.items():
            x = [np.sqrt(a * b) for (a, b), *_ in triangles]
            value, error = ratio(true, made, lambda m, i=i, s=shape: m[f"bispectrum {s}"][i])
            panels[0, i].errorbar(x, value, error, fmt="o", ms=4, capsize=2, label=shape)
            print(f"{name:<6} bispectrum {shape:<12}", value.round(2), "+-", error.round(2))
        panels[0, i].set(ylim=(0, 2), title=f"{name}: bispectrum over truth, by $\\ell$")
        for j, part in enumerate(("area", "boundary", "Euler characteristic")):
            for side, stream, look in (("true", true, "k-"), ("made", made, "o")):
                value, error = stream.compute(lambda m, i=i, j=j: m["minkowski"][i, j])
                unit = np.abs(true.compute(lambda m, i=i, j=j: m["minkowski"][i, j])[0]).max()
                style = {"color": f"C{j}"} if side == "made" else {"lw": 0.8}
                label = part if side == "made" else None
                panels[1, i].errorbar(
                    HEIGHTS, value / unit, error / unit, fmt=look, ms=3, label=label, **style
                )
        panels[1, i].set(title=f"{name}: Minkowski functionals by threshold, lines: truth")
        value, error = ratio(true, made, lambda m, i=i: np.exp(m["scattering"][i]))
        panels[2, i].errorbar(np.arange(len(value)), value, error, fmt="o", ms=3, color="C3")
        panels[2, i].axvline(SCALES - 0.5, color="0.7", lw=0.8)
        panels[2, i].set(title=f"{name}: scattering S1 | S2/S1 over truth", ylim=(0.8, 1.2))
        print(f"{name:<6} scattering, largest deviation {np.abs(value - 1).max():.3f}")
        for k, kind in enumerate(("maxima above", "minima below")):
            keep = slice(2, None) if k == 0 else slice(0, 4)
            value, error = ratio(true, made, lambda m, i=i, k=k, s=keep: m["extrema"][i, k, s])
            panels[3, i].errorbar(
                HEIGHTS[keep], value, error, fmt="o", ms=4, capsize=2, label=kind, color=f"C{4 + k}"
            )
        panels[3, i].set(title=f"{name}: extrema over truth, by height", ylim=(0.6, 1.4))
        found = distances[name].compute()
        said = ", ".join(f"{k} {v['value']:.3f} +- {v['error']:.3f}" for k, v in found.items())
        print(f"{name:<6} distances of scattering S1: {said}")
        for axes in panels[[0, 2, 3], i]:
            axes.axhline(1, color="0.5", lw=0.8)
    for row in (0, 1, 3):
        panels[row, 0].legend(fontsize=7)
    for axes in panels.ravel():
        axes.title.set_fontsize(9)
        axes.tick_params(labelsize=8)
    drawing.savefig(path, dpi=75)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "statistics.png")
