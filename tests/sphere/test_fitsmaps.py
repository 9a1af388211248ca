"""Maps in FITS files of others, against healpy and pixell; frames and units that are not ours."""

import healpy
import numpy as np
import pytest
from astropy.io import fits
from pixell import enmap

from mlsky.cli import simulate
from mlsky.cutting import mapfiles
from mlsky.sphere import fitsmaps
from mlsky.sphere.kappa import parse

NSIDE = 16
#: uK_CMB at 148 GHz, about those of the CIB.
CIB_UK = 12.0


def healpix(seed=1, scale=0.02):
    return scale * np.random.default_rng(seed).standard_normal(12 * NSIDE**2)


def car(seed=1, scale=0.02):
    shape, wcs = enmap.fullsky_geometry(res=np.radians(5.0))
    return scale * np.random.default_rng(seed).standard_normal(shape), wcs


def image(values, wcs, kind=fits.ImageHDU, **cards):
    header = wcs.to_header()
    header.update(cards)
    return kind(values.astype("f4"), header)


@pytest.mark.parametrize("nest", [False, True])
def test_healpix(nest, tmp_path):
    path, values = tmp_path / "k.fits", healpix()
    healpy.write_map(path, values, nest=nest, dtype=np.float64, coord="C", column_units="")
    written = healpy.reorder(values, n2r=True) if nest else values
    np.testing.assert_array_equal(fitsmaps.read_fits("kappa", path).values, written)


@pytest.mark.parametrize("where", ["primary", "first", "second", "compressed", "stack"])
def test_car_in_any_part(where, tmp_path):
    path, (values, wcs) = tmp_path / "k.fits", car()
    empty = fits.PrimaryHDU()
    lossless = {"compression_type": "GZIP_2", "quantize_level": 0.0}
    parts = {
        "primary": lambda: [image(values, wcs, fits.PrimaryHDU)],
        "first": lambda: [empty, image(values, wcs)],
        "second": lambda: [
            empty,
            fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.zeros(3))]),
            image(values, wcs),
        ],
        "compressed": lambda: [
            empty,
            fits.CompImageHDU(values.astype("f4"), wcs.to_header(), **lossless),
        ],
        "stack": lambda: [image(np.stack([values, 0 * values, 0 * values]), wcs, fits.PrimaryHDU)],
    }
    fits.HDUList(parts[where]()).writeto(path)
    found = fitsmaps.read_fits("kappa", path)
    np.testing.assert_array_equal(found.values, values.astype("f4"))
    given = parse(simulate._read_kappa(path), "nonlinear")
    np.testing.assert_allclose(given.values, values.ravel(), rtol=1e-6)


def test_alm(tmp_path):
    alm = np.arange(6) + 0j
    healpy.write_alm(tmp_path / "a.fits", alm)
    np.testing.assert_array_equal(fitsmaps.read_fits("kappa", tmp_path / "a.fits").values, alm)


@pytest.mark.parametrize("frame", ["G", "E"])
def test_healpix_of_another_frame_is_refused(frame, tmp_path):
    path = tmp_path / "k.fits"
    healpy.write_map(path, healpix(), coord=frame, dtype=np.float64)
    for read in (lambda: simulate._read_kappa(path), lambda: mapfiles.open_map("kappa", path)):
        with pytest.raises(ValueError, match=f"COORDSYS='{frame}'.*must be equatorial"):
            read()


@pytest.mark.parametrize(
    "cards",
    [
        {"CTYPE1": "GLON-CAR", "CTYPE2": "GLAT-CAR"},
        {"CTYPE1": "ELON-CAR", "CTYPE2": "ELAT-CAR"},
        {"RADESYS": "FK4", "EQUINOX": 1950.0},
    ],
)
def test_car_of_another_frame_is_refused(cards, tmp_path):
    path = tmp_path / "k.fits"
    fits.HDUList([image(*car(), fits.PrimaryHDU, **cards)]).writeto(path)
    doors = (
        lambda: parse(simulate._read_kappa(path)),
        lambda: mapfiles.open_map("kappa", path),
    )
    for read in doors:
        with pytest.raises(ValueError, match=r"must be (equatorial|ICRS)") as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("unit", ["uK", "K_CMB", "rad", "kJy/sr", "y"])
def test_kappa_with_a_unit_is_refused(unit, tmp_path):
    healpy.write_map(tmp_path / "h.fits", healpix(), column_units=unit, dtype=np.float64)
    fits.HDUList([image(*car(), fits.PrimaryHDU, BUNIT=unit)]).writeto(tmp_path / "c.fits")
    for name in ("h.fits", "c.fits"):
        with pytest.raises(ValueError, match=f"its unit is '{unit}'; must be the dimensionless"):
            simulate._read_kappa(tmp_path / name)
        with pytest.raises(ValueError, match=f"'{unit}'"):
            mapfiles.open_map("kappa", tmp_path / name)


@pytest.mark.parametrize("unit", ["kJy/sr", "W m-2 Hz-1 sr-1", "nW/m2/sr", "erg", "count"])
def test_a_unit_that_is_not_known_is_named(unit, tmp_path):
    path = tmp_path / "m.fits"
    healpy.write_map(path, healpix(scale=CIB_UK), column_units=unit, dtype=np.float64)
    with pytest.raises(ValueError, match=f"its unit is '{unit}', none of uK_CMB"):
        mapfiles.open_map("cib", path)
    # what the user states, the user knows
    assert mapfiles.open_map("cib", path, unit="uK_CMB").unit == "uK_CMB"


def test_maps_with_units_in_memory():
    from astropy import units

    values = healpix(scale=CIB_UK) * 1e-6
    assert mapfiles.open_map("cib", values * units.K).unit == "K_CMB"
    with pytest.raises(ValueError, match="none of"):
        mapfiles.open_map("cib", values * units.m)


def test_masked_maps_have_holes():
    mask = np.arange(12 * NSIDE**2) < 100
    values = healpix()
    masked = np.ma.masked_array(np.where(mask, 0, values), mask)
    for kind in ("kappa", "cib"):
        with pytest.raises(ValueError, match=r"100 of .* pixels are NaN"):
            mapfiles.open_map(kind, masked if kind == "kappa" else masked * CIB_UK / 0.02)
    with pytest.raises(ValueError, match="kappa has 100 NaN, infinite or masked values"):
        parse(masked)
    given = parse(masked, fill=True)
    np.testing.assert_array_equal(given.holes, mask)
    grid, wcs = car()
    holes = np.abs(grid) > 0.04
    given = parse((np.ma.masked_array(grid, holes), wcs), fill=True)
    np.testing.assert_array_equal(given.holes, holes.ravel())


@pytest.mark.parametrize("bad", [1e-3, -1e-3])
def test_an_alm_of_no_real_field(bad):
    lmax = 20
    ell, m = healpy.Alm.getlm(lmax)
    alm = 1e-3 / np.maximum(ell, 1) + 0j
    parse(alm)
    parse((alm * np.exp(1j * m)).astype(np.complex64))
    with pytest.raises(ValueError, match=r"imaginary parts up to 0\.001 at m = 0"):
        parse(alm + 1j * bad * (m == 0))


def damaged(path):
    healpy.write_map(path, healpix(), dtype=np.float64)
    path.write_bytes(path.read_bytes()[:9000])


def no_map(path):
    fits.HDUList([fits.PrimaryHDU()]).writeto(path)


def table(path):
    column = fits.Column("a", "E", array=np.zeros(3))
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([column])]).writeto(path)


@pytest.mark.parametrize(
    "make",
    [
        damaged,
        no_map,
        table,
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(b"SIMPLE  =                    T" + bytes(3000)),
        lambda p: p.write_text("kappa\n" * 1000),
    ],
)
def test_what_is_no_map(make, tmp_path):
    path = tmp_path / "k.fits"
    make(path)
    doors = (lambda: simulate._read_kappa(path), lambda: mapfiles.open_map("kappa", path))
    for door in doors:
        with pytest.raises(ValueError, match=r"k\.fits") as caught:
            door()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"text"])
def test_what_is_no_npy(data, tmp_path):
    path = tmp_path / "k.npy"
    path.write_bytes(data)
    for door in (lambda: simulate._read_kappa(path), lambda: mapfiles.open_map("kappa", path)):
        with pytest.raises(ValueError, match=r"k\.npy"):
            door()
