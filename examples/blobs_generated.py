"""Generated blobs beside true ones: figures 6.2 to 6.21 of the seed report, and its questions.

Of shipped weights, or of a run of one's own; some 15 seconds:

    python examples/blobs_generated.py blobs-1 blobs.png

    mlsky train --recipe blobs-1 --minutes 20
    python examples/blobs_generated.py runs/blobs-1 blobs.png

`mlsky validate-images blobs-1 --out blobs.png` does the same from the command line.
"""

import sys

from mlsky.plotting import blob_figures
from mlsky.toys import comparison as statistics
from mlsky.toys.unconditional import sample
from mlsky.training import unconditional

IMAGES = 128


def main(source: str, path: str) -> None:
    weights = unconditional.opened(source)
    made = sample(weights, IMAGES, seed=7)
    true = unconditional.truth(weights, IMAGES, seed=7)
    kind = unconditional.blobs_of(weights)
    for name, line in statistics.compare(made, true, kind.count, kind.sigma, kind.scaled).items():
        print(f"{name:<50} {line.made:10.4g} {line.true:10.4g}  {line.wanted}")
    blob_figures.figure(made, true, f"{kind.count} blobs").savefig(path, dpi=60)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
