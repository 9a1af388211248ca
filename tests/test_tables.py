"""mlsky.datasets.tables: what the painter reads, against the halo model and closed forms."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from halo_cases import model, shipped
from scipy import integrate, stats

from mlsky import bands
from mlsky.datasets import tables
from mlsky.theory import cosmology, halo_model

#: The shipped tables were made with A_s = 2.0989e-9, five digits of ln(10^10 A_s) = 3.044:
#: 6e-6 of the largest value of each.
SHIPPED = 3e-5
#: One-halo power that six basis functions per profile leave out.
RANK_LOSS = 5e-3
#: Hankel transforms by the trapezoid rule on 3000 multipoles and 1500 angles.
HANKEL = 2e-4


@pytest.fixture(scope="module")
def built():
    uk = 1 / bands.jy_per_sr_per_uk(148.0)
    return tables.build(model(), uk, cosmology.parse("planck2018").to_dict())


def lognormal(scatter: float, mean: float):
    return stats.lognorm(scatter, scale=mean * np.exp(-(scatter**2) / 2))


def test_shipped_tables_are_what_is_built(built):
    t = shipped()
    assert set(t) == set(built)
    for name in set(t) - {"header"}:
        old, new = t[name].astype(float), built[name].astype(float)
        assert np.abs(old - new).max() <= SHIPPED * np.abs(new).max(), name
    header = json.loads(built["header"].tobytes())
    assert header["parameters"] == t["header"]["parameters"]
    assert header["cosmology"] == cosmology.parse("planck2018").to_dict()


def test_build_for_parses_and_makes_the_model(monkeypatch, built):
    monkeypatch.setattr(halo_model, "for_cosmology", lambda parsed: model())
    made = tables.build_for({"h": 0.7})
    assert json.loads(made["header"].tobytes())["cosmology"]["h"] == 0.7
    assert made["uk_per_jy_sr"] == built["uk_per_jy_sr"]
    with pytest.raises(ValueError, match="planck2018"):
        tables.build_for("planck2013")


@pytest.mark.parametrize(("name", "profile"), [("nfw", "u_nfw"), ("y", "u_y"), ("tau", "u_tau")])
def test_basis_keeps_the_one_halo_power(name, profile):
    t, m = shipped(), model()
    painted = m.log10_mass >= tables.LOG10_MASS_MIN - 1e-9
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


def test_powers_of_a_gaussian_correlation():
    # xi = A / (2 pi s^2) exp(-theta^2 / 2 s^2), and so are its square and cube, narrower
    ell = np.geomspace(20, 31000, 1500)
    amplitude, widths = 1e-7, np.array([[3e-3], [1e-3]])
    spectrum = amplitude * np.exp(-((ell * widths) ** 2) / 2)
    height = amplitude / (2 * np.pi * widths**2)
    for n, made in enumerate(tables._powers(ell, spectrum), start=2):
        exact = height**n * 2 * np.pi * widths**2 / n * np.exp(-((ell * widths) ** 2) / (2 * n))
        assert np.all(np.abs(made - exact) < HANKEL * exact.max(1, keepdims=True))


def test_lognormal_bias_adds_its_second_and_third_order():
    u, powers = np.ones((1, 2, 4)), [np.full((1, 4), 2.0), np.full((1, 4), 5.0)]
    painted = np.array([True, False])

    def added(bias, profile=u):
        haloes = SimpleNamespace(number=np.ones((1, 2)), bias=np.full((1, 2), bias))
        return tables._beyond_linear(haloes, profile, u, painted, powers)

    # one kind of halo: exp(b^2 xi) - 1 - b^2 xi = b^4 xi^2 / 2 + b^6 xi^3 / 6 + ...
    assert added(1.5) == pytest.approx(1.5**4 * 2.0 / 2 + 1.5**6 * 5.0 / 6)
    assert added(1.5, 3 * u) == pytest.approx(3 * added(1.5))
    # and nothing is left of it where haloes follow matter ever less
    assert added(1e-3) == pytest.approx(1e-12, rel=1e-5)
    assert np.all(added(0.0) == 0)


def test_truncated_moments_are_integrals():
    scatter, cut = 1.25, 7e-3
    for flux in (1e-4, 3e-3, 0.05):
        density = lognormal(scatter, flux).pdf
        for function, power in (
            (tables._truncated_mean, 1),
            (tables._truncated_second_moment, 2),
        ):
            expected = integrate.quad(lambda s, p=power: s**p * density(s), 0, cut, limit=200)[0]  # noqa: B023
            assert function(flux, scatter, cut) == pytest.approx(expected, rel=1e-6)


def test_satellites_are_drawn_from_their_mass_function():
    t, m = shipped(), model()
    _, _, _, log10_sub, number_sub = m.infrared()
    drawn = log10_sub >= tables.LOG10_SUBHALO_MIN
    host = 50
    row = number_sub[m.log10_mass >= tables.LOG10_MASS_MIN - 1e-9][host, drawn]
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
    header = np.frombuffer(b'{"format": 0}', dtype=np.uint8)
    np.savez(path, ell=np.arange(3), header=header)
    with pytest.raises(ValueError, match=r"format 0.*mlsky tables build"):
        tables.load(path)
    with pytest.raises(FileNotFoundError):
        tables.load(tmp_path / "nowhere.npz")
