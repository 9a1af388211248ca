"""The default family: what holds for any weights, by construction."""

from __future__ import annotations

import pytest
import torch

from mlsky.networks import default, weights
from mlsky.networks.default import Convergence, Critic, Paint, PointSources, blur
from mlsky.networks.normaliser import Normaliser

# float32 sums taken in another order (other batches take other kernels); outputs of order one.
FLOAT32 = 2e-5
# A layer with more channels sums in yet another order: 5e-5 measured in outputs up to 15.
WIDER = 2e-4
# Ratios of heights after an exponential and a logarithm in float32: 5e-4 found.
ROUNDED = 2e-3
# Kernels and matrices are stored in half precision, 11 bits, and errors of a few layers add.
HALF = 2e-2

SMALL = {"widths": (4, 6, 8, 8), "noise": (1, 2, 2, 2)}
TSZ = Normaliser(("tsz",), (3.7,), (-0.63,), (0.29,))


def paint(**options) -> Paint:
    return Paint(TSZ.mean[0], TSZ.std[0], **SMALL, velocity_levels=4, **options)


def convergence(**options) -> Convergence:
    return Convergence(**SMALL, **options)


def draw(n=64, batch=1, channels=1, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, n, n, generator=rng)


def noise_of(network, n=64, batch=1, seed=2):
    return network.draw_noise(batch, n, n, torch.Generator().manual_seed(seed))


def loud(network, seed=5):
    """The same network with weights far from their start, biases included."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=rng))
    return network


@torch.no_grad()
def test_ksz_is_odd_in_its_own_noise_and_nothing_else_sees_it():
    network = loud(paint())
    kappa, noise = draw(), noise_of(network)
    levels = len(network.backbone.widths)
    out = network(kappa, noise)
    flipped = network(kappa, noise[:levels] + [-z for z in noise[levels:]])
    assert torch.equal(flipped[:, 0], -out[:, 0])
    assert torch.equal(flipped[:, 1:], out[:, 1:])
    assert out[:, 0].std() > 0.01
    # and the backbone's noise does reach all three
    other = network(kappa, [-z for z in noise[:levels]] + noise[levels:])
    assert ((other - out).abs().amax((0, 2, 3)) > 0.01).all()


@torch.no_grad()
def test_a_velocity_made_beforehand():
    network = paint()
    kappa, noise = draw(), noise_of(network)
    levels = len(network.backbone.widths)
    velocity = network.velocity(noise[levels:])
    assert torch.equal(network(kappa, noise[:levels], velocity), network(kappa, noise))


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
@torch.no_grad()
def test_tsz_is_nowhere_positive(scale):
    """Exactly 0 is the most that any amplitude gives; rounding there and back is 1e-6 of s."""
    network = loud(paint())
    made = network(scale * draw(), noise_of(network))[:, 1:2]
    assert TSZ.inverse(made).max() < 1e-6 * TSZ.scale[0]
    assert torch.isfinite(made).all()


@torch.no_grad()
def test_outputs_stay_bounded_on_wild_inputs():
    for network in (loud(paint()), loud(convergence())):
        out = network(1e4 * draw(), noise_of(network))
        assert torch.isfinite(out).all()
        assert out.abs().max() < 100


@pytest.mark.parametrize("make", [paint, convergence])
@torch.no_grad()
def test_a_batch_is_its_patches(make):
    network = make()
    kappa, noise = draw(batch=3), noise_of(network, batch=3)
    together = network(kappa, noise)
    for i in range(3):
        alone = network(kappa[i : i + 1], [z[i : i + 1] for z in noise])
        torch.testing.assert_close(alone[0], together[i], rtol=FLOAT32, atol=FLOAT32)


@pytest.mark.parametrize("make", [paint, convergence])
@torch.no_grad()
def test_shifted_inputs_give_shifted_outputs_away_from_the_edges(make):
    network = make()
    n, shift, edge = 256, network.stride, 104  # beyond the reach, see test_evaluate.py
    kappa, noise = draw(n), noise_of(network, n)
    rolled = [
        torch.roll(z, (shift >> level, -shift >> level), (2, 3))
        for z, (level, _) in zip(noise, network.noise_levels, strict=True)
    ]
    out = torch.roll(network(kappa, noise), (shift, -shift), (2, 3))
    moved = network(torch.roll(kappa, (shift, -shift), (2, 3)), rolled)
    inside = (..., slice(edge, -edge), slice(edge, -edge))
    torch.testing.assert_close(moved[inside], out[inside], rtol=FLOAT32, atol=FLOAT32)
    # a shift that is no multiple of the stride is another picture
    odd = network(torch.roll(kappa, 1, 2), [torch.roll(z, 1, 2) for z in noise])
    assert (torch.roll(network(kappa, noise), 1, 2) - odd)[inside].abs().max() > 1e-3


@pytest.mark.parametrize(
    "make",
    [paint, convergence, lambda seed=0: PointSources(seed=seed), lambda seed=0: Critic(2, (4, 4))],
)
def test_the_seed_sets_the_weights_and_global_state_is_left_alone(make):
    torch_state = torch.get_rng_state()
    first, second = make(), make()
    assert torch.equal(torch.get_rng_state(), torch_state)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("make", [paint, convergence, lambda seed: PointSources(seed=seed)])
def test_another_seed_gives_other_weights(make):
    pairs = zip(make(seed=1).parameters(), make(seed=2).parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


@torch.no_grad()
def test_noise_comes_from_its_generator_alone():
    network = paint()
    state = torch.get_rng_state()
    a, b, c = noise_of(network), noise_of(network), noise_of(network, seed=3)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not any(torch.equal(x, y) for x, y in zip(a, c, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert [z.shape[1:] for z in a] == [
        (channels, 64 >> level, 64 >> level) for level, channels in network.noise_levels
    ]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@torch.no_grad()
def test_weights_round_trip(tmp_path, dtype):
    networks = {
        "convergence": loud(convergence()),
        "paint": loud(paint()),
        "point_sources": PointSources(-4.0),
    }
    header = {
        "networks": {n: weights.network_header(m) for n, m in networks.items()},
        "pixel_arcmin": 0.5,
        "normaliser": Normaliser(("kappa",), (None,), (0.0,), (1.0,)).to_dict(),
    }
    weights.save(tmp_path / "w.safetensors", weights.pack(networks), header, dtype)
    built = weights.build(tmp_path / "w.safetensors")
    assert built["point_sources"].log_rate == -4.0
    assert built["paint"].noise_levels == networks["paint"].noise_levels
    for name in ("convergence", "paint"):
        kappa, noise = draw(), noise_of(networks[name])
        want, got = networks[name](kappa, noise), built[name](kappa, noise)
        if dtype == "float32":
            assert torch.equal(want, got)
        else:
            assert (want - got).std() < HALF * want.std()


def test_blur_keeps_a_constant_and_the_sum():
    flat = torch.full((1, 2, 32, 32), 3.0)
    torch.testing.assert_close(blur(flat, 2.4), flat, rtol=FLOAT32, atol=FLOAT32)
    point = torch.zeros(1, 1, 65, 65)
    point[..., 32, 32] = 1
    out = blur(point, 2.4)[0, 0]
    assert out.sum().item() == pytest.approx(1, rel=FLOAT32)
    x = torch.arange(65.0) - 32
    # cut at 3 sigma, which takes 3 % off the variance
    assert (out.sum(0) * x**2).sum().item() == pytest.approx(2.4**2, rel=0.04)
    torch.testing.assert_close(out, out.t(), rtol=FLOAT32, atol=1e-9)


@torch.no_grad()
def test_points_start_at_their_rate():
    rate = PointSources(-5.0)(0 * draw(32, channels=3))
    torch.testing.assert_close(rate, torch.full_like(rate, -5.0))


MIX = ((1.0, 1.0, 1.0), (0.9, 2.0, 0.6), (0.5, 5.5, 0.2))
COLOURS = {"cib_mix": MIX, "cib_mean": (1.2, 1.1, 0.9), "cib_std": (0.27, 0.28, 0.3)}


@torch.no_grad()
def test_templates_of_the_cib_are_never_negative_and_of_colours_between_the_given():
    one, network = loud(paint()), loud(paint(**COLOURS), seed=6)
    kappa, noise = draw(), noise_of(network)
    out = network(kappa, noise)
    assert one(kappa, noise).shape[1] == 3
    assert out.shape[1] == 5
    std, mean = (torch.tensor(COLOURS[f"cib_{k}"])[:, None, None] for k in ("std", "mean"))
    raw = torch.expm1(out[0, 2:] * std + mean)  # over the templates' scales
    assert (raw >= 0).all()
    bounds = [[a / b for a, b in zip(MIX[i], MIX[0], strict=True)] for i in (1, 2)]
    for ratio, between in zip(raw[1:] / raw[:1], bounds, strict=True):
        assert ratio.std() > 1e-3
        assert min(between) * (1 - ROUNDED) <= ratio.min()
        assert ratio.max() <= max(between) * (1 + ROUNDED)
    again = Paint(**network.kwargs)
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again(kappa, noise), out)


def test_colours_are_differences():
    fields = draw(channels=5)
    out = default.colours(fields)
    assert torch.equal(out[:, :3], fields[:, :3])
    small = 1e-3 * (fields[:, 3] - fields[:, 2])
    near = torch.cat([fields[:, :3], (fields[:, 2] + small)[:, None]], 1)
    expected = small / default.COLOUR_RMS[0]
    torch.testing.assert_close(default.colours(near)[:, 3], expected, atol=1e-5, rtol=1e-3)
    one = draw(channels=3)
    assert torch.equal(default.colours(one), one)


@pytest.mark.parametrize("make", [paint, convergence])
@torch.no_grad()
def test_networks_see_the_objects(make):
    network = loud(make(objects=2))
    inputs, noise = draw(channels=3), noise_of(network)
    out = network(inputs, noise)
    for i in range(3):
        other = inputs.clone()
        other[:, i] *= -1
        assert (network(other, noise) - out).abs().max() > 0.01
    again = type(network)(**network.kwargs)
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again(inputs, noise), out)


@torch.no_grad()
def test_a_start_without_objects_begins_as_it_was():
    """What a network learned stays, whatever the objects are, until they are learned too."""
    inputs = draw(channels=3)
    for old, new in (
        (loud(convergence()), convergence(objects=2)),
        (loud(paint()), paint(objects=2)),
    ):
        new.load_state_dict(default.widened(new, old.state_dict()))
        noise = noise_of(new)
        before, after = old(inputs[:, :1], noise), new(inputs, noise)
        torch.testing.assert_close(after[:, : before.shape[1]], before, atol=WIDER, rtol=WIDER)
        same = default.widened(old, old.state_dict())
        assert all(torch.equal(same[k], v) for k, v in old.state_dict().items())
