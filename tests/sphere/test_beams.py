"""Beams, against closed forms of a Gaussian."""

import astropy.units as u
import healpy
import numpy as np
import pytest
from astropy.table import Column
from astropy.utils.masked import Masked

from mlsky.sphere import beams

FWHM = 30.0
LMAX = 1200

#: A Gaussian on the sphere and in the plane, at 30'.
CURVATURE = 1e-4
#: Profile of a table, interpolated between its points.
TABLE = 2e-3


def table(fwhm_arcmin=FWHM, lmax=LMAX):
    return healpy.gauss_beam(np.radians(fwhm_arcmin / 60), lmax)


def test_a_gaussian_is_that_of_healpy():
    (beam,) = beams.parse(FWHM, 1)
    np.testing.assert_allclose(beam.transform(LMAX), table(), rtol=1e-12)
    (same,) = beams.parse(0.5 * u.deg, 1)
    assert same.fwhm_arcmin == pytest.approx(FWHM)
    half = np.radians(FWHM / 120)
    assert beam.profile(half) == pytest.approx(beam.profile(0) / 2)


@pytest.mark.parametrize("given", [FWHM, 5 * table()])
def test_the_integral_over_the_sky_is_one(given):
    (beam,) = beams.parse(given, 1)
    radius = np.linspace(0, np.radians(beam.radius_arcmin / 60), 4000)
    total = 2 * np.pi * np.trapezoid(beam.profile(radius) * np.sin(radius), radius)
    assert total == pytest.approx(1, abs=CURVATURE)


def test_a_table_is_the_beam_that_it_is_of():
    (beam,) = beams.parse(table(), 1)
    (expected,) = beams.parse(FWHM, 1)
    assert beam.fwhm_arcmin == pytest.approx(FWHM, rel=5e-3)
    np.testing.assert_array_equal(beam.transform(LMAX), table())
    radius = np.radians(np.linspace(0, 60, 50) / 60)
    peak = expected.profile(0)
    np.testing.assert_allclose(beam.profile(radius), expected.profile(radius), atol=TABLE * peak)
    assert "1201 multipoles, FWHM 30" in beam.describe()
    assert expected.describe() == "Gaussian, FWHM 30 arcmin"


def test_one_per_band():
    found = beams.parse([FWHM, table(), 0.5 * u.deg], 3)
    assert [one.b_ell is None for one in found] == [True, False, True]
    assert [one.fwhm_arcmin for one in beams.parse(10, 2)] == [10, 10]


@pytest.mark.parametrize(
    "given",
    [
        [60, 50] * u.arcmin,
        np.array([1, 5 / 6]) * u.deg,
        Column([60.0, 50.0], unit="arcmin"),
        Masked([60, 50] * u.arcmin),
        [60, 50 * u.arcmin],
        (1 * u.deg, 50),
    ],
)
def test_an_array_with_a_unit_of_angle_is_one_fwhm_per_band(given):
    assert [one.fwhm_arcmin for one in beams.parse(given, 2)] == pytest.approx([60, 50])


def test_a_table_may_say_that_it_has_no_unit():
    for given in (table() * u.one, 100 * table() * u.percent, Column(table())):
        (beam,) = beams.parse(given, 1)
        assert beam.b_ell is not None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([60, 50, 40] * u.arcmin, "3 beams for 2 bands"),
        ([60, 0] * u.arcmin, "beam=0.0: must be FWHM in arcmin from 0.05"),
        (Masked([60, 50] * u.arcmin, [False, True]), "beam=nan: must be FWHM in arcmin"),
        ([60, 50] * u.GHz, "beam in GHz: must be convertible to arcmin"),
        (np.ones((2, 2)) * u.arcmin, "beam in arcmin: must be convertible to a plain number"),
        (np.array([60.0, 50.0]), r"beam of shape \(2,\): an array must be b_l .* a list, for ex"),
        (np.ones((2, 100)), r"beam of shape \(2, 100\): an array must be b_l .* as a list"),
        (np.array([]), r"beam of shape \(0,\): an array must be b_l"),
        (0, "beam=0: must be FWHM in arcmin"),
        (np.nan, "beam=nan: must be FWHM"),
        (5 * u.GHz, "beam in GHz: must be convertible to arcmin"),
        ("wide", "beam='wide': must be FWHM"),
        ([1.0, 2.0, 3.0], "3 beams for 2 bands"),
        (np.array([1.0, 0.5]), r"beam of shape \(2,\)"),
        (np.array([1.0, np.nan, 0.1]), "beam: nan at l=1; must be finite"),
        (np.array([0.0, 0.5, 0.1]), "beam: 0 at l=0; must be finite, and positive at l=0"),
    ],
)
def test_bad_beams_are_one_line(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        beams.parse(given, 2)
    assert "\n" not in str(caught.value)


def test_as_many_fwhm_as_bands_in_a_plain_array():
    with pytest.raises(ValueError, match=r"beam of shape \(3,\): .* beam=\[2.2, 1.4\], or FWHM as"):
        beams.parse(np.array([60.0, 50.0, 40.0]), 3)
    # a table that ends where it is small is one, however many bands there are
    assert beams.parse(table(590, 60), 61)[0].b_ell is not None


def test_a_table_that_ends_too_early():
    (beam,) = beams.parse(table(lmax=200), 1)
    with pytest.raises(ValueError, match=r"beam of 201 multipoles, .* at the last: the map has"):
        beam.transform(LMAX)
    (long,) = beams.parse(table(lmax=900), 1)
    assert not long.transform(LMAX)[901:].any()
