"""mlsky.training.calibrate: what it fits is what was put in."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from mlsky import seeds
from mlsky.networks import evaluate
from mlsky.networks.default import Paint
from mlsky.networks.normaliser import Normaliser
from mlsky.training import calibrate
from mlsky.training.matching import Spectra

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
#: Ranks of a million numbers: their values near the median; the rarest share has 3 of them.
VALUE = 0.01
#: Of bands above the first three, which have few modes and follow those after them: two such sets
#: of maps differ by 2 %. Before it all, bands are off by more than three times this.
POWER, FROM = 0.05, 3


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


def test_values_are_matched_by_rank():
    rng = np.random.default_rng(3)
    truth = rng.lognormal(2, 1, (4, 500, 500)).astype(np.float32)
    made = rng.lognormal(2, 1, (4, 500, 500)).astype(np.float32) ** 1.1
    table = calibrate._match_ranks([m.ravel() for m in made], [m.ravel() for m in truth])
    assert np.all(np.diff(table["from"]) > 0)
    assert np.all(np.diff(table["to"]) >= 0)
    start, target = table["from"], table["to"]
    mapped = evaluate._polygon(torch.from_numpy(made), start, target).numpy()
    for fraction in (0.01, 0.3, 0.5, 0.9, 0.99):
        a, b = np.quantile(mapped, fraction), np.quantile(truth, fraction)
        assert a == pytest.approx(b, rel=VALUE), fraction
    # a polygon, and its last side beyond the ends
    inside = np.geomspace(start[0], start[-1], 200)
    x = torch.from_numpy(inside.astype(np.float32))
    expected = np.interp(inside, start, target)
    assert evaluate._polygon(x, start, target).numpy() == pytest.approx(expected, rel=1e-4)
    slope = (target[-1] - target[-2]) / (start[-1] - start[-2])
    far = evaluate._polygon(torch.tensor([2 * start[-1]]), start, target)
    assert float(far) == pytest.approx(target[-1] + slope * start[-1], rel=1e-4)


def test_values_near_zero_give_nodes_that_grow():
    """Nodes are written to four decimals, which no two may share."""
    made = np.random.default_rng(5).lognormal(0, 0.1, 10_000).astype(np.float32) * 2e-3
    table = calibrate._match_ranks([made], [made])
    assert len(table["from"]) >= 2
    assert np.all(np.diff(table["from"]) > 0)


def lognormal(rng, slope: float) -> torch.Tensor:
    """A skewed, periodic map (N, N) whose Gaussian has power l^-slope."""
    k = np.hypot(np.fft.fftfreq(N)[:, None], np.fft.rfftfreq(N)[None])
    k[0, 0] = 1
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((N, N))) * k ** (-slope / 2))
    return torch.from_numpy(10 * np.exp(0.8 * field / field.std())).float()


def test_power_and_values_of_the_cib_are_both_matched():
    rng = np.random.default_rng(4)
    truth = [lognormal(rng, 0.5) for _ in range(40)]
    made = [1.1 * lognormal(rng, 0.3) for _ in range(40)]
    table = calibrate.match_values(made, truth, 0.5)
    assert np.ptp(table["gain"]) > 0.05
    after = [evaluate.calibrated(m, 0.5, table) for m in made]
    spectra = Spectra(N, 0.5, "cpu", 12)
    power = [
        sum(spectra.pairs(spectra.modes((m - m.mean())[None, None]))[0, 0] for m in maps)
        for maps in (after, truth, made)
    ]
    before = (power[2] / power[1] - 1).abs()
    assert before[FROM:].max() > 3 * POWER
    assert (power[0] / power[1] - 1).abs()[FROM:].max() < POWER
    for fraction in (0.01, 0.5, 0.99, 0.999):
        a, b = (
            torch.cat([m.flatten()[::8] for m in maps]).quantile(fraction)
            for maps in (after, truth)
        )
        assert float(a) == pytest.approx(float(b), rel=3 * VALUE), fraction
    assert min(m.min() for m in after) >= 0


def test_a_gain_of_one_changes_nothing():
    x = lognormal(np.random.default_rng(5), 0.5)
    same = evaluate.filtered(x, 0.5, {"ell": [100.0, 20000.0], "gain": [1.0, 1.0]})
    assert torch.allclose(same, x, rtol=1e-5, atol=1e-4)
    # ... and modes are multiplied by that of their multipole: a plane wave of known ell
    waves = torch.cos(2 * torch.pi * 16 * torch.arange(N) / N).expand(N, N)
    ell = 16 * 21600 * 2 / N
    table = {"ell": [ell - 10, ell + 10], "gain": [1.2, 1.4]}
    assert torch.allclose(evaluate.filtered(waves, 0.5, table), 1.3 * waves, atol=1e-4)
