"""mlsky.theory.clustering: Hermite orders of the capped bias, Hankel transforms, totals."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from halo_cases import model, shipped

from mlsky import seeds
from mlsky.haloes.covariance_factor import covariance
from mlsky.theory import clustering
from mlsky.theory.clustering import Clustering, shell_velocity_variance

#: Hankel transforms by the trapezoid rule on 3000 multipoles and 1500 angles.
HANKEL = 2e-4
#: Standard errors of the mean of random numbers.
SIGMAS = 4
#: Orders above the last one, left out, where b b' xi is 0.35, and the grid of the exact integral.
HIGHER_ORDERS = 1e-4
#: Multipoles of the covariance end at 4000, and its k_par at 0.6/Mpc.
SLICES = 0.02


def orders(bias: float, sigma: float, cap: float) -> np.ndarray:
    """Bias of each order of one kind of halo."""
    made = clustering.capped_bias(
        np.array([[bias]]), np.array([sigma**2]), np.array([cap * sigma]), np.array([True])
    )
    return made[:, 0, 0]


@pytest.mark.parametrize(("bias", "sigma"), [(1.2, 0.3), (3.0, 0.5), (8.0, 0.25)])
def test_bias_without_a_cap_is_a_power(bias, sigma):
    made = orders(bias, sigma, 1e3)
    assert made == pytest.approx(bias ** np.arange(1, clustering.ORDERS + 1), rel=1e-6)


def test_capped_bias_is_that_of_random_numbers():
    bias, sigma, cap = 6.0, 0.6, 2.5
    x = seeds.generator(3, "point_sources").standard_normal(400_000)
    response = np.exp(bias * np.minimum(sigma * x, cap * sigma))
    response /= response.mean()
    made = orders(bias, sigma, cap)
    for k, hermite in enumerate((x, x**2 - 1, x**3 - 3 * x), start=1):
        sample = response * hermite / sigma**k
        error = sample.std() / math.sqrt(len(x))
        assert abs(sample.mean() - made[k - 1]) < SIGMAS * error
    # The cap takes much away here, the more the higher the order.
    assert np.all(np.diff(made[:3] / bias ** np.arange(1, 4)) < 0)
    assert made[0] < 0.8 * bias


def test_capped_haloes_correlate_as_the_orders_say():
    """Two cells of correlation 0.3, integrated over both."""
    sigma, cap, rho = 0.5, 2.0, 0.3
    x = np.linspace(-8, 8, 801)
    weight = np.exp(-(x**2) / 2)
    weight = weight / weight.sum()
    y = rho * x[:, None] + math.sqrt(1 - rho**2) * x
    first = np.exp(2.0 * sigma * np.minimum(x, cap))
    second = np.exp(2.5 * sigma * np.minimum(y, cap))
    mean = (weight @ first) * (weight @ np.exp(2.5 * sigma * np.minimum(x, cap)))
    exact = (weight * first) @ second @ weight / mean - 1
    pair = zip(orders(2.0, sigma, cap), orders(2.5, sigma, cap), strict=True)
    xi = rho * sigma**2
    series = sum(a * b * xi**k / math.factorial(k) for k, (a, b) in enumerate(pair, start=1))
    assert series == pytest.approx(exact, abs=HIGHER_ORDERS)


def test_haloes_below_the_mass_cut_follow_linearly():
    bias = np.array([[0.8, 2.0]])
    made = clustering.capped_bias(bias, np.array([0.25]), np.array([2.0]), np.array([False, True]))
    assert made[0, 0, 0] == 0.8
    assert not made[1:, 0, 0].any()
    assert np.all(made[:3, 0, 1] > 0)


def test_powers_of_a_gaussian_correlation():
    # xi = A / (2 pi s^2) exp(-theta^2 / 2 s^2), and so are its powers, narrower
    ell = np.geomspace(20, 31000, 1500)
    amplitude, widths = 1e-7, np.array([[3e-3], [1e-3]])
    spectrum = amplitude * np.exp(-((ell * widths) ** 2) / 2)
    height = amplitude / (2 * np.pi * widths**2)
    powers, variance = clustering.correlation_powers(ell, spectrum)
    for n, made in enumerate(powers, start=2):
        exact = height**n * 2 * np.pi * widths**2 / n * np.exp(-((ell * widths) ** 2) / (2 * n))
        assert np.all(
            np.abs(made - exact) < n * HANKEL * exact.max(1, keepdims=True)
        )  # errors of xi enter n times
    # the transform begins at ell = 2
    assert variance == pytest.approx(height[:, 0], rel=1e-3)


def test_higher_orders_add_up():
    u, bias = np.ones((1, 2, 4)), 1.5
    haloes = Clustering.__new__(Clustering)
    haloes.model = SimpleNamespace(number=np.ones((1, 2)))
    haloes.painted = np.array([True, False])
    haloes.powers = [np.full((1, 4), p) for p in (2.0, 5.0, *[0.0] * (clustering.ORDERS - 3))]
    power = np.arange(1, clustering.ORDERS + 1)
    haloes.bias = bias ** power[:, None, None] * np.ones((1, 2))
    # one kind of halo: exp(b^2 xi) - 1 - b^2 xi = b^4 xi^2 / 2 + b^6 xi^3 / 6 + ...
    assert haloes.beyond_linear(u, u) == pytest.approx(bias**4 * 2.0 / 2 + bias**6 * 5.0 / 6)
    assert haloes.beyond_linear(3 * u, u) == pytest.approx(3 * haloes.beyond_linear(u, u))


def test_kappa_of_haloes_and_the_rest_has_the_nonlinear_power():
    m = model()
    c = Clustering(m)
    terms = c.kappa()
    one = m.one_halo(m.u_kappa, m.u_kappa).sum(0)
    two = (terms["linear"] ** 2 * c.p_shell).sum(0) + c.beyond_linear(m.u_kappa, m.u_kappa)
    total = one + two + terms["far"]
    # beyond, haloes alone have more than the nonlinear power
    inside = m.ell < 20_000
    assert total[inside] == pytest.approx(terms["total"][inside], rel=1e-9)


def test_optical_depth_is_that_of_all_ionised_baryons():
    m = model()
    terms = Clustering(m).ksz()
    depth = m.parameters.ionised_fraction * m.tau_per_mpc / m.a**2 * m.thickness
    # On large scales gas follows matter: its bias on a shell is the shell's depth.
    assert terms["painted_bias"][:, 0] == pytest.approx(depth, rel=0.01)
    assert np.all(terms["low"] > 0)
    # z < 6: 0.04 of the 0.054 to the last scattering, times the fitted amplitude
    assert 0.03 < depth.sum() / m.parameters.ksz_amplitude < 0.05


def test_mean_velocity_of_a_shell_is_that_of_its_slices():
    """Averaged over slices of the joint draw of densities and velocities, another code."""
    m, t = model(), shipped()
    variance = shell_velocity_variance(m)
    ell = np.geomspace(0.3, 4000, 40)
    velocities = covariance(t, ell)[:, len(t["z"]) :, len(t["z"]) :]
    ends = np.cumsum(t["slices"])
    for shell in (20, 28, 36):
        rows = slice(ends[shell] - t["slices"][shell], ends[shell])
        power = velocities[:, rows, rows].mean((1, 2))
        total = np.trapezoid(ell**2 * power, np.log(ell)) / (2 * np.pi)
        assert total == pytest.approx(variance[shell], rel=SLICES)
    # a thin shell moves as its matter does, a thick one averages flows
    ratio = variance / m.sigma_v**2
    assert 0.8 < ratio[0] < 1
    assert 0.15 < ratio[30] < 0.25
