"""mlsky.theory.foregrounds: against the painter's tables, ACT DR6, Planck, Agora and CAMB.

The module of the package `mlsky.painting.foregrounds` is tested in test_foregrounds.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from halo_cases import model, shipped

from mlsky.frequency import bands, tsz
from mlsky.theory import (
    clustering,
    cosmology,
    foreground_spectra,
    foregrounds,
    kappa_spectrum,
    presets,
    radio_sources,
)

#: Spectra of the tables are float32, and splined here.
TABLES = 1e-3
#: Rounding of sums over parts.
ADD_UP = 1e-10
#: kappa on shells 300 Mpc thick, against CAMB from ell = 100 to 8000.
CAMB = 0.01
#: D_3000 (uK^2) at 93, 150, 220, 280 GHz: best fit of ACT DR6 (Louis et al. 2025), radio and CIB
#: below 15 mJy at 150 GHz.
FREQS = (93, 150, 220, 280)
DR6 = {
    "tsz": (9.52, 3.50, 0.006, 3.87),
    "ksz": (0.987, 0.987, 0.987, 0.987),
    "cib": (1.356, 11.46, 100.3, 573.0),
    "radio": (20.7, 2.89, 1.10, 0.968),
}
DR6_TOLERANCE = {"tsz": 0.01, "ksz": 0.01, "cib": 0.05, "radio": 0.07}
#: Clustered and Poisson parts of the CIB.
DR6_CLUSTERED, DR6_POISSON = (0.451, 3.81, 33.3, 190.0), (0.905, 7.65, 67.0, 383.0)
DR6_PARTS = 0.18
#: Correlation of bands at l = 500, 1000, 2000: halo model + shot of Planck 2014, A&A 571, A30.
PLANCK = {
    (353, 545): (0.990, 0.983, 0.973),
    (545, 857): (0.976, 0.968, 0.957),
    (353, 857): (0.940, 0.918, 0.885),
    (217, 545): (0.973, 0.958, 0.934),
    (217, 353): (0.996, 0.993, 0.990),
}
PLANCK_TOLERANCE = 0.026
#: Correlation of bands of Agora at l = 3000.
AGORA = {(150, 220): 0.996, (90, 220): 0.988, (90, 150): 0.998}
AGORA_RADIO = {(150, 220): 0.962, (90, 220): 0.940, (90, 150): 0.978}
AGORA_TOLERANCE, AGORA_RADIO_TOLERANCE = 0.005, 0.035


def d_ell(ell):
    ell = np.asarray(ell)
    return ell * (ell + 1) / (2 * np.pi)


def correlation(a, b, component="cib", *, ell, cut):
    def power(x, y):
        made = foreground_spectra(ell, x, y, component, flux_cut_mjy=cut)
        return made[f"{component} x {component}"]

    return power(a, b) / np.sqrt(power(a, a) * power(b, b))


def test_spectra_are_those_of_the_tables():
    t = shipped()
    ell = np.clip(t["ell"].astype(float), 20, 31000)
    ours = foreground_spectra(ell, 148)
    y = tsz.uk_per_y(148.0)
    names = {
        "kappa x kappa": ("kk", 1),
        "tsz x tsz": ("yy", y**2),
        "ksz x ksz": ("ksz", 1),
        "cib x cib": ("cc", 1),
        "kappa x tsz": ("ky", y),
        "kappa x cib": ("kc", 1),
        "tsz x cib": ("yc", y),
    }
    for name, (table, unit) in names.items():
        assert ours[name] == pytest.approx(t[f"analytic_{table}"] * unit, rel=TABLES), name


def test_every_pair_is_there_and_symmetric():
    ell = [100, 3000]
    same = foreground_spectra(ell, 150)
    assert len(same) == 25
    other = foreground_spectra(ell, 93, 280)
    swapped = foreground_spectra(ell, 280, 93)
    for a, b in itertools.product(foregrounds.COMPONENTS, repeat=2):
        assert np.array_equal(same[f"{a} x {b}"], same[f"{b} x {a}"])
        assert other[f"{a} x {b}"] == pytest.approx(swapped[f"{b} x {a}"], rel=1e-12)
        if "ksz" in (a, b) and a != b:
            assert np.all(same[f"{a} x {b}"] == 0)
    # 93 GHz is below the null of tSZ, 280 above
    assert np.all(other["tsz x tsz"] < 0)
    assert np.all(other["kappa x tsz"] > 0)
    assert np.all(other["tsz x kappa"] < 0)


def test_parts_add_up():
    whole = foreground_spectra([500, 5000], 150, 220)
    parts = foreground_spectra([500, 5000], 150, 220, parts=True)
    for name, row in parts.items():
        assert tuple(row) == foregrounds.PARTS
        assert sum(row.values()) == pytest.approx(whole[name], rel=1e-12)
        both = name.split(" x ")
        assert np.any(row["shot"] != 0) == (both[0] == both[1] and both[0] in ("cib", "radio"))
    # one halo rules tSZ, two haloes kappa and CIB on large scales
    assert parts["tsz x tsz"]["one_halo"][0] > 20 * parts["tsz x tsz"]["two_halo"][0]
    for name in ("kappa x kappa", "cib x cib"):
        assert parts[name]["two_halo"][0] > 5 * parts[name]["one_halo"][0]


def test_kappa_is_that_of_camb():
    ell = np.unique(np.geomspace(100, 8000, 60).astype(int))
    ours = foreground_spectra(ell, 148, components="kappa")["kappa x kappa"]
    assert ours == pytest.approx(kappa_spectrum(8000)[ell], rel=CAMB)


@pytest.mark.parametrize("nu", FREQS)
def test_d_3000_is_that_of_act_dr6(nu):
    i = FREQS.index(nu)
    made = foreground_spectra([3000], nu, flux_cut_mjy=(15, 150), parts=True)
    for name, rows in DR6.items():
        power = d_ell(3000) * sum(made[f"{name} x {name}"].values())[0]
        # next to the null a digit is a large part
        assert power == pytest.approx(rows[i], rel=DR6_TOLERANCE[name], abs=5e-4), name
    cib = {k: d_ell(3000) * v[0] for k, v in made["cib x cib"].items()}
    clustered = cib["one_halo"] + cib["two_halo"]
    assert clustered == pytest.approx(DR6_CLUSTERED[i], rel=DR6_PARTS)
    assert cib["shot"] == pytest.approx(DR6_POISSON[i], rel=DR6_PARTS)


def test_bands_correlate_as_in_planck_and_agora():
    for (a, b), rows in PLANCK.items():
        made = correlation(a, b, ell=[500, 1000, 2000], cut=(350, 545))
        assert made == pytest.approx(np.array(rows), abs=PLANCK_TOLERANCE)
    for (a, b), value in AGORA.items():
        assert correlation(a, b, ell=[3000], cut=(15, 150)) == pytest.approx(
            value, abs=AGORA_TOLERANCE
        )
    for (a, b), value in AGORA_RADIO.items():
        assert correlation(a, b, "radio", ell=[3000], cut=(15, 150)) == pytest.approx(
            value, abs=AGORA_RADIO_TOLERANCE
        )


def test_correlations_are_at_most_one():
    ell = np.geomspace(20, 31000, 40)
    for nu in (20.0, 148.0, 900.0):
        made = foreground_spectra(ell, nu)
        for a, b in itertools.combinations(foregrounds.COMPONENTS, 2):
            auto = made[f"{a} x {a}"] * made[f"{b} x {b}"]
            assert np.all(made[f"{a} x {b}"] ** 2 <= auto)


def test_one_halo_terms_from_their_definition():
    """tSZ with CIB and radio with itself, summed haloes by haloes without the package's sums."""
    m, ell = model(), 3000.0
    i = int(np.argmin(np.abs(m.ell - ell)))
    made = foreground_spectra([m.ell[i]], 150, flux_cut_mjy=None, parts=True)
    central, satellites, *_ = m.infrared(150.0)
    satellites = satellites / (1 + m.mass / 10**m.parameters.cib_log10_quench)
    uk = 1 / float(bands.jy_per_sr_per_uk(150.0))
    total = 0.0
    for shell in range(len(m.z)):
        # haloes per steradian by Limber: dn/dlnM of the shell's volume
        number = m.dn[shell] * (m.edges[shell + 1] ** 3 - m.edges[shell] ** 3) / 3 * 0.05
        flux = central[shell] + satellites[shell] * m.u_nfw[shell, :, i]
        total += (number * math.log(10) * flux * m.u_y[shell, :, i]).sum()
    expected = total * uk * tsz.uk_per_y(150.0)
    assert made["tsz x cib"]["one_halo"][0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mass_cut", [2e12, 3.3e13, 1e14, 5e14])
def test_objects_and_the_rest_are_all(mass_cut):
    ell = np.geomspace(20, 31000, 12)
    whole = foreground_spectra(ell, 148, 220, parts=True)
    some = [
        foreground_spectra(ell, 148, 220, parts=True, part=pair, mass_cut=mass_cut)
        for pair in itertools.product(("objects", "rest"), repeat=2)
    ]
    for name, rows in whole.items():
        for kind, values in rows.items():
            summed = sum(s[name][kind] for s in some)
            assert summed == pytest.approx(values, rel=ADD_UP, abs=ADD_UP * np.abs(values).max())
    # of two orders of a pair, one is the other's transpose
    one = foreground_spectra(ell, 148, 220, part=("objects", "rest"), mass_cut=mass_cut)
    other = foreground_spectra(ell, 220, 148, part=("rest", "objects"), mass_cut=mass_cut)
    for a, b in itertools.product(foregrounds.COMPONENTS, repeat=2):
        assert one[f"{a} x {b}"] == pytest.approx(other[f"{b} x {a}"], rel=1e-12)
    both = foreground_spectra(ell, 148, 220, part="objects", mass_cut=mass_cut)
    assert both["tsz x cib"] == pytest.approx(sum(some[0]["tsz x cib"].values()), rel=1e-12)


def test_without_a_cut_there_are_no_objects():
    whole = foreground_spectra([1000], 148)
    none = foreground_spectra([1000], 148, part="objects", mass_cut=None)
    rest = foreground_spectra([1000], 148, part="rest", mass_cut=None)
    for name, values in whole.items():
        assert none[name] == 0
        assert rest[name] == pytest.approx(values, rel=1e-12)


def test_objects_from_their_definition():
    """One-halo power of tSZ and shot noise of radio, summed over haloes above the cut."""
    m = model()
    i = int(np.argmin(np.abs(m.ell - 3000)))
    made = foreground_spectra([m.ell[i]], 150, parts=True, part="objects", mass_cut=2e14)
    power, hosted, hosts = 0.0, 0.0, 0.0
    rate = radio_sources.host_rate(m.z, m.log10_mass[46:], m.number[:, 46:])
    for shell, z in enumerate(m.z):
        for k, mass in enumerate(m.mass):
            if mass < 2e12:
                continue
            hosts += m.number[shell, k] * rate[shell, k - 46]
            if mass >= (1e13 if z < 0.2 else 2e14):
                power += m.number[shell, k] * m.u_y[shell, k, i] ** 2
                hosted += m.number[shell, k] * rate[shell, k - 46]
    assert m.log10_mass[46] == pytest.approx(12.325)
    expected = power * tsz.uk_per_y(150.0) ** 2
    assert made["tsz x tsz"]["one_halo"][0] == pytest.approx(expected, rel=1e-6)
    every = foreground_spectra([m.ell[i]], 150, components="radio", parts=True)
    share = made["radio x radio"]["shot"] / every["radio x radio"]["shot"]
    assert share == pytest.approx(hosted / hosts, rel=1e-6)


def test_pairs_of_moving_haloes_are_pairs_that_share_the_flow_of_their_shell():
    """Of haloes in one shell, kSZ of pairs is their power at rest times the shell's variance."""
    analytic = foregrounds._analytic(
        cosmology.parse("planck2018"), presets.parameters(presets.DEFAULT)
    )
    side = foregrounds._Side("ksz", 148.0, "objects", 1e14)
    every = analytic._field(side, None)
    variance = clustering.shell_velocity_variance(model())
    for shell in (18, 24):
        taken = every.profile * (np.arange(len(variance)) == shell)[:, None, None]
        orders = analytic.clustering.orders(taken)
        field = foregrounds._Field(every.of, taken, analytic.clustering.biased(taken), orders)
        moving, still = (
            [by_shell.sum(0) for by_shell in of(field, field)]
            for of in (analytic._moving, analytic._pairs)
        )
        assert moving[1] == pytest.approx(variance[shell] * still[1], rel=1e-9)
        sigma_v = float(model().sigma_v[shell])
        assert moving[0] == pytest.approx(sigma_v**2 * still[0], rel=1e-9)
        # orders of bias beyond the first are most of it, and are not to be left out
        linear = (field.linear**2 * analytic.clustering.p_shell).sum(0)
        assert np.all(still[1][:20] > 1.2 * linear[:20])


def test_clusters_are_the_sky_of_tsz():
    # 99 % of its one-halo power at l = 1000 and 96 % at 3000
    whole, some = (
        foreground_spectra([1000, 3000], 148, components="tsz", parts=True, part=part)
        for part in ("all", "objects")
    )
    share = some["tsz x tsz"]["one_halo"] / whole["tsz x tsz"]["one_halo"]
    assert share == pytest.approx([0.99, 0.965], abs=0.01)


def test_flux_cuts():
    def shot(cut, name, nu=150.0):
        made = foreground_spectra([3000], nu, components=name, flux_cut_mjy=cut, parts=True)
        return made[f"{name} x {name}"]["shot"][0]

    for name in ("cib", "radio"):
        rows = [shot(cut, name) for cut in (1, 7, 15, 1000, None)]
        assert np.all(np.diff(rows) > 0)
        assert shot(7, name) == shot((7, 148), name)
    # a cut at 150 GHz is nearly one at 148; one at 545 GHz leaves many radio sources in
    assert shot((7 * (150 / 148) ** 3.45, 150), "cib") == pytest.approx(shot(7, "cib"), rel=0.01)
    assert shot((350, 545), "radio") > 10 * shot(15, "radio")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ell": [10, 100]}, "ell=.*must be multipoles from 20 to 31000"),
        ({"ell": []}, "must be multipoles"),
        ({"nu_1": 10}, "nu_1=10: must be a frequency in GHz from 20 to 900"),
        ({"nu_2": "hot"}, "nu_2='hot'"),
        ({"components": ("cib", "dust")}, "must be one or more of kappa, ksz, tsz, cib, radio"),
        ({"components": ()}, "must be one or more"),
        ({"flux_cut_mjy": 0}, "flux_cut_mjy=0: must be a flux in mJy"),
        ({"flux_cut_mjy": "15 mJy"}, "flux_cut_mjy='15 mJy'"),
        ({"flux_cut_mjy": (15, 150, 2)}, "or a pair"),
        ({"flux_cut_mjy": (15, 5)}, "frequency of flux_cut_mjy=5"),
        ({"preset": "s10"}, "preset='s10'"),
        ({"part": "clusters"}, "part='clusters': must be one of all, objects, rest, or a pair"),
        ({"part": ("all",)}, "part=.*or a pair of them"),
        ({"part": None}, "part=None: must be one of all, objects, rest, or a pair"),
        ({"mass_cut": -1.0}, "mass_cut=-1.0: must be a mass M200m in Msun from 2e.12 to"),
        ({"mass_cut": 1e17}, "mass_cut=1e.17: must be a mass"),
        ({"cosmology": "milne"}, "cosmology='milne'"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        foreground_spectra(**({"ell": [3000], "nu_1": 150} | change))
