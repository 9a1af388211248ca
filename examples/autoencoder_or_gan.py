"""An autoencoder and a Wasserstein GAN that learned the same images: chapter 8 of the seed report.

One blob: draws of both, and their power over the true one. Sky patches of 0.5': draws of the
autoencoder beside what the painter's networks make of Gaussian kappa, and true patches, painted
here. Less than a minute of one core:

    python examples/autoencoder_or_gan.py compared.png
    python examples/autoencoder_or_gan.py compared.png runs/blobs-1    # a GAN of your own
"""

import sys

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from mlsky import registry
from mlsky.haloes.painter import Painter
from mlsky.networks.weights import Weights, open_weights
from mlsky.painting.regions import generate
from mlsky.statistics.bandpower import Spectra
from mlsky.toys import blobs
from mlsky.toys import comparison as statistics
from mlsky.toys.image_statistics import power
from mlsky.toys.unconditional import sample
from mlsky.training import data, unconditional
from mlsky.validation.measure import FIELDS

IMAGES = 256  # of blobs
REGIONS, SIDE = 4, 512  # of the sky, and pixels along a side: sixteen patches each
PIXEL, PATCH = 0.5, 128
EDGES = (400, 800, 1200, 1700, 2400, 3400, 4800, 6500, 8000)
SKY = ("kappa", "tsz", "cib")
TSZ_CLIP = -40.0  # uK: a few clusters rule the power else
COLOURS = {"true": "k", "autoencoder": "tab:orange", "GAN": "tab:blue"}


def gan_of_blobs(source: str | None) -> Weights | None:
    """The GAN that draws one blob, if there is one."""
    name = "blobs-1" if source is None else source
    if source is None and name not in registry.names():
        return None
    return unconditional.opened(name)


def patches(maps: np.ndarray) -> np.ndarray:
    """Regions (N, C, SIDE, SIDE) to (patches, C, PATCH, PATCH)."""
    n, c, side, _ = maps.shape
    k = side // PATCH
    cut = maps.reshape(n, c, k, PATCH, k, PATCH).transpose(0, 2, 4, 1, 3, 5)
    return cut.reshape(-1, c, PATCH, PATCH)


def sky() -> dict[str, np.ndarray]:
    """Patches (N, 3, PATCH, PATCH) of `SKY`: true, of the autoencoder, of the networks."""
    painter = Painter(PIXEL, SIDE)
    files = [open_weights(path) for path in registry.fetch("convolutional@v4")]
    weights = next(w for w in files if w.pixel_arcmin == PIXEL)
    true, made = [], []
    for i in range(REGIONS):
        maps = dict(zip(data.FIELDS, painter.region(11, i).maps, strict=False))
        gaussian_kappa = painter.gaussian_kappa(maps["kappa_g"]).cpu().numpy()
        true.append([maps[name].cpu().numpy() for name in SKY])
        painted = generate(weights, gaussian_kappa, 11, i, periodic=True)
        made.append([painted[FIELDS.index(name)] for name in SKY])
    sets = {"true": patches(np.array(true)), "GAN": patches(np.array(made))}
    sets["autoencoder"] = sample("vae-sky", len(sets["true"]), seed=3)
    for maps in sets.values():
        maps[:, SKY.index("tsz")] = np.maximum(maps[:, SKY.index("tsz")], TSZ_CLIP)
    return sets


def spectra(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean power (fields, bands) of patches, and its error from their scatter."""
    estimator = Spectra(PATCH, PIXEL, EDGES, periodic=False)
    found = np.array([np.einsum("iib->ib", estimator.power(estimator.modes(m))) for m in maps])
    return found.mean(0), found.std(0) / np.sqrt(len(found))


def draw_blobs(panels, gan: Weights | None) -> None:
    sets = {
        "true": blobs.sample(1, IMAGES, seed=7)[:, 0],
        "autoencoder": sample("vae-blobs-1", IMAGES, seed=7)[:, 0],
    }
    if gan is not None:
        sets["GAN"] = sample(gan, IMAGES, seed=7)[:, 0]
    reference = power(sets["true"]).mean(0)
    for axes, name in zip(panels, COLOURS, strict=False):
        axes.set_axis_off()
        if name not in sets:
            axes.set_title("GAN: give a run of blobs-1", fontsize=9)
            continue
        maps = sets[name]
        found = statistics.find_all(maps, blobs.SIGMA)
        one = np.mean([len(b) == 1 for b in found.blobs])
        print(
            f"blobs, {name:<12} one blob in {one:.2f} of images, width "
            f"{found.widths.mean() if found.widths.size else np.nan:.2f}, pixels {maps.min():.2f} "
            f"to {maps.max():.2f}"
        )
        axes.imshow(np.block([[*maps[:3]], [*maps[3:6]]]), vmin=0, vmax=1)
        axes.set_title(f"{name}: one blob in {one:.0%} of images", fontsize=9)
        if name != "true":
            ratio = power(maps).mean(0) / reference
            k = np.arange(1, len(ratio))
            panels[3].loglog(k, np.maximum(ratio[1:], 1e-4), color=COLOURS[name], label=name)
    panels[3].axhline(1, color="0.5", lw=0.8)
    panels[3].set_xlim(1, 32)
    panels[3].set_ylim(1e-2, 10)
    panels[3].set_title("power over the true one, waves per image", fontsize=9)
    panels[3].legend(fontsize=8)


def draw_sky(rows, sets: dict[str, np.ndarray]) -> None:
    found = {name: spectra(maps) for name, maps in sets.items()}
    ell = np.sqrt(np.multiply(EDGES[:-1], EDGES[1:]))
    limits = np.quantile(sets["true"][:, 2], (0.01, 0.995))
    for axes, name in zip(rows[0], COLOURS, strict=False):
        pictures = sets[name][:, 2]
        colours = colormaps["viridis"].resampled(8)  # few, for a small file
        axes.imshow(np.hstack(pictures[:2]), vmin=limits[0], vmax=limits[1], cmap=colours)
        axes.set_title(f"{name}: CIB of two patches", fontsize=9)
        axes.set_axis_off()
    for i, field in enumerate(SKY):
        axes = rows[1][i]
        axes.axhline(1, color="0.5", lw=0.8)
        for name in ("autoencoder", "GAN"):
            mean, error = (x[i] / found["true"][0][i] for x in found[name])
            error = np.hypot(error, mean * found["true"][1][i] / found["true"][0][i])
            axes.errorbar(ell, mean, error, fmt="o-", ms=3, color=COLOURS[name], label=name)
            print(f"{field:<6} {name:<12} power over true", mean.round(3), "+-", error.round(3))
        axes.set(yscale="log", ylim=(1e-4, 3), xlabel=r"$\ell$")
        axes.set_title(f"{field}: power over the true one", fontsize=9)
        axes.legend(fontsize=8)
    axes, bins = rows[0][3], np.linspace(*np.quantile(sets["true"][:, 2], (0, 0.9995)), 60)
    for name, maps in sets.items():
        axes.hist(
            maps[:, 2].ravel(), bins, density=True, histtype="step", color=COLOURS[name], label=name
        )
    axes.set_yscale("log")
    axes.set_title(r"pixels of the CIB ($\mu$K)", fontsize=9)
    axes.legend(fontsize=8)
    rows[1][3].set_axis_off()


def main(path: str, gan: str | None = None) -> None:
    drawing = Figure(figsize=(14, 8.2), layout="constrained")
    panels = drawing.subplots(3, 4)
    draw_blobs(panels[0], gan_of_blobs(gan))
    draw_sky(panels[1:], sky())
    drawing.savefig(path, dpi=60)


if __name__ == "__main__":
    main(*(sys.argv[1:3] or ["compared.png"]))
