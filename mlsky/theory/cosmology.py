"""Cosmological parameters: flat LCDM with one massive neutrino, and whatever means it.

`parse` takes a name, a dict, a `pyccl.Cosmology` or a `camb.CAMBparams`; the rest
of the package sees one frozen `Cosmology`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from mlsky import arguments
from mlsky.frequency.bands import T_CMB_K

__all__ = ["DEFAULT", "DERIVED", "RANGES", "Cosmology", "names", "parse"]

DEFAULT = "planck2018"

#: What CAMB (its BBN table, its optical depth search) and CCL can both compute.
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

_EXAMPLES = {"H0": 67.36, "sigma8": 0.8111}

#: What a dict may give in place of a parameter: which one it replaces, and its own range.
DERIVED = {"H0": ("h", (30.0, 150.0)), "sigma8": ("As", (0.3, 1.5))}


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
        Optical depth to reionisation; only the CMB spectra feel it.
    mnu
        Total neutrino mass (eV), carried by one eigenstate.
    tcmb
        CMB temperature (K), `mlsky.frequency.bands.T_CMB_K`: units and spectra of all maps hold for
        it alone.
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
            object.__setattr__(self, name, _number(name, value, limits, _TABLE[DEFAULT][name]))
        allowed = (
            f"{T_CMB_K:g} K, the temperature that units and spectra of all maps hold for; leave it "
            "out"
        )
        # 1e-6: what a float32 has lost.
        near = T_CMB_K - 1e-6, T_CMB_K + 1e-6
        arguments.number("cosmology tcmb", self.tcmb, allowed, *near, "K")
        object.__setattr__(self, "tcmb", T_CMB_K)

    def to_dict(self) -> dict[str, float]:
        """Every parameter by name, as plain floats; `parse` takes it back."""
        return asdict(self)


_TABLE = {
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


def _number(name: str, value: object, limits: tuple[float, float], example: float) -> float:
    low, high = limits
    allowed = f"a number from {low:g} to {high:g}, for example {example:g}"
    return arguments.number(f"cosmology {name}", value, allowed, low, high, _UNITS.get(name))


def names() -> tuple[str, ...]:
    """Names that `parse` knows."""
    return tuple(_TABLE)


def parse(cosmology: object = DEFAULT) -> Cosmology:
    """One `Cosmology` from whatever a caller may hold.

    Parameters
    ----------
    cosmology
        A name of `names`; a dict of parameters, those left out being Planck 2018's, with H0
        (km/s/Mpc) in place of h and sigma8 in place of As if wanted; a `pyccl.Cosmology` (its
        parameters only: how it computes P(k) is not kept; tau, which CCL has not, is Planck
        2018's); a `camb.CAMBparams`; or a `Cosmology`. CAMB turns a sigma8 into As.

    Raises
    ------
    ValueError
        If the name or a key is unknown, a value is out of range, a parameter is given twice
        (h and H0, As and sigma8), tcmb is not 2.7255 K, or the object has physics that a flat
        LCDM cosmology does not (curvature, w, modified gravity, a running tilt).

    Notes
    -----
    The mass of several massive neutrinos is summed into one eigenstate.
    """
    if isinstance(cosmology, Cosmology):
        return cosmology
    if isinstance(cosmology, str):
        if cosmology not in _TABLE:
            shown = arguments.short(cosmology)
            raise ValueError(
                f"cosmology={shown}: must be one of {', '.join(_TABLE)}, a dict, "
                "a pyccl.Cosmology or a camb.CAMBparams"
            )
        return Cosmology(**_TABLE[cosmology])
    if isinstance(cosmology, Mapping):
        return _from_mapping(cosmology)
    # An object of CAMB or CCL can only exist if its package is loaded already.
    for package, kind, adapter in (("camb", "CAMBparams", "camb"), ("pyccl", "Cosmology", "ccl")):
        cls = getattr(sys.modules.get(package), kind, None)
        if cls is not None and isinstance(cosmology, cls):
            return _from_object(cosmology, adapter)
    raise ValueError(
        f"cosmology of type {type(cosmology).__name__}: must be one of {', '.join(_TABLE)}, "
        "a dict, a pyccl.Cosmology or a camb.CAMBparams"
    )


def _from_mapping(values: Mapping) -> Cosmology:
    allowed = [field.name for field in fields(Cosmology)] + list(DERIVED)
    unknown = [key for key in values if key not in allowed]
    if unknown:
        raise ValueError(
            f"cosmology has unknown keys {', '.join(map(repr, unknown))}: "
            f"allowed are {', '.join(allowed)}"
        )
    own = dict(values)
    derived = {}
    for name, (replaced, limits) in DERIVED.items():
        if name not in own:
            continue
        if replaced in own:
            raise ValueError(f"cosmology has both {replaced} and {name}: give one of them")
        derived[name] = _number(name, own.pop(name), limits, _EXAMPLES[name])
    if "H0" in derived:
        own["h"] = derived["H0"] / 100
    cosmology = Cosmology(**{**_TABLE[DEFAULT], **own})
    return _scaled(cosmology, derived["sigma8"]) if "sigma8" in derived else cosmology


def _scaled(cosmology: Cosmology, sigma8: float) -> Cosmology:
    """The cosmology with the As that gives `sigma8`: linear power goes as As."""
    from mlsky.plugins import camb

    amplitude = cosmology.As * (sigma8 / camb.sigma8(cosmology)) ** 2
    low, high = RANGES["As"]
    if not low <= amplitude <= high:
        raise ValueError(
            f"cosmology sigma8={sigma8:g}: takes As={amplitude:.3g} with the other parameters, "
            f"which must be from {low:g} to {high:g}"
        )
    return replace(cosmology, As=amplitude)


def _from_object(cosmology: object, adapter: str) -> Cosmology:
    from mlsky.plugins import camb

    if adapter == "camb":
        return Cosmology(**camb.parameters(cosmology))
    from mlsky.plugins import ccl

    values = {"tau": _TABLE[DEFAULT]["tau"], **ccl.parameters(cosmology)}
    wanted = values.pop("sigma8", None)
    if wanted is None:
        return Cosmology(**values)
    return _scaled(Cosmology(**values, As=_TABLE[DEFAULT]["As"]), wanted)
