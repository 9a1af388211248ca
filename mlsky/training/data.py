"""Training sets: regions in HDF5, and the random crops that networks are shown.

A set holds one dataset per field, each (regions, n, n) float32 in uK_CMB at 148 GHz
(convergences dimensionless), periodic at its edges if painted by `mlsky.datasets.halos`.
Train, validation and test sets are painted from different seeds, so they never share sky.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import h5py
import numpy as np
import torch

from mlsky import seeds

__all__ = ["Crops", "fields_of"]

#: What training reads: the painter's fields and the Gaussian start made from kappa_g.
FIELDS = ("kappa", "kappa_g", "ksz", "tsz", "cib", "radio", "kappa_in")


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
        lacks = ", ".join(missing) or "the attribute pixel_arcmin"
        raise ValueError(
            f"{path}: lacks {lacks}; a training set has datasets {', '.join(FIELDS)} of shape "
            "(regions, n, n), as `mlsky data paint` writes them"
        )
    return [file[n] for n in names], dict(file.attrs)


class Crops:
    """Random crops of a set, with the symmetries of the sky.

    Each crop is flipped and turned at random (the eight elements of D4), and the sign of kSZ
    is drawn: velocities know no preferred direction. Regions larger than a crop are periodic,
    and rolled at random; regions of the size of a crop are patches on their own (as a
    generator makes them), whose edges do not meet, and are not rolled.

    Parameters
    ----------
    path
        HDF5 set.
    names
        Fields, in the order of the channels returned.
    size
        Pixels along a side of a crop.
    seed
        Of the crops; batch number i of a seed is always the same.

    Raises
    ------
    ValueError
        If the file is no training set, its regions are smaller than a crop, or it holds values
        that are not finite in half precision.
    """

    def __init__(self, path, names: Sequence[str], size: int = 128, seed: int = 0) -> None:
        data, self.attrs = fields_of(path, names)
        self.names, self.size, self.seed = tuple(names), size, seed
        n = min(data[0].shape[-2:])
        if n < size:
            raise ValueError(f"{path}: regions of {n} pixels, crops of {size} asked for")
        # half precision holds every field to 5e-4, and a whole set in memory
        with np.errstate(over="ignore"):  # told of just below
            self.data = np.stack([d[:].astype(np.float16) for d in data], 1)
        data[0].file.close()
        if not np.isfinite(self.data).all():
            raise ValueError(f"{path}: holds NaN, infinity or values beyond 65504; mend it first")
        self.signed = self.names.index("ksz") if "ksz" in self.names else None

    def batch(self, step: int, batch_size: int) -> torch.Tensor:
        """Batch number `step`: (batch_size, fields, size, size) float32, physical units."""
        rng = seeds.generator(self.seed, "training", step)
        n, size = self.data.shape[-1], self.size
        out = np.empty((batch_size, len(self.names), size, size), np.float32)
        index = np.arange(size)
        for b in range(batch_size):
            i, y, x, turn, sign = rng.integers((len(self.data), n, n, 8, 2))
            if n == size:
                y = x = 0
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
