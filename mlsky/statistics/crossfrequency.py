"""CIB and tSZ of several frequencies: cross power by multipole and by pair of frequencies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlsky.components import REFERENCE_GHZ
from mlsky.frequency.scaling import factor

__all__ = ["AGORA", "coefficients", "of_one_frequency"]

#: Correlation coefficient of tSZ and CIB of the Agora simulation (Omori 2024, arXiv:2212.07420)
#: through the passbands of ACT DR6, by GHz and multipole.
AGORA = {
    93: {3000: -0.089},
    150: {1000: -0.159, 2000: -0.134, 3000: -0.097, 5000: -0.029},
    220: {3000: 0.109},
}


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
