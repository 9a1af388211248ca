"""kSZ flows without orientation."""

from __future__ import annotations

import pytest
import torch

from mlsky.networks.default import Paint
from mlsky.training import isotropy

FLOAT32 = 1e-5
#: What is left of one velocity's orientation, 6 % rms, is also what its power may be off; the
#: balance of the levels comes after.
POWER = 0.12


@pytest.fixture
def paint() -> Paint:
    return Paint(-0.3, 0.3, widths=(4, 4, 4, 8), noise=(1, 1, 1, 1), velocity_levels=2, seed=1)


def test_a_point_has_no_orientation_and_a_pair_of_points_has():
    point = torch.zeros(1, 1, 7, 7)
    point[..., 3, 3] = 1
    assert isotropy.anisotropy(point) < FLOAT32
    pair = point + point.roll(1, 3)  # power 2 + 2 cos(kx)
    assert isotropy.anisotropy(pair) > 0.3


def test_orientation_goes_and_power_stays(paint):
    before = [layer.weight.detach().clone() for layer in paint.flow]
    first = [isotropy.anisotropy(w) for w in before]
    left = isotropy.make_isotropic(paint)
    # random kernels to begin with; trained ones go from 0.35 to 0.07
    assert all(b < 0.25 * a for a, b in zip(first, left, strict=True)), (first, left)
    rings = isotropy._rings()
    for old, layer in zip(before, paint.flow, strict=True):
        a, b = (
            torch.diagonal(isotropy._spectra(w.detach()) @ rings.T).sum(1)
            for w in (old, layer.weight)
        )
        torch.testing.assert_close(a, b, rtol=POWER, atol=0)


def test_its_maps_have_the_same_power_along_every_axis(paint):
    isotropy.make_isotropic(paint)
    rng = torch.Generator().manual_seed(0)
    noise = [torch.randn(8, 4, 128 >> level, 128 >> level, generator=rng) for level in (0, 1)]
    with torch.no_grad():
        power = torch.fft.fft2(paint.velocity(noise)).abs().square().mean((0, 1))
    k = torch.fft.fftfreq(128)
    ring = torch.hypot(k[:, None], k[None])
    ring = (ring > 0.05) & (ring < 0.35)
    angle = torch.atan2(k[:, None].abs().expand(128, 128), k[None].abs().expand(128, 128))
    along = [
        power[ring & ((angle - a).abs() < 0.2)].mean().item()
        for a in (0, torch.pi / 4, torch.pi / 2)
    ]
    mean = power[ring].mean().item()
    # 2000 modes of 48 fields, of which 8 x 4 x 2 are independent: 1 %, and the upsampling of the
    # second level, which knows the axes
    assert max(abs(a / mean - 1) for a in along) < 0.05, along
