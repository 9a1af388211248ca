"""mlsky.training.calibrate: what it fits is what was put in."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from mlsky import seeds
from mlsky.networks.default import Paint
from mlsky.networks.normaliser import Normaliser
from mlsky.training import calibrate

N, REGIONS, SEED = 128, 3, 5
NORMALISER = Normaliser(
    ("kappa", "ksz", "tsz", "cib"),
    (None, None, 3.4, 16.4),
    (0.0, 0.0, -0.26, 0.75),
    (0.1, 2.0, 0.29, 0.32),
)
#: Of the truth's rms: the same noise makes truth and fit, kernels of like width stand in for each
#: other, and the prior of the gains holds them back a little. Without gains it is 0.3.
MISFIT = 0.02


@pytest.fixture(scope="module")
def regions(tmp_path_factory):
    """A set whose tSZ is what `paint` makes with other gains of its kernels."""
    path = tmp_path_factory.mktemp("set") / "val.h5"
    rng = np.random.default_rng(1)
    kappa = rng.normal(0, 0.1, (REGIONS, N, N)).astype(np.float32)
    gains = np.array([1.5, 1.2, 1.0, 0.7, 1.3])
    tsz = np.empty_like(kappa)
    paint = small_paint()
    for i in range(REGIONS):
        start = NORMALISER.select(["kappa"]).forward(torch.from_numpy(kappa[i])[None, None])
        noise = paint.draw_noise(1, N, N, generator(i))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            kernels = paint.tsz_parts(start, noise)[0].numpy()
        tsz[i] = -NORMALISER.scale[2] * np.einsum("k,kyx->yx", gains, kernels)
    with h5py.File(path, "w") as file:
        file.attrs["pixel_arcmin"] = 0.5
        for name, data in (("kappa", kappa), ("kappa_in", kappa), ("tsz", tsz)):
            file[name] = data
    return path, (kappa[0], tsz[0])


def generator(i: int) -> torch.Generator:
    return torch.Generator().manual_seed(seeds.integer(SEED, "network", i))


def small_paint() -> Paint:
    paint = Paint(-0.26, 0.29, widths=(4, 4, 4), noise=(1, 1, 1), velocity_levels=3, seed=2)
    return paint.eval()


def test_gains_of_the_kernels_make_the_truth(regions):
    path, truth = regions
    paint = small_paint()
    before = paint.backbone.head.bias.detach().clone()
    found = calibrate.balance_kernels(paint, NORMALISER, path, regions=REGIONS, seed=SEED)
    start = NORMALISER.select(["kappa"]).forward(torch.from_numpy(truth[0])[None, None])
    noise = paint.draw_noise(1, N, N, generator(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        made = NORMALISER.select(["tsz"]).inverse(paint(start, noise)[:, 1:2])[0, 0].numpy()
    assert np.std(made - truth[1]) < MISFIT * np.std(truth[1])
    # ... and are in the network now, where nothing else has changed.
    shift = (paint.backbone.head.bias - before).detach()
    kernels = slice(paint.velocities, paint.velocities + len(found))
    assert shift[kernels].numpy() == pytest.approx(np.log(found), abs=1e-6)
    shift[kernels] = 0
    assert torch.all(shift == 0)
