"""Bands, against PySM's conversions, fgspectra where it is installed, and closed forms."""

import json
import math

import astropy.units as u
import numpy as np
import pysm3
import pytest
from pysm3 import units as pysm_units
from scipy.optimize import brentq

import mlsky
from mlsky.frequency import bands as single
from mlsky.frequency import cib, cib_templates, passbands, radio, scaling, tsz
from mlsky.frequency.passbands import Band

#: The same rule of integration with the same constants: rounding.
EXACT = 1e-12

#: Trapezoidal rule with 65 points against the integral, for a band of 30 %.
TOP_HAT = 3e-5

#: fgspectra has T_CMB = 2.72548 K and constants of CODATA 2014.
OTHER_CONSTANTS = 1e-4

#: Effective frequencies as published, to their last digit (GHz).
LAST_DIGIT = 0.15


def skewed(convention="power"):
    """An asymmetric band with a hole in it."""
    nu = np.array([120.0, 126, 130, 141, 150, 155, 163, 170, 181])
    return nu, np.array([0.02, 0.4, 0.9, 1.0, 0.7, 0.0, 0.8, 0.5, 0.01])


@pytest.mark.parametrize("to_unit", single.UNITS)
@pytest.mark.parametrize("from_unit", single.UNITS)
def test_convert_is_that_of_pysm(from_unit, to_unit):
    nu, weights = skewed()
    expected = pysm3.utils.bandpass_unit_conversion(
        nu * u.GHz,
        weights,
        output_unit=pysm_units.Unit(to_unit),
        input_unit=pysm_units.Unit(from_unit),
        cut=-1,  # it would leave the hole out of the grid
    ).value
    assert Band(nu, weights).convert(from_unit, to_unit) == pytest.approx(expected, rel=EXACT)


def test_the_difference_to_a_single_frequency_is_that_of_pysm():
    """1.7806 for a top hat from 120 to 180 GHz, 1.7348 at 150 GHz (docs of PySM)."""
    top_hat = Band.top_hat(120, 180, points=1001).convert("uK_RJ", "uK_CMB")
    assert top_hat == pytest.approx(1.7806, abs=1e-4)
    assert Band(150).convert("uK_RJ", "uK_CMB") == pytest.approx(1.7348, abs=1e-4)


def test_spectra_are_averaged_as_pysm_averages():
    """CIB in uK_RJ integrated by PySM's weights, then turned into uK_CMB by its factor."""
    nu, weights = skewed()
    weights[5] = 1e-3  # PySM leaves zeros out of its grid
    colour = cib.factor(nu)
    in_rj = colour * single.convert(nu, "uK_CMB", "uK_RJ")
    normal = pysm3.normalize_weights(nu, weights)
    expected = np.trapezoid(normal * in_rj, nu) * pysm3.bandpass_unit_conversion(
        nu * u.GHz, weights, pysm_units.uK_CMB
    )
    (mean,) = passbands.average([Band(nu, weights)], cib.factor)
    assert mean == pytest.approx(expected.value, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "parameters", "law"),
    [
        ("ThermalSZ", {"nu_0": 148.0}, scaling.tsz.factor),
        (
            "CIB",
            {"nu_0": 148.0, "temp": cib.T_DUST_K, "beta": cib.BETA},
            cib.factor,
        ),
        (
            "PowerLaw",  # of RJ temperature
            {"nu_0": 148.0, "beta": radio.ALPHA_MEAN - 2},
            lambda nu: (
                (nu / 148) ** radio.ALPHA_MEAN
                * single.jy_per_sr_per_uk(148.0)
                / single.jy_per_sr_per_uk(nu)
            ),
        ),
    ],
)
def test_against_fgspectra(name, parameters, law):
    frequency = pytest.importorskip("fgspectra.frequency")
    model = getattr(frequency, name)()
    nu, weights = skewed()
    band = Band(nu, weights)
    # its bandpasses are pairs of frequencies and weights of thermodynamic temperature
    normal = band.weights * single.jy_per_sr_per_uk(nu)
    normal /= np.trapezoid(normal, nu)
    expected = np.trapezoid(normal * model(nu=nu, **parameters), nu)
    (mean,) = passbands.average([band], law)
    assert mean == pytest.approx(float(expected), rel=1e-3)
    assert mean == pytest.approx(float(expected), rel=OTHER_CONSTANTS)


def test_conventions_are_powers_of_frequency():
    nu, weights = skewed()
    power = Band(nu, weights)
    assert Band(nu, weights * nu**2, convention="rj").power == pytest.approx(power.power)
    assert Band(nu, weights * nu, convention="photon").power == pytest.approx(power.power)
    assert Band(nu, 7 * weights).power == pytest.approx(power.power, rel=EXACT)


def test_top_hat_against_the_integral():
    """int nu^3 over a band, and its mean."""
    low, high = 130.0, 175.0
    band = Band.top_hat(low, high)
    expected = (high**4 - low**4) / 4 / (high - low)
    assert band.power @ band.nu_ghz**3 == pytest.approx(expected, rel=TOP_HAT)
    assert band.centre_ghz == pytest.approx((low + high) / 2)
    assert np.trapezoid(band.weights, band.nu_ghz) == pytest.approx(1)


def test_a_single_frequency_is_a_band_of_one_point():
    (band,) = passbands.parse(148)
    assert band.is_single
    assert band.label == "148"
    for law in (cib.factor, tsz.spectral_function):
        assert passbands.average([band], law) == law(np.array([148.0]))
    for unit in single.UNITS:
        assert band.convert("uK_CMB", unit) == single.convert(148.0, "uK_CMB", unit)
    assert band.convert("y", "uK_CMB") == tsz.uk_per_y(148.0)


def test_y_is_what_gas_of_that_temperature_has():
    nu, weights = skewed()
    band = Band(nu, weights)
    (expected,) = passbands.average([band], tsz.uk_per_y)
    assert band.convert("y", "uK_CMB") == pytest.approx(expected, rel=EXACT)
    assert band.convert("y", "MJy/sr") == pytest.approx(
        expected * band.convert("uK_CMB", "MJy/sr"), rel=EXACT
    )
    null = brentq(tsz.spectral_function, 210, 225)
    with pytest.raises(ValueError, match=r"unit='y' in the band 217.5.*there tSZ is null"):
        mlsky.simulate(null, 16, unit="y")


def test_averages_of_several_bands_and_columns():
    bands = passbands.parse([93, Band.top_hat(130, 165), 280])
    law = cib_templates.load()
    means = passbands.average(bands, law.weights)
    assert means.shape == (3, law.n_templates)
    np.testing.assert_array_equal(means[[0, 2]], law.weights([93.0, 280.0]))
    inside = law.weights(bands[1].nu_ghz)
    assert (means[1] >= inside.min(0)).all()
    assert (means[1] <= inside.max(0)).all()


def test_mixed_frequencies():
    given = Band.top_hat(130, 165, name="mine")
    found = passbands.parse([93, 0.145 * u.THz, "so_lat/f230", given, 2 * u.mm])
    assert [band.label for band in found] == ["93", "145", "so_lat/f230", "mine", "149.896"]
    assert found[3] is given
    assert passbands.parse("planck/100") == (passbands.named("planck/100"),)
    assert passbands.parse(given) == (given,)
    np.testing.assert_allclose(passbands.centres(found)[:2], [93, 145])


@pytest.mark.parametrize("name", passbands.names())
def test_named_bands(name):
    """Centre within 5 % of the nominal one; measured ones have their source."""
    band = passbands.named(name)
    assert band.name == name
    nominal = float("".join(c for c in name.split("/")[1].split("_")[-1] if c.isdigit()))
    tolerance = 0.15 if nominal == 30 else 0.08  # SO's f030 lies at 25.7 GHz
    assert band.centre_ghz == pytest.approx(nominal, rel=tolerance)
    assert len(passbands.source(name)) > 40


def test_a_band_moved():
    """The mean frequency moves by the shift; the shape stays."""
    band = Band(*skewed(), name="a", beam=1.4)
    for shift in (1.5, -1500 * u.MHz):
        moved = band.shifted(shift)
        by = 1.5 if shift == 1.5 else -1.5
        assert moved.centre_ghz == pytest.approx(band.centre_ghz + by)
        np.testing.assert_allclose(moved.weights, band.weights, rtol=1e-12)
        assert (moved.name, moved.beam.fwhm_arcmin) == ("a", 1.4)
    with pytest.raises(ValueError, match="outside the range"):
        band.shifted(-110)
    with pytest.raises(ValueError, match="ghz='1': must be a shift"):
        band.shifted("1")


def test_beams_of_bands():
    band = Band(150, beam=1.4 * u.arcmin)
    assert band.beam.fwhm_arcmin == pytest.approx(1.4)
    assert band != Band(150)
    assert band == Band(150).with_beam(1.4)
    assert band.with_beam(None).beam is None
    ell = np.arange(12000)
    table = np.exp(-0.5 * ell * (ell + 1) * (np.radians(2 / 60) / 2.3548) ** 2)
    tabled = Band.top_hat(130, 165, beam=table)
    assert tabled.beam.fwhm_arcmin == pytest.approx(2, rel=0.02)
    other = tabled.with_beam(np.where(ell == 11999, 0.0, table))
    assert other.beam.describe() == tabled.beam.describe()  # in words they are the same
    assert other != tabled
    assert tabled.with_beam(table) == tabled
    assert Band(150).with_beam(1.40001) != band


def test_planck_857_reaches_beyond_900_ghz():
    """Mean frequency of the response in the RIMO; the CIB over the band is that at this frequency.

    It bends little over the band: within a few per cent.
    """
    band = passbands.named("planck/857")
    assert band.nu_ghz[-1] > 1100
    assert band.centre_ghz == pytest.approx(864.3, abs=0.3)
    law = cib_templates.load()
    intensity = law.colour(band.nu_ghz) * single.jy_per_sr_per_uk(band.nu_ghz)
    at_centre = law.colour(864.3) * single.jy_per_sr_per_uk(864.3)
    assert band.power @ intensity == pytest.approx(at_centre, rel=0.04)


def test_effective_frequency_of_act_dr6():
    """pa4_f220: 225.4 GHz for the CIB. It tells a response to RJ sources from one to power."""
    band = passbands.named("act_dr6/pa4_f220")
    (mean,) = passbands.average([band], cib.factor)
    assert brentq(lambda nu: cib.factor(nu) - mean, 200, 250) == pytest.approx(
        225.4, abs=LAST_DIGIT
    )


def test_files(tmp_path):
    nu, weights = skewed()
    text = tmp_path / "f150.dat"
    np.savetxt(text, np.c_[nu, weights], header="GHz response")
    assert Band.read(text) == Band(nu, weights, name="f150")
    assert Band.read(text, name="b", convention="rj").name == "b"
    ipac = tmp_path / "band.tbl"
    ipac.write_text(
        "|bandpass_frequency|bandpass_weight|\n|double|double|\n|GHz||\n|null|null|\n".replace(
            "|double|double|", "|            double|         double|"
        )
        .replace("|GHz||", "|               GHz|               |")
        .replace("|null|null|", "|              null|           null|")
        + "".join(f" {a:>18} {b:>15} \n" for a, b in zip(nu, weights, strict=True))
    )
    np.testing.assert_allclose(Band.read(ipac).power, Band(nu, weights).power)


def test_bad_files(tmp_path):
    (tmp_path / "a.txt").write_text("90 x\n")
    (tmp_path / "b.txt").write_text("90\n100\n")
    (tmp_path / "c.tbl").write_text("nothing")
    (tmp_path / "d.txt").write_text("90 -1\n100 1\n")
    for name, message in {
        "a.txt": "cannot be read",
        "b.txt": "1 column, two are needed",
        "c.tbl": "cannot be read",
        "d.txt": "weights: -1 at 90 GHz, must be zero or positive",
        "none.txt": "no such file",
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            Band.read(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_noise_outside_the_band_is_cut():
    nu, weights = skewed()
    wide = np.concatenate([[5.0, 10.0], nu, [1500.0]])
    noisy = np.concatenate([[1e-5, 2e-5], weights, [1e-6]])
    with pytest.raises(ValueError, match="a band holds 5 GHz: outside the range of the laws"):
        Band(wide, noisy)
    cut = Band(wide, noisy, cut=1e-3)
    assert cut.nu_ghz[0] >= 20
    # the first and the last interval reach to the neighbours that count as zero, or to none
    assert cut.centre_ghz == pytest.approx(Band(nu, weights).centre_ghz, rel=0.01)


BAD = [
    (([90, 100], [1, -0.1]), {}, "weights: -0.1 at 100 GHz, must be zero or positive"),
    (([90, 100], [1, math.nan]), {}, "weights: nan at 100 GHz, must be finite"),
    (([90, 100], [0, 0]), {}, "weights are all zero"),
    (([90, 100], [1, 1, 1]), {}, r"weights of shape \(3,\): must be one per frequency, 2"),
    (([90, 100], "top"), {}, "weights='top': must be one per frequency"),
    (([100, 90], None), {}, r"nu_ghz=\[100, 90\]: must grow"),
    (([90, 90], None), {}, "must grow"),
    (([90, 1200], None), {}, "a band holds 1200 GHz: outside the range .* from 20 to 1150, or one"),
    ((1000,), {}, "a band holds 1000 GHz: outside the range .* or one alone to 900, for ex"),
    (([90, 100],), {"beam": -1}, "beam=-1: must be FWHM"),
    (([90, 100],), {"beam": np.array([1, np.nan, 0])}, "beam: nan at l=1"),
    (([90, 100],), {"beam": np.array([1.0, 0.5])}, "beam of shape"),
    (([90, 100],), {"beam": "wide"}, "beam='wide': must be FWHM"),
    (([], None), {}, "empty"),
    (([90, math.nan], None), {}, "nu_ghz holds nan"),
    ((5 * u.kg, None), {}, "not convertible to GHz"),
    (([90, 100],), {"convention": "temperature"}, "must be one of power, rj, photon"),
    (([90, 100],), {"name": ""}, "name='': must be text"),
    (([90, 100],), {"cut": 2}, "cut=2: must be a fraction"),
]


@pytest.mark.parametrize(("args", "options", "message"), BAD)
def test_bad_bands_are_refused_in_one_line(args, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        Band(*args, **options)
    assert "\n" not in str(caught.value)


def test_bad_top_hats_and_names():
    with pytest.raises(ValueError, match="the first must be the lower one"):
        Band.top_hat(165, 130)
    with pytest.raises(ValueError, match="points=1"):
        Band.top_hat(130, 165, points=1)
    with pytest.raises(ValueError, match="band 'so/f999': no band has that name; freqs may hold"):
        passbands.parse([93, "so/f999"])
    with pytest.raises(ValueError, match="freqs holds 950 GHz"):
        passbands.parse([Band(93), 950])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Band.top_hat(1000, 1200),
        lambda: Band.top_hat(5, 100),
        lambda: Band.top_hat(math.nan, 100),
        lambda: Band.top_hat(None, 100),
        lambda: Band(1000),
        lambda: Band([]),
        lambda: Band("wide"),
        lambda: Band([90, 5 * u.kg]),
        lambda: Band.top_hat(1000, 1100).shifted(100),
        lambda: Band.top_hat(130, 165).shifted(-200),
    ],
)
def test_errors_of_bands_have_the_limits_of_bands(make):
    """And not those of single frequencies alone: a band may reach higher."""
    limits = f"from 20 to {single.BAND_MAX_GHZ:g}, or one alone to {single.FREQ_RANGE_GHZ[1]:g}"
    with pytest.raises(ValueError, match=limits) as caught:
        make()
    assert "freqs" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dict_and_back():
    band = Band(*skewed(), name="a")
    assert Band.from_dict(json.loads(json.dumps(band.to_dict()))) == band
    assert "9 points from 120 to 181 GHz" in repr(band)
    assert repr(Band(93)) == "<Band 93 GHz>"
    assert mlsky.Band is Band
