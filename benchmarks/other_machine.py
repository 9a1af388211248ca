"""What is the same of one seed on another machine: sources in place, maps within so many per cent.

python benchmarks/other_machine.py [--pixel 2] [--charts 6] [--nside 1024] [--seed 1]

The shipped networks paint the same charts in child processes: as this machine does, with the
instructions of older ones (AVX2, SSE), and with convolutions in 32 bits instead of 16. Sources
above 1 mJy count as the same if they are at the same place with the same flux, spectral index and
polarisation; maps are compared at the output pixels of those charts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

#: Environments that take the vector units of older machines: of AVX2 alone, and those without
#: AVX, whose multiplications and additions are rounded one by one.
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
SSE = {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}
#: By name: precision and environment.
RUNS = {
    "fp32": ("fp32", {}),
    "fp32 AVX2": ("fp32", AVX2),
    "fp32 SSE": ("fp32", SSE),
    "bf16": ("bf16", {}),
    "bf16 AVX2": ("bf16", AVX2),
}
#: What is compared with what.
PAIRS = (
    ("fp32 AVX2", "fp32"),
    ("fp32 SSE", "fp32"),
    ("bf16", "fp32"),
    ("bf16 AVX2", "bf16"),
)
FIELDS = ("tsz", "ksz", "cib")
SOURCE = ("ra", "dec", "flux_mjy", "alpha", "pol_frac", "pol_angle")


def paint(out: Path, weights: str, nside: int, chosen: list[int], seed: int, precision: str):
    """Paint charts and write their maps and sources, in this process."""
    from mlsky.painting import foregrounds
    from mlsky.sphere import charts, gaussian
    from mlsky.sphere.geometry import Healpix
    from mlsky.theory import spectra

    each = foregrounds._each

    def some(work, every, on_cpu):
        return each(work, [every[index] for index in chosen], on_cpu)

    foregrounds._each = some
    geometry = Healpix(nside)
    networks = foregrounds.select(weights, geometry)
    start = gaussian.draw_alm(spectra.kappa_spectrum(foregrounds.kappa_lmax(networks)), seed)
    made = foregrounds.generate(
        start, geometry, weights=networks, seed=seed, device="cpu", precision=precision
    )
    pixel = np.concatenate(
        [
            charts.owned(chart, geometry)
            for chart in charts.charts(networks.pixel_arcmin)
            if chart.index in chosen
        ]
    )
    np.savez(
        out,
        instructions=foregrounds.made_with(networks, "cpu")["instructions"],
        **{name: made.maps[name][pixel] for name in FIELDS},
        **{name: np.asarray(made.catalogue[name]) for name in SOURCE},
    )


def same_sources(one, two, least_mjy: float = 1.0) -> float:
    """Share of the bright sources of `one` that are in `two`, with all that was drawn alike."""

    def rows(sky) -> set[tuple]:
        kept = sky["flux_mjy"] > least_mjy
        # a millionth of a degree, and as many digits of the rest
        return set(zip(*(np.round(sky[name][kept], 6) for name in SOURCE), strict=True))

    first = rows(one)
    return len(first & rows(two)) / len(first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pixel", type=float, default=2.0, choices=(0.5, 2.0))
    parser.add_argument("--nside", type=int, default=1024)
    parser.add_argument("--charts", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = np.linspace(0, 191, options.charts).round().astype(int).tolist()
    if options.child:
        out, precision = options.child
        paint(Path(out), _weights(options.pixel), options.nside, chosen, options.seed, precision)
        return
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (precision, environment) in RUNS.items():
            out = Path(folder) / f"{name}.npz"
            subprocess.run(
                [sys.executable, *sys.argv, "--child", str(out), precision],
                env=os.environ | environment,
                check=True,
            )
            made[name] = dict(np.load(out))
            print(f"{name}: {made[name]['instructions']}, {len(made[name]['ra'])} sources")
    print(
        f"\n{'':24s}{'sources > 1 mJy, %':>20s}" + "".join(f"{f + ' rms, %':>14s}" for f in FIELDS)
    )
    for other, one in PAIRS:
        share = 100 * min(
            same_sources(made[one], made[other]), same_sources(made[other], made[one])
        )
        rms = [100 * np.std(made[other][f] - made[one][f]) / np.std(made[one][f]) for f in FIELDS]
        print(f"{other + ' : ' + one:24s}{share:20.2f}" + "".join(f"{r:14.3g}" for r in rms))


def _weights(pixel_arcmin: float) -> str:
    """The default networks of a pixel size."""
    from mlsky import registry

    files = registry.describe("default")["files"]
    (index,) = (i for i, f in enumerate(files) if f["pixel_arcmin"] == pixel_arcmin)
    return str(registry.fetch("default")[index])


if __name__ == "__main__":
    main()
