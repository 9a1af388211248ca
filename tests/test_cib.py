"""The CIB colour, against pixell, the ACT DR6 best fit and the halo model."""

import numpy as np
import pytest
from halo_cases import model
from pixell import utils

from mlsky.bands import jy_per_sr_per_uk
from mlsky.scaling import cib, factor
from mlsky.theory.infrared import InfraredGalaxies

#: pixell's T_CMB differs by 7e-6.
OTHER_T_CMB = 5e-5

#: The DR6 powers are quoted to three digits: half a unit of the last one, on two numbers.
DR6_DIGITS = 5e-3

#: The training truth's halo model is another model: its mean colour differs by less than 3 % from
#: 93 to 280 GHz, by -3.5 % at 353 GHz.
HALO_MODEL = {93: 0.001, 217: -0.009, 225: -0.010, 280: -0.020, 353: -0.035}


def test_against_pixell():
    nu_ghz = np.array([27.0, 93.0, 148.0, 225.0, 353.0])
    colour = utils.graybody(nu_ghz * 1e9, cib.T_DUST_K, cib.BETA) / utils.dplanck(nu_ghz * 1e9)
    np.testing.assert_allclose(cib.factor(nu_ghz), colour / colour[2], rtol=OTHER_T_CMB)


@pytest.mark.parametrize(
    "power", [[0.905, 7.65, 67.0, 383.0], [0.451, 3.81, 33.3, 190.0]], ids=["Poisson", "clustered"]
)
def test_against_act_dr6(power):
    """D_3000 (uK^2) at 93, 150, 220, 280 GHz of the DR6 best fit, delta bands."""
    ratio = cib.factor([93, 150, 220, 280], reference=150) ** 2
    np.testing.assert_allclose(ratio, np.array(power) / power[1], rtol=DR6_DIGITS)


def test_near_the_colour_of_the_halo_model():
    """The figures given in the module's docstring: mean intensities of galaxies below 7 mJy."""
    galaxies = InfraredGalaxies.of(model())
    mean = {nu: galaxies.monopole(nu, (7e-3, 148.0)) for nu in (148, *HALO_MODEL)}
    for nu, figure in HALO_MODEL.items():
        colour = mean[nu] / mean[148] * jy_per_sr_per_uk(148) / jy_per_sr_per_uk(nu)
        assert colour / cib.factor(nu) - 1 == pytest.approx(figure, abs=6e-4)


def test_positive_and_consistent():
    nu_ghz = np.linspace(27, 353, 100)
    assert (cib.factor(nu_ghz) > 0).all()
    assert cib.factor(148) == 1
    np.testing.assert_allclose(cib.factor(93, 225) * cib.factor(225), cib.factor(93), rtol=1e-14)
    np.testing.assert_array_equal(factor("cib", nu_ghz), cib.factor(nu_ghz))
    with pytest.raises(ValueError, match="positive"):
        cib.factor(0)


def test_index_is_the_derivative():
    step = 1e-4
    for nu in (30.0, 148.0, 353.0):
        up, down = cib.flux([1.0], [cib.index()], [nu * (1 + step), nu * (1 - step)])[:, 0]
        slope = np.log(up / down) / np.log((1 + step) / (1 - step))
        assert cib.index(nu) == pytest.approx(slope, abs=1e-6)
    assert cib.index() == pytest.approx(3.45, abs=0.005)


def test_sources_have_the_colour_of_the_map():
    nu_ghz = np.array([93.0, 148.0, 280.0])
    flux = cib.flux([2.0, 5.0], [cib.index(), cib.index()], nu_ghz)
    assert flux.shape == (3, 2)
    expected = cib.factor(nu_ghz) * jy_per_sr_per_uk(nu_ghz) / jy_per_sr_per_uk(148)
    np.testing.assert_allclose(flux, expected[:, None] * [2.0, 5.0], rtol=1e-12)
    # a source of another index is tilted by the difference
    tilted = cib.flux([2.0], [cib.index() + 0.5], 296.0) / cib.flux([2.0], [cib.index()], 296.0)
    np.testing.assert_allclose(tilted, np.sqrt(2), rtol=1e-12)
