"""Compilation of inner loops by numba."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

__all__ = ["compiled"]


def compiled(function: Callable) -> Callable:
    """A function compiled at its first call, without the interpreter's lock while it runs.

    The machine code is kept in a file beside the module, or in the user's cache folder. Where
    neither can be written, each process compiles anew, and so it does, with a warning, where the
    disk is full or the file cannot be used. Sums are in the order of the source, so that the bits
    do not depend on the width of the processor's registers.
    """
    import numba

    options = {"nogil": True, "error_model": "numpy", "fastmath": False}
    plain = numba.njit(**options)(function)
    try:
        kept = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder to write to
        return plain
    use = [kept]

    @functools.wraps(function)
    def call(*arguments):
        types = tuple(numba.typeof(value) for value in arguments)
        if use[0] is kept and types not in kept.signatures:
            try:
                kept.compile(types)
            except Exception as error:  # of any kind: what is in a damaged file is unknown
                # raises the same error again if it is the function's own
                plain.compile(types)
                use[0] = plain
                warnings.warn(
                    f"numba's cache of {function.__name__} cannot be used ({error!r}): it is "
                    "compiled anew in each process, in about a second; empty or name another "
                    "folder by NUMBA_CACHE_DIR",
                    stacklevel=2,
                )
        return use[0](*arguments)

    return call
