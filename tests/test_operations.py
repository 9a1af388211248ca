"""Cuts, masks, multipoles and spectra of finished skies, against the definitions."""

from __future__ import annotations

import inspect

import astropy.units as u
import fakes
import healpy
import numpy as np
import pytest
from astropy.table import Table
from pixell import enmap, utils

import mlsky
from mlsky.components import REFERENCE_GHZ
from mlsky.io.layers import Layer
from mlsky.sky import Sky
from mlsky.sources import catalogue
from mlsky.sphere import gaussian
from mlsky.sphere.geometry import Car, Healpix

NSIDE = 32
FREQS = [93, 150, 225]

#: float32 sums.
ROUNDING = 1e-5
#: HEALPix quadrature after three iterations, up to l = 2 nside.
QUADRATURE = 1e-3


@pytest.fixture
def sky(monkeypatch):
    fakes.install(monkeypatch)
    return mlsky.simulate(FREQS, NSIDE, 1)


def car(rows=(-20, 25), columns=(-15, 30), proj="car", arcmin=20):
    box = np.radians([[rows[0], columns[1]], [rows[1], columns[0]]])
    return Car(*enmap.geometry(box, res=arcmin * utils.arcmin, proj=proj))


GEOMETRIES = {
    "healpix": Healpix(64),
    "full": Car(*enmap.fullsky_geometry(30 * utils.arcmin)),
    "car": car(),
    "pole": car((70, 90), (0, 90)),
    "tan": car((-10, 10), (-10, 10), "tan"),
}


@pytest.mark.parametrize("band", [150, "so_lat/f150", mlsky.Band.top_hat(200, 250)])
def test_a_cut_is_that_of_simulate_in_its_own_band(sky, band):
    cut = sky.cut(20, band)
    (flux,) = catalogue.band_fluxes(sky.catalog, band)
    gone = flux > 20
    assert 0 < gone.sum() < len(gone)
    np.testing.assert_array_equal(cut.catalog["in_map"], ~gone)
    assert sky.catalog["in_map"].all()
    for name, kind in catalogue.COMPONENTS.items():
        lost = catalogue.paint(
            sky.catalog[gone & (sky.catalog["kind"] == kind)], Healpix(NSIDE), FREQS
        )
        atol = ROUNDING * np.abs(sky[name]).max()
        np.testing.assert_allclose(cut[name], sky[name] - lost, atol=atol)
        assert cut[name][:, 0].min() >= 0
    np.testing.assert_array_equal(cut["tsz"], sky["tsz"])
    assert "20 mJy at" in cut.meta["cuts"][0]
    assert "cuts" not in sky.meta


def test_a_cut_at_148_ghz_is_the_flux_cut(sky):
    expected = mlsky.simulate(FREQS, NSIDE, 1, flux_cut_mjy=15)
    cut = sky.cut(15 * u.mJy)
    np.testing.assert_array_equal(cut.catalog["in_map"], expected.catalog["in_map"])
    for name in sky:
        atol = ROUNDING * np.abs(sky[name]).max()
        np.testing.assert_allclose(cut[name], expected[name], atol=atol)


def test_a_cut_of_a_sky_on_disk(sky, tmp_path):
    sky.write(tmp_path / "sky.h5")
    lazy = Sky.read(tmp_path / "sky.h5", lazy=True).cut(30, 150)
    np.testing.assert_array_equal(lazy.total, sky.cut(30, 150).total)
    lazy.write(tmp_path / "cut.h5")
    np.testing.assert_array_equal(Sky.read(tmp_path / "cut.h5").total, lazy.total)


def test_bad_cuts(sky, tmp_path):
    for args, message in (
        ((-3,), "mjy=-3: must be a flux in mJy"),
        ((0.5,), "all above 1 mJy there"),
        ((1.5, 353), "lists sources above 1 mJy at 148 GHz, which is all above"),
        ((15, "f999"), "band 'f999': no band has that name"),
        ((15, [93, 150]), r"nu_ghz=\[93, 150\]: must be one band"),
    ):
        with pytest.raises(ValueError, match=message):
            sky.cut(*args)
    sky.write(tmp_path / "sky.fits")
    with pytest.raises(ValueError, match="holds the total alone: use the HDF5 file"):
        Sky.read(tmp_path / "sky.fits").cut(15)
    with pytest.raises(ValueError, match="needs the catalogue of sources"):
        mlsky.simulate(150, NSIDE, 1, components="tsz").cut(15)


def bare(geometry, table=None, clusters=None, **layers):
    """A sky of given parts."""
    layers = {name: [layer] for name, layer in layers.items()}
    return Sky(
        freqs_ghz=[150],
        geometry=geometry,
        stokes="T",
        unit="uK_CMB",
        components=layers or {"radio": []},
        catalog=table,
        clusters=clusters,
    )


@pytest.mark.parametrize("name", GEOMETRIES)
def test_holes_are_discs_round_bright_sources(name):
    """Against the distance of every pixel to every source."""
    geometry = GEOMETRIES[name]
    rng = np.random.default_rng(1)
    n = 60
    ra = np.r_[rng.uniform(0, 360, n - 3), 10.0, 0.0, 45.0]
    dec = np.r_[np.degrees(np.arcsin(rng.uniform(-1, 1, n - 3))), 5.0, -7.3, 89.5]
    flux = np.r_[rng.uniform(5, 30, n - 3), 20, 20, 20]
    table = catalogue.make(ra, dec, flux, "radio", 1)
    table["in_map"] = True
    found = bare(geometry, table).mask(flux_mjy=15, nu_ghz=148, radius_arcmin=100)
    assert found.shape == geometry.shape
    bright = table[np.asarray(table["flux_mjy"]) > 15]
    theta, phi = geometry.angles()
    expected = np.ones(geometry.npix, bool)
    for row in bright:
        away = healpy.rotator.angdist(
            [theta, phi], [np.radians(90 - row["dec"]), np.radians(row["ra"])]
        )
        expected &= ~(np.degrees(away) * 60 < 100)
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(found.ravel(), expected)


def test_holes_of_clusters_grow_with_them():
    columns = {"ra": [10.0, 40], "dec": [0.0, 0], "m500c": [5e14, 1e14], "theta500": [180.0, 90]}
    sky = bare(Healpix(64), None, Table(columns))
    area = lambda held: (~held).sum() * Healpix(64).area() * (180 / np.pi) ** 2  # noqa: E731
    one = sky.mask(None, cluster_mass=2e14)
    assert area(one) == pytest.approx(np.pi * 9, rel=0.1)
    assert area(sky.mask(None, cluster_mass=2e14, cluster_radius=2)) == pytest.approx(
        np.pi * 36, rel=0.05
    )
    assert area(sky.mask(None, cluster_mass=5e13)) == pytest.approx(np.pi * 11.25, rel=0.1)
    assert sky.mask(None).all()


def test_bad_masks(sky):
    with pytest.raises(ValueError, match="this sky lists no clusters"):
        sky.mask(cluster_mass=1e14)
    with pytest.raises(ValueError, match="radius_arcmin=0: must be a positive number"):
        sky.mask(radius_arcmin=0)
    with pytest.raises(ValueError, match="flux_mjy in GHz: must be convertible to mJy"):
        sky.mask(15 * u.GHz)
    with pytest.raises(ValueError, match="mask of sources needs the catalogue"):
        bare(Healpix(4)).mask()


def gaussian_sky(geometry, stokes="TQU", lmax=60):
    """A sky of two bands whose multipoles are known; EE a tenth of TT, no BB."""
    cl = 1.0 / (np.arange(lmax + 1) + 10.0) ** 2
    no_spin = np.arange(lmax + 1) > 1
    t, e = (gaussian.draw_alm(a * cl * no_spin, seed) for a, seed in ((1, 1), (0.1, 2)))
    maps = [gaussian.alm_to_map(t, geometry)[np.newaxis]]
    maps.append(gaussian.alm_to_map(np.stack([e, 0 * e]), geometry, spin=2))
    held = {"T": maps[0], "QU": maps[1], "TQU": np.concatenate(maps)}[stokes]
    layer = Layer(held[np.newaxis].astype(np.float32), np.array([[1.0], [2.0]]), stokes)
    sky = Sky(
        freqs_ghz=[93, 150],
        geometry=geometry,
        stokes=stokes,
        unit="uK_CMB",
        components={"cmb": [layer]},
    )
    return sky, t, e


@pytest.mark.parametrize("stokes", ["T", "QU", "TQU"])
@pytest.mark.parametrize("name", ["healpix", "full"])
def test_multipoles_and_spectra(name, stokes):
    sky, t, e = gaussian_sky(GEOMETRIES[name], stokes)
    expected = {"T": [t], "QU": [e, 0 * e], "TQU": [t, e, 0 * e]}[stokes]
    found = sky.alm(1, "cmb", lmax=60)
    scale = np.abs(t).max()
    np.testing.assert_allclose(found, 2 * np.array(expected), atol=QUADRATURE * scale)
    spectra = sky.spectra(lmax=60)
    letters = {"T": "T", "QU": "EB", "TQU": "TEB"}[stokes]
    assert set(spectra) == {a + b for i, a in enumerate(letters) for b in letters[i:]}
    for pair, alms in {"TT": (t, t), "EE": (e, e), "TE": (t, e)}.items():
        if pair in spectra:
            one = healpy.alm2cl(*alms)
            expected = one * np.array([[1, 2], [2, 4]])[..., np.newaxis]
            np.testing.assert_allclose(spectra[pair], expected, atol=QUADRATURE * one.max())
    if "BB" in spectra:
        assert spectra["BB"].max() < QUADRATURE * spectra["EE"].max()


def test_the_spectrum_of_a_cut_out_is_that_of_the_sky_on_average():
    """White noise, whose spectrum is flat: its mean over multipoles, within its scatter."""
    geometry = car(arcmin=30)
    noise = np.random.default_rng(1).standard_normal((1, 1, *geometry.shape))
    noise /= np.sqrt(geometry.area().reshape(geometry.shape))
    layer = Layer(noise.astype(np.float32) + 50, np.ones((1, 1)), "T")
    (spectrum,) = bare(geometry, cmb=layer).spectra(lmax=200)["TT"][0]
    assert spectrum[40:].mean() == pytest.approx(1, abs=0.08)


def test_bad_band_limits():
    with pytest.raises(ValueError, match="lmax=400: must be an integer from 2 to 191"):
        bare(Healpix(64)).alm(lmax=400)
    with pytest.raises(ValueError, match="need HEALPix or cylindrical pixels"):
        bare(GEOMETRIES["tan"]).spectra()


def test_fluxes_are_at_one_frequency_by_default():
    for method in (Sky.cut, Sky.mask):
        assert inspect.signature(method).parameters["nu_ghz"].default == REFERENCE_GHZ
