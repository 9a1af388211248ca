"""The power law of radio sources, against the ACT DR6 best fit and astropy's models."""

import numpy as np
import pytest
from astropy.modeling.powerlaws import PowerLaw1D

from mlsky.bands import jy_per_sr_per_uk
from mlsky.scaling import radio

#: The DR6 powers are quoted to three digits: half a unit of the last one, on two numbers.
DR6_DIGITS = 5e-3


def test_against_astropy():
    nu_ghz = np.array([93.0, 148.0, 353.0])
    flux = radio.flux([3.0, 20.0], [-0.7, 0.2], nu_ghz)
    assert flux.shape == (3, 2)
    for i, (amplitude, alpha) in enumerate([(3.0, -0.7), (20.0, 0.2)]):
        # astropy's index has the other sign
        expected = PowerLaw1D(amplitude, x_0=148.0, alpha=-alpha)(nu_ghz)
        np.testing.assert_allclose(flux[:, i], expected, rtol=1e-12)


def test_law_against_act_dr6():
    """D_3000 (uK^2) at 93, 150, 220, 280 GHz of the DR6 best fit, whose index is -2.757 + 2."""
    nu_ghz = np.array([93.0, 150.0, 220.0, 280.0])
    power = np.array([20.7, 2.89, 1.10, 0.968])
    uk = radio.flux([1.0], [-2.757 + 2], nu_ghz)[:, 0] / jy_per_sr_per_uk(nu_ghz)
    np.testing.assert_allclose((uk / uk[1]) ** 2, power / power[1], rtol=DR6_DIGITS)


def test_mean_flux_away_from_the_reference():
    """The figures of the docstring: scatter brightens the mean, as for any lognormal."""
    alpha = np.random.default_rng(1).normal(radio.ALPHA_MEAN, radio.ALPHA_SCATTER, 200_000)
    mean = radio.flux(1.0, alpha, [27.0, 93.0]).mean(axis=1)
    ratio = mean / radio.flux([1.0], [radio.ALPHA_MEAN], [27.0, 93.0])[:, 0]
    # standard error of the mean at 27 GHz: 0.55 / sqrt(2e5) = 0.0012
    np.testing.assert_allclose(ratio, [1.139, 1.0098], atol=0.005)


def test_reference_shape_and_frequency():
    np.testing.assert_allclose(radio.flux([3.0], [-1.0], 148.0), [3.0])
    np.testing.assert_allclose(radio.flux([3.0], [-1.0], 75.0, reference=150.0), [6.0])
    assert radio.flux(np.ones(4), np.zeros(4), 93.0).shape == (4,)
    with pytest.raises(ValueError, match="positive"):
        radio.flux([1.0], [0.0], -93.0)
