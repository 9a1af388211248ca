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
