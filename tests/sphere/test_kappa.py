"""A convergence of the user's own: what is refused, and how it is completed."""

from __future__ import annotations

import healpy
import numpy as np
import pytest
from astropy import units

from mlsky import seeds
from mlsky.sphere import kappa

#: HEALPix quadrature with iterations, l <= nside: rounding of the transforms.
QUADRATURE = 1e-4

#: Correlation, 10 deg from the edge of a hole, with what was filled in: the step at the edge rings
#: in a band limit of l = 32, by up to two fifths of the rms.
FILLED = 0.85


def _alm(lmax: int, seed: int = 1) -> np.ndarray:
    size = (lmax + 1) * (lmax + 2) // 2
    parts = seeds.generator(seed, "truth").standard_normal((size, 2))
    alm = 1e-3 * parts.view(np.complex128)[:, 0]
    alm[: lmax + 1] = alm[: lmax + 1].real
    return alm


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros(13), r"kappa map of length 13: .*12 nside\^2.* 12 for nside=1"),
        (np.zeros(12 * 9), "kappa map of length 108: .*power of two"),
        (np.zeros(4, complex), r"kappa alm of length 4: .*3 for lmax=1|kappa alm of length 4"),
        (np.zeros((1, 12)), r"kappa of shape \(1, 12\)"),
        (np.array([]), r"kappa of shape \(0,\)"),
        (np.array(["a"] * 12), "kappa of shape .* and type <U1"),
        (np.array([True] * 12), "type bool"),
        (np.array([0.0] * 11 + [np.nan]), "kappa has 1 NaN, infinite or masked values of 12"),
        (np.array([0.0] * 10 + [np.inf, -np.inf]), "kappa has 2 NaN"),
        (np.array([0.0] * 11 + [healpy.UNSEEN]), "kappa has 1 NaN, infinite or masked"),
        (np.array([0j, np.nan, 0j]), "kappa has 1 NaN"),
        (np.zeros(12) * units.K, "kappa in K: must be the dimensionless convergence"),
        (np.arange(12.0), "kappa has rms 3.45: .*dimensionless"),
        (1e3 * _alm(8), "kappa has rms .*dimensionless"),
        (np.float64(1.0), r"kappa of shape \(\)"),
    ],
)
def test_bad_kappa_is_refused_in_one_line(bad, message):
    with pytest.raises(ValueError, match=message) as caught:
        kappa.parse(bad)
    assert "\n" not in str(caught.value)


def test_dimensionless_quantities_are_taken():
    given = kappa.parse(np.full(12, 5.0) * units.percent)
    np.testing.assert_allclose(given.values, 0.05)
    assert (given.nside, given.lmax) == (1, 2)


@pytest.mark.parametrize("lmax", [0, 1, 2, 7, 40])
def test_lmax_of_an_alm(lmax):
    given = kappa.parse(_alm(lmax))
    assert (given.lmax, given.nside) == (lmax, None)


def test_an_alm_is_kept_and_completed():
    own, drawn = _alm(10), _alm(25, seed=2)
    out = kappa.complete(kappa.parse(own), 25, drawn)
    ell, _m = healpy.Alm.getlm(25)
    np.testing.assert_array_equal(out[ell <= 10], healpy.resize_alm(own, 10, 10, 25, 25)[ell <= 10])
    np.testing.assert_array_equal(out[ell > 10], drawn[ell > 10])


def test_an_alm_is_cut():
    own = _alm(25)
    np.testing.assert_array_equal(
        kappa.complete(kappa.parse(own), 10), healpy.resize_alm(own, 25, 25, 10, 10)
    )
    np.testing.assert_array_equal(kappa.complete(kappa.parse(own), 25), own)


def test_a_map_becomes_its_alm():
    alm = _alm(16)
    values = healpy.alm2map(alm, 16)
    out = kappa.complete(kappa.parse(values), 16)
    np.testing.assert_allclose(out, alm, atol=QUADRATURE * np.abs(alm).max())


def _car(res_deg: float):
    from pixell import enmap

    return enmap.fullsky_geometry(res=np.radians(res_deg), variant="fejer1")


@pytest.mark.parametrize("how", ["enmap", "pair", "stack"])
def test_a_car_map_becomes_its_alm(how):
    from pixell import curvedsky, enmap

    alm = _alm(20)
    shape, wcs = _car(4)
    values = curvedsky.alm2map(alm, enmap.zeros(shape, wcs))
    given = kappa.parse(
        {"enmap": values, "pair": (np.asarray(values), wcs), "stack": values[None]}[how]
    )
    assert (given.lmax, given.nside) == (44, None)
    out = kappa.complete(given, 20)
    np.testing.assert_allclose(out, alm, atol=QUADRATURE * np.abs(alm).max())


def test_a_part_of_the_sky_is_refused():
    from pixell import enmap

    shape, wcs = _car(4)
    values = enmap.zeros(shape, wcs)[10:30]
    with pytest.raises(ValueError, match=r"kappa map of 20 x 90 pixels .*full-sky CAR") as caught:
        kappa.parse(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"kind": "nbody"}, {"fill": "yes"}])
def test_bad_options(options):
    (value,) = options.values()
    with pytest.raises(ValueError, match=f"{value!r}: must be") as caught:
        kappa.parse(np.zeros(12), **options)
    assert "\n" not in str(caught.value)


def test_holes_are_filled_when_asked():
    """Outside the holes the map stays; inside it is the drawn sky; far from both nothing moves."""
    lmax, nside = 32, 32
    own, drawn = _alm(lmax), _alm(lmax, seed=2)
    values = healpy.alm2map(own, nside)
    hole = healpy.query_disc(nside, (0, 0, 1), np.radians(20))
    values[hole] = healpy.UNSEEN
    values[hole[0]] = np.nan
    with pytest.raises(ValueError, match=rf"{hole.size} NaN.*fill_kappa=True \(--fill-kappa\)"):
        kappa.parse(values)
    given = kappa.parse(values, fill=True)
    assert given.describe() == f"given, gaussian, up to l = 64, {hole.size} pixels filled"
    out = kappa.complete(given, lmax, drawn)
    filled = healpy.alm2map(out, nside)
    expected = healpy.alm2map(own, nside)
    expected[hole] = healpy.alm2map(drawn, nside)[hole]
    # the step at the edge of the hole is beyond the band limit, and rings
    inside = healpy.query_disc(nside, (0, 0, 1), np.radians(10))
    outside = healpy.query_disc(nside, (0, 0, -1), np.radians(140))
    for part in (inside, outside):
        assert np.corrcoef(filled[part], expected[part])[0, 1] > FILLED


def test_holes_that_cannot_be_filled():
    with pytest.raises(ValueError, match=r"kappa has 1 NaN.*cannot be filled"):
        kappa.parse(np.array([0j, np.nan, 0j]), fill=True)
    with pytest.raises(ValueError, match="nothing is left"):
        kappa.parse(np.full(12, healpy.UNSEEN), fill=True)


def test_a_map_without_holes_is_not_filled():
    assert kappa.parse(np.zeros(12), fill=True).holes is None
