"""Splits of the sky: no patch of one set shares sky with a patch of another."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mlsky.cutting import areas

BAND = areas.EquatorialBand(4.0)  # coarse pixels keep the tests fast
SIZE = 24


def places(part, patches=40, seed=1, split=None, **options):
    options = {"band": BAND, "size": SIZE} | options
    return areas.plan(part, patches, seed, split=split or areas.Split(), **options)


def sky(place, band=BAND, size=SIZE, step=0.5):
    """Directions on the unrotated sky all over the pixels of a patch, edges included."""
    i = np.arange(-0.5, size - 0.5 + step / 2, step)
    v = band.vectors(place[1] + i[:, None], place[2] + i[None])
    return np.einsum("ij,jyx->iyx", areas.matrix(areas.ROTATIONS[place[0]]).T, v)


def test_rotations_are_the_papers():
    assert len(areas.ROTATIONS) == 25
    assert (0, 0) in areas.ROTATIONS
    assert (15, 0) not in areas.ROTATIONS
    assert max(a for a, _ in areas.ROTATIONS) == 75
    assert max(b for _, b in areas.ROTATIONS) == 80


@pytest.mark.parametrize(("pixel", "shape"), [(0.5, (2400, 43200)), (2.0, (600, 10800))])
def test_band_is_the_papers(pixel, shape):
    band = areas.EquatorialBand(pixel)
    assert band.shape == shape
    geometry = band.geometry
    theta, _ = geometry.angles(np.array([0, geometry.npix - 1]))
    dec = 90 - np.degrees(theta)
    edge = 10 - pixel / 120
    np.testing.assert_allclose(dec, [-edge, edge], atol=1e-9)


def test_band_vectors_are_those_of_its_wcs():
    geometry = BAND.geometry
    y, x = np.array([0, 3, 299]), np.array([0, 5399, 17])
    theta, phi = geometry.angles(y * BAND.shape[1] + x)
    want = [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)]
    np.testing.assert_allclose(BAND.vectors(y, x), want, atol=1e-12)


@pytest.mark.parametrize("pixel", [0.7, 0, -1, np.nan, "2"])
def test_band_refuses(pixel):
    with pytest.raises(ValueError, match="pixel_arcmin="):
        areas.EquatorialBand(pixel)


@pytest.mark.parametrize("part", areas.PARTS)
@pytest.mark.parametrize("octant", [False, True])
def test_every_point_of_a_patch_is_in_areas_of_its_set(part, octant):
    split = areas.Split(octant=octant)
    for place in places(part, 30, split=split):
        assert np.all(split.part_of(sky(place)) == areas.PARTS.index(part))


def test_no_patch_of_one_set_overlaps_one_of_another():
    """By the pixels of a fine grid that patches touch, not by the areas themselves."""
    healpy = pytest.importorskip("healpy")
    touched = {}
    for part in areas.PARTS:
        # a seed of its own for each set: the split does not depend on it
        for place in places(part, 60, seed=len(part)):
            v = sky(place, step=0.25)
            pixels = healpy.vec2pix(2048, *v)
            touched.setdefault(part, set()).update(pixels.ravel().tolist())
    for one, other in itertools.combinations(areas.PARTS, 2):
        # 2048: pixels of 1.7' between samples 1' apart; those astride an area's border could
        # be touched by two sets, but the guard of two pixels (8') keeps both away from it
        assert not touched[one] & touched[other]


def test_sets_hold_their_shares():
    owner = areas.Split(nside=8).areas()
    fraction = np.bincount(owner, minlength=3) / owner.size
    np.testing.assert_allclose(fraction, areas.FRACTIONS, atol=1 / owner.size)


def test_octant_gives_images_to_the_same_set():
    split = areas.Split(nside=8, octant=True)
    rng = np.random.Generator(np.random.Philox(3))
    v = rng.standard_normal((3, 500))
    x, y, z = v / np.linalg.norm(v, axis=0)
    want = split.part_of(np.stack([x, y, z]))
    assert len(np.unique(want)) == 3
    for image in ((x, y, -z), (-x, y, z), (-y, x, z), (y, x, z)):
        np.testing.assert_array_equal(split.part_of(np.stack(image)), want)


def test_plan_is_fixed_by_the_seed_and_extends():
    long = places("test", 30)
    np.testing.assert_array_equal(long, places("test", 30))
    assert not np.array_equal(long, places("test", 30, seed=2))
    assert np.all(np.diff(long[:, 0]) >= 0)
    assert long[:, 1].min() >= 0
    assert long[:, 1].max() <= BAND.shape[0] - SIZE
    assert len(np.unique(long[:, 0])) > 5


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"part": "dev"}, "part='dev'"),
        ({"patches": 0}, "patches=0"),
        ({"size": 0}, "size=0"),
        ({"size": 400}, "do not fit into the band"),
        ({"size": 300}, "too large for areas"),
        ({"seed": -1}, "seed=-1"),
        ({"split": areas.Split(fractions=(1, 0, 0))}, "no patch of"),
    ],
)
def test_plan_refuses(changed, line):
    with pytest.raises(ValueError, match=line):
        places(**({"part": "test"} | changed))


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"nside": 3}, "split_nside=3"),
        ({"fractions": (0.5, 0.4)}, "fractions="),
        ({"fractions": (0.5, 0.4, 0.2)}, "fractions="),
        ({"fractions": "most"}, "fractions="),
        ({"seed": 1.5}, "split_seed=1.5"),
    ],
)
def test_split_refuses(changed, line):
    with pytest.raises(ValueError, match=line):
        areas.Split(**changed)


@pytest.mark.parametrize("rotations", [[], [(1, 2, 3)], [(np.nan, 1)], "abc", 5])
def test_rotations_refused(rotations):
    with pytest.raises(ValueError, match="rotations="):
        areas.check_rotations(rotations)


def test_matrix_turns_about_z_then_y():
    np.testing.assert_allclose(areas.matrix((90, 0)) @ [1, 0, 0], [0, 1, 0], atol=1e-15)
    np.testing.assert_allclose(areas.matrix((0, 90)) @ [0, 0, 1], [1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(areas.matrix((90, 90)) @ [0, -1, 0], [0, 0, -1], atol=1e-15)
