"""The arguments of `mlsky.simulate`, written once.

The signature of `simulate`, the options of the command line and the arguments of the PySM component
are made from them. Nothing slow is imported here, so that the help of the command line is quick.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from astropy.table import Table
    from numpy.typing import ArrayLike

__all__ = ["DEFAULTS", "Arguments", "Progress", "takes"]

#: ``progress(stage, fraction)``: name of the current stage, fraction of all work done.
Progress = Callable[[str, float], None]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Arguments:
    """The arguments of `mlsky.simulate` as the caller gives them, listed only here.

    The signature of `simulate`, the options of the command line and the arguments of the PySM
    component are made from these fields, with their defaults.
    """

    freqs: ArrayLike
    nside: int | None = None
    seed: int = 0
    _: KW_ONLY
    geometry: tuple | None = None
    components: Sequence[str] | None = None
    stokes: str = "TQU"
    kappa: ArrayLike | tuple | None = None
    kappa_kind: str = "gaussian"
    fill_kappa: bool = False
    cosmology: object = "planck2018"
    weights: str = "default"
    flux_cut_mjy: float | None = None
    flux_cut: tuple | Sequence[tuple] | None = None
    tsz_temperature_kev: float | None = None
    haloes: Table | dict | None = None
    monopole: bool | str | Sequence[str] = True
    unit: str = "uK_CMB"
    beam: ArrayLike | Sequence | None = None
    pixel_window: bool = True
    cmb_seed: int | None = None
    device: str = "auto"
    progress: Progress | None = None
    out: str | os.PathLike | None = None
    overwrite: bool = False
    check_resources: bool = True


#: Defaults of the arguments, by name.
DEFAULTS = {f.name: f.default for f in dataclasses.fields(Arguments)}


def takes(
    arguments: Callable[P, Arguments],
) -> Callable[[Callable[[Arguments], R]], Callable[P, R]]:
    """Turn a function of `Arguments` into one that takes their fields as keywords."""

    def decorate(function: Callable[[Arguments], R]) -> Callable[P, R]:
        returned = inspect.signature(function).return_annotation
        signature = inspect.signature(arguments).replace(return_annotation=returned)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{function.__name__}(): {error}") from None
            return function(arguments(*args, **kwargs))

        call.__signature__ = signature
        return call

    return decorate
