"""Full-sky fields on the rotated band: by harmonics, by cubic interpolation, and as points.

Extended fields are smooth and may be interpolated. Sources are points: they go whole into the
pixel that holds them, as interpolation and harmonics would make them ring.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlsky.components import REFERENCE_GHZ
from mlsky.cutting.areas import EquatorialBand, matrix
from mlsky.frequency.bands import jy_per_sr_per_uk
from mlsky.sphere import gaussian
from mlsky.sphere.geometry import Geometry
from mlsky.sphere.threads import run_blocks, threads
from mlsky.sphere.windows import square

__all__ = ["cubic", "default_lmax", "harmonic", "paint", "rotate_alm", "to_alm"]

#: Sources painted at a time: bounds the memory beside the catalogue.
_BLOCK = 2**20


def default_lmax(geometry: Geometry, band: EquatorialBand) -> int:
    """Band limit of both the maps and the pixels of the band.

    The pixels of the band carry their Nyquist multipole, HEALPix maps 2.5 nside, beyond which
    their analysis is noisy (lmax = 10000 for nside 4096 in Han et al. 2021).
    """
    carried = geometry.lmax if geometry.kind == "car" else 5 * geometry.nside // 2
    return min(carried, round(10800 / band.pixel_arcmin))


def to_alm(
    values: NDArray, geometry: Geometry, lmax: int, pixel_arcmin: float | None = None
) -> NDArray[np.complex128]:
    """Harmonics of a full-sky map.

    Parameters
    ----------
    values
        *(npix,)* on `geometry`.
    lmax
        Band limit.
    pixel_arcmin
        If given, the map holds means over its pixels, and shall hold means over square pixels
        of this side: alm are multiplied by the window of these over the window of those.

    Notes
    -----
    Both windows are those of squares of the area of a pixel (`mlsky.sphere.windows.square`).
    """
    alm = gaussian.map_to_alm(np.reshape(values, geometry.shape), geometry, lmax)
    if pixel_arcmin is not None:
        ell = np.arange(lmax + 1)
        ratio = square(ell, pixel_arcmin) / square(ell, geometry.pixel_arcmin)
        alm = gaussian.scale_alm(alm, ratio)
    return alm


def rotate_alm(alm: NDArray[np.complex128], angles: tuple[float, float]) -> NDArray[np.complex128]:
    """Harmonics of the sky turned by `angles` (deg) as `mlsky.cutting.areas.matrix` does."""
    import ducc0

    about_z, about_y = np.radians(angles)
    lmax = gaussian.alm_lmax(alm)
    return ducc0.sht.rotate_alm(
        alm, lmax=lmax, psi=about_z, theta=about_y, phi=0.0, nthreads=threads()
    )


def harmonic(
    alm: NDArray[np.complex128], angles: tuple[float, float], band: EquatorialBand
) -> NDArray[np.float32]:
    """A field at the pixel centres of the band of the turned sky, *band.shape*."""
    return gaussian.alm_to_map(rotate_alm(alm, angles), band.geometry)


def cubic(
    values: NDArray, geometry: Geometry, vectors: NDArray[np.float64], nthreads: int = 0
) -> NDArray[np.float32]:
    """A full-sky map at any directions, by cubic interpolation along and across its rings.

    Parameters
    ----------
    values
        *(npix,)* on `geometry`, HEALPix or full-sky cylindrical CAR.
    vectors
        Unit vectors, *(3, ...)*.

    Returns
    -------
    ndarray
        The shape of `vectors` less its first axis.

    Raises
    ------
    ValueError
        If the pixels do not lie on full rings.

    Notes
    -----
    Lagrange's cubic through four pixels on each of the four nearest rings, then through the
    rings, which need not be evenly spaced; exact for polynomials of third order. Beyond a
    pole the rings are those of the other side.
    """
    ring = gaussian.rings(geometry)
    if ring is None or not ring.full:
        raise ValueError("map: must be HEALPix or a full-sky CAR grid to be interpolated")
    values = np.asarray(values).reshape(-1)
    order = np.argsort(ring.theta, kind="stable")
    theta = ring.theta[order]
    n = len(theta)
    # A ring on the pole itself is a point: it must not be met twice when going over the pole.
    north, south = theta[0] < 1e-9, np.pi - theta[-1] < 1e-9
    rows = np.arange(-2, n + 2)
    over = np.zeros(n + 4, bool)
    over[[0, 1, -2, -1]] = True
    rows[:2] = [1 + north, 0 + north]
    rows[-2:] = [n - 1 - south, n - 2 - south]
    wide = theta[rows]
    wide[:2] *= -1
    wide[-2:] = 2 * np.pi - wide[-2:]
    rows = order[rows]
    table = (wide, over, ring.phi0[rows], ring.nphi[rows], ring.start[rows], ring.stride)

    flat = np.reshape(vectors, (3, -1))
    out = np.empty(flat.shape[1], np.float32)

    def work(s: slice) -> None:
        out[s] = _interpolate(values, table, flat[:, s])

    run_blocks(work, out.size, nthreads)
    return out.reshape(np.shape(vectors)[1:])


def paint(
    vectors: NDArray[np.float64],
    flux_mjy: NDArray[np.float64],
    angles: tuple[float, float],
    band: EquatorialBand,
) -> NDArray[np.float32]:
    """Sources on the band of the turned sky: each whole in its nearest pixel.

    Parameters
    ----------
    vectors
        Unit vectors on the sky as it was, *(3, n)*.
    flux_mjy
        At 148 GHz, *(n,)*.
    angles
        Turn of the sky (deg).

    Returns
    -------
    map
        uK_CMB at 148 GHz, *band.shape*: flux over the area of the pixel.
    """
    geometry = band.geometry
    turn = matrix(angles)
    total = np.zeros(geometry.npix)
    z_max = np.sin(np.radians(band.shape[0] * band.pixel_arcmin / 120)) + 1e-9
    for low in range(0, len(flux_mjy), _BLOCK):
        x, y, z = turn @ vectors[:, low : low + _BLOCK]
        near = np.flatnonzero(np.abs(z) < z_max)
        theta = np.arccos(np.clip(z[near], -1, 1))
        pixel = geometry.pixel(theta, np.arctan2(y[near], x[near]) % (2 * np.pi))
        inside = pixel >= 0
        # sums of one pixel run in the order of the catalogue
        pixel, slot = np.unique(pixel[inside], return_inverse=True)
        flux = flux_mjy[low : low + _BLOCK][near][inside]
        total[pixel] += np.bincount(slot, flux, pixel.size)
    total = total.reshape(geometry.shape)
    area = geometry.area(np.arange(band.shape[0]) * band.shape[1])[:, None]  # one per row
    return (total * (1e-3 / area / jy_per_sr_per_uk(REFERENCE_GHZ))).astype(np.float32)


def _interpolate(values, table, v) -> NDArray[np.float64]:
    """`cubic` of a few points *(3, n)*."""
    wide, over, phi0, nphi, start, stride = table
    theta = np.arctan2(np.hypot(v[0], v[1]), v[2])
    phi = np.arctan2(v[1], v[0])
    first = np.clip(np.searchsorted(wide, theta, side="right") - 2, 0, len(wide) - 4)
    # weights across the rings, for any spacing
    near = wide[first + np.arange(4)[:, None]]
    out = np.zeros(len(theta))
    for k in range(4):
        weight = np.ones(len(theta))
        for j in range(4):
            if j != k:
                weight *= (theta - near[j]) / (near[k] - near[j])
        row = first + k
        n = nphi[row]
        x = (phi + np.pi * over[row] - phi0[row]) / (2 * np.pi) * n
        left = np.floor(x)
        u = x - left
        left = left.astype(np.int64)
        taps = (
            -u * (u - 1) * (u - 2) / 6,
            (u + 1) * (u - 1) * (u - 2) / 2,
            -(u + 1) * u * (u - 2) / 2,
            (u + 1) * u * (u - 1) / 6,
        )
        along = sum(
            t * values[start[row] + stride * ((left + i - 1) % n)] for i, t in enumerate(taps)
        )
        out += weight * along
    return out
