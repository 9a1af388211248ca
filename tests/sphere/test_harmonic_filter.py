"""Maps multiplied by a function of multipole, against transforms of whole maps."""

from __future__ import annotations

import numpy as np
import pytest

from mlsky.sphere import gaussian, harmonic_filter
from mlsky.sphere.geometry import Healpix

#: Rounding of float32, in units of the rms of a map whose largest value is four times that.
SINGLE = 5e-7

GEOMETRY = Healpix(16)


def whole(maps, factor, spin, iterations):
    """By `gaussian.map_to_alm` and `alm_to_map`."""
    part = maps if spin else maps[0]
    alm = np.atleast_2d(gaussian.map_to_alm(part, GEOMETRY, len(factor) - 1, spin, iterations))
    for one in alm:
        gaussian.scale_alm(one, factor)
    return np.atleast_2d(gaussian.alm_to_map(alm if spin else alm[0], GEOMETRY, spin))


@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("spin", [0, 2])
@pytest.mark.parametrize("lmax", [20, 47])
def test_maps_with_a_beam(monkeypatch, spin, iterations, lmax):
    monkeypatch.setattr(harmonic_filter, "PIECE", 500)  # rings in many pieces
    shape = (2 if spin else 1, GEOMETRY.npix)
    maps = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    factor = np.exp(-((np.arange(lmax + 1) / 15) ** 2))
    made = harmonic_filter.filtered(maps, GEOMETRY, factor, spin, iterations)
    expected = whole(maps, factor, spin, iterations)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, expected, atol=SINGLE * maps.std())


def test_maps_on_disk_change_in_place(tmp_path):
    from mlsky.io.disk_array import DiskArray

    given = np.random.default_rng(1).standard_normal((3, GEOMETRY.npix)).astype(np.float32)
    given.tofile(tmp_path / "maps")
    maps = DiskArray(tmp_path / "maps", given.shape)
    change = np.linspace(0, -0.5, 31)
    harmonic_filter.add_filtered(maps, (1, 2), GEOMETRY, change, 2)
    expected = given[1:] + whole(given[1:], change, 2, 1)
    np.testing.assert_allclose(maps[1:3], expected, atol=SINGLE * given.std())
    np.testing.assert_array_equal(maps[0], given[0])


def test_the_bits_do_not_depend_on_threads(monkeypatch):
    maps = np.random.default_rng(1).standard_normal((2, GEOMETRY.npix)).astype(np.float32)
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        found.append(harmonic_filter.filtered(maps, GEOMETRY, np.ones(40), 2))
    np.testing.assert_array_equal(*found)


def test_pixels_that_are_not_finite_are_refused():
    maps = np.ones((1, GEOMETRY.npix), np.float32)
    maps[0, 7] = np.inf
    with pytest.raises(ValueError, match="map has 1 rings that are not finite"):
        harmonic_filter.filtered(maps, GEOMETRY, np.ones(10), 0)
