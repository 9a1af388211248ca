"""Multipoles and power spectra of a finished sky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments
from mlsky.sphere.gaussian import map_to_alm

if TYPE_CHECKING:
    from mlsky.sky import Sky
    from mlsky.sphere.geometry import Geometry

__all__ = ["alm", "autospectra", "has_multipoles", "lowest_multipole", "spectra"]

#: Fraction of a cut-out's side over which its edges are tapered before its spectrum is taken, our
#: choice. Of a C_l that falls as l^-3, as in the damping tail of the CMB, less than a tenth comes
#: from lower multipoles from 15 times the lowest on; with a tenth of the side, from 25 times.
TAPER = 0.2

#: Multipoles of the maps of some Stokes parameters.
LETTERS = {"T": "T", "QU": "EB", "TQU": "TEB"}


@dataclass(frozen=True)
class Taper:
    """How a cut-out is weighted before its spectra are taken; the full sky is not.

    Attributes
    ----------
    window
        (ny, nx): one inside, falling to zero at the edges.
    power
        Its mean square over the sphere.
    side
        The shorter side of the cut-out, through its middle (rad).
    """

    window: NDArray[np.float64] | None = None
    power: float = 1.0
    side: float | None = None


def alm(
    sky: Sky, index: int | str, component: str | None, lmax: int | None
) -> NDArray[np.complex128]:
    """Multipoles of one band, (n, nalm): T, or E and B, or all three.

    As `mlsky.sky.Sky.alm`.
    """
    top = _parse_lmax(sky, lmax)
    return _analysed(sky.band(index, component), sky.geometry, sky.stokes, top)


def spectra(sky: Sky, component: str | None, lmax: int | None) -> dict[str, NDArray[np.float64]]:
    """Auto- and cross-spectra of all bands, as `mlsky.sky.Sky.spectra`."""
    import healpy

    top = _parse_lmax(sky, lmax)
    taper = _taper_of(sky.geometry)
    found = [
        _analysed(_tapered(sky.band(index, component), taper), sky.geometry, sky.stokes, top)
        for index in range(len(sky.bands))
    ]
    letters = LETTERS[sky.stokes]
    pairs = [a + b for i, a in enumerate(letters) for b in letters[i:]]
    out = {pair: np.empty((len(found), len(found), top + 1)) for pair in pairs}
    for pair in pairs:
        i, j = (letters.index(letter) for letter in pair)
        for a, one in enumerate(found):
            for b, other in enumerate(found):
                out[pair][a, b] = healpy.alm2cl(one[i], other[j]) / taper.power
    return out


def autospectra(
    maps: NDArray[np.float32], geometry: Geometry, stokes: str, lmax: int, iterations: int = 3
) -> dict[str, NDArray[np.float64]]:
    """Power spectra of one set of maps, as those of `spectra`.

    Parameters
    ----------
    maps
        (len(stokes), *shape).
    stokes
        "T", "QU" or "TQU".
    lmax
        Band limit.
    iterations
        Of the analysis of HEALPix maps (`mlsky.sphere.gaussian.map_to_alm`).

    Returns
    -------
    dict
        "TT", "EE" and "BB" by the Stokes parameters: (lmax + 1,) float64, C_l.

    Raises
    ------
    ValueError
        If the pixels are not HEALPix or cylindrical, or a single row or column.
    """
    import healpy

    _check_pixels(geometry)
    taper = _taper_of(geometry)
    alms = _analysed(_tapered(maps, taper), geometry, stokes, lmax, iterations)
    return {
        2 * letter: healpy.alm2cl(one) / taper.power
        for letter, one in zip(LETTERS[stokes], alms, strict=True)
    }


def has_multipoles(geometry: Geometry) -> bool:
    """Whether maps on these pixels have spectra; a strip of one row or column has none."""
    return geometry.kind == "healpix" or (geometry.cylindrical and min(geometry.shape) > 1)


def lowest_multipole(geometry: Geometry) -> float:
    """Multipole below which a map resolves nothing: pi over its shorter side; 2 for the full sky.

    Spectra of a cut-out are correlated over about as many multipoles.
    """
    taper = _taper_of(geometry)
    return 2.0 if taper.side is None else max(2.0, np.pi / taper.side)


def _analysed(
    maps: NDArray[np.float32], geometry: Geometry, stokes: str, lmax: int, iterations: int = 3
) -> NDArray[np.complex128]:
    """Multipoles (n, nalm) of the maps (nstokes, *shape) of one band."""
    parts = []
    if "T" in stokes:
        alm = map_to_alm(maps[0], geometry, lmax, iterations=iterations)
        parts.append(alm[np.newaxis])
    if "Q" in stokes:
        parts.append(map_to_alm(maps[-2:], geometry, lmax, 2, iterations))
    return np.concatenate(parts)


def _tapered(maps: NDArray[np.float32], taper: Taper) -> NDArray:
    """Maps (nstokes, *shape) without their means and with tapered edges; the full sky as it is."""
    if taper.window is None:
        return maps
    mean = (maps * taper.window).sum((-2, -1)) / taper.window.sum()
    return (maps - mean[:, np.newaxis, np.newaxis]) * taper.window


def _parse_lmax(sky: Sky, lmax: int | None) -> int:
    """A band limit, by default that of the pixels."""
    _check_pixels(sky.geometry)
    top = sky.geometry.lmax
    if lmax is None:
        return top
    return arguments.integer(
        "lmax", lmax, f"an integer from 2 to {top}, that of the pixels", 2, top
    )


def _check_pixels(geometry: Geometry) -> None:
    if geometry.kind == "car" and not geometry.cylindrical:
        raise ValueError(
            "multipoles need HEALPix or cylindrical pixels (CAR, CEA, ...); this map has other ones"
        )
    if not has_multipoles(geometry):
        raise ValueError(
            f"a map of shape {geometry.shape}: multipoles need two rows and two columns or more"
        )


def _taper_of(geometry: Geometry) -> Taper:
    if geometry.kind == "healpix":
        return Taper()
    ny, nx = geometry.shape
    area = np.broadcast_to(geometry.area().reshape(geometry.shape), geometry.shape)
    if abs(area.sum() / (4 * np.pi) - 1) < 1e-3:
        return Taper()
    turn = abs(2 * np.pi / geometry.steps[0])
    ring = nx > turn - 0.5
    window = _taper(ny)[:, np.newaxis] * (np.ones(nx) if ring else _taper(nx))
    theta, _ = geometry.angles(nx * np.array([0, ny // 2, ny - 1]))
    sides = [abs(theta[2] - theta[0]) * ny / max(1, ny - 1)]
    if not ring:
        sides.append(nx * abs(geometry.steps[0]) * np.sin(theta[1]))
    return Taper(window, float((window**2 * area).sum() / (4 * np.pi)), float(min(sides)))


def _taper(n: int) -> NDArray[np.float64]:
    """One inside, half a cosine to zero over `TAPER` of the length at either end."""
    edge = max(1, round(TAPER * n))
    away = np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5)
    return 0.5 - 0.5 * np.cos(np.pi * np.minimum(away / edge, 1))
