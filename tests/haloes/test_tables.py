"""mlsky.haloes.tables: what the painter reads, against the halo model and closed forms."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from halo_cases import model, shipped

from mlsky.frequency import bands
from mlsky.haloes import tables
from mlsky.theory import cosmology, halo_model, presets
from mlsky.theory.clustering import CAP_SIGMA, LOG10_MASS_MIN
from mlsky.theory.infrared import InfraredGalaxies
from mlsky.theory.objects import is_object

#: Of the largest value of each: float32.
SHIPPED = 1e-6
#: One-halo power that eight basis functions per profile leave out.
RANK_LOSS = 2e-3
#: A single halo above 10^14 Msun in that basis: its profile to l = 10000, of its value at zero,
#: and the mean over such haloes. A basis for sums cannot do more.
SINGLE = {"nfw": (0.05, 0.013), "y": (0.025, 0.01), "tau": (0.032, 0.019)}


#: Profiles of single haloes, of the largest value: what a basis left out may be another's.
SHIPPED_OBJECTS = 1e-4
#: Profile of any one halo of which the sky has one in a thousand, of its value at zero, up to
#: l = 12000, and the value at zero itself, its flux.
OBJECT_SHAPE, OBJECT_FLUX = 3e-3, 1e-4


def object_profiles(t: dict, name: str) -> np.ndarray:
    """(n_shell, n_mass, n_ell) as the sphere paints them."""
    phi = t[f"phi_object_{name}"].astype(float)[t["object_class"]]
    return np.einsum("imk,imkl->iml", t[f"a_object_{name}"].astype(float), phi)


@pytest.fixture(scope="module")
def built():
    uk = 1 / bands.jy_per_sr_per_uk(148.0)
    return tables.build(model(), uk, cosmology.parse("planck2018").to_dict())


def test_shipped_tables_are_what_is_built(built):
    t = shipped()
    assert set(t) == set(built)
    # a basis may turn from one build to the next, the profiles may not
    bases = {name for name in t if name.startswith(("phi_object_", "a_object_"))}
    for name in ("nfw", "y", "tau"):
        old, new = object_profiles(t, name), object_profiles(built, name)
        assert np.abs(old - new).max() <= SHIPPED_OBJECTS * np.abs(new).max(), name
    for name in set(t) - {"header"} - bases:
        old, new = t[name].astype(float), built[name].astype(float)
        assert np.abs(old - new).max() <= SHIPPED * np.abs(new).max(), name
    header = json.loads(built["header"].tobytes())
    assert header == t["header"]
    assert header["cosmology"] == cosmology.parse("planck2018").to_dict()
    assert header["preset"] == presets.DEFAULT
    assert header["parameters"] == halo_model.Parameters().to_dict()


def test_build_for_parses_and_makes_the_model(monkeypatch, built):
    """What it hands to `build`, which notes it in the header as it does for `built`."""
    asked = []
    monkeypatch.setattr(
        halo_model, "for_cosmology", lambda parsed, parameters: asked.append(parameters) or model()
    )
    monkeypatch.setattr(tables, "build", lambda *given: given)
    given, uk_per_jy_sr, cosmos, preset = tables.build_for({"h": 0.7}, "agora")
    assert given is model()
    assert asked == [presets.parameters("agora")]
    assert cosmos == cosmology.parse({"h": 0.7}).to_dict()
    assert uk_per_jy_sr == pytest.approx(float(built["uk_per_jy_sr"]), rel=1e-7)
    assert preset == "agora"
    with pytest.raises(ValueError, match="planck2018"):
        tables.build_for("planck2013")
    with pytest.raises(ValueError, match="preset='websky': must be one of act-dr6, "):
        tables.build_for(preset="websky")


@pytest.mark.parametrize(("name", "profile"), [("nfw", "u_nfw"), ("y", "u_y"), ("tau", "u_tau")])
def test_basis_keeps_the_one_halo_power(name, profile):
    t, m = shipped(), model()
    painted = m.log10_mass >= LOG10_MASS_MIN - 1e-9
    weight = {
        "nfw": m.kappa_mass,
        "y": np.ones_like(m.bias),
        "tau": m.sigma_v[:, None] + 0 * m.bias,
    }
    number = m.number[:, painted] * weight[name][:, painted] ** 2
    exact = getattr(m, profile)[:, painted]
    fitted = np.einsum("imk,kl->iml", t[f"a_{name}"], t[f"phi_{name}"])
    power = [np.einsum("im,iml->l", number, u**2) for u in (fitted, exact)]
    assert power[0] == pytest.approx(power[1], rel=RANK_LOSS)
    # What is left of the profiles has no power of its own either.
    rest = np.einsum("im,iml->l", number, (fitted - exact) ** 2)
    assert np.all(rest < RANK_LOSS * power[1])
    # The flux of each halo is exact, and objects are not far off one by one.
    assert fitted[:, :, 0] == pytest.approx(exact[:, :, 0], rel=1e-5)
    error = np.abs(fitted - exact)[:, :, t["ell"] < 10_000].max(2) / exact[:, :, 0]
    objects = is_object(t["z"], t["log10_mass"]) & (t["number"] * 4 * np.pi > 1)
    assert error[objects].max() < SINGLE[name][0]
    assert np.average(error[objects], weights=t["number"][objects]) < SINGLE[name][1]


@pytest.mark.parametrize("name", ["nfw", "y", "tau"])
def test_every_object_has_its_own_profile(name):
    t = shipped()
    ell = t["ell_object"].astype(float)
    exact = getattr(replace(model(), ell=ell), f"u_{name}")
    exact = exact[:, model().log10_mass >= LOG10_MASS_MIN - 1e-9]
    error = np.abs(object_profiles(t, name) - exact) / exact[:, :, :1]
    there = t["number"] * 4 * np.pi > 1e-3
    assert there.sum() > 2000
    assert error[there][:, ell <= 12000].max() < OBJECT_SHAPE
    assert error[there][:, 0].max() < OBJECT_FLUX
    assert ell[0] == 0


def test_what_a_catalogue_says_of_an_object():
    t, m = shipped(), model()
    painted = m.log10_mass >= LOG10_MASS_MIN - 1e-9
    arcmin = 180 * 60 / np.pi
    for name in ("m200c", "m500c", "theta500", "y500", "theta_cut_y"):
        assert t[name].shape == t["number"].shape
    assert t["m200c"] == pytest.approx(m.m200c[:, painted], rel=1e-6)
    mass, radius = m.critical(500.0)
    assert t["m500c"] == pytest.approx(mass[:, painted], rel=1e-6)
    assert np.all(t["m500c"] < t["m200c"])
    assert t["theta500"] == pytest.approx(radius[:, painted] / m.chi[:, None] * arcmin, rel=1e-6)
    # within R500c lies most of the signal, but not all that lies within four R200c
    whole = object_profiles(t, "y")[:, :, 0] * arcmin**2
    fraction = (t["y500"] / whole)[t["number"] * 4 * np.pi > 1]
    assert fraction.min() > 0.2
    assert fraction.max() < 0.9


def test_edges_of_mass_bins_are_round():
    edges = shipped()["log10_mass"].astype(float) - 0.025
    for edge in (12.3, 13.0, 14.0):
        assert np.abs(edges - edge).min() < 1e-5


def test_smooth_kappa_completes_the_nonlinear_power():
    # The transfer is 1 where two haloes rule, and grows as the shells' smoothing takes away.
    transfer = shipped()["smooth_kappa"]
    ell = shipped()["ell"]
    # two-halo power beyond linear bias, 1-3 % there, is what it leaves room for
    assert abs(transfer[ell < 100] - 1).max() < 0.04
    rising = transfer[(ell > 200) & (ell < 10_000)]
    assert np.all(np.diff(rising) > 0)
    assert rising[-1] < 2.5


def test_basis_keeps_the_cross_power_of_tsz_and_cib():
    t, m = shipped(), model()
    painted = m.log10_mass >= LOG10_MASS_MIN - 1e-9
    central, satellites = InfraredGalaxies.of(m).faint(148.0, tables.FLUX_CUT)
    number = m.number[:, painted]
    u_nfw = m.u_nfw[:, painted]
    exact = [
        m.u_y[:, painted],
        central[:, painted, None] + satellites[:, painted, None] * u_nfw,
    ]
    fitted_nfw = np.einsum("imk,kl->iml", t["a_nfw"], t["phi_nfw"])
    fitted = [
        np.einsum("imk,kl->iml", t["a_y"], t["phi_y"]),
        central[:, painted, None] + satellites[:, painted, None] * fitted_nfw,
    ]
    powers = [np.einsum("im,iml,iml->l", number, *pair) for pair in (fitted, exact)]
    assert powers[0] == pytest.approx(powers[1], rel=RANK_LOSS)


def test_cap_is_four_standard_deviations_of_the_density():
    t = shipped()
    ell, power = t["ell"].astype(float), t["p_shell"].astype(float)
    # The grid ends at ell = 20, and below it lies little of the variance of most shells.
    variance = np.trapezoid(ell**2 * power, np.log(ell), axis=1) / (2 * np.pi)
    far = t["z"] > 0.3
    assert CAP_SIGMA == 4
    assert t["delta_cap"][far] == pytest.approx(4 * np.sqrt(variance[far]), rel=0.01)


def test_satellites_are_drawn_from_their_mass_function():
    t, m = shipped(), model()
    _, _, _, log10_sub, number_sub = m.infrared()
    drawn = log10_sub >= tables.LOG10_SUBHALO_MIN
    host = 50
    row = number_sub[m.log10_mass >= LOG10_MASS_MIN - 1e-9][host, drawn]
    mean = (row * log10_sub[drawn]).sum() / row.sum()
    inverse = log10_sub[drawn][t["satellite_inverse"][host]].mean()
    assert inverse == pytest.approx(mean, abs=0.01)  # dex; half a bin, and 256 quantiles


def test_tables_come_back_from_a_file(tmp_path):
    t = shipped()
    arrays = {k: v for k, v in t.items() if k != "header"}
    arrays["header"] = np.frombuffer(json.dumps(t["header"]).encode(), dtype=np.uint8)
    path = tmp_path / "folder" / "tables.npz"
    tables.save(path, arrays)
    assert [p.name for p in path.parent.iterdir()] == ["tables.npz"]
    back = tables.load(path)
    assert back["header"] == t["header"]
    assert all(np.array_equal(back[k], t[k]) for k in arrays if k != "header")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "tables.npz"
    for content in (b"", b"not an archive", b"PK\x03\x04 damaged"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a file of painter tables"):
            tables.load(path)
    np.savez(path, ell=np.arange(3))
    with pytest.raises(ValueError, match="not a file of painter tables"):
        tables.load(path)
    for old in (0, 2, tables.FORMAT + 1):
        header = np.frombuffer(b'{"format": %d}' % old, dtype=np.uint8)
        np.savez(path, ell=np.arange(3), header=header)
        with pytest.raises(ValueError, match=rf"format {old}.*mlsky tables build"):
            tables.load(path)
    with pytest.raises(ValueError, match="No such file"):
        tables.load(tmp_path / "nowhere.npz")


def test_tables_of_a_cosmology_are_kept(monkeypatch, tmp_path):
    """The shipped ones, whatever the optical depth; others once, and again if they are damaged."""
    monkeypatch.setenv("MLSKY_CACHE_DIR", str(tmp_path))
    made = []

    def build_for(parsed, preset):
        made.append((parsed, preset))
        t = shipped()
        header = {**t["header"], "cosmology": parsed.to_dict(), "preset": preset}
        return {**t, "header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)}

    monkeypatch.setattr(tables, "build_for", build_for)
    late = cosmology.parse({"tau": 0.07})
    assert tables.of(late)["header"] == shipped()["header"]
    assert not made
    act = cosmology.parse("act-dr6")
    for other in (act, replace(act, tau=0.07)):
        header = tables.of(other)["header"]
        assert header["cosmology"] == replace(act, tau=cosmology.parse().tau).to_dict()
    assert len(made) == 1
    (path,) = tmp_path.glob("halos-*.npz")
    path.write_bytes(b"damaged")
    tables.of(act)
    assert len(made) == 2
