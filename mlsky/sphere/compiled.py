"""Compilation of inner loops by numba."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["compiled"]


def compiled(function: Callable) -> Callable:
    """A function compiled at its first call, without the interpreter's lock while it runs.

    The machine code is kept in a file beside the module, or in the user's cache folder. Where
    neither can be written, each process compiles anew. Sums are in the order of the source, so that
    the bits do not depend on the width of the processor's registers.
    """
    import numba

    options = {"nogil": True, "error_model": "numpy", "fastmath": False}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder to write to
        return numba.njit(**options)(function)
