"""mlsky.theory.presets: each reaches what it was fitted to."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from halo_cases import model

from mlsky.frequency import bands
from mlsky.theory import foreground_spectra, presets
from mlsky.theory.halo_model import Parameters
from mlsky.theory.infrared import InfraredGalaxies

#: D_l of tSZ at 150 GHz, uK^2: ACT DR6 (Louis et al. 2025), SPT-3G (arXiv:2601.20551), Agora.
TSZ = {
    "act-dr6": {1000: 3.21, 2000: 3.73, 3000: 3.50, 5000: 2.67, 8000: 1.72},
    "spt-3g-d1": {3000: 4.12},
    "agora": {1000: 4.31, 2000: 5.21, 3000: 4.84, 5000: 3.63},
}
#: Three numbers of the pressure are fitted to five powers, all orders of bias in the two-halo term.
TSZ_TOLERANCE = {"act-dr6": 0.017, "spt-3g-d1": 0.002, "agora": 0.025}
#: D_3000 of kSZ (Agora's is that after reionisation) and of radio below 15 mJy, 150 GHz.
KSZ = {"act-dr6": 0.987, "spt-3g-d1": 1.75, "agora": 1.02}
RADIO = {"act-dr6": 2.89, "agora": 2.92}
KSZ_TOLERANCE, RADIO_TOLERANCE = 0.002, 0.01
#: CIB of Agora below 15 mJy, its f150 and f220 bands taken as delta functions: one number, the
#: luminosity, is fitted.
AGORA_CIB = {(150, 1000): 3.61, (150, 2000): 8.00, (150, 3000): 14.29, (150, 5000): 31.7}
AGORA_CIB |= {(220, 3000): 123.7}
AGORA_TOLERANCE = 0.065

#: C_l in Jy^2/sr (clustered at l = 500, 1000, 2000, 3000; Poisson) of the halo model of
#: Planck 2014, A&A 571, A30, without its colour corrections; flux cut (Jy).
PLANCK = {
    217: (111.0, 38.3, 13.3, 8.31, 12.8, 0.225),
    353: (1897, 652, 231, 146, 187, 0.315),
    545: (15340, 5270, 1921, 1248, 1275, 0.350),
    857: (66800, 23160, 9070, 6210, 5685, 0.710),
}
PLANCK_CLUSTERED, PLANCK_POISSON = 0.15, 0.28
#: Mean intensity and error, kJy/sr (Odegard et al. 2019).
ODEGARD = {217: (60, 23), 353: (149, 17), 545: (371, 18), 857: (576, 34)}
ODEGARD_SIGMAS = 1.7


@functools.cache
def d_ell(preset: str, nu: float, component: str, part: str = "") -> dict[int, float]:
    """D_l below 15 mJy at 150 GHz."""
    ell = np.array([500, 1000, 2000, 3000, 5000, 8000])
    made = foreground_spectra(
        ell, nu, components=component, flux_cut_mjy=(15, 150), preset=preset, parts=True
    )[f"{component} x {component}"]
    cl = made[part] if part else sum(made.values())
    return dict(zip(ell.tolist(), (ell * (ell + 1) / (2 * math.pi) * cl).tolist(), strict=True))


def test_names():
    assert presets.names() == ("act-dr6", "spt-3g-d1", "planck", "agora")
    assert presets.parameters() == Parameters()
    for bad in ("dr6", None, 3):
        with pytest.raises(ValueError, match=r"preset=.*must be one of act-dr6, spt-3g-d1"):
            presets.parameters(bad)


@pytest.mark.parametrize("preset", TSZ)
def test_tsz_is_that_of_the_preset(preset):
    for ell, power in TSZ[preset].items():
        assert d_ell(preset, 150, "tsz")[ell] == pytest.approx(power, rel=TSZ_TOLERANCE[preset])


@pytest.mark.parametrize("preset", KSZ)
def test_ksz_is_that_of_the_preset(preset):
    assert d_ell(preset, 150, "ksz")[3000] == pytest.approx(KSZ[preset], rel=KSZ_TOLERANCE)


@pytest.mark.parametrize("preset", RADIO)
def test_radio_is_that_of_the_preset(preset):
    shot = d_ell(preset, 150, "radio", "shot")[3000]
    assert shot == pytest.approx(RADIO[preset], rel=RADIO_TOLERANCE)


def test_cib_of_agora():
    for (nu, ell), power in AGORA_CIB.items():
        assert d_ell("agora", nu, "cib")[ell] == pytest.approx(power, rel=AGORA_TOLERANCE)


@pytest.mark.parametrize("nu", PLANCK)
def test_cib_of_planck(nu):
    *clustered, poisson, cut = PLANCK[nu]
    made = foreground_spectra(
        [500, 1000, 2000, 3000],
        nu,
        components="cib",
        flux_cut_mjy=(1e3 * cut, nu),
        preset="planck",
        parts=True,
    )["cib x cib"]
    per_jy = float(bands.jy_per_sr_per_uk(nu)) ** 2
    ours = (made["one_halo"] + made["two_halo"]) * per_jy
    assert ours == pytest.approx(np.array(clustered), rel=PLANCK_CLUSTERED)
    assert made["shot"] * per_jy == pytest.approx(poisson, rel=PLANCK_POISSON)
    galaxies = InfraredGalaxies.of(model().with_parameters(presets.parameters("planck")))
    mean, error = ODEGARD[nu]
    assert abs(galaxies.monopole(nu) * 1e-3 - mean) < ODEGARD_SIGMAS * error


def test_cib_of_planck_is_too_bright_for_act():
    planck, act = (d_ell(preset, 220, "cib")[3000] for preset in ("planck", "act-dr6"))
    assert 1.2 < planck / act < 1.8


def test_weights_of_another_truth_are_refused():
    truth = {"preset": "agora", "parameters": presets.parameters("agora").to_dict()}
    assert presets.check_truth(truth) == "agora"
    assert presets.check_truth(None) == presets.DEFAULT
    for name, value in (("cib_beta", 1.5), ("pressure", [1.0, 0.4, -0.7]), ("dust_mass", 1.0)):
        changed = {**truth, "parameters": {**truth["parameters"], name: value}}
        with pytest.raises(ValueError, match=f"preset 'agora' with {name}=.*train them again"):
            presets.check_truth(changed)
    with pytest.raises(ValueError, match="preset='act-dr9': must be one of act-dr6"):
        presets.check_truth({**truth, "preset": "act-dr9"})
