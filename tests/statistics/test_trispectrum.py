"""Lensing reconstruction: sums done one by one, lensed, Gaussian and Poisson maps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlsky import seeds
from mlsky.statistics.trispectrum import Reconstruction

N, PIXEL = 48, 3.0
SIDE = math.radians(PIXEL / 60) * N
BAND, EDGES = (300, 2000), (160, 600, 1000, 1500)
ELL = np.arange(4000.0)
CL = 1 / (ELL + 200) ** 2.5
TOTAL = CL + 1e-9
EXACT = 1e-6  # the same sums in another order
SIGMAS = 4.0  # sampling errors


def _estimator():
    return Reconstruction(N, PIXEL, CL, TOTAL, BAND, EDGES)


def _gaussian(cl, maps, seed=11):
    ell = np.hypot(*_wave())
    root = np.sqrt(np.interp(ell, ELL, cl)) * N / SIDE  # white noise of unit variance per pixel
    root[0, 0] = 0
    white = seeds.generator(seed, "truth").standard_normal((maps, N, N))
    return np.fft.irfft2(np.fft.rfft2(white) * root, s=(N, N))


def _wave():
    step = 2 * np.pi / SIDE
    return np.fft.fftfreq(N, 1 / N)[:, None] * step, np.arange(N // 2 + 1)[None] * step


def _one_by_one(power):
    """(1 / A_L, sum of F, sum of 2 F^2 P P) at all L in the bands, and the bands' indices."""
    step, reach = 2 * np.pi / SIDE, int(BAND[1] * SIDE / (2 * np.pi)) + 1
    axis = np.arange(-reach, reach + 1) * step
    lx, ly = (x.ravel() for x in np.meshgrid(axis, axis))
    ell = np.hypot(lx, ly)
    inside = (ell >= BAND[0]) & (ell < BAND[1])
    lx, ly, ell = lx[inside], ly[inside], ell[inside]
    rows = []
    for a in np.arange(-9, 10) * step:
        for b in np.arange(-9, 10) * step:
            big = math.hypot(a, b)
            if not EDGES[0] <= big < EDGES[-1]:
                continue
            other = np.hypot(a - lx, b - ly)
            good = (other >= BAND[0]) & (other < BAND[1])
            c1, c2 = (np.interp(x[good], ELL, CL) for x in (ell, other))
            t1, t2 = (np.interp(x[good], ELL, TOTAL) for x in (ell, other))
            p1, p2 = (np.interp(x[good], ELL, power) for x in (ell, other))
            along = a * lx[good] + b * ly[good]
            f = c1 * along + c2 * (big**2 - along)
            weight = f / (2 * t1 * t2)
            norm = 1 / ((f * weight).sum() / SIDE**2)
            sums = (weight.sum() / SIDE**2, (2 * weight**2 * p1 * p2).sum() / SIDE**2)
            rows.append((big, norm, *sums))
    big, norm, plain, double = np.array(rows).T
    half = big**2 / 2
    which = np.digitize(big, EDGES) - 1
    return [
        np.array([x[which == i].mean() for i in range(len(EDGES) - 1)])
        for x in (half**2 * norm**2 * double, (half * norm * plain) ** 2)
    ]


@pytest.mark.parametrize("power", [TOTAL, 1e-7 + 0 * ELL], ids=["its own", "white"])
def test_the_gaussian_part_is_the_sum_over_pairs_of_modes(power):
    estimator = _estimator()
    m = estimator._m
    k = np.hypot(np.fft.fftfreq(m, 1 / m)[:, None], np.arange(m // 2 + 1)[None]) * 2 * np.pi / SIDE
    found = estimator.gaussian(np.interp(k, ELL, power))
    np.testing.assert_allclose(found, _one_by_one(power)[0], rtol=EXACT)
    if power is TOTAL:
        np.testing.assert_allclose(estimator.gaussian(), found, rtol=EXACT)


def test_gaussian_maps_have_the_gaussian_part_only():
    estimator, maps = _estimator(), 400
    found = estimator(_gaussian(TOTAL, maps))
    expected = estimator.gaussian()
    error = found["auto"].std(0) / math.sqrt(maps)
    assert (error < 0.05 * expected).all()
    assert (np.abs(found["auto"].mean(0) - expected) < SIGMAS * error).all()
    excess = estimator.compute({k: v.mean(0) for k, v in found.items()})["trispectrum"]
    assert (np.abs(excess) < SIGMAS * error).all()


def test_lensed_maps_give_kappa():
    """To first order in the deflection the mean cross power with the true kappa is its own."""
    estimator, maps = _estimator(), 400
    cmb = _gaussian(CL, maps)
    kappa = _gaussian(1e-7 / (1 + (ELL / 800) ** 2), maps, seed=12)
    ky, kx = _wave()
    kappa_modes = np.fft.rfft2(kappa)
    with np.errstate(divide="ignore", invalid="ignore"):
        phi = np.where(kx**2 + ky**2 > 0, 2 * kappa_modes / (kx**2 + ky**2), 0)
    modes, lensed = np.fft.rfft2(cmb), cmb.copy()
    for k in (kx, ky):
        lensed += np.fft.irfft2(1j * k * phi, s=(N, N)) * np.fft.irfft2(1j * k * modes, s=(N, N))
    found = estimator(lensed, kappa)
    means = {k: v.mean(0) for k, v in found.items()}
    error = (found["cross"] - found["kappa"]).std(0) / math.sqrt(maps) / means["kappa"]
    ratio = estimator.compute(means)["bispectrum"]
    assert (error < 0.08).all()
    assert (np.abs(ratio - 1) < SIGMAS * error).all()


def test_sources_have_their_trispectrum():
    """Of points of one flux the connected four-point function is one number."""
    estimator, maps, rate = _estimator(), 1500, 0.004
    pixel = SIDE / N
    points = seeds.generator(12, "truth").poisson(rate, (maps, N, N)).astype(float)
    found = estimator(points)
    means = {k: v.mean(0) for k, v in found.items()}
    expected = _one_by_one(TOTAL)[1] * rate * pixel**6
    error = found["auto"].std(0) / math.sqrt(maps)
    excess = estimator.compute(means)["trispectrum"]
    assert (error[1:] < 0.04 * expected[1:]).all()
    assert (np.abs(excess - expected) < SIGMAS * error).all()


def test_what_it_refuses():
    estimator = _estimator()
    with pytest.raises(ValueError, match="must be images of 48 x 48 pixels"):
        estimator(np.zeros((2, 32, 32)))
    bad = np.zeros((48, 48))
    bad[3, 3] = np.nan
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        estimator(bad)
    with pytest.raises(ValueError, match="must be of one shape"):
        estimator(np.zeros((3, 48, 48)), np.zeros((2, 48, 48)))
    with pytest.raises(ValueError, match=r"band=\(300, 5000\): must rise"):
        Reconstruction(N, PIXEL, CL, TOTAL, (300, 5000), EDGES)
    with pytest.raises(ValueError, match="holds no mode"):
        Reconstruction(N, PIXEL, CL, TOTAL, BAND, (10, 20, 400))
