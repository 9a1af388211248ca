"""Clusters in a whole sky: listed, painted once in every field, whatever else the sky is of."""

from __future__ import annotations

import functools

import healpy
import numpy as np
import pytest
from astropy import units
from astropy.table import QTable
from fakes import PIXEL_ARCMIN, coarse_weights
from halo_cases import shipped

from mlsky import observation, simulate, simulation
from mlsky.haloes import catalogue, draw, paint, profiles, tables
from mlsky.networks import consistency, evaluate
from mlsky.painting import foregrounds, padding
from mlsky.request import check
from mlsky.signature import Arguments
from mlsky.sky import Sky
from mlsky.sphere import charts, gaussian, lensing, pixel_window
from mlsky.sphere.geometry import Healpix
from mlsky.sphere.multipoles import truncate

NSIDE, SEED = 64, 2
#: Centres of the charts that are painted, from the middle of the clusters (rad).
REACH = 0.5
#: Maps of objects alone on charts of another margin, over their highest value; networks' maps are
#: added and taken off in float32.
PAINTED = 2e-3
#: Charts of 20' hold the cores roughly, and rings of them the sum.
LENSED = 0.02
#: Multipoles above which the sky's kappa holds what is painted, and not its start alone.
LOW = foregrounds.KAPPA_JOIN[1]


def clusters() -> QTable:
    """A handful, some degrees from each other, in charts and on their borders."""
    return QTable(
        {
            "ra": [45.0, 60.0, 33.75, 40.0, 52.0] * units.deg,
            "dec": [0.0, 12.0, 10.0, -12.0, -6.0] * units.deg,
            "z": [0.08, 0.15, 0.3, 0.1, 0.2],
            "m200m": [1.5e15, 2e15, 3e15, 1.2e15, 2.5e15] * units.Msun,
            "velocity": [900, -900, 1200, -700, 600] * units.km / units.s,
        }
    )


def near(every) -> list:
    """Charts with clusters, and those beside them."""
    middle = healpy.ang2vec(46.0, 0.0, lonlat=True)
    return [chart for chart in every if chart.rotation[2] @ middle > np.cos(REACH)]


@pytest.fixture(scope="module", autouse=True)
def a_part_of_the_sky():
    """Charts far from the clusters stay empty, and fewer widths are harmonics: less work."""
    each = foregrounds._each
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foregrounds, "_each", lambda paint, every, cpu: each(paint, near(every), cpu))
        patch.setattr(paint, "WIDE_ARCMIN", 40.0)
        yield


def none() -> dict:
    """A list without an object: one halo that networks paint."""
    one = {"ra": [1.0] * units.deg, "dec": [1.0] * units.deg, "z": [2.0]}
    return one | {"m200m": [2e13] * units.Msun}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clusters")
    return {
        "rest": str(coarse_weights(folder / "rest.safetensors", part="rest", mass_cut=1e14)),
        "all": str(coarse_weights(folder / "all.safetensors")),
    }


@pytest.fixture(scope="module")
def make(files):
    """`simulate` with the small networks; each sky is made once."""
    made = {}

    def one(part="rest", haloes=None, **options) -> Sky:
        arguments = {"freqs": 148, "nside": NSIDE, "seed": SEED, "stokes": "T", **options}
        given = {"clusters": clusters, "none": none, None: lambda: None}[haloes]()
        key = (part, haloes, repr(sorted(options.items())))
        if key not in made:
            made[key] = simulate(**arguments, weights=files[part], haloes=given)
        return made[key]

    return one


@pytest.fixture(scope="module")
def alone() -> dict[str, np.ndarray]:
    """What the clusters are by themselves."""
    columns = catalogue.check(clusters(), shipped())
    haloes = catalogue.parse(columns, shipped())
    fields = ("kappa", "tsz", "ksz", "cib")
    return paint.maps(haloes, shipped(), SEED, Healpix(NSIDE), PIXEL_ARCMIN, fields=fields)


def places(table) -> np.ndarray:
    return healpy.ang2pix(NSIDE, np.asarray(table["ra"]), np.asarray(table["dec"]), lonlat=True)


def test_the_list_is_the_one_given(make):
    sky = make(haloes="clusters")
    listed, given = sky.clusters, clusters()
    order = np.argsort(-given["m200m"].value)
    for name in ("ra", "dec", "z", "m200m", "velocity"):
        column = np.asarray(getattr(given[name], "value", given[name]))[order]
        np.testing.assert_allclose(listed[name], column, rtol=1e-12, atol=1e-12)
    assert sky.meta["haloes"].startswith("given, 5, ")
    assert len(make(haloes="none").clusters) == 0


@pytest.mark.parametrize("name", ["tsz", "ksz", "cib"])
def test_a_map_holds_each_cluster_once(make, alone, name):
    """With the clusters minus without: what they are alone."""
    more = make(haloes="clusters")[name][0, 0] - make(haloes="none")[name][0, 0]
    scale = np.abs(alone[name]).max()
    atol = PAINTED * scale + 1e-5 * np.abs(make(haloes="none")[name]).max()
    np.testing.assert_allclose(more, alone[name], atol=atol)


def test_each_cluster_is_at_its_place(make):
    with_, without = make(haloes="clusters"), make(haloes="none")
    listed = with_.clusters
    for row, pixel in zip(listed, places(listed), strict=True):
        near = healpy.query_disc(NSIDE, healpy.pix2vec(NSIDE, pixel), np.radians(4))
        beside = healpy.get_all_neighbours(NSIDE, pixel)
        allowed = {pixel, *beside}
        tsz, ksz, cib = (
            with_[n][0, 0][near] - without[n][0, 0][near] for n in ("tsz", "ksz", "cib")
        )
        kappa = with_.kappa[near] - without.kappa[near]
        assert near[tsz.argmin()] in allowed
        assert tsz.min() < 0
        # receding gas is colder
        assert near[(-np.sign(row["velocity"]) * ksz).argmax()] in allowed
        assert near[kappa.argmax()] in allowed
        assert near[cib.argmax()] in allowed


def lensed_by(monkeypatch, weights: str, given) -> np.ndarray:
    """Alm of the kappa by which the CMB of a sky is lensed."""
    seen = []
    monkeypatch.setattr(
        lensing, "pieces", lambda cmb_alm, kappa_alm, geometry: iter(seen.append(kappa_alm) or ())
    )
    simulate(148, NSIDE, SEED, components="cmb", stokes="T", weights=weights, haloes=given)
    return seen[0]


def of_haloes(lmax: int) -> np.ndarray:
    """Alm of the NFW profiles of the clusters, without charts or pixels."""
    import ducc0

    t = shipped()
    h = catalogue.parse(catalogue.check(clusters(), t), t)
    at = profiles.Interpolation.of(t, h.z, h.log10_mass)
    gaussians = profiles.Gaussians.of(t, PIXEL_ARCMIN)
    ell = np.arange(lmax + 1)
    share = at.linear(gaussians.fraction["nfw"])
    shape = share @ profiles.transform(gaussians.sigma_arcmin[:, None], ell)
    total = 0.0
    for i, flux in enumerate(at.positive(gaussians.flux["nfw"])):
        alm = ducc0.sht.adjoint_synthesis_general(
            map=np.full((1, 1), flux),
            loc=np.array([[h.theta[i], h.phi[i]]]),
            lmax=lmax,
            spin=0,
            epsilon=1e-6,
        )[0]
        total = total + healpy.almxfl(alm, shape[i])
    return total


@pytest.mark.parametrize("gain", [None, 0.8])
def test_the_cmb_is_lensed_by_the_clusters_whatever_calibrates_the_networks(
    files, tmp_path, monkeypatch, gain
):
    """Above the multipoles at which kappa is its Gaussian start, which has the matter already."""
    path = files["rest"]
    if gain is not None:
        calibration = {"kappa": {"ell": [0, 30000], "gain": [gain, gain]}}
        path = tmp_path / "gain.safetensors"
        path = str(coarse_weights(path, part="rest", mass_cut=1e14, calibration=calibration))
    one, two = (lensed_by(monkeypatch, path, given) for given in (clusters(), none()))
    lmax = gaussian.alm_lmax(one)
    assert lmax > 400
    want = of_haloes(lmax)
    ratio = healpy.alm2cl(one - two, want) / healpy.alm2cl(want)
    assert ratio[LOW : LOW + 200].mean() == pytest.approx(1, abs=LENSED)
    assert np.abs(ratio[2 : foregrounds.KAPPA_JOIN[0]]).max() < 0.01


def test_the_same_sky_on_other_threads(make, files, monkeypatch):
    first = make(haloes="clusters")
    for number in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", number)
        again = simulate(148, NSIDE, SEED, stokes="T", weights=files["rest"], haloes=clusters())
        np.testing.assert_array_equal(again.total, first.total)
        np.testing.assert_array_equal(again.kappa, first.kappa)
        same_tables(again.clusters, first.clusters)
        same_tables(again.catalog, first.catalog)


def same_tables(a, b) -> None:
    assert a.colnames == b.colnames
    for name in a.colnames:
        np.testing.assert_array_equal(a[name], b[name])
        assert (a[name].unit or "") == (b[name].unit or "")


def test_a_sky_that_was_stopped_goes_on(make, files, tmp_path):
    reports = []

    def stop(stage, fraction):
        reports.append(stage)
        if reports.count("networks") > 5:
            raise KeyboardInterrupt

    options = {"stokes": "T", "weights": files["rest"], "out": tmp_path / "sky.h5"}
    with pytest.raises(KeyboardInterrupt):
        simulate(148, NSIDE, SEED, **options, haloes=clusters(), progress=stop)
    with pytest.raises(ValueError, match="haloes differ"):
        simulate(148, NSIDE, SEED, **options, haloes=clusters()[:3])
    sky, expected = (
        simulate(148, NSIDE, SEED, **options, haloes=clusters()),
        make(haloes="clusters"),
    )
    np.testing.assert_array_equal(sky.total, expected.total)
    np.testing.assert_array_equal(sky.kappa, expected.kappa)
    same_tables(sky.clusters, expected.clusters)
    same_tables(sky.catalog, expected.catalog)


@pytest.mark.parametrize("suffix", ["h5", "fits"])
def test_files_hold_the_list(make, tmp_path, suffix):
    sky = make(haloes="clusters")
    sky.write(tmp_path / f"a.{suffix}")
    back = Sky.read(tmp_path / f"a.{suffix}")
    same_tables(back.clusters, sky.clusters)
    assert back.meta == sky.meta
    assert "mass_cut" in {k.lower() for k in back.clusters.meta}
    empty = make(haloes="none")
    empty.write(tmp_path / f"b.{suffix}")
    assert len(Sky.read(tmp_path / f"b.{suffix}").clusters) == 0


def test_sources_of_members_are_listed_once(files, monkeypatch):
    monkeypatch.setattr(observation, "CATALOG_MIN_MJY", 0.0)
    rng, n = np.random.default_rng(1), 200
    many = {
        "ra": rng.uniform(35, 57, n) * units.deg,
        "dec": rng.uniform(-10, 10, n) * units.deg,
        "z": rng.uniform(0.3, 0.8, n),
        "m200m": 10 ** rng.uniform(14.5, 15.2, n) * units.Msun,
        "velocity": np.zeros(n) * units.km / units.s,
    }
    names = ("ra", "dec", "flux_mjy", "alpha")
    with_, without = (
        {
            tuple(row[name] for name in names): row["kind"]
            for row in simulate(
                148, NSIDE, SEED, components="radio", weights=files["rest"], haloes=given
            ).catalog
        }
        for given in (many, none())
    )
    assert without.items() <= with_.items()
    extra = np.array([row for row in with_ if row not in without])
    assert len(extra) > 10
    assert len(np.unique(extra[:, 2])) == len(extra)  # every flux, and so every source, once
    vectors = healpy.ang2vec(*extra[:, :2].T, lonlat=True)
    centres = healpy.ang2vec(many["ra"].value, many["dec"].value, lonlat=True)
    # radio sources are at the centres of their hosts
    assert np.arccos(np.clip((vectors @ centres.T).max(1), -1, 1)).max() < np.radians(1 / 60)


def test_the_cmb_alone_is_lensed_by_the_whole_kappa(make, files, monkeypatch):
    seen = []
    real = lensing.pieces

    def spy(cmb_alm, kappa_alm, geometry):
        seen.append(kappa_alm)
        return real(cmb_alm, kappa_alm, geometry)

    monkeypatch.setattr(lensing, "pieces", spy)
    sky = simulate(148, NSIDE, SEED, components="cmb", weights=files["rest"], haloes=clusters())
    full = make(haloes="clusters")
    np.testing.assert_array_equal(sky["cmb"][0, 0], full["cmb"][0, 0])
    np.testing.assert_array_equal(sky.kappa, full.kappa)
    shown = pixel_window.of_alm(truncate(seen[0], 3 * NSIDE - 1), Healpix(NSIDE))
    np.testing.assert_allclose(shown, full.kappa, atol=1e-6)
    assert sky.shape == (1, 3, 12 * NSIDE**2)
    same_tables(sky.clusters, full.clusters)
    assert sky.catalog is None


@pytest.mark.parametrize("names", [("tsz",), ("radio",), ("cib", "ksz")])
def test_some_components_are_those_of_the_whole(make, names):
    some, full = make(haloes="clusters", components=names), make(haloes="clusters")
    for name in names:
        np.testing.assert_array_equal(some[name], full[name])
    kinds = {"cib": "dsfg", "radio": "radio"}
    wanted = [kinds[n] for n in names if n in kinds]
    if wanted:
        chosen = full.catalog[np.isin(np.asarray(full.catalog["kind"]), wanted)]
        same_tables(some.catalog, chosen)


def test_haloes_with_weights_that_paint_them_are_refused(files):
    with pytest.raises(ValueError, match="haloes= with weights that paint clusters") as caught:
        simulate(148, NSIDE, weights=files["all"], haloes=clusters())
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"haloes: z\[0\]=nan: must be") as caught:
        simulate(148, NSIDE, weights=files["rest"], haloes=none() | {"z": [np.nan]})


@pytest.mark.parametrize("cut", [1e9, 5e16])
def test_weights_with_a_mass_cut_beyond_the_tables_are_refused(tmp_path, cut):
    path = str(coarse_weights(tmp_path / "w.safetensors", part="rest", mass_cut=cut))
    for given in (None, clusters()):
        with pytest.raises(ValueError, match=r"mass_cut of the weights=.*halo tables") as caught:
            simulate(148, NSIDE, weights=path, haloes=given)
        assert "\n" not in str(caught.value)


def test_weights_of_another_truth_than_the_tables_are_refused(tmp_path):
    """Clusters are painted as this version has them, and the networks leave out those of theirs."""
    truth = {"preset": "act-dr6", "parameters": {"gas_radius": 9.0}}
    path = str(coarse_weights(tmp_path / "w.safetensors", part="rest", mass_cut=1e14, truth=truth))
    with pytest.raises(ValueError, match=r"preset 'act-dr6' with gas_radius=9.0: it has") as caught:
        simulate(148, NSIDE, weights=path)
    assert "\n" not in str(caught.value)


@functools.cache
def nonlinear() -> np.ndarray:
    """A kappa that reaches every multipole wanted, alm."""
    ell = np.arange(1101)
    return gaussian.draw_alm(1e-4 / np.maximum(ell, 2) ** 1.5, 7)


def test_a_nonlinear_kappa_without_its_clusters_is_refused(files):
    options = {"kappa": nonlinear(), "kappa_kind": "nonlinear"}
    with pytest.raises(ValueError, match=r"kappa_kind='nonlinear' without haloes") as caught:
        simulate(148, NSIDE, weights=files["rest"], **options)
    assert "\n" not in str(caught.value)


def test_a_nonlinear_kappa_without_the_cores_of_its_clusters_is_refused(files):
    low = gaussian.draw_alm(np.full(258, 1e-9), 7)
    options = {"kappa": low, "kappa_kind": "nonlinear", "haloes": clusters()}
    with pytest.raises(
        ValueError, match=r"kappa up to l = 257 with .*nonlinear.*l = 307"
    ) as caught:
        simulate(148, NSIDE, weights=files["rest"], **options)
    assert "\n" not in str(caught.value)


def test_redshifts_are_those_of_the_tables_in_use(files, monkeypatch):
    """Tables of another cosmology may begin or end elsewhere."""
    asked = []

    def of(cosmology, preset):
        asked.append((cosmology.h, preset))
        return shipped() | {"edges": shipped()["edges"] * np.float32(0.1)}

    monkeypatch.setattr(tables, "of", of)
    with pytest.raises(ValueError, match=r"haloes: z\[2\]=0.3: must be from .* halo tables"):
        simulate(148, NSIDE, weights=files["rest"], cosmology={"h": 0.7}, haloes=clusters())
    assert asked == [(0.7, "act-dr6")]


def test_a_nonlinear_kappa_stays_and_networks_do_not_see_its_clusters(files, alone, monkeypatch):
    seen = {}
    real = evaluate.evaluate

    def spy(weights, kappa, *rest, **options):
        seen.setdefault(key, []).append(np.array(kappa))
        return real(weights, kappa, *rest, **options)

    monkeypatch.setattr(evaluate, "evaluate", spy)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # charts in their order
    skies = {}
    for key, given in (("with", clusters()), ("without", none())):
        skies[key] = simulate(
            148,
            NSIDE,
            SEED,
            components=("tsz", "ksz"),
            weights=files["rest"],
            kappa=nonlinear(),
            kappa_kind="nonlinear",
            haloes=given,
        )
    top = 3 * NSIDE - 1
    expected = pixel_window.of_alm(truncate(nonlinear(), top), Healpix(NSIDE))
    for sky in skies.values():
        np.testing.assert_allclose(sky.kappa, expected, atol=1e-6)
    haloes = catalogue.parse(catalogue.check(clusters(), shipped()), shipped())
    objects = paint.HaloPainter(
        haloes, shipped(), SEED, fields=("kappa",), pixel_arcmin=PIXEL_ARCMIN
    )
    margin = padding.MARGIN + sum(evaluate.STEP_PADDING)
    multiple = evaluate.multiple(foregrounds.select(files["rest"], Healpix(NSIDE)))
    removed = 0.0
    for number, chart in enumerate(near(charts.charts(PIXEL_ARCMIN, margin, multiple))):
        nfw = objects.on(chart)[0]["kappa"]
        less = seen["without"][number] - seen["with"][number]
        np.testing.assert_allclose(less, nfw, atol=1e-6)
        removed = max(removed, float(nfw.max()))
    assert removed > 0.01
    # what networks paint there changed, but the clusters came whole: deepest at their places
    for pixel in places(clusters()):
        assert skies["with"]["tsz"][0, 0][pixel] < 0.5 * alone["tsz"][pixel] < 0


def test_weights_that_paint_all_add_nothing(make):
    """The networks are the same ones here: with no object the skies are one."""
    whole, rest = make("all"), make(haloes="none")
    assert whole.clusters is None
    assert whole.meta["haloes"] == "painted by the networks"
    np.testing.assert_array_equal(whole.total, rest.total)
    np.testing.assert_array_equal(whole.kappa, rest.kappa)


def test_drawn_clusters_are_painted_once(make, files, monkeypatch):
    few = shipped() | {"number": shipped()["number"] * np.float32(3e-4)}
    monkeypatch.setattr(tables, "of", lambda cosmology, preset: few)
    real = draw.draw
    drawn = []

    def spy(*args, **options):
        drawn.append(real(*args, **options, lmax=32))
        return drawn[-1]

    monkeypatch.setattr(draw, "draw", spy)
    sky = simulate(148, NSIDE, SEED, stokes="T", weights=files["rest"])
    assert len(drawn) == 1
    assert len(sky.clusters) == len(drawn[0]) > 100
    assert sky.meta["haloes"] == "drawn, M200m > 1e+14 Msun"
    fields = ("kappa", "tsz", "ksz")
    expected = paint.maps(drawn[0], few, SEED, Healpix(NSIDE), PIXEL_ARCMIN, fields=fields)
    without = make(haloes="none")
    painted = without["ksz"][0, 0] != 0
    for name in ("tsz", "ksz"):
        more = (sky[name][0, 0] - without[name][0, 0])[painted]
        atol = 2 * PAINTED * np.abs(expected[name]).max() + 1e-5 * np.abs(without[name]).max()
        np.testing.assert_allclose(more, expected[name][painted], atol=atol)
    # the list gives the same sky back
    table = QTable(sky.clusters)[["ra", "dec", "z", "m200m", "velocity"]]
    again = simulate(148, NSIDE, SEED, stokes="T", weights=files["rest"], haloes=table)
    np.testing.assert_allclose(again["ksz"], sky["ksz"], atol=1e-3 * np.abs(sky["ksz"]).max())


def test_in_another_cosmology_clusters_stay_as_they_are_drawn(make, files, monkeypatch):
    """Their kappa, tSZ, kSZ and CIB are those of its tables, not rescaled with the networks'."""
    from mlsky.painting import rescale
    from mlsky.theory import parse, response

    other = parse("act-dr6")
    real = rescale.spectra.kappa_spectrum

    def scaled(lmax, cosmology=None):
        return real(lmax) * (1.21 if cosmology == other else 1.0)

    monkeypatch.setattr(rescale.spectra, "kappa_spectrum", scaled)
    node, gains = np.geomspace(20, 30000, 8), {"tsz": 1.4, "ksz": 1.2, "cib": 1.25}
    changed = response.Response(
        other,
        parse("planck2018"),
        node,
        {name: np.full(8, g) for name, g in gains.items()},
        {"tsz": 1.4, "cib": 1.25},
        {"tsz": -3.0, "cib": 20.0},
    )
    monkeypatch.setattr(response, "response", lambda *args: changed)
    monkeypatch.setattr(tables, "of", lambda cosmology, preset: shipped())
    names = ("tsz", "ksz", "cib")
    skies = [
        simulate(
            148, NSIDE, SEED, components=names, weights=files["rest"], cosmology=other, haloes=h
        )
        for h in (clusters(), none())
    ]
    one, two = make(haloes="clusters"), make(haloes="none")
    for name in names:
        more = skies[0][name][0, 0] - skies[1][name][0, 0]
        expected = one[name][0, 0] - two[name][0, 0]
        atol = 1e-3 * np.abs(expected).max() + 1e-5 * np.abs(two[name]).max()
        np.testing.assert_allclose(more, expected, atol=atol)
    more, expected = skies[0].kappa - skies[1].kappa, one.kappa - two.kappa
    np.testing.assert_allclose(more, expected, atol=1e-2 * expected.max())


def test_templates_of_the_cib_hold_the_clusters(tmp_path, monkeypatch):
    """Members at 353 GHz are as much brighter as their colours say."""
    entry = {"ghz": [148, 353, 857], "preset": "act-dr6"}
    path = coarse_weights(
        tmp_path / "t.safetensors", part="rest", mass_cut=1e14, cib_templates=entry
    )
    real = evaluate.evaluate

    def with_templates(*args, **options):
        made = real(*args, **options)
        return made | {"cib_353": 2 * made["cib"], "cib_857": 3 * made["cib"]}

    monkeypatch.setattr(evaluate, "evaluate", with_templates)
    monkeypatch.setattr(consistency, "check_sky", lambda weights: None)  # of what stands for them
    request = [
        check(Arguments(148, NSIDE, SEED, components="cib", weights=str(path), haloes=given))
        for given in (clusters(), none())
    ]
    one, two = (simulation.realise(r).maps["cib"][:, 0] for r in request)
    more = one - two
    # the remainder is where the galaxies are
    bright = (one[0] > 1.01 * two[0]) & (two[0] > 0)
    root = np.sqrt(one[0][bright] / two[0][bright])
    np.testing.assert_allclose(one[3:, bright], root * two[3:, bright], rtol=1e-4)
    columns = catalogue.check(clusters(), shipped())
    alone = paint.maps(
        catalogue.parse(columns, shipped()),
        shipped(),
        SEED,
        Healpix(NSIDE),
        PIXEL_ARCMIN,
        fields=("cib",),
        cib_ghz=(148.0, 353.0, 857.0),
    )
    for row, name in enumerate(("cib", "cib_353", "cib_857")):
        atol = PAINTED * alone[name].max() + 1e-5 * two[row].max()
        np.testing.assert_allclose(more[row], alone[name], atol=atol)
    assert alone["cib_353"].max() > 5 * alone["cib"].max()
