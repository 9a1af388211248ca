"""The full sky from networks: complete, finite, reproducible, true to its input."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import healpy
import numpy as np
import pytest
import torch
from astropy.wcs import WCS
from fakes import (
    PER_PIXEL,
    PIXEL_ARCMIN,
    coarse_normaliser,
    coarse_weights,
)
from few_charts import every_charts, on_a_machine

from mlsky import RegistryError, simulate
from mlsky.frequency import cib_templates
from mlsky.networks import default, han2021
from mlsky.networks.weights import network_header, pack, save
from mlsky.painting import finer, foregrounds
from mlsky.sources import counts
from mlsky.sphere import gaussian
from mlsky.sphere.geometry import Car, Healpix

#: Processors with older vector units, as far as torch is concerned: AVX2 has the same sums, mostly
#: in the same order; without AVX multiplications and additions are rounded one by one.
OTHER_MACHINES = {
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "sse": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
}
#: What a sky must have in common with that of another machine: share of sources above 1 mJy in
#: place with all that is drawn for them, and the rms of a map's difference over that of the map.
SAME_SOURCES, SAME_MAPS = 0.995, 0.01
#: Positions in degrees: last bits of a place on a chart.
SAME_PLACE_DEG = 1e-9

#: What `on_a_machine` paints from a start and a weight file, into a file.
CHILD = """
import sys
import numpy as np
from few_charts import on_a_machine
np.savez(sys.argv[3], **on_a_machine(np.load(sys.argv[1]), sys.argv[2]))
"""


#: CAR of 15' against HEALPix: power of multipoles to 80 (0.996 to 1.001 found), and a shift in
#: arcmin (0.05 found).
GAIN, SHIFT_ARCMIN = 0.01, 0.3


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory):
    return coarse_weights(tmp_path_factory.mktemp("weights") / "small.safetensors")


@pytest.fixture(scope="module")
def start():
    """A Gaussian kappa with a red spectrum, to the band limit of the coarse pixels."""
    ell = np.arange(541)
    cl = np.zeros(541)
    cl[2:] = 1e-3 / ell[2:] ** 1.5
    return gaussian.draw_alm(cl, seed=5)


@pytest.fixture(scope="module")
def made(weight_file, start):
    weights = foregrounds.select(str(weight_file), Healpix(64))
    return foregrounds.generate(start, Healpix(64), weights=weights, seed=3, device="cpu")


def test_every_pixel_is_painted(made):
    for name, values in made.maps.items():
        assert values.shape == (Healpix(64).npix,)
        assert np.isfinite(values).all(), name
        assert np.count_nonzero(values) > 0.999 * values.size, name
    assert np.isfinite(made.kappa).all()


def test_signs(made):
    assert made.maps["tsz"].max() <= 0
    assert made.maps["cib"].min() >= 0
    assert made.maps["ksz"].min() < 0 < made.maps["ksz"].max()


def test_poles_are_like_the_rest(made):
    """Variance of kSZ round the poles within 5 sigma of the whole sky's."""
    theta, _ = healpy.pix2ang(64, np.arange(Healpix(64).npix))
    cap = np.minimum(theta, np.pi - theta) < np.radians(15)
    ksz = made.maps["ksz"].astype(float)
    # neighbouring pixels share a chart pixel's surroundings: count every tenth as independent
    error = ksz.var() * np.sqrt(2 / (cap.sum() / 10))
    assert abs(ksz[cap].var() - ksz.var()) < 5 * error


def test_low_multipoles_of_kappa_are_the_input(made, start):
    lmax = foregrounds.KAPPA_JOIN[0]
    for l in range(2, lmax):
        for m in range(l + 1):
            i = m * (2 * 540 + 1 - m) // 2 + l
            top = gaussian.alm_lmax(made.kappa_alm)
            j = m * (2 * top + 1 - m) // 2 + l
            assert made.kappa_alm[j] == pytest.approx(start[i], abs=1e-12)


def test_sources_follow_the_rate(made):
    """Numbers of radio sources within 5 Poisson errors; the rate is per pixel at the centre."""
    pixel_sr = np.radians(PIXEL_ARCMIN / 60) ** 2
    expected = PER_PIXEL * 4 * np.pi / pixel_sr
    radio = np.asarray(made.catalogue["kind"]) == "radio"
    assert abs(radio.sum() - expected) < 5 * np.sqrt(expected)
    assert made.catalogue["flux_mjy"][~radio].min() >= 7.0
    assert made.catalogue["flux_mjy"][radio].min() >= counts.FLUX_MIN_MJY * (1 - 1e-9)


def test_sources_are_everywhere_once(made):
    """Counts in the 192 owners of charts scatter as Poisson numbers do."""
    owner = healpy.ang2pix(4, made.catalogue["ra"], made.catalogue["dec"], lonlat=True)
    number = np.bincount(owner, minlength=192)
    chi2 = ((number - number.mean()) ** 2 / number.mean()).sum()
    assert abs(chi2 - 191) < 5 * np.sqrt(2 * 191)


def test_same_seed_same_bits(weight_file, start, made):
    """Whatever the threads; maps of a few charts are those of the whole sky."""
    weights = foregrounds.select(str(weight_file), Healpix(64))
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            with every_charts(6):
                found.append(
                    foregrounds.generate(start, Healpix(64), weights=weights, seed=3, device="cpu")
                )
        finally:
            torch.set_num_threads(before)
    one, two = found
    for name, values in one.maps.items():
        assert np.array_equal(values, two.maps[name]), name
        painted = np.flatnonzero(values)
        assert len(painted) > values.size / 7
        assert np.array_equal(values[painted], made.maps[name][painted]), name
    assert np.array_equal(one.kappa, two.kappa)
    assert (one.catalogue == two.catalogue).all()


def test_other_seed_other_sky(weight_file, start, made):
    weights = foregrounds.select(str(weight_file), Healpix(64))
    with every_charts(4):
        other = foregrounds.generate(
            start, Healpix(64), weights=weights, seed=4, components=["ksz"], device="cpu"
        )
    assert set(other.maps) == {"ksz"}
    assert other.catalogue is None
    painted = np.flatnonzero(other.maps["ksz"])
    r = np.corrcoef(other.maps["ksz"][painted], made.maps["ksz"][painted])[0, 1]
    assert len(painted) > Healpix(64).npix / 5
    assert abs(r) < 5 / np.sqrt(len(painted) / 10)


def test_car_is_the_same_sky(weight_file, start, made):
    """CAR pixels averaged over HEALPix ones give the HEALPix map of the same seed."""
    from pixell import enmap

    shape, wcs = enmap.fullsky_geometry(res=np.radians(0.25))
    geometry = Car(shape, wcs)
    weights = foregrounds.select(str(weight_file), geometry)
    car = foregrounds.generate(
        start, geometry, weights=weights, seed=3, components=["ksz"], device="cpu"
    )
    area = geometry.area()
    pixel = Healpix(64).pixel(*geometry.angles())
    mean = np.bincount(pixel, car.maps["ksz"].ravel() * area) / np.bincount(pixel, area)
    # 13 CAR pixels to a HEALPix one, cut at its border: measured 0.99
    assert np.corrcoef(mean, made.maps["ksz"])[0, 1] > 0.97
    # the same by multipole: pixels of 15' and of 55' are averages
    lmax = 80
    fine = gaussian.map_to_alm(car.maps["ksz"], geometry, lmax)
    coarse = gaussian.map_to_alm(made.maps["ksz"], Healpix(64), lmax)
    # of squares of 55' and 15', at l where their shape is of no account
    sides = np.radians(np.array([Healpix(64).pixel_arcmin, geometry.pixel_arcmin]) / 60)
    ell = np.arange(lmax + 1)
    window = np.exp(-(ell**2) * (sides[0] ** 2 - sides[1] ** 2) / 24)
    gain = healpy.alm2cl(fine, coarse) / healpy.alm2cl(coarse) * window
    weight = 2 * ell + 1.0
    for low, high in ((5, 20), (20, 40), (40, lmax + 1)):
        assert np.average(gain[low:high], weights=weight[low:high]) == pytest.approx(1, abs=GAIN)
    # no shift along meridians or round the axis: the difference follows neither derivative
    coarse = healpy.almxfl(coarse, 1 / window)
    apart = healpy.alm2map(fine - coarse, 64)
    _, south, east = healpy.alm2map_der1(coarse, 64)
    east = east * np.sin(healpy.pix2ang(64, np.arange(Healpix(64).npix))[0])
    for slope in (south, east):
        shift = np.degrees(np.sum(apart * slope) / np.sum(slope**2)) * 60
        assert abs(shift) < SHIFT_ARCMIN


def test_calibration_of_kappa_is_applied(tmp_path, weight_file, start):
    table = {"ell": [0, 1000], "gain": [0.5, 0.5]}
    path = coarse_weights(tmp_path / "gain.safetensors", calibration={"kappa": table})
    with every_charts(12):
        whole, halved = (
            foregrounds.generate(
                start,
                Healpix(64),
                weights=foregrounds.select(str(p), Healpix(64)),
                seed=3,
                components=[],
                device="cpu",
            ).kappa_alm
            for p in (weight_file, path)
        )
    top = gaussian.alm_lmax(whole)
    l = np.concatenate([np.arange(m, top + 1) for m in range(top + 1)])
    high = l > foregrounds.KAPPA_JOIN[1]
    assert np.abs(whole[high]).min() > 0
    np.testing.assert_allclose(halved[high], 0.5 * whole[high], rtol=1e-9)


@pytest.mark.parametrize(("noise", "overlap"), [(0, 20), (1, 64)])
def test_chain_of_the_paper(tmp_path, start, noise, overlap):
    """PIXGAN and VAEGAN in tiles; bright pixels of their radio map become sources.

    Without noise, seeds make the same sky of one kappa.
    """
    networks = {
        "pixgan": han2021.PIXGAN(width=2, noise=noise, seed=1),
        "vaegan": han2021.VAEGAN(width=2, seed=2),
    }
    path = tmp_path / "han.safetensors"
    save(
        path,
        pack(networks),
        {
            "networks": {n: network_header(m) for n, m in networks.items()},
            "normaliser": coarse_normaliser().to_dict(),
            "pixel_arcmin": PIXEL_ARCMIN,
            "overlap": overlap,
        },
    )
    weights = foregrounds.select(str(path), Healpix(16))
    with every_charts(24):
        made, other = (
            foregrounds.generate(start, Healpix(16), weights=weights, seed=seed, device="cpu")
            for seed in (3, 4)
        )
    for values in made.maps.values():
        assert np.isfinite(values).all()
    assert (np.asarray(made.catalogue["kind"]) == "radio").all()
    assert np.array_equal(made.maps["ksz"], other.maps["ksz"]) == (not noise)


def test_simulate_from_end_to_end(weight_file):
    """The public call with real spectra, networks and lensing on a tiny map, of a few charts."""
    with every_charts(6):
        sky = simulate([93, 225], nside=32, seed=2, weights=str(weight_file), flux_cut_mjy=100.0)
    weights = foregrounds.select(str(weight_file), Healpix(32))
    assert sky.meta["made_with"] == foregrounds.made_with(weights)
    assert sky.total.shape == (2, 3, 12 * 32**2)
    assert np.isfinite(sky.total).all()
    assert sky["tsz"][0, 0].max() <= 0 <= sky["tsz"][1, 0].min()
    for name in ("cib", "radio"):
        assert sky[name][:, 0].min() >= 0
    painted = sky["tsz"][0, 0] < 0
    assert 0.1 < painted.mean() < 0.3


def test_a_nonlinear_kappa_stays(weight_file, start, made):
    """It is painted on, and given back to the bit; the networks for kappa are not asked."""
    weights = foregrounds.select(str(weight_file), Healpix(64))
    with every_charts(6):
        painted = foregrounds.generate(
            start, Healpix(64), weights=weights, seed=3, nonlinear=True, device="cpu"
        )
    top = gaussian.alm_lmax(painted.kappa_alm)
    expected = healpy.resize_alm(start, 540, 540, top, top)
    np.testing.assert_array_equal(painted.kappa_alm, expected)
    assert top > Healpix(64).lmax
    there = np.flatnonzero(painted.maps["ksz"])
    assert there.size > Healpix(64).npix / 7
    assert not np.array_equal(painted.maps["tsz"][there], made.maps["tsz"][there])
    # kSZ is a flow of its own noise through what follows kappa: the same signs
    assert np.corrcoef(painted.maps["ksz"][there], made.maps["ksz"][there])[0, 1] > 0.3


def test_kappa_of_the_user_from_end_to_end(weight_file):
    """A nonlinear CAR map comes back as the sky's kappa, and is told in its provenance."""
    from pixell import curvedsky, enmap

    ell = np.arange(61)
    alm = gaussian.draw_alm(np.where(ell > 1, 1e-7, 0.0), 6)
    shape, wcs = enmap.fullsky_geometry(res=np.radians(2), variant="fejer1")
    values = curvedsky.alm2map(alm, enmap.zeros(shape, wcs))
    with every_charts(24):  # kappa is given back, not made on charts
        sky = simulate(
            93,
            nside=32,
            seed=2,
            weights=str(weight_file),
            components=["tsz"],
            kappa=(np.asarray(values), wcs),
            kappa_kind="nonlinear",
            pixel_window=False,
        )
    out = gaussian.map_to_alm(sky.kappa, Healpix(32), 40)
    given = healpy.resize_alm(alm, 60, 60, 40, 40)
    r = healpy.alm2cl(out, given)[2:] / healpy.alm2cl(given)[2:]
    # nside 32 holds l up to 95, and the sky has power beyond: quadrature of HEALPix
    np.testing.assert_allclose(r, 1, atol=0.02)
    assert sky.meta["kappa"] == "given, nonlinear, up to l = 89"


@pytest.mark.parametrize("side", [0.5, 2.0, 7.0])
@pytest.mark.parametrize("digits", [6, 9, 12])
def test_a_rounded_step_has_the_same_networks(side, digits):
    """Cards of a few digits do not choose finer networks: another sky at eleven times the cost."""

    def chosen(step):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype, wcs.wcs.cdelt = ["RA---CAR", "DEC--CAR"], [-step, step]
        return foregrounds.select("default", Car((40, 40), wcs)).sha256

    assert chosen(float(f"{side / 60:.{digits}g}")) == chosen(side / 60)


def test_networks_that_overflow_are_one_line(tmp_path, start):
    """Finite weights of 1e20: a sky of NaN in silence before."""
    path = coarse_weights(tmp_path / "a.safetensors")
    weights = foregrounds.select(str(path), Healpix(16))
    with torch.no_grad():
        for parameter in weights.networks["paint"].parameters():
            parameter.mul_(1e20)
    with pytest.raises(
        RegistryError, match=r"the networks' \w+ is not finite on chart 0"
    ) as caught:
        foregrounds.generate(start, Healpix(16), weights=weights, seed=3, device="cpu")
    assert "\n" not in str(caught.value)


def test_networks_that_ask_for_too_many_sources(tmp_path, start):
    """A finite rate of 1e9 in every pixel: an hour for a chart, and no memory for the next."""
    path = coarse_weights(tmp_path / "a.safetensors")
    weights = foregrounds.select(str(path), Healpix(16))
    weights.networks["point_sources"].log_rate = 20.0
    with pytest.raises(RegistryError, match=r"the networks ask for .* sources on chart 0, at most"):
        foregrounds.generate(start, Healpix(16), weights=weights, seed=3, device="cpu")


def test_unknown_weights():
    with pytest.raises(RegistryError, match=r"must be one of|unknown|no entry"):
        foregrounds.select("nothing", Healpix(64))


def test_file_without_a_sky(tmp_path):
    path = tmp_path / "points.safetensors"
    points = default.PointSources(seed=1)
    save(
        path,
        pack({"point_sources": points}),
        {
            "networks": {"point_sources": network_header(points)},
            "normaliser": coarse_normaliser().to_dict(),
            "pixel_arcmin": 2.0,
        },
    )
    with pytest.raises(ValueError, match="a sky needs"):
        foregrounds.select(str(path), Healpix(64))


def test_two_resolutions_of_a_seed_are_one_sky(weight_file, start, made):
    """The charts are the same whatever the output pixels: kappa, maps and sources agree."""
    weights = foregrounds.select(str(weight_file), Healpix(64))
    fine = foregrounds.generate(start, Healpix(128), weights=weights, seed=3, device="cpu")
    for name in made.catalogue.colnames:
        np.testing.assert_array_equal(fine.catalogue[name], made.catalogue[name])
    # half the coarse nside: an untrained network's kSZ is white, and above this the coarse pixels
    # alias it (r of 0.998 at l = 64)
    lmax = 32
    pairs = {"kappa": (fine.kappa, made.kappa)}
    pairs |= {name: (fine.maps[name], made.maps[name]) for name in made.maps}
    for name, (a, b) in pairs.items():
        a, b = (healpy.map2alm(m.astype(float), lmax=lmax) for m in (a, b))
        r = healpy.alm2cl(a, b) / np.sqrt(healpy.alm2cl(a) * healpy.alm2cl(b))
        assert r[2:].min() > 0.999, name


@pytest.fixture(scope="module")
def here(tmp_path_factory, start):
    """A weight file whose rates of sources vary, and a sky of it."""
    path = coarse_weights(tmp_path_factory.mktemp("rates") / "r.safetensors", constant_rate=False)
    return path, on_a_machine(start, path)


def shared(one, two):
    """Smaller share of the sources above 1 mJy of either sky that the other has, all alike."""
    one, two = (
        {n: sky[n][sky["flux_mjy"] > 1] for n in ("ra", "dec", "flux_mjy", "kind", "alpha")}
        for sky in (one, two)
    )
    _, first, second = np.intersect1d(one["flux_mjy"], two["flux_mjy"], return_indices=True)
    same = (one["kind"][first] == two["kind"][second]) & (
        one["alpha"][first] == two["alpha"][second]
    )
    for name in ("ra", "dec"):
        same &= np.abs(one[name][first] - two[name][second]) < SAME_PLACE_DEG
    return np.count_nonzero(same) / max(len(one["ra"]), len(two["ra"]))


@pytest.mark.parametrize("machine", OTHER_MACHINES)
def test_a_seed_is_the_same_sky_on_another_machine(here, start, tmp_path, machine):
    path, sky = here
    kappa, out = tmp_path / "start.npy", tmp_path / "sky.npz"
    np.save(kappa, start)
    environment = os.environ | OTHER_MACHINES[machine]
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(kappa), str(path), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    other = dict(np.load(out))
    if platform.machine() in ("x86_64", "AMD64"):
        assert other["instructions"] == {"avx2": "AVX2", "sse": "DEFAULT"}[machine]
    assert shared(sky, other) >= SAME_SOURCES
    for name in ("kappa", "tsz", "ksz", "cib"):
        assert (other[name] - sky[name]).std() <= SAME_MAPS * sky[name].std(), name


def test_rounding_to_16_bits_moves_no_source(here, start):
    """Rates differ by a per cent or so: few sources come or go, the others stay as they are."""
    path, sky = here
    rounded = on_a_machine(start, path, "bf16")
    assert not np.array_equal(rounded["tsz"], sky["tsz"])
    assert 0.97 <= shared(sky, rounded) < 1


def test_what_a_sky_was_made_with(weight_file):
    weights = foregrounds.select(str(weight_file), Healpix(64))
    told = foregrounds.made_with(weights, "cpu")
    assert (
        told["torch"] == torch.__version__.partition("+")[0] or told["torch"] == torch.__version__
    )
    assert told["numpy"] == np.__version__
    assert {"camb", "scipy", "ducc0", "healpy"} <= set(told)
    assert told["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert (told["device"], told["precision"]) == ("cpu", "bf16")


def test_another_cosmology_is_the_same_sky_rescaled(monkeypatch, caplog, weight_file, start, made):
    """Networks see the kappa they know; maps and kappa scale, and as many sources stay."""
    from mlsky.painting import rescale
    from mlsky.theory import parse
    from mlsky.theory.response import Response

    other = parse("act-dr6")
    monkeypatch.setattr(
        rescale.spectra,
        "kappa_spectrum",
        lambda lmax, cosmology: np.full(lmax + 1, 1.21 if cosmology == other else 1.0),
    )
    node = np.geomspace(20, 30000, 8)
    gain = {"tsz": 1.4, "ksz": 1.2, "cib": 1.25}
    means = {name: float(made.maps[name].mean()) for name in ("tsz", "cib")}
    response = Response(
        other,
        parse(),
        node,
        {name: np.full(8, g) for name, g in gain.items()},
        {"tsz": 1.4, "cib": 1.25},
        means,
    )
    weights = foregrounds.select(str(weight_file), Healpix(64))
    got = foregrounds.generate(
        1.1 * start, Healpix(64), weights=weights, seed=3, device="cpu", response=response
    )
    assert "rescaled by the halo model (kappa, tsz x 1.96" in caplog.text
    for name, g in gain.items():
        atol = 1e-3 * made.maps[name].std()  # kappa went through a division and a product
        np.testing.assert_allclose(got.maps[name], g * made.maps[name], rtol=1e-3, atol=atol)
    np.testing.assert_allclose(got.kappa, 1.1 * made.kappa, atol=1e-4 * made.kappa.std())
    flux = [np.sort(np.asarray(m.catalogue["flux_mjy"])) for m in (got, made)]
    assert len(flux[0]) == pytest.approx(len(flux[1]), abs=3)


def test_networks_that_paint_several_templates_of_the_cib(tmp_path, start, made, monkeypatch):
    """Their maps are stacked, then the remainder, which follows the CIB at 148 GHz."""
    from mlsky.networks import consistency, evaluate

    entry = {"ghz": [148, 353, 857], "preset": "act-dr6"}
    path = coarse_weights(tmp_path / "templates.safetensors", cib_templates=entry)
    of_networks = evaluate.evaluate

    def with_templates(*args, **kwargs):
        fields = of_networks(*args, **kwargs)
        return fields | {"cib_353": 2.5 * fields["cib"] + 1, "cib_857": 40 * fields["cib"]}

    monkeypatch.setattr(evaluate, "evaluate", with_templates)
    monkeypatch.setattr(consistency, "check_sky", lambda weights: None)  # of what stands for them
    grid = Healpix(64)
    weights = foregrounds.select(str(path), grid)
    with every_charts(4):
        maps = foregrounds.generate(start, grid, weights=weights, seed=3, device="cpu").maps
    painted = maps["tsz"] != 0
    assert 0.2 < painted.mean() < 0.3
    law = cib_templates.load("act-dr6")
    assert maps["cib"].shape == (law.n_templates + law.n_noise, grid.npix)
    first, second, third, *noise = maps["cib"].astype(np.float64)
    np.testing.assert_array_equal(maps["cib"][0][painted], made.maps["cib"][painted])
    np.testing.assert_allclose(second[painted], 2.5 * first[painted] + 1, rtol=1e-4)
    np.testing.assert_allclose(third, 40 * first, rtol=1e-4)
    for values in noise:
        power = (values**2).mean() * 4 * np.pi / grid.npix
        assert power == pytest.approx(first.mean() / law.mean_uk, rel=0.1)
    np.testing.assert_array_equal(maps["tsz"][painted], made.maps["tsz"][painted])


def test_templates_of_another_truth_are_refused(tmp_path):
    entry = {"ghz": [148, 545], "preset": "act-dr6"}
    path = coarse_weights(tmp_path / "wrong.safetensors", cib_templates=entry)
    with pytest.raises(ValueError, match=r"CIB templates at \[148, 545\] GHz"):
        foregrounds.select(str(path), Healpix(64))


#: Rms of what pixels half as large add to a smooth sky of pixels twice as large, over its own: the
#: windows of charts differ by a few per cent of a map whose power is near the pixels' scale.
HALVED = {"tsz": 0.1, "ksz": 0.1, "cib": 0.5}  # what is split lies elsewhere in its pixel


def test_finer_pixels_show_the_same_sky(tmp_path, start):
    """Averages of a sky on pixels half as large are the sky on those of the networks.

    On a few charts: elsewhere all of the maps are zero.
    """
    table = {"value": [0.0, 100.0], "width": [1.0, 1.0]}
    file = coarse_weights(tmp_path / "split.safetensors", calibration={"split": table})
    weights = foregrounds.select(str(file), Healpix(64))
    assert not finer.halves_pixels(weights, Healpix(64))
    assert finer.halves_pixels(weights, Healpix(256))
    options = {"weights": weights, "seed": 3, "device": "cpu"}
    with every_charts(6):
        wide = foregrounds.generate(start, Healpix(64), **options)
        fine = foregrounds.generate(start, Healpix(256), **options)
    for name in ("tsz", "ksz", "cib"):
        down = healpy.ud_grade(fine.maps[name], 64)
        ours = wide.maps[name]
        assert (down - ours).std() < HALVED[name] * ours.std(), name
        assert abs(down.mean() - ours.mean()) < 0.01 * ours.std(), name
    assert fine.maps["cib"].min() >= -0.05 * fine.maps["cib"].std()
    # the CIB is white below the networks' pixels, the others smooth
    plain = coarse_weights(tmp_path / "plain.safetensors")
    options["weights"] = foregrounds.select(str(plain), Healpix(256))
    with every_charts(6):
        before = foregrounds.generate(start, Healpix(256), **options)
    painted = before.maps["tsz"] != 0
    high = slice(600, 750)

    def bare(values):
        """Without the mean of the charts, whose edges would have power."""
        return np.where(painted, values - values[painted].mean(), 0.0)

    for name, least, most in (("cib", 2.0, np.inf), ("ksz", 0.5, 4.0)):
        power = [
            healpy.anafast(bare(sky.maps[name]), lmax=767, iter=0)[high].mean()
            for sky in (fine, before)
        ]
        assert least < power[0] / power[1] < most, name
    assert len(fine.catalogue) == len(wide.catalogue)
