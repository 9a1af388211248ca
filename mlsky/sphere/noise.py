"""White noise that is a function of the sky: the same number wherever it is asked for.

A number is fixed by ``(key, channel, pixel)`` alone, through a counter-based hash, so that it
depends on no order, thread, block or chart. `lattice` anchors it to the sky: inside the area that a
chart owns, its own pixels are numbered; outside, a pixel takes the number of the pixel of the
owning chart at that position. Where two charts overlap, most of their random numbers are therefore
the same.

The hash is two rounds of the 64-bit finaliser "Mix13" of Stafford (2011), as used by
SplitMix64 (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195), each after the
addition of a word made from key and channel; the normal deviate is that of Box & Muller
(1958, doi:10.1214/aoms/1177706645).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.seeds import GAMMA, mixed
from mlsky.sphere.charts import NSIDE, owners
from mlsky.sphere.threads import BLOCK, run_blocks

if TYPE_CHECKING:
    from mlsky.sphere.chart_area import Area
    from mlsky.sphere.charts import Chart

__all__ = ["chart_noise", "lattice", "normal"]

#: Channels of one level; a level's channels follow those of the level above it.
CHANNELS_PER_LEVEL = 1 << 16

#: Numbers of a chart's pixels begin at multiples of the first, those of a row at the second.
_CHART, _ROW = 1 << 32, 1 << 16

_WORD = (1 << 64) - 1


def normal(key: int, channel: int, pixel, nthreads: int = 0) -> NDArray[np.float32]:
    """Standard normal numbers of `pixel`, a pure function of the arguments.

    Parameters
    ----------
    key
        From `mlsky.seeds.integer`; 0 <= key < 2**64.
    channel
        0 <= channel < 2**64: streams of different channels are independent. Channels 2 n and
        2 n + 1 are the two deviates of one hash.
    pixel
        Integers of any shape (int64).
    nthreads
        0 takes `mlsky.sphere.threads.threads`; the numbers do not depend on it.

    Returns
    -------
    normal
        float32 of the shape of `pixel`, within +-6.8.

    Raises
    ------
    ValueError
        If key or channel are out of range, or `pixel` is not of integers.
    """
    _words(key, channel)  # before the channel is taken for a number
    words = _words(key, channel - channel % 2)
    pixel = _integers(pixel)
    out = np.empty(pixel.size, np.float32)
    flat = pixel.ravel()

    def work(s: slice) -> None:
        radius, angle = _polar(flat[s], words)
        (np.sin if channel % 2 else np.cos)(angle, out=angle)
        np.multiply(radius, angle, out=out[s])

    run_blocks(work, flat.size, nthreads)
    return out.reshape(pixel.shape)


def _polar(pixel: np.ndarray, words: tuple[np.uint64, np.uint64]) -> tuple[np.ndarray, np.ndarray]:
    """Radius and angle of the two normal deviates of each pixel (Box & Muller 1958)."""
    bits = _hash(pixel, words)
    angle = (bits & np.uint64(0xFFFFFFFF)).astype(np.float32)
    bits >>= np.uint64(32)
    radius = bits.astype(np.float32)
    radius += np.float32(0.5)
    radius *= np.float32(2.0**-32)
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    angle *= np.float32(2 * np.pi * 2.0**-32)
    return radius, angle


def chart_noise(
    pixel: NDArray[np.int64], channels: int, level: int, key: int, nthreads: int = 0
) -> NDArray[np.float32]:
    """White noise of one level of a network on a chart, anchored to the sky.

    Parameters
    ----------
    pixel
        (ny, nx) from `lattice`; 0 is drawn where it is negative.
    channels
        Number of independent channels.
    level
        Level of the lattice; other levels have other numbers.
    key
        From `mlsky.seeds.integer`.

    Returns
    -------
    noise
        (channels, ny, nx) float32, standard normal. Channel c of a level is the same whatever
        the number of channels.

    Raises
    ------
    ValueError
        If `channels` is out of range.
    """
    if not 0 <= channels <= CHANNELS_PER_LEVEL:
        raise ValueError(f"channels={channels!r}: must be from 0 to {CHANNELS_PER_LEVEL}")
    first = level * CHANNELS_PER_LEVEL
    words = [_words(key, first + c) for c in range(0, channels, 2)]
    out = np.zeros((channels, *pixel.shape), np.float32)
    ny, nx = pixel.shape
    rows = max(1, BLOCK // nx)

    def work(s: slice) -> None:
        # a rectangle of them, as writing single elements takes as long as drawing them
        wanted = np.flatnonzero((pixel[s] >= 0).any(0))
        if not wanted.size:
            return
        here = (s, slice(wanted[0], wanted[-1] + 1))
        number, drawn = pixel[here], pixel[here] >= 0
        for pair, word in enumerate(words):
            radius, angle = _polar(number, word)
            radius *= drawn
            np.multiply(radius, np.cos(angle), out=out[(2 * pair, *here)])
            if 2 * pair + 1 < channels:
                np.multiply(radius, np.sin(angle), out=out[(2 * pair + 1, *here)])

    run_blocks(work, ny, nthreads, rows)
    return out


def lattice(
    every: Sequence[Chart],
    index: int,
    level: int = 0,
    padding: int = 0,
    area: Area | None = None,
    nthreads: int = 0,
) -> NDArray[np.int64]:
    """Numbers that identify the pixels of a chart on the sky.

    A pixel whose centre the chart owns has its own number. Any other pixel takes the number of that
    pixel of the owning chart in which its centre lies, if that chart owns the centre of that pixel.
    If several pixels would take the same number, the nearest one does, and the others (1 to 7 %)
    have numbers that occur in no other chart.

    Parameters
    ----------
    every
        All charts of the sky (`mlsky.sphere.charts.charts`).
    index
        Number of the chart.
    level
        Number of halvings: pixels ``2**level`` times as large.
    padding
        Pixels (of that level) added outside each edge of the chart.
    area
        The needed pixels of the level, without the padding; the others are -1. All pixels of the
        padding are numbered.

    Returns
    -------
    pixel
        ((ny >> level) + 2 padding, (nx >> level) + 2 padding) int64, for `normal`.

    Raises
    ------
    ValueError
        If the chart does not halve `level` times.
    """
    import healpy

    chart = every[index]
    if level < 0 or any(n % (1 << level) for n in chart.shape):
        raise ValueError(
            f"level={level!r}: must be >= 0 with both sides of the chart {chart.shape} "
            "multiples of 2**level"
        )
    ny, nx = ((n >> level) + 2 * padding for n in chart.shape)
    unshared = (len(every) + index) * _CHART + (64 - padding) * (_ROW + 1)  # never negative
    pixel = unshared + np.arange(ny)[:, None] * _ROW + np.arange(nx)
    owner = owners(chart, level, padding, nthreads)
    mine = owner == index
    np.subtract(pixel, unshared - index * _CHART + padding * (_ROW + 1), out=pixel, where=mine)
    others = ~mine
    if area is not None:
        outside = np.pad(~area.mask(), padding, constant_values=False)
        pixel[outside] = -1
        others &= ~outside
    pixel, others = pixel.reshape(-1), np.flatnonzero(others)
    owner = owner.reshape(-1)[others]
    for other in np.unique(owner).tolist():
        flat, there = others[owner == other], every[other]
        vectors = chart.vectors_at(*(_finest(c - padding, level) for c in np.divmod(flat, nx)))
        y, x = (_coarse(c, level) for c in there.project_vectors(vectors))
        iy, ix = (np.rint(c).astype(np.int64) for c in (y, x))
        centre = there.vectors_at(_finest(iy, level), _finest(ix, level))
        owned = healpy.vec2pix(NSIDE, *centre, nest=True) == other
        number = other * _CHART + iy * _ROW + ix
        distance = (y - iy) ** 2 + (x - ix) ** 2
        order = np.lexsort((flat, distance))
        _, first = np.unique(number[order], return_index=True)
        keep = order[first]
        keep = keep[owned[keep]]
        pixel[flat[keep]] = number[keep]
    return pixel.reshape(ny, nx)


def _finest(coordinate, level: int):
    """Coordinate in the pixels of a chart from that in pixels ``2**level`` times as large."""
    return (coordinate + 0.5) * (1 << level) - 0.5


def _coarse(coordinate, level: int):
    """Inverse of `_finest`."""
    return (coordinate + 0.5) / (1 << level) - 0.5


def _words(key: int, channel: int) -> tuple[np.uint64, np.uint64]:
    """Two words to add before the rounds, from all bits of key and channel."""
    for name, value in (("key", key), ("channel", channel)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise ValueError(f"{name}={value!r}: must be an integer from 0 to 2**64 - 1")
        if not 0 <= value <= _WORD:
            raise ValueError(f"{name}={value!r}: must be from 0 to 2**64 - 1")
    # 1-d: numpy scalars warn about the overflow that is intended here
    key, channel = (np.array([value], np.uint64) for value in (key, channel))
    first = mixed(mixed(key + GAMMA) + channel * GAMMA)
    return first[0], mixed(first + GAMMA)[0]


def _hash(pixel: np.ndarray, words: tuple[np.uint64, np.uint64]) -> np.ndarray:
    """64 well-mixed bits of each pixel."""
    x = pixel.astype(np.uint64)
    for word in words:
        x += word
        mixed(x)
    return x


def _integers(pixel) -> np.ndarray:
    pixel = np.asarray(pixel)
    if pixel.dtype.kind not in "iu":
        raise ValueError(f"pixel of dtype {pixel.dtype}: must be of integers")
    return pixel
