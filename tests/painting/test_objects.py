"""Clusters beside networks: shown to them as they are, added or not, and never calibrated."""

from __future__ import annotations

import healpy
import numpy as np
import pytest
import torch
from astropy import units
from astropy.table import QTable
from fakes import PIXEL_ARCMIN, coarse_rest
from halo_cases import shipped

from mlsky.errors import RegistryError
from mlsky.haloes import catalogue, paint
from mlsky.networks import evaluate
from mlsky.networks.weights import open_weights
from mlsky.painting import foregrounds, objects, padding
from mlsky.sphere import charts, gaussian
from mlsky.sphere.field import Field
from mlsky.sphere.geometry import Healpix

NSIDE, SEED = 64, 3
#: Maps are sums in float32.
ROUNDED = 1e-5
#: Charts of 20' do not hold the cores of clusters: their band ends, and maps ring.
RINGING = 0.1
#: A filter on a flat chart of 7 degrees against one on the sphere, over the rms: pixels of a
#: stereographic chart differ by 1 %, and beyond its edge a chart knows nothing, here of
#: wavelengths as long as the chart.
FLAT = 0.05
#: Of what networks make.
GAIN = 0.8


def clusters() -> dict:
    return catalogue.check(
        QTable(
            {
                "ra": [45.0, 52.0] * units.deg,
                "dec": [0.0, -6.0] * units.deg,
                "z": [0.1, 0.3],
                "m200m": [1.5e15, 2e15] * units.Msun,
                "velocity": [900, -900] * units.km / units.s,
            }
        ),
        shipped(),
    )


def near(every) -> list:
    """The charts round the clusters."""
    middle = healpy.ang2vec(47.0, -2.0, lonlat=True)
    return [chart for chart in every if chart.rotation[2] @ middle > np.cos(0.3)]


@pytest.fixture(scope="module", autouse=True)
def a_part_of_the_sky():
    """The other charts stay empty, and fewer widths are harmonics: less work."""
    each = foregrounds._each
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foregrounds, "_each", lambda paint, every, cpu: each(paint, near(every), cpu))
        patch.setattr(paint, "WIDE_ARCMIN", 40.0)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("objects")


@pytest.fixture(scope="module")
def start():
    ell = np.arange(541)
    return gaussian.draw_alm(np.where(ell > 1, 1e-3 / np.maximum(ell, 1) ** 1.5, 0), seed=5)


def painter(weights, components, **options) -> paint.HaloPainter:
    _, made = objects.objects_of_sky(
        np.zeros(1),
        np.zeros(1),
        SEED,
        weights=weights,
        tables=shipped(),
        geometry=Healpix(NSIDE),
        components=components,
        given=clusters(),
        **options,
    )
    return made


@pytest.fixture(scope="module")
def make(folder, start):
    """A sky of the small networks; each is made once."""
    made = {}

    def one(added: bool, calibration=None):
        key = (added, repr(calibration))
        if key not in made:
            path = folder / f"{len(made)}.safetensors"
            weights = open_weights(coarse_rest(path, calibration=calibration or {}))
            made[key] = foregrounds.generate(
                start,
                Healpix(NSIDE),
                weights=weights,
                seed=SEED,
                objects=painter(weights, ("tsz", "ksz", "cib", "radio")),
                add_objects=added,
                device="cpu",
            )
        return made[key]

    return one


@pytest.mark.parametrize("network", ["convergence", "paint"])
def test_networks_of_the_rest_that_overflow_are_one_line(folder, start, network):
    weights = open_weights(coarse_rest(folder / f"huge-{network}.safetensors"))
    with torch.no_grad():
        for parameter in weights.networks[network].parameters():
            parameter.mul_(1e20)
    with pytest.raises(RegistryError, match=r"the networks' \w+ is not finite on chart") as caught:
        foregrounds.generate(
            start,
            Healpix(NSIDE),
            weights=weights,
            seed=SEED,
            objects=painter(weights, ("tsz", "ksz", "cib", "radio")),
            device="cpu",
        )
    assert "\n" not in str(caught.value)


def test_objects_are_in_the_maps_or_left_out(make):
    """Kappa is that of the rest and of the objects; the maps of the rest have no clusters."""
    whole, rest = make(True), make(False)
    assert whole.objects_alm is None
    np.testing.assert_allclose(
        whole.kappa_alm,
        rest.kappa_alm + rest.objects_alm,
        atol=ROUNDED * np.abs(whole.kappa_alm).max(),
    )
    place = healpy.ang2pix(NSIDE, [45.0, 52.0], [0.0, -6.0], lonlat=True)
    more = whole.maps["tsz"] - rest.maps["tsz"]
    assert (more[place] < -0.3).all()  # pixels of a degree
    assert more.max() < -RINGING * more.min()
    for row in range(3):
        more = whole.maps["cib"][row] - rest.maps["cib"][row]
        assert (more[place] > 0).all()
        assert more.min() > -RINGING * more.max()
    assert rest.maps["tsz"].max() <= 0
    places = [set(np.asarray(sky.catalogue["ra"])) for sky in (rest, whole)]
    assert places[0] < places[1]


def test_a_gain_is_of_what_networks_make(make):
    tables = [{"ell": [0, 540], "gain": [g, g]} for g in (2 * GAIN, 0.5)]
    bare, gained = make(False), make(False, {"kappa": tables[0], "kappa_sky": tables[1]})
    np.testing.assert_array_equal(gained.objects_alm, bare.objects_alm)
    ell, _ = healpy.Alm.getlm(gaussian.alm_lmax(bare.kappa_alm))
    high = ell > foregrounds.KAPPA_JOIN[1]
    atol = ROUNDED * np.abs(bare.kappa_alm).max()
    np.testing.assert_allclose(gained.kappa_alm[high], GAIN * bare.kappa_alm[high], atol=atol)
    # the lowest multipoles are those of the start
    low = ell < foregrounds.KAPPA_JOIN[0]
    total = [(sky.kappa_alm + sky.objects_alm)[low] for sky in (bare, gained)]
    np.testing.assert_allclose(*total, atol=atol)
    np.testing.assert_array_equal(gained.maps["tsz"], bare.maps["tsz"])


@pytest.mark.parametrize("order", [None, 2])
def test_networks_see_the_objects_as_they_are(folder, start, monkeypatch, order):
    """Whatever calibrates kappa, and whatever tSZ is kept as."""
    calibration = {"kappa": {"ell": [0, 540], "gain": [GAIN, GAIN]}}
    path = coarse_rest(folder / f"seen{order}.safetensors", calibration=calibration)
    weights = open_weights(path)
    seen = []
    real = evaluate.evaluate

    def spy(*args, **options):
        seen.append(args[-1])
        return real(*args, **options)

    monkeypatch.setattr(evaluate, "evaluate", spy)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # charts in their order
    # of a sky without tSZ too
    given = painter(weights, ("cib",), tsz_order=order)
    options = {"weights": weights, "seed": SEED, "components": ("cib",), "device": "cpu"}
    foregrounds.generate(start, Healpix(NSIDE), objects=given, **options)
    margin = padding.MARGIN + sum(evaluate.STEP_PADDING)
    for chart, maps in zip(
        near(charts.charts(PIXEL_ARCMIN, margin, evaluate.multiple(weights))), seen, strict=True
    ):
        own = given.on(chart)[0]
        np.testing.assert_array_equal(maps["kappa"], own["kappa"])
        np.testing.assert_array_equal(maps["tsz"], own["tsz" if order is None else "tsz_0"])
    assert max(m["kappa"].max() for m in seen) > 0.01


def test_a_filter_on_a_chart_is_that_of_the_sphere():
    lmax = 500
    alm = gaussian.draw_alm(np.r_[0, 0, 1 / np.arange(2.0, lmax + 1)], 4)

    def gain(ell):
        return 1 + 0.3 * np.sin(np.log1p(ell))

    chart = charts.charts(8.0, 16, 8)[100]
    of_sphere = Field(gaussian.scale_alm(alm.copy(), gain(np.arange(lmax + 1.0)))).on(chart)
    made = objects.filtered(Field(alm).on(chart), chart.pixel_rad, gain)
    inner = (slice(24, -24),) * 2
    assert (made - of_sphere)[inner].std() < FLAT * of_sphere.std()
    constant = np.full(chart.shape, 3.0, np.float32)
    inside = np.zeros(chart.shape, bool)
    inside[40:50, 40:50] = True
    made = objects.filtered(constant * inside, chart.pixel_rad, lambda ell: 1 + 0 * ell, inside)
    np.testing.assert_allclose(made, constant, rtol=ROUNDED)
