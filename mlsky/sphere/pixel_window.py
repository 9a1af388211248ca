"""The window of the output pixels: averages over pixels in place of samples at their centres.

On HEALPix pixels the window is a function of multipole, the mean over pixels, as `healpy.pixwin`.
Rectangular pixels have windows that depend on direction and declination; along rows and columns, in
units of pixels, they are the same everywhere, sin(k/2) / (k/2), and a short filter along both has
this response.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlsky.sphere import beams
from mlsky.sphere.beams import Beam
from mlsky.sphere.car import Car
from mlsky.sphere.gaussian import alm_lmax, alm_to_map, scale_alm
from mlsky.sphere.geometry import Geometry, Healpix
from mlsky.sphere.harmonic_filter import add_filtered
from mlsky.sphere.margins import Inside, crop, widened

#: (n, *shape) float32 in memory or on disk, with ``maps[i]`` and ``maps[i] = values``.
Array = Any

__all__ = [
    "RADIUS",
    "apply",
    "average",
    "broadened",
    "filtered",
    "healpix",
    "of_alm",
    "padded",
]

#: Half width (pixels) of the filters of rectangular pixels: the response is right to 1e-3 up to 0.8
#: of the Nyquist wave number.
RADIUS = 8

#: ln of the window of HEALPix pixels in powers 2, 4, 6 of l / nside, to 4 nside: fitted to the mean
#: of P_l over the 256 x 256 pairs of nested children of 64 pixels, right to 1e-5. healpy's own
#: tables have to be downloaded.
HEALPIX = (-4.71394e-2, -1.54598e-4, -3.3927e-6)

#: Rows that are filtered at a time.
ROWS = 256


def healpix(nside: int, lmax: int, spin: int = 0) -> NDArray[np.float64]:
    """(lmax + 1,) window of HEALPix pixels; one where a field of this spin has no multipoles."""
    square = (np.arange(lmax + 1) / nside) ** 2
    out = np.exp(square * (HEALPIX[0] + square * (HEALPIX[1] + square * HEALPIX[2])))
    out[:spin] = 1.0
    return out


def of_alm(alm: NDArray[np.complex128], geometry: Geometry) -> NDArray[np.float32]:
    """A field of spin 0, given by its multipoles, averaged over pixels; (*shape,) float32."""
    lmax = alm_lmax(alm)
    if isinstance(geometry, Healpix):
        scaled = scale_alm(np.array(alm), healpix(geometry.nside, lmax))
        return alm_to_map(scaled, geometry)
    wider, inside = padded(geometry)
    return crop(filtered(alm_to_map(alm, wider), wider), inside)


def broadened(beam: Beam, nside: int) -> Beam:
    """A beam with the window of HEALPix pixels, for the profile of a point source.

    A Gaussian stays one, with the variance of the pixel added: up to l = 3 nside its transform is
    right to a per cent.
    """
    if beam.b_ell is None:
        pixel = -2 * HEALPIX[0] / nside**2 * 8 * np.log(2)
        return Beam(float(np.hypot(beam.fwhm_arcmin, np.degrees(np.sqrt(pixel)) * 60)))
    table = beam.b_ell[: 4 * nside + 1]  # the window is known so far
    return beams.of_table(table * healpix(nside, len(table) - 1))


def average(
    maps: Array,
    stokes: str,
    geometry: Geometry,
    inside: Inside | None,
    out: Array,
    lmax: int,
) -> None:
    """Averages over pixels of a field with Stokes parameters.

    Parameters
    ----------
    maps
        (len(stokes), *shape) samples, on the pixels of `padded`.
    inside
        Where the map lies in them.
    out
        (len(stokes), *shape of the map); may be `maps` if `inside` is None.
    lmax
        Highest multipole of the maps.
    """
    if isinstance(geometry, Healpix):
        if "T" in stokes:
            apply(maps, geometry, lmax=lmax, rows=(0,))
        if "Q" in stokes:
            apply(maps, geometry, 2, lmax=lmax, rows=(len(stokes) - 2, len(stokes) - 1))
        return
    for row in range(len(stokes)):
        out[row] = crop(filtered(np.asarray(maps[row]), geometry), inside)


def apply(
    maps: Array,
    geometry: Geometry,
    spin: int = 0,
    power: int = 1,
    lmax: int | None = None,
    rows: Sequence[int] | None = None,
) -> None:
    """Multiply maps by the window of their pixels, or divide them by it, in place.

    Parameters
    ----------
    maps
        (n, *shape) float32, in memory or in a file; Q and U for spin 2.
    geometry
        Pixels of the maps.
    spin
        0 or 2.
    power
        1 makes averages over pixels of samples at their centres, -1 the other way round.
    lmax
        HEALPix only: the highest multipole of the maps, if it is less than that of the pixels.
    rows
        Which of the maps; all by default, and two for spin 2.

    Notes
    -----
    HEALPix maps get what the window changes in their multipoles; samples of a point ring if they
    are divided by it. A rectangular map that ends where the sky goes on is continued by its point
    reflection there.
    """
    rows = range(len(maps)) if rows is None else rows
    if isinstance(geometry, Healpix):
        top = geometry.lmax if lmax is None else min(lmax, geometry.lmax)
        change = healpix(geometry.nside, top, spin) ** power - 1
        for together in (rows,) if spin else ((row,) for row in rows):
            add_filtered(maps, together, geometry, change, spin)
        return
    for row in rows:
        maps[row] = filtered(np.asarray(maps[row]), geometry, power)


def filtered(values: NDArray[np.float32], geometry: Car, power: int = 1) -> NDArray[np.float32]:
    """A map (ny, nx) filtered along rows and columns, as `apply` does."""
    taps = _taps(power)
    ny, nx = values.shape
    turn, pole = _closed(geometry)
    pad = [min(RADIUS, ny - 1)] * 2
    above, below = (
        _beyond(values, pad[i], end, turn if pole[i] else None, pole[i])
        for i, end in enumerate((0, -1))
    )
    tall = np.concatenate([above, values, below])
    out = np.empty_like(values)
    for first in range(0, ny, ROWS):
        last = min(first + ROWS, ny)
        block = tall[first : last + sum(pad)]
        made = _along(block, taps, pad[0], last - first)
        wide = _wider(made, turn)
        out[first:last] = _along(wide.T, taps, min(RADIUS, nx - 1), nx).T
    return out


def _along(block: NDArray, taps: NDArray, pad: int, n: int) -> NDArray[np.float32]:
    """Filter along the first axis; `pad` rows more on either side than the n that are made."""
    out = np.zeros((n, block.shape[1]), np.float32)
    for shift in range(-RADIUS, RADIUS + 1):
        first = np.clip(np.arange(n) + pad + shift, 0, len(block) - 1)
        lo = pad + shift
        rows = block[lo : lo + n] if 0 <= lo and lo + n <= len(block) else block[first]
        out += taps[abs(shift)] * rows
    return out


def _wider(values: NDArray, turn: int | None) -> NDArray[np.float32]:
    """A block of rows, continued beyond its first and last column."""
    nx = values.shape[1]
    pad = min(RADIUS, nx - 1)
    if turn is not None and nx >= turn:
        before = values[:, (np.arange(-pad, 0) % turn)]
        after = values[:, (np.arange(nx, nx + pad) % turn)]
        return np.concatenate([before, values, after], 1)
    return np.pad(values, ((0, 0), (pad, pad)), "reflect", reflect_type="odd")


def _beyond(
    values: NDArray, pad: int, end: int, turn: int | None, pole: str | None
) -> NDArray[np.float32]:
    """Rows beyond the first (end 0) or last (-1) row: over the pole, or by point reflection."""
    inner = values if end == 0 else values[::-1]
    skip = 1 if pole == "row" else 0
    if pole is not None and turn is not None and turn % 2 == 0 and len(values) > pad:
        rows = np.roll(inner[skip : skip + pad, :turn], turn // 2, axis=1)
        rows = rows[:, np.arange(values.shape[1]) % turn]
    else:
        rows = 2 * inner[:1] - inner[1 : pad + 1]
    return rows[::-1] if end == 0 else rows


def _closed(geometry: Car) -> tuple[int | None, tuple[str | None, str | None]]:
    """Columns of a full turn, if the map has it, and how its first and last rows meet the poles.

    "edge" if a pole lies on the outer edge of the row, "row" on the row, None if there is none.
    """
    if geometry.axes is None:
        return None, (None, None)
    theta, _ = geometry.axes
    exact = 2 * np.pi / abs(geometry.steps[0])
    turn = round(exact)
    if abs(exact - turn) > 1e-3 or geometry.shape[1] < turn:
        return None, (None, None)
    step = abs(geometry.steps[1])
    found: list[str | None] = []
    for row in (theta[0], theta[-1]):
        away = min(row, np.pi - row) / step
        found.append("row" if away < 1e-3 else "edge" if abs(away - 0.5) < 1e-3 else None)
    return turn, (found[0], found[1])


@functools.cache
def _taps(power: int) -> NDArray[np.float32]:
    """Weights at distances 0 to `RADIUS` whose response is closest to that of pixels."""
    k = (np.arange(512) + 0.5) * np.pi / 512
    wanted = np.sinc(k / (2 * np.pi)) ** power
    # of sum one: deviations of the other weights from it
    basis = np.cos(k[:, np.newaxis] * np.arange(1, RADIUS + 1)) * 2 - 2
    # the last tenth before the Nyquist wave number, where the response has a kink, counts less
    weight = np.where(k < 0.9 * np.pi, 1.0, 0.03)
    fit, *_ = np.linalg.lstsq(basis * weight[:, np.newaxis], (wanted - 1) * weight, rcond=None)
    return np.concatenate([[1 - 2 * fit.sum()], fit]).astype(np.float32)


def padded(geometry: Geometry) -> tuple[Geometry, Inside | None]:
    """The pixels with those around them that the filter needs, as `margins.widened`.

    Filtered on them and cut by `margins.crop`, part of the sky has the values of the whole.
    """
    return widened(geometry, RADIUS)
