"""Pictures: projections against healpy, spectra against known ones, every kind of sky."""

from __future__ import annotations

import subprocess
import sys

import fakes
import healpy
import numpy as np
import pytest
from pixell import enmap

import mlsky
from mlsky.plotting import sky_maps
from mlsky.sky import Sky
from mlsky.sphere.geometry import Car, Healpix


@pytest.fixture
def record(monkeypatch):
    return fakes.install(monkeypatch)


def _texts(figure):
    return {axes.get_title() for axes in figure.axes}


def _panels(figure):
    known = set(sky_maps.TITLES.values())
    return [axes.get_title() for axes in figure.axes if axes.get_title() in known]


@pytest.mark.parametrize("stokes", ["TQU", "T", "QU"])
def test_a_figure_of_everything(record, stokes):
    figure = sky_maps.figure(mlsky.simulate([93, 145, 225], 32, 1, stokes=stokes))
    assert _panels(figure) == [
        sky_maps.TITLES[name] for name in ("cmb", "tsz", "ksz", "cib", "radio", "kappa")
    ]
    assert f"{stokes[0]} at 145 GHz, everything, mean removed" in _texts(figure)


@pytest.mark.parametrize("names", [["tsz"], ["radio", "cmb"], ["ksz"]])
def test_missing_components(record, names):
    figure = sky_maps.figure(mlsky.simulate(225, 16, 1, components=names))
    assert len(_panels(figure)) == len(names) + 1


def test_a_car_cutout(record):
    geometry = enmap.band_geometry(np.radians([-60, 20]), res=np.radians(2))
    figure = sky_maps.figure(mlsky.simulate(150, geometry=geometry, seed=1))
    assert len(_panels(figure)) == 6


def test_a_file_with_the_total_alone(record, tmp_path):
    mlsky.simulate(150, 16, 1).write(tmp_path / "sky.fits")
    figure = sky_maps.figure(Sky.read(tmp_path / "sky.fits"))
    assert _panels(figure) == ["everything", sky_maps.TITLES["kappa"]]


def test_an_empty_sky(tmp_path):
    sky = Sky(freqs_ghz=[150], geometry=Healpix(4), stokes="T", unit="uK_CMB", components={})
    sky_maps.save(sky, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 0


@pytest.mark.parametrize("suffix", sky_maps.SUFFIXES)
def test_saved_files(record, suffix, tmp_path):
    sky = mlsky.simulate(150, 8, 1, components=["tsz"])
    path = tmp_path / f"sky{suffix}"
    sky_maps.save(sky, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(ValueError, match="exists"):
        sky_maps.save(sky, path)


@pytest.mark.parametrize(
    ("freq_ghz", "shown"), [(None, "145 GHz"), (90, "93 GHz"), (1000, "225 GHz")]
)
def test_the_band_shown(record, freq_ghz, shown):
    figure = sky_maps.figure(mlsky.simulate([93, 145, 225], 8, 1), freq_ghz)
    assert any(shown in text for text in _texts(figure))


@pytest.mark.parametrize("rotation", [(1.0, 2.0), (30.0, -30.0), (210.0, 75.0)])
def test_gnomonic_is_healpys(rotation):
    nside, size, side = 64, 41, 20.0
    values = np.arange(12.0 * nside**2)
    out = sky_maps.gnomonic(
        values, Healpix(nside), ra=rotation[0], dec=rotation[1], side_deg=side, size=size
    )
    # healpy puts its outermost pixels' centres, not edges, on the corners of the picture.
    step = 2 * np.tan(np.radians(side / 2)) / size
    projector = healpy.projector.GnomonicProj(
        rot=(*rotation, 0), xsize=size, reso=np.degrees(step) * 60
    )
    theirs = projector.projmap(values, lambda x, y, z: healpy.vec2pix(nside, x, y, z))
    np.testing.assert_array_equal(out, np.asarray(theirs)[::-1])


def test_mollweide_is_healpys():
    """Away from pixel borders: the dec and ra of the pixel under each point."""
    nside, rows = 64, 50
    theta, phi = healpy.pix2ang(nside, np.arange(12 * nside**2))
    x = np.sin(theta) * np.cos(phi)
    out = sky_maps.mollweide(x, Healpix(nside), rows)
    assert out.shape == (rows, 2 * rows)
    projector = healpy.projector.MollweideProj(xsize=2 * rows)
    theirs = np.asarray(projector.projmap(x, lambda a, b, c: healpy.vec2pix(nside, a, b, c)))[::-1]
    both = np.isfinite(out) & np.isfinite(theirs)
    # Their grid reaches the edge, ours stops half a pixel before it: a pixel of 4 degrees.
    assert np.abs(out - theirs)[both].mean() < 0.03
    # The sky fills pi/4 of the picture, and half of the pixels that its edge crosses.
    assert abs(np.isfinite(out).mean() - np.pi / 4) < 0.02
    assert out[rows // 2, rows] > 0.99  # ra = 0 in the middle
    east = sky_maps.mollweide(np.sin(phi), Healpix(nside), rows)
    assert east[rows // 2, rows // 2] > 0.9 > 0 > east[rows // 2, 3 * rows // 2]


def test_car_and_healpix_show_the_same():
    car = Car(*enmap.fullsky_geometry(res=np.radians(0.5)))

    def dipole(geometry):
        theta, phi = geometry.angles()
        return (np.cos(theta) + np.sin(theta) * np.sin(phi)).reshape(geometry.shape)

    for project in (
        lambda g: sky_maps.mollweide(dipole(g), g, 60),
        lambda g: sky_maps.gnomonic(dipole(g), g, ra=30, dec=-30, size=50),
    ):
        a, b = project(car), project(Healpix(128))
        assert np.nanmax(np.abs(a - b)) < 0.02  # pixels of half a degree


def test_the_zoom_of_every_sky_is_at_one_place():
    for geometry in (Healpix(16), Car(*enmap.fullsky_geometry(res=np.radians(2)))):
        assert sky_maps.zoom_place(geometry) == (30.0, -30.0, 5.0)


@pytest.mark.parametrize(("side", "centre"), [(20, (83, 22)), (4, (200, -70)), (30, (30, -30))])
@pytest.mark.parametrize("proj", ["car", "tan"])
def test_the_zoom_of_a_cut_out_is_in_it_and_not_its_middle(side, centre, proj):
    ra, dec = np.radians(centre)
    half = np.radians(side) / 2
    box = [[dec - half, ra + half / np.cos(dec)], [dec + half, ra - half / np.cos(dec)]]
    geometry = Car(*enmap.geometry(box, res=np.radians(side / 60), proj=proj))
    found = sky_maps.zoom_place(geometry)
    assert found == sky_maps.zoom_place(geometry)
    if side == 30:  # holds the place of every sky
        assert found == (30.0, -30.0, 5.0)
        return
    values = np.ones(geometry.shape)
    view = {"ra": found[0], "dec": found[1], "side_deg": found[2], "size": 60}
    assert np.isfinite(sky_maps.gnomonic(values, geometry, **view)).all()
    assert found[2] == pytest.approx(min(5, side / 2), rel=0.15)
    middle = np.zeros(geometry.shape)
    middle[geometry.shape[0] // 2, geometry.shape[1] // 2] = 1
    shown = sky_maps.gnomonic(middle, geometry, **view)
    away = np.abs(np.argwhere(shown > 0) - 29.5)
    # in a corner at most: near two edges of the picture
    assert away.size == 0 or away.min() > 24


def test_a_cut_out_is_shown_at_its_own_scale(record):
    geometry = enmap.geometry(np.radians([[-5, 5], [5, -5]]), res=np.radians(0.5), proj="car")
    figure = sky_maps.figure(mlsky.simulate(150, geometry=geometry, seed=1, components=["tsz"]))
    (image,) = figure.axes[0].images
    assert image.get_extent() == pytest.approx([5, -5, -5, 5])


def test_colours():
    noise = fakes.normal(1, 0, (50, 50))
    assert sky_maps._colours(noise)["cmap"] == "RdBu_r"
    assert sky_maps._colours(np.abs(noise) ** 5)["cmap"] == "inferno"
    negative = sky_maps._colours(-(np.abs(noise) ** 5))
    assert negative["cmap"] == "GnBu_r"
    assert (negative["norm"].vmin < 0, negative["norm"].vmax <= 0) == (True, True)
    assert sky_maps._colours(20 + noise)["norm"].vmin > 10
    flat = sky_maps._colours(np.zeros((5, 5)))["norm"]
    assert flat.vmax > flat.vmin


def test_pyplot_is_not_touched():
    code = (
        "import sys, pytest, fakes, mlsky\n"
        "fakes.install(pytest.MonkeyPatch())\n"
        "from mlsky.plotting import sky_maps\n"
        "sky_maps.figure(mlsky.simulate(150, 4, 1, components=['tsz']))\n"
        "from matplotlib import _pylab_helpers\n"
        "assert not _pylab_helpers.Gcf.figs\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=fakes.__file__.rpartition("/")[0])


def test_without_matplotlib_the_message_names_the_extra(record, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(mlsky.MissingDependencyError, match=r"pip install 'mlsky\[plot\]'"):
        sky_maps.figure(mlsky.simulate(150, 4, 1))
