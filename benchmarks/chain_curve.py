"""Learning curve of one network of the paper's chain, from copies of its checkpoint.

    python benchmarks/chain_curve.py runs/han2021 dcgan --data test.h5 [--json curve.json]

Copies are the files ``runs/han2021/dcgan/snapshots/*.safetensors``, made while it trained. Each is
scored as `mlsky validate-chain` does, with the other networks' best states, or their last where
none was scored. The distance from the truth (in tolerances, no number counted more than ten) over
the steps is fitted with a power law, which is extrapolated: the steps to a distance of one. It is
no more than an extrapolation.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from mlsky.training import chain, chain_scores
from mlsky.training.checkpoints import CHECKPOINT

LAST = {"dcgan": "drawn", "pixgan": "painted", "vaegan": "chain"}


def scored(folder: Path, network: str, file: Path, data: Path, patches: int) -> dict:
    """Scores of the chain with one of its networks from another checkpoint."""
    with tempfile.TemporaryDirectory() as made:
        for name in chain.STEPS:
            of = folder / name
            if name == network:
                (Path(made) / name).mkdir()
                (Path(made) / name / CHECKPOINT).symlink_to(file.resolve())
            elif of.exists():
                (Path(made) / name).symlink_to(of.resolve())
        stage = LAST[network]
        return chain_scores.score(made, data, patches, stages=[stage])[stage]


def power_law(steps: np.ndarray, distance: np.ndarray) -> tuple[float, float]:
    """a and b of the least squares fit of distance = a (step / 1000)^-b, in logarithms."""
    slope, offset = np.polyfit(np.log(steps / 1000), np.log(distance), 1)
    return float(np.exp(offset)), float(-slope)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("network", choices=LAST)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--patches", type=int, default=256)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    run = options.folder / options.network
    files = [*sorted((run / "snapshots").glob("*.safetensors")), run / CHECKPOINT]
    found = {}
    for file in files:
        figures = scored(options.folder, options.network, file, options.data, options.patches)
        found[figures["steps"]] = {k: figures[k] for k in ("total", "summary")}
        numbers = ", ".join(f"{k} {n['value']:g}" for k, n in figures["summary"].items())
        distance = figures["total"]["distance"]
        print(f"{figures['steps']:>7} steps: distance {distance:.2f}; {numbers}", flush=True)
    if len(found) > 2:
        steps = np.array([*found], float)
        a, b = power_law(steps, np.array([f["total"]["distance"] for f in found.values()]))
        text = f"distance = {a:.2f} (steps / 1000)^-{b:.2f}"
        more = f"; 1 at {1000 * a ** (1 / b):.3g} steps" if b > 0 else "; it does not fall"
        print(text + more)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
