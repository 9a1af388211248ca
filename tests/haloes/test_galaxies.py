"""mlsky.haloes.galaxies: hosts, fluxes, colours and polarisation of painted galaxies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from halo_cases import painter, regions, shipped
from scipy import integrate, stats

from mlsky.frequency import radio
from mlsky.haloes import keyed
from mlsky.haloes.galaxies import SOURCE_COLUMNS, Colours, nfw_radii
from mlsky.sources.catalogue import KINDS, POL_MEAN_SQUARE
from mlsky.sources.counts import radio_counts, radio_density
from mlsky.theory import radio_sources
from mlsky.theory.halo_model import infrared_sed

#: Deviation of a mean from its expectation, in its own errors.
SIGMAS = 4.5
#: Sums of float32 maps.
FLOAT = 1e-5
#: The power of radio sources that share hosts, over that of the counts.
POISSON = 0.01


def rng(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def keys(n: int) -> torch.Tensor:
    return keyed.keys(1, torch.arange(n))


def listed(kind: str) -> dict[str, np.ndarray]:
    rows = torch.cat([r.sources for r in regions()]).double().numpy()
    rows = rows[rows[:, SOURCE_COLUMNS.index("kind")] == KINDS.index(kind)]
    return dict(zip(SOURCE_COLUMNS, rows.T, strict=True))


def test_fluxes_of_radio_sources_are_those_of_the_counts():
    area = painter().area * len(regions())
    flux = listed("radio")["flux_mjy"]
    for low in (1.0, 3.0, 7.0, 20.0):
        expected = integrate.quad(radio_counts, low * 1e-3, 2.0, points=[0.01, 0.1])[0] * area
        # several sources in a host widen Poisson's error by a tenth
        assert abs((flux > low).sum() - expected) < SIGMAS * 1.1 * math.sqrt(expected)


def test_radio_hosts_are_those_of_the_constants():
    t, g = shipped(), painter().galaxies
    rate = g.radio_rate.double().numpy().reshape(t["number"].shape)
    total = (rate * t["number"]).sum()
    assert total == pytest.approx(radio_density() * g.colours.parameters.radio_counts, rel=1e-4)
    top, slope, knee = radio_sources.HOST_LOG10_MASS
    lightest = top - slope * np.maximum(t["z"] - knee, 0)
    mass = t["log10_mass"]
    for i in range(0, len(t["z"]), 5):
        hosts = np.flatnonzero(rate[i])
        assert mass[hosts[0]] == pytest.approx(max(lightest[i], mass[0]), abs=0.051)
        law = np.diff(np.log10(rate[i, hosts])) / np.diff(mass[hosts])
        np.testing.assert_allclose(law, radio_sources.MASS_SLOPE, atol=1e-3)
    by_shell = (rate * t["number"]).sum(1) / np.gradient(t["z"])
    law = radio_sources.redshifts(t["z"].astype(float))
    np.testing.assert_allclose(by_shell / by_shell.sum(), law / law.sum(), rtol=1e-3)


def test_radio_sources_hardly_share_hosts():
    assert 0 < painter().galaxies.radio_shared - 1 < POISSON


def test_drawn_radio_sources_follow_the_rates():
    t, g = shipped(), painter().galaxies
    row = torch.arange(len(g.radio_rate), dtype=torch.int32).repeat_interleave(400)
    host, flux, _ = g.radio(keys(len(row)), row)
    assert len(flux) == len(host)
    number = np.bincount(row[host].numpy(), minlength=len(g.radio_rate))
    expected = 400 * g.radio_rate.numpy()
    assert number[expected == 0].sum() == 0
    by_shell = [x.reshape(t["number"].shape).sum(1) for x in (number, expected)]
    assert np.all(np.abs(by_shell[0] - by_shell[1]) < SIGMAS * np.sqrt(by_shell[1]) + 3)


def test_radio_indices_have_their_mean_and_scatter():
    alpha = listed("radio")["alpha"]
    error = radio.ALPHA_SCATTER / math.sqrt(len(alpha))
    assert abs(alpha.mean() - radio.ALPHA_MEAN) < SIGMAS * error
    assert abs(alpha.std() - radio.ALPHA_SCATTER) < SIGMAS * error
    assert stats.kstest((alpha - radio.ALPHA_MEAN) / radio.ALPHA_SCATTER, "norm").pvalue > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_polarisation(kind):
    rows = listed(kind)
    square = rows["pol_frac"] ** 2
    error = square.std() / math.sqrt(len(square))
    assert abs(square.mean() - POL_MEAN_SQUARE[kind]) < SIGMAS * error
    assert error < 0.1 * POL_MEAN_SQUARE[kind]
    assert stats.kstest(rows["pol_angle"] / 180, "uniform").pvalue > 1e-4
    flux = np.log(rows["flux_mjy"])
    assert abs(np.corrcoef(flux, rows["pol_frac"])[0, 1]) < SIGMAS / math.sqrt(len(flux))


def test_colours_are_those_of_the_grey_body():
    t = shipped()
    colours = Colours(t)
    z = t["z"].astype(float)
    for nu in (93.0, 220.0):
        law = infrared_sed(nu, z, colours.parameters) / infrared_sed(148.0, z, colours.parameters)
        np.testing.assert_allclose(colours.shells(nu), law)
        # index at 148 GHz, and the curvature over a factor of 1.5
        np.testing.assert_allclose(colours.shells(nu), (nu / 148) ** colours.index(), rtol=0.12)
    beta = torch.randn(400_000, generator=rng(), dtype=torch.float64) * colours.scatter
    at = {nu: colours.galaxy(nu, beta) for nu in (93.0, 220.0)}
    for values in at.values():
        assert float(values.mean()) == pytest.approx(1, abs=1e-3)
    product = float((at[93.0] * at[220.0]).mean())
    assert product == pytest.approx(colours.coherence(93.0, 220.0), abs=1e-3)
    assert product < 1


def test_indices_of_dsfgs_are_those_of_the_shells_with_scatter():
    g = painter().galaxies
    alpha = listed("dsfg")["alpha"]
    low, high = (float(x) for x in (g.index.min(), g.index.max()))
    assert low - 4.5 * g.colours.scatter < alpha.min()
    assert alpha.max() < high + 4.5 * g.colours.scatter
    assert 0.9 * g.colours.scatter < alpha.std() < 1.5 * g.colours.scatter


def test_satellites_have_number_flux_and_place_of_the_model():
    p, t = painter(), shipped()
    shell, mass, n = 18, 30, 40_000
    ones = torch.ones(n, dtype=torch.int32)
    row = ones * (shell * p.n_mass + mass)
    place = torch.full((n,), 64.5)
    flux, y, x, host, _ = p.galaxies.infrared(
        keys(len(row)), ones * shell, ones * mass, row, place, place
    )
    assert torch.equal(host[:n], torch.arange(n))
    number = len(flux) - n
    each = torch.bincount(host[n:], minlength=n).double()
    assert abs(float(each.var() / each.mean()) - 1) < SIGMAS * math.sqrt(2 / n)  # Poisson
    mean = n * float(t["satellite_number"][mass])
    assert abs(number - mean) < SIGMAS * math.sqrt(mean)
    scatter = math.sqrt(math.exp(float(t["scatter"]) ** 2) - 1)
    centrals = flux[:n].double().mean() / float(t["central_uk_sr"][shell, mass])
    assert abs(float(centrals) - 1) < 1.5 * SIGMAS * scatter / math.sqrt(n)
    by_quantile = t["satellite_uk_sr"][shell, t["satellite_inverse"][mass].astype(int)]
    satellites = flux[n:].double().mean() / by_quantile.mean()
    assert abs(float(satellites) - 1) < 3 * SIGMAS * scatter / math.sqrt(number)
    # the mean square of a projected radius is two thirds of that in space
    c = float(t["concentration"][shell, mass])
    radii = nfw_radii(np.array([c]), (np.arange(4000) + 0.5) / 4000)
    expected = 2 / 3 * (radii**2).mean() * float(t["theta_200m"][shell, mass]) ** 2
    square = (((y[n:] - 64.5) ** 2 + (x[n:] - 64.5) ** 2) * p.pixel**2).double()
    assert float(square.mean()) == pytest.approx(expected, rel=0.05)


def test_spread_satellites_keep_flux_place_and_second_moments():
    p = painter()
    g = p.galaxies
    for y, x in ((40.5, 60.5), (40.13, 60.91), (0.02, 127.97)):  # the last one over the edge
        flux = torch.tensor([3.0, 0.5])
        places = torch.tensor([[y, x]] * 2).T
        total = [g.empty_map(), g.empty_map()]
        g.spread(total, *places, [flux, 2 * flux], torch.zeros(2, dtype=torch.int64))
        spread = g.as_map(total[0])[0].double() * p.pixel**2
        assert torch.equal(total[1], 2 * total[0])
        assert (spread != 0).sum() <= 9
        # offset of each pixel's centre from the source, the shorter way round
        dy, dx = ((torch.arange(p.n) + 0.5 - place + p.n / 2) % p.n - p.n / 2 for place in (y, x))
        whole = float(flux.sum())
        assert float(spread.sum()) == pytest.approx(whole, rel=FLOAT)
        for weight in (dy[:, None], dx[None], dy[:, None] ** 2, dx[None] ** 2, dy[:, None] * dx):
            # all moments about the source vanish, as those of a point do
            assert abs(float((spread * weight).sum())) < FLOAT * whole


def test_satellites_of_objects_are_spread_on_a_map_of_their_own():
    g, n = painter().galaxies, painter().n
    flux, place = torch.tensor([3.0, 0.5]), torch.tensor([40.1, 127.9])
    total = g.empty_map(2)
    g.spread([total], place, place, [flux], torch.tensor([0, n**2]))
    for which, made in enumerate(g.as_map(total)):
        alone = g.empty_map()
        one = place[which, None]
        g.spread([alone], one, one, [flux[which, None]], torch.tensor([0]))
        assert torch.equal(made, g.as_map(alone)[0])


def test_places_outside_are_taken_round():
    g, n = painter().galaxies, painter().n
    y = torch.tensor([0.5, -0.5, n + 3.2, -n - 1e-3, n - 1e-3])
    x = torch.tensor([0.0, n - 0.5, -1.5, 2.0, float(n)])
    expected = [0, (n - 1) * n + n - 1, 3 * n + n - 2, (n - 1) * n + 2, (n - 1) * n]
    assert g.place(y, x).tolist() == expected
