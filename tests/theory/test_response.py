"""Ratios of power and means between cosmologies: what is asked, kept, refused and told."""

from types import SimpleNamespace

import numpy as np
import pytest
from halo_cases import model, shipped

from mlsky.frequency import tsz
from mlsky.theory import foregrounds, parse, response

#: Shares and profiles of the tables are float32.
TABLES = 2e-3

NEAR = {"As": 1.1 * parse().As}


@pytest.fixture(autouse=True)
def amplitude_alone(monkeypatch):
    """sigma8 as the root of As, without a run of CAMB."""
    from mlsky.plugins import camb

    def sigma8(cosmology):
        return 0.8111 * (cosmology.As / parse().As) ** 0.5

    monkeypatch.setattr(camb, "sigma8", sigma8)
    response._parameters_in_words.cache_clear()
    yield
    response._parameters_in_words.cache_clear()


@pytest.fixture
def halo_model(monkeypatch, tmp_path):
    """Power that goes as the eighth power of the amplitude and means as the third, counted."""
    calls = []

    def foreground_spectra(ell, nu, *, components, cosmology, **options):
        calls.append((nu, components, options))
        scale = (cosmology.As / parse().As) ** 4
        return {f"{components} x {components}": scale * nu / ell**2}

    def means(cosmology, asked):
        scale = (cosmology.As / parse().As) ** 1.5
        cib = {name: 21.0 * scale for name in asked.frequency if name.startswith("cib")}
        return {"tsz": -1.5 * scale, **cib}

    monkeypatch.setattr(response.foregrounds, "foreground_spectra", foreground_spectra)
    monkeypatch.setattr(response, "_means", means)
    monkeypatch.setenv("MLSKY_CACHE_DIR", str(tmp_path))
    return SimpleNamespace(calls=calls, folder=tmp_path / "response")


def test_headers():
    assert response.trained_on({}) == parse("planck2018")
    assert response.trained_on({"cosmology": parse("act-dr6").to_dict()}) == parse("act-dr6")
    assert response.part_of({}) == "all"
    assert response.part_of({"part": "rest"}) == "rest"
    assert response.fields_of(("cmb", "cib", "tsz", "radio")) == ("tsz", "cib")


def test_the_networks_own_cosmology_needs_nothing(halo_model):
    assert response.response(parse(), {}) is None
    assert response.response(parse({"tau": 0.06}), {}) is None  # the CMB alone feels it
    assert response.response(parse("act-dr6"), {"cosmology": parse("act-dr6").to_dict()}) is None
    assert not halo_model.calls


def test_ratios(halo_model):
    cosmology = parse(NEAR)
    amplitude = cosmology.As / parse().As
    got = response.response(cosmology, {})
    for name in response.FIELDS:
        np.testing.assert_allclose(got.gain[name], amplitude**2)
        np.testing.assert_allclose(got.at(name, np.array([0.0, 2.0, 333.3, 1e6])), amplitude**2)
    assert set(got.mean) == {"tsz", "cib"}
    assert got.mean["cib"] == pytest.approx(amplitude**1.5)
    assert got.trained_mean == {"tsz": -1.5, "cib": 21.0}
    told = got.describe()
    assert f"tsz x {amplitude**4:.2f}-{amplitude**4:.2f}" in told
    assert "\n" not in told


def test_what_the_weight_file_says_is_asked_for(halo_model):
    header = {"part": "rest", "preset": "agora", "mass_cut": 2e14}
    got = response.response(parse(NEAR), header, ("cib",))
    assert set(got.gain) == {"cib"}
    wanted = {"flux_cut_mjy": 7.0, "preset": "agora", "part": "rest", "mass_cut": 2e14}
    assert all(options == wanted for *_, options in halo_model.calls)


def test_every_template_of_the_cib_has_its_ratio(halo_model):
    header = {"cib_templates": {"ghz": [148, 353, 857], "preset": "act-dr6"}}
    got = response.response(parse(NEAR), header)
    assert set(got.gain) == {"tsz", "ksz", "cib", "cib_353", "cib_857"}
    assert set(got.mean) == set(got.trained_mean) == set(got.gain) - {"ksz"}
    asked = {(nu, component) for nu, component, _ in halo_model.calls}
    assert {(353.0, "cib"), (857.0, "cib"), (148.0, "tsz")} <= asked


def test_ratios_are_kept_on_disk(halo_model):
    first = response.response(parse(NEAR), {})
    assert len(halo_model.calls) == 6
    again = response.response(parse({**NEAR, "tau": 0.06}), {})
    assert len(halo_model.calls) == 6
    np.testing.assert_array_equal(again.gain["cib"], first.gain["cib"])
    for path in halo_model.folder.iterdir():
        path.write_bytes(b"junk")
    response.response(parse(NEAR), {})
    assert len(halo_model.calls) == 12


def test_kappa_alone_is_rescaled_to_any_cosmology(halo_model):
    got = response.response(parse({"sigma8": 1.2}), {}, ())
    assert not got.gain
    assert not halo_model.calls
    assert "kappa" in got.describe()


@pytest.mark.parametrize("name", ["act-dr6", "wmap5"])
def test_named_cosmologies_are_in_reach(name):
    response.check(parse(name), {})


@pytest.mark.parametrize(
    ("cosmology", "message"),
    [
        ({"sigma8": 1.0}, r"sigma8=1: must be from 0\.689\d* to 0\.932\d*"),
        ({"sigma8": 0.6}, r"sigma8=0\.6: must be"),
        ({"omch2": 0.2}, r"Omega_m=0\.49\d*: must be"),
        ({"h": 0.8, "omch2": 0.18}, r"h=0\.8: must be"),
        ({"ns": 0.8}, r"ns=0\.8: must be"),
    ],
)
def test_far_cosmologies_are_refused(cosmology, message):
    with pytest.raises(ValueError, match=message) as caught:
        response.check(parse(cosmology), {})
    assert "\n" not in str(caught.value)
    response.check(parse(cosmology), {}, ())


def test_means_are_those_of_the_tables():
    """Of all haloes, against the painter's tables and the monopole; the rest has less tSZ."""
    every = response._means(parse(), response._Asked.of({}))
    t = shipped()
    painted = (t["number"] * (t["a_y"] @ t["phi_y"])[..., 0]).sum()
    mean = (painted + t["low_y"].sum()) * tsz.uk_per_y(148.0)
    # haloes below the mass cut of the tables carry their bias there, and a few per cent of y
    assert every["tsz"] == pytest.approx(mean, rel=0.1)
    assert every["cib"] == pytest.approx(21.1, abs=0.1)
    rest = response._means(parse(), response._Asked.of({"part": "rest"}))
    assert 0.2 < rest["tsz"] / every["tsz"] < 0.8
    assert 0.85 < rest["cib"] / every["cib"] < 1.0
    assert foregrounds.model() is model()


@pytest.mark.slow
def test_a_brighter_universe():
    """A_s x 1.21 is sigma8 x 1.1: what the halo model of the truth makes of it, l = 3000."""
    got = response.response(parse({"As": 1.21 * parse().As}), {})
    power = {name: float(got.at(name, np.array([3000.0]))[0]) ** 2 for name in response.FIELDS}
    assert power == pytest.approx({"tsz": 2.06, "ksz": 1.53, "cib": 1.50}, rel=0.02)
