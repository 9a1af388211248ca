"""Variational autoencoders: the networks, the bound, the map, the latents, training."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mlsky.toys import image_statistics as statistics
from mlsky.toys import images, vae
from mlsky.toys.vae import Decoder, Encoder
from mlsky.training import unconditional
from mlsky.training.elbo import beta, elbo
from mlsky.training.loop import train
from mlsky.training.recipes import recipe

SIZES = {"channels": 1, "size": 8, "latent": 3, "width": 4}
#: Draws of a mean, and standard errors allowed.
DRAWS, SIGMAS = 20000, 4.0
ROUNDING = 1e-5
#: The variance of 400 x 64 Gaussian numbers is known to 0.9 %; of the differences, a little less.
ALIKE = 0.05


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _gaussians(n=5):
    rng = _rng(3)
    return torch.randn(n, 3, generator=rng), torch.randn(n, 3, generator=rng)


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32)])
def test_shapes(channels, size):
    options = {"channels": channels, "size": size, "latent": 5, "width": 2}
    encoder, decoder = Encoder(**options), Decoder(**options)
    x = torch.randn(4, channels, size, size, generator=_rng())
    mean, log_variance = encoder(x)
    assert mean.shape == log_variance.shape == (4, 5)
    assert decoder(mean).shape == x.shape
    assert encoder.kwargs == options
    assert decoder.kwargs == {**options, "hidden": 0, "noise": None}
    assert torch.equal(Encoder(**options).head.weight, encoder.head.weight)


def test_reparameterised_draws_have_the_moments_asked_for():
    mean, log_variance = (x[:1].expand(DRAWS, 3).clone() for x in _gaussians())
    mean.requires_grad_(True)
    z = vae.reparameterise(mean, log_variance, _rng())
    std = torch.exp(log_variance[0] / 2)
    off = (z.detach().mean(0) - mean[0].detach()) / std * math.sqrt(DRAWS)
    assert off.abs().max() < SIGMAS
    spread = (z.detach().std(0) / std - 1) * math.sqrt(2 * DRAWS)
    assert spread.abs().max() < SIGMAS
    z.sum().backward()
    assert torch.equal(mean.grad, torch.ones_like(mean))


def test_the_bound_is_torchs():
    mean, log_variance = _gaussians()
    q, p = Normal(mean, torch.exp(log_variance / 2)), Normal(0.0, 1.0)
    x, decoded = (torch.randn(5, 2, 8, 8, generator=_rng(s)) for s in (1, 2))
    log_noise = torch.tensor(-0.7)
    found = elbo(x, decoded, log_noise, mean, log_variance)
    likelihood = Normal(decoded, torch.exp(log_noise)).log_prob(x).sum((1, 2, 3)).mean()
    divergence = kl_divergence(q, p).sum(1).mean()
    torch.testing.assert_close(found.likelihood, likelihood)
    torch.testing.assert_close(found.divergence, divergence)
    torch.testing.assert_close(found.bound, likelihood - divergence)
    weighted = elbo(x, decoded, log_noise, mean, log_variance, beta=4.0)
    torch.testing.assert_close(weighted.bound, likelihood - 4 * divergence)


def test_one_draw_estimates_the_divergence():
    """Eq. 8.9 from a single z, the report's way, has the closed form as its mean."""
    mean, log_variance = (x[:1].expand(DRAWS, 3) for x in _gaussians())
    z = vae.reparameterise(mean, log_variance, _rng())
    x = torch.zeros(DRAWS, 1, 1, 1)
    closed = elbo(x, x, torch.zeros(()), mean, log_variance).divergence
    drawn = elbo(x, x, torch.zeros(()), mean, log_variance, z).divergence
    q, p = Normal(mean, torch.exp(log_variance / 2)), Normal(0.0, 1.0)
    each = (q.log_prob(z) - p.log_prob(z)).sum(1)
    torch.testing.assert_close(drawn, each.mean(), rtol=1e-4, atol=1e-4)
    assert abs(drawn - closed) < SIGMAS * each.std() / math.sqrt(DRAWS)


def test_noise_by_band_is_a_stationary_field():
    """Modes keep the likelihood of white noise; draws have the power that each band is given."""
    rng = torch.Generator().manual_seed(1)
    n = 16
    torch.testing.assert_close(vae.cosines(n) @ vae.cosines(n).T, torch.eye(n))
    decoder = vae.Decoder(channels=2, size=n, latent=3, width=2, bands=4)
    x = torch.randn(5, 2, n, n, generator=rng)
    log_variance = torch.zeros(5, 3)
    white = elbo(x, 0 * x, torch.zeros(()), log_variance, log_variance)
    modes = (decoder.modes(y) for y in (x, 0 * x))
    by_band = elbo(*modes, decoder.log_noise, log_variance, log_variance)
    assert by_band.likelihood.item() == pytest.approx(white.likelihood.item(), rel=ROUNDING)
    with torch.no_grad():
        decoder.tenth_log_noise.copy_(torch.randn(2, 4, generator=rng) / 20)
        drawn = decoder.modes(decoder.residual(4000, rng))
    spread = (drawn / decoder.log_noise.exp()).std(0)
    # the standard deviation of 4000 numbers is known to 1.1 %; of 512 modes, the worst by 5 times
    torch.testing.assert_close(spread, torch.ones(2, n, n), rtol=0.06, atol=0)
    assert decoder.band.max() == 3
    assert vae.Decoder(size=n, latent=3, width=2).residual(4, rng) == 0


def test_latents_that_collapse_are_seen():
    rng = np.random.Generator(np.random.Philox(1))
    mean = np.stack([rng.standard_normal(500), np.full(500, 0.02)], 1)
    log_variance = np.tile([-4.0, 0.0], (500, 1))
    found = vae.latents(mean, log_variance)
    assert found.active.tolist() == [True, False]
    want = (np.mean(mean[:, 0] ** 2) + math.exp(-4) - 1 + 4) / 2
    np.testing.assert_allclose(found.kl, [want, 0.02**2 / 2], rtol=1e-9)
    with pytest.raises(ValueError, match="of at least 2 images"):
        vae.latents(mean[:1], log_variance[:1])


def test_the_map_of_two_latents():
    decoder = Decoder(**SIZES)
    sheet = vae.traversal(decoder, (0, 2), steps=3, reach=1.5)
    assert sheet.shape == (3, 3, 1, 8, 8)
    z = torch.tensor([[-1.5, 0, 1.5]])
    np.testing.assert_allclose(sheet[0, 2], decoder(z)[0].detach(), atol=ROUNDING)
    centre = torch.tensor([9.0, 0.5, 9.0])
    moved = vae.traversal(decoder, (0, 2), steps=3, reach=1.5, centre=centre)
    z = torch.tensor([[0, 0.5, -1.5]])
    np.testing.assert_allclose(moved[1, 0], decoder(z)[0].detach(), atol=ROUNDING)
    for bad in ((0, 0), (0, 3)):
        with pytest.raises(ValueError, match="must be two different of 0 to 2"):
            vae.traversal(decoder, bad)
    with pytest.raises(ValueError, match="steps=1"):
        vae.traversal(decoder, (0, 1), steps=1)


def test_changes_over_a_map():
    """Images that are linear in the latents, white ones, and ones that are all alike."""
    rng = np.random.Generator(np.random.Philox(4))
    true = rng.standard_normal((4000, 1, 8, 8))
    u = np.arange(6.0)
    linear = np.zeros((6, 6, 1, 8, 8))
    linear[..., 0, 0], linear[..., 4, 4] = u[:, None, None], u[None, :, None]
    found = vae.changes(linear, true)
    assert found.step == pytest.approx(3 / 6**2)
    # the variance of 36 values, of two pixels of 64
    assert found.spread == pytest.approx(2 * np.repeat(u, 6).var(ddof=1) / 64, rel=ALIKE)
    white = vae.changes(true[:400].reshape(20, 20, 1, 8, 8), true)
    assert white == pytest.approx((1, 1), rel=ALIKE)
    assert vae.changes(np.ones((3, 3, 1, 8, 8)), true) == (0, 0)
    for sheet, of, message in (
        (linear[0], true, r"must be \(steps, steps, C, H, W\) and \(N, C, H, W\)"),
        (linear[..., :4], true, "must be"),
        (linear, true[:1], "must be at least two images that differ"),
        (linear, np.ones((3, 1, 8, 8)), "must be at least two images that differ"),
    ):
        with pytest.raises(ValueError, match=message):
            vae.changes(sheet, of)


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """Some seconds of 1797 digits; a smaller network than the recipe's."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("digits")
    options = {**SIZES, "latent": 6, "width": 16}
    small = dataclasses.replace(
        recipe("vae-digits"), batch=64, generator_options=options, critic_options=options
    )
    run = train(small, None, folder, steps=300, device="cpu", progress=False)
    return folder, run


def test_digits_are_learned(digits_run):
    folder, _ = digits_run
    encoder, decoder, normaliser = unconditional.autoencoder(folder)
    true = images.digits(seed=9).batch(0, 512).numpy()
    means, found = unconditional.codes(encoder, normaliser, true)
    assert found.active.sum() >= 4
    with torch.no_grad():
        again = normaliser.inverse(decoder(torch.from_numpy(means))).numpy()
    # explained variance: a mean image alone leaves all of it
    left = ((again - true) ** 2).mean() / (true - true.mean(0)).var()
    assert left < 0.6
    # the learned noise is what draws of the code leave, pixel by pixel, in network units
    x = torch.from_numpy(normaliser.forward(true))
    with torch.no_grad():
        drawn = decoder(vae.reparameterise(*encoder(x), _rng()))
    assert decoder.noise == pytest.approx(float((drawn - x).pow(2).mean().sqrt()), rel=0.2)
    # blur, the failure that chapter 8 names: less power at the smallest scales
    drawn = np.concatenate([b.numpy() for b in _drawn(decoder, normaliser)])
    ratio = statistics.power(drawn).mean(0) / statistics.power(true).mean(0)
    assert ratio[4] < ratio[1]
    assert ratio[4] < 0.7


def _drawn(decoder, normaliser):
    from mlsky.toys.unconditional import batches

    return (normaliser.inverse(x) for x in batches(decoder, 512, 3))


def test_a_run_of_an_autoencoder_can_be_gone_on_with_and_sampled(digits_run, tmp_path):
    from mlsky.toys.unconditional import sample

    folder, run = digits_run
    again = train(run.recipe, None, folder, steps=300, device="cpu", progress=False)
    assert again.step == 300
    made = sample(unconditional.opened(folder), 3, seed=1)
    assert made.shape == (3, 1, 8, 8)
    unconditional.to_file(folder, tmp_path / "digits.safetensors")
    stored = sample(tmp_path / "digits.safetensors", 3, seed=1)
    np.testing.assert_allclose(stored, made, atol=0.05 * made.std())  # half precision


def test_a_given_noise_is_not_learned(tmp_path):
    decoder = Decoder(**SIZES, hidden=6, noise=0.15)
    assert decoder.noise == pytest.approx(0.15)
    assert not decoder.log_noise.requires_grad
    assert Decoder(**SIZES).log_noise.requires_grad
    assert [layer.out_features for layer in decoder.hidden] == [6, 6]
    small = dataclasses.replace(
        recipe("vae-digits"),
        generator_options={**SIZES, "hidden": 6, "noise": 0.15},
        critic_options=SIZES,
    )
    options = {"steps": 3, "device": "cpu", "progress": False}
    whole = train(small, None, tmp_path / "whole", **options)
    train(small, None, tmp_path / "parts", stop=1, **options)
    parts = train(small, None, tmp_path / "parts", **options)
    for name in ("generator", "critic"):  # the noise, which has no gradient, is no obstacle
        pairs = zip(*(getattr(x, name).parameters() for x in (whole, parts)), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    encoder, decoder, _ = unconditional.autoencoder(tmp_path / "parts")
    assert decoder.noise == pytest.approx(0.15)
    assert encoder.kwargs == SIZES
    rising = recipe("vae-blobs-1")
    assert beta(rising, 0) == pytest.approx(rising.penalty_start)
    assert beta(rising, rising.decay_from / 2) == pytest.approx(rising.penalty_start**0.5)
    assert beta(rising, rising.decay_from) == beta(rising, 1.0) == rising.penalty_weight
    assert beta(recipe("vae-digits"), 0) == 1


@pytest.mark.parametrize("hidden", [0, 6])
def test_draws_are_made_like_the_codes(hidden):
    """Codes that are correlated, shifted and too wide: the changed decoder of N(0, I) is the old
    one of them."""
    rng = np.random.Generator(np.random.Philox(2))
    mean = rng.standard_normal((5000, 3)) @ [[3.0, 1, 0], [0, 2, 0], [0, 0, 0.5]] + [1, -2, 0]
    log_variance = np.full(mean.shape, math.log(0.01))
    old, new = (Decoder(**SIZES, hidden=hidden) for _ in range(2))
    vae.draw_like(new, mean, log_variance)
    z = torch.randn(5000, 3, generator=_rng())
    codes = mean + 0.1 * rng.standard_normal(mean.shape)
    with torch.no_grad():
        drawn, wanted = new(z).flatten(1), old(torch.from_numpy(codes).float()).flatten(1)
    scatter = wanted.std(0)
    error = SIGMAS * math.sqrt(2 / 5000)
    assert ((drawn.mean(0) - wanted.mean(0)).abs() < error * scatter).all()
    assert ((drawn.std(0) / scatter - 1).abs() < 0.1).all()
    # the first latent is that of the largest variance
    changes = [(new(torch.eye(3)[[i]]) - new(torch.zeros(1, 3))).square().mean() for i in range(3)]
    assert changes[0] == max(changes)
    for bad in (mean[:, :2], mean[:3]):
        with pytest.raises(ValueError, match=r"must be \(images, 3\) of more than 3 images"):
            vae.draw_like(new, bad, np.zeros_like(bad))


def test_bad_networks_and_images():
    for change, message in (
        ({"hidden": -1}, r"hidden=-1: must be an integer >= 0"),
        ({"noise": 0.0}, r"noise=0.0: must be a number > 0, or None"),
        ({"noise": math.nan}, r"noise=nan: must be a number > 0, or None"),
        ({"bands": -1}, r"bands=-1: must be an integer >= 0"),
        ({"bands": 4, "noise": 0.1}, r"noise=0.1: is learned by band, with bands=4; leave it out"),
    ):
        with pytest.raises(ValueError, match=message):
            Decoder(**{**SIZES, **change})
    for change, message in (
        ({"latent": 0}, r"latent=0: must be an integer >= 1"),
        ({"size": 12}, r"size=12: must be a power of two, at least 8"),
    ):
        for cls in (Encoder, Decoder):
            with pytest.raises(ValueError, match=message):
                cls(**{**SIZES, **change})
    with pytest.raises(ValueError, match=r"Encoder input of shape \(2, 1, 16, 16\)"):
        Encoder(**SIZES)(torch.zeros(2, 1, 16, 16))
    with pytest.raises(ValueError, match=r"Decoder input of shape \(2, 4\): must be \(N, 3\)"):
        Decoder(**SIZES)(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="must pair up"):
        elbo(torch.zeros(2, 1), torch.zeros(2, 2), torch.zeros(()), *_gaussians())


def test_sets_that_do_not_suit(tmp_path):
    import h5py

    weights = unconditional.opened("vae-sky")
    for pixel, patches, message in (
        (2.0, 40, "pixels of 2.0', vae-sky was trained on 0.5'"),
        (0.5, 3, "3 patches of 128 pixels; a comparison needs at least 16"),
    ):
        path = tmp_path / f"{patches}.h5"
        with h5py.File(path, "w") as file:
            file.attrs["pixel_arcmin"] = pixel
            for name in ("kappa", "tsz", "cib"):
                file[name] = np.ones((patches, 128, 128), "f4")
        with pytest.raises(ValueError, match=message):
            unconditional.truth(weights, 32, 1, path)
    with pytest.raises(ValueError, match="was trained on a set; name one"):
        unconditional.truth(weights, 32, 1)
