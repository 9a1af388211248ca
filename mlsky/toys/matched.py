"""Blobs found by their beam and taken off one by one, as sources of the night sky are.

Local maxima of a noisy image are maxima of the noise, and a stack of them has a central peak that
no blob has. The correlation with the beam at every place is the likelihood ratio of a blob there;
the best is fitted together with its neighbours, taken off, and the next is looked for in what is
left (Hogbom 1974, A&AS 15, 417; the joint fits are those of Stetson 1987, PASP 99, 191).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky.toys.image_statistics import stack_of

__all__ = ["Shape", "filtered", "find", "number", "shape"]

_REACH = 4.0  # standard deviations of the beam: beyond, a blob is 3e-4 of its height
_NEAR = 4.0  # standard deviations: closer blobs are fitted together
_STEPS = 4  # of Gauss and Newton after each blob that is found
_ROUNDS = 2  # in which all are fitted again in the end
_FAR = 1.0  # standard deviations: the longest way that one step moves a blob


def _beam(n: int, places: NDArray, sigma: float) -> NDArray[np.float64]:
    """The beam (places, n) along one axis, of height one."""
    return np.exp(-((np.arange(n) - places[:, None]) ** 2) / (2 * sigma**2))


def _check(image: ArrayLike, sigma: float) -> NDArray[np.float64]:
    image = stack_of(image)
    if len(image) != 1:
        raise ValueError(f"{len(image)} images: blobs are found in one at a time")
    if not 0.3 <= sigma <= image.shape[-1] / 4:
        raise ValueError(
            f"sigma={sigma}: must be from 0.3 pixels, below which a beam is not sampled, to a "
            f"quarter of the image, {image.shape[-1] / 4:g}"
        )
    return image[0]


def filtered(image: ArrayLike, sigma: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Best height of a blob at each pixel, and its significance in units of the noise of a pixel.

    Parameters
    ----------
    image
        (n, n), its background zero.
    sigma
        Standard deviation of the beam (pixels).

    Returns
    -------
    height, significance : (n, n)
        Least squares for white noise, with the part of the beam that is inside the image: heights
        are unbiased at the edges as well. `significance` over the standard deviation of a pixel is
        in standard deviations.

    Raises
    ------
    ValueError
        If it is not one finite square image, or the beam does not fit it.
    """
    image = _check(image, sigma)
    n = len(image)
    beam = _beam(n, np.arange(n), sigma)
    inside = (beam**2).sum(1)
    norm = inside[:, None] * inside[None]
    correlation = beam @ image @ beam.T
    return correlation / norm, correlation / np.sqrt(norm)


def find(
    image: ArrayLike, sigma: float, threshold: float = 0.3, most: int = 500
) -> NDArray[np.float64]:
    """Blobs of an image, the most significant first.

    Parameters
    ----------
    image
        (n, n), its background zero.
    sigma
        Standard deviation of the beam (pixels).
    threshold
        Lowest height of a blob; with noise, some four times the standard deviation of a fitted
        height, which is that of a pixel over sqrt(pi) sigma.
    most
        Number of blobs at which to stop.

    Returns
    -------
    blobs : (found, 3)
        y, x (pixels) and height. Blobs closer than some 1.5 sigma are found as one, of their
        joint height: see `number`.

    Raises
    ------
    ValueError
        If it is not one finite square image, or a number is out of range.
    """
    image = _check(image, sigma)
    if not threshold > 0:
        raise ValueError(f"threshold={threshold}: must be > 0, or noise is found for ever")
    n = len(image)
    beam = _beam(n, np.arange(n), sigma)
    inside = (beam**2).sum(1)
    norm = inside[:, None] * inside[None]
    found = np.empty((0, 3))
    left = image
    while len(found) < most:
        correlation = beam @ left @ beam.T
        height = correlation / norm
        score = np.where(height >= threshold, correlation / np.sqrt(norm), -np.inf)
        y, x = np.unravel_index(int(score.argmax()), score.shape)
        if not np.isfinite(score[y, x]):
            break
        start = np.array([*_summit(height, y, x), height[y, x]])
        # a place that was taken already is a blob that the beam does not fit: it stays as it is
        if len(found) and np.hypot(*(found[:, :2] - start[:2]).T).min() < 0.5 * sigma:
            break
        found = _refine(image, np.vstack([found, start]), sigma)
        left = image - _model(found, sigma, n)
    for _ in range(_ROUNDS):  # the first were fitted before their neighbours were known
        for _ in range(len(found)):
            found = _refine(image, np.roll(found, -1, 0), sigma)
    return found[found[:, 2] >= threshold]


def _summit(height: NDArray, y: int, x: int) -> tuple[float, float]:
    """Top of the parabolas through a pixel and its neighbours."""
    place = []
    for axis, i in ((0, y), (1, x)):
        line = height[:, x] if axis == 0 else height[y]
        if 0 < i < len(line) - 1:
            low, top, high = line[i - 1 : i + 2]
            bend = low - 2 * top + high
            place.append(
                i + float(np.clip((low - high) / (2 * bend), -0.5, 0.5)) if bend < 0 else i
            )
        else:
            place.append(float(i))
    return place[0], place[1]


def _model(blobs: NDArray, sigma: float, n: int) -> NDArray[np.float64]:
    y, x = (_beam(n, blobs[:, i], sigma) for i in (0, 1))
    return (y * blobs[:, 2:]).T @ x


def _refine(image: NDArray, blobs: NDArray, sigma: float) -> NDArray[np.float64]:
    """Places and heights of the last blob and of those near it, fitted together."""
    n, blobs = len(image), blobs.copy()
    near = np.hypot(*(blobs[:, :2] - blobs[-1, :2]).T) < _NEAR * sigma
    rest = _model(blobs[~near], sigma, n)
    low = np.maximum(np.floor(blobs[near, :2].min(0) - _REACH * sigma).astype(int), 0)
    high = np.minimum(np.ceil(blobs[near, :2].max(0) + _REACH * sigma).astype(int) + 1, n)
    window = np.s_[low[0] : high[0], low[1] : high[1]]
    aim = (image - rest)[window].ravel()
    part = blobs[near]
    pixels = [np.arange(low[i], high[i]) for i in (0, 1)]
    best, cost = part.copy(), np.inf
    for step in range(_STEPS + 1):
        away = [(pixels[i] - part[:, i : i + 1]) / sigma for i in (0, 1)]
        y, x = (np.exp(-(a**2) / 2) for a in away)
        shapes = y[:, :, None] * x[:, None]
        wrong = aim - (shapes * part[:, 2, None, None]).sum(0).ravel()
        now = float(wrong @ wrong)
        if now >= cost:  # no better than before: a pair that cannot be told apart
            return _with(blobs, near, best)
        best, cost = part.copy(), now
        if step == _STEPS:
            break
        slopes = [
            shapes * (part[:, 2:] * away[0] / sigma)[:, :, None],
            shapes * (part[:, 2:] * away[1] / sigma)[:, None],
            shapes,
        ]
        matrix = np.stack(slopes, 1).reshape(3 * len(part), -1)
        square = matrix @ matrix.T
        square[np.diag_indices_from(square)] *= 1 + 1e-6
        move = np.linalg.lstsq(square, matrix @ wrong, rcond=1e-10)[0].reshape(-1, 3)
        move[:, :2] = np.clip(move[:, :2], -_FAR * sigma, _FAR * sigma)
        part = part + move
        part[:, :2] = np.clip(part[:, :2], -0.5, n - 0.5)
    return _with(blobs, near, best)


def _with(blobs: NDArray, near: NDArray, part: NDArray) -> NDArray[np.float64]:
    blobs[near] = part
    return blobs


def number(heights: ArrayLike, unit: float | None = None) -> int:
    """Blobs of one height that make these found ones: each counts as its height in that unit.

    Two blobs that lie upon one another are found as one of twice the height.

    Parameters
    ----------
    heights
        Of the blobs that were found.
    unit
        Height of one; by default the median of those found.
    """
    heights = np.asarray(heights, float)
    if not heights.size:
        return 0
    unit = float(np.median(heights)) if unit is None else unit
    if not unit > 0:
        raise ValueError(f"unit={unit}: must be > 0")
    return int(np.maximum(np.rint(heights / unit), 1).sum())


class Shape(NamedTuple):
    """An elliptical Gaussian fitted to a blob."""

    height: float
    y: float  # pixels
    x: float
    width: float  # root of the product of both axes: their standard deviations (pixels)
    ratio: float  # of the short axis to the long one


def shape(image: ArrayLike, place: ArrayLike, sigma: float) -> Shape:
    """Fit an elliptical Gaussian to the blob at a place (y, x), within four sigma of it.

    Raises
    ------
    ValueError
        If it is not one finite square image, the beam does not fit it, or there is nothing there.
    """
    from scipy.optimize import least_squares

    image = _check(image, sigma)
    y0, x0 = (float(v) for v in np.asarray(place, float)[:2])
    n, reach = len(image), _REACH * sigma
    rows, columns = (
        np.arange(max(0, int(np.floor(c - reach))), min(n, int(np.ceil(c + reach)) + 1))
        for c in (y0, x0)
    )
    if len(rows) < 3 or len(columns) < 3:
        raise ValueError(f"place ({y0:g}, {x0:g}): outside the image of {n} pixels")
    cut = image[np.ix_(rows, columns)]
    high = float(cut[np.abs(rows - y0).argmin(), np.abs(columns - x0).argmin()])
    if not high > 0:
        raise ValueError(f"place ({y0:g}, {x0:g}): there is nothing, {high:g}, to be fitted")
    y, x = rows[:, None], columns[None]

    def wrong(p):
        dy, dx = y - p[1], x - p[2]
        # the inverse covariance by its root, so that it cannot turn negative
        u, v = p[3] * dy + p[4] * dx, p[5] * dx
        return (p[0] * np.exp(-(u**2 + v**2) / 2) - cut).ravel()

    found = least_squares(wrong, [high, y0, x0, 1 / sigma, 0, 1 / sigma], method="lm").x
    root = np.array([[found[3], found[4]], [0, found[5]]])
    axes = 1 / np.maximum(np.linalg.svd(root, compute_uv=False), 1e-6)
    return Shape(
        float(found[0]),
        float(found[1]),
        float(found[2]),
        float(np.sqrt(axes[0] * axes[1])),
        float(axes.min() / axes.max()),
    )
