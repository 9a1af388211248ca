"""Training data: sets of regions in HDF5 and random crops of them, or patches painted anew.

A set holds one dataset per field, each (regions, n, n) float32 in uK_CMB at 148 GHz
(convergences dimensionless), periodic at its edges if painted by `mlsky.haloes.painter`.
Train, validation and test sets are painted from different seeds, so that they never share sky.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from mlsky import seeds
from mlsky.io.sets import FIELDS, fields_of, refuse_validation_truth

__all__ = ["SYMMETRIES", "Crops", "Painted", "painted"]

#: What crops may do at random without changing the statistics of a sky.
SYMMETRIES = ("flips", "turns", "ksz_sign")
#: Prefix of the names of maps of objects.
OBJECTS = "objects_"
#: Largest number stored in half precision, well below its limit (65504).
LARGEST = 2.0**15


class Crops:
    """Random crops of a set, with symmetries of the sky.

    Each crop is flipped and turned at random (the eight elements of D4), and the sign of kSZ is
    random, as velocities have no preferred direction, unless other `symmetries` are given.
    Regions larger than a crop are periodic and are rolled at random; regions of the size of a crop
    are single patches (from a generator), which are not periodic and not rolled.

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
    apart
        Whether the set may have separate objects; by default if they are among `names`.
    symmetries
        Those of `SYMMETRIES` that are used, all by default.

    Raises
    ------
    ValueError
        If the file is no training set or of the regions that networks are scored on, its regions
        are smaller than a crop, or it holds values that are not finite in half precision.
    """

    def __init__(
        self,
        path,
        names: Sequence[str],
        size: int = 128,
        seed: int = 0,
        apart: bool | None = None,
        symmetries: Sequence[str] = SYMMETRIES,
    ) -> None:
        self.symmetries = tuple(symmetries)
        if unknown := set(self.symmetries) - set(SYMMETRIES):
            raise ValueError(
                f"symmetries: {', '.join(sorted(unknown))} unknown; known are "
                f"{', '.join(SYMMETRIES)}"
            )
        if apart is None:
            apart = any(name.startswith(OBJECTS) for name in names)
        self.names, self.size, self.seed = tuple(names), size, seed
        with fields_of(path, names, apart) as (data, self.attrs):
            refuse_validation_truth(path, self.attrs)
            n = min(data[0].shape[-2:])
            if n < size:
                raise ValueError(f"{path}: regions of {n} pixels, crops of {size} asked for")
            # half precision is accurate to 5e-4 and lets a whole set fit in memory; fields with
            # larger numbers, such as the CIB at 857 GHz, are divided by powers of two, which is
            # exact
            self.data = np.empty((len(data[0]), len(data), *data[0].shape[1:]), np.float16)
            self.scale = np.ones(len(data), np.float32)
            for i, d in enumerate(data):
                values = d[:]
                largest = float(np.abs(values).max())
                if not math.isfinite(largest):
                    raise ValueError(f"{path}: {names[i]} holds NaN or infinity; mend it first")
                if largest > LARGEST:
                    self.scale[i] = 2.0 ** math.ceil(math.log2(largest / LARGEST))
                    values /= self.scale[i]
                self.data[:, i] = values
        self.signed = self.names.index("ksz") if "ksz" in self.names else None

    @property
    def patches(self) -> int:
        """Number of patches of the size of a crop in the set, side by side."""
        return len(self.data) * (self.data.shape[-1] // self.size) ** 2

    def sample(self) -> np.ndarray:
        """Some forty regions (regions, fields, n, n) float32 from the whole set."""
        some = self.data[:: max(1, len(self.data) // 40)].astype(np.float32)
        return some * self.scale[:, None, None]

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
            # drawn in any case, so that the same places are cut with other symmetries
            if turn & 1 and "flips" in self.symmetries:
                crop = crop[:, ::-1]
            if turn & 2 and "flips" in self.symmetries:
                crop = crop[:, :, ::-1]
            if turn & 4 and "turns" in self.symmetries:
                crop = crop.transpose(0, 2, 1)
            out[b] = crop
            out[b] *= self.scale[:, None, None]
            if sign and self.signed is not None and "ksz_sign" in self.symmetries:
                out[b, self.signed] *= -1
        return torch.from_numpy(out)


class Painted:
    """Patches painted while a network trains, each used only once.

    Regions are painted in groups, the next one in a background thread, and are cut into tiles
    without overlap, which are used in random order. Patch number i of a seed is always the same, so
    that a run can be resumed. Two groups are in memory.

    Parameters
    ----------
    painter
        A `mlsky.haloes.painter.Painter`; batches are made on its device.
    names
        Fields, in the order of the channels returned.
    size
        Pixels along a side of a patch.
    seed
        Seed of the regions and tiles; not that of a held-out set.
    regions
        Regions in a group, from which one batch can be mixed.

    Raises
    ------
    ValueError
        If a field is unknown, or the painter's regions are smaller than a patch.
    """

    #: Number of patches.
    patches = math.inf

    def __init__(
        self, painter, names: Sequence[str], size: int = 128, seed: int = 0, regions: int = 4
    ) -> None:
        for name in names:
            if name not in FIELDS:
                raise ValueError(f"field {name!r}: must be one of {', '.join(FIELDS)}")
        if painter.n < size:
            raise ValueError(f"regions of {painter.n} pixels, patches of {size} asked for")
        if regions < 1:
            raise ValueError(f"regions={regions}: must be at least 1")
        self.painter, self.names, self.size = painter, tuple(names), size
        self.seed, self.regions = seeds.check_set(seed), regions
        self.attrs = {"pixel_arcmin": painter.pixel_arcmin, "seed": self.seed}
        self.signed = self.names.index("ksz") if "ksz" in self.names else None
        self.side = painter.n // size
        self.group_size = regions * self.side**2
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="painter")
        self._groups: dict[int, Future] = {}

    def close(self) -> None:
        """Stop painting."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def sample(self) -> np.ndarray:
        """The first group of regions (regions, fields, n, n) float32."""
        return self._group(0).cpu().numpy()

    def batch(self, step: int, batch_size: int) -> torch.Tensor:
        """Batch number `step`: (batch_size, fields, size, size) float32, physical units."""
        first = step * batch_size
        return torch.stack([self._patch(first + b) for b in range(batch_size)])

    def _paint(self, group: int) -> torch.Tensor:
        out = []
        for index in range(group * self.regions, (group + 1) * self.regions):
            maps = self.painter.region(self.seed, index).maps
            fields = dict(zip(FIELDS, maps, strict=False))
            if "kappa_in" in self.names:
                fields["kappa_in"] = self.painter.gaussian_kappa(fields["kappa_g"])
            out.append(torch.stack([fields[name] for name in self.names]))
        return torch.stack(out)

    def _group(self, group: int) -> torch.Tensor:
        """Regions of a group; the next group is started, all others are dropped."""
        wanted = (group, group + 1)
        for old in set(self._groups) - set(wanted):
            self._groups.pop(old).cancel()
        for new in wanted:
            if new not in self._groups:
                self._groups[new] = self._worker.submit(self._paint, new)
        return self._groups[group].result()

    def _patch(self, number: int) -> torch.Tensor:
        group, place = divmod(number, self.group_size)
        fields = self._group(group)
        n = fields.shape[-1]
        rng = seeds.generator(self.seed, "training", group, 2)
        order = rng.permutation(self.group_size)
        shifts = rng.integers(n, size=(self.regions, 2))
        turn, sign = rng.integers((8, 2), size=(self.group_size, 2))[place]
        region, tile = divmod(int(order[place]), self.side**2)
        corner = shifts[region] + self.size * np.array(divmod(tile, self.side))
        rows, columns = (
            torch.from_numpy((c + np.arange(self.size)) % n).to(fields.device) for c in corner
        )
        patch = fields[region][:, rows[:, None], columns[None]]
        if turn & 1:
            patch = patch.flip(1)
        if turn & 2:
            patch = patch.flip(2)
        if turn & 4:
            patch = patch.transpose(1, 2)
        if sign and self.signed is not None:
            patch = patch.clone()
            patch[self.signed] *= -1
        return patch


def painted(
    seed: int,
    names: Sequence[str],
    pixel_arcmin: float = 0.5,
    size: int = 128,
    n: int = 512,
    device: str = "cpu",
    regions: int = 4,
) -> Painted:
    """Patches painted on the fly, for `mlsky.training.loop.train`, instead of a set.

    Useful on a GPU, where a region takes a fraction of a step. On one CPU core a region of
    512 x 512 pixels, 16 patches, takes about a second: painting a batch of 8 takes as long as
    a step, and a set of some hundred regions, painted once, serves many runs.

    Parameters
    ----------
    seed, names, size, regions
        As `Painted`.
    pixel_arcmin, n, device
        As `mlsky.haloes.painter.Painter`.
    """
    from mlsky.haloes.painter import Painter

    return Painted(Painter(pixel_arcmin, n, device=device), names, size, seed, regions)
