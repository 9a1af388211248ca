"""Cosmologies: names, dicts and the objects of CAMB and CCL mean the same numbers."""

import dataclasses

import camb
import numpy as np
import pyccl
import pytest
from astropy import units

from mlsky.plugins import camb as camb_plugin
from mlsky.plugins import ccl as ccl_plugin
from mlsky.theory import Cosmology, names, parse

#: Densities pass through Omega h^2 and back: rounding only.
ROUNDING = 1e-9

#: CCL takes 0.06 eV with a slightly other neutrino temperature, and its own sigma8
#: integral; the As from its sigma8 differs by that.
SIGMA8_TO_AS = 2e-3


def test_default_is_planck():
    planck = parse()
    assert planck == parse("planck2018")
    assert (planck.h, planck.ombh2, planck.mnu) == (0.6736, 0.02237, 0.06)


@pytest.mark.parametrize("name", names())
def test_dict_and_back(name):
    cosmology = parse(name)
    assert parse(cosmology.to_dict()) == cosmology
    assert parse(cosmology) is cosmology


def test_published_sigma8():
    # Planck 2018 VI, Table 2: 0.8111 +- 0.0060. Sehgal et al. 2010: 0.80, and our As is
    # given to six digits.
    assert camb_plugin.sigma8(parse("planck2018")) == pytest.approx(0.8111, abs=0.001)
    assert camb_plugin.sigma8(parse("wmap5")) == pytest.approx(0.80, abs=1e-4)


def test_act_h_follows_from_theta():
    act = parse("act-dr6")
    params = camb.set_params(
        cosmomc_theta=0.0104055, ombh2=act.ombh2, omch2=act.omch2, mnu=act.mnu, nnu=act.nnu
    )
    assert params.h == pytest.approx(act.h, abs=1e-6)


def test_dict_overrides_planck():
    changed = parse({"ns": 0.97, "mnu": 0})
    assert changed == dataclasses.replace(parse(), ns=0.97, mnu=0.0)


def test_camb_params_round_trip():
    for name in names():
        cosmology = parse(name)
        got = parse(camb_plugin.to_params(cosmology))
        for key, value in cosmology.to_dict().items():
            assert getattr(got, key) == pytest.approx(value, rel=ROUNDING, abs=1e-12), (name, key)


def test_ccl_round_trip():
    for name in names():
        cosmology = parse(name)
        got = parse(ccl_plugin.to_cosmology(cosmology))
        expected = dataclasses.replace(cosmology, tau=parse().tau)
        for key, value in expected.to_dict().items():
            assert getattr(got, key) == pytest.approx(value, rel=ROUNDING, abs=1e-12), (name, key)


def test_ccl_sigma8():
    cosmology = parse()
    ccl = pyccl.Cosmology(
        Omega_b=cosmology.ombh2 / cosmology.h**2,
        Omega_c=cosmology.omch2 / cosmology.h**2,
        h=cosmology.h,
        n_s=cosmology.ns,
        sigma8=camb_plugin.sigma8(cosmology),
        m_nu=0.06,
        mass_split="single",
    )
    assert parse(ccl).As == pytest.approx(cosmology.As, rel=SIGMA8_TO_AS)


def test_several_neutrinos_are_summed():
    params = camb.set_params(
        H0=67.36, ombh2=0.022, omch2=0.12, tau=0.05, mnu=0.3, num_massive_neutrinos=3
    )
    assert parse(params).mnu == pytest.approx(0.3, rel=0.02)
    ccl = pyccl.Cosmology(
        Omega_b=0.05, Omega_c=0.26, h=0.67, n_s=0.96, A_s=2.1e-9, m_nu=[0.1, 0.1, 0.1]
    )
    assert parse(ccl).mnu == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("cosmology", "message"),
    [
        ("planck", r"cosmology='planck': must be one of planck2018, act-dr6, wmap5"),
        (3, r"cosmology of type int: must be one of planck2018"),
        (None, r"cosmology of type NoneType"),
        ({"H_0": 67}, r"unknown keys 'H_0': allowed are h, ombh2"),
        ({"H0": 0.67}, r"H0=0\.67: must be a number from 30 to 150, for example 67\.36"),
        ({"H0": 67, "h": 0.67}, r"both h and H0: give one of them"),
        ({"sigma8": 0.8, "As": 2e-9}, r"both As and sigma8: give one of them"),
        ({"sigma8": 8}, r"sigma8=8: must be a number from 0\.3 to 1\.5, for example 0\.8111"),
        ({"sigma8": "0,8"}, r"sigma8='0,8': must be a number"),
        ({"sigma8": True}, r"sigma8=True: must be a number"),
        ({"sigma8": 1.5, "omch2": 0.02}, r"sigma8=1\.5: takes As=.* from 1e-10 to 1e-08"),
        ({"tcmb": 2.8}, r"tcmb=2\.8: must be 2\.7255 K"),
        ({"tcmb": float("nan")}, r"tcmb=nan: must be 2\.7255 K"),
        ({"tcmb": None}, r"tcmb=None: must be 2\.7255 K"),
        ({"h": 67.36}, r"h=67\.36: must be a number from 0\.3 to 1\.5, for example 0\.6736"),
        ({"As": float("nan")}, r"As=nan"),
        ({"mnu": -0.1}, r"mnu=-0\.1"),
        ({"ns": "tilted"}, r"ns='tilted'"),
        ({"tau": None}, r"tau=None"),
        ({"ns": "0.96"}, r"ns='0\.96': must be a number"),
        ({"mnu": np.True_}, r"mnu=.*True.*: must be a number"),
        ({"h": [0.67]}, r"h=\[0\.67\]: must be a number"),
        ({"h": np.ma.masked}, r"h=masked: must be a number"),
        ({"ns": 0.96 + 0j}, r"ns=.*: must be a number"),
        ({"H0": 67 * units.km / units.s}, r"H0 in km / s: must be convertible to km / \(Mpc s\)"),
        ({"mnu": 0.1 * units.kg}, r"mnu in kg: must be convertible to eV"),
        ({"ombh2": 0.02 * units.m}, r"ombh2 in m: must be convertible to a plain number"),
    ],
)
def test_bad_cosmology(cosmology, message):
    with pytest.raises(ValueError, match=message):
        parse(cosmology)


def test_another_temperature_is_refused():
    """Bands, units and colours are those of 2.7255 K, whoever says otherwise."""
    message = r"tcmb=2\.7: must be 2\.7255 K"
    with pytest.raises(ValueError, match=message):
        parse(camb.set_params(H0=67.36, ombh2=0.022, omch2=0.12, tau=0.054, TCMB=2.7))
    ccl = pyccl.Cosmology(Omega_b=0.05, Omega_c=0.26, h=0.67, n_s=0.96, A_s=2.1e-9, T_CMB=2.7)
    with pytest.raises(ValueError, match=message):
        parse(ccl)
    assert parse({"tcmb": 2.7255}) == parse()


def test_hubble_constant_in_its_usual_unit():
    assert parse({"H0": 70}) == parse({"h": 0.7})


def test_sigma8_in_place_of_the_amplitude(monkeypatch):
    """Against CCL's own integral over P(k), and as it comes back from CAMB."""
    # spheres of 8 Mpc/h have no power beyond; to the k of lensing CAMB takes 7 s
    monkeypatch.setitem(ccl_plugin.SETTINGS, "kmax", 10.0)
    asked = {"sigma8": 0.9, "omch2": 0.11, "H0": 70}
    cosmology = parse(asked)
    assert dataclasses.replace(cosmology, As=parse().As) == parse({"omch2": 0.11, "h": 0.7})
    assert camb_plugin.sigma8(cosmology) == pytest.approx(0.9, rel=ROUNDING)
    ccl = ccl_plugin.to_cosmology(cosmology)
    assert pyccl.sigma8(ccl) == pytest.approx(0.9, rel=SIGMA8_TO_AS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"omk": 0.01}, "omk=0.01: must be 0"),
        ({"w": -0.9}, "w=-0.9: must be -1"),
        ({"nrun": 0.01}, "nrun=0.01"),
        ({"pivot_scalar": 0.002}, "pivot_scalar=0.002"),
        ({"zrei": 8.0}, "optical depth"),
        ({"YHe": 0.30}, "YHe=0.3: must be 0.24"),
        ({"r": 0.1}, "InitPower.r=0.1: must be 0"),
        ({"meffsterile": 0.5, "nnu": 3.6}, "neutrino of"),
        ({"dark_energy_model": "EarlyQuintessence"}, "DarkEnergy=EarlyQuintessence"),
        ({"w": -1, "wa": 0.1, "dark_energy_model": "ppf"}, "wa=0.1"),
        ({"initial_condition": "initial_iso_baryon"}, "must be"),
        ({"deltazrei": 1.5}, "Reion.delta_redshift=1.5: must be 0.5"),
        ({"helium_redshift": 5.0}, "Reion.helium_redshift=5"),
        ({"Evolve_delta_xe": True}, "Evolve_delta_xe"),
        ({"RECFAST_fudge": 1.3}, "RECFAST_fudge=1.3"),
    ],
)
def test_camb_params_beyond_lcdm(change, message):
    names = {"initial_condition", "helium_redshift", "Evolve_delta_xe", "RECFAST_fudge"} & {*change}
    later = {name: change.pop(name) for name in names}
    change = {"tau": 0.054, **change} if "zrei" not in change else change
    params = camb.set_params(H0=67.36, ombh2=0.022, omch2=0.12, **change)
    for name, value in later.items():
        where = {"helium_redshift": params.Reion, "RECFAST_fudge": params.Recomb}.get(name, params)
        setattr(where, "scalar_" + name if name == "initial_condition" else name, value)
    with pytest.raises(ValueError, match=message) as caught:
        parse(params)
    assert "\n" not in str(caught.value)


def test_early_dark_energy_is_refused():
    params = camb.set_params(H0=67.36, ombh2=0.022, omch2=0.12, tau=0.054)
    params.DarkEnergy = camb.dark_energy.AxionEffectiveFluid()
    params.DarkEnergy.set_params(w_n=0.5, fde_zc=0.1, zc=3500.0, theta_i=2.8)
    with pytest.raises(ValueError, match="DarkEnergy=AxionEffectiveFluid"):
        parse(params)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"mnu": 0.0},
        {"mnu": 0.3, "num_massive_neutrinos": 3},
        {"mnu": 0.12, "neutrino_hierarchy": "normal"},
        {"mnu": 0.12, "neutrino_hierarchy": "inverted"},
        {"nnu": 3.5},
        {"nnu": 2.6, "share_delta_neff": True},
        {"lmax": 5000, "lens_potential_accuracy": 4},
        {"halofit_version": "takahashi"},
        {"AccuracyBoost": 1.5},
        {"dark_energy_model": "ppf"},
        {"WantTransfer": True},
    ],
)
def test_camb_params_that_are_lcdm(change):
    """What is taken gives CAMB's own background: the Hubble rate of what came in."""
    change = {"tau": 0.054, **change} if "zrei" not in change else change
    params = camb.set_params(H0=67.36, ombh2=0.022, omch2=0.12, **change)
    back = camb_plugin.to_params(parse(params))
    expected, got = (camb.get_background(p).hubble_parameter([0, 1, 1100]) for p in (params, back))
    np.testing.assert_allclose(got, expected, rtol=2e-3)  # three light neutrinos for a heavy one


@pytest.mark.parametrize("change", [{"Omega_k": 0.01}, {"w0": -0.9}, {"wa": 0.1}])
def test_ccl_beyond_lcdm(change):
    ccl = pyccl.Cosmology(Omega_b=0.05, Omega_c=0.26, h=0.67, n_s=0.96, A_s=2.1e-9, **change)
    with pytest.raises(ValueError, match=r"must be .*flat LCDM"):
        parse(ccl)


def test_quantities_are_converted():
    given = {"H0": 0.070 * units.km / units.s / units.kpc, "mnu": 100 * units.meV}
    got = parse(given)
    assert (got.h, got.mnu) == pytest.approx((0.7, 0.1), rel=1e-12)
    assert parse({"tcmb": 2725.5 * units.mK}) == parse()


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse().h = 0.7


def test_values_are_plain_floats():
    cosmology = Cosmology(h=1, ombh2=0.02, omch2=0.1, ns=1, As=2e-9, tau=0.05)
    assert all(type(value) is float for value in cosmology.to_dict().values())
