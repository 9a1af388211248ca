"""Maps rescaled to another cosmology: their power, means, signs and edges."""

import healpy
import numpy as np
import pytest

from mlsky.painting import rescale
from mlsky.painting.rescale import Rescaling
from mlsky.sphere import charts, gaussian
from mlsky.sphere.chart_area import Area
from mlsky.theory import parse
from mlsky.theory.response import Response

#: float32 transforms, relative to the rms of a field.
ROUNDING = 1e-5

PIXEL = np.radians(2 / 60)
N = 256
WHOLE = np.ones((N, N), bool)

NODES = np.geomspace(20.0, 30000.0, 64)


def constant(value):
    return np.full(NODES.size, value)


def rescaling(gain, mean=None, trained_mean=None):
    mean = mean or {}
    return Rescaling(Response(parse("act-dr6"), parse(), NODES, gain, mean, trained_mean or {}))


@pytest.fixture(scope="module")
def field():
    """A skewed, negative field as of tSZ: white, squared, smoothed a little."""
    noise = np.random.Generator(np.random.Philox(1)).standard_normal((N, N))
    smooth = np.fft.irfft2(
        np.fft.rfft2(noise)
        * np.exp(-20 * (np.fft.fftfreq(N)[:, None] ** 2 + np.fft.rfftfreq(N)[None] ** 2)),
        s=(N, N),
    )
    return -(smooth**2).astype(np.float32)


def test_equal_ratios_are_a_multiplication(field):
    mean = float(field.mean())
    r = rescaling({"tsz": constant(1.4)}, {"tsz": 1.4}, {"tsz": mean})
    got = r.filtered("tsz", field, PIXEL, WHOLE)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, 1.4 * field, atol=ROUNDING * field.std())


def test_power_follows_the_gain(field):
    gain = 1 + 0.3 * np.exp(-(((np.log(NODES) - np.log(1500)) / 0.5) ** 2))
    ksz = field - field.mean()
    got = rescaling({"ksz": gain}).filtered("ksz", ksz, PIXEL, WHOLE)
    before, after = (np.fft.rfft2(x.astype(np.float64)) for x in (ksz, got))
    step = 2 * np.pi / PIXEL
    ell = np.hypot(np.fft.fftfreq(N)[:, None] * step, np.fft.rfftfreq(N)[None] * step)
    expected = np.interp(np.log(np.maximum(ell, 1)), np.log(NODES), gain)
    some = np.abs(before) > 1e-3 * np.abs(before).max()
    np.testing.assert_allclose((after / before)[some].real, expected[some], rtol=1e-3)


def test_means_go_as_the_models(field):
    mean = float(field.mean())
    r = rescaling({"tsz": constant(1.4)}, {"tsz": 1.5}, {"tsz": mean})
    assert r.filtered("tsz", field, PIXEL, WHOLE).mean() == pytest.approx(1.5 * mean, rel=1e-5)
    # kSZ has no mean to be changed
    r = rescaling({"ksz": constant(1.2)})
    assert r.filtered("ksz", field, PIXEL, WHOLE).mean() == pytest.approx(1.2 * mean, rel=1e-5)


def test_signs_are_kept(field):
    """Where gain falls to small scales pixels would leave the sign of their field."""
    gain = np.interp(np.log(NODES), np.log([300, 3000]), [0.95, 1.0])
    for name, values in (("tsz", field), ("cib", -field)):
        got = rescaling({name: gain}).filtered(name, values, PIXEL, WHOLE)
        assert (rescale.SIGN[name] * got).min() == 0
    free = rescaling({"ksz": gain}).filtered("ksz", field, PIXEL, WHOLE)
    assert free.max() > 0
    # the mean moves by little, here where a tenth of all pixels are all but zero
    assert got.mean() == pytest.approx(-free.mean(), rel=0.02)


def test_beyond_the_area_nothing(field):
    chart = charts.charts(20.0)[5]
    area = charts.owned_area(chart, 4)
    inside = area.mask()
    rng = np.random.Generator(np.random.Philox(2))
    made = {
        name: np.where(inside, sign * rng.random(chart.shape), 0).astype(np.float32)
        for name, sign in (("tsz", -1), ("ksz", 1), ("cib", 1), ("cib_353", 1), ("kappa", 1))
    }
    gain = {
        name: constant(g)
        for name, g in (("tsz", 1.4), ("ksz", 1.2), ("cib", 0.9), ("cib_353", 0.8))
    }
    before = {name: values.copy() for name, values in made.items()}
    got = rescaling(gain).maps(chart, made, area)
    for name, values in made.items():
        np.testing.assert_array_equal(values, before[name])  # sources are drawn from these
        assert not got[name][~inside].any()
        expected = values if name == "kappa" else gain[name][0] * values
        np.testing.assert_allclose(got[name], expected, atol=1e-6)
    assert got["kappa"] is made["kappa"]
    empty = Area.of(np.zeros(chart.shape, bool))
    assert not rescaling(gain).maps(chart, {"tsz": 0 * made["tsz"]}, empty)["tsz"].any()


def test_fields_that_are_not_wanted_stay(field):
    chart = charts.charts(20.0)[0]
    made = {"tsz": np.zeros(chart.shape, np.float32)}
    out = rescaling({"cib": constant(1.1)}).maps(chart, made, Area.whole(*chart.shape))
    assert out["tsz"] is made["tsz"]


def test_kappa_goes_to_the_networks_and_back(monkeypatch):
    """The same phases with the power of the other cosmology; the user's alm stays as it is."""
    ell = np.arange(301.0)
    power = {parse(): 1e-7 / (1 + ell), parse("act-dr6"): 2e-7 / (1 + ell) ** 1.1}
    for cl in power.values():
        cl[:2] = 0
    monkeypatch.setattr(
        rescale.spectra, "kappa_spectrum", lambda lmax, cosmology: power[cosmology][: lmax + 1]
    )
    alm = gaussian.draw_alm(power[parse("act-dr6")], 1)
    kept = alm.copy()
    r = rescaling({})
    given = r.to_networks(alm)
    np.testing.assert_allclose(given, gaussian.draw_alm(power[parse()], 1), rtol=1e-12)
    np.testing.assert_allclose(r.to_sky(given), alm, rtol=1e-12)
    np.testing.assert_array_equal(alm, kept)
    short = healpy.resize_alm(given, 300, 300, 1, 1) + 1.0  # below l = 2 nothing is changed
    np.testing.assert_array_equal(r.to_sky(short), short)
