"""Cosmological parameters: flat LCDM with one massive neutrino, and named sets of them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from mlsky import arguments
from mlsky.frequency.bands import T_CMB_K

__all__ = [
    "DEFAULT",
    "NAMED",
    "RANGES",
    "Cosmology",
    "number",
]

DEFAULT = "planck2018"

#: Ranges that both CAMB (its BBN table, its optical depth search) and CCL can compute.
RANGES = {
    "h": (0.3, 1.5),
    "ombh2": (0.005, 0.04),
    "omch2": (0.01, 0.5),
    "mnu": (0.0, 3.0),
    "ns": (0.5, 1.5),
    "As": (1e-10, 1e-8),
    "tau": (0.005, 0.3),
    "nnu": (1.1, 10.0),
}

#: Units of parameters that have one, to which a Quantity is converted.
_UNITS = {"H0": "km / (Mpc s)", "mnu": "eV"}


@dataclass(frozen=True, kw_only=True)
class Cosmology:
    """Parameters of a flat LCDM cosmology.

    Parameters
    ----------
    h
        Hubble constant / (100 km/s/Mpc).
    ombh2, omch2
        Physical densities of baryons and of cold dark matter.
    ns, As
        Tilt and amplitude of the primordial curvature power at 0.05/Mpc.
    tau
        Optical depth to reionisation; it affects only the CMB spectra.
    mnu
        Total neutrino mass (eV), carried by one eigenstate.
    tcmb
        CMB temperature (K), `mlsky.frequency.bands.T_CMB_K`: the units and spectra of all maps are
        valid only for it.
    nnu
        Effective number of neutrinos (Bennett et al. 2021,
        doi:10.1088/1475-7516/2021/04/073).

    Raises
    ------
    ValueError
        If a parameter is not a number within `RANGES`, or tcmb is another one.
    """

    h: float
    ombh2: float
    omch2: float
    ns: float
    As: float
    tau: float
    mnu: float = 0.06
    tcmb: float = T_CMB_K
    nnu: float = 3.044

    def __post_init__(self) -> None:
        for name, limits in RANGES.items():
            value = getattr(self, name)
            object.__setattr__(self, name, number(name, value, limits, NAMED[DEFAULT][name]))
        allowed = (
            f"{T_CMB_K:g} K, the temperature that units and spectra of all maps hold for; leave it "
            "out"
        )
        # 1e-6 allows for rounding to float32.
        near = T_CMB_K - 1e-6, T_CMB_K + 1e-6
        arguments.number("cosmology tcmb", self.tcmb, allowed, *near, "K")
        object.__setattr__(self, "tcmb", T_CMB_K)

    def to_dict(self) -> dict[str, float]:
        """Every parameter by name, as plain floats, for `parse`."""
        return asdict(self)


NAMED = {
    # Planck 2018 VI (doi:10.1051/0004-6361/201833910), Table 2, means of
    # TT,TE,EE+lowE+lensing; As is from ln(10^10 As) = 3.044.
    "planck2018": {
        "h": 0.6736,
        "ombh2": 0.02237,
        "omch2": 0.1200,
        "ns": 0.9649,
        "As": math.exp(3.044) * 1e-10,
        "tau": 0.0544,
        "mnu": 0.06,
        "nnu": 3.044,
    },
    # ACT DR6 (Louis et al. 2025, arXiv:2503.14452), best fit as in the test of
    # act_dr6_mflike; h is what CAMB finds for its theta_MC = 0.0104055.
    "act-dr6": {
        "h": 0.660546,
        "ombh2": 0.02262,
        "omch2": 0.1240,
        "ns": 0.9664,
        "As": 2.127e-9,
        "tau": 0.0566,
        "mnu": 0.06,
        "nnu": 3.044,
    },
    # The simulation of Sehgal et al. 2010 (doi:10.1088/0004-637X/709/2/920), Sec. 2:
    # Omega_b = 0.044, Omega_m = 0.264, h = 0.71, ns = 0.96, massless neutrinos, and As
    # such that CAMB gives its sigma8 = 0.80; tau of WMAP5 (Dunkley et al. 2009,
    # doi:10.1088/0067-0049/180/2/306, Table 2).
    "wmap5": {
        "h": 0.71,
        "ombh2": 0.044 * 0.71**2,
        "omch2": 0.220 * 0.71**2,
        "ns": 0.96,
        "As": 2.14927e-9,
        "tau": 0.087,
        "mnu": 0.0,
        "nnu": 3.04,
    },
}


def number(name: str, value: object, limits: tuple[float, float], example: float) -> float:
    low, high = limits
    allowed = f"a number from {low:g} to {high:g}, for example {example:g}"
    return arguments.number(f"cosmology {name}", value, allowed, low, high, _UNITS.get(name))
