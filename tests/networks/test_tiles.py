"""Pictures made in tiles that overlap."""

from __future__ import annotations

import pytest
import torch

from mlsky.networks import tiles
from mlsky.networks.tiles import SIDE

# Single precision, of sums of two products.
ROUNDING = 1e-5


@pytest.mark.parametrize("overlap", [0, 20, 64])
def test_pointwise_makers_see_no_tiles(overlap):
    """What is made pixel by pixel is the same however a picture is cut."""
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(2, 256, 200, generator=rng)
    made = tiles.blended(x, [], lambda part, _: part[:, :1] ** 2 + part[:, 1:], overlap)
    torch.testing.assert_close(made, x[:1] ** 2 + x[1:], rtol=ROUNDING, atol=ROUNDING)


def test_noise_lies_under_its_tile():
    rng = torch.Generator().manual_seed(2)
    x = torch.randn(1, 256, 384, generator=rng)
    noise = [(level, torch.randn(1, 256 >> level, 384 >> level, generator=rng)) for level in (0, 6)]

    def make(part, drawn):
        assert [z.shape[-1] for z in drawn] == [SIDE, 2]
        coarse = drawn[1].repeat_interleave(64, -1).repeat_interleave(64, -2)
        return part + drawn[0] + coarse

    want = x + noise[0][1] + noise[1][1].repeat_interleave(64, -1).repeat_interleave(64, -2)
    for overlap in (0, 64):
        made = tiles.blended(x, noise, make, overlap)
        torch.testing.assert_close(made, want, rtol=ROUNDING, atol=ROUNDING)
    assert tiles.fits(64, range(7))
    assert not tiles.fits(20, range(7))
    assert tiles.fits(20, [])


def test_the_window():
    for overlap in (20, 64):
        w = tiles.window(overlap)
        assert w.min() > 0
        torch.testing.assert_close(w, w.flip(0))
        # two neighbours add up to one: a mean of equal tiles is no weaker
        torch.testing.assert_close(w[:overlap] + w[-overlap:], torch.ones(overlap))
    assert torch.equal(tiles.window(0), torch.ones(SIDE))


def test_overlapping_tiles_that_differ_are_weaker():
    """Tiles of independent noise: as the weights say, half of the variance in the middle."""
    rng = torch.Generator().manual_seed(3)
    x = torch.zeros(1, SIDE, 64 + 64 * 40)
    made = tiles.blended(x, [], lambda part, _: torch.randn(part.shape, generator=rng), 64)
    column = made[0].unfold(1, 64, 64)[:, 1:-1].var((0, 1))  # by distance from the edge of a tile
    w = tiles.window(64)[:64]
    torch.testing.assert_close(column, w**2 + (1 - w) ** 2, rtol=0.1, atol=0)  # 5000 numbers each
