"""mlsky.datasets.halos: painted regions against the analytic spectra, counts and symmetries."""

from __future__ import annotations

import halo_cases
import numpy as np
import pytest
import torch
from halo_cases import (
    band_powers,
    expected,
    maps,
    masked_maps,
    masked_tables,
    painter,
    regions,
    shipped,
)
from scipy import integrate, stats

from mlsky.datasets import halos
from mlsky.datasets.halos import FIELDS, TSZ_148, Painter
from mlsky.networks.inputs import kappa_lmax
from mlsky.sources import counts

#: Bands of multipoles on 2' pixels, whose Nyquist multipole is 5400.
EDGES = [400, 900, 1600, 2600, 3800, 5200]
#: Deviations of a band from its expectation, in its own standard errors: of 40 bands one
#: reaches this by chance in 300 runs (the seed is fixed, so the result is too).
SIGMAS = 4.5
#: Painted over analytic power, the accuracy that is promised. Measured on 900 square degrees
#: of 0.5' and 2' pixels it is 1 % (3 % for tSZ x CIB), where errors are smaller than that.
POWER = 0.03
#: Sums of float32 maps.
FLOAT = 1e-5
#: The power of gaussian_start is interpolated in ell: 0.5 % low at most.
GAUSSIAN = 0.008
#: Mean numbers of haloes come from 96 densities between -6 and 7 sigma.
ABUNDANCE = 0.01


def field(name: str) -> torch.Tensor:
    return maps()[:, FIELDS.index(name)]


def agrees(values: np.ndarray, expectation, accuracy: float) -> None:
    """Check means over regions, (regions, ...), within their errors or the accuracy if larger."""
    mean, error = values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))
    allowed = np.maximum(SIGMAS * error, accuracy * np.abs(expectation))
    assert np.all(np.abs(mean - expectation) < allowed), (mean / expectation, error / expectation)


@pytest.mark.parametrize(
    ("one", "other", "spectrum"),
    [
        ("kappa", "kappa", "kk"),
        ("ksz", "ksz", "ksz"),
        ("cib", "cib", "cc"),
        ("kappa", "cib", "kc"),
    ],
)
def test_band_powers_are_the_analytic_ones(one, other, spectrum):
    measured = band_powers(field(one), field(other), EDGES)
    agrees(measured, expected(spectrum, EDGES), POWER)


@pytest.mark.parametrize(
    ("one", "other", "spectrum"),
    [
        ("kappa", "kappa", "kk"),
        ("tsz", "tsz", "yy"),
        ("kappa", "tsz", "ky"),
        ("tsz", "cib", "yc"),
    ],
)
def test_without_rare_clusters_so_are_those_of_tsz(one, other, spectrum):
    a, b = (masked_maps()[:, FIELDS.index(name)] for name in (one, other))
    analytic = expected(spectrum, EDGES, masked_tables()) * TSZ_148 ** spectrum.count("y")
    agrees(band_powers(a, b, EDGES), analytic, POWER)


def test_ksz_has_no_sign():
    measured = band_powers(field("kappa"), field("ksz"), EDGES)
    scale = np.sqrt(expected("kk", EDGES) * expected("ksz", EDGES))
    agrees(measured / scale, np.zeros(len(EDGES) - 1), 0)


def test_tsz_is_a_decrement_where_matter_is():
    # Few clusters rule its power, so nothing is said of it on so little sky.
    tsz = field("tsz")
    assert tsz.mean() < -0.5
    assert tsz.quantile(0.5, dim=-1).mean() < 0
    assert np.all(band_powers(field("kappa"), tsz, EDGES).mean(0) < 0)
    skewness = stats.skew(tsz.numpy().ravel())
    assert skewness < -5


def test_means_are_those_of_the_model():
    t = shipped()
    assert field("kappa").mean().abs() < 1e-6
    assert field("kappa_g").mean().abs() < 1e-6
    per_region = field("cib").mean((1, 2)).numpy()
    galaxies = t["central_uk_sr"] + t["small_satellites_uk_sr"]
    galaxies = galaxies + t["satellite_number"] * (
        t["satellite_uk_sr"][:, t["satellite_inverse"].astype(int)].mean(2)
    )
    mean = (t["number"] * galaxies).sum() + t["low_cib_mean"]
    bright = sum(float(r.sources[:, 2].sum()) for r in regions()) * 1e-3 / len(regions())
    mean = mean - bright * painter().uk_per_jy_sr / painter().area
    agrees(per_region, mean, ABUNDANCE)


def test_gaussian_start_is_gaussian_with_the_nonlinear_power():
    start = painter().gaussian_start(maps()[:, FIELDS.index("kappa_g")].float()).double()
    agrees(band_powers(start, start, EDGES), expected("kk", EDGES), GAUSSIAN)
    flat = start.flatten(1).numpy()
    zero = np.zeros(1)
    agrees(stats.skew(flat, axis=1)[:, None], zero, 0)
    agrees(stats.kurtosis(flat, axis=1)[:, None], zero, 0)
    # ... which the painted convergence is not, and the two are of one sky.
    assert stats.skew(field("kappa").numpy().ravel()) > 0.2
    cross = band_powers(start, field("kappa"), EDGES).mean(0) / expected("kk", EDGES)
    assert np.all(np.diff(cross) < 0)
    assert cross[0] > 0.9


def test_gaussian_start_has_nothing_above_its_band_limit():
    start = painter().gaussian_start(maps()[0, FIELDS.index("kappa_g")].float())
    power = torch.fft.rfft2(start).abs().numpy()
    above = painter().ell >= kappa_lmax(painter().pixel_arcmin)
    assert above.any()
    assert power[above].max() < 1e-5 * power.max()


def test_haloes_are_as_many_as_the_mass_function_says():
    p, t = painter(), shipped()
    edges = np.array([12.3, 12.8, 13.3, 13.8, 14.2])
    mass = t["log10_mass"]
    found = []
    for index in range(12):
        rng = torch.Generator().manual_seed(index)
        density, _ = p._fields(rng)
        _, row, y, x = p._haloes(rng, density)
        found.append(np.histogram(mass[(row % p.n_mass).numpy()], edges)[0])
        assert y.min() >= 0
        assert max(y.max(), x.max()) <= p.n
    number = np.histogram(np.tile(mass, len(t["z"])), edges, weights=t["number"].ravel())[0]
    agrees(np.array(found), number * p.area, ABUNDANCE)


def test_rare_haloes_are_drawn():
    # All of them above 10^14 Msun: a few per region, from the ends of the alias tables.
    p, t = painter(), shipped()
    rate = np.where(t["log10_mass"] > 14, t["number"], 0).sum() * p.area
    drawn = 0
    for index in range(12):
        rng = torch.Generator().manual_seed(index)
        _, row, _, _ = p._haloes(rng, p._fields(rng)[0])
        drawn += int((t["log10_mass"][(row % p.n_mass).numpy()] > 14).sum())
    # Clustering widens Poisson's error by less than half.
    assert abs(drawn - 12 * rate) < SIGMAS * 1.5 * np.sqrt(12 * rate)


def test_one_halo_keeps_its_mass():
    p, t = painter(), shipped()
    shell, mass = 20, 50
    row = torch.tensor([shell * p.n_mass + mass])
    kappa, _, _, moving = p._paint_haloes(row, torch.tensor([1e-3]), torch.tensor([5 * p.n + 7]))
    painted = torch.fft.irfft2(kappa, s=(p.n, p.n))
    assert int(painted.argmax()) == 5 * p.n + 7
    # The rank-6 basis gives one halo's mean to 2 %.
    whole = float(painted.sum()) * p.pixel**2
    assert whole == pytest.approx(t["kappa_mass"][shell, mass], rel=0.02)
    at_rest = p._paint_haloes(row, torch.tensor([0.0]), torch.tensor([0]))[3]
    assert at_rest.abs().max() == 0
    away = p._paint_haloes(row, torch.tensor([-1e-3]), torch.tensor([5 * p.n + 7]))[3]
    assert torch.equal(away, -moving)


def test_radio_sources_are_those_of_the_counts():
    p = painter()
    to_mjy = p.pixel**2 / p.uk_per_jy_sr * 1e3
    radio = field("radio") * to_mjy

    def integral(power, low):
        def per_ln(x):
            return np.exp((power + 1) * x) * counts.radio_counts(np.exp(x))

        return integrate.quad(per_ln, np.log(low), np.log(p.radio_max_jy))[0]

    agrees(radio.sum((1, 2)).numpy(), integral(1, counts.FLUX_MIN_MJY * 1e-3) * p.area * 1e3, 0)
    assert radio.min() == 0
    # Pixels above 5 mJy: the counts, and up to 16 % more of two or more sources in one pixel.
    bright = (radio > 5).sum((1, 2)).numpy().astype(float)
    agrees(bright, integral(0, 5e-3) * p.area * 1.08, 0.08)


def test_bright_dusty_sources_are_listed_and_not_painted():
    p = painter()
    listed = torch.cat([r.sources for r in regions()])
    assert len(listed) > 20
    assert listed[:, 2].min() >= 7 * (1 - 1e-6)
    assert 0 <= listed[:, :2].min()
    assert listed[:, :2].max() < p.n
    # Raising the cut above every source puts them into the map, and nothing else changes.
    index = next(i for i, r in enumerate(regions()) if len(r.sources))
    region = regions()[index]
    cut = p.flux_cut
    try:
        p.flux_cut = float("inf")
        uncut = p.region(11, index)
    finally:
        p.flux_cut = cut
    assert len(uncut.sources) == 0
    extra = (uncut.maps - region.maps).double()
    cib = FIELDS.index("cib")
    flux = extra[cib].sum() * p.pixel**2 / p.uk_per_jy_sr * 1e3
    assert float(flux) == pytest.approx(float(region.sources[:, 2].sum()), rel=1e-4)
    where = extra[cib].abs() > 1e-3
    y, x = region.sources[:, :2].long().T
    assert set(zip(*np.nonzero(where.numpy()), strict=True)) == set(
        zip(y.tolist(), x.tolist(), strict=True)
    )
    extra[cib] = 0
    assert extra.abs().max() == 0


def test_a_region_has_the_same_bits_on_any_number_of_threads():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = painter().region(3, 4)
        torch.set_num_threads(2)
        two = painter().region(3, 4)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one.maps, two.maps)
    assert torch.equal(one.sources, two.sources)


def test_regions_depend_on_seed_and_index_alone():
    p = painter()
    again = p.region(11, 1)
    assert torch.equal(again.maps, regions()[1].maps)
    cib = FIELDS.index("cib")
    for other in (p.region(11, 2), p.region(12, 1)):
        a, b = other.maps[cib].flatten(), again.maps[cib].flatten()
        # Two skies have nothing in common: 1 / sqrt(pixels), with correlated ones.
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 0.06


def test_half_arcminute_pixels_show_the_same_sky_statistics():
    fine = Painter(0.5, 256, shipped())
    assert fine.cells == 128
    some = torch.stack([fine.region(11, index).maps for index in range(8)]).double()
    assert some.shape == (8, 6, 256, 256)
    power = torch.fft.rfft2(some).abs() ** 2 * (fine.pixel**2 / fine.side) ** 2
    ((mask, weight),) = halo_cases.bands(fine.ell, [3000, 8000])
    t = shipped()
    for name, spectrum in (("kappa", "kk"), ("ksz", "ksz"), ("cib", "cc")):
        cl = np.interp(np.log(fine.ell[mask]), np.log(t["ell"]), t[f"analytic_{spectrum}"])
        rows = power[:, FIELDS.index(name)][:, mask]
        measured = ((rows * weight).sum(1) / weight.sum()).numpy()
        agrees(measured[:, None], np.array([np.average(cl, weights=weight)]), POWER)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_window_of_a_cell_is_a_direct_sum(n):
    # Pixels of a cell lie at (j - (n - 1) / 2) pixel from its centre; x is k pixel / 2.
    x = np.array([0.0, 1e-14, 0.3, -1.1, 2.0])
    places = np.arange(n) - (n - 1) / 2
    direct = np.exp(2j * x[:, None] * places).mean(1)
    assert halos._comb(x, n) == pytest.approx(direct.real, abs=1e-12)
    assert np.abs(direct.imag).max() < 1e-12


def test_spread_satellites_keep_flux_place_and_second_moments():
    p = painter()
    for y, x in ((40.5, 60.5), (40.13, 60.91), (0.02, 127.97)):  # the last one over the edge
        flux = torch.tensor([3.0, 0.5], dtype=torch.float64)
        places = torch.tensor([[y, x]] * 2, dtype=torch.float64).T
        spread = p._spread(*places, flux).double() * p.pixel**2
        assert (spread != 0).sum() <= 9
        # offset of each pixel's centre from the source, the shorter way round
        dy, dx = ((torch.arange(p.n) + 0.5 - place + p.n / 2) % p.n - p.n / 2 for place in (y, x))
        whole = float(flux.sum())
        assert float(spread.sum()) == pytest.approx(whole, rel=FLOAT)
        for weight in (dy[:, None], dx[None], dy[:, None] ** 2, dx[None] ** 2, dy[:, None] * dx):
            # all moments about the source vanish, as those of a point do
            assert abs(float((spread * weight).sum())) < FLOAT * whole


@pytest.mark.parametrize(
    ("pixel", "n", "text"),
    [
        (0.5, 100, "n=100: must be a multiple of 16"),
        (0.5, 48, "n=48: must be a multiple of 16"),
        (2.0, 144, "n=144: on pixels of 2 arcmin"),
        (0.0, 128, "pixel_arcmin=0.0: must be from 0.1 to 4"),
    ],
)
def test_wrong_sizes_are_refused(pixel, n, text):
    with pytest.raises(ValueError, match=text):
        Painter(pixel, n, shipped())
