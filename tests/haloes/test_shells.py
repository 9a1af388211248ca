"""Densities and velocities on the sphere: covariances, and the convergence they are given."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from halo_cases import shipped

from mlsky.haloes import shells
from mlsky.sphere import gaussian

#: Band limit and number of realisations: some seconds.
LMAX, SEEDS = 48, 24
#: Means of this many Gaussian numbers lie within four standard errors of what is expected.
SIGMAS = 4.0


@functools.cache
def spectra():
    return shells.spectra(shipped(), LMAX)


@functools.cache
def kappa_cl():
    """The linear power times two: a sky's kappa has the nonlinear power."""
    cl = np.zeros(LMAX + 1)
    for ell in range(1, LMAX + 1):
        cl[ell] = 2 * spectra().kappa(ell, spectra().covariance(ell))[1]
    return cl


@functools.cache
def drawn():
    """Alm of all seeds and the kappa that they were given."""
    made = []
    for seed in range(SEEDS):
        kappa = gaussian.draw_alm(kappa_cl(), seed)
        made.append((kappa, shells.draw(spectra(), seed, kappa, kappa_cl())))
    return made


def cross(a, b, low=8):
    """Mean of a times b* over l from `low` to LMAX, weighed by 2 l + 1."""
    total, modes = 0.0, 0
    for ell in range(low, LMAX + 1):
        m = np.arange(ell + 1)
        place = m * (2 * LMAX + 1 - m) // 2 + ell
        product = (a[place] * b[place].conj()).real
        total += 2 * product.sum() - product[0]
        modes += 2 * ell + 1
    return total, modes


def expected(i, j, low=8):
    ells = np.arange(low, LMAX + 1)
    values = np.array([spectra().covariance(ell)[i, j] for ell in ells])
    return (values * (2 * ells + 1)).sum()


@pytest.mark.parametrize(("i", "j"), [(20, 20), (20, 21), (15, 15), (25, 24)])
def test_densities_have_the_covariance_of_the_patch_painter(i, j):
    values = [cross(s.density[i], s.density[j])[0] for _, s in drawn()]
    modes = cross(drawn()[0][1].density[i], drawn()[0][1].density[j])[1]
    want, scale = expected(i, j), np.sqrt(expected(i, i) * expected(j, j))
    error = scale * np.sqrt(2 / (modes * SEEDS)) * np.sqrt(0.5 * (1 + (want / scale) ** 2))
    assert abs(np.mean(values) - want) < SIGMAS * error


def test_velocities_and_densities_are_correlated_as_linear_theory_has_it():
    ns = len(spectra().weight)
    first = int(np.cumsum(shipped()["slices"])[19])  # the first slice of shell 20
    for i, j in ((first, first), (first, first + 1)):
        values = [cross(s.velocity[i], s.velocity[j])[0] for _, s in drawn()]
        want, scale = expected(ns + i, ns + j), expected(ns + i, ns + i)
        modes = cross(drawn()[0][1].velocity[i], drawn()[0][1].velocity[j])[1]
        assert abs(np.mean(values) - want) < SIGMAS * scale * np.sqrt(2 / (modes * SEEDS))
    values = [cross(s.density[20], s.velocity[first])[0] for _, s in drawn()]
    want = expected(20, ns + first)
    scale = np.sqrt(expected(20, 20) * expected(ns + first, ns + first))
    assert abs(np.mean(values) - want) < SIGMAS * scale * np.sqrt(2 / (modes * SEEDS))
    assert abs(want) > 0.1 * scale  # the sign of the flow can be told


@pytest.mark.parametrize("i", [15, 20, 28])
def test_densities_follow_the_kappa_that_they_are_given(i):
    values = [cross(s.density[i], k)[0] for k, s in drawn()]
    ells = np.arange(8, LMAX + 1)
    want, own = 0.0, 0.0
    for ell in ells:
        c, power = spectra().kappa(ell, spectra().covariance(ell))
        # kappa has twice the linear power, so its cross spectrum is sqrt(2) times the linear one
        want += (2 * ell + 1) * c[i] * np.sqrt(kappa_cl()[ell] / power)
        own += (2 * ell + 1) * kappa_cl()[ell]
    modes = (2 * ells + 1).sum()
    scale = np.sqrt(expected(i, i) * own)
    assert abs(np.mean(values) - want) < SIGMAS * scale * np.sqrt(1 / (modes * SEEDS))
    assert want > 0


def test_the_sum_of_the_shells_is_the_kappa():
    """The part of kappa within the tables is returned: the densities' weighted sum follows it."""
    kappa, made = drawn()[0]
    weight = spectra().weight
    total = sum(w * made.density[i].astype(complex) for i, w in enumerate(weight))
    r = cross(total, kappa)[0] / np.sqrt(cross(total, total)[0] * cross(kappa, kappa)[0])
    c, power = spectra().kappa(20, spectra().covariance(20))
    within = weight @ c[: len(weight)] / power
    assert r == pytest.approx(np.sqrt(within), abs=0.01)


def test_a_higher_band_limit_extends_a_realisation():
    small = shells.draw(shells.spectra(shipped(), 24), 3, shells=[20], slices=[60])
    large = shells.draw(spectra(), 3, shells=[20], slices=[60])
    for name in ("density", "velocity"):
        (a,), (b,) = (getattr(s, name).values() for s in (small, large))
        for ell in (1, 11, 24):
            m = np.arange(ell + 1)
            here, there = (m * (2 * n + 1 - m) // 2 + ell for n in (24, LMAX))
            assert np.array_equal(a[here], b[there])


def test_which_are_returned_changes_nothing():
    few = shells.draw(spectra(), 5, shells=[7], slices=[3, 90])
    every = shells.draw(spectra(), 5)
    assert np.array_equal(few.density[7], every.density[7])
    assert np.array_equal(few.velocity[90], every.velocity[90])


def test_a_kappa_too_coarse_is_refused():
    kappa = gaussian.draw_alm(kappa_cl()[:41], 1)
    with pytest.raises(ValueError, match=r"kappa up to l = 40: .* up to 48"):
        shells.draw(spectra(), 1, kappa, kappa_cl())
