"""Where the maps of a sky lie while it is made: in memory, or in a file as they are painted.

Both kinds of store answer the same questions. `Disk` keeps every map in the HDF5 file that the
sky becomes, and beside it a mark for each chart that is done: what was interrupted goes on where
it stopped, and a sky larger than memory needs no more of it than one map and a few charts.
"""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlsky.arguments import short
from mlsky.io.files import real, whole, write_whole

__all__ = ["Array", "Disk", "DiskArray", "Memory", "Store"]

#: Added to the name of the file that is being made: the folder with all that is done so far.
SUFFIX = ".partial"

FILE, REQUEST = "sky.h5", "request.json"

#: Charts that are marked together: a killed run paints these again. To wait for the disk after each
#: took a quarter of the time at nside 4096.
TOGETHER = 8


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
        """Set values by their flat numbers, as ``ndarray.put``; on disk once `Disk.settle` ran."""
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


class Memory:
    """Maps in memory; nothing is kept when the process ends."""

    def array(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """A new array of zeros."""
        return np.zeros(shape, np.float32)

    def done(self, chart: int) -> None:
        """None: no chart was done before."""

    def mark(self, chart: int, found: dict[str, NDArray]) -> None:
        """Nothing to note."""

    def drop(self, name: str) -> None:
        """Nothing to remove: the last user of an array frees it."""

    def close(self, remove: bool) -> None:
        """Nothing to close."""


class Disk:
    """Maps in a folder beside the file they will be in, with marks of what is done.

    Parameters
    ----------
    out
        The file that the sky will be in; the folder has its name and `SUFFIX`.
    request
        What the maps depend on, plain JSON types: a folder of another request is refused.
    kept
        Arrays that stay in the sky, by name: path in the HDF5 file and shape. They are made here
        at once; any other goes to a file of its own.

    Raises
    ------
    ValueError
        If the folder holds another sky, or another process is at work in it.
    """

    def __init__(
        self, out: Path, request: dict, kept: dict[str, tuple[str, tuple[int, ...]]]
    ) -> None:
        out = real(out)
        self.folder = out.with_name(out.name + SUFFIX)
        self.file = self.folder / FILE
        request = {**request, "maps": {name: list(shape) for name, (_, shape) in kept.items()}}
        self._lock = None
        self._marking = threading.Lock()
        self._unmarked: list[tuple[int, dict[str, NDArray]]] = []
        self._claim(out, request)
        if not self._has_maps():
            self._empty()
            self._create(kept)
            # Written last: without it the folder is begun again.
            write_whole(self.folder / REQUEST, json.dumps(request).encode())
        self._kept = kept

    @property
    def paths(self) -> set[str]:
        """Where the HDF5 file holds the arrays that stay."""
        return {inside for inside, _ in self._kept.values()}

    def array(self, name: str, shape: tuple[int, ...]) -> DiskArray:
        """An array by its name, zero where nothing was written yet."""
        shape = tuple(shape)
        if name not in self._kept:
            path = self.folder / f"{name}.f32"
            if not path.exists():
                with path.open("wb") as file:
                    file.truncate(int(np.prod(shape)) * DiskArray.dtype.itemsize)
            return DiskArray(path, shape)
        import h5py

        inside, kept_shape = self._kept[name]
        if np.prod(kept_shape) != np.prod(shape):
            raise ValueError(f"array {name} of shape {shape}: must be {kept_shape}")
        with h5py.File(self.file, "r") as file:
            offset = file[inside].id.get_offset()
        return DiskArray(self.file, shape, offset)

    def done(self, chart: int) -> dict[str, NDArray] | None:
        """What `mark` was given for a chart, or None if it is still to be painted."""
        try:
            with np.load(self._mark(chart), allow_pickle=False) as data:
                return dict(data)
        except FileNotFoundError:
            return None

    def mark(self, chart: int, found: dict[str, NDArray]) -> None:
        """Note that every pixel of a chart was put, with what else was found there.

        The mark itself is written by `settle`, which waits for the disk: after every few charts.
        """
        with self._marking:
            self._unmarked.append((chart, found))
            due = len(self._unmarked) >= TOGETHER
        if due:
            self.settle()

    def settle(self) -> None:
        """Bring all that was put to the disk, and after it the marks of finished charts."""
        with self._marking:
            done, self._unmarked = self._unmarked, []
        for path in (self.file, *self.folder.glob("*.f32")):
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        for chart, found in done:
            with whole(self._mark(chart)) as temporary, temporary.open("wb") as file:
                np.savez(file, **found)

    def drop(self, name: str) -> None:
        """Nothing: a run that is interrupted later needs it again; `close` removes it."""

    def close(self, remove: bool) -> None:
        """Give the folder free for other processes, or remove it."""
        if remove:
            self._empty()
            self.folder.rmdir()
        elif self._unmarked:
            self.settle()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def move(self, target: Path, made: Path | None = None) -> None:
        """Give the file with the maps, or another in the folder, its final name.

        What is left in the folder is of no use then. If the name is a symbolic link, the file that
        it points to is replaced.
        """
        target = real(target)
        made = self.file if made is None else made
        with made.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(made, target)
        _sync_folder(target.parent)

    def _has_maps(self) -> bool:
        """Whether the folder has what its marks stand for.

        A run that was killed after `move` leaves request and marks without the maps.
        """
        return (self.folder / REQUEST).exists() and self.file.exists()

    def _empty(self) -> None:
        """Remove what runs of ours left in the folder, the request first.

        Without it nobody takes the rest for a sky that is under way.
        """
        (self.folder / REQUEST).unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if _is_ours(path):
                path.unlink()

    def _mark(self, chart: int) -> Path:
        return self.folder / f"chart-{chart:03d}.npz"

    def _claim(self, out: Path, request: dict) -> None:
        """Take the folder for this process; what does not belong to the request is refused."""
        if self.folder.is_symlink() or (self.folder.exists() and not self.folder.is_dir()):
            raise ValueError(f"{self.folder}: is in the way and no folder of ours; move it")
        self.folder.mkdir(exist_ok=True)
        strange = sorted(path.name for path in self.folder.iterdir() if not _is_ours(path))
        if strange:
            raise ValueError(
                f"{self.folder}: holds {short(strange[0])}, which is not of a sky under way; move "
                "it, or choose another name"
            )
        try:
            import fcntl
        except ImportError:  # not POSIX: two processes on one file are not noticed
            fcntl = None
        if fcntl is not None:
            self._lock = os.open(self.folder, os.O_RDONLY)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(self._lock)
                raise ValueError(
                    f"{self.folder}: another process is making {out.name}; wait for it, or choose "
                    "another name"
                ) from None
        kept = self.folder / REQUEST
        if self._has_maps() and json.loads(kept.read_text()) != json.loads(json.dumps(request)):
            before = json.loads(kept.read_text())
            differ = [k for k in request if before.get(k) != json.loads(json.dumps(request[k]))]
            self.close(remove=False)
            raise ValueError(
                f"{self.folder}: holds another sky, not finished ({', '.join(differ)} differ); "
                "finish it with its own arguments, remove the folder, or choose another name"
            )

    def _create(self, kept: dict[str, tuple[str, tuple[int, ...]]]) -> None:
        """The HDF5 file with room for every array, so that it is whole from the start."""
        import h5py

        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.CONTIGUOUS)
        # A place in the file is needed at once; the file system gives zeros without writing them.
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        with h5py.File(self.file, "w") as file:
            for inside, shape in kept.values():
                head, _, name = inside.rpartition("/")
                group = file
                for part in filter(None, head.split("/")):
                    made = part in group
                    group = group[part] if made else group.create_group(part, track_order=True)
                space = h5py.h5s.create_simple(shape)
                h5py.h5d.create(group.id, name.encode(), h5py.h5t.IEEE_F32LE, space, plan)


def _is_ours(path: Path) -> bool:
    """Whether a file in the folder is one that `Disk` makes; others are never removed."""
    name = re.sub(r"^\.[0-9a-f]{8}\.", "", path.name)  # of mlsky.io.files.temporary_name
    ours = name in (FILE, REQUEST, "sky.fits") or re.fullmatch(r"chart-\d+\.npz|\w+\.f32", name)
    return bool(ours) and path.is_file() and not path.is_symlink()


#: Either kind.
Store = Memory | Disk


def _sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; POSIX alone can be asked to."""
    if os.name != "posix":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
