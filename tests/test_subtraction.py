"""Sources found in noise and subtracted; and their list for other programs."""

from __future__ import annotations

import tomllib

import astropy.units as u
import fakes
import numpy as np
import pysm3
import pytest
from astropy.table import Table

import mlsky
from mlsky.frequency.passbands import Band
from mlsky.sources import catalogue, writers
from mlsky.sphere import beams
from mlsky.subtraction import flux_error_mjy

FREQS = [93, 150]
#: Fluxes of the polynomials for PySM, within their range.
POLYNOMIAL = 3e-3


@pytest.fixture(scope="module")
def sky():
    patch = pytest.MonkeyPatch()
    fakes.install(patch)
    made = mlsky.simulate(FREQS, 16, 1)
    patch.undo()
    return made


def test_error_of_a_flux_in_white_noise():
    """10 uK arcmin and 1.4' at 150 GHz, by hand; a table is the Gaussian it is of."""
    (beam,) = beams.parse(1.4, 1)
    sigma = 1.4 / np.sqrt(8 * np.log(2))
    arcmin2 = np.radians(1 / 60) ** 2
    expected = 10 * np.sqrt(4 * np.pi) * sigma * arcmin2 * 398.48 * 1e3
    assert flux_error_mjy(10, beam, Band(150)) == pytest.approx(expected, rel=1e-4)
    assert expected == pytest.approx(0.711, abs=1e-3)
    ell = np.arange(20000)
    table = np.exp(-0.5 * ell * (ell + 1) * np.radians(sigma / 60) ** 2)
    (other,) = beams.parse(table, 1)
    assert flux_error_mjy(10, other, Band(150)) == pytest.approx(expected, rel=1e-3)


def test_what_is_left_are_the_errors(sky):
    noise, fwhm = [40.0, 30.0], [2.2, 1.4]
    left = sky.subtract(5, noise_uk_arcmin=noise, beam=fwhm, seed=3)
    errors = [
        flux_error_mjy(n, b, band)
        for n, b, band in zip(noise, beams.parse(fwhm, 2), sky.bands, strict=True)
    ]
    found = np.isfinite(left.catalog["measured_mjy"][:, 1])
    assert 0 < found.sum() < len(found)
    np.testing.assert_array_equal(left.catalog["in_map"], ~found)
    flux = catalogue.band_fluxes(sky.catalog, sky.bands)
    assert (left.catalog["measured_mjy"][found, 1] >= 5 * errors[1]).all()
    # all but those near the limit are found, and none far below it
    assert found[flux[1] > 9 * errors[1]].all()
    assert not found[flux[1] < 1 * errors[1]].any()
    off = (left.catalog["measured_mjy"].T - flux)[:, found] / np.array(errors)[:, None]
    assert np.abs(off.std(1) - 1).max() < 4 / np.sqrt(2 * found.sum())
    assert np.abs(off.mean(1)).max() < 5 / np.sqrt(found.sum())
    # maps: what is gone is what was measured
    radio = np.asarray(sky.catalog["kind"]) == "radio"
    area = sky.geometry.area()
    for band, one in enumerate(sky.bands):
        per_uk = one.convert("uK_CMB", "Jy/sr") * 1e3 * area
        gone = (sky["radio"][band, 0] - left["radio"][band, 0]).sum(dtype=float) * per_uk
        measured = left.catalog["measured_mjy"][found & radio, band].sum()
        assert gone == pytest.approx(measured, rel=1e-4)
    again = sky.subtract(5, noise_uk_arcmin=noise, beam=fwhm, seed=3)
    np.testing.assert_array_equal(again.total, left.total)
    other = sky.subtract(5, noise_uk_arcmin=noise, beam=fwhm, seed=4)
    assert not np.array_equal(other.total, left.total)
    assert left.meta["subtracted"].endswith("mJy at 150")
    np.testing.assert_array_equal(left["cmb"], sky["cmb"])


def test_bad_subtractions(sky, monkeypatch):
    for options, message in (
        ({"noise_uk_arcmin": -1, "beam": 1.4}, "noise_uk_arcmin=-1: must be white noise"),
        ({"noise_uk_arcmin": [1, 2, 3], "beam": 1.4}, "3 noise levels for 2 bands"),
        ({"noise_uk_arcmin": 10, "beam": [1.4]}, "1 beams for 2 bands"),
        ({"noise_uk_arcmin": 10, "beam": np.nan}, "beam=nan: must be FWHM"),
        ({"noise_uk_arcmin": 1, "beam": 1.4}, "the catalogue lists sources above"),
        ({"noise_uk_arcmin": 10, "beam": 1.4, "snr": 0}, "snr=0: must be a positive number"),
        ({"noise_uk_arcmin": 10, "beam": 1.4, "band": "f090"}, "have that name"),
        ({"noise_uk_arcmin": 10, "beam": 1.4, "seed": -1}, "seed=-1"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            sky.subtract(**options)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="the sources of this sky have a beam"):
        sky._with(sky.layers, meta={"beams": ["x"]}).subtract(noise_uk_arcmin=10, beam=1.4)


def test_the_list_for_pysm(sky, tmp_path):
    sky.write_catalog(tmp_path / "sources.h5")
    listed = sky.catalog[sky.catalog["in_map"]]
    read = pysm3.PointSourceCatalog(str(tmp_path / "sources.h5"), nside=16)
    for nu in (30.0, 93.0, 150.0, 353.0):
        found = read.get_fluxes(nu * u.GHz).to_value("mJy")
        off = np.abs(found / catalogue.band_fluxes(listed, nu)[0] - 1)
        for kind, (low, high) in writers.PYSM_GHZ.items():
            if low <= nu <= high:
                assert off[np.asarray(listed["kind"]) == kind].max() < POLYNOMIAL
    polarised = read.get_fluxes(150 * u.GHz, coeff="logpolycoefpolflux").to_value("mJy")
    flux = catalogue.band_fluxes(listed, 150)[0]
    np.testing.assert_allclose(polarised, listed["pol_frac"] * flux, rtol=POLYNOMIAL)


def test_the_list_for_toast(sky, tmp_path):
    cut = sky.cut(50, 148)
    cut.write_catalog(tmp_path / "sources.toml")
    with (tmp_path / "sources.toml").open("rb") as file:
        found = tomllib.load(file)
    listed = cut.catalog[cut.catalog["in_map"]]
    assert len(found) == len(listed) < len(sky.catalog)
    for one, row in zip(found.values(), listed, strict=True):
        assert one["ra_deg"] == pytest.approx(row["ra"], abs=1e-7)
        assert one["dec_deg"] == pytest.approx(row["dec"], abs=1e-7)
        assert one["pol_frac"] == pytest.approx(row["pol_frac"], abs=1e-6)
        assert one["pol_angle_deg"] == pytest.approx(row["pol_angle"], abs=1e-4)
        flux = np.exp(
            np.interp(np.log(148), np.log(one["freqs_ghz"]), np.log(one["flux_density_mJy"]))
        )
        assert flux == pytest.approx(row["flux_mjy"], rel=0.01)


def test_tables_and_bad_files(sky, tmp_path):
    for name in ("sources.fits", "sources.ecsv"):
        sky.write_catalog(tmp_path / name)
        found = Table.read(tmp_path / name)
        assert found["flux_mjy"].unit == "mJy"
        np.testing.assert_array_equal(found["in_map"], sky.catalog["in_map"])
    with pytest.raises(ValueError, match="exists; choose another name"):
        sky.write_catalog(tmp_path / "sources.fits")
    with pytest.raises(ValueError, match="suffix must be one of"):
        sky.write_catalog(tmp_path / "sources.csv")
    empty = sky.catalog[:0]
    writers.write(empty, tmp_path / "none.h5")
    writers.write(empty, tmp_path / "none.toml")
