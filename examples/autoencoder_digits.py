"""A variational autoencoder of handwritten digits: figures 8.2 to 8.6, 8.9 and 8.10 of the report.

Trains the recipe `vae-digits` and draws the map of two latents as training goes on, where the
digits lie in them, and digits beside what the autoencoder makes of them and draws by itself. Half
a minute of one core, with scikit-learn, which ships the digits:

    python examples/autoencoder_digits.py digits.png
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from mlsky.toys import image_statistics as statistics
from mlsky.toys.unconditional import sample
from mlsky.toys.vae import traversal
from mlsky.training import unconditional
from mlsky.training.loop import train
from mlsky.training.recipes import recipe

STEPS = (1, 60, 300, 1500)
CELLS = 8
DRAWS = 1024


def sheet(images: np.ndarray) -> np.ndarray:
    """(rows, columns, n, n) side by side, with a line between."""
    framed = np.pad(images, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    rows, columns, n, _ = framed.shape
    return framed.transpose(0, 2, 1, 3).reshape(rows * n, columns * n)


def main(path: str) -> None:
    digits = load_digits()
    true = digits.images[:, None].astype(np.float32)
    drawing = Figure(figsize=(14, 7.4), layout="constrained")
    panels = drawing.subplots(2, 4)
    with tempfile.TemporaryDirectory() as folder:
        # of constant rate, so that stopping on the way changes nothing
        steady = dataclasses.replace(recipe("vae-digits"), decay_from=1.0)
        for axes, steps in zip(panels[0], STEPS, strict=True):
            train(steady, None, Path(folder), steps=steps, device="cpu", progress=False)
            encoder, decoder, normaliser = unconditional.autoencoder(folder)
            means, found = unconditional.codes(encoder, normaliser, true)
            two = [int(i) for i in found.kl.argsort()[::-1][:2]]
            images = normaliser.inverse(traversal(decoder, two, CELLS))[:, :, 0]
            axes.imshow(sheet(images), cmap="gray")
            axes.set_title(f"step {steps}: {found.active.sum()} latents in use", fontsize=9)
            axes.set_axis_off()
            print(
                f"step {steps:>4}: {found.active.sum()} latents in use, divergence "
                f"{found.kl.sum():.2f} nats, noise {decoder.noise:.3f}"
            )
        made = sample(unconditional.opened(folder), DRAWS, seed=1)
    print("divergence by latent (nats)", np.sort(found.kl)[::-1].round(2))
    axes = panels[1, 0]
    dots = axes.scatter(*means[:, two].T, c=digits.target, cmap="tab10", s=4)
    drawing.colorbar(dots, ax=axes, label="digit")
    axes.set_title("codes of the digits in the two latents", fontsize=9)
    with torch.no_grad():
        again = normaliser.inverse(decoder(torch.from_numpy(means[:16]))).numpy()
    rows = np.concatenate([true[:16], again, made[:32]])[:, 0].reshape(8, 8, 8, 8)
    panels[1, 1].imshow(sheet(rows), cmap="gray", vmin=0, vmax=16)
    panels[1, 1].set_title("rows 1-2 true, 3-4 the same decoded, 5-8 drawn", fontsize=9)
    panels[1, 1].set_axis_off()
    panels[1, 2].bar(range(len(found.kl)), np.sort(found.kl)[::-1])
    panels[1, 2].set_title("divergence of each latent (nats)", fontsize=9)
    power = statistics.power(true).mean(0)
    with torch.no_grad():
        every = normaliser.inverse(decoder(torch.from_numpy(means))).numpy()
    for images, name in ((every, "decoded"), (made, "drawn")):
        ratio = statistics.power(images).mean(0) / power
        panels[1, 3].plot(range(1, len(ratio)), ratio[1:], "o-", label=name)
        print(f"blur: power of {name} over true at 1, 2, 3, 4 waves per image", ratio[1:].round(2))
    panels[1, 3].set(xlabel="waves per image", ylim=(0, 1.1))
    panels[1, 3].set_title("power over the true one: blur", fontsize=9)
    panels[1, 3].legend(fontsize=8)
    drawing.savefig(path, dpi=75)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "digits.png")
