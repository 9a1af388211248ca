"""Part of the sky up to its edges: a patch has the pixels of a larger one."""

from __future__ import annotations

import fakes
import numpy as np
import pytest
from pixell import enmap, utils

import mlsky
from mlsky import edges
from mlsky.sphere.geometry import Car

#: Beam of four pixels, arcmin.
FWHM = 120.0

#: Largest differences of fields that networks paint, in units of their rms: margins end where a
#: beam is 3e-8 of its peak, and single precision is all there is.
PAINTED = 5e-4
#: Of the CMB and kappa, which follow a kappa that is made afresh near each map (docs/performance):
#: of networks with pixels of 20', untrained, and lensing on a grid of its own.
MADE_AFRESH = {"cmb": 0.05, "kappa": 0.2}
#: The same where a map with a beam holds a pole: the last rows' quadrature (docs/beams).
POLE = 0.08

#: A CIB of templates, whose remainder follows their mean.
HEADER = {"cib_templates": fakes.TEMPLATES}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(fakes.coarse_weights(tmp_path_factory.mktemp("weights") / "coarse.safetensors"))


def cut(rows, columns):
    shape, wcs = enmap.fullsky_geometry(0.5 * utils.degree)
    return enmap.slice_geometry(shape, wcs, (rows, columns))


OPTIONS = {
    "beam": {"beam": FWHM},
    "beam without window": {"beam": FWHM, "pixel_window": False},
    "neither": {"pixel_window": False, "components": ["cmb", "tsz", "ksz"]},
    "window": {},
}
PLACES = {
    "middle": (
        cut(slice(140, 200), slice(290, 390)),
        cut(slice(160, 190), slice(320, 360)),
        (slice(20, 50), slice(30, 70)),
    ),
    "pole": (
        cut(slice(300, 361), slice(0, 720)),
        cut(slice(345, 361), slice(100, 300)),
        (slice(45, 61), slice(100, 300)),
    ),
}


@pytest.mark.parametrize(
    ("place", "options"),
    [
        ("middle", "beam without window"),
        ("middle", "neither"),
        ("pole", "beam"),
        ("pole", "window"),
    ],
)
def test_a_patch_has_the_pixels_of_a_larger_one(weights, place, options):
    big, small, inside = PLACES[place]
    common = {"freqs": [145], "seed": 1, "weights": weights, **OPTIONS[options]}
    larger, patch = (mlsky.simulate(geometry=geometry, **common) for geometry in (big, small))
    assert patch.geometry == Car(*small)
    assert patch.meta["geometry"] == Car(*small).describe()
    beamed = "beam" in OPTIONS[options]
    for name in patch:
        expected = larger[name][0][(..., *inside)]
        found = patch[name][0]
        tolerance = MADE_AFRESH.get(name, PAINTED)
        if place == "pole" and beamed:
            tolerance = max(tolerance, POLE)
        if name == "radio" and not beamed:  # one source on a border may change its pixel
            continue
        scale = expected.std(axis=(1, 2), keepdims=True)
        assert np.abs(found - expected).max() <= tolerance * scale.max(), name
    difference = patch.kappa - larger.kappa[inside]
    assert np.abs(difference).max() < MADE_AFRESH["kappa"] * patch.kappa.std()
    if patch.catalog is None:
        return
    on_map = edges._on_map(larger.catalog, patch.geometry)
    assert 10 < len(patch.catalog) == len(on_map) < len(larger.catalog)
    np.testing.assert_array_equal(patch.catalog["ra"], on_map["ra"])


@pytest.mark.parametrize("options", OPTIONS)
def test_on_disk_as_in_memory(monkeypatch, tmp_path, options):
    fakes.install(monkeypatch)
    arguments = {
        "freqs": [93, 225],
        "seed": 1,
        "geometry": PLACES["middle"][1],
        **OPTIONS[options],
    }
    sky = mlsky.simulate(**arguments)
    assert sky.total.shape[-2:] == sky.kappa.shape == (30, 40)
    for name in ("sky.h5", "sky.fits"):
        filed = mlsky.simulate(**arguments, out=tmp_path / name)
        np.testing.assert_array_equal(filed.total, sky.total)
        np.testing.assert_array_equal(filed.kappa, sky.kappa)
        assert filed.geometry == sky.geometry
    assert {path.name for path in tmp_path.iterdir()} == {"sky.fits", "sky.h5"}


BEAM = {"beam": 4 * FWHM, "pixel_window": False, "monopole": False}
MEAN = {"monopole": ("tsz",)}
SAMPLES = {"pixel_window": False, "components": ["cmb", "tsz"], "monopole": False}


@pytest.mark.parametrize("place", ["patch", "whole"])
@pytest.mark.parametrize(
    ("options", "stage"),
    [
        (BEAM, "lensing of the CMB"),
        (BEAM, "beams"),
        (BEAM, "writing"),
        (MEAN, "lensing of the CMB"),
        (MEAN, "writing"),
        (SAMPLES, "lensing of the CMB"),
        (SAMPLES, "writing"),
    ],
)
def test_a_run_resumed_anywhere_makes_the_same_sky(monkeypatch, tmp_path, stage, place, options):
    """Steps that change maps which are there already: a second time they would do more."""
    fakes.install(monkeypatch, header=HEADER)
    pixels = {"geometry": enmap.fullsky_geometry(4 * utils.degree)}
    if place == "patch":
        options = {name: value for name, value in options.items() if name != "monopole"}
        pixels = {"geometry": enmap.slice_geometry(*pixels["geometry"], (slice(15, 25),) * 2)}
    arguments = {"freqs": [93, 225], "seed": 1, **pixels, **options}

    def stop(found, fraction):
        if found.startswith(stage):
            raise KeyboardInterrupt

    out = tmp_path / "sky.h5"
    with pytest.raises(KeyboardInterrupt):
        mlsky.simulate(**arguments, out=out, progress=stop)
    whole = mlsky.simulate(**arguments)
    resumed = mlsky.simulate(**arguments, out=out)
    np.testing.assert_array_equal(resumed.total, whole.total)


def test_a_run_with_another_margin_does_not_take_its_maps(monkeypatch, tmp_path):
    """The folder of an unfinished sky is of maps with the margin of its beam."""
    fakes.install(monkeypatch)
    arguments = {"freqs": 93, "seed": 1, "geometry": PLACES["middle"][1]}
    out = tmp_path / "sky.h5"

    def stop(stage, fraction):
        if stage == "beams":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mlsky.simulate(**arguments, out=out, beam=FWHM, progress=stop)
    with pytest.raises(ValueError, match=r"painted differ"):
        mlsky.simulate(**arguments, out=out, beam=2 * FWHM)
    whole = mlsky.simulate(**arguments, beam=FWHM)
    resumed = mlsky.simulate(**arguments, out=out, beam=FWHM)
    np.testing.assert_array_equal(resumed.total, whole.total)
