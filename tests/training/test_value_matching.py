"""mlsky.training.value_matching: gains and maps of values give power and values of the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlsky.networks import evaluate
from mlsky.training import value_matching
from mlsky.training.matching import Spectra

N = 128
#: Ranks of a million numbers: their values near the median; the rarest share has 3 of them.
VALUE = 0.01
#: Of bands above the first three, which have few modes and follow those after them: two such sets
#: of maps differ by 2 %. Before it all, bands are off by more than three times this.
POWER, FROM = 0.05, 3


def test_values_are_matched_by_rank():
    rng = np.random.default_rng(3)
    truth = rng.lognormal(2, 1, (4, 500, 500)).astype(np.float32)
    made = rng.lognormal(2, 1, (4, 500, 500)).astype(np.float32) ** 1.1
    table = value_matching._match_ranks([m.ravel() for m in made], [m.ravel() for m in truth])
    assert np.all(np.diff(table["from"]) > 0)
    assert np.all(np.diff(table["to"]) >= 0)
    start, target = table["from"], table["to"]
    mapped = evaluate._polygon(torch.from_numpy(made), start, target).numpy()
    for fraction in (0.01, 0.3, 0.5, 0.9, 0.99):
        a, b = np.quantile(mapped, fraction), np.quantile(truth, fraction)
        assert a == pytest.approx(b, rel=VALUE), fraction
    # a polygon, and its last side beyond the ends
    inside = np.geomspace(start[0], start[-1], 200)
    x = torch.from_numpy(inside.astype(np.float32))
    expected = np.interp(inside, start, target)
    assert evaluate._polygon(x, start, target).numpy() == pytest.approx(expected, rel=1e-4)
    slope = (target[-1] - target[-2]) / (start[-1] - start[-2])
    far = evaluate._polygon(torch.tensor([2 * start[-1]]), start, target)
    assert float(far) == pytest.approx(target[-1] + slope * start[-1], rel=1e-4)


def test_values_near_zero_give_nodes_that_grow():
    """Nodes are written to four decimals, which no two may share."""
    made = np.random.default_rng(5).lognormal(0, 0.1, 10_000).astype(np.float32) * 2e-3
    table = value_matching._match_ranks([made], [made])
    assert len(table["from"]) >= 2
    assert np.all(np.diff(table["from"]) > 0)


def lognormal(rng, slope: float) -> torch.Tensor:
    """A skewed, periodic map (N, N) whose Gaussian has power l^-slope."""
    k = np.hypot(np.fft.fftfreq(N)[:, None], np.fft.rfftfreq(N)[None])
    k[0, 0] = 1
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((N, N))) * k ** (-slope / 2))
    return torch.from_numpy(10 * np.exp(0.8 * field / field.std())).float()


def test_power_and_values_of_the_cib_are_both_matched():
    rng = np.random.default_rng(4)
    truth = [lognormal(rng, 0.5) for _ in range(40)]
    made = [1.1 * lognormal(rng, 0.3) for _ in range(40)]
    table = value_matching.match_values(made, truth, 0.5)
    assert np.ptp(table["gain"]) > 0.05
    after = [evaluate.calibrated(m, 0.5, table) for m in made]
    spectra = Spectra(N, 0.5, "cpu", 12)
    power = [
        sum(spectra.pairs(spectra.modes((m - m.mean())[None, None]))[0, 0] for m in maps)
        for maps in (after, truth, made)
    ]
    before = (power[2] / power[1] - 1).abs()
    assert before[FROM:].max() > 3 * POWER
    assert (power[0] / power[1] - 1).abs()[FROM:].max() < POWER
    for fraction in (0.01, 0.5, 0.99, 0.999):
        a, b = (
            torch.cat([m.flatten()[::8] for m in maps]).quantile(fraction)
            for maps in (after, truth)
        )
        assert float(a) == pytest.approx(float(b), rel=3 * VALUE), fraction
    assert min(m.min() for m in after) >= 0


def test_a_gain_of_one_changes_nothing():
    x = lognormal(np.random.default_rng(5), 0.5)
    same = evaluate.filtered(x, 0.5, {"ell": [100.0, 20000.0], "gain": [1.0, 1.0]})
    assert torch.allclose(same, x, rtol=1e-5, atol=1e-4)
    # ... and modes are multiplied by that of their multipole: a plane wave of known ell
    waves = torch.cos(2 * torch.pi * 16 * torch.arange(N) / N).expand(N, N)
    ell = 16 * 21600 * 2 / N
    table = {"ell": [ell - 10, ell + 10], "gain": [1.2, 1.4]}
    assert torch.allclose(evaluate.filtered(waves, 0.5, table), 1.3 * waves, atol=1e-4)


def test_power_of_both_signs_is_matched():
    """kSZ keeps its sign: a gain alone, no map of values."""
    rng = np.random.default_rng(6)
    truth = [lognormal(rng, 0.5) - 14 for _ in range(40)]
    made = [0.9 * (14 - lognormal(rng, 0.3)) for _ in range(40)]
    table = value_matching.match_power(made, truth, 0.5)
    assert sorted(table) == ["ell", "gain"]
    after = [evaluate.filtered(m, 0.5, table) for m in made]
    spectra = Spectra(N, 0.5, "cpu", 12)
    power = [
        sum(spectra.pairs(spectra.modes((m - m.mean())[None, None]))[0, 0] for m in maps)
        for maps in (after, truth)
    ]
    assert (power[0] / power[1])[FROM:].numpy() == pytest.approx(1, abs=POWER)
