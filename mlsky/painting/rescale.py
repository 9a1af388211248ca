"""Maps of one cosmology rescaled to another, chart by chart; kappa as alm.

Networks reproduce the cosmology of their training. For another cosmology they are given the kappa
of the sky with the power spectrum of theirs (the phases are kept), and their maps are filtered to
the power of the new cosmology, with the ratios of `mlsky.theory.response`. The ratios of tSZ and
kSZ hardly depend on l; that of the CIB varies by 8 %.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlsky.sphere.chart_area import Area
from mlsky.sphere.charts import Chart
from mlsky.sphere.gaussian import alm_lmax, scale_alm
from mlsky.theory import spectra
from mlsky.theory.response import Response

__all__ = ["Rescaling"]

#: Highest multipole of the gain of kappa for fields on charts.
GAIN_LMAX = 12000

#: Fields that keep a sign: nowhere positive (-1) or nowhere negative (+1).
SIGN = {"tsz": -1, "cib": 1}


class Rescaling:
    """Filters from the cosmology of the sky to that of the networks, and back.

    Parameters
    ----------
    response
        From `mlsky.theory.response.response`.
    """

    def __init__(self, response: Response) -> None:
        self.response = response

    def to_networks(self, alm: NDArray[np.complex128]) -> NDArray[np.complex128]:
        """A copy of the kappa of the sky with the power spectrum of the networks' cosmology."""
        return scale_alm(alm.copy(), 1 / self._kappa(alm))

    def to_sky(self, alm: NDArray[np.complex128]) -> NDArray[np.complex128]:
        """A copy of the networks' kappa with the power spectrum of the sky's cosmology."""
        return scale_alm(alm.copy(), self._kappa(alm))

    def kappa_gain(self, ell: NDArray[np.float64]) -> NDArray[np.float64]:
        """Factor of `to_sky` at any multipoles; constant above `GAIN_LMAX`."""
        gain = self._gain(GAIN_LMAX)
        return np.interp(ell, np.arange(2, len(gain)), gain[2:])

    def _kappa(self, alm: NDArray[np.complex128]) -> NDArray[np.float64]:
        """Root of the ratio of C_L^kk at L = 0 to the band limit of an alm."""
        return self._gain(alm_lmax(alm))

    def _gain(self, lmax: int) -> NDArray[np.float64]:
        new, old = (
            spectra.kappa_spectrum(max(lmax, 2), cosmology=c)[: lmax + 1]
            for c in (self.response.cosmology, self.response.trained)
        )
        return np.sqrt(np.divide(new, old, out=np.ones_like(new), where=old > 0))

    def maps(
        self, chart: Chart, made: dict[str, NDArray[np.float32]], area: Area
    ) -> dict[str, NDArray[np.float32]]:
        """Maps of a chart rescaled to the cosmology of the sky.

        Parameters
        ----------
        made
            Maps *(ny, nx)* in uK_CMB; those without a gain are returned unchanged.
        area
            Pixels that have values.

        Notes
        -----
        Outside the area the maps are replaced by their mean, and the edges of the chart are
        periodic. This matters little, as the gain varies by only a few per cent. A few pixels
        change the sign of their field and are set to zero. The mean of tSZ and CIB is shifted by a
        constant, as in the model.
        """
        inside = area.mask()
        out = dict(made)
        for name in self.response.gain:
            if name in made and inside.any():
                out[name] = self.filtered(name, made[name], chart.pixel_rad, inside)
        return out

    def filtered(
        self, name: str, field: NDArray[np.float32], pixel_rad: float, inside: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """One field on flat square pixels, *(ny, nx)*, with the power and mean of the sky's."""
        from scipy import fft

        r = self.response
        mean = float(field[inside].mean(dtype=np.float64))
        deviation = np.where(inside, field - np.float32(mean), np.float32(0))
        # One thread and float32: the bits do not depend on the number of charts in work.
        modes = fft.rfft2(deviation, workers=1)
        ny, nx = field.shape
        step = 2 * np.pi / pixel_rad
        ky, kx = (np.fft.fftfreq(ny) * step)[:, None], (np.fft.rfftfreq(nx) * step)[None]
        modes *= r.at(name, np.hypot(ky, kx)).astype(np.float32)
        low = float(r.at(name, np.zeros(1))[0])
        shift = low * mean
        if name in r.mean:
            shift += (r.mean[name] - low) * r.trained_mean[name]
        out = fft.irfft2(modes, s=(ny, nx), workers=1) + np.float32(shift)
        sign = SIGN.get(name.partition("_")[0])
        if sign == -1:
            np.minimum(out, 0, out=out)
        elif sign == 1:
            np.maximum(out, 0, out=out)
        return np.where(inside, out, np.float32(0))
