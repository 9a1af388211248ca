"""Storage of the maps while a sky is made: in memory, or in a file.

Both kinds of store have the same methods. `Disk` keeps every map in the HDF5 file that becomes the
sky, and a mark for each finished chart beside it. An interrupted sky is resumed where it stopped,
and a sky larger than memory needs only the memory of one map and a few charts.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import stat
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlsky.arguments import short
from mlsky.errors import MlskyError
from mlsky.io import checksums, locks
from mlsky.io.disk_array import DiskArray
from mlsky.io.files import TEMPORARY, real, write_whole

__all__ = ["Disk", "Memory", "Store"]

#: Added to the name of the file that is being made: the folder with all that is done so far.
SUFFIX = ".partial"

FILE, REQUEST, JOURNAL = "sky.h5", "request.json", "journal.npz"

#: How often to retry making a folder that other processes remove at that moment.
TRIES = 20

#: Charts that are marked together: a killed run paints these again. To wait for the disk after each
#: took a quarter of the time at nside 4096.
TOGETHER = 8


class Memory:
    """Maps in memory; nothing is left when the process ends."""

    def array(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """A new array of zeros."""
        return np.zeros(shape, np.float32)

    def changed(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Where an array is put that is made of another: in its place."""
        return values

    def done(self, chart: int) -> None:
        """None: no chart was done before."""

    def mark(self, chart: int, found: dict[str, NDArray]) -> None:
        """Nothing to note."""

    def drop(self, name: str) -> None:
        """Nothing to remove: the last user of an array frees it."""

    def close(self, remove: bool) -> None:
        """Nothing to close."""


class Disk:
    """Maps in a folder beside the final file, with marks of finished charts.

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
        maps = {name: list(shape) for name, (_, shape) in kept.items()}
        request = json.loads(json.dumps({**request, "maps": maps}))
        self._lock = None
        self._marking = threading.Lock()
        self._unmarked: list[tuple[int, dict[str, NDArray]]] = []
        self._request, self._kept, self._arrays = request, kept, {}
        self._unused = False  # whether there is nothing in the folder that was worth any work
        self._claim(out)
        try:
            self._open(out)
        except BaseException:
            self.close(remove=False)
            raise

    @property
    def paths(self) -> set[str]:
        """Where the HDF5 file holds the arrays that stay."""
        return {inside for inside, _ in self._kept.values()}

    def array(self, name: str, shape: tuple[int, ...]) -> DiskArray:
        """An array by its name, zero where nothing was written yet."""
        shape = tuple(shape)
        self._unused = False
        if name not in self._kept:
            path = self.folder / f"{name}.f32"
            if name not in self._arrays:
                size = int(np.prod(shape)) * DiskArray.dtype.itemsize
                with _one_line(path):
                    path.unlink(missing_ok=True)
                    _allocate(path, size)
                self._arrays[name] = size
                self._write_request()
            return DiskArray(path, shape)
        import h5py

        inside, kept_shape = self._kept[name]
        if np.prod(kept_shape) != np.prod(shape):
            raise ValueError(f"array {name} of shape {shape}: must be {kept_shape}")
        with h5py.File(self.file, "r") as file:
            offset = file[inside].id.get_offset()
        return DiskArray(self.file, shape, offset)

    def changed(self, name: str, values: DiskArray) -> DiskArray:
        """Where an array is put that is made of another, which an interrupted run needs again."""
        return self.array(name, values.shape)

    def done(self, chart: int) -> dict[str, NDArray] | None:
        """What `mark` was given for a chart, or None if it is still to be painted."""
        path = self._mark(chart)
        try:
            return _load(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            path.unlink()  # damaged, as by a full disk: not done
            return None

    def mark(self, chart: int, found: dict[str, NDArray]) -> None:
        """Note that every pixel of a chart was put, with what else was found there.

        The mark itself is written by `flush`, which waits for the disk: after every few charts.
        """
        self._unused = False
        with self._marking:
            self._unmarked.append((chart, found))
            due = len(self._unmarked) >= TOGETHER
        if due:
            self.flush()

    def flush(self) -> None:
        """Write all maps to the disk, and then the marks of finished charts."""
        with self._marking:
            done, self._unmarked = self._unmarked, []
        for path in (self.file, *self.folder.glob("*.f32")):
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        for chart, found in done:
            _save(self._mark(chart), **found)

    def drop(self, name: str) -> None:
        """Nothing: a run that is interrupted later needs it again; `close` removes it."""

    def close(self, remove: bool) -> None:
        """Release the folder for other processes, or remove it.

        A folder that was begun here and of which no map was used is removed in any case.
        """
        if remove or self._unused:
            self._empty()
            self.folder.rmdir()
        elif self._unmarked:
            self.flush()
        locks.release(self._lock)
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

    def protect(self) -> None:
        """Keep what the file holds beside its maps: `write_hdf5` in it may be killed half way.

        The next run puts it back. HDF5 never writes over the room of a data set.
        """
        with self.file.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            gaps = _gaps(self._ranges(), size)
            parts = [(file.seek(low), file.read(high - low))[1] for low, high in gaps]
        values = np.frombuffer(b"".join(parts), np.uint8)
        _save(self.folder / JOURNAL, size=size, gaps=np.array(gaps, np.int64), values=values)

    def _open(self, out: Path) -> None:
        """Go on with what is in the folder, or begin; another sky's is refused."""
        before = self._read_request()
        if before is not None:
            arrays = before.pop("arrays", {})
            if before != self._request:
                differ = [k for k in self._request if before.get(k) != self._request[k]]
                raise ValueError(
                    f"{self.folder}: holds another sky, not finished ({', '.join(differ)} differ); "
                    "finish it with its own arguments, remove the folder, or choose another name"
                )
            if self._restore(arrays):
                self._arrays = arrays
                return
        self._unused = True
        self._empty()
        self._create(self._kept)
        # Written last: without it the folder is begun again.
        self._write_request()

    def _read_request(self) -> dict | None:
        """The request in the folder; None if there is none, no maps of it, or it is damaged."""
        try:
            before = json.loads((self.folder / REQUEST).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        # A run that was killed after `move` leaves request and marks without the maps.
        return before if isinstance(before, dict) and self.file.exists() else None

    def _write_request(self) -> None:
        values = {**self._request, "arrays": self._arrays}
        write_whole(self.folder / REQUEST, json.dumps(values).encode())

    def _restore(self, arrays: dict[str, int]) -> bool:
        """Undo what `protect` foresaw; whether everything is there that marks stand for."""
        journal = self.folder / JOURNAL
        try:
            if journal.exists():
                data = _load(journal)
                with self.file.open("rb+") as file:
                    values, at = data["values"].tobytes(), 0
                    file.truncate(int(data["size"]))
                    for low, high in data["gaps"].tolist():
                        file.seek(low)
                        file.write(values[at : at + high - low])
                        at += high - low
                    os.fsync(file.fileno())
                journal.unlink()
            sizes = {name: (self.folder / f"{name}.f32").stat().st_size for name in arrays}
            self._ranges()
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return sizes == arrays

    def _ranges(self) -> list[tuple[int, int]]:
        """Where the maps lie in the file, in bytes; KeyError or OSError if they do not."""
        import h5py

        found = []
        with h5py.File(self.file, "r") as file:
            for inside, shape in self._kept.values():
                offset, size = file[inside].id.get_offset(), int(np.prod(shape)) * 4
                if file[inside].shape != tuple(shape) or offset is None:
                    raise OSError(f"{inside} is not as it was made")
                found.append((offset, offset + size))
        return sorted(found)

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

    def _claim(self, out: Path) -> None:
        """Take the folder for this process."""
        for _ in range(TRIES):
            try:
                with _one_line(self.folder), contextlib.suppress(FileExistsError):
                    self.folder.mkdir()
                if not stat.S_ISDIR(self.folder.lstat().st_mode):
                    raise ValueError(f"{self.folder}: is in the way and no folder of ours; move it")
                if self._take(out):
                    break
            except FileNotFoundError:
                continue  # another process finished and removed it just now
        else:
            raise ValueError(_busy(self.folder, out))
        strange = sorted(path.name for path in self.folder.iterdir() if not _is_ours(path))
        if strange:
            self.close(remove=False)
            raise ValueError(
                f"{self.folder}: holds {short(strange[0])}, which is not of a sky under way; move "
                "it, or choose another name"
            )

    def _take(self, out: Path) -> bool:
        """Lock the folder; False if it was removed meanwhile."""
        try:
            self._lock = locks.take(self.folder, f"makes {out.name}")
        except BlockingIOError:
            raise ValueError(_busy(self.folder, out)) from None
        if self._lock is None:
            return True
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._lock), os.stat(self.folder)):
                return True
        locks.release(self._lock)
        self._lock = None
        return False

    def _create(self, kept: dict[str, tuple[str, tuple[int, ...]]]) -> None:
        """The HDF5 file with room for every array, so that it is whole from the start."""
        import h5py

        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.CONTIGUOUS)
        # A place in the file is needed at once; the file system gives zeros without writing them.
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        with _one_line(self.file), h5py.File(self.file, "w") as file:
            for inside, shape in kept.values():
                head, _, name = inside.rpartition("/")
                group = file
                for part in filter(None, head.split("/")):
                    made = part in group
                    group = group[part] if made else group.create_group(part, track_order=True)
                space = h5py.h5s.create_simple(shape)
                h5py.h5d.create(group.id, name.encode(), h5py.h5t.IEEE_F32LE, space, plan)
        with _one_line(self.file):
            _allocate(self.file, self.file.stat().st_size)


def _is_ours(path: Path) -> bool:
    """Whether a file in the folder is one that `Disk` makes; others are never removed."""
    name = TEMPORARY.sub("", path.name, count=1) if path.name.startswith(".") else path.name
    ours = name in (FILE, REQUEST, JOURNAL, "sky.fits") or re.fullmatch(
        r"chart-\d+\.npz|\w+\.f32", name
    )
    return bool(ours) and path.is_file() and not path.is_symlink()


def _save(path: Path, **values) -> None:
    """Arrays in a file with their checksum, whole or not at all."""
    data = io.BytesIO()
    np.savez(data, **values)
    write_whole(path, checksums.seal(data.getvalue()))


def _load(path: Path) -> dict[str, NDArray]:
    """What `_save` wrote; ValueError if it is damaged."""
    with np.load(io.BytesIO(checksums.unseal(path.read_bytes())), allow_pickle=False) as data:
        return dict(data)


def _gaps(ranges: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """What `ranges`, in order, leave of a file of `size` bytes."""
    edges = [0, *(edge for pair in ranges for edge in pair), size]
    return [(low, high) for low, high in zip(edges[::2], edges[1::2], strict=True) if high > low]


def _allocate(path: Path, size: int) -> None:
    """Give a file its size, and the disk's room for it: later there may be none.

    Maps are written through memory, where a full disk is a signal that ends the process.
    """
    with path.open("ab") as file:
        if hasattr(os, "posix_fallocate") and size:
            os.posix_fallocate(file.fileno(), 0, size)
        file.truncate(size)


@contextlib.contextmanager
def _one_line(path: Path):
    """What the file system refuses, in one line."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise MlskyError(
            f"{path}: {error.strerror or error}; make room for it or choose another folder, what "
            "is done so far is kept"
        ) from None


def _busy(folder: Path, out: Path) -> str:
    return f"{folder}: another process is making {out.name}; wait for it, or choose another name"


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
