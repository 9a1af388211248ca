"""Maps of two latents as a variational autoencoder is trained: figures 8.3 to 8.6 of the report.

Trains a recipe to its end, stops on the way, and draws what two latents do at each stop, and at the
end images beside the same decoded and random draws (figures 8.7 to 8.10); prints what they show.
Digits, two minutes of one core, and single blobs or patches of photographs, three minutes:

    python examples/autoencoder_training.py digits.png
    python examples/autoencoder_training.py blobs.png vae-blobs-1
    python examples/autoencoder_training.py photographs.png vae-photographs runs    # keeps stops
"""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure

from mlsky.toys import comparison, vae
from mlsky.toys import image_statistics as statistics
from mlsky.toys.unconditional import batches
from mlsky.training import unconditional
from mlsky.training.elbo import elbo
from mlsky.training.loop import train
from mlsky.training.recipes import recipe

#: Steps at which maps are drawn, and waves per image of small scales.
RUNS = {
    "vae-digits": ((0, 100, 1000, 5000, 10600), 4),
    "vae-blobs-1": ((0, 100, 500, 1000, 2000), 16),
    "vae-photographs": ((0, 100, 500, 1000, 2000), 8),
}
CELLS = 8
IMAGES = 512  # true ones, and draws of N(0, I)


def sheet(images: np.ndarray) -> np.ndarray:
    """(rows, columns, n, n) side by side, with a line between."""
    line = max(1, images.shape[-1] // 32)
    framed = np.pad(images, ((0, 0), (0, 0), (0, line), (0, line)), constant_values=np.nan)
    rows, columns, n, _ = framed.shape
    return framed.transpose(0, 2, 1, 3).reshape(rows * n, columns * n)


def snapshots(name: str, runs: Path) -> list[Path]:
    """Folders of a run as it was at each of its stops."""
    steps, _ = RUNS[name]
    stops = [runs / f"{name}-{step}" for step in steps]
    for step, folder in zip(steps, stops, strict=True):
        if not folder.exists():
            length = {"steps": steps[-1], "stop": step}
            run = train(recipe(name), None, runs / name, **length, device="cpu", progress=False)
            if run.step != step:
                sys.exit(f"{runs / name}: is at step {run.step}, beyond {step}; remove it")
            part = folder.with_name(f"{folder.name}.part")  # so that a stop is whole or absent
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(runs / name, part)
            part.rename(folder)
    return stops


def like_true(folder: Path, images: np.ndarray, true: np.ndarray) -> float:
    """Share of images with one blob, or of others as near to true ones as these are."""
    kind = unconditional.blobs_of(unconditional.opened(folder))
    if kind is None:
        return statistics.near(images, true)
    return float(np.mean([len(b) == 1 for b in comparison.find_all(images, kind.sigma).blobs]))


def measured(folder: Path, true: np.ndarray, two: list[int], short: int):
    """The map of two latents, images decoded, random draws, and numbers about them by name."""
    encoder, decoder, normaliser = unconditional.autoencoder(folder)
    means, found = unconditional.codes(encoder, normaliser, true)
    x = torch.from_numpy(normaliser.forward(true))
    with torch.no_grad():
        decoded = normaliser.inverse(decoder(torch.from_numpy(means))).numpy()
        code = encoder(x)
        again = decoder(vae.reparameterise(*code, torch.Generator().manual_seed(0)))
        bound = elbo(x, again, decoder.log_noise, *code).bound
    drawn = np.concatenate([normaliser.inverse(d).numpy() for d in batches(decoder, IMAGES, 1)])
    images = normaliser.inverse(vae.traversal(decoder, two, CELLS))
    changes = vae.changes(images, true)
    power = [statistics.power(x).mean(0) for x in (decoded, drawn, true)]
    rows = {
        "bound (nats per image)": float(bound),
        "divergence (nats per image)": float(found.kl.sum()),
        "latents in use": float(found.active.sum()),
        "variance that is not decoded": float(np.square(decoded - true).mean() / true.var()),
    }
    for what, of in zip(("decoded", "drawn"), power, strict=False):
        for k in (1, short):
            rows[f"power {what} over true, waves: {k}"] = float(of[k] / power[-1][k])
    rows |= {
        "map: difference of two images": changes.spread,
        "map: step to a neighbour": changes.step,
        "map: like true images": like_true(folder, images.reshape(-1, *true.shape[1:]), true),
        "draws: like true images": like_true(folder, drawn, true),
    }
    return images[:, :, 0], decoded, drawn, rows


def main(path: str, name: str = "vae-digits", runs: str | None = None) -> None:
    if name not in RUNS:
        sys.exit(f"{name}: must be one of {', '.join(RUNS)}")
    steps, short = RUNS[name]
    with tempfile.TemporaryDirectory() as folder:
        stops = snapshots(name, Path(runs or folder))
        true = unconditional.truth(unconditional.opened(stops[-1]), IMAGES, seed=1000)
        true = np.unique(true, axis=0)  # digits are drawn from a set, some twice
        encoder, _, normaliser = unconditional.autoencoder(stops[-1])
        kl = unconditional.codes(encoder, normaliser, true)[1].kl
        two = [int(i) for i in kl.argsort()[::-1][:2]]  # at the end, and the same ones before
        found = [measured(stop, true, two, short) for stop in stops]
    print(f"{name}, latents {two[0]} and {two[1]}, after steps", *steps)
    for row in found[0][-1]:
        print(f"{row:<36}", *(f"{numbers[row]:>9.3g}" for *_, numbers in found))
    some = np.random.default_rng(0).permutation(len(true))[: CELLS**2]
    _, decoded, drawn, _ = found[-1]
    shown = {"true images": true[some], "the same decoded at the end": decoded[some]}
    shown |= {f"map, step {step}": of[0] for step, of in zip(steps, found, strict=True)}
    shown["random draws at the end"] = drawn[: CELLS**2]
    drawing = Figure(figsize=(14, 7.4), layout="constrained")
    low, high = np.quantile(true, (0.0, 0.995))  # a blob is a hundredth of an image
    colours = colormaps["viridis"].resampled(16)  # few, for a small file
    for axes, (title, images) in zip(drawing.subplots(2, 4).ravel(), shown.items(), strict=False):
        square = images.reshape(CELLS, CELLS, *images.shape[-2:])
        axes.imshow(sheet(square), cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
    drawing.savefig(path, dpi=75)


if __name__ == "__main__":
    main(*(sys.argv[1:4] or ["digits.png"]))
