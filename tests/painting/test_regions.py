"""Regions as networks make them: seeds, edges, jobs, calibration."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mlsky import seeds
from mlsky.networks import evaluate
from mlsky.networks.default import Convergence, Paint, PointSources
from mlsky.networks.han2021 import PIXGAN, VAEGAN
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.weights import Weights
from mlsky.painting import regions
from mlsky.sources import counts
from mlsky.statistics.bandpower import multipoles

N = 64
SMALL = {"widths": (4, 4), "noise": (1, 1)}
NORMALISER = Normaliser(
    ("kappa", "ksz", "tsz", "cib"), (None, None, 3.7, 17.0), (0, 0, -0.63, 0.6), (0.08, 2, 0.3, 0.3)
)
#: Networks run in bfloat16, whose sums depend a little on the shape of what they are given.
BFLOAT16 = 0.02


def _networks():
    return {
        "convergence": Convergence(**SMALL),
        "paint": Paint(-0.63, 0.3, **SMALL, velocity_levels=2),
        "point_sources": PointSources(-3.0),
    }


def _weights(networks=None, **header) -> Weights:
    header = {"normaliser": NORMALISER.to_dict(), "pixel_arcmin": 0.5, **header}
    return Weights(networks or _networks(), header, Path("w.safetensors"), "0" * 64)


def _kappa(n=N):
    return 0.08 * seeds.generator(1, "kappa").standard_normal((n, n)).astype("f4")


def test_generate_with_networks():
    kappa = _kappa()
    state = torch.get_rng_state()
    maps, again = (regions.generate(_weights(), kappa, 5, 0) for _ in "ab")
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(maps, again)
    assert maps.shape == (5, 64, 64)
    assert maps.dtype == np.float32
    assert maps[2].max() <= 0
    assert maps[3:].min() >= 0
    for other in (
        regions.generate(_weights(), kappa, 6, 0),
        regions.generate(_weights(), kappa, 5, 1),
    ):
        assert (np.abs(other - maps).max((1, 2)) > 0).all()
    # exp(-3) sources per pixel or so, each at most 7 mJy; half the mean rate, twice as many
    number = (maps[4] > 0).mean()
    assert number == pytest.approx(math.exp(-3), rel=0.5)
    pixel_sr = math.radians(0.5 / 60) ** 2
    mean = counts.radio_density() * pixel_sr
    for factor in (1.0, 2.0):
        weights = _weights(calibration={"radio_mean_rate": mean / factor})
        assert (regions.generate(weights, kappa, 5, 0)[4] > 0).mean() == pytest.approx(
            factor * number, rel=0.3
        )


def test_periodic_regions_have_no_edges():
    """A region that is rolled, with its noise, gives the same maps rolled."""
    weights, kappa = _weights(), _kappa()
    made = regions.run(weights, kappa, 3, 0, periodic=True)
    step = evaluate.multiple(weights)
    by = 3 * step
    draw = torch.randn
    rolled_noise = []

    def rolled(*shape, generator):
        z = draw(*shape, generator=generator)
        rolled_noise.append(shape)
        factor = N // shape[-1]
        return torch.roll(z, (by // factor, by // factor), (-2, -1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regions.torch, "randn", rolled)
        other = regions.run(weights, np.roll(kappa, (by, by), (0, 1)), 3, 0, periodic=True)
    assert rolled_noise
    for name, m in made.items():
        wanted = torch.roll(m, (by, by), (-2, -1))
        assert (other[name] - wanted).abs().max() < BFLOAT16 * m.std() + BFLOAT16
    # without it they see padding at the edges, and the middle is nearly the same
    padded = regions.run(weights, kappa, 3, 0)
    assert (padded["kappa"] - made["kappa"])[:2].abs().max() > 0.01


def test_painting_leaves_kappa_alone():
    calibration = {"kappa": {"ell": [100, 9000], "gain": [2.0, 2.0]}, "radio_mean_rate": 1e-2}
    weights, kappa = _weights(calibration=calibration), _kappa()
    maps = regions.generate(regions.painting(weights), kappa, 5, 0)
    np.testing.assert_allclose(maps[0], kappa, atol=1e-6)
    chain = regions.generate(weights, kappa, 5, 0)
    assert np.abs(chain[0] - kappa).max() > 0.01
    # the same noise of the painter, another kappa
    assert np.corrcoef(chain[1].ravel(), maps[1].ravel())[0, 1] > 0.8
    assert regions.painting(weights).header["calibration"] == {"radio_mean_rate": 1e-2}
    assert "kappa" in weights.header["calibration"]


def test_the_paper_paints_with_pixgan_alone():
    pixgan, vaegan = PIXGAN(width=4).eval(), VAEGAN(width=4).eval()
    names = ("kappa", "ksz", "tsz", "cib", "radio")
    normaliser = Normaliser(names, (None,) * 5, (0,) * 5, (0.1, 1, 1, 1, 1))
    header = {"normaliser": normaliser.to_dict(), "pixel_arcmin": 0.5}
    networks = {"pixgan": pixgan, "vaegan": vaegan}
    weights = regions.painting(Weights(networks, header, Path("w.safetensors"), ""))
    kappa = _kappa(256)
    maps = regions.generate(weights, kappa, 0, 0, periodic=True)
    np.testing.assert_allclose(maps[0], kappa, atol=1e-6)
    with torch.no_grad():
        wanted = pixgan(torch.from_numpy(kappa[:128, :128] / 0.1)[None, None])[0, 0]
    np.testing.assert_allclose(maps[1, :128, :128], wanted, atol=1e-4)


def test_uncalibrated():
    """Gains of the velocity field are undone, and nothing is left of the rest."""
    before, kappa = _weights(), _kappa()
    kernels = [0.9, 1.1, 1.2, 0.8, 2.0]
    gains = {"velocity_kernel_gains": [0.5, 2.0], "kernel_gains": kernels}
    after = _weights(calibration={**gains, "radio_mean_rate": 1.0})
    with torch.no_grad():
        first = after["paint"].velocities
        after["paint"].backbone.head.bias[first : first + 5] += torch.tensor(kernels).log()
        for layer, gain in zip(after["paint"].velocity_kernels, (0.5, 2.0), strict=True):
            layer.weight.mul_(gain)
    found = regions.generate(regions.uncalibrated(after), kappa, 2, 0)
    wanted = regions.generate(before, kappa, 2, 0)
    # a bias is rounded when a gain is put on it and taken off again, in bfloat16
    np.testing.assert_allclose(found, wanted, rtol=0.02, atol=1e-3)
    calibrated = regions.generate(after, kappa, 2, 0)
    for field in (1, 2):
        assert np.abs(calibrated[field] / wanted[field] - 1).max() > 0.1
    bare = regions.uncalibrated(before)
    np.testing.assert_array_equal(regions.generate(bare, kappa, 2, 0), wanted)


def test_kappa_is_calibrated():
    table = {"ell": [1000, 20000], "gain": [1.5, 0.5]}
    kappa = _kappa()
    bare = regions.generate(_weights(), kappa, 2, 0)
    maps = regions.generate(_weights(calibration={"kappa": table}), kappa, 2, 0)
    ratio = np.abs(np.fft.rfft2(maps[0])) / np.abs(np.fft.rfft2(bare[0]))
    wanted = np.interp(multipoles(N, 0.5), table["ell"], table["gain"])
    np.testing.assert_allclose(ratio, wanted, rtol=2e-3)
    np.testing.assert_array_equal(maps[1:], bare[1:])
    of_skies = {"kappa": {**table, "of": "sky"}}
    maps = regions.generate(_weights(calibration=of_skies), kappa, 2, 0)
    np.testing.assert_array_equal(maps, bare)


def test_networks_in_training():
    kappa, whole = _kappa(), _weights()
    all_of_it = regions.in_training(whole.networks, NORMALISER, 0.5)
    np.testing.assert_array_equal(
        regions.generate(all_of_it, kappa, 1, 0), regions.generate(whole, kappa, 1, 0)
    )
    of_kappa = Normaliser(("kappa",), (None,), (0,), (0.08,))
    networks = {"convergence": whole["convergence"]}
    maps = regions.generate(regions.in_training(networks, of_kappa, 0.5), kappa, 1, 0)
    np.testing.assert_array_equal(maps[0], regions.generate(whole, kappa, 1, 0)[0])
    assert not maps[1:4].any()
    networks = {"paint": whole["paint"]}
    maps = regions.generate(regions.in_training(networks, NORMALISER, 0.5), kappa, 1, 0)
    painted = regions.generate(regions.painting(whole), kappa, 1, 0)
    np.testing.assert_array_equal(maps[:4], painted[:4])
