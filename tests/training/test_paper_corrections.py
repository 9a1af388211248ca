"""The paper's corrections as tables: its formulas for fluxes, and transfer functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from astropy import units

from mlsky.networks import evaluate
from mlsky.training import paper_corrections

N, PIXEL_ARCMIN = 128, 0.5

#: mJy per uK in a pixel of 0.5' at 148 GHz.
MJY_PER_UK = (1 * units.uK).to_value(
    units.mJy / units.sr, units.thermodynamic_temperature(148 * units.GHz, 2.7255 * units.K)
) * ((0.5 * units.arcmin) ** 2).to_value(units.sr)
#: Straight lines between nodes 1.15 apart in ln, and values written to 1e-4 uK.
NODES = 3e-3
#: Of bands of white noise of four maps of 128 pixels that follow a smoothed ratio.
TRANSFER = 0.05


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("cib", lambda s: np.where(1.1 * s > 1, (1.1 * s) ** 0.63, 1.1 * s)),
        ("radio", lambda s: ((s + 1) ** 1.25 - 1) / 1.25),
    ],
)
def test_fluxes_of_pixels(name, formula):
    flux = np.geomspace(3e-3, 50, 64)
    table = getattr(paper_corrections, name)([], [], PIXEL_ARCMIN)
    field = torch.from_numpy((flux / MJY_PER_UK).astype(np.float32)).view(8, 8)
    made = evaluate._polygon(field, table["from"], table["to"]).numpy().ravel()
    np.testing.assert_allclose(made * MJY_PER_UK, formula(flux), rtol=NODES)
    kept = evaluate.calibrated(torch.zeros(N, N), PIXEL_ARCMIN, table)
    assert kept.abs().max() == 0


def test_transfer_functions_have_no_bound_of_a_half():
    """Power a quarter of the truth's, beyond what matched gains may mend; signs are kept."""
    rng = np.random.default_rng(1)
    truth = [torch.from_numpy(rng.standard_normal((N, N))).float() for _ in range(4)]
    made = [m / 2 for m in truth[::-1]]
    for name in ("ksz", "tsz"):
        table = getattr(paper_corrections, name)(made, truth, PIXEL_ARCMIN)
        assert np.median(table["gain"]) == pytest.approx(2, rel=TRANSFER)
    tsz = torch.from_numpy(rng.random((N, N), np.float32))
    table["gain"] = [1.0] * len(table["gain"])
    torch.testing.assert_close(
        evaluate.calibrated(tsz.clone(), PIXEL_ARCMIN, table), tsz, atol=1e-5, rtol=0
    )
