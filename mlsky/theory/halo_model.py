"""Analytic halo model of the training truth, on light-cone shells, through CCL.

What is computed here is both the input of the painter (`mlsky.haloes.tables`)
and the reference it is checked against. Abundance, lensing and galaxies are
defined at 200 times the mean density, gas at 200 times the critical one.

References
----------
Mass function and bias: Tinker et al. 2010 (arXiv:1001.3162). Concentration:
Duffy et al. 2008 (arXiv:0804.2486). Pressure: Battaglia et al. 2012
(arXiv:1109.3711), eqs 10-12 and Table 1. Gas density: Battaglia 2016
(arXiv:1607.02442), eq. A1 and Table 2 (AGN feedback). Infrared galaxies: Shang
et al. 2012 (arXiv:1109.1522), eqs 20-27, with the sub-halo mass function of
Tinker & Wetzel 2010 (arXiv:0909.1325), eq. 12.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlsky.components import REFERENCE_GHZ
from mlsky.theory.quadrature import cusp_nodes, nfw_mass, spherical_transform

if TYPE_CHECKING:
    from mlsky.theory.parameters import Cosmology

__all__ = ["HaloModel", "Parameters", "for_cosmology", "infrared_sed", "shell_edges"]

C_KM_S = 299792.458  # speed of light, km/s (SI definition)
G_NEWTON = 4.30091e-9  # Mpc (km/s)^2 / Msun (CODATA 2018, IAU 2015 nominal GM_sun)
T_CMB_UK = 2.7255e6  # uK, Fixsen 2009 (doi:10.1088/0004-637X/707/2/916)
SIGMA_T_MPC2 = 6.6524587e-29 / 3.0856776e22**2  # Thomson cross-section, Mpc^2 (CODATA 2018)
M_E_C2 = 9.1093837e-31 / 1.98847e30 * C_KM_S**2  # electron rest energy, Msun (km/s)^2 (CODATA)
M_PROTON = 1.67262192e-27 / 1.98847e30  # Msun (CODATA 2018)
HYDROGEN_FRACTION = 0.76  # primordial mass fraction, as in Battaglia et al. 2012
H_OVER_K_GHZ = 0.0479924307  # h/k_B in K/GHz (CODATA 2018)
Z_MAX = 6.0  # haloes are painted up to this redshift; kappa from behind it is Gaussian
SMOOTHING_MPC = 0.7  # Gaussian smoothing of the shells' density, comoving


@dataclass(frozen=True)
class Parameters:
    """Amplitudes of the truth, fitted to ACT DR6 and the Planck CIB monopole.

    The infrared galaxies are those of docs/decisions/0004.
    """

    concentration_boost: float = 1.3  # on Duffy08, brings kappa to halofit at ell > 3000
    #: P_e multiplies Battaglia 2012 by A min(M200c/3e14, 1)^a (1+z)^b: ACT DR6's best fit of tSZ
    #: within 1.6 % for 1000 <= ell <= 8000
    pressure: tuple[float, float, float] = (0.926, 0.363, -0.708)
    pressure_radius: float = 4.0  # profile is cut at this many R200c
    gas_radius: float = 3.0
    ionised_fraction: float = 0.9  # fraction of all baryons; the rest is in stars and neutral gas
    #: factor of all optical depths: a_kSZ = 0.987 uK^2, best fit of ACT DR6 (Louis et al. 2025,
    #: arXiv:2503.14452), where the profiles as published give 1.80 from z < 6
    ksz_amplitude: float = 0.7405
    cib_l0: float = 10**-7.113  # Jy Mpc^2 / Msun
    cib_log10_meff: float = 12.485
    cib_sigma: float = 0.656  # dex
    cib_evolution: float = 2.56  # L ~ (1+z)^this, flat above cib_plateau
    cib_plateau: float = 3.2
    cib_t0: float = 16.25  # K, dust temperature T0 (1+z)^cib_alpha
    cib_alpha: float = 0.444
    cib_beta: float = 1.906
    cib_gamma: float = 1.7  # Wien-side slope of the SED
    cib_log10_quench: float = 13.63  # satellites fade as 1/(1 + M/this)
    cib_scatter: float = 1.045  # lognormal scatter of ln L, mean preserving
    #: scatter of the emissivity index from galaxy to galaxy; decorrelates the bands
    cib_beta_scatter: float = 0.2
    cib_low_z: float = 0.01  # luminosity factor 1 - exp(-z/this)
    cib_log10_mmin: float = 10.0
    radio_counts: float = 1.0  # factor on the counts of radio sources
    velocity_k0: float = 0.08  # /Mpc: transverse momentum over velocity^2 x density, see kSZ
    velocity_slope: float = 1.1

    def to_dict(self) -> dict:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in self.__dict__.items()}


def shell_edges(chi_min: float = 60.0, chi_max: float = 8430.0) -> np.ndarray:
    """Comoving edges (Mpc) of the shells: geometric by 1.2, then about 300 Mpc thick."""
    near = chi_min * 1.2 ** np.arange(40)
    near = near[near * 0.2 < 300.0]
    n = round((chi_max - near[-1]) / 300.0)
    return np.concatenate([near, np.linspace(near[-1], chi_max, n + 1)[1:]])


def for_cosmology(
    cosmology: Cosmology, parameters: Parameters | None = None, **options: Any
) -> HaloModel:
    """Halo model of a cosmology, its P(k) from CAMB through CCL (mead2020 halofit).

    Parameters
    ----------
    cosmology
        A `mlsky.theory.parameters.Cosmology`.
    parameters, **options
        Of `HaloModel`.

    Raises
    ------
    ValueError
        If CCL or the CAMB inside it refuses the cosmology.
    """
    from mlsky.plugins import ccl  # raises an error that says what to install
    from mlsky.plugins.camb import camb

    with ccl.LOCK:
        # CCL changes this global setting of CAMB and does not restore it.
        accuracy = getattr(camb.config, "AccuracyTarget", None)
        try:
            return HaloModel(ccl.to_cosmology(cosmology), parameters or Parameters(), **options)
        except (ccl.pyccl.CCLError, camb.CAMBError) as error:
            raise ValueError(f"cosmology {cosmology}: CCL cannot compute it: {error}") from error
        finally:
            if accuracy is not None:
                camb.config.AccuracyTarget = accuracy


def infrared_sed(nu_ghz: float, z: np.ndarray, parameters: Parameters) -> np.ndarray:
    """Spectrum of infrared galaxies at the observed frequency, 1 where the power law begins.

    A grey body nu^beta B_nu(T0 (1+z)^alpha), a power law nu^-gamma beyond the frequency where
    its slope is that (Shang et al. 2012, eqs 24-25).

    Parameters
    ----------
    nu_ghz
        Observed frequency.
    z
        Redshifts, any shape.
    parameters
        Of the truth.

    Returns
    -------
    sed
        The shape of `z`.
    """
    par = parameters
    q = par.cib_beta + 3 + par.cib_gamma
    x0 = q
    for _ in range(60):  # of x / (1 - exp(-x)) = q; each round gains a factor q exp(-q)
        x0 = q * -np.expm1(-x0)

    def greybody(x):
        return x ** (3 + par.cib_beta) / np.expm1(x)

    x = H_OVER_K_GHZ * nu_ghz * (1 + z) / (par.cib_t0 * (1 + z) ** par.cib_alpha)
    return np.where(x <= x0, greybody(np.minimum(x, x0)) / greybody(x0), (x0 / x) ** par.cib_gamma)


@dataclass
class HaloModel:
    """Profiles and abundances on a grid of shells, masses and multipoles.

    Parameters
    ----------
    cosmo
        A `pyccl.Cosmology`.
    parameters
        Amplitudes of the truth.
    ell
        Multipoles of the profiles, shape (n_ell,).
    nu_ghz
        Frequency of the infrared fluxes.

    Attributes
    ----------
    chi, a, z, volume : (n_shell,)
        Comoving distance (Mpc), scale factor, redshift, volume per steradian (Mpc^3/sr).
    log10_mass, mass : (n_mass,)
        M200m in Msun, centres of bins of 0.05 dex from 10 to 15.75.
    m200c, r200c : (n_shell, n_mass)
        Mass (Msun) and comoving radius (Mpc) within 200 times the critical density.
    dn, bias : (n_shell, n_mass)
        dn/dlnM (comoving Mpc^-3) and linear bias.
    u_kappa, u_y, u_tau, u_nfw : (n_shell, n_mass, n_ell)
        Fourier profiles: convergence, Compton y, optical depth (all in sr), normalised NFW.
    """

    cosmo: object
    parameters: Parameters = field(default_factory=Parameters)
    ell: np.ndarray = field(default_factory=lambda: np.geomspace(20.0, 31000.0, 116))
    nu_ghz: float = REFERENCE_GHZ

    def __post_init__(self) -> None:
        self._background()
        self._abundance()
        self._nfw_profiles()
        self._gas_profiles()

    def with_parameters(self, parameters: Parameters) -> HaloModel:
        """The same model with other parameters; everything independent of them is shared."""
        other = copy.copy(self)
        other.parameters = parameters

        def differ(*names: str) -> bool:
            return any(getattr(parameters, n) != getattr(self.parameters, n) for n in names)

        if differ("concentration_boost"):
            other._abundance()
            other._nfw_profiles()
        if differ("concentration_boost", "pressure_radius", "gas_radius"):
            other._gas_profiles()
            return other
        (amplitude, slope, evolution), old = parameters.pressure, self.parameters.pressure
        if differ("pressure"):
            ratio = amplitude / old[0] * np.minimum(self.m200c / 3e14, 1) ** (slope - old[1])
            ratio = ratio * (1 + self.z[:, None]) ** (evolution - old[2])
            other.u_y = self.u_y * ratio[:, :, None]
        if differ("ksz_amplitude"):
            ratio = parameters.ksz_amplitude / self.parameters.ksz_amplitude
            other.u_tau, other.tau_per_mpc = self.u_tau * ratio, self.tau_per_mpc * ratio
        return other

    def _background(self) -> None:
        cosmo = self.cosmo
        self.h = float(cosmo["h"])
        self.omega_m = float(cosmo.omega_x(1.0, "matter"))
        self.baryon_fraction = float(cosmo["Omega_b"]) / self.omega_m
        chi_max = float(cosmo.comoving_radial_distance(1 / (1 + Z_MAX)))
        self.edges = shell_edges(chi_max=chi_max)
        lo, hi = self.edges[:-1], self.edges[1:]
        self.chi = 0.75 * (hi**4 - lo**4) / (hi**3 - lo**3)  # volume weighted
        self.thickness = hi - lo
        self.volume = (hi**3 - lo**3) / 3
        self.a = cosmo.scale_factor_of_chi(self.chi)
        self.z = 1 / self.a - 1
        self.chi_source = float(cosmo.comoving_radial_distance(1 / 1090.0))
        self.lensing_kernel = self.kernel(self.chi, self.a)
        self.k = (self.ell[None] + 0.5) / self.chi[:, None]
        rows = list(zip(self.k, self.a, strict=True))
        self.p_linear = np.array([cosmo.linear_matter_power(k, a) for k, a in rows])
        self.p_nonlinear = np.array([cosmo.nonlin_matter_power(k, a) for k, a in rows])
        self.velocity_factor = self.growth_velocity(self.a)
        k = np.geomspace(1e-4, 10, 800)
        self.sigma_v = self.velocity_factor * np.array(
            [
                np.sqrt(np.trapezoid(cosmo.linear_matter_power(k, a), k) / (6 * np.pi**2))
                for a in self.a
            ]
        )  # one-dimensional linear velocity dispersion, units of c

    def kernel(self, chi, a) -> np.ndarray:
        """CMB lensing kernel, 3/2 Omega_m (H0/c)^2 chi (1 - chi/chi_*) / a, in 1/Mpc."""
        hubble = 100 * self.h / C_KM_S
        return 1.5 * self.omega_m * hubble**2 * chi * (1 - chi / self.chi_source) / a

    def growth_velocity(self, a) -> np.ndarray:
        """f a H / c (1/Mpc): linear velocity (units of c) is i times this times delta / k."""
        rate = np.array([self.cosmo.growth_rate(x) for x in a])
        hubble = 100 * self.h * np.array([self.cosmo.h_over_h0(x) for x in a])
        return rate * hubble * a / C_KM_S

    def _abundance(self) -> None:
        import pyccl

        cosmo, halos = self.cosmo, pyccl.halos
        self.dlog10_mass = 0.05
        # centres of bins whose edges lie on round numbers, as 12.3, 13 and 14
        self.log10_mass = np.arange(10.025, 15.75, self.dlog10_mass)
        self.mass = 10**self.log10_mass
        self.dln_mass = self.dlog10_mass * np.log(10)
        definition = halos.MassDef200m
        mass_function = halos.MassFuncTinker10(mass_def=definition)
        bias = halos.HaloBiasTinker10(mass_def=definition)
        concentration = halos.ConcentrationDuffy08(mass_def=definition)
        self.dn = np.array([mass_function(cosmo, self.mass, a) for a in self.a]) / np.log(10)
        self.bias = np.array([bias(cosmo, self.mass, a) for a in self.a])
        self.concentration = self.parameters.concentration_boost * np.array(
            [concentration(cosmo, self.mass, a) for a in self.a]
        )
        self.rho_mean = float(cosmo.rho_x(1.0, "matter"))  # comoving Msun/Mpc^3
        self.rho_critical = np.array([cosmo.rho_x(a, "critical") for a in self.a])  # physical
        radius = (self.mass / (4 / 3 * np.pi * 200 * self.rho_mean)) ** (1 / 3)
        self.r200m = np.broadcast_to(radius, self.dn.shape)  # comoving Mpc
        #: haloes per steradian in each (shell, mass) cell
        self.number = self.dn * self.volume[:, None] * self.dln_mass
        self.m200c, self.r200c = self.critical(200.0)

    def critical(self, overdensity: float) -> tuple[np.ndarray, np.ndarray]:
        """Mass (Msun) and comoving radius (Mpc) of NFW haloes within an overdensity.

        Parameters
        ----------
        overdensity
            In units of the critical density at each redshift; 200 or 500.

        Returns
        -------
        mass, radius : (n_shell, n_mass)

        Notes
        -----
        m(c) / c^3 at this radius is m(c_m) / c_m^3 times the ratio of the densities,
        m(c) = ln(1 + c) - c / (1 + c) (Navarro, Frenk & White 1997, astro-ph/9611107, eqs 1-3).
        """
        c_m = self.concentration
        density = overdensity * self.rho_critical / (200 * self.rho_mean / self.a**3)
        target = nfw_mass(c_m) / c_m**3 * density[:, None]
        lo, hi = np.full_like(c_m, 1e-3), c_m * 1.001
        for _ in range(60):
            mid = np.sqrt(lo * hi)
            above = nfw_mass(mid) / mid**3 > target
            lo, hi = np.where(above, mid, lo), np.where(above, hi, mid)
        return self.mass * nfw_mass(mid) / nfw_mass(c_m), self.r200m * mid / c_m

    def _nfw_profiles(self) -> None:
        from scipy.special import sici

        c = self.concentration[:, :, None]
        q = self.k[:, None, :] * self.r200m[:, :, None] / c
        si_out, ci_out = sici(q * (1 + c))
        si_in, ci_in = sici(q)
        self.u_nfw = (
            np.sin(q) * (si_out - si_in)
            - np.sin(c * q) / ((1 + c) * q)
            + np.cos(q) * (ci_out - ci_in)
        ) / nfw_mass(c)
        per_mass = self.lensing_kernel / self.rho_mean / self.chi**2
        self.kappa_mass = per_mass[:, None] * self.mass[None]
        self.u_kappa = self.kappa_mass[:, :, None] * self.u_nfw

    def _gas_profiles(self) -> None:
        par, fb = self.parameters, self.baryon_fraction
        mu_e = 2 / (1 + HYDROGEN_FRACTION)
        x_p, w_p = cusp_nodes(160, par.pressure_radius)
        x_g, w_g = cusp_nodes(160, par.gas_radius)
        self.u_y = np.empty((len(self.z), len(self.mass), len(self.ell)))
        self.u_tau = np.empty_like(self.u_y)
        for i, (a, chi, z1) in enumerate(zip(self.a, self.chi, 1 + self.z, strict=True)):
            m14 = self.m200c[i] / 1e14
            radius = self.r200c[i] * a  # physical
            q = self.k[i][None] * self.r200c[i][:, None]
            angular_area = (chi * a) ** 2
            norm, shape = self._pressure(i, x_p)
            self.u_y[i] = norm[:, None] * spherical_transform(q, x_p, w_p, shape)
            # Battaglia 2016: rho_gas = f_b rho_c rho0 y^-0.2 (1 + y^alpha)^-((beta-0.2)/alpha)
            rho0 = 4e3 * m14**0.29 * z1**-0.66
            alpha = 0.88 * m14**-0.03 * z1**0.19
            beta = 3.83 * m14**0.04 * z1**-0.025
            y = x_g[None] / 0.5
            shape = rho0[:, None] * y**-0.2
            shape = shape * (1 + y ** alpha[:, None]) ** (-(beta[:, None] - 0.2) / alpha[:, None])
            gas = (4 * np.pi * x_g**2 * w_g * shape).sum(1) * fb * self.rho_critical[i] * radius**3
            # no more gas than 95 % of the baryons that belong to M200m
            cap = np.minimum(1, 0.95 * fb * self.mass / gas)
            norm = SIGMA_T_MPC2 / (mu_e * M_PROTON) * fb * self.rho_critical[i]
            norm = norm * radius**3 / angular_area * cap * par.ksz_amplitude
            self.u_tau[i] = norm[:, None] * spherical_transform(q, x_g, w_g, shape)
        #: Thomson depth per comoving Mpc at a = 1 if every baryon were ionised
        self.tau_per_mpc = par.ksz_amplitude * SIGMA_T_MPC2 / (mu_e * M_PROTON) * fb * self.rho_mean

    def _pressure(self, shell: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Electron pressure of the haloes of a shell at radii `x` (units of R200c).

        Returns
        -------
        norm : (n_mass,)
            Compton y integrated over solid angle (sr) per unit of int shape d^3x.
        shape : (n_mass, n_x)
        """
        par, z1 = self.parameters, 1 + self.z[shell]
        amplitude, mass_slope, z_slope = par.pressure
        m200c = self.m200c[shell]
        m14, radius = m200c / 1e14, self.r200c[shell] * self.a[shell]
        # Battaglia 2012: P_th = P_200 P0 (x/xc)^-0.3 (1 + x/xc)^-beta; P_e = 0.5176 P_th
        p0 = 18.1 * m14**0.154 * z1**-0.758
        xc = 0.497 * m14**-0.00865 * z1**0.731
        beta = 4.35 * m14**0.0393 * z1**0.415
        p200 = G_NEWTON * m200c * 200 * self.rho_critical[shell] / (2 * radius)
        p200 = p200 * self.baryon_fraction * 0.5176
        p200 = p200 * amplitude * np.minimum(m14 / 3.0, 1) ** mass_slope * z1**z_slope
        at = x[None] / xc[:, None]
        shape = (p200 * p0)[:, None] * at**-0.3 * (1 + at) ** -beta[:, None]
        angular_area = (self.chi[shell] * self.a[shell]) ** 2
        return SIGMA_T_MPC2 / M_E_C2 * radius**3 / angular_area, shape

    def compton_within(self, radius: np.ndarray) -> np.ndarray:
        """Compton y within a circle around each halo, integrated over solid angle (sr).

        It is integrated along the whole line of sight up to the cut-off radius, as in a map.

        Parameters
        ----------
        radius : (n_shell, n_mass)
            Of the circles, comoving Mpc.
        """
        x, weight = cusp_nodes(400, self.parameters.pressure_radius)
        out = np.empty(radius.shape)
        for i, edge in enumerate(radius / self.r200c):
            norm, shape = self._pressure(i, x)
            # fraction of a sphere of radius x within the cylinder
            outside = np.sqrt(np.maximum(1 - (edge[:, None] / x) ** 2, 0))
            out[i] = norm * (4 * np.pi * x**2 * weight * shape * (1 - outside)).sum(1)
        return out

    def infrared(self, nu_ghz: float | None = None):
        """Mean fluxes of infrared galaxies (Jy).

        Returns
        -------
        central, satellites : (n_shell, n_mass)
            Mean flux of the central and of all satellites of a host (before quenching).
        by_subhalo : (n_shell, n_sub)
            Flux of one satellite by sub-halo mass.
        log10_sub : (n_sub,)
        number_sub : (n_mass, n_sub)
            dN/dln m_sub.
        """
        par = self.parameters
        sed = infrared_sed(self.nu_ghz if nu_ghz is None else nu_ghz, self.z, par)
        evolution = (1 + np.minimum(self.z, par.cib_plateau)) ** par.cib_evolution
        evolution = evolution * (1 - np.exp(-self.z / par.cib_low_z))

        def luminosity(log10_m):
            d = (log10_m - par.cib_log10_meff) / par.cib_sigma
            return 10**log10_m / (np.sqrt(2 * np.pi) * par.cib_sigma) * np.exp(-0.5 * d**2)

        log10_sub = np.arange(par.cib_log10_mmin, self.log10_mass[-1], 0.02) + 0.01
        ratio = 10 ** (log10_sub[None] - self.log10_mass[:, None])
        number_sub = 0.30 * ratio**-0.7 * np.exp(-9.9 * ratio**2.5) * (ratio < 1)
        # S_nu = L_nu(1+z) (1+z) / (4 pi D_L^2) = L_nu(1+z) / (4 pi chi^2 (1+z))
        geometry = par.cib_l0 * evolution * sed / (4 * np.pi * self.chi**2 * (1 + self.z))
        one = luminosity(log10_sub)
        satellites = (number_sub * one[None]).sum(1) * 0.02 * np.log(10)
        central = luminosity(self.log10_mass)
        return (
            geometry[:, None] * central,
            geometry[:, None] * satellites,
            geometry[:, None] * one,
            log10_sub,
            number_sub,
        )

    def one_halo(self, u_a, u_b) -> np.ndarray:
        """Sum over masses of n U_a U_b per shell, (n_shell, n_ell)."""
        return np.einsum("im,iml,iml->il", self.number, u_a, u_b)

    def biased(self, u) -> np.ndarray:
        """Sum over masses of n b U per shell, (n_shell, n_ell)."""
        return np.einsum("im,iml->il", self.number * self.bias, u)
