"""Velocity fields of kSZ without orientation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mlsky.networks.default import Paint
from mlsky.training import isotropy

LEVELS = 3
FLOAT32 = 1e-4
#: What is left of random kernels' orientation, which is all that they have; trained ones go from
#: 0.25 to 0.025.
LEFT = 0.25
#: Power along an axis of 8 x 4 maps of 256 x 256 pixels, each some thousand modes: 1 %, and what is
#: left of the orientation.
AXES = 0.06


@pytest.fixture
def paint() -> Paint:
    return Paint(-0.3, 0.3, widths=(4, 4, 4, 8), noise=(1, 1, 1, 1), velocity_levels=LEVELS, seed=1)


def kernels(paint):
    return [layer.weight.detach().clone() for layer in paint.velocity_kernels]


def test_a_point_has_no_orientation_and_a_pair_of_points_has():
    point = torch.zeros(1, 1, 7, 7)
    point[..., 3, 3] = 1
    assert isotropy.anisotropy([point]) < FLOAT32
    assert isotropy.anisotropy([point + point.roll(1, 3)]) > 0.3  # power 2 + 2 cos(kx)


def test_the_response_of_interpolation():
    """White noise of a level, doubled by torch, against the formula."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(64, 1, 32, 32, generator=rng)
    for _ in range(2):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    n = x.shape[-1]
    power = (torch.fft.fft2(x).abs().square() / n**2).mean((0, 1))
    index = torch.tensor([[0, 4], [8, 8], [16, 4], [12, 20], [40, 4]])
    found = isotropy._responses(2 * torch.pi * index / n, 3)[2]
    # the picture's edges are not joined, so shares of four neighbours are averaged
    near = torch.stack(
        [power.roll((-dy, -dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    ).mean(0)
    wanted = near[index[:, 0], index[:, 1]]
    # 9 modes of 64 maps: 4 %, and the response varies between neighbours
    torch.testing.assert_close(found, wanted, rtol=0.2, atol=0.02)


def test_orientation_goes_and_power_stays(paint):
    before = kernels(paint)
    left = isotropy.make_isotropic(paint)
    assert left < LEFT * isotropy.anisotropy(before)
    k = isotropy._wave_numbers(LEVELS)
    old, new = (
        isotropy._spectra(w, k, isotropy._responses(k, LEVELS)).mean(-1)
        for w in (before, kernels(paint))
    )
    old, new = (torch.diagonal(x).sum(-1) for x in (old, new))  # of all velocities
    torch.testing.assert_close(new, old, rtol=3 * left, atol=0)  # left is an rms


def test_its_maps_have_the_same_power_along_every_axis(paint):
    def along() -> list[float]:
        rng = torch.Generator().manual_seed(0)
        noise = [torch.randn(8, 4, 256 >> l, 256 >> l, generator=rng) for l in range(LEVELS)]
        with torch.no_grad():
            power = torch.fft.fft2(paint.velocity(noise)).abs().square().sum((0, 1))
        k = torch.fft.fftfreq(256)
        ring = torch.hypot(k[:, None], k[None])
        ring = (ring > 0.05) & (ring < 0.45)
        angle = torch.atan2(k[:, None].expand(256, 256), k[None].expand(256, 256)) % torch.pi
        sector = ((angle * 8 / torch.pi).round() % 8).long()
        mean = power[ring].mean()
        return [(power[ring & (sector == s)].mean() / mean - 1).abs().item() for s in range(8)]

    assert max(along()) > AXES
    isotropy.make_isotropic(paint)
    assert max(along()) < AXES
