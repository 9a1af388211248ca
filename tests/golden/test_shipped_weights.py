"""The weights that every first sky is made with: their fields on Gaussian kappa of theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mlsky import networks, seeds
from mlsky.painting import foregrounds
from mlsky.sphere.geometry import Healpix
from mlsky.theory import kappa_spectrum
from mlsky.toys import blobs
from mlsky.toys import comparison as blob_statistics
from mlsky.training import large_scale_fit
from mlsky.training.matching import Spectra
from mlsky.validation import scores

#: Pixels of a side and number of patches per weight file, and the nside that selects it.
CASES = {2.0: (256, 8, 1024), 0.5: (512, 4, 4096)}
#: D_3000 at 148 GHz, uK^2: best fit of ACT DR6 (Louis et al. 2025), sources left in below 7 mJy.
#: tSZ is clipped at -40 uK, since a few clusters rule so small an area: the painted truth has 2.3
#: to 2.5 then, at 0.5' and at 2', where unclipped it has 3.7.
D_3000 = {"ksz": 0.99, "tsz": 2.4, "cib": 10.8}
FACTOR = 1.5
#: CIB monopole of the painted truth, uK_CMB; the networks were within 2 %.
MEAN_CIB, CIB_TOLERANCE = 21.1, 0.05
#: Power of kappa over that of its start: 5 % off at most on held-out truth, sampling 3 %.
KAPPA_TOLERANCE = 0.12
#: All of 512 images had one blob, so 0.6 % may have another number (95 %); of 64 the share then
#: scatters by 0.01, and what is wanted is 4.5 of these below.
BLOB_IMAGES, ONE_BLOB = 64, 0.95


@pytest.fixture(scope="module", params=sorted(CASES))
def patches(request):
    """Fields (patches, 5, n, n), their Gaussian starts and the pixel size."""
    n, count, nside = CASES[request.param]
    weights = foregrounds.select("default", Healpix(nside))
    assert weights.pixel_arcmin == request.param
    pixel = math.radians(request.param / 60)
    cl = kappa_spectrum(foregrounds.kappa_lmax(weights))
    k = 2 * np.pi * np.hypot(np.fft.fftfreq(n, pixel)[:, None], np.fft.rfftfreq(n, pixel)[None])
    amplitude = np.sqrt(np.interp(k, np.arange(len(cl)), cl, right=0)) / pixel
    starts, maps = [], []
    for i in range(count):
        white = seeds.generator(8, "kappa", i).standard_normal((n, n))
        starts.append(np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=(n, n)).astype("f4"))
        maps.append(scores.generate(weights, starts[-1], 8, i))
    return np.array(maps), np.array(starts)[:, None], request.param


def _power(fields, pixel_arcmin):
    """Multipoles and mean auto spectra (fields, bins)."""
    spectra = Spectra(fields.shape[-1], pixel_arcmin, torch.device("cpu"), 24)
    fields = torch.from_numpy(fields - fields.mean((2, 3), keepdims=True))
    return spectra.ell, torch.diagonal(spectra.pairs(spectra.modes(fields))).t().numpy()


@pytest.mark.parametrize("pixel_arcmin", sorted(CASES))
def test_large_scales_are_completed_as_far_as_the_patches_lack_them(pixel_arcmin):
    weights = foregrounds.select("default", Healpix(CASES[pixel_arcmin][2]))
    table = weights.header["calibration"]["large_scales"]
    assert table["ell"][-1] == large_scale_fit.tsz_join(pixel_arcmin)[1]
    assert table["root"]["tsz"][-1] == 0
    assert all(any(table["root"][name]) for name in ("tsz", "ksz"))


def test_kappa_keeps_the_power_of_its_start(patches):
    maps, starts, pixel = patches
    ell, made = _power(maps[:, :1], pixel)
    _, start = _power(starts, pixel)
    band = (ell > 1200) & (ell < 0.7 * 10800 / max(pixel, 1))
    np.testing.assert_allclose(made[0, band] / start[0, band], 1, atol=KAPPA_TOLERANCE)


def test_power_at_3000_is_near_act(patches):
    maps, _, pixel = patches
    clipped = maps.copy()
    clipped[:, 2] = np.maximum(clipped[:, 2], scores.TSZ_CLIP)
    ell, power = _power(clipped, pixel)
    i = abs(ell - 3000).argmin()
    for name, observed in D_3000.items():
        d = ell[i] * (ell[i] + 1) / (2 * np.pi) * power[scores.FIELDS.index(name), i]
        expected = observed * (ell[i] / 3000) ** (1.0 if name == "cib" else 0.0)
        assert expected / FACTOR < d < expected * FACTOR, name


def test_ksz_knows_no_sign(patches):
    maps, _, _ = patches
    kappa, ksz = maps[:, 0], maps[:, 1]
    per_patch = (kappa * ksz).mean((1, 2)) / (kappa.std() * ksz.std())
    error = per_patch.std() / np.sqrt(len(per_patch))
    assert abs(per_patch.mean()) < max(0.02, 4 * error)


def test_signs_and_mean(patches):
    maps, _, _ = patches
    assert maps[:, 2].max() <= 0
    assert maps[:, 3:].min() >= 0
    assert maps[:, 3].mean() == pytest.approx(MEAN_CIB, rel=CIB_TOLERANCE)


def test_blobs_1_has_one_blob():
    images = networks.sample("blobs-1", BLOB_IMAGES, seed=11)
    assert images.shape == (BLOB_IMAGES, 1, blobs.SIZE, blobs.SIZE)
    found = blob_statistics.find_all(images[:, 0], blobs.SIGMA)
    assert np.mean([len(b) == 1 for b in found.blobs]) >= ONE_BLOB
    assert found.widths.mean() == pytest.approx(blobs.SIGMA, rel=blob_statistics.WIDTH)
