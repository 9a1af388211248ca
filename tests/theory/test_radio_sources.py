"""mlsky.theory.radio_sources: hosts, bias and moments, against random sources and measurements."""

from __future__ import annotations

import math

import numpy as np
import pytest
from halo_cases import model

from mlsky import seeds
from mlsky.frequency import radio
from mlsky.sources import counts
from mlsky.theory import radio_sources

SIGMAS = 4
#: Bias of radio sources and how near ours must be: Lindsay et al. 2014 (two digits, no error);
#: Nusser & Tiwari 2015; Allison et al. 2015.
BIAS = {0.34: (1.9, 0.1), 0.5: (2.1, 0.15), 1.5: (3.5, 0.8)}

#: Radio sources per square degree above a flux (mJy), with errors, by GHz. At 31 GHz those of
#: Mason et al. 2009 (arXiv:0901.4330, abstract), 16.7 +- 1.7 (S / mJy)^(-.80 +- .07) from 1 to 4
#: mJy; at 95 GHz the 12,000 flat or falling sources of SPT-3G in 1500 deg^2 above 1.2 mJy
#: (Archipley, conference abstract; no error is given: a tenth).
COUNTS = {
    31.0: [(1.0, 16.7, 1.7), (2.0, 9.6, 1.1), (4.0, 5.5, 0.8)],
    95.0: [(1.2, 8.0, 0.8)],
}
SIGMAS_COUNTS = 2


def _brighter(nu_ghz, flux_mjy):
    """Radio sources per steradian that are brighter than a flux at a frequency."""
    return radio_sources.moment(()) - radio_sources.moment((), (flux_mjy * 1e-3, nu_ghz))


def rate() -> np.ndarray:
    m = model()
    return radio_sources.host_rate(m.z, m.log10_mass, m.number)


def test_rates_add_up_and_have_their_redshifts():
    m = model()
    sources = (rate() * m.number).sum(1)
    assert sources.sum() == pytest.approx(1)
    assert (sources @ m.z) == pytest.approx(1.49, abs=0.02)
    assert math.sqrt(sources @ (m.z - sources @ m.z) ** 2) == pytest.approx(1.0, abs=0.02)
    assert radio_sources.host_rate(m.z, m.log10_mass, m.number, 7.0).sum() == pytest.approx(
        7 * rate().sum()
    )


def test_hosts_have_the_measured_bias():
    m = model()
    bias = (rate() * m.number * m.bias).sum(1) / (rate() * m.number).sum(1)
    for z, (measured, error) in BIAS.items():
        assert abs(np.interp(z, m.z, bias) - measured) < error


def test_no_halo_hosts_several_radio_sources():
    m = model()
    ours = rate() * counts.radio_density()
    assert ours[m.z < 3][:, m.log10_mass < 15].max() < 2.5  # the heaviest clusters
    assert np.average(ours, weights=ours * m.number) < 0.3


@pytest.mark.parametrize(("nu_1", "nu_2", "cut"), [(93, 220, (15e-3, 150)), (30, 30, (7e-3, 280))])
def test_moments_are_those_of_random_sources(nu_1, nu_2, cut):
    rng = seeds.generator(8, "point_sources")
    # equal shares of the counts, so that few bright sources do not rule
    flux = counts.draw_radio_flux((np.arange(400_000) + rng.random(400_000)) / 400_000)
    alpha = radio.ALPHA_MEAN + radio.ALPHA_SCATTER * rng.standard_normal(len(flux))
    kept = radio.flux(flux, alpha, cut[1]) * 1e-3 < cut[0]
    first, second = (radio.flux(flux, alpha, nu) * 1e-3 for nu in (nu_1, nu_2))
    density = counts.radio_density()
    for powers, sample in (
        ((), kept),
        ((nu_1,), kept * first),
        ((nu_1, nu_2), kept * first * second),
    ):
        error = sample.std() / math.sqrt(len(sample))
        made = radio_sources.moment(powers, cut)
        assert abs(sample.mean() * density - made) < SIGMAS * error * density


def test_moment_without_a_cut():
    assert radio_sources.moment(()) == pytest.approx(counts.radio_density(), rel=1e-3)
    assert radio_sources.moment((148, 148)) > 5 * radio_sources.moment((148, 148), (15e-3, 148))


@pytest.mark.parametrize("nu", COUNTS)
def test_counts_at_other_frequencies(nu):
    for flux, number, error in COUNTS[nu]:
        ours = _brighter(nu, flux) * math.radians(1) ** 2
        assert abs(ours - number) < SIGMAS_COUNTS * error


def test_counts_at_the_reference():
    above = _brighter(148.0, 10.0) * math.radians(1) ** 2
    assert above == pytest.approx(0.601, abs=0.003)  # docs/truth, "Counts"
