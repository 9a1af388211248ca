"""Spectra in pictures: known fields, cut-outs at their own scale, polarisation, sources, files."""

from __future__ import annotations

import fakes
import healpy
import numpy as np
import pytest
from matplotlib.figure import Figure
from pixell import enmap

import mlsky
from mlsky.harmonics import lowest_multipole
from mlsky.io.layers import Layer
from mlsky.plotting import sky_maps, sky_spectra
from mlsky.sky import Sky
from mlsky.sphere import gaussian
from mlsky.sphere.geometry import Car, Healpix
from mlsky.validation import act_dr6

#: HEALPix quadrature without iterations at l <= 1.5 nside.
QUADRATURE = 0.02

FULL = Car(*enmap.fullsky_geometry(res=np.radians(2)))


@pytest.fixture
def record(monkeypatch):
    return fakes.install(monkeypatch)


def cut_out(side, dec=20.0, arcmin=20.0):
    box = np.radians([[dec - side / 2, 40 + side / 2], [dec + side / 2, 40 - side / 2]])
    return Car(*enmap.geometry(box, res=np.radians(arcmin / 60), proj="car"))


def of_maps(maps, geometry, stokes):
    layer = Layer(np.asarray(maps, np.float32)[np.newaxis], np.ones((1, 1)), stokes)
    return Sky(
        freqs_ghz=[150],
        geometry=geometry,
        stokes=stokes,
        unit="uK_CMB",
        components={"cmb": [layer]},
    )


def measured(maps, geometry, stokes):
    sky = of_maps(maps, geometry, stokes)
    return sky_spectra.measure(sky, 0, "cmb", sky.band(0, "cmb"))


def field(geometry, top, spectrum):
    """T and E of one spectrum, and their maps; no B."""
    cl = np.r_[0, 0, spectrum(np.arange(2.0, top + 1))]
    t, e = (gaussian.draw_alm(cl, seed, field="truth") for seed in (3, 4))
    maps = [gaussian.alm_to_map(t, geometry)]
    maps += list(gaussian.alm_to_map(np.stack([e, 0 * e]), geometry, spin=2))
    return t, e, np.array(maps).reshape(3, *geometry.shape)


def axes_of_spectra(figure):
    (axes,) = [a for a in figure.axes if a.get_title().startswith("Power spectra")]
    return axes


def points(figure):
    lines = axes_of_spectra(figure).lines
    return sorted(float(line.get_ydata()[0]) for line in lines if len(line.get_xdata()) == 1)


@pytest.mark.parametrize("geometry", [Healpix(32), FULL], ids=["healpix", "car"])
def test_known_multipoles(geometry):
    t, e, maps = field(geometry, 40, lambda l: l**-2.0)
    found = measured(maps, geometry, "TQU")
    assert set(found) == {"TT", "EE", "BB"}
    for pair, alm in (("TT", t), ("EE", e)):
        ell, d_ell = found[pair]
        assert ell[0] == 2
        shown = ell <= 38
        cl = healpy.alm2cl(alm)
        l = np.arange(41)
        lowest, expected = sky_spectra.binned(l * (l + 1) * cl / (2 * np.pi))
        theirs = np.interp(ell[shown], lowest, expected)
        # as narrow bins as they are, both are means over one to three multipoles
        np.testing.assert_allclose(d_ell[shown][:10], theirs[:10], rtol=QUADRATURE)
    assert found["BB"][1].max() < 1e-5 * found["EE"][1].max()


def test_a_cut_out_has_the_spectra_of_the_sky():
    """A steep spectrum on a large mean: of the sky within the scatter, from its own scale on."""
    geometry = cut_out(30)
    power = lambda l: l**-3.0  # noqa: E731
    _, _, maps = field(geometry, 400, power)
    found = measured(maps + 1000, geometry, "TQU")
    lowest = lowest_multipole(geometry)
    assert lowest == pytest.approx(6, rel=0.1)  # 180 degrees / 30
    for pair in ("TT", "EE"):
        ell, d_ell = found[pair]
        assert ell[0] >= lowest
        assert np.diff(ell).min() >= np.floor(lowest)
        shown = (ell > 20 * lowest) & (ell < 350)
        expected = ell * (ell + 1) * power(ell) / (2 * np.pi)
        # 2 % of the sky has some 10^3 modes in these multipoles
        assert (d_ell / expected)[shown].mean() == pytest.approx(1, abs=0.1)
    # what a tapered edge turns of E into B
    assert np.median(found["BB"][1] / found["EE"][1]) < 0.05


def test_lowest_multipoles():
    assert lowest_multipole(Healpix(8)) == 2
    assert lowest_multipole(FULL) == 2
    assert lowest_multipole(cut_out(10)) == pytest.approx(18 / np.cos(np.radians(20)), rel=0.03)
    band = Car(*enmap.band_geometry(np.radians([-10, 10]), res=np.radians(1)))
    assert lowest_multipole(band) == pytest.approx(9, rel=0.06)  # 180 / 20, of the rows alone


def test_binning_keeps_a_flat_spectrum():
    ell, mean = sky_spectra.binned(np.ones(3000))
    np.testing.assert_allclose(mean, 1)
    assert ell[0] == 2
    assert np.all(np.diff(ell) > 0)
    wide, _ = sky_spectra.binned(np.ones(3000), lowest=18.5)
    assert np.diff(wide).min() >= 19
    assert not sky_spectra.binned(np.ones(10), lowest=18.5)[0].size


@pytest.mark.parametrize(
    ("stokes", "labels"), [("T", ["TT"]), ("QU", ["EE, BB"]), ("TQU", ["TT", "EE, BB"])]
)
def test_panels_of_the_stokes_parameters(record, stokes, labels):
    figure = sky_maps.figure(mlsky.simulate(150, 32, 1, stokes=stokes))
    names = [a.get_ylabel() for a in figure.axes if "D_" in a.get_ylabel()]
    assert [name.split("$ ")[1].split("  [")[0] for name in names] == labels
    last = next(a for a in figure.axes if a.get_ylabel() == names[-1])
    styles = {line.get_linestyle() for line in last.lines if len(line.get_xdata()) > 1}
    assert styles == ({"-"} if stokes == "T" else {"-", ":"})


def test_a_fits_file_shows_the_spectra_of_the_sky(record, tmp_path):
    sky = mlsky.simulate(150, 32, 1)
    sky.write(tmp_path / "sky.fits")
    again = Sky.read(tmp_path / "sky.fits")
    expected = sky_spectra.measure(sky, 0, None, sky.band(0))
    found = sky_spectra.measure(again, 0, None, again.band(0))
    assert set(found) == {"TT", "EE", "BB"}
    for pair in found:
        np.testing.assert_array_equal(found[pair][0], expected[pair][0])
        # sources are taken out of sums in another order
        np.testing.assert_allclose(found[pair][1], expected[pair][1], rtol=1e-4)
    assert points(sky_maps.figure(again)) == points(sky_maps.figure(sky)) != []
    sky.write(tmp_path / "tsz.fits", component="tsz")
    alone = points(sky_maps.figure(Sky.read(tmp_path / "tsz.fits")))
    assert alone == [act_dr6.D3000[150]["tsz"]]


def test_bright_sources_leave_the_spectra(record):
    sky = mlsky.simulate(150, 32, 1)
    cut = sky.cut(act_dr6.CUT_MJY, act_dr6.CUT_GHZ)
    for name in ("radio", "cib", None):
        maps = sky.band(0, name)
        faint = sky_spectra.without_bright(sky, 0, name, maps)
        scale = np.abs(maps[0]).max()
        np.testing.assert_allclose(faint, cut.band(0, name), atol=1e-6 * scale)
        assert faint[0].sum() < maps[0].sum()
    tsz = sky.band(0, "tsz")
    assert sky_spectra.without_bright(sky, 0, "tsz", tsz) is tsz
    assert sky_spectra.is_cut(sky)
    assert not sky_spectra.is_cut(sky.smooth(600))  # spread by a beam they stay


@pytest.mark.parametrize("unit", ["uK_CMB", "MJy/sr"])
def test_act_points_are_in_the_unit_of_the_sky(record, unit):
    from mlsky.frequency import bands

    figure = sky_maps.figure(mlsky.simulate(150, 16, 1, unit=unit))
    factor = bands.convert(150.0, "uK_CMB", unit) ** 2
    expected = sorted(factor * value for value in act_dr6.D3000[150].values())
    np.testing.assert_allclose(points(figure), expected)


def test_act_points_only_near_their_bands(record):
    assert points(sky_maps.figure(mlsky.simulate(120, 16, 1))) == []


@pytest.mark.parametrize(
    "geometry",
    [
        enmap.geometry(np.radians([[-5, 5], [5, -5]]), res=np.radians(0.5), proj="tan"),
        ((1, 20), cut_out(10).wcs),
        ((20, 1), cut_out(10).wcs),
    ],
    ids=["tan", "row", "column"],
)
def test_pixels_without_multipoles_say_so(record, geometry):
    figure = sky_maps.figure(mlsky.simulate(150, geometry=geometry, seed=1, components=["tsz"]))
    assert isinstance(figure, Figure)
    texts = [text.get_text() for text in axes_of_spectra(figure).texts]
    assert texts == ["these pixels have no multipoles"]


def test_spectra_of_a_strip_are_refused():
    geometry = Car((1, 20), cut_out(10).wcs)
    with pytest.raises(ValueError, match="two rows and two columns or more"):
        of_maps(np.ones((1, 1, 20)), geometry, "T").spectra()
