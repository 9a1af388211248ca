"""Frequencies and units, against astropy and PySM."""

import astropy.units as u
import numpy as np
import pytest
from pixell import utils

from mlsky.frequency import bands

NU_GHZ = np.array([27.0, 39.0, 93.0, 145.0, 148.0, 225.0, 280.0, 353.0])

#: Same formula, same exact constants: rounding.
EXACT = 1e-12

#: pixell's T_CMB is 2.72548 K and its constants are CODATA 2018: 7e-6 in T, times 4 or so.
OTHER_T_CMB = 5e-5


@pytest.mark.parametrize(
    ("freqs", "expected"),
    [
        (148, [148]),
        (148.0, [148]),
        (np.float32(93), [93]),
        ([93, 145, 225], [93, 145, 225]),
        ((225, 93), [225, 93]),
        (range(93, 96), [93, 94, 95]),
        (np.array([93.0]), [93]),
        (150 * u.GHz, [150]),
        ([93, 145] * u.GHz, [93, 145]),
        (1.5e11 * u.Hz, [150]),
        (2 * u.mm, [149.896229]),
        ([93 * u.GHz, 2 * u.mm], [93, 149.896229]),
        ([20, 900], [20, 900]),
        ((900 * u.GHz).to(u.mm, u.spectral()), [900]),
        ((20 * u.GHz).to(u.eV, u.spectral()), [20]),
    ],
)
def test_parse_freqs(freqs, expected):
    nu_ghz = bands.parse_freqs(freqs)
    assert nu_ghz.dtype == np.float64
    assert nu_ghz.shape == (len(expected),)
    np.testing.assert_allclose(nu_ghz, expected, rtol=EXACT)


@pytest.mark.parametrize(
    "freqs",
    [
        [],
        np.array([]),
        [] * u.GHz,
        -93,
        0,
        [93, -1],
        np.nan,
        [93, np.inf],
        19.9,
        900.1,
        [93, 950],
        1.5e11,
        "150",
        ["93", "145"],
        None,
        [None],
        True,
        1j,
        {},
        [[93, 145]],
        [93, [145]],
        5 * u.kg,
        150 * u.one,
        [93 * u.GHz, 5 * u.K],
        0 * u.mm,
        np.nan * u.GHz,
    ],
    ids=str,
)
def test_parse_freqs_refuses_in_one_line_with_the_range(freqs):
    with pytest.raises(ValueError, match=r"from 20 to 900.*for example") as error:
        bands.parse_freqs(freqs)
    assert "\n" not in str(error.value)


def test_parse_freqs_returns_a_copy():
    given = np.array([93.0, 145.0])
    bands.parse_freqs(given)[0] = 1
    assert given[0] == 93


def test_thermodynamic_temperature_against_astropy():
    for nu in NU_GHZ:
        equivalency = u.thermodynamic_temperature(nu * u.GHz, T_cmb=bands.T_CMB_K * u.K)
        expected = (1 * u.uK).to_value(u.Jy / u.sr, equivalency)
        assert bands.jy_per_sr_per_uk(nu) == pytest.approx(expected, rel=EXACT)


def test_brightness_temperature_against_astropy():
    for nu in NU_GHZ:
        expected = (1 * u.uK).to_value(u.Jy / u.sr, u.brightness_temperature(nu * u.GHz))
        assert bands.jy_per_sr_per_uk_rj(nu) == pytest.approx(expected, rel=EXACT)


def test_derivative_of_planck_against_pixell():
    expected = utils.dplanck(NU_GHZ * 1e9) * 1e-6
    np.testing.assert_allclose(bands.jy_per_sr_per_uk(NU_GHZ), expected, rtol=OTHER_T_CMB)


@pytest.mark.parametrize("to_unit", bands.UNITS)
@pytest.mark.parametrize("from_unit", bands.UNITS)
def test_convert_against_pysm(from_unit, to_unit):
    import pysm3
    import pysm3.units as pysm_units

    factor = bands.convert(NU_GHZ, from_unit, to_unit)
    expected = [
        pysm3.utils.bandpass_unit_conversion(
            np.array([nu]) * u.GHz,
            output_unit=pysm_units.Unit(to_unit),
            input_unit=pysm_units.Unit(from_unit),
        ).value.item()
        for nu in NU_GHZ
    ]
    np.testing.assert_allclose(factor, expected, rtol=EXACT)
    np.testing.assert_allclose(factor * bands.convert(NU_GHZ, to_unit, from_unit), 1, rtol=EXACT)


def test_convert_shapes_and_the_known_value():
    # figure quoted for astropy in the docs of PySM: 398.48 Jy/sr per uK_CMB at 150 GHz
    assert bands.convert(150, "uK_CMB", "Jy/sr") == pytest.approx(398.48, abs=0.005)
    assert np.ndim(bands.convert(150, "uK_CMB", "MJy/sr")) == 0
    assert bands.convert(NU_GHZ[:, None], to_unit="K_CMB").shape == (8, 1)


@pytest.mark.parametrize("unit", ["uK", "k_cmb", "", None, 3, "mK_CMB", "W"])
def test_unknown_unit(unit):
    with pytest.raises(ValueError, match="uK_CMB, K_CMB, uK_RJ, Jy/sr, MJy/sr"):
        bands.parse_unit(unit)
    with pytest.raises(ValueError, match="must be one of"):
        bands.convert(150, to_unit=unit)


def test_parse_unit_takes_astropy_units():
    assert bands.parse_unit(u.MJy / u.sr) == "MJy/sr"
    assert bands.parse_unit("uK_CMB") == "uK_CMB"


@pytest.mark.parametrize("nu", [0, -1, np.nan, [93, np.inf]])
def test_conversion_of_impossible_frequencies(nu):
    with pytest.raises(ValueError, match="positive, finite"):
        bands.convert(nu, "uK_CMB", "Jy/sr")
