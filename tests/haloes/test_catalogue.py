"""The list of clusters: what it says of each, and lists of the user's own."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from astropy import units
from astropy.table import MaskedColumn, QTable, Table
from halo_cases import shipped

from mlsky.haloes import catalogue, draw, members, profiles, shells
from mlsky.haloes.draw import HaloList
from mlsky.sphere import gaussian
from mlsky.theory.halo_model import C_KM_S

#: Places between the bins of the tables are float32, good to 1e-5 of a bin.
ROUNDING = 1e-4
#: Band limit of the densities and velocities here: less work.
LMAX = 32


def haloes(**columns) -> HaloList:
    n = len(columns["z"])
    values = {"theta": np.full(n, 1.0), "phi": np.zeros(n), "velocity": np.zeros(n)}
    values |= {"key": np.arange(n, dtype=np.uint64), **columns}
    return HaloList(**{name: np.asarray(v) for name, v in values.items()})


def given(n: int = 5, seed: int = 0, **columns) -> dict[str, units.Quantity]:
    """Columns of a user's list: clusters anywhere."""
    rng = np.random.default_rng(seed)
    values = {
        "ra": rng.uniform(0, 360, n) * units.deg,
        "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, n))) * units.deg,
        "z": rng.uniform(0.25, 1.0, n),
        "m200m": 10 ** rng.uniform(14.1, 14.8, n) * units.Msun,
        "velocity": rng.normal(0, 300, n) * units.km / units.s,
    }
    return {name: v for name, v in (values | columns).items() if v is not None}


def parsed(columns, **options) -> HaloList:
    return catalogue.parse(catalogue.check(columns, shipped()), shipped(), **options)


def test_columns_units_and_order():
    rng = np.random.default_rng(1)
    h = haloes(
        z=rng.uniform(0.25, 1, 9),
        log10_mass=rng.uniform(14, 15, 9),
        theta=np.arccos(rng.uniform(-1, 1, 9)),
        phi=rng.uniform(-np.pi, np.pi, 9),
        velocity=rng.normal(0, 1e-3, 9),
    )
    table = catalogue.table(h, shipped(), 1e14)
    wanted = ["ra", "dec", "z", "m200m", "m200c", "m500c", "y500", "theta500", "velocity"]
    assert table.colnames == wanted == list(catalogue.COLUMNS)
    stated = ("deg", "deg", None, "solMass", "solMass", "solMass", "arcmin2", "arcmin", "km / s")
    assert [None if table[n].unit is None else str(table[n].unit) for n in wanted] == list(stated)
    assert all(table[n].description and table[n].dtype == np.float64 for n in wanted)
    assert table.meta == {"mass_cut": 1e14}
    assert np.all(np.diff(table["m200m"]) <= 0)
    order = np.argsort(-h.log10_mass)
    np.testing.assert_allclose(table["dec"], 90 - np.degrees(h.theta[order]))
    np.testing.assert_allclose(table["ra"], np.degrees(h.phi[order]) % 360)
    assert np.all((table["ra"] >= 0) & (table["ra"] < 360))
    np.testing.assert_array_equal(table["z"], h.z[order])
    # positive is receding, in one unit or the other
    np.testing.assert_allclose(table["velocity"], 299792.458 * h.velocity[order])
    assert np.all(table["m500c"] < table["m200c"])
    assert np.all(table["m200c"] < table["m200m"])
    assert np.all(table["m500c"] > 0.4 * table["m200m"])


@pytest.mark.parametrize(("shell", "log10_mass"), [(2, 13.1), (8, 14.5), (20, 14.2), (30, 15.0)])
def test_at_the_centre_of_a_bin_values_are_those_of_the_tables(shell, log10_mass):
    t = shipped()
    m = int(np.abs(t["log10_mass"] - log10_mass).argmin())
    h = haloes(z=t["z"][[shell]].astype(float), log10_mass=t["log10_mass"][[m]].astype(float))
    row = catalogue.table(h, t)[0]
    for name in ("m200c", "m500c", "y500", "theta500"):
        assert row[name] == pytest.approx(t[name][shell, m], rel=ROUNDING), name
    assert row["m200m"] == pytest.approx(10 ** t["log10_mass"][m].astype(float))


def test_an_empty_list_has_its_columns():
    table = catalogue.table(haloes(z=np.zeros(0), log10_mass=np.zeros(0)), shipped())
    assert len(table) == 0
    assert table.colnames == list(catalogue.COLUMNS)


def same(one: HaloList, two: HaloList) -> None:
    for name in ("theta", "phi", "z", "log10_mass", "velocity"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-12)
    np.testing.assert_array_equal(one.key, two.key)


def test_every_kind_of_table_is_the_same_list():
    columns = given()
    expected = parsed(columns)
    assert len(expected) == 5
    np.testing.assert_allclose(expected.theta, np.radians(90 - columns["dec"].value))
    np.testing.assert_allclose(expected.velocity * C_KM_S, columns["velocity"].value)
    same(parsed(Table(columns)), expected)
    same(parsed(QTable(columns)), expected)
    plain = Table({name: np.asarray(v) for name, v in columns.items()})
    for name, v in columns.items():
        plain[name].unit = getattr(v, "unit", None)
    same(parsed(plain), expected)
    masked = Table({n: MaskedColumn(plain[n], mask=np.zeros(5, bool)) for n in plain.colnames})
    same(parsed(masked), expected)  # nothing is masked


def test_units_are_converted():
    columns = given()
    other = {
        "ra": columns["ra"].to("hourangle"),
        "dec": columns["dec"].to("rad"),
        "z": columns["z"] * units.dimensionless_unscaled,
        "m200m": columns["m200m"].to("kg"),
        "velocity": columns["velocity"].to("m/s"),
    }
    same(parsed(other), parsed(columns))
    same(parsed(columns | {"ra": columns["ra"] - 360 * units.deg}), parsed(columns))
    grams = columns | {"m200m": columns["m200m"].value / 1e14 * units.Unit("1e14 Msun")}
    same(parsed(grams), parsed(columns))


BAD = {
    "no column": ({"m200m": None}, "haloes without column m200m: must be an astropy Table"),
    "no columns": ({"ra": None, "z": None}, "haloes without column ra, z"),
    "unit of ra": ({"ra": np.ones(5)}, "column ra states no unit"),
    "unit of dec": ({"dec": np.ones(5)}, "column dec states no unit"),
    "unit of mass": ({"m200m": np.full(5, 1e14)}, "column m200m states no unit; give it one, as"),
    "unit of velocity": ({"velocity": np.ones(5)}, "column velocity states no unit"),
    "not a mass": ({"m200m": np.full(5, 1e14) * units.km}, "m200m must be numbers in solMass"),
    "not an angle": ({"ra": np.ones(5) * units.Msun}, "column ra must be numbers in deg"),
    "unit of z": ({"z": np.ones(5) * units.Mpc}, "column z must be numbers in no unit"),
    "text": ({"z": np.array(["near"] * 5)}, "column z must be numbers in no unit"),
    "objects": ({"z": [None] * 5}, "haloes: "),
    "NaN": ({"z": np.array([0.3, np.nan, 0.3, 0.3, 0.3])}, r"haloes: z\[1\]=nan: must be from"),
    "complex": ({"z": np.full(5, 1 + 1j)}, "column z must be numbers in no unit"),
    "infinite": ({"m200m": np.full(5, np.inf) * units.Msun}, r"m200m\[0\]=inf: must be from"),
    "ra": ({"ra": np.full(5, 400.0) * units.deg}, r"ra\[0\]=400: must be from -360 to 360"),
    "dec": ({"dec": np.full(5, 91.0) * units.deg}, r"dec\[0\]=91: must be from -90 to 90"),
    "near": ({"z": np.full(5, 1e-4)}, r"z\[0\]=0.0001: must be from .* halo tables"),
    "far": ({"z": np.full(5, 1100.0)}, r"z\[0\]=1100: must be from"),
    "heavy": ({"m200m": np.full(5, 1e17) * units.Msun}, r"m200m\[0\]=1e\+17: must be from"),
    "light": ({"m200m": np.full(5, 1e2) * units.Msun}, r"m200m\[0\]=100: must be from"),
    "fast": ({"velocity": np.full(5, 1e4) * units.km / units.s}, r"velocity\[0\]=10000: must"),
    "ragged": ({"ra": np.ones(3) * units.deg}, r"haloes with columns ra \(3,\), dec \(5,\)"),
    "nested": ({"z": [[1.0], [1.0, 2.0], 1, 1, 1]}, "column z must be numbers in no unit"),
    "2-d": ({"z": np.ones((5, 2))}, r"z \(5, 2\).*: must be 1-d, one entry per halo"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_list_is_refused_in_one_line(case):
    change, message = BAD[case]
    columns = given()
    columns = {n: v for n, v in (columns | change).items() if v is not None}
    with pytest.raises(ValueError, match=message) as caught:
        catalogue.check(columns, shipped())
    assert "\n" not in str(caught.value)


def test_no_haloes_at_all_are_refused():
    with pytest.raises(ValueError, match="must be 1-d, one entry per halo, and at least one"):
        catalogue.check(given(0), shipped())


@pytest.mark.parametrize("what", [[1, 2, 3], "clusters.fits", 3.0, np.ones(4), {}, Table()])
def test_what_is_no_table_is_refused(what):
    with pytest.raises(ValueError, match="haloes without column ra, dec, z, m200m"):
        catalogue.check(what, shipped())


@pytest.mark.parametrize("kind", [Table, QTable])
def test_masked_entries_are_refused(kind):
    from astropy.utils.masked import Masked

    table = kind(given(), masked=kind is Table)
    if kind is Table:
        table["m200m"].mask[2] = True
    else:
        table["m200m"] = Masked(given()["m200m"], mask=np.arange(5) == 2)
    with pytest.raises(ValueError, match="column m200m has masked entries; drop those rows"):
        catalogue.check(table, shipped())


def test_lighter_haloes_are_left_to_the_networks(caplog):
    masses = np.array([0.97e14, 1e14, 1.5e14, 3e13, 3e13]) * units.Msun
    z = np.array([0.5, 0.5, 0.5, 0.5, 0.1])
    h = parsed(given(m200m=masses, z=z))
    np.testing.assert_allclose(10**h.log10_mass, [1e14, 1.5e14, 3e13])
    assert len(parsed(given(m200m=masses, z=z), mass_cut=2e14)) == 1  # near ones are lighter
    # with no velocities to draw this takes no time
    assert not caplog.records
    none = given(m200m=np.full(5, 1e13) * units.Msun, velocity=None)
    assert not len(parsed(none))
    (record,) = caplog.records
    assert "none of the 5 haloes given is painted as a cluster" in record.getMessage()
    assert "1e+13 Msun: M200m must be 1e+14 Msun or more" in record.getMessage()


@functools.cache
def few() -> dict:
    return shipped() | {"number": shipped()["number"] * np.float32(2e-3)}


@functools.cache
def sky() -> tuple[HaloList, np.ndarray, np.ndarray]:
    """Haloes of a sky with its convergence and the power of that."""
    spectra = shells.spectra(few(), LMAX)
    cl = [spectra.kappa(e, spectra.covariance(e))[1] if e else 0.0 for e in range(LMAX + 1)]
    kappa = gaussian.draw_alm(np.array(cl), 3)
    return draw.draw(few(), 3, kappa, np.array(cl), lmax=LMAX), kappa, np.array(cl)


def as_given(h: HaloList, velocity: bool = False) -> dict[str, units.Quantity]:
    table = QTable(catalogue.table(h, few()))
    names = ["ra", "dec", "z", "m200m", *(["velocity"] if velocity else [])]
    return {name: table[name] for name in names}


def test_the_list_of_a_sky_gives_its_haloes_back():
    h, _, _ = sky()
    back = parsed(as_given(h, velocity=True))
    assert len(back) == len(h) > 1000
    order = np.argsort(-h.log10_mass, kind="stable")
    for name in ("theta", "z", "log10_mass", "velocity"):
        np.testing.assert_allclose(getattr(back, name), getattr(h, name)[order], rtol=1e-9)


def test_velocities_that_are_not_given_are_drawn_with_the_sky(monkeypatch):
    """Those of the sky's own haloes in these places but for what is finer than the slices."""
    h, kappa, cl = sky()
    real = shells.spectra
    monkeypatch.setattr(draw.modes, "spectra", lambda tables, lmax=LMAX: real(tables, LMAX))
    order = np.argsort(-h.log10_mass, kind="stable")

    def drawn(seed, kappa):
        return parsed(as_given(h), seed=seed, kappa_alm=kappa, kappa_cl=cl).velocity

    made = drawn(3, kappa)
    _, shell = draw.place_of(few(), h.z)
    sigma = few()["sigma_v"][shell].astype(float)
    assert made.std() == pytest.approx(np.sqrt((sigma**2).mean()), rel=0.1)
    expected = np.corrcoef(made, h.velocity[order])[0, 1]
    # the slices hold some of the variance at this band limit, and that is in common
    assert expected > 0.1
    assert abs(np.corrcoef(made, drawn(4, kappa))[0, 1]) < 0.5 * expected
    np.testing.assert_array_equal(made, drawn(3, kappa))
    assert not np.array_equal(made, drawn(3, -kappa))  # they follow the convergence


def galaxies(h: HaloList) -> dict[float, np.ndarray]:
    """Fluxes of the infrared galaxies of each halo, by its mass."""
    at = profiles.Interpolation.of(shipped(), h.z, h.log10_mass)
    host, _, flux, *_ = members.Members(shipped(), 1, (148.0,)).infrared(h, at)
    return {round(m, 6): np.sort(flux[host == i]) for i, m in enumerate(h.log10_mass)}


def test_a_halo_has_the_same_galaxies_in_any_list():
    whole = given(40)
    some = {name: v[[7, 30, 2]] for name, v in whole.items()}
    some["ra"] = some["ra"].to("hourangle")  # rounds otherwise
    in_whole, in_some = galaxies(parsed(whole)), galaxies(parsed(some))
    assert len(in_some) == 3
    for mass, flux in in_some.items():
        np.testing.assert_allclose(flux, in_whole[mass], rtol=1e-6)


def test_haloes_behind_one_another_have_galaxies_of_their_own():
    place = {"ra": np.full(2, 10.0) * units.deg, "dec": np.full(2, 5.0) * units.deg}
    one = {"z": np.array([0.3, 0.9]), "m200m": np.array([2e14, 3e14]) * units.Msun}
    h = parsed(given(2, **place, **one))
    assert h.key[0] != h.key[1]
