"""Blocks give what one evaluation gives; the paper's tiles; which files make a sky."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from han2021_normaliser import HAN2021

from mlsky import RegistryError
from mlsky.networks import evaluate, han2021, staged
from mlsky.networks.default import NOISE, WIDTHS, Convergence, Paint, PointSources
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.weights import Weights
from mlsky.sphere.chart_area import Area

# float32 sums in another order, in units of a map's standard deviation: 1e-5 to 2e-5 measured,
# by the kernels that the number of threads picks; padding that is too narrow gives 1.
FLOAT32 = 1e-4
# Networks run in bfloat16 (8 bits); other shapes may take other kernels, and so round elsewhere.
BF16 = 0.05

NORMALISER = Normaliser(
    ("kappa", "ksz", "tsz", "cib"), (None, None, 3.7, 17.0), (0, 0, -0.63, 0.6), (0.08, 2, 0.3, 0.3)
)
#: Measured below: how far the outputs see, for the four levels of the default networks.
RECEPTIVE_RADIUS = {"convergence": 58, "paint": 96}


def _weights(networks) -> Weights:
    header = {"normaliser": NORMALISER.to_dict(), "pixel_arcmin": 0.5}
    return Weights(networks, header, Path("test.safetensors"), "0" * 64)


@pytest.fixture(scope="module")
def default():
    small = {"widths": (4, 4, 4, 4), "noise": (1, 1, 1, 1)}
    assert len(WIDTHS) == len(NOISE) == 4  # the reach is that of the number of levels
    networks = {
        "convergence": Convergence(**small),
        "paint": Paint(-0.63, 0.3, **small),
        "point_sources": PointSources(),
    }
    return _weights({k: m.eval().requires_grad_(False) for k, m in networks.items()})


def _inputs(weights, ny, nx, seed=0):
    rng = torch.Generator().manual_seed(seed)
    noise = {
        name: [torch.randn(c, ny >> l, nx >> l, generator=rng) for l, c in levels]
        for name, levels in evaluate.noise_channels(weights).items()
    }
    return (0.08 * torch.randn(ny, nx, generator=rng)).numpy(), noise


def _receptive_radius(network, n=256) -> int:
    """Largest distance of an input pixel that moves an output pixel, over all phases of 8."""
    rng = torch.Generator().manual_seed(0)
    at = torch.arange(n // 2 - 4, n // 2 + 4)
    kappa = torch.randn(len(at), 1, n, n, generator=rng).requires_grad_(True)
    out = network(kappa, network.draw_noise(len(at), n, n, rng))
    (gradient,) = torch.autograd.grad(out[torch.arange(len(at)), :, at, at].sum(), kappa)
    patch, y, x = (gradient[:, 0] != 0).nonzero().T
    return int(torch.maximum((y - at[patch]).abs(), (x - at[patch]).abs()).max())


@pytest.mark.parametrize("name", RECEPTIVE_RADIUS)
def test_the_padding_is_as_wide_as_the_receptive_radius(default, name):
    assert _receptive_radius(default[name]) == RECEPTIVE_RADIUS[name] <= evaluate.PADDING
    assert evaluate.PADDING % default[name].stride == 0


def _difference(a: dict, b: dict) -> float:
    assert set(a) == set(b) == {"kappa", "ksz", "tsz", "cib", "log_rate"}
    return max(((a[k] - b[k]).abs().max() / a[k].std()).item() for k in a)


SMALL_BLOCKS = ((96, 64), (32, 64), (32, 32), (16, 16))


def _plainly(weights, kappa, noise, precision="bf16") -> dict:
    """The networks' own forward calls on the whole picture."""
    noise = {name: [z[None] for z in tensors] for name, tensors in noise.items()}
    start = weights.normaliser.select(["kappa"]).forward(torch.from_numpy(kappa)[None, None])
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            grown = weights["convergence"](start, noise["convergence"])
            painted = weights["paint"](grown, noise["paint"])
            fields = torch.cat([grown, painted], 1)
            rate = weights["point_sources"](fields[:, [0, 2, 3]])[0, 0]
    names = ("kappa", "ksz", "tsz", "cib")
    out = dict(zip(names, weights.normaliser.select(names).inverse(fields)[0], strict=True))
    return {**out, "tsz": out["tsz"].clamp(max=0), "cib": out["cib"].clamp(min=0), "log_rate": rate}


def test_blocks_give_one_whole_evaluation(default, monkeypatch):
    kappa, noise = _inputs(default, 288, 352)
    rounded = _plainly(default, kappa, noise)
    assert _difference(rounded, evaluate.evaluate(default, kappa, noise)) < BF16
    with monkeypatch.context() as context:
        whole = _plainly(default, kappa, noise, "fp32")
        context.setattr(staged, "BLOCK", SMALL_BLOCKS)
        made = evaluate.evaluate(default, kappa, noise, precision="fp32")
        assert _difference(whole, made) < FLOAT32
        # and this would tell: a narrower padding shows
        context.setattr(staged, "OVERLAP", 0)
        made = evaluate.evaluate(default, kappa, noise, precision="fp32")
        assert _difference(whole, made) > 10 * FLOAT32
    monkeypatch.setattr(staged, "BLOCK", SMALL_BLOCKS)
    assert _difference(rounded, evaluate.evaluate(default, kappa, noise)) < BF16


def test_an_area_has_what_the_whole_picture_has(default, monkeypatch):
    """With the whole reach around it; with less, nearly."""
    kappa, noise = _inputs(default, 384, 416)
    y, x = np.mgrid[:384, :416]
    mask = np.abs(y - 190) + np.abs(x - 200) < 30
    whole = evaluate.evaluate(default, kappa, noise, precision="fp32")
    near = evaluate.evaluate(default, kappa, noise, Area.of(mask), "fp32")
    monkeypatch.setattr(evaluate, "STEP_PADDING", (58, 60, 56))
    exact = evaluate.evaluate(default, kappa, noise, Area.of(mask), "fp32")
    for name, field in whole.items():
        scale = field.std()
        assert (exact[name] - field)[mask].abs().max() < FLOAT32 * scale, name
        assert (near[name] - field)[mask].abs().max() > FLOAT32 * scale, name
        assert (near[name] - field)[mask].std() < scale, name
        beyond = torch.exp(near[name]) if name == "log_rate" else near[name]
        assert (beyond[~mask] == 0).all(), name


def test_velocities_see_noise_outside_the_picture(default, monkeypatch):
    """A picture with noise beyond it has the kSZ velocities of one cut from a larger picture."""
    paint, beyond = default["paint"], staged.NOISE_PADDING
    _, noise = _inputs(default, 512, 576)
    velocity = [z[None] for z in noise["paint"][len(paint.backbone.widths) :]]
    large = paint.velocity(velocity)[..., 160:-160, 160:-160]
    part = [
        z[
            ...,
            (160 >> l) - e : z.shape[-2] - (160 >> l) + e,
            (160 >> l) - e : z.shape[-1] - (160 >> l) + e,
        ]
        for l, z in enumerate(velocity)
        for e in [beyond if l else 0]
    ]
    coarse = staged.velocity(paint, part)
    inner = slice(4, -4)  # the finest level has nothing beyond
    made = torch.cat(
        [
            torch.cat(
                [
                    staged.velocity_block(paint, coarse, part[0], (y, x))
                    for x in (slice(0, 96), slice(96, 256))
                ],
                3,
            )
            for y in (slice(0, 64), slice(64, 192))
        ],
        2,
    )
    assert made.shape == large.shape
    assert (made - large)[..., inner, inner].abs().max() < FLOAT32 * large.std()
    zeros = staged.velocity(
        paint,
        [
            z[
                ...,
                0 if l == 0 else beyond : z.shape[-2] - (beyond if l else 0),
                0 if l == 0 else beyond : z.shape[-1] - (beyond if l else 0),
            ]
            for l, z in enumerate(part)
        ],
    )
    narrow = staged.velocity_block(paint, zeros, part[0], (slice(0, 192), slice(0, 256)))
    assert torch.allclose(
        narrow,
        paint.velocity(
            [
                z[..., (160 >> l) : z.shape[-2] - (160 >> l), (160 >> l) : z.shape[-1] - (160 >> l)]
                for l, z in enumerate(velocity)
            ]
        ),
        atol=FLOAT32,
    )


def test_signs_shapes_and_dtype(default):
    kappa, noise = _inputs(default, 64, 96)
    out = evaluate.evaluate(default, kappa, noise)
    for field in out.values():
        assert field.shape == (64, 96)
        assert field.dtype == torch.float32
    assert out["tsz"].max() <= 0
    assert out["cib"].min() >= 0


def test_sides_are_multiples_of_the_stride(default):
    kappa, noise = _inputs(default, 64, 96)
    with pytest.raises(ValueError, match=r"\(64, 80\): sides must be multiples of 32"):
        evaluate.evaluate(default, kappa[:, :80], noise)
    with pytest.raises(ValueError, match="precision='fp8': must be one of bf16, fp32"):
        evaluate.evaluate(default, kappa, noise, precision="fp8")


@pytest.fixture(scope="module")
def paper():
    """PIXGAN and VAEGAN, thin, in eval mode with batch statistics of a first batch."""
    networks = {"pixgan": han2021.PIXGAN(width=2), "vaegan": han2021.VAEGAN(width=2)}
    weights = _weights({k: m.eval().requires_grad_(False) for k, m in networks.items()})
    weights.header["normaliser"] = HAN2021.to_dict()
    return weights


def test_the_papers_chain_runs_in_tiles(paper):
    rng = torch.Generator().manual_seed(1)
    kappa = 0.08 * torch.randn(256, 200, generator=rng)
    assert evaluate.noise_channels(paper) == {}
    out = evaluate.evaluate(paper, kappa, {})
    assert set(out) == set(HAN2021.channels)
    # the second tile of the first column, by hand
    with torch.no_grad():
        tile = HAN2021.select(["kappa"]).forward(kappa[None, None, 128:, :128])
        fields = torch.cat([tile, paper["pixgan"](tile)], 1)
        want = HAN2021.inverse(paper["vaegan"](fields))[0]
    for name, field in zip(HAN2021.channels, want, strict=True):
        assert out[name].shape == (256, 200)
        limits = {"tsz": (None, 0), "cib": (0, None), "radio": (0, None)}.get(name)
        field = field if limits is None else field.clamp(*limits)
        torch.testing.assert_close(out[name][128:, :128], field, rtol=1e-4, atol=1e-5)


def test_the_papers_chain_is_calibrated(paper):
    """A gain for kSZ, which keeps its sign; values for the fields of one sign, radio too."""
    kappa = 0.08 * torch.randn(128, 128, generator=torch.Generator().manual_seed(2))
    before = evaluate.evaluate(paper, kappa, {})
    half = {"ell": [100.0, 9000.0], "gain": [0.5, 0.5]}
    twice = {"ell": [100.0, 9000.0], "gain": [1.0, 1.0], "from": [0.0, 1.0], "to": [0.0, 2.0]}
    tables = {"ksz": half, "radio": twice, "tsz": twice}
    header = {**paper.header, "calibration": tables}
    after = evaluate.evaluate(replace(paper, header=header), kappa, {})
    for name, factor in (("ksz", 0.5), ("radio", 2), ("tsz", 2), ("cib", 1), ("kappa", 1)):
        torch.testing.assert_close(after[name], factor * before[name], rtol=1e-4, atol=1e-4)
    assert (before["ksz"] < 0).any()


def test_noise_of_the_papers_chain(paper):
    """Each tile sees its part of the noise of every level."""
    noisy = han2021.PIXGAN(width=2, noise=2).eval().requires_grad_(False)
    weights = _weights({"pixgan": noisy, "vaegan": paper["vaegan"]})
    weights.header["normaliser"] = HAN2021.to_dict()
    assert evaluate.noise_channels(weights) == {"pixgan": [(level, 2) for level in range(7)]}
    assert evaluate.noise_padding(weights) == {"pixgan": [0] * 7}
    kappa, noise = _inputs(weights, 256, 128)
    out = evaluate.evaluate(weights, kappa, noise)
    with torch.no_grad():
        tile = HAN2021.select(["kappa"]).forward(torch.from_numpy(kappa)[None, None, 128:])
        lower = [z[None, :, z.shape[1] // 2 :] for z in noise["pixgan"]]
        fields = torch.cat([tile, noisy(tile, lower)], 1)
        want = HAN2021.inverse(paper["vaegan"](fields))[0]
    torch.testing.assert_close(out["ksz"][128:], want[1], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"\(200, 128\): sides must be multiples of 128"):
        evaluate.evaluate(weights, kappa[:200], noise)


def test_kind(default, paper):
    assert evaluate.kind(default) == "default"
    assert evaluate.kind(paper) == "han2021"
    half = _weights({"convergence": default["convergence"], "pixgan": paper["pixgan"]})
    with pytest.raises(ValueError, match=r"test.safetensors holds convergence, pixgan: a sky"):
        evaluate.kind(half)


TEMPLATES = Normaliser(
    ("kappa", "objects_kappa", "objects_tsz", "ksz", "tsz", "cib", "cib_353"),
    (None, None, 3.5, None, 0.6, 9.0, 180.0),
    (0, 0, -0.1, 0, -0.6, 1.2, 1.2),
    (0.09, 0.03, 0.3, 1.7, 0.4, 0.3, 0.3),
)


@pytest.fixture(scope="module")
def rest():
    """Networks that are given clusters and leave them out."""
    small = {"widths": (4, 4, 4, 4), "noise": (1, 1, 1, 1), "objects": 2}
    networks = {
        "convergence": Convergence(**small),
        "paint": Paint(
            *(-0.6, 0.4),
            **small,
            cib_mix=((1.0, 1.0, 1.0), (0.9, 2.0, 0.6)),
            cib_mean=(1.2, 1.2),
            cib_std=(0.3, 0.3),
        ),
        "point_sources": PointSources(),
    }
    with torch.no_grad():  # it starts at nothing
        networks["convergence"].object_gain += 0.2
    header = {"normaliser": TEMPLATES.to_dict(), "pixel_arcmin": 1.0}
    networks = {k: m.eval().requires_grad_(False) for k, m in networks.items()}
    return Weights(networks, header, Path("rest.safetensors"), "0" * 64)


def test_clusters_go_into_both_networks(rest, monkeypatch):
    """In blocks, as in one evaluation: pooled blurs of the objects do not depend on blocks."""
    kappa, noise = _inputs(rest, 192, 224)
    rng = torch.Generator().manual_seed(3)
    objects = {
        "kappa": 0.1 * torch.rand(192, 224, generator=rng) ** 4,
        "tsz": -50 * torch.rand(192, 224, generator=rng) ** 8,
    }
    monkeypatch.setattr(staged, "BLOCK", SMALL_BLOCKS)
    made = evaluate.evaluate(rest, kappa, dict(noise), precision="fp32", objects=objects)
    assert set(made) == {"kappa", "ksz", "tsz", "cib", "cib_353", "log_rate"}
    norm = TEMPLATES.select
    given = norm(evaluate.OBJECTS).forward(torch.stack([objects["kappa"], objects["tsz"]])[None])
    start = norm(["kappa"]).forward(torch.from_numpy(kappa)[None, None])
    batched = {name: [z[None] for z in tensors] for name, tensors in noise.items()}
    with torch.no_grad():
        grown = rest["convergence"](torch.cat([start, given], 1), batched["convergence"])
        painted = rest["paint"](torch.cat([grown, given], 1), batched["paint"])
    names = ("kappa", "ksz", "tsz", "cib", "cib_353")
    plain = norm(names).inverse(torch.cat([grown, painted], 1))[0]
    for name, field in zip(names, plain, strict=True):
        field = field.clamp(max=0) if name == "tsz" else field
        field = field.clamp(min=0) if "cib" in name else field
        assert (made[name] - field).abs().max() < FLOAT32 * field.std()
    other = evaluate.evaluate(
        rest, kappa, dict(noise), objects={**objects, "tsz": 0 * objects["tsz"]}, precision="fp32"
    )
    assert all((other[n] - made[n]).abs().max() > 0.01 * made[n].std() for n in names)


def test_objects_where_they_belong(default, rest):
    kappa, noise = _inputs(rest, 64, 64)
    with pytest.raises(ValueError, match=r"rest.safetensors: its networks take maps of objects"):
        evaluate.evaluate(rest, kappa, noise)
    kappa, noise = _inputs(default, 64, 64)
    maps = {"kappa": kappa, "tsz": kappa}
    with pytest.raises(ValueError, match=r"test.safetensors: its networks do not take maps"):
        evaluate.evaluate(default, kappa, noise, objects=maps)


def test_numbers_that_are_lost_are_refused():
    """Beyond the area the rate of sources is zero, and its logarithm is no failure."""
    maps = {"tsz": np.zeros((2, 2)), "log_rate": np.array([[0.0, -np.inf], [1.0, 2.0]])}
    evaluate.check_finite(maps, 3)
    for name, value in (("tsz", -np.inf), ("log_rate", np.nan), ("log_rate", np.inf)):
        with pytest.raises(RegistryError, match=f"{name} is not finite on chart 3"):
            evaluate.check_finite({**maps, name: np.array([0.0, value])}, 3)
