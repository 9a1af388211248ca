"""A sky of three bands from shipped weights, and its picture: the goal of the seed report.

    python examples/simulated_sky.py sky.png

nside 256; the networks work on charts of 2' whatever nside is, so that this is as long as nside
1024 without its transforms. `mlsky simulate` does the same from the command line.
"""

import sys

import mlsky
from mlsky import plotting

NSIDE = 256
FREQS_GHZ = (93, 145, 225)


def main(path: str) -> None:
    sky = mlsky.simulate(FREQS_GHZ, nside=NSIDE, seed=1, stokes="T", progress=None)
    for name in sky:
        print(
            f"{name:<6} standard deviation at {FREQS_GHZ[1]} GHz: {sky.band(1, name)[0].std():.3g}"
        )
    plotting.save(sky, path, overwrite=True, dpi=75)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "sky.png")
