"""Average log likelihoods: scipy's density, and the closed form for Gaussians."""

from __future__ import annotations

import numpy as np
import pytest

from mlsky import seeds
from mlsky.statistics.likelihood import LogLikelihood, average

SIGMAS = 4.0  # sampling errors


def _expected(
    mean: np.ndarray, covariance: np.ndarray, of_mean: np.ndarray, of_covariance: np.ndarray
) -> float:
    """The average over a Gaussian (`of_mean`, `of_covariance`) of the ln p of another one.

    -(d ln 2 pi + ln |C| + tr C^-1 C' + (m' - m)' C^-1 (m' - m)) / 2.
    """
    shift = np.asarray(of_mean) - mean
    inner = np.linalg.solve(covariance, np.asarray(of_covariance) + np.outer(shift, shift))
    log_det = np.linalg.slogdet(covariance)[1]
    return float(-0.5 * (len(shift) * np.log(2 * np.pi) + log_det + np.trace(inner)))


def _noise(seed, *shape):
    return seeds.generator(seed, "truth").standard_normal(shape)


def test_scipy():
    from scipy.stats import multivariate_normal

    fit = _noise(1, 400, 4) @ _noise(2, 4, 4) * [1, 30, 0.1, 1]
    other = fit[::-1][:50] * 1.1
    law = multivariate_normal(fit.mean(0), np.cov(fit, rowvar=False))
    assert average(fit, other) == pytest.approx(law.logpdf(other).mean(), rel=1e-8)


def test_gaussians_in_closed_form():
    root, shift, d, areas, each = _noise(3, 3, 3), np.array([0.2, 0, -0.1]), 3, 40, 250
    stream = LogLikelihood()
    for area in range(areas):
        true = _noise(100 + area, each, d) @ root
        made = 0.8 * _noise(300 + area, each, d) @ root + shift
        stream.update(true, made, area)
    found = stream.compute()
    covariance = root.T @ root
    for name, goal in (
        ("true", _expected(np.zeros(d), covariance, np.zeros(d), covariance)),
        ("generated", _expected(np.zeros(d), covariance, shift, 0.64 * covariance)),
    ):
        error = found[name]["error"]
        assert error < 0.03
        assert abs(found[name]["value"] - goal) < SIGMAS * error
    assert found["difference"]["value"] > 0.1  # too alike among themselves
    difference = found["generated"]["value"] - found["true"]["value"]
    assert found["difference"]["value"] == pytest.approx(difference)


def test_what_it_refuses():
    good = _noise(4, 100, 3)
    with pytest.raises(ValueError, match="11 patches: a fit of 3 summaries needs at least 12"):
        average(good[:11], good)
    with pytest.raises(ValueError, match="summary 1: does not vary"):
        average(good * [1, 0, 1], good)
    stream = LogLikelihood()
    stream.update(good, good)
    with pytest.raises(ValueError, match="1 areas of the sky"):
        stream.compute()
    with pytest.raises(ValueError, match="generated summaries of shape"):
        stream.update(good, good[:, :2])


def test_rows_of_another_width_than_before_are_refused():
    scores = LogLikelihood()
    scores.update(np.ones((5, 3)), np.ones((5, 3)))
    with pytest.raises(ValueError, match="true summaries: 4 a patch, before there were 3"):
        scores.update(np.ones((5, 4)), np.ones((5, 4)))
