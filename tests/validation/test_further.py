"""Higher-order statistics of regions: what is known when one map is a multiple of the other."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import skewed_regions
from skewed_regions import PIXEL, REGIONS, N, maps

from mlsky.validation import further
from mlsky.validation.further import Further
from mlsky.validation.measure import FIELDS, Measure

camb = skewed_regions.camb
EXACT = 2e-3  # single precision, and five digits


@pytest.fixture(scope="module")
def found(camb):
    """Truth; twice the truth but for tSZ, which is cut; other regions."""
    patch = pytest.MonkeyPatch()
    patch.setattr(further, "PATCH", 64)
    stream = Further(N, PIXEL, ("double", "other"))
    measure = Measure(N, PIXEL)
    for region in range(REGIONS):
        true = maps(region)
        double = true * np.array([2, 2, 1, 2, 2], np.float32)[:, None, None]
        made = {"double": double, "other": maps(region, 77)}
        stream.update(region, true, made, measure.standard(true))
    patch.undo()
    return stream.compute()


def test_it_is_plain(found):
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def _ratio(rows, job="double"):
    row = rows[f"{job} / true"]
    return np.array(row["value"], float), np.array(row["error"], float)


def test_multiples(found):
    for name in ("kappa", "ksz", "cib", "radio"):
        value, error = _ratio(found["power"][name])
        np.testing.assert_allclose(value, 4, rtol=EXACT)
        assert (error < EXACT).all()
    np.testing.assert_allclose(_ratio(found["power"]["tsz"])[0], 1, rtol=EXACT)
    for shape in ("equilateral", "squeezed", "folded"):
        fields = found["bispectrum"][shape]["fields"]
        for name, power in (("kappa", 8), ("tsz", 1), ("cib", 8), ("radio", 8)):
            np.testing.assert_allclose(_ratio(fields[name])[0], power, rtol=EXACT)
    for rows in found["correlation"].values():
        np.testing.assert_allclose(rows["double - true"]["value"], 0, atol=EXACT)
    lensed = found["lensing"]
    for name, power in (("ksz", 4), ("tsz", 1), ("cib", 4)):
        # over the power of its own kappa, which is four times as high and twice as large
        for kind, factor in (("bispectrum", power * 2 / 4), ("trispectrum", power**2 / 4)):
            rows = lensed[name][kind]
            np.testing.assert_allclose(
                rows["double"]["value"],
                factor * np.array(rows["true"]["value"]),
                rtol=5 * EXACT,
                atol=1e-3 * np.abs(rows["true"]["value"]).max(),
            )
    tsz_cib = found["tsz x cib"]
    np.testing.assert_allclose(_ratio(tsz_cib["power"])[0], 2, rtol=EXACT)
    np.testing.assert_allclose(tsz_cib["correlation"]["double - true"]["value"], 0, atol=EXACT)


def test_other_regions_are_like_within_their_errors(found):
    ratio, error = _ratio(found["power"]["kappa"], "other")
    # of 22 bands, errors themselves known to a third
    assert (np.abs(ratio - 1) < 6 * error + 0.02).all()
    assert (error > 0).all()
    area = (N * PIXEL / 60) ** 2
    maxima = found["extrema"]["kappa"]["maxima"]
    assert maxima["true"]["value"] == sorted(maxima["true"]["value"], reverse=True)
    ratio, error = _ratio(maxima, "other")
    assert abs(ratio[0] - 1) < 5 * error[0]
    assert maxima["true"]["value"][0] * area > 50
    assert sum(found["histogram"]["cib"]["true"]["value"]) == pytest.approx(N**2, rel=1e-5)


def test_distances_and_likelihoods(found):
    like, unlike = (found["distances"][job]["kappa"] for job in ("other", "double"))
    assert unlike["frechet"]["value"] > 10 * like["frechet"]["value"]
    assert unlike["coverage"]["value"] < like["coverage"]["value"]
    assert found["distances"]["true halves"]["kappa"]["density"]["value"] > 0.3
    assert set(found["distances"]["double"]) == {*FIELDS, "all"}
    # the tSZ of both is the same, patch by patch
    assert "why" in found["distances"]["double"]["tsz"]
    # so few patches cannot be fitted
    assert "a fit of" in found["likelihood"]["double"]["kappa"]["why"]


def test_enough_patches_for_a_likelihood(camb, monkeypatch):
    monkeypatch.setattr(further, "PATCH", 32)
    monkeypatch.setattr(further, "PATCHES", 36)
    stream = Further(N, PIXEL, ("other",), periodic=False)
    measure = Measure(N, PIXEL, periodic=False)
    for region in range(3):
        true = maps(region)
        stream.update(region, true, {"other": maps(region, 77)}, measure.standard(true))
    found = stream.compute()
    assert found["lensing"] is None  # not of pieces of a map
    row = found["likelihood"]["other"]["kappa"]
    assert abs(row["difference"]["value"]) < 6 * row["difference"]["error"] + 0.5
    assert math.isfinite(row["true"]["value"])


def test_small_regions(camb):
    """Waves that are longer than a region are left out, and so is a field of nothing."""
    stream = Further(64, PIXEL, ("other",))
    assert "squeezed" not in stream.triangles or stream.triangles["squeezed"].triangles
    true, other = (m[:, :64, :64] for m in (maps(0), maps(1)))
    true[4] = 0
    stream.update(0, true, {"other": other}, Measure(64, PIXEL).standard(true))
    found = stream.compute()
    assert found["power"]["radio"]["true"]["value"][5] == 0
    assert found["power"]["radio"]["other / true"]["value"][5] is None
    assert "why" in found["distances"]["other"]["radio"]
    assert found["power"]["kappa"]["true"]["error"][5] is None  # of one region
