"""Networks of random numbers alone, and images drawn from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlsky.errors import RegistryError
from mlsky.networks import han2021, weights
from mlsky.networks.normaliser import Normaliser
from mlsky.toys import unconditional
from mlsky.toys.unconditional import Critic, Stamped, draw, sample
from mlsky.toys.vae import Decoder

SMALL = {"size": 32, "nodes": 16, "latent": 8, "width": 2}
#: float32 sums over 32 x 32 pixels.
ROUNDING = 1e-5


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _parts(module, n=3):
    z = torch.randn(n, module.kwargs["latent"], generator=_rng())
    return z, [torch.randn(n, 1, s, s, generator=_rng(1)) for s in module.noise_sides]


def _file(path, module, outputs=("blobs",), inputs=(), std=2.0, **more):
    names = {"images": module, **more}
    header = {
        "networks": {n: weights.network_header(m, inputs, outputs) for n, m in names.items()},
        "normaliser": Normaliser(outputs, (None,) * len(outputs), (0.0,), (std,)).to_dict(),
        "pixel_arcmin": 0.5,
    }
    weights.save(path, weights.pack(names), header, "float32")
    return path


def test_images_are_amplitudes_through_the_beam():
    module = Stamped(**SMALL, total=7.0, beam=1.7, contrast=5.0)
    z, noise = _parts(module)
    with torch.no_grad():
        light, image = module.amplitudes(z, noise).double(), module(z, noise)
    assert image.shape == (3, 1, 32, 32)
    assert (light >= 0).all()
    np.testing.assert_allclose(light.sum((1, 2)), 7, rtol=ROUNDING)
    y, x = np.indices((32, 32))
    direct = np.zeros((32, 32))
    for row in range(32):
        for column in range(32):
            beam = np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * 1.7**2))
            direct += float(light[0, row, column]) * beam
    np.testing.assert_allclose(image[0, 0], direct, atol=ROUNDING * direct.max())
    assert image.max() <= 7
    assert module.beam == pytest.approx(1.7)


def test_no_spot_takes_the_light_of_all():
    """Nothing is brighter than the limit lets it: by exp(2 limit) over the faintest spot."""
    tops = []
    for limit in (0.0, 2.0):
        module = Stamped(**SMALL, total=7.0, contrast=50.0, limit=limit)
        assert module.kwargs.get("limit", 0.0) == limit
        assert ("limit" in module.kwargs) == bool(limit)  # older files do not name it
        z, noise = _parts(module)
        with torch.no_grad():
            light = module.amplitudes(z, noise)
        np.testing.assert_allclose(light.sum((1, 2)), 7, rtol=1e-4)
        tops.append(float(light.max() / light.mean()))
    assert tops[0] > 100
    # light beyond an edge is added to that within: twice as much at most, four times in a corner
    assert tops[1] < 4 * np.exp(4)
    with pytest.raises(ValueError, match=r"limit=-1.0: must be a number >= 0"):
        Stamped(**SMALL, limit=-1.0)


def test_grain_is_noise_from_the_start_and_without_margin_nothing_is_folded():
    module = Stamped(**SMALL, grain=2.0, slope=0.0, beyond=0)
    assert [float(g.detach().mean()) for g in module.noise_gains] == [0.5, 1.0, 2.0]
    assert not any(bool(s.any()) for s in module.slopes)
    assert torch.equal(module.fold, torch.eye(32))
    z, noise = _parts(module)
    assert not torch.equal(module(z, noise), module(z, [n.flip(-1) for n in noise]))
    assert Stamped(**SMALL).kwargs["beyond"] == 4  # as files that do not say it have


def test_blobs_of_one_height_are_images_of_one_blob_added_up():
    one, many = Stamped(**SMALL), Stamped(**SMALL, total=3.0, count=3)
    many.load_state_dict(one.state_dict())
    z, noise = _parts(one)
    together = many(z.reshape(1, -1), [n[:1] for n in noise])
    apart = one(z, [n[:1].repeat(3, 1, 1, 1) for n in noise])
    np.testing.assert_allclose(
        together[0].detach(), apart.sum(0).detach(), atol=ROUNDING * float(apart.detach().max())
    )
    assert many.numbers == 3 * SMALL["latent"]
    scaled = Stamped(**SMALL, count=3, scaled=True)
    scaled.load_state_dict(one.state_dict())
    shown = draw(scaled, 4, _rng()).detach()
    assert shown.shape == (4, 1, 32, 32)
    np.testing.assert_allclose(shown.amax((1, 2, 3)), 1, rtol=ROUNDING)
    with pytest.raises(ValueError, match=r"must be \(N, 24\)"):
        many(z, noise)


def test_contrast_sharpens_and_noise_is_learned_from_nothing():
    flat, sharp = (Stamped(**SMALL, contrast=c) for c in (1.0, 10.0))
    z, noise = _parts(flat)
    peaks = [float(m.amplitudes(z, noise).detach().amax()) for m in (flat, sharp)]
    assert peaks[1] > 5 * peaks[0]
    other = [n + 1 for n in noise]
    assert torch.equal(flat(z, noise), flat(z, other))
    flat(z, noise)[0, 0, 3, 5].backward()
    assert any(float(g.grad.abs().max()) > 0 for g in flat.noise_gains)


def test_every_parameter_learns_and_the_seed_decides_them():
    module = Stamped(**SMALL)
    z, noise = _parts(module)
    (module(z, noise) ** 2).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())
    same, other = Stamped(**SMALL), Stamped(**SMALL, seed=1)
    assert torch.equal(same.head.weight, module.head.weight)
    assert not torch.equal(other.head.weight, module.head.weight)


def test_critics_signal_keeps_its_size_at_any_width():
    """The paper's N(0, 0.02) at 8 channels lets it fade by a factor of some thousand."""
    x = torch.randn(16, 1, 128, 128, generator=_rng())
    ours = [Critic(1, 128, width)(x).std().item() for width in (2, 8)]
    assert 0.1 < min(ours) < max(ours) < 10
    assert han2021.Critic(1, 8)(x).std().item() < 1e-2 * min(ours)
    with pytest.raises(ValueError, match="of other channels"):
        Critic(2, 32, 2)(x)


def test_draw_from_each_kind():
    modules = {
        (2, 1, 32, 32): Stamped(**SMALL),
        (2, 3, 16, 16): Decoder(3, 16, 4, 2),
        (2, 1, 128, 128): han2021.DCGAN(1, 1, 4).eval(),
    }
    for shape, module in modules.items():
        a, b, c = (draw(module, 2, _rng(seed)) for seed in (1, 1, 2))
        assert a.shape == shape
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    with pytest.raises(ValueError, match="PIXGAN: is made from fields"):
        draw(han2021.PIXGAN(width=1), 2, _rng())


def test_sample_from_a_file(tmp_path):
    path = _file(tmp_path / "w.safetensors", Stamped(**SMALL, total=3.0))
    state = torch.get_rng_state()
    few, many = (sample(path, n, seed=4) for n in (3, 70))
    assert torch.equal(torch.get_rng_state(), state)
    assert few.shape == (3, 1, 32, 32)
    assert few.dtype == np.float32
    np.testing.assert_array_equal(few, many[:3])
    assert not np.array_equal(few, sample(path, 3, seed=5))
    opened = weights.open_weights(path)
    np.testing.assert_array_equal(few, sample(opened, 3, seed=4))
    # in the images' own unit, twice that of the network
    (raw,) = unconditional.batches(opened["images"], 3, 4)
    np.testing.assert_allclose(few, 2 * raw.numpy(), rtol=1e-6)


def test_bad_samples(tmp_path):
    path = _file(tmp_path / "w.safetensors", Stamped(**SMALL))
    with pytest.raises(ValueError, match=r"n=0: must be an integer >= 1"):
        sample(path, 0, seed=1)
    with pytest.raises(ValueError, match=r"seed=-1"):
        sample(path, 1, seed=-1)
    fields = _file(tmp_path / "f.safetensors", han2021.VAEGAN(1, 1), inputs=("blobs",))
    with pytest.raises(ValueError, match="hold 0 networks that take random numbers alone"):
        sample(fields, 1, seed=1)
    with pytest.raises(RegistryError, match="nothing-here"):
        sample("nothing-here", 1, seed=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent": 0}, r"latent=0: must be an integer >= 1"),
        ({"width": -1}, r"width=-1: must be an integer >= 1"),
        ({"size": 100}, r"size=100: must be a power of two, at least 16"),
        ({"nodes": 64}, r"nodes=64: must be at most the size, 32"),
        ({"total": 0.0}, r"total=0.0: must be a number > 0"),
        ({"beam": float("nan")}, r"beam=nan: must be a number > 0"),
        ({"grain": -1.0}, r"grain=-1.0: must be a number >= 0"),
        ({"count": 0}, r"count=0: must be an integer >= 1"),
        ({"beyond": 33}, r"beyond=33: must be an integer, 0 to the size, 32"),
    ],
)
def test_bad_networks(change, message):
    with pytest.raises(ValueError, match=message):
        Stamped(**{**SMALL, **change})


def test_bad_inputs():
    module = Stamped(**SMALL)
    z, noise = _parts(module)
    with pytest.raises(ValueError, match=r"shape \(3, 7\): must be \(N, 8\)"):
        module(z[:, :7], noise)
