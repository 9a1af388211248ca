"""A variational autoencoder of handwritten digits: figures 8.2, 8.9 and 8.10 of the report.

Trains the recipe `vae-digits` for a while and draws where the digits lie in two latents, digits
beside what the autoencoder makes of them and draws by itself, what each latent holds, and blur.
Half a minute of one core, with scikit-learn, which ships the digits. For maps of two latents
during the whole training, see autoencoder_training.py:

    python examples/autoencoder_digits.py digits.png
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.spatial import cKDTree
from sklearn.datasets import load_digits

from mlsky.toys import image_statistics as statistics
from mlsky.toys.unconditional import sample
from mlsky.training import unconditional
from mlsky.training.loop import train
from mlsky.training.recipes import recipe

STEPS = 1500
DRAWS = 1024


def sheet(images: np.ndarray) -> np.ndarray:
    """(rows, columns, n, n) side by side, with a line between."""
    framed = np.pad(images, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    rows, columns, n, _ = framed.shape
    return framed.transpose(0, 2, 1, 3).reshape(rows * n, columns * n)


def same_digit(codes: np.ndarray, target: np.ndarray) -> float:
    """Share of codes whose nearest other code is that of the same digit."""
    nearest = cKDTree(codes).query(codes, 2)[1][:, 1]
    return float((target[nearest] == target).mean())


def main(path: str) -> None:
    digits = load_digits()
    true = digits.images[:, None].astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(recipe("vae-digits"), None, folder, steps=STEPS, device="cpu", progress=False)
        encoder, decoder, normaliser = unconditional.autoencoder(folder)
        made = sample(unconditional.opened(folder), DRAWS, seed=1)
    means, found = unconditional.codes(encoder, normaliser, true)
    order = found.kl.argsort()[::-1]
    two = order[:2]
    print(
        f"step {STEPS}: {found.active.sum()} latents in use, divergence {found.kl.sum():.2f} nats, "
        f"noise {decoder.noise:.3f}"
    )
    print("divergence by latent (nats)", found.kl[order].round(2))
    for x, what in ((means[:, two], "two latents"), (means, "all"), (digits.data, "pixels")):
        print(f"nearest other is the same digit, by {what}: {same_digit(x, digits.target):.3f}")
    drawing = Figure(figsize=(14, 3.7), layout="constrained")
    panels = drawing.subplots(1, 4)
    dots = panels[0].scatter(*means[:, two].T, c=digits.target, cmap="tab10", s=4)
    drawing.colorbar(dots, ax=panels[0], label="digit")
    panels[0].set_title(f"codes of the digits in latents {two[0]} and {two[1]}", fontsize=9)
    with torch.no_grad():
        decoded = normaliser.inverse(decoder(torch.from_numpy(means))).numpy()
    rows = np.concatenate([true[:16], decoded[:16], made[:32]])[:, 0].reshape(8, 8, 8, 8)
    panels[1].imshow(sheet(rows), cmap="gray", vmin=0, vmax=16)
    panels[1].set_title("rows 1-2 true, 3-4 the same decoded, 5-8 drawn", fontsize=9)
    panels[1].set_axis_off()
    panels[2].bar(range(len(order)), found.kl[order])
    panels[2].set_title("divergence of each latent (nats)", fontsize=9)
    power = statistics.power(true).mean(0)
    for images, name in ((decoded, "decoded"), (made, "drawn")):
        ratio = statistics.power(images).mean(0) / power
        panels[3].plot(range(1, len(ratio)), ratio[1:], "o-", label=name)
        print(f"blur: power of {name} over true at 1, 2, 3, 4 waves per image", ratio[1:].round(2))
    panels[3].set(xlabel="waves per image", ylim=(0, 1.1))
    panels[3].set_title("power over the true one: blur", fontsize=9)
    panels[3].legend(fontsize=8)
    drawing.savefig(path, dpi=75)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "digits.png")
