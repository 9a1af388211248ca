"""Large scales of the foregrounds: power, response, sign, and the same at every resolution."""

from __future__ import annotations

import healpy
import numpy as np
import pytest

from mlsky.painting import large_scales
from mlsky.sphere import charts, gaussian
from mlsky.sphere.field import Field

LMAX = 300
#: Deviations of a measured power or mean in units of its sampling error.
SIGMAS = 5
#: Cubic splines through a field of l < 480 on 8' pixels, over its rms: measured 5e-3.
REFINED = 1e-2
SIZE = 400  # clusters
#: Fields that follow kappa and each other.
NAMES = ("tsz", "cib", "radio")


def table(**changes) -> dict:
    """Every field, flat in l."""
    ell = [0, 2, LMAX, 480]
    flat = [1.0, 1.0, 1.0, 0.0]
    root = {"tsz": 0.01, "cib tsz": 0.001, "cib": 0.004, "radio cib": 1e-4, "radio": 3e-4}
    return {
        "ell": ell,
        "response": {"tsz": [-2.0] * 4, "cib": [3.0] * 4, "radio": [0.0] * 4},
        "root": {k: (v * np.array(flat)).tolist() for k, v in {**root, "ksz": 2e-3}.items()},
        "mean_cib": 20.0,
        "clusters": SIZE,
        **changes,
    }


def start(lmax: int = LMAX, seed: int = 5) -> np.ndarray:
    return gaussian.draw_alm(np.full(lmax + 1, 1e-7), seed)


def power(a, b=None) -> float:
    """Mean C_l of all modes from l = 2, and how many there are."""
    cl = healpy.alm2cl(a, b)
    modes = 2 * np.arange(len(cl)) + 1
    return float((cl * modes)[2:].sum() / modes[2:].sum())


def test_a_file_without_a_table_completes_nothing():
    chart = charts.charts(20.0, 4, 8)[0]
    made = {"tsz": np.full(chart.shape, -1, np.float32)}
    large_scales.prepare({}, start(), 1).apply(chart, made)
    np.testing.assert_array_equal(made["tsz"], -1)


def test_amplitudes_alone():
    chart = charts.charts(20.0, 4, 8)[0]
    made = {name: np.full(chart.shape, -1, np.float32) for name in ("tsz", "ksz")}
    large_scales.prepare({"amplitude": {"ksz": 1.5, "cib": 2.0}}, start(), 1).apply(chart, made)
    np.testing.assert_array_equal(made["ksz"], -1.5)
    np.testing.assert_array_equal(made["tsz"], -1)


def test_power_and_correlation():
    """Auto and cross spectra are those of the roots; kappa adds its response."""
    kappa = start()
    alm = large_scales.modes(table(), kappa, 7)
    error = SIGMAS * np.sqrt(2 / LMAX**2)
    expected = {"tsz": 1e-4 + 4e-7, "cib": 1.7e-5 + 9e-7, "radio": 1e-7, "ksz": 4e-6}
    for name, value in expected.items():
        # clusters of fixed number and flux: power scatters as for waves
        assert power(alm[name]) == pytest.approx(value, rel=error), name
    bound = SIGMAS * np.sqrt(expected["tsz"] * expected["cib"]) / LMAX
    assert abs(power(alm["tsz"], alm["cib"]) - (1e-5 - 6e-7)) < bound
    assert abs(power(alm["ksz"], kappa)) < SIGMAS * np.sqrt(4e-6 * 1e-7) / LMAX
    bound = SIGMAS * np.sqrt(expected["cib"] * 1e-7) / LMAX
    assert abs(power(alm["cib"], kappa) - 3 * power(kappa)) < bound


def test_the_response_is_exact():
    kappa = start()
    root = {name: [0.0] * 4 for name in ("tsz", "cib", "radio", "ksz")}
    alm = large_scales.modes(table(root=root), kappa, 7)
    assert set(alm) == {"tsz", "cib"}
    ell, _ = healpy.Alm.getlm(LMAX)
    np.testing.assert_allclose(alm["cib"][ell > 1], 3 * kappa[ell > 1])
    assert not alm["cib"][ell < 2].any()  # the mean of a map is not touched


def test_modes_do_not_depend_on_the_band_limit():
    low, high = (
        large_scales.modes(table(), start(100), 7),
        large_scales.modes(table(), start(400), 7),
    )
    for name in low:
        cut = healpy.resize_alm(high[name], 400, 400, 100, 100)
        # rounding of the sum over clusters, which ends at another l
        np.testing.assert_allclose(low[name], cut, rtol=1e-5, atol=1e-9, err_msg=name)


def test_seeds_differ():
    one, other = (large_scales.modes(table(), start(), seed) for seed in (7, 8))
    for name in one:
        r = power(one[name], other[name]) / np.sqrt(power(one[name]) * power(other[name]))
        shared = {"tsz": 4e-3, "cib": 5e-2}.get(name, 0)  # they follow the same kappa
        assert abs(r) < shared + SIGMAS / LMAX


def test_clusters_are_negative():
    """tSZ is skewed to decrements and bounded above, unlike a Gaussian field of its power."""
    alm = large_scales.modes(table(response={n: [0.0] * 4 for n in NAMES}), start(), 7)
    values = Field(alm["tsz"])(*healpy.pix2ang(64, np.arange(12 * 64**2)))
    values = values / values.std()
    assert (values**3).mean() < -1
    assert values.max() < 0.25 * -values.min()


def test_signs_and_means_on_a_chart():
    chart = charts.charts(10.0, 4, 8)[77]
    rng = np.random.Generator(np.random.Philox(3))
    noise = rng.standard_normal((4, *chart.shape)).astype(np.float32)
    made = {
        "tsz": -np.exp(noise[0]),
        "cib": 20 * np.exp(0.1 * noise[1]),
        "ksz": noise[2],
        "log_rate": noise[3],
    }
    before = {name: m.copy() for name, m in made.items()}
    calibration = {"large_scales": table()}
    large_scales.prepare(calibration, start(), 7).apply(chart, made)
    assert made["tsz"].max() <= 0
    assert made["cib"].min() > 0
    alm = large_scales.modes(table(), start(), 7)
    for name, added in (("ksz", Field(alm["ksz"]).on(chart)), ("tsz", Field(alm["tsz"]).on(chart))):
        inside = before[name] + added < 0 if name == "tsz" else ...
        np.testing.assert_allclose(made[name][inside], (before[name] + added)[inside], atol=1e-5)
    np.testing.assert_allclose(
        made["cib"], before["cib"] * (1 + Field(alm["cib"]).on(chart) / 20), rtol=1e-5
    )
    np.testing.assert_allclose(
        np.exp(made["log_rate"] - before["log_rate"]), 1 + Field(alm["radio"]).on(chart), rtol=1e-5
    )


@pytest.mark.parametrize("lmax", [480, 1920])
def test_fine_pixels_are_interpolated(lmax):
    """On 0.5' pixels fields are looked up on 8' or 2' ones; the difference is below their rms."""
    chart = charts.charts(0.5, 32, 8)[100]
    kappa = gaussian.draw_alm(np.full(lmax + 1, 1e-7), 2)
    told = table(ell=[0, 2, lmax - 100, lmax])
    large = large_scales.prepare({"large_scales": told}, kappa, 7)
    made = {"ksz": np.zeros(chart.shape, np.float32)}
    large.apply(chart, made)
    exact = Field(large_scales.modes(told, kappa, 7)["ksz"]).on(chart)
    assert np.abs(made["ksz"] - exact).max() < REFINED * exact.std()


def test_a_part_of_ksz_follows_that_of_the_objects():
    """Its correlation with the objects is the response of the table; what is drawn is not."""
    own = gaussian.draw_alm(np.full(LMAX + 1, 3e-6), 11)
    told = table(ksz_of_objects=[0.4] * 4)
    alone = large_scales.modes(told, start(), 7)["ksz"]
    both = large_scales.modes(told, start(), 7, lambda name, lmax: own.copy())["ksz"]
    ell = np.arange(LMAX + 1)
    np.testing.assert_allclose(both - alone, gaussian.scale_alm(own.copy(), 0.4 * (ell > 1)))
    none = large_scales.modes(table(), start(), 7, lambda name, lmax: own.copy())["ksz"]
    np.testing.assert_array_equal(none, alone)


def test_fields_end_where_their_table_does():
    told = table(ell=[0, 2, 480, 1920])
    told["root"] = {k: [*v[:2], 0.0, 0.0] for k, v in told["root"].items()} | {"tsz": [0.01] * 4}
    told["response"] = {name: [0.0] * 4 for name in NAMES}
    fields = large_scales.modes(told, start(1920), 7)
    assert {name: gaussian.alm_lmax(values) for name, values in fields.items()} == {
        "tsz": 1920,
        "cib": 480,
        "radio": 480,
        "ksz": 480,
    }


def rest() -> dict:
    """Of networks that leave clusters to the sky, with two templates of the CIB."""
    ell, flat = [0, 2, LMAX, 480], np.array([1.0, 1.0, 1.0, 0.0])
    root = {"tsz": 2e-4, "cib tsz": -1e-3, "cib": 0.004, "cib_353 cib": 0.05, "cib_353": 0.01}
    root |= {"radio": 3e-4, "ksz": 2e-3}
    return {
        "ell": ell,
        # as headers are kept, in the order of the alphabet
        "response": {
            "cib": [3.0] * 4,
            "cib_353": [40.0] * 4,
            "radio": [0.0] * 4,
            "tsz": [-0.1] * 4,
        },
        "root": {k: (v * flat).tolist() for k, v in root.items()},
        "mean": {"cib": 20.0, "cib_353": 300.0, "tsz": -0.8},
    }


def test_power_of_several_templates():
    alm = large_scales.modes(rest(), start(), 7)
    expected = {
        ("tsz", "tsz"): 4e-8 + 1e-2 * 1e-7,
        ("tsz", "cib"): -2e-7 - 0.3e-7,
        ("cib", "cib"): 1.7e-5 + 9e-7,
        ("cib", "cib_353"): 2e-4 + 1.2e-5,
        ("cib_353", "cib_353"): 2.6e-3 + 1.6e-4,
    }
    for (a, b), value in expected.items():
        error = SIGMAS * np.sqrt(2 * expected[a, a] * expected[b, b]) / LMAX
        assert power(alm[a], alm[b]) == pytest.approx(value, abs=error), (a, b)
    # without clusters tSZ is a field like the others
    values = Field(alm["tsz"])(*healpy.pix2ang(64, np.arange(12 * 64**2)))
    assert abs((values**3).mean() / values.std() ** 3) < 0.1


def test_every_template_is_multiplied_by_its_own_field():
    chart = charts.charts(10.0, 4, 8)[77]
    made = {name: np.full(chart.shape, 1, np.float32) for name in ("cib", "cib_353", "cib_857")}
    made |= {"tsz": np.full(chart.shape, -1, np.float32)}
    large_scales.prepare({"large_scales": rest()}, start(), 7).apply(chart, made)
    alm = large_scales.modes(rest(), start(), 7)
    for name, mean in rest()["mean"].items():
        expected = 1 + Field(alm[name]).on(chart) / mean
        np.testing.assert_allclose(np.abs(made[name]), expected, rtol=1e-5)
        assert expected.std() > 1e-3
    np.testing.assert_array_equal(made["cib_857"], 1)
    assert made["tsz"].max() < 0
