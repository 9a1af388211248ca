"""Lensing: against pixell, against the first order in the deflection, against CAMB."""

import healpy
import numpy as np
import pytest
from camb import correlations
from pixell import enmap
from pixell import lensing as pixell_lensing

from mlsky.sphere import gaussian, lensing
from mlsky.sphere.cmb import draw_cmb
from mlsky.sphere.geometry import Car, Healpix
from mlsky.theory import cmb_spectra, kappa_spectrum

LMAX = 400

#: Worst of many pixels; the rms is 1e-5 to 5e-5 (mlsky.sphere.field), six times less.
REMAPPING = 5e-4
#: float32 maps (6e-8), and weights of the kernel from positions of that accuracy.
ROUNDING = 3e-6


def rms(cl):
    return np.sqrt(np.sum((2 * np.arange(len(cl)) + 1) * cl) / (4 * np.pi))


def fejer(res_deg=0.5):
    return enmap.fullsky_geometry(res=np.radians(res_deg), variant="fejer1")


@pytest.fixture(scope="module")
def kappa():
    return gaussian.draw_alm(kappa_spectrum(LMAX), seed=1)


@pytest.fixture(scope="module")
def cmb():
    return draw_cmb(cmb_spectra(LMAX), seed=2)


@pytest.fixture(scope="module")
def scales():
    """Rms of T, Q and U (uK)."""
    cls = cmb_spectra(LMAX)
    polarised = rms(cls["ee"]) / np.sqrt(2)
    return np.array([rms(cls["tt"]), polarised, polarised])


def phi_alm(kappa):
    lmax = gaussian.alm_lmax(kappa)
    ell = np.arange(2.0, lmax + 1)
    return healpy.almxfl(kappa, np.concatenate([[0, 0], 2 / (ell * (ell + 1))]))


def relative(got, expected, scales):
    return np.abs(got - expected).reshape(3, -1).max(axis=1) / scales


@pytest.mark.filterwarnings("ignore:In the future, the default will be switched to lenspyx")
@pytest.mark.parametrize("grid", ["full", "cut", "seam", "poles", "tan"])
def test_car_is_pixells(kappa, cmb, scales, grid):
    """The same sign, the same parallel transport, as the code ACT lenses with."""
    shape, wcs = fejer()
    if grid == "cut":
        shape, wcs = (40, 50), wcs[100:140, 300:350]
    elif grid == "seam":
        box = np.radians([[-6, 190], [4, 170]])
        shape, wcs = enmap.geometry(box, res=np.radians(0.5), proj="car")
    elif grid == "poles":
        shape, wcs = enmap.fullsky_geometry(res=np.radians(1), variant="CC")
    elif grid == "tan":
        box = np.radians([[-3, 3], [3, -3]])
        shape, wcs = enmap.geometry(box, res=np.radians(0.2), proj="tan")
    (expected,) = pixell_lensing.lens_map_curved(
        (3, *shape), wcs, phi_alm(kappa), cmb, output="l", method="pixell", epsilon=1e-8
    )
    got = lensing.lens(cmb, kappa, Car(shape, wcs))
    assert got.dtype == np.float32
    assert got.shape == (3, *shape)
    if grid == "poles":  # pixell's coordinates are singular on them
        got, expected = got[:, 1:-1], expected[:, 1:-1]
    assert (relative(got, expected, scales) < REMAPPING).all()


def test_first_order_in_the_deflection(kappa, cmb):
    """T(n + grad phi) - T(n) = grad phi . grad T, with laplacian(phi) = -2 kappa."""
    nside, small = 128, 1e-3
    pixels = Healpix(nside)
    got = (
        lensing.lens(cmb, small * kappa, pixels)[0].astype(float)
        - lensing.lens(cmb, 0 * kappa, pixels)[0]
    )
    _, dt_theta, dt_phi = healpy.alm2map_der1(cmb[0], nside)
    _, dphi_theta, dphi_phi = healpy.alm2map_der1(phi_alm(kappa), nside)
    expected = small * (dt_theta * dphi_theta + dt_phi * dphi_phi)
    # float32 rounding of T (6e-8 of 300 uK) against a change of 0.01 uK: 1e-3
    assert np.corrcoef(got, expected)[0, 1] > 0.999
    assert np.polyfit(expected, got, 1)[0] == pytest.approx(1, abs=0.002)


def test_no_kappa_no_lensing(cmb, kappa, scales):
    got = lensing.lens(cmb, 0 * kappa, Healpix(64))
    expected = healpy.alm2map(cmb, 64, pol=True)
    assert (relative(got, expected, scales) < REMAPPING).all()


def test_monopole_and_dipole_of_kappa_do_nothing(kappa, cmb):
    other = kappa.copy()
    other[[0, 1, LMAX + 1]] = 1.0
    np.testing.assert_array_equal(
        lensing.lens(cmb, other, Healpix(32)), lensing.lens(cmb, kappa, Healpix(32))
    )


def test_cut_out_is_the_crop(kappa, cmb, scales):
    shape, wcs = fejer()
    whole = lensing.lens(cmb, kappa, Car(shape, wcs))
    cut = lensing.lens(cmb, kappa, Car((40, 50), wcs[100:140, 300:350]))
    assert (relative(cut, whole[:, 100:140, 300:350], scales) < REMAPPING).all()


@pytest.mark.parametrize("lmax", [397, 400])  # 397: odd sizes in ducc0's grids
def test_threads_do_not_change_a_bit(kappa, monkeypatch, lmax):
    cmb = draw_cmb(cmb_spectra(lmax), seed=2)
    shape, wcs = fejer(0.9)
    for geometry in (Healpix(64), Car(shape, wcs), Car((20, 30), wcs[10:30, 20:50])):
        maps = []
        for count in ("1", "2", "3"):
            monkeypatch.setenv("OMP_NUM_THREADS", count)
            maps.append(lensing.lens(cmb, kappa, geometry))
        np.testing.assert_array_equal(maps[0], maps[1])
        np.testing.assert_array_equal(maps[0], maps[2])


def test_a_large_map_goes_in_pieces(kappa, cmb, scales, monkeypatch):
    whole = lensing.lens(cmb, kappa, Healpix(64))
    monkeypatch.setattr(lensing, "_CHUNK", 6000)
    found = list(lensing.pieces(cmb, kappa, Healpix(64)))
    assert len(found) > 5
    pixels = np.concatenate([pixels for pixels, _ in found])
    np.testing.assert_array_equal(np.sort(pixels), np.arange(12 * 64**2))
    # Deflections of a ring may be rounded otherwise beside other rings.
    got = np.concatenate([values for _, values in found], axis=1)
    assert (relative(got, whole[:, pixels], scales) < ROUNDING).all()


def test_temperature_alone_is_the_same(kappa, cmb):
    whole = lensing.lens(cmb, kappa, Healpix(64))
    alone = lensing.lens(cmb[:1], kappa, Healpix(64))
    assert alone.shape == (1, 12 * 64**2)
    np.testing.assert_array_equal(alone[0], whole[0])


@pytest.fixture(scope="module")
def large():
    """Spectra of one lensed sky, and what CAMB makes of the same inputs.

    On a Fejer-1 grid, whose analysis is exact: on HEALPix the power that lensing carries
    beyond lmax comes back as aliases, which drown the B modes.
    """
    lmax, band = 1600, 1200
    unlensed = cmb_spectra(lmax)
    kk = kappa_spectrum(lmax)
    kappa = gaussian.draw_alm(kk, seed=3)
    cmb = draw_cmb(unlensed, seed=4)
    pixels = Car(*fejer(0.1))
    maps = lensing.lens(cmb, kappa, pixels)
    t = gaussian.map_to_alm(maps[0], pixels, band)
    e, b = gaussian.map_to_alm(maps[1:], pixels, band, spin=2)
    got = {name: healpy.alm2cl(alm) for name, alm in (("tt", t), ("ee", e), ("bb", b))}
    before = {
        name: healpy.alm2cl(alm)[: band + 1] for name, alm in (("tt", cmb[0]), ("ee", cmb[1]))
    }

    ell = np.arange(lmax + 1.0)
    dl = ell * (ell + 1) / (2 * np.pi)
    table = np.stack([dl * unlensed[name] for name in ("tt", "ee", "bb", "te")], axis=1)
    lensed = correlations.lensed_cls(table, 4 * kk / (2 * np.pi), lmax_lensed=band)
    theory = {
        name: np.concatenate([[0], lensed[1 : band + 1, k] / dl[1 : band + 1]])
        for k, name in ((0, "tt"), (1, "ee"), (2, "bb"))
    }
    return got, before, theory, unlensed


BINS = np.arange(200, 1201, 100)


def binned(cl):
    weight = 2 * np.arange(BINS[0], BINS[-1]) + 1
    cut = cl[BINS[0] : BINS[-1]] * weight
    return cut.reshape(len(BINS) - 1, -1).sum(axis=1) / weight.reshape(len(BINS) - 1, -1).sum(
        axis=1
    )


@pytest.mark.parametrize("name", ["tt", "ee"])
def test_lensed_power_is_cambs(large, name):
    got, _, theory, _ = large
    modes = (BINS[1:] ** 2 - BINS[:-1] ** 2).astype(float)
    pull = (binned(got[name]) / binned(theory[name]) - 1) / np.sqrt(2 / modes)
    # Scatter of one sky. C_l varies inside a bin, which raises it by up to 1.5 for EE.
    assert np.abs(pull).max() < 5


@pytest.mark.parametrize(("name", "tolerance"), [("tt", 0.003), ("ee", 0.01)])
def test_change_of_power_is_cambs(large, name, tolerance):
    """Lensed over unlensed of the same sky: most of the cosmic variance cancels."""
    got, before, theory, unlensed = large
    change = binned(got[name]) / binned(before[name])
    expected = binned(theory[name]) / binned(unlensed[name])
    # Tolerances are over twice what is left; lensing changes the bins by up to 1.8 and 8 %.
    np.testing.assert_allclose(change, expected, rtol=tolerance)
    assert np.abs(expected - 1).max() > 2 * tolerance


def test_lensing_b_modes_are_cambs(large):
    got, _, theory, _ = large
    # B power follows that of this sky's E and large-scale kappa: up to 2.7 % off here.
    np.testing.assert_allclose(binned(got["bb"]), binned(theory["bb"]), rtol=0.05)


def test_bad_arguments(kappa, cmb):
    pixels = Healpix(8)
    with pytest.raises(ValueError, match=r"cmb_alm of shape .* must be \(3, nalm\)"):
        lensing.lens(cmb[0], kappa, pixels)
    with pytest.raises(ValueError, match=r"kappa_alm of shape"):
        lensing.lens(cmb, kappa[None], pixels)
    with pytest.raises(ValueError, match=r"alm of shape \(3, 7\)"):
        lensing.lens(cmb[:, :7], kappa, pixels)
    with pytest.raises(ValueError, match="cmb_alm has values that are not finite"):
        lensing.lens(cmb * np.nan, kappa, pixels)
    with pytest.raises(ValueError, match="kappa_alm has values that are not finite"):
        lensing.lens(cmb, kappa + np.inf, pixels)
    with pytest.raises(ValueError, match=r"arcmin rms: must be below 34"):
        lensing.lens(cmb, 1e6 * kappa, pixels)
