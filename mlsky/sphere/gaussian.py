"""Gaussian fields on the sphere: random alm, and transforms from alm to map and back.

alm are complex128 in healpy's order (m-major, m >= 0). Transforms are ducc0's
(Reinecke & Seljebotn 2013, doi:10.1051/0004-6361/201321494), and give the same bits
with any number of threads. Polarisation follows HEALPix (COSMO).
"""

from __future__ import annotations

import concurrent.futures
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlsky import seeds
from mlsky.sphere.geometry import Geometry, Healpix, Legendre
from mlsky.sphere.threads import run_blocks, threads

__all__ = [
    "Rings",
    "alm_lmax",
    "alm_to_map",
    "check_cl",
    "chunks",
    "draw_alm",
    "legendre_to_alm",
    "map_to_alm",
    "pixel_values",
    "ring_values",
    "rings",
    "scale_alm",
    "white",
]

#: Multipoles drawn into one buffer before it is scattered into m-major order.
_BLOCK = 256

#: Pixels synthesised at once in float64; bounds the memory beside the float32 map.
_CHUNK = 2**26

#: Accuracy of the synthesis at pixels that lie on no rings, relative to the rms.
_EPSILON = 1e-7

#: Jacobi iterations of the HEALPix analysis, as in healpy.map2alm.
_ITERATIONS = 3


@dataclass(frozen=True)
class Rings:
    """Rows of a map that lie on evenly filled iso-latitude rings.

    Parameters
    ----------
    theta, phi0
        Colatitude and azimuth (rad) of each ring and of its first point, *(nrings,)*.
    nphi
        Points in each full ring, *(nrings,)*.
    start
        Index in the map of the first point of each ring, *(nrings,)*.
    stride
        Step in the map from one point to the next: 1 or -1.
    used
        Number of points of each ring, from its first, that the map contains, *(nrings,)*.
    """

    theta: np.ndarray
    phi0: np.ndarray
    nphi: np.ndarray
    start: np.ndarray
    stride: int
    used: np.ndarray

    @property
    def full(self) -> bool:
        """Whether the map holds whole rings."""
        return bool(np.all(self.used == self.nphi))

    def pieces(self, limit: int) -> Iterator[np.ndarray]:
        """Indices of rings, in pieces that hold about `limit` points of full rings.

        Rings are taken in pairs from the outside in: ducc0 handles two rings that mirror each other
        at the equator together.
        """
        n = len(self.theta)
        order = np.stack([np.arange(n), np.arange(n)[::-1]], axis=1).ravel()[:n]
        for part in chunks(self.nphi[order], limit):
            yield np.sort(order[part])


def alm_lmax(alm: np.ndarray) -> int:
    """Band limit of *(..., nalm)* alm.

    Raises
    ------
    ValueError
        If nalm is not (lmax + 1)(lmax + 2)/2 for any lmax.
    """
    n = np.shape(alm)[-1] if np.ndim(alm) else 0
    lmax = (int(np.sqrt(8 * n + 1)) - 3) // 2
    if n < 1 or (lmax + 1) * (lmax + 2) // 2 != n:
        raise ValueError(
            f"alm of shape {np.shape(alm)}: the last axis must hold (lmax+1)(lmax+2)/2 values "
            "in healpy's order with mmax = lmax"
        )
    return lmax


def draw_alm(cl: np.ndarray, seed: int, field: str = "kappa") -> np.ndarray:
    """Draw the alm of a Gaussian field with spectrum `cl`.

    Every multipole has its own random stream, so a longer `cl` extends the same
    realisation without changing a bit of it.

    Parameters
    ----------
    cl
        C_l for l = 0..lmax, *(lmax + 1,)*, the field's unit squared.
    seed
        Integer >= 0.
    field
        Stream, one of `mlsky.seeds.FIELDS`.

    Returns
    -------
    ndarray
        *(nalm,)* complex128, lmax = len(cl) - 1; the m = 0 are real.

    Raises
    ------
    ValueError
        If `cl` is negative or not finite, or the seed or field is not valid.
    """
    cl = check_cl(cl, "cl")
    return scale_alm(white(len(cl) - 1, seed, field)[0], np.sqrt(cl))


def alm_to_map(alm: np.ndarray, geometry: Geometry, spin: int = 0) -> np.ndarray:
    """Values of band-limited fields at the pixel centres.

    Parameters
    ----------
    alm
        *(nalm,)* for spin 0; *(2, nalm)*, E and B, for any other. Every multipole is used, even
        above the band limit of the pixels.
    geometry
        Pixels of the map.
    spin
        0, or 2 for polarisation.

    Returns
    -------
    ndarray
        *(geometry.shape)* float32, or *(2, geometry.shape)*, Q and U in HEALPix's
        convention; 0 in pixels off the sphere.

    Raises
    ------
    ValueError
        If the shape of `alm` does not fit the spin.
    """
    alm = _check_alm(alm, spin)
    return pixel_values(alm, geometry, spin, dtype=np.float32).reshape(
        (() if spin == 0 else (2,)) + geometry.shape
    )


def map_to_alm(
    map: np.ndarray, geometry: Geometry, lmax: int, spin: int = 0, iterations: int = _ITERATIONS
) -> np.ndarray:
    """Harmonic analysis of a map.

    Parameters
    ----------
    map
        *(geometry.shape)*, or *(2, geometry.shape)* for spin 2; finite.
    geometry
        Pixels of the map. The full sky is needed for a faithful inverse; a cut-out is
        analysed as if the rest of the sky were zero.
    lmax
        Band limit of the result.
    spin
        0 or 2.
    iterations
        HEALPix only: Jacobi iterations. None suffices for a small change of a map.

    Returns
    -------
    ndarray
        *(nalm,)* or *(2, nalm)* complex128.

    Raises
    ------
    ValueError
        If the shape of `map` is not that of the geometry, or a pixel is not finite.

    Notes
    -----
    HEALPix: equal weights and Jacobi iterations, as healpy. Fejer-1 CAR: exact up to the number
    of rows less one (through pixell).
    """
    expected = (() if spin == 0 else (2,)) + geometry.shape
    if np.shape(map) != expected:
        raise ValueError(f"map of shape {np.shape(map)}: must be {expected}, as its geometry")
    map = np.asarray(map, dtype=np.float64).reshape(1 if spin == 0 else 2, -1)
    if not np.isfinite(map).all():
        bad = int(np.count_nonzero(~np.isfinite(map)))
        raise ValueError(f"map has {bad} pixels that are not finite: fill them, for example with 0")
    alm = _analyse(map, geometry, int(lmax), spin, iterations)
    return alm[0] if spin == 0 else alm


def legendre_to_alm(
    values: np.ndarray, grid: Legendre, lmax: int, rows: slice = slice(None)
) -> np.ndarray:
    """Harmonic analysis on Gauss-Legendre rings: exact, and one transform.

    Parameters
    ----------
    values
        *(nrings, nphi)* float32; rows are read in blocks, so it may lie on disk.
    lmax
        Band limit of the result, below `grid.nrings`.
    rows
        The rings that may be different from zero; the others are not read.

    Returns
    -------
    ndarray
        *(nalm,)* complex128.

    Raises
    ------
    ValueError
        If a shape does not fit or a value is not finite.
    """
    import ducc0

    if tuple(values.shape) != grid.shape or not 0 <= lmax < grid.nrings:
        raise ValueError(
            f"values of shape {tuple(values.shape)}, lmax={lmax}: must be {grid.shape}, as their "
            f"grid, and below {grid.nrings}"
        )
    first, stop, _ = rows.indices(grid.nrings)
    nrings = stop - first
    spectrum = np.empty((nrings, lmax + 1), np.complex64)
    weight = ducc0.misc.GL_weights(*grid.shape)[first:stop]

    def transform(s: slice) -> None:
        part = np.asarray(values[first + s.start : first + s.stop], dtype=np.float32)
        ring = ducc0.fft.r2c(part, axes=(1,), forward=True, nthreads=1)
        spectrum[s] = ring[:, : lmax + 1] * weight[s, np.newaxis]

    run_blocks(transform, nrings, block=32)
    if not np.isfinite(spectrum[:, 0]).all():  # the sum of a ring
        bad = int(np.count_nonzero(~np.isfinite(spectrum[:, 0])))
        raise ValueError(f"values have {bad} rings that are not finite: must be finite everywhere")
    alm = np.zeros((1, (lmax + 1) * (lmax + 2) // 2), np.complex128)
    theta = np.ascontiguousarray(grid.axes()[0][first:stop])
    all_m = np.arange(lmax + 1)
    start = all_m * (2 * lmax + 1 - all_m) // 2
    width = max(16, (1 << 21) // nrings)  # 32 MB at a time
    for i in range(0, lmax + 1, width):
        m = all_m[i : i + width]
        ducc0.sht.leg2alm(
            leg=spectrum[np.newaxis, :, m].astype(np.complex128),
            lmax=lmax,
            theta=theta,
            mval=m.astype(np.uint64),
            mstart=start[m].astype(np.uint64),
            alm=alm,
            nthreads=threads(),
        )
    return alm[0]


def rings(geometry: Geometry) -> Rings | None:
    """Rings of a geometry, or None if its pixels do not lie on evenly filled ones."""
    if isinstance(geometry, Healpix):
        import ducc0

        info = ducc0.healpix.Healpix_Base(geometry.nside, "RING").sht_info()
        nphi = info["nphi"].astype(np.int64)
        start = info["ringstart"].astype(np.int64)
        return Rings(info["theta"], info["phi0"], nphi, start, 1, nphi)
    return _car_rings(geometry)


def pixel_values(
    alm: np.ndarray, geometry: Geometry, spin: int, mode: str = "STANDARD", dtype=np.float64
) -> np.ndarray:
    """Synthesise *(ncomp, nalm)* alm at every pixel of a geometry, *(nmaps, npix)*.

    `mode` is ducc0's; ``"GRAD_ONLY"`` needs one alm, for a spin field without curl.
    """
    layout = rings(geometry)
    out = np.zeros((1 if spin == 0 else 2, geometry.npix), dtype=dtype)
    if layout is None:
        import ducc0

        common = {"alm": alm, "lmax": alm_lmax(alm), "spin": spin, "mode": mode}
        # One thread: the bits of this transform depend on how many there are.
        for part in chunks(np.ones(geometry.npix, dtype=np.int64), _CHUNK):
            theta, phi = geometry.angles(part)
            on_sky = np.isfinite(theta) & np.isfinite(phi)
            loc = np.stack([theta[on_sky], phi[on_sky]], axis=1)
            values = ducc0.sht.synthesis_general(loc=loc, epsilon=_EPSILON, nthreads=1, **common)
            out[:, part[on_sky]] = values
        return out
    for number in layout.pieces(_CHUNK):
        values = ring_values(alm, layout, number, spin, mode)
        first = 0
        for ring in number:
            used = layout.used[ring]
            target = layout.start[ring] + layout.stride * np.arange(used)
            out[:, target] = values[:, first : first + used]
            first += layout.nphi[ring]
    return out


def ring_values(
    alm: np.ndarray, layout: Rings, number: np.ndarray, spin: int, mode: str = "STANDARD"
) -> np.ndarray:
    """Values at all points of the rings `number` of a layout, *(nmaps, n)*; as `pixel_values`."""
    import ducc0

    nphi = layout.nphi[number]
    return ducc0.sht.synthesis(
        alm=alm,
        lmax=alm_lmax(alm),
        spin=spin,
        mode=mode,
        theta=layout.theta[number],
        phi0=layout.phi0[number],
        nphi=nphi.astype(np.uint64),
        ringstart=(np.cumsum(nphi) - nphi).astype(np.uint64),
        nthreads=threads(),
    )


def check_cl(cl: np.ndarray, name: str) -> np.ndarray:
    """A spectrum as *(lmax + 1,)* float64, finite and not negative, or a ValueError."""
    cl = np.asarray(cl, dtype=np.float64)
    if cl.ndim != 1 or len(cl) < 2:
        raise ValueError(f"{name} of shape {cl.shape}: must be (lmax + 1,) with lmax >= 1")
    if not np.all(np.isfinite(cl) & (cl >= 0)):
        worst = int(np.argmax(~(np.isfinite(cl) & (cl >= 0))))
        raise ValueError(f"{name}={cl[worst]:g} at l={worst}: must be finite and >= 0")
    return cl


def _check_alm(alm: np.ndarray, spin: int) -> np.ndarray:
    shape = np.shape(alm)
    if (spin == 0 and len(shape) != 1) or (spin != 0 and (len(shape) != 2 or shape[0] != 2)):
        wanted = "(nalm,)" if spin == 0 else "(2, nalm)"
        raise ValueError(f"alm of shape {shape}: must be {wanted} for spin {spin}")
    alm_lmax(alm)
    return np.ascontiguousarray(np.atleast_2d(alm), dtype=np.complex128)


def white(lmax: int, seed: int, field: str, count: int = 1) -> np.ndarray:
    """Draw `count` independent white alm of unit power, *(count, nalm)*, multipole by multipole."""
    seeds.sequence(seed, field)  # an invalid seed or field is refused here, not in a thread
    m = np.arange(lmax + 1)
    first = m * (2 * lmax + 1 - m) // 2  # index of (l, m) is first[m] + l
    alm = np.zeros((count, (lmax + 1) * (lmax + 2) // 2), dtype=np.complex128)
    block = np.zeros((_BLOCK, count, lmax + 1), dtype=np.complex128)

    def fill(rows: np.ndarray, ell: int) -> None:
        stream = seeds.generator(seed, field, ell)
        for row in rows:
            normal = stream.standard_normal(2 * ell + 1)
            row[0] = normal[0]
            np.multiply(normal[1 : ell + 1], np.sqrt(0.5), out=row.real[1 : ell + 1])
            np.multiply(normal[ell + 1 :], np.sqrt(0.5), out=row.imag[1 : ell + 1])

    # Every row has its own stream, so that the order in which threads fill them does not matter.
    with concurrent.futures.ThreadPoolExecutor(threads()) as pool:
        for low in range(0, lmax + 1, _BLOCK):
            ells = np.arange(low, min(low + _BLOCK, lmax + 1))
            for _ in pool.map(fill, block, ells.tolist()):
                pass
            for k, out in enumerate(alm):
                # Scattering long runs of consecutive l is far faster than single values.
                out[first[: low + 1, None] + ells] = block[: len(ells), k, : low + 1].T
                for row, ell in zip(block[:, k], ells, strict=False):
                    out[first[low + 1 : ell + 1] + ell] = row[low + 1 : ell + 1]
    return alm


def scale_alm(alm: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Multiply one *(nalm,)* alm by a function of l, *(lmax + 1,)*, in place."""
    lmax = len(factor) - 1
    first = 0
    for m in range(lmax + 1):
        alm[first : first + lmax + 1 - m] *= factor[m:]
        first += lmax + 1 - m
    return alm


def chunks(sizes: np.ndarray, limit: int) -> Iterator[np.ndarray]:
    """Consecutive index ranges that cover everything, each with about `limit` elements."""
    number = (np.cumsum(sizes) - 1) // limit
    edges = np.flatnonzero(np.diff(number)) + 1
    bounds = [0, *edges.tolist(), len(sizes)]
    for low, high in itertools.pairwise(bounds):
        yield np.arange(low, high)


def _car_rings(geometry: Geometry) -> Rings | None:
    """Rings of a cylindrical grid whose columns divide the circle evenly."""
    ny, nx = geometry.shape
    if not geometry.cylindrical:
        return None
    turn = abs(2 * np.pi / geometry.steps[0])
    nphi = round(turn)
    # 1e-6 pixels over the whole circle, pixell's own tolerance for a known layout.
    if abs(turn - nphi) > 1e-6 or nx > nphi:
        return None
    row = np.arange(ny) * nx
    # Azimuth grows along a ring; RA usually falls with x, and then a ring is read backwards.
    stride = 1 if geometry.steps[0] > 0 else -1
    start = row if stride == 1 else row + nx - 1
    theta, phi = geometry.angles(start)
    size = np.full(ny, nphi)
    # Rounding may put a row at a pole slightly outside the sphere.
    return Rings(np.clip(theta, 0, np.pi), phi, size, start, stride, np.full(ny, nx))


def _analyse(map: np.ndarray, geometry: Geometry, lmax: int, spin, iterations) -> np.ndarray:
    """Analysis of *(nmaps, npix)* float64 into *(nmaps, nalm)*."""
    if isinstance(geometry, Healpix):
        import ducc0

        info = ducc0.healpix.Healpix_Base(geometry.nside, "RING").sht_info()
        common = {"lmax": lmax, "spin": spin, "nthreads": threads(), **info}
        area = geometry.area()
        alm = area * ducc0.sht.adjoint_synthesis(map=map, **common)
        for _ in range(iterations):
            rest = map - ducc0.sht.synthesis(alm=alm, **common)
            alm += area * ducc0.sht.adjoint_synthesis(map=rest, **common)
        return alm
    from pixell import curvedsky, enmap

    grid = enmap.ndmap(map.reshape(len(map), *geometry.shape), geometry.wcs)
    # One thread: the bits of ducc0's transform of a grid depend on how many there are.
    if spin == 0:
        return curvedsky.map2alm(grid[0], lmax=lmax, spin=0, nthread=1)[None]
    return curvedsky.map2alm(grid, lmax=lmax, spin=[spin], nthread=1)
