"""Maps and catalogues of others: what is read, how it is converted, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from mlsky.cutting import mapfiles
from mlsky.frequency import bands, cib, radio, tsz

healpy = pytest.importorskip("healpy")

NSIDE = 16
NPIX = 12 * NSIDE**2
F32_RTOL = 1e-6


@pytest.fixture
def values():
    return np.random.Generator(np.random.Philox(1)).standard_normal(NPIX).astype(np.float32) * 3


def write(path, values, unit=None, **options):
    healpy.write_map(path, values, dtype=np.float32, column_units=unit, **options)
    return path


@pytest.mark.parametrize("suffix", ["fits", "npy", "array"])
def test_the_same_map_from_anywhere(suffix, values, tmp_path):
    source = values
    if suffix == "fits":
        source = write(tmp_path / "m.fits", values, "uK")
    elif suffix == "npy":
        source = tmp_path / "m.npy"
        np.save(source, values)
    sky = mapfiles.open_map("ksz", source)
    assert sky.geometry.nside == NSIDE
    assert sky.unit == "uK_CMB"
    np.testing.assert_array_equal(sky.read(), values)
    assert sky.digest == mapfiles.open_map("ksz", values).digest
    assert str(tmp_path) not in str(sky.describe())


def test_nested_is_reordered(values, tmp_path):
    nested = healpy.reorder(values, r2n=True)
    np.testing.assert_array_equal(mapfiles.open_map("ksz", nested, nest=True).read(), values)
    path = write(tmp_path / "m.fits", nested, nest=True)
    np.testing.assert_array_equal(mapfiles.open_map("ksz", path).read(), values)


def test_car_from_enmap_and_fits(tmp_path):
    enmap = pytest.importorskip("pixell.enmap")
    shape, wcs = enmap.fullsky_geometry(res=np.radians(4))
    grid = enmap.ndmap(np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 300, wcs)
    sky = mapfiles.open_map("tsz", grid)
    np.testing.assert_array_equal(sky.read(), grid.ravel())
    enmap.write_map(str(tmp_path / "m.fits"), grid)
    again = mapfiles.open_map("tsz", tmp_path / "m.fits")
    assert again.geometry.shape == sky.geometry.shape
    assert again.digest == sky.digest
    with pytest.raises(ValueError, match="full sky"):
        mapfiles.open_map("tsz", grid[:, :20])
    with pytest.raises(ValueError, match="full sky"):
        mapfiles.open_map("tsz", grid[10:])


@pytest.mark.parametrize(
    ("name", "unit", "nu", "factor"),
    [
        ("kappa", "dimensionless", 148.0, 1.0),
        ("ksz", "K_CMB", 148.0, 1e6),
        ("ksz", "K_CMB", 217.0, 1e6),
        ("ksz", "MJy/sr", 93.0, 1e6 / bands.jy_per_sr_per_uk(93.0)),
        ("tsz", "y", 148.0, tsz.uk_per_y(148.0)),
        ("tsz", "uK_CMB", 93.0, 1 / tsz.factor(93.0)),
        ("cib", "MJy/sr", 353.0, 1e6 / bands.jy_per_sr_per_uk(353.0) / cib.factor(353.0)),
        # a curved power law in intensity, by hand
        (
            "radio",
            "Jy/sr",
            93.0,
            (148.0 / 93.0) ** (radio.ALPHA_MEAN + radio.CURVATURE * np.log(93.0 / 148.0) / 2)
            / bands.jy_per_sr_per_uk(148.0),
        ),
    ],
)
def test_units_and_frequencies(name, unit, nu, factor, values):
    source = (np.abs(values) / abs(factor)).astype(np.float32)
    if name == "kappa":
        source *= np.float32(0.1)
    sky = mapfiles.open_map(name, source, unit, nu)
    np.testing.assert_allclose(sky.read(), source * factor, rtol=F32_RTOL)


def test_scale_is_of_maps_and_fluxes(values):
    sky = mapfiles.open_map("tsz", values, scale=0.75)
    np.testing.assert_allclose(sky.read(), 0.75 * values, rtol=F32_RTOL)
    assert sky.describe()["scale"] == 0.75
    np.testing.assert_allclose(
        mapfiles.open_catalogue("cib", table(), scale=0.75).flux_mjy, [0.75, 1.5, 22.5]
    )
    for wrong in (0, -1, np.nan, "half", True):
        with pytest.raises(ValueError, match="scale="):
            mapfiles.open_map("tsz", values, scale=wrong)


def test_unit_of_the_header_counts(values, tmp_path):
    path = write(tmp_path / "m.fits", values * np.float32(1e-6), "K_CMB")
    sky = mapfiles.open_map("ksz", path)
    np.testing.assert_allclose(sky.read(), values, rtol=F32_RTOL)
    with pytest.raises(ValueError, match="the file says 'K_CMB'"):
        mapfiles.open_map("ksz", path, "uK_CMB")


def spoilt(values, value):
    values = values.copy()
    values[7] = value
    return values


@pytest.mark.parametrize(
    ("name", "change", "options", "line"),
    [
        ("ksz", lambda v: spoilt(v, np.nan), {}, "1 of 3072 pixels are NaN"),
        ("ksz", lambda v: spoilt(v, healpy.UNSEEN), {}, "UNSEEN"),
        ("ksz", lambda v: v[:-1], {}, r"shape \(3071,\)"),
        ("ksz", lambda v: v * 1e-6, {}, "state the unit"),
        ("ksz", lambda v: v * 0, {}, "rms of 0"),
        ("ksz", lambda v: v.astype(complex), {}, "real numbers"),
        ("kappa", lambda v: v, {"unit": "uK_CMB"}, "dimensionless"),
        ("cib", lambda v: v, {"unit": "furlong"}, "'furlong'"),
        ("cib", lambda v: v, {"unit": "y"}, "'y'"),
        ("cib", lambda v: v, {"nu_ghz": 950.0}, "950"),
        ("tsz", lambda v: v, {"nu_ghz": 217.5}, "null"),
        ("dust", lambda v: v, {}, "'dust'"),
        ("ksz", lambda v: "no/such.fits", {}, "no file"),
    ],
)
def test_maps_refused(name, change, options, line, values):
    with pytest.raises(ValueError, match=line) as caught:
        mapfiles.open_map(name, change(values), **options)
    assert "\n" not in str(caught.value)


def test_files_refused(values, tmp_path):
    from astropy.io import fits

    bad = tmp_path / "bad.fits"
    bad.write_bytes(b"not FITS at all")
    with pytest.raises(ValueError, match=r"cannot be read .*must be a FITS file of a map"):
        mapfiles.open_map("ksz", bad)
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "image.fits")
    with pytest.raises(ValueError, match="neither a HEALPix nor a CAR map"):
        mapfiles.open_map("ksz", tmp_path / "image.fits")
    part = np.where(np.arange(NPIX) < 100, values, healpy.UNSEEN)
    with pytest.raises(ValueError, match="UNSEEN"):
        mapfiles.open_map("ksz", write(tmp_path / "part.fits", part))


def table(**columns):
    return {"ra": [0.0, 90.0, 200.0], "dec": [0.0, 45.0, -90.0], "flux_mjy": [1, 2, 30]} | columns


def test_catalogue_places_and_fluxes(tmp_path):
    from astropy.table import Table

    sources = mapfiles.open_catalogue("radio", table())
    half = np.sqrt(0.5)
    want = [[1, 0, 0], [0, half, half], [0, 0, -1]]
    np.testing.assert_allclose(sources.vectors.T, want, atol=1e-15)
    np.testing.assert_array_equal(sources.below(2).flux_mjy, [1, 2])
    assert sources.below(None) is sources
    t = Table(table())
    t["flux_mjy"] = t["flux_mjy"] / 1e3
    t["flux_mjy"].unit = "Jy"
    t["ra"].unit = "deg"
    t.write(tmp_path / "c.fits")
    again = mapfiles.open_catalogue("radio", tmp_path / "c.fits")
    np.testing.assert_allclose(again.flux_mjy, sources.flux_mjy)
    assert again.about["file"] == "c.fits"


def test_catalogue_at_another_frequency_and_of_both_kinds():
    kinds = table(alpha=[-0.5, 3.0, -1.0], kind=["radio", "dsfg", "radio"])
    sources = mapfiles.open_catalogue("radio", kinds, nu_ghz=93.0)
    index = np.array([-0.5, -1.0]) + radio.CURVATURE * np.log(93.0 / 148.0) / 2
    want = np.array([1, 30]) * (148.0 / 93.0) ** index
    np.testing.assert_allclose(sources.flux_mjy, want)
    dsfg = mapfiles.open_catalogue("cib", kinds, nu_ghz=93.0)
    np.testing.assert_allclose(dsfg.flux_mjy, 2 / cib.flux(1.0, 3.0, 93.0))


@pytest.mark.parametrize(
    ("name", "source", "line"),
    [
        ("cib", table(dec=[0, 95.0, 0]), r"dec\[1\]=95"),
        ("cib", table(dec=[0, 0, np.nan]), r"dec\[2\]=nan"),
        ("cib", table(ra=[0, 1e3, 0]), r"ra\[1\]=1000"),
        ("cib", table(flux_mjy=[1, -2, 3]), r"flux_mjy\[1\]=-2"),
        ("cib", table(alpha=[1, np.inf, 3]), r"alpha\[1\]=inf"),
        ("cib", table(ra=[0.0]), "one length"),
        ("cib", {"ra": [1], "dec": [2]}, "lacks flux_mjy"),
        ("cib", 5, "lacks dec, flux_mjy, ra"),
        ("cib", "no/such.fits", "cannot be read"),
        ("ksz", table(), "'ksz'"),
    ],
)
def test_catalogues_refused(name, source, line):
    with pytest.raises(ValueError, match=line) as caught:
        mapfiles.open_catalogue(name, source)
    assert "\n" not in str(caught.value)
