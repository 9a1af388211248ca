"""Thermal Sunyaev-Zel'dovich effect of hot gas: relativistic corrections by electron temperature.

Itoh, Kohyama & Nozawa 1998 (doi:10.1086/305876, astro-ph/9712289), section 2: with theta = k T_e /
(m_e c^2) the change of the CMB at first order in optical depth is dT/T_CMB = y sum_n theta^n
Y_n(x), n = 0 to 4. Y_0 is the f(x) of `mlsky.frequency.tsz`. Intensity is converted to temperature
at first order, by dB/dT, as everywhere in mlsky.

The series is asymptotic. Against the integral over the exact kernel of a scattering (tests) its
five terms are good to 1 % up to 10 keV and 800 GHz (2.4 % at 900 GHz), and at 15 keV to 1 % up to
350 GHz, 1.5 % to 570, 5 % to 800 and 10 % at 900 GHz; near the null to 0.002 of y. Beyond 15 keV it
is refused.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial import polynomial
from numpy.typing import NDArray

from mlsky import arguments
from mlsky.frequency.bands import T_CMB_K, dimensionless

__all__ = [
    "MAX_KEV",
    "ORDER",
    "cluster_temperature_kev",
    "parse_temperature",
    "relativistic_terms",
    "spectral_function",
    "theta",
]

#: Highest electron temperature (keV) for which Itoh et al. 1998 recommend their series (abstract).
MAX_KEV = 15.0

#: Highest power of theta in the series.
ORDER = 4

#: Electron rest energy (keV), CODATA 2018 (Tiesinga et al. 2021, doi:10.1103/RevModPhys.93.025010).
ELECTRON_KEV = 510.99895

#: Arnaud, Pointecouteau & Pratt 2005 (doi:10.1051/0004-6361:20052856, astro-ph/0502210), Table 2,
#: overdensity 500, whole sample: E(z) M500 = A (kT / 5 keV)^alpha, A in Msun / h70.
M500_AT_5_KEV, M500_SLOPE = 3.84e14, 1.71

#: Y_n as polynomials in X = x coth(x/2): row k is the factor of S^(2k), S = x / sinh(x/2).
_Y = (
    ((-4.0, 1.0),),
    ((-10.0, 47 / 2, -42 / 5, 7 / 10), (-21 / 5, 7 / 5)),
    (
        (-15 / 2, 1023 / 8, -868 / 5, 329 / 5, -44 / 5, 11 / 30),
        (-434 / 5, 658 / 5, -242 / 5, 143 / 30),
        (-44 / 5, 187 / 60),
    ),
    (
        (
            *(15 / 2, 2505 / 8, -7098 / 5, 14253 / 10, -18594 / 35),
            *(12059 / 140, -128 / 21, 16 / 105),
        ),
        (-7098 / 10, 14253 / 5, -102267 / 35, 156767 / 140, -1216 / 7, 64 / 7),
        (-18594 / 35, 205003 / 280, -1920 / 7, 1024 / 35),
        (-544 / 21, 992 / 105),
    ),
    (
        (
            *(-135 / 32, 30375 / 128, -62391 / 10, 614727 / 40, -124389 / 10),
            *(355703 / 80, -16568 / 21, 7516 / 105, -22 / 7, 11 / 210),
        ),
        (
            *(-62391 / 20, 614727 / 20, -1368279 / 20, 4624139 / 80),
            *(-157396 / 7, 30064 / 7, -2717 / 7, 2761 / 210),
        ),
        (-124389 / 10, 6046951 / 160, -248520 / 7, 481024 / 35, -15972 / 7, 18689 / 140),
        (-70414 / 21, 465992 / 105, -11792 / 7, 19778 / 105),
        (-682 / 7, 7601 / 210),
    ),
)


def theta(temperature_kev):
    """k T_e / (m_e c^2), the shape of `temperature_kev`."""
    return np.asarray(temperature_kev, dtype=np.float64)[()] / ELECTRON_KEV


def spectral_function(nu_ghz, temperature_kev: float = 0.0):
    """dT / (T_CMB y) of gas of one temperature, the shape of `nu_ghz`.

    Parameters
    ----------
    nu_ghz
        Frequencies (GHz), any shape.
    temperature_kev
        Electron temperature, 0 to `MAX_KEV`; 0 is the non-relativistic limit.

    Raises
    ------
    ValueError
        If a frequency is not positive or the temperature is out of range.
    """
    hot = _in_range(temperature_kev)
    terms = _series(dimensionless(nu_ghz))
    return polynomial.polyval(theta(hot), terms)[()]


def relativistic_terms(nu_ghz, order: int = ORDER) -> NDArray[np.float64]:
    """Band weights of maps of y, y theta, y theta^2, ...: dT = sum_n terms[n] (y theta^n).

    Parameters
    ----------
    nu_ghz
        *(nfreq,)* frequencies (GHz).
    order
        Highest power of theta, 0 to `ORDER`. Below `ORDER` the weights are not those of the
        truncated series, which converges badly, but of the closest polynomial of that degree (least
        squares) at temperatures from 0 to `MAX_KEV`, exact at 0.

    Returns
    -------
    ndarray
        *(order + 1, nfreq)*, uK_CMB for y = 1.

    Raises
    ------
    ValueError
        If a frequency is not positive or the order is out of range.

    Notes
    -----
    Largest departure from all five terms up to 15 keV and 400 GHz: 0.0008 y at order 2, 0.018 y
    at order 1; at 10 keV and 857 GHz order 2 is 1.2 % off, order 1 0.7 %.
    """
    if isinstance(order, bool) or order not in range(ORDER + 1):
        raise ValueError(f"order={order!r}: must be an integer from 0 to {ORDER}")
    series = _series(np.atleast_1d(dimensionless(nu_ghz)))
    if 0 < order < ORDER:
        # Chebyshev nodes weigh the ends of the range as the worst case asks for.
        node = 0.5 - 0.5 * np.cos(np.pi * (np.arange(32) + 0.5) / 32)
        powers = (theta(MAX_KEV) * node[:, None]) ** np.arange(ORDER + 1)
        beyond = powers[:, 1:] @ series[1:]
        scale = theta(MAX_KEV) ** np.arange(1, order + 1)  # columns of similar size
        fit, *_ = np.linalg.lstsq(powers[:, 1 : order + 1] / scale, beyond, rcond=None)
        series = np.concatenate([series[:1], fit / scale[:, None]])
    return 1e6 * T_CMB_K * series[: order + 1]


def cluster_temperature_kev(m500c, expansion, h: float):
    """Gas temperature of haloes from their mass.

    Arnaud, Pointecouteau & Pratt 2005, Table 2: kT = 5 keV [E(z) M500 h70 / 3.84e14 Msun]^(1/1.71),
    measured on ten relaxed clusters of 2 to 9 keV with hydrostatic masses. Above `MAX_KEV`, where
    the series of this module ends, the temperature is `MAX_KEV`.

    Parameters
    ----------
    m500c
        Mass (Msun) within 500 times the critical density, any shape.
    expansion
        E(z) = H(z) / H0 at their redshifts, as `m500c`.
    h
        H0 / (100 km/s/Mpc).

    Returns
    -------
    temperature
        keV, the shape of `m500c`.
    """
    mass = np.asarray(m500c, dtype=np.float64) * np.asarray(expansion) * (h / 0.7)
    return np.minimum(5.0 * (mass / M500_AT_5_KEV) ** (1 / M500_SLOPE), MAX_KEV)[()]


def parse_temperature(value) -> float | None:
    """The argument `tsz_temperature_kev`: None, or an electron temperature in keV.

    Parameters
    ----------
    value
        None for the non-relativistic limit, a number, or a Quantity of energy or temperature.

    Raises
    ------
    ValueError
        If it is not one number from 0 to `MAX_KEV`, or has another unit.
    """
    if value is None:
        return None
    number = value
    if hasattr(value, "unit"):
        from astropy import units

        # not by convertibility: other packages may have enabled conversions from wavelength to
        # energy
        if value.unit.physical_type in ("energy", "temperature"):
            number = value.to_value(units.keV, equivalencies=units.temperature_energy())
        else:
            raise ValueError(
                f"tsz_temperature_kev={value}: must be an energy or a temperature, as 5 keV"
            )
    return _in_range(number)


def _in_range(value) -> float:
    allowed = (
        f"None or a number from 0 to {MAX_KEV:g} keV, beyond which the relativistic series does "
        "not hold, for example 5"
    )
    return arguments.number("tsz_temperature_kev", value, allowed, 0, MAX_KEV)


def _series(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Y_0 to Y_4 at x, *(5, ...)*."""
    big, small = x / np.tanh(x / 2), x / np.sinh(x / 2)
    return np.stack(
        [
            sum(small ** (2 * k) * polynomial.polyval(big, row) for k, row in enumerate(rows))
            for rows in _Y
        ]
    )
