"""Arguments: converted, or refused in one line; and at every door of the package the same way."""

from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.table import Column, MaskedColumn
from astropy.utils.masked import Masked

from mlsky import arguments, components, seeds
from mlsky.frequency import bands, relativistic
from mlsky.io import skies
from mlsky.sources import cuts
from mlsky.sphere import kappa

#: What is no number, whoever asks for one.
NO_NUMBERS = [
    "15",
    b"15",
    True,
    np.True_,
    [15],
    {"mJy": 15},
    {15},
    1j,
    np.array([1.0, 2.0]),
    np.ma.masked,
    np.ma.masked_array(15.0, True),
    np.datetime64("2026-01-01"),
    object(),
    float("nan"),
    float("inf"),
    10**400,
    np.array(None),
    lambda: 15,
]


@pytest.mark.parametrize("bad", NO_NUMBERS)
@pytest.mark.parametrize(
    "take",
    [
        cuts.parse_flux_cut,
        relativistic.parse_temperature,
        seeds.check,
        lambda value: arguments.number("n", value, "a number", 0, 1e300),
        lambda value: arguments.integer("n", value, "an integer", 0),
    ],
)
def test_what_is_no_number(take, bad):
    if isinstance(bad, int) and bad > 1 and take not in (seeds.check,):
        pytest.skip("large integers are integers")
    with pytest.raises(ValueError, match="must be") as caught:
        take(bad)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (15, 15.0),
        (np.float32(15), 15.0),
        (np.int16(15), 15.0),
        (np.array(15.0), 15.0),
        (15 * units.mJy, 15.0),
        (0.015 * units.Jy, 15.0),
        (1.5e-28 * units.W / units.m**2 / units.Hz, 15.0),
        (15 * units.dimensionless_unscaled * units.mJy, 15.0),
        (Masked(15 * units.mJy), 15.0),
    ],
)
def test_a_flux_cut_is_in_mjy(given, expected):
    assert cuts.parse_flux_cut(given) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("bad", [15 * units.GHz, 15 * units.uK, 15 * units.mJy / units.sr])
def test_another_kind_of_unit_is_refused(bad):
    with pytest.raises(ValueError, match="must be convertible to mJy"):
        cuts.parse_flux_cut(bad)


def test_large_and_numpy_integers():
    assert seeds.check(np.uint64(2**63 - 1)) == 2**63 - 1
    assert type(seeds.check(np.int8(3))) is int
    for bad in (2**63, 10**5000, -1, 1.0):
        with pytest.raises(ValueError, match="must be an integer"):
            seeds.check(bad)


@pytest.mark.parametrize("bad", ["False", "yes", 0, 1, None, [], np.array([True]), b"1", 0.0])
def test_what_is_no_boolean(bad, tmp_path):
    doors = (
        lambda: arguments.boolean("x", bad),
        lambda: skies.check(tmp_path / "a.h5", bad),
        lambda: skies.read(tmp_path / "a.h5", bad),
        lambda: kappa.check_options("gaussian", bad),
    )
    for door in doors:
        with pytest.raises(ValueError, match="must be True or False"):
            door()


@pytest.mark.parametrize("bad", ["nbody", "", None, 3, b"gaussian", ["gaussian"]])
def test_what_is_no_kind_of_kappa(bad):
    with pytest.raises(ValueError, match=r"kappa_kind=.*must be one of gaussian, nonlinear"):
        kappa.check_options(bad, False)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"a.h5", "must be the name of a file"),
        (3, "must be the name of a file"),
        (None, "must be the name of a file"),
        ({}, "must be the name of a file"),
        ("", "without NUL and control characters, and not empty"),
        ("a\nb.h5", "without NUL and control characters"),
        ("a\0.h5", "without NUL"),
        ("a" * 300 + ".h5", "file systems allow 255"),
        ("é" * 130 + ".h5", "file systems allow 255"),
        ("\ud800.h5", "no file name can have"),
    ],
)
def test_what_is_no_path(bad, message):
    for door in (lambda: arguments.path("out", bad), lambda: skies.check(bad)):
        with pytest.raises(ValueError, match=message) as caught:
            door()
        assert "\n" not in str(caught.value)
        assert "\0" not in str(caught.value)


def test_paths_as_they_come():
    assert arguments.path("out", "b/a.h5") == Path("b/a.h5")
    assert arguments.path("out", Path("é.h5")) == Path("é.h5")


VALUES = np.array([1.0, 2.0, 3.0])
MASK = np.array([False, True, False])


@pytest.mark.parametrize(
    "masked",
    [
        np.ma.masked_array(VALUES, MASK),
        np.ma.masked_array([1, 2, 3], MASK),
        np.ma.masked_array(VALUES.astype("f4"), MASK),
        MaskedColumn(VALUES, mask=MASK, name="a"),
        Masked(VALUES, MASK),
        Masked(VALUES * units.one, MASK),
    ],
)
def test_a_mask_becomes_nan(masked):
    got = np.asarray(arguments.unmask(masked))
    np.testing.assert_array_equal(got, [1, np.nan, 3])
    got = arguments.array("x", masked, "an array")
    np.testing.assert_array_equal(got, [1, np.nan, 3])


def test_a_masked_quantity_keeps_its_unit():
    got = arguments.unmask(Masked(VALUES * units.mK, MASK))
    assert got.unit == units.mK
    got = arguments.array("x", Masked(VALUES * units.mK, MASK), "an array", "uK")
    np.testing.assert_allclose(got, [1000, np.nan, 3000])
    got = arguments.array("x", Column(VALUES, unit="mK"), "an array", "uK")
    np.testing.assert_allclose(got, 1000 * VALUES)


def test_without_a_mask_nothing_changes():
    for value in (VALUES, VALUES * units.K, [1, 2], "text", None, np.ma.masked_array(VALUES)):
        got = arguments.unmask(value)
        assert getattr(got, "unit", None) == getattr(value, "unit", None)
    assert arguments.unmask(VALUES) is VALUES


@pytest.mark.parametrize(
    "bad", [["a"], {"a": 1}, object(), [[1], [1, 2]], np.array([1 + 1j]), [True, False]]
)
def test_what_is_no_array(bad):
    with pytest.raises(ValueError, match="must be an array"):
        arguments.array("x", bad, "an array")


@pytest.mark.parametrize(
    "bad",
    [
        np.ma.masked_array([93.0, 145.0], [False, True]),
        Masked(np.array([93.0, 145.0]) * units.GHz, [False, True]),
        {"a": 93},
        *(b"93", bytearray(b"a"), memoryview(b"ab")),
    ],
)
def test_masked_and_odd_frequencies(bad):
    with pytest.raises(ValueError, match="freqs"):
        bands.parse_freqs(bad)


@pytest.mark.parametrize("bad", [b"cmb", {"cmb": 1}, 3, [None], ["cmb", 3]])
def test_odd_components(bad):
    with pytest.raises(ValueError, match="component"):
        components.parse(bad)


@pytest.mark.parametrize("bad", [b"", {}, np.zeros((3, 3)), 3, object(), iter([])])
def test_odd_monopoles_and_stokes(bad):
    with pytest.raises(ValueError, match=r"stokes=.*must be one of T, QU, TQU") as caught:
        components.parse_stokes(bad)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"monopole=.*must be True, False") as caught:
        components.parse_monopole(bad)
    assert "\n" not in str(caught.value)


def test_a_masked_whole_number_is_refused():
    """Its index is the number under the mask: seeds were taken from there."""
    with pytest.raises(ValueError, match=r"seed=.*must be an integer"):
        arguments.integer("seed", np.ma.array(145, mask=True), "an integer >= 0", 0)


class Broken:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value",
    [
        Broken(),
        "a\nb" * 100,
        np.zeros((1000, 1000)),
        pytest.param(10**5000, id="huge"),  # Python itself refuses to write it
    ],
)
def test_values_are_shown_in_one_line(value):
    text = arguments.short(value)
    assert "\n" not in text
    assert len(text) <= 80
