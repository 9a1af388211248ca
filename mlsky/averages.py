"""Means of the maps of a sky: over its pixels, and over the sphere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlsky.sphere import pixel_window

if TYPE_CHECKING:
    from mlsky.io.disk_array import Array
    from mlsky.io.store import Store
    from mlsky.sphere.geometry import Geometry

__all__ = ["sampled", "samples", "take_mean_off"]


def samples(name: str) -> str:
    """Name in a store of the maps of a component without the window of their pixels."""
    return f"{name}_samples"


def sampled(name: str, values: Array, geometry: Geometry, store: Store) -> Array:
    """Averages over pixels as samples at their centres, in an array of their own.

    A run that is resumed needs what it began with.

    Parameters
    ----------
    name
        Of the component; the CMB, which is made as samples, is returned as it is.
    values
        (n, 1, *shape) float32.
    """
    if name == "cmb":
        return values
    out = store.array(samples(name), values.shape)
    for row in range(len(values)):
        one = np.array(values[row])
        pixel_window.apply(one, geometry, power=-1)
        out[row] = one
    return out


def take_mean_off(maps: Array, geometry: Geometry) -> None:
    """Subtract from each of several maps its mean over the sphere, in place."""
    weights = None if geometry.kind == "healpix" else geometry.area()
    for row in range(len(maps)):
        values = maps[row]
        mean = np.average(np.asarray(values, np.float64).reshape(-1), weights=weights)
        maps[row] = values - np.float32(mean)
