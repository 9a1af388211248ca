"""Sets cut from maps: values against closed forms, fluxes, resumed runs, refusals."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple

import h5py
import numpy as np
import pytest

from mlsky.cutting import areas, patch_sets, projection
from mlsky.errors import MissingDependencyError
from mlsky.frequency.bands import jy_per_sr_per_uk

healpy = pytest.importorskip("healpy")

NSIDE, PIXEL, SIZE = 64, 15.0, 16
ROTATIONS = [(0, 0), (15, 20), (75, 80)]

#: Of the amplitude: what the issue asks for, of harmonics and of cubic interpolation.
HARMONIC_TOL, CUBIC_TOL = 1e-4, 1e-3

AMPLITUDE = {"kappa": 0.2, "ksz": 4.0, "tsz": 8.0}


def wave(name, v):
    x, y, z = v
    shape = {
        "kappa": 0.5 * z + x * y - 0.7 * y * z,
        "ksz": x * (x * x - 3 * y * y) - z,
        "tsz": -1.5 + y + z * (5 * z * z - 3) / 2,
    }
    return AMPLITUDE[name] * shape[name]


def everywhere(nside=NSIDE):
    return np.stack(healpy.pix2vec(nside, np.arange(12 * nside**2)))


@pytest.fixture(scope="module")
def waves():
    return {name: wave(name, everywhere()) for name in AMPLITUDE}


def make(path, sky, patches=12, **options):
    options = {
        "pixel_arcmin": PIXEL,
        "size": SIZE,
        "rotations": ROTATIONS,
        "progress": False,
        "find": False,
        "flux_cut_mjy": None,
        "seed": 1,
    } | options
    patch_sets.cut(path, sky, patches, options.pop("seed"), **options)
    with h5py.File(path) as file:
        data = {name: file[name][:] for name in file}
        return data, dict(file.attrs)


def sky_vectors(place, pixel=PIXEL, size=SIZE):
    """Where on the sky the pixels of a patch came from."""
    v = areas.EquatorialBand(pixel).vectors(
        place[1] + np.arange(size)[:, None], place[2] + np.arange(size)[None]
    )
    return np.einsum("ij,jyx->iyx", areas.matrix(ROTATIONS[place[0]]).T, v)


@pytest.mark.parametrize(("method", "tol"), [("harmonic", HARMONIC_TOL), ("cubic", CUBIC_TOL)])
def test_patches_are_the_field(method, tol, waves, tmp_path):
    got, attributes = make(tmp_path / "set.h5", waves, method=method, lmax=32, windows=False)
    assert attributes["pixel_arcmin"] == PIXEL
    assert attributes["done"] == 12
    assert json.loads(attributes["source"])["maps"]["tsz"]["unit"] == "uK_CMB"
    assert len(np.unique(got["places"][:, 0])) == 3
    for name, amplitude in AMPLITUDE.items():
        assert got[name].dtype == np.float32
        assert got[name].shape == (12, SIZE, SIZE)
        want = np.stack([wave(name, sky_vectors(place)) for place in got["places"]])
        np.testing.assert_allclose(got[name], want, atol=tol * amplitude)


def test_training_reads_it(waves, tmp_path):
    data = pytest.importorskip("mlsky.training.data")
    make(tmp_path / "set.h5", waves, method="cubic")
    crops = data.Crops(tmp_path / "set.h5", ("kappa", "ksz", "tsz"), size=SIZE)
    assert crops.batch(0, 2).shape == (2, 3, SIZE, SIZE)


def test_fields_are_scaled_and_converted(waves, tmp_path):
    sky = {"tsz": waves["tsz"] * 1e-6}
    options = {"method": "cubic", "patches": 3}
    want, _ = make(tmp_path / "one.h5", {"tsz": waves["tsz"]}, **options)
    options |= {"units": {"tsz": "K_CMB"}, "scale": {"tsz": 0.75}}
    got, _ = make(tmp_path / "two.h5", sky, **options)
    np.testing.assert_allclose(got["tsz"], 0.75 * want["tsz"], rtol=1e-5, atol=1e-5)


def test_car_and_healpix_give_the_same(waves, tmp_path):
    enmap = pytest.importorskip("pixell.enmap")
    shape, wcs = enmap.fullsky_geometry(res=np.radians(1))
    dec, ra = enmap.posmap(shape, wcs)
    v = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    sky = {name: enmap.ndmap(np.asarray(wave(name, v)), wcs) for name in AMPLITUDE}
    for method, tol in (("harmonic", HARMONIC_TOL), ("cubic", CUBIC_TOL)):
        options = {"method": method, "lmax": 16, "windows": False}
        got, _ = make(tmp_path / f"{method}.h5", sky, 6, **options)
        for name in AMPLITUDE:
            want = np.stack([wave(name, sky_vectors(place)) for place in got["places"]])
            np.testing.assert_allclose(got[name], want, atol=tol * AMPLITUDE[name])


def test_catalogue_sources_stand_where_they_should(tmp_path):
    rng = np.random.Generator(np.random.Philox(3))
    z, ra = rng.uniform(-1, 1, 30000), rng.uniform(0, 360, 30000)
    flux = rng.uniform(1, 10, 30000)
    table = {"ra": ra, "dec": np.degrees(np.arcsin(z)), "flux_mjy": flux}
    got, _ = make(tmp_path / "set.h5", {}, catalogues={"radio": table}, flux_cut_mjy=7)
    band, total = areas.EquatorialBand(PIXEL), 0
    v = np.stack([*(np.sqrt(1 - z**2) * f(np.radians(ra)) for f in (np.cos, np.sin)), z])
    for place, patch in zip(got["places"], got["radio"], strict=True):
        # by angles, not by the package's pixel numbers
        x, y, w = areas.matrix(ROTATIONS[place[0]]) @ v
        row = np.degrees(np.arcsin(w)) * 60 / PIXEL + (band.shape[0] - 1) / 2 - place[1]
        column = (band.shape[1] - 1) / 2 - np.degrees(np.arctan2(y, x)) * 60 / PIXEL - place[2]
        column = (column + 0.5) % band.shape[1] - 0.5
        row, column = np.round(row).astype(int), np.round(column).astype(int)
        inside = (row >= 0) & (row < SIZE) & (column >= 0) & (column < SIZE) & (flux <= 7)
        want = np.zeros((SIZE, SIZE))
        np.add.at(want, (row[inside], column[inside]), flux[inside])
        total += inside.sum()
        dec = np.radians((place[1] + np.arange(SIZE) - (band.shape[0] - 1) / 2) * PIXEL / 60)
        step = np.radians(PIXEL / 60)
        area = step * (np.sin(dec + step / 2) - np.sin(dec - step / 2))
        mjy = patch * area[:, None] * jy_per_sr_per_uk(148.0) * 1e3
        np.testing.assert_allclose(mjy, want, rtol=1e-5, atol=1e-6)
    assert total > 60


def test_sources_found_on_a_map_keep_their_flux(tmp_path):
    pytest.importorskip("photutils")
    spatial = pytest.importorskip("scipy.spatial")
    nside = 128
    pixel = np.arange(500, 12 * nside**2, 97)
    tree = spatial.cKDTree(np.stack(healpy.pix2vec(nside, pixel), axis=1))
    near = tree.query_pairs(8 * healpy.nside2resol(nside), output_type="ndarray")
    pixel = np.delete(pixel, np.unique(near[:, 0]))  # what is left are single sources
    rng = np.random.Generator(np.random.Philox(4))
    flux = rng.uniform(50, 200, pixel.size)
    mjy = healpy.nside2pixarea(nside) * jy_per_sr_per_uk(148.0) * 1e3
    sky = np.full(12 * nside**2, 0.5)
    sky[pixel] += flux / mjy
    got, _ = make(
        tmp_path / "set.h5", {"cib": sky}, find=True, find_mjy=20, flux_cut_mjy=150, patches=60
    )
    v, kept = np.stack(healpy.pix2vec(nside, pixel)), flux <= 150
    hits = 0
    for place, patch in zip(got["places"], got["cib"], strict=True):
        x, y, w = areas.matrix(ROTATIONS[place[0]]) @ v
        band = areas.EquatorialBand(PIXEL)
        geometry = band.geometry
        number = geometry.pixel(np.arccos(w), np.arctan2(y, x) % (2 * np.pi))
        row, column = np.divmod(number, band.shape[1])
        column = (column - place[2]) % band.shape[1]
        row = row - place[1]
        inside = kept & (number >= 0) & (row >= 0) & (row < SIZE) & (column < SIZE)
        area = geometry.area(number[inside])
        want = np.full((SIZE, SIZE), 0.5)
        uk = flux[inside] / area / jy_per_sr_per_uk(148.0) / 1e3
        np.add.at(want, (row[inside], column[inside]), uk)
        hits += inside.sum()
        np.testing.assert_allclose(patch, want, rtol=1e-4)
    assert hits > 20


def test_what_is_nowhere_negative_stays_so(tmp_path):
    rng = np.random.Generator(np.random.Philox(5))
    got, _ = make(tmp_path / "set.h5", {"cib": rng.exponential(5, 12 * NSIDE**2)}, patches=6)
    assert got["cib"].min() >= 0
    shifted = rng.exponential(5, 12 * NSIDE**2) - 5  # without its mean: negative, and left so
    got, _ = make(tmp_path / "other.h5", {"cib": shifted}, patches=6)
    assert got["cib"].min() < -1


def test_parts_lie_in_their_own_areas_on_coarse_maps(waves, tmp_path):
    split = areas.Split(seed=5)
    for part in areas.PARTS:
        options = {"part": part, "split_seed": 5, "method": "cubic", "patches": 6}
        got, _ = make(tmp_path / f"{part}.h5", {"kappa": waves["kappa"]}, **options)
        for place in got["places"]:
            assert np.all(split.part_of(sky_vectors(place)) == areas.PARTS.index(part))


class Stopped(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 4, 5])
def test_an_interrupted_run_goes_on_to_the_same_bits(after, waves, tmp_path, monkeypatch):
    options = {"lmax": 32}
    want, attributes = make(tmp_path / "whole.h5", waves, **options)
    harmonic, calls = projection.harmonic, []

    def stops(*arguments):
        if len(calls) == after:
            raise Stopped
        calls.append(1)
        return harmonic(*arguments)

    monkeypatch.setattr(projection, "harmonic", stops)
    out = tmp_path / "set.h5"
    with pytest.raises(Stopped):
        make(out, waves, **options)
    assert not out.exists()
    part = tmp_path / "set.h5.part"
    with h5py.File(part) as file:
        assert file.attrs["steps"] == after
        assert file.attrs["done"] == 0
    calls.clear()
    monkeypatch.setattr(projection, "harmonic", lambda *a: calls.append(1) or harmonic(*a))
    with pytest.raises(ValueError, match="other settings"):
        make(out, waves, **options, seed=2)
    with pytest.raises(ValueError, match="other settings"):
        make(out, waves | {"ksz": waves["ksz"] * 1.01}, **options)
    got, again = make(out, waves, **options)
    assert len(calls) == 9 - after
    assert not part.exists()
    assert again == attributes
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])


def test_a_part_that_is_something_else(waves, tmp_path):
    part = tmp_path / "set.h5.part"
    part.write_bytes(b"not HDF5")
    with pytest.raises(ValueError, match="cannot be resumed"):
        make(tmp_path / "set.h5", waves)
    part.unlink()
    with h5py.File(part, "w") as file:
        file.attrs["done"] = 3  # a painted set's
    with pytest.raises(ValueError, match="other settings"):
        make(tmp_path / "set.h5", waves)


def test_too_little_disk(waves, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 0, 2**30))
    with pytest.raises(ValueError, match=r"2\.\d\d GiB needed and 1\.00 GiB free"):
        make(tmp_path / "set.h5", waves, patches=800_000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"sky": {}}, "no field"),
        ({"sky": []}, "mapping"),
        ({"sky": {"dust": None}}, "'dust'"),
        ({"require": ("kappa", "cib", "radio")}, "cib, radio are missing"),
        ({"catalogues": {"ksz": {}}}, "'ksz'"),
        ({"method": "nearest"}, "method='nearest'"),
        ({"units": {"tzs": "y"}}, "'tzs'"),
        ({"nu_ghz": {"tzs": 93}}, "'tzs'"),
        ({"scale": {"tzs": 0.75}}, "'tzs'"),
        ({"lmax": 1000}, "lmax=1000"),
        ({"flux_cut_mjy": -1}, "flux_cut_mjy=-1"),
        ({"part": "dev"}, "part='dev'"),
        ({"seed": "one"}, "seed='one'"),
        ({"pixel_arcmin": 0.7}, "pixel_arcmin=0.7"),
        ({"rotations": [1]}, "rotations="),
    ],
)
def test_refusals(change, line, waves, tmp_path):
    sky = change.pop("sky", waves) if "sky" in change else waves
    with pytest.raises(ValueError, match=line) as caught:
        make(tmp_path / "set.h5", sky, **change)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_refusals_of_maps(waves, tmp_path, monkeypatch):
    out = tmp_path / "set.h5"
    coarse = {"ksz": wave("ksz", everywhere(32))}
    with pytest.raises(ValueError, match="kappa has nside 64 and ksz has nside 32"):
        make(out, waves | coarse)
    cib = {"cib": np.abs(waves["ksz"])}
    with pytest.raises(ValueError, match="needs sources"):
        make(out, cib, flux_cut_mjy=7)
    with pytest.raises(ValueError, match="find_mjy=0"):
        make(out, cib, find=True, find_mjy=0)
    enmap = pytest.importorskip("pixell.enmap")
    shape, wcs = enmap.fullsky_geometry(res=np.radians(4))
    grid = enmap.ndmap(np.random.Generator(np.random.Philox(1)).random(shape), wcs)
    with pytest.raises(ValueError, match="HEALPix maps only"):
        make(out, {"cib": grid}, find=True)
    monkeypatch.setitem(__import__("sys").modules, "photutils.detection", None)
    with pytest.raises(MissingDependencyError, match=r"mlsky\[cut\]"):
        make(out, cib, find=True)
    out.write_bytes(b"")
    with pytest.raises(ValueError, match="exists already"):
        make(out, waves)
    with pytest.raises(ValueError, match="does not exist"):
        make(tmp_path / "no" / "set.h5", waves)
