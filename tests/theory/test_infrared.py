"""mlsky.theory.infrared against integrals, random galaxies, and published counts."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from halo_cases import model
from scipy import integrate, stats

from mlsky import seeds
from mlsky.haloes.tables import FLUX_CUT
from mlsky.theory.infrared import InfraredGalaxies

#: Standard errors of the mean of random numbers.
SIGMAS = 4
#: Galaxies above so many mJy per square degree, model of Bethermin et al. 2012, and log10 of ours
#: over theirs. What the issue asks for is 0.15 dex; the faint ones cannot be met together with
#: the Poisson power of ACT DR6, those at 272 GHz were no target (docs/decisions/0004).
BETHERMIN = {
    143: {1: (21.5, -0.17), 2: (2.32, -0.07), 5: (0.221, -0.11), 10: (0.05, -0.15)},
    217: {1: (764, -0.23), 2: (131, -0.15), 5: (6.89, 0.07), 10: (0.84, 0.15)},
    272: {5: (49, 0.06), 10: (4.8, 0.26)},
}
BETHERMIN[143] |= {20: (0.010, -0.14)}
BETHERMIN[217] |= {20: (0.166, 0.10), 50: (0.022, 0.10)}
BETHERMIN[272] |= {20: (0.66, 0.30)}
ALLOWED = 0.15
#: Rows that miss it.
MISSED = {(143, 1), (143, 10), (217, 1), (272, 10), (272, 20)}
ROUNDED = 0.006  # dex
#: Mean intensity and error, kJy/sr: Odegard et al. 2019.
ODEGARD = {143: (10, 19), 217: (60, 23), 353: (149, 17), 545: (371, 18), 857: (576, 34)}
ODEGARD_SIGMAS = 1.8


@functools.cache
def galaxies() -> InfraredGalaxies:
    return InfraredGalaxies.of(model())


def per_degree(nu_ghz: float, flux_mjy: float) -> float:
    return float(galaxies().counts(nu_ghz, flux_mjy)[0]) * math.radians(1) ** 2


@pytest.mark.parametrize("mean", [1e-4, 3e-3, 0.05])
def test_shares_at_the_reference_are_integrals(mean):
    g = galaxies()
    flux = np.full((len(g.z), 1), mean)
    s = g.scatter
    law = stats.lognorm(s, scale=mean * math.exp(-(s**2) / 2))
    for powers in ((), (148.0,), (148.0, 148.0)):
        n = len(powers)
        below = integrate.quad(lambda x, n=n: x**n * law.pdf(x), 0, FLUX_CUT[0], limit=200)[0]
        assert g.fraction(flux, powers, FLUX_CUT)[0, 0] == pytest.approx(
            below / law.moment(n), rel=1e-6
        )
        assert np.all(g.fraction(flux, powers, None) == 1)


@pytest.mark.parametrize(
    ("nu_1", "nu_2", "nu_cut"), [(93, 280, 220), (353, 545, 857), (30, 150, 95)]
)
def test_moments_below_a_cut_are_those_of_random_galaxies(nu_1, nu_2, nu_cut):
    g, shell = galaxies(), 20
    rng = seeds.generator(5, "point_sources")
    normal, tilt = rng.standard_normal((2, 400_000))
    mean = 2e-3  # Jy at 148 GHz

    def flux(nu):
        lever = g.parameters.cib_beta_scatter * math.log(nu / 148)
        scatter = g.scatter * normal - g.scatter**2 / 2 + lever * tilt - lever**2 / 2
        return mean * g.colour(nu)[shell] * np.exp(scatter)

    limit = float(np.quantile(flux(nu_cut), 0.9))
    kept = flux(nu_cut) < limit
    row = np.full((len(g.z), 1), mean)
    cut = (limit, float(nu_cut))
    colour = g.colour(nu_1)[shell], g.colour(nu_2)[shell]
    lever = math.log(nu_1 / 148) * math.log(nu_2 / 148)
    boost = math.exp(g.scatter**2 + g.parameters.cib_beta_scatter**2 * lever)
    expected = {
        (): 1.0,
        (nu_1,): mean * colour[0],
        (nu_1, nu_2): mean**2 * colour[0] * colour[1] * boost,
    }
    for powers, whole in expected.items():
        sample = kept * np.prod([flux(nu) for nu in powers], axis=0)
        made = whole * g.fraction(row, powers, cut)[shell, 0]
        error = sample.std() / math.sqrt(len(sample))
        assert abs(sample.mean() - made) < SIGMAS * error


def test_shot_and_counts_tell_of_the_same_galaxies():
    g = galaxies()
    flux = np.geomspace(1e-5, 15, 1500)  # mJy
    number = g.counts(217.0, flux)
    power = np.trapezoid(2 * flux * (number - number[-1]), flux) * 1e-6  # of S^2 dN, by parts
    assert power == pytest.approx(g.shot(217, 217, (15e-3, 217)), rel=1e-3)


@pytest.mark.parametrize(("nu", "flux"), [(nu, s) for nu in BETHERMIN for s in BETHERMIN[nu]])
def test_counts_against_bethermin(nu, flux):
    published, dex = BETHERMIN[nu][flux]
    found = math.log10(per_degree(nu, flux) / published)
    assert found == pytest.approx(dex, abs=ROUNDED)
    assert ((nu, flux) in MISSED) == (abs(found) > ALLOWED)


def test_monopole_is_the_measured_one():
    for nu, (mean, error) in ODEGARD.items():
        assert abs(galaxies().monopole(nu) * 1e-3 - mean) < ODEGARD_SIGMAS * error
    cut = galaxies().monopole(148, FLUX_CUT)
    assert 0.97 < cut / galaxies().monopole(148) < 1


def test_colour_is_one_at_the_reference():
    g = galaxies()
    assert g.colour(148.0).tolist() == [1.0] * len(g.z)
    # far galaxies are nearer to their peak: redder between here and there
    assert np.all(np.diff(g.colour(353.0)[g.z > 1]) < 0)
