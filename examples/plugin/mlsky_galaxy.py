"""A component for mlsky: Galactic dust as a plane-parallel slab with one colour.

A toy that shows what a plugin must have. A real one would give maps of PySM as templates: one for
each frequency between which `weights` interpolates.
"""

from __future__ import annotations

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from mlsky.frequency.bands import jy_per_sr_per_uk

#: Temperature (K) and emissivity index of dust: Planck 2018 results XI, arXiv:1801.04945.
T_DUST_K, BETA = 19.6, 1.53
#: Frequency (GHz) of the template, and its height at the Galactic poles (uK_CMB): our choice.
TEMPLATE_GHZ, POLE_UK = 353.0, 100.0
#: h / k in K per GHz (exact constants of the SI).
H_OVER_K = 0.0479924307


class Dust:
    """Brightness proportional to the path through a slab, 1 / |sin b|."""

    stokes = "T"

    def templates(self, geometry, seed: int) -> np.ndarray:
        """(1, 1, *shape) uK_CMB at 353 GHz; nothing in it is random."""
        theta, phi = geometry.angles()
        place = SkyCoord(ra=phi * u.rad, dec=(np.pi / 2 - theta) * u.rad, frame="icrs")
        latitude = np.abs(place.galactic.b.rad)
        maps = POLE_UK / np.sin(np.maximum(latitude, np.radians(5)))
        return maps.reshape(1, 1, *geometry.shape).astype(np.float32)

    def weights(self, nu_ghz: np.ndarray) -> np.ndarray:
        """(n, 1): a modified blackbody, in uK_CMB."""

        def intensity(nu):
            return nu ** (BETA + 3) / np.expm1(H_OVER_K * nu / T_DUST_K)

        to_uk = jy_per_sr_per_uk(TEMPLATE_GHZ) / jy_per_sr_per_uk(nu_ghz)
        return (intensity(nu_ghz) / intensity(TEMPLATE_GHZ) * to_uk)[:, np.newaxis]
