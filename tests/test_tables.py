"""mlsky.datasets.tables: what the painter reads, against the halo model and closed forms."""

from __future__ import annotations

import json

import numpy as np
import pytest
from halo_cases import model, shipped

from mlsky import bands
from mlsky.datasets import tables
from mlsky.theory import cosmology, halo_model, presets
from mlsky.theory.clustering import CAP_SIGMA, LOG10_MASS_MIN
from mlsky.theory.infrared import InfraredGalaxies

#: Of the largest value of each: float32.
SHIPPED = 1e-6
#: One-halo power that six basis functions per profile leave out.
RANK_LOSS = 6e-3


@pytest.fixture(scope="module")
def built():
    uk = 1 / bands.jy_per_sr_per_uk(148.0)
    return tables.build(model(), uk, cosmology.parse("planck2018").to_dict())


def test_shipped_tables_are_what_is_built(built):
    t = shipped()
    assert set(t) == set(built)
    for name in set(t) - {"header"}:
        old, new = t[name].astype(float), built[name].astype(float)
        assert np.abs(old - new).max() <= SHIPPED * np.abs(new).max(), name
    header = json.loads(built["header"].tobytes())
    assert header == t["header"]
    assert header["cosmology"] == cosmology.parse("planck2018").to_dict()
    assert header["preset"] == presets.DEFAULT
    assert header["parameters"] == halo_model.Parameters().to_dict()


def test_build_for_parses_and_makes_the_model(monkeypatch, built):
    asked = []
    monkeypatch.setattr(
        halo_model, "for_cosmology", lambda parsed, parameters: asked.append(parameters) or model()
    )
    made = tables.build_for({"h": 0.7}, "agora")
    assert json.loads(made["header"].tobytes())["preset"] == "agora"
    assert asked == [presets.parameters("agora")]
    assert json.loads(made["header"].tobytes())["cosmology"]["h"] == 0.7
    assert made["uk_per_jy_sr"] == built["uk_per_jy_sr"]
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
