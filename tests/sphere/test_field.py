"""mlsky.sphere.field: values anywhere against ducc0's own non-uniform transform."""

from __future__ import annotations

import ducc0
import healpy
import numpy as np
import pytest

from mlsky.sphere.charts import charts
from mlsky.sphere.field import Field, _kernel, _synthesise

#: Error of the sampler over the rms of the field: stated 5e-5 rms, and six times that in
#: the worst of thousands of points.
FIELD_RMS, FIELD_MAX = 1e-4, 5e-4

#: Worst rounding in single precision of the grid and of 36 products, over the rms of the field.
ROUNDING = 5e-6


def white_alm(lmax: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = healpy.Alm.getsize(lmax)
    alm = (rng.standard_normal(n) + 1j * rng.standard_normal(n)) / np.sqrt(2)
    alm[: lmax + 1] = alm[: lmax + 1].real * np.sqrt(2)
    return alm


def synthesis(alm: np.ndarray, theta, phi) -> np.ndarray:
    """The field at any points, by ducc0's own non-uniform transform in double precision."""
    lmax = healpy.Alm.getlmax(alm.size)
    loc = np.stack([np.ravel(theta), np.ravel(phi)], axis=1)
    return ducc0.sht.synthesis_general(
        alm=alm[None], spin=0, lmax=lmax, loc=loc, epsilon=1e-10, nthreads=1
    )[0]


def exact_spin(alm, spin, lmax, theta, phi):
    """Both parts of a field of E, or of E and B, at places, by ducc0."""
    both = np.concatenate([alm, np.zeros((2 - len(alm), alm.shape[1]))])
    return ducc0.sht.synthesis_general(
        alm=both,
        spin=spin,
        lmax=lmax,
        loc=np.stack([theta, phi], axis=1),
        epsilon=1e-10,
        nthreads=1,
    )


@pytest.mark.parametrize("lmax", [0, 1, 5, 400])
def test_field_is_exact_everywhere(lmax):
    alm = white_alm(lmax)
    rng = np.random.default_rng(1)
    theta = np.concatenate([np.arccos(rng.uniform(-1, 1, 5000)), [0, 0, np.pi, 1e-9, 1.0]])
    phi = np.concatenate([rng.uniform(0, 2 * np.pi, 5000), [0, 2, 5, 3, 2 * np.pi]])
    exact = synthesis(alm, theta, phi)
    rms = np.sqrt((2 * np.arange(lmax + 1) + 1).sum() / (4 * np.pi))
    error = Field(alm)(theta, phi) - exact
    assert np.std(error) < FIELD_RMS * rms
    assert np.abs(error).max() < FIELD_MAX * rms


@pytest.mark.parametrize("colatitude", [None, (1.2, 1.5), (0.0, 1.0)])
@pytest.mark.parametrize("rows", [1, 2])
def test_vectors_are_exact_everywhere(rows, colatitude):
    """A gradient, and one with a curl: near the poles, where axes turn, and in a range."""
    lmax = 300
    alm = np.stack([white_alm(lmax, 6), white_alm(lmax, 7)])[:rows]
    alm[:, 0] = 0  # spin 1 has no monopole
    rng = np.random.default_rng(1)
    low, high = colatitude or (0.0, np.pi)
    theta = np.concatenate([rng.uniform(low, high, 3000), low + rng.uniform(0, 0.02, 500)])
    phi = rng.uniform(0, 2 * np.pi, theta.size)
    exact = exact_spin(alm, 1, lmax, theta, phi)
    error = (Field(alm, spin=1, colatitude=colatitude)(theta, phi) - exact) / exact.std()
    assert np.std(error) < FIELD_RMS
    assert np.abs(error).max() < FIELD_MAX


@pytest.mark.parametrize("rows", [1, 2])
def test_polarisation_is_exact_everywhere(rows):
    """Against ducc0, near the poles too, where Q and U turn fastest; E alone, or E and B."""
    lmax = 200
    alm = np.stack([white_alm(lmax, 4), white_alm(lmax, 5)])[:rows]
    for row in alm:
        row[[0, 1, lmax + 1]] = 0  # spin 2 has no monopole and no dipole
    rng = np.random.default_rng(1)
    theta = np.concatenate([np.arccos(rng.uniform(-1, 1, 3000)), rng.uniform(0, 0.02, 500)])
    phi = rng.uniform(0, 2 * np.pi, theta.size)
    exact = exact_spin(alm, 2, lmax, theta, phi)
    values = Field(alm, spin=2)(theta, phi)
    assert values.shape == (2, theta.size)
    error = (values - exact) / exact.std()
    assert np.std(error) < FIELD_RMS
    assert np.abs(error).max() < FIELD_MAX


def test_field_on_a_chart_over_the_pole():
    alm = white_alm(300, 2)
    field, chart = Field(alm), charts(8.0)[15]
    values = field.on(chart)
    assert values.dtype == np.float32
    assert values.shape == chart.shape
    assert np.array_equal(values, field(*chart.angles()))
    assert values.ravel() == pytest.approx(synthesis(alm, *chart.angles()), abs=0.1)


def test_several_fields_are_as_each_of_them():
    alm = np.stack([white_alm(150, seed) for seed in (4, 5, 6)])
    chart = charts(12.0)[70]
    together = Field(alm).on(chart)
    assert together.shape == (3, *chart.shape)
    for values, one in zip(together, alm, strict=True):
        np.testing.assert_array_equal(values, Field(one).on(chart))


def test_field_has_the_same_bits_for_any_threads():
    alm = white_alm(700, 3)
    one, two = Field(alm, nthreads=1), Field(alm, nthreads=2)
    chart = charts(4.0)[15]
    assert np.array_equal(one.on(chart), two.on(chart))


@pytest.mark.parametrize("shape", [(5,), (2, 4), (0,), (0, 3), (1, 1, 3)])
def test_field_refuses_alm_of_no_lmax(shape):
    with pytest.raises(ValueError, match=r"alm of shape"):
        Field(np.zeros(shape, complex))


@pytest.mark.parametrize("nthreads", [2, 3])
def test_the_grid_has_the_same_bits_for_any_threads(nthreads):
    """Shares of transforms that do not fill vector registers, which round differently."""
    alm, transform = white_alm(540), _kernel()[1]
    one, other = (
        _synthesise(np.ascontiguousarray(alm[np.newaxis]), 540, transform, n, 0)[0][0]
        for n in (1, nthreads)
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("colatitude", [(0.0, 0.4), (0.9, 1.3), (1.5, 1.7), (2.6, np.pi)])
@pytest.mark.parametrize("spin", [0, 1, 2])
def test_a_range_of_a_local_field_has_the_same_bits(colatitude, spin):
    alm = white_alm(400, 3)
    alm = {0: alm, 1: alm[np.newaxis], 2: np.stack([alm, 0.3 * alm])}[spin]
    whole = Field(alm, spin=spin, local=True)
    part = Field(alm, spin=spin, colatitude=colatitude, local=True, nthreads=2)
    theta = np.linspace(*colatitude, 500)
    phi = np.linspace(0, 40, 500) % (2 * np.pi)
    np.testing.assert_array_equal(part(theta, phi), whole(theta, phi))
    assert part._grids[0].size < 0.6 * whole._grids[0].size
    outside = 1.8 if colatitude[0] < 1 else 0.2
    with pytest.raises(ValueError, match="this field was made for"):
        part(outside, 0.0)


@pytest.mark.parametrize("spin", [0, 1, 2])
@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize(
    ("colatitude", "rows"), [((0.9, 1.3), 1), ((0.0, 0.4), 1), ((0.3, 2.8), 2), (None, 2)]
)
def test_few_rows_and_all_have_the_same_values(monkeypatch, colatitude, rows, local, spin):
    """Where they are few, their own rings alone are transformed."""
    alm = white_alm(400, 3)
    alm = {0: alm, 1: alm[np.newaxis], 2: np.stack([alm, 0.3 * alm])}[spin]
    expected = Field(alm, spin=spin)
    transformed, alm2leg = [0], ducc0.sht.alm2leg

    def counts(**options):
        if options["mval"][0] == 0:
            transformed[0] += len(options["theta"])
        return alm2leg(**options)

    monkeypatch.setattr(ducc0.sht, "alm2leg", counts)
    part = Field(alm, spin=spin, colatitude=colatitude, local=local)
    assert transformed[0] <= rows * 402
    theta = np.linspace(*(colatitude or (0, np.pi)), 500)
    phi = np.linspace(0, 40, 500) % (2 * np.pi)
    values = expected(theta, phi)
    np.testing.assert_allclose(part(theta, phi), values, atol=ROUNDING * values.std())
