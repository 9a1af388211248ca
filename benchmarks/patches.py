"""Seconds and memory of CAR maps of part of the sky by stage, and of the whole sky beside them.

    python benchmarks/patches.py --part 10deg --pixel 0.5
    python benchmarks/patches.py --part dr6 --pixel 2
    python benchmarks/patches.py --part whole --pixel 2

"10deg" is a patch of 10 x 10 degrees, "dr6" the footprint of ACT DR6 (pixell's band from -63 to 23
degrees of declination). Processor time of all threads hardly depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from full_sky import ESTIMATED, GIB, Meter
from pixell import enmap

import mlsky
from mlsky import request
from mlsky.signature import Arguments
from mlsky.sphere.threads import threads


def shape_wcs(part: str, pixel_arcmin: float) -> tuple:
    res = np.radians(pixel_arcmin / 60)
    if part == "whole":
        return enmap.fullsky_geometry(res=res)
    if part == "dr6":
        return enmap.band_geometry(np.radians([-63, 23]), res=res)
    corners = np.radians([[5.0, 45.0], [15.0, 35.0]])
    return enmap.geometry(corners, res=res, proj="car")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=["10deg", "dr6", "whole"], default="10deg")
    parser.add_argument("--pixel", type=float, default=0.5, help="arcmin")
    parser.add_argument("--bands", type=float, nargs="+", default=[93.0, 145.0, 225.0])
    parser.add_argument("--stokes", default="T")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weights", default="default")
    options = parser.parse_args()
    given = shape_wcs(options.part, options.pixel)
    print(f"{options.part}, {given[0]} pixels of {options.pixel:g}'")
    with tempfile.TemporaryDirectory() as folder:
        meter = Meter()
        sky = mlsky.simulate(
            options.bands,
            seed=options.seed,
            geometry=given,
            stokes=options.stokes,
            weights=options.weights,
            progress=meter,
            out=Path(folder) / "sky.h5",
        )
        meter("end", 1.0)
        sources = 0 if sky.catalog is None else len(sky.catalog)
    wall, cpu, peak = (f([r[i] for r in meter.rows]) for i, f in ((1, sum), (2, sum), (3, max)))
    print(f"{'total':32s} {wall:8.1f} s {cpu:8.1f} s {peak / GIB:6.2f} GiB; {sources} sources")
    asked = Arguments(options.bands, geometry=given, stokes=options.stokes, weights=options.weights)
    estimate = request.check(asked).memory(workers=threads())
    for stage, row in ESTIMATED.items():
        found = max((r[3] for r in meter.rows if r[0] == stage), default=float("nan"))
        print(f"    estimated for {stage}: {estimate[row] / GIB:.2f} GiB, found {found / GIB:.2f}")


if __name__ == "__main__":
    main()
