"""Tables of the sky painter: built once through CCL, loaded with numpy alone.

`build` turns the analytic halo model into what the painter needs at run time: a
low-rank basis of the halo profiles, abundances, the power of the shells, the
analytic spectra. The large mixing matrix that draws densities and velocities
jointly is rebuilt from the linear power spectrum by `mlsky.datasets.mixing`.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlsky.datasets.mixing import write_whole
from mlsky.theory.halo_model import SMOOTHING_MPC, T_CMB_UK

if TYPE_CHECKING:
    from mlsky.theory.halo_model import HaloModel

__all__ = ["build", "build_for", "load", "save"]

FORMAT = 3
LOG10_MASS_MIN = 12.3  # haloes above are painted one by one, 10^12.3 = 2e12 Msun
LOG10_SUBHALO_MIN = 11.7  # satellites above are drawn one by one
RANK = 6  # basis functions per profile: one-halo power exact to 0.6 %, cross powers too
SLICE_MPC = 55.0  # thickness of the radial velocity slices
FLUX_CUT_JY = 7e-3  # dusty sources above are kept out of the diffuse map (catalogue)
#: Haloes answer to densities up to this many standard deviations and no further: taken at its
#: word, lognormal bias puts dozens of clusters where a nearby shell has a 5 sigma peak.
CAP_SIGMA = 4.0


def _basis(u, number, weight, rank, linear=None):
    """Weighted low-rank basis of the profiles of one kind.

    Returns ``phi (rank, n_ell)`` and ``a (n_shell, n_mass, rank)`` with u ~ a @ phi.
    Rows are weighted by their share in the one-halo power, and every halo by a little
    more, so that rare massive ones are represented too. `linear` (n_shell, n_mass) weighs them
    once more, for a cross power with another field.
    """
    w = np.sqrt(number) * weight
    power = np.einsum("im,iml->l", w**2, u**2)
    per_ell = 1 / np.sqrt(power)
    rows = (u * w[..., None] * per_ell).reshape(-1, u.shape[-1])
    shapes = (u / np.abs(u).max(-1, keepdims=True)).reshape(-1, u.shape[-1])
    shapes *= 0.3 * np.sqrt((rows**2).sum() / (shapes**2).sum())
    weighted = [rows, shapes]
    if linear is not None:
        crossed = (u * linear[..., None] * per_ell).reshape(-1, u.shape[-1])
        weighted.append(crossed * np.sqrt((rows**2).sum() / (crossed**2).sum()))
    _, _, vt = np.linalg.svd(np.concatenate(weighted), full_matrices=False)
    phi = vt[:rank] / per_ell
    a = np.einsum("iml,lk->imk", u * per_ell, np.linalg.pinv(vt[:rank]))
    return phi, a


def _truncated_second_moment(flux, scatter, cut):
    """<S^2; S < cut> of a lognormal of mean `flux` and scatter `scatter` of ln S."""
    from scipy.stats import norm

    flux = np.maximum(flux, 1e-99)
    x = (np.log(cut / flux) - 1.5 * scatter**2) / scatter
    return flux**2 * np.exp(scatter**2) * norm.cdf(x)


def _truncated_mean(flux, scatter, cut):
    """<S; S < cut> of the same lognormal."""
    from scipy.stats import norm

    flux = np.maximum(flux, 1e-99)
    return flux * norm.cdf((np.log(cut / flux) - 0.5 * scatter**2) / scatter)


@dataclass(frozen=True)
class _Galaxies:
    """Infrared galaxies of the hosts, with what the tables need of them.

    Parameters
    ----------
    central, satellites : (n_shell, n_mass)
        Mean flux (Jy) of the central and of all satellites of a host.
    by_sub : (n_shell, n_sub)
        Mean flux (Jy) of a satellite by its sub-halo's mass.
    number_sub, per_host : (n_mass, n_sub)
        dN/dln m and number per bin of sub-haloes of a host.
    drawn : (n_sub,)
        Sub-haloes whose galaxies are painted one by one.
    quench : (n_mass,)
        Share of the satellites of a host that still shine.
    """

    central: np.ndarray
    satellites: np.ndarray
    by_sub: np.ndarray
    number_sub: np.ndarray
    per_host: np.ndarray
    drawn: np.ndarray
    quench: np.ndarray
    scatter: float

    def faint(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean flux (Jy) of the central and of all satellites of a host, below the cut."""
        central = _truncated_mean(self.central, self.scatter, FLUX_CUT_JY)
        satellite = _truncated_mean(self.by_sub, self.scatter, FLUX_CUT_JY)
        return central, np.einsum("mk,ik->im", self.per_host, satellite) * self.quench

    def clustered(self, u_nfw: np.ndarray) -> np.ndarray:
        """Profiles (Jy) below the cut: the central is a point, satellites follow the mass."""
        central, satellites = self.faint()
        return central[:, :, None] + satellites[:, :, None] * u_nfw


def build_for(cosmology: object = "planck2018") -> dict[str, np.ndarray]:
    """Make tables for a cosmology, with CCL.

    Parameters
    ----------
    cosmology
        Anything that `mlsky.theory.cosmology.parse` takes.

    Returns
    -------
    tables
        For `save`, or for a `mlsky.datasets.halos.Painter`.

    Raises
    ------
    ValueError
        If the cosmology is not valid or CCL cannot compute it.

    Notes
    -----
    About ten seconds, most of them CAMB's. For planck2018 it gives the shipped tables to
    6e-6 of the largest value of each: those were made with A_s = 2.0989e-9.
    """
    from mlsky import bands
    from mlsky.theory import halo_model
    from mlsky.theory.cosmology import parse

    parsed = parse(cosmology)
    model = halo_model.for_cosmology(parsed)
    uk_per_jy_sr = 1 / float(bands.jy_per_sr_per_uk(model.nu_ghz))
    return build(model, uk_per_jy_sr, parsed.to_dict())


def build(model: HaloModel, uk_per_jy_sr: float, cosmology: dict) -> dict[str, np.ndarray]:
    """Tables from a `mlsky.theory.halo_model.HaloModel`.

    Parameters
    ----------
    model
        The halo model at 148 GHz.
    uk_per_jy_sr
        uK_CMB of one Jy/sr at 148 GHz.
    cosmology
        What the tables were made for; kept in the file.

    Returns
    -------
    tables
        Arrays by name: those whose name begins with ``low_`` or ``gauss_`` are of what is
        not painted halo by halo, ``analytic_`` are the spectra to expect.
    """
    m = model
    painted = m.log10_mass >= LOG10_MASS_MIN - 1e-9
    galaxies = _infrared(m)
    # power of the smoothed shells, per multipole and shell
    p_shell = m.p_linear * np.exp(-((m.k * SMOOTHING_MPC) ** 2)) / m.volume[:, None]
    powers, variance = _powers(m.ell, p_shell)
    cap = CAP_SIGMA * np.sqrt(variance)
    bias = _bias(m.bias, variance, cap, painted)
    t = _painted_haloes(m, galaxies, painted)
    t |= _painted_galaxies(galaxies, painted, uk_per_jy_sr)
    t |= _below_cut(m, bias, galaxies, painted, uk_per_jy_sr)
    t |= _smooth_kappa(m, bias, painted, t["low_kappa"], t["gauss_kk"], p_shell, powers)
    t |= _ksz(m, bias, painted)
    t |= _spectra(m, bias, galaxies, painted, t, p_shell, powers, uk_per_jy_sr)
    t |= _slices(m)
    t["p_shell"], t["sigma_v"], t["delta_cap"] = p_shell, m.sigma_v, cap
    t["ell"], t["z"], t["chi"], t["edges"] = m.ell, m.z, m.chi, m.edges
    out = {name: _compact(value) for name, value in t.items()}
    header = {
        "format": FORMAT,
        "cosmology": cosmology,
        "parameters": m.parameters.to_dict(),
        "flux_cut_mjy": FLUX_CUT_JY * 1e3,
        "log10_mass_min": LOG10_MASS_MIN,
        "nu_ghz": m.nu_ghz,
    }
    out["header"] = np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8)
    return out


def _bias(
    bias: np.ndarray, variance: np.ndarray, cap: np.ndarray, painted: np.ndarray
) -> np.ndarray:
    """Bias of first, second and third order as painted, (3, n_shell, n_mass).

    Haloes are painted in number ~ exp(b min(d, cap)) of a Gaussian density d. Two such
    abundances correlate as sum_k b_k b'_k xi^k / k!, with b_k the k-th Hermite coefficient
    of the response over sigma^k; without the cap b_k = b^k. Below the mass cut haloes follow
    linearly.
    """
    x = np.linspace(-9, 9, 3601)
    gauss = np.exp(-0.5 * x**2)
    hermite = np.stack([x, x**2 - 1, x**3 - 3 * x])
    orders = np.zeros((3, *bias.shape))
    orders[0] = bias
    for i, (sigma, top) in enumerate(zip(np.sqrt(variance), cap, strict=True)):
        exponent = bias[i, painted, None] * np.minimum(sigma * x, top)
        response = np.exp(exponent - exponent.max(1, keepdims=True)) * gauss
        response /= response.sum(1, keepdims=True)
        orders[:, i, painted] = (hermite / sigma ** np.arange(1, 4)[:, None]) @ response.T
    return orders


def _infrared(m: HaloModel) -> _Galaxies:
    central, satellites, by_sub, log10_sub, number_sub = m.infrared()
    dln_sub = 0.02 * np.log(10)
    return _Galaxies(
        central=central,
        satellites=satellites,
        by_sub=by_sub,
        number_sub=number_sub,
        per_host=number_sub * dln_sub,
        drawn=log10_sub >= LOG10_SUBHALO_MIN,
        quench=1 / (1 + m.mass / 10**m.parameters.cib_log10_quench),
        scatter=m.parameters.cib_scatter,
    )


def _painted_haloes(m: HaloModel, g: _Galaxies, painted: np.ndarray) -> dict[str, np.ndarray]:
    """Abundance and low-rank profiles of the haloes painted one by one."""
    # tSZ x CIB comes from lighter and farther haloes than the power of tSZ
    crossed = {"y": (m.number * sum(g.faint()))[:, painted]}
    t = {}
    weights = {
        "nfw": (m.u_nfw, m.kappa_mass),
        "y": (m.u_y, np.ones_like(m.number)),
        "tau": (m.u_tau, np.repeat(m.sigma_v[:, None], len(m.mass), 1)),
    }
    for name, (profile, weight) in weights.items():
        t[f"phi_{name}"], t[f"a_{name}"] = _basis(
            profile[:, painted], m.number[:, painted], weight[:, painted], RANK, crossed.get(name)
        )
    t["log10_mass"] = m.log10_mass[painted]
    for name in ("number", "bias", "kappa_mass", "concentration"):
        t[name] = getattr(m, name)[:, painted]
    t["theta_200m"] = m.r200m[:, painted] / m.chi[:, None]
    return t


def _painted_galaxies(g: _Galaxies, painted: np.ndarray, u: float) -> dict[str, np.ndarray]:
    """Fluxes and numbers of the galaxies of painted haloes; `u` is uK per Jy/sr."""
    small = np.einsum("mk,ik->im", g.per_host[:, ~g.drawn], g.by_sub[:, ~g.drawn]) * g.quench
    dln_sub = 0.02 * np.log(10)
    number_sub = g.number_sub[painted][:, g.drawn]
    cdf = np.cumsum(number_sub, 1)
    cdf /= np.maximum(cdf[:, -1:], 1e-30)
    uniform = (np.arange(256) + 0.5) / 256
    inverse = np.array([np.searchsorted(row, uniform) for row in cdf])
    return {
        "central_uk_sr": g.central[:, painted] * u,
        "small_satellites_uk_sr": small[:, painted] * u,
        "satellite_uk_sr": g.by_sub[:, g.drawn] * u,
        "satellite_number": (number_sub.sum(1) * dln_sub) * g.quench[painted],
        "satellite_inverse": inverse.clip(0, g.drawn.sum() - 1).astype(np.int16),
        "flux_cut_uk_sr": np.array(FLUX_CUT_JY * u),
        "uk_per_jy_sr": np.array(u),
        "scatter": np.array(g.scatter),
    }


def _below_cut(
    m: HaloModel, bias: np.ndarray, g: _Galaxies, painted: np.ndarray, u: float
) -> dict[str, np.ndarray]:
    """What haloes below the mass cut add: by linear bias, and as Gaussian one-halo fields."""
    low = ~painted
    n_low, b_low = m.number[:, low], m.bias[:, low]
    mass_bias = (m.number[:, painted] * bias[0][:, painted] * m.mass[painted]).sum(1)
    lens = m.lensing_kernel * m.volume / m.chi**2
    mean = sum(g.faint())[:, low]
    kappa = m.u_kappa[:, low]
    cib = (g.central[:, low, None] + (g.satellites * g.quench)[:, low, None] * m.u_nfw[:, low]) * u
    # shot power of central galaxies, then of the satellites that are not drawn one by one
    boost = np.exp(g.scatter**2)
    shot = (n_low * g.central[:, low] ** 2).sum(1) * (boost - 1)
    subs = np.einsum("im,mk,ik->i", m.number * g.quench, g.per_host, g.by_sub**2)
    subs -= np.einsum(
        "im,mk,ik->i",
        m.number[:, painted] * g.quench[painted],
        g.per_host[painted][:, g.drawn],
        g.by_sub[:, g.drawn] ** 2,
    )
    return {
        "linear_kappa": lens,  # weights of kappa_G: all matter, linear
        "low_kappa": (1 - mass_bias / m.volume / m.rho_mean) * lens,
        "low_y": (n_low * b_low * m.u_y[:, low, 0]).sum(1),
        "low_cib": (n_low * b_low * mean).sum(1) * u,
        # by shell, for the colours
        "low_cib_mean": (n_low * mean).sum(1) * u,
        "gauss_kk": np.einsum("im,iml->l", n_low, kappa**2),
        "gauss_kc": np.einsum("im,iml,iml->il", n_low, kappa, cib),
        "gauss_cc": np.einsum("im,iml->il", n_low, cib**2),
        "gauss_shot": (shot + subs * boost) * u**2,
        "gauss_ksz": np.einsum("i,im,iml->l", m.sigma_v**2, n_low, m.u_tau[:, low] ** 2),
    }


def _smooth_kappa(
    m: HaloModel,
    bias: np.ndarray,
    painted: np.ndarray,
    low_kappa: np.ndarray,
    gauss_kk: np.ndarray,
    p_shell: np.ndarray,
    powers: list[np.ndarray],
) -> dict[str, np.ndarray]:
    """Transfer t(ell) of the smooth kappa that makes the total power the nonlinear one.

    With h the painted haloes and s the smooth field, it solves hh + 2 t hs + t^2 ss = C_NL.
    ``missing_kappa`` is the power to fill in where the grid of the smooth field ends.
    """
    b_painted = _biased(m, bias, m.u_kappa, painted)
    weight = m.lensing_kernel[:, None] ** 2 * m.p_nonlinear
    nonlinear = (weight * m.thickness[:, None] / m.chi[:, None] ** 2).sum(0)
    smooth = low_kappa[:, None]
    one = np.einsum("im,iml->l", m.number[:, painted], m.u_kappa[:, painted] ** 2) + gauss_kk
    hh = one + (b_painted**2 * p_shell).sum(0)
    hh += _beyond_linear(m, bias, m.u_kappa, m.u_kappa, painted, powers)
    hs = (b_painted * smooth * p_shell).sum(0)
    ss = (smooth**2 * p_shell).sum(0)
    transfer = (-hs + np.sqrt(np.maximum(hs**2 - ss * (hh - nonlinear), 0))) / ss
    far = _far_kappa(m)
    return {
        "smooth_kappa": transfer,
        "far_kappa": far,
        "missing_kappa": np.maximum(nonlinear - one, 0),
        "analytic_kk": nonlinear + far,
    }


def _far_kappa(m: HaloModel) -> np.ndarray:
    """Power of the convergence between the last shell and the CMB, linear, (n_ell,)."""
    chi = np.linspace(m.edges[-1], m.chi_source * 0.999, 120)
    a = m.cosmo.scale_factor_of_chi(chi)
    power = np.array(
        [
            [m.cosmo.linear_matter_power((ell + 0.5) / x, y) for x, y in zip(chi, a, strict=True)]
            for ell in m.ell
        ]
    )
    return np.trapezoid(m.kernel(chi, a) ** 2 / chi**2 * power, chi, axis=-1)


def _ksz(m: HaloModel, bias: np.ndarray, painted: np.ndarray) -> dict[str, np.ndarray]:
    """Bias of the optical depth, diffuse gas included, and the kSZ power it makes."""
    par = m.parameters
    tau_shell = par.ionised_fraction * m.tau_per_mpc / m.a**2 * m.thickness
    weight = m.number * bias[0]
    b_tau = np.einsum("im,iml->il", weight, m.u_tau)
    b_tau += (tau_shell - (weight * m.u_tau[:, :, 0]).sum(1))[:, None]
    halo_depth = (weight[:, painted] * m.u_tau[:, painted, 0]).sum(1)
    low_tau = tau_shell - halo_depth
    # transverse momentum over velocity dispersion times density, exact to 5 % at z = 1
    transverse = 1 / (1 + (par.velocity_k0 / m.k) ** par.velocity_slope)
    two = (m.sigma_v**2)[:, None] * b_tau**2 * m.p_linear / m.volume[:, None] * transverse
    one = np.einsum("i,iml,im->l", m.sigma_v**2, m.u_tau**2, m.number)
    return {
        "low_tau": low_tau,
        "analytic_ksz": (two.sum(0) + one) * T_CMB_UK**2,
        "ksz_two_halo": two,
        "ksz_painted_bias": _biased(m, bias, m.u_tau, painted) + low_tau[:, None],
    }


def _spectra(
    m: HaloModel,
    bias: np.ndarray,
    g: _Galaxies,
    painted: np.ndarray,
    t: dict[str, np.ndarray],
    p_shell: np.ndarray,
    powers: list[np.ndarray],
    u: float,
) -> dict[str, np.ndarray]:
    """One- plus two-halo spectra of tSZ, CIB and convergence: what painting should give."""
    u_cib = g.clustered(m.u_nfw) * u
    by_sub = _truncated_second_moment(g.by_sub, g.scatter, FLUX_CUT_JY)
    shot = (m.number * _truncated_second_moment(g.central, g.scatter, FLUX_CUT_JY)).sum()
    shot -= (m.number * g.faint()[0] ** 2).sum()
    shot += np.einsum("im,mk,ik->", m.number * g.quench, g.per_host, by_sub)
    profile = {"k": m.u_kappa, "y": m.u_y, "c": u_cib}
    every = np.ones_like(painted)
    linear = {
        "k": _biased(m, bias, m.u_kappa, painted) + t["smooth_kappa"] * t["low_kappa"][:, None],
        "y": _biased(m, bias, m.u_y, every),
        "c": _biased(m, bias, u_cib, every),
    }
    added = {"cc": shot * u**2}
    out = {}
    for a, b in ("yy", "cc", "ky", "kc", "yc"):
        one = m.one_halo(profile[a], profile[b]).sum(0)
        if a + b in added:
            one = one + added[a + b]
        beyond = _beyond_linear(m, bias, profile[a], profile[b], painted, powers)
        out[f"analytic_{a}{b}"] = one + (linear[a] * linear[b] * p_shell).sum(0) + beyond
    return out


def _powers(ell: np.ndarray, p_shell: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Spectra of xi^2 and xi^3 of each shell, (n_shell, n_ell), xi its density's correlation.

    Also the variance of the density, (n_shell,).

    Flat-sky Hankel transforms: xi = int l dl / 2 pi P J_0, and back.
    """
    from scipy.special import j0

    theta = np.geomspace(2e-6, 0.3, 1500)  # rad
    fine = np.geomspace(2, 6e4, 3000)
    log_p = np.log(np.maximum(p_shell, 1e-60))
    p_fine = np.exp(np.array([np.interp(np.log(fine), np.log(ell), row) for row in log_p]))
    forward = j0(theta[:, None] * fine) * _trapezoid_weights(np.log(fine)) * fine**2 / (2 * np.pi)
    xi = p_fine @ forward.T  # (n_shell, n_theta)
    back = j0(ell[:, None] * theta) * _trapezoid_weights(np.log(theta)) * theta**2 * (2 * np.pi)
    variance = p_fine @ (_trapezoid_weights(np.log(fine)) * fine**2 / (2 * np.pi))
    return [xi**2 @ back.T, xi**3 @ back.T], variance


def _trapezoid_weights(x: np.ndarray) -> np.ndarray:
    """Weights w so that (w f).sum() is the trapezoid rule on the nodes x."""
    step = np.diff(x)
    return 0.5 * (np.append(step, 0) + np.insert(step, 0, 0))


def _beyond_linear(
    m: HaloModel,
    bias: np.ndarray,
    u_a: np.ndarray,
    u_b: np.ndarray,
    painted: np.ndarray,
    powers: list[np.ndarray],
) -> np.ndarray:
    """Two-halo power of painted haloes beyond linear bias, (n_ell,).

    Lognormal bias correlates haloes of bias b and b' as exp(b b' xi) - 1, less where it is
    capped; this is what its second and third order (see `_bias`) add to b b' xi.
    """
    total = 0.0
    for order, power in enumerate(powers, start=2):
        weight = m.number[:, painted] * bias[order - 1][:, painted]
        a = np.einsum("im,iml->il", weight, u_a[:, painted])
        b = a if u_b is u_a else np.einsum("im,iml->il", weight, u_b[:, painted])
        total = total + (a * b * power).sum(0) / math.factorial(order)
    return total


def _slices(m: HaloModel) -> dict[str, np.ndarray]:
    """Thin slices that carry the velocities, and what the mixing needs of the cosmology."""
    number = np.maximum(1, np.round(m.thickness / SLICE_MPC).astype(int))
    inner = [
        np.linspace(low, high, n + 1)[:-1]
        for low, high, n in zip(m.edges[:-1], m.edges[1:], number, strict=True)
    ]
    edges = np.concatenate([*inner, m.edges[-1:]])
    a = m.cosmo.scale_factor_of_chi(0.5 * (edges[1:] + edges[:-1]))
    k = np.geomspace(1e-4, 30, 600)
    return {
        "slices": number.astype(np.int32),
        "slice_edges": edges,
        "slice_growth": m.cosmo.growth_factor(a),
        "slice_velocity": m.growth_velocity(a),
        "shell_growth": m.cosmo.growth_factor(m.a),
        "k": k,
        "p_k": m.cosmo.linear_matter_power(k, 1.0),
    }


def _biased(m: HaloModel, bias: np.ndarray, profile: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Sum of n b_1 U over the masses of `which`, (n_shell, n_ell)."""
    weight = m.number[:, which] * bias[0][:, which]
    return np.einsum("im,iml->il", weight, profile[:, which])


def _compact(x) -> np.ndarray:
    x = np.asarray(x)
    return x.astype(np.float32) if x.dtype == np.float64 else x


def save(path: str | os.PathLike, tables: dict[str, np.ndarray]) -> None:
    """Write tables as .npz, beside and then renamed."""
    path = Path(path)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **tables)
    write_whole(path, buffer.getvalue())


def load(path: str | os.PathLike | None = None) -> dict[str, np.ndarray]:
    """Read tables; the shipped ones by default. ``header`` comes back as a dict.

    Raises
    ------
    ValueError
        If the file is not a table file of this version.
    """
    if path is None:
        from importlib.resources import files

        path = files("mlsky.data") / "tables" / "halos_planck2018.npz"
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            tables = dict(archive)
        header = json.loads(tables.pop("header").tobytes())
    except (ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a file of painter tables: {error}") from error
    if header.get("format") != FORMAT:
        raise ValueError(
            f"{path}: painter tables of format {header.get('format')!r}: this version reads "
            f"{FORMAT}; make them again with `mlsky tables build`"
        )
    return {**tables, "header": header}
