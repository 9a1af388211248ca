"""Band-limited fields at any points of the sphere, from one oversampled grid.

A value costs 36 multiplications, so that a field of any lmax can be evaluated chart by chart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.sphere import ring_spectra
from mlsky.sphere.threads import run_blocks, threads

if TYPE_CHECKING:
    from mlsky.sphere.chart_area import Area
    from mlsky.sphere.charts import Chart

__all__ = ["Field", "gather"]

#: Taps of the gridding kernel and oversampling of its grid. The error of the kernel is
#: about exp(-pi W sqrt(1 - 1/sigma)) (Barnett, Magland & af Klinteberg 2019,
#: arXiv:1808.06736): 2e-5 in one dimension; 5e-5 was measured on the sphere.
_TAPS, _OVERSAMPLING = 6, 1.5

#: Degree of the polynomials that approximate the kernel, one per tap, to 1e-6 of its peak.
_DEGREE = 9

#: Rows, relative to the band limit, up to which rings close by are the faster way to make them.
_FEW_ROWS = 0.6


def _kernel() -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Polynomials (degree+1, taps, 1) in the offset, and the transform of the kernel they give.

    The kernel is exp(beta (sqrt(1 - (2 x / W)^2) - 1)), Barnett et al. 2019, eq. 1.8.
    """
    beta = 0.98 * np.pi * _TAPS * (1 - 0.5 / _OVERSAMPLING)

    def shape(x):
        return np.exp(beta * (np.sqrt(np.maximum(1 - (2 * x / _TAPS) ** 2, 0)) - 1))

    u = (1 - np.cos(np.pi * (np.arange(64) + 0.5) / 64)) / 2
    tap = np.arange(_TAPS) - _TAPS // 2 + 1
    fits = [np.polynomial.Polynomial.fit(u, shape(u - t), _DEGREE, [0, 1]) for t in tap]
    poly = np.stack([f.convert(domain=[-1, 1]).coef for f in fits], axis=1)

    node, weight = np.polynomial.legendre.leggauss(32)
    node, weight = (node + 1) / 2, weight / 2
    position = np.concatenate([node - t for t in tap])
    value = np.concatenate([f(node) * weight for f in fits])

    def transform(angle):
        """Integral of kernel(x) cos(angle x) dx, for angles in rad per grid step."""
        return np.cos(np.outer(angle, position)) @ value

    return poly[:, :, None].astype(np.float32), transform


def _synthesise(
    alm, lmax: int, transform, nthreads: int, spin: int, colatitude=None, local: bool = False
):
    """Grids (n, rows, columns), padded by four points on each side; steps (rad); first row."""
    import ducc0

    n = lmax + 2
    ntheta = ducc0.fft.good_size(max(int(np.ceil(_OVERSAMPLING * n)), 8))
    nphi = 2 * ducc0.fft.good_size(max(int(np.ceil(_OVERSAMPLING * n)), 8))
    steps = np.pi / ntheta, 2 * np.pi / nphi
    rows = _rows(colatitude, steps[0], ntheta)
    few = rows.stop - rows.start < _FEW_ROWS * n
    close_by = (local or few) and ntheta >= 4 * ring_spectra.FILTER
    shape = (2 if spin else len(alm), rows.stop - rows.start + 8, nphi + 8)
    grids = np.zeros(shape, np.float32)
    # Ring spectra are kept in the grid's own memory until their Fourier transform.
    spectra = [grid.view(np.complex64)[4:-4] for grid in grids]
    over_m = 1 / transform(np.arange(lmax + 1) * steps[1])
    method = ring_spectra.from_close_rings if close_by else ring_spectra.from_all_rings
    for number, m, values in method(alm, lmax, transform, nthreads, spin, rows, ntheta):
        spectra[number][:, m] = values * over_m[m]
    for grid, spectrum in zip(grids, spectra, strict=True):
        _finish(grid, spectrum, nphi, nthreads, spin)
    return grids, steps, rows.start


def _rows(colatitude: tuple[float, float] | None, step: float, ntheta: int) -> slice:
    """Rows of the grid needed for a range of colatitudes, including the width of the kernel.

    Whole blocks of `ring_spectra.TRANSFORMS`, which are transformed together.
    """
    if colatitude is None:
        return slice(0, ntheta)
    low, high = (int(np.floor(angle / step - 0.5)) for angle in colatitude)
    start = max(0, low - _TAPS) // ring_spectra.TRANSFORMS * ring_spectra.TRANSFORMS
    stop = min(ntheta, -(-(high + _TAPS + 1) // ring_spectra.TRANSFORMS) * ring_spectra.TRANSFORMS)
    return slice(min(start, max(0, stop - 8)), max(stop, min(ntheta, 8)))


def _finish(grid, spectrum, nphi: int, nthreads: int, spin: int) -> None:
    """Fourier transform of the rings in the grid's own memory, and its padding."""
    import ducc0

    ntheta = len(spectrum)

    def work(s: slice) -> None:
        rows = spectrum[s, : nphi // 2 + 1].copy()
        ring = ducc0.fft.c2r(rows, axes=(1,), lastsize=nphi, forward=False, nthreads=1)
        grid[4 + s.start : 4 + s.stop, 4:-4] = ring

    run_blocks(work, ntheta, nthreads, ring_spectra.TRANSFORMS)
    # Across a pole: the rings before it, half a turn further, where a vector has turned round. Then
    # the padding in longitude.
    sign = -1 if spin & 1 else 1
    for padding, inside in ((range(3, -1, -1), range(4, 8)), (range(-4, 0), range(-5, -9, -1))):
        for a, b in zip(padding, inside, strict=True):
            grid[a, 4:-4] = sign * np.roll(grid[b, 4:-4], nphi // 2)
    grid[:, :4] = grid[:, -8:-4]
    grid[:, -4:] = grid[:, 4:8]


def _horner(poly: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Weights (taps, n) of all taps at the offsets `u`."""
    out = poly[-1] * u
    for c in poly[-2:0:-1]:
        out += c
        out *= u
    out += poly[0]
    return out


def gather(grid: np.ndarray, base: np.ndarray, wy: np.ndarray, wx: np.ndarray) -> np.ndarray:
    """Sum of wy[j] wx[i] grid.flat[base + j * row + i] over the taps, (n,) float32."""
    flat, row = grid.reshape(-1), grid.shape[1]
    out = np.zeros(base.size, np.float32)
    value, line = np.empty_like(out), np.empty_like(out)
    for j in range(len(wy)):
        line.fill(0)
        for i in range(len(wx)):
            # "clip" only spares numpy a copy: every index is inside.
            np.take(flat[j * row + i :], base, out=value, mode="clip")
            value *= wx[i]
            line += value
        line *= wy[j]
        out += line
    return out


class Field:
    """Real band-limited fields that can be evaluated at any points of the sphere.

    A field is synthesised once on an oversampled equiangular grid, already divided by the
    transform of a compact kernel; a value is then a sum over 6 x 6 grid points. It is a type-2
    non-uniform FFT (as in ducc0's ``synthesis_general``) whose grid is kept, so that the sky can be
    evaluated chart by chart.

    Parameters
    ----------
    alm
        (nalm,) complex, healpy order with mmax = lmax; (n, nalm) for n fields, whose values are
        then on a leading axis. For spins 1 and 2 (1, nalm), E alone, or (2, nalm), E and B.
    nthreads
        0 takes `mlsky.sphere.threads.threads`. The values are the same to the bit for any number.
    spin
        0; 2: Q and U in HEALPix's convention, on a leading axis of the values; 1: a vector's
        components to the south and to the east, E of a gradient being sqrt(l (l + 1)) times the
        multipoles of the field whose gradient it is.
    colatitude
        Range (rad) to which evaluations are restricted, which saves memory; a small range costs
        what its own rows cost.
    local
        Whether values in a range of colatitudes are those of the whole field to the bit. If not,
        they may be rounded otherwise in single precision, and the whole field is made faster.

    Raises
    ------
    ValueError
        If the shape of `alm` is not allowed, or a position is outside the range.

    Notes
    -----
    Error: 5e-5 of the rms of the field (white to lmax, the worst case). Memory:
    4 (1.5 lmax) (3 lmax) bytes for each field, 0.53 GB at lmax 5400 and 2.1 GB at 10800; twice that
    for spin 2.
    """

    def __init__(
        self,
        alm: NDArray[np.complexfloating],
        nthreads: int = 0,
        spin: int = 0,
        colatitude: tuple[float, float] | None = None,
        local: bool = False,
    ):
        alm = np.asarray(alm)
        rows = alm[np.newaxis] if alm.ndim == 1 else alm
        size = rows.shape[-1] if rows.ndim == 2 and spin in (0, 1, 2) else 0
        lmax = round((np.sqrt(8 * size + 1) - 3) / 2)
        fits = len(rows) > 0 if spin == 0 else (alm.ndim == 2 and len(alm) in (1, 2))
        if not fits or lmax < 0 or (lmax + 1) * (lmax + 2) // 2 != size:
            raise ValueError(
                f"alm of shape {alm.shape}, spin {spin}: must be (nalm,) or (n, nalm) for "
                "spin 0, (1, nalm) or (2, nalm) for spin 1 or 2, with nalm = (lmax+1)(lmax+2)/2 in "
                "healpy order, mmax = lmax"
            )
        self.lmax, self.spin = lmax, spin
        self._single = alm.ndim == 1
        self.nthreads = nthreads or threads()
        self._poly, transform = _kernel()
        self._range = colatitude
        self._grids, self._steps, self._first = _synthesise(
            np.ascontiguousarray(rows, np.complex128),
            lmax,
            transform,
            self.nthreads,
            spin,
            colatitude,
            local,
        )

    def __call__(self, theta, phi) -> NDArray[np.float32]:
        """Values at colatitude and longitude (rad), of their shape, or (n, ...) for n fields."""
        theta, phi = np.broadcast_arrays(np.asarray(theta, float), np.asarray(phi, float))
        out = np.empty((len(self._grids), theta.size), np.float32)
        flat_theta, flat_phi = theta.ravel(), phi.ravel()

        def work(s: slice) -> None:
            self._evaluate(flat_theta[s], flat_phi[s] % (2 * np.pi), out[:, s])

        run_blocks(work, theta.size, self.nthreads)
        return self._shaped(out, theta.shape)

    def on(self, chart: Chart, area: Area | None = None) -> NDArray[np.float32]:
        """Values at the pixel centres of a chart, (ny, nx), or (n, ny, nx) for n fields.

        With `area`, zero outside of it.
        """
        if area is None:
            out = np.empty((len(self._grids), chart.npix), np.float32)

            def work(s: slice) -> None:
                self._evaluate(*chart.angles(s), out[:, s])

            run_blocks(work, chart.npix, self.nthreads)
        else:
            out = np.zeros((len(self._grids), chart.npix), np.float32)
            pixel = np.flatnonzero(area.mask())

            def some(s: slice) -> None:
                values = np.empty((len(out), s.stop - s.start), np.float32)
                self._evaluate(*chart.angles(pixel[s]), values)
                out[:, pixel[s]] = values

            run_blocks(some, pixel.size, self.nthreads)
        return self._shaped(out, chart.shape)

    def _shaped(self, out: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return out.reshape(shape if self._single else (len(out), *shape))

    def _evaluate(self, theta: np.ndarray, phi: np.ndarray, out: np.ndarray) -> None:
        if self._range is not None and theta.size:
            low, high = self._range
            if not (low <= theta.min() and theta.max() <= high):
                raise ValueError(
                    f"colatitudes from {theta.min():.4g} to {theta.max():.4g} rad: this field was "
                    f"made for {low:.4g} to {high:.4g} alone"
                )
        y, x = theta / self._steps[0] - 0.5 - self._first, phi / self._steps[1]
        fy, fx = np.floor(y), np.floor(x)
        # The first tap lies two points before the point at or below; four rows of padding.
        base = (fy.astype(np.int64) + 2) * self._grids[0].shape[1] + (fx.astype(np.int64) + 2)
        wy = _horner(self._poly, (y - fy).astype(np.float32))
        wx = _horner(self._poly, (x - fx).astype(np.float32))
        for values, grid in zip(out, self._grids, strict=True):
            values[:] = gather(grid, base, wy, wx)
