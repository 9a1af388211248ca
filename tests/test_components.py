"""The table of fields and the parsing of names and Stokes parameters."""

import dataclasses

import pytest

from mlsky import components


def test_order_signs_and_laws():
    table = components.COMPONENTS
    assert list(table) == ["cmb", "tsz", "ksz", "cib", "radio"]
    assert {name: c.sign for name, c in table.items()} == {
        "cmb": 0,
        "tsz": -1,
        "ksz": 0,
        "cib": 1,
        "radio": 1,
    }
    assert {c.scaling for c in table.values()} == {"flat", "tsz", "cib", "radio"}
    assert all(c.name == name and c.unit == "uK_CMB" for name, c in table.items())
    assert all(c.stokes in components.STOKES for c in table.values())
    with pytest.raises(dataclasses.FrozenInstanceError):
        table["cmb"].sign = 1


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, ("cmb", "tsz", "ksz", "cib", "radio")),
        ("tsz", ("tsz",)),
        (["radio", "cmb", "radio"], ("cmb", "radio")),
        (("ksz",), ("ksz",)),
    ],
)
def test_parse(names, expected):
    assert components.parse(names) == expected


@pytest.mark.parametrize("names", ["dust", ["cmb", "TSZ"], [], [None], 3, [["cmb"]], ""])
def test_parse_refuses_in_one_line_that_says_what_is_allowed(names):
    with pytest.raises(ValueError, match="cmb, tsz, ksz, cib, radio") as error:
        components.parse(names)
    assert "\n" not in str(error.value)


def test_parse_stokes():
    assert [components.parse_stokes(s) for s in ("T", "QU", "TQU")] == ["T", "QU", "TQU"]
    for bad in ("IQU", "", "tqu", None, ["T"], "UQ"):
        with pytest.raises(ValueError, match="T, QU, TQU"):
            components.parse_stokes(bad)


def test_parse_monopole():
    assert components.parse_monopole(True) == ()
    assert components.parse_monopole(False) == ("cib",)
    assert components.parse_monopole(()) == ("tsz", "cib")
    assert components.parse_monopole("cib") == ("tsz",)
    assert components.parse_monopole(["tsz", "cib"]) == ()
    for wrong in (1, None, "ksz", ["cib", 3]):
        with pytest.raises(ValueError, match="must be True, False"):
            components.parse_monopole(wrong)


def test_maps_of_a_field():
    names = ("kappa", "cib_353", "tsz_0", "cib", "tszx", "radio")
    assert components.maps_of(names, "cib") == ["cib_353", "cib"]
    assert components.maps_of(names, "tsz", "kappa") == ["kappa", "tsz_0"]
    assert components.maps_of(names) == []
