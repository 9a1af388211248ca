"""The four sets of blobs, figure 6.1 of the seed report. A few seconds:

python examples/blobs_sets.py sets.png
"""

import sys

from matplotlib.figure import Figure

from mlsky.toys import blobs


def main(path: str) -> None:
    drawing = Figure(figsize=(13, 6.2), layout="constrained")
    panels = drawing.subplots(2, 4)
    for column, count in enumerate(blobs.BLOBS):
        images = blobs.sample(count, 128, seed=1)
        axes = panels[0, column]
        drawing.colorbar(axes.imshow(images[0, 0], origin="lower"), ax=axes, shrink=0.8)
        axes.set_title(f"{count} blobs", fontsize=9)
        panels[1, column].hist(images.ravel(), 80, density=True, histtype="step")
        panels[1, column].set_yscale("log")
        panels[1, column].set_title("pixels of 128 images", fontsize=9)
        print(f"{count:>5} blobs: {images.min():.3g} to {images.max():.3g}")
    drawing.savefig(path, dpi=80)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "sets.png")
