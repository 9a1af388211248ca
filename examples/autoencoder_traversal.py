"""Maps of two latents of autoencoders, untrained and trained: figures 8.3 to 8.6 of the report.

One of single blobs and one of sky patches; of the latter, as examples, the infrared background.
Some seconds:

    python examples/autoencoder_traversal.py traversal.png
"""

import sys

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure

from mlsky import registry
from mlsky.networks.weights import open_weights
from mlsky.toys.vae import Decoder, traversal

CELLS = 6
DRAWS = 256  # over the number of latents
MOST = 16  # latents are in the order of what images say of them


def sheet(images: np.ndarray) -> np.ndarray:
    """(rows, columns, n, n) side by side, with a line between."""
    framed = np.pad(images, ((0, 0), (0, 0), (0, 2), (0, 2)), constant_values=np.nan)
    rows, columns, n, _ = framed.shape
    return framed.transpose(0, 2, 1, 3).reshape(rows * n, columns * n)


def telling(decoder: Decoder) -> np.ndarray:
    """Latents by how much of an image changes with them, most first."""
    latent = decoder.kwargs["latent"]
    rng = torch.Generator().manual_seed(0)
    z, other = torch.randn(2, max(4, DRAWS // latent), latent, generator=rng)
    changes = []
    with torch.no_grad():
        images = decoder(z)
        for i in range(min(latent, MOST)):
            moved = z.clone()
            moved[:, i] = other[:, i]
            changes.append(float((decoder(moved) - images).square().mean()))
    share = np.array(changes) / float(2 * images.var(0).mean())
    print(f"share of the variance that hangs on each latent: {np.sort(share)[::-1][:8].round(3)}")
    return np.argsort(share)[::-1]


def main(path: str) -> None:
    drawing = Figure(figsize=(13, 3.6), layout="constrained")
    panels = iter(drawing.subplots(1, 4))
    for name, channel in (("vae-blobs-1", "blobs"), ("vae-sky", "cib")):
        weights = open_weights(registry.fetch(name)[0])
        ((network, trained),) = weights.networks.items()
        outputs = weights.header["networks"][network]["outputs"]
        normaliser = weights.normaliser.select(outputs)
        two = [int(i) for i in telling(trained)[:2]]
        for decoder, when in ((Decoder(**trained.kwargs), "untrained"), (trained, "trained")):
            images = traversal(decoder, two, CELLS)
            shown = normaliser.inverse(torch.from_numpy(images).flatten(0, 1)).numpy()
            shown = shown.reshape(images.shape)[:, :, outputs.index(channel)]
            axes = next(panels)
            colours = colormaps["viridis"].resampled(24)  # few, for a small file
            axes.imshow(sheet(shown), cmap=colours, interpolation="nearest")
            axes.set_title(f"{name}, latents {two[0]} and {two[1]}, {when}", fontsize=9)
            axes.set_axis_off()
    drawing.savefig(path, dpi=85)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "traversal.png")
