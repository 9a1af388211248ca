"""Chart pixels around the owned area."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mlsky.painting import finer, padding
from mlsky.sphere.geometry import Healpix


@pytest.mark.parametrize(("pixel", "nsides"), [(0.5, (2048, 4096, 8192)), (2.0, (512, 1024))])
def test_fine_maps_are_one_sky(pixel, nsides):
    assert len({padding.of_geometry(Healpix(n), pixel) for n in nsides}) == 1


def test_coarse_pixels_see_half_their_diagonal():
    grid = Healpix(128)
    seen = padding.of_geometry(grid, 2.0)
    assert 2.0 * (seen - padding.SPLINE) >= grid.pixel_arcmin / 2**0.5


def test_halving_counts_only_with_a_split():
    of = [SimpleNamespace(header={"calibration": c}) for c in ({}, {"split": {}})]
    assert [padding.of_halving(w) for w in of] == [0, finer.FILTER_RADIUS]
