"""The PySM component inside the real pysm3, over quick stand-ins for the slow stages.

The traps are those found in pysm3 3.4.6: sums made in place on the first component's array,
(1, npix) maps that broadcast into Q and U, unknown keywords, frequencies without unit, and
conversion of units by the band.
"""

from __future__ import annotations

import gc
import inspect
import subprocess
import sys
import types
import weakref
from importlib import metadata

import fakes
import numpy as np
import pysm3
import pytest
from pixell import enmap
from pysm3 import units as u

import mlsky
from mlsky import component_plugins, seeds
from mlsky.frequency import bands
from mlsky.plugins import pysm, skies
from mlsky.plugins.pysm import CIB, CMB, KSZ, TSZ, Extragalactic, Kappa, Radio

NSIDE = 16
NPIX = 12 * NSIDE**2

#: float32 sums.
ROUNDING = 2e-5
#: Sum of the six fields against the total, both in single precision: each addition rounds by 6e-8
#: of the sum at most.
SUM = 5e-7
#: Two sets of constants: T_CMB and h, k, c are the same, so only rounding is left.
CONSTANTS = 1e-6
#: A map through harmonic space at l <= 2 nside and back, for a band-limited one.
TRANSFORM = 1e-3


@pytest.fixture
def record(monkeypatch):
    monkeypatch.setattr(skies, "_SKIES", weakref.WeakValueDictionary())  # none of other tests
    return fakes.install(monkeypatch)


@pytest.fixture
def component(record):
    return Extragalactic(NSIDE, seed=1)


def _relative(a, b):
    return np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max()


def test_it_is_a_model_and_equals_simulate(component):
    assert isinstance(component, pysm3.Model)
    out = component.get_emission(145 * u.GHz)
    assert out.shape == (3, NPIX)
    assert out.unit == u.uK_RJ
    sky = mlsky.simulate(145, NSIDE, 1, unit="uK_RJ")
    np.testing.assert_allclose(out.value, sky.total[0], rtol=ROUNDING, atol=ROUNDING)


def test_inside_a_pysm_sky_in_cmb_units(component):
    sky = pysm3.Sky(nside=NSIDE, component_objects=[component], output_unit="uK_CMB")
    out = sky.get_emission(145 * u.GHz)
    expected = mlsky.simulate(145, NSIDE, 1).total[0]
    assert out.unit == u.uK_CMB
    assert _relative(out.value, expected) < ROUNDING + CONSTANTS


def test_trap_1_a_pysm_sky_adds_in_place(component):
    sky = pysm3.Sky(nside=NSIDE, component_objects=[component, Extragalactic(NSIDE, seed=2)])
    first = sky.get_emission(145 * u.GHz).value.copy()
    np.testing.assert_array_equal(sky.get_emission(145 * u.GHz).value, first)
    alone = component.get_emission(145 * u.GHz)
    alone[:] = 0 * u.uK_RJ
    assert np.any(component.get_emission(145 * u.GHz).value)


class Flat(pysm3.Model):
    """A float64 component of somebody else's."""

    def get_emission(self, freqs, weights=None):
        return np.full((3, NPIX), 2.0) << u.uK_RJ


@pytest.mark.parametrize("first", [True, False])
def test_trap_1_with_components_of_others(component, first):
    pair = [component, Flat(NSIDE)] if first else [Flat(NSIDE), component]
    out = pysm3.Sky(nside=NSIDE, component_objects=pair).get_emission(145 * u.GHz)
    expected = component.get_emission(145 * u.GHz).value + 2.0
    np.testing.assert_allclose(out.value, expected, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("names", [["tsz"], ["ksz", "tsz"], ["radio"], ["cmb"]])
def test_trap_2_always_three_rows(record, names):
    out = Extragalactic(NSIDE, 1, components=names).get_emission(145 * u.GHz)
    assert out.shape == (3, NPIX)
    if set(names) <= {"tsz", "ksz"}:
        assert not np.any(out[1:].value)
    assert np.any(out[0].value)


def test_trap_3_every_keyword_of_pysm(component):
    wanted = inspect.signature(pysm3.InterpolatingComponent.get_emission).parameters
    assert list(inspect.signature(component.get_emission).parameters) == [
        *list(wanted)[1:],
        "beam_window",  # of PySM's transform, though not of its components
    ]
    assert component.includes_smoothing
    assert pysm3.Sky(nside=NSIDE, component_objects=[component]).includes_smoothing
    plain = component.get_emission(145 * u.GHz)
    same = component.get_emission(
        145 * u.GHz,
        weights=None,
        fwhm=None,
        output_nside=NSIDE,
        output_car_resol=None,
        coord=None,
        lmax=20,
        return_healpix=True,
        return_car=False,
    )
    np.testing.assert_array_equal(same, plain)


def test_a_beam_is_that_of_pysm(component):
    keywords = {"fwhm": 10 * u.deg, "lmax": 2 * NSIDE}
    sky = pysm3.Sky(nside=NSIDE, component_objects=[component])
    out = sky.get_emission(145 * u.GHz, **keywords)
    expected = pysm3.apply_smoothing_and_coord_transform(
        component.get_emission(145 * u.GHz), **keywords
    )
    assert out.unit == u.uK_RJ
    np.testing.assert_allclose(out.value, expected.value, rtol=1e-6)
    assert out.value[0].std() < 0.5 * component.get_emission(145 * u.GHz).value[0].std()


def test_a_beam_window_is_that_of_pysm(component):
    ell = np.arange(2 * NSIDE + 1)
    window = np.exp(-ell * (ell + 1) * 0.005)
    out = component.get_emission(145 * u.GHz, beam_window=window, lmax=2 * NSIDE)
    expected = pysm3.apply_smoothing_and_coord_transform(
        component.get_emission(145 * u.GHz), beam_window=window, lmax=2 * NSIDE
    )
    np.testing.assert_array_equal(out, expected)
    polarised = component.get_emission(145 * u.GHz, beam_window=[window] * 3, lmax=2 * NSIDE)
    np.testing.assert_array_equal(polarised, expected)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"beam_window": np.ones(33), "fwhm": 1 * u.deg}, "fwhm and beam_window: give one"),
        ({"beam_window": np.ones(33)}, r"of 33 multipoles: must reach lmax=40"),
        ({"beam_window": np.ones(20), "output_nside": 8}, r"of 20 multipoles: must reach lmax=24"),
        ({"beam_window": np.ones((2, 50))}, r"shape \(2, 50\): must be \(n,\), or \(3, n\)"),
        ({"beam_window": np.full(50, np.nan)}, "beam_window"),
        ({"beam_window": "narrow"}, "beam_window"),
    ],
)
def test_beam_windows_that_are_not(component, keywords, message):
    with pytest.raises(ValueError, match=message) as caught:
        component.get_emission(145 * u.GHz, **keywords)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        *(({"fwhm": 1 * u.deg, "lmax": lmax}, f"lmax={lmax}: must") for lmax in (0, -3, 1, 2.5)),
        ({"lmax": 10**9, "fwhm": 1 * u.deg}, "an integer from 2 to 64"),
        *(({"fwhm": w * u.deg}, "fwhm=.*an angle with its unit") for w in (np.nan, np.inf, -1.0)),
        ({"fwhm": 5}, "fwhm=5: must be an angle with its unit"),
        ({"fwhm": 5 * u.GHz}, "fwhm in GHz: must be convertible to arcmin"),
        *(({"output_nside": n}, f"output_nside={n}: must") for n in (-4, 0, 12, 8.0)),
        ({"return_car": True, "output_car_resol": 5}, "output_car_resol=5: must be an angle"),
        *(
            ({"return_car": True, "output_car_resol": r * u.arcmin}, "output_car_resol=.*divides")
            for r in (0, -5, np.nan, 7, 0.1)
        ),
        *(
            ({"coord": c}, r"coord=.*: must be two of C \(equatorial\)")
            for c in (
                *(np.nan, 0, -1, "", "G", "CG", b"CG", (), [], {}, ("C",), ("C", "G", "E"), True),
                *(("C", "X"), ("C", None), ("C", 1), ("", "G"), (("C", "G"), ("G", "E"))),
                *(np.zeros((2, 2)), np.array(["C", "G"]), np.ma.masked, 5 * u.deg, object()),
            )
        ),
        *(
            ({name: value}, f"{name}=.*: must be True or False")
            for name in ("return_healpix", "return_car")
            for value in ("no", 1, np.nan, None, np.zeros(2), 5 * u.deg)
        ),
    ],
)
def test_keywords_of_the_transform_that_are_not(component, monkeypatch, keywords, message):
    monkeypatch.setattr(component, "_integrate", lambda freqs, weights: pytest.fail("worked"))
    with pytest.raises(ValueError, match=message) as caught:
        component.get_emission(145 * u.GHz, **keywords)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        *(
            ({"freqs": f * u.GHz}, "freq|GHz|nu_ghz")
            for f in (np.nan, np.inf, -5, 0, 950, [], [100, 90])
        ),
        *(
            ({"freqs": f * u.GHz}, "freq|GHz|nu_ghz")
            for f in ([[100, 110]], [100, np.nan], [19, 100])
        ),
        ({"freqs": 5 * u.deg}, "freqs in deg: must be convertible to GHz"),
        *(({"weights": w}, "weights") for w in (np.nan, -1, 0, "x", [], {}, 1j, np.ones((2, 2)))),
    ],
)
@pytest.mark.parametrize("kind", [TSZ, Kappa])
def test_bands_that_are_not(record, kind, keywords, message):
    with pytest.raises(ValueError, match=message) as caught:
        kind(NSIDE, seed=1).get_emission(**{"freqs": 145 * u.GHz, **keywords})
    assert "\n" not in str(caught.value)
    assert not record.generate


@pytest.mark.parametrize("value", [np.nan, 0, -1, "x", True, 1e4, np.zeros((2, 2)), 5 * u.m])
def test_arguments_that_are_not(record, value):
    for name in ("max_nside", "map_dist", "seed", "num", "nside"):
        if name in ("seed", "num") and isinstance(value, int) and value == 0:
            continue
        with pytest.raises(ValueError, match=f"^{name}=.*: must be") as caught:
            Extragalactic(**{"nside": NSIDE, name: value})
        assert "\n" not in str(caught.value)
    for name, given in (("preset_strings", value), ("preset_strings", [value])):
        with pytest.raises(ValueError, match=f"^{name}.*: must be") as caught:
            pysm.sky(NSIDE, **{name: given})
        assert "\n" not in str(caught.value)
    with pytest.raises(
        ValueError, match=r"^output_unit=.*: must be a unit of brightness"
    ) as caught:
        pysm.sky(NSIDE, output_unit=value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("coord", [["C", "G"], ("c", "g"), ("Celestial", "Galactic")])
def test_names_of_coordinates_as_healpy_takes_them(component, coord):
    expected = component.get_emission(145 * u.GHz, coord=("C", "G"), lmax=16)
    found = component.get_emission(145 * u.GHz, coord=coord, lmax=16)
    np.testing.assert_array_equal(found, expected)


def test_rotation_there_and_back(component, monkeypatch):
    import healpy

    ell, _m = healpy.Alm.getlm(8)
    alm = np.where(ell > 1, 1.0 + 0j, 0)
    smooth = healpy.alm2map([alm, alm, 0 * alm], NSIDE).astype(np.float32)
    monkeypatch.setattr(component, "_integrate", lambda freqs, weights: smooth.copy())
    turned = component.get_emission(145 * u.GHz, coord=("C", "G"), lmax=16)
    assert _relative(turned.value, smooth) > 0.1
    back = pysm3.apply_smoothing_and_coord_transform(
        turned, rot=healpy.Rotator(coord=("G", "C")), lmax=16
    )
    assert _relative(back.value, smooth) < TRANSFORM


def test_another_nside_and_car(component):
    keywords = {"lmax": 16, "output_nside": 8}
    assert component.get_emission(145 * u.GHz, **keywords).shape == (3, 12 * 64)
    car = {"return_car": True, "output_car_resol": 5 * u.deg, "lmax": 16}
    both = component.get_emission(145 * u.GHz, **car)
    assert [m.shape for m in both] == [(3, NPIX), (3, 36, 72)]
    only = component.get_emission(145 * u.GHz, return_healpix=False, **car)
    assert isinstance(only, enmap.ndmap)
    np.testing.assert_array_equal(only, both[1])


def test_trap_5_frequencies_need_a_unit(component):
    with pytest.raises(TypeError, match=r"freqs=145: must have a unit, for example 145 \* u.GHz"):
        component.get_emission(145)
    with pytest.raises(ValueError, match="950 GHz: outside the range of the laws"):
        component.get_emission(950 * u.GHz)
    out = component.get_emission(0.145 * u.THz)
    np.testing.assert_allclose(out, component.get_emission(145 * u.GHz), rtol=ROUNDING)


@pytest.mark.parametrize("weighted", [False, True])
def test_trap_6_a_passband_is_integrated_in_power(component, weighted):
    """Against a direct integral over Jy/sr, converted as pysm3.Sky does it."""
    nu = np.linspace(120.0, 180.0, 13)
    response = np.exp(-0.5 * ((nu - 150) / 15) ** 2) if weighted else np.ones_like(nu)
    sky = pysm3.Sky(nside=NSIDE, component_objects=[component], output_unit="uK_CMB")
    out = sky.get_emission(nu * u.GHz, response if weighted else None)
    jy = mlsky.simulate(nu, NSIDE, 1, unit="Jy/sr").total.astype(np.float64)
    power = np.trapezoid(response[:, None, None] * jy, nu, axis=0)
    per_uk = np.trapezoid(response * bands.jy_per_sr_per_uk(nu), nu)
    assert _relative(out.value, power / per_uk) < ROUNDING
    narrow = component.get_emission(150 * u.GHz).value
    assert _relative(component.get_emission(nu * u.GHz).value, narrow) > 1e-3


def test_the_cmb_of_a_passband_is_the_cmb(record):
    component = Extragalactic(NSIDE, 1, components=["cmb"])
    sky = pysm3.Sky(nside=NSIDE, component_objects=[component], output_unit="uK_CMB")
    out = sky.get_emission(np.linspace(80.0, 110.0, 7) * u.GHz)
    assert _relative(out.value, mlsky.simulate(93, NSIDE, 1)["cmb"][0]) < ROUNDING


def test_sources_of_a_band_are_painted_once(component, monkeypatch):
    from mlsky.sources import catalogue

    calls = []
    paint = catalogue.paint_placed
    monkeypatch.setattr(catalogue, "paint_placed", lambda *a: calls.append(a) or paint(*a))
    component.get_emission(np.linspace(130, 170, 31) * u.GHz)
    assert len(calls) == 2  # radio and dusty


def test_weights_of_another_length(component):
    with pytest.raises(ValueError, match=r"weights of shape \(2,\): must be one per frequency"):
        component.get_emission([90, 95, 100] * u.GHz, weights=np.ones(2))


def test_fields_of_a_seed_share_one_sky(record):
    """Their sum is the sky's own total, and networks run once; kappa adds nothing to it."""
    fields = [kind(NSIDE, seed=1) for kind in (CMB, Kappa, TSZ, KSZ, CIB, Radio)]
    out = pysm3.Sky(nside=NSIDE, component_objects=fields).get_emission(145 * u.GHz)
    assert len(record.generate) == 1
    whole = Extragalactic(NSIDE, seed=1)
    assert _relative(out.value, whole.get_emission(145 * u.GHz).value) < SUM
    assert len(record.generate) == 1
    sky = mlsky.simulate(145, NSIDE, 1, unit="uK_RJ")
    for one in fields:
        expected = sky[one.field][0] if one.field else 0 * sky.total[0]
        np.testing.assert_allclose(one.get_emission(145 * u.GHz).value, expected, rtol=SUM)
        np.testing.assert_array_equal(one.kappa, whole.kappa)
    kinds = [None if one.catalog is None else set(one.catalog["kind"]) for one in fields]
    assert kinds == [None, None, None, None, {"dsfg"}, {"radio"}]
    other = [TSZ(NSIDE, seed=2), TSZ(NSIDE, seed=1, num=1), TSZ(NSIDE, seed=1, flux_cut_mjy=3)]
    assert len({id(one._sky) for one in [*fields, *other]}) == 4
    del fields, whole, other, one
    gc.collect()
    assert not skies._SKIES


def test_a_field_that_comes_late_is_of_the_same_sky(record):
    tsz = TSZ(NSIDE, seed=1)
    first = tsz.get_emission(93 * u.GHz).value
    ksz = KSZ(NSIDE, seed=1)
    assert np.any(ksz.get_emission(93 * u.GHz).value)
    assert record.generate == [("tsz",), ("tsz", "ksz")]
    np.testing.assert_array_equal(tsz.get_emission(93 * u.GHz).value, first)


def test_kappa_is_a_map_that_emits_nothing(record):
    kappa = Kappa(NSIDE, seed=1)
    assert not np.any(kappa.get_emission(145 * u.GHz).value)
    found = kappa.get_map()
    assert found.unit == u.dimensionless_unscaled
    np.testing.assert_array_equal(found, mlsky.simulate(145, NSIDE, 1).kappa)
    assert kappa.get_map(fwhm=20 * u.deg, output_nside=8).shape == (768,)
    both = kappa.get_map(return_car=True, output_car_resol=5 * u.deg, coord=("C", "G"))
    assert [one.shape for one in both] == [(NPIX,), (36, 72)]
    with pytest.raises(TypeError, match="must have a unit"):
        kappa.get_emission(145)
    assert kappa.catalog is None


@pytest.fixture
def stored(record, tmp_path):
    """A file of three frequencies and a passband; what simulate gave."""
    bands = [140, 145, 150, mlsky.Band([88, 93, 98], [0.2, 1, 0.4])]
    return mlsky.simulate(bands, NSIDE, 1, out=tmp_path / "sky_00001.h5", flux_cut_mjy=20)


def test_a_sky_on_disk(stored, tmp_path):
    """At its frequencies and passbands, and at passbands whose points it holds."""
    direct = Extragalactic(NSIDE, seed=1, flux_cut_mjy=20)
    component = Extragalactic.from_file(tmp_path / "sky_00001.h5")
    assert (component.nside, component.names) == (NSIDE, direct.names)
    for freqs, weights in (
        (145 * u.GHz, None),
        ([88, 93, 98] * u.GHz, [0.1, 0.5, 0.2]),
        ([0.14, 0.145, 0.15] * u.THz, [1, 2, 1]),
        ([140, 150] * u.GHz, None),
    ):
        expected = direct.get_emission(freqs, weights).value
        assert _relative(component.get_emission(freqs, weights).value, expected) < ROUNDING
    np.testing.assert_array_equal(component.kappa, direct.kappa)
    assert len(component.catalog) == len(direct.catalog)
    fields = [
        kind(NSIDE, num=1, file=str(tmp_path / "sky_{num:05d}.h5"))
        for kind in (CMB, Kappa, TSZ, KSZ, CIB, Radio)
    ]
    out = pysm3.Sky(nside=NSIDE, component_objects=fields).get_emission(145 * u.GHz)
    assert _relative(out.value, direct.get_emission(145 * u.GHz).value) < ROUNDING
    assert set(fields[-1].catalog["kind"]) == {"radio"}
    two = Extragalactic.from_file(tmp_path / "sky_00001.h5", components=["tsz", "cmb"])
    assert two.names == ("cmb", "tsz")


def test_a_total_on_disk(stored, tmp_path):
    stored.write(tmp_path / "sky.fits")
    component = Extragalactic.from_file(tmp_path / "sky.fits")
    expected = Extragalactic.from_file(tmp_path / "sky_00001.h5").get_emission(145 * u.GHz)
    assert _relative(component.get_emission(145 * u.GHz).value, expected.value) < ROUNDING
    assert len(component.catalog) == len(stored.catalog)
    for wanted in ("tsz", "dust"):
        with pytest.raises(ValueError, match=rf"component '{wanted}': .* holds the total alone"):
            Extragalactic.from_file(tmp_path / "sky.fits", components=wanted)
    with pytest.raises(ValueError, match=r"component 'tsz': .* holds the total alone"):
        TSZ.from_file(tmp_path / "sky.fits")


class Dust:
    """A component of another package: the seed everywhere, twice that above 148 GHz."""

    stokes = "T"

    def templates(self, geometry, seed):
        return np.full((1, 1, *geometry.shape), seed, np.float32)

    def weights(self, nu_ghz):
        return np.where(np.asarray(nu_ghz) > 148, 2.0, 1.0)[:, np.newaxis]


@pytest.fixture
def dusty(record, monkeypatch):
    """Dust and sand, components of other packages."""
    monkeypatch.setitem(sys.modules, "dusty", types.SimpleNamespace(Dust=Dust))
    group = component_plugins.GROUP
    points = [metadata.EntryPoint(name, "dusty:Dust", group) for name in ("dust", "sand")]
    real = metadata.entry_points
    monkeypatch.setattr(
        metadata, "entry_points", lambda **key: points if key == {"group": group} else real(**key)
    )


@pytest.mark.parametrize(
    "names",
    [
        ["tsz", "dust"],
        ["dust"],
        "dust",
        ["sand", "dust", "ksz"],
    ],
)
def test_components_of_other_packages(dusty, tmp_path, names):
    """They are named and emitted, of a sky that is made and of one in a file, and can be left."""
    wanted = [names] if isinstance(names, str) else names
    made = Extragalactic(NSIDE, seed=3, components=names)
    assert set(made.names) == set(wanted)
    path = tmp_path / "sky.h5"
    sky = mlsky.simulate([93, 150], NSIDE, 3, components=[*wanted, "cmb"], out=path, unit="uK_RJ")
    stored = Extragalactic.from_file(path, components=names)
    assert set(stored.names) == set(wanted)
    for number, nu in enumerate([93, 150]):
        expected = sum(sky.band(number, name) for name in wanted)
        for component in (made, stored):
            out = component.get_emission(nu * u.GHz).value
            assert _relative(out, expected) < ROUNDING
    everything = Extragalactic.from_file(path)
    assert set(everything.names) == {*wanted, "cmb"}
    assert _relative(everything.get_emission(93 * u.GHz).value, sky.band(0)) < ROUNDING
    with pytest.raises(ValueError, match=r"component 'stone': must be one of cmb, .*dust"):
        Extragalactic.from_file(path, components=["stone"])
    with pytest.raises(ValueError, match=r"component 'radio': .* holds .*dust"):
        Extragalactic.from_file(path, components=["radio"])
    with pytest.raises(ValueError, match="give at least one of"):
        Extragalactic.from_file(path, components=[])
    assert TSZ(NSIDE, seed=3).names == ("tsz",)
    assert not Kappa(NSIDE, seed=3).get_emission(93 * u.GHz).value.any()


def test_files_that_do_not_fit(stored, tmp_path):
    path = tmp_path / "sky_00001.h5"
    with pytest.raises(ValueError, match=r"nside=32: must be that of .*, 16"):
        CMB(32, file=path)
    with pytest.raises(ValueError, match=r"217 GHz: .* holds 140, 145, 150, .* alone"):
        CMB.from_file(path).get_emission(217 * u.GHz)
    with pytest.raises(ValueError, match="no such file"):
        CMB.from_file(tmp_path / "sky_{num}.h5")
    with pytest.raises(ValueError, match="braces may hold num alone"):
        CMB.from_file(tmp_path / "sky_{seed}.h5")
    with pytest.raises(TypeError, match=r"unexpected argument 'weights' beside file=; may be comp"):
        Extragalactic(NSIDE, file=path, weights="default")
    with pytest.raises(ValueError, match="component 'dust'"):
        Extragalactic(NSIDE, file=path, components=["dust"])
    geometry = enmap.fullsky_geometry(res=np.radians(10))
    mlsky.simulate(145, geometry=geometry, out=tmp_path / "car.h5", stokes="T")
    with pytest.raises(ValueError, match="holds a sky on rectangular pixels"):
        CMB.from_file(tmp_path / "car.h5")


def test_what_would_be_in_the_sum_twice(record, monkeypatch):
    made = []
    monkeypatch.setattr(pysm3, "Sky", lambda **options: made.append(options))
    for presets, options, message in (
        (["d10"], {}, "'d10' holds the mean of the CIB, .* monopole=False"),
        (["c1"], {}, "'c1' holds cmb, which is in the sum twice"),
        (["tsz3"], {}, "'tsz3' holds tsz"),
        (["rg2"], {"components": "radio"}, "'rg2' holds radio"),
    ):
        with pytest.warns(UserWarning, match=message):
            pysm.sky(NSIDE, presets, seed=1, **options)
    pysm.sky(NSIDE, ["d10", "s5", "co1", "c1"], monopole=False, components=["tsz", "cib"])
    pysm.sky(NSIDE, ["d10"], components=["tsz"])
    assert made[-1]["preset_strings"] == ["d10"]
    (component,) = made[-1]["component_objects"]
    assert component.names == ("tsz",)


def test_a_class_of_one_field_has_no_components(record):
    with pytest.raises(TypeError, match=r"CIB\(\): unexpected argument 'components'; may be"):
        CIB(NSIDE, components=["cib"])
    assert {"nside", "num"} <= set(CIB.__init__.__code__.co_varnames)


def test_one_simulation_for_every_band(record):
    component = Extragalactic(NSIDE, 1)
    assert not record.generate
    for nu in (93, 145, 225):
        component.get_emission(nu * u.GHz)
    assert len(record.generate) == 1
    assert component.kappa.shape == (NPIX,)


def test_the_catalogue_is_that_of_the_sky(record):
    """With what the flux cut took out of the maps told apart."""
    catalog = Extragalactic(NSIDE, 1, flux_cut_mjy=20).catalog
    expected = mlsky.simulate(145, NSIDE, 1, flux_cut_mjy=20).catalog
    assert catalog.colnames == expected.colnames
    for name in catalog.colnames:
        np.testing.assert_array_equal(catalog[name], expected[name])
    np.testing.assert_array_equal(catalog["in_map"], catalog["flux_mjy"] <= 20)
    assert 0 < catalog["in_map"].sum() < len(catalog)
    assert Extragalactic(NSIDE, 1, components=["cmb"]).catalog is None


def test_num_is_the_realisation(record):
    """Each pair of seed and number is a sky of its own; number 0 is the one of the seed."""
    made = {}
    for seed, num in ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0)):
        made[seed, num] = Extragalactic(NSIDE, seed, num).get_emission(145 * u.GHz).value
    pairs = list(made)
    for i, one in enumerate(pairs):
        for other in pairs[:i]:
            assert np.any(made[one] != made[other]), (one, other)
    sky = mlsky.simulate(145, NSIDE, seeds.realisation(0, 1), unit="uK_RJ")
    np.testing.assert_allclose(made[0, 1], sky.total[0], rtol=ROUNDING, atol=ROUNDING)


def test_mapsims_finds_the_arguments():
    """It passes only what it sees in the code object of __init__."""
    assert {"nside", "num"} <= set(Extragalactic.__init__.__code__.co_varnames)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nside": 100}, "nside=100: must be a power of two"),
        ({"components": ["dust"]}, "component 'dust'"),
        ({"seed": -1}, "seed=-1"),
        ({"num": 0.5}, "num=0.5"),
        ({"weights": "best"}, "weights='best'"),
        ({"map_dist": object()}, "must be None, skies of mlsky are not distributed"),
    ],
)
def test_bad_input_when_made(record, arguments, message):
    with pytest.raises((ValueError, mlsky.MlskyError), match=message):
        Extragalactic(**{"nside": NSIDE, **arguments})


def test_maps_that_nobody_asked_for(component):
    with pytest.raises(ValueError, match="return_healpix=False"):
        component.get_emission(145 * u.GHz, return_healpix=False)
    with pytest.raises(ValueError, match="give output_car_resol"):
        component.get_emission(145 * u.GHz, return_car=True)


def test_without_pysm3_the_message_names_the_extra():
    code = (
        "import sys; sys.modules['pysm3'] = None\n"
        "import mlsky\n"
        "try:\n    import mlsky.plugins.pysm\n"
        "except mlsky.MissingDependencyError as error:\n    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "pip install 'mlsky[pysm]'" in result.stdout, result.stderr
