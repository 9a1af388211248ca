"""mlsky.haloes.abundance: how many haloes of which mass answer to a density."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from halo_cases import painter, shipped
from scipy import integrate, stats

from mlsky import seeds
from mlsky.haloes import abundance, keyed
from mlsky.haloes.abundance import DELTA_SIGMAS, poisson, response

#: Deviation of a mean from its expectation, in its own errors.
SIGMAS = 4.5
#: Linear interpolation between densities 0.137 standard deviations apart.
RESPONSE = 0.03


def rng(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rate", [0.0, 1e-5, 0.05, 0.7, 6.0, 19.0, 35.0])
def test_poisson_numbers(rate):
    n = 400_000
    drawn = poisson(torch.rand(n, generator=rng()), torch.full((n,), rate)).numpy()
    top = int(stats.poisson(rate).ppf(1 - 1e-4)) + 1
    for k in range(top + 1):
        expected = n * stats.poisson(rate).pmf(k)
        assert abs((drawn == k).sum() - expected) < SIGMAS * np.sqrt(expected) + 1
    assert abs(drawn.sum() - n * rate) < SIGMAS * np.sqrt(n * rate) + 1e-9


def test_poisson_numbers_of_mixed_rates():
    rates = torch.tensor([0.01, 30.0, 0.5, 0.0]).repeat(50_000)
    drawn = poisson(torch.rand(len(rates), generator=rng(3)), rates).double()
    for rate in (0.01, 30.0, 0.5, 0.0):
        some = drawn[rates == rate]
        assert float(some.mean()) == pytest.approx(rate, abs=SIGMAS * np.sqrt(rate / 50_000))


def test_poisson_numbers_are_those_of_the_library():
    """The inversion of `mlsky.seeds.poisson`, of every size of rate."""
    u = torch.rand(20_000, generator=rng(4), dtype=torch.float64)
    rate = 10 ** (4 * torch.rand(len(u), generator=rng(5), dtype=torch.float64) - 2)
    assert np.array_equal(poisson(u, rate).numpy(), seeds.poisson(u.numpy(), rate.numpy()))


def test_one_halo_more_changes_no_other():
    """Rounding of a density may add a halo: the others keep masses and places."""
    p = painter()
    density = p.densities.draw(rng(1))[0]
    one = draw(density, 3)
    denser = density.clone()
    denser[20, 5] += 0.5  # one row of cells, where some come
    two = draw(denser, 3)
    assert len(one.shell) != len(two.shell)
    per = p.n // p.grid.cells

    def elsewhere(haloes):
        return ~((haloes.shell == 20) & ((haloes.y / per).int() == 5))

    for a, b in zip(one, two, strict=True):
        assert torch.equal(a[elsewhere(one)], b[elsewhere(two)])


def test_response_has_mean_one_and_is_capped():
    b, sigma, cap = np.array([0.7, 2.0, 9.0]), 0.5, 2.0
    values = response(b, sigma, cap)
    for column, bias in zip(values.T, b, strict=True):
        x = np.linspace(-9, 9, 200_001)
        mean = np.trapezoid(np.interp(x, DELTA_SIGMAS, column) * stats.norm.pdf(x), x)
        assert mean == pytest.approx(1, rel=1e-6)
        whole = integrate.quad(
            lambda x, bias=bias: np.exp(bias * min(x * sigma, cap)) * stats.norm.pdf(x),
            -9,
            9,
            points=[cap / sigma],
        )[0]
        inside = DELTA_SIGMAS * sigma < cap
        exact = np.exp(bias * DELTA_SIGMAS * sigma) / whole
        np.testing.assert_allclose(column[inside], exact[inside], rtol=RESPONSE)
        # flat above the cap
        np.testing.assert_allclose(column[~inside], np.exp(bias * cap) / whole, rtol=RESPONSE)


def draw(density: torch.Tensor, seed: int):
    return painter().abundance.draw(rng(seed), seed, density)


def test_mean_abundance_is_that_of_the_mass_function():
    """Of several masses, the nearest shells by themselves: there the bias is capped most."""
    p, t = painter(), shipped()
    mass, near = t["log10_mass"], t["z"] < 0.25
    edges = np.array([12.3, 12.8, 13.3, 13.8, 14.2])
    found, expected = [], []
    for where in (near, ~near):
        number = np.where(where[:, None], t["number"], 0).sum(0)
        expected.append(np.histogram(mass, edges, weights=number)[0] * p.area)
    for seed in range(40):
        density = p.densities.draw(rng(seed))[0]
        haloes = draw(density, seed)
        rows = []
        for where in (near, ~near):
            inside = torch.as_tensor(where)[haloes.shell.long()]
            rows.append(np.histogram(mass[haloes.mass[inside].numpy()], edges)[0])
        found.append(rows)
    found, expected = np.array(found, float), np.array(expected)
    mean, error = found.mean(0), found.std(0, ddof=1) / np.sqrt(len(found))
    assert np.all(np.abs(mean - expected) < SIGMAS * error), mean / expected
    # of all but the rarest the test tells a few per cent
    assert np.all(error[1, :3] < 0.005 * expected[1, :3])


def test_cells_of_one_density_have_its_abundance():
    p, t = painter(), shipped()
    shell, sigma = 12, np.sqrt(p.densities.variance)
    cap, rates = float(p.abundance.cap[shell]), []
    assert cap <= 4 * sigma[shell] * (1 + 1e-9)
    for z in (-1.5, 0.04, 3.0, 4.2, 6.5):  # the last two above the cap
        density = torch.zeros(p.n_shell, p.grid.cells, p.grid.cells)
        density[shell] = z * sigma[shell]
        found = []
        for seed in range(12):
            haloes = draw(density, seed)
            found.append(int((haloes.shell == shell).sum()))
        law = response(t["bias"][shell].astype(float), sigma[shell], cap)
        at = [np.interp(z, DELTA_SIGMAS, column) for column in law.T]
        expected = (t["number"][shell] * at).sum() * p.area
        mean = np.mean(found)
        assert abs(mean - expected) < SIGMAS * np.sqrt(expected / len(found)) + 2e-3 * expected
        rates.append(mean)
    # flat above the cap, and far above the mean
    assert rates[-1] == pytest.approx(rates[-2], rel=SIGMAS * np.sqrt(2 / 12 / rates[-1]) + 1e-3)
    assert rates[-1] > 3 * rates[1]


def test_masses_of_a_dense_cell_are_heavier():
    """Between two densities of the table abundances are mixed, not their shares of masses."""
    p, t = painter(), shipped()
    shell, sigma = 12, np.sqrt(p.densities.variance)
    place = DELTA_SIGMAS[60] + 0.5 * (DELTA_SIGMAS[61] - DELTA_SIGMAS[60])
    density = torch.zeros(p.n_shell, p.grid.cells, p.grid.cells)
    density[shell] = float(place * sigma[shell])
    law = response(t["bias"][shell].astype(float), sigma[shell], float(p.abundance.cap[shell]))
    expected = t["number"][shell] * (law[60] + law[61]) / 2 * p.area
    draws = 20
    drawn = np.zeros(p.n_mass)
    for seed in range(draws):
        haloes = draw(density, seed)
        chosen = haloes.mass[haloes.shell == shell].numpy()
        drawn += np.bincount(chosen, minlength=p.n_mass)
    groups = np.arange(p.n_mass) // 5
    found = np.bincount(groups, drawn) / draws
    wanted = np.bincount(groups, expected)
    many = wanted * draws > 5
    error = np.sqrt(wanted / draws)
    assert np.all((np.abs(found - wanted) < SIGMAS * error + 2e-3 * wanted)[many])


def test_there_is_no_halo_that_the_sky_has_none_of():
    """An acceptance of 1e-20 is never met, however many haloes are drawn.

    Single precision numbers are zero once in 2^24, and painted one in 150 regions.
    """
    a = painter().abundance
    shell = torch.full((3_000_000,), 30, dtype=torch.int32)
    expected = shipped()["number"][30]
    impossible = np.flatnonzero(expected < 1e-9 * expected.sum())
    assert len(impossible) > 5
    for seed in range(6):
        key = keyed.keys(seed, torch.arange(len(shell)))
        mass = a._mass(key, shell, torch.zeros(len(shell))).numpy()
        assert mass.max() < impossible.min()


def test_alias_tables_give_the_weights():
    weights = np.array([[1.0, 2.0, 5.0, 1e-12], [0.25, 0.25, 0.25, 0.25]])
    index, accept = abundance._alias(weights)
    n = weights.shape[1]
    for row in range(2):
        fraction = np.bincount(index[row], 1 - accept[row], n) + accept[row]
        np.testing.assert_allclose(fraction / n, weights[row] / weights[row].sum(), atol=1e-15)
