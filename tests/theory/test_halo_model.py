"""mlsky.theory.halo_model against CCL's own profiles and direct integration."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyccl
import pytest
from astropy import constants, units
from halo_cases import model, shipped
from scipy import integrate

from mlsky.theory import halo_model

#: Haloes to look at: (shell, mass) numbers, at redshifts 0.04, 0.6 and 2.
HALOES = ((5, 60), (20, 80), (30, 50))
#: CCL's values of the constants differ from ours in the fifth digit.
CCL = 1e-4
#: Shells 300 Mpc thick, each at one distance, for CCL's line-of-sight integral: -0.9 % at
#: ell = 25000, 0.15 % at 20.
SHELLS = 0.015
#: The inner cusp by 160 nodes, and CODATA constants rounded to eight digits.
QUADRATURE = 1e-4
#: Mass function between two bins of 0.05 dex, by its value in the middle.
MASS_BINS = 2e-3
#: The mass in haloes below 10^10 Msun is not in the model; with the linear bias of
#: Tinker et al. (2010), whose mean over all mass is one by construction, it is 0.30 today.
BIAS_TODAY = (0.65, 0.78)


def battaglia_pressure(shell: int, mass: int):
    """Electron pressure (J/m^3) against physical radius (m), written from the paper.

    Battaglia et al. 2012 (arXiv:1109.3711), eqs 10-12 and Table 1, times the amplitude of
    ours: thermal pressure, of which (2 + 2 X)/(3 + 5 X) is the electrons'.
    """
    m = model()
    parameters = m.parameters
    m200 = m.m200c[shell, mass] * units.Msun
    z = m.z[shell]
    rho = m.cosmo.rho_x(m.a[shell], "critical") * units.Msun / units.Mpc**3
    r200 = ((3 * m200 / (4 * np.pi * 200 * rho)) ** (1 / 3)).to(units.m)
    m14 = m200.to_value(units.Msun) / 1e14
    p200 = (constants.G * m200 * 200 * rho * m.baryon_fraction / (2 * r200)).to_value("J / m3")
    hydrogen = 0.76
    electrons = (2 + 2 * hydrogen) / (3 + 5 * hydrogen)
    amplitude, slope, evolution = parameters.pressure
    boost = amplitude * min(m14 / 3, 1) ** slope * (1 + z) ** evolution
    p0 = 18.1 * m14**0.154 * (1 + z) ** -0.758
    core = 0.497 * m14**-0.00865 * (1 + z) ** 0.731
    beta = 4.35 * m14**0.0393 * (1 + z) ** 0.415

    def pressure(r):
        x = r / r200.value / core
        return electrons * boost * p200 * p0 * x**-0.3 * (1 + x) ** -beta

    return pressure, r200.value


def nfw(shell: int, mass: int) -> pyccl.halos.HaloProfileNFW:
    """CCL's profile with our concentration."""
    return pyccl.halos.HaloProfileNFW(
        mass_def=pyccl.halos.MassDef200m,
        concentration=pyccl.halos.ConcentrationConstant(
            c=model().concentration[shell, mass], mass_def=pyccl.halos.MassDef200m
        ),
        fourier_analytic=True,
    )


def test_nfw_transform_is_one_on_large_scales():
    m = model()
    at_zero = m.u_nfw[:, :, 0][m.k[:, :1] * m.r200m < 0.01]
    assert at_zero.size > 1000
    assert np.all(m.u_nfw <= 1)
    assert np.all(at_zero > 1 - 0.01**2 / 6)  # 1 - (k r)^2 / 6 at most


@pytest.mark.parametrize(("shell", "mass"), HALOES)
def test_nfw_transform_is_that_of_ccl(shell, mass):
    m = model()
    ccl = nfw(shell, mass).fourier(m.cosmo, m.k[shell], m.mass[mass], m.a[shell]) / m.mass[mass]
    assert np.abs(m.u_nfw[shell, mass] - ccl).max() < 1e-5


@pytest.mark.parametrize(("shell", "mass"), HALOES)
@pytest.mark.parametrize("overdensity", [200, 500])
def test_critical_masses_are_those_of_ccl(shell, mass, overdensity):
    m = model()
    definition = pyccl.halos.MassDef(overdensity, "critical")
    translate = pyccl.halos.mass_translator(
        mass_in=pyccl.halos.MassDef200m,
        mass_out=definition,
        concentration=nfw(shell, mass).concentration,
    )
    critical = translate(m.cosmo, m.mass[mass], m.a[shell])
    masses, radii = m.critical(overdensity)
    assert masses[shell, mass] == pytest.approx(critical, rel=CCL)
    radius = definition.get_radius(m.cosmo, critical, m.a[shell])
    assert radii[shell, mass] * m.a[shell] == pytest.approx(radius, rel=CCL)
    if overdensity == 200:
        assert np.array_equal(m.m200c, masses)
        assert np.array_equal(m.r200c, radii)


def test_mass_and_bias_add_up():
    m = model()
    in_haloes = (m.number * m.mass).sum(1) / m.volume / m.rho_mean
    biased = (m.number * m.bias * m.mass).sum(1) / m.volume / m.rho_mean
    assert np.all(in_haloes < 1)
    assert BIAS_TODAY[0] < biased[0] < BIAS_TODAY[1]
    assert np.all(np.diff(in_haloes[5:]) < 0)  # haloes form late
    # The same integral on a mesh ten times finer, down to smaller masses: nearer to one.
    mass_function = pyccl.halos.MassFuncTinker10(mass_def="200m")
    bias = pyccl.halos.HaloBiasTinker10(mass_def="200m")

    def integral(lowest):
        mass = np.geomspace(lowest, 10**15.775, 1500)
        density = mass_function(m.cosmo, mass, m.a[0]) * bias(m.cosmo, mass, m.a[0]) * mass
        return np.trapezoid(density, np.log10(mass)) / m.rho_mean

    assert integral(10**9.975) == pytest.approx(biased[0], rel=MASS_BINS)
    assert biased[0] < integral(1e8) < integral(1e7) < 1


@pytest.mark.parametrize(("shell", "mass"), HALOES)
def test_y_profile_is_the_integral_of_the_pressure(shell, mass):
    m = model()
    pressure, r200 = battaglia_pressure(shell, mass)
    thomson = constants.sigma_T.value / (constants.m_e * constants.c**2).value
    distance = (m.chi[shell] * m.a[shell] * units.Mpc).to_value("m")
    for number in (0, 60, 90):
        k = m.k[shell, number] / m.a[shell] / units.Mpc.to("m")  # physical

        def shells(r, k=k):
            return 4 * np.pi * r**2 * pressure(r) * np.sinc(k * r / np.pi)

        edge = m.parameters.pressure_radius * r200
        whole = integrate.quad(shells, 0, edge, limit=500, epsrel=1e-8)[0]
        expected = thomson * whole / distance**2
        assert m.u_y[shell, mass, number] == pytest.approx(expected, rel=QUADRATURE)


@pytest.mark.parametrize(("shell", "mass"), HALOES)
def test_compton_within_a_circle_is_the_integral_of_the_map(shell, mass):
    m = model()
    pressure, r200 = battaglia_pressure(shell, mass)
    thomson = constants.sigma_T.value / (constants.m_e * constants.c**2).value
    distance = (m.chi[shell] * m.a[shell] * units.Mpc).to_value("m")
    edge = m.parameters.pressure_radius

    def y_map(b):  # Compton y at distance b (R200c) from the centre: along the line of sight
        depth = np.sqrt(edge**2 - b**2)
        line = integrate.quad(lambda s: pressure(np.hypot(b, s) * r200), 0, depth, epsrel=1e-8)[0]
        return 2 * thomson * r200 * line

    _, radius = m.critical(500.0)
    circle = radius[shell, mass] / m.r200c[shell, mass]
    whole = integrate.quad(lambda b: 2 * np.pi * b * y_map(b), 0, circle, epsrel=1e-6)[0]
    expected = whole * (r200 / distance) ** 2
    assert m.compton_within(radius)[shell, mass] == pytest.approx(expected, rel=QUADRATURE)


def test_gas_never_exceeds_the_baryons_of_its_halo():
    m = model()
    mu_e = 2 / (1 + halo_model.HYDROGEN_FRACTION)
    depth_per_mass = halo_model.SIGMA_T_MPC2 / (mu_e * halo_model.M_PROTON)
    area = (m.chi * m.a)[:, None] ** 2
    baryons = depth_per_mass * m.baryon_fraction * m.mass / area
    share = m.u_tau[:, :, 0] / baryons / m.parameters.ksz_amplitude
    assert share.max() < 0.9501
    # Out to three R200c, clusters have theirs.
    assert np.all(share[10:20, m.log10_mass > 14.5] > 0.9)


@pytest.mark.parametrize("shell", [5, 15, 25])
def test_infrared_fluxes_are_those_of_ccl(shell):
    # CCL has neither our factor at low redshift nor, at these, a plateau.
    m = model()
    p = m.parameters
    profile = pyccl.halos.HaloProfileCIBShang12(
        mass_def="200m",
        concentration=pyccl.halos.ConcentrationDuffy08(mass_def="200m"),
        nu_GHz=m.nu_ghz,
        alpha=p.cib_alpha,
        T0=p.cib_t0,
        beta=p.cib_beta,
        gamma=p.cib_gamma,
        s_z=p.cib_evolution,
        log10Meff=p.cib_log10_meff,
        siglog10M=p.cib_sigma,
        Mmin=10**p.cib_log10_mmin,
        L0=p.cib_l0,
    )
    number = np.array([30, 50, 70, 90])
    emission = profile.fourier(m.cosmo, 1e-4, m.mass[number], m.a[shell])
    central, satellites, *_ = m.infrared()
    ours = (central + satellites)[shell, number]
    ours = ours / (1 - np.exp(-m.z[shell] / p.cib_low_z))
    assert ours == pytest.approx(emission * m.a[shell] / m.chi[shell] ** 2, rel=CCL)


def test_shells_make_the_limber_spectrum_of_kappa():
    m, t = model(), shipped()
    tracer = pyccl.CMBLensingTracer(m.cosmo, z_source=1089.92)
    ell = m.ell[::8]
    limber = pyccl.angular_cl(m.cosmo, tracer, tracer, ell)
    assert t["analytic_kk"][::8] == pytest.approx(limber, rel=SHELLS)


def test_other_parameters_share_what_does_not_depend_on_them():
    m = model()
    galaxies = m.with_parameters(replace(m.parameters, cib_l0=1e-7))
    assert galaxies.u_y is m.u_y
    assert galaxies.infrared()[0] == pytest.approx(m.infrared()[0] * 1e-7 / m.parameters.cib_l0)
    pressure = (2 * m.parameters.pressure[0], *m.parameters.pressure[1:])
    gas = m.with_parameters(replace(m.parameters, pressure=pressure, ksz_amplitude=1.0))
    assert gas.u_nfw is m.u_nfw
    assert gas.u_y == pytest.approx(2 * m.u_y)
    assert gas.u_tau == pytest.approx(m.u_tau / m.parameters.ksz_amplitude)
    assert gas.tau_per_mpc == pytest.approx(m.tau_per_mpc / m.parameters.ksz_amplitude)
    assert m.parameters == halo_model.Parameters()


def test_velocity_dispersion_is_the_linear_one():
    # 1-d rms of linear velocities today: f H0 sqrt(int P dk / 6 pi^2) with f = Omega_m^0.55.
    m = model()
    k = np.geomspace(1e-4, 10, 2000)
    power = m.cosmo.linear_matter_power(k, m.a[0])
    rate = m.cosmo.omega_x(m.a[0], "matter") ** 0.55
    km_s = 100 * m.h * m.cosmo.h_over_h0(m.a[0]) * m.a[0] * rate
    expected = km_s * np.sqrt(np.trapezoid(power, k) / (6 * np.pi**2))
    # Omega_m^0.55 is good to 1 %.
    assert m.sigma_v[0] * halo_model.C_KM_S == pytest.approx(expected, rel=0.02)


def test_shell_edges_cover_the_line_of_sight():
    edges = halo_model.shell_edges()
    assert edges[0] == 60
    assert edges[-1] == 8430
    assert np.all(np.diff(edges) > 0)
    assert np.diff(edges).max() < 310


def test_parameters_are_written_as_plain_values():
    values = halo_model.Parameters().to_dict()
    assert values["pressure"] == [0.926, 0.363, -0.708]
    assert all(isinstance(v, float | list) for v in values.values())


def test_without_pyccl_the_message_names_the_extra():
    code = (
        "import sys; sys.modules['pyccl'] = None\n"
        "import mlsky\n"
        "from mlsky.theory import cosmology, halo_model\n"
        "try:\n    halo_model.for_cosmology(cosmology.parse('planck2018'))\n"
        "except mlsky.MissingDependencyError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'mlsky[ccl]'" in done.stdout, done.stderr
