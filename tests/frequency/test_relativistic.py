"""The relativistic tSZ effect: against the exact kernel of a scattering and published numbers."""

import numpy as np
import pytest
from astropy import units
from scipy.optimize import brentq
from scipy.special import kve

from mlsky.frequency import bands, relativistic, tsz

NU_GHZ = np.array([27.0, 93.0, 148.0, 225.0, 280.0, 353.0, 545.0, 700.0, 800.0])

#: Error of the five terms against the exact kernel, in units of the larger of |f| and 0.2, by keV.
SERIES = {3.0: 2e-4, 5.0: 1.6e-3, 10.0: 1e-2, 15.0: 5.5e-2}

#: The null of Itoh et al. 1998 is a fit over 0 to 15 keV.
NULL = 1e-3

#: What order 2 and 1 lose of the series up to 400 GHz, in units of y.
ORDER_TWO, ORDER_ONE = 1e-3, 2e-2


def exact(x, kev):
    """dT / (T_CMB y) at one temperature, single scattering.

    Ensslin & Kaiser 2000 (astro-ph/0001429), section 3: P(t; p), the distribution of the shift t of
    a photon's frequency by an electron of momentum p (m_e c), of a Maxwell-Juettner distribution.
    """
    theta = kev / relativistic.ELECTRON_KEV
    node, weight = np.polynomial.legendre.leggauss(160)
    p_max = np.sqrt((1 + 45 * theta) ** 2 - 1)
    momentum, d_momentum = (node + 1) / 2 * p_max, weight / 2 * p_max
    electrons = momentum**2 * np.exp(-(np.sqrt(1 + momentum**2) - 1) / theta)
    electrons /= theta * kve(2, 1 / theta)
    electrons /= electrons @ d_momentum
    occupied = 1 / np.expm1(x)
    change, total = np.zeros_like(x), 0.0
    for p, share in zip(momentum, electrons * d_momentum, strict=True):
        if p < 0.01:  # the kernel cancels there; few electrons, which hardly shift a photon
            continue
        s_max = 2 * np.arcsinh(p)
        for sign in (-1, 1):
            s, ds = sign * (node + 1) / 2 * s_max, weight / 2 * s_max
            t = np.exp(s)
            first = -3 * abs(1 - t) / (32 * p**6 * t) * (1 + (10 + 8 * p**2 + 4 * p**4) * t + t**2)
            second = (3 + 3 * p**2 + p**4) / np.sqrt(1 + p**2)
            second = second - (3 + 2 * p**2) / (2 * p) * (s_max - abs(s))
            kernel = (first + 3 * (1 + t) / (8 * p**5) * second) * t * ds * share
            shifted = x[:, None] / t
            total += kernel.sum()
            change += (kernel * (t**-3 / np.expm1(shifted) - occupied[:, None])).sum(axis=1)
    assert total == pytest.approx(1, abs=1e-3)
    return change / (theta * x * np.exp(x) * occupied**2)


@pytest.mark.parametrize("kev", SERIES)
def test_against_the_exact_kernel(kev):
    expected = exact(bands.dimensionless(NU_GHZ), kev)
    got = relativistic.spectral_function(NU_GHZ, kev)
    error = np.abs(got - expected) / np.maximum(np.abs(expected), 0.2)
    assert error.max() < SERIES[kev]
    # without corrections the error is far larger
    assert (
        np.abs(tsz.spectral_function(NU_GHZ) - expected).max() > 10 * np.abs(got - expected).max()
    )


def test_the_null_moves_as_published():
    """x_0 = 3.830 (1 + 1.1674 theta - 0.8533 theta^2), Itoh et al. 1998."""
    ghz = 1 / bands.dimensionless(1.0)
    for kev in (0.0, 5.0, 10.0, 15.0):
        null = brentq(lambda x, kev=kev: relativistic.spectral_function(x * ghz, kev), 3, 5)
        theta = relativistic.theta(kev)
        assert null == pytest.approx(3.830 * (1 + 1.1674 * theta - 0.8533 * theta**2), rel=NULL)


def test_rayleigh_jeans_limit():
    """-2 (1 - 17/10 theta + 123/40 theta^2): Challinor & Lasenby 1998, doi:10.1086/305623."""
    theta = relativistic.theta(5.0)
    assert relativistic.spectral_function(0.1, 5.0) == pytest.approx(
        -2 * (1 - 1.7 * theta + 123 / 40 * theta**2), rel=2e-5
    )


def test_no_temperature_is_the_old_law():
    np.testing.assert_allclose(
        relativistic.spectral_function(NU_GHZ), tsz.spectral_function(NU_GHZ), rtol=1e-13
    )
    np.testing.assert_allclose(
        relativistic.relativistic_terms(NU_GHZ, 0)[0], tsz.uk_per_y(NU_GHZ), rtol=1e-13
    )
    np.testing.assert_allclose(tsz.factor(NU_GHZ, temperature_kev=0.0), tsz.factor(NU_GHZ))


def test_factor_is_that_of_a_map_made_without_corrections():
    for kev in (3.0, 12.0):
        np.testing.assert_allclose(
            tsz.factor(NU_GHZ, temperature_kev=kev) * tsz.spectral_function(148.0),
            relativistic.spectral_function(NU_GHZ, kev),
            rtol=1e-12,
        )
    assert tsz.factor(148.0, temperature_kev=5.0) == pytest.approx(0.9655, abs=2e-4)


@pytest.mark.parametrize("order", range(relativistic.ORDER + 1))
def test_terms_add_up(order):
    nu = NU_GHZ[NU_GHZ < 400]
    terms = relativistic.relativistic_terms(nu, order)
    assert terms.shape == (order + 1, nu.size)
    np.testing.assert_allclose(terms[0], tsz.uk_per_y(nu), rtol=1e-13)
    allowed = {0: 0.5, 1: ORDER_ONE, 2: ORDER_TWO, 3: ORDER_TWO, 4: 1e-12}[order]
    for kev in np.linspace(0, relativistic.MAX_KEV, 7):
        got = relativistic.theta(kev) ** np.arange(order + 1) @ terms
        expected = 1e6 * bands.T_CMB_K * relativistic.spectral_function(nu, kev)
        assert np.abs(got - expected).max() < allowed * 1e6 * bands.T_CMB_K


def test_temperatures_of_clusters():
    # Arnaud et al. 2005: 5 keV at 3.84e14 Msun / h70; 2 to 9 keV of their sample
    assert relativistic.cluster_temperature_kev(3.84e14, 1.0, 0.7) == pytest.approx(5.0)
    mass = np.array([1e14, 3e14, 1e15])
    got = relativistic.cluster_temperature_kev(mass, np.ones(3), 0.7)
    np.testing.assert_allclose(3.84e14 * (got / 5) ** 1.71, mass)
    # self-similar evolution: E(z) M, and masses in Msun, not Msun / h
    assert relativistic.cluster_temperature_kev(1e14, 2.0, 0.7) == pytest.approx(
        relativistic.cluster_temperature_kev(2e14, 1.0, 0.7)
    )
    assert relativistic.cluster_temperature_kev(1e14, 1.0, 0.35) == pytest.approx(
        relativistic.cluster_temperature_kev(5e13, 1.0, 0.7)
    )
    assert relativistic.cluster_temperature_kev(1e17, 1.0, 0.7) == relativistic.MAX_KEV


def test_temperature_as_it_may_be_given():
    assert relativistic.parse_temperature(None) is None
    assert relativistic.parse_temperature(0) == 0.0
    assert relativistic.parse_temperature(np.float32(5)) == 5.0
    assert relativistic.parse_temperature(5000 * units.eV) == pytest.approx(5.0)
    assert relativistic.parse_temperature(5e7 * units.K) == pytest.approx(4.309, abs=1e-3)


@pytest.mark.parametrize("value", [-1, 15.1, float("nan"), "5", True, [5.0, 6.0], 5 * units.m])
def test_bad_temperature(value):
    with pytest.raises(ValueError, match=r"tsz_temperature_kev=.*must be"):
        relativistic.parse_temperature(value)


@pytest.mark.parametrize("order", [-1, 5, 1.5, True])
def test_bad_order(order):
    with pytest.raises(ValueError, match=r"order=.*must be an integer from 0 to 4"):
        relativistic.relativistic_terms(NU_GHZ, order)
