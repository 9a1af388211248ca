"""Checksums in HDF5 and FITS files, and refusal of files that point to other files.

An HDF5 file can point elsewhere: by soft and external links, virtual data sets, external raw
storage. Sky files have none of these, and one that has them is refused before anything is read
through it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import h5py

__all__ = [
    "ATTRIBUTE",
    "check_attributes",
    "check_fits",
    "check_hdf5",
    "decoded",
    "digest",
    "hdf5_parts",
    "part",
    "seal",
    "seal_fits",
    "seal_hdf5",
    "text",
    "unseal",
]

#: Attribute of an HDF5 file, and extension of a FITS file, with the digests.
ATTRIBUTE, EXTENSION = "sha256", "SHA256"

#: Limits of a sky file, our choice: levels of groups, things in all, and how much smaller than its
#: values a data set may be stored (gzip reaches a thousand; a larger ratio is no data).
DEPTH, PARTS, RATIO = 6, 10_000, 2000

#: Bytes of the longest text of an attribute: HDF5 allows 64 kB in all.
_LONGEST = 60_000

#: Bytes of a sha256.
_CODE = 32

#: Bytes hashed at once.
_BLOCK = 2**24

#: FITS standard 4.0, Sec. 3.1: files are made of records of this length.
_RECORD = 2880


def text(value: str) -> NDArray | str:
    """Text for an attribute of an HDF5 file, kept in the attribute itself.

    Text of any length goes to a heap otherwise, and HDF5 loops for ever over a damaged one. Only
    text too long for an attribute goes there.
    """
    data = value.encode()
    return value if len(data) > _LONGEST else np.array(data, f"S{max(1, len(data))}")


def decoded(value: object) -> object:
    """The value of an attribute, what `text` made of a text as that."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray) and value.dtype.kind == "S":
        return np.char.decode(value, "utf-8")
    return value


def digest(values: NDArray) -> str:
    """Sha256 of an array: its type, its shape and its values, little-endian, in C order."""
    out = _begin(values.dtype, values.shape)
    out.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).data)
    return out.hexdigest()


def hdf5_parts(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every data set of a file with its path, none of them outside the file.

    Raises
    ------
    OSError
        If something points elsewhere, is of a type that no sky has, is stored in far less room than
        it needs, or there is too much of it.
    """
    import h5py

    count = 0
    todo = [("", file, 0)]
    while todo:
        prefix, group, depth = todo.pop()
        for name in group:
            path, count = f"{prefix}{name}", count + 1
            if count > PARTS or depth > DEPTH:
                raise OSError(f"more than {PARTS} parts, or {DEPTH} levels of them")
            _check_link(group, name, path)
            found = group[name]
            if isinstance(found, h5py.Group):
                todo.append((f"{path}/", found, depth + 1))
            else:
                _check_dataset(path, found)
                yield path, found


def seal(data: bytes) -> bytes:
    """Bytes followed by their sha256."""
    return data + hashlib.sha256(data).digest()


def unseal(data: bytes) -> bytes:
    """The bytes that `seal` was given.

    Raises
    ------
    ValueError
        If the bytes were changed or truncated.
    """
    content, code = data[:-_CODE], data[-_CODE:]
    if len(data) < _CODE or hashlib.sha256(content).digest() != code:
        raise ValueError("its checksum differs: damaged")
    return content


def seal_hdf5(file: h5py.File) -> None:
    """Write the digest of every data set and attribute of a file into it."""
    found = {path: _of_dataset(part) for path, part in hdf5_parts(file)}
    file.attrs.pop(ATTRIBUTE, None)
    found[""] = _of_attributes(file)
    file.attrs[ATTRIBUTE] = text(json.dumps(found))


def check_hdf5(file: h5py.File) -> None:
    """Compare every data set and attribute that `seal_hdf5` saw with its digest.

    Data sets that were added since are not looked at.

    Raises
    ------
    OSError
        If one differs or is missing, or there are no digests.
    """
    stored = check_attributes(file)
    parts = dict(hdf5_parts(file))
    for path, expected in stored.items():
        if path not in parts:
            raise OSError(f"{path} is missing")
        if _of_dataset(parts[path]) != expected:
            raise OSError(f"checksum of {path} differs")


def check_attributes(file: h5py.File) -> dict[str, str]:
    """Compare the attributes of all that `seal_hdf5` saw with their digest.

    Returns
    -------
    digests
        Of the data sets, by path; they are not compared.

    Raises
    ------
    OSError
        If an attribute differs or something is missing, or there are no digests.
    """
    stored = decoded(file.attrs.get(ATTRIBUTE))
    if not isinstance(stored, str):
        raise OSError("no checksums in it")
    stored = json.loads(stored)
    if not isinstance(stored, dict) or stored.pop("", None) != _of_attributes(file, stored):
        raise OSError("checksum of its attributes differs")
    return stored


def part(file: h5py.File, path: str) -> h5py.Dataset:
    """A data set at the top of a file, inside the file.

    Raises
    ------
    OSError
        If it is none, or points elsewhere, as for `hdf5_parts`.
    """
    _check_link(file, path, path)
    found = file[path]
    _check_dataset(path, found)
    return found


def seal_fits(path: Path) -> None:
    """Append an extension with the sha256 of every byte before it."""
    from astropy.io import fits

    code = _of_bytes(path, path.stat().st_size)
    header = fits.ImageHDU(np.frombuffer(code, np.uint8), name=EXTENSION).header
    header["COMMENT"] = "sha256 of all bytes of the file before this extension"
    with path.open("ab") as file:
        file.write(header.tostring().encode("ascii") + code.ljust(_RECORD, b"\0"))


def check_fits(path: Path) -> None:
    """Compare the bytes of a file with the digest at its end.

    Raises
    ------
    OSError
        If they differ, or there is none.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _RECORD * 2))
        header, data = file.read(_RECORD), file.read(_CODE)
    if size < 3 * _RECORD or not header.startswith(b"XTENSION= 'IMAGE"):
        raise OSError("no checksum at its end, truncated")
    if data != _of_bytes(path, size - 2 * _RECORD):
        raise OSError("its checksum differs")


def _check_link(group, name: str, path: str) -> None:
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise OSError(f"{path} is a link to elsewhere")


def _check_dataset(path: str, found) -> None:
    import h5py

    if not isinstance(found, h5py.Dataset):
        raise OSError(f"{path} is a {type(found).__name__}")
    kind = found.dtype
    if kind.kind not in "fiubS" or kind.hasobject or kind.itemsize > 4096:
        raise OSError(f"{path} is of type {kind}")
    if found.is_virtual or found.external:
        raise OSError(f"{path} is stored outside the file")
    if found.shape is None:
        raise OSError(f"{path} is empty")
    if found.nbytes > RATIO * found.id.get_storage_size():
        raise OSError(f"{path} of {found.nbytes} bytes is stored in far less")


def _begin(dtype: np.dtype, shape: tuple[int, ...]):
    return hashlib.sha256(f"{dtype.newbyteorder('<').str} {tuple(shape)}\n".encode())


def _of_dataset(part) -> str:
    """`digest` of a data set, read piece by piece along its first axes."""
    out = _begin(part.dtype, part.shape)
    for piece in _pieces(part.shape, part.dtype.itemsize):
        values = part[piece]
        out.update(np.ascontiguousarray(values, part.dtype.newbyteorder("<")).data)
    return out.hexdigest()


def _pieces(shape: tuple[int, ...], itemsize: int) -> Iterator[tuple]:
    """Indices of consecutive pieces, in C order, of at most about `_BLOCK` bytes."""
    if int(np.prod(shape, dtype=np.int64)) * itemsize <= _BLOCK or not shape:
        yield ()
        return
    rest = int(np.prod(shape[1:], dtype=np.int64)) * itemsize
    if rest > _BLOCK:
        for row in range(shape[0]):
            for piece in _pieces(shape[1:], itemsize):
                yield (row, *piece)
        return
    step = max(1, _BLOCK // max(1, rest))
    for low in range(0, shape[0], step):
        yield (slice(low, low + step),)


def _of_attributes(file, paths=None) -> str:
    """Sha256 of the attributes of the file and of the groups and data sets that were sealed."""
    found = {}
    paths = dict(hdf5_parts(file)) if paths is None else paths
    groups = {"/".join(path.split("/")[:n]) for path in paths for n in range(path.count("/") + 1)}
    for name in sorted({"", *groups, *paths}):
        if name and name not in file:
            raise OSError(f"{name} is missing")
        attrs = file[name].attrs if name else file.attrs
        found[name] = {k: _plain(attrs[k]) for k in sorted(attrs) if (name, k) != ("", ATTRIBUTE)}
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _plain(value: object) -> object:
    value = decoded(value)
    if isinstance(value, (str, bool, np.bool_)):
        return str(value)
    if isinstance(value, (int, float, np.number)):
        return repr(value.item() if isinstance(value, np.number) else value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiubS":
        return digest(value)
    if isinstance(value, np.ndarray) and all(isinstance(v, str) for v in value.flat):
        return [*map(str, value.flat), list(value.shape)]  # names of columns
    raise OSError(f"an attribute of type {type(value).__name__}")


def _of_bytes(path: Path, length: int) -> bytes:
    out = hashlib.sha256()
    with path.open("rb") as file:
        while length > 0:
            block = file.read(min(_BLOCK, length))
            if not block:
                break
            out.update(block)
            length -= len(block)
    return out.digest()
