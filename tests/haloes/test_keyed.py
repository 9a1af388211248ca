"""mlsky.haloes.keyed: random numbers as functions of integers, on torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from mlsky import seeds
from mlsky.haloes import keyed

N = 200_000
#: Lowest probability of a test of a distribution; the seeds are fixed.
P_VALUE = 1e-3


def start(seed: int = 3) -> int:
    # as `seeds.uniform` starts; at most 63 bits are needed of a key
    state = seeds.sequence(seed, "truth").generate_state(1, np.uint64)[0]
    return int(state.astype(np.int64))


@pytest.mark.parametrize("number", [0, 1, 12345, 2**40])
def test_bits_are_those_of_the_library(number):
    first = torch.arange(50)
    ours = keyed.double(keyed.keys(start(), first), number).numpy()
    assert np.array_equal(ours, seeds.uniform(3, "truth", first.numpy(), number))


@pytest.mark.parametrize("draw", [keyed.uniform, keyed.double])
def test_uniform_numbers(draw):
    a, b = (draw(keyed.keys(start(), torch.arange(N)), quantity) for quantity in (0, 1))
    for x in (a, b):
        assert float(x.min()) > 0
        assert float(x.max()) < 1
        assert stats.kstest(x.double().numpy(), "uniform").pvalue > P_VALUE
    assert abs(np.corrcoef(a.numpy(), b.numpy())[0, 1]) < 4 / np.sqrt(N)


def test_no_number_is_zero_or_one(monkeypatch):
    """Of the lowest and the highest bits there are."""
    for bits in (0, -1):
        monkeypatch.setattr(keyed, "keys", lambda key, quantity, bits=bits: key * 0 + bits)
        for draw in (keyed.uniform, keyed.double):
            assert 0 < float(draw(torch.zeros(1, dtype=torch.int64), 0)) < 1
        assert torch.isfinite(keyed.normal(torch.zeros(1, dtype=torch.int64), 0)).all()


def test_normal_numbers():
    x = keyed.normal(keyed.keys(start(4), torch.arange(N)), 2)
    assert stats.kstest(x.double().numpy(), "norm").pvalue > P_VALUE
    assert x.dtype == torch.float32


def test_numbers_within():
    counts = torch.tensor([2, 0, 3, 1])
    assert keyed.numbers_within(counts).tolist() == [0, 1, 0, 1, 2, 0]
    assert keyed.numbers_within(torch.tensor([], dtype=torch.int64)).tolist() == []
