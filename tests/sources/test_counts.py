"""mlsky.sources.counts between the published counts it was fitted to, and its own CDF."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import integrate, stats

from mlsky import seeds
from mlsky.frequency import bands
from mlsky.sources import counts

#: S (mJy) and N(>S) per square degree: model C2Ex of Tucci et al. 2011 at 148 GHz ...
TUCCI = {1: 5.87, 5: 1.15, 7: 0.808, 10: 0.553, 15: 0.357, 100: 0.048}
#: ... and Lagache et al. 2020 at 150 GHz.
LAGACHE = {1: 7.24, 5: 1.37, 7: 0.949, 10: 0.637, 15: 0.408, 100: 0.0516}
#: Of Tucci et al. alone: N(>S), and S^2.5 dN/dS (Jy^1.5/sr).
TUCCI_ALONE = {2: 2.98, 50: 0.101, 1000: 0.0030}
EUCLIDEAN = {0.1: 0.116, 1: 0.585, 3: 1.11, 5: 1.39, 7: 1.64, 10: 1.98, 15: 2.26, 100: 5.41}
EUCLIDEAN |= {1000: 14.0}
#: D_3000 (uK^2 at 150 GHz) of the Poisson power below a flux (mJy), of both.
POISSON = {7: (1.24, 1.50), 10: (1.79, 2.15), 15: (2.68, 3.17)}
#: How far outside of the two ours may be.
OUTSIDE = 0.05
#: Most that the counts of Lagache et al. are above those of Tucci et al., from the numbers above.
APART = max(LAGACHE[s] / TUCCI[s] for s in TUCCI)
#: Radio Poisson D_3000 at 150 GHz below 15 mJy, uK^2: best fit of ACT DR6 (Louis et al. 2025).
ACT_RADIO, ACT_TOLERANCE = 2.89, 0.03


def integral(power: int, low_mjy: float, high_mjy: float) -> float:
    """Integral of S^power dN/dS, Jy^power per sr, by quadrature in ln S."""

    def per_ln(x):
        return np.exp((power + 1) * x) * counts.radio_counts(np.exp(x))

    return integrate.quad(per_ln, np.log(low_mjy * 1e-3), np.log(high_mjy * 1e-3), limit=200)[0]


def number(flux_mjy: float) -> float:
    """Sources per square degree above a flux; beyond 2 Jy there are 0.001 of them."""
    return integral(0, flux_mjy, counts.FLUX_MAX_MJY) * np.radians(1) ** 2


def d_3000(power: float) -> float:
    """uK^2 at 150 GHz, of Jy^2/sr."""
    return power / float(bands.jy_per_sr_per_uk(150.0)) ** 2 * 3000 * 3001 / (2 * np.pi)


@pytest.mark.parametrize("flux", TUCCI)
def test_numbers_lie_between_tucci_and_lagache(flux):
    low, high = sorted([TUCCI[flux], LAGACHE[flux]])
    assert (1 - OUTSIDE) * low < number(flux) < (1 + OUTSIDE) * high


@pytest.mark.parametrize("flux", TUCCI_ALONE)
def test_numbers_are_near_tucci_where_there_is_no_other(flux):
    tail = 0.001 if flux == 1000 else 0.0  # above our 2 Jy
    ratio = (number(flux) + tail) / TUCCI_ALONE[flux]
    assert 1 - OUTSIDE < ratio < (1 + OUTSIDE) * APART


@pytest.mark.parametrize("flux", EUCLIDEAN)
def test_differential_counts_lie_as_far_from_tucci_as_lagache_may(flux):
    jansky = flux * 1e-3
    ratio = counts.radio_counts(jansky) * jansky**2.5 / EUCLIDEAN[flux]
    assert 1 - OUTSIDE < ratio < (1 + OUTSIDE) * APART


def test_poisson_power_is_that_of_act_and_between_the_two():
    for flux, (low, high) in POISSON.items():
        assert low < d_3000(integral(2, counts.FLUX_MIN_MJY, flux)) < high
    ours = d_3000(integral(2, counts.FLUX_MIN_MJY, 15))
    assert ours == pytest.approx(ACT_RADIO, rel=ACT_TOLERANCE)


def test_faint_sources_left_out_add_little_power():
    # as a power law from where the polynomial ends
    s, step = counts.FLUX_MIN_MJY * 1e-3, 1.01
    ends = [counts.radio_counts(s * f) for f in (1 / step, step)]
    slope = np.log(ends[1] / ends[0]) / (2 * np.log(step))
    left_out = counts.radio_counts(s) * s**3 / (3 + slope)
    assert left_out < 4e-3 * integral(2, counts.FLUX_MIN_MJY, 7)


def test_density_is_the_integral_of_the_counts():
    whole = integral(0, counts.FLUX_MIN_MJY, counts.FLUX_MAX_MJY)
    # Trapezes of 4000 logarithmic steps.
    assert counts.radio_density() == pytest.approx(whole, rel=1e-4)


def test_drawn_fluxes_follow_the_counts():
    uniform = seeds.generator(2, "point_sources").random(20_000)
    flux = counts.draw_radio_flux(uniform)
    assert counts.FLUX_MIN_MJY <= flux.min() < flux.max() <= counts.FLUX_MAX_MJY
    # The CDF by quadrature, at points that the sample is interpolated between.
    knots = np.geomspace(counts.FLUX_MIN_MJY, counts.FLUX_MAX_MJY, 200)
    steps = [integral(0, a, b) for a, b in itertools.pairwise(knots)]
    below = np.concatenate([[0], np.cumsum(steps)])
    result = stats.kstest(flux, lambda s: np.interp(np.log(s), np.log(knots), below / below[-1]))
    assert result.pvalue > 1e-3


def test_bright_tail_is_drawn_as_it_is_counted():
    fraction = integral(0, 7, counts.FLUX_MAX_MJY) / counts.radio_density()
    uniform = 1 - fraction * (np.arange(1000) + 0.5) / 1000
    flux = counts.draw_radio_flux(uniform)
    # Rounding of the CDF puts the faintest a hair off the limit.
    assert flux.min() > 6.9
    assert (np.diff(flux) < 0).all()
    median = integral(0, np.median(flux), counts.FLUX_MAX_MJY) / integral(0, 7, counts.FLUX_MAX_MJY)
    assert median == pytest.approx(0.5, abs=5e-3)
