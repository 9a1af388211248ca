"""Scattering coefficients: against kymatio, where it is installed, and convolutions in space."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from mlsky import seeds
from mlsky.statistics.scattering import Scattering, morlet

EXACT = 1e-4  # single precision
SIGMAS = 4.0  # sampling errors


def _images(count, n, seed=3):
    return np.exp(seeds.generator(seed, "truth").standard_normal((count, n, n)))


def test_kymatio():
    """The same coefficients, averaged over the image instead of near each pixel."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an old package
        kymatio = pytest.importorskip("kymatio")
        assert kymatio.__version__ == "0.3.0"
        from kymatio.scattering2d.backend.numpy_backend import backend
        from kymatio.scattering2d.core.scattering2d import scattering2d
        from kymatio.scattering2d.filter_bank import filter_bank
    n, scales, angles = 32, 3, 4
    bank = filter_bank(n, n, scales, angles)
    for level, phi in enumerate(bank["phi"]["levels"]):
        phi[:] = 0
        phi[0, 0] = 1  # the mean
        bank["phi"]["levels"][level] = phi
    maps = _images(3, n)
    theirs = scattering2d(
        *(maps.astype(np.float32), _same, _same, backend, scales, angles),
        *(bank["phi"], bank["psi"], 2, "list"),
    )
    ours = Scattering(n, scales, angles)
    first, second = ours.coefficients(maps)
    for row in theirs[1:]:
        j, t = row["j"], row["theta"]
        mine = first[:, j[0], t[0]] if len(j) == 1 else second[:, ours.pairs.index(j), t[0], t[1]]
        np.testing.assert_allclose(mine, row["coef"].mean((-2, -1)), rtol=EXACT)
    assert len(theirs) == 1 + first[0].size + second[0].size


def _same(x):
    return x


def test_convolutions_in_space():
    """Without transforms: sums over pixels, at every pixel, of the largest wavelets."""
    n, angles = 16, 2
    field = _images(1, n)[0]
    estimator = Scattering(n, 2, angles)
    first, second = estimator.coefficients(field)
    psi = [[np.fft.ifft2(morlet(n, j, a, angles)) for a in (0.0, -math.pi / 2)] for j in (0, 1)]
    rolled = np.array([[np.roll(field, (-y, -x), (0, 1)) for x in range(n)] for y in range(n)])

    def modulus(rows, wavelet):
        turned = np.roll(wavelet[::-1, ::-1], (1, 1), (0, 1))  # of minus the distance
        return np.abs(np.tensordot(rows, turned, 2))

    for t in range(angles):
        inner = modulus(rolled, psi[0][t])
        assert first[0, t] == pytest.approx(inner.mean(), rel=EXACT)
        assert first[1, t] == pytest.approx(modulus(rolled, psi[1][t])[::2, ::2].mean(), rel=EXACT)
    assert second.shape == (1, 2, 2)


def test_white_gaussian_noise():
    """|x * psi| of noise is the length of two Gaussian numbers with the power of psi."""
    n, scales, angles = 64, 3, 2
    maps = seeds.generator(5, "truth").standard_normal((60, n, n))
    first, _ = Scattering(n, scales, angles).coefficients(maps)
    for j in range(scales):
        for t, angle in enumerate((0.0, -math.pi / 2)):
            psi = np.fft.ifft2(morlet(n, j, angle, angles))
            # mean modulus of independent Gaussian parts
            turn = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
            parts = (psi.real**2).sum() * np.cos(turn) ** 2 + (psi.imag**2).sum() * np.sin(
                turn
            ) ** 2
            expected = math.sqrt(math.pi / 2) * np.sqrt(parts).mean()
            mean = first[:, j, t]
            error = mean.std() / math.sqrt(len(maps))
            assert error < 0.01 * expected
            assert abs(mean.mean() - expected) < SIGMAS * error


def test_features():
    maps = _images(4, 32)
    estimator = Scattering(32, 3, 4)
    found = estimator.features(maps)
    assert found.shape == (4, len(estimator.names)) == (4, 3 + 3 * 3)
    turned = estimator.features(np.rot90(maps, axes=(1, 2)))
    np.testing.assert_allclose(turned, found, atol=0.05)  # pixels kept by the subsampling differ
    tripled = estimator.features(3 * maps)
    np.testing.assert_allclose(tripled[:, :3], found[:, :3] + math.log(3), rtol=1e-4)
    np.testing.assert_allclose(tripled[:, 3:], found[:, 3:], rtol=1e-4, atol=1e-4)
    one = estimator.features(maps[2])
    np.testing.assert_allclose(one, found[2], rtol=1e-4)


def test_what_it_refuses():
    with pytest.raises(ValueError, match="48 pixels a multiple of 2\\^scales"):
        Scattering(48, 5)
    with pytest.raises(ValueError, match="must be even"):
        Scattering(32, 3, 3)
    estimator = Scattering(32, 3)
    maps = _images(2, 32)
    maps[1] = 7
    with pytest.raises(ValueError, match="1 of 2 images are constant"):
        estimator.features(maps)
    maps[1, 0, 0] = np.nan
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        estimator.coefficients(maps)
    with pytest.raises(ValueError, match="must be images of 32 x 32 pixels"):
        estimator.coefficients(maps[:, :16, :16])
