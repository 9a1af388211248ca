"""What is fitted on a whole sky: large scales that come out true, gains, transfer, the file."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import healpy
import numpy as np
import pytest
import torch
from fakes import PIXEL_ARCMIN, coarse_rest, coarse_weights
from few_charts import every_charts
from halo_cases import shipped
from stub_painter import StubPainter

from mlsky import RegistryError
from mlsky.haloes import draw, paint, painter, tables
from mlsky.networks import evaluate
from mlsky.networks.weights import load, open_weights
from mlsky.painting import foregrounds, large_scales, regions
from mlsky.sphere import gaussian, pixel_window
from mlsky.sphere.geometry import Healpix
from mlsky.theory import foreground_spectra, radio_sources, spectra
from mlsky.theory.foregrounds import radio_fraction
from mlsky.training import large_scale_fit, sky_calibration

LMAX = 530
#: Deviations in units of the sampling error of what is measured.
SIGMAS = 5
#: Interpolation of spectra between nodes, of the model's own grid.
INTERPOLATION = 2e-3
#: The response between its nodes, and spectra between theirs.
FOLLOWED = 0.03
#: Windows of pixels as functions of multipole, l <= 60: 4e-3 of the rms found.
WINDOWS = 0.01
#: One chart of so many is painted where the file is looked at and not the sky.
CHARTS = 4
KAPPA = np.r_[0.0, 0.0, 1e-7 * (np.arange(2, LMAX + 1) / 100.0) ** -0.5]
NAMES = ("kappa", "tsz", "cib", "radio", "ksz")


def truth() -> dict:
    """Spectra with correlations like those of the sky; kSZ with none."""
    level = {"kappa": 1.0, "tsz": 30.0, "cib": 40.0, "radio": 5.0, "ksz": 4.0}
    r = {
        ("kappa", "tsz"): -0.3,
        ("kappa", "cib"): 0.8,
        ("kappa", "radio"): 0.4,
        ("tsz", "cib"): -0.35,
        ("tsz", "radio"): -0.15,
        ("cib", "radio"): 0.35,
    }
    out = {}
    for a in NAMES:
        for b in NAMES:
            rho = 1.0 if a == b else r.get((a, b), r.get((b, a), 0.0))
            out[a, b] = rho * level[a] * level[b] * KAPPA
    return out


def networks(seed: int) -> dict:
    """Alm that answer to kappa too weakly and lack power, more so at low l."""
    start = gaussian.draw_alm(KAPPA, seed)
    white = gaussian.white(LMAX, seed + 1000, "truth", 4)
    knows = np.arange(LMAX + 1) / (np.arange(LMAX + 1) + 60.0)
    out = {"gaussian_kappa": start, "kappa": start}
    for own, (name, slope, rest) in zip(
        white,
        (("tsz", -9.0, 20.0), ("cib", 32.0, 18.0), ("radio", 2.0, 3.0), ("ksz", 0.0, 3.9)),
        strict=True,
    ):
        noise = gaussian.scale_alm(own.copy(), rest * np.sqrt(KAPPA))
        out[name] = gaussian.scale_alm(slope * start + noise, knows)
    return out


def test_completed_spectra_are_those_of_the_truth():
    """Fitted on one sky, applied to another: every pair of fields within sampling error."""
    t = truth()
    table, rows = large_scale_fit.fit_large_scales(networks(1), {"tsz": -1.5, "cib": 20.0}, t)
    assert rows[0]["auto"]["tsz"] < 0.5  # there was something to complete
    made = networks(2)
    added = large_scales.modes(table, made["gaussian_kappa"], 2)
    sky = {n: made[n] + healpy.resize_alm(added[n], 480, 480, LMAX, LMAX) for n in added}
    sky["kappa"] = made["kappa"]
    modes = 2 * np.arange(LMAX + 1) + 1
    for low, high in ((2, 30), (30, 100), (100, 200), (200, large_scales.JOIN[0])):
        band = slice(low, high)
        count = modes[band].sum()
        for i, a in enumerate(NAMES):
            for b in NAMES[i:]:
                got = (healpy.alm2cl(sky[a], sky[b]) * modes)[band].sum() / count
                wanted = (t[a, b] * modes)[band].sum() / count
                scale = np.sqrt((t[a, a] * modes)[band].sum() * (t[b, b] * modes)[band].sum())
                # two skies: that of the fit and this one
                error = scale / count * np.sqrt(2) * np.sqrt(2 / count)
                assert abs(got - wanted) < SIGMAS * error, (a, b, low)


def test_a_network_that_lacks_nothing_gets_nothing():
    t = truth()
    root = np.linalg.cholesky(np.array([[t[a, b][100] for b in NAMES] for a in NAMES]) / KAPPA[100])
    white = gaussian.white(LMAX, 3, "truth", 5)
    drawn = np.tensordot(root, white, 1)
    alm = {n: gaussian.scale_alm(a, np.sqrt(KAPPA)) for n, a in zip(NAMES, drawn, strict=True)}
    table, rows = large_scale_fit.fit_large_scales(
        {"gaussian_kappa": alm["kappa"], **alm}, {"tsz": -1.5, "cib": 20.0}, t
    )
    for row in rows:
        for name, value in row["auto"].items():
            assert abs(value - 1) < SIGMAS * row["error"], name
    for name in ("tsz", "cib", "ksz"):
        fraction = np.square(table["root"][name]) / t[name, name][np.maximum(table["ell"], 2)]
        # power is never negative: what is added is what the first bands scattered low
        assert fraction.max() < SIGMAS * rows[0]["error"]


def test_networks_beside_clusters_are_completed_in_every_template():
    """tSZ as a field, three templates of the CIB that are nearly one: all pairs come out true."""
    names = ("kappa", "tsz", "cib", "cib_353", "cib_857", "radio", "ksz")
    t = {}
    for a, b in itertools.product(names, repeat=2):
        first, second = (n.split("_")[0] for n in (a, b))
        colour = {"cib_353": 15.0, "cib_857": 600.0}
        apart = 1.0 if a == b or first != second else 0.97
        t[a, b] = truth()[first, second] * colour.get(a, 1.0) * colour.get(b, 1.0) * apart
    slope = {"tsz": -9.0, "cib": 32.0, "cib_353": 500.0, "cib_857": 2e4, "radio": 2.0, "ksz": 0.0}
    own = {"tsz": 20.0, "cib": 12.0, "cib_353": 200.0, "cib_857": 6e3, "radio": 3.0, "ksz": 3.9}

    def networks_of(seed):
        start = gaussian.draw_alm(KAPPA, seed)
        white = dict(zip(slope, gaussian.white(LMAX, seed + 1000, "truth", 6), strict=True))
        knows = np.arange(LMAX + 1) / (np.arange(LMAX + 1) + 60.0)
        out = {"gaussian_kappa": start, "kappa": start}
        for name, r in slope.items():
            # templates share most of what is random in them
            shared = white["cib" if name.startswith("cib") else name]
            noise = 0.98 * shared + 0.2 * (white[name] if shared is not white[name] else 0)
            noise = gaussian.scale_alm(noise, own[name] * np.sqrt(KAPPA))
            out[name] = gaussian.scale_alm(r * start + noise, knows)
        return out

    means = {"tsz": -0.8, "cib": 20.0, "cib_353": 350.0, "cib_857": 4e5}
    table, _ = large_scale_fit.fit_large_scales(networks_of(1), means, t, clusters=False)
    assert table["mean"] == means
    assert not {"clusters", "mean_cib"} & set(table)
    made = networks_of(2)
    added = large_scales.modes(table, made["gaussian_kappa"], 2)
    sky = {n: made[n] + healpy.resize_alm(added[n], 480, 480, LMAX, LMAX) for n in added}
    sky["kappa"] = made["kappa"]
    modes = 2 * np.arange(LMAX + 1) + 1
    for low, high in ((30, 100), (100, large_scales.JOIN[0])):
        band, count = slice(low, high), modes[low:high].sum()
        for a, b in itertools.combinations_with_replacement(names, 2):
            got = (healpy.alm2cl(sky[a], sky[b]) * modes)[band].sum() / count
            wanted, one, two = (
                (t[pair] * modes)[band].sum() / count for pair in ((a, b), (a, a), (b, b))
            )
            error = np.sqrt(one * two) * np.sqrt(2) * np.sqrt(2 / count)
            assert abs(got - wanted) < SIGMAS * error, (a, b, low)
    rms = large_scale_fit.rms_added(table, KAPPA)
    values = healpy.alm2map(added["cib_353"], 256) / means["cib_353"]
    # of one sky: a few hundred modes hold most of it
    assert rms["cib_353"] == pytest.approx(values.std(), rel=0.1)


def test_truth_of_the_rest():
    """Maps of the rest with the kappa of all; radio relative to the mean of the rest."""
    made = large_scale_fit.truth_spectra(100, 1e14, (148.0, 353.0))
    ell, at = np.array([20.0, 100.0]), [20, 100]

    def model(names, part, nu_1=148.0, nu_2=148.0, kinds=("one_halo", "two_halo", "shot")):
        spectra = foreground_spectra(
            ell, nu_1, nu_2, names, flux_cut_mjy=7.0, parts=True, part=part, mass_cut=1e14
        )
        return sum(spectra[" x ".join((names * 2)[:2])][kind] for kind in kinds)

    expected = {
        ("tsz", "tsz"): model(("tsz",), "rest"),
        ("kappa", "cib_353"): model(("kappa", "cib"), ("all", "rest"), 148.0, 353.0),
        ("cib", "cib_353"): model(("cib",), "rest", 148.0, 353.0),
        ("cib_353", "cib_353"): model(("cib",), "rest", 353.0, 353.0),
        ("tsz", "cib_353"): model(("tsz", "cib"), "rest", 148.0, 353.0),
    }
    for pair, values in expected.items():
        np.testing.assert_allclose(made[pair][at], values, rtol=INTERPOLATION, err_msg=pair)
    shot = [model(("radio",), part, kinds=("shot",)) for part in ("rest", "all")]
    fraction = radio_fraction("rest", 1e14)
    np.testing.assert_allclose(fraction, shot[0] / shot[1])
    assert fraction + radio_fraction("objects", 1e14) == pytest.approx(1)
    # clustering of the whole is that of its parts, each by its share of the mean
    whole = large_scale_fit.truth_spectra(100)["radio", "radio"][at]
    parts = model(("radio",), "rest", kinds=("one_halo", "two_halo"))
    parts = parts / model(("radio",), "all", kinds=("one_halo", "two_halo"))
    np.testing.assert_allclose(
        made["radio", "radio"][at] * fraction**2, whole * parts, rtol=INTERPOLATION
    )


def test_truth_spectra():
    made = large_scale_fit.truth_spectra(300)
    ell = np.array([20.0, 37.0, 111.0, 300.0])
    model = foreground_spectra(ell, 148.0, flux_cut_mjy=7.0, parts=True)
    at = ell.astype(int)
    for a, b in (("tsz", "tsz"), ("tsz", "cib"), ("kappa", "cib"), ("ksz", "ksz")):
        expected = sum(model[f"{a} x {b}"].values())
        np.testing.assert_allclose(made[a, b][at], expected, rtol=INTERPOLATION)
        np.testing.assert_array_equal(made[a, b], made[b, a])
    mean_jy = radio_sources.moment((148.0,), (7e-3, 148.0))
    counted = sum(model["radio x radio"][k] for k in ("one_halo", "two_halo"))
    ratio = made["radio", "radio"][at] / counted
    from mlsky.frequency import bands

    np.testing.assert_allclose(
        ratio, (float(bands.jy_per_sr_per_uk(148.0)) / mean_jy) ** 2, rtol=INTERPOLATION
    )
    kk = spectra.kappa_spectrum(300)
    np.testing.assert_array_equal(made["kappa", "kappa"], kk)
    # two haloes follow the power of kappa below the first multipole of the model
    two = model["kappa x cib"]["two_halo"][0]
    grown = (made["kappa", "cib"][5] - made["kappa", "cib"][20]) / two
    assert grown == pytest.approx(kk[5] / kk[20] - 1, rel=INTERPOLATION)


def test_gain():
    start = gaussian.draw_alm(KAPPA, 4)
    factor = 1 / (1 + np.arange(LMAX + 1) / LMAX)
    table = sky_calibration.fit_gain(start, gaussian.scale_alm(start.copy(), factor), bins=20)
    expected = np.interp(table["ell"], np.arange(LMAX + 1), 1 / factor)
    np.testing.assert_allclose(table["gain"], expected, rtol=0.02)  # the width of a band
    assert table["of"] == "sky"


def test_gain_of_networks_beside_objects():
    """What is added stays as it is; the sum has the power of the start."""
    start, objects = gaussian.draw_alm(KAPPA, 4), 0.3 * gaussian.draw_alm(KAPPA, 5)
    factor = 1 / (1 + np.arange(LMAX + 1) / LMAX)
    made = gaussian.scale_alm(start - objects, factor)
    table = sky_calibration.fit_gain(start, made, objects, bins=20)
    expected = np.interp(table["ell"], np.arange(LMAX + 1), 1 / factor)
    np.testing.assert_allclose(table["gain"], expected, rtol=0.02)  # the width of a band


def test_regions_have_the_objects_of_their_kappa(monkeypatch):
    """Networks are shown the painted objects, which belong to the Gaussian kappa they get."""
    n, painted = 32, {}

    class Painted(StubPainter):
        def __init__(self, pixel_arcmin, n, objects):
            super().__init__(n, pixel_arcmin)
            painted["mass_cut"] = objects

        def region(self, seed, index):
            region = super().region(seed, index)
            region.objects = SimpleNamespace(maps=region.maps[[0, 2, 3, 4, 5]] * 2)
            painted[index] = region
            return region

    monkeypatch.setattr(painter, "Painter", Painted)
    monkeypatch.setattr(evaluate, "takes_objects", lambda weights: True)
    weights = SimpleNamespace(pixel_arcmin=2.0, mass_cut=2e14)
    starts = sky_calibration._painted_kappas(weights, n, 5)
    kappa, objects = starts(3)
    assert painted["mass_cut"] == 2e14
    np.testing.assert_array_equal(kappa, 1.5 * painted[3].maps[1])
    np.testing.assert_array_equal(objects["kappa"], 2 * painted[3].maps[0])
    np.testing.assert_array_equal(objects["tsz"], 2 * painted[3].maps[3])


def test_transfer(monkeypatch):
    """Sky and regions of one spectrum: ratio one; a sky too faint is brought up."""
    monkeypatch.setattr(sky_calibration, "FLAT_PIXELS", 128)
    lmax = 1500
    cl = np.r_[0.0, 0.0, 1e-4 / np.arange(2, 5401.0) ** 2]

    def run(weights, kappa, seed, tile, periodic, objects):
        return {"ksz": torch.from_numpy(kappa)}

    monkeypatch.setattr(regions, "run", run)
    weights = SimpleNamespace(pixel_arcmin=2.0, mass_cut=None)
    alm = {"ksz": gaussian.draw_alm(cl[: lmax + 1], 3)}
    rows, amplitude = sky_calibration.fit_transfer(weights, cl, alm, 16, 5)
    assert len(rows) == sky_calibration.TRANSFER_BANDS
    for row in rows:
        assert abs(row["ksz"][0] - 1) < SIGMAS * row["ksz"][1]
    assert amplitude["ksz"]["applied"] == 1.0
    faint = {"ksz": 0.8 * alm["ksz"]}
    _, amplitude = sky_calibration.fit_transfer(weights, cl, faint, 16, 5)
    assert abs(amplitude["ksz"]["applied"] - 1.25) < 1.25 * SIGMAS * amplitude["ksz"]["error"]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrated")
    path = coarse_weights(folder / "small.safetensors", calibration={"regions": 3})
    before = path.read_bytes()
    stages = []
    with every_charts(CHARTS):
        found = sky_calibration.calibrate(
            path,
            folder / "out.safetensors",
            nside=64,
            device="cpu",
            progress=lambda stage, fraction: stages.append((stage, fraction)),
        )
    assert path.read_bytes() == before
    return path, folder / "out.safetensors", found, stages


def test_the_file_keeps_its_networks(calibrated):
    path, out, found, stages = calibrated
    (old, old_header), (new, header) = load(path), load(out, found["sha256"])
    assert set(old) == set(new)
    for name in old:
        assert torch.equal(old[name], new[name]), name
    assert header["calibration"]["regions"] == 3
    assert {"kappa", "large_scales", "sky"} <= set(header["calibration"])
    kept = {k: v for k, v in header.items() if k not in ("calibration", "digest")}
    assert kept == {k: v for k, v in old_header.items() if k not in ("calibration", "digest")}
    assert stages[-1] == ("done", 1.0)
    assert [f for _, f in stages] == sorted(f for _, f in stages)


def test_calibrated_again_gives_the_same_file(calibrated):
    _, out, found, _ = calibrated
    with every_charts(CHARTS):
        again = sky_calibration.calibrate(out, out, nside=64, device="cpu")
    assert again["sha256"] == found["sha256"]


def test_networks_beside_clusters_from_end_to_end(tmp_path, monkeypatch):
    """Every map of the rest and every template is in the table; the gain of regions stays."""
    few = shipped() | {"number": shipped()["number"] * np.float32(3e-4)}
    monkeypatch.setattr(tables, "load", lambda: few)
    real = draw.draw
    monkeypatch.setattr(draw, "draw", lambda *args, **options: real(*args, **options, lmax=32))
    monkeypatch.setattr(paint, "WIDE_ARCMIN", 40.0)
    of_regions = {"ell": [100, 500], "gain": [1.1, 1.1]}
    path = coarse_rest(tmp_path / "rest.safetensors", calibration={"kappa": of_regions})
    with every_charts(CHARTS):
        found = sky_calibration.calibrate(path, nside=64, device="cpu")
    _, header = load(path, found["sha256"])
    table = header["calibration"]
    assert table["kappa"] == of_regions
    assert len(table["kappa_sky"]["ell"]) == len(table["kappa_sky"]["gain"]) > 10
    assert 0.9 < table["radio_fraction"] < 0.95
    names = {"tsz", "cib", "cib_353", "cib_857"}
    assert set(table["large_scales"]["mean"]) == names
    assert set(table["large_scales"]["response"]) == {*names, "radio"}
    assert set(found["large_scales"][0]["auto"]) == {"kappa", "ksz", "radio", *names}
    assert table["large_scales"]["mean"]["tsz"] < 0 < table["large_scales"]["mean"]["cib_857"]
    assert set(found["added"]) == {"ksz", "radio", *names}
    # what a sky fits is of the networks alone, and not of what was fitted before
    again = sky_calibration._bare(open_weights(path)).header["calibration"]
    assert again == {"kappa": of_regions}


def test_a_sky_is_completed_by_what_its_file_says(tmp_path):
    """The maps of two files that differ in their table differ by its fields."""
    flat = [0.1, 0.1, 0.1, 0.0]
    table = {
        "ell": [0, 2, 40, 60],
        "response": dict.fromkeys(("tsz", "cib", "radio"), [0.0] * 4),
        "root": {"ksz": flat, "tsz": [0.0] * 4, "cib": [0.0] * 4, "radio": [0.0] * 4},
        "mean_cib": 20.0,
        "clusters": 100,
    }
    start = gaussian.draw_alm(KAPPA, 5)
    maps = []
    for name, header in (("bare", {}), ("told", {"large_scales": table})):
        path = coarse_weights(tmp_path / f"{name}.safetensors", calibration=header)
        with every_charts(12):
            made = foregrounds.generate(
                start, Healpix(64), weights=open_weights(path), seed=3, device="cpu"
            )
        maps.append(made.maps)
    np.testing.assert_array_equal(maps[0]["tsz"], maps[1]["tsz"])
    painted = np.flatnonzero(maps[0]["ksz"])
    assert painted.size > Healpix(64).npix / 14
    added = (maps[1]["ksz"] - maps[0]["ksz"])[painted]
    expected = large_scales.modes(table, start, 3)["ksz"]
    ell = np.arange(gaussian.alm_lmax(expected) + 1)
    chart_pixel = np.exp(-ell * (ell + 1) * np.radians(PIXEL_ARCMIN / 60) ** 2 / 24)
    window = pixel_window.healpix(64, ell[-1]) * chart_pixel
    expected = gaussian.alm_to_map(gaussian.scale_alm(expected, window), Healpix(64))[painted]
    assert np.std(added - expected) < WINDOWS * expected.std()


def test_clusters_are_added_as_far_as_patches_lack_them():
    """Half the power of tSZ is missing everywhere: it comes up to the join of its pixels."""
    assert large_scale_fit.tsz_join(2.0) == large_scales.JOIN == large_scale_fit.tsz_join(4.0)
    join = large_scale_fit.tsz_join(1.0)
    assert join == (660, 960)
    lmax = 1010
    ell = np.arange(lmax + 1)
    kk = 1e-7 / (1 + ell / 100)
    truth = dict.fromkeys(itertools.product(NAMES, repeat=2), np.zeros(lmax + 1))
    truth |= {("kappa", "kappa"): kk, ("tsz", "tsz"): np.full(lmax + 1, 4e-4)}
    truth |= dict.fromkeys([("kappa", "tsz"), ("tsz", "kappa")], -2 * kk)
    start = gaussian.draw_alm(kk, 1)
    half = gaussian.draw_alm(np.full(lmax + 1, 2e-4), 2)
    alm = {"gaussian_kappa": start, "kappa": start, "tsz": half - 2 * start}
    table, rows = large_scale_fit.fit_large_scales(alm, {"tsz": -1.5}, truth, join=join)
    assert table["ell"][-1] == join[1]
    added = np.interp(ell, table["ell"], table["root"]["tsz"]) ** 2
    # cosmic variance of the bands, some 1e4 modes: 3 % of the half that is there
    np.testing.assert_allclose(added[100:640], 2e-4, rtol=0.15)
    assert 0 < added[810] < 1e-4
    assert added[join[1]] == 0
    assert not np.array(table["response"]["tsz"])[
        np.array(table["ell"]) >= large_scales.JOIN[1]
    ].any()
    assert rows[-1]["auto"]["tsz"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nside": 100}, "nside=100: must be a power of two"),
        ({"patches": 1}, "patches=1: must be an integer from 2"),
        ({"seed": -1}, "seed=-1"),
        ({"out": "nowhere/file.safetensors"}, "folder nowhere does not exist"),
    ],
)
def test_bad_arguments_in_one_line(calibrated, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        sky_calibration.calibrate(calibrated[0], **change)
    assert "\n" not in str(caught.value)


def test_no_weight_file(tmp_path):
    path = tmp_path / "text.safetensors"
    path.write_text("nothing")
    with pytest.raises(RegistryError, match="not a safetensors file"):
        sky_calibration.calibrate(path)


@pytest.mark.parametrize("lacking", [0.0, 3e-5])
def test_ksz_of_objects_and_rest_has_the_power_of_both(lacking):
    """Whether the networks lack enough power for the correlation or not."""
    ell = [*range(0, 340, 20), 480]
    table = {"ell": ell, "root": {"ksz": [np.sqrt(lacking)] * len(ell)}}
    followed = large_scale_fit.follow_objects(table, 1e14)
    inside = np.arange(20, 320, 20)  # the response ends beyond
    every, rest, objects, cross = (
        large_scale_fit.truth_ksz(480, cut, part)
        for cut, part in (
            (None, "rest"),
            (1e14, "rest"),
            (1e14, "objects"),
            (1e14, ("objects", "rest")),
        )
    )
    np.testing.assert_allclose(every, rest + objects + 2 * cross, rtol=1e-9)
    drawn, response = (
        np.interp(np.arange(481), ell, values)
        for values in (followed["root"]["ksz"], followed["ksz_of_objects"])
    )
    made = rest - lacking + drawn**2 + (1 + response) ** 2 * objects
    np.testing.assert_allclose(made[inside], every[inside], rtol=FOLLOWED)
    if lacking:
        np.testing.assert_allclose((response * objects / cross)[inside], 1, rtol=FOLLOWED)
