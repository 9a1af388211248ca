"""Sky files: what is written is read back, by us and by healpy and pixell; nothing half done."""

from __future__ import annotations

import os

import fakes
import h5py
import healpy
import numpy as np
import pytest
from astropy.io import fits
from pixell import enmap

import mlsky
from mlsky.io import content, hdf5
from mlsky.io import fits as fits_files
from mlsky.sky import Sky
from mlsky.sphere.geometry import Car, Healpix

NSIDE = 16
FREQS = [93, 145, 225]


@pytest.fixture
def record(monkeypatch):
    return fakes.install(monkeypatch)


@pytest.fixture
def sky(record):
    return mlsky.simulate(FREQS, NSIDE, 1, flux_cut_mjy=20)


@pytest.fixture
def car_sky(record):
    return mlsky.simulate(FREQS, seed=1, geometry=enmap.fullsky_geometry(res=np.radians(10)))


def _same_table(a, b):
    assert a.colnames == b.colnames
    for name in a.colnames:
        np.testing.assert_array_equal(a[name], b[name])
        assert a[name].dtype.kind == b[name].dtype.kind
        assert (a[name].unit or "") == (b[name].unit or "")


@pytest.mark.parametrize("suffix", ["h5", "hdf5", "H5"])
@pytest.mark.parametrize("which", ["sky", "car_sky"])
def test_hdf5_round_trip_to_the_bit(which, suffix, request, tmp_path):
    sky = request.getfixturevalue(which)
    path = tmp_path / f"sky.{suffix}"
    sky.write(path)
    back = Sky.read(path)
    assert back.keys() == sky.keys()
    for name in sky:
        np.testing.assert_array_equal(back[name], sky[name])
    np.testing.assert_array_equal(back.total, sky.total)
    np.testing.assert_array_equal(back.kappa, sky.kappa)
    np.testing.assert_array_equal(back.freqs_ghz, sky.freqs_ghz)
    assert (back.unit, back.stokes, back.meta) == (sky.unit, sky.stokes, sky.meta)
    assert repr(back) == repr(sky)
    _same_table(back.catalog, sky.catalog)
    assert back.catalog.meta == sky.catalog.meta
    assert back.catalog["ra"].description == sky.catalog["ra"].description


def test_an_hdf5_file_does_not_grow_with_the_bands(record, tmp_path):
    sizes = []
    for freqs in ([150], np.linspace(90, 280, 20)):
        path = tmp_path / f"{len(freqs)}.h5"
        mlsky.simulate(freqs, 64, 1, components=["tsz", "ksz"], stokes="T").write(path)
        sizes.append(path.stat().st_size)
    assert sizes[1] < 1.05 * sizes[0]


@pytest.mark.parametrize("ordering", ["RING", "NESTED"])
def test_healpix_fits_is_read_by_healpy(sky, ordering, tmp_path):
    path = tmp_path / "sky.fits"
    sky.write(path, ordering=ordering)
    for band, total in enumerate(sky.total):
        maps = healpy.read_map(path, field=(0, 1, 2), hdu=band + 1, dtype=np.float32)
        np.testing.assert_array_equal(maps, total)
    kappa = healpy.read_map(path, hdu=4, dtype=np.float32)
    np.testing.assert_array_equal(kappa, sky.kappa)
    header = fits.getheader(path, 2)
    assert (header["ORDERING"], header["COORDSYS"], header["POLCCONV"]) == (ordering, "C", "COSMO")
    assert (header["TUNIT1"], header["FREQ"]) == ("uK_CMB", 145.0)


def test_car_fits_is_read_by_pixell(car_sky, tmp_path):
    path = tmp_path / "sky.fits"
    car_sky.write(path)
    with path.open("rb") as file:  # pixell leaves the files it opens to the garbage collector
        maps = enmap.read_fits(file)
    np.testing.assert_array_equal(maps, car_sky.total)
    assert maps.wcs.wcs.compare(car_sky.geometry.wcs.wcs)
    assert fits.getheader(path)["BUNIT"] == "uK_CMB"


@pytest.mark.parametrize("ordering", ["RING", "NESTED"])
@pytest.mark.parametrize("which", ["sky", "car_sky"])
def test_fits_gives_the_total(which, ordering, request, tmp_path):
    sky = request.getfixturevalue(which)
    path = tmp_path / "sky.fits"
    sky.write(path, ordering=ordering)
    back = Sky.read(path)
    np.testing.assert_array_equal(back.total, sky.total)
    np.testing.assert_array_equal(back.kappa, sky.kappa)
    assert back.total.dtype == np.float32
    assert back.total.dtype.isnative
    assert (back.keys(), back.meta, back.unit) == ((), sky.meta, sky.unit)
    _same_table(back.catalog, sky.catalog)
    with pytest.raises(KeyError, match=r"component 'cib': .*sky.fits holds the total alone"):
        back["cib"]
    again = tmp_path / "again.h5"
    back.write(again)
    np.testing.assert_array_equal(Sky.read(again).total, sky.total)


@pytest.mark.parametrize("which", ["sky", "car_sky"])
def test_fits_of_one_component(which, request, tmp_path):
    sky = request.getfixturevalue(which)
    path = tmp_path / "cib.fits"
    sky.write(path, component="cib")
    back = Sky.read(path)
    assert back.keys() == ("cib",)
    np.testing.assert_array_equal(back["cib"], sky["cib"])
    with pytest.raises(KeyError, match=r"component 'tsz': .*cib.fits holds cib"):
        back["tsz"]


def test_provenance_in_the_header(sky, tmp_path):
    path = tmp_path / "sky.fits"
    sky.write(path)
    header = fits.getheader(path)
    assert header["MLSKY"] == mlsky.__version__
    assert (header["SEED"], header["CMBSEED"], header["WEIGHTS"]) == (1, 1, "default")
    assert header["WSHA256"] == sky.meta["weights"]["sha256"]
    assert header["COMPONEN"] == "total"
    sky.write(tmp_path / "sky.h5")
    with h5py.File(tmp_path / "sky.h5") as file:
        assert file.attrs["created"].endswith(b"+00:00")
        assert set(file["components"]) == set(sky)


def test_bands_are_kept(record, tmp_path):
    """To the bit, names too, next to single frequencies; which alone leave the file as it was."""
    bands = [
        93,
        mlsky.Band([140, 150, 161], [1, 2, 0.5]),
        "so_lat/f230",
        mlsky.Band(280, name="f280"),
    ]
    sky = mlsky.simulate(bands, 16, 1, stokes="T")
    for suffix in ("h5", "fits"):
        sky.write(tmp_path / f"bands.{suffix}")
        for lazy in (False, True):
            back = Sky.read(tmp_path / f"bands.{suffix}", lazy=lazy)
            assert back.bands == sky.bands
            assert [band.name for band in back.bands] == [None, None, "so_lat/f230", "f280"]
    plain = mlsky.simulate([93, 150], 16, 1, stokes="T")
    plain.write(tmp_path / "plain.h5")
    with h5py.File(tmp_path / "plain.h5") as file:
        assert "bands" not in file
    assert Sky.read(tmp_path / "plain.h5").bands == plain.bands


def test_a_sky_without_kappa_or_catalogue(tmp_path):
    sky = Sky(freqs_ghz=[150], geometry=Healpix(1), stokes="T", unit="uK_CMB", components={})
    for suffix in ("h5", "fits"):
        sky.write(tmp_path / f"empty.{suffix}")
        back = Sky.read(tmp_path / f"empty.{suffix}")
        assert back.kappa is None
        assert back.catalog is None
        np.testing.assert_array_equal(back.total, np.zeros((1, 1, 12)))


@pytest.mark.parametrize(
    "geometry",
    [
        Healpix(64),
        Car(*enmap.fullsky_geometry(res=np.radians(0.5))),
        Car(*enmap.band_geometry(np.radians([-63, 23]), res=np.radians(0.5))),
        Car(*enmap.geometry(np.radians([[-5, 7], [5, -7]]), res=np.radians(1 / 7), proj="car")),
        Car(*enmap.geometry(np.radians([[50, 7], [60, -7]]), res=np.radians(1 / 7), proj="tan")),
        Car(*enmap.geometry(np.radians([[-5, 7], [5, -7]]), res=np.radians(0.1), proj="cea")),
    ],
    ids=["healpix", "fullsky", "band", "car", "tan", "cea"],
)
def test_a_geometry_is_described_exactly(geometry):
    back = content.build_geometry(content.describe_geometry(geometry))
    assert back.shape == geometry.shape
    if geometry.kind == "car":
        x, y = np.meshgrid(np.arange(0, back.shape[1], 7), np.arange(0, back.shape[0], 5))
        expected = geometry.wcs.wcs_pix2world(x.ravel(), y.ravel(), 0)
        np.testing.assert_array_equal(back.wcs.wcs_pix2world(x.ravel(), y.ravel(), 0), expected)


def test_an_existing_file_is_kept(sky, tmp_path):
    path = tmp_path / "sky.h5"
    path.write_text("precious")
    with pytest.raises(ValueError, match=r"sky.h5: exists; .*overwrite=True \(--overwrite\)"):
        sky.write(path)
    assert path.read_text() == "precious"
    sky.write(path, overwrite=True)
    assert Sky.read(path).keys() == sky.keys()
    assert os.listdir(tmp_path) == ["sky.h5"]


def test_where_nothing_can_be_written(sky, tmp_path):
    folder = tmp_path / "folder.h5"
    folder.mkdir()
    for path, message in (
        (tmp_path / "sky.txt", r"sky.txt: suffix must be one of .h5, .hdf5, .fits"),
        (tmp_path / "sky", "suffix must be one of"),
        (folder, "is a folder"),
        (tmp_path / "none" / "sky.h5", "does not exist, make it first"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            sky.write(path, overwrite=True)
        assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["folder.h5"]


def test_a_folder_that_refuses(sky, tmp_path, monkeypatch):
    """Root may write everywhere, so the refusal is made here."""

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ValueError, match=r"cannot be written to \(Permission denied\)"):
        sky.write(tmp_path / "sky.h5")


@pytest.mark.parametrize("suffix", ["h5", "fits"])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_failure_leaves_nothing(sky, suffix, failure, tmp_path, monkeypatch):
    path = tmp_path / f"sky.{suffix}"
    path.write_text("precious")

    def fail(*args):
        raise failure

    # Half way through: part of the file is written by then.
    module, name = (hdf5, "_write_table") if suffix == "h5" else (fits_files, "_append_tables")
    monkeypatch.setattr(module, name, fail)
    expected = KeyboardInterrupt if failure is KeyboardInterrupt else mlsky.MlskyError
    with pytest.raises(expected):
        sky.write(path, overwrite=True)
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_text() == "precious"


@pytest.mark.parametrize("suffix", ["h5", "fits"])
def test_damaged_and_foreign_files(sky, suffix, tmp_path):
    whole = tmp_path / f"sky.{suffix}"
    sky.write(whole)
    cut = tmp_path / f"cut.{suffix}"
    size = whole.stat().st_size
    cut.write_bytes(whole.read_bytes()[: size // 2])
    # The last part, the catalogue, is missing whole.
    tail = tmp_path / f"tail.{suffix}"
    end = size - 10
    if suffix == "fits":
        with fits.open(whole) as file:
            end = file[-1]._header_offset
    tail.write_bytes(whole.read_bytes()[:end])
    noise = tmp_path / f"noise.{suffix}"
    noise.write_bytes(b"no sky" * 1000)
    empty = tmp_path / f"empty.{suffix}"
    empty.touch()
    for path in (cut, tail, noise, empty):
        with pytest.raises(ValueError, match=rf"{path.name}: ") as caught:
            Sky.read(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="no such file"):
        Sky.read(tmp_path / f"none.{suffix}")
    with pytest.raises(ValueError, match="suffix must be one of"):
        Sky.read(tmp_path / "sky.npz")


def test_files_of_others_are_named_as_such(tmp_path, sky):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = 1
    fits.writeto(tmp_path / "other.fits", np.zeros((2, 2)))
    for name in ("other.h5", "other.fits"):
        with pytest.raises(ValueError, match="no sky written by mlsky"):
            Sky.read(tmp_path / name)
    sky.write(tmp_path / "new.h5")
    with h5py.File(tmp_path / "new.h5", "a") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(ValueError, match="format 99, this mlsky reads up to 2; update mlsky"):
        Sky.read(tmp_path / "new.h5")


#: Texts that header cards break: quotes and ampersands at the ends of cards, other alphabets.
TEXTS = [
    "it's" + "'" * 70,
    "&" * 200,
    "'&" * 100,
    "réseaux/ключ/重力 " * 9,
    "tab\tnew\nline\0\x7f",
    "/" + "weights/" * 30,
    " spaces  " * 20,
    'say "no" \\ ' * 12,
    "\N{MILKY WAY}" * 20,
    "\udcff",  # how Python writes a byte of a file name that is no UTF-8
]


@pytest.mark.parametrize("suffix", ["h5", "fits"])
def test_any_text_survives(record, suffix, tmp_path):
    rng = np.random.default_rng(1)
    letters = [*list("ab'&/\\\" é={}"), "\u2028"]
    random = ["".join(rng.choice(letters, n)) for n in range(1, 400, 23)]
    sky = mlsky.simulate([145], 1, 1, components=["tsz"])
    for number, text in enumerate([*TEXTS, *random]):
        # every length of the text before it, so that each letter comes to the end of a card
        sky.meta = {"command": text, "pad": "x" * (number % 70), "weights": {"name": text}}
        path = tmp_path / f"sky.{suffix}"
        sky.write(path, overwrite=True)
        assert Sky.read(path).meta == sky.meta


@pytest.mark.parametrize("suffix", ["h5", "fits"])
def test_a_link_stays_a_link(sky, suffix, tmp_path):
    (tmp_path / "scratch").mkdir()
    target, link = tmp_path / "scratch" / f"real.{suffix}", tmp_path / f"sky.{suffix}"
    link.symlink_to(target)
    for _ in range(2):  # dangling, then not
        sky.write(link, overwrite=True)
        assert link.is_symlink()
        assert target.is_file()
        assert not target.is_symlink()
    assert Sky.read(link).keys() or suffix == "fits"
    assert os.listdir(tmp_path / "scratch") == [target.name]
    lost = tmp_path / f"lost.{suffix}"
    lost.symlink_to(tmp_path / "nowhere" / f"a.{suffix}")
    with pytest.raises(ValueError, match="nowhere does not exist, make it first"):
        sky.write(lost)


@pytest.mark.parametrize("suffix", ["h5", "fits"])
def test_changed_values_are_found(sky, suffix, tmp_path):
    """Flipped bits anywhere: refused, or nothing that is read has changed."""
    path = tmp_path / f"sky.{suffix}"
    sky.write(path)
    good, rng = path.read_bytes(), np.random.default_rng(3)
    found = 0
    for _ in range(25):
        data = bytearray(good)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            back = Sky.read(path)
        except ValueError:
            found += 1
            continue
        np.testing.assert_array_equal(back.total, sky.total)
        np.testing.assert_array_equal(back.kappa, sky.kappa)
        assert back.meta == sky.meta
    assert found > 15


def test_files_without_checksums_are_read(sky, tmp_path):
    """Those of version 1."""
    path = tmp_path / "sky.h5"
    sky.write(path)
    with h5py.File(path, "r+") as file:
        del file.attrs["sha256"]
        file.attrs["format_version"] = 1
    np.testing.assert_array_equal(Sky.read(path).total, sky.total)


CHANGES = {
    "external": lambda f: (
        f.__delitem__("kappa"),
        f.create_dataset("kappa", (12 * NSIDE**2,), "f4", external=[("/etc/passwd", 0, 10**6)]),
    ),
    "kappa short": lambda f: (f.__delitem__("kappa"), f.__setitem__("kappa", np.zeros(7, "f4"))),
    "kappa group": lambda f: (f.__delitem__("kappa"), f.create_group("kappa")),
    "freqs text": lambda f: (
        f.__delitem__("freqs_ghz"),
        f.__setitem__("freqs_ghz", np.array([b"a"])),
    ),
    "freqs more": lambda f: (f.__delitem__("freqs_ghz"), f.__setitem__("freqs_ghz", np.ones(9))),
    "freqs nan": lambda f: f["freqs_ghz"].__setitem__(0, np.nan),
    "unit number": lambda f: f.attrs.__setitem__("unit", np.zeros(3)),
    "stokes": lambda f: f.attrs.__setitem__("stokes", "UQ"),
    "stokes of a layer": lambda f: f["components/cmb/0"].attrs.__setitem__("stokes", "V"),
    "meta list": lambda f: f.attrs.__setitem__("meta", "[1]"),
    "meta broken": lambda f: f.attrs.__setitem__("meta", "{"),
    "meta deep": lambda f: f.attrs.__setitem__("meta", "[" * 9999),
    "geometry": lambda f: f.attrs.__setitem__("geometry", '{"kind": "healpix", "nside": "a"}'),
    "geometry large": lambda f: f.attrs.__setitem__(
        "geometry", '{"kind": "healpix", "nside": 8192}'
    ),
    "geometry list": lambda f: f.attrs.__setitem__("geometry", "[]"),
    "weights": lambda f: (
        f.__delitem__("components/cmb/0/weights"),
        f["components/cmb/0"].__setitem__("weights", np.ones((3, 9))),
    ),
    "weights nan": lambda f: f["components/cmb/0/weights"].__setitem__((0, 0), np.nan),
    "no weights": lambda f: f.__delitem__("components/cmb/0/weights"),
    "templates double": lambda f: (
        f.__delitem__("components/cmb/0/templates"),
        f["components/cmb/0"].__setitem__("templates", np.zeros((1, 3, 12 * NSIDE**2))),
    ),
    "pixels": lambda f: f["components/radio/0/pixels"].__setitem__(0, 10**9),
    "pixels negative": lambda f: f["components/radio/0/pixels"].__setitem__(0, -1),
    "components gone": lambda f: f.__delitem__("components"),
    "components a map": lambda f: (
        f.__delitem__("components"),
        f.__setitem__("components", np.zeros(3)),
    ),
    "table text": lambda f: f["catalog"].attrs.__setitem__("meta", "x"),
    "columns": lambda f: (
        f.__delitem__("catalog/ra"),
        f["catalog"].__setitem__("ra", np.zeros(1)),
    ),
    "version": lambda f: f.attrs.__setitem__("format_version", "two"),
}


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("lazy", [False, True])
def test_hostile_files_are_refused_in_one_line(sky, kind, lazy, tmp_path):
    """Also with checksums made anew, as whoever means it can make them."""
    from mlsky.io import checksums

    path = tmp_path / "sky.h5"
    sky.write(path)
    with h5py.File(path, "r+") as file:
        CHANGES[kind](file)
        if kind != "external":
            checksums.seal_hdf5(file)
    with pytest.raises(ValueError, match=r"sky\.h5: damaged or not a file") as caught:
        Sky.read(path, lazy=lazy)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("suffix", ["h5", "fits"])
def test_a_disk_without_room_is_said_first(sky, suffix, tmp_path, monkeypatch):
    from mlsky.io import files

    usage = type("Usage", (), {"free": 2**20})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match=r"GiB needed and 0\.00 GiB free; make room") as caught:
        sky.write(tmp_path / f"sky.{suffix}")
    assert "\n" not in str(caught.value)
    assert not os.listdir(tmp_path)


def test_options_that_do_not_fit(sky, tmp_path):
    for arguments, message in (
        ({"ordering": "ring"}, "ordering='ring': must be 'RING' or 'NESTED'"),
        ({"component": "dust"}, "component='dust': this sky has cmb, tsz"),
    ):
        with pytest.raises(ValueError, match=message):
            sky.write(tmp_path / "sky.fits", **arguments)
    with pytest.raises(ValueError, match="HDF5 files hold every component"):
        sky.write(tmp_path / "sky.h5", component="tsz")
    assert not os.listdir(tmp_path)


def test_large_maps_are_chunked(tmp_path):
    values = np.zeros((2, 3, hdf5.CHUNK_BYTES // 2), np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        hdf5._dataset(file, "a", values)
        assert file["a"].chunks == (1, 1, hdf5.CHUNK_BYTES // 4)
        hdf5._dataset(file, "empty", np.zeros((0, 3)))
        assert file["empty"].shape == (0, 3)


@pytest.mark.parametrize("suffix", [".h5", ".fits"])
def test_kinds_of_sources_of_0_1_0_are_read_under_todays_name(sky, suffix, tmp_path):
    """They were "radio" and "dusty"."""
    path = tmp_path / f"sky{suffix}"
    today = np.array(sky.catalog["kind"])
    sky.catalog["kind"] = np.where(today == "dsfg", "dusty", today)
    sky.write(path)
    assert {*Sky.read(path).catalog["kind"]} == {"radio", "dsfg"}
    assert np.array_equal(Sky.read(path).catalog["kind"], today)
