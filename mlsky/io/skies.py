"""Sky files: HDF5 with everything, FITS (HEALPix, CAR) with the total, provenance in both.

A file appears whole or not at all: it is written beside, under a temporary name, and moved
into place.

HDF5 files hold the layers of a sky (`mlsky.io.layers`), so they are no larger at many bands than at
one and read back to the bit.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlsky import arguments, old_names
from mlsky.errors import MlskyError
from mlsky.io import checksums
from mlsky.io.content import NotOurs, check_content
from mlsky.io.files import check_disk, real, whole
from mlsky.io.fits import read_fits, write_fits
from mlsky.io.hdf5 import read_hdf5, write_hdf5

__all__ = [
    "SUFFIXES",
    "beside",
    "check",
    "read",
    "verify",
    "write",
]

HDF5 = (".h5", ".hdf5")

FITS = (".fits",)

SUFFIXES = HDF5 + FITS


def check(path: str | os.PathLike, overwrite: bool = False, suffixes=SUFFIXES) -> Path:
    """Check that a file may be written at `path`, before any work; nothing is left behind.

    Raises
    ------
    ValueError
        If the suffix is unknown, `path` exists and `overwrite` is False, is a folder, or its
        folder is missing or cannot be written to.
    """
    path = arguments.path("out", path)
    overwrite = arguments.boolean("overwrite", overwrite)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{path}: suffix must be one of {', '.join(suffixes)}")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, give the name of a file")
    if path.exists() and not overwrite:
        raise ValueError(
            f"{path}: exists; choose another name, or overwrite=True (--overwrite) to replace it"
        )
    target = real(path)
    if not target.parent.is_dir():
        raise ValueError(f"{path}: folder {target.parent} does not exist, make it first")
    try:
        # The only sure test: permissions, read-only and full file systems differ. The file has no
        # name, so that a kill leaves none.
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise ValueError(
            f"{path}: folder {target.parent} cannot be written to ({error.strerror}), choose "
            "another"
        ) from None
    return path


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder, moved to `path` at the end and removed on failure."""
    try:
        with whole(path) as temporary:
            yield temporary
    except OSError as error:
        reason = error.strerror or str(error)
        raise MlskyError(f"{path}: cannot be written ({reason}); nothing was kept") from error


def write(
    sky,
    path: str | os.PathLike,
    *,
    overwrite: bool = False,
    component: str | None = None,
    ordering: str = "RING",
) -> None:
    """Write a `mlsky.sky.Sky`; see `mlsky.sky.Sky.write`."""
    path = check(path, overwrite)
    if ordering not in ("RING", "NESTED"):
        raise ValueError(f"ordering={ordering!r}: must be 'RING' or 'NESTED'")
    if path.suffix.lower() in HDF5:
        if component is not None or ordering != "RING":
            raise ValueError(
                f"{path}: HDF5 files hold every component in RING order; component= and "
                "ordering= are for .fits"
            )
        parts = [layer for layers in sky.layers.values() for layer in layers]
        need = sum(4.0 * np.prod(layer.templates.shape) for layer in parts)
        need += sum(8.0 * len(layer.pixels) for layer in parts if layer.pixels is not None)
        _check_room(path, need + 4.0 * sky.geometry.npix)
        with beside(path) as temporary:
            write_hdf5(sky, temporary)
        return
    if component is not None and component not in sky:
        raise ValueError(f"component={component!r}: this sky has {', '.join(sky)}")
    _check_room(path, 4.0 * np.prod(sky.shape) + 4.0 * sky.geometry.npix)
    with beside(path) as temporary:
        write_fits(sky, temporary, component, ordering)


def _check_room(path: Path, need: float) -> None:
    """Refuse a file for which there is no room: libhdf5 does not survive a full disk."""
    part = real(path)
    check_disk(part.with_name(f".{part.name}"), need, "choose another folder")


def read(path: str | os.PathLike, lazy: bool = False) -> dict:
    """Content of a file that `write` has written, as arguments of `mlsky.sky.Sky`.

    With `lazy`, maps stay in the file (`mlsky.io.layers.Stored`, `StoredFits`); those of a NESTED
    FITS file are read all the same.

    Raises
    ------
    ValueError
        If there is no such file, it is not one of mlsky's, or is damaged.
    """
    path = arguments.path("path", path)
    lazy = arguments.boolean("lazy", lazy)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: suffix must be one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    hdf5 = path.suffix.lower() in HDF5
    with _one_line(path):
        content = read_hdf5(path, lazy) if hdf5 else read_fits(path, lazy)
        check_content(content)
    catalog = content["catalog"]
    if catalog is not None and "kind" in catalog.colnames:
        catalog["kind"][...] = old_names.kinds(catalog["kind"])
    return content


#: What the readers of a damaged file raise.
_DAMAGE = (
    OSError,
    KeyError,
    TypeError,
    IndexError,
    ValueError,
    AttributeError,
    RuntimeError,
    OverflowError,
    MemoryError,
    RecursionError,
)


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes its readers raise, as one ValueError."""
    from astropy.utils.exceptions import AstropyUserWarning

    try:
        with warnings.catch_warnings():
            # Of a truncated file astropy only warns.
            warnings.simplefilter("error", AstropyUserWarning)
            yield
    except NotOurs:
        raise
    except (*_DAMAGE, AstropyUserWarning) as error:
        reason = arguments.short(" ".join(str(error).split()), 160).strip("'\"")
        raise ValueError(
            f"{path}: damaged or not a file of mlsky's ({reason}); make it again"
        ) from error


def verify(path: str | os.PathLike) -> str:
    """Compare a sky file with the checksums in it, piece by piece; what was found, in words.

    Raises
    ------
    ValueError
        If there is no such file, or it is not as it was written.
    """
    path = arguments.path("path", path)
    version = read(path, lazy=True)["version"]
    if version < 2:
        return "has no checksums, as files written by earlier versions have none"
    with _one_line(path):
        if path.suffix.lower() in HDF5:
            import h5py

            with h5py.File(path) as file:
                checksums.check_hdf5(file)
        else:
            checksums.check_fits(path)
    return "as it was written"
