"""Spectra of the halo model through CCL's own integrals, against `foreground_spectra`.

A halo model on a matter power spectrum of Eisenstein & Hu takes a few seconds; CAMB's takes ten.
"""

from __future__ import annotations

import itertools

import numpy as np
import pyccl
import pytest

from mlsky.plugins import tracers
from mlsky.theory import foreground_spectra, foregrounds
from mlsky.theory.halo_model import HaloModel

ELL = np.array([30, 100, 500, 1000, 3000, 8000])
NU = 150, 353

#: An integral over distances against the sum over shells, which are 20 % of their distance thick
#: nearby: the power of tSZ at low multipoles is from there.
SHELLS = np.array([0.03, 0.03, 0.02, 0.02, 0.01, 0.01])
#: CCL's own kernels, sampled at other distances, with the first 60 Mpc.
KERNELS = 2e-3


@pytest.fixture(scope="module")
def analytic():
    cosmo = pyccl.CosmologyVanillaLCDM(
        transfer_function="eisenstein_hu", matter_power_spectrum="halofit"
    )
    return foregrounds._HaloModelSpectra(HaloModel(cosmo, ell=np.geomspace(20.0, 31000.0, 32)))


@pytest.fixture(autouse=True)
def cheap(monkeypatch, analytic):
    monkeypatch.setattr(foregrounds, "_analytic", lambda cosmology, parameters: analytic)


def test_ccl_gives_our_spectra(analytic):
    expected = foreground_spectra(ELL, *NU, tracers.COMPONENTS)
    kernels = [tracers.tracers(tracers.COMPONENTS, nu) for nu in NU]
    for a, b in itertools.product(tracers.COMPONENTS, repeat=2):
        pk = tracers.power(a, b, *NU)
        cl = pyccl.angular_cl(analytic.model.cosmo, kernels[0][a], kernels[1][b], ELL, p_of_k_a=pk)
        ratio = cl / expected[f"{a} x {b}"]
        assert (np.abs(ratio - 1) < SHELLS).all(), f"{a} x {b}: {ratio}"


def test_units_are_those_of_the_tracers_of_ccl(analytic):
    """Pressure in eV/cm^3 and emissivity in Jy/Mpc/sr: y and Jy/sr with CCL's own tracers."""
    cosmo, ell = analytic.model.cosmo, np.array([1000, 3000])
    units = {"tsz": tracers.tsz.uk_per_y(150), "cib": 1 / tracers.bands.jy_per_sr_per_uk(150)}
    near = 1 / float(cosmo.scale_factor_of_chi(analytic.model.edges[0])) - 1
    theirs = {
        "tsz": pyccl.Tracer.from_z_power(
            cosmo, A=tracers.COMPTON, alpha=1, z_min=near, z_max=6.0, n_chi=512
        ),
        "cib": pyccl.CIBTracer(cosmo, z_min=near, z_max=6.0, n_chi=512),
    }
    kappa = tracers.tracers("kappa", 150)["kappa"]
    for name, ours in tracers.tracers(["tsz", "cib"], 150).items():
        pk = tracers.power("kappa", name, 150)
        in_uk = pyccl.angular_cl(cosmo, kappa, ours, ell, p_of_k_a=pk)
        own = pyccl.angular_cl(cosmo, kappa, theirs[name], ell, p_of_k_a=pk)
        np.testing.assert_allclose(in_uk, own * float(units[name]), rtol=KERNELS)


def test_matter_of_kappa_is_the_nonlinear_one(analytic):
    k, cosmo = np.array([0.01, 0.1, 1.0]), analytic.model.cosmo
    np.testing.assert_array_equal(
        tracers.power("kappa", "kappa", 150)(k, 0.5), cosmo.nonlin_matter_power(k, 0.5)
    )


def test_cosmology_has_both_powers_of_matter(analytic, monkeypatch):
    monkeypatch.setattr(tracers.ccl, "to_cosmology", lambda parameters: analytic.model.cosmo)
    cosmo = tracers.cosmology("planck2018")
    assert isinstance(cosmo.get_linear_power(), pyccl.Pk2D)
    assert isinstance(cosmo.get_nonlin_power(), pyccl.Pk2D)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tracers.tracers("ksz", 150), "component='ksz': must be one of kappa, tsz"),
        (lambda: tracers.tracers(3, 150), "components=3: must be one or many of kappa, tsz"),
        (lambda: tracers.tracers([], 150), r"components=\[\]: must be one or many of kappa, tsz"),
        (lambda: tracers.tracers("tsz", 5), "nu_ghz=5: must be a frequency in GHz"),
        (lambda: tracers.power("tsz", "dust", 150), "component='dust': must be one of kappa"),
        (lambda: tracers.power("cib", "tsz", 150, 5000), "nu_2=5000: must be a frequency"),
        (lambda: tracers.power("cib", "cib", 150, flux_cut_mjy=-1), "flux_cut_mjy=-1: must be"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
