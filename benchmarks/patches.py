"""Seconds and memory of CAR maps of part of the sky by stage, and of the whole sky beside them.

    python benchmarks/patches.py --part 10deg --pixel 0.5
    python benchmarks/patches.py --part dr6 --pixel 2
    python benchmarks/patches.py --part whole --pixel 2
    python benchmarks/patches.py --compare --pixel 4

"10deg" is a patch of 10 x 10 degrees, "dr6" the footprint of ACT DR6 (pixell's band from -63 to 23
degrees of declination). `--compare` makes 10 x 10 and 20 x 20 degrees, and compares them on the
smaller. Processor time of all threads depends less than time on what else the machine does.
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


def compare(pixel_arcmin: float, options: dict) -> None:
    """Differences between maps of 10 and of 20 degrees, where both are."""
    shape, wcs = enmap.fullsky_geometry(res=np.radians(pixel_arcmin / 60))
    pixels = enmap.zeros(shape, wcs, np.uint8)
    y, x = (round(float(c)) for c in pixels.sky2pix(np.radians([10.0, 40.0])))
    half = round(300 / pixel_arcmin)
    made = []
    for side in (half, 2 * half):
        cut = pixels[y - side : y + side, x - side : x + side]
        sky = mlsky.simulate([145.0], geometry=(cut.shape, cut.wcs), stokes="T", **options)
        inner = slice(side - half, side + half)
        maps = {"kappa": sky.kappa, **{name: sky[name][0, 0] for name in sky}}
        made.append({name: np.asarray(values)[inner, inner] for name, values in maps.items()})
    for name, values in made[0].items():
        off = values - made[1][name]
        print(
            f"{name:8s} rms {values.std():10.4g}, difference {off.std():10.4g} rms, "
            f"{np.abs(off).max():10.4g} at most, in {np.mean(off != 0):.2%} of the pixels"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=["10deg", "dr6", "whole"], default="10deg")
    parser.add_argument("--pixel", type=float, default=0.5, help="arcmin")
    parser.add_argument("--bands", type=float, nargs="+", default=[93.0, 145.0, 225.0])
    parser.add_argument("--stokes", default="T")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--compare", action="store_true")
    options = parser.parse_args()
    if options.compare:
        compare(options.pixel, {"seed": options.seed, "weights": options.weights})
        return
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
