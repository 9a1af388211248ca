"""The CIB colour, against pixell, the ACT DR6 best fit and the halo model."""

import numpy as np
import pytest
from halo_cases import model
from pixell import utils

from mlsky.frequency import cib
from mlsky.frequency.bands import jy_per_sr_per_uk
from mlsky.frequency.scaling import factor
from mlsky.theory.halo_model import infrared_sed
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


@pytest.mark.parametrize("nu", [545.0, 857.0])
def test_colour_of_the_halo_model_above_353(nu):
    """One blackbody does not hold there: the colour goes on from 353 GHz as the model's does."""
    galaxies = InfraredGalaxies.of(model())
    mean = [galaxies.monopole(v, (7e-3, 148.0)) / jy_per_sr_per_uk(v) for v in (353.0, nu)]
    assert cib.factor(nu) / cib.factor(353.0) == pytest.approx(mean[1] / mean[0], rel=1e-3)
    assert cib.factor(353.0 * (1 + 1e-9)) == pytest.approx(cib.factor(353.0), rel=1e-7)


@pytest.mark.parametrize("flux", [1.0, 3.0, 10.0])
def test_indices_are_those_of_the_halo_model(flux):
    """Mean and scatter with redshift, at 148 GHz, of galaxies of a flux."""
    mean, scatter = _indices_of_model(flux)[1:]
    expected = cib.index_of(np.array([0.0, 1.0]), flux)
    assert expected[0] == pytest.approx(mean, abs=2e-3)
    assert np.diff(expected)[0] == pytest.approx(np.hypot(scatter, 0.2), abs=2e-3)
    assert model().parameters.cib_beta_scatter == cib.EMISSIVITY_SCATTER


def _indices_of_model(flux_mjy):
    """Weight of the shells in the galaxies of a flux, mean and scatter of their index."""
    galaxies, index = InfraredGalaxies.of(model()), _index_of_shells()
    above = []
    for limit in (flux_mjy, 1.05 * flux_mjy):
        cut = (limit * 1e-3, 148.0)
        central = 1 - galaxies.fraction(galaxies.central, (), cut)
        satellite = 1 - galaxies.fraction(galaxies.by_sub, (), cut)
        satellites = np.einsum("mk,ik->im", galaxies.per_host, satellite) * galaxies.quench
        above.append((galaxies.number * (central + satellites)).sum(1))
    weight = (above[0] - above[1]) / (above[0] - above[1]).sum()
    mean = weight @ index
    return weight, mean, np.sqrt(weight @ (index - mean) ** 2)


@pytest.mark.parametrize(("nu", "allowed"), [(93.0, 0.01), (225.0, 0.015), (353.0, 0.04)])
def test_sources_follow_their_index_as_those_of_the_halo_model(nu, allowed):
    """Regression of ln S_nu on the index, over shells and emissivity indices, at 1 mJy."""
    weight, mean, _ = _indices_of_model(1.0)
    z = InfraredGalaxies.of(model()).z
    colour = np.log(infrared_sed(nu, z, model().parameters))
    colour = colour - np.log(infrared_sed(148.0, z, model().parameters))
    offset = np.linspace(-3, 3, 61)
    gauss = np.exp(-0.5 * offset**2)
    fractions = np.outer(weight, gauss / gauss.sum())
    beta = 0.2 * offset
    index = _index_of_shells()[:, None] + beta
    values = colour[:, None] + beta * np.log(nu / 148)
    line = np.polyfit(index.ravel(), values.ravel(), 1, w=np.sqrt(fractions.ravel()))
    for alpha in (mean - 0.2, mean, mean + 0.2):
        ours = np.log(cib.flux([1.0], [alpha], nu)[0])
        assert ours == pytest.approx(np.polyval(line, alpha), abs=allowed)


def _index_of_shells():
    z, step = InfraredGalaxies.of(model()).z, 1.001
    sed = [infrared_sed(148 * s, z, model().parameters) for s in (step, 1 / step)]
    return np.log(sed[0] / sed[1]) / (2 * np.log(step))


def test_positive_and_consistent():
    nu_ghz = np.linspace(20, 900, 100)
    assert (cib.factor(nu_ghz) > 0).all()
    assert cib.factor(148) == 1
    np.testing.assert_allclose(cib.factor(93, 225) * cib.factor(225), cib.factor(93), rtol=1e-14)
    np.testing.assert_array_equal(factor("cib", nu_ghz), cib.factor(nu_ghz))
    with pytest.raises(ValueError, match="positive"):
        cib.factor(0)


def test_index_is_the_derivative():
    step = 1e-4
    for nu in (30.0, 148.0, 352.0):
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
    step = np.array([1 / 1.001, 1.001]) * 148
    tilted = cib.flux([2.0], [cib.index() + 0.5], step)[:, 0]
    slope = np.log(tilted[1] / tilted[0]) / np.log(step[1] / step[0])
    assert slope == pytest.approx(cib.index() + 0.5, abs=1e-5)
