"""Training sets: regions in HDF5, and the random crops that networks are shown.

A set holds one dataset per field, each (regions, n, n) float32 in uK_CMB at 148 GHz
(convergences dimensionless), periodic at its edges if painted by `mlsky.datasets.halos`.
Train, validation and test sets are painted from different seeds, so they never share sky.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch

from mlsky import seeds

__all__ = ["Crops", "fields_of", "paint"]

#: What training reads: the painter's fields and the Gaussian start made from kappa_g.
FIELDS = ("kappa", "kappa_g", "ksz", "tsz", "cib", "radio", "kappa_in")


def paint(
    path: str | os.PathLike,
    regions: int,
    seed: int,
    pixel_arcmin: float = 0.5,
    n: int = 512,
    device: str = "cpu",
    progress: bool = True,
) -> None:
    """Paint a set of regions into an HDF5 file; an interrupted run goes on where it stopped.

    The file grows under ``<path>.part`` and takes its name when it is whole.
    """
    from tqdm import tqdm

    from mlsky.datasets.halos import Painter

    path = Path(path)
    if path.exists():
        raise ValueError(f"{path}: exists already; give another name or remove it")
    if regions < 1:
        raise ValueError(f"regions={regions}: must be at least 1")
    painter = Painter(pixel_arcmin, n, device=device)
    part = path.with_name(path.name + ".part")
    attributes = {
        "pixel_arcmin": pixel_arcmin,
        "seed": seed,
        "source": json.dumps(painter.t["header"], sort_keys=True),
    }
    with h5py.File(part, "a") as file:
        if not file.attrs:
            file.attrs.update(attributes)
            file.attrs["done"] = 0
            for name in FIELDS:
                file.create_dataset(name, (regions, n, n), "f4", chunks=(1, n, n))
        elif any(file.attrs[k] != v for k, v in attributes.items()) or file["kappa"].shape != (regions, n, n):
            raise ValueError(f"{part}: was begun with other settings; remove it to start anew")
        done = int(file.attrs["done"])
        for i in tqdm(range(done, regions), initial=done, total=regions, disable=not progress, desc=f"painting {path.name}"):
            maps = painter.region(seed, i).maps
            start = painter.gaussian_start(maps[1])
            for name, values in zip(FIELDS, (*maps, start), strict=True):
                file[name][i] = values.cpu().numpy()
            file.attrs["done"] = i + 1
    os.replace(part, path)


def fields_of(path: str | os.PathLike, names: Sequence[str]) -> tuple[list[h5py.Dataset], dict]:
    """Open the fields of a set.

    Raises
    ------
    ValueError
        If the file is not a training set or lacks a field.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read as HDF5 ({error})") from None
    missing = [n for n in names if n not in file]
    if missing or "pixel_arcmin" not in file.attrs:
        raise ValueError(
            f"{path}: lacks {', '.join(missing) or 'the attribute pixel_arcmin'}; a training set has "
            f"datasets {', '.join(FIELDS)} of shape (regions, n, n), as `mlsky data paint` writes them"
        )
    return [file[n] for n in names], dict(file.attrs)


class Crops:
    """Random crops of a set, with the symmetries of the sky.

    Each crop is rolled across the periodic edge, flipped and turned at random (the eight
    elements of D4), and the sign of kSZ is drawn: velocities know no preferred direction.

    Parameters
    ----------
    path
        HDF5 set.
    names
        Fields, in the order of the channels returned.
    size
        Pixels along a side of a crop.
    seed
        Of the crops; crop number i of a seed is always the same.
    """

    def __init__(self, path, names: Sequence[str], size: int = 128, seed: int = 0) -> None:
        data, self.attrs = fields_of(path, names)
        self.names, self.size, self.seed = tuple(names), size, seed
        # half precision holds every field to 5e-4, and a whole set in memory
        self.data = np.stack([d[:].astype(np.float16) for d in data], 1)
        if min(self.data.shape[-2:]) < size:
            raise ValueError(f"{path}: regions of {self.data.shape[-1]} pixels, crops of {size} asked for")
        self.signed = self.names.index("ksz") if "ksz" in self.names else None

    def batch(self, step: int, batch_size: int) -> torch.Tensor:
        """Batch number `step`: (batch_size, fields, size, size) float32, physical units."""
        rng = seeds.generator(self.seed, "training", step)
        n, size = self.data.shape[-1], self.size
        out = np.empty((batch_size, len(self.names), size, size), np.float32)
        index = np.arange(size)
        for b in range(batch_size):
            i, y, x, turn, sign = rng.integers((len(self.data), n, n, 8, 2))
            crop = self.data[i][:, (y + index)[:, None] % n, (x + index)[None] % n]
            if turn & 1:
                crop = crop[:, ::-1]
            if turn & 2:
                crop = crop[:, :, ::-1]
            if turn & 4:
                crop = crop.transpose(0, 2, 1)
            out[b] = crop
            if sign and self.signed is not None:
                out[b, self.signed] *= -1
        return torch.from_numpy(out)
