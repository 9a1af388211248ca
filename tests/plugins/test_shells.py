"""Convergence from shells: its kernel and power against CCL's own, and what is refused.

A matter power spectrum of Eisenstein & Hu takes a second; CAMB's, which `convergence` uses, ten.
"""

from __future__ import annotations

import itertools

import numpy as np
import pyccl
import pytest

from mlsky.plugins import ccl, shells

NSIDE = 16
NPIX = 12 * NSIDE**2

#: CCL's own tracer has sqrt((l+2)(l+1)l(l-1)) / (l+1/2)^2 and another sampling.
LIMBER = 3e-3
#: Quadrature of smooth kernels.
QUADRATURE = 1e-5


@pytest.fixture(scope="module")
def model():
    return pyccl.CosmologyVanillaLCDM(
        transfer_function="eisenstein_hu", matter_power_spectrum="halofit"
    )


@pytest.fixture(autouse=True)
def cheap(monkeypatch, model):
    monkeypatch.setattr(ccl, "to_cosmology", lambda cosmology: model)


def test_the_whole_line_of_sight_is_that_of_ccl(model):
    power = shells.outside(model, 0.0, 0.0, 2000)
    tracer = pyccl.CMBLensingTracer(model, z_source=ccl.SETTINGS["z_source"])
    ell = np.array([50, 200, 1000, 2000])
    expected = pyccl.angular_cl(model, tracer, tracer, ell)
    np.testing.assert_allclose(power[ell], expected, rtol=LIMBER)
    assert not power[:2].any()


def test_before_and_behind_and_between_are_the_whole(model):
    distance = model.comoving_radial_distance(1 / (1 + np.array([0.5, 2.0])))
    whole = shells.outside(model, 0.0, 0.0, 300)
    parts = shells.outside(model, *distance, 300)
    near = shells.outside(model, float(distance[1]), 1e6, 300)  # nearer than z = 2
    before = shells.outside(model, float(distance[0]), 1e6, 300)
    np.testing.assert_allclose((parts + near - before)[30:], whole[30:], rtol=LIMBER)


def test_shells_are_weighted_by_the_kernel(model):
    edges = np.array([0.0, 0.3, 1.0, 3.0])
    chi = model.comoving_radial_distance(1 / (1 + edges))
    fine = [np.linspace(low, high, 4001) for low, high in itertools.pairwise(chi)]
    weights = [np.trapezoid(shells.kernel(model, one), one) for one in fine]
    rng = np.random.default_rng(1)
    deltas = rng.uniform(-0.5, 0.5, (3, NPIX))
    found = shells.convergence((one for one in deltas), edges, complete=False)
    np.testing.assert_allclose(found, weights @ deltas, rtol=QUADRATURE, atol=1e-9)


def test_what_is_behind_is_a_gaussian_field_of_the_seed(model):
    edges, deltas = [0.0, 1.0], np.zeros((1, NPIX))
    found = shells.convergence(deltas, edges, seed=3)
    np.testing.assert_array_equal(found, shells.convergence(deltas, edges, seed=3))
    assert (found != shells.convergence(deltas, edges, seed=4)).all()
    chi = float(model.comoving_radial_distance(0.5))
    power = shells.outside(model, 0.0, chi, 2 * NSIDE)
    ell = np.arange(2 * NSIDE + 1)
    variance = ((2 * ell + 1) * power).sum() / (4 * np.pi)
    # a thousand modes
    assert found.var() == pytest.approx(variance, rel=0.2)


@pytest.mark.parametrize(
    ("deltas", "edges", "message"),
    [
        (np.zeros((1, NPIX)), [0.0, 1.0, 2.0], "1 shells: 3 edges make 2"),
        (np.zeros((3, NPIX)), [0.0, 1.0, 2.0], "more shells than the 2 that 3 edges make"),
        (np.zeros((1, 100)), [0.0, 1.0], r"shell 1 of shape \(100,\): must be a HEALPix"),
        ([np.zeros(NPIX), np.zeros(48)], [0.0, 1.0, 2.0], "shell 2 of 48 pixels"),
        (np.full((1, NPIX), -2.0), [0.0, 1.0], "must be finite and at least -1"),
        (np.full((1, NPIX), np.nan), [0.0, 1.0], "shell 1"),
        (np.zeros((1, NPIX)), [1.0, 0.0], "must be growing redshifts"),
        (np.zeros((1, NPIX)), [0.0, 2000.0], "must be from 0 to below 1089.92"),
        (np.zeros((1, NPIX)), [-1.0, 1.0], "edges from z=-1"),
    ],
)
def test_bad_input(deltas, edges, message):
    with pytest.raises(ValueError, match=message) as caught:
        shells.convergence(deltas, edges)
    assert "\n" not in str(caught.value)


def test_shells_of_glass(model):
    """Lognormal shells of the real GLASS, correlated with the convergence that they give."""
    glass = pytest.importorskip("glass")
    edges = np.array([0.0, 0.5, 1.0, 2.0])
    chi = model.comoving_radial_distance(1 / (1 + edges))
    ell = np.arange(NSIDE + 1)
    spectra = []
    for i in range(3):
        near = np.linspace(max(chi[i], 1.0), chi[i + 1], 200)
        tracer = pyccl.Tracer()
        tracer.add_tracer(model, kernel=(near, near**2 / np.trapezoid(near**2, near)))
        power = pyccl.angular_cl(model, tracer, tracer, ell[2:])
        spectra.append(np.concatenate([power[:1], power[:1], power]))
        spectra += [np.zeros(NSIDE + 1)] * i  # shells are independent here
    fields = [glass.grf.Lognormal()] * 3
    gls = glass.solve_gaussian_spectra(fields, spectra)
    deltas = list(glass.generate(fields, gls, NSIDE, rng=np.random.default_rng(1)))
    kappa = shells.convergence(deltas, edges, complete=False)
    correlation = [np.corrcoef(kappa, delta)[0, 1] for delta in deltas]
    assert min(correlation) > 0.3
    assert 1e-4 < kappa.std() < 0.1
