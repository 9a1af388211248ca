"""Spectra that the default weights make of patches of Gaussian kappa, as they are and as they were.

    python tests/shared/golden_spectra.py

writes those of the default weights into tests/golden/spectra.json, under the sha256 of each file.
Look at what changed before it is committed.
"""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path

import numpy as np
import torch

from mlsky import seeds
from mlsky.networks.weights import Weights
from mlsky.painting import foregrounds
from mlsky.sphere.geometry import Healpix
from mlsky.theory import kappa_spectrum
from mlsky.training.matching import Spectra
from mlsky.validation import scores

#: Pixels of a side and number of patches per weight file, and the nside that selects it.
CASES = {2.0: (256, 8, 1024), 0.5: (512, 4, 4096)}
FILE = Path(__file__).parents[1] / "golden" / "spectra.json"
BANDS = 24
#: Bands that are compared: the patches hold few modes below and pixels no power above.
ELL = (300.0, 9000.0)


@functools.cache
def weights(pixel_arcmin: float) -> Weights:
    return foregrounds.select("default", Healpix(CASES[pixel_arcmin][2]))


@functools.cache
def patches(pixel_arcmin: float) -> tuple[np.ndarray, np.ndarray]:
    """Fields (patches, 5, n, n) and their Gaussian starts (patches, 1, n, n)."""
    n, count, _ = CASES[pixel_arcmin]
    chosen = weights(pixel_arcmin)
    pixel = math.radians(pixel_arcmin / 60)
    cl = kappa_spectrum(foregrounds.kappa_lmax(chosen))
    k = 2 * np.pi * np.hypot(np.fft.fftfreq(n, pixel)[:, None], np.fft.rfftfreq(n, pixel)[None])
    amplitude = np.sqrt(np.interp(k, np.arange(len(cl)), cl, right=0)) / pixel
    starts, maps = [], []
    for i in range(count):
        white = seeds.generator(8, "kappa", i).standard_normal((n, n))
        starts.append(np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=(n, n)).astype("f4"))
        maps.append(scores.generate(chosen, starts[-1], 8, i))
    return np.array(maps), np.array(starts)[:, None]


def pairs(fields: np.ndarray, pixel_arcmin: float) -> tuple[np.ndarray, np.ndarray]:
    """Multipoles and mean spectra of all pairs (fields, fields, bins)."""
    spectra = Spectra(fields.shape[-1], pixel_arcmin, torch.device("cpu"), BANDS)
    fields = torch.from_numpy(fields - fields.mean((2, 3), keepdims=True))
    return spectra.ell, spectra.pairs(spectra.modes(fields)).numpy()


def measured(pixel_arcmin: float) -> dict:
    """Auto spectra, and correlations of pairs, of the patches, in the bands of `ELL`.

    tSZ is clipped, since a few clusters rule it on so small an area.
    """
    maps = patches(pixel_arcmin)[0].copy()
    maps[:, 2] = np.maximum(maps[:, 2], scores.TSZ_CLIP)
    ell, power = pairs(maps, pixel_arcmin)
    inside = (ell > ELL[0]) & (ell < min(ELL[1], 0.8 * 10800 / pixel_arcmin))
    auto = {n: power[i, i, inside].tolist() for i, n in enumerate(scores.FIELDS)}
    root = np.sqrt(np.einsum("iib->ib", power))
    r = power / (root[:, None] * root)
    names = list(enumerate(scores.FIELDS))
    cross = {f"{a} x {b}": r[i, j, inside].tolist() for i, a in names for j, b in names[i + 1 :]}
    return {"ell": ell[inside].tolist(), "auto": auto, "correlation": cross}


def golden(pixel_arcmin: float) -> dict | None:
    """What `measured` gave when the file was written; None of other weights."""
    return json.loads(FILE.read_text()).get(weights(pixel_arcmin).sha256)


def _rounded(values):
    if isinstance(values, dict):
        return {name: _rounded(part) for name, part in values.items()}
    return [float(f"{x:.4g}") for x in values]


def main() -> None:
    found = {weights(pixel).sha256: _rounded(measured(pixel)) for pixel in CASES}
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
