"""Spectra that the default weights make of painted regions, as they are and as they were.

    python tests/shared/golden_spectra.py

writes those of the default weights into tests/golden/spectra.json, under the sha256 of each file.
Look at what changed before it is committed.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import torch

from mlsky.haloes.painter import Painter
from mlsky.haloes.region import OBJECT_FIELDS
from mlsky.networks import evaluate
from mlsky.networks.weights import Weights
from mlsky.painting import foregrounds
from mlsky.sphere.geometry import Healpix
from mlsky.training.matching import Spectra
from mlsky.validation import scores

#: Pixels of a side and number of patches per weight file, and the nside that selects it.
CASES = {4.0: (128, 6, 256), 2.0: (256, 4, 1024), 1.0: (256, 6, 2048)}
FILE = Path(__file__).parents[1] / "golden" / "spectra.json"
BANDS = 24
#: Bands that are compared: the patches hold few modes below and pixels no power above.
ELL = (300.0, 9000.0)


@functools.cache
def weights(pixel_arcmin: float) -> Weights:
    return foregrounds.select("default", Healpix(CASES[pixel_arcmin][2]))


@functools.cache
def patches(pixel_arcmin: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fields of the rest and of clusters (patches, 5, n, n), and Gaussian starts (patches, n, n).

    Kappa and clusters are those of painted regions, for networks are given both.
    """
    n, count, _ = CASES[pixel_arcmin]
    chosen = weights(pixel_arcmin)
    painter = Painter(pixel_arcmin, n, objects=chosen.mass_cut)
    starts, maps, clusters = [], [], []
    for i in range(count):
        region = painter.region(8, i)
        own = region.objects.maps.cpu().numpy()
        given = {name: own[OBJECT_FIELDS.index(name)] for name in evaluate.OBJECT_MAPS}
        starts.append(painter.gaussian_kappa(region.maps[1]).cpu().numpy())
        maps.append(scores.generate(chosen, starts[-1], 8, i, objects=given))
        clusters.append(own[[OBJECT_FIELDS.index(name) for name in scores.FIELDS]])
    return np.array(maps), np.array(clusters), np.array(starts)


def pairs(fields: np.ndarray, pixel_arcmin: float) -> tuple[np.ndarray, np.ndarray]:
    """Multipoles and mean spectra of all pairs (fields, fields, bins)."""
    spectra = Spectra(fields.shape[-1], pixel_arcmin, torch.device("cpu"), BANDS)
    fields = torch.from_numpy(fields - fields.mean((2, 3), keepdims=True))
    return spectra.ell, spectra.pairs(spectra.modes(fields)).numpy()


def measured(pixel_arcmin: float) -> dict:
    """Auto spectra, and correlations of pairs, of the patches, in the bands of `ELL`.

    Of the rest: what clusters add does not come from networks.
    """
    maps = patches(pixel_arcmin)[0]
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
