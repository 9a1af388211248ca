"""Haloes painted on charts: flux, profile, place, in every field and on any pixels."""

from __future__ import annotations

import functools

import healpy
import numpy as np
import pytest
from chart_cases import solid_angle
from halo_cases import shipped
from pixell import enmap
from scipy.special import sph_harm_y

from mlsky.components import REFERENCE_GHZ
from mlsky.haloes import draw, paint, profiles
from mlsky.haloes.painter import TSZ_148
from mlsky.sphere import charts, resampling, windows
from mlsky.sphere.geometry import Car, Healpix
from mlsky.theory.halo_model import T_CMB_UK

#: The sum over a map is the flux of the table to this: samples of charts, worst at the poles and
#: for kappa, whose cusp is narrower than a pixel.
FLUX = 1e-2
#: Within R500c the blurring by pixels is corrected by that of a fine map of the same profile.
Y500 = 1e-2
#: Transforms of profiles against those of the tables, as a share of their value at zero.
PROFILE = 0.012


def haloes(ra, dec, z, log10_mass, velocity=1e-3) -> draw.HaloList:
    ra, dec, z, log10_mass = (np.atleast_1d(np.asarray(v, float)) for v in (ra, dec, z, log10_mass))
    return draw.HaloList(
        np.radians(90 - dec),
        np.radians(ra),
        z,
        log10_mass,
        np.full(len(z), velocity),
        np.arange(len(z), dtype=np.uint64),
    )


#: One halo at the pole, some at RA 180, in the corner and the middle of charts, near and far.
PLACES = ((0, 90), (180, 0), (180, -41.8), (45, 0), (22.5, 41.8), (300, -89))


def summed(h, geometry, pixel_arcmin, reach_deg=4.0) -> dict[str, float]:
    """Flux of a halo on the output pixels near it, by field: charts far away hold nothing."""
    fields = ("kappa", "tsz", "ksz")
    objects = paint.HaloPainter(
        h,
        shipped(),
        1,
        fields=fields,
        pixel_arcmin=pixel_arcmin,
        geometry=geometry,
        averaged=fields,
    )
    centre, total = h.vectors[:, 0], dict.fromkeys(fields, 0.0)
    for chart in charts.charts(pixel_arcmin, 32):
        half = np.hypot(*chart.shape) / 2 * chart.pixel_rad + np.radians(reach_deg)
        if chart.rotation[2] @ centre < np.cos(half):
            continue
        owned = charts.owned(chart, geometry)
        theta, phi = geometry.angles(owned)
        v = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])
        near = owned[centre @ v > np.cos(np.radians(reach_deg))]
        if near.size:
            made = objects.on(chart)[0]
            area = np.broadcast_to(geometry.area(near), near.shape)
            for name in fields:
                total[name] += (resampling.average(chart, made[name], geometry, near) * area).sum()
    return total


def fluxes(h) -> dict[str, float]:
    """What `summed` should be."""
    at = profiles.Interpolation.of(shipped(), h.z, h.log10_mass)
    flux = {k: at.positive(v)[0] for k, v in profiles.Gaussians.of(shipped(), 2.0).flux.items()}
    moving = -T_CMB_UK * float(h.velocity[0])
    return {"kappa": flux["nfw"], "tsz": TSZ_148 * flux["y"], "ksz": moving * flux["tau"]}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("nside", [64, 256])
def test_flux_is_conserved_anywhere(place, nside):
    h = haloes(*place, 0.15, 14.8)
    want, got = fluxes(h), summed(h, Healpix(nside), 2.0)
    for name, value in want.items():
        assert got[name] == pytest.approx(value, rel=FLUX), name


@pytest.mark.parametrize("place", [(180.0, 3.0), (10.0, 88.0)])
def test_flux_is_conserved_on_car(place):
    shape, wcs = enmap.fullsky_geometry(res=np.radians(0.25), variant="fejer1")
    h = haloes(*place, 0.1, 14.7)
    got = summed(h, Car(shape, wcs), 2.0)
    for name, value in fluxes(h).items():
        assert got[name] == pytest.approx(value, rel=FLUX), name


@pytest.mark.parametrize(("z", "log10_mass"), [(0.03, 13.2), (0.1, 15.0), (0.3, 14.5), (1.2, 14.1)])
def test_profiles_are_those_of_the_tables(z, log10_mass):
    """At the centre of a bin, where nothing is interpolated, against the exact transform."""
    t = shipped()
    i, m = np.abs(t["z"] - z).argmin(), np.abs(t["log10_mass"] - log10_mass).argmin()
    h = haloes(50.0, 20.0, t["z"][i], t["log10_mass"][m])
    for kind, name in (("y", "tsz"), ("tau", "ksz"), ("nfw", "kappa")):
        objects = paint.HaloPainter(h, t, 1, fields=(name,), pixel_arcmin=1.0)
        at = objects._at
        sigma = objects.gaussians.sigma_arcmin
        fraction = at.linear(objects.gaussians.fraction[kind])[0]
        ell = t["ell_object"].astype(float)
        inside = ell < 9000
        got = fraction @ profiles.transform(sigma[:, None], ell)
        phi = t[f"phi_object_{kind}"][t["object_class"][i, m]].astype(float)
        want = t[f"a_object_{kind}"][i, m].astype(float) @ phi
        assert np.abs(got - want / want[0])[inside].max() < PROFILE, kind


def test_compton_y_within_r500_is_that_of_the_table():
    """Summed on a fine map within theta500, for clusters of several sizes."""
    import healpy

    from mlsky.haloes import catalogue

    t = shipped()
    h = haloes([10.0, 100.0, 181.0], [0.0, 60.0, -30.0], [0.05, 0.12, 0.3], [14.6, 14.9, 15.1])
    objects = paint.HaloPainter(h, t, 1, fields=("tsz",), pixel_arcmin=1.0)
    table = catalogue.table(h, t)
    for row in table:
        theta, phi = np.radians(90 - row["dec"]), np.radians(row["ra"])
        chart = charts.charts(1.0, 32)[healpy.ang2pix(charts.NSIDE, theta, phi, nest=True)]
        made = objects.on(chart)[0]["tsz"] / TSZ_148
        v = healpy.ang2vec(theta, phi)
        distance = np.degrees(np.arccos(np.clip(v @ chart.vectors(), -1, 1))) * 60
        radius = row["theta500"]
        inside = np.clip((radius - distance) / 1.0 + 0.5, 0, 1).reshape(chart.shape)
        total = (made * inside * solid_angle(chart)).sum() * (180 * 60 / np.pi) ** 2
        assert total == pytest.approx(row["y500"], rel=Y500), row["z"]


@functools.cache
def pair():
    h = haloes([45.0, 45.0], [0.0, 3.0], [0.02, 0.4], [14.8, 14.9])
    return h, paint.HaloPainter(h, shipped(), 1, fields=("kappa", "tsz"), pixel_arcmin=4.0)


def test_alm_of_haloes_are_sums_over_their_places():
    h = haloes(*np.array(PLACES).T, np.full(6, 0.3), np.full(6, 14.5), 2e-3)
    objects = paint.HaloPainter(h, shipped(), 1, fields=("kappa", "ksz"))
    lmax = 12
    alm = objects.alm("ksz", lmax)
    flux = objects._flux("ksz", slice(None))
    ell, m = healpy.Alm.getlm(lmax)
    kept = objects.haloes  # in another order
    expected = [
        (flux * np.conj(sph_harm_y(n, k, kept.theta, kept.phi))).sum()
        for n, k in zip(ell, m, strict=True)
    ]
    np.testing.assert_allclose(alm, expected, atol=1e-4 * np.abs(flux).max())


def test_charts_agree_where_they_meet():
    """The profile of a cluster of degrees, on the border of two charts, seen from both."""
    import healpy
    from scipy.ndimage import map_coordinates

    _, objects = pair()
    side = np.linspace(-1, 1, 21)
    theta, phi = np.meshgrid(np.radians(90 - side), np.radians(45 + side))
    points = healpy.ang2vec(theta.ravel(), phi.ravel()).T
    owners = np.unique(healpy.vec2pix(charts.NSIDE, *points, nest=True))
    assert len(owners) > 1
    values = []
    for index in owners:
        chart = charts.charts(4.0, 32)[index]
        made = objects.on(chart)[0]["tsz"]
        values.append(map_coordinates(made, chart.project_vectors(points), order=3))
    for other in values[1:]:
        # peak -200 uK; charts sample it at other places
        assert np.abs(values[0] - other).max() < 0.01 * np.abs(values[0]).max()


def test_nothing_rings():
    _, objects = pair()
    made = [objects.on(c)[0]["tsz"] for c in charts.charts(4.0, 32)[::13]]
    made.append(objects.on(charts.charts(4.0, 32)[_owner()])[0]["tsz"])
    lowest = min(m.min() for m in made)
    # unresolved cores leave less than a per cent of the deepest
    assert max(m.max() for m in made) < 0.03 * abs(lowest)


def _owner() -> int:
    import healpy

    return int(healpy.vec2pix(charts.NSIDE, *pair()[0].vectors[:, 0], nest=True))


def test_positions_are_exact():
    """The centre of light is at the halo, to a hundredth of a pixel."""
    import healpy

    h = haloes(12.3456, 7.891, 0.3, 14.6)
    objects = paint.HaloPainter(h, shipped(), 1, fields=("tsz",), pixel_arcmin=2.0)
    chart = charts.charts(2.0, 32)[int(healpy.vec2pix(charts.NSIDE, *h.vectors[:, 0], nest=True))]
    made = objects.on(chart)[0]["tsz"]
    y, x = chart.project_vectors(h.vectors)
    near = np.s_[int(y[0]) - 6 : int(y[0]) + 8, int(x[0]) - 6 : int(x[0]) + 8]
    weight = made[near] ** 2
    rows, columns = np.mgrid[near]
    assert (weight * rows).sum() / weight.sum() == pytest.approx(y[0], abs=0.05)
    assert (weight * columns).sum() / weight.sum() == pytest.approx(x[0], abs=0.05)


def test_power_is_that_of_the_list():
    """Unclustered haloes: the power of the map is the sum of the squared transforms."""
    import healpy

    t = shipped()
    rng = np.random.default_rng(4)
    n = 5000
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    h = haloes(rng.uniform(0, 360, n), dec, rng.uniform(0.25, 1, n), rng.uniform(14.05, 14.6, n))
    made = paint.maps(h, t, 1, Healpix(256), 8.0, fields=("kappa", "tsz"))
    objects = paint.HaloPainter(h, t, 1, fields=("kappa", "tsz"), pixel_arcmin=8.0)
    ell = np.arange(513)
    window = windows.square(ell, Healpix(256).pixel_arcmin)
    for name, kind in (("kappa", "nfw"), ("tsz", "y")):
        rows = np.arange(n)
        fraction = objects._at.linear(objects.gaussians.fraction[kind])
        u = fraction @ profiles.transform(objects.gaussians.sigma_arcmin[:, None], ell)
        u *= objects._flux(name, rows)[:, None]
        want = (u.astype(float) ** 2).sum(0) / (4 * np.pi) * window**2
        got = healpy.anafast(made[name], lmax=512, iter=1)
        for low, high in ((50, 200), (200, 350)):
            band = slice(low, high)
            modes = 2 * ell[band] + 1
            ratio = (modes * got[band]).sum() / (modes * want[band]).sum()
            # pairs of haloes, and pixels that are no squares
            assert ratio == pytest.approx(1, abs=4 * np.sqrt(2 / modes.sum()) + 0.01), (name, low)


def test_member_galaxies_are_the_same_on_two_charts_and_keep_their_mean():
    t = shipped()
    h = haloes([33.7, 60.0], [0.1, 30.0], [0.3, 0.3], [14.9, 14.9])
    objects = paint.HaloPainter(h, t, 1, fields=("cib", "radio"), pixel_arcmin=4.0)
    assert objects.cib_ghz == (REFERENCE_GHZ,)
    import healpy

    index = int(healpy.vec2pix(charts.NSIDE, *h.vectors[:, 0], nest=True))
    first = objects.on(charts.charts(4.0, 32)[index])
    second = objects.on(charts.charts(4.0, 32)[index])
    assert np.array_equal(first[0]["cib"], second[0]["cib"])
    near = [c for c in charts.charts(4.0, 32) if c.rotation[2] @ h.vectors[:, 0] > 0.8]
    sources = [objects.on(c)[1]["number"] for c in near]
    numbers = np.concatenate(sources)
    assert len(np.unique(numbers)) == len(numbers)  # every source is owned once


def test_member_fluxes_have_the_mean_of_the_halo_model():
    """Over many like haloes: the flux of centrals and satellites of the tables."""
    t = shipped()
    n = 4000
    i, m = 18, np.abs(t["log10_mass"] - 14.2).argmin()
    h = haloes(np.zeros(n), np.zeros(n), np.full(n, t["z"][i]), np.full(n, t["log10_mass"][m]))
    objects = paint.HaloPainter(h, t, 1, fields=("cib", "radio"), pixel_arcmin=4.0)
    host, number, flux, beta, dy, dx = objects.galaxies.infrared(objects.haloes, objects._at)
    central = flux[number == 0].mean()
    # lognormal with a scatter of 1: an error of two per cent
    assert central == pytest.approx(t["central_uk_sr"][i, m], rel=0.1)
    satellites = np.count_nonzero(number) / n
    assert satellites == pytest.approx(t["satellite_number"][m], rel=0.03)
    of_sub = t["satellite_uk_sr"][i, t["satellite_inverse"][m]].mean()
    assert flux[number > 0].mean() == pytest.approx(of_sub, rel=0.05)
    assert beta.std() == pytest.approx(objects.galaxies.colour.scatter, rel=0.02)
    assert np.hypot(dy, dx).max() <= t["theta_200m"][i, m] * 1.01
    host, _, mjy = objects.galaxies.radio(objects.haloes, objects._at)
    assert len(host) / n == pytest.approx(objects.galaxies._radio_rate[i, m], rel=0.15)
    assert mjy.min() >= 0.05
