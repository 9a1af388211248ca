"""Tables of the sky painter: built once through CCL, loaded with numpy alone.

`build` turns the analytic halo model into what the painter needs at run time: a
low-rank basis of the halo profiles, abundances, the power of the shells, the
analytic spectra. The large mixing matrix that draws densities and velocities
jointly is rebuilt from the linear power spectrum by `mixing` and cached.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from pathlib import Path

import numpy as np

__all__ = ["build", "load", "mixing", "save"]

FORMAT = 1
LOG10_MASS_MIN = 12.3  # haloes above are painted one by one, 10^12.3 = 2e12 Msun
LOG10_SUBHALO_MIN = 11.7  # satellites above are drawn one by one
RANK = 6  # basis functions per profile: one-halo power exact to 0.2 %
SLICE_MPC = 55.0  # thickness of the radial velocity slices
MIXING_ELL = (15.0, 4000.0, 52)  # multipoles of the joint draw: first, last, how many
FLUX_CUT_JY = 7e-3  # dusty sources above are kept out of the diffuse map (catalogue)
RADIO_HOST_LOG10_MASS = 12.8


def _basis(u, number, weight, rank):
    """Weighted low-rank basis of the profiles of one kind.

    Returns ``phi (rank, n_ell)`` and ``a (n_shell, n_mass, rank)`` with u ~ a @ phi.
    Rows are weighted by their share in the one-halo power, and every halo by a little
    more, so that rare massive ones are represented too.
    """
    w = np.sqrt(number) * weight
    power = np.einsum("im,iml->l", w**2, u**2)
    per_ell = 1 / np.sqrt(power)
    rows = (u * w[..., None] * per_ell).reshape(-1, u.shape[-1])
    shapes = (u / np.abs(u).max(-1, keepdims=True)).reshape(-1, u.shape[-1])
    shapes *= 0.3 * np.sqrt((rows**2).sum() / (shapes**2).sum())
    _, _, vt = np.linalg.svd(np.concatenate([rows, shapes]), full_matrices=False)
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


def build(model, uk_per_jy_sr: float, cosmology: dict) -> dict[str, np.ndarray]:
    """Tables from a `mlsky.theory.halo_model.HaloModel`.

    Parameters
    ----------
    model
        The halo model at 148 GHz.
    uk_per_jy_sr
        uK_CMB of one Jy/sr at 148 GHz.
    cosmology
        What the tables were made for; kept in the file.
    """
    from mlsky.theory import halo_model as hm

    m, par = model, model.parameters
    cut = FLUX_CUT_JY
    painted = m.log10_mass >= LOG10_MASS_MIN - 1e-9
    number, bias = m.number, m.bias
    u = uk_per_jy_sr
    central, satellites, by_sub, log10_sub, number_sub = m.infrared()
    quench = 1 / (1 + m.mass / 10**par.cib_log10_quench)
    dln_sub = 0.02 * np.log(10)
    drawn = log10_sub >= LOG10_SUBHALO_MIN
    per_host = number_sub * dln_sub
    small = np.einsum("mk,ik->im", per_host[:, ~drawn], by_sub[:, ~drawn]) * quench

    t: dict[str, np.ndarray] = {}
    weights = {
        "nfw": (m.u_nfw, m.kappa_mass),
        "y": (m.u_y, np.ones_like(number)),
        "tau": (m.u_tau, np.repeat(m.sigma_v[:, None], len(m.mass), 1)),
    }
    for name, (profile, weight) in weights.items():
        t[f"phi_{name}"], t[f"a_{name}"] = _basis(
            profile[:, painted], number[:, painted], weight[:, painted], RANK
        )
    t["log10_mass"] = m.log10_mass[painted]
    t["number"] = number[:, painted]
    t["bias"] = bias[:, painted]
    t["kappa_mass"] = m.kappa_mass[:, painted]
    t["central_uk_sr"] = central[:, painted] * u
    t["small_satellites_uk_sr"] = small[:, painted] * u
    t["satellite_uk_sr"] = by_sub[:, drawn] * u
    t["satellite_number"] = (number_sub[painted][:, drawn].sum(1) * dln_sub) * quench[painted]
    cdf = np.cumsum(number_sub[painted][:, drawn], 1)
    cdf /= np.maximum(cdf[:, -1:], 1e-30)
    uniform = (np.arange(256) + 0.5) / 256
    t["satellite_inverse"] = np.array([np.searchsorted(c, uniform) for c in cdf]).clip(
        0, drawn.sum() - 1
    ).astype(np.int16)
    t["concentration"] = m.concentration[:, painted]
    t["theta_200m"] = m.r200m[:, painted] / m.chi[:, None]
    t["flux_cut_uk_sr"] = np.array(cut * u)
    t["uk_per_jy_sr"] = np.array(u)
    t["scatter"] = np.array(par.cib_scatter)

    # below the mass cut: linear bias, and one Gaussian field for the one-halo part
    low = ~painted
    n_low = number[:, low]
    mass_bias = (number[:, painted] * bias[:, painted] * m.mass[painted]).sum(1)
    lens = m.lensing_kernel * m.volume / m.chi**2
    t["low_kappa"] = (1 - mass_bias / m.volume / m.rho_mean) * lens
    t["low_y"] = (n_low * bias[:, low] * m.u_y[:, low, 0]).sum(1)
    mean_galaxies = _mean_below(central, by_sub, per_host, par.cib_scatter, cut, quench)
    t["low_cib"] = (n_low * bias[:, low] * mean_galaxies[:, low]).sum(1) * u
    t["low_cib_mean"] = (n_low * mean_galaxies[:, low]).sum() * u
    tau_shell = par.ionised_fraction * m.tau_per_mpc / m.a**2 * m.thickness
    b_tau = np.einsum("im,iml->il", number * bias, m.u_tau)
    b_tau += (tau_shell - (number * bias * m.u_tau[:, :, 0]).sum(1))[:, None]
    b_tau_painted = np.einsum("im,iml->il", number[:, painted] * bias[:, painted], m.u_tau[:, painted])
    t["low_tau"] = tau_shell - (number[:, painted] * bias[:, painted] * m.u_tau[:, painted, 0]).sum(1)
    boost = np.exp(par.cib_scatter**2)
    low_kappa = m.u_kappa[:, low]
    low_cib = (central[:, low, None] + (satellites * quench)[:, low, None] * m.u_nfw[:, low]) * u
    t["gauss_kk"] = np.einsum("im,iml->l", n_low, low_kappa**2)
    t["gauss_kc"] = np.einsum("im,iml,iml->l", n_low, low_kappa, low_cib)
    shot_low = (n_low * central[:, low] ** 2).sum() * (boost - 1)
    subs = np.einsum("im,mk,ik->", number * quench, per_host, by_sub**2)
    subs -= np.einsum("im,mk,ik->", number[:, painted] * quench[painted], per_host[painted][:, drawn], by_sub[:, drawn] ** 2)
    t["gauss_cc"] = np.einsum("im,iml->l", n_low, low_cib**2) + (shot_low + subs * boost) * u**2
    # low-mass one-halo kSZ, left out of the painted haloes
    t["gauss_ksz"] = np.einsum("i,im,iml->l", m.sigma_v**2, n_low, m.u_tau[:, low] ** 2)

    # analytic spectra: reference of the tests, power of the smooth fields
    p_smooth = m.p_linear * np.exp(-((m.k * hm.SMOOTHING_MPC) ** 2)) / m.volume[:, None]
    b_kappa_painted = np.einsum(
        "im,iml->il", number[:, painted] * bias[:, painted], m.u_kappa[:, painted]
    )
    nonlinear = (m.lensing_kernel[:, None] ** 2 * m.p_nonlinear * m.thickness[:, None] / m.chi[:, None] ** 2).sum(0)
    hh = np.einsum("im,iml->l", number[:, painted], m.u_kappa[:, painted] ** 2)
    hh += t["gauss_kk"] + (b_kappa_painted**2 * p_smooth).sum(0)
    smooth = t["low_kappa"][:, None]
    hs = (b_kappa_painted * smooth * p_smooth).sum(0)
    ss = (smooth**2 * p_smooth).sum(0)
    #: transfer of the smooth kappa so that hh + 2 t hs + t^2 ss is the nonlinear power
    t["smooth_kappa"] = (-hs + np.sqrt(np.maximum(hs**2 - ss * (hh - nonlinear), 0))) / ss
    t["linear_kappa"] = lens  # weights of kappa_G: all matter, linear
    b_kappa = b_kappa_painted + t["smooth_kappa"] * smooth
    u_cib = (central[:, :, None] + (satellites * quench)[:, :, None] * m.u_nfw) * u
    shot = (number * _truncated_second_moment(central, par.cib_scatter, cut)).sum()
    shot -= (number * central**2).sum()
    shot += np.einsum("im,mk,ik->", number * quench, per_host, _truncated_second_moment(by_sub, par.cib_scatter, cut))
    b_y, b_cib = m.biased(m.u_y), m.biased(u_cib)
    chi_far = np.linspace(m.edges[-1], m.chi_source * 0.999, 120)
    a_far = m.cosmo.scale_factor_of_chi(chi_far)
    p_far = np.array(
        [[m.cosmo.linear_matter_power((l + 0.5) / c, a) for c, a in zip(chi_far, a_far, strict=True)] for l in m.ell]
    )
    t["far_kappa"] = np.trapezoid(m.kernel(chi_far, a_far) ** 2 / chi_far**2 * p_far, chi_far, axis=-1)
    t["analytic_kk"] = nonlinear + t["far_kappa"]
    t["analytic_yy"] = m.one_halo(m.u_y, m.u_y).sum(0) + (b_y**2 * p_smooth).sum(0)
    t["analytic_cc"] = m.one_halo(u_cib, u_cib).sum(0) + shot * u**2 + (b_cib**2 * p_smooth).sum(0)
    t["analytic_ky"] = m.one_halo(m.u_kappa, m.u_y).sum(0) + (b_kappa * b_y * p_smooth).sum(0)
    t["analytic_kc"] = m.one_halo(m.u_kappa, u_cib).sum(0) + (b_kappa * b_cib * p_smooth).sum(0)
    t["analytic_yc"] = m.one_halo(m.u_y, u_cib).sum(0) + (b_y * b_cib * p_smooth).sum(0)
    ov = 1 / (1 + (par.velocity_k0 / m.k) ** par.velocity_slope)
    two = (m.sigma_v**2)[:, None] * b_tau**2 * m.p_linear / m.volume[:, None] * ov
    one = np.einsum("i,iml,im->l", m.sigma_v**2, m.u_tau**2, number)
    t["analytic_ksz"] = (two.sum(0) + one) * hm.T_CMB_UK**2
    t["ksz_two_halo"] = two
    t["ksz_painted_bias"] = b_tau_painted + t["low_tau"][:, None]
    t["p_shell"] = p_smooth
    t["ell"], t["z"], t["chi"], t["edges"] = m.ell, m.z, m.chi, m.edges
    t["sigma_v"] = m.sigma_v
    # what the mixing matrix needs
    n_slice = np.maximum(1, np.round(m.thickness / SLICE_MPC).astype(int))
    edges = np.concatenate(
        [np.linspace(lo, hi, n + 1)[:-1] for lo, hi, n in zip(m.edges[:-1], m.edges[1:], n_slice, strict=True)]
        + [m.edges[-1:]]
    )
    centre = 0.5 * (edges[1:] + edges[:-1])
    a_slice = m.cosmo.scale_factor_of_chi(centre)
    t["slices"] = n_slice.astype(np.int32)
    t["slice_edges"] = edges
    t["slice_growth"] = m.cosmo.growth_factor(a_slice)
    t["slice_velocity"] = m.growth_velocity(a_slice)
    t["shell_growth"] = m.cosmo.growth_factor(m.a)
    k = np.geomspace(1e-4, 30, 600)
    t["k"], t["p_k"] = k, m.cosmo.linear_matter_power(k, 1.0)
    out = {name: _compact(value) for name, value in t.items()}
    header = {
        "format": FORMAT,
        "cosmology": cosmology,
        "parameters": par.to_dict(),
        "flux_cut_mjy": cut * 1e3,
        "log10_mass_min": LOG10_MASS_MIN,
        "nu_ghz": m.nu_ghz,
    }
    out["header"] = np.frombuffer(json.dumps(header, sort_keys=True).encode(), dtype=np.uint8)
    return out


def _mean_below(central, by_sub, per_host, scatter, cut, quench):
    """Mean infrared flux of a host (Jy) from galaxies fainter than the cut."""
    faint = _truncated_mean(by_sub, scatter, cut)
    return _truncated_mean(central, scatter, cut) + np.einsum("mk,ik->im", per_host, faint) * quench


def _compact(x) -> np.ndarray:
    x = np.asarray(x)
    return x.astype(np.float32) if x.dtype == np.float64 else x


def save(path: str | os.PathLike, tables: dict[str, np.ndarray]) -> None:
    """Write tables as .npz, beside and then renamed."""
    path = Path(path)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **tables)
    _replace(path, buffer.getvalue())


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


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
    with np.load(path, allow_pickle=False) as archive:
        tables = dict(archive)
    header = json.loads(tables.pop("header").tobytes()) if "header" in tables else {}
    if header.get("format") != FORMAT:
        raise ValueError(
            f"{path}: painter tables of format {header.get('format')!r}, this version reads {FORMAT}; "
            "make them again with `mlsky tables build`"
        )
    return {**tables, "header": header}


def cache_folder() -> Path:
    """Folder of rebuilt files: MLSKY_CACHE_DIR, else the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mlsky"
    return Path(os.environ.get("MLSKY_CACHE_DIR", default))


def mixing(tables: dict) -> tuple[np.ndarray, np.ndarray]:
    """Joint mixing of shell densities and slice velocities at low multipoles.

    Returns
    -------
    ell : (n,) float64
    matrix : (n, n_shell + n_slice, n_shell + n_slice) float32
        ``matrix[i] @ g`` of unit white modes g has the flat-sky covariance of the
        densities (then velocities, in units of c) at multipole ``ell[i]``; power per sr.

    Notes
    -----
    <d d>, <v v> and <d v> of modes with transverse wave number ell / sqrt(chi chi'),
    integrated over k_parallel with the windows of the shells: kernels cos(k dx),
    (k_par/k^2)^2 cos and (k_par/k^2) sin, v = i f a H (k_par/k^2) delta. The covariance
    is not exactly positive for close shells (their transverse k differ): eigenvalues of
    the correlation matrix are clipped at 1e-6.
    """
    from mlsky.theory.halo_model import SMOOTHING_MPC

    names = ("edges", "slice_edges", "slice_growth", "slice_velocity", "shell_growth", "k", "p_k")
    digest = hashlib.sha256(repr((FORMAT, MIXING_ELL, SMOOTHING_MPC)).encode())
    for name in names:
        digest.update(np.ascontiguousarray(tables[name]).tobytes())
    cached = cache_folder() / f"mixing-{digest.hexdigest()[:16]}.npy"
    ell = np.geomspace(*MIXING_ELL)
    if cached.exists():
        matrix = np.load(cached, allow_pickle=False)
        if matrix.shape[0] == len(ell):
            return ell, matrix
    matrix = _mixing(tables, ell, SMOOTHING_MPC)
    buffer = io.BytesIO()
    np.save(buffer, matrix)
    _replace(cached, buffer.getvalue())
    return ell, matrix


def _mixing(tables, ell, smoothing):
    t = {k: np.asarray(v, float) for k, v in tables.items() if k != "header"}
    shell_mid = 0.5 * (t["edges"][1:] + t["edges"][:-1])
    slice_mid = 0.5 * (t["slice_edges"][1:] + t["slice_edges"][:-1])
    x = np.concatenate([shell_mid, slice_mid])
    width = np.concatenate([np.diff(t["edges"]), np.diff(t["slice_edges"])])
    growth = np.concatenate([t["shell_growth"], t["slice_growth"] * t["slice_velocity"]])
    is_v = np.arange(len(x)) >= len(shell_mid)
    dk = 0.0005
    k_par = np.arange(dk / 2, 0.6, dk)
    window = np.sinc(k_par[None] * width[:, None] / 2 / np.pi)
    log_k, log_p = np.log(t["k"]), np.log(t["p_k"])
    rows, cols = np.nonzero(np.triu(np.abs(x[:, None] - x[None]) < 700))
    n = len(x)
    matrix = np.zeros((len(ell), n, n), np.float32)
    for i, multipole in enumerate(ell):
        cov = np.zeros((n, n))
        for start in range(0, len(rows), 2000):
            a, b = rows[start : start + 2000], cols[start : start + 2000]
            k = np.sqrt((multipole**2 / (x[a] * x[b]))[:, None] + k_par[None] ** 2)
            power = np.exp(np.interp(np.log(k), log_k, log_p) - (k * smoothing) ** 2)
            phase = k_par[None] * (x[a] - x[b])[:, None]
            ratio = k_par[None] / k**2
            va, vb = is_v[a][:, None], is_v[b][:, None]
            kernel = np.where(
                va & vb,
                ratio**2 * np.cos(phase),
                np.where(va ^ vb, ratio * np.sin(phase) * np.where(vb, 1, -1), np.cos(phase)),
            )
            integral = (power * window[a] * window[b] * kernel).sum(1) * dk / np.pi
            cov[a, b] = integral * growth[a] * growth[b] / (x[a] * x[b])
        cov = cov + cov.T - np.diag(np.diag(cov))
        rms = np.sqrt(np.maximum(np.diag(cov), 0))
        alive = rms > 1e-12 * rms.max()
        scale = np.where(alive, rms, 1.0)
        corr = cov / scale[:, None] / scale[None]
        corr[~alive] = 0
        corr[:, ~alive] = 0
        corr[np.arange(n), np.arange(n)] = 1
        values, vectors = np.linalg.eigh(corr)
        root = vectors * np.sqrt(np.clip(values, 1e-6, None))
        root /= np.sqrt((root**2).sum(1))[:, None]
        matrix[i] = root * np.where(alive, rms, 0)[:, None]
    return matrix
