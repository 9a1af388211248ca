"""The part of the CIB that its templates do not contain: modulated white noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlsky import seeds
from mlsky.components import REFERENCE_GHZ
from mlsky.sphere.white import white_map

if TYPE_CHECKING:
    from mlsky.frequency.cib_templates import CibTemplates
    from mlsky.io.disk_array import Array
    from mlsky.sphere.geometry import Geometry

__all__ = ["add_remainder"]


def add_remainder(cib: Array, law: CibTemplates, geometry: Geometry, seed: int) -> None:
    """Fill the rows after the CIB templates with the noise maps of the remainder.

    Each is unit white noise times the root of the ratio of the CIB at 148 GHz to its mean, so that
    the shot noise follows the galaxies. Its mean power is that of white noise.

    Parameters
    ----------
    cib
        (n_templates + n_noise, *shape): the template maps, uK_CMB, then rows to be filled,
        sr^(-1/2).
    seed
        Of the sky.
    """
    key = seeds.integer(seed, "cib_remainder")
    row = law.templates_ghz.tolist().index(REFERENCE_GHZ)
    for number in range(law.n_noise):
        amplitude = np.sqrt(np.maximum(cib[row], 0) * np.float32(1 / law.mean_uk))
        amplitude *= white_map(key, number, geometry)
        cib[law.n_templates + number] = amplitude
