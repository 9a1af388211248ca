"""Comb that the tiles of the paper's chain leave in its maps, by their overlap.

    python benchmarks/tile_comb.py --weights han2021 [--overlaps 0 20 64] [--pictures 4]

A network that takes patches of one size makes a large picture in tiles. What it makes at the same
place of every tile, whatever the tile shows, repeats across the picture and is a comb in its power.
On pictures of 16 x 16 tiles of a Gaussian kappa this prints for every field, with its error,

- pattern: the fraction of the variance that is the same in all tiles;
- comb: the power in rings at the frequency of the tiles and its multiples up to four, over that in
  the middle between them, minus one.

Weights that need no tiles are measured on the same lattice: they show what is no comb.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from mlsky import seeds
from mlsky.networks import evaluate, tiles
from mlsky.networks.weights import Weights
from mlsky.painting import foregrounds
from mlsky.sphere.geometry import Healpix
from mlsky.theory import kappa_spectrum

TILES = 16  # along a side
MULTIPLES = 4
RING = 2.0  # half the width of a ring, in modes; the window mixes those next to each other
FIELDS = ("kappa", "ksz", "tsz", "cib", "radio")


def gaussian(n: int, weights: Weights, rng: np.random.Generator) -> np.ndarray:
    """Gaussian kappa (n, n) on flat periodic pixels of the weights."""
    lmax = foregrounds.kappa_lmax(weights)
    step = 21600 / (n * weights.pixel_arcmin)
    ell = np.hypot(*np.meshgrid(np.fft.fftfreq(n, 1 / n) * step, np.fft.rfftfreq(n, 1 / n) * step))
    ell = ell.T
    cl = np.append(kappa_spectrum(lmax), 0.0)
    power = np.interp(ell, np.arange(len(cl)), cl, right=0.0)
    power[0, 0] = 0.0
    area = np.radians(weights.pixel_arcmin / 60) ** 2
    white = np.fft.rfft2(rng.standard_normal((n, n)))
    return np.fft.irfft2(white * np.sqrt(power / area), s=(n, n)).astype(np.float32)


def measured(field: np.ndarray, step: int) -> dict[str, float]:
    """Pattern and comb of a picture whose tiles begin every `step` pixels."""
    field = field - field.mean()
    n = step * TILES
    stack = field.reshape(TILES, step, TILES, step).transpose(0, 2, 1, 3)
    stack = stack.reshape(TILES**2, step, step)
    # the mean of tiles that have nothing in common has their variance over their number
    pattern = (stack.mean(0) ** 2).mean() - stack.var(0, ddof=1).mean() / TILES**2
    hann = np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2
    power = np.abs(np.fft.fft2(field * hann * hann[:, None])) ** 2
    k = np.hypot(*np.meshgrid(*[np.fft.fftfreq(n, 1 / n)] * 2))

    def ring(multiple: float) -> float:
        return power[abs(k - multiple * TILES) < RING].mean()

    ratios = [2 * ring(m) / (ring(m - 0.5) + ring(m + 0.5)) - 1 for m in range(1, MULTIPLES + 1)]
    return {"pattern": pattern / (field**2).mean(), "comb": float(np.mean(ratios))}


def comb(weights: Weights, overlap: int, pictures: int, seed: int) -> dict[str, dict[str, list]]:
    """`measured` of every field, for each picture."""
    of_tiles = evaluate.kind(weights) == "han2021"
    step = tiles.SIDE - overlap
    weights.header["overlap"] = overlap
    n = step * TILES + (overlap if of_tiles else 0)
    if not of_tiles or evaluate.noise_channels(weights):  # noise has whole pixels at every level
        n = -(-n // evaluate.multiple(weights)) * evaluate.multiple(weights)
    first = overlap // 2 if of_tiles else 0  # a border lies in the middle of an overlap
    out: dict[str, dict[str, list]] = {}
    for index in range(pictures):
        rng = np.random.default_rng(seeds.integer(seed, "kappa", index))
        kappa = gaussian(n, weights, rng)
        noise = {
            name: [
                torch.from_numpy(rng.standard_normal((c, n >> level, n >> level), np.float32))
                for level, c in wanted
            ]
            for name, wanted in evaluate.noise_channels(weights).items()
        }
        objects = None
        if evaluate.takes_objects(weights):
            objects = {name: np.zeros((n, n), np.float32) for name in evaluate.OBJECT_MAPS}
        made = evaluate.evaluate(weights, kappa, noise, objects=objects)
        for name in FIELDS:
            if name in made:
                inside = made[name].numpy()[first : first + step * TILES]
                inside = inside[:, first : first + step * TILES].astype(np.float64)
                for what, value in measured(inside, step).items():
                    out.setdefault(name, {}).setdefault(what, []).append(value)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="han2021")
    parser.add_argument("--nside", type=int, default=4096, help="of the sky they would make")
    parser.add_argument("--overlaps", type=int, nargs="+", default=[0, 20, 64])
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.pictures < 2:
        parser.error(
            f"--pictures {options.pictures}: must be at least 2, as errors are of their mean"
        )
    if not all(0 <= overlap < tiles.SIDE for overlap in options.overlaps):
        parser.error(f"--overlaps: must be from 0 to {tiles.SIDE - 1} pixels")
    weights = foregrounds.select(options.weights, Healpix(options.nside))
    for overlap in options.overlaps:
        print(f"overlap of {overlap} pixels")
        for name, figures in comb(weights, overlap, options.pictures, options.seed).items():
            texts = (
                f"{what} {np.mean(v):+.4f} +- {np.std(v, ddof=1) / np.sqrt(len(v)):.4f}"
                for what, v in figures.items()
            )
            print(f"  {name:<6} {', '.join(texts)}")


if __name__ == "__main__":
    main()
