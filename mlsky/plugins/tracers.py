"""The halo model's spectra as CCL has them: radial kernels, and a P(k, a) of each pair of fields.

>>> from mlsky.plugins import tracers  # doctest: +SKIP
>>> cosmo = tracers.cosmology("planck2018")  # doctest: +SKIP
>>> kernels = tracers.tracers(["kappa", "tsz"], 150)  # doctest: +SKIP
>>> pk = tracers.power("kappa", "tsz", 150)  # doctest: +SKIP
>>> pyccl.angular_cl(  # doctest: +SKIP
...     cosmo, kernels["kappa"], kernels["tsz"], ell, p_of_k_a=pk
... )

Any other tracer of matter may stand in the place of kappa's. Needs CCL (``pip install
'mlsky[ccl]'``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import arguments
from mlsky.frequency import bands, tsz
from mlsky.plugins import ccl
from mlsky.theory import foregrounds, presets
from mlsky.theory.cosmology import parse
from mlsky.theory.halo_model import Z_MAX, HaloModel, Parameters
from mlsky.theory.parameters import DEFAULT

if TYPE_CHECKING:
    import pyccl

__all__ = ["COMPONENTS", "cosmology", "power", "tracers"]

#: Fields that CCL has a kernel for. kSZ has none: two velocities make its power, and it has no
#: cross spectra.
COMPONENTS = ("kappa", "tsz", "cib", "radio")

#: sigma_T / (m_e c^2) of CCL's tSZTracer, Mpc^-1 / (eV cm^-3): CODATA 2018 gives 4.01710e-6.
COMPTON = 4.01710079e-06

#: Distances at which a kernel is given, and wave numbers of P(k, a). Our choice: with twice as many
#: of either, spectra change by less than 1e-3.
CHIS, WAVE_NUMBERS = 1024, 200


def cosmology(parameters: object = DEFAULT) -> pyccl.Cosmology:
    """The `pyccl.Cosmology` of all spectra; its P(k) is HMcode-2020's, from CAMB.

    ``.get_linear_power()`` and ``.get_nonlin_power()`` of it are `pyccl.Pk2D`.

    Raises
    ------
    ValueError
        If `mlsky.theory.parse` does not take the argument.
    """
    parsed = parse(parameters)
    with ccl.running(parsed):
        cosmo = ccl.to_cosmology(parsed)
        cosmo.compute_nonlin_power()
    return cosmo


def tracers(
    components: str | Iterable[str],
    nu_ghz: float,
    cosmology: object = DEFAULT,
    preset: str | Parameters = presets.DEFAULT,
) -> dict[str, pyccl.Tracer]:
    """The radial kernels of fields, which with `power` give spectra of maps in uK_CMB.

    Parameters
    ----------
    components
        Of `COMPONENTS`, one or many.
    nu_ghz
        Frequency of the maps, 20 to 900 GHz; kappa has none.
    cosmology, preset
        As for `mlsky.theory.foreground_spectra`.

    Returns
    -------
    tracers
        By component. kappa: `pyccl.CMBLensingTracer`. Others are those of `pyccl.tSZTracer` and
        `pyccl.CIBTracer`, c / (1 + z), with c in uK_CMB per unit of what `power` is of, from the
        first shell of haloes (60 Mpc) to z = 6.

    Raises
    ------
    ValueError
        If an argument is not allowed.
    """
    names = _names(components)
    nu = arguments.number("nu_ghz", nu_ghz, "a frequency in GHz", *bands.FREQ_RANGE_GHZ, "GHz")
    model = foregrounds.model(cosmology, preset)
    out = {}
    for name in names:
        if name == "kappa":
            out[name] = ccl.pyccl.CMBLensingTracer(
                model.cosmo, z_source=ccl.SETTINGS["z_source"], n_samples=ccl.SETTINGS["n_samples"]
            )
            continue
        nearest = 1 / float(model.cosmo.scale_factor_of_chi(model.edges[0])) - 1
        out[name] = ccl.pyccl.Tracer.from_z_power(
            model.cosmo, A=_factor(name, nu), alpha=1, z_min=nearest, z_max=Z_MAX, n_chi=CHIS
        )
    return out


def power(
    first: str,
    second: str,
    nu_1: float,
    nu_2: float | None = None,
    *,
    flux_cut_mjy: float | tuple[float, float] | None = 7.0,
    cosmology: object = DEFAULT,
    preset: str | Parameters = presets.DEFAULT,
) -> pyccl.Pk2D:
    """Cross power of what two fields are made of: P(k, a), one-halo, two-halo and shot noise.

    Parameters
    ----------
    first, second
        Two of `COMPONENTS`. Kappa is made of density contrast (no unit), tSZ of electron pressure
        (eV / cm^3), CIB and radio of emissivity (Jy / Mpc / sr).
    nu_1, nu_2, flux_cut_mjy, cosmology, preset
        As for `mlsky.theory.foreground_spectra`.

    Returns
    -------
    power
        In Mpc^3 times those units. Two kappas: the nonlinear power of matter.

    Raises
    ------
    ValueError
        If an argument is not allowed.

    Notes
    -----
    C_l from each shell of haloes, over the kernels at its distance (Limber's approximation, LoVerde
    & Afshordi 2008, doi:10.1103/PhysRevD.78.123506, eq. 10), at k = (l + 1/2) / chi: interpolated
    between shells, and a power law beyond l of 20 to 31000. Spectra of CCL are integrals, those of
    mlsky sums over shells: they agree within 1 %, in the auto spectrum of tSZ within 2.5 %. Orders
    of the bias above the first depend on the thickness of the shells.
    """
    a, b = _names((first,)) + _names((second,))
    model = foregrounds.model(cosmology, preset)
    if a == b == "kappa":
        return model.cosmo.get_nonlin_power()
    by_shell = foregrounds.shell_spectra(
        a, b, nu_1, nu_2, flux_cut_mjy=flux_cut_mjy, cosmology=cosmology, preset=preset
    )
    kernels = _kernel(model, a, nu_1) * _kernel(model, b, nu_1 if nu_2 is None else nu_2)
    values = by_shell * (model.chi**4 / model.volume / kernels)[:, None]
    order = np.argsort(model.a)
    log_k = np.linspace(np.log(model.k.min()), np.log(model.k.max()), WAVE_NUMBERS)
    table = np.stack([_line(log_k, np.log(model.k[i]), np.log(values[i])) for i in order])
    scale = model.a[order]
    # The nearest and the farthest shell end where haloes end.
    ends = model.cosmo.scale_factor_of_chi(model.edges[[-1, 0]])
    scale = np.concatenate([ends[:1], scale, ends[1:]])
    return ccl.pyccl.Pk2D(a_arr=scale, lk_arr=log_k, pk_arr=np.pad(table, ((1, 1), (0, 0)), "edge"))


def _kernel(model: HaloModel, name: str, nu_ghz: float) -> NDArray[np.float64]:
    """Kernel at the distance of each shell."""
    return model.lensing_kernel if name == "kappa" else _factor(name, nu_ghz) * model.a


def _factor(name: str, nu_ghz: float) -> float:
    """uK_CMB per unit of pressure or emissivity, in a kernel that is this times a (1 / Mpc)."""
    if name == "tsz":
        return COMPTON * float(tsz.uk_per_y(nu_ghz))
    return 1 / float(bands.jy_per_sr_per_uk(nu_ghz))


def _line(x: NDArray, known: NDArray, values: NDArray) -> NDArray[np.float64]:
    """A cubic spline, and straight lines beyond its ends."""
    from scipy.interpolate import CubicSpline

    spline = CubicSpline(known, values)
    inside = np.clip(x, known[0], known[-1])
    slope = np.where(x < known[0], spline(known[0], 1), spline(known[-1], 1))
    return spline(inside) + slope * (x - inside)


def _names(components: str | Iterable[str]) -> tuple[str, ...]:
    names = (components,) if isinstance(components, str) else components
    if not isinstance(names, Iterable) or not (names := tuple(names)):
        raise ValueError(
            f"components={arguments.short(components)}: must be one or many of "
            f"{', '.join(COMPONENTS)}"
        )
    for name in names:
        arguments.choice("component", name, COMPONENTS)
    return names
