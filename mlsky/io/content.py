"""What both kinds of sky file hold: versions, geometries, and whether the parts fit."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlsky.sphere import geometry as pixels

if TYPE_CHECKING:
    pass

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "NotOurs",
    "are_plain",
    "build_geometry",
    "check_content",
    "check_version",
    "describe_geometry",
    "now",
    "version_of",
]

FORMAT = "mlsky sky"

#: Since 2 files carry checksums.
FORMAT_VERSION = 2


class NotOurs(ValueError):
    """The file is of another program or a later mlsky: not damaged."""


def version_of(library: str) -> str:
    """Version of a library, or "not installed"."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"


def check_content(content: dict) -> None:
    """Check that the parts of a sky have the right types and fit each other; else ValueError."""
    freqs = np.asarray(content["freqs_ghz"], np.float64)
    if freqs.ndim != 1 or not freqs.size or not (np.isfinite(freqs) & (freqs > 0)).all():
        raise ValueError(f"frequencies of shape {freqs.shape}, or not positive")
    if str(content["stokes"]) not in ("T", "QU", "TQU"):
        raise ValueError(f"Stokes parameters {content['stokes']!r}")
    if not isinstance(content["meta"], dict) or not isinstance(content["unit"], str):
        raise ValueError("meta or unit of another type")
    shape = content["geometry"].shape
    for layers in content["components"].values():
        for layer in layers:
            layer.check(freqs.size, shape)
    kappa = content["kappa"]
    if kappa is not None and tuple(kappa.shape) != tuple(shape):
        raise ValueError(f"kappa of shape {tuple(kappa.shape)}")


def describe_geometry(geometry: pixels.Geometry) -> dict:
    """A geometry in plain JSON types, for `build_geometry`."""
    if geometry.kind == "healpix":
        return {"kind": "healpix", "nside": geometry.nside, "frame": "equatorial"}
    return geometry.describe()


def build_geometry(description: dict) -> pixels.Geometry:
    """The geometry that `describe_geometry` described."""
    if description["kind"] == "healpix":
        return pixels.Healpix(description["nside"])
    return pixels.Car.build(description)


def are_plain(bands) -> bool:
    """Whether bands are single frequencies without names: a list of frequencies says it all."""
    return all(band.is_single and band.name is None for band in bands)


def check_version(path: Path, version: int) -> None:
    if version > FORMAT_VERSION:
        raise NotOurs(
            f"{path}: format {version}, this mlsky reads up to {FORMAT_VERSION}; update mlsky"
        )


def now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="seconds")
