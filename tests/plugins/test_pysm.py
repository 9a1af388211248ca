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
import weakref

import fakes
import numpy as np
import pysm3
import pytest
from pixell import enmap
from pysm3 import units as u

import mlsky
from mlsky import seeds
from mlsky.frequency import bands
from mlsky.plugins import pysm
from mlsky.plugins.pysm import CIB, CMB, KSZ, TSZ, Extragalactic, Radio

NSIDE = 16
NPIX = 12 * NSIDE**2

#: float32 sums.
ROUNDING = 2e-5
#: Two sets of constants: T_CMB and h, k, c are the same, so only rounding is left.
CONSTANTS = 1e-6
#: A map through harmonic space at l <= 2 nside and back, for a band-limited one.
TRANSFORM = 1e-3


@pytest.fixture
def record(monkeypatch):
    monkeypatch.setattr(pysm, "_SKIES", weakref.WeakValueDictionary())  # none of other tests
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
    assert list(inspect.signature(component.get_emission).parameters) == list(wanted)[1:]
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
    paint = catalogue.paint_sparse
    monkeypatch.setattr(catalogue, "paint_sparse", lambda *a: calls.append(a) or paint(*a))
    component.get_emission(np.linspace(130, 170, 31) * u.GHz)
    assert len(calls) == 2  # radio and dusty


def test_weights_of_another_length(component):
    with pytest.raises(ValueError, match=r"weights of shape \(2,\): must be one per frequency"):
        component.get_emission([90, 95, 100] * u.GHz, weights=np.ones(2))


def test_fields_of_a_seed_share_one_sky(record):
    """Their sum is the sky's own total, and networks run once."""
    fields = [kind(NSIDE, seed=1) for kind in (CMB, TSZ, KSZ, CIB, Radio)]
    out = pysm3.Sky(nside=NSIDE, component_objects=fields).get_emission(145 * u.GHz)
    assert len(record.generate) == 1
    whole = Extragalactic(NSIDE, seed=1)
    assert _relative(out.value, whole.get_emission(145 * u.GHz).value) < ROUNDING
    assert len(record.generate) == 1
    for one in fields:
        expected = mlsky.simulate(145, NSIDE, 1, unit="uK_RJ")[one.field][0]
        np.testing.assert_allclose(one.get_emission(145 * u.GHz).value, expected, rtol=ROUNDING)
        np.testing.assert_array_equal(one.kappa, whole.kappa)
    kinds = [None if one.catalog is None else set(one.catalog["kind"]) for one in fields]
    assert kinds == [None, None, None, {"dsfg"}, {"radio"}]
    other = [TSZ(NSIDE, seed=2), TSZ(NSIDE, seed=1, num=1), TSZ(NSIDE, seed=1, flux_cut_mjy=3)]
    assert len({id(one._sky) for one in [*fields, *other]}) == 4
    del fields, whole, other, one
    gc.collect()
    assert not pysm._SKIES


def test_a_field_that_comes_late_is_of_the_same_sky(record):
    tsz = TSZ(NSIDE, seed=1)
    first = tsz.get_emission(93 * u.GHz).value
    ksz = KSZ(NSIDE, seed=1)
    assert np.any(ksz.get_emission(93 * u.GHz).value)
    assert record.generate == [("tsz",), ("tsz", "ksz")]
    np.testing.assert_array_equal(tsz.get_emission(93 * u.GHz).value, first)


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
        ({"map_dist": object()}, "must be None, mlsky skies are not distributed"),
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
