"""Tables of the sky painter, built once with CCL and loaded with numpy alone.

`build` computes everything that the painter needs from the analytic halo model: a low-rank basis of
the halo profiles, abundances, the power of the shells, the analytic spectra. The large factor of
the covariance that draws densities and velocities jointly is rebuilt from the linear power spectrum
by `mlsky.haloes.covariance_factor`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlsky import registry
from mlsky.components import REFERENCE_GHZ
from mlsky.io.files import write_whole
from mlsky.theory import presets
from mlsky.theory.clustering import LOG10_MASS_MIN, Clustering
from mlsky.theory.infrared import InfraredGalaxies

if TYPE_CHECKING:
    from mlsky.theory.halo_model import HaloModel
    from mlsky.theory.parameters import Cosmology

__all__ = ["build", "build_for", "load", "of", "save"]

_log = logging.getLogger("mlsky")

FORMAT = 4
LOG10_SUBHALO_MIN = 11.7  # satellites above are drawn one by one
RANK = 8  # basis functions per profile: one-halo power accurate to 0.2 %, cross powers too
SLICE_MPC = 55.0  # thickness of the radial velocity slices
#: Multipoles of the profiles of single objects: from zero, where they are the flux.
OBJECT_ELL = np.append(0.0, np.geomspace(1.0, 31000.0, 160))
#: Classes of objects by their radius R200m (arcmin): each has its own basis, because eight
#: functions cannot describe both a disc of one arcmin and one of four degrees.
OBJECT_CLASSES_ARCMIN = (1.5, 4.0, 10.0, 30.0, 80.0)
OBJECT_RANK, OBJECT_ELL_MAX, OBJECT_ROUNDS = 8, 12000.0, 15
FLUX_CUT_JY = 7e-3  # brighter dusty sources are in the catalogue, not in the diffuse map
FLUX_CUT = (FLUX_CUT_JY, REFERENCE_GHZ)


def _basis(u, number, weight, rank, linear=None):
    """Weighted low-rank basis of the profiles of one kind.

    Returns ``phi (rank, n_ell)`` and ``a (n_shell, n_mass, rank)`` with u ~ a @ phi, exact at the
    lowest multipole, where it is the flux of a halo. Rows are weighted by their fraction of the
    one-halo power, with a small addition for every halo, so that rare massive ones are represented
    too. `linear` (n_shell, n_mass) is a further weight, for a cross power with another field.
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
    basis = vt[:rank]
    a = np.einsum("iml,kl->imk", u * per_ell, basis)
    lowest = basis[:, 0]
    missing = u[..., 0] * per_ell[0] - a @ lowest
    a += missing[..., None] * lowest / (lowest @ lowest)
    return basis / per_ell, a


def build_for(
    cosmology: object = "planck2018", preset: str = presets.DEFAULT
) -> dict[str, np.ndarray]:
    """Make tables for a cosmology, with CCL.

    Parameters
    ----------
    cosmology
        Anything that `mlsky.theory.cosmology.parse` takes.
    preset
        Amplitudes of the truth, one of `mlsky.theory.presets.names`.

    Returns
    -------
    tables
        For `save`, or for a `mlsky.haloes.painter.Painter`.

    Raises
    ------
    ValueError
        If the cosmology or the preset is not valid or CCL cannot compute it.

    Notes
    -----
    About ten seconds, most of them CAMB's.
    """
    from mlsky.frequency import bands
    from mlsky.theory import halo_model
    from mlsky.theory.cosmology import parse

    parsed, parameters = parse(cosmology), presets.parameters(preset)
    model = halo_model.for_cosmology(parsed, parameters)
    uk_per_jy_sr = 1 / float(bands.jy_per_sr_per_uk(model.nu_ghz))
    return build(model, uk_per_jy_sr, parsed.to_dict(), preset)


def build(
    model: HaloModel, uk_per_jy_sr: float, cosmology: dict, preset: str = presets.DEFAULT
) -> dict[str, np.ndarray]:
    """Tables from a `mlsky.theory.halo_model.HaloModel`.

    Parameters
    ----------
    model
        The halo model at 148 GHz.
    uk_per_jy_sr
        uK_CMB of one Jy/sr at 148 GHz.
    cosmology, preset
        Cosmology and preset of the tables; stored in the file.

    Returns
    -------
    tables
        Arrays by name: ``low_`` and ``gauss_`` describe matter that is not painted halo by halo,
        ``analytic_`` the expected spectra. The profile of one halo of shell i and mass m is
        ``a_object_y[i, m] @ phi_object_y[object_class[i, m]]`` on the multipoles ``ell_object`` (y;
        likewise tau and nfw), to 0.3 % of its value at zero up to 12000, and to 1e-4 at zero.
        ``m200c``, ``m500c`` (Msun), ``theta500`` (arcmin), ``y500`` (Compton y within theta500,
        arcmin^2) and ``theta_cut_y`` (where the profile ends, rad) are those of single haloes.
    """
    m = model
    clustering, galaxies = Clustering(m), InfraredGalaxies.of(m)
    painted = clustering.painted
    kappa, ksz = clustering.kappa(), clustering.ksz()
    t = _painted_haloes(m, galaxies, painted)
    t |= _objects(m, painted)
    t |= _painted_galaxies(galaxies, painted, uk_per_jy_sr)
    t |= _below_cut(m, galaxies, painted, uk_per_jy_sr)
    t |= {
        "low_kappa": kappa["smooth"],
        "gauss_kk": kappa["one_low"],
        "smooth_kappa": kappa["transfer"],
        "far_kappa": kappa["far"],
        "missing_kappa": kappa["missing"],
        "analytic_kk": kappa["total"],
        "low_tau": ksz["low"],
        "ksz_two_halo": ksz["two_halo"],
        "ksz_painted_bias": ksz["painted_bias"],
        "analytic_ksz": ksz["one"] + ksz["two"],
    }
    t |= _spectra(m, clustering, galaxies, kappa, uk_per_jy_sr)
    t |= _slices(m)
    t["p_shell"], t["sigma_v"], t["delta_cap"] = clustering.p_shell, m.sigma_v, clustering.cap
    t["ell"], t["z"], t["chi"], t["edges"] = m.ell, m.z, m.chi, m.edges
    out = {name: _compact(value) for name, value in t.items()}
    header = {
        "format": FORMAT,
        "cosmology": cosmology,
        "preset": preset,
        "parameters": m.parameters.to_dict(),
        "flux_cut_mjy": FLUX_CUT_JY * 1e3,
        "log10_mass_min": LOG10_MASS_MIN,
        "nu_ghz": m.nu_ghz,
    }
    out["header"] = np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8)
    return out


def _painted_haloes(
    m: HaloModel, g: InfraredGalaxies, painted: np.ndarray
) -> dict[str, np.ndarray]:
    """Abundance and low-rank profiles of the haloes painted one by one."""
    # tSZ x CIB comes from lighter and farther haloes than the power of tSZ
    crossed = {"y": (m.number * sum(g.faint(m.nu_ghz, FLUX_CUT)))[:, painted]}
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


def _objects(m: HaloModel, painted: np.ndarray) -> dict[str, np.ndarray]:
    """Profiles of single haloes, and their entries of the catalogue."""
    at = dataclasses.replace(m, ell=OBJECT_ELL)
    theta = (m.r200m / m.chi[:, None])[:, painted]
    edges = np.radians(np.array(OBJECT_CLASSES_ARCMIN) / 60)
    class_ = np.searchsorted(edges, theta, side="right")
    # haloes with less than one in a thousand skies have no weight
    there = m.number[:, painted] * 4 * np.pi > 1e-3
    t = {"ell_object": OBJECT_ELL, "object_class": class_.astype(np.int8)}
    for name in ("nfw", "y", "tau"):
        profile = getattr(at, f"u_{name}")[:, painted]
        phi = np.empty((len(edges) + 1, OBJECT_RANK, len(OBJECT_ELL)))
        a = np.empty((*theta.shape, OBJECT_RANK))
        for k in range(len(phi)):
            some = class_ == k
            phi[k], a[some] = _object_basis(profile[some], there[some])
        t[f"phi_object_{name}"], t[f"a_object_{name}"] = phi, a
    m500c, r500c = m.critical(500.0)
    square_arcmin = np.degrees(60) ** 2
    t |= {
        "m200c": m.m200c[:, painted],
        "m500c": m500c[:, painted],
        "theta500": np.degrees(60) * (r500c / m.chi[:, None])[:, painted],
        "y500": square_arcmin * m.compton_within(r500c)[:, painted],
        "theta_cut_y": (m.parameters.pressure_radius * m.r200c / m.chi[:, None])[:, painted],
    }
    return t


def _object_basis(u: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Basis ``phi (rank, n_ell)`` and coefficients ``a (n, rank)`` of profiles (n, n_ell).

    Profiles that are `there` (n,) are weighted by their shape, however rare and faint. The weights
    of the worst ones grow from round to round, to minimise the largest error instead of the mean
    one.
    """
    there = there if there.any() else np.ones_like(there)
    flux = u[:, :1]
    per_ell = np.where(OBJECT_ELL <= OBJECT_ELL_MAX, 1.0, 0.1)
    per_ell[0] = 30.0  # the flux
    rows = u / flux * per_ell
    inside = OBJECT_ELL <= OBJECT_ELL_MAX
    weight = np.ones(there.sum())
    for _ in range(OBJECT_ROUNDS):
        weighted = rows[there] * weight[:, None]
        _, vectors = np.linalg.eigh(weighted.T @ weighted)
        basis = vectors[:, : -OBJECT_RANK - 1 : -1].T
        a = rows @ basis.T
        error = np.abs((a @ basis - rows) / per_ell)[there][:, inside].max(1)
        weight *= (error / error.max() + 0.05) ** 0.25
    return basis / per_ell, a * flux


def _painted_galaxies(g: InfraredGalaxies, painted: np.ndarray, u: float) -> dict[str, np.ndarray]:
    """Fluxes and numbers of the galaxies of painted haloes; `u` is uK per Jy/sr."""
    drawn = g.log10_sub >= LOG10_SUBHALO_MIN
    small = np.einsum("mk,ik->im", g.per_host[:, ~drawn], g.by_sub[:, ~drawn]) * g.quench
    number_sub = g.number_sub[painted][:, drawn]
    cdf = np.cumsum(number_sub, 1)
    cdf /= np.maximum(cdf[:, -1:], 1e-30)
    uniform = (np.arange(256) + 0.5) / 256
    inverse = np.array([np.searchsorted(row, uniform) for row in cdf])
    return {
        "central_uk_sr": g.central[:, painted] * u,
        "small_satellites_uk_sr": small[:, painted] * u,
        "satellite_uk_sr": g.by_sub[:, drawn] * u,
        "satellite_number": g.per_host[painted][:, drawn].sum(1) * g.quench[painted],
        "satellite_inverse": inverse.clip(0, drawn.sum() - 1).astype(np.int16),
        "flux_cut_uk_sr": np.array(FLUX_CUT_JY * u),
        "uk_per_jy_sr": np.array(u),
        "scatter": np.array(g.scatter),
    }


def _below_cut(
    m: HaloModel, g: InfraredGalaxies, painted: np.ndarray, u: float
) -> dict[str, np.ndarray]:
    """Contribution of haloes below the mass cut: linear bias, and Gaussian one-halo fields."""
    low, drawn = ~painted, g.log10_sub >= LOG10_SUBHALO_MIN
    n_low, b_low = m.number[:, low], m.bias[:, low]
    mean = sum(g.faint(m.nu_ghz, FLUX_CUT))[:, low]
    kappa = m.u_kappa[:, low]
    cib = (g.central[:, low, None] + (g.satellites * g.quench)[:, low, None] * m.u_nfw[:, low]) * u
    # shot power of central galaxies, then of the satellites that are not drawn one by one
    boost = np.exp(g.scatter**2)
    shot = (n_low * g.central[:, low] ** 2).sum(1) * (boost - 1)
    subs = np.einsum("im,mk,ik->i", m.number * g.quench, g.per_host, g.by_sub**2)
    subs -= np.einsum(
        "im,mk,ik->i",
        m.number[:, painted] * g.quench[painted],
        g.per_host[painted][:, drawn],
        g.by_sub[:, drawn] ** 2,
    )
    return {
        # weights of kappa_G: all matter, linear
        "linear_kappa": m.lensing_kernel * m.volume / m.chi**2,
        "low_y": (n_low * b_low * m.u_y[:, low, 0]).sum(1),
        "low_cib": (n_low * b_low * mean).sum(1) * u,
        # by shell, for the colours
        "low_cib_mean": (n_low * mean).sum(1) * u,
        "gauss_kc": np.einsum("im,iml,iml->il", n_low, kappa, cib),
        "gauss_cc": np.einsum("im,iml->il", n_low, cib**2),
        "gauss_shot": (shot + subs * boost) * u**2,
        "gauss_ksz": np.einsum("i,im,iml->l", m.sigma_v**2, n_low, m.u_tau[:, low] ** 2),
    }


def _spectra(
    m: HaloModel, clustering: Clustering, g: InfraredGalaxies, kappa: dict, u: float
) -> dict[str, np.ndarray]:
    """One- plus two-halo spectra of tSZ, CIB and convergence expected of painted maps."""
    u_cib = g.clustered(m.u_nfw, m.nu_ghz, FLUX_CUT) * u
    central, _ = g.faint(m.nu_ghz, FLUX_CUT)
    # galaxies with themselves, instead of the part of the centrals in the one-halo term
    shot = g.shot(m.nu_ghz, m.nu_ghz, FLUX_CUT) - (m.number * central**2).sum()
    profile = {"k": m.u_kappa, "y": m.u_y, "c": u_cib}
    linear = {
        "k": kappa["linear"],
        "y": clustering.biased(m.u_y),
        "c": clustering.biased(u_cib),
    }
    orders = {name: clustering.orders(u_x) for name, u_x in profile.items()}
    out = {}
    for a, b in ("yy", "cc", "ky", "kc", "yc"):
        one = m.one_halo(profile[a], profile[b]).sum(0)
        two = (linear[a] * linear[b] * clustering.p_shell).sum(0)
        out[f"analytic_{a}{b}"] = one + two + clustering.of_orders(orders[a], orders[b]).sum(0)
    out["analytic_cc"] = out["analytic_cc"] + shot * u**2
    return out


def _slices(m: HaloModel) -> dict[str, np.ndarray]:
    """Thin slices of the velocities, and the inputs of the covariance factor."""
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


def _compact(x) -> np.ndarray:
    x = np.asarray(x)
    return x.astype(np.float32) if x.dtype == np.float64 else x


def of(cosmology: Cosmology, preset: str = presets.DEFAULT) -> dict[str, np.ndarray]:
    """Tables of a cosmology: the shipped ones, cached ones, or new ones.

    Parameters
    ----------
    cosmology
        As `mlsky.theory.parse` returns it.
    preset
        Amplitudes of the truth.

    Notes
    -----
    New ones take ten to twenty seconds and are kept in `mlsky.registry.cache_dir`.
    """
    shipped = load()
    # haloes do not depend on the optical depth
    cosmology = dataclasses.replace(cosmology, tau=shipped["header"]["cosmology"]["tau"])
    wanted = {"cosmology": cosmology.to_dict(), "preset": preset}
    if all(shipped["header"][key] == value for key, value in wanted.items()):
        return shipped
    key = {**wanted, "format": FORMAT, "parameters": presets.parameters(preset).to_dict()}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    kept = registry.cache_dir() / f"halos-{digest[:16]}.npz"
    try:
        return load(kept)
    except ValueError:
        pass  # none yet, or a damaged one: it is made again
    tables = build_for(cosmology, preset)
    try:
        save(kept, tables)
    except OSError as error:
        _log.warning("halo tables not kept in %s: %s", kept.parent, error)
    return {**tables, "header": json.loads(bytes(tables["header"]))}


def save(path: str | os.PathLike, tables: dict[str, np.ndarray]) -> None:
    """Write tables as .npz, atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
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
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a file of painter tables: {error}") from error
    if header.get("format") != FORMAT:
        raise ValueError(
            f"{path}: painter tables of format {header.get('format')!r}: this version reads "
            f"{FORMAT}; make them again with `mlsky tables build`"
        )
    return {**tables, "header": header}
