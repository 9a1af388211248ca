"""Comparison of generated images of blobs with true ones (docs/blobs).

How many blobs an image holds, how wide and how round they are, where they lie; the pixels' range
and histogram; the power spectrum; noise on single pixels. Each figure stands beside that of true
images measured in the same way, and beside what is wanted of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky.statistics import checks
from mlsky.toys import matched
from mlsky.toys.image_statistics import Pixels, marginals, power, stack_of
from mlsky.toys.peaks import PeakStack

__all__ = ["Found", "Line", "compare", "distribution", "find_all", "findings", "noise"]

#: Share of an image's (or a set's) largest value below which nothing counts as a blob.
FAINTEST = 0.3
#: Sigmas from any other blob, and from the edges, of a blob whose shape is measured.
ALONE, EDGE = 6.0, 2.5
#: Quantiles of the histogram that are compared, and wavenumbers (cycles per image) of the power.
FRACTIONS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)
WAVES = (1, 32)  # a decade and a half
#: What the project wants: shares.
ONE_BLOB, WIDTH, ROUND, RANGE, COUNT, HISTOGRAM, POWER = 0.95, 0.03, 0.03, 0.05, 0.03, 0.05, 0.05
KS_P = 0.01
LEAST = 16  # images
FEW = 20  # blobs of an image up to which they are found one by one
#: Bands of the power in `findings` (cycles per image): longer than most distances between blobs,
#: where a blob's own shape decides, and where little but edges and noise is left.
BANDS = ((1, 8), (9, 16), (24, 32))
#: Distance from a peak at which its stack shows heavy tails, in standard deviations of a blob.
TAIL = 2.0


class Found(NamedTuple):
    """Blobs of many images."""

    counts: NDArray[np.int64]  # (images,) by `matched.number`
    blobs: list[NDArray[np.float64]]  # of each image, rows y, x, height
    widths: NDArray[np.float64]  # of blobs that stand alone (pixels)
    ratios: NDArray[np.float64]  # their short axis over their long one


class Line(NamedTuple):
    """One figure: of generated images, of true ones, and whether it is as wanted."""

    made: float
    true: float
    wanted: str
    good: bool


def find_all(maps: ArrayLike, sigma: float, scaled: bool = False) -> Found:
    """Blobs of equal height in each of many images, by the matched filter.

    Parameters
    ----------
    maps
        Images of few blobs, of height one unless `scaled`.
    sigma
        Standard deviation of a blob (pixels).
    scaled
        Whether each image has a unit of its own, the median height of its blobs.

    Raises
    ------
    ValueError
        If they are not finite square images.
    """
    maps = stack_of(maps)
    n = maps.shape[-1]
    counts, blobs, widths, ratios = [], [], [], []
    for image in maps:
        found = np.empty((0, 3))
        top = image.max() if scaled else 1.0
        if top > 0 and image.min() < image.max():
            found = matched.find(image, sigma, FAINTEST * top)
        blobs.append(found)
        counts.append(matched.number(found[:, 2], None if scaled else 1.0))
        for i, blob in enumerate(found):
            others = np.delete(found[:, :2], i, 0)
            alone = not len(others) or np.hypot(*(others - blob[:2]).T).min() > ALONE * sigma
            y, x = blob[:2]
            if alone and min(y, x, n - 1 - y, n - 1 - x) > EDGE * sigma:
                fit = matched.shape(image, blob, sigma)
                widths.append(fit.width)
                ratios.append(fit.ratio)
    return Found(np.array(counts, int), blobs, np.array(widths), np.array(ratios))


def noise(maps: ArrayLike) -> float:
    """Standard deviation of a pixel about the mean of its four neighbours, over that of pixels.

    Salt and pepper shows in it; of blobs some pixels wide it is a few per cent.
    """
    maps = stack_of(maps)
    spread = float(maps.std())
    if spread == 0:
        raise ValueError("images are constant: they have neither structure nor noise")
    middle = maps[:, 1:-1, 1:-1]
    around = maps[:, :-2, 1:-1] + maps[:, 2:, 1:-1] + maps[:, 1:-1, :-2] + maps[:, 1:-1, 2:]
    return float((middle - around / 4).std()) / spread


def _places(found: Found, n: int, axis: int) -> NDArray[np.float64]:
    """Centres along an axis, in units of the side."""
    return (np.concatenate([b[:, axis] for b in found.blobs]) + 0.5) / n


def _uniform(found: Found, n: int, axis: int) -> float:
    """Probability of a Kolmogorov-Smirnov distance from uniform as large as that of the centres."""
    from scipy.stats import kstest

    places = _places(found, n, axis)
    return float(kstest(places, "uniform").pvalue) if len(places) else 0.0


def _distances(made: Found, true: Found, n: int) -> dict[str, tuple[float, float]]:
    """Kolmogorov-Smirnov distances of centres: from uniform of each, and from one another."""
    from scipy.stats import ks_2samp, kstest

    rows = {}
    for axis, name in enumerate("yx"):
        a, b = (_places(f, n, axis) for f in (made, true))
        rows[f"centres in {name}, KS distance from uniform"] = tuple(
            float(kstest(x, "uniform").statistic) if len(x) else np.nan for x in (a, b)
        )
        between = float(ks_2samp(a, b).statistic) if len(a) and len(b) else np.nan
        rows[f"centres in {name}, KS distance from the true ones"] = (between, 0.0)
    return rows


def _near(made: float, true: float, fraction: float) -> Line:
    return Line(made, true, f"within {fraction:.0%}", bool(abs(made / true - 1) <= fraction))


def _counted(made: Found, true: Found, count: int, sigma: float, n: int) -> dict[str, Line]:
    lines = {}
    if count == 1:
        fractions = [float(np.mean([len(b) == 1 for b in f.blobs])) for f in (made, true)]
        lines["images with one blob"] = Line(*fractions, f">= {ONE_BLOB}", fractions[0] >= ONE_BLOB)
        for axis, name in enumerate("yx"):
            p = [_uniform(f, n, axis) for f in (made, true)]
            lines[f"centres uniform in {name} (KS p)"] = Line(*p, f"> {KS_P}", p[0] > KS_P)
    lines["blobs per image"] = _near(made.counts.mean(), true.counts.mean(), COUNT)
    if made.widths.size and true.widths.size:
        lines["width of a blob (pixels)"] = _near(made.widths.mean(), true.widths.mean(), WIDTH)
        ratios = [float(f.ratios.mean()) for f in (made, true)]
        good = ratios[0] >= ratios[1] * (1 - ROUND)
        lines["short over long axis"] = Line(*ratios, f">= {1 - ROUND:g}", good)
    else:
        lines["width of a blob (pixels)"] = Line(np.nan, sigma, "blobs that stand alone", False)
    return lines


def compare(
    made: ArrayLike, true: ArrayLike, count: int, sigma: float, scaled: bool = False
) -> dict[str, Line]:
    """Everything that is asked of generated images of `count` blobs.

    Parameters
    ----------
    made, true
        Generated and true images, (N, n, n) or (N, 1, n, n); 128 of each or more.
    count
        Blobs in a true image. Up to `FEW` they are found one by one; of more they overlap, and
        histogram and power spectrum are asked about instead.
    sigma
        Standard deviation of a blob (pixels).
    scaled
        Whether each image is scaled to a largest value of one.

    Returns
    -------
    dict
        `Line` by name.

    Raises
    ------
    ValueError
        If the images are fewer than 16, not finite, of different sizes, or constant.
    """
    made, true = stack_of(made, name="made"), stack_of(true, name="true")
    if made.shape[1:] != true.shape[1:]:
        raise ValueError(
            f"made {made.shape} and true {true.shape}: must be images of one size, (N, n, n)"
        )
    for images in (made, true):
        checks.enough(len(images), LEAST, "a comparison")
    n = made.shape[-1]
    lines: dict[str, Line] = {}
    if count <= FEW:
        lines |= _counted(
            find_all(made, sigma, scaled), find_all(true, sigma, scaled), count, sigma, n
        )
        for name, extreme in (("lowest pixel", np.min), ("highest pixel", np.max)):
            a, b = float(extreme(made)), float(extreme(true))
            lines[name] = Line(a, b, f"within {RANGE}", abs(a - b) <= RANGE)
    else:
        return distribution(made, true)
    return lines | _quiet(made, true)


def _quiet(made: NDArray, true: NDArray) -> dict[str, Line]:
    a, b = (noise(x) for x in (made, true))
    return {
        "noise of pixels over their spread": Line(a, b, "at most 1.1 of the truth's", a <= 1.1 * b)
    }


def distribution(made: ArrayLike, true: ArrayLike) -> dict[str, Line]:
    """Histogram, power spectrum and noise of generated images of any kind beside true ones.

    Parameters and errors are those of `compare`.
    """
    made, true = stack_of(made, LEAST, "made"), stack_of(true, LEAST, "true")
    if made.shape[1:] != true.shape[1:]:
        raise ValueError(
            f"made {made.shape} and true {true.shape}: must be images of one size, (N, n, n)"
        )
    if true.min() == true.max():
        raise ValueError("true images are constant: there is nothing to compare with")
    waves = slice(WAVES[0], min(WAVES[1], true.shape[-1] // 2) + 1)
    low, high = float(min(made.min(), true.min())), float(max(made.max(), true.max()))
    histograms = [Pixels(low, high + 1e-6 * (high - low), 20000) for _ in range(2)]
    for histogram, images in zip(histograms, (made, true), strict=True):
        histogram.update(images)
    q = [h.quantile(FRACTIONS) for h in histograms]
    spread = float(true.std())
    # a quantile near zero has no relative error: the standard deviation is the unit there
    off = np.abs(q[0] - q[1]) / np.maximum(np.abs(q[1]), spread)
    lines = {
        "histogram, worst quantile of 1 % to 99.9 %": Line(
            float(off.max()), 0.0, f"<= {HISTOGRAM}", float(off.max()) <= HISTOGRAM
        )
    }
    each = [power(x - x.mean())[:, waves] for x in (made, true)]
    p = [x.mean(0) for x in each]
    ratio = p[0] / p[1]
    worst = int(np.abs(np.log(ratio)).argmax())
    # as far as these images tell: of few, or where few of them decide, 5 % cannot be seen
    errors = [x[:, worst].std(ddof=1) / len(x) ** 0.5 for x in each]
    error = ratio[worst] * np.hypot(errors[0] / p[0][worst], errors[1] / p[1][worst])
    inside = float(np.mean(np.abs(ratio - 1) <= POWER))
    lines[f"power over the truth's, worst of {waves.start} to {waves.stop - 1} waves"] = Line(
        float(ratio[worst]),
        1.0,
        f"within {POWER:.0%} (standard error {error:.1%})",
        inside == 1.0,
    )
    lines["waves with power within 5 %"] = Line(inside, 1.0, "all", inside == 1.0)
    return lines | _quiet(made, true)


def findings(
    made: ArrayLike, true: ArrayLike, count: int, sigma: float
) -> dict[str, tuple[float, float]]:
    """What the figures of a comparison show, as numbers: (generated, true) by name.

    No goals are set for them: they say which failings of a network in the literature another one
    shares (a second blob, another range, heavy tails of stacked peaks, spread power).

    Parameters
    ----------
    made, true
        Generated and true images, (N, n, n) or (N, 1, n, n).
    count
        Blobs in a true image.
    sigma
        Standard deviation of a blob (pixels).

    Returns
    -------
    dict
        Images with two blobs or more (of one), Kolmogorov-Smirnov distances of centres from uniform
        and from the true ones (of few blobs; NaN where there is none), lowest and highest pixel (of
        many), spread of marginal sums, height of stacked peaks at two standard deviations over that
        of their centres (NaN where there is no peak), mean ratio of the powers in `BANDS` (of true
        images, one).

    Raises
    ------
    ValueError
        As `compare`.
    """
    sets = made, true = stack_of(made, LEAST, "made"), stack_of(true, LEAST, "true")
    if made.shape[1:] != true.shape[1:]:
        raise ValueError(
            f"made {made.shape} and true {true.shape}: must be images of one size, (N, n, n)"
        )
    rows: dict[str, tuple[float, float]] = {}
    if count <= FEW:
        found = [find_all(x, sigma) for x in sets]
        if count == 1:
            several = [np.mean([len(b) > 1 for b in f.blobs]) for f in found]
            rows["images with two blobs or more"] = tuple(map(float, several))
        rows |= _distances(*found, made.shape[-1])
    if count > FEW:  # of few blobs `compare` has goals for them
        rows["lowest pixel"] = (float(made.min()), float(true.min()))
        rows["highest pixel"] = (float(made.max()), float(true.max()))
    rows["spread of marginal sums"] = tuple(float(marginals(x).std()) for x in sets)
    rows[f"stacked peaks at {TAIL * sigma:g} pixels over their centre"] = tuple(
        _tail(x, TAIL * sigma) for x in sets
    )
    p = [power(x - x.mean()).mean(0) for x in sets]
    for low, high in BANDS:
        if high > made.shape[-1] // 2:  # a small image has no such waves
            break
        band = slice(low, high + 1)
        ratio = float(np.exp(np.mean(np.log(p[0][band] / p[1][band]))))
        rows[f"power over the truth's, {low} to {high} waves"] = (ratio, 1.0)
    return rows


def _tail(maps: NDArray, radius: float) -> float:
    """Profile of stacked local maxima at a radius (pixels) over that at their centre."""
    stack = PeakStack(FAINTEST)
    stack.update(maps)
    try:
        found = stack.compute()
    except ValueError:  # a network that has learned nothing makes no peak
        return float("nan")
    return float(np.interp(radius, found.radius, found.profile) / found.profile[0])
