"""mlsky.haloes.covariance_factor: the joint draw of densities and velocities, against integrals."""

from __future__ import annotations

import numpy as np
import pytest
from halo_cases import shipped

from mlsky.haloes import covariance_factor, tables
from mlsky.theory import halo_model

#: Sums over k in the covariance, 0.0005/Mpc apart, and P(k) interpolated in 600 points.
MIXING = 5e-3
#: All shells together against Limber's approximation, which leaves out that the edges of
#: neighbours share structure: 1 % at most was found for 55 < ell < 3000.
LIMBER = 0.015
#: Correlations change by this where the covariance of close shells is not positive.
CLIPPED = 0.01


def spectrum(i: int, j: int, number: int) -> float:
    """Power of two rows of the factor of the covariance at its multipole `number`."""
    matrix = covariance_factor.covariance_factor(shipped())[1]
    return float(matrix[number, i].astype(float) @ matrix[number, j].astype(float))


@pytest.mark.parametrize("number", [10, 30])
def test_velocity_power_is_its_integral(number):
    t = shipped()
    ell = covariance_factor.covariance_factor(t)[0][number]
    for slice_ in (40, 100):
        low, high = t["slice_edges"][slice_ : slice_ + 2].astype(float)
        chi, width = (low + high) / 2, high - low

        k_par = np.arange(2.5e-5, 1, 5e-5)
        k = np.hypot(ell / chi, k_par)
        power = np.exp(np.interp(np.log(k), np.log(t["k"]), np.log(t["p_k"])))
        power *= np.exp(-((k * halo_model.SMOOTHING_MPC) ** 2))
        window = np.sinc(k_par * width / 2 / np.pi) ** 2
        whole = (power * (k_par / k**2) ** 2 * window).sum() * 5e-5 / np.pi
        amplitude = t["slice_growth"][slice_] * t["slice_velocity"][slice_] / chi
        row = len(t["z"]) + slice_
        assert spectrum(row, row, number) == pytest.approx(whole * amplitude**2, rel=MIXING)


def test_densities_have_the_power_of_the_shells():
    t = shipped()
    ell, matrix = covariance_factor.covariance_factor(t)
    weight = t["linear_kappa"].astype(float)
    for number in (15, 30, 45):
        rows = matrix[number, : len(weight)].astype(float)
        together = ((weight @ rows) ** 2).sum()
        limber = [np.interp(np.log(ell[number]), np.log(t["ell"]), p) for p in t["p_shell"]]
        assert together == pytest.approx((weight**2) @ limber, rel=LIMBER)


def test_matter_falls_onto_what_is_dense():
    # Positive velocities recede: before an overdense shell (nearer) they do, behind it approach.
    t = shipped()
    shell, number = 20, 5
    first = len(t["z"]) + int(t["slices"][:shell].sum())
    last = first + int(t["slices"][shell]) - 1
    norm = np.sqrt(spectrum(shell, shell, number))
    before, behind = (
        spectrum(shell, row, number) / norm / np.sqrt(spectrum(row, row, number))
        for row in (first - 1, last + 1)
    )
    assert before > 0.2
    assert behind < -0.2


def test_mixing_is_kept_and_mended(tmp_path, monkeypatch):
    calls = []

    def small(t, ell):
        calls.append(1)
        return np.full((len(ell), 1, 1), 2, np.float32)

    monkeypatch.setattr(covariance_factor, "_factor", small)
    monkeypatch.setenv("MLSKY_CACHE_DIR", str(tmp_path))
    first = covariance_factor.covariance_factor(shipped())
    assert np.array_equal(first[1], covariance_factor.covariance_factor(shipped())[1])
    assert len(calls) == 1
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(b"damaged")
    assert np.array_equal(first[1], covariance_factor.covariance_factor(shipped())[1])
    assert len(calls) == 2
    # Another cosmology has a matrix of its own.
    covariance_factor.covariance_factor({**shipped(), "p_k": shipped()["p_k"] * 1.1})
    assert len(list(tmp_path.iterdir())) == 2


def test_mixing_does_without_a_cache(tmp_path, monkeypatch, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setattr(
        covariance_factor, "_factor", lambda t, ell: np.zeros((len(ell), 1, 1), np.float32)
    )
    monkeypatch.setenv("MLSKY_CACHE_DIR", str(blocked))
    assert covariance_factor.covariance_factor(shipped())[1].shape == (52, 1, 1)
    assert "not kept" in caplog.text


def test_other_tables_of_the_same_cosmology_share_the_matrix(tmp_path, monkeypatch):
    # What is painted on the densities is no concern of theirs.
    monkeypatch.setattr(
        covariance_factor, "_factor", lambda t, ell: np.ones((len(ell), 1, 1), np.float32)
    )
    monkeypatch.setenv("MLSKY_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tables, "FORMAT", 99)
    covariance_factor.covariance_factor(shipped())
    covariance_factor.covariance_factor(
        {**shipped(), "central_uk_sr": 2 * shipped()["central_uk_sr"], "header": {}}
    )
    assert len(list(tmp_path.iterdir())) == 1


def test_covariance_is_what_the_matrix_mixes_to():
    ell, matrix = covariance_factor.covariance_factor(shipped())
    number = 20
    covariance = covariance_factor.covariance(shipped(), ell[[number]])[0]
    assert np.array_equal(covariance, covariance.T)
    factor = matrix[number].astype(float)
    rms = np.sqrt(np.diag(covariance))
    alive = rms > 1e-12 * rms.max()
    found = (factor @ factor.T)[np.ix_(alive, alive)]
    scale = np.outer(rms[alive], rms[alive])
    assert found / scale == pytest.approx(covariance[np.ix_(alive, alive)] / scale, abs=CLIPPED)


def test_the_factor_is_that_of_any_eigenvectors(monkeypatch):
    """A library, or its number of threads, decides their signs; regions must not follow it."""
    t, ell = shipped(), np.array([300.0])
    usual, eigh = covariance_factor._factor(t, ell), np.linalg.eigh

    def flipped(matrix):
        values, vectors = eigh(matrix)
        return values, vectors * np.where(np.arange(len(values)) % 3, 1, -1)

    monkeypatch.setattr(np.linalg, "eigh", flipped)
    other = covariance_factor._factor(t, ell)
    np.testing.assert_allclose(other, usual, rtol=1e-5, atol=1e-6 * np.abs(usual).max())
