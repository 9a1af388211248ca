"""Bias of lensing reconstruction by tSZ and CIB: the quadratic estimator on a flat patch.

    python examples/clients/lensing.py lensing.png sky.h5 [more.h5 ...]   # made if not there

The estimator of temperature (Hu & Okamoto 2002, doi:10.1086/341110, written as a divergence: Hu,
DeDeo & Vale 2007, doi:10.1088/1367-2630/9/12/441) runs on the lensed CMB, which checks its
normalisation, then on foregrounds alone. Q[f, f] with kappa is the bias of a cross-correlation and
half of the primary bispectrum bias of the auto-spectrum; the power of Q[f, f] beyond that of
Gaussian fields of the same power is the trispectrum bias (van Engelen et al. 2014,
doi:10.1088/0004-637X/786/1/13). The secondary bispectrum is not measured here.
"""

import sys

import numpy as np
from flat import Flat, beam, sky
from ilc import CUT_MJY, FREQS, PIXEL_ARCMIN, SEED, SIDE_DEG
from matplotlib.figure import Figure

from mlsky import theory

NU_GHZ, NOISE_UK_ARCMIN, FWHM_ARCMIN = 150, 16.0, 1.4  # as DR6's f150
LOWEST, HIGHEST = 500, 3000  # multipoles of the CMB that are used
EDGES = (60, 150, 300, 500, 800, 1200, 1800)
#: Clusters heavier than this are masked, M500c in Msun: about the threshold of DR6's list.
MASKED_MSUN = 3e14
GAUSSIAN_FIELDS = 4
POWER_EDGES = np.linspace(100, HIGHEST, 30)


class Quadratic:
    """The estimator of kappa from temperature, on the modes of one patch.

    Parameters
    ----------
    cl
        Power of the lensed CMB at every mode: it stands for that of the lensed gradient, as the
        lensed spectrum does (Hanson et al. 2011, doi:10.1103/PhysRevD.83.043005).
    total
        Power of CMB, foregrounds and noise, beam divided out, at every mode.
    """

    def __init__(self, flat: Flat, cl: np.ndarray, total: np.ndarray) -> None:
        self.flat = flat
        used = (flat.ell >= LOWEST) & (flat.ell <= HIGHEST)
        self.inverse = np.where(used, 1 / total, 0)
        self.gradient = cl * self.inverse
        vector = (flat.ly, flat.lx)
        # Response: sum over pairs of the squared weights, as products of correlation functions.
        level = self._real(self.inverse)
        once = [self._real(1j * v * self.gradient) for v in vector]
        response = np.zeros_like(flat.ell)
        for i, a in enumerate(vector):
            for j, b in enumerate(vector):
                twice = self._real(a * b * cl * self.gradient)
                both = self._modes(twice * level) - self._modes(once[i] * once[j])
                response += a * b * both.real
        # Pairs of modes up to HIGHEST have no more than twice that.
        some = (flat.ell > 0) & (flat.ell < 1.9 * HIGHEST)
        self.norm = np.divide(flat.ell**2 / 2, response, where=some, out=np.zeros_like(flat.ell))

    def _real(self, modes):
        """A correlation function: modes summed, per steradian."""
        return np.fft.irfft2(modes, s=self.flat.shape) / self.flat.pixel.prod()

    def _modes(self, values):
        return np.fft.rfft2(values) * self.flat.pixel.prod()

    def __call__(self, modes: np.ndarray) -> np.ndarray:
        """Modes of kappa from modes of temperature."""
        flat = self.flat
        level = flat.map(modes * self.inverse)
        out = np.zeros(flat.ell.shape, complex)
        for v in (flat.ly, flat.lx):
            slope = flat.map(1j * v * modes * self.gradient)
            out += 1j * v * flat.modes(slope * level, window=False)
        return -out * self.norm


def foregrounds(made, place: int) -> dict[str, np.ndarray]:
    """Maps of what biases, clusters masked in tSZ."""
    kept = made.mask(None, cluster_mass=MASKED_MSUN)
    tsz, cib = (made.band(place, name)[0].astype(float) for name in ("tsz", "cib"))
    masked = np.where(kept, tsz, tsz[kept].mean())
    return {
        "tSZ": tsz,
        "tSZ, clusters masked": masked,
        "CIB": cib,
        "tSZ masked + CIB": masked + cib,
    }


def lensed_power(lmax: int) -> np.ndarray:
    """C_l of the lensed temperature, 0 to lmax, of the sky's cosmology."""
    from camb import correlations

    ell = np.arange(lmax + 1000)
    primary = theory.cmb_spectra(int(ell[-1]))
    unit = ell * (ell + 1) / (2 * np.pi)
    spectra = np.stack([primary[k] for k in ("tt", "ee", "bb", "te")], 1) * unit[:, None]
    # [l (l + 1)]^2 C_pp / 2 pi, with C_kk = [l (l + 1)]^2 C_pp / 4
    lensed = correlations.lensed_cls(spectra, 4 * primary["kk"] / (2 * np.pi), lmax_lensed=lmax)
    return np.divide(
        lensed[: lmax + 1, 0], unit[: lmax + 1], where=unit[: lmax + 1] > 0, out=np.zeros(lmax + 1)
    )


def measure(made, rng: np.random.Generator) -> dict[str, dict[str, np.ndarray]]:
    """Band powers of one patch: of kappa, of the reconstruction, of each foreground's."""
    flat = Flat(made.geometry.shape, made.geometry.wcs)
    place = int(np.argmin(np.abs(made.freqs_ghz - NU_GHZ)))
    # Maps are averages over pixels: their window is divided out.
    window = np.exp(-(flat.ell**2) * flat.pixel.prod() / 24)

    def modes_of(values) -> np.ndarray:
        return flat.modes(np.asarray(values, float)) / window

    noise = np.square(np.radians(NOISE_UK_ARCMIN / 60)) / beam(flat.ell, FWHM_ARCMIN) ** 2
    maps = foregrounds(made, place)
    cl = lensed_power(HIGHEST)
    lensed = np.interp(flat.ell, np.arange(len(cl)), cl)
    both = modes_of(maps["tSZ masked + CIB"])
    total = lensed + noise + flat.spread(flat.power(both, both, POWER_EDGES), POWER_EDGES)
    estimator = Quadratic(flat, lensed, total)
    kappa = modes_of(made.kappa)
    # The estimator is quadratic in the window, which flat.modes normalises for two maps.
    third, fourth = np.mean(flat.window**3), np.mean(flat.window**4)
    found = estimator(modes_of(made.band(place, "cmb")[0]))
    out = {
        "kappa": {
            "ell": flat.mean(lambda ell: ell, EDGES),
            "auto": flat.power(kappa, kappa, EDGES),
        },
        "CMB": {"cross": flat.power(found, kappa, EDGES) / third},
    }
    product = flat.power(found, found, EDGES) / fourth * out["kappa"]["auto"]
    out["kappa"]["error"] = np.sqrt(
        (product + out["CMB"]["cross"] ** 2) / flat.counts(EDGES)
    )  # of the first cross spectrum, as of Gaussian fields
    for name, values in maps.items():
        modes = modes_of(values)
        made_of = estimator(modes)
        power = flat.spread(flat.power(modes, modes, POWER_EDGES), POWER_EDGES)
        gaussian = []
        for _ in range(GAUSSIAN_FIELDS):
            field = flat.modes(flat.map(flat.gaussian(power, rng)))
            again = estimator(field)
            gaussian.append(flat.power(again, again, EDGES))
        out[name] = {
            "cross": flat.power(made_of, kappa, EDGES) / third,
            "auto": (flat.power(made_of, made_of, EDGES) - np.mean(gaussian, 0)) / fourth,
        }
    return out


def main(path: str, *sky_paths: str) -> dict:
    rng = np.random.default_rng(SEED)
    patches = [
        measure(sky(one, FREQS, SIDE_DEG, PIXEL_ARCMIN, seed=SEED + i, flux_cut_mjy=CUT_MJY), rng)
        for i, one in enumerate(sky_paths or [None])
    ]
    signal = np.mean([p["kappa"]["auto"] for p in patches], 0)
    ell = patches[0]["kappa"]["ell"]
    ratios: dict[str, dict[str, tuple]] = {}
    for name in patches[0]:
        if name == "kappa":
            continue
        ratios[name] = {}
        for kind in patches[0][name]:
            each = np.array([p[name][kind] / signal for p in patches])
            error = each.std(0, ddof=1) / np.sqrt(len(each)) if len(each) > 1 else 0 * ell
            if name == "CMB":
                error = np.mean([p["kappa"]["error"] for p in patches], 0) / signal
                error /= np.sqrt(len(patches))
            ratios[name][kind] = each.mean(0), error
            print(
                f"{name:<22} {kind:<5} over C_L of kappa",
                each.mean(0).round(4),
                "+-",
                error.round(4),
            )
    print("L of the bands".ljust(45), ell.round())
    draw(path, ell, ratios, len(patches))
    return ratios


def draw(path: str, ell: np.ndarray, ratios: dict, n: int) -> None:
    drawing = Figure(figsize=(14, 4.5), layout="constrained")
    first, second, third = drawing.subplots(1, 3)
    value, error = ratios["CMB"]["cross"]
    first.errorbar(ell, value, error, fmt="ko-", ms=4)
    first.set(title="reconstruction from the lensed CMB x kappa, over $C_L$", ylim=(0.8, 1.2))
    for i, (name, of) in enumerate((k, v) for k, v in ratios.items() if k != "CMB"):
        for axes, kind, factor in ((second, "cross", 2), (third, "auto", 1)):
            value, error = of[kind]
            axes.errorbar(
                ell * 1.02**i,
                factor * value,
                factor * error,
                fmt="o-",
                ms=4,
                label=name,
                color=f"C{i}",
            )
    second.set(title="primary bispectrum bias, 2 Q[f,f] x kappa, over $C_L$")
    third.set(title="trispectrum bias, over $C_L$")
    for axes in (first, second, third):
        axes.axhline(0 if axes is not first else 1, color="0.6", lw=0.8)
        axes.set(xscale="log", xlabel="L")
        axes.title.set_fontsize(9)
    third.set_yscale("log")
    second.legend(fontsize=8)
    drawing.savefig(path, dpi=75)


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 1 else main("lensing.png")
