"""mlsky.sources.counts against the published counts it was fitted to, and its own CDF."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import integrate, stats

from mlsky import bands, seeds
from mlsky.sources import counts

#: Model C2Ex of Tucci et al. 2011 at 148 GHz: S (mJy) and N(>S) per square degree.
NUMBER = {1: 5.87, 2: 2.98, 5: 1.15, 7: 0.808, 10: 0.553, 15: 0.357, 50: 0.101, 100: 0.048}
#: Of the same: N(> 1 Jy), where our counts end at 2 Jy.
NUMBER_1_JY = 0.0030
#: Of the same: S^2.5 dN/dS (Jy^1.5/sr).
EUCLIDEAN = {0.1: 0.116, 1: 0.585, 3: 1.11, 5: 1.39, 7: 1.64, 10: 1.98, 15: 2.26, 100: 5.41}
EUCLIDEAN |= {1000: 14.0}
#: What the fit claims.
DEX = 0.035
#: Poisson power below 15 mJy of the same, Jy^2/sr; a fit good to 0.035 dex is good to 8 %.
POISSON_15, POISSON_TOLERANCE = 0.289, 0.08
#: Radio Poisson D_3000 at 150 GHz below 15 mJy, uK^2: ACT DR6 (Louis et al. 2025), +-0.3.
ACT_RADIO, ACT_ERROR = 2.86, 0.3


def integral(power: int, low_mjy: float, high_mjy: float) -> float:
    """Integral of S^power dN/dS, Jy^power per sr, by quadrature in ln S."""

    def per_ln(x):
        return np.exp((power + 1) * x) * counts.radio_counts(np.exp(x))

    return integrate.quad(per_ln, np.log(low_mjy * 1e-3), np.log(high_mjy * 1e-3), limit=200)[0]


@pytest.mark.parametrize("flux", NUMBER)
def test_numbers_are_those_of_tucci(flux):
    published = counts.COUNTS_SCALE * (NUMBER[flux] - NUMBER_1_JY)
    ours = integral(0, flux, 1000) * np.radians(1) ** 2
    assert abs(np.log10(ours / published)) < DEX


@pytest.mark.parametrize("flux", EUCLIDEAN)
def test_differential_counts_are_those_of_tucci(flux):
    jansky = flux * 1e-3
    ours = counts.radio_counts(jansky) * jansky**2.5
    assert abs(np.log10(ours / (counts.COUNTS_SCALE * EUCLIDEAN[flux]))) < DEX


def test_poisson_power_is_that_of_tucci_and_of_act():
    power = integral(2, counts.FLUX_MIN_MJY, 15)
    assert power == pytest.approx(counts.COUNTS_SCALE * POISSON_15, rel=POISSON_TOLERANCE)
    d_3000 = power / bands.jy_per_sr_per_uk(150.0) ** 2 * 3000 * 3001 / (2 * np.pi)
    assert abs(d_3000 - ACT_RADIO) < ACT_ERROR


def test_faint_sources_left_out_add_little_power():
    left_out = integral(2, 1e-4, counts.FLUX_MIN_MJY)
    assert left_out < 3e-3 * integral(2, counts.FLUX_MIN_MJY, 7)


def test_density_is_the_integral_of_the_counts():
    whole = integral(0, counts.FLUX_MIN_MJY, counts.FLUX_MAX_MJY)
    # Trapezes of 4000 logarithmic steps.
    assert counts.radio_density() == pytest.approx(whole, rel=1e-4)


def test_drawn_fluxes_follow_the_counts():
    uniform = seeds.generator(2, "points").random(20_000)
    flux = counts.draw_radio_flux(uniform)
    assert counts.FLUX_MIN_MJY <= flux.min() < flux.max() <= counts.FLUX_MAX_MJY
    # The CDF by quadrature, at points that the sample is interpolated between.
    knots = np.geomspace(counts.FLUX_MIN_MJY, counts.FLUX_MAX_MJY, 200)
    steps = [integral(0, a, b) for a, b in itertools.pairwise(knots)]
    below = np.concatenate([[0], np.cumsum(steps)])
    result = stats.kstest(flux, lambda s: np.interp(np.log(s), np.log(knots), below / below[-1]))
    assert result.pvalue > 1e-3


def test_bright_tail_is_drawn_as_it_is_counted():
    share = integral(0, 7, counts.FLUX_MAX_MJY) / counts.radio_density()
    uniform = 1 - share * (np.arange(1000) + 0.5) / 1000
    flux = counts.draw_radio_flux(uniform)
    # Rounding of the CDF puts the faintest a hair off the limit.
    assert flux.min() > 6.9
    assert (np.diff(flux) < 0).all()
    median = integral(0, np.median(flux), counts.FLUX_MAX_MJY) / integral(0, 7, counts.FLUX_MAX_MJY)
    assert median == pytest.approx(0.5, abs=5e-3)
