"""Local maxima of noisy images are maxima of the noise; the beam finds what is there.

Section 6.5 of the seed report, which proposed it and left it to do. Some ten seconds:

    python examples/blobs_peaks.py peaks.png
"""

import sys

import numpy as np
from matplotlib.figure import Figure

from mlsky import seeds
from mlsky.toys import blobs, matched, peaks

IMAGES, NOISE, THRESHOLD = 100, 0.15, 0.6


def main(path: str) -> None:
    clean = blobs.sample(1, IMAGES, seed=1)[:, 0]
    noisy = clean + NOISE * seeds.generator(2, "truth").standard_normal(clean.shape)
    found = [matched.find(image, blobs.SIGMA, THRESHOLD) for image in noisy]
    places = [blobs.table(1, 1, i) for i in range(IMAGES)]
    stacks = {}
    for name, images, where in (
        ("truth", clean, places),
        ("local maxima", noisy, None),
        ("matched filter", noisy, found),
    ):
        stack = peaks.PeakStack(THRESHOLD)
        stack.update(images, where)
        stacks[name] = stack.compute()
        print(
            f"{name:<15} {stacks[name].per_image:5.2f} peaks per image, height "
            f"{stacks[name].profile[0]:.3f}, one pixel away {stacks[name].profile[1]:.3f}"
        )
    heights = np.concatenate([f[:, 2] for f in found])
    print(f"fitted heights {heights.mean():.4f} +- {heights.std() / np.sqrt(len(heights)):.4f}")
    drawing = Figure(figsize=(13, 3.2), layout="constrained")
    panels = drawing.subplots(1, 5)
    panels[0].imshow(noisy[0], origin="lower")
    panels[0].set_title("one image", fontsize=9)
    for axes, (name, stack) in zip(panels[1:4], stacks.items(), strict=True):
        axes.imshow(stack.stack, origin="lower", vmin=0, vmax=1)
        axes.set_title(f"{name}: {stack.peaks} peaks", fontsize=9)
        panels[4].plot(stack.radius, stack.profile, "o-", ms=3, label=name)
    panels[4].set_title("stack by radius (pixels)", fontsize=9)
    panels[4].legend(fontsize=8)
    drawing.savefig(path, dpi=90)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "peaks.png")
