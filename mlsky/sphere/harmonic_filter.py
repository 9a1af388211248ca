"""Changes of HEALPix maps by a function of multipole, in little memory.

As an analysis, a multiplication and a synthesis by `mlsky.sphere.gaussian.map_to_alm` and
`alm_to_map`, but what lies between is kept in half of their precision, and rings are taken a few at
a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.sphere.gaussian import Rings, alm_lmax, chunks, ring_values, rings, scale_alm
from mlsky.sphere.geometry import Healpix
from mlsky.sphere.threads import threads

if TYPE_CHECKING:
    from mlsky.io.disk_array import Array

__all__ = ["add_filtered", "filtered"]

#: Points, or rings times multipoles, worked on at a time: 64 MB of complex numbers.
PIECE = 2**22


def add_filtered(
    maps: Array, rows: Sequence[int], geometry: Healpix, change: NDArray[np.float64], spin: int
) -> None:
    """Add to maps what their multipoles are, after one iteration, times a function of l, in place.

    Parameters
    ----------
    maps
        (n, npix) float32, in memory or in a file.
    rows
        One of the maps for spin 0, Q and U for spin 2.
    change
        (lmax + 1,) factors.

    Raises
    ------
    ValueError
        If a pixel is not finite.
    """
    alm, layout = _multiplied(maps, rows, geometry, change, spin, 1)
    both = [np.array(maps[row], np.float32) for row in rows]
    _add(both, alm, layout, spin)
    for row, one in zip(rows, both, strict=True):
        maps[row] = one


def filtered(
    maps: NDArray[np.float32],
    geometry: Healpix,
    factor: NDArray[np.float64],
    spin: int,
    iterations: int = 3,
) -> NDArray[np.float32]:
    """Maps whose multipoles are multiplied by a function of l.

    Parameters
    ----------
    maps
        (1, npix), or Q and U for spin 2, (2, npix).
    factor
        (lmax + 1,).
    iterations
        Of the analysis.

    Raises
    ------
    ValueError
        If a pixel is not finite.
    """
    alm, layout = _multiplied(maps, range(len(maps)), geometry, factor, spin, iterations)
    out = np.zeros(maps.shape, np.float32)
    _add(list(out), alm, layout, spin)
    return out


def _multiplied(
    maps: Array,
    rows: Sequence[int],
    geometry: Healpix,
    factor: NDArray[np.float64],
    spin: int,
    iterations: int,
) -> tuple[NDArray[np.complex128], Rings]:
    """Alm (len(rows), nalm) of maps times a function of l, and the rings of the pixels."""
    lmax, layout = len(factor) - 1, rings(geometry)
    alm = np.zeros((len(rows), (lmax + 1) * (lmax + 2) // 2), np.complex128)
    spectrum = _spectrum(maps, rows, layout, lmax)
    area = geometry.area()
    _analyse(alm, spectrum, layout, area, spin)
    last = alm
    for left in range(iterations, 0, -1):
        _subtract(spectrum, last, layout, spin)
        last = np.empty_like(alm) if left > 1 else None
        _analyse(alm, spectrum, layout, area, spin, last)
    for one in alm:
        scale_alm(one, factor)
    return alm, layout


def _add(
    maps: Sequence[NDArray[np.float32]], alm: NDArray[np.complex128], layout: Rings, spin: int
) -> None:
    """Add the maps of alm to others, in place."""
    for ring in _pieces(layout, alm_lmax(alm)):
        values = ring_values(alm, layout, ring, spin)
        pixel = _pixels(layout, ring)
        for one, part in zip(maps, values, strict=True):
            one[pixel] += part.astype(np.float32)


def _pieces(layout: Rings, lmax: int) -> Iterator[NDArray[np.int64]]:
    """Numbers of rings that mirror each other at the equator, some at a time."""
    n = len(layout.theta)
    order = np.stack([np.arange(n), np.arange(n)[::-1]], axis=1).ravel()[:n]
    for part in chunks(np.maximum(layout.nphi[order], lmax + 1), PIECE):
        yield np.sort(order[part])


def _pixels(layout: Rings, ring: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pixels of rings, one ring after the other."""
    return np.concatenate([layout.start[r] + np.arange(layout.nphi[r]) for r in ring])


def _to_rings(maps: NDArray[np.float64], layout: Rings, ring: NDArray, lmax: int) -> NDArray:
    """Fourier transforms (ncomp, nrings, lmax + 1) of some rings, which follow one another."""
    import ducc0

    nphi = layout.nphi[ring]
    return ducc0.sht.map2leg(
        map=maps,
        nphi=nphi.astype(np.uint64),
        phi0=layout.phi0[ring],
        ringstart=(np.cumsum(nphi) - nphi).astype(np.uint64),
        mmax=lmax,
        nthreads=threads(),
    )


def _spectrum(maps: Array, rows: Sequence[int], layout: Rings, lmax: int) -> NDArray[np.complex64]:
    """Fourier transforms of all rings, (len(rows), nrings, lmax + 1)."""
    out = np.empty((len(rows), len(layout.theta), lmax + 1), np.complex64)
    for number, row in enumerate(rows):
        values = np.asarray(maps[row])
        for ring in _pieces(layout, lmax):
            part = values[_pixels(layout, ring)].astype(np.float64)
            out[number, ring] = _to_rings(part[np.newaxis], layout, ring, lmax)[0]
    if not np.isfinite(out[:, :, 0]).all():  # the sum of a ring
        bad = int(np.count_nonzero(~np.isfinite(out[:, :, 0])))
        raise ValueError(f"map has {bad} rings that are not finite: must be finite everywhere")
    return out


def _analyse(
    alm: NDArray[np.complex128],
    spectrum: NDArray[np.complex64],
    layout: Rings,
    area: float,
    spin: int,
    added: NDArray[np.complex128] | None = None,
) -> None:
    """Add to alm those of maps whose rings have a spectrum, with equal weights of all pixels.

    What is added is kept in `added`, if there is such an array.
    """
    import ducc0

    ncomp, nrings, nm = spectrum.shape
    lmax = nm - 1
    width = max(1, PIECE // nrings)
    for low in range(0, nm, width):
        m = np.arange(low, min(low + width, nm))
        # the alm of these m follow one another
        first = m * (2 * lmax + 1 - m) // 2
        begin, end = first[0] + m[0], first[-1] + nm
        made = np.zeros((ncomp, end - begin), np.complex128)
        ducc0.sht.leg2alm(
            leg=spectrum[:, :, low : low + width].astype(np.complex128),
            lmax=lmax,
            spin=spin,
            theta=layout.theta,
            mval=m.astype(np.uint64),
            mstart=(first - first[0]).astype(np.uint64) - np.uint64(m[0]),
            alm=made,
            nthreads=threads(),
        )
        made *= area
        alm[:, begin:end] += made
        if added is not None:
            added[:, begin:end] = made


def _subtract(
    spectrum: NDArray[np.complex64], alm: NDArray[np.complex128], layout: Rings, spin: int
) -> None:
    """Subtract from the spectrum of rings that of the maps of alm, in place."""
    lmax = spectrum.shape[2] - 1
    for ring in _pieces(layout, lmax):
        made = ring_values(alm, layout, ring, spin)
        spectrum[:, ring] -= _to_rings(made, layout, ring, lmax)
