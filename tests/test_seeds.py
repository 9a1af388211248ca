"""Random streams: reproducible, independent, and never numpy's global state."""

import numpy as np
import pytest

from mlsky import seeds

KAPPA_KEY = 4215923173971654960
CMB_WORD = 1964926791


def test_same_key_gives_the_same_numbers():
    one = seeds.generator(3, "kappa", 7).standard_normal(100)
    two = seeds.generator(3, "kappa", 7).standard_normal(100)
    np.testing.assert_array_equal(one, two)


def test_bits_are_fixed():
    # Recorded from numpy 2.4; numpy promises them for SeedSequence and Philox. A change
    # here changes every sky ever made.
    assert seeds.integer(1, "kappa") == KAPPA_KEY
    assert seeds.generator(1, "cmb", 2).integers(2**32) == CMB_WORD


@pytest.mark.parametrize(
    "other", [(2, "kappa", 7), (1, "cmb", 7), (1, "kappa", 8), (1, "kappa"), (1, "kappa", 7, 0)]
)
def test_streams_are_uncorrelated(other):
    n = 20_000
    a = seeds.generator(1, "kappa", 7).standard_normal(n)
    b = seeds.generator(*other).standard_normal(n)
    # 5 standard errors of a correlation coefficient
    assert abs(np.mean(a * b)) < 5 / np.sqrt(n)


def test_field_numbers_are_unique():
    assert len(set(seeds.FIELDS.values())) == len(seeds.FIELDS)


def test_integer_has_63_bits():
    keys = [seeds.integer(seed, "network") for seed in range(200)]
    assert len(set(keys)) == 200
    assert 0 <= min(keys) <= max(keys) < 2**63
    assert max(keys) > 2**61


def test_global_state_is_left_alone():
    before = np.random.get_state()  # noqa: NPY002
    seeds.generator(1, "kappa").standard_normal(10)
    after = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(before[1], after[1])


@pytest.mark.parametrize("seed", [-1, 1.0, "1", None, True, np.float64(2)])
def test_bad_seed(seed):
    with pytest.raises(ValueError, match=r"seed=.*must be an integer >= 0"):
        seeds.generator(seed, "kappa")


def test_bad_seed_names_its_argument():
    with pytest.raises(ValueError, match=r"cmb_seed=-3"):
        seeds.check(-3, "cmb_seed")


def test_bad_field():
    with pytest.raises(ValueError, match=r"field='dust'.*kappa"):
        seeds.generator(1, "dust")


def test_numpy_integers_are_seeds():
    assert seeds.check(np.int64(5)) == 5
    assert seeds.integer(np.uint8(5), "truth") == seeds.integer(5, "truth")
