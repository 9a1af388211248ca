"""Haloes on the sphere: how many, of which mass, how clustered, how fast; keyed to the sky."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from halo_cases import shipped

from mlsky.haloes import draw, shells
from mlsky.sphere import gaussian
from mlsky.theory.halo_model import C_KM_S
from mlsky.theory.objects import is_object, mass_cut_at

#: Band limit of the small skies here.
LMAX = 64
#: Share of all haloes that they have, so that a sky is a second's work.
FRACTION = 0.05
#: A difference of Poisson numbers this many standard deviations large is none by chance.
SIGMAS = 4.5


@functools.cache
def tables() -> dict:
    t = dict(shipped())
    return t | {"number": t["number"] * np.float32(FRACTION)}


@functools.cache
def sky(seed: int = 1):
    return draw.draw(tables(), seed, lmax=LMAX)


def test_counts_by_mass_and_redshift_are_those_of_the_mass_function():
    """Over several seeds, so that large structures average out."""
    t = tables()
    objects = is_object(t["z"], t["log10_mass"])
    skies = [sky(seed) for seed in range(1, 5)]
    edges = draw.redshift(t, t["edges"].astype(float))
    z, mass = (np.concatenate([getattr(s, n) for s in skies]) for n in ("z", "log10_mass"))
    for first, last in ((8, 14), (14, 20), (20, 26), (26, 32)):
        for low, high in ((13.0, 13.5), (13.5, 14.0), (14.0, 14.3), (14.3, 14.6), (14.6, 15.2)):
            bins = (t["log10_mass"] > low) & (t["log10_mass"] < high)
            chosen = np.where(objects, t["number"], 0)[first:last, bins]
            want = 4 * np.pi * len(skies) * chosen.sum()
            inside = (z >= edges[first]) & (z < edges[last]) & (mass >= low) & (mass < high)
            # clusters of haloes add to the scatter of Poisson numbers
            assert abs(inside.sum() - want) <= SIGMAS * np.sqrt(want) * 1.3 + 0.006 * want


def test_no_halo_is_lighter_than_the_cut():
    s = sky()
    shell = np.searchsorted(draw.redshift(tables(), tables()["edges"].astype(float)), s.z) - 1
    cut = mass_cut_at(tables()["z"][shell])
    assert np.all(10**s.log10_mass >= cut * (1 - 1e-6))
    assert len(np.unique(s.key)) == len(s)


def test_the_same_sky_whatever_the_number_of_threads(monkeypatch):
    from mlsky.sphere import threads

    first = sky()
    for module in (draw, shells):
        monkeypatch.setattr(module, "threads", lambda: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads.threads() == 1
    second = draw.draw(tables(), 1, lmax=LMAX)
    for name in ("theta", "phi", "z", "log10_mass", "velocity", "key"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name


def test_a_density_off_in_its_last_bits_moves_no_halo(monkeypatch):
    exact = gaussian.alm_to_map
    monkeypatch.setattr(draw.gaussian, "alm_to_map", lambda *a: exact(*a) * np.float32(1 + 1e-6))
    other = draw.draw(tables(), 1, lmax=LMAX)
    shared, here, there = np.intersect1d(sky().key, other.key, return_indices=True)
    assert len(shared) > 0.9999 * len(sky())
    for name in ("theta", "phi", "z"):
        assert np.array_equal(getattr(sky(), name)[here], getattr(other, name)[there]), name
    mass = sky().log10_mass[here] - other.log10_mass[there]
    assert np.count_nonzero(np.abs(mass) > 1e-3) < 1e-4 * len(mass) + 2


def test_seeds_differ():
    # places lie on the rings of a fine grid, of which there are few enough to be shared
    one, other = (sky(seed).theta + 1j * sky(seed).phi for seed in (1, 2))
    assert not len(np.intersect1d(one, other))


def test_velocities_have_the_rms_of_linear_theory():
    s, t = sky(), tables()
    rms = C_KM_S * s.velocity.std()
    shell = np.searchsorted(draw.redshift(t, t["edges"].astype(float)), s.z) - 1
    want = C_KM_S * np.sqrt((t["sigma_v"][shell] ** 2).mean())
    assert rms == pytest.approx(want, rel=0.05)
    assert abs(s.velocity.mean()) * C_KM_S < 0.1 * rms


def test_velocities_of_neighbours_are_alike():
    """Linear theory: on a few degrees the velocities of one slice are strongly correlated."""
    import healpy

    s = sky()
    near = (s.z > 0.1) & (s.z < 0.14)
    v, cell = s.velocity[near], healpy.vec2pix(16, *s.vectors[:, near])
    order = np.argsort(cell)
    same = cell[order][1:] == cell[order][:-1]
    a, b = v[order][1:][same], v[order][:-1][same]
    assert np.corrcoef(a, b)[0, 1] > 0.25
    assert abs(np.corrcoef(a, np.roll(b, len(b) // 2))[0, 1]) < 0.1


def test_haloes_follow_the_kappa_that_they_are_given():
    """The cross spectrum of counts with kappa: bias times that of the densities."""
    import healpy

    t, spectra = tables(), shells.spectra(tables(), LMAX)
    cl = np.array(
        [spectra.kappa(e, spectra.covariance(e))[1] if e else 0.0 for e in range(LMAX + 1)]
    )
    objects = is_object(t["z"], t["log10_mass"])
    weight = np.where(objects, t["number"] * t["bias"], 0).sum(1)
    weight = weight / np.where(objects, t["number"], 0).sum()
    ratio = []
    for seed in range(4):
        kappa = gaussian.draw_alm(cl, seed)
        s = draw.draw(t, seed, kappa, cl, lmax=LMAX)
        counts = np.bincount(healpy.vec2pix(128, *s.vectors), minlength=12 * 128**2)
        alm = healpy.map2alm(counts / counts.mean() - 1, lmax=LMAX)
        got = healpy.alm2cl(alm, kappa)[10:]
        ells = np.arange(10, LMAX + 1)
        want = [spectra.kappa(e, spectra.covariance(e))[0][: len(weight)] @ weight for e in ells]
        ratio.append(((2 * ells + 1) * got).sum() / ((2 * ells + 1) * want).sum())
    # lognormal bias is capped and the shot noise of a twentieth of the haloes is large
    assert np.mean(ratio) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("cut", [1e11, 1e17, -1e14, float("nan"), "heavy", True])
def test_a_mass_cut_beyond_the_tables_is_refused(cut):
    with pytest.raises(ValueError, match=r"mass_cut=.*range of the halo tables"):
        draw.draw(tables(), 1, mass_cut=cut)


def test_tables_of_another_cosmology_are_refused():
    """By the power of kappa: 1 % in sigma8 is enough, the difference of two codes is not."""
    t = tables()
    ell = np.arange(1001.0)
    own = np.exp(np.interp(np.log(np.maximum(ell, 1)), np.log(t["ell"]), np.log(t["analytic_kk"])))
    draw.check_cosmology(t, None)
    draw.check_cosmology(t, own * 1.005)
    draw.check_cosmology(t, 2 * own[:500])  # says nothing of the scales that are compared
    kappa = np.zeros(3, complex)
    haloes = sky()
    for calls in (
        lambda cl: draw.draw(t, 1, kappa, cl, lmax=LMAX),
        lambda cl: draw.radial_velocities(t, 1, haloes, kappa, cl),
    ):
        with pytest.raises(ValueError, match=r"another cosmology than the sky's, which has 1\.020"):
            calls(own * 1.02)
        with pytest.raises(ValueError, match=r"tables\.of"):
            calls(own * np.nan)
