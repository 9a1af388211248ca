"""An array in a file, for maps that need not fit in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "DiskArray"]


class DiskArray:
    """A float32 array in a file; it is in memory only while it is read or written.

    Parameters
    ----------
    path
        The file.
    shape
        Of the array.
    offset
        Bytes before its first value.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, path: Path, shape: tuple[int, ...], offset: int = 0) -> None:
        self.path, self.shape, self.offset = path, tuple(shape), offset

    def _map(self, mode: str) -> np.memmap:
        return np.memmap(self.path, self.dtype, mode, self.offset, self.shape)

    def put(self, index: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Set values by their flat numbers, as ``ndarray.put``; on disk once `Disk.flush` ran."""
        self._map("r+").reshape(-1)[index] = values

    def __setitem__(self, index, values) -> None:
        self._map("r+")[index] = values

    def __getitem__(self, index) -> NDArray[np.float32]:
        return np.array(self._map("r")[index])

    def __len__(self) -> int:
        return self.shape[0]

    def reshape(self, *shape: int) -> DiskArray:
        """The same values in another shape of as many."""
        if int(np.prod(shape)) != int(np.prod(self.shape)):
            raise ValueError(f"shape {shape}: must have as many values as {self.shape}")
        return DiskArray(self.path, shape, self.offset)

    def __array__(self, dtype=None, copy: bool | None = None) -> NDArray:
        if copy is False:
            raise ValueError("copy=False: an array on disk is read when asked for")
        return self[...].astype(dtype or self.dtype, copy=False)


#: What a store hands out; ``put(flat numbers, values)`` sets some of the values.
Array = NDArray[np.float32] | DiskArray
