"""Sources put on a map by hand are found, at their fluxes, and what is left holds the rest."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from mlsky.cutting import photometry
from mlsky.errors import MissingDependencyError
from mlsky.frequency.bands import jy_per_sr_per_uk

healpy = pytest.importorskip("healpy")

NSIDE = 64
MJY = healpy.nside2pixarea(NSIDE) * jy_per_sr_per_uk(148.0) * 1e3  # of 1 uK_CMB in a pixel

#: float32 maps: sums of nine values.
FLUX_RTOL = 1e-4


def scattered(n, seed=1):
    """Pixels at least six pixels from each other, at random but on borders of faces too."""
    rng = np.random.Generator(np.random.Philox(seed))
    taken, out = np.zeros(12 * NSIDE**2, bool), []
    side = healpy.nside2resol(NSIDE)
    for pixel in rng.permutation(12 * NSIDE**2):
        if taken[pixel]:
            continue
        out.append(pixel)
        taken[healpy.query_disc(NSIDE, healpy.pix2vec(NSIDE, pixel), 8 * side)] = True
        if len(out) == n:
            break
    return np.array(out)


def corner(pixel):
    """Whether a pixel lies by a corner where three faces meet, and has seven neighbours."""
    return (healpy.get_all_neighbours(NSIDE, pixel) < 0).any(axis=0)


def photutils():
    return pytest.importorskip("photutils")


def test_margins_are_the_neighbours():
    order = photometry._face_order(NSIDE)
    m = photometry._MARGIN
    for face in range(12):
        index = photometry._padded(face, NSIDE, order)
        core = index[m:-m, m:-m]
        y, x = np.mgrid[:NSIDE, :NSIDE]
        np.testing.assert_array_equal(healpy.xyf2pix(NSIDE, x, y, face), core)
        # steps of a row or a column are to a neighbour, in the margin as well
        size = len(index)
        v = np.stack(healpy.pix2vec(NSIDE, np.where(index >= 0, index, 0)))
        for a, b in (
            ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
            ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
        ):
            both = (index[a] >= 0) & (index[b] >= 0)
            away = np.linalg.norm(v[:, a[0], a[1]] - v[:, b[0], b[1]], axis=0)
            assert away[both].max() < 2 * healpy.nside2resol(NSIDE)
        assert np.count_nonzero(index < 0) in (0, 2 * m * m)
        assert size == NSIDE + 2 * m


def test_sources_on_a_smooth_background():
    photutils()
    pixel = scattered(150)
    pixel = pixel[~corner(pixel)]
    rng = np.random.Generator(np.random.Philox(2))
    flux = rng.uniform(20, 200, pixel.size)
    v = np.stack(healpy.pix2vec(NSIDE, np.arange(12 * NSIDE**2)))
    smooth = 3 + 0.1 * v[2]
    values = smooth.copy()
    values[pixel] += flux / MJY
    where, found, rest = photometry.find_sources(values, NSIDE, above_mjy=10)
    got = healpy.vec2pix(NSIDE, *where)
    order, back = np.argsort(pixel), np.argsort(got)
    np.testing.assert_array_equal(got[back], pixel[order])
    # the background is a plane of 1.6e-3 uK a pixel; at a corner of a face a quarter of the
    # annulus is missing, and its median lies two pixels off
    np.testing.assert_allclose(found[back], flux[order], atol=9 * 3.2e-3 * MJY)
    np.testing.assert_allclose(rest, smooth, atol=0.03)
    np.testing.assert_allclose(
        np.sum(rest, dtype=np.float64) * MJY + found.sum(), values.sum() * MJY, rtol=1e-6
    )


def test_a_spread_source_and_a_close_pair_keep_their_flux():
    photutils()
    order = photometry._face_order(NSIDE)
    nest = {(y, x): 4 * NSIDE**2 + order[y, x] for y in range(20, 50) for x in range(20, 50)}
    ring = {k: int(healpy.nest2ring(NSIDE, v)) for k, v in nest.items()}
    values = np.full(12 * NSIDE**2, 1.0)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            values[ring[30 + dy, 30 + dx]] += 100 * 0.5 ** (abs(dy) + abs(dx))  # spread: 400 in all
    values[ring[40, 40]] += 300
    values[ring[40, 42]] += 200  # two pixels apart: within reach of the first
    _, flux, rest = photometry.find_sources(values, NSIDE, above_mjy=20 * MJY)
    np.testing.assert_allclose(flux[np.argmin(np.abs(flux - 400 * MJY))], 400 * MJY, rtol=FLUX_RTOL)
    np.testing.assert_allclose(flux.sum(), 900 * MJY, rtol=FLUX_RTOL)
    np.testing.assert_allclose(rest, 1.0, atol=1e-4)


def test_the_threshold_of_noise_and_a_map_without_sources():
    photutils()
    rng = np.random.Generator(np.random.Philox(4))
    noise = rng.standard_normal(12 * NSIDE**2)
    bright = noise.copy()
    bright[[1000, 30000]] += 100
    where, flux, _ = photometry.find_sources(bright, NSIDE)
    assert {1000, 30000} <= set(healpy.vec2pix(NSIDE, *where).tolist())
    assert len(flux) < 8  # 5 sigma: 0.01 expected in 49152, and the median's own scatter
    for values in (np.zeros(12 * NSIDE**2), np.full(12 * NSIDE**2, -7.5)):
        where, flux, rest = photometry.find_sources(values, NSIDE)
        assert where.shape == (3, 0)
        assert flux.shape == (0,)
        np.testing.assert_array_equal(rest, values)


def test_refusals(monkeypatch):
    photutils()
    with pytest.raises(ValueError, match="nside=8"):
        photometry.find_sources(np.zeros(768), 8)
    with pytest.raises(ValueError, match="find_mjy=-1"):
        photometry.find_sources(np.zeros(12 * NSIDE**2), NSIDE, above_mjy=-1)
    monkeypatch.setitem(sys.modules, "photutils.detection", None)
    with pytest.raises(MissingDependencyError, match=r"mlsky\[cut\]"):
        photometry.require_photutils()
