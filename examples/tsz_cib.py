"""tSZ and CIB, correlated: by scale, and by the frequency of either. Chapter 7 of the seed report.

Of regions that are painted here at every frequency, and of what the networks make at 148 GHz and
`mlsky.frequency.scaling` takes to the others; errors from a jackknife over regions. Beside them the
numbers of Agora (Omori 2024). Half a minute of one core:

    python examples/tsz_cib.py tsz_cib.png
"""

import sys

import numpy as np
from matplotlib.figure import Figure

from mlsky import registry
from mlsky.frequency.scaling import factor
from mlsky.haloes.painter import Painter
from mlsky.networks.weights import open_weights
from mlsky.painting.regions import generate
from mlsky.statistics.bandpower import Spectra
from mlsky.statistics.crossfrequency import AGORA, coefficients
from mlsky.statistics.streaming import Averages
from mlsky.training import data
from mlsky.validation.measure import FIELDS

REGIONS, SIDE, PIXEL = 12, 256, 2.0
FREQS_GHZ = (93.0, 150.0, 220.0, 280.0, 353.0)
EDGES = (300, 700, 1200, 2000, 3000, 4000, 5000)
TSZ_CLIP = -40.0  # uK at 148 GHz: a few clusters rule everything else
BAND = 3  # of EDGES, for the matrix of frequencies
LOOKS = {"true": ("k", "-"), "generated": ("tab:red", "o")}


def scaled(maps: np.ndarray, law: str) -> np.ndarray:
    """Maps of 148 GHz at each frequency, (frequencies, n, n)."""
    return np.multiply.outer(factor(law, np.array(FREQS_GHZ)), np.asarray(maps))


def cross_power() -> Averages:
    """Means over regions of the power of all pairs of maps, tSZ at each frequency and then CIB."""
    spectra, f = Spectra(SIDE, PIXEL, EDGES), len(FREQS_GHZ)

    def power(maps: np.ndarray) -> dict[str, np.ndarray]:
        found = [spectra.power(spectra.modes(both)) for both in maps]
        return {"power": np.array(found).reshape(len(maps), 2, f, 2, f, -1)}

    return Averages(power)


def measured(means: Averages) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Cross power (uK^2 sr) of tSZ with CIB at all frequencies, correlation, and their errors."""

    def both(found: dict[str, np.ndarray]) -> np.ndarray:
        return np.stack([found["power"][0, :, 1], coefficients(found["power"])])

    value, error = means.compute(both)
    return {name: (value[i], error[i]) for i, name in enumerate(("power", "correlation"))}


def streams() -> dict[str, Averages]:
    """Power of true and of generated regions."""
    painter = Painter(PIXEL, SIDE, freqs=FREQS_GHZ)
    files = [open_weights(path) for path in registry.fetch("convolutional@v4")]
    weights = next(w for w in files if w.pixel_arcmin == PIXEL)
    out = {name: cross_power() for name in LOOKS}
    for area in range(REGIONS):
        region = painter.region(13, area)
        maps = dict(zip(data.FIELDS, region.maps, strict=False))
        gaussian_kappa = painter.gaussian_kappa(maps["kappa_g"]).cpu().numpy()
        made = dict(
            zip(FIELDS, generate(weights, gaussian_kappa, 13, area, periodic=True), strict=True)
        )
        cib = scaled(made["cib"], "cib")
        for name, tsz, infrared in (
            ("true", maps["tsz"].cpu().numpy(), region.cib.cpu().numpy()),
            ("generated", made["tsz"], cib),
        ):
            tsz = scaled(np.maximum(tsz, TSZ_CLIP), "tsz")
            out[name].update(np.concatenate([tsz, infrared])[None], area)
    return out


def main(path: str) -> None:
    found = {name: measured(means) for name, means in streams().items()}
    drawing = Figure(figsize=(14, 6), layout="constrained")
    panels = drawing.subplots(2, 4)
    ell = np.sqrt(np.multiply(EDGES[:-1], EDGES[1:]))
    for k, nu in enumerate(FREQS_GHZ[:4]):
        axes = panels[0, k]
        for name, (colour, look) in LOOKS.items():
            value, error = (x[k, k] for x in found[name]["correlation"])
            axes.errorbar(ell, value, error, fmt=look, ms=4, color=colour, label=name)
            print(f"{nu:g} GHz, {name:<10}", value.round(3), "+-", error.round(3))
        if int(nu) in AGORA:
            agora = AGORA[int(nu)]
            axes.plot(list(agora), list(agora.values()), "^", color="b", mfc="none", label="Agora")
        axes.axhline(0, color="0.5", lw=0.8)
        axes.set(ylim=(-0.25, 0.25), xlabel=r"$\ell$")
        axes.set_title(f"correlation at {nu:g} GHz", fontsize=9)
    panels[0, 0].legend(fontsize=8)
    names = [f"{nu:g}" for nu in FREQS_GHZ]
    for axes, (name, table) in zip(panels[1], found.items(), strict=False):
        value = table["correlation"][0][..., BAND]
        shown = axes.imshow(value, vmin=-0.2, vmax=0.2, cmap="RdBu_r", origin="lower")
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="CIB (GHz)", ylabel="tSZ (GHz)")
        axes.set_title(f"correlation, {name}, {EDGES[BAND]} < l < {EDGES[BAND + 1]}", fontsize=9)
    drawing.colorbar(shown, ax=panels[1, 1])
    factor = ell * (ell + 1) / (2 * np.pi)
    for axes, chosen in zip(panels[1, 2:], ((0, 1), (2, 3)), strict=True):
        for k in chosen:
            for name, (_, look) in LOOKS.items():
                value, error = (factor * x[k, k] for x in found[name]["power"])
                label = f"{FREQS_GHZ[k]:g} GHz, {name}"
                axes.errorbar(ell, value, error, fmt=look, ms=4, color=f"C{k}", label=label)
        axes.axhline(0, color="0.5", lw=0.8)
        axes.set(xlabel=r"$\ell$")
        axes.set_title(r"cross power $D_\ell$ ($\mu$K$^2$)", fontsize=9)
        axes.legend(fontsize=7)
    drawing.savefig(path, dpi=80)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tsz_cib.png")
