"""The sphere as 192 stereographic charts, and how fields get onto and off them.

A fully convolutional network needs large pictures with square pixels and no shear. Each HEALPix
nside-4 pixel gets one stereographic chart, turned so that the pixel fills its rectangle, with a
margin; every point of the sky is *owned* by the chart whose pixel holds it.
`mlsky.sphere.field.Field` evaluates a band-limited field on a chart. `mlsky.sphere.resampling` has
`resample` (pixel averages, which keep positive fields positive) and `interpolate` (point samples of
smooth fields) for the way back.

The projection is that of Snyder (1987, USGS Prof. Paper 1395, eqs 21-2 to 21-4), with
radius 2 tan(c/2) at distance c from the centre: a chart pixel subtends ``pixel_arcmin``
at the centre and cos^2(c/2) of it elsewhere.

Everything is computed in blocks of fixed size, so no result depends on the number of
threads.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlsky.sphere.chart_area import Area
from mlsky.sphere.geometry import Car, Geometry, Healpix, Legendre
from mlsky.sphere.threads import run_blocks

__all__ = [
    "NSIDE",
    "Chart",
    "charts",
    "owned",
    "owned_area",
    "owners",
]

#: One chart per pixel of this HEALPix grid (NESTED numbers).
NSIDE = 4

#: Side of the blocks of pixels whose owner is found together, and how many blocks around one must
#: agree (`owners`).
_SURE, _AWAY = 8, 3


@dataclass(frozen=True)
class Chart:
    """One stereographic chart.

    Parameters
    ----------
    index
        NESTED number of the nside-4 pixel it owns: its HEALPix output pixels of any
        nside >= 4 are then one block of NESTED numbers.
    shape
        ``(ny, nx)`` pixels.
    pixel_arcmin
        Side of a pixel at the centre of the chart.
    rotation
        (3, 3): rows are the x and y axes and the centre of the chart as unit vectors.
    """

    index: int
    shape: tuple[int, int]
    pixel_arcmin: float
    rotation: NDArray[np.float64] = field(compare=False, repr=False)

    @property
    def pixel_rad(self) -> float:
        return float(np.radians(self.pixel_arcmin / 60))

    @property
    def npix(self) -> int:
        return self.shape[0] * self.shape[1]

    def _plane(self, pixel: slice | np.ndarray | None, level: int = 0):
        """Plane coordinates y, x (rad) of flat pixel numbers after `level` halvings."""
        ny, nx = (n >> level for n in self.shape)
        if not isinstance(pixel, np.ndarray):
            pixel = np.arange(*(pixel or slice(ny * nx)).indices(ny * nx))
        y, x = np.divmod(pixel, nx)
        step = self.pixel_rad * (1 << level)
        return (y - (ny - 1) / 2) * step, (x - (nx - 1) / 2) * step

    def vectors(
        self, pixel: slice | NDArray[np.int64] | None = None, level: int = 0
    ) -> NDArray[np.float64]:
        """Unit vectors (3, n) of the centres of the flat pixels ``pixel``; all by default.

        `level` is the number of halvings: pixels ``2**level`` times as large, as in the deeper
        levels of a network.
        """
        return self._lift(*self._plane(pixel, level))

    def vectors_at(self, y, x) -> NDArray[np.float64]:
        """Unit vectors (3, n) of fractional pixel coordinates: the inverse of `project`."""
        y = (np.asarray(y) - (self.shape[0] - 1) / 2) * self.pixel_rad
        x = (np.asarray(x) - (self.shape[1] - 1) / 2) * self.pixel_rad
        return self._lift(y, x)

    def _lift(self, y, x) -> NDArray[np.float64]:
        """Unit vectors of the sky from plane coordinates (rad), Snyder eqs 20-14, 20-15."""
        q = (x * x + y * y) / 4
        scale = 1 / (1 + q)
        return _turn(self.rotation.T, (x * scale, y * scale, (1 - q) * scale))

    def angles(
        self, pixel: slice | NDArray[np.int64] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Colatitude and longitude (rad) of the pixel centres.

        Returns
        -------
        theta, phi
            float64 of the chart's shape, or 1-d for flat pixels.
        """
        v = self.vectors(pixel)
        theta = np.arctan2(np.hypot(v[0], v[1]), v[2])
        phi = np.arctan2(v[1], v[0]) % (2 * np.pi)
        shape = self.shape if pixel is None else theta.shape
        return theta.reshape(shape), phi.reshape(shape)

    def project(self, theta, phi) -> tuple[np.ndarray, np.ndarray]:
        """Fractional pixel coordinates (y, x) of directions; 0 is the centre of the first pixel."""
        theta, phi = np.asarray(theta, np.float64), np.asarray(phi, np.float64)
        s = np.sin(theta)
        return self.project_vectors(np.stack([s * np.cos(phi), s * np.sin(phi), np.cos(theta)]))

    def project_vectors(self, vectors: NDArray[np.float64]) -> tuple[np.ndarray, np.ndarray]:
        """As `project`, from unit vectors of shape (3, ...)."""
        x, y, z = _turn(self.rotation, vectors)
        scale = 2 / (self.pixel_rad * (1 + z))
        return y * scale + (self.shape[0] - 1) / 2, x * scale + (self.shape[1] - 1) / 2

    def scale(self, pixel: slice | None = None) -> NDArray[np.float64]:
        """Side of each pixel on the sky over its side at the centre, <= 1.

        (ny, nx), or (n,) for the flat pixels of a slice.
        """
        y, x = self._plane(pixel)
        scale = 1 / (1 + (x * x + y * y) / 4)
        return scale.reshape(self.shape) if pixel is None else scale


@functools.lru_cache(maxsize=8)
def charts(pixel_arcmin: float, margin: int = 32, multiple: int = 32) -> tuple[Chart, ...]:
    """Return the 192 charts of the sky, in NESTED order.

    Parameters
    ----------
    pixel_arcmin
        Side of a chart pixel at the chart's centre.
    margin
        Least number of pixels between the owned area and the edge.
    multiple
        Both sides of a chart are multiples of this: the total stride of the network.

    Raises
    ------
    ValueError
        If a pixel is not between 0.1 and 30 arcmin, or margin or multiple are negative.
    """
    import healpy

    if not 0.1 <= pixel_arcmin <= 30:
        raise ValueError(
            f"pixel_arcmin={pixel_arcmin!r}: must be from 0.1 to 30, for example 2.0 or 0.5"
        )
    if margin < 0 or multiple < 1:
        raise ValueError(f"margin={margin!r}, multiple={multiple!r}: must be >= 0 and >= 1")
    out = []
    for index in range(12 * NSIDE**2):
        edge = healpy.boundaries(NSIDE, index, step=32, nest=True)
        centre = np.array(healpy.pix2vec(NSIDE, index, nest=True))
        # The middle of the best rectangle is not the centre of the pixel: move there and rotate
        # again.
        for _ in range(3):
            rotation, half, middle = _tightest(edge, centre)
            centre = middle
        half = 2 * half / np.radians(pixel_arcmin / 60) + 2 * margin
        nx, ny = (int(np.ceil(h / multiple)) * multiple for h in half)
        rotation.flags.writeable = False
        out.append(Chart(index, (ny, nx), float(pixel_arcmin), rotation))
    return tuple(out)


def _turn(rotation: np.ndarray, vectors) -> np.ndarray:
    """Rotate (3, ...) vectors without BLAS, whose threads would compete with ours."""
    x, y, z = vectors
    return np.stack([r[0] * x + r[1] * y + r[2] * z for r in rotation])


def _tightest(edge: np.ndarray, centre: np.ndarray):
    """Rotation, half widths (x, y; rad) and middle of the smallest rectangle around `edge`."""
    z = centre / np.linalg.norm(centre)
    east = np.array([-z[1], z[0], 0.0]) / np.hypot(z[0], z[1])
    frame = np.stack([east, np.cross(z, east), z])
    x, y, w = frame @ edge
    x, y = 2 * x / (1 + w), 2 * y / (1 + w)
    turn = np.radians(np.arange(0, 90, 0.5))[:, None]
    xs, ys = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    area = np.ptp(xs, axis=1) * np.ptp(ys, axis=1)
    # Rounding must not decide between equally good rotations.
    best = int(np.argmax(area < area.min() * (1 + 1e-9)))
    c, s = np.cos(turn[best, 0]), np.sin(turn[best, 0])
    rotation = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ frame
    mid = np.array([(v[best].max() + v[best].min()) / 2 for v in (xs, ys)])
    half = np.array([np.abs(v[best]).max() for v in (xs, ys)])
    q = mid @ mid / 4
    return rotation, half, rotation.T @ np.array([*(mid / (1 + q)), (1 - q) / (1 + q)])


def owned(chart: Chart, geometry: Geometry) -> NDArray[np.int64]:
    """Flat numbers of the output pixels whose centres the chart owns.

    Every output pixel belongs to exactly one of the 192 charts.
    """
    import healpy

    if isinstance(geometry, Healpix):
        if geometry.nside < NSIDE:
            theta, phi = geometry.angles()
            return np.flatnonzero(healpy.ang2pix(NSIDE, theta, phi, nest=True) == chart.index)
        block = (geometry.nside // NSIDE) ** 2
        nested = np.arange(chart.index * block, (chart.index + 1) * block)
        return np.sort(healpy.nest2ring(geometry.nside, nested))
    axes = car_axes(geometry)
    if axes is None:
        theta, phi = geometry.angles()
        return np.flatnonzero(healpy.ang2pix(NSIDE, theta, phi, nest=True) == chart.index)
    theta, phi = axes
    z, longitude = extent(chart.index)
    slack = 1e-6
    rows = np.flatnonzero((np.cos(theta) >= z[0] - slack) & (np.cos(theta) <= z[1] + slack))
    turn = (phi - longitude[0] + slack) % (2 * np.pi)
    columns = np.flatnonzero(turn <= longitude[1] - longitude[0] + 2 * slack)
    if not rows.size or not columns.size:
        return np.empty(0, np.int64)
    inside = (
        healpy.ang2pix(NSIDE, theta[rows][:, None], phi[columns][None], nest=True) == chart.index
    )
    i, j = np.nonzero(inside)
    return rows[i] * geometry.shape[1] + columns[j]


def owners(chart: Chart, level: int = 0, padding: int = 0, nthreads: int = 0) -> NDArray[np.int16]:
    """Number of the chart that owns each pixel of a chart's picture.

    Parameters
    ----------
    level
        Number of halvings: pixels ``2**level`` times as large.
    padding
        Pixels (of that level) added outside each edge of the chart.

    Returns
    -------
    owners
        ((ny >> level) + 2 padding, (nx >> level) + 2 padding) int16.
    """
    import healpy
    from scipy.ndimage import maximum_filter, minimum_filter

    ny, nx = ((n >> level) + 2 * padding for n in chart.shape)
    step = 1 << level

    def ask(y, x) -> np.ndarray:
        y, x = ((c - padding + 0.5) * step - 0.5 for c in (y, x))
        return healpy.vec2pix(NSIDE, *chart.vectors_at(y, x), nest=True).astype(np.int16)

    # A pixel of nside 4 has no corner sharper than 45 degrees: what reaches into a block holds a
    # point of the blocks' grid less than three blocks away, so blocks among alike points are alike.
    y, x = (np.arange(-_AWAY, -(-n // _SURE) + _AWAY + 1) * _SURE for n in (ny, nx))
    coarse = ask(y[:, None], x)
    size = 2 * _AWAY + 2
    low, high = (f(coarse, size, mode="nearest") for f in (minimum_filter, maximum_filter))
    # filters of even size extend one element further back: element i is the block before point i
    inside = (slice(_AWAY + 1, len(y) - _AWAY), slice(_AWAY + 1, len(x) - _AWAY))
    known = np.where(low == high, low, -1)[inside]
    out = np.repeat(np.repeat(known, _SURE, 0), _SURE, 1)[:ny, :nx]
    open_ = np.flatnonzero(out == -1)
    flat = out.reshape(-1)

    def work(s: slice) -> None:
        flat[open_[s]] = ask(*np.divmod(open_[s], nx))

    run_blocks(work, open_.size, nthreads)
    return flat.reshape(ny, nx)


@functools.lru_cache(maxsize=12 * NSIDE**2)
def owned_area(chart: Chart, padding: int = 0) -> Area:
    """Pixels of the chart whose centres it owns, and those at most `padding` pixels away."""
    return Area.of(owners(chart) == chart.index).widened(padding)


def car_axes(geometry: Car | Legendre) -> tuple[np.ndarray, np.ndarray] | None:
    """Colatitude by row and longitude by column (rad) of a plain grid, else None."""
    return geometry.axes() if isinstance(geometry, Legendre) else geometry.axes


@functools.cache
def extent(index: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Ranges of cos(theta) and of longitude (rad) that contain an nside-4 pixel."""
    import healpy

    # Between two of these points the boundary bends by less than 0.01 rad.
    pad = 0.01
    x, y, z = healpy.boundaries(NSIDE, index, step=32, nest=True)
    away = np.hypot(x, y) > 1e-6  # a pole has no longitude; its neighbours give the range
    _, centre = healpy.pix2ang(NSIDE, index, nest=True)
    turn = (np.arctan2(y, x)[away] - centre + np.pi) % (2 * np.pi) - np.pi
    return (
        (float(z.min()) - pad, float(z.max()) + pad),
        (float(centre + turn.min()) - pad, float(centre + turn.max()) + pad),
    )
