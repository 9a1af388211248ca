"""The needed pixels of a picture, row by row, and blocks that cover them.

The owned area of a chart does not fill its rectangle, and the later layers of a network need less
padding around it than the first: every layer has an area of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Area"]


@dataclass(frozen=True, eq=False)
class Area:
    """One range of columns for each row of a picture.

    Parameters
    ----------
    shape
        (ny, nx) of the picture.
    first, stop
        (ny,) int: columns first[y] <= x < stop[y] are needed; none where they are equal.
    """

    shape: tuple[int, int]
    first: NDArray[np.int64]
    stop: NDArray[np.int64]

    @classmethod
    def whole(cls, ny: int, nx: int) -> Area:
        """All pixels."""
        return cls((ny, nx), np.zeros(ny, np.int64), np.full(ny, nx))

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Area:
        """The pixels of a mask (ny, nx) and those between them in a row."""
        ny, nx = mask.shape
        any_ = mask.any(1)
        first = np.where(any_, mask.argmax(1), 0)
        stop = np.where(any_, nx - mask[:, ::-1].argmax(1), 0)
        return cls((ny, nx), first, stop)

    @property
    def size(self) -> int:
        """Number of needed pixels."""
        return int((self.stop - self.first).sum())

    def mask(self) -> NDArray[np.bool_]:
        """(ny, nx), true where needed."""
        x = np.arange(self.shape[1])
        return (x >= self.first[:, None]) & (x < self.stop[:, None])

    def widened(self, by: int) -> Area:
        """The area with all pixels of the picture at most `by` rows and columns away."""
        ny, nx = self.shape
        empty = self.first == self.stop
        first, stop = np.where(empty, nx, self.first), np.where(empty, 0, self.stop)
        first = np.pad(first, by, constant_values=nx)
        stop = np.pad(stop, by, constant_values=0)
        window = np.lib.stride_tricks.sliding_window_view
        first = window(first, 2 * by + 1).min(1) - by
        stop = window(stop, 2 * by + 1).max(1) + by
        return self._made((ny, nx), first, stop)

    def halved(self, times: int = 1) -> Area:
        """The pixels, ``2**times`` times as large, that contain a needed pixel."""
        step = 1 << times
        ny, nx = (n >> times for n in self.shape)
        empty = self.first == self.stop
        first = np.where(empty, self.shape[1], self.first)[: ny * step].reshape(ny, step).min(1)
        stop = np.where(empty, 0, self.stop)[: ny * step].reshape(ny, step).max(1)
        return self._made((ny, nx), first // step, -(-stop // step))

    def within(self, other: Area) -> Area:
        """The pixels needed in both areas."""
        first, stop = np.maximum(self.first, other.first), np.minimum(self.stop, other.stop)
        return self._made(self.shape, first, stop)

    @staticmethod
    def _made(shape: tuple[int, int], first: np.ndarray, stop: np.ndarray) -> Area:
        first, stop = np.clip(first, 0, shape[1]), np.clip(stop, 0, shape[1])
        empty = stop <= first
        return Area(shape, np.where(empty, 0, first), np.where(empty, 0, stop))

    def blocks(self, height: int, width: int, step: int = 2) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of blocks that cover the area, and some pixels outside it.

        Parameters
        ----------
        height, width
            Largest sides of a block; multiples of `step`.
        step
            Blocks begin and end at multiples of this, or at the end of the picture.
        """
        ny, nx = self.shape
        rows = np.flatnonzero(self.stop > self.first)
        if not rows.size:
            return
        top, bottom = rows[0] // step * step, min(ny, -(-(rows[-1] + 1) // step) * step)
        strips = -(-(bottom - top) // height)
        height = -(-(bottom - top) // (strips * step)) * step  # of equal heights, or nearly
        for y in range(top, bottom, height):
            here = slice(y, min(y + height, bottom))
            wanted = self.stop[here] > self.first[here]
            if not wanted.any():
                continue
            left = int(self.first[here][wanted].min()) // step * step
            right = min(nx, -(-int(self.stop[here][wanted].max()) // step) * step)
            parts = -(-(right - left) // width)
            wide = -(-(right - left) // (parts * step)) * step
            for x in range(left, right, wide):
                yield here, slice(x, min(x + wide, right))
