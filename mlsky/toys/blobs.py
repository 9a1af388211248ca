"""Images of Gaussian blobs at random places: what a generative network is tried on first.

Four sets of 128 x 128 pixels: 1 blob of height 1; 10 blobs of
equal height, each image scaled so that its largest pixel is 1; 50 blobs of height 1, not scaled;
and 1000 blobs whose heights are a folded Gaussian above a threshold, not scaled. Centres are
uniform over the image and blobs are cut at its edges, so an image is a point process seen through
a telescope's beam. Everything about them is known, hence whatever a network gets wrong shows.

Images are made when they are asked for: there is no file, and none comes twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlsky import seeds

__all__ = ["BLOBS", "SIGMA", "SIZE", "Blobs", "kind", "render", "sample", "table"]

#: Pixels along a side of an image.
SIZE = 128
#: Standard deviation of a blob (pixels). Our choice: cutouts of 21 pixels contain a blob out to 3.5
#: of these.
SIGMA = 3.0
#: Lowest height of the set of 1000, in standard deviations of the Gaussian that is folded.
THRESHOLD = 0.5


@dataclass(frozen=True)
class Blobs:
    """One kind of images.

    Parameters
    ----------
    count
        Blobs per image.
    scaled
        Whether each image is divided by its largest pixel.
    folded
        Whether heights are a folded Gaussian of unit width, |N(0, 1)|, redrawn below
        `threshold`; otherwise they are 1.
    threshold
        Lowest height of a folded Gaussian.
    sigma
        Standard deviation of a blob (pixels).
    size
        Pixels along a side.

    Raises
    ------
    ValueError
        If a number is not positive, or the threshold is not in 0 to 4.
    """

    count: int
    scaled: bool = False
    folded: bool = False
    threshold: float = THRESHOLD
    sigma: float = SIGMA
    size: int = SIZE

    def __post_init__(self) -> None:
        for name in ("count", "size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r}: must be an integer >= 1")
        if not 0 < self.sigma < float("inf"):
            raise ValueError(f"sigma={self.sigma!r}: must be a number of pixels > 0")
        if not 0 <= self.threshold <= 4:  # beyond it nearly every draw is thrown away
            raise ValueError(f"threshold={self.threshold!r}: must be in 0 to 4")


#: The four sets, by their number of blobs.
BLOBS: dict[int, Blobs] = {
    1: Blobs(1),
    10: Blobs(10, scaled=True),
    50: Blobs(50),
    1000: Blobs(1000, folded=True),
}


def kind(blobs: Blobs | int) -> Blobs:
    """The set of that many blobs, or what was given.

    Raises
    ------
    ValueError
        If there is no such set.
    """
    if isinstance(blobs, Blobs):
        return blobs
    if isinstance(blobs, (bool, float)) or blobs not in BLOBS:
        known = ", ".join(map(str, BLOBS))
        raise ValueError(f"blobs={blobs!r}: must be one of {known}, or a mlsky.toys.blobs.Blobs")
    return BLOBS[blobs]


def table(blobs: Blobs | int, seed: int, index: int = 0) -> NDArray[np.float64]:
    """What is on one image of a seed: rows (count, 3) of y, x (pixels) and height.

    Pixel centres are at whole numbers, so the image ends half a pixel beyond the first and the
    last; heights are those before an image is scaled.
    """
    blobs = kind(blobs)
    rng = seeds.generator(seed, "truth", index, blobs.count)
    out = np.ones((blobs.count, 3))
    out[:, :2] = rng.uniform(-0.5, blobs.size - 0.5, (blobs.count, 2))
    if blobs.folded:
        heights = np.empty(0)
        while len(heights) < blobs.count:
            drawn = np.abs(rng.standard_normal(blobs.count))
            heights = np.concatenate([heights, drawn[drawn >= blobs.threshold]])
        out[:, 2] = heights[: blobs.count]
    return out


def render(rows: NDArray, sigma: float, size: int) -> NDArray[np.float64]:
    """Image (size, size) of blobs (count, 3), rows of y, x (pixels) and height."""
    pixels = np.arange(size)
    y, x = (np.exp(-((pixels - rows[:, i : i + 1]) ** 2) / (2 * sigma**2)) for i in (0, 1))
    return (y * rows[:, 2:]).T @ x


def sample(blobs: Blobs | int, n: int, seed: int, first: int = 0) -> NDArray[np.float32]:
    """Images of a set.

    Parameters
    ----------
    blobs
        1, 10, 50 or 1000 for one of the four sets, or a `Blobs`.
    n
        Number of images.
    seed
        Image i of a seed is always the same, however many are asked for.
    first
        Number of the first image.

    Returns
    -------
    images : (n, 1, size, size) float32

    Raises
    ------
    ValueError
        If the set is unknown, or a number is out of range.
    """
    blobs = kind(blobs)
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"n={n!r}: must be an integer >= 1")
    out = np.empty((n, 1, blobs.size, blobs.size), np.float32)
    for i in range(n):
        image = render(table(blobs, seed, first + i), blobs.sigma, blobs.size)
        out[i, 0] = image / image.max() if blobs.scaled else image
    return out
