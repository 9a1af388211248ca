"""Last layers of networks: bounds and their inverses, a scale per channel, a beam."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mlsky.networks import outputs

# tanh of artanh in float32: 6e-8 of 15, times up to 20 for the roundings on the way.
ROUND_TRIP = 2e-5
# Sums of some hundred float32 numbers, of values of about one.
FLOAT32 = 1e-5
# Of the spread of 48 x 48 pixels of noise in a beam, some 60 independent ones per image, 64 images.
SCATTER = 0.05


def test_scaled_tanh_and_its_inverse():
    x = torch.linspace(-14.9, 14.9, 101)
    tanh, artanh = outputs.ScaledTanh(), outputs.ScaledArcTanh()
    np.testing.assert_allclose(tanh(artanh(x)), x, atol=ROUND_TRIP)
    np.testing.assert_allclose(tanh(x), 15 * np.tanh(2 * x.numpy() / 15), rtol=1e-6)
    far = torch.tensor([-15.0, 15.0, 40.0, float("inf")], requires_grad=True)
    y = artanh(far)
    assert torch.isfinite(y).all()
    assert (y.detach().abs() > 30).all()
    y.sum().backward()
    assert torch.isfinite(far.grad).all()


def test_linear_channel():
    layer = outputs.LinearChannel(3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        layer.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    x = torch.ones(2, 3, 4, 4)
    assert layer(x)[1, :, 2, 3].tolist() == [1, 3, 2]


def test_softplus_is_never_negative():
    x = torch.tensor([-40.0, -1.0, -0.02, 0.0, 0.02, 1.0, 40.0])
    y = outputs.Softplus(0.05)(x)
    assert (y >= 0).all()
    expected = 0.05 * np.logaddexp(0, 2 * x.double().numpy() / 0.05)
    np.testing.assert_allclose(y, expected, rtol=FLOAT32, atol=1e-12)
    assert y[-2].item() == pytest.approx(2)  # the slope of the tanh


@pytest.mark.parametrize("sigma", [1.3, 3.0])
def test_a_point_in_the_beam_is_a_gaussian(sigma):
    image = torch.zeros(2, 1, 32, 32)
    image[0, 0, 9, 20] = 2.0
    image[1, 0, 1, 30] = 1.0  # cut off by two edges, and not wrapped
    y, x = np.indices((32, 32))
    for made, (row, column), height in zip(
        outputs.LearnedBeam(sigma)(image)[:, 0].detach(), ((9, 20), (1, 30)), (2, 1), strict=True
    ):
        r2 = (y - row) ** 2 + (x - column) ** 2
        expected = height * np.exp(-r2 / (2 * sigma**2)) / (math.sqrt(math.pi) * sigma)
        np.testing.assert_allclose(made, expected, atol=FLOAT32)


def test_noise_is_as_strong_in_a_beam():
    """The squares of the beam sum to one, whatever its width."""
    noise = torch.randn(64, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    for sigma in (1.5, 3.0):
        made = outputs.LearnedBeam(sigma)(noise).detach()[..., 8:-8, 8:-8]
        assert made.std().item() == pytest.approx(1, rel=SCATTER)


def test_the_width_of_a_beam_is_learned():
    """Its slope is that of a difference of two widths."""
    noise = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    beam = outputs.LearnedBeam(2.0)
    beam(noise).square().sum().backward()
    step = 1e-2
    ends = [
        outputs.LearnedBeam(2.0 * math.exp(s))(noise).square().sum().item() for s in (-step, step)
    ]
    assert beam.log_sigma.grad.item() == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=1e-2)


def test_a_beam_stays_in_float32():
    """bfloat16 would give a smooth background steps of a per cent."""
    with torch.autocast("cpu", torch.bfloat16):
        made = outputs.LearnedBeam(2.0)(torch.ones(1, 1, 16, 16, dtype=torch.bfloat16))
    assert made.dtype == torch.float32
