"""Cleaning a sky by a harmonic ILC, as ACT DR6 and the Simons Observatory do, beside the truth.

    python examples/clients/ilc.py ilc.png sky.h5      # sky.h5 is made if it is not there

A patch of 20 degrees gets the beams and the noise of two experiments, each with Planck. The weights
come from the power of the maps themselves, band by band in l. They keep the CMB or Compton y, and
deproject tSZ, the CIB or both (Remazeilles, Delabrouille & Cardoso 2011, doi:10.1111/j.1365-
2966.2010.17624.x, eqs. 15-18 for one contaminant). Components that the weights have left are then
compared with w^T C w, where C is the halo model's matrix of all pairs of bands.
"""

import sys
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from flat import Flat, beam, sky
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from mlsky.frequency import bands, tsz
from mlsky.theory.foregrounds import foreground_spectra

SIDE_DEG, PIXEL_ARCMIN = 20, 1.0
CUT_MJY = 15  # at 148 GHz, as DR6 subtracts sources above 15 mJy
EDGES = (60, 500, 800, 1200, 1700, 2300, 3000, 3800, 5000)
SCORED = slice(1, None)  # bands between l of 500 and 5000
#: A channel is used where its beam transmits more than this.
LEAST_BEAM = 0.03
OUTPUT_FWHM = 1.6  # arcmin, as DR6's maps
SEED = 1


@dataclass(frozen=True)
class Channel:
    """A band: GHz, FWHM of the beam (arcmin), white noise (uK_CMB arcmin)."""

    nu_ghz: float
    fwhm: float
    noise: float


#: Planck 2018 results I, doi:10.1051/0004-6361/201833880, table 4; 545 GHz there in kJy/sr deg.
PLANCK = (
    Channel(100, 9.68, 77.4),
    Channel(143, 7.30, 33.0),
    Channel(217, 5.02, 46.8),
    Channel(353, 4.94, 153.6),
    Channel(545, 4.83, 806.0),
)
SURVEYS = {
    # Beams and depths of the order of DR6's (Naess et al. 2025, arXiv:2503.14451); our choice.
    "DR6": (Channel(98, 2.1, 16.0), Channel(150, 1.4, 16.0), Channel(220, 1.0, 60.0), *PLANCK),
    # Baseline of the LAT: Ade et al. 2019, doi:10.1088/1475-7516/2019/02/056, table 1.
    "SO": (
        Channel(27, 7.4, 71.0),
        Channel(39, 5.1, 36.0),
        Channel(93, 2.2, 8.0),
        Channel(145, 1.4, 10.0),
        Channel(225, 1.0, 22.0),
        Channel(280, 0.9, 54.0),
        *PLANCK,
    ),
}
FREQS = sorted({channel.nu_ghz for survey in SURVEYS.values() for channel in survey})
#: Map to recover, and what is deprojected.
VARIANTS = {
    "CMB": ("cmb", ()),
    "CMB, no tSZ": ("cmb", ("tsz",)),
    "CMB, no CIB": ("cmb", ("cib",)),
    "CMB, no tSZ, CIB": ("cmb", ("tsz", "cib")),
    "y": ("tsz", ()),
    "y, no CIB": ("tsz", ("cib",)),
}
#: SED of the CIB that is deprojected in DR6.02's maps: index and temperature (K) of a modified
#: blackbody (LAMBDA, act_dr6.02_nilc_info).
CIB_BETA, CIB_KELVIN = 1.4, 24.0


def response(component: str, nu_ghz: np.ndarray) -> np.ndarray:
    """Change of a map in uK_CMB with the amplitude of a component: y for tSZ."""
    if component == "cmb":
        return np.ones(len(nu_ghz))
    if component == "tsz":
        return np.asarray(tsz.uk_per_y(nu_ghz))
    x = 0.0479924 * nu_ghz / CIB_KELVIN  # h / k in K per GHz
    intensity = nu_ghz ** (3 + CIB_BETA) / np.expm1(x)
    sed = intensity / np.asarray(bands.jy_per_sr_per_uk(nu_ghz))
    return sed / sed[np.argmin(np.abs(nu_ghz - 148))]


def weights(cov: np.ndarray, kept: np.ndarray, removed: list[np.ndarray]) -> np.ndarray:
    """Weights *(n,)* of least variance with unit response to one SED, and none to others."""
    responses = np.stack([kept, *removed], 1)
    solved = np.linalg.solve(cov, responses)
    return solved @ np.linalg.inv(responses.T @ solved)[:, 0]


@dataclass
class Cleaned:
    """Weights of each band of l *(bands, channels)*, and the modes that they leave."""

    weights: np.ndarray
    modes: dict[str, np.ndarray]

    def power(self, name: str, flat: Flat) -> np.ndarray:
        return flat.power(self.modes[name], self.modes[name], EDGES)


class Survey:
    """Modes of the components and the noise in every channel, beams divided out."""

    def __init__(self, flat: Flat, sky, channels, rng: np.random.Generator, edges=None) -> None:
        self.flat, self.edges = flat, EDGES if edges is None else edges
        self.nu = np.array([c.nu_ghz for c in channels])
        self.beams = [beam(flat.ell, c.fwhm) for c in channels]
        self.used = [
            np.array([beam(high, c.fwhm) > LEAST_BEAM for c in channels]) for high in self.edges[1:]
        ]
        shape = (len(channels), *flat.ell.shape)
        self.parts = {name: np.empty(shape, np.complex64) for name in (*sky, "noise")}
        places = [int(np.argmin(np.abs(sky.freqs_ghz - nu))) for nu in self.nu]
        for i, (channel, place, b) in enumerate(zip(channels, places, self.beams, strict=True)):
            # What the telescope sees, then a window and the beam divided out.
            seen = {n: flat.smooth(sky.band(place, n)[0].astype(float), b) for n in sky}
            seen["noise"] = flat.white(channel.noise, rng)
            for name, one in seen.items():
                self.parts[name][i] = flat.modes(one) / np.maximum(b, LEAST_BEAM)

    def covariance(self, modes: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """Power of all pairs of channels, of modes *(channels, n)* of one band."""
        root = np.sqrt(self.flat.weight[inside] / self.flat.weight[inside].sum())
        return ((modes * root) @ (modes * root).conj().T).real.astype(float)

    def clean(self, keep: str, remove: tuple[str, ...]) -> Cleaned:
        total = sum(self.parts.values())
        found = np.zeros((len(self.edges) - 1, len(self.nu)))
        modes = {n: np.zeros(self.flat.ell.shape, np.complex64) for n in (*self.parts, "all")}
        for b, inside in enumerate(self.flat.bands(self.edges)):
            use = self.used[b]
            some = total[use][:, inside]
            cov, nu = self.covariance(some, inside), self.nu[use]
            w = weights(cov, response(keep, nu), [response(r, nu) for r in remove])
            found[b, use] = w
            for name, part in self.parts.items():
                modes[name][inside] = w @ part[use][:, inside]
            modes["all"][inside] = w @ some
        return Cleaned(found, modes)


def transfer(flat: Flat, pixels: tuple[float, ...]) -> np.ndarray:
    """Power that averages over pixels leave, in bands: see the conventions, `Pixels`."""
    areas = sum(np.radians(p / 60) ** 2 for p in pixels)
    return flat.mean(lambda ell: np.exp(-(ell**2) * areas / 12), EDGES)


def matrices(flat: Flat, component: str, nu_ghz: np.ndarray) -> np.ndarray:
    """Halo model of a component *(bands, channels, channels)*, uK_CMB^2 sr."""
    grid = np.geomspace(max(20, EDGES[0]), EDGES[-1], 40)
    out = np.empty((len(EDGES) - 1, len(nu_ghz), len(nu_ghz)))
    for i, j in combinations_with_replacement(range(len(nu_ghz)), 2):
        cl = foreground_spectra(grid, nu_ghz[i], nu_ghz[j], component, flux_cut_mjy=CUT_MJY)
        dl = grid**2 * cl[f"{component} x {component}"]
        out[:, i, j] = out[:, j, i] = flat.mean(
            lambda ell, dl=dl: np.interp(np.log(ell), np.log(grid), dl) / ell**2, EDGES
        )
    return out


def expected(w: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Power w^T C w of what is left, in bands."""
    return np.einsum("bi,bij,bj->b", w, matrix, w)


def one_colour(matrix: np.ndarray, nu_ghz: np.ndarray) -> np.ndarray:
    """The same power at 148 GHz, with the deprojected SED at every band: no decorrelation."""
    sed, at = response("cib", nu_ghz), np.argmin(np.abs(nu_ghz - 148))
    return matrix[:, at, at, None, None] * np.outer(sed, sed)


def main(path: str, sky_path: str | None = None) -> dict:
    made = sky(sky_path, FREQS, SIDE_DEG, PIXEL_ARCMIN, seed=SEED, flux_cut_mjy=CUT_MJY)
    flat = Flat(made.geometry.shape, made.geometry.wcs)
    rng = np.random.default_rng(SEED)
    chart = made.meta["weights"]["pixel_arcmin"]
    windows = {
        "cib": transfer(flat, (PIXEL_ARCMIN, chart)),
        "tsz": transfer(flat, (PIXEL_ARCMIN,)),
        "radio": transfer(flat, (PIXEL_ARCMIN,)),
    }
    results, surveys = {}, {}
    for name, channels in SURVEYS.items():
        survey = surveys[name] = Survey(flat, made, channels, rng)
        model = {c: matrices(flat, c, survey.nu) for c in windows}
        for variant, (keep, remove) in VARIANTS.items():
            cleaned = survey.clean(keep, remove)
            theory = {c: expected(cleaned.weights, model[c]) * windows[c] for c in windows}
            colour = expected(cleaned.weights, one_colour(model["cib"], survey.nu))
            results[name, variant] = cleaned, theory, colour * windows["cib"]
            report(name, variant, cleaned, theory, flat)
    draw(path, flat, results, made)
    return results


def report(name: str, variant: str, cleaned: Cleaned, theory: dict, flat: Flat) -> None:
    """Print what is left beside the expectation, for 500 < l < 5000."""
    counts = flat.counts(EDGES)[SCORED]
    ell2 = flat.mean(np.square, EDGES)[SCORED]
    said = []
    for component, expectation in theory.items():
        left, model = cleaned.power(component, flat)[SCORED], expectation[SCORED]
        whole = (counts * ell2 * left).sum() / max((counts * ell2 * model).sum(), 1e-300)
        if model.max() < 1e-9 * cleaned.power("all", flat)[SCORED].max():
            said.append(f"{component} {left.max() / cleaned.power('all', flat).max():.0e} of all")
            continue
        ratio = left / model
        said.append(f"{component} {whole:.3f} ({ratio.min():.2f} to {ratio.max():.2f})")
    print(f"{name:<4} {variant:<17} left over expected: " + "; ".join(said))


def draw(path: str, flat: Flat, results: dict, made) -> None:
    ell = flat.mean(lambda x: x, EDGES)
    drawing = Figure(figsize=(15, 9), layout="constrained")
    rows = drawing.subfigures(2, 1, height_ratios=(1.6, 1))
    panels = rows[0].subplots(2, len(VARIANTS), sharex=True, sharey=False)
    for row, name in zip(panels, SURVEYS, strict=True):
        for axes, variant in zip(row, VARIANTS, strict=True):
            cleaned, theory, colour = results[name, variant]
            unit = ell**2 / (2 * np.pi) * (1 if variant.startswith("CMB") else 1e12)
            wanted = "cmb" if variant.startswith("CMB") else "tsz"
            axes.plot(ell, unit * cleaned.power("all", flat), "k-", lw=0.8, label="map")
            axes.plot(ell, unit * cleaned.power(wanted, flat), color="0.6", label="signal")
            axes.plot(ell, unit * cleaned.power("noise", flat), "k:", lw=0.8, label="noise")
            for colour_name, c in (("C3", "cib"), ("C0", "tsz"), ("C2", "radio")):
                if c == wanted or theory[c].max() < 1e-9 * cleaned.power("all", flat).max():
                    continue
                axes.plot(ell, unit * cleaned.power(c, flat), "o", color=colour_name, ms=4)
                axes.plot(ell, unit * theory[c], "-", color=colour_name, label=c)
            if "CIB" not in variant:
                axes.plot(ell, unit * colour, "--", color="C3", lw=0.8, label="cib of one colour")
            axes.set(xscale="log", yscale="log")
            axes.set_xticks([500, 1000, 2000, 4000], ["500", "1000", "2000", "4000"])
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_title(f"{name}: {variant}", fontsize=9)
            axes.tick_params(labelsize=7)
    handles = panels[0, 0].get_legend_handles_labels()
    rows[0].legend(*handles, fontsize=8, ncols=len(handles[0]), loc="outside upper center")
    panels[0, 0].set_ylabel(r"$\ell^2 C_\ell/2\pi$ [$\mu$K$^2$]", fontsize=8)
    panels[0, 4].set_ylabel(r"$10^{12}\,\ell^2 C_\ell/2\pi$ [y$^2$]", fontsize=8)
    for axes in panels[1]:
        axes.set_xlabel(r"$\ell$", fontsize=8)
    maps = rows[1].subplots(1, 5)
    smooth = beam(flat.ell, OUTPUT_FWHM * 2)
    cut = tuple(slice(n // 2 - n // 6, n // 2 + n // 6) for n in flat.shape)
    shown = {
        "SO y: signal": (results["SO", "y"][0].modes["tsz"], 1e6),
        "SO y": (results["SO", "y"][0].modes["all"], 1e6),
        "SO y, no CIB": (results["SO", "y, no CIB"][0].modes["all"], 1e6),
        "SO CMB": (results["SO", "CMB"][0].modes["all"], 1),
        "CIB left in SO y": (results["SO", "y"][0].modes["cib"], 1e6),
    }
    for axes, (title, (modes, unit)) in zip(maps, shown.items(), strict=True):
        values = flat.map(modes * smooth)[cut] * unit / flat.window[cut]
        limit = 4 * np.std(values) if "CMB" in title else 8.0
        axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, origin="lower")
        axes.set_title(title + (" [uK]" if "CMB" in title else " [1e-6]"), fontsize=9)
        axes.set(xticks=[], yticks=[])
    drawing.savefig(path, dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:3]) if len(sys.argv) > 1 else main("ilc.png")
