"""The chain and the Sky object, over quick stand-ins for the slow stages (tests/fakes.py)."""

from __future__ import annotations

import inspect
import json
import re
import weakref
from pathlib import Path
from types import SimpleNamespace

import fakes
import numpy as np
import pytest
from astropy import units
from pixell import enmap

import mlsky
from mlsky import observation, simulation
from mlsky.frequency import cib_templates, passbands, scaling
from mlsky.sources import catalogue
from mlsky.sphere.geometry import Healpix

NSIDE = 16
FREQS = [93, 145, 225]

#: float32 sums in another order.
ROUNDING = 1e-5
#: Interpolation of the unlensed CMB, in the worst of many pixels (tests/test_lensing.py).
LENSING = 5e-4


@pytest.fixture
def record(monkeypatch):
    return fakes.install(monkeypatch)


@pytest.fixture
def sky(record):
    return mlsky.simulate(FREQS, NSIDE, 1)


def _car():
    return enmap.fullsky_geometry(res=np.radians(10), variant="fejer1")


def test_the_public_call_is_the_promised_one():
    expected = (
        "(freqs, nside=None, seed=0, *, geometry=None, components=None, stokes='TQU', kappa=None, "
        "kappa_kind='gaussian', fill_kappa=False, cosmology='planck2018', weights='default', "
        "flux_cut_mjy=None, flux_cut=None, tsz_temperature_kev=None, haloes=None, monopole=True, "
        "unit='uK_CMB', beam=None, pixel_window=True, cmb_seed=None, "
        "device='auto', progress=None, out=None, overwrite=False, check_resources=True)"
    )
    signature = inspect.signature(mlsky.simulate)
    bare = signature.replace(
        parameters=[p.replace(annotation=p.empty) for p in signature.parameters.values()],
        return_annotation=signature.empty,
    )
    assert str(bare) == expected
    assert mlsky.simulate is simulation.simulate
    with pytest.raises(TypeError, match=r"simulate\(\): got an unexpected keyword argument 'nsid'"):
        mlsky.simulate(FREQS, nsid=16)


def test_signature_of_the_first_page():
    """docs/first_sky says that the one it prints is complete."""
    page = (Path(__file__).parents[1] / "docs" / "first_sky.rst").read_text()
    printed = page[page.index("   simulate(freqs") :].split(" -> Sky")[0]
    wanted = inspect.signature(mlsky.simulate).parameters
    told = re.findall(r"(\w+)(?:=[^,()]+)?[,)]", printed.split("(", 1)[1])
    assert told == list(wanted)


def test_shapes(sky):
    assert sky.total.shape == sky.shape == (3, 3, 12 * NSIDE**2)
    assert sky.total.dtype == np.float32
    assert tuple(sky) == sky.keys() == ("cmb", "tsz", "ksz", "cib", "radio")
    assert len(sky) == 5
    assert "tsz" in sky
    assert "dust" not in sky
    for name in sky:
        assert sky[name].shape == sky.shape
    assert sky.kappa.shape == (12 * NSIDE**2,)
    assert sky.freqs.unit == units.GHz
    np.testing.assert_array_equal(sky.freqs.value, FREQS)


def test_car_shapes(record):
    shape, wcs = _car()
    sky = mlsky.simulate(150, geometry=(shape, wcs))
    assert sky.total.shape == (1, 3, *shape)
    assert sky.kappa.shape == tuple(shape)
    assert "CAR 18 x 36 at 600'" in repr(sky)


def test_maps_of_pixell(record):
    shape, wcs = _car()
    sky = mlsky.simulate([93, 150], geometry=(shape, wcs))
    made = sky.to_enmap("radio")
    assert isinstance(made, enmap.ndmap)
    assert made.shape == (2, 3, *shape)
    np.testing.assert_allclose(made.posmap(), enmap.posmap(shape, wcs), atol=1e-12)
    np.testing.assert_array_equal(made, sky["radio"])
    iau = sky.to_enmap(convention="IAU")
    np.testing.assert_array_equal(iau[:, :2], sky.total[:, :2])
    np.testing.assert_array_equal(iau[:, 2], -sky.total[:, 2])
    with pytest.raises(ValueError, match="to_healpix: this sky is on rectangular pixels"):
        sky.to_healpix()
    with pytest.raises(ValueError, match="convention='iau': must be one of COSMO, IAU"):
        sky.to_enmap(convention="iau")


def test_maps_of_healpix(sky):
    import healpy

    np.testing.assert_array_equal(sky.to_healpix(), sky.total)
    nested = sky.to_healpix("cib", nest=True, convention="IAU")
    for band in range(3):
        t, q, u = (healpy.reorder(m, r2n=True) for m in sky["cib"][band])
        np.testing.assert_array_equal(nested[band], [t, q, -u])
    with pytest.raises(ValueError, match=r"to_enmap: this sky is on HEALPix pixels, nside=16"):
        sky.to_enmap()
    with pytest.raises(ValueError, match="nest=1: must be True or False"):
        sky.to_healpix(nest=1)


def test_the_total_is_the_sum(sky):
    total = sum(sky[name] for name in sky)
    np.testing.assert_allclose(sky.total, total, rtol=ROUNDING, atol=ROUNDING * np.abs(total).max())


def test_each_access_is_a_new_array(sky):
    first = sky["tsz"]
    first[:] = 7
    assert not np.any(sky["tsz"] == 7)


def test_asarray(sky):
    np.testing.assert_array_equal(np.asarray(sky), sky.total)
    assert np.asarray(sky, dtype=np.float64).dtype == np.float64
    assert np.array(sky, copy=True).shape == sky.shape
    with pytest.raises(ValueError, match="copy=False"):
        np.asarray(sky, copy=False)


def test_one_band_and_sums_over_bands(sky):
    for name in (None, "radio", "cmb"):
        full = sky.total if name is None else sky[name]
        np.testing.assert_array_equal(sky.band(1, name), full[1])
        share = np.array([0.2, -1.0, 0.5])
        expected = np.tensordot(share, full.astype(np.float64), 1)
        np.testing.assert_allclose(
            sky.integrate(share, name), expected, atol=ROUNDING * np.abs(full).max()
        )
    with pytest.raises(ValueError, match=r"weights of shape \(2,\)"):
        sky.integrate([1, 2])


def test_bands_that_there_are_not(sky):
    count = len(sky.bands)
    np.testing.assert_array_equal(sky.band(-1), sky.band(count - 1))
    for call in (
        lambda: sky.band(7),
        lambda: sky.band(-count - 1),
        lambda: sky.band(0.5),
        lambda: sky.alm(7),
        lambda: sky.subtract(noise_uk_arcmin=1e3, beam=60, band=9),
    ):
        with pytest.raises(ValueError, match=r"band=.*: must be a name, or a number") as no:
            call()
        assert sky.bands[0].label in str(no.value)
        assert "\n" not in str(no.value)


def test_stokes_and_rows_of_a_part(sky):
    """What the sky does not hold is no zero, and no step of a slice is lost."""
    total = sky.band(1)
    np.testing.assert_array_equal(sky.integrate([0, 1, 0], stokes="UT"), total[[2, 0]])
    assert sky.integrate([0, 1, 0], rows=slice(9, 5)).shape == (3, 0)
    only_t = mlsky.simulate(FREQS, NSIDE, 1, stokes="T")
    for stokes in ("Q", "TQU", "t", "", "TT", 0):
        with pytest.raises(ValueError, match=r"stokes=.*: this sky holds T; name some of them"):
            only_t.integrate([0, 1, 0], stokes=stokes)
    for rows in (slice(0, 10, 2), slice(None, None, -1), 3):
        with pytest.raises(ValueError, match=r"rows=.*: must be a slice without steps"):
            sky.integrate([0, 1, 0], rows=rows)


def test_a_band_is_a_sum_over_its_frequencies(record):
    """Every component, hot tSZ and the colours of the CIB too, in another unit."""
    band = mlsky.Band([120, 140, 150, 170], [0.2, 1, 0.9, 0.3], name="mine")
    options = {"stokes": "TQU", "tsz_temperature_kev": 7.0}
    sky = mlsky.simulate([93, band, "so_lat/f150"], NSIDE, 1, unit="MJy/sr", **options)
    assert [b.label for b in sky.bands] == ["93", "mine", "so_lat/f150"]
    assert "freqs=[93.0, 'mine', 'so_lat/f150']" in sky.meta["command"]
    assert repr(sky).startswith("<Sky [93, mine, so_lat/f150] GHz")
    single = mlsky.simulate(band.nu_ghz, NSIDE, 1, unit="MJy/sr", **options)
    for name in sky:
        expected = single.integrate(band.power, name)
        atol = ROUNDING * np.abs(expected).max()
        np.testing.assert_allclose(sky.band("mine", name), expected, rtol=ROUNDING, atol=atol)
    with pytest.raises(ValueError, match="band 'f090': 0 of the bands 93, mine, so_lat/f150"):
        sky.band("f090")


def test_a_band_with_templates_of_the_cib(monkeypatch):
    header = {"cib_templates": {"ghz": [148, 353, 857], "preset": "act-dr6"}}
    fakes.install(monkeypatch, header)
    band = mlsky.Band([200, 220, 250], [0.5, 1, 0.4])
    sky = mlsky.simulate(band, NSIDE, 1, unit="Jy/sr", components="cib")
    single = mlsky.simulate(band.nu_ghz, NSIDE, 1, unit="Jy/sr", components="cib")
    expected = single.integrate(band.power)
    np.testing.assert_allclose(sky.total[0], expected, atol=ROUNDING * np.abs(expected).max())


def test_every_component_follows_its_law(sky):
    reference = {name: mlsky.simulate(148, NSIDE, 1)[name][0, 0] for name in sky}
    for band, nu in enumerate(FREQS):
        np.testing.assert_array_equal(sky["cmb"][band, 0], reference["cmb"])
        np.testing.assert_array_equal(sky["ksz"][band, 0], reference["ksz"])
        factor = scaling.tsz.factor(nu)
        np.testing.assert_allclose(sky["tsz"][band, 0], factor * reference["tsz"], rtol=ROUNDING)
    assert sky["tsz"][0, 0].max() < 0 < sky["tsz"][2, 0].min()


def test_cib_is_the_map_and_the_dsfgs(sky):
    table = fakes.sources(1)
    kind = np.asarray(table["kind"])
    for name, chosen in (("cib", "dsfg"), ("radio", "radio")):
        painted = catalogue.paint(table[kind == chosen], Healpix(NSIDE), np.array(FREQS, float))
        if name == "cib":
            diffuse = np.abs(fakes.normal(1, 3, 12 * NSIDE**2))
            painted[:, 0] += scaling.cib.factor(np.array(FREQS))[:, None] * diffuse
        np.testing.assert_allclose(sky[name], painted, rtol=ROUNDING)


def test_intensities_without_polarisation_have_none(sky):
    for name in ("tsz", "ksz"):
        assert not sky[name][:, 1:].any()
    for name in ("cmb", "radio"):
        assert sky[name][:, 1:].any()


@pytest.mark.parametrize("stokes", ["T", "QU"])
def test_stokes_are_rows_of_the_whole(sky, stokes):
    part = mlsky.simulate(FREQS, NSIDE, 1, stokes=stokes)
    rows = ["TQU".index(s) for s in stokes]
    np.testing.assert_allclose(part.total, sky.total[:, rows], rtol=ROUNDING, atol=ROUNDING)
    for name in sky:
        np.testing.assert_array_equal(part[name], sky[name][:, rows])


@pytest.mark.parametrize("unit", passbands.UNITS)
def test_units(sky, unit):
    other = mlsky.simulate(FREQS, NSIDE, 1, unit=unit)
    factor = passbands.convert(sky.bands, "uK_CMB", unit)
    assert other.unit == other.meta["unit"] == unit
    for name in sky:
        np.testing.assert_allclose(other[name], factor[:, None, None] * sky[name], rtol=ROUNDING)


def test_components_asked_for(record, sky):
    part = mlsky.simulate(FREQS, NSIDE, 1, components=["radio", "tsz"])
    assert part.keys() == ("tsz", "radio")
    for name in part:
        np.testing.assert_array_equal(part[name], sky[name])
    assert set(part.catalog["kind"]) == {"radio"}
    assert len(record.lens) == 1  # of the whole sky alone: no CMB, no lensing
    none = mlsky.simulate(FREQS, NSIDE, 1, components=["cmb"])
    assert none.catalog is None
    assert record.generate[-1] == ()
    with pytest.raises(KeyError, match="component 'tsz': this sky holds cmb"):
        none["tsz"]


def test_hot_gas_changes_tsz_alone_and_by_one_factor_a_band(sky):
    hot = mlsky.simulate(FREQS, NSIDE, 1, tsz_temperature_kev=8 * units.keV)
    assert (sky.meta["tsz_temperature_kev"], hot.meta["tsz_temperature_kev"]) == (None, 8.0)
    assert "tsz_temperature_kev=8.0" in hot.meta["command"]
    for name in ("cmb", "ksz", "cib", "radio"):
        np.testing.assert_array_equal(hot[name], sky[name])
    for k, nu in enumerate(sky.freqs_ghz):
        ratio = scaling.relativistic.spectral_function(nu, 8.0) / scaling.tsz.spectral_function(nu)
        np.testing.assert_allclose(hot["tsz"][k], ratio * sky["tsz"][k], rtol=1e-5, atol=1e-6)


def test_catalogue_and_flux_cut(sky):
    cut = mlsky.simulate(FREQS, NSIDE, 1, flux_cut_mjy=20)
    flux = np.asarray(cut.catalog["flux_mjy"])
    assert flux.min() >= observation.CATALOG_MIN_MJY
    np.testing.assert_array_equal(cut.catalog["in_map"], flux <= 20)
    assert np.all(sky.catalog["in_map"])
    assert len(cut.catalog) == len(sky.catalog)
    gone = cut.catalog[~cut.catalog["in_map"]]
    assert 0 < len(gone) < len(cut.catalog)
    lost = catalogue.paint(gone, Healpix(NSIDE), np.array(FREQS, float))
    difference = sky["radio"] + sky["cib"] - cut["radio"] - cut["cib"]
    np.testing.assert_allclose(difference, lost, atol=ROUNDING * lost.max())


def test_a_map_without_sources(record):
    """A cut below every source leaves an empty map, not an error."""
    sky = mlsky.simulate(FREQS, NSIDE, 1, flux_cut_mjy=1e-6, components=["radio"])
    assert not sky["radio"].any()
    assert not np.any(sky.catalog["in_map"])


def test_the_same_seed_gives_the_same_bits(sky):
    again = mlsky.simulate(FREQS, NSIDE, 1)
    np.testing.assert_array_equal(again.total, sky.total)
    np.testing.assert_array_equal(again.kappa, sky.kappa)
    assert again.meta == sky.meta
    assert not np.array_equal(mlsky.simulate(FREQS, NSIDE, 2).total, sky.total)


def test_the_cmb_seed_changes_the_cmb_alone(sky):
    other = mlsky.simulate(FREQS, NSIDE, 1, cmb_seed=5)
    assert not np.array_equal(other["cmb"], sky["cmb"])
    for name in ("tsz", "ksz", "cib", "radio"):
        np.testing.assert_array_equal(other[name], sky[name])
    assert (other.meta["seed"], other.meta["cmb_seed"]) == (1, 5)


def test_the_cmb_is_lensed_by_the_skys_own_kappa(record):
    mlsky.simulate(FREQS, NSIDE, 1)
    np.testing.assert_array_equal(record.lens[0], record.kappa_alm[0])


@pytest.mark.parametrize("stokes", ["T", "TQU"])
def test_the_cmb_is_drawn_given_the_kappa_of_the_start(record, stokes):
    """On large scales alone, and also a user's, of either kind."""
    lmax = fakes.KAPPA_LMAX
    alm = np.arange((lmax + 1) * (lmax + 2) // 2) * (1e-6 + 0j)
    for kind in ("gaussian", "nonlinear"):
        mlsky.simulate(FREQS, NSIDE, 1, stokes=stokes, kappa=alm, kappa_kind=kind)
        used = record.correlated[-1]
        top = min(simulation.CMB_KAPPA_LMAX, lmax)
        assert used.size == (top + 1) * (top + 2) // 2
        np.testing.assert_array_equal(used[: top + 1], alm[: top + 1])
    mlsky.simulate(FREQS, NSIDE, 1, stokes=stokes)
    np.testing.assert_array_equal(record.correlated[-1][: top + 1], record.kappa_alm[-1][: top + 1])


def test_a_kappa_of_the_users_own(record):
    lmax = fakes.KAPPA_LMAX
    alm = np.full((lmax + 1) * (lmax + 2) // 2, 1e-3 + 0j)
    mlsky.simulate(FREQS, NSIDE, 1, kappa=alm)
    np.testing.assert_array_equal(record.kappa_alm[-1], alm)
    sky = mlsky.simulate(FREQS, NSIDE, 1, kappa=np.full(12 * 8**2, 2e-3))
    assert sky.meta["kappa"] == "given, gaussian, up to l = 16"
    assert record.kappa_alm[-1][0] == 2e-3  # l = 0 is the user's
    assert record.kappa_alm[-1][lmax] != 2e-3  # l = lmax is not held by the map


def test_progress_names_stages_and_only_grows(record):
    seen = []
    mlsky.simulate(FREQS, NSIDE, 1, progress=lambda stage, fraction: seen.append((stage, fraction)))
    stages = list(dict.fromkeys(stage for stage, _ in seen))
    assert stages == [
        "spectra",
        "Gaussian kappa",
        "networks",
        "lensing of the CMB",
        "bands and sources",
        "done",
    ]
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0, 1)


def test_the_start_can_be_freed_while_networks_run(record, monkeypatch):
    """Above nside 1024 it is a gigabyte: nobody but the networks' stage may hold it."""
    from mlsky.painting import foregrounds

    paint = foregrounds.generate

    def generate(kappa_alm, *args, **options):
        start, copy = weakref.ref(kappa_alm), kappa_alm.copy()
        del kappa_alm
        assert start() is None
        return paint(copy, *args, **options)

    monkeypatch.setattr(foregrounds, "generate", generate)
    mlsky.simulate(FREQS, NSIDE, 1)
    assert len(record.generate) == 1


def test_provenance_is_json(sky):
    assert json.loads(json.dumps(sky.meta)) == sky.meta
    assert sky.meta["version"] == mlsky.__version__
    assert sky.meta["weights"] == {"name": "default", "sha256": "0" * 64, "pixel_arcmin": 2.0}
    assert sky.meta["cosmology"]["mnu"] == 0.06
    assert sky.meta["command"] == "mlsky.simulate(freqs=[93.0, 145.0, 225.0], nside=16, seed=1)"
    other = mlsky.simulate(150, 1, stokes="T", flux_cut_mjy=15, components="tsz")
    assert other.meta["command"] == (
        "mlsky.simulate(freqs=[150.0], nside=1, seed=0, components=['tsz'], stokes='T', "
        "flux_cut_mjy=15.0)"
    )


def test_repr(sky):
    assert repr(sky) == (
        "<Sky [93, 145, 225] GHz, TQU, nside=16, uK_CMB, seed=1: cmb, tsz, ksz, cib, radio>"
    )


def test_frequencies_as_quantities(record, sky):
    np.testing.assert_array_equal(
        mlsky.simulate(np.array([0.093, 0.145, 0.225]) * units.THz, NSIDE, 1)["tsz"], sky["tsz"]
    )


BAD = [
    ({"nside": 1000}, "nside=1000: must be a power of two"),
    ({"nside": 0}, "nside=0"),
    ({"nside": 1024.0}, "nside=1024.0"),
    ({"nside": None}, "nside=None with geometry=None"),
    ({"geometry": "full"}, "nside=16 with geometry"),
    ({"nside": None, "geometry": 7}, r"geometry=7: must be \(shape, wcs\)"),
    ({"freqs": []}, "freqs"),
    ({"freqs": -93}, "-93"),
    ({"freqs": [93, np.nan]}, "nan"),
    ({"freqs": [93, np.inf]}, "inf"),
    ({"freqs": 10}, "10 GHz: outside the range of the laws"),
    ({"freqs": [145, 950]}, "950 GHz: outside the range of the laws"),
    ({"freqs": "many"}, "freqs"),
    ({"freqs": 3 * units.kg}, "freqs"),
    ({"components": ["dust"]}, "component 'dust': must be one of cmb, tsz, ksz, cib, radio"),
    ({"components": []}, "give at least one"),
    ({"stokes": "UQT"}, "stokes='UQT': must be one of T, QU, TQU"),
    ({"stokes": ""}, "stokes=''"),
    ({"unit": "K"}, "unit='K': must be one of uK_CMB"),
    ({"seed": -1}, "seed=-1: must be an integer >= 0"),
    ({"seed": 1.5}, "seed=1.5"),
    ({"cmb_seed": "a"}, "cmb_seed='a'"),
    ({"flux_cut_mjy": -3}, "flux_cut_mjy=-3"),
    ({"tsz_temperature_kev": -3}, "tsz_temperature_kev=-3"),
    ({"monopole": "ksz"}, "monopole='ksz': must be True, False"),
    ({"monopole": 1}, "monopole=1: must be True, False"),
    ({"tsz_temperature_kev": 5 * units.mm}, "tsz_temperature_kev=5.0 mm: must be an energy"),
    ({"flux_cut_mjy": np.nan}, "flux_cut_mjy=nan"),
    ({"device": "tpu"}, "device='tpu': must be 'auto', 'cpu', 'cuda' or 'cuda:N'"),
    ({"device": "cpu:1"}, "device='cpu:1'"),
    ({"progress": 3}, "progress=3"),
    ({"kappa": [145 * units.GHz, 3 * units.kg]}, "kappa of shape"),
    ({"device": np.zeros((3, 3))}, "device=ndarray of shape"),
    ({"progress": np.zeros((3, 3))}, "progress=ndarray of shape"),
    ({"kappa_kind": "nbody"}, "kappa_kind='nbody': must be one of gaussian, nonlinear"),
    ({"fill_kappa": "yes"}, "fill_kappa='yes': must be True or False"),
    ({"overwrite": "False"}, "overwrite='False': must be True or False"),
    ({"out": b"a.h5"}, "out=b'a.h5': must be the name of a file"),
    ({"out": "a\0.h5"}, "without NUL"),
    ({"weights": "a" * 300}, "file systems allow 255"),
    ({"flux_cut_mjy": 15 * units.GHz}, "flux_cut_mjy in GHz: must be convertible to mJy"),
    ({"seed": 2**64}, "seed=18446744073709551616: must be an integer"),
    ({"kappa": np.ma.masked_array(np.zeros(12), np.arange(12) < 3)}, "kappa has 3 NaN"),
    ({"kappa": np.zeros(7)}, "kappa map of length 7"),
    ({"kappa": np.full(12, np.nan)}, "kappa has 12 NaN"),
    ({"kappa": np.zeros(12) * units.uK}, "kappa in uK"),
    ({"cosmology": "planck3000"}, "cosmology='planck3000': must be one of planck2018"),
    ({"cosmology": {"hubble": 0.7}}, "unknown keys 'hubble'"),
    ({"weights": "best"}, "weights='best'"),
    ({"weights": 3}, "weights=3: must be a name"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_input_is_one_line_before_any_work(record, change, message):
    with pytest.raises((ValueError, mlsky.MlskyError), match=message) as caught:
        mlsky.simulate(**{"freqs": FREQS, "nside": NSIDE, **change})
    assert "\n" not in str(caught.value)
    assert not record.kappa_alm


def test_a_missing_gpu_is_said_before_any_work(record, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no CUDA device is here"):
        mlsky.simulate(FREQS, NSIDE, device="cuda:0")
    assert not record.kappa_alm


@pytest.mark.parametrize("pixels", ["healpix", "car"])
def test_the_real_fields_and_lensing_fit_the_chain(monkeypatch, pixels):
    """Without kappa the lensed CMB is the unlensed one of the seed, on either kind of pixels."""
    from mlsky import sphere, theory
    from mlsky.sphere import cmb, gaussian, lensing

    fakes.install(monkeypatch)
    monkeypatch.setattr(sphere, "cmb", cmb)
    monkeypatch.setattr(sphere, "gaussian", gaussian)
    monkeypatch.setattr(sphere, "lensing", lensing)
    power = np.r_[0, 0, 1e3 / np.arange(2.0, 400.0) ** 2]
    spectra = SimpleNamespace(
        kappa_spectrum=lambda lmax, cosmology: np.zeros(lmax + 1),
        cmb_spectra=lambda lmax, cosmology: {
            "tt": power[: lmax + 1],
            "ee": 0.1 * power[: lmax + 1],
            "bb": 0 * power[: lmax + 1],
            "te": 0.2 * power[: lmax + 1],
            **dict.fromkeys(("tk", "ek", "kk"), 0 * power[: lmax + 1]),
        },
    )
    monkeypatch.setattr(theory, "spectra", spectra)
    where = {"nside": NSIDE} if pixels == "healpix" else {"geometry": _car()}
    sky = mlsky.simulate(150, seed=3, components=["cmb"], pixel_window=False, **where)
    lmax = sky.geometry.lmax + sky.geometry.lmax // 6
    alm = cmb.draw_cmb(spectra.cmb_spectra(lmax, None), 3)
    expected = gaussian.alm_to_map(alm[0], sky.geometry)
    atol = LENSING * expected.std()
    np.testing.assert_allclose(sky["cmb"][0, 0], expected, atol=atol)
    expected = gaussian.alm_to_map(alm[1:], sky.geometry, spin=2)
    np.testing.assert_allclose(sky["cmb"][0, 1:], expected, atol=LENSING * expected.std())


def test_monopole_taken_off(record):
    kept = mlsky.simulate([148, 353], NSIDE, 1)
    off = mlsky.simulate([148, 353], NSIDE, 1, monopole=False)
    both = mlsky.simulate([148, 353], NSIDE, 1, monopole=())
    shift = (kept.band(0, "cib") - off.band(0, "cib"))[0]
    mean = np.abs(fakes.normal(1, 3, (12 * NSIDE**2,))).mean()
    np.testing.assert_allclose(shift, mean, atol=1e-4 * shift.max() + 1e-3)  # beside sources
    for band in range(2):
        assert abs(both.band(band, "tsz")[0].mean()) < ROUNDING
        np.testing.assert_array_equal(off.band(band, "tsz"), kept.band(band, "tsz"))
        np.testing.assert_array_equal(off.band(band, "radio"), kept.band(band, "radio"))
    assert (kept.meta["monopole_off"], off.meta["monopole_off"]) == ([], ["cib"])
    assert both.meta["monopole_off"] == ["tsz", "cib"]
    assert "monopole=False" in off.meta["command"]


def test_monopole_on_rectangular_pixels_is_the_mean_over_the_sphere(record):
    sky = mlsky.simulate([148], geometry=_car(), seed=1, components=["tsz"], monopole=())
    area = sky.geometry.area()
    assert abs((area * sky.band(0, "tsz")[0].ravel()).sum()) < ROUNDING * area.sum()


def test_monopole_of_part_of_the_sky_is_refused(record):
    part = enmap.geometry(np.radians([[-5, 5], [5, -5]]), res=np.radians(1))
    with pytest.raises(ValueError, match="monopole=False: the mean over the sky"):
        mlsky.simulate(FREQS, geometry=part, monopole=False)


TEMPLATES = {"cib_templates": {"ghz": [148, 353, 857], "preset": "act-dr6"}}


def test_cib_of_several_templates(monkeypatch):
    """Template bands are the templates, others the weighted sum with the remainder."""
    fakes.install(monkeypatch, TEMPLATES)
    law = cib_templates.load()
    sky = mlsky.simulate([148, 225, 353, 857], NSIDE, 1, components=["cib"], stokes="T")
    maps = fakes.templates(1, (12 * NSIDE**2,), law)
    quiet = np.ones(12 * NSIDE**2, bool)
    quiet[sky.layers["cib"][1].pixels] = False  # sources of the catalogue
    assert quiet.mean() > 0.5
    for band, row in ((0, 0), (2, 1), (3, 2)):
        np.testing.assert_allclose(sky["cib"][band, 0][quiet], maps[row][quiet], rtol=1e-6)
    expected = law.weights(225.0) @ maps[:3] + law.noise_weights(225.0) @ maps[3:]
    np.testing.assert_allclose(sky["cib"][1, 0][quiet], expected[quiet], rtol=1e-4, atol=1e-6)
    assert sky.meta["cib"]["templates_ghz"] == [148.0, 353.0, 857.0]


def test_another_band_changes_no_band(monkeypatch):
    fakes.install(monkeypatch, TEMPLATES)
    few = mlsky.simulate([93, 225], NSIDE, 1, components=["cib"])
    more = mlsky.simulate([27, 93, 225, 545], NSIDE, 1, components=["cib"])
    np.testing.assert_array_equal(few["cib"], more["cib"][[1, 2]])


def test_templates_on_disk_are_those_in_memory(monkeypatch, tmp_path):
    fakes.install(monkeypatch, TEMPLATES)
    options = {"nside": NSIDE, "seed": 1, "components": ["cib", "tsz"], "monopole": False}
    sky = mlsky.simulate([225, 545], **options)
    filed = mlsky.simulate([225, 545], **options, out=tmp_path / "sky.h5")
    for name in sky:
        np.testing.assert_array_equal(sky[name], filed[name])


def test_one_colour_is_named_in_the_provenance(sky):
    assert sky.meta["cib"] == {"templates_ghz": [148.0], "law": "one colour"}


@pytest.mark.parametrize("name", ["cmb", "tsz", "ksz", "cib", "radio"])
def test_frequencies_of_every_component(record, name):
    """Both ends of the range are made; beyond them nothing is begun."""
    ends = mlsky.simulate([20, 900], NSIDE, 1, components=[name])
    assert np.isfinite(ends.total).all()
    assert ends.band(0).std() > 0
    record.generate.clear()
    for nu in (19.9, 900.1):
        with pytest.raises(ValueError, match="outside the range of the laws"):
            mlsky.simulate([145, nu], NSIDE, 1, components=[name])
    assert not record.generate
