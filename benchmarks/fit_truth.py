"""Fit of the presets of the training truth: infrared galaxies, pressure, kSZ and radio counts.

Prints every target beside the model; with ``--fit`` the parameters are fitted again from those
of the package. One to five minutes on one core; needs pyccl, camb and scipy.

What a target allows is `tolerance` (in ln of the ratio): inside it the pull is weak, outside it
grows steeply, so the fit gives up what cannot be met rather than spreading the misfit.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from scipy.optimize import least_squares
from scipy.special import ndtr

from mlsky.frequency import bands, tsz
from mlsky.theory import halo_model, presets, radio_sources
from mlsky.theory.clustering import Clustering
from mlsky.theory.cosmology import parse
from mlsky.theory.halo_model import HaloModel, Parameters

#: The multipoles of the tables, and those of the targets.
ELL = np.unique(
    np.concatenate([np.geomspace(20, 31000, 116), [500, 1000, 2000, 3000, 5000, 8000.0]])
)
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
PRESSURE_PRIOR = 0.3  # on slopes of the pressure, about those the fit begins with
TSZ_CIB = -0.6  # 2 x D_3000 of tSZ x CIB at 150 GHz: DR6 -0.47, Agora -1.6
ACT_CUT = (0.015, 150)
#: C_l in Jy^2/sr (clustered at l = 500, 1000, 2000, 3000; Poisson) of Planck 2013 XXX's halo
#: model, over the square of the colour corrections 1.119, 1.097, 1.068, 0.995
PLANCK = {
    217: (111.0, 38.3, 13.3, 8.31, 12.8),
    353: (1897, 652, 231, 146, 187),
    545: (15340, 5270, 1921, 1248, 1275),
    857: (66800, 23160, 9070, 6210, 5685),
}
#: Mean intensity and error, kJy/sr (Odegard et al. 2019)
ODEGARD = {217: (60, 23), 353: (149, 17), 545: (371, 18), 857: (576, 34)}
#: Agora (Omori 2024) through the passbands of DR6 at 150 and 220 GHz, sources above 15 mJy out
AGORA_CIB = {(150, 1000): 3.61, (150, 2000): 8.00, (150, 3000): 14.29, (150, 5000): 31.7}
AGORA_CIB |= {(220, 3000): 123.7}

#: D_l in uK^2 at 150 GHz of tSZ by multipole, of kSZ and of radio below 15 mJy at 3000.
#: ACT DR6 (Louis et al. 2025), SPT-3G (arXiv:2601.20551), Agora
TSZ = {
    "act-dr6": {1000: 3.21, 2000: 3.73, 3000: 3.50, 5000: 2.67, 8000: 1.72},
    "spt-3g-d1": {3000: 4.12},
    "agora": {1000: 4.31, 2000: 5.21, 3000: 4.84, 5000: 3.63},
}
KSZ = {"act-dr6": 0.987, "spt-3g-d1": 1.75, "agora": 1.02}
RADIO = {"act-dr6": 2.89, "agora": 2.92}

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


def prepare(parameters: Parameters) -> SimpleNamespace:
    """Halo model with what does not depend on the galaxies."""
    m = halo_model.for_cosmology(parse("planck2018"), parameters, ell=ELL)
    m.clustering = c = Clustering(m)
    #: sums over haloes, by order of the bias, and what they are multiplied by
    m.weights = [m.number * bias * (c.painted | (i == 0)) for i, bias in enumerate(c.bias)]
    m.spectra = [c.p_shell, *(p / math.factorial(k) for k, p in enumerate(c.powers, start=2))]
    m.kappa_terms = c.kappa()
    return m


def haloes(m, profile) -> list[np.ndarray]:
    """Bias of a profile on the shells, by order."""
    return [np.einsum("im,iml->il", weight, profile) for weight in m.weights]


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
        self.biases = haloes(m, profile)
        one = np.einsum("im,iml->il", m.number, profile**2)
        one -= (m.number @ self.central**2)[:, None]
        two = sum(b**2 * p for b, p in zip(self.biases, m.spectra, strict=True))
        self.clustered_shell = one + two

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
        colour = np.exp(self.parameters.cib_beta_scatter**2 * np.log(a / 148) * np.log(b / 148))
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

    def cross(self, nu, profile, biases) -> np.ndarray:
        """With another component, given its profile and its bias by order."""
        m = self.m
        one = np.einsum("im,iml,iml->il", m.number, self.profile, profile)
        pairs = zip(self.biases, biases, m.spectra, strict=True)
        return self.flux(nu) @ (one + sum(a * b * p for a, b, p in pairs))


def at(ell: float) -> int:
    return int(np.argmin(np.abs(ELL - ell)))


Target = tuple[str, float, float, float]
D = ELL * (ELL + 1) / 2 / np.pi


def uk_per_jy_sr(nu: float) -> float:
    return 1 / float(bands.jy_per_sr_per_uk(float(nu)))


def targets(m, parameters: Parameters, preset: str = "act-dr6") -> list[Target]:
    """Name, model, target, tolerance of ln (model/target) that the fit allows."""
    g = Galaxies(m, parameters)
    if preset == "planck":
        return [*planck(g), *bands_and_kappa(g)]
    if preset == "agora":
        out = []
        for (nu, ell), goal in AGORA_CIB.items():
            power = g.total(nu, nu, ACT_CUT)[at(ell)] * D[at(ell)] * uk_per_jy_sr(nu) ** 2
            out.append((f"total {nu} l={ell}", power, goal, 0.05))
        return [*out, tsz_x_cib(g)]
    width = {217: 0.25, 353: 0.13, 545: 0.10, 857: 0.10}
    mean = [(f"monopole {nu}", g.monopole(nu) * 1e-3, v, width[nu]) for nu, v in MONOPOLE.items()]
    return [*dr6(g), *mean, *counts(g), *bands_and_kappa(g), tsz_x_cib(g)]


def dr6(g: Galaxies) -> list[Target]:
    out = []
    for nu, (clustered, poisson) in DR6.items():
        c = g.clustered(nu, nu)[at(3000)] * D[at(3000)] * uk_per_jy_sr(nu) ** 2
        p = g.poisson(nu, nu, *ACT_CUT) * D[at(3000)] * uk_per_jy_sr(nu) ** 2
        out.append((f"total {nu}", c + p, clustered + poisson, 0.065))
        out.append((f"clustered {nu}", c, clustered, 0.13))
        out.append((f"poisson {nu}", p, poisson, 0.13))
    c = g.clustered(150, 150) * D * uk_per_jy_sr(150) ** 2
    return out + [(f"clustered 150 l={ell}", c[at(ell)], v, 0.18) for ell, v in DR6_SHAPE.items()]


def planck(g: Galaxies) -> list[Target]:
    out = []
    for nu, (*clustered, poisson) in PLANCK.items():
        power = g.clustered(nu, nu)
        for ell, goal in zip((500, 1000, 2000, 3000), clustered, strict=True):
            out.append((f"clustered {nu} l={ell}", power[at(ell)], goal, 0.10))
        out.append((f"poisson {nu}", g.poisson(nu, nu, *PLANCK_CUT), poisson, 0.15))
    for nu, (mean, error) in ODEGARD.items():
        out.append((f"monopole {nu}", g.monopole(nu) * 1e-3, mean, error / mean))
    return out


def counts(g: Galaxies) -> list[Target]:
    out = []
    for nu, table in COUNTS.items():
        found = g.counts(nu, list(table))
        out += [
            (f"N {nu} > {s} mJy", n, v, 0.15 * np.log(10))
            for (s, v), n in zip(table.items(), found, strict=True)
        ]
    return out


def bands_and_kappa(g: Galaxies) -> list[Target]:
    out, m = [], g.m
    for (a, b), values in BANDS.items():
        r = g.total(a, b, PLANCK_CUT)
        r = r / np.sqrt(g.total(a, a, PLANCK_CUT) * g.total(b, b, PLANCK_CUT))
        out += [
            (f"1 - r {a}x{b} l={ell}", 1 - r[at(ell)], 1 - v, 0.5)
            for ell, v in zip((500, 2000), values, strict=True)
        ]
    linear = [m.kappa_terms["linear"], *haloes(m, m.u_kappa)[1:]]
    r = g.cross(545, m.u_kappa, linear)
    r = r / np.sqrt(m.kappa_terms["total"] * g.total(545, 545, PLANCK_CUT))
    wide = {500: 0.12, 1000: 0.12, 2000: 0.25}
    return out + [
        (f"r kappa x 545 l={ell}", r[at(ell)], v, wide[ell]) for ell, v in KAPPA_545.items()
    ]


def tsz_x_cib(g: Galaxies) -> Target:
    cross = g.cross(150, g.m.u_y, haloes(g.m, g.m.u_y))
    cross = 2 * (cross * D)[at(3000)] * tsz.uk_per_y(150) * uk_per_jy_sr(150)
    return "2 tSZ x CIB 150", cross, TSZ_CIB, 0.35


def tsz_power(m, pressure) -> np.ndarray:
    """D_l of tSZ at 150 GHz for other amplitudes of the pressure."""
    (a, b, c), (a0, b0, c0) = pressure, m.parameters.pressure
    ratio = a / a0 * np.minimum(m.m200c / 3e14, 1) ** (b - b0) * (1 + m.z[:, None]) ** (c - c0)
    u_y = m.u_y * ratio[:, :, None]
    two = sum(x**2 * p for x, p in zip(haloes(m, u_y), m.spectra, strict=True)).sum(0)
    return (m.one_halo(u_y, u_y).sum(0) + two) * D * tsz.uk_per_y(150) ** 2


def gas(m, preset: str) -> list[Target]:
    """tSZ, kSZ and radio: what has parameters of its own."""
    found = tsz_power(m, m.parameters.pressure)
    goals = TSZ.get(preset, TSZ["act-dr6"])
    out = [(f"tSZ l={ell}", found[at(ell)], v, 0.02) for ell, v in goals.items()]
    terms = m.clustering.ksz()
    ksz = ((terms["one"] + terms["two"]) * D)[at(3000)]
    radio = radio_sources.moment((150, 150), ACT_CUT) * m.parameters.radio_counts
    radio *= D[at(3000)] * uk_per_jy_sr(150) ** 2
    out.append(("kSZ", ksz, KSZ.get(preset, KSZ["act-dr6"]), 0.02))
    return [*out, ("radio", radio, RADIO.get(preset, RADIO["act-dr6"]), 0.02)]


def fit_gas(m, preset: str) -> Parameters:
    """Pressure (its amplitude alone where one power is known), kSZ and radio counts."""
    goals, start = TSZ.get(preset, TSZ["act-dr6"]), np.array(m.parameters.pressure)
    if len(goals) == 1:
        ((ell, goal),) = goals.items()
        start[0] *= np.sqrt(goal / tsz_power(m, start)[at(ell)])
    else:

        def residual(x):
            found = tsz_power(m, x)
            shift = (x - m.parameters.pressure)[1:] / PRESSURE_PRIOR
            return [*(np.log(found[at(ell)] / v) / 0.01 for ell, v in goals.items()), *shift]

        start = least_squares(residual, start).x
    rows = {name: (found, goal) for name, found, goal, _ in gas(m, preset)}
    ksz, radio = rows["kSZ"], rows["radio"]
    return replace(
        m.parameters,
        pressure=tuple(float(f"{x:.3f}") for x in start),
        ksz_amplitude=m.parameters.ksz_amplitude * float(np.sqrt(ksz[1] / ksz[0])),
        radio_counts=m.parameters.radio_counts * radio[1] / radio[0],
    )


def pull(deviation: float) -> float:
    """Residual of a deviation in units of its tolerance."""
    return np.sign(deviation) * (0.25 * abs(deviation) + 3 * max(0.0, abs(deviation) - 0.85))


def to_parameters(x: np.ndarray, start: Parameters) -> Parameters:
    values = zip(FREE.items(), x, strict=True)
    return replace(start, **{n: float(np.exp(v) if log else v) for (n, log), v in values})


def fit(m, start: Parameters, preset: str) -> Parameters:
    free = {"cib_l0": True} if preset == "agora" else FREE

    def to_parameters(x: np.ndarray) -> Parameters:
        values = zip(free.items(), x, strict=True)
        return replace(start, **{n: float(np.exp(v) if log else v) for (n, log), v in values})

    def residual(x):
        found = targets(m, to_parameters(x), preset)
        pulls = [pull(np.log(model / goal) / width) for _, model, goal, width in found]
        priors = [
            0.35 * (x[i] - PRIOR[n][0]) / PRIOR[n][1] for i, n in enumerate(free) if n in PRIOR
        ]
        return np.nan_to_num(np.array(pulls + priors), nan=50.0)

    x0 = [np.log(getattr(start, n)) if log else getattr(start, n) for n, log in free.items()]
    done = least_squares(residual, x0, x_scale=0.1, diff_step=1e-4, max_nfev=100)
    print(f"chi^2 {2 * done.cost:.2f} after {done.nfev} steps")
    return to_parameters(done.x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default=presets.DEFAULT, choices=presets.names())
    parser.add_argument("--fit", action="store_true", help="fit galaxies, from the present values")
    parser.add_argument("--fit-gas", action="store_true", help="fit pressure, kSZ, radio counts")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()
    changes = {n: float(v) for n, v in (s.split("=") for s in args.set)}
    m = prepare(replace(presets.parameters(args.preset), **changes))
    best = m.parameters
    if args.fit_gas:
        best = fit_gas(m, args.preset)
        m = m.with_parameters(best)
        m.clustering.model = m
    if args.fit:
        best = fit(m, best, args.preset)
    for name, value in best.to_dict().items():
        print(f"{name:18s} {value if isinstance(value, list) else f'{value:.5g}'}")
    print(f"log10 cib_l0       {np.log10(best.cib_l0):.4f}")
    for name, model, goal, width in [*gas(m, args.preset), *targets(m, best, args.preset)]:
        miss = "" if abs(np.log(model / goal)) <= 1.02 * width else "  outside"
        print(f"{name:24s} {model:10.4g} {goal:10.4g}  ratio {model / goal:.3f}{miss}")


if __name__ == "__main__":
    main()
