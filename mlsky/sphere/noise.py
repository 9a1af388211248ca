"""White noise that is a function of the sky: the same number wherever it is asked for.

A number is fixed by ``(key, channel, pixel)`` alone, through a counter-based hash, so it
depends on no order, thread, block or chart. `chart_noise` anchors it to the sky: a chart
pixel takes the number of the HEALPix pixel under it, so that two charts which meet draw
most of the same numbers where they overlap.

The hash is two rounds of the 64-bit finaliser "Mix13" of Stafford (2011), as used by
SplitMix64 (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195), each after the
addition of a word made from key and channel; the normal deviate is that of Box & Muller
(1958, doi:10.1214/aoms/1177706645).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlsky.sphere.charts import Chart
from mlsky.sphere.threads import run_blocks

__all__ = ["chart_noise", "lattice", "lattice_nside", "normal", "uniform"]

#: Channels of one level; a level's channels follow those of the level above it.
CHANNELS_PER_LEVEL = 1 << 16

#: Side of a lattice pixel over that of a chart pixel is 1792 pixels of nside to 2 arcmin,
#: 0.98. Measured between adjacent charts, the share of noise numbers they have in common
#: is 0.19 at nside 4096, 0.74 at 2048, 0.74-0.97 at 1792, 0.75 at 1536: about one lattice
#: pixel to a chart pixel is best, and a little under one leaves fewer pixels without.
LATTICE_NSIDE_ARCMIN = 3584

#: The finer lattice of the pixels that have to share a coarse one. Its own pixels are too
#: small (diameter 0.4 of a chart pixel) for two chart pixels to meet in one.
_REFINEMENT = 4

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1


def normal(key: int, channel: int, pixel, nthreads: int = 0) -> NDArray[np.float32]:
    """Standard normal numbers of `pixel`, a pure function of the arguments.

    Parameters
    ----------
    key
        From `mlsky.seeds.integer`; 0 <= key < 2**64.
    channel
        0 <= channel < 2**64: streams of different channels are independent.
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
    words = _words(key, channel)
    pixel = _integers(pixel)
    out = np.empty(pixel.size, np.float32)
    flat = pixel.ravel()

    def work(s: slice) -> None:
        bits = _hash(flat[s], words)
        low = (bits & np.uint64(0xFFFFFFFF)).astype(np.float32)
        bits >>= np.uint64(32)
        radius = bits.astype(np.float32)
        radius += np.float32(0.5)
        radius *= np.float32(2.0**-32)
        np.log(radius, out=radius)
        radius *= np.float32(-2)
        np.sqrt(radius, out=radius)
        low *= np.float32(2 * np.pi * 2.0**-32)
        np.cos(low, out=low)
        np.multiply(radius, low, out=out[s])

    run_blocks(work, flat.size, nthreads)
    return out.reshape(pixel.shape)


def uniform(key: int, channel: int, pixel, nthreads: int = 0) -> NDArray[np.float64]:
    """Uniform numbers strictly between 0 and 1 (float64); arguments as of `normal`.

    They are made from the bits that make the normal ones: give points a channel of their own.
    """
    words = _words(key, channel)
    pixel = _integers(pixel)
    out = np.empty(pixel.size)
    flat = pixel.ravel()

    def work(s: slice) -> None:
        bits = _hash(flat[s], words)
        bits >>= np.uint64(12)
        np.add(bits, 0.5, out=out[s])
        out[s] *= 2.0**-52

    run_blocks(work, flat.size, nthreads)
    return out.reshape(pixel.shape)


def chart_noise(
    chart: Chart,
    channels: int,
    level: int,
    key: int,
    pixel: NDArray[np.int64] | None = None,
    nthreads: int = 0,
) -> NDArray[np.float32]:
    """White noise of one level of a network on a chart, anchored to the sky.

    Parameters
    ----------
    channels
        Number of independent channels.
    level
        Number of halvings: the noise has ``(ny >> level, nx >> level)`` pixels.
    key
        From `mlsky.seeds.integer`.
    pixel
        What `lattice` gave for this chart and level, if at hand.

    Returns
    -------
    noise
        (channels, ny >> level, nx >> level) float32, standard normal. Channel c of a
        level is the same whatever the number of channels.

    Raises
    ------
    ValueError
        If the chart does not halve `level` times, or `channels` is out of range.
    """
    if not 0 <= channels <= CHANNELS_PER_LEVEL:
        raise ValueError(f"channels={channels!r}: must be from 0 to {CHANNELS_PER_LEVEL}")
    if pixel is None:
        pixel = lattice(chart, level, nthreads)
    first = level * CHANNELS_PER_LEVEL
    out = np.empty((channels, *pixel.shape), np.float32)
    for c in range(channels):
        out[c] = normal(key, first + c, pixel, nthreads)
    return out


def lattice_nside(pixel_arcmin: float, level: int = 0) -> int:
    """Return the nside (RING; not a power of two) of the noise lattice of a level."""
    return max(1, round(LATTICE_NSIDE_ARCMIN / (pixel_arcmin * 2**level)))


def lattice(chart: Chart, level: int = 0, nthreads: int = 0) -> NDArray[np.int64]:
    """Numbers on the sky, all different, of the pixels of a chart.

    A chart pixel takes the lattice pixel that holds its centre. Where several chart
    pixels fall in one, the nearest to its centre keeps it; the others (7 in 100) take
    numbers, beyond those of the lattice, from one four times finer.

    Returns
    -------
    pixel
        (ny >> level, nx >> level) int64, for `normal` and `uniform`.

    Raises
    ------
    ValueError
        If the chart does not halve `level` times.
    """
    import healpy

    if level < 0 or any(n % (1 << level) for n in chart.shape):
        raise ValueError(
            f"level={level!r}: must be >= 0 with both sides of the chart {chart.shape} "
            "multiples of 2**level"
        )
    nside = lattice_nside(chart.pixel_arcmin, level)
    shape = tuple(n >> level for n in chart.shape)
    pixel = np.empty(shape, np.int64)
    flat = pixel.reshape(-1)

    def work(s: slice) -> None:
        flat[s] = healpy.vec2pix(nside, *chart.vectors(s, level))

    run_blocks(work, flat.size, nthreads)

    # A lattice pixel is too small for chart pixels that do not touch by a side or a corner.
    number = np.arange(flat.size).reshape(shape)
    ahead, behind, whole = slice(1, None), slice(None, -1), slice(None)
    pairs = []
    for a, b in (
        ((behind, whole), (ahead, whole)),
        ((whole, behind), (whole, ahead)),
        ((behind, behind), (ahead, ahead)),
        ((behind, ahead), (ahead, behind)),
    ):
        same = pixel[a] == pixel[b]
        pairs.append(np.stack([number[a][same], number[b][same]]))
    one, other = np.concatenate(pairs, axis=1)
    if one.size:
        losers = np.unique(
            np.where(
                _distance(chart, level, nside, flat, one)
                <= _distance(chart, level, nside, flat, other),
                other,
                one,
            )
        )
        fine = healpy.vec2pix(_REFINEMENT * nside, *chart.vectors(losers, level))
        flat[losers] = 12 * nside**2 + fine
    return pixel


def _distance(chart: Chart, level: int, nside: int, pixel: np.ndarray, flat: np.ndarray):
    """Squared distance of chart pixel centres from those of their lattice pixels."""
    import healpy

    lattice_centre = np.stack(healpy.pix2vec(nside, pixel[flat]))
    return ((chart.vectors(flat, level) - lattice_centre) ** 2).sum(0)


def _words(key: int, channel: int) -> tuple[np.uint64, np.uint64]:
    """Two words to add before the rounds, from all bits of key and channel."""
    for name, value in (("key", key), ("channel", channel)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise ValueError(f"{name}={value!r}: must be an integer from 0 to 2**64 - 1")
        if not 0 <= value <= _WORD:
            raise ValueError(f"{name}={value!r}: must be from 0 to 2**64 - 1")
    first = _finalise((_finalise(int(key) + _GOLDEN) + int(channel) * _GOLDEN) & _WORD)
    return np.uint64(first), np.uint64(_finalise(first + _GOLDEN))


def _finalise(x: int) -> int:
    """Mix13 on a Python integer."""
    x &= _WORD
    x = ((x ^ (x >> 30)) * int(_MIX[0])) & _WORD
    x = ((x ^ (x >> 27)) * int(_MIX[1])) & _WORD
    return x ^ (x >> 31)


def _hash(pixel: np.ndarray, words: tuple[np.uint64, np.uint64]) -> np.ndarray:
    """64 well-mixed bits of each pixel."""
    x = pixel.astype(np.uint64)
    shifted = np.empty_like(x)
    for word in words:
        x += word
        for shift, factor in ((30, _MIX[0]), (27, _MIX[1]), (31, None)):
            np.right_shift(x, np.uint64(shift), out=shifted)
            x ^= shifted
            if factor is not None:
                x *= factor
    return x


def _integers(pixel) -> np.ndarray:
    pixel = np.asarray(pixel)
    if pixel.dtype.kind not in "iu":
        raise ValueError(f"pixel of dtype {pixel.dtype}: must be of integers")
    return pixel
