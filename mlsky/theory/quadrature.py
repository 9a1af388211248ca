"""Integrals of spherical profiles, most with a cusp at the centre."""

from __future__ import annotations

import numpy as np

__all__ = ["cusp_nodes", "nfw_mass", "spherical_transform"]


def spherical_transform(q, x, weight, profile):
    """int 4 pi x^2 f(x) sinc(q x) dx; above q = 50 the asymptote of the cusp."""
    q_max = 50.0
    q_cut = np.minimum(q, q_max)
    kernel = np.sinc(q_cut[..., None] * x / np.pi)
    transform = np.einsum("...x,...lx->...l", 4 * np.pi * x**2 * weight * profile, kernel)
    return transform * (q / q_cut) ** -2.75  # cusp x^-0.25 of the inner profile


def cusp_nodes(n: int, x_max: float):
    """Gauss-Legendre nodes and weights on (0, x_max), dense at the centre (x = x_max t^2)."""
    t, w = np.polynomial.legendre.leggauss(n)
    t, w = (t + 1) / 2, w / 2
    return x_max * t**2, w * 2 * x_max * t


def nfw_mass(c):
    """Mass of an NFW halo within `c` scale radii, in units of 4 pi rho_s r_s^3."""
    return np.log1p(c) - c / (1 + c)
