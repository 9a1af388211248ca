"""Clustering of haloes in the training truth: capped lognormal bias of Gaussian shells.

The spectra of what the painter does with densities. The tables (`mlsky.haloes.tables`) and the
analytic halo model (`mlsky.theory.foregrounds`) both use them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mlsky.theory.halo_model import SMOOTHING_MPC, T_CMB_UK

if TYPE_CHECKING:
    from mlsky.theory.halo_model import HaloModel

__all__ = ["CAP_SIGMA", "LOG10_MASS_MIN", "Clustering", "shell_velocity_variance"]

LOG10_MASS_MIN = 12.3  # haloes above are painted individually, 10^12.3 = 2e12 Msun
#: The number of haloes grows with density up to this many standard deviations. Without a cap,
#: lognormal bias puts dozens of clusters at a 5 sigma peak of a nearby shell.
CAP_SIGMA = 4.0
#: Second cap, in linear density. In the nearest, thin shells four standard deviations are more, and
#: exp(b d) puts a tenth of all rich clusters at one position. With this value clusters above 3e14
#: Msun at z of .1 to .2 have a mean overdensity of 13 and 5 within 12 and 25 Mpc of each other: our
#: choice, for a correlation length of about 28 Mpc.
DENSITY_MAX = 2.5
#: Orders of bias in two-halo terms. For clusters at z = 0.3, with b xi^(1/2) above 1, orders above
#: the third are a tenth of the power.
ORDERS = 8


class Clustering:
    """Two-halo terms of a halo model as it is painted.

    Parameters
    ----------
    model
        The halo model.

    Attributes
    ----------
    painted : (n_mass,)
        Masses that are painted halo by halo; lighter ones follow densities linearly.
    p_shell : (n_shell, n_ell)
        Power of the smoothed density of each shell (per sr).
    powers : list of (n_shell, n_ell)
        Spectra of the second and higher powers of its correlation function.
    cap : (n_shell,)
        Densities above which the number of haloes stays constant.
    bias : (ORDERS, n_shell, n_mass)
        Bias of first order and higher.
    """

    def __init__(self, model: HaloModel) -> None:
        self.model = model
        self.painted = model.log10_mass >= LOG10_MASS_MIN - 1e-9
        smooth = np.exp(-((model.k * SMOOTHING_MPC) ** 2))
        self.p_shell = model.p_linear * smooth / model.volume[:, None]
        self.powers, variance = correlation_powers(model.ell, self.p_shell)
        self.cap = np.minimum(CAP_SIGMA * np.sqrt(variance), DENSITY_MAX)
        self.bias = capped_bias(model.bias, variance, self.cap, self.painted)

    def biased(self, profile: np.ndarray, order: int = 1, which=None) -> np.ndarray:
        """Sum of n b_order U over the masses `which` (all by default), (n_shell, n_ell)."""
        which = np.ones_like(self.painted) if which is None else which
        weight = self.model.number[:, which] * self.bias[order - 1][:, which]
        return np.einsum("im,iml->il", weight, profile[:, which])

    def beyond_linear(self, u_a: np.ndarray, u_b: np.ndarray) -> np.ndarray:
        """Two-halo power of painted haloes from orders of bias above the first, (n_ell,).

        Lognormal bias correlates haloes of bias b and b' as exp(b b' xi) - 1, less with the cap;
        this is the contribution of higher orders (see `capped_bias`) to b b' xi.
        """
        return self.of_orders(self.orders(u_a), self.orders(u_b)).sum(0)

    def orders(self, profile: np.ndarray) -> list[np.ndarray]:
        """Sums of n b_k U over painted haloes, of second order and higher."""
        return [self.biased(profile, k, self.painted) for k in range(2, ORDERS + 1)]

    def of_orders(
        self, a: list[np.ndarray], b: list[np.ndarray], weight: np.ndarray | float = 1.0
    ) -> np.ndarray:
        """`beyond_linear` of each shell from `orders` of two profiles, times a weight of it.

        (n_shell, n_ell).
        """
        terms = enumerate(zip(a, b, self.powers, strict=True), start=2)
        by_shell = sum(x * y * p / math.factorial(k) for k, (x, y, p) in terms)
        return np.broadcast_to(weight, len(by_shell))[:, None] * by_shell

    def kappa(self) -> dict[str, np.ndarray]:
        """The smooth convergence that makes the total power the nonlinear one.

        With h the painted haloes and s the smooth field, its transfer t(ell) solves
        hh + 2 t hs + t^2 ss = C_NL.

        Returns
        -------
        terms
            ``transfer`` (n_ell,); ``smooth`` (n_shell,), weight of the smooth field on the
            densities; ``linear`` (n_shell, n_ell), the bias of the whole of kappa; ``one_low``
            (n_ell,), one-halo power of matter that is not painted; ``missing`` (n_ell,), the power
            to add above the band limit of the smooth field; ``far`` (n_ell,), from behind the last
            shell; ``total`` (n_ell,).
        """
        m, painted = self.model, self.painted
        lens = m.lensing_kernel * m.volume / m.chi**2
        weight = m.number[:, painted] * self.bias[0][:, painted]
        smooth = (1 - (weight * m.mass[painted]).sum(1) / m.volume / m.rho_mean) * lens
        haloes = self.biased(m.u_kappa, which=painted)
        limber = m.lensing_kernel[:, None] ** 2 * m.p_nonlinear
        nonlinear = (limber * m.thickness[:, None] / m.chi[:, None] ** 2).sum(0)
        one_low = np.einsum("im,iml->l", m.number[:, ~painted], m.u_kappa[:, ~painted] ** 2)
        one = np.einsum("im,iml->l", m.number[:, painted], m.u_kappa[:, painted] ** 2) + one_low
        hh = one + (haloes**2 * self.p_shell).sum(0) + self.beyond_linear(m.u_kappa, m.u_kappa)
        hs = (haloes * smooth[:, None] * self.p_shell).sum(0)
        ss = (smooth[:, None] ** 2 * self.p_shell).sum(0)
        transfer = (-hs + np.sqrt(np.maximum(hs**2 - ss * (hh - nonlinear), 0))) / ss
        far = _far_kappa(m)
        return {
            "transfer": transfer,
            "smooth": smooth,
            "linear": haloes + transfer * smooth[:, None],
            "one_low": one_low,
            "missing": np.maximum(nonlinear - one, 0),
            "far": far,
            "total": nonlinear + far,
        }

    def ksz(self) -> dict[str, np.ndarray]:
        """Bias of the optical depth, including diffuse gas, and the resulting kSZ power (uK^2).

        Returns
        -------
        terms
            ``low`` (n_shell,), depth outside the painted haloes; ``linear`` and ``painted_bias``
            (n_shell, n_ell), bias of the total depth and of the painted one; ``shell_velocity``
            (n_shell,), `shell_velocity_variance`; ``two_halo`` (n_shell, n_ell), of linear bias,
            in units of T_CMB^2; ``one`` and ``two`` (n_ell,), uK^2.

        Notes
        -----
        Haloes follow the density of their shell and lie anywhere along its depth, both in regions
        and on the sphere. Each moves with its slice of 55 Mpc. The slices of two haloes are
        independent, so that on average two velocities share only the mean velocity of the shell.
        The power of pairs is therefore that of pairs at rest, with all orders of bias, times the
        variance of that velocity. Pairs that do not cluster, the Doppler term of linear theory, are
        left out: for clusters they contribute 0.1 % at l = 50 and 4 % at 20. The remaining momentum
        of pairs, due to flows within a shell, is painted as a Gaussian field with linear bias.
        """
        m, painted = self.model, self.painted
        par = m.parameters
        shell = par.ionised_fraction * m.tau_per_mpc / m.a**2 * m.thickness
        weight = m.number * self.bias[0]
        b_tau = np.einsum("im,iml->il", weight, m.u_tau)
        b_tau += (shell - (weight * m.u_tau[:, :, 0]).sum(1))[:, None]
        low = shell - (weight[:, painted] * m.u_tau[:, painted, 0]).sum(1)
        # ratio of transverse momentum to velocity dispersion times density, accurate to 5 % at z =
        # 1
        transverse = 1 / (1 + (par.velocity_k0 / m.k) ** par.velocity_slope)
        two = (m.sigma_v**2)[:, None] * b_tau**2 * m.p_linear / m.volume[:, None] * transverse
        one = np.einsum("i,iml,im->l", m.sigma_v**2, m.u_tau**2, m.number)
        shell_velocity = shell_velocity_variance(m)
        orders = self.orders(m.u_tau)
        beyond = self.of_orders(orders, orders, shell_velocity).sum(0)
        return {
            "low": low,
            "linear": b_tau,
            "shell_velocity": shell_velocity,
            "painted_bias": self.biased(m.u_tau, which=painted) + low[:, None],
            "two_halo": two,
            "one": one * T_CMB_UK**2,
            "two": (two.sum(0) + beyond) * T_CMB_UK**2,
        }


def shell_velocity_variance(m: HaloModel) -> np.ndarray:
    """Variance (units of c, squared) of the radial velocity averaged over the depth of a shell.

    Linear theory, v = i f a H k_par delta / k^2: the integral of P(k) (k_par / k^2)^2 over all
    modes with the window of a slab, sinc(k_par thickness / 2), squared. (n_shell,).
    """
    k_par = np.linspace(0, 0.2, 2001)[1:]  # a shell is thicker than 10 Mpc
    k_perp = np.geomspace(1e-5, 5, 400)
    k = np.hypot(k_perp[:, None], k_par)
    out = []
    for a, thickness, factor in zip(m.a, m.thickness, m.velocity_factor, strict=True):
        power = m.cosmo.linear_matter_power(k.ravel(), a).reshape(k.shape)
        window = np.sinc(k_par * thickness / (2 * np.pi)) ** 2
        modes = np.trapezoid(k_perp[:, None] ** 2 * power / k**4, np.log(k_perp), axis=0)
        # both signs of k_par; the integrand vanishes at zero
        integral = (modes * k_par**2 * window).sum() * (k_par[1] - k_par[0])
        out.append(factor**2 * integral / (2 * np.pi**2))
    return np.array(out)


def capped_bias(
    bias: np.ndarray, variance: np.ndarray, cap: np.ndarray, painted: np.ndarray
) -> np.ndarray:
    """Bias of the first `ORDERS` orders as painted, (ORDERS, n_shell, n_mass).

    The number of painted haloes is ~ exp(b min(d, cap)) for a Gaussian density d. Two such
    abundances correlate as sum_k b_k b'_k xi^k / k!, with b_k the k-th Hermite coefficient of the
    response over sigma^k; without the cap b_k = b^k. Below the mass cut haloes follow linearly.

    Parameters
    ----------
    bias : (n_shell, n_mass)
        Linear bias.
    variance, cap : (n_shell,)
        Variance of the densities, and the cap of the response.
    painted : (n_mass,)
        Masses that are painted.
    """
    x = np.linspace(-9, 9, 3601)
    gauss = np.exp(-0.5 * x**2)
    hermite = np.polynomial.hermite_e.hermevander(x, ORDERS).T[1:]
    power = np.arange(1, ORDERS + 1)
    orders = np.zeros((ORDERS, *bias.shape))
    orders[0] = bias
    for i, (sigma, top) in enumerate(zip(np.sqrt(variance), cap, strict=True)):
        exponent = bias[i, painted, None] * np.minimum(sigma * x, top)
        response = np.exp(exponent - exponent.max(1, keepdims=True)) * gauss
        response /= response.sum(1, keepdims=True)
        orders[:, i, painted] = (hermite / sigma ** power[:, None]) @ response.T
    return orders


def correlation_powers(ell: np.ndarray, p_shell: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Spectra of xi^2 to xi^ORDERS of each shell, (n_shell, n_ell), with correlation function xi.

    Also the variance of the density, (n_shell,).

    Flat-sky Hankel transforms: xi = int l dl / 2 pi P J_0, and back.
    """
    from scipy.special import j0

    theta = np.geomspace(2e-6, 0.3, 1500)  # rad
    fine = np.geomspace(2, 6e4, 3000)
    log_p = np.log(np.maximum(p_shell, 1e-60))
    p_fine = np.exp(np.array([np.interp(np.log(fine), np.log(ell), row) for row in log_p]))
    forward = j0(theta[:, None] * fine) * _trapezoid_weights(np.log(fine)) * fine**2 / (2 * np.pi)
    xi = p_fine @ forward.T  # (n_shell, n_theta)
    back = j0(ell[:, None] * theta) * _trapezoid_weights(np.log(theta)) * theta**2 * (2 * np.pi)
    variance = p_fine @ (_trapezoid_weights(np.log(fine)) * fine**2 / (2 * np.pi))
    return [xi**k @ back.T for k in range(2, ORDERS + 1)], variance


def _trapezoid_weights(x: np.ndarray) -> np.ndarray:
    """Weights w so that (w f).sum() is the trapezoid rule on the nodes x."""
    step = np.diff(x)
    return 0.5 * (np.append(step, 0) + np.insert(step, 0, 0))


def _far_kappa(m: HaloModel) -> np.ndarray:
    """Power of the convergence between the last shell and the CMB, linear, (n_ell,)."""
    chi = np.linspace(m.edges[-1], m.chi_source * 0.999, 120)
    a = m.cosmo.scale_factor_of_chi(chi)
    power = np.array(
        [
            [m.cosmo.linear_matter_power((ell + 0.5) / x, y) for x, y in zip(chi, a, strict=True)]
            for ell in m.ell
        ]
    )
    return np.trapezoid(m.kernel(chi, a) ** 2 / chi**2 * power, chi, axis=-1)
