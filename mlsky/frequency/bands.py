"""Frequencies and units: allowed ranges and conversions.

All conversions are those of a single frequency; `mlsky.frequency.passbands` has those of bands.
Temperatures are thermodynamic (CMB) unless they say RJ: 1 uK_CMB is the change of
the Planck spectrum at `T_CMB_K` per microkelvin, 1 uK_RJ that of its Rayleigh-Jeans limit.
"""

from __future__ import annotations

import numpy as np

from mlsky import arguments

__all__ = [
    "ALLOWED",
    "ALLOWED_IN_BAND",
    "BAND_MAX_GHZ",
    "FREQ_RANGE_GHZ",
    "T_CMB_K",
    "UNITS",
    "check_range",
    "convert",
    "dimensionless",
    "frequencies",
    "jy_per_sr_per_uk",
    "jy_per_sr_per_uk_rj",
    "parse_freqs",
    "parse_unit",
]

#: CMB temperature (K): Fixsen 2009, doi:10.1088/0004-637X/707/2/916 (2.72548 +- 0.00057),
#: rounded as astropy does.
T_CMB_K = 2.7255

# Defining constants of the SI (BIPM 2019, the SI brochure, 9th edition, table 1): exact.
PLANCK_J_S = 6.62607015e-34
BOLTZMANN_J_PER_K = 1.380649e-23
LIGHT_M_PER_S = 299792458.0

#: Jy in SI units, W m^-2 Hz^-1, by definition.
JANSKY = 1e-26

#: Frequencies (GHz) for which every component has a law; docs/conventions says how far each has
#: been compared with data. From below the lowest band of the Simons Observatory (27 GHz; Ade et al.
#: 2019, doi:10.1088/1475-7516/2019/02/056) to above Planck's highest (857 GHz).
FREQ_RANGE_GHZ = (20.0, 900.0)

#: Frequency (GHz) to which a passband may reach that begins in that range. Our choice: beyond the
#: upper edge of Planck's band at 857 GHz, more than a third of which lies above 900 GHz.
BAND_MAX_GHZ = 1150.0

#: What may be given for frequencies, and for those of one passband.
ALLOWED = (
    f"must be one or more frequencies in GHz from {FREQ_RANGE_GHZ[0]:g} to {FREQ_RANGE_GHZ[1]:g}, "
    "for example freqs=[93, 145, 225]"
)
ALLOWED_IN_BAND = (
    f"must be frequencies in GHz from {FREQ_RANGE_GHZ[0]:g} to {BAND_MAX_GHZ:g}, or one alone to "
    f"{FREQ_RANGE_GHZ[1]:g}, for example mlsky.Band([140, 150, 160])"
)

#: Units of intensity, or of temperature.
UNITS = ("uK_CMB", "K_CMB", "uK_RJ", "Jy/sr", "MJy/sr")


def parse_freqs(freqs) -> np.ndarray:
    """Band centres in GHz, checked.

    Parameters
    ----------
    freqs
        One frequency or a sequence of them: numbers in GHz, or an astropy Quantity (or a list
        of them) of any unit equivalent to a frequency, such as Hz, mm or meV.

    Returns
    -------
    nu_ghz
        *(nfreq,)* float64, in the order given.

    Raises
    ------
    ValueError
        If empty, not numbers, of a unit that is no frequency, not finite, not positive, or
        outside `FREQ_RANGE_GHZ`.
    """
    nu_ghz = frequencies(freqs)
    check_range(nu_ghz, "freqs", FREQ_RANGE_GHZ[1], ALLOWED)
    return nu_ghz


def frequencies(freqs, name: str = "freqs", allowed: str = ALLOWED) -> np.ndarray:
    """As `parse_freqs`, also outside `FREQ_RANGE_GHZ`.

    Parameters
    ----------
    name, allowed
        Of the argument, and what it may be, for errors.
    """
    nu_ghz = _in_ghz(freqs, name, allowed)
    if nu_ghz.size == 0:
        raise ValueError(f"{name}={arguments.short(freqs)}: empty; {allowed}")
    bad = nu_ghz[~(np.isfinite(nu_ghz) & (nu_ghz > 0))]
    if bad.size:
        raise ValueError(f"{name} holds {bad[0]:g}, not finite and positive: {allowed}")
    return nu_ghz


def check_range(nu_ghz: np.ndarray, what: str, high: float, allowed: str) -> None:
    """Refuse frequencies (GHz) above `high` or below the range.

    Parameters
    ----------
    what, allowed
        What holds the frequencies, and what is allowed, for the error.
    """
    low = FREQ_RANGE_GHZ[0]
    # a frequency given as a wavelength may miss the edge of the range by rounding
    bad = nu_ghz[(nu_ghz < low * (1 - 1e-12)) | (nu_ghz > high * (1 + 1e-12))]
    if bad.size:
        raise ValueError(f"{what} holds {bad[0]:g} GHz: outside the range of the laws; {allowed}")


def parse_unit(unit, allowed: tuple[str, ...] = UNITS) -> str:
    """The name in `allowed` of a unit given as text or as an astropy unit.

    Raises
    ------
    ValueError
        If the unit is not one of them.
    """
    name = str(unit).replace(" ", "")
    if name not in allowed:
        shown = arguments.short(str(unit))
        raise ValueError(f'unit={shown}: must be one of {", ".join(allowed)}, as unit="uK_CMB"')
    return name


def dimensionless(nu_ghz):
    """x = h nu / (k T_CMB), the shape of `nu_ghz`."""
    nu = np.asarray(nu_ghz, dtype=np.float64)
    if not (np.isfinite(nu) & (nu > 0)).all():
        shown = arguments.short(nu_ghz)
        raise ValueError(f"nu_ghz={shown}: must be positive, finite frequencies in GHz")
    return PLANCK_J_S * nu * 1e9 / (BOLTZMANN_J_PER_K * T_CMB_K)


def jy_per_sr_per_uk(nu_ghz):
    """Intensity (Jy/sr) of 1 uK_CMB, dB_nu/dT at T_CMB.

    dB/dT = (2 k nu^2 / c^2) x^2 e^x / (e^x - 1)^2, the derivative of Planck's law; 398.48 Jy/sr
    at 150 GHz.

    Parameters
    ----------
    nu_ghz
        Frequencies (GHz), any shape.

    Returns
    -------
    factor
        Jy/sr per uK_CMB, the shape of `nu_ghz`.
    """
    half = dimensionless(nu_ghz) / 2
    # x^2 e^x / (e^x - 1)^2 written so that it neither cancels nor overflows
    return jy_per_sr_per_uk_rj(nu_ghz) * (half / np.sinh(half)) ** 2


def jy_per_sr_per_uk_rj(nu_ghz):
    """Intensity (Jy/sr) of 1 uK_RJ, 2 k nu^2 / c^2, the shape of `nu_ghz`."""
    dimensionless(nu_ghz)  # the check
    wave_number = np.asarray(nu_ghz, dtype=np.float64) * 1e9 / LIGHT_M_PER_S
    return (2 * BOLTZMANN_J_PER_K * wave_number**2 * 1e-6 / JANSKY)[()]


def convert(nu_ghz, from_unit: str = "uK_CMB", to_unit: str = "uK_CMB"):
    """Factor that takes a map at `nu_ghz` from one unit to another.

    Parameters
    ----------
    nu_ghz
        Frequencies (GHz), any shape.
    from_unit, to_unit
        Names in `UNITS`.

    Returns
    -------
    factor
        The shape of `nu_ghz`: map in `to_unit` = factor * map in `from_unit`.

    Raises
    ------
    ValueError
        If a unit is not in `UNITS` or a frequency is not positive.
    """
    return _jy_per_sr(nu_ghz, parse_unit(from_unit)) / _jy_per_sr(nu_ghz, parse_unit(to_unit))


def _jy_per_sr(nu_ghz, unit: str):
    """Jy/sr per `unit`, the shape of `nu_ghz`."""
    if unit == "uK_CMB":
        return jy_per_sr_per_uk(nu_ghz)
    if unit == "K_CMB":
        return 1e6 * jy_per_sr_per_uk(nu_ghz)
    if unit == "uK_RJ":
        return jy_per_sr_per_uk_rj(nu_ghz)
    one = np.ones_like(dimensionless(nu_ghz))[()]
    return one if unit == "Jy/sr" else 1e6 * one


def _in_ghz(freqs, name: str, allowed: str) -> np.ndarray:
    """`freqs` as *(n,)* float64 in GHz, or a ValueError; the values are not checked."""
    if isinstance(freqs, (bytearray, memoryview)):  # numpy would take each byte for a number
        raise ValueError(f"{name}={arguments.short(freqs)}: {allowed}")
    freqs = arguments.unmask(freqs)  # a masked frequency is NaN, which is refused
    several = isinstance(freqs, (list, tuple))
    if hasattr(freqs, "unit") or (several and any(hasattr(f, "unit") for f in freqs)):
        from astropy import units

        # one by one: the members of a list may differ in unit
        try:
            with np.errstate(divide="ignore"):  # a wavelength of 0 is refused as infinite
                values = [
                    units.Quantity(f).to_value(units.GHz, equivalencies=units.spectral())
                    for f in (freqs if several else [freqs])
                ]
        except (units.UnitsError, TypeError, ValueError) as error:
            raise ValueError(
                f"{name}={arguments.short(freqs)}: not convertible to GHz "
                f"({' '.join(str(error).split())}); {allowed}"
            ) from None
        freqs = values if several else values[0]
        freqs = [freqs] if np.ndim(freqs) == 0 else freqs
    elif not several and np.ndim(freqs) == 0 and not isinstance(freqs, (str, bytes)):
        freqs = [freqs]
    try:
        array = np.asarray(freqs)
    except ValueError:  # ragged
        array = np.asarray(None)
    # text and booleans would be taken for numbers by a plain float64 cast
    if array.size and (array.dtype.kind not in "iuf" or array.ndim > 1):
        raise ValueError(f"{name}={arguments.short(freqs)}: {allowed}")
    return np.array(array, dtype=np.float64).reshape(-1)
