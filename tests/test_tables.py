"""mlsky.datasets.tables: what the painter reads, against the halo model and closed forms."""

from __future__ import annotations

import json

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
#: Sums over k in the mixing matrix, 0.0005/Mpc apart, and P(k) interpolated in 600 points.
MIXING = 5e-3
#: All shells together against Limber's approximation, which leaves out that the edges of
#: neighbours share structure: 1 % at most was found for 55 < ell < 3000.
LIMBER = 0.015


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


# The joint draw of densities and velocities


def spectrum(i: int, j: int, number: int) -> float:
    """Power of two rows of the mixing matrix at its multipole `number`."""
    matrix = tables.mixing(shipped())[1]
    return float(matrix[number, i].astype(float) @ matrix[number, j].astype(float))


@pytest.mark.parametrize("number", [10, 30])
def test_velocity_power_is_its_integral(number):
    t = shipped()
    ell = tables.mixing(t)[0][number]
    for slice_ in (40, 100):
        low, high = t["slice_edges"][slice_ : slice_ + 2].astype(float)
        chi, width = (low + high) / 2, high - low

        k_par = np.arange(2.5e-5, 1, 5e-5)
        k = np.hypot(ell / chi, k_par)
        power = np.exp(np.interp(np.log(k), np.log(t["k"]), np.log(t["p_k"])))
        power *= np.exp(-((k * halo_model.SMOOTHING_MPC) ** 2))
        window = np.sinc(k_par * width / 2 / np.pi) ** 2
        whole = (power * (k_par / k**2) ** 2 * window).sum() * 5e-5 / np.pi
        amplitude = t["slice_growth"][slice_] * t["slice_velocity"][slice_] / chi
        row = len(t["z"]) + slice_
        assert spectrum(row, row, number) == pytest.approx(whole * amplitude**2, rel=MIXING)


def test_densities_have_the_power_of_the_shells():
    t = shipped()
    ell, matrix = tables.mixing(t)
    weight = t["linear_kappa"].astype(float)
    for number in (15, 30, 45):
        rows = matrix[number, : len(weight)].astype(float)
        together = ((weight @ rows) ** 2).sum()
        limber = [np.interp(np.log(ell[number]), np.log(t["ell"]), p) for p in t["p_shell"]]
        assert together == pytest.approx((weight**2) @ limber, rel=LIMBER)


def test_matter_falls_onto_what_is_dense():
    # Positive velocities recede: before an overdense shell (nearer) they do, behind it approach.
    t = shipped()
    shell, number = 20, 5
    first = len(t["z"]) + int(t["slices"][:shell].sum())
    last = first + int(t["slices"][shell]) - 1
    norm = np.sqrt(spectrum(shell, shell, number))
    before, behind = (
        spectrum(shell, row, number) / norm / np.sqrt(spectrum(row, row, number))
        for row in (first - 1, last + 1)
    )
    assert before > 0.2
    assert behind < -0.2


def test_mixing_is_kept_and_mended(tmp_path, monkeypatch):
    calls = []

    def small(t, ell):
        calls.append(1)
        return np.full((len(ell), 1, 1), 2, np.float32)

    monkeypatch.setattr(tables, "_mixing", small)
    monkeypatch.setenv("MLSKY_CACHE_DIR", str(tmp_path))
    first = tables.mixing(shipped())
    assert np.array_equal(first[1], tables.mixing(shipped())[1])
    assert len(calls) == 1
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(b"damaged")
    assert np.array_equal(first[1], tables.mixing(shipped())[1])
    assert len(calls) == 2
    # Another cosmology has a matrix of its own.
    tables.mixing({**shipped(), "p_k": shipped()["p_k"] * 1.1})
    assert len(list(tmp_path.iterdir())) == 2


def test_mixing_does_without_a_cache(tmp_path, monkeypatch, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setattr(tables, "_mixing", lambda t, ell: np.zeros((len(ell), 1, 1), np.float32))
    monkeypatch.setenv("MLSKY_CACHE_DIR", str(blocked))
    assert tables.mixing(shipped())[1].shape == (52, 1, 1)
    assert "not kept" in caplog.text
