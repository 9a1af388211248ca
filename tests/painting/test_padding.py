"""Chart pixels around the owned area."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from pixell import enmap

from mlsky import registry
from mlsky.painting import finer, foregrounds, padding
from mlsky.sphere.geometry import Car, Healpix


@pytest.mark.parametrize(("pixel", "nsides"), [(0.5, (2048, 4096, 8192)), (2.0, (512, 1024))])
def test_fine_maps_are_one_sky(pixel, nsides):
    assert len({padding.of_geometry(Healpix(n), pixel) for n in nsides}) == 1


def test_coarse_pixels_see_half_their_diagonal():
    grid = Healpix(128)
    seen = padding.of_geometry(grid, 2.0)
    assert 2.0 * (seen - padding.SPLINE) >= grid.pixel_arcmin / 2**0.5


@pytest.mark.parametrize("sides", [(10, 1), (1, 10)])
def test_of_oblong_pixels_the_longer_side_is_seen_and_the_shorter_resolved(sides):
    square = []
    for side in (1, 10):
        shape, wcs = enmap.fullsky_geometry(res=np.radians(side / 60))
        square.append(Car(*enmap.slice_geometry(shape, wcs, np.s_[400:408, :8])))
    wcs = square[0].wcs.deepcopy()
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [10, 0], [1, 1], wcs.wcs.cdelt * sides
    oblong = Car((8, 8), wcs)
    for pixel in (1.0, 2.0):
        assert padding.of_geometry(oblong, pixel) == padding.of_geometry(square[1], pixel)
    pixels = [f["pixel_arcmin"] for f in registry.describe("default")["files"]]
    chosen = [foregrounds.select("default", grid).pixel_arcmin for grid in (*square, oblong)]
    assert len(pixels) > 1
    assert chosen[2] == chosen[0] < chosen[1]
    split = SimpleNamespace(header={"calibration": {"split": {}}}, pixel_arcmin=2.0)
    halved = [finer.halves_pixels(split, grid) for grid in (*square, oblong)]
    assert halved == [True, False, True]


def test_halving_counts_only_with_a_split():
    of = [SimpleNamespace(header={"calibration": c}) for c in ({}, {"split": {}})]
    assert [padding.of_halving(w) for w in of] == [0, finer.FILTER_RADIUS]
