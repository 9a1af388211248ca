"""Maps of charts on output pixels: splines, kernels, means over parts of a pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlsky.sphere.charts import NSIDE, Chart, car_axes, extent, owned
from mlsky.sphere.field import gather
from mlsky.sphere.geometry import Geometry, Healpix
from mlsky.sphere.threads import BLOCK, run_blocks

__all__ = [
    "average",
    "interpolate",
    "part_arcmin",
    "resample",
]

#: Largest side of a part of an output pixel, in chart pixels. At nside 1024 and 2 arcmin
#: (and at 4096 and 0.5) the four children are 0.86 wide.
_PART = 0.9

#: Largest side of a part of an output pixel, in chart pixels, for which the samples conserve the
#: flux of a field on the chart: at 1.72 (nside 1024 and 2 arcmin) the first alias of its mean lies
#: at 1.16 times the highest multipole of the chart.
_SAMPLE, _POLAR = 1.75, 0.3


def resample(
    chart: Chart,
    maps: NDArray[np.float32],
    geometry: Geometry,
    pixel: NDArray[np.int64] | None = None,
    nthreads: int = 0,
) -> NDArray[np.float32]:
    """Average intensity maps of a chart over the output pixels it owns.

    Every chart pixel is a square of constant intensity. An output pixel is cut into parts
    (its NESTED children, for HEALPix) a little smaller than a chart pixel, and each part is the
    mean over its overlap with the chart pixels, taken as a square along the axes of the chart.
    Weights are positive and add up to one, so that positive maps stay positive, and a source keeps
    its flux wherever it falls on the output pixels.

    Parameters
    ----------
    maps
        (..., ny, nx), intensity-like (uK): no Jacobian is applied.
    pixel
        What `owned` gave, if at hand.

    Returns
    -------
    values
        (..., n) float32 at ``owned(chart, geometry)``.

    Notes
    -----
    The window is that of the output pixel times that of a chart pixel. Output pixels
    smaller than 0.9 chart pixels get bilinear interpolation. For HEALPix nside < 4 the
    mean is over the part of the pixel that the chart covers: make nside 4 and degrade.
    """
    maps, pixel = _check(chart, maps, geometry, pixel)
    parts = _parts(geometry, chart, _PART)
    steps = [side / chart.pixel_arcmin for side in geometry.sides_arcmin]
    width = max(max(s, 1.0) if n == 1 else s / n for s, n in zip(steps, parts, strict=True))

    def weights(x):
        """First of two cells, and the fractions of boxes centred on x in both."""
        low = x - (width - 1) / 2
        first = np.floor(low)
        fraction = np.minimum(1 - (low - first), width) / width
        fraction = fraction.astype(np.float32)
        return first.astype(np.int64), np.stack([fraction, 1 - fraction])

    return _sample(chart, maps, geometry, pixel, weights, parts, nthreads)


def interpolate(
    chart: Chart,
    maps: NDArray[np.float32],
    geometry: Geometry,
    pixel: NDArray[np.int64] | None = None,
    nthreads: int = 0,
) -> NDArray[np.float32]:
    """Sample smooth maps of a chart at the centres of the output pixels it owns.

    Cubic B-spline interpolation (Thevenaz, Blu & Unser 2000, doi:10.1109/42.875199):
    exact on chart pixels, for band-limited fields such as kappa. Not positive.

    Parameters
    ----------
    maps
        (..., ny, nx).
    pixel
        What `owned` gave, if at hand.

    Returns
    -------
    values
        (..., n) float32 at ``owned(chart, geometry)``.
    """
    return _cubic(chart, maps, geometry, pixel, (1, 1), nthreads)


def average(
    chart: Chart,
    maps: NDArray[np.float32],
    geometry: Geometry,
    pixel: NDArray[np.int64] | None = None,
    nthreads: int = 0,
) -> NDArray[np.float32]:
    """Average smooth maps of a chart over the output pixels it owns.

    As `interpolate`, at the centres of parts of each output pixel. Neighbouring charts sample the
    same field, so that a cluster on their border keeps its flux; with `resample` it does so only if
    it is wide compared to a chart pixel. The maps must contain the window of a part,
    `mlsky.sphere.windows.square` of `part_arcmin`, which completes the average over the pixel.

    Parameters
    ----------
    maps
        (..., ny, nx).
    pixel
        What `owned` gave, if at hand.

    Returns
    -------
    values
        (..., n) float32 at ``owned(chart, geometry)``.
    """
    return _cubic(chart, maps, geometry, pixel, _samples(geometry, chart), nthreads)


def part_arcmin(geometry: Geometry, chart: Chart) -> float:
    """Longer side of the parts of output pixels that `average` samples on a chart."""
    each = zip(geometry.sides_arcmin, _samples(geometry, chart), strict=True)
    return max(side / parts for side, parts in each)


def _parts(geometry: Geometry, chart: Chart, longest: float) -> tuple[int, int]:
    """Parts of an output pixel along a row and along a column, `longest` chart pixels at most."""
    steps = [side / chart.pixel_arcmin for side in geometry.sides_arcmin]
    nx, ny = (max(1, int(np.ceil(step / longest))) for step in steps)
    if isinstance(geometry, Healpix):
        nx = ny = 1 << (nx - 1).bit_length()
    return nx, ny


def _samples(geometry: Geometry, chart: Chart) -> tuple[int, int]:
    # around a pole no grid is regular, and only fine parts conserve the flux
    polar = abs(extent(chart.index)[0][0]) > 1 or abs(extent(chart.index)[0][1]) > 1
    return _parts(geometry, chart, _POLAR if polar else _SAMPLE)


def _cubic(
    chart: Chart, maps, geometry: Geometry, pixel, parts: tuple[int, int], nthreads: int
) -> np.ndarray:
    """Means of cubic B-splines through the chart's pixels at the parts of output pixels."""
    from scipy.ndimage import spline_filter

    maps, pixel = _check(chart, maps, geometry, pixel)
    flat = maps.reshape(-1, *chart.shape)
    flat = np.stack([spline_filter(m, 3, output=np.float32, mode="mirror") for m in flat])
    flat = flat.reshape(maps.shape)
    sixth = np.float32(1 / 6)

    def weights(x):
        first = np.floor(x)
        u = (x - first).astype(np.float32)
        v = 1 - u
        w0, w3 = v * v * v * sixth, u * u * u * sixth
        w1 = (np.float32(4) - 3 * u * u * (1 + v)) * sixth
        return first.astype(np.int64) - 1, np.stack([w0, w1, 1 - w0 - w1 - w3, w3])

    return _sample(chart, flat, geometry, pixel, weights, parts, nthreads)


def _check(chart: Chart, maps, geometry: Geometry, pixel):
    maps = np.asarray(maps, np.float32)
    if maps.shape[-2:] != chart.shape:
        raise ValueError(f"maps of shape {maps.shape}: must end in the chart's {chart.shape}")
    return maps, owned(chart, geometry) if pixel is None else np.asarray(pixel, np.int64)


def _sample(chart, maps, geometry, pixel, weights, parts, nthreads) -> np.ndarray:
    """Means over the parts of output pixels of separable weighted sums over chart cells."""
    padding = 4
    edge = ((0, 0), (padding, padding), (padding, padding))
    stack = np.pad(maps.reshape(-1, *chart.shape), edge, mode="edge")
    out = np.empty((len(stack), pixel.size), np.float32)
    # Pixels wider than a chart extend past it; others never do.
    covered = not (isinstance(geometry, Healpix) and geometry.nside < NSIDE)
    number = parts[0] * parts[1]

    def work(s: slice) -> None:
        y, x = chart.project_vectors(_vectors(geometry, pixel[s], parts))
        fraction = None
        if not covered:
            inside = (np.abs(2 * y + 1 - chart.shape[0]) < chart.shape[0]) & (
                np.abs(2 * x + 1 - chart.shape[1]) < chart.shape[1]
            )
            fraction = inside.reshape(-1, number)
            y, x = np.where(inside, y, 0), np.where(inside, x, 0)
        fy, wy = weights(y)
        fx, wx = weights(x)
        base = (fy + padding) * stack.shape[2] + (fx + padding)
        for i, grid in enumerate(stack):
            value = gather(grid, base, wy, wx)
            if number > 1:
                value = value.reshape(-1, number)
                value = np.average(value, axis=1, weights=fraction)
            out[i, s] = value

    run_blocks(work, pixel.size, nthreads, max(1, BLOCK // number))
    return out.reshape(*maps.shape[:-2], pixel.size)


def _vectors(geometry: Geometry, pixel: NDArray[np.int64], parts: tuple[int, int]) -> np.ndarray:
    """Unit vectors (3, n * nx * ny) of the centres of the (nx, ny) parts of output pixels."""
    import healpy

    if isinstance(geometry, Healpix):
        side, _ = parts
        if side == 1:
            return np.stack(healpy.pix2vec(geometry.nside, pixel))
        child = healpy.ring2nest(geometry.nside, pixel)[:, None] * side**2
        child = (child + np.arange(side**2)).ravel()
        return np.stack(healpy.pix2vec(geometry.nside * side, child, nest=True))
    axes = car_axes(geometry)
    row, column = np.divmod(pixel[:, None], geometry.shape[1])
    nx, ny = parts
    across, along = ((np.arange(n) + 0.5) / n - 0.5 for n in parts)
    if axes is None:
        y = (row + np.repeat(along, nx)).ravel()
        x = (column + np.tile(across, ny)).ravel()
        return np.stack(healpy.ang2vec(*geometry.angles_at(y, x)).T)
    steps = (0.0, 0.0) if nx * ny == 1 else geometry.steps
    theta = axes[0][:, None] - steps[1] * along
    phi = axes[1][:, None] + steps[0] * across
    st, ct, sp, cp = np.sin(theta), np.cos(theta), np.sin(phi), np.cos(phi)
    row, column = row[:, 0], column[:, 0]
    v = np.empty((3, row.size, ny, nx))
    v[0] = st[row][:, :, None] * cp[column][:, None]
    v[1] = st[row][:, :, None] * sp[column][:, None]
    v[2] = ct[row][:, :, None]
    return v.reshape(3, -1)
