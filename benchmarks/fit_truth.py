"""Fit of the infrared galaxies of the training truth to ACT DR6, the CIB monopole and counts.

Prints every target beside the model; with ``--fit`` the parameters are fitted again from those
of the package. A minute on one core; needs pyccl, camb and scipy.

What a target allows is `tolerance` (in ln of the ratio): inside it the pull is weak, outside it
grows steeply, so the fit gives up what cannot be met rather than spreading the misfit.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from scipy.optimize import least_squares
from scipy.special import j0, ndtr

from mlsky import bands
from mlsky.datasets.tables import LOG10_MASS_MIN
from mlsky.theory import halo_model
from mlsky.theory.cosmology import parse
from mlsky.theory.halo_model import SMOOTHING_MPC, T_CMB_UK, HaloModel, Parameters

ELL = np.array([100, 200, 320, 500, 700, 1000, 1500, 2000, 3000, 4000, 5000, 6500, 8000.0])
#: D_3000 in uK^2 (clustered, Poisson below 15 mJy at 150 GHz): best fit of ACT DR6
#: (Louis et al. 2025, arXiv:2503.14452)
DR6 = {93: (0.451, 0.905), 150: (3.81, 7.65), 220: (33.3, 67.0), 280: (190.0, 383.0)}
DR6_SHAPE = {1000: 1.98, 2000: 2.70, 5000: 5.73, 8000: 8.34}  # D_l of the clustered part, 150 GHz
#: kJy/sr, between Odegard et al. 2019 and Casandjian et al. 2024, which differ by 1.5
MONOPOLE = {217: 33.0, 353: 130.0, 545: 350.0, 857: 580.0}
#: sources per deg^2 brighter than so many mJy, model of Bethermin et al. 2012
COUNTS = {
    143: {1: 21.5, 2: 2.32, 5: 0.221, 10: 0.05},
    217: {1: 764.0, 2: 131.0, 5: 6.89, 10: 0.84},
}
PLANCK_CUT = ((0.225, 0.315, 0.350, 0.710), (217, 353, 545, 857))  # Jy, GHz
#: correlation of bands at l = 500 and 2000, halo model + shot of Planck 2013 XXX
BANDS = {
    (353, 545): (0.990, 0.973),
    (545, 857): (0.976, 0.957),
    (353, 857): (0.940, 0.885),
    (217, 545): (0.973, 0.934),
}
KAPPA_545 = {500: 0.748, 1000: 0.632, 2000: 0.412}  # correlation with CMB lensing, same model
TSZ_CIB = -0.6  # 2 x D_3000 of tSZ x CIB at 150 GHz: DR6 -0.47, Agora -1.6
BETA_SCATTER = 0.2  # of the emissivity index, galaxy by galaxy
ACT_CUT = (0.015, 150)

FREE = {  # name: logarithmic?
    "cib_l0": True,
    "cib_log10_meff": False,
    "cib_sigma": True,
    "cib_evolution": False,
    "cib_plateau": True,
    "cib_t0": True,
    "cib_alpha": False,
    "cib_beta": False,
    "cib_log10_quench": False,
    "cib_scatter": True,
}
PRIOR = {  # centre, width; in ln where logarithmic
    "cib_log10_meff": (12.5, 0.2),
    "cib_sigma": (np.log(0.7), 0.2),
    "cib_evolution": (3.0, 0.8),
    "cib_plateau": (np.log(2.6), 0.12),
    "cib_t0": (np.log(19.0), 0.12),
    "cib_alpha": (0.36, 0.07),
    "cib_beta": (1.75, 0.15),
    "cib_log10_quench": (13.5, 0.4),
    "cib_scatter": (np.log(0.8), 0.3),
}


def prepare() -> SimpleNamespace:
    """Halo model on the multipoles needed, with what does not depend on the galaxies."""
    m = halo_model.for_cosmology(parse("planck2018"), ell=ELL)
    m.p_shell = m.p_linear * np.exp(-((m.k * SMOOTHING_MPC) ** 2)) / m.volume[:, None]
    m.nb, m.nb2 = m.number * m.bias, m.number * m.bias**2
    # kappa as painted: haloes above the cut, and the rest of the matter times a transfer that
    # brings the power to the nonlinear one
    painted = m.log10_mass >= LOG10_MASS_MIN - 1e-9
    lens = m.lensing_kernel * m.volume / m.chi**2
    rest = lens * (1 - m.nb[:, painted] @ m.mass[painted] / m.volume / m.rho_mean)
    haloes = np.einsum("im,iml->il", m.nb[:, painted], m.u_kappa[:, painted])
    weight = m.lensing_kernel[:, None] ** 2 * m.p_nonlinear * m.thickness[:, None]
    nonlinear = (weight / m.chi[:, None] ** 2).sum(0)
    hh = m.one_halo(m.u_kappa, m.u_kappa).sum(0) + (haloes**2 * m.p_shell).sum(0)
    hs = (haloes * rest[:, None] * m.p_shell).sum(0)
    ss = (rest[:, None] ** 2 * m.p_shell).sum(0)
    transfer = (-hs + np.sqrt(np.maximum(hs**2 - ss * (hh - nonlinear), 0))) / ss
    m.kappa_bias = haloes + transfer * rest[:, None]
    chi = np.linspace(m.edges[-1], m.chi_source * 0.999, 120)
    far = np.array(
        [
            m.kernel(x, a) ** 2 / x**2 * m.cosmo.linear_matter_power((ELL + 0.5) / x, a)
            for x, a in zip(chi, m.cosmo.scale_factor_of_chi(chi), strict=True)
        ]
    )
    m.kappa_power = nonlinear + np.trapezoid(far, chi, axis=0)
    # power of xi^2 of each shell, for the second order of the lognormal bias
    ell = np.geomspace(2, 6e4, 1500)
    k = (ell + 0.5) / m.chi[:, None]
    p = np.array([m.cosmo.linear_matter_power(x, a) for x, a in zip(k, m.a, strict=True)])
    p = p * np.exp(-((k * SMOOTHING_MPC) ** 2)) / m.volume[:, None]
    theta = np.geomspace(2e-6, 0.3, 1000)
    bessel = j0(ell * theta[:, None])
    xi = np.array([np.trapezoid(ell**2 * row * bessel, np.log(ell), axis=1) for row in p])
    xi /= 2 * np.pi
    bessel = j0(ELL[:, None] * theta)
    m.p_second = (
        2
        * np.pi
        * np.array([np.trapezoid(theta**2 * row**2 * bessel, np.log(theta), axis=1) for row in xi])
    )
    return m


class Galaxies:
    """Observables of one set of parameters."""

    def __init__(self, m, parameters: Parameters) -> None:
        self.m, self.parameters = m, parameters
        self._sed = {}
        view = SimpleNamespace(**{n: getattr(m, n) for n in ("z", "chi", "log10_mass", "mass")})
        view.parameters, view.nu_ghz = parameters, 148.0
        self._view = view
        central, satellites, by_sub, _, number_sub = HaloModel.infrared(view)
        unit = by_sub[:, np.argmax(by_sub[0])]  # the flux of one kind of galaxy, per shell
        quench = 1 / (1 + m.mass / 10**parameters.cib_log10_quench)
        self.central = central[0] / unit[0]
        self.satellites = satellites[0] / unit[0] * quench
        self.sub = by_sub[0] / unit[0]
        self.number_sub = (m.number * quench) @ (number_sub * 0.02 * np.log(10))
        profile = self.central[:, None] + self.satellites[:, None] * m.u_nfw
        self.profile = profile
        self.bias1 = np.einsum("im,iml->il", m.nb, profile)
        self.bias2 = np.einsum("im,iml->il", m.nb2, profile)
        one = np.einsum("im,iml->il", m.number, profile**2)
        one -= (m.number @ self.central**2)[:, None]
        self.clustered_shell = one + self.bias1**2 * m.p_shell + 0.5 * self.bias2**2 * m.p_second

    def flux(self, nu) -> np.ndarray:
        """Jy of a galaxy of unit luminosity, per shell."""
        if nu not in self._sed:
            by_sub = HaloModel.infrared(self._view, nu)[2]
            self._sed[nu] = by_sub[:, 0] / self.sub[0]
        return self._sed[nu]

    def clustered(self, a, b) -> np.ndarray:
        return (self.flux(a) * self.flux(b)) @ self.clustered_shell

    def poisson(self, a, b, cut, nu_cut) -> float:
        scatter = self.parameters.cib_scatter
        cuts = zip(np.atleast_1d(cut), np.atleast_1d(nu_cut), strict=True)
        limit = np.min([c / self.flux(n) for c, n in cuts], axis=0)

        def second_moment(luminosity):
            x = np.log(limit[:, None] / np.maximum(luminosity, 1e-99))
            share = ndtr(x / scatter - 1.5 * scatter)
            return luminosity**2 * np.exp(scatter**2) * share

        shell = (self.m.number * second_moment(self.central)).sum(1)
        shell += (self.number_sub * second_moment(self.sub)).sum(1)
        colour = np.exp(BETA_SCATTER**2 * np.log(a / 148) * np.log(b / 148))
        return float((self.flux(a) * self.flux(b) * shell).sum() * colour)

    def total(self, a, b, cut) -> np.ndarray:
        return self.clustered(a, b) + self.poisson(a, b, *cut)

    def monopole(self, nu) -> float:
        shell = self.m.number @ (self.central + self.satellites)
        return float(self.flux(nu) @ shell)

    def counts(self, nu, mjy) -> np.ndarray:
        """Sources per deg^2 brighter than each of the fluxes."""
        scatter = self.parameters.cib_scatter
        out = np.zeros(len(mjy))
        pairs = ((self.central, self.m.number), (self.sub, self.number_sub))
        for luminosity, number in pairs:
            mean = np.log(np.maximum(self.flux(nu)[:, None] * luminosity, 1e-99))
            for i, s in enumerate(mjy):
                x = (mean - np.log(s * 1e-3)) / scatter - scatter / 2
                out[i] += (number * ndtr(x)).sum()
        return out * (np.pi / 180) ** 2

    def cross(self, nu, profile, bias1) -> np.ndarray:
        """With another component, given its profile and linear bias."""
        m = self.m
        one = np.einsum("im,iml,iml->il", m.number, self.profile, profile)
        second = np.einsum("im,iml->il", m.nb2, profile)
        shell = one + self.bias1 * bias1 * m.p_shell + 0.5 * self.bias2 * second * m.p_second
        return self.flux(nu) @ shell


def at(ell: float) -> int:
    return int(np.argmin(np.abs(ELL - ell)))


def targets(m, parameters: Parameters) -> list[tuple[str, float, float, float]]:
    """Name, model, target, tolerance of ln (model/target) that the fit allows."""
    g = Galaxies(m, parameters)
    d = ELL * (ELL + 1) / 2 / np.pi
    uk = {nu: 1 / float(bands.jy_per_sr_per_uk(float(nu))) for nu in DR6}
    out = []
    for nu, (clustered, poisson) in DR6.items():
        c = g.clustered(nu, nu)[at(3000)] * d[at(3000)] * uk[nu] ** 2
        p = g.poisson(nu, nu, *ACT_CUT) * d[at(3000)] * uk[nu] ** 2
        out.append((f"total {nu}", c + p, clustered + poisson, 0.065))
        out.append((f"clustered {nu}", c, clustered, 0.13))
        out.append((f"poisson {nu}", p, poisson, 0.13))
    c = g.clustered(150, 150) * d * uk[150] ** 2
    out += [(f"clustered 150 l={ell}", c[at(ell)], v, 0.18) for ell, v in DR6_SHAPE.items()]
    width = {217: 0.25, 353: 0.13, 545: 0.10, 857: 0.10}
    out += [(f"monopole {nu}", g.monopole(nu) * 1e-3, v, width[nu]) for nu, v in MONOPOLE.items()]
    for nu, table in COUNTS.items():
        found = g.counts(nu, list(table))
        out += [
            (f"N {nu} > {s} mJy", n, v, 0.15 * np.log(10))
            for (s, v), n in zip(table.items(), found, strict=True)
        ]
    for (a, b), values in BANDS.items():
        r = g.total(a, b, PLANCK_CUT)
        r = r / np.sqrt(g.total(a, a, PLANCK_CUT) * g.total(b, b, PLANCK_CUT))
        out += [
            (f"1 - r {a}x{b} l={ell}", 1 - r[at(ell)], 1 - v, 0.5)
            for ell, v in zip((500, 2000), values, strict=True)
        ]
    r = g.cross(545, m.u_kappa, m.kappa_bias)
    r = r / np.sqrt(m.kappa_power * g.total(545, 545, PLANCK_CUT))
    wide = {500: 0.12, 1000: 0.12, 2000: 0.25}
    out += [(f"r kappa x 545 l={ell}", r[at(ell)], v, wide[ell]) for ell, v in KAPPA_545.items()]
    x = 150 * 1e6 * halo_model.H_OVER_K_GHZ / T_CMB_UK
    tsz = (x / np.tanh(x / 2) - 4) * T_CMB_UK
    cross = g.cross(150, m.u_y, np.einsum("im,iml->il", m.nb, m.u_y))
    cross = 2 * (cross * d)[at(3000)] * tsz * uk[150]
    out.append(("2 tSZ x CIB 150", cross, TSZ_CIB, 0.35))
    return out


def pull(deviation: float) -> float:
    """Residual of a deviation in units of its tolerance."""
    return np.sign(deviation) * (0.25 * abs(deviation) + 3 * max(0.0, abs(deviation) - 0.85))


def to_parameters(x: np.ndarray, start: Parameters) -> Parameters:
    values = zip(FREE.items(), x, strict=True)
    return replace(start, **{n: float(np.exp(v) if log else v) for (n, log), v in values})


def fit(m, start: Parameters) -> Parameters:
    def residual(x):
        found = targets(m, to_parameters(x, start))
        pulls = [pull(np.log(model / goal) / width) for _, model, goal, width in found]
        priors = [
            0.35 * (x[i] - PRIOR[n][0]) / PRIOR[n][1] for i, n in enumerate(FREE) if n in PRIOR
        ]
        return np.nan_to_num(np.array(pulls + priors), nan=50.0)

    x0 = [np.log(getattr(start, n)) if log else getattr(start, n) for n, log in FREE.items()]
    done = least_squares(residual, x0, x_scale=0.1, diff_step=1e-4, max_nfev=100)
    print(f"chi^2 {2 * done.cost:.2f} after {done.nfev} steps")
    return to_parameters(done.x, start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fit", action="store_true", help="fit again, from the present values")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()
    start = replace(Parameters(), **{n: float(v) for n, v in (s.split("=") for s in args.set)})
    m = prepare()
    best = fit(m, start) if args.fit else start
    for n in FREE:
        print(f"{n:18s} {getattr(best, n):.5g}")
    print(f"log10 cib_l0       {np.log10(best.cib_l0):.4f}")
    for name, model, goal, width in targets(m, best):
        miss = "" if abs(np.log(model / goal)) <= 1.02 * width else "  outside"
        print(f"{name:24s} {model:10.4g} {goal:10.4g}  ratio {model / goal:.3f}{miss}")


if __name__ == "__main__":
    main()
