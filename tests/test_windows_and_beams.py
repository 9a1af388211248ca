"""Pixel windows, beams and flux cuts of `mlsky.simulate`, over quick stand-ins (tests/fakes.py)."""

from __future__ import annotations

import fakes
import numpy as np
import pytest
from pixell import enmap, utils

import mlsky
from mlsky.sources import catalogue, cuts
from mlsky.sphere import pixel_window
from mlsky.sphere.geometry import Healpix

NSIDE = 16
FREQS = [93, 225]
FWHM = 400.0

#: float32 sums in another order, relative to the rms.
ROUNDING = 1e-5
#: Of the analysis of white noise on HEALPix.
QUADRATURE = 0.02


@pytest.fixture
def record(monkeypatch):
    return fakes.install(monkeypatch)


def places(kind):
    if kind == "healpix":
        return {"nside": NSIDE}
    return {"geometry": enmap.fullsky_geometry(5 * utils.degree)}


@pytest.mark.parametrize("kind", ["healpix", "car"])
def test_averages_are_samples_times_the_window(record, kind):
    """The CMB and kappa get the window; the foregrounds have it, and lose it."""
    names = ["cmb", "tsz", "ksz"]
    averages = mlsky.simulate(FREQS, seed=1, components=names, **places(kind))
    samples = mlsky.simulate(FREQS, seed=1, components=names, pixel_window=False, **places(kind))
    assert averages.meta["pixel_window"]
    assert not samples.meta["pixel_window"]
    geometry = averages.geometry
    cmb = np.array(samples["cmb"][0])
    pixel_window.average(cmb, "TQU", geometry, None, cmb, geometry.lmax)
    np.testing.assert_allclose(averages["cmb"][0], cmb, atol=ROUNDING * cmb.std())
    for name in ("tsz", "ksz"):
        maps = np.array(averages[name][0, :1])
        pixel_window.apply(maps, geometry, power=-1)
        np.testing.assert_allclose(samples[name][0, :1], maps, atol=ROUNDING * maps.std())
    assert np.abs(averages.kappa - samples.kappa).max() > 10 * ROUNDING * samples.kappa.std()


def test_a_patch_has_the_window_of_the_whole(record):
    """The fake lensing evaluates the multipoles of kappa, so samples are a field."""
    whole, wcs = enmap.fullsky_geometry(5 * utils.degree)
    cut = enmap.slice_geometry(whole, wcs, (slice(10, 24), slice(12, 40)))
    full = mlsky.simulate(93, geometry=(whole, wcs), components="cmb", stokes="T")
    part = mlsky.simulate(93, geometry=cut, components="cmb", stokes="T")
    assert part.shape[-2:] == (14, 28)
    np.testing.assert_allclose(
        part.kappa, full.kappa[10:24, 12:40], atol=10 * ROUNDING * full.kappa.std()
    )


@pytest.mark.parametrize("kind", ["healpix", "car"])
def test_beams_are_those_of_smooth(record, kind):
    plain = mlsky.simulate(FREQS, seed=1, **places(kind))
    beamed = mlsky.simulate(FREQS, seed=1, beam=[FWHM, 1.5 * FWHM], **places(kind))
    assert beamed.keys() == plain.keys()
    assert beamed.meta["beams"] == ["Gaussian, FWHM 400 arcmin", "Gaussian, FWHM 600 arcmin"]
    for name in plain:
        expected = plain.smooth([FWHM, 1.5 * FWHM], name)[name]
        np.testing.assert_allclose(beamed[name], expected, atol=ROUNDING * expected.std())
    total = plain.smooth([FWHM, 1.5 * FWHM]).total
    np.testing.assert_allclose(beamed.total, total, atol=10 * ROUNDING * total.std())
    own = [mlsky.Band(93, beam=FWHM), mlsky.Band(225).with_beam(1.5 * FWHM)]
    again = mlsky.simulate(own, seed=1, **places(kind))
    np.testing.assert_array_equal(again.total, beamed.total)
    np.testing.assert_array_equal(beamed.kappa, plain.kappa)


def test_beams_without_pixel_window_are_b_l_alone(record):
    """tSZ averages over the window, times b_l over W; sources as sampled profiles."""
    sky = mlsky.simulate(FREQS, NSIDE, 1, beam=FWHM, pixel_window=False)
    plain = mlsky.simulate(FREQS, NSIDE, 1)
    expected = plain.smooth(FWHM, "tsz").band(0, "tsz")[:1]
    pixel_window.apply(expected, Healpix(NSIDE), power=-1)
    assert (sky.band(0, "tsz")[:1] - expected).std() < QUADRATURE * expected.std()
    # flux is the same either way
    area = Healpix(NSIDE).area()
    with_window = plain.smooth(FWHM, "radio")["radio"][0, 0].sum() * area
    assert sky["radio"][0, 0].sum() * area == pytest.approx(with_window, rel=0.02)


@pytest.mark.parametrize("options", [{"beam": FWHM}, {"beam": FWHM, "pixel_window": False}, {}])
def test_on_disk_as_in_memory(record, tmp_path, options):
    sky = mlsky.simulate(FREQS, NSIDE, 1, **options)
    filed = mlsky.simulate(FREQS, NSIDE, 1, out=tmp_path / "sky.h5", **options)
    assert filed.keys() == sky.keys()
    for name in sky:
        np.testing.assert_array_equal(sky[name], filed[name])
    np.testing.assert_array_equal(sky.kappa, filed.kappa)
    assert filed.meta["beams"] == sky.meta["beams"]
    names = ["tsz", "ksz", "cmb"]
    bare = mlsky.simulate(FREQS, NSIDE, 1, components=names, pixel_window=False)
    disk = tmp_path / "bare.h5"
    filed = mlsky.simulate(FREQS, NSIDE, 1, components=names, pixel_window=False, out=disk)
    np.testing.assert_array_equal(bare.total, filed.total)
    polarised = mlsky.simulate(FREQS, NSIDE, 1, stokes="QU", out=tmp_path / "qu.h5", **options)
    assert polarised["tsz"].max() == 0
    assert polarised["cmb"].std() > 0


def test_a_flux_cut_in_another_band(record):
    sky = mlsky.simulate(FREQS, NSIDE, 1, flux_cut=(20, 225))
    flux = catalogue.band_fluxes(sky.catalog, 225)[0]
    np.testing.assert_array_equal(sky.catalog["in_map"], flux <= 20)
    assert sky.meta["flux_cuts"] == [[20.0, "225"]]
    everything = mlsky.simulate(FREQS, NSIDE, 1)
    cut = everything.cut(20, 225)
    for name in ("cib", "radio"):
        np.testing.assert_allclose(sky[name], cut[name], atol=1e-4 * everything[name].max())


def test_one_flux_cut_per_band(record, tmp_path):
    pairs = [(20, 93), (15, 225)]
    sky = mlsky.simulate(FREQS, NSIDE, 1, flux_cut=pairs)
    for index, pair in enumerate(pairs):
        alone = mlsky.simulate(FREQS, NSIDE, 1, flux_cut=pair)
        np.testing.assert_array_equal(sky.band(index), alone.band(index))
        np.testing.assert_array_equal(cuts.in_band(sky.catalog, index), alone.catalog["in_map"])
    np.testing.assert_array_equal(sky.catalog["in_map"], sky.catalog["in_bands"].any(1))
    sky.write(tmp_path / "sky.h5")
    again = mlsky.Sky.read(tmp_path / "sky.h5")
    np.testing.assert_array_equal(again.catalog["in_bands"], sky.catalog["in_bands"])
    np.testing.assert_allclose(
        again.smooth(FWHM, "radio")["radio"], sky.smooth(FWHM, "radio")["radio"]
    )
    lower = sky.cut(5, 148)
    expected = mlsky.simulate(FREQS, NSIDE, 1, flux_cut=(5, 148))
    atol = 1e-4 * sky["radio"].max()
    np.testing.assert_allclose(
        lower["radio"][1, 0], np.minimum(expected["radio"], sky["radio"])[1, 0], atol=atol
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beam": -1}, "beam=-1: must be FWHM"),
        ({"beam": [1.0]}, "1 beams for 2 bands"),
        ({"beam": np.array([1.0, np.nan, 0.5])}, "beam: nan at l=1"),
        ({"beam": np.array([1.0, 0.9, 0.8])}, "beam of 3 multipoles, 0.8 at the last"),
        ({"pixel_window": False}, "pixel_window=False without beams: point sources"),
        ({"pixel_window": 0}, "pixel_window=0: must be True or False"),
        ({"flux_cut": 15}, r"flux_cut=15: must be \(mJy, GHz or band\)"),
        ({"flux_cut": [(15, 150)]}, "1 cuts for 2 bands"),
        ({"flux_cut": (15, 150), "flux_cut_mjy": 15}, "give one of the two"),
        ({"freqs": [mlsky.Band(93, beam=1), 225]}, "band 225 has no beam and others have"),
        ({"freqs": [mlsky.Band(93, beam=1)] * 2, "beam": 1}, "beam= beside bands that have"),
    ],
)
def test_bad_input_is_one_line_before_any_work(record, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        mlsky.simulate(**{"freqs": FREQS, "nside": NSIDE, **change})
    assert "\n" not in str(caught.value)
    assert not record.generate


def test_beams_need_cylindrical_pixels(record):
    tan = enmap.geometry(np.radians([[-5, 5], [5, -5]]), res=np.radians(0.5), proj="tan")
    with pytest.raises(ValueError, match="beams need HEALPix or cylindrical pixels"):
        mlsky.simulate(93, geometry=tan, beam=60)


def test_a_sky_with_beams_cannot_be_cut(record):
    sky = mlsky.simulate(FREQS, NSIDE, 1, beam=FWHM)
    with pytest.raises(ValueError, match="the sources of this sky have a beam"):
        sky.cut(15)
    assert not sky.mask(50, 148, radius_arcmin=300).all()
