"""Named random streams: every random number of a sky comes from here.

A stream is fixed by ``(seed, field, *tile)`` alone, so nothing depends on nside, on the order of
tiles, on threads or on batches. Where every object needs its own numbers, independent of the other
objects, `uniform`, `normal` and `poisson` are functions of integers that identify the object: a
cell of the sky, its number in the cell, the quantity.

Notes
-----
`numpy.random.SeedSequence` hashes the key into independent states
(O'Neill 2015, as implemented in numpy); the generators are Philox-4x64-10
(Salmon et al. 2011, doi:10.1145/2063384.2063405), which are counter based.

The functions of integers are SplitMix64 (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195)
with the mixing function of java.util.SplittableRandom, Stafford's variant 13, as in S. Vigna's
splitmix64.c (https://prng.di.unimi.it). Number ``n`` of the stream that starts at a state,
``mix(state + (n + 1) gamma)``, is the state at which the stream of the next integer starts, and
with the last integer the result. That is integer arithmetic modulo 2^64, and exact as far as a
float holds it: the bits are the same on any machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky import arguments

__all__ = [
    "FIELDS",
    "GAMMA",
    "MULTIPLIERS",
    "SHIFTS",
    "VALIDATION",
    "check",
    "check_set",
    "generator",
    "integer",
    "mixed",
    "normal",
    "poisson",
    "realisation",
    "sequence",
    "uniform",
]

#: The streams of a sky. Numbers are part of the file format: never reuse one.
FIELDS = {
    "kappa": 0,
    "cmb": 1,
    "network": 2,
    "point_sources": 3,
    "spectral_index": 4,
    "polarisation": 5,
    "truth": 6,
    "training": 7,
    "weights": 8,
    "large_scales": 9,
    "clusters": 10,
    "shells": 11,
    "sources": 12,
    "cib_remainder": 13,
    "realisation": 14,
    "flux_errors": 15,
}

#: Seed of the painted regions on which `mlsky validate` scores networks. It is never used for sets
#: that networks are trained, selected or calibrated on.
VALIDATION = 4

#: Largest seed: what a FITS header and an HDF5 file hold as one integer.
SEED_MAX = 2**63 - 1

#: Step of SplitMix64, and the shifts and multipliers of its mixing function (see above).
GAMMA = np.uint64(0x9E3779B97F4A7C15)
MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))


def check(seed: int, name: str = "seed") -> int:
    """Return `seed` as a plain int, or raise.

    Raises
    ------
    ValueError
        If `seed` is not an integer from 0 to `SEED_MAX`.
    """
    allowed = f"an integer >= 0, at most 2^63 - 1, for example {name}=1"
    return arguments.integer(name, seed, allowed, 0, SEED_MAX)


def check_set(seed: int, name: str = "seed") -> int:
    """Return the seed of a painted set as a plain int, or raise.

    Raises
    ------
    ValueError
        If `seed` is not an integer >= 0, or is that of the regions networks are scored on.
    """
    if check(seed, name) == VALIDATION:
        raise ValueError(f"{name}={seed}: mlsky validate paints its regions with it; take another")
    return int(seed)


def sequence(seed: int, field: str, *tile: int) -> np.random.SeedSequence:
    """Seed sequence of one stream; `tile` are any further non-negative integers."""
    if field not in FIELDS:
        raise ValueError(f"field={field!r}: must be one of {', '.join(FIELDS)}")
    return np.random.SeedSequence(check(seed), spawn_key=(FIELDS[field], *map(int, tile)))


def generator(seed: int, field: str, *tile: int) -> np.random.Generator:
    """Counter-based generator (Philox) of one stream."""
    return np.random.Generator(np.random.Philox(sequence(seed, field, *tile)))


def integer(seed: int, field: str, *tile: int) -> int:
    """One 63-bit key of a stream, for generators that live elsewhere (torch, hashes)."""
    return int(sequence(seed, field, *tile).generate_state(1, np.uint64)[0] >> np.uint64(1))


def realisation(seed: int, number: int) -> int:
    """Seed of one of many realisations: `seed` itself for number 0, else a 63-bit hash of both.

    Raises
    ------
    ValueError
        If either is not an integer >= 0.
    """
    seed, number = check(seed), check(number, "num")
    return integer(seed, "realisation", number) if number else seed


def uniform(seed: int, field: str, *integers: ArrayLike) -> NDArray[np.float64]:
    """Uniform numbers in (0, 1), functions of the seed, the stream and identifying integers alone.

    Parameters
    ----------
    seed
        Seed of the sky.
    field
        One of `FIELDS`.
    integers
        Non-negative integers below 2^64, scalars or arrays that broadcast; their order counts.
        Scalars and short arrays are best put first: they are mixed before they are broadcast.

    Returns
    -------
    uniform
        Of the broadcast shape: odd multiples of 2^-53, never 0 or 1, the same bits everywhere.

    Raises
    ------
    ValueError
        If the stream is unknown, or integers are none, negative or not integers.
    """
    state = np.asarray(sequence(seed, field).generate_state(1, np.uint64)[0])
    for number in integers:
        # 1-d at least: scalars of numpy warn where arrays wrap round, as is meant here
        steps = (np.atleast_1d(_unsigned(number)) + np.uint64(1)) * GAMMA
        state = mixed(steps + state)
    if not integers:
        raise ValueError("uniform(seed, field): must name what it draws by one integer or more")
    state >>= np.uint64(12)
    out = state.astype(np.float64)
    out += 0.5
    out *= 2.0**-52
    return out.reshape(np.broadcast_shapes(*(np.shape(n) for n in integers)))


def normal(seed: int, field: str, *integers: ArrayLike) -> NDArray[np.float64]:
    """Standard normal numbers as functions of integers: the inverse distribution of `uniform`.

    The same on any machine to the last bits, which scipy's inverse may round otherwise.
    """
    from scipy.special import ndtri

    return ndtri(uniform(seed, field, *integers))


def poisson(uniform: ArrayLike, mean: ArrayLike) -> NDArray[np.int64]:
    """Poisson numbers from uniform ones by inversion: n, where P(N > n) <= uniform < P(N >= n).

    For the same uniform number, the result never decreases with the mean. Another mean therefore
    adds objects, or removes the last ones.

    Parameters
    ----------
    uniform
        Numbers in (0, 1).
    mean
        Expected numbers, >= 0; broadcasts with `uniform`.

    Returns
    -------
    number
        int64, of the broadcast shape.

    Raises
    ------
    ValueError
        If a mean is negative or not finite.
    """
    from scipy.special import pdtrc

    uniform, mean = np.broadcast_arrays(uniform, mean)
    if not np.all((mean >= 0) & np.isfinite(mean)):
        bad = mean[~((mean >= 0) & np.isfinite(mean))].flat[0]
        raise ValueError(f"mean={bad:g}: must be a finite expected number >= 0")
    number = np.zeros(mean.shape, np.int64)
    # P(N >= 1) = 1 - exp(-mean) <= mean: most cells hold nothing, and are done after this
    left = np.flatnonzero(uniform < mean)
    u, m = uniform.reshape(-1)[left], mean.reshape(-1)[left].astype(np.float64)
    flat = number.reshape(-1)
    n = 0
    while left.size:
        more = u < pdtrc(n, m)
        left, u, m = left[more], u[more], m[more]
        flat[left] += 1
        n += 1
    return number


def mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Stafford's variant 13 of the mixing function, in place; a permutation of 64-bit integers."""
    other = np.empty_like(state)
    for shift, multiplier in zip(SHIFTS, (*MULTIPLIERS, None), strict=True):
        np.right_shift(state, shift, out=other)
        state ^= other
        if multiplier is not None:
            state *= multiplier
    return state


def _unsigned(number: ArrayLike) -> NDArray[np.uint64]:
    values = np.asarray(number)
    bad = values if values.dtype.kind not in "iu" else values[values < 0]
    if bad.size or values.dtype.kind not in "iu":
        shown = bad.flat[0].item() if bad.size else values.dtype
        raise ValueError(f"number {shown!r}: what is drawn is named by integers from 0 to 2^64 - 1")
    return values.astype(np.uint64, copy=False)
