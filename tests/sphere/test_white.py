"""White noise of the sky: spectrum, independence, and one field on all pixels."""

from __future__ import annotations

import healpy
import numpy as np
import pytest
from pixell import enmap

from mlsky import seeds
from mlsky.frequency import cib_templates
from mlsky.painting.remainder import add_remainder
from mlsky.sphere.geometry import Car, Healpix, geometry
from mlsky.sphere.white import _pieces_of, white_map, white_pieces

KEY = 123
NSIDE = 64
#: float32 sums over levels.
ROUNDING = 1e-5


def test_power_is_one():
    values = white_map(KEY, 0, Healpix(NSIDE)).astype(np.float64)
    modes = 12 * NSIDE**2
    variance = values.var() * 4 * np.pi / modes
    assert variance == pytest.approx(1, abs=4 * np.sqrt(2 / modes))
    cl = healpy.anafast(values, lmax=2 * NSIDE)
    ell = np.arange(len(cl))
    for low, high in ((2, 20), (20, 60), (60, 128)):
        band = (ell >= low) & (ell < high)
        error = np.sqrt(2 / (2 * ell[band] + 1).sum())
        assert np.average(cl[band], weights=2 * ell[band] + 1) == pytest.approx(1, abs=4 * error)


def test_coarse_pixels_are_means_of_fine_ones():
    fine, coarse = (white_map(KEY, 0, Healpix(n)) for n in (NSIDE, NSIDE // 8))
    mean = healpy.ud_grade(fine.astype(np.float64), NSIDE // 8)
    np.testing.assert_allclose(mean, coarse, atol=ROUNDING * fine.std())


def test_siblings_and_fields_are_independent():
    first, second = (white_map(KEY, n, Healpix(NSIDE)) for n in (0, 1))
    limit = 4 / np.sqrt(first.size)
    assert abs(np.corrcoef(first, second)[0, 1]) < limit
    children = healpy.reorder(first, r2n=True).reshape(-1, 4)
    off = np.corrcoef(children.T) - np.eye(4)
    assert np.abs(off).max() < 2 * limit
    assert abs((first**4).mean() / (first**2).mean() ** 2 - 3) < 5 * np.sqrt(24 / first.size)


def test_pieces_hold_each_pixel_once_whatever_their_size(monkeypatch):
    from mlsky.sphere import white

    pixel, values = (np.concatenate(x) for x in zip(*white_pieces(KEY, 0, NSIDE), strict=True))
    assert (np.sort(pixel) == np.arange(12 * NSIDE**2)).all()
    monkeypatch.setattr(white, "PIECE", 1 << 9)
    np.testing.assert_array_equal(white_map(KEY, 0, Healpix(NSIDE))[pixel], values)


@pytest.mark.parametrize("sides", [(2.0, 2.0), (9.0, 1.0), (1.0, 9.0)])
def test_rectangular_pixels_hold_the_same_field(sides):
    """The shorter side decides how fine it is drawn: few pixels hold no place of it."""
    columns, rows = sides
    grid = geometry(None, enmap.fullsky_geometry(res=np.radians([rows, columns]), variant="fejer1"))
    values = white_map(KEY, 0, grid)
    area = grid.area().reshape(grid.shape)
    total = values * area
    # noise of points: the sum over the sphere is that of the HEALPix pixels
    healpix = white_map(KEY, 0, Healpix(32)).astype(np.float64)
    assert total.sum() == pytest.approx(healpix.mean() * 4 * np.pi, rel=1e-3)
    assert (total**2).sum() == pytest.approx(4 * np.pi, rel=4 * np.sqrt(2 / 12288))
    equator = np.abs(grid.angles()[0].reshape(grid.shape) - np.pi / 2) < np.radians(20)
    assert np.mean(values[equator] == 0) < 0.2
    # a cap, whose edge cuts few pixels
    north = total[grid.angles()[0].reshape(grid.shape) < np.radians(60)].sum()
    theta = healpy.pix2ang(32, np.arange(12 * 32**2))[0]
    there = healpix[theta < np.radians(60)].sum() * 4 * np.pi / healpix.size
    assert north == pytest.approx(there, abs=1.0)  # rms of the sphere 3.5


def test_remainder_is_where_the_cib_is():
    law, grid = cib_templates.load(), Healpix(NSIDE)
    rng = seeds.generator(1, "truth")
    cib = np.zeros((law.n_templates + law.n_noise, grid.npix), np.float32)
    cib[0] = law.mean_uk * rng.gamma(0.5, 2.0, grid.npix)  # of mean 1
    add_remainder(cib, law, grid, 3)
    noise = cib[law.n_templates :].astype(np.float64)
    power = (noise**2).mean(1) * 4 * np.pi / grid.npix
    np.testing.assert_allclose(power, 1, atol=0.06)  # 4 sigma, with the scatter of the CIB
    bright = cib[0] > 3 * law.mean_uk
    ratio = (noise[:, bright] ** 2).mean() / (noise[:, ~bright] ** 2).mean()
    assert ratio == pytest.approx(cib[0][bright].mean() / cib[0][~bright].mean(), rel=0.15)
    assert (noise[:, cib[0] == 0] == 0).all()
    again = np.zeros_like(cib)
    again[0] = cib[0]
    add_remainder(again, law, grid, 3)
    np.testing.assert_array_equal(again, np.concatenate([cib[:1], 0 * cib[1:3], cib[3:]]))


def test_a_patch_is_the_same_noise_as_the_sphere():
    """To the bit, although nothing is drawn elsewhere; also across RA 0 and at a pole."""
    shape, wcs = enmap.fullsky_geometry(res=np.radians(0.9), variant="fejer1")
    whole = white_map(KEY, 0, geometry(None, (shape, wcs)))
    for rows, columns in (((80, 95), (170, 190)), ((170, 180), (0, 30)), ((60, 70), (390, 400))):
        part = np.s_[rows[0] : rows[1], columns[0] : columns[1]]
        cut = enmap.ndmap(np.zeros(shape), wcs)[part]
        grid = Car(cut.shape, cut.wcs)
        pieces = white_pieces(KEY, 0, 64, inside=_pieces_of(grid))
        assert sum(len(values) for _, values in pieces) < 0.25 * 12 * 64**2
        np.testing.assert_array_equal(white_map(KEY, 0, grid), whole[part])
