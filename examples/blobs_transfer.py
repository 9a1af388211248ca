"""What it saves to begin with a network that makes one blob: section 6.6 of the seed report.

With no runs named it makes two short ones of 10 blobs, from first weights and from the shipped
`blobs-1`, and draws how each came near the truth; some 40 seconds of one core:

    python examples/blobs_transfer.py transfer.png

Longer ones are made on the command line, and drawn by

    mlsky train --recipe blobs-1 --minutes 20
    mlsky train --recipe blobs-10 --minutes 20 --out runs/cold
    mlsky train --recipe blobs-10 --minutes 20 --out runs/warm --init-from runs/blobs-1
    python examples/blobs_transfer.py transfer.png runs/cold runs/warm
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mlsky import registry
from mlsky.training import curve
from mlsky.training.loop import train
from mlsky.training.recipes import recipe

STEPS = 50
WITHIN = 1.25  # factor of the power, in every band, at which a run counts as there


def distance(line: dict) -> float:
    """Largest factor by which the power of some band is off."""
    ratios = np.array([r for rs in line["ratio"].values() for r in rs])
    return float(np.exp(np.abs(np.log(np.maximum(ratios, 1e-6))).max()))


def short_runs(folder: str) -> tuple[Path, Path]:
    """A cold and a warm run of `STEPS` steps."""
    start = registry.fetch("blobs-1")[0]
    out = Path(folder) / "cold", Path(folder) / "warm"
    for path, init_from in zip(out, (None, start), strict=True):
        train(recipe("blobs-10"), None, path, steps=STEPS, init_from=init_from, device="cpu")
    return out


def main(path: str, cold: str | Path, warm: str | Path) -> None:
    drawing = Figure(figsize=(6, 4), layout="constrained")
    axes = drawing.subplots()
    for name, folder in (("cold", cold), ("warm", warm)):
        reports, _, _ = curve.read_log(folder)
        steps = [line["step"] for line in reports]
        off = [distance(line) for line in reports]
        there = next((s for s, o in zip(steps, off, strict=True) if o < WITHIN), None)
        after = "not" if there is None else f"after {there} steps"
        print(f"{name}: power within a factor of {WITHIN} {after}, of {steps[-1]}; {off[-1]:.3g}")
        axes.semilogy(steps, off, "o-", ms=3, label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("worst ratio of generated to true power")
    axes.legend(fontsize=8)
    drawing.savefig(path, dpi=90)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        with tempfile.TemporaryDirectory() as made:
            main(sys.argv[1], *short_runs(made))
    elif len(sys.argv) == 4:
        main(*sys.argv[1:])
    else:
        sys.exit(__doc__)
