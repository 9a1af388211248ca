"""All measurements of one region, as numbers that are averaged over regions.

Maps are (5, n, n) in the order of `FIELDS`: kappa, and uK_CMB at 148 GHz. Further templates of the
CIB may follow them, at their frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mlsky.components import COMPONENTS, REFERENCE_GHZ
from mlsky.frequency import bands
from mlsky.frequency.cib_templates import CibTemplates, map_names
from mlsky.statistics import minkowski, onepoint
from mlsky.statistics.bandpower import Spectra
from mlsky.statistics.bispectrum import Bispectrum, equilateral

__all__ = ["FIELDS", "SPECTRAL", "TSZ_CLIP", "Measure"]

FIELDS = ("kappa", "ksz", "tsz", "cib", "radio")
#: Fields of the spectra: rare clusters dominate tSZ, which is therefore clipped at `TSZ_CLIP`,
#: except in "tsz all".
SPECTRAL = (*FIELDS, "tsz all")
TSZ_CLIP = -40.0  # uK
#: Bands of multipoles, for pixels of 1' and finer, of 2' and of 4': the Nyquist multipole of the
#: pixels lies beyond the last.
EDGES = (300, 700, 1200, 2000, 3000, 4500, 6000, 8000)
EDGES_2, EDGES_4 = (300, 700, 1200, 2000, 3000, 4000, 5000), (300, 700, 1200, 2000, 2600)
TRIANGLES = (700, 1500, 3000, 5000, 8000)
TRIANGLES_2, TRIANGLES_4 = (700, 1300, 2200, 3400, 5000), (300, 700, 1200, 2000, 2600)
#: kSZ is odd under a change of sign that leaves all else: it has no bispectrum.
BISPECTRAL = ("kappa", "tsz", "cib", "radio")
FWHM_ARCMIN = 1.5  # for peaks, bins of kappa and Minkowski functionals
PEAKS = (0.1, 0.2, 0.35, 0.5)
KAPPA_EDGES = (-0.12, -0.04, 0.04, 0.14, 0.23, 0.35)  # of smoothed kappa
THRESHOLDS = (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0)  # standard deviations of the true region
#: Scale and largest value of each field's histogram.
HISTOGRAMS = {
    "kappa": onepoint.Histogram(0.05, 50),
    "ksz": onepoint.Histogram(0.5, 1000),
    "tsz": onepoint.Histogram(0.1, 1e4),
    "cib": onepoint.Histogram(2.0, 1e4),
    "radio": onepoint.Histogram(2.0, 1e4),
}
PATCH, FRAME = 128, 4  # pixels: side of a training patch, and what counts as its edge


def _resolved(pixel_arcmin: float, *edges: tuple[int, ...]) -> tuple[int, ...]:
    """The first of several sets of edges that the pixels resolve, or the last."""
    nyquist = 60 * 180 / pixel_arcmin
    return next((e for e in edges if e[-1] <= nyquist), edges[-1])


class Measure:
    """The measurements of regions of one size.

    Parameters
    ----------
    n
        Pixels along a side.
    pixel_arcmin
        Pixel size.
    periodic
        Whether opposite edges join.
    law
        Of the templates of the CIB that follow the fields, if some do.
    """

    def __init__(
        self,
        n: int,
        pixel_arcmin: float,
        periodic: bool = True,
        law: CibTemplates | None = None,
    ) -> None:
        self.n, self.pixel_arcmin, self.periodic = n, float(pixel_arcmin), periodic
        self.law = law
        self.spectra = Spectra(
            n, pixel_arcmin, _resolved(pixel_arcmin, EDGES, EDGES_2, EDGES_4), periodic
        )
        triangles = equilateral(_resolved(pixel_arcmin, TRIANGLES, TRIANGLES_2, TRIANGLES_4))
        self.triangles = Bispectrum(n, pixel_arcmin, triangles)
        pixel = math.radians(pixel_arcmin / 60)
        #: flux (mJy) of a pixel of 1 uK
        self.mjy_per_uk = 1e3 * float(bands.jy_per_sr_per_uk(REFERENCE_GHZ)) * pixel**2
        self.square_degrees = (n * pixel_arcmin / 60) ** 2
        self._frame = onepoint.frame(n, min(PATCH, n), FRAME)
        self._signs = [-1.0 if f in COMPONENTS and COMPONENTS[f].sign < 0 else 1.0 for f in FIELDS]

    def standard(self, maps: NDArray) -> NDArray[np.float64]:
        """Mean and standard deviation (2, fields) of the smoothed fields, tSZ clipped.

        Those of the truth set the thresholds of its own and of the generated region.
        """
        maps = maps[: len(FIELDS)]
        clipped = self._clip(maps)
        smooth = self._smooth(clipped)
        return np.array([clipped.mean((1, 2), dtype=np.float64), smooth.std((1, 2))])

    def _clip(self, maps: NDArray) -> NDArray:
        maps = maps.copy()
        tsz = FIELDS.index("tsz")
        maps[tsz] = np.maximum(maps[tsz], TSZ_CLIP)
        return maps

    def _smooth(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        modes = onepoint.smooth(np.fft.rfft2(maps), self.spectra.ell, FWHM_ARCMIN)
        return np.fft.irfft2(modes, s=(self.n, self.n))

    def __call__(
        self,
        maps: NDArray[np.float32],
        standard: NDArray[np.float64],
        clusters: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> dict[str, NDArray]:
        """Measure one region.

        Parameters
        ----------
        maps
            (fields + templates, n, n).
        standard
            From `standard`, of the true region.
        clusters
            "kappa" and "tsz" (n, n) of haloes that the maps leave out, if they do. Peaks, the
            bispectrum and the bins of kappa, and "tsz all", are of the sum: without its clusters
            kappa has no high peaks.

        Returns
        -------
        dict
            ``power`` (6, 6, bands) of `SPECTRAL`; ``direction`` (5, directions, bands);
            ``bispectrum`` (4, bands) of `BISPECTRAL`; ``histogram`` (5, bins); ``conditional``
            (4, bins of kappa): pixels, and sums of kSZ^2, tSZ and CIB; ``peaks`` of kappa;
            ``minkowski`` (5, 3, thresholds); ``edge`` (5, 2): mean distance from the
            mean at the edges of patches, and inside; with templates of the CIB ``colours``
            (2 + templates, 2 + templates, bands): spectra of kappa, clipped tSZ and all of them.

        Raises
        ------
        ValueError
            If a map holds values that are not finite.
        """
        names = FIELDS
        if self.law is not None:
            names += map_names(self.law.templates_ghz)[1:]
        bad = [name for name, m in zip(names, maps, strict=True) if not np.isfinite(m).all()]
        if bad:
            raise ValueError(f"maps of {', '.join(bad)}: hold NaN or infinity; nothing to measure")
        maps, further = maps[: len(FIELDS)], maps[len(FIELDS) :]
        clipped = self._clip(maps)
        kappa, tsz = maps[0], maps[2]
        if clusters is not None:
            kappa, tsz = kappa + clusters["kappa"], tsz + clusters["tsz"]
        modes = self.spectra.modes(np.concatenate([clipped, tsz[np.newaxis]]))
        smooth = self._smooth(clipped)
        triple = modes[[FIELDS.index(f) for f in BISPECTRAL]]
        peaked = smooth[0]
        if clusters is not None:
            triple[BISPECTRAL.index("kappa")] = self.spectra.modes(kappa[np.newaxis])[0]
            peaked = self._smooth(kappa)
        colours = {}
        if self.law is not None:
            of_all = np.concatenate([modes[[0, 2, 3]], self.spectra.modes(further)])
            colours["colours"] = self.spectra.power(of_all)
        return {
            **colours,
            "power": self.spectra.power(modes),
            "direction": self.spectra.by_direction(modes[:5]),
            "bispectrum": self.triangles(triple),
            "histogram": np.array(
                [HISTOGRAMS[f].count(m) for f, m in zip(FIELDS, maps, strict=True)]
            ),
            "conditional": onepoint.conditional_sums(
                peaked, KAPPA_EDGES, [maps[1] ** 2, maps[2], maps[3]]
            ),
            "peaks": onepoint.peaks(peaked, PEAKS, self.periodic),
            "minkowski": np.array(
                [
                    minkowski.functionals(sign * (m - a), np.multiply(THRESHOLDS, s))
                    for sign, m, a, s in zip(self._signs, smooth, *standard, strict=True)
                ]
            ),
            "edge": self._edges(clipped),
        }

    def _edges(self, maps: NDArray) -> NDArray[np.float64]:
        away = np.abs(maps - maps.mean((1, 2), keepdims=True))
        parts = (away[:, self._frame], away[:, ~self._frame])
        return np.stack([p.mean(1, dtype=np.float64) for p in parts], 1)
