"""mlsky.haloes.densities: white noise, grids and the joint draw, against direct sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from halo_cases import painter, shipped

from mlsky.haloes import covariance_factor, densities
from mlsky.haloes.densities import Grid, white_noise

#: Deviation of a mean from its expectation, in its own errors.
SIGMAS = 4.5
#: Power between multipoles of the factor; clipped eigenvalues change that at them.
STEPS = 0.01


def rng(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_noise_is_white_with_unit_variance():
    m, fields = 64, 400
    white = white_noise(rng(), fields, m)
    maps = torch.fft.irfft2(white, s=(m, m), norm="ortho").double()
    per_map = maps.var((1, 2)).numpy()
    error = per_map.std() / np.sqrt(fields)
    assert abs(per_map.mean() - 1) < SIGMAS * error
    assert error < 0.003
    # the power of every column, those that are their own conjugates among them, as of real noise
    real = torch.randn(fields, m, m, generator=rng(2), dtype=torch.float64)
    for values in (maps, real):
        power = torch.fft.rfft2(values, norm="ortho").abs() ** 2
        columns = power.mean((0, 1)).numpy()
        scatter = power.mean(1).std(0).numpy() / np.sqrt(fields)
        assert np.all(np.abs(columns - 1) < SIGMAS * scatter), columns
    # each place has the same variance
    by_place = maps.var(0).numpy()
    assert abs(by_place.max() - 1) < 7 * np.sqrt(2 / fields)
    assert abs(by_place.min() - 1) < 7 * np.sqrt(2 / fields)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_window_of_a_cell_is_a_direct_sum(n):
    # Pixels of a cell lie at (j - (n - 1) / 2) pixel from its centre; x is k pixel / 2.
    x = np.array([0.0, 1e-14, 0.3, -1.1, 2.0])
    places = np.arange(n) - (n - 1) / 2
    direct = np.exp(2j * x[:, None] * places).mean(1)
    assert densities._comb(x, n) == pytest.approx(direct.real, abs=1e-12)
    assert np.abs(direct.imag).max() < 1e-12


def test_shells_have_their_power_and_variance():
    p, t = painter(), shipped()
    grid, draws = p.grid, [p.densities.draw(rng(i)) for i in range(24)]
    density = torch.stack([d for d, _ in draws]).double()
    variance = density.var((2, 3), correction=0)
    mean, error = variance.mean(0).numpy(), variance.std(0).numpy() / np.sqrt(len(draws))
    expected = p.densities.variance
    # many shells: one in ten is beyond 1.6 errors
    assert np.all(np.abs(mean - expected) < SIGMAS * error + 0.01 * expected)
    modes = torch.fft.rfft2(density) * (grid.cell**2 / grid.side)
    power = (modes.abs() ** 2).mean(0).numpy() * grid.window**2
    _, _, ell = grid.wave_numbers(grid.cells)
    for lo, hi in ((300, 900), (900, 2000), (3000, 5000)):
        inside = (ell >= lo) & (ell < hi)
        for i in (12, 20, 38):
            log_p = np.log(np.maximum(t["p_shell"][i].astype(float), 1e-60))
            model = np.exp(np.interp(np.log(ell[inside]), np.log(t["ell"]), log_p))
            # Limber is some per cent off where a shell is as thin as its structure, in the modes
            # drawn jointly, to 3700: 18 % for the near shell 12 at l > 3000
            allowed = SIGMAS / np.sqrt(len(draws) * inside.sum()) + (0.06 if lo < 3000 else 0.03)
            # the power falls by orders of magnitude in a band: its sum is compared
            ratio = power[i][inside].sum() / model.sum()
            assert ratio == pytest.approx(1, abs=2 * allowed)


@pytest.mark.parametrize("number", [20, 35, 44])
def test_every_mode_has_the_power_of_its_multipole(number):
    """Not that of the next multipole of the factor, as far as 5 % away."""
    ell_mix, matrix = covariance_factor.covariance_factor(shipped())
    power = (matrix.astype(float) ** 2).sum(2)
    ell = np.sqrt(ell_mix[[number]] * ell_mix[number + 1])
    exact = np.diag(covariance_factor.covariance(shipped(), ell)[0])
    for nearest in (number, number + 1):
        made = power[nearest] * densities._drift(ell_mix, power, ell, [nearest])[:, 0] ** 2
        # nearby shells and slices have nothing at high multipoles
        ns = len(shipped()["z"])
        there = np.concatenate([x > 1e-4 * x.max() for x in (exact[:ns], exact[ns:])])
        assert there.sum() > 150
        assert made[there] == pytest.approx(exact[there], rel=STEPS)


def test_velocities_have_the_linear_dispersion():
    p, t = painter(), shipped()
    velocity = torch.stack([p.densities.draw(rng(i))[1] for i in range(24)]).double()
    carried = velocity.var((0, 2, 3), correction=0).numpy()
    sigma = np.repeat(t["sigma_v"], t["slices"]).astype(float)
    total = carried + p.densities.v_residual.numpy() ** 2
    # modes of four degrees are few: what one slice carries is known to ten per cent
    assert np.abs(total / sigma**2 - 1).max() < 0.2
    assert (total / sigma**2).mean() == pytest.approx(1, abs=0.02)


def test_matter_in_front_falls_back():
    """Slices in front of an overdense shell move away from us (v > 0), those behind towards us."""
    p = painter()
    draws = [p.densities.draw(rng(i)) for i in range(12)]
    shell = 25
    first, number = int(p.densities.first[shell]), int(p.densities.n_slices[shell])
    corr = []
    for density, velocity in draws:
        m = velocity.shape[-1]
        coarse = torch.nn.functional.avg_pool2d(density[shell][None], density.shape[-1] // m)[0]
        front, behind = velocity[first - 1], velocity[first + number]
        pairs = [torch.stack([coarse.flatten(), v.flatten()]) for v in (front, behind)]
        corr.append([float(torch.corrcoef(pair)[0, 1]) for pair in pairs])
    front, behind = np.mean(corr, 0)
    assert front > 0.1
    assert behind < -0.1


@pytest.mark.parametrize(
    ("pixel", "n", "text"),
    [
        (0.5, 100, "n=100: must be a multiple of 16"),
        (0.5, 48, "n=48: must be a multiple of 16"),
        (2.0, 144, "n=144: on pixels of 2 arcmin"),
        (0.0, 128, "pixel_arcmin=0.0: must be from 0.1 to 4"),
    ],
)
def test_wrong_sizes_are_refused(pixel, n, text):
    with pytest.raises(ValueError, match=text):
        Grid(shipped(), n, pixel, torch.device("cpu"))
