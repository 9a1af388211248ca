"""Cuts by flux: arguments, and which sources they leave."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest

from mlsky.frequency import passbands
from mlsky.sources import catalogue, cuts

BANDS = passbands.parse([93, "so_lat/f150"])


@pytest.fixture
def table():
    flux = np.geomspace(0.5, 50, 40)
    kinds = np.where(np.arange(40) % 3, "radio", "dsfg")
    return catalogue.make(np.linspace(0, 350, 40), np.linspace(-80, 80, 40), flux, kinds, 1)


def test_flux_cut_at_148_ghz(table):
    (one,) = cuts.parse(15, None, BANDS)
    np.testing.assert_array_equal(cuts.kept(table, [one]), table["flux_mjy"] <= 15)
    assert cuts.parse(None, None, BANDS) is None
    assert cuts.kept(table, None).all()
    assert cuts.parse_flux_cut(np.float32(7)) == 7.0
    assert cuts.parse_flux_cut(None) is None


def test_a_cut_in_another_band(table):
    for where in (220, 220 * u.GHz, "spt3g/220", passbands.Band.top_hat(200, 240)):
        found = cuts.parse(None, (15 * u.mJy, where), BANDS)
        band = passbands.parse(where)[0]
        flux = catalogue.band_fluxes(table, band)[0]
        np.testing.assert_array_equal(cuts.kept(table, found), flux <= 15)


def test_one_cut_per_band(table):
    found = cuts.parse(None, [(20, 93), (5, 150)], BANDS)
    left = cuts.kept(table, found, per_band=True)
    assert left.shape == (40, 2)
    np.testing.assert_array_equal(left[:, 0], catalogue.band_fluxes(table, 93)[0] <= 20)
    np.testing.assert_array_equal(left[:, 1], catalogue.band_fluxes(table, 150)[0] <= 5)
    table["in_map"] = left.any(1)
    np.testing.assert_array_equal(cuts.in_band(table, 1), table["in_map"])
    table["in_bands"] = left
    np.testing.assert_array_equal(cuts.in_band(table, 1), left[:, 1])


def test_painted_where_the_cut_leaves_them(table):
    from mlsky.sphere.geometry import Healpix

    left = cuts.kept(table, cuts.parse(None, [(20, 93), (5, 150)], BANDS), per_band=True)
    pixel, values = catalogue.paint_sparse(table, Healpix(16), BANDS, "TQU", left)
    for band in range(2):
        own, alone = catalogue.paint_sparse(table[left[:, band]], Healpix(16), BANDS[band])
        whole = np.zeros((3, 12 * 16**2), np.float32)
        whole[:, own] = alone[0]
        np.testing.assert_array_equal(values[band], whole[:, pixel])


@pytest.mark.parametrize("cut", [-1, np.nan, np.inf, "15", True, [1, 2], 1j])
def test_flux_cut_refused(cut):
    with pytest.raises(ValueError, match=r"flux_cut_mjy=.*for example"):
        cuts.parse_flux_cut(cut)


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (15, r"flux_cut=15: must be \(mJy, GHz or band\)"),
        ((15,), "must be"),
        ((15, 150, 1), "must be"),
        ((-1, 150), "flux_cut=-1: must be"),
        ((15, 10), "outside the range of the laws"),
        ((15, "f999"), "no band has that name"),
        ((15, [90, 150]), "must be"),
        ([(15, 150)], "1 cuts for 2 bands; give one pair for all"),
        ([(15, 150), (1, np.nan)], "freqs holds nan"),
        ([], "must be"),
        ("15", "must be"),
    ],
)
def test_bad_cuts_are_one_line(cut, message):
    with pytest.raises(ValueError, match=message) as caught:
        cuts.parse(None, cut, BANDS)
    assert "\n" not in str(caught.value)


def test_one_of_the_two():
    with pytest.raises(ValueError, match="flux_cut_mjy and flux_cut: give one of the two"):
        cuts.parse(15, (15, 150), BANDS)
