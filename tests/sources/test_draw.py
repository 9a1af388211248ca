"""Sources drawn cell by cell: a Poisson process of the rates, in which none moves."""

from __future__ import annotations

import healpy
import numpy as np
import pytest
from chart_cases import solid_angle

from mlsky.errors import RegistryError
from mlsky.sources import counts, draw
from mlsky.sphere.charts import NSIDE, Chart, charts

#: A chart of 20' pixels, and the same with other margins.
CHARTS, WIDER = charts(20.0, 4, 2), charts(20.0, 12, 2)
#: Radio sources per pixel, of most pixels.
RATE = 0.3
DSFG = {"per_sr": 300.0, "flux_mjy": [7.0, 9.0, 20.0], "mean_cib_uk": 20.0}
HEADER = {"sources": {"dsfg": DSFG}}
#: Standard deviations by which a number that was drawn may miss the one expected.
SIGMAS = 5.0


def maps(chart: Chart) -> dict[str, np.ndarray]:
    """Rates and CIB that are functions of the sky: hot regions, and one without any source."""
    x, y, z = chart.vectors().astype(np.float32).reshape(3, *chart.shape)
    log_rate = np.log(np.float32(RATE)) + np.sin(40 * x) + np.cos(53 * y)
    log_rate[z > np.float32(0.9)] = -np.inf
    return {"log_rate": log_rate, "cib": np.float32(20) * (1 + np.float32(0.5) * np.sin(30 * z))}


def whole_sky(all_charts=CHARTS, seed: int = 1, change=None) -> dict[str, np.ndarray]:
    found = []
    for chart in all_charts:
        made = maps(chart)
        if change is not None:
            made = change(chart, made)
        found.append(draw.of_chart(chart, made, HEADER, seed))
    return {name: np.concatenate([f[name] for f in found], -1) for name in found[0]}


@pytest.fixture(scope="module")
def sky():
    return whole_sky()


def expected(kind: str) -> float:
    """Number of sources by quadrature over the pixels that each chart owns."""
    total = 0.0
    for chart in CHARTS:
        made = maps(chart)
        own = healpy.vec2pix(NSIDE, *chart.vectors(), nest=True) == chart.index
        if kind == "radio":
            rate = np.exp(made["log_rate"]) * chart.scale() ** 2
        else:
            per_sr = DSFG["per_sr"] / DSFG["mean_cib_uk"] * made["cib"]
            rate = per_sr * solid_angle(chart)
        total += float(rate.ravel()[own].sum())
    return total


def test_numbers_and_fluxes(sky):
    dsfg = sky["dsfg"]
    for kind, chosen in (("radio", ~dsfg), ("dsfg", dsfg)):
        mean = expected(kind)
        assert abs(chosen.sum() - mean) < SIGMAS * np.sqrt(mean), kind
    assert len(np.unique(sky["number"])) == len(dsfg)
    flux = sky["flux"][~dsfg]
    # rank of the counts: uniform
    rank = np.searchsorted(counts.draw_radio_flux(np.linspace(0, 1, 2001)), flux) / 2001
    assert abs(rank.mean() - 0.5) < SIGMAS / np.sqrt(12 * len(flux))
    assert sky["flux"][dsfg].min() >= 7.0
    assert np.median(sky["flux"][dsfg]) == pytest.approx(9.0, rel=0.1)
    assert not (sky["vectors"][2] > 0.91).any() or dsfg[sky["vectors"][2] > 0.91].all()


def test_each_chart_is_a_poisson_process():
    """Numbers by cell have the mean and the variance of their rate, over seeds."""
    chart = CHARTS[70]
    made = maps(chart)
    draws = 400
    found = np.zeros((2, *chart.shape))
    for seed in range(draws):
        one = np.zeros(chart.shape)
        vectors = draw.of_chart(chart, made, {}, seed)["vectors"]
        y, x = (np.rint(c).astype(int) for c in chart.project_vectors(vectors))
        np.add.at(one, (y, x), 1)
        found += one, one**2
    # cells wholly inside the owned area
    own = healpy.vec2pix(NSIDE, *chart.vectors(), nest=True).reshape(chart.shape) == chart.index
    inner = np.zeros_like(own)
    inner[1:-1, 1:-1] = np.min(
        [own[1 + i : own.shape[0] - 1 + i, 1 + j : own.shape[1] - 1 + j]
         for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0
    )  # fmt: skip
    rate = (np.exp(made["log_rate"]) * chart.scale() ** 2)[inner]
    mean = found[0, inner] / draws
    sigma = (mean - rate) / np.sqrt(rate / draws)
    assert abs(sigma).max() < SIGMAS
    assert (sigma**2).mean() == pytest.approx(1, abs=SIGMAS * np.sqrt(2 / rate.size))
    ratio = (found[1, inner] / draws - mean**2).sum() / rate.sum()
    assert ratio == pytest.approx(1, abs=0.02)


def test_places_inside_a_cell_are_uniform(sky):
    offsets = []
    for chart in CHARTS[60:100]:
        y, x = chart.project_vectors(draw.of_chart(chart, maps(chart), HEADER, 1)["vectors"])
        offsets.append(np.stack([y - np.rint(y), x - np.rint(x)]))
    offsets = np.concatenate(offsets, 1)
    n = offsets.shape[1]
    # the border of a chart's area runs across cells, and takes one side of them: 0.5 % of a cell
    assert (abs(offsets.mean(1)) < SIGMAS / np.sqrt(12 * n) + 0.005).all()
    assert offsets.var(1) == pytest.approx([1 / 12] * 2, rel=0.02)


def kept(one, two):
    """Shares of the sources of either sky that the other has, with flux and kind alike."""
    _, first, second = np.intersect1d(one["number"], two["number"], return_indices=True)
    np.testing.assert_array_equal(one["vectors"][:, first], two["vectors"][:, second])
    same = [one[name][first] == two[name][second] for name in ("flux", "dsfg")]
    alike = np.count_nonzero(same[0] & same[1])
    return alike / len(one["number"]), alike / len(two["number"])


@pytest.mark.parametrize("size", [1e-7, 1e-3, 3e-2])
def test_another_rate_adds_or_drops_a_few_and_moves_none(sky, size):
    """Rates off by a share `size`, as of another machine: so many sources come or go, no more."""
    rng = np.random.default_rng(1)

    def change(chart, made):
        made = dict(made)
        noise = rng.standard_normal((2, *chart.shape)).astype(np.float32)
        made["log_rate"] = made["log_rate"] + np.float32(size) * noise[0]
        made["cib"] = made["cib"] * (1 + np.float32(size) * noise[1])
        return made

    other = whole_sky(change=change)
    n = len(sky["flux"])
    # half the mean |noise|, 0.8, comes and half goes; a source may also change its kind
    lost = 0.44 * size
    for fraction in kept(sky, other):
        assert 1 - fraction < lost + SIGMAS * np.sqrt(lost / n) + 2 / n


def test_sides_of_the_charts_change_nothing(sky):
    other = whole_sky(WIDER)
    assert [c.shape for c in WIDER] != [c.shape for c in CHARTS]
    for name, values in sky.items():
        if name == "vectors":
            # the middle of a chart in pixels is another number: last bits
            np.testing.assert_allclose(other[name], values, atol=1e-15)
        else:
            np.testing.assert_array_equal(other[name], values)


def test_more_of_a_rate_keeps_every_source(sky):
    def change(chart, made):
        return {**made, "log_rate": made["log_rate"] + np.float32(0.1)}

    other = whole_sky(change=change)
    assert np.isin(sky["number"], other["number"]).all()
    assert len(other["number"]) > 1.05 * len(sky["number"])


def test_bright_pixels_of_a_radio_map(sky):
    """The paper's chain: each is one source of its flux, inside it."""
    chart = CHARTS[5]
    radio = np.zeros(chart.shape, np.float32)
    own = np.argwhere(
        healpy.vec2pix(NSIDE, *chart.vectors(), nest=True).reshape(chart.shape) == chart.index
    )
    y, x = own[len(own) // 2]
    radio[y, x] = 50.0
    made = draw.of_chart(chart, {"radio": radio}, {}, 3)
    again = draw.of_chart(chart, {"radio": radio * np.float32(1.01)}, {}, 3)
    at = np.array(chart.project_vectors(made["vectors"]))[:, 0]
    assert (abs(at - [y, x]) <= 0.5).all()
    np.testing.assert_array_equal(again["vectors"], made["vectors"])
    np.testing.assert_array_equal(again["number"], made["number"])
    assert again["flux"][0] == pytest.approx(1.01 * made["flux"][0], rel=1e-6)
    assert not made["dsfg"].any()


def test_a_rate_that_is_not_finite_is_refused():
    chart = CHARTS[5]
    made = maps(chart)
    made["log_rate"][3, 4] = np.inf
    with pytest.raises(RegistryError, match="ask for inf sources on chart 5"):
        draw.of_chart(chart, made, HEADER, 1)
