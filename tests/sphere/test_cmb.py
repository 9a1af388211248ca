"""The unlensed CMB: its covariance with the sky's kappa, and what a seed means."""

import itertools

import healpy
import numpy as np
import pytest

from mlsky.sphere import gaussian
from mlsky.sphere.cmb import draw_cmb
from mlsky.theory import cmb_spectra

LMAX = 300

#: Skies over which cross power is averaged.
SKIES = 30

#: Standard errors of a mean over a few hundred multipoles that no test should see.
SIGMAS = 4.5


def red(lmax=LMAX):
    """A spectrum that is zero at l = 0 and 1."""
    cl = np.zeros(lmax + 1)
    cl[2:] = 1000 * (np.arange(2, lmax + 1) / 40.0) ** -1.3
    return cl


def cmb(lmax=LMAX):
    """Correlations of 0.6 (T kappa), -0.3 (E kappa) and -0.5 (T E)."""
    tt = red(lmax)
    kk = 1e-10 * tt
    return {
        "tt": tt,
        "ee": 0.01 * tt,
        "te": -0.05 * tt,
        "bb": 0 * tt,
        "kk": kk,
        "tk": 0.6 * np.sqrt(tt * kk),
        "ek": -0.3 * np.sqrt(0.01 * tt * kk),
    }


def drawn(cls, seed, cmb_seed=None):
    """kappa, T and E of one sky."""
    kappa = gaussian.draw_alm(cls["kk"], seed)
    alm = draw_cmb(cls, seed if cmb_seed is None else cmb_seed, kappa)
    return {"k": kappa, "t": alm[0], "e": alm[1]}


def test_covariance_without_kappa():
    cls = cmb()
    t, e, b = draw_cmb(cls, seed=3)
    weight = 2 * np.arange(2, LMAX + 1) + 1
    error = 5 / np.sqrt(weight.sum())
    for one, two, name in ((t, t, "tt"), (e, e, "ee"), (t, e, "te")):
        norm = np.sqrt(cls[name[0] * 2] * cls[name[1] * 2])[2:]
        got = np.average(healpy.alm2cl(one, two)[2:] / norm, weights=weight)
        assert got == pytest.approx(np.mean(cls[name][2:] / norm), abs=error * np.sqrt(2))
    np.testing.assert_array_equal(b, 0)


@pytest.mark.parametrize("spectra", ["strong", "camb"])
def test_every_spectrum_of_t_e_and_kappa(spectra):
    """Means over skies of all six spectra, in bands, against those asked for."""
    cls = cmb() if spectra == "strong" else cmb_spectra(LMAX)
    edges = [2, 4, 8, 16, 32, 64, 128, LMAX + 1]
    weight = 2 * np.arange(LMAX + 1) + 1
    skies = [drawn(cls, seed) for seed in range(SKIES)]
    for name in ("tt", "ee", "te", "tk", "ek", "kk"):
        one, two = name
        norm = np.sqrt(cls[one * 2] * cls[two * 2])
        mean = np.mean([healpy.alm2cl(sky[one], sky[two]) for sky in skies], axis=0)
        for low, high in itertools.pairwise(edges):
            band = slice(low, high)
            got, wanted = (
                np.average(cl[band] / norm[band], weights=weight[band]) for cl in (mean, cls[name])
            )
            modes = SKIES * weight[band].sum()
            assert abs(got - wanted) < SIGMAS * np.sqrt((1 + wanted**2) / modes), (name, low)


def test_the_sign_is_cambs():
    """At low l a hot spot lies on an overdensity (late integrated Sachs-Wolfe effect)."""
    cls = cmb_spectra(100)
    assert (cls["tk"][2:60] > 0).all()
    correlation = cls["tk"][2:] / np.sqrt(cls["tt"] * cls["kk"])[2:]
    assert correlation[0] == pytest.approx(0.42, abs=0.02)  # as in CAMB's own table of C^Tphi


def test_the_cmb_seed_leaves_what_kappa_determines():
    cls = cmb()
    one, two = (drawn(cls, 3, cmb_seed) for cmb_seed in (4, 5))
    np.testing.assert_array_equal(one["k"], two["k"])
    weight = 2 * np.arange(2, LMAX + 1) + 1
    for field, share in (("t", 0.6**2), ("e", 0.3**2)):
        cross = healpy.alm2cl(one[field], two[field])[2:] / cls[field * 2][2:]
        error = np.sqrt((1 + share**2) / weight.sum())
        assert abs(np.average(cross, weights=weight) - share) < SIGMAS * error


def test_longer_spectra_extend_the_realisation():
    cls = cmb()
    kappa = gaussian.draw_alm(cls["kk"], 3)
    ell, m = healpy.Alm.getlm(100)
    low = healpy.Alm.getidx(LMAX, ell, m)
    cut = {name: cl[:101] for name, cl in cls.items()}
    for given, short in ((None, None), (kappa, kappa), (kappa, kappa[low]), (kappa[low], kappa)):
        long = draw_cmb(cls, 3, given)
        np.testing.assert_array_equal(draw_cmb(cut, 3, short), long[:, low])


def test_kappa_touches_only_the_multipoles_it_has():
    cls = cmb()
    lone = draw_cmb(cls, 3)
    ell, _ = healpy.Alm.getlm(LMAX)
    given = draw_cmb(cls, 3, gaussian.draw_alm(cls["kk"][:101], 3))
    np.testing.assert_array_equal(given[:, ell > 100], lone[:, ell > 100])
    assert (given[:2, (ell > 1) & (ell <= 100)] != lone[:2, (ell > 1) & (ell <= 100)]).all()


@pytest.mark.parametrize("with_kappa", [False, True])
def test_neither_b_nor_polarisation_touches_t(with_kappa):
    kappa = gaussian.draw_alm(cmb()["kk"], 3) if with_kappa else None
    whole = draw_cmb(cmb(), 3, kappa)
    with_b = draw_cmb({**cmb(), "bb": 0.001 * cmb()["tt"]}, 3, kappa)
    np.testing.assert_array_equal(with_b[:2], whole[:2])
    assert with_b[2].std() > 0
    alone = draw_cmb(cmb(), 3, kappa, polarised=False)
    assert alone.shape == (1, whole.shape[1])
    np.testing.assert_array_equal(alone[0], whole[0])


def test_bad_spectra():
    cl, kappa = red(), gaussian.draw_alm(red(), 1)
    with pytest.raises(ValueError, match="te must be among them"):
        draw_cmb({"tt": cl, "ee": cl}, seed=1)
    with pytest.raises(ValueError, match=r"te=.* at l=2"):
        draw_cmb({"tt": cl, "ee": cl, "te": 2 * cl}, seed=1)
    with pytest.raises(ValueError, match="must be the same"):
        draw_cmb({"tt": cl, "ee": red(20), "te": cl}, seed=1)
    with pytest.raises(ValueError, match="kk, tk, ek must be among them"):
        draw_cmb({"tt": cl, "ee": cl, "te": 0 * cl}, 1, kappa)
    with pytest.raises(ValueError, match=r"tt=.* at l=2 is less than .* that kappa determines"):
        draw_cmb({**cmb(), "tk": 3 * cmb()["tk"]}, 1, kappa)
