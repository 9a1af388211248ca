"""The weights that every first sky is made with: their fields on Gaussian kappa of theory."""

from __future__ import annotations

import math

import golden_spectra as spectra
import numpy as np
import pytest
from golden_spectra import CASES

from mlsky import registry
from mlsky.painting import foregrounds, large_scales
from mlsky.sphere.geometry import Healpix
from mlsky.toys import blobs, unconditional
from mlsky.toys import comparison as blob_statistics
from mlsky.validation import scores

#: Spectra of one weight file on two machines differ by rounding of bfloat16, 1 % of the power of a
#: band with few modes at most; correlations by 0.005.
POWER, CORRELATION = 0.1, 0.05
#: D_3000 at 148 GHz, uK^2: best fit of ACT DR6 (Louis et al. 2025), sources left in below 7 mJy.
#: tSZ is clipped at -40 uK, since a few clusters rule so small an area: the painted truth has 2.3
#: to 2.5 then, where unclipped it has 3.7.
D_3000 = {"ksz": 0.99, "tsz": 2.4, "cib": 10.8}
FACTOR = 1.5
#: CIB monopole of the painted truth, uK_CMB; the networks were within 2 %.
MEAN_CIB, CIB_TOLERANCE = 21.1, 0.05
#: Power of kappa over that of its start: 5 % off at most on held-out truth, sampling 3 %.
KAPPA_TOLERANCE = 0.12
#: All of 512 images had one blob, so 0.6 % may have another number (95 %); of 64 the share then
#: scatters by 0.01, and what is wanted is 4.5 of these below.
BLOB_IMAGES, ONE_BLOB = 64, 0.95
# 9.7 on average, and the error of the mean of 64 images, 0.3
TEN_BLOBS = 0.12


@pytest.fixture(scope="module", params=sorted(CASES))
def patches(request):
    """Fields of the rest and of clusters (patches, 5, n, n), Gaussian starts and the pixel size."""
    assert spectra.weights(request.param).pixel_arcmin == request.param
    return *spectra.patches(request.param), request.param


def _power(fields, pixel_arcmin):
    """Multipoles and mean auto spectra (fields, bins)."""
    ell, power = spectra.pairs(fields, pixel_arcmin)
    return ell, np.einsum("iib->ib", power)


def test_spectra_are_those_of_before(patches):
    """A change of 10 per cent anywhere in what the networks make, or of the code, is seen."""
    *_, pixel = patches
    before, now = spectra.golden(pixel), spectra.measured(pixel)
    assert before is not None, (
        "other weights: python tests/shared/golden_spectra.py, and look at it"
    )
    np.testing.assert_allclose(now["ell"], before["ell"], rtol=1e-3)
    for name, power in before["auto"].items():
        np.testing.assert_allclose(now["auto"][name], power, rtol=POWER, err_msg=name)
    for name, r in before["correlation"].items():
        np.testing.assert_allclose(now["correlation"][name], r, atol=CORRELATION, err_msg=name)


#: Regions of the miniature, and its errors by which a row may be worse than what was published.
#: The worst of several numbers is worse on few regions than on many: three rows of 110 are.
MINIATURE, SIGMAS, BEYOND = 5, 3.0, 6


def test_published_scores_are_of_these_weights():
    """Scored again on the first of the regions of the report, row by row."""
    published = registry.report("default")["scores"]["2'"]
    found = scores.summary(scores.score(spectra.weights(2.0), regions=MINIATURE))
    rows = [
        (job, name, row, found[job][name])
        for job in scores.JOBS
        for name, row in published[job].items()
        if name in found[job]
    ]
    assert len(rows) > 80
    beyond = []
    for job, name, row, again in rows:
        numbers = row["value"], again["value"], again["error"]
        if all(x is not None and math.isfinite(x) for x in numbers):
            allowed = max(abs(row["value"]), row["tolerance"]) + SIGMAS * again["error"]
            assert abs(again["value"]) < 2 * allowed, (job, name, again, row)
            if abs(again["value"]) > allowed:
                beyond.append((job, name))
    assert len(beyond) <= BEYOND, beyond


@pytest.mark.parametrize("pixel_arcmin", sorted(CASES))
def test_large_scales_are_completed_as_far_as_the_patches_lack_them(pixel_arcmin):
    weights = foregrounds.select("default", Healpix(CASES[pixel_arcmin][2]))
    calibration = weights.header["calibration"]
    table = calibration.get("large_scales")
    assert table["ell"][-1] == large_scales.JOIN[1]
    assert table["root"]["tsz"][-1] == 0
    assert all(any(table["root"][name]) for name in ("tsz", "ksz"))


def test_kappa_keeps_the_power_of_its_start(patches):
    maps, clusters, starts, pixel = patches
    ell, made = _power((maps + clusters)[:, :1], pixel)
    _, start = _power(starts[:, np.newaxis], pixel)
    band = (ell > 1200) & (ell < 0.7 * 10800 / max(pixel, 1))
    np.testing.assert_allclose(made[0, band] / start[0, band], 1, atol=KAPPA_TOLERANCE)


def test_power_at_3000_is_near_act(patches):
    maps, clusters, _, pixel = patches
    clipped = maps + clusters
    clipped[:, 2] = np.maximum(clipped[:, 2], scores.TSZ_CLIP)
    ell, power = _power(clipped, pixel)
    i = abs(ell - 3000).argmin()
    for name, observed in D_3000.items():
        d = ell[i] * (ell[i] + 1) / (2 * np.pi) * power[scores.FIELDS.index(name), i]
        expected = observed * (ell[i] / 3000) ** (1.0 if name == "cib" else 0.0)
        assert expected / FACTOR < d < expected * FACTOR, name


def test_ksz_knows_no_sign(patches):
    maps, *_ = patches
    kappa, ksz = maps[:, 0], maps[:, 1]
    per_patch = (kappa * ksz).mean((1, 2)) / (kappa.std() * ksz.std())
    error = per_patch.std() / np.sqrt(len(per_patch))
    assert abs(per_patch.mean()) < max(0.02, 4 * error)


def test_signs_and_mean(patches):
    maps, clusters, *_ = patches
    assert maps[:, 2].max() <= 0
    assert maps[:, 3:].min() >= 0
    assert (maps + clusters)[:, 3].mean() == pytest.approx(MEAN_CIB, rel=CIB_TOLERANCE)


def test_blobs_1_has_one_blob():
    images = unconditional.sample("blobs-1", BLOB_IMAGES, seed=11)
    assert images.shape == (BLOB_IMAGES, 1, blobs.SIZE, blobs.SIZE)
    found = blob_statistics.find_all(images[:, 0], blobs.SIGMA)
    assert np.mean([len(b) == 1 for b in found.blobs]) >= ONE_BLOB
    assert found.widths.mean() == pytest.approx(blobs.SIGMA, rel=blob_statistics.WIDTH)


def test_the_reports_network_learned_the_number_of_ten_blobs():
    """On average; each image has its own number, of 9.7 on average in 512 images."""
    images = unconditional.sample("blobs-10-report", BLOB_IMAGES, seed=11)
    found = blob_statistics.find_all(images[:, 0], blobs.SIGMA)
    assert np.mean([len(b) for b in found.blobs]) == pytest.approx(10, rel=TEN_BLOBS)
