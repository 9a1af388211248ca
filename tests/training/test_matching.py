"""Matched statistics: zero where fields are the same, and what each of them measures."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from mlsky.networks.normaliser import Normaliser
from mlsky.training import matching
from mlsky.training.recipes import recipe

N, PIXEL = 64, 0.5
NORMALISER = Normaliser(
    ("kappa", "ksz", "tsz", "cib"),
    (None, None, 3.7, 17.1),
    (0.0, 0.0, -0.63, 0.6),
    (0.08, 2.3, 0.29, 0.35),
)
# Sums of float32 numbers.
FLOAT32 = 1e-4


def draw(channels, batch=8, seed=0, n=N):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, n, n, generator=rng)


def spectra(**options):
    return matching.Spectra(N, PIXEL, "cpu", **options)


def make(name):
    """Matching of a recipe, its condition and fields."""
    if name == "paint":
        statistics = matching.paint_statistics(spectra(), NORMALISER)
        return matching.Matching(statistics, recipe("paint-0.5").match), draw(1), draw(3, seed=1)
    statistics = matching.convergence_statistics(spectra())
    return matching.Matching(statistics, recipe("convergence-0.5").match), draw(1), draw(1, seed=1)


@pytest.mark.parametrize("name", ["paint", "convergence"])
def test_identical_fields_match_and_others_do_not(name):
    match, condition, fields = make(name)
    total, parts = match(condition, fields.clone(), fields)
    assert total.item() == 0
    assert set(parts) == set(match.weights)
    assert set(parts.values()) == {0.0}
    match, *_ = make(name)
    _, parts = match(condition, 1.3 * fields.abs() + condition, fields)
    assert min(parts.values()) > 1e-3, parts


@pytest.mark.parametrize("name", ["paint", "convergence"])
def test_every_statistic_pulls(name):
    match, condition, fields = make(name)
    # loud enough that smoothed fields have peaks
    fake = (8 * draw(fields.shape[1], seed=2)).requires_grad_(True)
    for part, (kind, value) in match.statistics(condition, fake).items():
        assert kind in matching.BETA
        assert torch.isfinite(value).all()
        (gradient,) = torch.autograd.grad(value.square().sum(), fake, retain_graph=True)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0, part
    total, _ = match(condition, fake, fields)
    (gradient,) = torch.autograd.grad(total, fake)
    with torch.no_grad():
        closer, _ = make(name)[0](condition, fake - 1e-3 * gradient / gradient.std(), fields)
    assert closer < total


def test_power_of_white_noise_is_its_pixel_area():
    """C_l of unit white noise is the solid angle of a pixel; a few thousand modes a bin."""
    s = spectra()
    power = s.pairs(s.modes(draw(2, batch=64)))
    area = math.radians(PIXEL / 60) ** 2
    auto = torch.diagonal(power).t()
    np.testing.assert_allclose(auto[:, 6:] / area, 1, atol=0.03)
    np.testing.assert_allclose(s.by_angle(s.modes(draw(2, batch=64))).mean() / area, 1, atol=0.02)
    assert np.all(np.diff(s.ell) > 0)
    assert s.ell[-1] < 1.01 * 10800 / PIXEL


def test_a_wave_is_found_at_its_multipole_and_angle():
    s = spectra()
    x = torch.arange(N) * (2 * math.pi * 16 / N)
    ell = 16 * 2 * math.pi / (N * math.radians(PIXEL / 60))
    wave = torch.cos(x).expand(N, N)
    fields = torch.stack([wave, wave.T])[None]
    power = torch.diagonal(s.pairs(s.modes(fields))).t()
    found = s.ell[power.argmax(1)]
    np.testing.assert_allclose(found, ell, rtol=0.15)
    torch.testing.assert_close(power[0], power[1], rtol=0, atol=FLOAT32 * power.max().item())
    along, across = s.by_angle(s.modes(fields))
    assert along.argmax() != across.argmax()


def test_coherence():
    s = spectra()
    a, b = draw(2, batch=64).split(1, 1)
    r = matching._coherence(s.pairs(s.modes(torch.cat([a, b, -2 * a, a + b], 1))))
    modes = 64 * 20  # at least, in the bins beyond the sixth
    of = dict(zip(["ab", "ac", "ad", "bc", "bd", "cd"], r[:, 6:], strict=True))
    assert of["ab"].abs().max() < 5 / math.sqrt(modes)
    np.testing.assert_allclose(of["ac"], -1, atol=FLOAT32)
    np.testing.assert_allclose(of["ad"], 1 / math.sqrt(2), atol=0.05)
    np.testing.assert_allclose(of["cd"], -of["ad"], atol=FLOAT32)


def test_quantiles_are_means_of_the_sorted_pixels():
    x = draw(2, batch=4)
    got = matching.quantiles(x)
    n = 4 * N * N
    edges = matching._edges(n, 3e-5, np.linspace(0.1, 0.9, 9))
    assert edges[0] == 0
    assert edges[-1] == n
    assert np.all(np.diff(edges) > 0)
    for channel in range(2):
        values = np.sort(x[:, channel].numpy().astype(np.float64).ravel())
        means = [values[a:b].mean() for a, b in pairwise(edges)]
        np.testing.assert_allclose(got[channel], means, rtol=1e-5, atol=1e-6)
        # and numpy's quantile function at the middles of the bins says the same
        middle = (edges[1:] + edges[:-1]) / 2 / n
        body = (middle > 0.01) & (middle < 0.99)
        wanted = np.quantile(values, middle[body])
        np.testing.assert_allclose(got[channel][body], wanted, atol=0.05)


def test_gradient_of_quantiles_is_that_of_a_stable_sort():
    """Also among ties, of which a quiet tSZ map is full."""
    x = ((8 * draw(2, batch=4)).round() + 0.0).requires_grad_(True)  # no negative zeros
    weight = draw(1, batch=1, n=len(matching.quantiles(x)[0]))[0, 0, :2]
    (got,) = torch.autograd.grad((matching.quantiles(x) * weight).sum(), x)
    edges = matching._edges(x[:, 0].numel(), 3e-5, np.linspace(0.1, 0.9, 9))
    values = x.transpose(0, 1).flatten(1).sort(dim=-1, stable=True).values
    means = torch.stack([values[:, a:b].mean(1) for a, b in pairwise(edges)], 1)
    (wanted,) = torch.autograd.grad((means * weight).sum(), x)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-12)


def test_gradients_of_modes_and_products():
    s = matching.Spectra(8, PIXEL, "cpu")
    s.window, s.binning, s.sectors = (t.double() for t in (s.window, s.binning, s.sectors))
    x = draw(2, batch=2, n=8).double().requires_grad_(True)

    def spectra_of(y):
        modes = matching._Modes.apply(y * s.window)
        return 1e6 * s.pairs(modes), 1e6 * s.by_angle(modes[:, 1:])

    assert torch.autograd.gradcheck(spectra_of, (x,))


def test_conditional_quantiles_follow_the_condition():
    condition = draw(1)
    noise = 0.01 * draw(1, seed=3)
    got = matching.conditional_quantiles(condition, torch.cat([condition**3 + noise, noise], 1))
    assert got.shape[:2] == (2, 8)
    ranks = np.sort(condition.numpy().ravel()).reshape(8, -1)
    # bins weigh tails more: the outer groups have long ones
    middle = slice(1, -1)
    np.testing.assert_allclose(
        got[0].mean(1)[middle], (ranks**3).mean(1)[middle], rtol=0.2, atol=0.005
    )
    assert (got[0].diff(dim=0) > 0).all()
    assert got[1].mean(1).abs().max() < 1e-3


def test_running_averages():
    match = matching.Matching(lambda c, x: {"a": ("quantile", x.mean())}, {"a": 1.0}, memory=0.25)
    one = torch.ones(1)
    match(one, 4 * one, 8 * one)
    match(one, 8 * one, 8 * one)
    assert match.running["fake.a"].item() == pytest.approx(0.75 * 4 + 0.25 * 8)
    assert match.running["real.a"].item() == 8
    match(one, math.nan * one, 8 * one)
    assert match.running["fake.a"].item() == pytest.approx(5)
    total, _ = match(one, 8 * one, 8 * one)
    assert torch.isfinite(total)


def test_tail_means_are_those_of_the_highest_pixels():
    condition, fields = draw(1), draw(3, seed=1).abs()
    made = matching.tail_means(condition, fields)
    order = condition.reshape(-1).argsort(descending=True)
    flat = fields.transpose(0, 1).flatten(1)[:, order]
    edges = [0, *(round(fraction * flat.shape[1]) for fraction in matching.TAIL_FRACTIONS[::-1])]
    expected = [flat[:, a:b].mean(1) for a, b in pairwise(edges)]
    torch.testing.assert_close(made, torch.stack(expected, 1), rtol=FLOAT32, atol=0)
