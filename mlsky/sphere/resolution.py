"""Band limits that follow from the pixels of networks and of the output."""

from __future__ import annotations

from mlsky.sphere.geometry import Geometry, Legendre

__all__ = ["kappa_grid", "kappa_lmax"]

#: Highest multipole of the Gaussian kappa. Higher ones would cost more in transforms than they
#: contribute.
GAUSSIAN_LMAX = 10800
#: Multipoles of kappa above the band limit of the output, for lensing of the CMB; the highest one,
#: as a fraction of the band limit of the charts, at which interpolation is accurate; and the
#: highest in any case.
LENSING_LMAX, KAPPA_BAND, KAPPA_LMAX = 500, 0.76, 8192
#: Largest number of rings for the analysis of the network's kappa. With charts of 0.5' its power
#: above l = 13400 is aliased to lower multipoles; with coarser charts there is no aliasing.
MOST_RINGS = 10800


def kappa_lmax(pixel_arcmin: float) -> int:
    """Band limit of the Gaussian kappa on pixels of this size: Nyquist, 10800 at most."""
    return int(min(GAUSSIAN_LMAX, round(180 * 60 / pixel_arcmin)))


def kappa_grid(geometry: Geometry, pixel_arcmin: float) -> tuple[int, Legendre]:
    """Band limit of the network's kappa, and the rings on which it is analysed."""
    band = 10800 / pixel_arcmin  # Nyquist of the charts
    lmax = min(geometry.lmax + LENSING_LMAX, round(KAPPA_BAND * band), KAPPA_LMAX)
    return lmax, Legendre(min(int(band + lmax) // 2 + 1, max(MOST_RINGS, lmax + 1)))
