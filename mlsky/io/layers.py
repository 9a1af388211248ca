"""The compact form of a sky: templates, and one weight per band for each.

A component is kept as one or more layers, each with a few templates and one weight per band and
template, ``m_f = sum_k w_fk t_k``. Twenty bands need no more memory than one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["TOTAL", "Layer", "Stored", "StoredFits"]

#: Name of the sum of all components.
TOTAL = "total"


@dataclass(frozen=True, eq=False)
class Layer:
    """Templates and their weights at the bands: ``m_f = sum_k weights[f, k] templates[k]``.

    Parameters
    ----------
    templates
        (k, len(stokes), *shape) float32; (k, len(stokes), npixels) if `pixels` is given. In
        memory, or anything that is indexed like an array, such as `Stored`.
    weights
        (nfreq, k) float64, unit of the sky per unit of the templates.
    stokes
        The Stokes parameters the templates hold; the others are zero.
    pixels
        (npixels,) int64 flat index of the pixels held, growing, for maps that are mostly empty.
    """

    templates: NDArray[np.float32]
    weights: NDArray[np.float64]
    stokes: str = "T"
    pixels: NDArray[np.int64] | None = None

    def check(self, nfreq: int, shape: tuple[int, ...]) -> None:
        """Check that the parts fit each other, a number of bands and the shape of the maps.

        Raises
        ------
        ValueError
            If one does not.
        """
        held, weights = tuple(self.templates.shape), np.asarray(self.weights)
        if str(self.stokes) not in ("T", "QU", "TQU"):
            raise ValueError(f"a layer of Stokes parameters {self.stokes!r}")
        if weights.dtype.kind != "f" or weights.ndim != 2 or not np.isfinite(weights).all():
            raise ValueError(f"weights of shape {weights.shape} and type {weights.dtype}")
        pixels = self.pixels
        where = tuple(shape) if pixels is None else (len(pixels),)
        if weights.shape[0] != nfreq or held != (weights.shape[1], len(self.stokes), *where):
            raise ValueError(
                f"templates of shape {held} with weights {weights.shape} for {nfreq} bands of maps "
                f"{tuple(shape)}"
            )
        if getattr(self.templates, "dtype", np.dtype(np.float32)) != np.float32:
            raise ValueError(f"templates of type {self.templates.dtype}")
        if pixels is None or not len(pixels):
            return
        npix = int(np.prod(shape, dtype=np.int64))
        if (
            pixels.dtype.kind not in "iu"
            or pixels.ndim != 1
            or not (
                0 <= pixels[0]
                and pixels[-1] < npix
                and (np.diff(pixels.astype(np.int64)) > 0).all()
            )
        ):
            raise ValueError(f"pixels that are no growing numbers below {npix}")

    def add_to(
        self,
        out: NDArray[np.float32],
        stokes: str,
        share: NDArray[np.float64],
        rows: slice = slice(None),
    ) -> None:
        """Add ``sum_f share[f] m_f`` to `out` (len(stokes), *shape), in place.

        `rows` are those of the first axis of the maps that `out` holds; all by default.
        """
        first, part = 0, rows
        if self.pixels is not None:
            # Numbers of pixels grow: those of some rows stand together.
            first = (rows.start or 0) * int(np.prod(out.shape[2:], dtype=np.int64))
            part = slice(*np.searchsorted(self.pixels, (first, first + out[0].size)))
        for k, weight in enumerate(share @ self.weights):
            if weight == 0:
                continue
            for j, name in enumerate(self.stokes):
                if name not in stokes:
                    continue
                target = out[stokes.index(name)]
                values = np.float32(weight) * self.templates[k, j, part]
                if self.pixels is None:
                    target += values
                else:
                    target.reshape(-1)[self.pixels[part] - first] += values


@dataclass(frozen=True, eq=False)
class Stored:
    """An array in a sky file. Only the part that is indexed is read."""

    path: Path
    name: str
    shape: tuple[int, ...]

    def __getitem__(self, index) -> NDArray[np.float32]:
        import h5py

        with h5py.File(self.path) as file:
            return file[self.name][index]

    def __array__(self, dtype=None, copy: bool | None = None) -> NDArray:
        values = self[...]
        return values if dtype is None else values.astype(dtype, copy=False)


@dataclass(frozen=True, eq=False)
class StoredFits:
    """As `Stored`, of a FITS file of mlsky's: HEALPix tables in RING order, or images.

    Parameters
    ----------
    hdus
        Names of the tables, one per band, or of the one image.
    shape
        (nfreq, nstokes, *map shape), or of one map.
    """

    path: Path
    hdus: tuple[str | int, ...]
    shape: tuple[int, ...]

    def __getitem__(self, index: tuple[int, int, slice]) -> NDArray[np.float32]:
        """Part of one map: band, Stokes parameter, slice of the map's first axis."""
        from astropy.io import fits

        k, j, rows = index
        with fits.open(self.path, memmap=True) as file:
            hdu = file[self.hdus[k if len(self.hdus) > 1 else 0]]
            if isinstance(hdu, fits.BinTableHDU):
                column = hdu.data.field(j)
                width = column.shape[1]
                start, stop, _ = rows.indices(column.size)
                first = start // width
                values = column[first : -(-stop // width)].ravel()
                values = values[start - first * width : stop - first * width]
            else:
                values = hdu.data[rows] if hdu.data.ndim == 2 else hdu.data[k, j, rows]
            return np.array(values, dtype=np.float32)

    def __array__(self, dtype=None, copy: bool | None = None) -> NDArray:
        nfreq, nstokes = self.shape[:2] if self.hdus != ("KAPPA",) else (1, 1)
        maps = [self[k, j, slice(None)] for k in range(nfreq) for j in range(nstokes)]
        return np.stack(maps).reshape(self.shape).astype(dtype or np.float32, copy=False)
