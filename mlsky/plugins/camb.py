"""CAMB (Lewis, Challinor & Lasenby 2000, doi:10.1086/309179): kappa and CMB spectra."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import camb
import numpy as np

if TYPE_CHECKING:
    from mlsky.theory.cosmology import Cosmology

__all__ = ["SETTINGS", "parameters", "sigma8", "spectra", "to_params"]

#: Part of the key of the spectra cache: a change here is a change of the spectra.
SETTINGS = {
    "halofit_version": "mead2020",
    # k eta_0 up to 18000 times this. At 8, C_L^kk is 0.6 % low at L = 8000 and 6 % at
    # 22000; at 16 it is 0.08 % and 0.6 % low (measured against 24 and against CCL).
    "lens_potential_accuracy": 16,
    # CAMB's own default since 2.0. CCL sets the global to 0 behind our back.
    "AccuracyTarget": 1,
}


@contextlib.contextmanager
def _accuracy() -> Iterator[None]:
    """CAMB's global accuracy at our value, and afterwards as it was."""
    before = getattr(camb.config, "AccuracyTarget", None)
    if before is None:  # CAMB 1: no such switch
        yield
        return
    camb.config.AccuracyTarget = SETTINGS["AccuracyTarget"]
    try:
        yield
    finally:
        camb.config.AccuracyTarget = before


def to_params(cosmology: Cosmology) -> camb.CAMBparams:
    """The `camb.CAMBparams` of a cosmology, without any accuracy setting."""
    params = camb.CAMBparams()
    _set_cosmology(params, cosmology, cosmology.mnu)
    params.InitPower.set_params(As=cosmology.As, ns=cosmology.ns)
    return params


def _set_cosmology(params: camb.CAMBparams, cosmology: Cosmology, mnu: float) -> None:
    params.set_cosmology(
        H0=100 * cosmology.h,
        ombh2=cosmology.ombh2,
        omch2=cosmology.omch2,
        mnu=mnu,
        num_massive_neutrinos=int(mnu > 0),
        nnu=cosmology.nnu,
        omk=0.0,
        tau=cosmology.tau,
        TCMB=cosmology.tcmb,
    )


def spectra(cosmology: Cosmology, lmax: int) -> dict[str, np.ndarray]:
    """C_l of kappa, of the unlensed scalar CMB and between them, in one run of CAMB.

    Returns
    -------
    dict
        ``kk`` (dimensionless), ``tt``, ``ee``, ``te`` (uK^2) and ``tk``, ``ek`` (uK), each
        *(lmax + 1,)*, zero at l = 0 and 1.

    Raises
    ------
    ValueError
        If CAMB refuses the cosmology.

    Notes
    -----
    kappa_LM = L (L + 1) / 2 phi_LM, so C_L^kk = [L (L + 1)]^2 C_L^phiphi / 4 and
    C_L^Tk = L (L + 1) / 2 C_L^Tphi (Lewis & Challinor 2006,
    doi:10.1016/j.physrep.2006.03.002, Sec. 3).
    """
    params = to_params(cosmology)
    params.set_for_lmax(lmax, lens_potential_accuracy=SETTINGS["lens_potential_accuracy"])
    params.NonLinearModel.set_params(halofit_version=SETTINGS["halofit_version"])
    try:
        with _accuracy():
            results = camb.get_results(params)
            cmb = results.get_unlensed_scalar_cls(lmax, CMB_unit="muK", raw_cl=True)
            phi = results.get_lens_potential_cls(lmax, CMB_unit="muK", raw_cl=True)
    except camb.CAMBError as error:
        raise ValueError(f"cosmology {cosmology}: CAMB cannot compute it: {error}") from error
    ell = np.arange(lmax + 1.0)
    # CAMB gives no monopole or dipole; this makes it so whatever its arrays hold there.
    used = ell >= 2
    kappa = ell * (ell + 1) / 2
    return {
        "kk": np.where(used, kappa**2 * phi[:, 0], 0.0),
        "tk": np.where(used, kappa * phi[:, 1], 0.0),
        "ek": np.where(used, kappa * phi[:, 2], 0.0),
        "tt": np.where(used, cmb[:, 0], 0.0),
        "ee": np.where(used, cmb[:, 1], 0.0),
        "te": np.where(used, cmb[:, 3], 0.0),
    }


def sigma8(cosmology: Cosmology) -> float:
    """Linear rms of matter in spheres of 8 Mpc/h today."""
    params = to_params(cosmology)
    params.WantCls = False
    params.set_matter_power(redshifts=[0.0], kmax=10.0)
    with _accuracy():
        return float(camb.get_results(params).get_sigma8_0())


def parameters(params: camb.CAMBparams) -> dict[str, float]:
    """Keywords of `mlsky.theory.Cosmology` from a `camb.CAMBparams`.

    Raises
    ------
    ValueError
        If the object has physics that a flat LCDM cosmology does not.
    """
    power = params.InitPower
    if not isinstance(power, camb.initialpower.InitialPowerLaw):
        raise ValueError(
            f"camb.CAMBparams with {type(power).__name__}: must have an InitialPowerLaw"
        )
    dark_energy = params.DarkEnergy
    extras = {
        "omk": (params.omk, 0.0),
        "w": (getattr(dark_energy, "w", -1.0), -1.0),
        "wa": (getattr(dark_energy, "wa", 0.0), 0.0),
        "nrun": (power.nrun, 0.0),
        "nrunrun": (power.nrunrun, 0.0),
        "pivot_scalar": (power.pivot_scalar, 0.05),
        "Alens": (params.Alens, 1.0),
    }
    for name, (value, allowed) in extras.items():
        if value != allowed:
            raise ValueError(
                f"camb.CAMBparams with {name}={value:g}: must be {allowed:g}, as only flat LCDM "
                "cosmologies are supported"
            )
    if not params.Reion.use_optical_depth:
        raise ValueError(
            "camb.CAMBparams with a reionisation redshift: must give the optical depth, "
            "for example by set_cosmology(tau=0.0544)"
        )
    return {
        "h": params.H0 / 100,
        "ombh2": params.ombh2,
        "omch2": params.omch2,
        "mnu": _neutrino_mass(params),
        "ns": power.ns,
        "As": power.As,
        "tau": params.Reion.optical_depth,
        "tcmb": params.TCMB,
        "nnu": params.N_eff,
    }


def _neutrino_mass(params: camb.CAMBparams) -> float:
    """Mass (eV) of the one eigenstate with the neutrino density of `params`."""
    if params.omnuh2 == 0:
        return 0.0
    trial = camb.CAMBparams()
    # The density is all but linear in the mass; three steps reach rounding.
    mass = params.omnuh2 * camb.constants.neutrino_mass_fac
    for _ in range(8):
        trial.set_cosmology(
            H0=70.0, mnu=mass, num_massive_neutrinos=1, nnu=params.N_eff, TCMB=params.TCMB
        )
        mass *= params.omnuh2 / trial.omnuh2
    # 10 digits, so that a mass given as 0.06 comes back as 0.06.
    return float(f"{mass:.10g}")
