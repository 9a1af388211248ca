"""The table of scores: the truth passes, what is known to be wrong fails, the rest is undecided."""

from __future__ import annotations

import json

import numpy as np
import pytest
import random_regions
from scipy.stats import norm
from scipy.stats import t as student

from mlsky import seeds
from mlsky.frequency import cib_templates
from mlsky.validation import table
from mlsky.validation.measure import FIELDS, Measure

REGIONS = 6


@pytest.fixture(scope="module")
def truth():
    """The measure, and regions as they are and measured."""
    measure = Measure(random_regions.N, 0.5)
    maps = [random_regions.maps(i) for i in range(REGIONS)]
    return measure, maps, _measured(measure, maps, maps)


def _measured(measure, maps, truth):
    each = [measure(m, measure.standard(t)) for m, t in zip(maps, truth, strict=True)]
    return {name: np.stack([e[name] for e in each]) for name in each[0]}


def _rows(truth, change, **options):
    measure, maps, true = truth
    changed = _measured(measure, [change(m.copy()) for m in maps], maps)
    return {r["name"]: r for r in table.scores(measure, true, changed, **options)}


def test_truth_against_itself(truth):
    rows = _rows(truth, lambda maps: maps)
    for row in rows.values():
        assert row["value"] == pytest.approx(0, abs=1e-12) or "ksz" in row["fields"]
        assert row["pass"] is not False
    # kSZ is correlated by chance, and some bins of kappa are empty but in one region
    unsure = ("correlation", "conditional mean")
    assert all(row["pass"] for row in rows.values() if row["statistic"] not in unsure)
    found = table.total([*rows.values()])
    assert found["rows"] == len(rows) == found["met"] + found["undecided"]
    assert found["distance"] < 0.1
    json.dumps([*rows.values()], allow_nan=False)


def test_the_rows_are_those_that_were_asked_for():
    names = {row.name for row in table.ROWS}
    assert len(names) == len(table.ROWS)
    for row in table.ROWS:
        assert 0 < row.goal < row.tolerance
    pairs = {frozenset(row.fields) for row in table.ROWS if row.statistic == "correlation"}
    assert len(pairs) == 10
    tolerances = {row.name: row.tolerance for row in table.ROWS}
    assert tolerances["power l 700-8000 tsz all"] == 0.20
    assert tolerances["correlation kappa x ksz"] == 0.02
    assert tolerances["counts 5 cib"] == 0.50
    assert tolerances["peaks 0.35, 0.5 kappa"] == 0.25


def test_known_differences_are_found(truth):
    def change(maps):
        maps[0] *= 1.1
        maps[1] += 20 * maps[0]  # kSZ must not know of kappa
        maps[3] = 0.5 * maps[3]
        maps[4, :, :128] = 0
        return maps

    rows = _rows(truth, change)
    worst = rows["power l 700-8000 kappa"]
    assert worst["value"] == pytest.approx(0.21, abs=1e-3)
    assert worst["error"] == pytest.approx(0, abs=1e-3)  # both sides share their modes
    assert worst["pass"] is False
    assert rows["power l 700-8000 cib"]["value"] == pytest.approx(-0.75, abs=1e-3)
    assert rows["power l 700-8000 radio"]["value"] == pytest.approx(-0.5, abs=0.15)
    assert rows["correlation kappa x ksz"]["value"] == pytest.approx(0.77, abs=0.06)
    assert rows["quantiles 0.01, 0.99 kappa"]["value"] == pytest.approx(0.1, abs=0.01)
    assert rows["bispectrum cib"]["value"] == pytest.approx(-0.875, abs=0.01)
    assert rows["counts 0.5, 1, 2, 5 radio"]["value"] == pytest.approx(-0.5, abs=0.2)
    assert rows["peaks 0.1, 0.2 kappa"]["value"] > 0.03
    assert rows["minkowski radio"]["pass"] is False
    for name in ("power l 700-8000 tsz", "correlation tsz x cib", "bispectrum tsz"):
        assert rows[name]["pass"] is not False
        assert abs(rows[name]["value"]) < 0.01
    assert table.total([*rows.values()])["failed"] > 10


def test_stripes_and_edges(truth):
    """A comb in y, and weak edges of patches."""
    y = np.arange(random_regions.N)

    def change(maps):
        maps[1] += 0.4 * np.cos(2 * np.pi * y / 8)[:, None]
        near = (y % 128 < 4) | (y % 128 >= 124)
        maps[3, near] = maps[3].mean()
        return maps

    rows = _rows(truth, change)
    assert rows["isotropy ksz"]["where"] == "along y"
    assert rows["isotropy ksz"]["value"] > 0.03
    assert rows["edge cib"]["value"] < -0.3
    assert rows["edge kappa"]["value"] == 0


def test_what_is_not_made_fails(truth):
    """A field that is zero is not undecided."""

    def change(maps):
        maps[3:] = 0
        return maps

    rows = _rows(truth, change)
    for name in ("power l 700-8000 cib", "power l 300-700 radio", "counts 0.5, 1, 2, 5 radio"):
        assert (rows[name]["value"], rows[name]["pass"]) == (-1, False)
    for name in ("conditional mean kappa x cib", "isotropy cib", "edge radio", "bispectrum radio"):
        assert (rows[name]["value"], rows[name]["pass"]) == (-1, False)


def test_the_job_and_the_fields(truth):
    rows = _rows(truth, lambda maps: maps, job="from_kappa")
    assert rows
    assert not [r for r in rows.values() if r["fields"] == ["kappa"]]
    assert {r["job"] for r in rows.values()} == {"from_kappa"}
    rows = _rows(truth, lambda maps: maps, fields=("kappa", "tsz"))
    assert {f for r in rows.values() for f in r["fields"]} == {"kappa", "tsz", "tsz all"}
    assert "correlation kappa x tsz" in rows


@pytest.mark.parametrize(
    ("value", "error", "verdict"),
    [
        (0.01, 0.01, True),
        (-0.04, 0.02, True),
        (0.01, 0.06, None),  # might be anything
        (0.06, 0.01, None),  # one error beyond the tolerance
        (0.09, 0.01, False),
        (-2.0, 0.06, False),
        (np.nan, 0.01, None),
        (0.01, np.nan, None),
    ],
)
def test_verdicts(value, error, verdict):
    assert table.passed(value, error, 0.05, 40) is verdict


@pytest.mark.parametrize("regions", [3, 4, 6, 11, 41])
def test_few_regions_need_more(regions):
    """Against Student's t of the same tail as three standard deviations."""
    limit = student.ppf(norm.cdf(table.SIGNIFICANT), regions - 1)
    # the approximation is good to a quarter for two degrees of freedom, and better for more
    assert table.passed(0.05 + 0.8 * limit * 0.01, 0.01, 0.05, regions) is None
    assert table.passed(0.05 + 1.3 * limit * 0.01, 0.01, 0.05, regions) is False


def test_one_region_decides_nothing(truth):
    measure, maps, _ = truth
    one = _measured(measure, maps[:1], maps[:1])
    rows = table.scores(measure, one, one)
    assert all(row["error"] is None and row["pass"] is None for row in rows)
    assert table.total(rows)["met"] == 0


def test_lines(truth):
    rows = _rows(truth, lambda maps: maps * np.array([1, 1, 1, 2, 1])[:, None, None])
    text = [*table.lines([*rows.values()])]
    line = next(x for x in text if "power l 700-8000 cib" in x)
    assert line.split()[:6] == ["FAIL", "end_to_end", "power", "l", "700-8000", "cib"]
    assert "+3.000 +- 0.000" in line
    assert line.split()[-4:] == ["0.05", "0.02", "5", "%"]
    assert sum("l 1200-2000" in x for x in text) >= 6  # each band of a spectrum
    every = [*table.lines([*rows.values()], every=True)]
    numbers = sum(len(r["numbers"]) for r in rows.values() if len(r["numbers"]) > 1)
    assert len(every) == 1 + len(rows) + numbers
    assert {f for row in table.ROWS for f in row.fields} == {*FIELDS, "tsz all"}
    assert max(map(len, every)) < 140


def _coloured(index: int, law) -> np.ndarray:
    """A region with templates of the CIB that are alike, but for fields of their own."""
    maps = random_regions.maps(index)
    own = seeds.generator(12, "truth", index).standard_normal((2, *maps.shape[1:])).astype("f4")
    cib = maps[3]
    further = [
        float(c) * (cib + s * cib.std() * field)
        for c, s, field in zip(law.colour(law.templates_ghz[1:]), (0.2, 0.5), own, strict=True)
    ]
    return np.concatenate([maps, further])


def test_the_cib_at_bands_is_that_of_its_templates():
    """At a template the numbers are its own; between, those of maps made of the templates."""
    law = cib_templates.load()
    measure = Measure(random_regions.N, 0.5, law=law)
    maps = [_coloured(i, law) for i in range(REGIONS)]
    true = _measured(measure, maps, maps)
    names = {row["name"] for row in table.scores(measure, true, true)}
    assert {row.name for row in table.ROWS if "bands" in row.statistic} <= names
    for row in table.scores(measure, true, true):
        if "bands" in row["statistic"]:
            assert row["pass"] is not False
            assert row["value"] == pytest.approx(0, abs=1e-12)
    # one whose template at 353 GHz is one colour of that at 148
    other = [m.copy() for m in maps]
    for m in other:
        m[5] = law.colour(353.0) * m[3]
    made = _measured(measure, other, maps)
    rows = {r["name"]: r for r in table.scores(measure, true, made)}
    band = measure.spectra.edges.index(3000.0)
    where = "353 GHz l 3000-4500"
    power = rows["cib bands power 93, 145, 225, 280, 353 cib"]
    (number,) = (n for n in power["numbers"] if n["where"] == where)
    direct = [
        np.mean([measure.spectra.power(measure.spectra.modes(m[5:6]))[0, 0, band] for m in side])
        for side in (maps, other)
    ]
    assert number["value"] == pytest.approx(direct[1] / direct[0] - 1, rel=1e-3)
    assert rows["cib bands correlation 93, 145, 225, 280, 353 cib"]["pass"] is False
    # a band between: the map of weighted templates, and the remainder's power
    (number,) = (n for n in power["numbers"] if n["where"] == "225 GHz l 3000-4500")
    weights = law.weights(225.0)
    whole = law.remainder_covariance(225.0, 225.0)
    at_225 = [
        np.mean(
            [
                measure.spectra.power(
                    measure.spectra.modes(np.einsum("t,tyx->yx", weights, m[[3, 5, 6]])[None])
                )[0, 0, band]
                for m in side
            ]
        )
        + whole
        for side in (maps, other)
    ]
    assert number["true"] == pytest.approx(at_225[0], rel=1e-3)
    assert number["generated"] == pytest.approx(at_225[1], rel=1e-3)
