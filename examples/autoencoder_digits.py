"""A variational autoencoder of handwritten digits: figures 8.2 to 8.6 of the seed report.

Trains the recipe `vae-digits` and draws the map of two latents as training goes on, and where
the digits lie in them. Half a minute of one core, with scikit-learn, which ships the digits:

    python examples/autoencoder_digits.py map.png
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from mlsky import networks
from mlsky.networks.vae import traversal
from mlsky.statistics import images as statistics
from mlsky.training import unconditional
from mlsky.training.loop import train
from mlsky.training.recipes import recipe

STEPS = (1, 60, 200, 700)
CELLS = 8


def sheet(images: np.ndarray) -> np.ndarray:
    """(rows, columns, n, n) side by side."""
    rows, columns, n, _ = images.shape
    return images.transpose(0, 2, 1, 3).reshape(rows * n, columns * n)


def main(path: str) -> None:
    digits = load_digits()
    true = digits.images[:, None].astype(np.float32)
    drawing = Figure(figsize=(16, 3.4), layout="constrained")
    panels = drawing.subplots(1, len(STEPS) + 1)
    with tempfile.TemporaryDirectory() as folder:
        # of constant rate, so that stopping on the way changes nothing
        steady = dataclasses.replace(recipe("vae-digits"), decay_from=1.0)
        for axes, steps in zip(panels, STEPS, strict=False):
            train(steady, None, Path(folder), steps=steps, device="cpu", progress=False)
            encoder, decoder, normaliser = unconditional.autoencoder(folder)
            means, found = unconditional.codes(encoder, normaliser, true)
            two = [int(i) for i in found.kl.argsort()[::-1][:2]]
            images = normaliser.inverse(traversal(decoder, two, CELLS))[:, :, 0]
            axes.imshow(sheet(images), cmap="gray")
            axes.set_title(f"step {steps}: {found.active.sum()} latents in use", fontsize=9)
            axes.set_axis_off()
            print(
                f"step {steps:>4}: divergence {found.kl.sum():.2f} nats, noise {decoder.noise:.3f}"
            )
        made = networks.sample(unconditional.opened(folder), 1024, seed=1)
    axes = panels[-1]
    dots = axes.scatter(*means[:, two].T, c=digits.target, cmap="tab10", s=4)
    drawing.colorbar(dots, ax=axes, label="digit")
    axes.set_title("codes of the digits in the two latents", fontsize=9)
    ratio = statistics.power(made).mean(0) / statistics.power(true).mean(0)
    print("blur: power over the true one at 1, 2, 3, 4 waves per image", ratio[1:].round(2))
    drawing.savefig(path, dpi=90)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "map.png")
