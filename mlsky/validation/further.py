"""Further statistics: higher orders, wavelets, distances between sets.

Measurements of a region are numbers that are averaged over regions, so that every result has a
jackknife error. Features of patches are accumulated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mlsky.statistics import crossfrequency, extrema, onepoint
from mlsky.statistics.bandpower import Spectra
from mlsky.statistics.bispectrum import Bispectrum, Triangle, equilateral, folded, squeezed
from mlsky.statistics.distances import Distances
from mlsky.statistics.jackknife import jackknife
from mlsky.statistics.likelihood import LogLikelihood
from mlsky.statistics.scattering import Scattering
from mlsky.statistics.streaming import Averages
from mlsky.statistics.trispectrum import Reconstruction
from mlsky.validation.measure import BISPECTRAL, FIELDS, FWHM_ARCMIN, HISTOGRAMS, TSZ_CLIP

__all__ = ["FREQS_GHZ", "Further"]

FREQS_GHZ = (93.0, 150.0, 220.0, 280.0)  # of ACT DR6
BANDS = 22  # of multipoles, for pictures
LOWEST, HIGHEST = 150.0, 10_000.0
SQUEEZED, LONG = (1000, 2000, 3000, 4500), (200, 800)
FOLDED = (700, 1500, 3000, 5000)
#: Multipoles of the CMB that reconstruct, and between the bands of what they do; the white noise
#: (uK arcmin) is that of Han et al. 2021, so that their biases can be compared.
CMB_BAND, LENSING, NOISE_UK_ARCMIN = (100.0, 3000.0), (150, 500, 1000, 1600, 2400), 0.01
LENSED_BY = ("ksz", "tsz", "cib", "radio")
HEIGHTS = (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0)  # of maxima and minima, standard deviations
BINS = 120  # of histograms, for pictures
PATCH, PATCHES = 128, 4  # pixels along a side; of one region
SCALES = 5  # wavelets of 1 to 16 pixels


class Further:
    """All of it, of true regions and of what was generated of them.

    Parameters
    ----------
    n
        Pixels along a side of a region.
    pixel_arcmin
        Pixel size.
    jobs
        Names of what is generated.
    periodic
        Whether opposite edges join; if not there is no lensing reconstruction.
    """

    def __init__(
        self, n: int, pixel_arcmin: float, jobs: Sequence[str], periodic: bool = True
    ) -> None:
        self.n, self.pixel_arcmin, self.periodic = n, float(pixel_arcmin), periodic
        self.jobs = tuple(jobs)
        lowest = max(LOWEST, 0.9 * 60 * 360 / (n * pixel_arcmin))
        highest = min(HIGHEST, 60 * 180 / pixel_arcmin)
        edges = np.geomspace(lowest, highest, BANDS + 1).round().tolist()
        self.spectra = Spectra(n, pixel_arcmin, edges, periodic)
        self.triangles = self._possible()
        self.lensing = self._reconstruction() if periodic else None
        self.histograms = {
            f: onepoint.Histogram(4 * h.scale, h.edges[-1], BINS) for f, h in HISTOGRAMS.items()
        }
        side = min(PATCH, n)
        scales = min(SCALES, int(np.log2(side & -side)) - 1)
        self.scattering = Scattering(side, scales) if scales > 0 else None
        self._means = {side: Averages(lambda found: found) for side in ("true", *self.jobs)}
        self._distances = {job: {f: Distances() for f in (*FIELDS, "all")} for job in self.jobs}
        self._halves: dict[str, list[NDArray]] = {f: [] for f in FIELDS}
        self._likelihood = {job: {f: LogLikelihood() for f in FIELDS} for job in self.jobs}
        self.example: dict[str, NDArray] = {}

    def _possible(self) -> dict[str, Bispectrum]:
        """Bispectra by shape, of the triangles that maps of this size have."""
        shapes: dict[str, list[Triangle]] = {
            "equilateral": equilateral((700, 1500, 3000, 5000, 8000)),
            "squeezed": squeezed(SQUEEZED, LONG),
            "folded": folded(FOLDED),
        }
        out = {}
        for name, triangles in shapes.items():
            nyquist = 60 * 180 / self.pixel_arcmin
            known = []
            for triangle in triangles:
                if max(b for _, b in triangle) > nyquist:
                    continue
                try:
                    Bispectrum(self.n, self.pixel_arcmin, [triangle])
                except ValueError:  # regions are too small for so long a wave
                    continue
                known.append(triangle)
            if known:
                out[name] = Bispectrum(self.n, self.pixel_arcmin, known)
        return out

    def _reconstruction(self) -> Reconstruction | None:
        from mlsky.theory.spectra import cmb_spectra

        cl = cmb_spectra(int(CMB_BAND[1]) + 1)["tt"]
        total = cl + np.radians(NOISE_UK_ARCMIN / 60) ** 2
        try:
            return Reconstruction(self.n, self.pixel_arcmin, cl, total, CMB_BAND, LENSING)
        except ValueError:  # regions are too small for the first band
            return None

    def update(
        self,
        area: int,
        true: NDArray[np.float32],
        made: Mapping[str, NDArray[np.float32]],
        standard: NDArray[np.float64],
    ) -> None:
        """Add one region.

        Parameters
        ----------
        area
            Its number.
        true
            (5, n, n) in the order of `mlsky.validation.measure.FIELDS`.
        made
            The same by job.
        standard
            Of the true region, from `mlsky.validation.measure.Measure.standard`.
        """
        sides = {"true": true, **{job: made[job] for job in self.jobs}}
        if not self.example:
            self.example = {side: maps.copy() for side, maps in sides.items()}
        patches = {}
        for side, maps in sides.items():
            clipped = _clipped(maps)
            found = self._measure(maps, clipped, standard)
            self._means[side].update({k: v[None] for k, v in found.items()}, area)
            patches[side] = self._features(clipped)
        self._compare(area, patches)

    def _measure(self, maps: NDArray, clipped: NDArray, standard: NDArray) -> dict[str, NDArray]:
        modes = self.spectra.modes(np.concatenate([clipped, maps[2:3]]))
        beam = onepoint.smooth(np.fft.rfft2(clipped), self.spectra.ell, FWHM_ARCMIN)
        smooth = np.fft.irfft2(beam, s=(self.n, self.n))
        out = {
            "power": self.spectra.power(modes),
            "histogram": np.array(
                [self.histograms[f].count(m) for f, m in zip(FIELDS, maps, strict=True)]
            ),
            "extrema": np.array(
                [
                    extrema.counts(m - a, np.multiply(HEIGHTS, s), self.periodic)
                    for m, a, s in zip(smooth, *standard, strict=True)
                ]
            ),
        }
        chosen = modes[[FIELDS.index(f) for f in BISPECTRAL]]
        for shape, estimator in self.triangles.items():
            out[f"bispectrum {shape}"] = estimator(chosen)
        if self.lensing is not None:
            fields = clipped[[FIELDS.index(f) for f in LENSED_BY]]
            fields = fields - fields.mean((-2, -1), keepdims=True)
            found = self.lensing(fields, np.broadcast_to(clipped[0], fields.shape))
            out |= {f"lensing {k}": v for k, v in found.items()}
        return out

    def _features(self, clipped: NDArray) -> dict[str, NDArray]:
        """Features (patches, k) by field; of a field with a constant patch there are none."""
        if self.scattering is None:
            return {}
        side = self.scattering.n
        per = self.n // side
        places = np.linspace(0, per**2 - 1, min(PATCHES, per**2)).astype(int)
        out = {}
        for name, field in zip(FIELDS, clipped, strict=True):
            cut = np.stack(
                [field[side * (p // per) :, side * (p % per) :][:side, :side] for p in places]
            )
            # heavy tails are compressed, as the brightest pixel of a patch would dominate
            tamed = np.arcsinh(cut / HISTOGRAMS[name].scale)
            if (tamed.max((1, 2)) > tamed.min((1, 2))).all():
                found = self.scattering.features(tamed)
                out[name] = np.column_stack([tamed.mean((1, 2)), self._fewer(found)])
        return out

    def _fewer(self, features: NDArray) -> NDArray:
        """Second order averaged over the turn between the wavelets: a third as many numbers."""
        first = self.scattering.scales
        second = features[:, first:].reshape(len(features), len(self.scattering.pairs), -1)
        return np.concatenate([features[:, :first], second.mean(-1)], 1)

    def _compare(self, area: int, patches: Mapping[str, Mapping[str, NDArray]]) -> None:
        for name, true in patches["true"].items():
            self._halves[name].append(true)
        for job in self.jobs:
            shared = [f for f in FIELDS if f in patches["true"] and f in patches[job]]
            for name in shared:
                true, made = patches["true"][name], patches[job][name]
                if np.allclose(true, made, rtol=1e-4, atol=1e-4):  # kappa, where it was given
                    continue
                self._distances[job][name].update(true, made, area)
                # the mean and the power of each scale: few enough to be fitted
                few = self.scattering.scales + 1
                self._likelihood[job][name].update(true[:, :few], made[:, :few], area)
            if len(shared) == len(FIELDS):
                every = [np.concatenate([patches[s][f] for f in FIELDS], 1) for s in ("true", job)]
                self._distances[job]["all"].update(*every, area)

    def compute(self) -> dict:
        """Everything, as plain numbers; what cannot be had is None, with ``why`` beside it.

        Returns
        -------
        dict
            By statistic. A figure of regions is ``{side: {"value", "error"}}`` with sides
            "true", the jobs, and "JOB / true" or "JOB - true", whose errors are of pairs of
            regions.
        """
        centres = [float(np.sqrt(a * b)) for a, b in self.spectra]
        out: dict = {"ell": centres, "heights": list(HEIGHTS)}
        out["power"] = {
            name: self._sides(lambda m, i=i: m["power"][i, i], "/")
            for i, name in enumerate((*FIELDS, "tsz all"))
        }
        out["correlation"] = {
            f"{a} x {b}": self._sides(lambda m, i=i, j=j: _coefficient(m["power"], i, j), "-")
            for i, a in enumerate(FIELDS)
            for j, b in enumerate(FIELDS)
            if i < j
        }
        out["histogram"] = {
            name: {
                "edges": self.histograms[name].edges.tolist(),
                **self._sides(lambda m, i=i: m["histogram"][i], "/"),
            }
            for i, name in enumerate(FIELDS)
        }
        out["bispectrum"] = {
            shape: {
                "triangles": estimator.triangles,
                "fields": {
                    f: self._sides(lambda m, i=i, s=shape: m[f"bispectrum {s}"][i], "/")
                    for i, f in enumerate(BISPECTRAL)
                },
            }
            for shape, estimator in self.triangles.items()
        }
        area = (self.n * self.pixel_arcmin / 60) ** 2
        out["extrema"] = {
            name: {
                kind: self._sides(lambda m, i=i, k=k: m["extrema"][i, k] / area, "/")
                for k, kind in enumerate(("maxima", "minima"))
            }
            for i, name in enumerate(FIELDS)
        }
        out["lensing"] = self._lensing()
        out["tsz x cib"] = self._tsz_cib()
        out["distances"] = {
            job: {f: _tried(d.compute) for f, d in by_field.items()}
            for job, by_field in self._distances.items()
        }
        out["distances"]["true halves"] = {f: _tried(lambda f=f: self._half(f)) for f in FIELDS}
        out["likelihood"] = {
            job: {f: _tried(x.compute) for f, x in by_field.items()}
            for job, by_field in self._likelihood.items()
        }
        return _plain(out)

    def _sides(self, statistic: Callable[[Mapping], NDArray], compare: str = "") -> dict:
        samples = {side: means.samples() for side, means in self._means.items()}
        out = {}

        def alone(means):
            return np.asarray(statistic(means), np.float64)

        for side, sample in samples.items():
            out[side] = _figure(*jackknife(alone, self._used(statistic, sample)))
        for job in self.jobs if compare else ():
            used = {
                f"{s} {k}": v
                for s in ("true", job)
                for k, v in self._used(statistic, samples[s]).items()
            }

            def both(means, job=job):
                a, b = (
                    alone({k.removeprefix(f"{s} "): v for k, v in means.items() if k.startswith(s)})
                    for s in ("true", job)
                )
                with np.errstate(divide="ignore", invalid="ignore"):
                    return np.where(a != 0, b / a, np.nan) if compare == "/" else b - a

            out[f"{job} {compare} true"] = _figure(*jackknife(both, used))
        return out

    def _used(self, statistic: Callable, sample: Mapping[str, NDArray]) -> dict[str, NDArray]:
        """Only what a statistic looks at: histograms and modes are large."""
        seen: set[str] = set()

        class Watch(dict):
            def __getitem__(self, key):
                seen.add(key)
                return super().__getitem__(key)

        # regions are all alike: sums are means
        statistic(Watch({k: v[0] for k, v in sample.items()}))
        return {k: sample[k] for k in seen}

    def _lensing(self) -> dict | None:
        if self.lensing is None:
            return None
        parts = ("auto", "modes", "cross", "kappa")
        out: dict = {"edges": list(self.lensing.edges)}
        for i, name in enumerate(LENSED_BY):

            def biases(m, i=i):
                return self.lensing.compute({k: m[f"lensing {k}"][i] for k in parts})

            out[name] = {
                kind: self._sides(lambda m, k=kind, b=biases: b(m)[k], "-")
                for kind in ("bispectrum", "trispectrum")
            }
        return out

    def _tsz_cib(self) -> dict:
        pair = [FIELDS.index("tsz"), FIELDS.index("cib")]

        def power(means):
            own = means["power"][np.ix_(pair, pair)]
            of = crossfrequency.of_one_frequency(own, FREQS_GHZ)[0, :, 1]
            return of[np.arange(len(FREQS_GHZ)), np.arange(len(FREQS_GHZ))]

        def correlation(means):
            own = means["power"][np.ix_(pair, pair)]
            of = crossfrequency.coefficients(crossfrequency.of_one_frequency(own, FREQS_GHZ))
            return of[np.arange(len(FREQS_GHZ)), np.arange(len(FREQS_GHZ))]

        return {
            "freqs_ghz": list(FREQS_GHZ),
            "power": self._sides(power, "/"),
            "correlation": self._sides(correlation, "-"),
        }

    def _half(self, field: str) -> dict:
        """The distance between regions of even and odd number: what sets of this size have."""
        parts = self._halves[field]
        both = Distances()
        for area, (a, b) in enumerate(zip(parts[::2], parts[1::2], strict=False)):
            both.update(a, b, area)
        return both.compute()


def _clipped(maps: NDArray) -> NDArray:
    maps = maps.copy()
    tsz = FIELDS.index("tsz")
    maps[tsz] = np.maximum(maps[tsz], TSZ_CLIP)
    return maps


def _coefficient(power: NDArray, i: int, j: int) -> NDArray[np.float64]:
    scale = np.sqrt(power[i, i] * power[j, j])
    return np.divide(power[i, j], scale, out=np.zeros_like(scale), where=scale > 0)


def _figure(value: NDArray, error: NDArray) -> dict[str, NDArray]:
    return {"value": value, "error": error}


def _tried(compute: Callable[[], dict]) -> dict:
    try:
        return compute()
    except ValueError as error:  # too few patches, or a field that is constant
        return {"why": str(error)}


def _plain(values):
    """Numbers of five digits and None, in dicts and lists."""
    if isinstance(values, Mapping):
        return {k: _plain(v) for k, v in values.items()}
    if isinstance(values, (list, tuple)):
        return [_plain(v) for v in values]
    if isinstance(values, np.ndarray):
        return _plain(values.tolist())
    if isinstance(values, float):
        return float(f"{values:.5g}") if np.isfinite(values) else None
    return values
