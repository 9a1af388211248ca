"""CIB and tSZ of several frequencies: cross power by multipole and by pair of frequencies.

A map of one frequency is taken to others by `scaled`; maps that were made at each, as a painted set
may hold them, keep what decorrelates their frequencies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlsky.components import REFERENCE_GHZ
from mlsky.scaling import factor
from mlsky.statistics.bandpower import Spectra
from mlsky.statistics.checks import images
from mlsky.statistics.streaming import Averages

__all__ = ["AGORA", "CrossFrequency", "coefficients", "of_one_frequency", "scaled"]

#: Correlation coefficient of tSZ and CIB of the Agora simulation (Omori 2024, arXiv:2212.07420)
#: through the passbands of ACT DR6, by GHz and multipole.
AGORA = {
    93: {3000: -0.089},
    150: {1000: -0.159, 2000: -0.134, 3000: -0.097, 5000: -0.029},
    220: {3000: 0.109},
}


def scaled(
    maps: NDArray, law: str, freqs_ghz: Sequence[float], reference: float = REFERENCE_GHZ
) -> NDArray:
    """Maps (..., n, n) in uK_CMB of `reference`, at each frequency (frequencies, ..., n, n).

    Parameters
    ----------
    law
        "tsz" or "cib", of `mlsky.scaling.factor`.
    """
    factors = factor(law, np.asarray(freqs_ghz, np.float64), reference)
    return np.multiply.outer(factors, np.asarray(maps))


def of_one_frequency(
    power: NDArray, freqs_ghz: Sequence[float], reference: float = REFERENCE_GHZ
) -> NDArray[np.float64]:
    """Power of pairs of bands, (2, freqs, 2, freqs, bands), of that at one frequency.

    Parameters
    ----------
    power
        (2, 2, bands) of tSZ and CIB at `reference`, uK^2 sr: `Spectra.power`.
    """
    at = np.asarray(freqs_ghz, np.float64)
    factors = np.array([factor(law, at, reference) for law in ("tsz", "cib")])
    return np.einsum("if,jg,ijb->ifjgb", factors, factors, power)


def coefficients(power: NDArray) -> NDArray[np.float64]:
    """Correlation of tSZ at each frequency with CIB at each (freqs, freqs, bands).

    Parameters
    ----------
    power
        (2, freqs, 2, freqs, bands). Where tSZ has no power, as at 217.5 GHz, it is NaN.
    """
    own = [np.einsum("ffb->fb", power[i, :, i]) for i in range(2)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return power[0, :, 1] / np.sqrt(own[0][:, None] * own[1][None])


class CrossFrequency:
    """Streaming cross power of tSZ and CIB of the same frequencies.

    Parameters
    ----------
    n, pixel_arcmin, edges, periodic
        As of `mlsky.statistics.bandpower.Spectra`.
    freqs_ghz
        Frequencies (GHz) of the maps.
    """

    def __init__(
        self,
        n: int,
        pixel_arcmin: float,
        edges: Sequence[float],
        freqs_ghz: Sequence[float],
        periodic: bool = True,
    ) -> None:
        self.spectra = Spectra(n, pixel_arcmin, edges, periodic)
        self.freqs_ghz = tuple(float(f) for f in freqs_ghz)
        self._means = Averages(self._measure)

    def _measure(self, maps: NDArray) -> dict[str, NDArray]:
        f = len(self.freqs_ghz)
        found = [self.spectra.power(self.spectra.modes(both)) for both in maps]
        return {"power": np.array(found).reshape(len(maps), 2, f, 2, f, -1)}

    def update(self, tsz: NDArray, cib: NDArray, area: int = 0) -> None:
        """Add maps of one area.

        Parameters
        ----------
        tsz, cib
            (frequencies, n, n), uK_CMB.

        Raises
        ------
        ValueError
            If they are of other sizes or frequencies, or not finite.
        """
        for name, maps in (("tsz", tsz), ("cib", cib)):
            images(maps, self.spectra.n, name)
            if np.shape(maps)[:-2] != (len(self.freqs_ghz),):
                raise ValueError(
                    f"{name} of shape {np.shape(maps)}: must be one map for each of "
                    f"{len(self.freqs_ghz)} frequencies"
                )
        self._means.update(np.concatenate([tsz, cib])[None], area)

    def compute(self) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """``power`` (uK^2 sr) of tSZ at each frequency with CIB at each, and ``correlation``.

        Returns
        -------
        dict
            Value and error, each (freqs of tSZ, freqs of CIB, bands). Errors by leaving areas
            out, NaN for one.
        """

        def both(means):
            power = means["power"]
            return np.stack([power[0, :, 1], coefficients(power)])

        value, error = self._means.compute(both)
        names = ("power", "correlation")
        return {name: (value[i], error[i]) for i, name in enumerate(names)}
