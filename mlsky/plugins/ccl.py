"""CCL (Chisari et al. 2019, doi:10.3847/1538-4365/ab1658): C_L^kk by projection of P(k)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import camb
import numpy as np
from scipy.interpolate import CubicSpline

from mlsky.errors import MissingDependencyError
from mlsky.sphere.threads import lock

try:
    import pyccl
except ImportError as error:
    raise MissingDependencyError(
        f"pyccl is needed for halo models of another cosmology and for CCL's spectra ({error}): "
        "pip install 'mlsky[ccl]'"
    ) from error

if TYPE_CHECKING:
    from mlsky.theory.parameters import Cosmology

__all__ = ["LOCK", "SETTINGS", "kappa_spectrum", "parameters", "running", "to_cosmology"]

#: Of CCL, which runs CAMB inside this process: one thread at a time.
LOCK = lock()

#: Part of the key of the spectra cache: a change here is a change of the spectra.
SETTINGS = {
    "halofit_version": "mead2020",
    "kmax": 100.0,  # 1/Mpc; with CCL's default of 10 the power is 0.2 % low at L = 8000
    # Planck 2018 VI (doi:10.1051/0004-6361/201833910), Table 2. A redshift 10 higher
    # changes C_L^kk by up to 0.06 %.
    "z_source": 1089.92,
    "n_samples": 1000,
    # Limber's approximation is 10 % low at L = 2 and 0.1 % low at 26; up to here
    # the FKEM integral is used (Fang et al. 2020, doi:10.1088/1475-7516/2020/05/010).
    "l_limber": 30,
    "fkem_Nchi": 2000,
    "fkem_chi_min": 1e-6,  # Mpc; the kernel at small distances matters at L = 2
    "nodes": 240,
}


def to_cosmology(cosmology: Cosmology) -> pyccl.Cosmology:
    """The `pyccl.Cosmology` of a cosmology, P(k) from CAMB with the settings above."""
    return pyccl.Cosmology(
        Omega_b=cosmology.ombh2 / cosmology.h**2,
        Omega_c=cosmology.omch2 / cosmology.h**2,
        h=cosmology.h,
        n_s=cosmology.ns,
        A_s=cosmology.As,
        Neff=cosmology.nnu,
        m_nu=cosmology.mnu,
        mass_split="single",
        T_CMB=cosmology.tcmb,
        transfer_function="boltzmann_camb",
        matter_power_spectrum="camb",
        extra_parameters={"camb": {key: SETTINGS[key] for key in ("halofit_version", "kmax")}},
    )


def kappa_spectrum(cosmology: Cosmology, lmax: int) -> np.ndarray:
    """C_L^kk to the source plane of the CMB, *(lmax + 1,)*, zero at L = 0 and 1.

    Raises
    ------
    ValueError
        If CCL or the CAMB inside it refuses the cosmology.
    """
    ell = _nodes(lmax)
    with running(cosmology):
        ccl = to_cosmology(cosmology)
        tracer = pyccl.CMBLensingTracer(
            ccl, z_source=SETTINGS["z_source"], n_samples=SETTINGS["n_samples"]
        )
        cl = pyccl.angular_cl(
            ccl,
            tracer,
            tracer,
            ell,
            l_limber=SETTINGS["l_limber"],
            fkem_Nchi=SETTINGS["fkem_Nchi"],
            fkem_chi_min=SETTINGS["fkem_chi_min"],
            p_of_k_a="delta_matter:delta_matter",
            p_of_k_a_lin="delta_matter:delta_matter",
        )
    out = np.zeros(lmax + 1)
    every = np.arange(2, lmax + 1)
    out[2:] = np.exp(CubicSpline(np.log(ell), np.log(cl))(np.log(every)))
    return out


@contextlib.contextmanager
def running(cosmology: Cosmology) -> Iterator[None]:
    """What CCL's P(k) needs: no other thread in it, and CAMB left as it was.

    Raises
    ------
    ValueError
        If CCL or the CAMB inside it refuses the cosmology.
    """
    with LOCK:
        # CCL writes this global of CAMB's and leaves it so.
        accuracy = getattr(camb.config, "AccuracyTarget", None)
        try:
            yield
        except (pyccl.CCLError, camb.CAMBError) as error:
            raise ValueError(f"cosmology {cosmology}: CCL cannot compute it: {error}") from error
        finally:
            if accuracy is not None:
                camb.config.AccuracyTarget = accuracy


def _nodes(lmax: int) -> np.ndarray:
    """Multipoles to compute: every one up to 100, then evenly in log L, `lmax` included."""
    sparse = np.geomspace(100, max(lmax, 101), SETTINGS["nodes"]).round()
    return np.unique(np.concatenate([np.arange(2.0, 101.0), sparse]))


def parameters(ccl: pyccl.Cosmology) -> dict[str, float]:
    """Keywords of `mlsky.theory.Cosmology` from a `pyccl.Cosmology`; As or sigma8.

    Raises
    ------
    ValueError
        If the object has physics that a flat LCDM cosmology does not.
    """
    gravity = ccl.mg_parametrization
    extras = {
        "Omega_k": (ccl["Omega_k"], 0.0),
        "w0": (ccl["w0"], -1.0),
        "wa": (ccl["wa"], 0.0),
        "mu_0": (gravity.mu_0, 0.0),
        "sigma_0": (gravity.sigma_0, 0.0),
    }
    for name, (value, allowed) in extras.items():
        if value != allowed:
            raise ValueError(
                f"pyccl.Cosmology with {name}={value:g}: must be {allowed:g}, as only flat LCDM "
                "cosmologies are supported"
            )
    amplitude = "As" if np.isfinite(ccl["A_s"]) else "sigma8"
    return {
        "h": ccl["h"],
        "ombh2": ccl["Omega_b"] * ccl["h"] ** 2,
        "omch2": ccl["Omega_c"] * ccl["h"] ** 2,
        "mnu": float(np.sum(ccl["m_nu"])),
        "ns": ccl["n_s"],
        "tcmb": ccl["T_CMB"],
        "nnu": ccl["Neff"],
        amplitude: ccl["A_s" if amplitude == "As" else "sigma8"],
    }
