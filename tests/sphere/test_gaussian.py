"""Gaussian fields: their power, their seeds, and transforms against healpy and pixell."""

import ducc0
import healpy
import numpy as np
import pytest
from pixell import curvedsky, enmap

from mlsky.sphere import gaussian
from mlsky.sphere.geometry import Car, Healpix, Legendre

LMAX = 300

#: float32 maps (6e-8) of a field that sums ten thousand modes, relative to its rms.
SYNTHESIS = 5e-6

#: B over E power that a window of 20 degrees and a flat sky make of E alone, which is red.
FLAT = 0.15

#: Round trip map -> alm of a float32 map, relative to the largest alm.
ANALYSIS = 1e-6


def spectrum(lmax=LMAX):
    """A red spectrum, zero at l = 0 and 1, as of kappa."""
    cl = np.zeros(lmax + 1)
    cl[2:] = 1e-7 * (np.arange(2, lmax + 1) / 40.0) ** -1.3
    return cl


def fejer(res_deg=0.5):
    return enmap.fullsky_geometry(res=np.radians(res_deg), variant="fejer1")


@pytest.fixture(scope="module")
def alm():
    return gaussian.draw_alm(spectrum(), seed=1)


def scatter(lmax):
    """Relative scatter of C_l of one sky."""
    return np.sqrt(2 / (2 * np.arange(lmax + 1) + 1))


def test_power_within_cosmic_variance(alm):
    pull = (healpy.alm2cl(alm)[2:] / spectrum()[2:] - 1) / scatter(LMAX)[2:]
    # 299 pulls: mean and variance within 5 standard errors, none beyond 6 (chi^2 tails)
    assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
    assert abs(pull.var() - 1) < 5 * np.sqrt(2 / pull.size) + 0.05
    assert np.abs(pull).max() < 6


def test_moments_of_the_numbers(alm):
    ell, m = healpy.Alm.getlm(LMAX)
    keep = ell >= 2
    white = alm[keep] / np.sqrt(spectrum()[ell[keep]])
    m = m[keep]
    np.testing.assert_array_equal(white[m == 0].imag, 0)
    n = np.count_nonzero(m)
    for part in (white[m > 0].real, white[m > 0].imag):
        assert abs(part.mean()) < 5 * np.sqrt(0.5 / n)
        assert part.var() == pytest.approx(0.5, rel=5 * np.sqrt(2 / n))
        assert np.mean(part**4) / part.var() ** 2 == pytest.approx(3, abs=5 * np.sqrt(24 / n))
    assert abs(np.mean(white[m > 0].real * white[m > 0].imag)) < 2.5 / np.sqrt(n)


def test_larger_lmax_extends_the_realisation(alm):
    # Across a border of the blocks that the numbers are drawn in, too.
    for lmax in (10, 150, 255, 256, 257):
        short = gaussian.draw_alm(spectrum()[: lmax + 1], seed=1)
        ell, m = healpy.Alm.getlm(lmax)
        np.testing.assert_array_equal(short, alm[healpy.Alm.getidx(LMAX, ell, m)])


def test_each_multipole_is_its_own_stream(alm):
    """Guards the order of the numbers, which is part of what a seed means."""
    from mlsky import seeds

    ell = 200
    normal = seeds.generator(1, "kappa", ell).standard_normal(2 * ell + 1)
    index = healpy.Alm.getidx(LMAX, ell, np.arange(ell + 1))
    root = np.sqrt(spectrum()[ell])
    np.testing.assert_allclose(alm[index[0]], root * normal[0])
    np.testing.assert_allclose(alm[index[1:]].real, root * normal[1 : ell + 1] / np.sqrt(2))
    np.testing.assert_allclose(alm[index[1:]].imag, root * normal[ell + 1 :] / np.sqrt(2))


def test_threads_do_not_change_a_bit(alm, monkeypatch):
    for count in ("1", "2", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", count)
        assert gaussian.threads() == int(count)
        np.testing.assert_array_equal(gaussian.draw_alm(spectrum(), seed=1), alm)


@pytest.mark.parametrize("grid", ["healpix", "car", "cut", "tan"])
def test_transforms_do_not_depend_on_threads(alm, monkeypatch, grid):
    shape, wcs = fejer(0.6)  # 300 rows: not a multiple of any vector length times threads
    geometry = {
        "healpix": Healpix(64),
        "car": Car(shape, wcs),
        "cut": Car((50, 70), wcs[30:80, 7:77]),
        "tan": Car(*enmap.geometry(np.radians([[-3, 3], [3, -3]]), res=0.01, proj="tan")),
    }[grid]
    maps, alms = [], []
    for count in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", count)
        maps.append(gaussian.alm_to_map(alm, geometry))
        if grid in ("healpix", "car"):
            alms.append(gaussian.map_to_alm(maps[-1], geometry, 120))
    np.testing.assert_array_equal(*maps)
    if alms:
        np.testing.assert_array_equal(*alms)


def test_seeds_and_fields_differ(alm):
    for seed, field in ((2, "kappa"), (1, "truth")):
        other = gaussian.draw_alm(spectrum(), seed, field)
        cross = healpy.alm2cl(alm, other)[2:] / spectrum()[2:]
        weight = 2 * np.arange(2, LMAX + 1) + 1
        # 5 standard errors of the mean correlation coefficient
        assert abs(np.average(cross, weights=weight)) < 5 / np.sqrt(weight.sum())


def test_healpix_is_healpys(alm):
    pixels = Healpix(128)
    got = gaussian.alm_to_map(alm, pixels)
    assert got.dtype == np.float32
    expected = healpy.alm2map(alm, 128)
    np.testing.assert_allclose(got, expected, atol=SYNTHESIS * expected.std())


def test_polarisation_is_healpys(alm):
    eb = np.stack([alm, gaussian.draw_alm(spectrum(), seed=9)])
    got = gaussian.alm_to_map(eb, Healpix(128), spin=2)
    expected = healpy.alm2map_spin(eb, 128, 2, LMAX)
    np.testing.assert_allclose(got, expected, atol=SYNTHESIS * expected[0].std())


@pytest.mark.parametrize("kind", ["full", "cut", "seam", "tan", "flipped"])
def test_car_is_pixells(alm, kind):
    shape, wcs = fejer()
    if kind == "cut":
        shape, wcs = (60, 100), wcs[100:160, 300:400]
    elif kind == "seam":
        box = np.radians([[-6, 190], [4, 170]])
        shape, wcs = enmap.geometry(box, res=np.radians(0.5), proj="car")
    elif kind == "tan":
        box = np.radians([[-3, 3], [3, -3]])
        shape, wcs = enmap.geometry(box, res=np.radians(0.2), proj="tan")
    elif kind == "flipped":  # RA grows with x, declination falls with y
        wcs = enmap.zeros(shape, wcs)[::-1, ::-1].wcs
    tqu = np.stack([alm, alm, gaussian.draw_alm(spectrum(), seed=9)])
    expected = curvedsky.alm2map(tqu, enmap.zeros((3, *shape), wcs), epsilon=1e-9)
    tolerance = SYNTHESIS * alm_rms()
    np.testing.assert_allclose(
        gaussian.alm_to_map(alm, Car(shape, wcs)), expected[0], atol=tolerance
    )
    got = gaussian.alm_to_map(tqu[1:], Car(shape, wcs), spin=2)
    np.testing.assert_allclose(got, expected[1:], atol=tolerance)


def alm_rms():
    return np.sqrt(np.sum((2 * np.arange(LMAX + 1) + 1) * spectrum()) / (4 * np.pi))


def test_a_large_map_goes_in_pieces(alm, monkeypatch):
    whole = gaussian.alm_to_map(alm, Healpix(64))
    monkeypatch.setattr(gaussian, "_CHUNK", 5000)
    np.testing.assert_allclose(gaussian.alm_to_map(alm, Healpix(64)), whole, atol=1e-7 * alm_rms())


@pytest.mark.parametrize("geometry", [Healpix(128), Car(*fejer())], ids=["healpix", "car"])
def test_round_trip(geometry):
    lmax = 200
    alm = gaussian.draw_alm(spectrum(lmax), seed=5)
    back = gaussian.map_to_alm(gaussian.alm_to_map(alm, geometry), geometry, lmax)
    assert np.abs(back - alm).max() < ANALYSIS * np.abs(alm).max()


def test_flat_transform_of_pixell_takes_q_and_u_as_they_are(alm):
    """E stays E with the default iau=False; with iau=True, half of it turns into B."""
    side = np.radians(10)
    shape, wcs = enmap.geometry([[-side, side], [side, -side]], res=np.radians(0.25), proj="car")
    qu = gaussian.alm_to_map(np.stack([alm, 0 * alm]), Car(shape, wcs), spin=2)
    tqu = enmap.ndmap(np.stack([0 * qu[0], *qu]), wcs)
    tqu = tqu * enmap.apod(enmap.ones(shape, wcs), 30)
    leak = []
    for iau in (False, True):
        power = (np.abs(enmap.map2harm(tqu, iau=iau)) ** 2).sum((1, 2))
        leak.append(power[2] / power[1])
    assert leak[0] < FLAT < 0.5 < leak[1], leak


def test_round_trip_of_polarisation():
    lmax = 200
    eb = np.stack([gaussian.draw_alm(spectrum(lmax), seed=s) for s in (5, 6)])
    for geometry in (Healpix(128), Car(*fejer())):
        back = gaussian.map_to_alm(gaussian.alm_to_map(eb, geometry, 2), geometry, lmax, spin=2)
        assert np.abs(back - eb).max() < ANALYSIS * np.abs(eb).max()


def test_same_large_scales_at_any_nside():
    """C_l and the very alm of a small map are those of a large one."""
    lmax = 150
    alms = []
    for nside in (64, 128):
        alm = gaussian.draw_alm(spectrum(2 * nside), seed=7)
        alms.append(
            gaussian.map_to_alm(gaussian.alm_to_map(alm, Healpix(nside)), Healpix(nside), lmax)
        )
    # nside 64 has band limit 128 here: compare up to 100. Its pixels alias 3e-4.
    ell, _ = healpy.Alm.getlm(lmax)
    low = (ell >= 2) & (ell <= 100)
    assert np.abs(alms[0] - alms[1])[low].max() < 1e-3 * np.abs(alms[1]).max()


@pytest.mark.parametrize(
    ("cl", "message"),
    [
        (np.ones((2, 5)), r"cl of shape \(2, 5\)"),
        (np.ones(1), r"cl of shape \(1,\)"),
        ([0, 0, -1.0], r"cl=-1 at l=2"),
        ([0, np.nan, 1.0], r"cl=nan at l=1"),
    ],
)
def test_bad_cl(cl, message):
    with pytest.raises(ValueError, match=message):
        gaussian.draw_alm(cl, seed=1)


def test_bad_arguments(alm):
    with pytest.raises(ValueError, match="seed=-1"):
        gaussian.draw_alm(spectrum(), seed=-1)
    with pytest.raises(ValueError, match="field='rain'"):
        gaussian.draw_alm(spectrum(), seed=1, field="rain")
    with pytest.raises(ValueError, match=r"alm of shape \(11,\)"):
        gaussian.alm_to_map(np.zeros(11, complex), Healpix(4))
    with pytest.raises(ValueError, match=r"must be \(2, nalm\) for spin 2"):
        gaussian.alm_to_map(alm, Healpix(4), spin=2)
    with pytest.raises(ValueError, match=r"map of shape \(5,\): must be \(192,\)"):
        gaussian.map_to_alm(np.zeros(5), Healpix(4), 5)
    with pytest.raises(ValueError, match="1 pixels that are not finite"):
        gaussian.map_to_alm(np.r_[np.nan, np.zeros(191)], Healpix(4), 5)


def test_gauss_legendre_rings_are_exact():
    """Also of a field with power beyond the result, as long as the rings keep it apart."""
    lmax, top = 60, 90
    alm = gaussian.draw_alm(np.ones(top + 1), 3)
    grid = Legendre((lmax + top) // 2 + 1)
    theta, phi = (a.ravel() for a in np.meshgrid(*grid.axes(), indexing="ij"))
    values = ducc0.sht.synthesis_general(
        alm=alm[None], spin=0, lmax=top, loc=np.stack([theta, phi], 1), epsilon=1e-12, nthreads=1
    )
    values = values.reshape(grid.shape).astype(np.float32)
    got = gaussian.legendre_to_alm(values, grid, lmax)
    expected = healpy.resize_alm(alm, top, top, lmax, lmax)
    # float32 values (6e-8 of the rms, which is 30 here) average down
    np.testing.assert_allclose(got, expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"must be \(76, "):
        gaussian.legendre_to_alm(values[1:], grid, lmax)
    values[3, 5] = np.nan
    with pytest.raises(ValueError, match="1 rings that are not finite"):
        gaussian.legendre_to_alm(values, grid, lmax)


def test_gauss_legendre_rings_that_are_zero_are_not_needed():
    grid = Legendre(300)
    values = np.zeros(grid.shape, np.float32)
    values[40:130] = np.random.default_rng(1).standard_normal((90, grid.shape[1]))
    whole = gaussian.legendre_to_alm(values, grid, 250)
    part = gaussian.legendre_to_alm(values, grid, 250, slice(40, 130))
    # transforms of rings in float32, of other groups of them
    np.testing.assert_allclose(part, whole, atol=1e-6 * np.abs(whole).max())


def test_gauss_legendre_has_the_same_bits_for_any_threads(monkeypatch):
    grid = Legendre(300)
    values = np.random.default_rng(1).standard_normal(grid.shape).astype(np.float32)
    found = []
    for count in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", count)
        found.append(gaussian.legendre_to_alm(values, grid, 250))
    np.testing.assert_array_equal(*found)
