"""Skies with a beam: fields by their multipoles, sources by the profile."""

from __future__ import annotations

import numpy as np
import pytest
from pixell import enmap, utils

from mlsky.frequency.passbands import Band
from mlsky.io.layers import Layer
from mlsky.sky import Sky
from mlsky.sources import catalogue
from mlsky.sphere import beams, gaussian
from mlsky.sphere.geometry import Car, Healpix

FWHM = 120.0
BAND = Band.top_hat(130, 165)

#: Quadrature of HEALPix after three iterations, in the worst of all pixels, which lies at a pole:
#: 0.0083 of the rms.
QUADRATURE = 0.01
#: A profile sampled at pixel centres, whose FWHM is two (CAR) or four pixels wide.
SAMPLED = {"healpix": 0.02, "full": 2e-3}

GEOMETRIES = {"healpix": Healpix(64), "full": Car(*enmap.fullsky_geometry(60 * utils.arcmin))}


def sources():
    table = catalogue.make(
        [40.0, 150.0, 220.0, 300.0], [0.5, 40.0, -60.0, 10.0], [50.0, 20, 10, 0.3], "radio", 1
    )
    table["in_map"] = True
    return table


def make(geometry, stokes="TQU", listed=3):
    """A smooth field of known multipoles and four sources, three of which are listed."""
    cl = 1.0 / (np.arange(61) + 10.0) ** 2 * (np.arange(61) > 1)
    t, e = gaussian.draw_alm(cl, 1), gaussian.draw_alm(0.1 * cl, 2)
    t_map = gaussian.alm_to_map(t, geometry)[np.newaxis]
    qu = gaussian.alm_to_map(np.stack([e, 0 * e]), geometry, spin=2)
    held = {"T": t_map, "TQU": np.concatenate([t_map, qu])}[stokes]
    table = sources()
    pixels, values = catalogue.paint_sparse(table, geometry, (93, BAND), stokes)
    return Sky(
        freqs_ghz=[93, 148],
        bands=(Band(93), BAND),
        geometry=geometry,
        stokes=stokes,
        unit="uK_CMB",
        components={
            "cmb": [Layer(held[np.newaxis].astype(np.float32), np.ones((2, 1)), stokes)],
            "radio": [Layer(values, np.eye(2), stokes, pixels)],
        },
        catalog=table[:listed],
    ), (t, e)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_fields_are_multiplied_in_multipoles(name):
    sky, (t, e) = make(GEOMETRIES[name])
    out = sky.smooth([FWHM, 60.0], "cmb")
    assert out.keys() == ("cmb",)
    assert out.meta["beams"] == ["Gaussian, FWHM 120 arcmin", "Gaussian, FWHM 60 arcmin"]
    for band, fwhm in enumerate((FWHM, 60.0)):
        sigma = np.radians(fwhm / 60) / np.sqrt(8 * np.log(2))
        ell = np.arange(61)
        beam = np.exp(-0.5 * ell * (ell + 1) * sigma**2)
        t_map = gaussian.alm_to_map(gaussian.scale_alm(t.copy(), beam), sky.geometry)
        eb = np.stack([gaussian.scale_alm(e.copy(), beam), 0 * e])
        expected = np.stack([t_map, *gaussian.alm_to_map(eb, sky.geometry, spin=2)])
        np.testing.assert_allclose(out.band(band), expected, atol=QUADRATURE * expected.std())


@pytest.mark.parametrize("name", GEOMETRIES)
def test_sources_have_their_flux_and_do_not_ring(name):
    sky, _ = make(GEOMETRIES[name])
    maps = sky.smooth(FWHM, "radio")["radio"].astype(np.float64)
    area = sky.geometry.area()
    theta, phi = sky.geometry.angles()
    for band, flux in enumerate(catalogue.band_fluxes(sources(), sky.bands)):
        per_uk = sky.bands[band].convert("uK_CMB", "Jy/sr") * 1e3
        t = maps[band, 0].ravel()
        # all that is below the peak of the faint one, which is not painted in pixels, is no ring
        assert t.min() > -0.03 * t.max() * flux[3] / flux[0]
        for row, source in enumerate(sources()[:3]):
            centre = np.radians(90 - source["dec"]), np.radians(source["ra"])
            away = np.arccos(
                np.clip(
                    np.cos(theta) * np.cos(centre[0])
                    + np.sin(theta) * np.sin(centre[0]) * np.cos(phi - centre[1]),
                    -1,
                    1,
                )
            )
            near = away < np.radians(6)
            total = (maps[band].reshape(3, -1) * area)[:, near].sum(1) * per_uk
            fraction, angle = source["pol_frac"], 2 * np.radians(source["pol_angle"])
            expected = flux[row] * np.array([1, fraction * np.cos(angle), fraction * np.sin(angle)])
            np.testing.assert_allclose(total, expected, atol=SAMPLED[name] * flux[row])


def test_the_total_is_the_sum_of_its_parts_and_is_written(tmp_path):
    sky, _ = make(GEOMETRIES["full"], "T")
    total = sky.smooth(FWHM).total
    parts = sky.smooth(FWHM, "cmb")["cmb"] + sky.smooth(FWHM, "radio")["radio"]
    np.testing.assert_allclose(total, parts, atol=1e-5 * np.abs(total).max())
    sky.smooth(FWHM).write(tmp_path / "beam.h5")
    np.testing.assert_array_equal(Sky.read(tmp_path / "beam.h5").total, total)
    sky.write(tmp_path / "sky.h5")
    lazy = Sky.read(tmp_path / "sky.h5", lazy=True)
    np.testing.assert_array_equal(lazy.smooth(FWHM).total, total)


def test_bad_beams():
    sky, _ = make(GEOMETRIES["full"], "T")
    tan = Car(*enmap.geometry(np.radians([[-5, 5], [5, -5]]), res=np.radians(0.5), proj="tan"))
    for given, options, message in (
        (sky, {"beam": [1.0]}, "1 beams for 2 bands"),
        (sky, {"beam": -1}, "beam=-1: must be FWHM"),
        (sky, {"beam": np.array([1.0, 0.9, 0.8])}, "3 multipoles|no half maximum"),
        (sky, {"beam": 5, "component": "tsz"}, "component='tsz': this sky has cmb, radio"),
        (make(GEOMETRIES["full"], "T")[0].smooth(FWHM), {"beam": 5}, "holds the total alone"),
    ):
        with pytest.raises(ValueError, match=message):
            given.smooth(**options)
    flat = Sky(freqs_ghz=[93], geometry=tan, stokes="T", unit="uK_CMB", components={"cmb": []})
    with pytest.raises(ValueError, match="beams need HEALPix or cylindrical pixels"):
        flat.smooth(5)


def test_a_beam_narrower_than_a_pixel_is_told():
    sky, _ = make(GEOMETRIES["full"], "T")
    with pytest.warns(UserWarning, match="beam of FWHM 30 arcmin on pixels of 60 arcmin: fluxes"):
        sky.smooth(30.0)


def test_a_table_may_not_be_wider_than_a_fwhm():
    ell = np.arange(400)
    with pytest.raises(ValueError, match="a table with a FWHM of 1137 arcmin; must be at most 600"):
        beams.parse(np.exp(-0.5 * (ell * 0.1435) ** 2), 1)
    assert beams.parse(np.exp(-0.5 * (ell * 0.07) ** 2), 1)[0].fwhm_arcmin < 600


def test_a_second_beam_is_told_with_the_first():
    """Maps with a beam of their own, as `mlsky.simulate` makes them, get the other one too."""
    sky, _ = make(GEOMETRIES["full"], "T")
    layers = {"cmb": sky.layers["cmb"]}
    beamed = sky._with(layers, meta={"beams": ["one", "two"]})
    assert beamed.smooth(FWHM).meta["beams"] == [
        "one; Gaussian, FWHM 120 arcmin",
        "two; Gaussian, FWHM 120 arcmin",
    ]
