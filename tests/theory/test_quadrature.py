"""mlsky.theory.quadrature: integrals with closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from mlsky.theory.quadrature import cusp_nodes, nfw_mass, spherical_transform


def test_a_cusp_is_integrated_exactly():
    x, weight = cusp_nodes(160, 4.0)
    assert (weight * x**-0.3).sum() == pytest.approx(4.0**0.7 / 0.7, rel=1e-6)
    assert np.all((x > 0) & (x < 4))


def test_transform_of_a_ball():
    # int_0^1 4 pi x^2 sinc(q x) dx = 4 pi (sin q - q cos q) / q^3
    x, weight = cusp_nodes(160, 1.0)
    q = np.array([[0.1, 1.0, 5.0, 20.0]])
    made = spherical_transform(q, x, weight, np.ones((1, 160)))
    assert made == pytest.approx(4 * np.pi * (np.sin(q) - q * np.cos(q)) / q**3, rel=1e-6)


def test_nfw_mass_is_the_integral_of_its_density():
    x = np.linspace(0, 7, 200_001)
    assert nfw_mass(7.0) == pytest.approx(np.trapezoid(x / (1 + x) ** 2, x), rel=1e-8)
