"""The paper's networks: parameter counts, no dead parameter, bounds, seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mlsky.networks import han2021
from mlsky.networks.han2021 import DCGAN, PIXGAN, VAEGAN, Critic

# tanh of artanh in float32: 6e-8 of 15, times up to 20 for the roundings on the way.
ROUND_TRIP = 2e-5
# Sums of some hundred float32 numbers, of values of about one.
FLOAT32 = 1e-5
# Pixels that the edges of a map reach through the layers after it, of three pixels each.
MARGIN = 4

# (class, arguments that make it small, shape of its input, shape of its output)
SMALL = [
    (Critic, {"width": 2}, (3, 5, 128, 128), (3,)),
    (DCGAN, {"width": 2, "latent": 7}, (3, 7), (3, 5, 128, 128)),
    (DCGAN, {"width": 2, "latent": 7, "bilinear": True}, (3, 7), (3, 5, 128, 128)),
    (DCGAN, {"width": 2, "latent": 7, "positive": 0.5}, (3, 7), (3, 5, 128, 128)),
    (DCGAN, {"width": 2, "latent": 7, "beam": 2.0}, (3, 7), (3, 5, 128, 128)),
    (PIXGAN, {"width": 2}, (3, 1, 128, 128), (3, 4, 128, 128)),
    (VAEGAN, {"width": 2}, (3, 5, 128, 128), (3, 5, 128, 128)),
]


@pytest.mark.parametrize(
    ("cls", "count"),
    [(Critic, 11_164_609), (DCGAN, 15_361_871), (PIXGAN, 41_833_484), (VAEGAN, 22_301_199)],
)
def test_parameters_at_the_size_of_the_paper(cls, count, monkeypatch):
    monkeypatch.setattr(han2021, "_initialise", lambda network, seed: None)
    with torch.device("meta"):
        network = cls()
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(("cls", "kwargs", "given", "wanted"), SMALL)
def test_every_parameter_lives_and_the_output_is_finite(cls, kwargs, given, wanted):
    network = cls(**kwargs)
    x = torch.randn(given, generator=torch.Generator().manual_seed(1))
    y = network(x)
    assert tuple(y.shape) == wanted
    assert torch.isfinite(y).all()
    (y**2).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(("cls", "kwargs", "given", "wanted"), SMALL)
def test_seeded_without_touching_the_global_state(cls, kwargs, given, wanted):
    before = torch.get_rng_state()
    one, again, other = cls(**kwargs, seed=3), cls(**kwargs, seed=3), cls(**kwargs, seed=4)
    assert torch.equal(before, torch.get_rng_state())
    for (name, a), b, c in zip(
        one.named_parameters(), again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(a, b), name
        # batch norms start with offset 0 whatever the seed, a beam with its width
        assert not torch.equal(a, c) or not a.any() or name.endswith("log_sigma"), name


def test_first_weights_are_the_papers():
    network = DCGAN(width=16)
    kernel = network.body[2][0].weight
    # a quarter of the paper's width: as strong signals from a quarter of the inputs
    assert kernel.std().item() == pytest.approx(0.02 * 2, rel=0.02)
    critic = Critic(width=16)
    of_fields, of_width = critic.body[0][0].weight, critic.body[4][0].weight
    assert of_fields.std().item() == pytest.approx(0.02, rel=0.05)
    assert of_width.std().item() == pytest.approx(0.02 * 2, rel=0.02)
    norms = torch.cat([m.weight for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)])
    assert norms.mean().item() == pytest.approx(1, abs=0.005)
    assert norms.std().item() == pytest.approx(0.02, rel=0.2)


def test_gain_of_the_first_patches():
    z = torch.randn(16, 256, generator=torch.Generator().manual_seed(1))
    strong, weak = (DCGAN(channels=1, width=16, gain=g)(z).std().item() for g in (1.0, 0.1))
    assert strong == pytest.approx(0.5, rel=0.3)
    assert weak == pytest.approx(strong / 10, rel=0.02)  # the bound is felt a little by the strong
    assert "gain" not in DCGAN(width=1).kwargs


def test_vaegan_starts_from_its_input():
    # With nothing found inside, the skip is the identity within the bound.
    network = VAEGAN(width=2).eval()
    with torch.no_grad():
        network.body[-1].weight.zero_()
        network.body[-1].bias.zero_()
        x = 3 * torch.randn(2, 5, 128, 128, generator=torch.Generator().manual_seed(1))
        np.testing.assert_allclose(network(x), x, atol=ROUND_TRIP)


def test_maps_grow_without_a_lattice_by_interpolation():
    """A map with the same value everywhere stays one, which transposed convolutions make a lattice
    of; and a single pixel becomes the tent of bilinear interpolation before it is convolved."""
    networks = [DCGAN(channels=1, width=2, bilinear=b) for b in (False, True)]
    flat = torch.ones(1, 4, 32, 32)
    lattice, even = (network.body[5][0](flat) for network in networks)
    assert lattice.shape == even.shape == (1, 2, 64, 64)
    lattice, even = (x[..., MARGIN:-MARGIN, MARGIN:-MARGIN] for x in (lattice, even))
    assert lattice.std((2, 3)).min() > 0.01
    assert even.std((2, 3)).max() < FLOAT32
    up = networks[1].body[5][0]
    spot = torch.zeros(1, 4, 8, 8)
    spot[0, 0, 3, 5] = 1
    with torch.no_grad():
        up[1].weight.zero_()[:, 0, 1, 1] = 1
        up[1].bias.zero_()
        tent = up(spot)[0, 0]
    # pixel i of the fine map lies at (i + 1/2) / 2 - 1/2 of the coarse one
    place = (np.arange(16) + 0.5) / 2 - 0.5
    sides = [np.clip(1 - np.abs(place - centre), 0, None) for centre in (3, 5)]
    np.testing.assert_allclose(tent, np.outer(*sides), atol=FLOAT32)


def test_one_change_is_one_change():
    """Options of the last layers leave the first weights as they are; others are not named."""
    plain = DCGAN(channels=1, width=2, gain=0.1)
    assert not {"bilinear", "positive", "beam"} & set(plain.kwargs)
    z = torch.randn(4, 256, generator=torch.Generator().manual_seed(1))
    for change in ({"positive": 0.05}, {"beam": 2.5}):
        network = DCGAN(channels=1, width=2, gain=0.1, **change)
        assert change.items() <= network.kwargs.items()
        weights = dict(network.named_parameters())
        for name, value in plain.named_parameters():
            assert torch.equal(weights[name], value), name
        if "positive" in change:
            assert network(z).min() >= 0
            assert plain(z).min() < 0


def test_noise_of_dcgan():
    """Every map of noise changes the patch; without noise the network is the paper's."""
    network = DCGAN(channels=1, width=2, noise=2)
    rng = torch.Generator().manual_seed(1)
    assert network.noise_sides == [4, 4, 8, 8, 16, 16, 32, 32, 64, 64]
    noise = [torch.randn(2, 1, n, n, generator=rng).requires_grad_() for n in network.noise_sides]
    z = torch.randn(2, 256, generator=rng)
    slopes = torch.autograd.grad(network(z, noise).square().sum(), noise)
    assert all(s.abs().max() > 0 for s in slopes)
    with pytest.raises(ValueError, match="DCGAN takes 10 maps of noise: 0 given"):
        network(z)
    assert "noise" not in DCGAN(width=2).kwargs
    assert DCGAN(width=2).noise_sides == []


def test_noise_of_pixgan():
    """It reaches every output, at every level, and files of networks without it do not name it."""
    network = PIXGAN(width=2, noise=3)
    kappa = torch.zeros(2, 1, 128, 128)
    noise = network.draw_noise(2, 128, 128, torch.Generator().manual_seed(1))
    assert [z.shape[-1] for z in noise] == [128, 64, 32, 16, 8, 4, 2]
    for z in noise:
        z.requires_grad_(True)
    made = network(kappa, noise)
    for channel in range(4):
        slopes = torch.autograd.grad(made[:, channel].sum(), noise, retain_graph=True)
        assert all(s.abs().max() > 0 for s in slopes)
    assert "noise" not in PIXGAN(width=2).kwargs
    with pytest.raises(ValueError, match="7 levels: 0 given"):
        network(kappa)


def test_bf16_keeps_the_bounded_output_in_float32():
    x = torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        y = PIXGAN(width=2).eval()(x)
    assert y.dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: PIXGAN(width=2)(torch.zeros(1, 1, 64, 64)), r"PIXGAN.*\(N, 1, 128, 128\)"),
        (lambda: VAEGAN(width=2)(torch.zeros(1, 4, 128, 128)), r"VAEGAN.*\(N, 5, 128, 128\)"),
        (lambda: Critic(width=2)(torch.zeros(5, 128, 128)), r"Critic.*\(N, 5, 128, 128\)"),
        (lambda: DCGAN(width=2)(torch.zeros(1, 5)), r"DCGAN.*\(N, 256\)"),
        (lambda: Critic(width=0), "width=0"),
        (lambda: PIXGAN(outputs=2.0), "outputs=2.0"),
        (lambda: DCGAN(seed=-1, width=1), "seed=-1"),
        (lambda: DCGAN(gain=0, width=1), "gain=0: must be a number from 1e-06 to 1e"),
        (lambda: DCGAN(gain="x", width=1), "gain='x': must be a number from 1e-06 to 1e"),
        (lambda: DCGAN(beam=-1.0, width=1), "beam=-1.0: must be a number from 0.2 to 128, or 0"),
        (lambda: DCGAN(beam="x", width=1), "beam='x': must be a number from 0.2 to 128, or 0"),
        (lambda: DCGAN(beam=math.nan, width=1), "beam=nan: must be a number from 0.2 to 128"),
        (lambda: DCGAN(beam=10**400, width=1), "must be a number from 0.2 to 128, or 0 for none"),
        (lambda: DCGAN(beam=False, width=1), "beam=False: must be a number from 0.2 to 128"),
        (lambda: DCGAN(positive=True, width=1), "positive=True: must be a number from 0.0001 to"),
        (lambda: DCGAN(positive=1e-300, width=1), "positive=1e-300: must be a number from 0.0001"),
        (lambda: DCGAN(bilinear=1, width=1), "bilinear=1: must be True or False"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
