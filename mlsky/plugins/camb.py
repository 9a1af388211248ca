"""CAMB (Lewis, Challinor & Lasenby 2000, doi:10.1086/309179): kappa and CMB spectra."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from mlsky.errors import MissingDependencyError, MlskyError
from mlsky.sphere.threads import lock

try:
    import camb
except ImportError as error:
    raise MissingDependencyError(
        f"camb is needed for cosmologies other than planck2018 ({error}): pip install camb"
    ) from error

if TYPE_CHECKING:
    from mlsky.theory.parameters import Cosmology

__all__ = ["LOCK", "SETTINGS", "apart", "parameters", "sigma8", "solve", "spectra", "to_params"]

#: Of CAMB inside this process: one thread at a time.
LOCK = lock()

#: The process that runs CAMB, and its status if CAMB refuses.
_CHILD = """
import json, sys
text = sys.stdin.read()
sys.path[:] = json.loads(text)["path"]
import io
sys.stdin = io.StringIO(text)
from mlsky.plugins import camb
camb.solve(sys.argv[1])
"""
_REFUSED = 3

#: Part of the key of the spectra cache: a change here is a change of the spectra.
SETTINGS = {
    "halofit_version": "mead2020",
    # k eta_0 up to 18000 times this. At 8, C_L^kk is 0.6 % low at L = 8000 and 6 % at
    # 22000; at 16 it is 0.08 % and 0.6 % low (measured against 24 and against CCL).
    "lens_potential_accuracy": 16,
    # CAMB's own default since 2.0. CCL sets the global to 0 behind our back.
    "AccuracyTarget": 1,
}


#: Of CAMBparams: what `parameters` takes over, which spectra are asked for, how finely they are
#: computed, and how P(k) is; the rest must be as in flat LCDM.
FREE = set(
    """
    WantCls WantTransfer WantScalars WantTensors WantVectors WantDerivedParameters
    Want_cl_2D_array Want_CMB Want_CMB_lensing DoLensing NonLinear Transfer want_zstar
    want_zdrag min_l max_l max_l_tensor lens_output_margin max_eta_k max_eta_k_tensor
    NonLinearModel Accuracy SourceTerms z_outputs OutputNormalization DoLateRadTruncation
    Log_lvalues use_cl_spline_template min_l_logl_sampling SourceWindows CustomSources
    Do21cm transfer_21cm_cl MassiveNuMethod ombh2 omch2 H0 omnuh2 num_nu_massless
    num_nu_massive nu_mass_eigenstates share_delta_neff nu_mass_degeneracies
    nu_mass_fractions nu_mass_numbers InitPower.nt InitPower.ntrun
    InitPower.pivot_tensor
    InitPower.tensor_parameterization InitPower.At DarkEnergy.cs2 Recomb.Nz
    Recomb.use_rosenbrock Recomb.rosenbrock_handoff_xH Recomb.rosenbrock_tol Reion.redshift
    Reion.tau_solve_accuracy_boost Reion.timestep_boost Reion.state Reion.min_redshift
    Reion.fHe
    """.split()
)

#: Relative difference allowed, where versions of a fit differ: helium of nucleosynthesis.
TOLERANCE = {"YHe": 2e-3}


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


def apart(task: str, cosmology: Cosmology, **options) -> dict[str, np.ndarray]:
    """The result of a function of `TASKS`, from a separate Python process.

    CAMB must not be entered by two threads, nor by a process that is forked from one that ran it
    with OpenMP; and it keeps gigabytes of memory. A separate process has none
    of this, and takes a second longer.

    Raises
    ------
    ValueError
        If CAMB refuses the cosmology.
    MlskyError
        If the process ends without a result, as for want of memory.
    """
    request = {
        "path": sys.path,
        "task": task,
        "cosmology": cosmology.to_dict(),
        "options": options,
        "settings": SETTINGS,
    }
    if not sys.executable:  # Python inside another program
        with LOCK:
            return TASKS[task](cosmology, **options)
    with tempfile.TemporaryDirectory(prefix="mlsky-camb-") as folder:
        result = Path(folder, "result.npz")
        ran = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _CHILD, str(result)],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode == _REFUSED:
            raise ValueError(f"cosmology {cosmology}: CAMB cannot compute it: {ran.stderr.strip()}")
        if ran.returncode or not result.exists():
            last = (ran.stderr.strip().splitlines() or ["no word"])[-1]
            raise MlskyError(
                f"CAMB's process ended with status {ran.returncode} ({last}); is there memory for "
                "it (2.5 GiB)?"
            )
        with np.load(result, allow_pickle=False) as data:
            return dict(data)


def solve(path: str) -> None:
    """What the process of `apart` runs: the request is on stdin, the result goes to a file."""
    request = json.load(sys.stdin)
    SETTINGS.update(request["settings"])
    try:
        cosmology = SimpleNamespace(**request["cosmology"])
        found = TASKS[request["task"]](cosmology, **request["options"])
    except (camb.CAMBError, ValueError) as error:
        sys.exit(_refuse(" ".join(str(error).split())))
    np.savez(path, **found)


def _refuse(text: str) -> int:
    sys.stderr.write(text)
    return _REFUSED


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
    MlskyError
        As `apart` says.

    Notes
    -----
    kappa_LM = L (L + 1) / 2 phi_LM, so C_L^kk = [L (L + 1)]^2 C_L^phiphi / 4 and
    C_L^Tk = L (L + 1) / 2 C_L^Tphi (Lewis & Challinor 2006,
    doi:10.1016/j.physrep.2006.03.002, Sec. 3).
    """
    return apart("spectra", cosmology, lmax=lmax)


def _spectra(cosmology: Cosmology, lmax: int) -> dict[str, np.ndarray]:
    params = to_params(cosmology)
    params.set_for_lmax(lmax, lens_potential_accuracy=SETTINGS["lens_potential_accuracy"])
    params.NonLinearModel.set_params(halofit_version=SETTINGS["halofit_version"])
    with _accuracy():
        results = camb.get_results(params)
        cmb = results.get_unlensed_scalar_cls(lmax, CMB_unit="muK", raw_cl=True)
        phi = results.get_lens_potential_cls(lmax, CMB_unit="muK", raw_cl=True)
    ell = np.arange(lmax + 1.0)
    # CAMB gives no monopole or dipole; they are set to zero.
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
    """Linear rms of matter in spheres of 8 Mpc/h today; errors as of `spectra`."""
    return float(apart("sigma8", cosmology)["sigma8"])


def _sigma8(cosmology: Cosmology) -> dict[str, np.ndarray]:
    params = to_params(cosmology)
    params.WantCls = False
    params.set_matter_power(redshifts=[0.0], kmax=10.0)
    with _accuracy():
        return {"sigma8": np.asarray(camb.get_results(params).get_sigma8_0())}


#: What `apart` can do.
TASKS = {"spectra": _spectra, "sigma8": _sigma8}


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
            raise ValueError(_unlike(name, f"{value:g}", f"{allowed:g}"))
    if not params.Reion.use_optical_depth:
        raise ValueError(
            "camb.CAMBparams with a reionisation redshift: must give the optical depth, "
            "for example by set_cosmology(tau=0.0544)"
        )
    _check_neutrinos(params)
    values = {
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
    plain = camb.set_params(
        H0=params.H0,
        **{name: values[name] for name in ("ombh2", "omch2", "mnu", "nnu", "tau", "ns", "As")},
        TCMB=params.TCMB,
    )
    _check_same(params, plain, "")
    return values


def _check_same(given: object, plain: object, where: str) -> None:
    """Refuse all differences to a flat LCDM cosmology of the same parameters, except `FREE`.

    What is compared is all that there is: physics that CAMB learns later is refused too.
    """
    names = [name for cls in type(plain).__mro__ for name, *_ in getattr(cls, "_fields_", ())]
    for name in (name.lstrip("_") for name in names if not name.startswith("__")):
        path = f"{where}{name}"
        if path in FREE or path.split(".")[0] in FREE:
            continue
        a, b = getattr(given, name, None), getattr(plain, name, None)
        if hasattr(type(b), "_fields_"):
            if type(a) is not type(b) and path != "DarkEnergy":
                raise ValueError(_unlike(path, type(a).__name__, type(b).__name__))
            if path == "DarkEnergy" and not isinstance(a, camb.dark_energy.DarkEnergyEqnOfState):
                raise ValueError(_unlike(path, type(a).__name__, "a cosmological constant"))
            _check_same(a, b, f"{path}.")
        elif isinstance(b, float):
            if not abs(a - b) <= TOLERANCE.get(path, 1e-9) * max(abs(b), 1e-30):
                raise ValueError(_unlike(path, f"{a:g}", f"{b:g}"))
        elif isinstance(b, (bool, int, str)) and a != b:
            raise ValueError(_unlike(path, str(a), str(b)))
        elif not isinstance(b, (bool, int, str)) and list(a) != list(b):
            raise ValueError(_unlike(path, f"{list(a)}"[:40], f"{list(b)}"[:40]))


def _unlike(name: str, value: str, allowed: str) -> str:
    return (
        f"camb.CAMBparams with {name}={value}: must be {allowed}, as only flat LCDM cosmologies "
        "are supported"
    )


def _check_neutrinos(params: camb.CAMBparams) -> None:
    """Refuse eigenstates that are not as warm as the standard ones, sterile ones among them."""
    states = params.nu_mass_eigenstates
    numbers = list(params.nu_mass_numbers)[:states]
    for weight, number in zip(list(params.nu_mass_degeneracies)[:states], numbers, strict=False):
        # each carries a third of N_eff, of the standard one or of the one given
        thirds = (camb.constants.default_nnu / 3, params.N_eff / 3)
        if not any(abs(weight / number / third - 1) < 0.01 for third in thirds):
            raise ValueError(
                f"camb.CAMBparams with a neutrino of {weight / number:.3g} of the density of one: "
                "must be standard ones, which one eigenstate can stand for"
            )


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
