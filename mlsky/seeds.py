"""Named random streams: every random number of a sky comes from here.

A stream is fixed by ``(seed, field, *tile)`` alone, so nothing depends on nside,
on the order of tiles, on threads or on batches.

Notes
-----
`numpy.random.SeedSequence` hashes the key into independent states
(O'Neill 2015, as implemented in numpy); the generators are Philox-4x64-10
(Salmon et al. 2011, doi:10.1145/2063384.2063405), which are counter based.
"""

from __future__ import annotations

import numpy as np

__all__ = ["FIELDS", "check", "generator", "integer", "sequence"]

#: The streams of a sky. Numbers are part of the file format: never reuse one.
FIELDS = {
    "kappa": 0,
    "cmb": 1,
    "network": 2,
    "points": 3,
    "spectral_index": 4,
    "polarisation": 5,
    "truth": 6,
    "training": 7,
    "weights": 8,
    "large_scales": 9,
}


def check(seed: int, name: str = "seed") -> int:
    """Return `seed` as a plain int, or raise.

    Raises
    ------
    ValueError
        If `seed` is not an integer >= 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"{name}={seed!r}: must be an integer >= 0, for example {name}=1")
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
