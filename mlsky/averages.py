"""Means of the maps of a sky: over its pixels, and over the sphere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlsky.sphere import pixel_window

if TYPE_CHECKING:
    from mlsky.io.disk_array import Array
    from mlsky.io.store import Store
    from mlsky.sphere.geometry import Geometry

__all__ = ["last_name", "sampled", "without_mean"]

#: Added to the name of a component in a store: maps without the window, maps without their mean.
SAMPLES, CENTRED = "_samples", "_centred"


def last_name(name: str, pixel_window: bool, monopole_off: Sequence[str]) -> str:
    """Name in a store of the maps of a component after all steps."""
    if name != "cmb" and not pixel_window:
        return name + SAMPLES
    return name + CENTRED if name in monopole_off else name


def sampled(name: str, values: Array, geometry: Geometry, store: Store) -> Array:
    """Averages over pixels as samples at their centres.

    Parameters
    ----------
    name
        Of the component; the CMB, which is made as samples, is returned as it is.
    values
        (n, 1, *shape) float32; changed if they are in memory.
    """
    if name == "cmb":
        return values
    out = store.changed(name + SAMPLES, values)
    for row in range(len(values)):
        one = np.array(values[row])
        pixel_window.apply(one, geometry, power=-1)
        out[row] = one
    return out


def without_mean(name: str, values: Array, geometry: Geometry, store: Store) -> Array:
    """Maps of a component, each without its mean over the sphere; parameters as `sampled`."""
    weights = None if geometry.kind == "healpix" else geometry.area()
    out = store.changed(name + CENTRED, values)
    for row in range(len(values)):
        one = values[row]
        mean = np.average(np.asarray(one, np.float64).reshape(-1), weights=weights)
        out[row] = one - np.float32(mean)
    return out
