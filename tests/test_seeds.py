"""Random streams: reproducible, independent, and never numpy's global state."""

import numpy as np
import pytest

from mlsky import seeds

# Of splitmix64.c started at 1234567, as https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64
# gives them.
SPLITMIX = (
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
)
#: Of a distribution, below which a test of uniformity fails: once in 1e5 tests by chance.
P_LEAST = 1e-5
KAPPA_KEY = 4215923173971654960
CMB_WORD = 1964926791
CLUSTERS_UNIFORM = 0.7614044798044254


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


def test_mixing_is_that_of_the_published_generator():
    step = 0x9E3779B97F4A7C15
    states = [(1234567 + (n + 1) * step) % 2**64 for n in range(len(SPLITMIX))]
    mixed = seeds.mixed(np.array(states, np.uint64))
    assert mixed.tolist() == list(SPLITMIX)


def test_uniform_bits_are_fixed():
    # Integers and exact arithmetic: the same on every machine. A change here changes every sky.
    # The second is made by hand from the key of the stream: no numpy in between.
    step, mask = 0x9E3779B97F4A7C15, 2**64 - 1
    state = int(seeds.sequence(5, "sources").generate_state(1, np.uint64)[0])
    for number in (3, 2**64 - 1):
        z = (state + (number + 1) * step) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        state = z ^ (z >> 31)
    assert float(seeds.uniform(5, "sources", 3, np.uint64(2**64 - 1))) == (
        (2 * (state >> 12) + 1) * 2.0**-53
    )
    assert float(seeds.uniform(1, "clusters", 2, 3)) == CLUSTERS_UNIFORM


def test_uniform_broadcasts_and_each_number_is_its_own():
    rows, columns = np.arange(5)[:, None], np.arange(7)
    together = seeds.uniform(1, "sources", 2, rows, columns)
    assert together.shape == (5, 7)
    alone = seeds.uniform(1, "sources", 2, 4, np.int32(6))
    assert alone.shape == ()
    assert alone == together[4, 6]
    assert np.unique(together).size == 35
    assert seeds.uniform(1, "sources", np.arange(0)).shape == (0,)


@pytest.mark.parametrize(
    "integers",
    [
        (0, np.arange(2**18)),
        (np.arange(2**18), 0),
        (np.arange(2**9)[:, None], np.arange(2**9)),
        (7, np.arange(2**18) << 40),  # packed numbers whose low bits are all alike
        (np.arange(2**18) * 12345, 1, 2),
    ],
)
def test_uniform_is_uniform_and_independent(integers):
    from scipy import stats

    u = seeds.uniform(2, "sources", *integers).ravel()
    assert 0 < u.min()
    assert u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > P_LEAST
    # of neighbours in the list, of the next but one, and of the row above
    for lag in (1, 2, 512):
        cells = np.histogram2d(u[:-lag], u[lag:], 32, ((0, 1), (0, 1)))[0]
        assert stats.chisquare(cells.ravel()).pvalue > P_LEAST
    # the bits below the first sixteen
    fine = (u * 2**16) % 1
    assert stats.kstest(fine, "uniform").pvalue > P_LEAST


@pytest.mark.parametrize("other", [(3, "sources", 1), (2, "clusters", 1), (2, "sources", 2)])
def test_streams_of_integers_are_independent(other):
    from scipy import stats

    n = np.arange(2**18)
    one, two = seeds.uniform(2, "sources", 1, n), seeds.uniform(*other, n)
    cells = np.histogram2d(one, two, 32, ((0, 1), (0, 1)))[0]
    assert stats.chisquare(cells.ravel()).pvalue > P_LEAST


def test_normal_is_normal():
    from scipy import stats

    assert stats.kstest(seeds.normal(1, "sources", np.arange(10**5)), "norm").pvalue > P_LEAST


def test_poisson_is_the_inverse_distribution():
    from scipy import stats

    u = seeds.uniform(1, "sources", np.arange(4000))
    for mean in (1e-3, 0.3, 3.0, 80.0):
        expected = stats.poisson.isf(u, mean)
        np.testing.assert_array_equal(seeds.poisson(u, mean), expected)
    assert seeds.poisson(0.2, 0.0) == 0
    assert seeds.poisson([[1e-9]], [0.0, 2e-9]).tolist() == [[0, 1]]


def test_poisson_numbers_grow_with_their_mean():
    u = seeds.uniform(1, "sources", np.arange(10**5))
    mean = 3 * seeds.uniform(2, "sources", np.arange(10**5))
    less, more = seeds.poisson(u, mean), seeds.poisson(u, mean * 1.001)
    assert (more >= less).all()
    # the difference is Poisson too: five of its standard deviations
    expected = 1e-3 * mean.sum()
    assert abs((more - less).sum() - expected) < 5 * np.sqrt(expected)


@pytest.mark.parametrize(
    ("bad", "shown"),
    [(-1, "-1"), (0.5, "0.5"), (np.array([0, -2]), "-2"), ("a", "'a'"), ([], "d")],
)
def test_bad_integers(bad, shown):
    with pytest.raises(ValueError, match=f"number {shown}.*integers from 0"):
        seeds.uniform(1, "sources", 1, bad)


def test_no_integers():
    with pytest.raises(ValueError, match="must name what it draws"):
        seeds.uniform(1, "sources")


@pytest.mark.parametrize("bad", [-0.1, np.nan, np.inf])
def test_bad_mean(bad):
    with pytest.raises(ValueError, match="finite expected number >= 0"):
        seeds.poisson(0.5, [1.0, bad])


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
