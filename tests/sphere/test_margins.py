"""Pixels round a map, against distances on the sphere."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS
from pixell import enmap, utils

from mlsky.sphere import gaussian, margins, pixel_window
from mlsky.sphere.geometry import Car, Healpix

#: Single precision, in units of the rms of a map.
SINGLE = 1e-5


def grid(box_deg, proj="car", res_deg=0.5):
    return Car(*enmap.geometry(np.radians(box_deg), res=np.radians(res_deg), proj=proj))


def test_the_whole_sky_has_no_margin():
    whole = Car(*enmap.fullsky_geometry(4 * utils.degree))
    assert margins.widened(whole, 8, 600) == (whole, None)
    sky = Healpix(16)
    assert margins.widened(sky, 8, 600) == (sky, None)
    assert margins.crop(np.ones(3), None).shape == (3,)


@pytest.mark.parametrize("proj", ["car", "cea", "mer"])
@pytest.mark.parametrize("arcmin", [0, 90, 600])
@pytest.mark.parametrize("box", [[[-5, 40], [6, -30]], [[55, 20], [72, -20]], [[-80, 9], [-60, 0]]])
def test_every_place_so_near_is_on_the_wider_map(proj, arcmin, box):
    """Places at this distance from the edge of the map, all round it."""
    map = grid(box, proj)
    wider, inside = margins.widened(map, 4, arcmin)
    assert tuple(part.stop - part.start for part in inside) == map.shape
    y, x = np.mgrid[: map.shape[0], : map.shape[1]]
    ours, theirs = (
        np.array(g.angles(np.ravel_multi_index((y + dy, x + dx), g.shape).ravel()))
        for g, dy, dx in ((map, 0, 0), (wider, inside[0].start, inside[1].start))
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    border = np.flatnonzero((y == 0) | (x == 0) | (y == map.shape[0] - 1) | (x == map.shape[1] - 1))
    theta, phi = map.angles(border)
    reach = np.radians(arcmin / 60) * 0.999
    # rows of CEA and MER end before the poles
    ends = wider.angles(np.array([0, wider.npix - 1]))[0]
    for turn in np.linspace(0, 2 * np.pi, 24, endpoint=False):
        away = np.cos(theta) * np.cos(reach) + np.sin(theta) * np.sin(reach) * np.cos(turn)
        around = np.arctan2(
            np.sin(turn) * np.sin(reach) * np.sin(theta), np.cos(reach) - np.cos(theta) * away
        )
        seen = wider.pixel(np.arccos(away), (phi + around) % (2 * np.pi)) >= 0
        beyond = (np.arccos(away) < ends.min()) | (np.arccos(away) > ends.max())
        assert (seen | (beyond & (proj != "car"))).all()


def test_rows_end_at_poles_and_all_columns_lie_round_them():
    shape, wcs = enmap.fullsky_geometry(4 * utils.degree)
    top = Car(*enmap.slice_geometry(shape, wcs, (slice(0, 30), slice(0, 60))))
    wider, inside = margins.widened(top, 8)
    assert wider.shape == (38, 90)
    assert inside == (slice(0, 30), slice(15, 75))
    near = Car(*enmap.slice_geometry(shape, wcs, (slice(4, 30), slice(0, 88))))
    assert margins.widened(near, 4)[0].shape == (34, 90)
    assert margins.widened(near, 5)[0].shape == (35, 90)
    assert margins.widened(near, 4)[1] == (slice(4, 30), slice(1, 89))


@pytest.mark.parametrize(("rows", "first"), [(91, 46), (46, 46), (46, 1)])
def test_rows_on_the_poles_of_equal_areas(rows, first):
    """Maps of CEA with a row on one pole or both, half a turn or all of it."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---CEA", "DEC--CEA"]
    wcs.wcs.crpix, wcs.wcs.cdelt = [90, first], [-2, np.degrees(1) / 45]
    for columns in (180, 90):
        map = Car((rows, columns), wcs)
        for arcmin in (0, 600):
            wider, inside = margins.widened(map, 8, arcmin)
            assert wider.shape[1] == 180
            assert margins.crop(np.zeros(wider.shape), inside).shape == map.shape


def test_averages_at_a_pole_are_those_of_the_whole():
    """Rows beyond a pole are on its other side."""
    alm = gaussian.draw_alm(1.0 / (np.arange(41) + 3.0) ** 2, 1)
    shape, wcs = enmap.fullsky_geometry(4 * utils.degree)
    whole = Car(shape, wcs)
    full = pixel_window.filtered(gaussian.alm_to_map(alm, whole), whole)
    part = Car(*enmap.slice_geometry(shape, wcs, (slice(30, 46), slice(20, 60))))
    made = pixel_window.of_alm(alm, part)
    np.testing.assert_allclose(made, full[30:46, 20:60], atol=SINGLE * full.std())


def test_a_projection_that_ends_with_the_map_has_none():
    flat = Car(*enmap.geometry(np.radians([[-5, 5], [5, -5]]), res=np.radians(0.5), proj="tan"))
    wider, inside = margins.widened(flat, 8)
    assert wider.shape == (flat.shape[0] + 16, flat.shape[1] + 16)
    assert margins.crop(np.zeros((2, *wider.shape)), inside).shape == (2, *flat.shape)
