"""Multipoles and power spectra of a finished sky."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments

if TYPE_CHECKING:
    from mlsky.sky import Sky
    from mlsky.sphere.geometry import Geometry

__all__ = ["alm", "spectra"]

#: Fraction of a cut-out's side over which its edges are tapered before its spectrum is taken: our
#: choice.
TAPER = 0.1


def alm(
    sky: Sky, index: int | str, component: str | None, lmax: int | None
) -> NDArray[np.complex128]:
    """Multipoles of one band, (n, nalm): T, or E and B, or all three.

    As `mlsky.sky.Sky.alm`.
    """
    top = _parse_lmax(sky, lmax)
    return _analysed(sky.band(index, component), sky, top)


def spectra(sky: Sky, component: str | None, lmax: int | None) -> dict[str, NDArray[np.float64]]:
    """Auto- and cross-spectra of all bands, as `mlsky.sky.Sky.spectra`."""
    import healpy

    top = _parse_lmax(sky, lmax)
    window, power = _window(sky.geometry)
    found = []
    for index in range(len(sky.bands)):
        maps = sky.band(index, component)
        if window is not None:
            mean = (maps * window).sum((-2, -1)) / window.sum()
            maps = (maps - mean[:, np.newaxis, np.newaxis]) * window
        found.append(_analysed(maps, sky, top))
    letters = {"T": "T", "QU": "EB", "TQU": "TEB"}[sky.stokes]
    pairs = [a + b for i, a in enumerate(letters) for b in letters[i:]]
    out = {pair: np.empty((len(found), len(found), top + 1)) for pair in pairs}
    for pair in pairs:
        i, j = (letters.index(letter) for letter in pair)
        for a, one in enumerate(found):
            for b, other in enumerate(found):
                out[pair][a, b] = healpy.alm2cl(one[i], other[j]) / power
    return out


def _analysed(maps: NDArray[np.float32], sky: Sky, lmax: int) -> NDArray[np.complex128]:
    """Multipoles (n, nalm) of the maps (nstokes, *shape) of one band."""
    from mlsky.sphere import gaussian

    parts = []
    if "T" in sky.stokes:
        parts.append(gaussian.map_to_alm(maps[0], sky.geometry, lmax)[np.newaxis])
    if "Q" in sky.stokes:
        parts.append(gaussian.map_to_alm(maps[-2:], sky.geometry, lmax, spin=2))
    return np.concatenate(parts)


def _parse_lmax(sky: Sky, lmax: int | None) -> int:
    """A band limit, by default that of the pixels."""
    geometry = sky.geometry
    if geometry.kind == "car" and not geometry.cylindrical:
        raise ValueError(
            "multipoles need HEALPix or cylindrical pixels (CAR, CEA, ...); this map has other ones"
        )
    top = geometry.lmax
    if lmax is None:
        return top
    return arguments.integer(
        "lmax", lmax, f"an integer from 2 to {top}, that of the pixels", 2, top
    )


def _window(geometry: Geometry) -> tuple[NDArray[np.float64] | None, float]:
    """Taper of the edges of a cut-out, and its mean square over the sphere; none for a full sky."""
    if geometry.kind == "healpix":
        return None, 1.0
    ny, nx = geometry.shape
    area = np.broadcast_to(geometry.area().reshape(geometry.shape), geometry.shape)
    if abs(area.sum() / (4 * np.pi) - 1) < 1e-3:
        return None, 1.0
    turn = abs(2 * np.pi / geometry.steps[0])
    columns = np.ones(nx) if nx > turn - 0.5 else _taper(nx)
    window = _taper(ny)[:, np.newaxis] * columns
    return window, float((window**2 * area).sum() / (4 * np.pi))


def _taper(n: int) -> NDArray[np.float64]:
    """One inside, half a cosine to zero over `TAPER` of the length at either end."""
    edge = max(1, round(TAPER * n))
    away = np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5)
    return 0.5 - 0.5 * np.cos(np.pi * np.minimum(away / edge, 1))
