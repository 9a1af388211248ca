"""Estimates of memory: maps of part of the sky need that of their part."""

from __future__ import annotations

import numpy as np
import pytest
from pixell import enmap

from mlsky.components import COMPONENTS
from mlsky.io import resources
from mlsky.sphere.geometry import geometry

#: 10 x 10 degrees of 0.5', networks of 1', three bands, T, on disk, 1.8 million haloes: measured by
#: benchmarks/patches.py, and the accuracy that `mlsky.io.resources.memory` promises.
MEASURED_GIB, ACCURACY = 3.46, 0.2


#: nside 4096: Fourier transforms of rings, alm and map of one field (2.7), kappa, and Python.
WINDOW_GIB = 4.0


def stages(shape_wcs, pixel_arcmin=1.0, stokes="T", haloes=0):
    pixels = geometry(None, shape_wcs)
    return resources.memory(pixels, pixel_arcmin, tuple(COMPONENTS), stokes, True, 3, haloes)


def patch(low, high, pixel_arcmin):
    corners = np.radians([[low, 45.0], [high, 35.0]])
    return enmap.geometry(corners, res=np.radians(pixel_arcmin / 60), proj="car")


def test_a_patch_needs_what_was_measured():
    needed = max(stages(patch(5.0, 15.0, 0.5), haloes=1_792_000).values())
    assert needed / resources.GIB == pytest.approx(MEASURED_GIB, rel=ACCURACY)


def test_a_taller_map_needs_more_and_the_whole_sky_most():
    maps = [patch(0.0, 10.0, 2.0), patch(-40.0, 10.0, 2.0)]
    whole = enmap.fullsky_geometry(res=np.radians(2 / 60))
    for stage in ("networks", "lensing"):
        found = [stages(given, 2.0, "TQU")[stage] for given in (*maps, whole)]
        assert found == sorted(found)
        assert found[0] < 0.9 * found[2]


def test_the_window_of_pixels_is_counted():
    """For the CMB that gets it, and for other maps that lose it; HEALPix maps alone need alm."""
    pixels = geometry(4096)
    every = tuple(COMPONENTS)

    def needed(names, stokes, window):
        found = resources.memory(pixels, 1.0, names, stokes, True, pixel_window=window)
        return found.get("pixel window", 0.0) / resources.GIB

    assert WINDOW_GIB < needed(every, "T", True) < needed(every, "TQU", True)
    assert needed(("tsz",), "T", True) == 0
    assert needed(("tsz",), "T", False) > WINDOW_GIB
    assert "pixel window" not in stages(patch(5.0, 15.0, 0.5))


@pytest.mark.parametrize("pixels", [geometry(2048), geometry(None, patch(5.0, 15.0, 0.5))])
def test_beams_are_counted(pixels):
    every = tuple(COMPONENTS)
    for stokes in ("T", "TQU"):
        plain, beamed = (
            resources.memory(pixels, 1.0, every, stokes, True, beams=beams)
            for beams in (False, True)
        )
        assert {stage: beamed[stage] for stage in plain} == plain
        assert set(beamed) - set(plain) == {"beams"}
        least = resources.BASE + 16 * pixels.npix * len(stokes) + 16 * pixels.lmax**2
        assert beamed["beams"] > least
