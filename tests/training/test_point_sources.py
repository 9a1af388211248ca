"""Rates of point sources by maximum likelihood, and the tail of dusty ones."""

from __future__ import annotations

import math
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from mlsky import seeds
from mlsky.frequency import bands
from mlsky.networks.normaliser import Normaliser
from mlsky.training import point_sources

N = 128
PIXEL = 0.5
NORMALISER = Normaliser(
    ("kappa", "tsz", "cib"), (None, 3.7, 17.1), (0.0, -0.63, 0.6), (0.08, 0.29, 0.35)
)
#: What the true rate gains over a constant one: the fit, still learning, gets this share of it.
FRACTION = 0.5
#: Of d ln(rate) / d kappa after 150 steps.
SLOPE_ERROR = 0.3
JY_PER_UK = bands.jy_per_sr_per_uk(148.0) * math.radians(PIXEL / 60) ** 2


def _set(path, log_rate, regions=4):
    """Poisson sources of 1 mJy at exp(log_rate(kappa))."""
    rng = seeds.generator(1, "truth")
    kappa = 0.08 * rng.standard_normal((regions, N, N))
    rate = np.exp(log_rate(kappa / 0.08))
    number = rng.poisson(rate)
    with h5py.File(path, "w") as file:
        file.attrs["pixel_arcmin"] = PIXEL
        file["kappa"] = kappa.astype("f4")
        file["tsz"] = -rng.exponential(3.0, kappa.shape).astype("f4")
        file["cib"] = rng.exponential(20.0, kappa.shape).astype("f4")
        file["radio"] = (number * 1e-3 / JY_PER_UK).astype("f4")
    likelihood = np.where(number > 0, -np.log(-np.expm1(-rate)), rate).mean()
    return likelihood, (number > 0).mean()


def test_a_known_law_is_recovered(tmp_path, monkeypatch):
    """ln(rate) = -3 + 1.2 kappa/sigma; few small steps at a higher rate than in production."""
    monkeypatch.setattr(point_sources, "RATE", 0.03)
    monkeypatch.setattr(point_sources, "BATCH", 2)
    best, occupied = _set(tmp_path / "a.h5", lambda x: -3 + 1.2 * x)
    state = torch.get_rng_state()
    network, report = point_sources.fit_point_sources(
        tmp_path / "a.h5", NORMALISER, steps=150, seed=2
    )
    assert torch.equal(torch.get_rng_state(), state)
    constant = -(occupied * math.log(occupied) + (1 - occupied) * math.log1p(-occupied))
    # the network sees fields in half precision, sources of 1 mJy well among them
    assert report["nll_constant"] == pytest.approx(constant, rel=1e-6)
    assert report["rate"] == pytest.approx(-math.log1p(-occupied), rel=1e-6)
    assert report["nll_constant"] - report["nll"] > FRACTION * (constant - best)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    kappa = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    got = network(torch.cat([kappa, 0 * kappa, 0 * kappa], 1))
    joint = torch.cov(torch.stack([kappa.ravel(), got.ravel()]))
    assert (joint[0, 1] / joint[0, 0]).item() == pytest.approx(1.2, abs=SLOPE_ERROR)
    assert joint[0, 1] ** 2 / joint[0, 0] / joint[1, 1] > 0.9  # and little else moves it


def test_a_fit_is_reproducible(tmp_path):
    _set(tmp_path / "a.h5", lambda x: -3 + 0 * x, regions=1)
    one, two = (
        point_sources.fit_point_sources(tmp_path / "a.h5", NORMALISER, steps=3)[0] for _ in "ab"
    )
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("log_rate", "fraction"), [(-99.0, "0%"), (3.0, "100%")])
def test_nothing_to_fit(tmp_path, log_rate, fraction):
    _set(tmp_path / "a.h5", lambda x: log_rate + 0 * x, regions=1)
    with pytest.raises(ValueError, match=f"{fraction} of pixels hold a radio source"):
        point_sources.fit_point_sources(tmp_path / "a.h5", NORMALISER, steps=1)


def test_the_tail_of_dsfgs():
    """Two regions of one square degree, sources of 1..10 and 11..20 mJy of either kind."""

    class Painter:
        area = math.radians(1) ** 2
        flux_cut_mjy = 6.0
        apart = False

        def region(self, seed, index):
            assert seed == 7
            flux = torch.arange(1.0, 11.0) + 10 * index
            maps = torch.full((6, 4, 4), float(index))
            zero = torch.zeros(10)
            radio, dsfg = (torch.stack([zero, zero, flux, zero + kind], 1) for kind in (0, 1))
            sources = torch.cat([radio, dsfg])
            # of a set with objects taken apart those of the second region are members of one
            members = torch.full((20,), index - 1)
            objects = SimpleNamespace(members=members) if self.apart else None
            return SimpleNamespace(maps=maps, sources=sources, objects=objects)

    tail = point_sources.dsfg_tail(Painter(), 2, 7, quantiles=3)
    assert tail["per_sr"] == pytest.approx(7.5 / math.radians(1) ** 2)
    assert tail["flux_mjy"] == [6.0, 13.0, 20.0]
    assert tail["mean_cib_uk"] == 0.5
    assert tail["painted"] == 15
    Painter.apart = True
    tail = point_sources.dsfg_tail(Painter(), 2, 7, quantiles=3)
    assert tail["painted"] == 5
    assert tail["flux_mjy"] == [6.0, 8.0, 10.0]
