"""A sky of three bands from shipped weights, and its picture: the goal of the seed report.

    python examples/simulated_sky.py sky.png         # nside 1024, two minutes of two cores
    python examples/simulated_sky.py sky.png 256     # a little more than one

The networks work on charts of 2' whatever nside is, so that few pixels save the transforms only.
`mlsky simulate` and `mlsky plot` do the same from the command line.
"""

import sys

import mlsky
from mlsky.plotting import sky_maps

NSIDE = 1024
FREQS_GHZ = (93, 145, 225)


def main(path: str, nside: int | None = None) -> None:
    sky = mlsky.simulate(FREQS_GHZ, nside=nside or NSIDE, seed=1, stokes="T")
    for name in sky:
        spread = sky.band(1, name)[0].std()
        print(f"{name:<6} standard deviation at {FREQS_GHZ[1]} GHz: {spread:.3g} uK")
    sky_maps.save(sky, path, overwrite=True, dpi=75)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1], *map(int, sys.argv[2:3]))
    else:
        main("sky.png")
