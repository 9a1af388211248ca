"""mlsky.sphere.chart_area: stretches of rows against masks of pixels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from mlsky.sphere.chart_area import Area


@pytest.fixture
def mask():
    y, x = np.mgrid[:64, :80]
    return (np.abs(y - 30) + np.abs(x - 44) < 21) & (y > 15)


def test_of_and_mask(mask):
    area = Area.of(mask)
    assert np.array_equal(area.mask(), mask)
    assert area.size == mask.sum()
    assert Area.whole(64, 80).mask().all()
    assert Area.of(np.zeros((4, 6), bool)).size == 0
    gap = np.array([[1, 0, 0, 1, 0]], bool)
    assert np.array_equal(Area.of(gap).mask()[0], [1, 1, 1, 1, 0])


@pytest.mark.parametrize("by", [0, 1, 7, 60])
def test_widened(mask, by):
    square = np.ones((2 * by + 1, 2 * by + 1), bool)
    assert np.array_equal(Area.of(mask).widened(by).mask(), ndimage.binary_dilation(mask, square))


@pytest.mark.parametrize("times", [0, 1, 3])
def test_halved(mask, times):
    step = 1 << times
    any_ = mask.reshape(64 // step, step, 80 // step, step).any((1, 3))
    assert np.array_equal(Area.of(mask).halved(times).mask(), any_)


def test_within(mask):
    other = np.zeros_like(mask)
    other[20:, 40:] = True
    assert np.array_equal(Area.of(mask).within(Area.of(other)).mask(), mask & other)


@pytest.mark.parametrize(("height", "width"), [(8, 16), (512, 512), (2, 2)])
def test_blocks_cover_the_area_once(mask, height, width):
    area, covered = Area.of(mask), np.zeros(mask.shape, int)
    for y, x in area.blocks(height, width):
        assert y.stop - y.start <= height
        assert x.stop - x.start <= width
        assert y.start % 2 == x.start % 2 == 0
        covered[y, x] += 1
    assert covered.max() == 1
    assert covered[mask].all()
    assert covered.sum() < 1.5 * mask.sum() or height == 512
    assert list(Area.of(np.zeros((4, 6), bool)).blocks(2, 2)) == []
