"""Files for other programs: read back by healpy, pixell and YAML, with names, units and headers."""

from __future__ import annotations

import types

import fakes
import healpy
import numpy as np
import pytest
import yaml
from astropy.io import fits
from pixell import enmap

import mlsky
from mlsky import sphere
from mlsky.plugins import pipelines
from mlsky.sphere import gaussian

NSIDE = 16
BANDS = ["so_lat/f090", mlsky.Band(145, name="f145"), "act_dr6/pa5_f150"]
BEAMS = [540.0, 500.0, 520.0]

#: float32 maps whose unit was changed.
ROUNDING = 2e-6


@pytest.fixture(autouse=True)
def record(monkeypatch):
    installed = fakes.install(monkeypatch)
    # beams take the real transforms
    fake = types.SimpleNamespace(**{**vars(gaussian), "draw_alm": sphere.gaussian.draw_alm})
    monkeypatch.setattr(sphere, "gaussian", fake)
    return installed


def healpix(**options):
    return mlsky.simulate(BANDS, NSIDE, 1, **{"components": ["cmb", "tsz", "cib"], **options})


def beamed():
    return healpix(beam=BEAMS)


def car(**options):
    geometry = enmap.fullsky_geometry(res=np.radians(6), variant="fejer1")
    options = {"components": ["cmb", "tsz", "cib"], **options}
    return mlsky.simulate(BANDS, geometry=geometry, seed=1, cmb_seed=7, **options)


def read_car(path):
    """As pixell reads it; pixell leaves files open that it opens itself."""
    with open(path, "rb") as file:
        return enmap.read_fits(file)


def test_pspipe(tmp_path):
    sky = car(unit="K_CMB")
    paths = pipelines.write_pspipe(sky, tmp_path / "fg", BEAMS)
    assert {path.name for path in paths} == {path.name for path in (tmp_path / "fg").iterdir()}
    assert {path.name for path in paths} == {
        f"{name}_{band}.fits"
        for name in ("cmb_seed7", "tsz", "cib")
        for band in ("so_lat_f090", "f145", "150_pa5")
    }
    found = read_car(tmp_path / "fg" / "cib_150_pa5.fits")
    expected = sky.smooth(BEAMS, "cib").band(2, "cib")
    np.testing.assert_allclose(found, 1e6 * expected, rtol=ROUNDING)
    assert found.dtype == np.dtype(">f4") or found.dtype == np.float32
    assert enmap.wcsutils.is_compatible(found.wcs, sky.geometry.wcs)
    header = fits.getheader(tmp_path / "fg" / "cib_150_pa5.fits")
    assert (header["POLCCONV"], header["UNITS"]) == ("COSMO", "uK_CMB")
    pipelines.write_pspipe(sky, tmp_path / "iau", convention="IAU", names=["a", "b", "c"])
    turned = read_car(tmp_path / "iau" / "cmb_seed7_b.fits")
    expected = 1e6 * sky.band(1, "cmb")
    np.testing.assert_allclose(turned, expected * [[[1]], [[1]], [[-1]]], rtol=ROUNDING)


@pytest.mark.parametrize("components", [None, ["tsz"]])
def test_map_based_simulations(tmp_path, components):
    sky = healpix()
    paths = pipelines.write_mbs(sky, tmp_path / "a", BEAMS, components=components, num=3)
    tag = "mlsky" if components is None else "tsz_mlsky"
    names = [f"mlsky_LAT_mission_f090_{tag}_healpix.fits", f"mlsky_sky_mission_f145_{tag}_"]
    assert paths[0].name == names[0]
    assert paths[1].name.startswith(names[1])
    header = fits.getheader(paths[0], 1)
    cards = {"TELESCOP": "LAT", "BAND": "f090", "TAG": tag, "NUM": 3, "NSPLITS": 1, "SPLIT": 1}
    cards |= {"ORDERING": "NESTED", "COORDSYS": "C", "TUNIT1": "uK_CMB", "ELL_MAX": 47}
    assert {key: header[key] for key in cards} == cards
    found = healpy.read_map(paths[0], field=None)  # as RING
    expected = sky.smooth(BEAMS, components and components[0]).band(0, components and "tsz")
    np.testing.assert_allclose(found, expected, rtol=ROUNDING)
    whole = car()
    (path, *_) = pipelines.write_mbs(whole, tmp_path / "b", components=components)
    assert path.name == f"mlsky_LAT_mission_f090_{tag}_car.fits"
    assert fits.getheader(path)["TELESCOP"] == "LAT"
    expected = whole.band(0, components and "tsz")
    np.testing.assert_allclose(read_car(path), expected, rtol=ROUNDING)


def test_toast(tmp_path):
    sky = healpix(stokes="T")
    paths = pipelines.write_toast(sky, tmp_path / "a")
    assert [path.name for path in paths] == [
        "mlsky_so_lat_f090.fits",
        "mlsky_f145.fits",
        "mlsky_act_dr6_pa5_f150.fits",
    ]
    maps, header = healpy.read_map(paths[1], field=None, h=True)
    np.testing.assert_allclose(1e6 * maps[0], sky.band(1)[0], rtol=ROUNDING)
    assert not maps[1:].any()
    assert dict(header)["TUNIT1"] == "K_CMB"
    (path, *_) = pipelines.write_toast(car(), tmp_path / "b")
    assert read_car(path).shape == (3, 30, 60)


def test_pyilc(tmp_path):
    sky = healpix()
    config, *others = pipelines.write_pyilc(
        sky, tmp_path / "ilc", BEAMS, preserve="tSZ", deproject=["CMB"], N_maps_xcorr=0
    )
    found = yaml.safe_load(config.read_text())
    order = [0, 2, 1]  # widest beams first
    assert found["beam_FWHM_arcmin"] == [BEAMS[i] for i in order]
    assert (found["beam_type"], found["N_freqs"], found["N_side"]) == ("Gaussians", 3, NSIDE)
    assert (found["ILC_preserved_comp"], found["ILC_deproj_comps"]) == ("tSZ", ["CMB"])
    assert (found["N_deproj"], found["ELLMAX"], found["N_maps_xcorr"]) == (1, 32, 0)
    assert len(found["GN_FWHM_arcmin"]) == found["N_scales"] - 1
    assert found["ELLMAX"] - found["taper_width"] > 10  # pyilc's own condition
    smooth = sky.smooth(BEAMS)
    for i, path in zip(order, found["freq_map_files"], strict=True):
        np.testing.assert_allclose(1e6 * healpy.read_map(path), smooth.band(i)[0], rtol=ROUNDING)
    assert found["bandpass_type"] == "ActualBandpasses"
    assert found["freq_bp_files"][2] == "delta"
    assert found["freqs_delta_ghz"][2] == 145
    nu, weights = np.loadtxt(found["freq_bp_files"][1], unpack=True)
    np.testing.assert_allclose(nu, sky.bands[2].nu_ghz, rtol=ROUNDING)
    np.testing.assert_allclose(weights, sky.bands[2].weights, rtol=ROUNDING)
    assert {config, *others} == set((tmp_path / "ilc").iterdir())


def test_pyilc_of_frequencies_and_tables(tmp_path):
    sky = mlsky.simulate([93, 145], NSIDE, 1, stokes="T", components="tsz")
    ell = np.arange(3 * NSIDE)
    tables = [np.exp(-ell * (ell + 1) * width) for width in (0.001, 0.002)]
    config, *_ = pipelines.write_pyilc(sky, tmp_path / "ilc", tables, lmax=40)
    found = yaml.safe_load(config.read_text())
    assert (found["bandpass_type"], found["freqs_delta_ghz"]) == ("DeltaBandpasses", [145.0, 93.0])
    assert "freq_bp_files" not in found
    assert found["beam_type"] == "1DBeams"
    at, values = np.loadtxt(found["beam_files"][0], unpack=True)
    np.testing.assert_array_equal(at, np.arange(41))
    np.testing.assert_allclose(values, tables[1][:41], rtol=1e-9)


BAD = [
    ("write_pspipe", healpix, {}, "PSpipe takes CAR maps"),
    ("write_pspipe", car, {"convention": "CMB"}, "convention='CMB'"),
    ("write_pspipe", car, {"names": ["a", "b"]}, "names=.*must be one per band, 3"),
    ("write_pspipe", car, {"names": ["a", "b", "a"]}, "bands a, b, a: two have one name"),
    ("write_mbs", healpix, {"components": ["dust"]}, "component 'dust': this sky has cmb"),
    ("write_mbs", healpix, {"tag": "x" * 80}, "characters, at most 99 are allowed"),
    ("write_mbs", healpix, {"num": -1}, "num=-1"),
    ("write_toast", healpix, {"beam": np.nan}, "beam=nan"),
    ("write_pyilc", car, {"beam": 540}, "this sky is on rectangular pixels"),
    ("write_pyilc", healpix, {"beam": [5, 3]}, "2 beams for 3 bands"),
    ("write_pyilc", healpix, {"beam": 540, "deproject": ["a", "b", "c"]}, "3 bands allow 2"),
    ("write_pyilc", healpix, {"beam": 540, "lmax": 100}, "lmax=100"),
    ("write_toast", beamed, {"beam": 540}, "beam=540: the sky has beams already .Gaussian, FWHM"),
    ("write_pyilc", beamed, {"beam": BEAMS}, "the sky has beams already"),
]


@pytest.mark.parametrize(("name", "make", "options", "message"), BAD)
def test_bad_input_writes_nothing(tmp_path, name, make, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        getattr(pipelines, name)(make(), tmp_path / "a", **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("a/*"))


def test_folders(tmp_path):
    sky = healpix()
    pipelines.write_toast(sky, tmp_path / "a")
    with pytest.raises(ValueError, match=r"mlsky_so_lat_f090.fits: exists; .* or overwrite=True"):
        pipelines.write_toast(sky, tmp_path / "a")
    pipelines.write_toast(sky, tmp_path / "a", overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file: is a file"):
        pipelines.write_toast(sky, tmp_path / "file")
    with pytest.raises(ValueError, match="does not exist, make it first"):
        pipelines.write_toast(sky, tmp_path / "b" / "c")
    sky.write(tmp_path / "total.fits")
    total = mlsky.Sky.read(tmp_path / "total.fits")
    with pytest.raises(ValueError, match="this sky holds the total alone"):
        pipelines.write_mbs(total, tmp_path / "d", components=["tsz"])
    assert len(pipelines.write_mbs(total, tmp_path / "d")) == 3
