"""What it saves to begin with a network that makes one blob: section 6.6 of the seed report.

Reads the logs of two runs of one recipe and draws how each came near the truth:

    mlsky train --recipe blobs-1 --minutes 20
    mlsky train --recipe blobs-10 --minutes 20 --out runs/cold
    mlsky train --recipe blobs-10 --minutes 20 --out runs/warm --init-from runs/blobs-1
    python examples/blobs_transfer.py runs/cold runs/warm transfer.png
"""

import sys

import numpy as np
from matplotlib.figure import Figure

from mlsky.training import curve

WITHIN = 1.25  # factor of the power, in every band, at which a run counts as there


def distance(line: dict) -> float:
    """Largest factor by which the power of some band is off."""
    ratios = np.array([r for rs in line["ratio"].values() for r in rs])
    return float(np.exp(np.abs(np.log(np.maximum(ratios, 1e-6))).max()))


def main(cold: str, warm: str, path: str) -> None:
    drawing = Figure(figsize=(6, 4), layout="constrained")
    axes = drawing.subplots()
    for name, folder in (("cold", cold), ("warm", warm)):
        reports, _, _ = curve.read_log(folder)
        steps = [line["step"] for line in reports]
        off = [distance(line) for line in reports]
        there = next((s for s, o in zip(steps, off, strict=True) if o < WITHIN), None)
        print(f"{name}: power within a factor of {WITHIN} after {there} steps, of {steps[-1]}")
        axes.semilogy(steps, off, label=f"{name}: {folder}")
    axes.set_xlabel("step")
    axes.set_ylabel("worst ratio of generated to true power")
    axes.legend(fontsize=8)
    drawing.savefig(path, dpi=90)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
