"""Fit of the CIB templates: weights and remainder by least squares on the halo model's spectra.

The unknowns are the functions of `mlsky.frequency.cib_templates`: the fraction of the mean
intensity from each template, whose sum is 1 so that the mean of every band is exact, and the
amplitudes L of the noise maps. They are splines in ln nu, and minimise the squares of the errors of

    r(nu, nu')           every pair of bands,
    C(nu, nu) / truth    every band,
    r(kappa, nu), r(tSZ, nu)

over 100 < l < 8000 of the maps made of templates and noise, each with the weight of its band.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky.components import REFERENCE_GHZ
from mlsky.frequency import bands
from mlsky.frequency.cib_templates import TEMPLATES_GHZ, CibTemplates
from mlsky.theory import halo_model, presets
from mlsky.theory.clustering import Clustering
from mlsky.theory.cosmology import parse
from mlsky.theory.infrared import InfraredGalaxies
from mlsky.theory.parameters import DEFAULT

if TYPE_CHECKING:
    from mlsky.theory.halo_model import HaloModel

__all__ = ["Spectra", "fit", "fit_model", "spectra"]

#: Multipoles of the fit: `N_ELL` of them, evenly in ln l.
ELL_RANGE, N_ELL = (100.0, 8000.0), 12

#: Nodes of the splines (GHz) in addition to the templates, and number of fitted frequencies.
NODES_GHZ = (20, 30, 45, 67, 100, 190, 230, 285, 440, 570, 720, 900)
N_FITTED = 24

#: Errors of equal weight, by frequency: for r between two bands the product, for r with kappa and
#: tSZ the root. Our choice, in proportion to the accuracy required in docs/decisions/0007.
TOLERANCE_GHZ = (20.0, 60.0, 90.0, 360.0, 500.0, 900.0)
TOLERANCE = (6.0, 4.0, 1.0, 1.0, 2.0, 2.0)
#: Weight of a relative error of the power, and of r with kappa and tSZ, against r of two bands.
POWER_WEIGHT, CROSS_WEIGHT = 0.2, 0.6

#: Number of noise maps of the remainder; a third one reduces no error.
N_NOISE = 2
#: Unit of the amplitudes of the noise in the fit, sr^(1/2).
NOISE_UNIT = 1e-5


@dataclass(frozen=True, eq=False)
class Spectra:
    """Spectra of the CIB at several frequencies, relative to the mean intensities.

    Parameters
    ----------
    mean : (n,)
        Jy/sr.
    clustered : (n, n, n_ell)
        One- and two-halo terms, sr.
    shot : (n, n)
        Shot noise of galaxies, sr.
    kappa, tsz : (n, n_ell)
        With the convergence (sr) and Compton y (sr), over the root of its power (sr^(1/2)).
    """

    mean: NDArray[np.float64]
    clustered: NDArray[np.float64]
    shot: NDArray[np.float64]
    kappa: NDArray[np.float64]
    tsz: NDArray[np.float64]

    @property
    def total(self) -> NDArray[np.float64]:
        """(n, n, n_ell), sr."""
        return self.clustered + self.shot[..., None]


def fit(
    preset: str = presets.DEFAULT,
    flux_cut_mjy: float | None = 7.0,
    cosmology: object = DEFAULT,
    templates_ghz: ArrayLike = TEMPLATES_GHZ,
) -> CibTemplates:
    """Fit templates for a preset of the truth; half a minute.

    Parameters
    ----------
    preset
        One of `mlsky.theory.presets.names`.
    flux_cut_mjy
        Sources above this flux at 148 GHz are left out.
    cosmology
        Anything that `mlsky.theory.cosmology.parse` takes.
    templates_ghz
        Frequencies of the template maps, 148 among them.

    Raises
    ------
    ValueError
        If the preset, the cosmology or the templates are not valid.
    """
    model = halo_model.for_cosmology(parse(cosmology), presets.parameters(preset))
    return fit_model(model, flux_cut_mjy, templates_ghz)


def fit_model(
    model: HaloModel,
    flux_cut_mjy: float | None = 7.0,
    templates_ghz: ArrayLike = TEMPLATES_GHZ,
) -> CibTemplates:
    """As `fit`, of a halo model at 148 GHz."""
    templates = np.unique(np.asarray(templates_ghz, np.float64))
    low, high = bands.FREQ_RANGE_GHZ
    if REFERENCE_GHZ not in templates or templates[0] < low or templates[-1] > high:
        raise ValueError(
            f"templates_ghz={templates_ghz!r}: must be from {low:g} to {high:g} GHz, "
            f"{REFERENCE_GHZ:g} among them"
        )
    nodes = np.array(NODES_GHZ, np.float64)
    # nearly coincident nodes would make the splines oscillate
    apart = np.abs(np.log(nodes[:, None] / templates)).min(1) > 0.04
    nodes = np.union1d(nodes[apart], templates)
    fitted = np.union1d(nodes, np.geomspace(low, high, N_FITTED))
    cut = None if flux_cut_mjy is None else (flux_cut_mjy * 1e-3, REFERENCE_GHZ)
    truth = spectra(model, fitted, cut)
    mean = truth.mean[np.searchsorted(fitted, nodes)]
    reference = mean[np.searchsorted(nodes, REFERENCE_GHZ)]
    share, remainder = _least_squares(truth, fitted, nodes, templates)
    tail = spectra(model, np.append(nodes, bands.BAND_MAX_GHZ), cut)
    return CibTemplates(
        templates_ghz=templates,
        flux_cut_mjy=flux_cut_mjy,
        mean_uk=float(reference / bands.jy_per_sr_per_uk(REFERENCE_GHZ)),
        grid_ghz=nodes,
        log_colour=np.log(mean / reference),
        share=share,
        remainder=remainder,
        tail_ghz=bands.BAND_MAX_GHZ,
        tail=np.append(
            np.log(tail.mean[-1] / reference),
            _tail(tail, np.searchsorted(nodes, templates), share, remainder),
        ),
    )


def spectra(
    model: HaloModel, nu_ghz: NDArray[np.float64], cut: tuple[float, float] | None
) -> Spectra:
    """Spectra of the CIB at frequencies, below a cut (Jy, GHz), at the multipoles of the fit."""
    clustering, galaxies = Clustering(model), InfraredGalaxies.of(model)
    inside = np.flatnonzero((model.ell >= ELL_RANGE[0]) & (model.ell <= ELL_RANGE[1]))
    chosen = inside[np.linspace(0, len(inside) - 1, N_ELL).round().astype(int)]
    n = len(nu_ghz)
    mean = np.array([galaxies.monopole(nu, cut) for nu in nu_ghz])
    central = [galaxies.faint(nu, cut)[0] / m for nu, m in zip(nu_ghz, mean, strict=True)]
    profile = [
        galaxies.clustered(model.u_nfw, nu, cut) / m for nu, m in zip(nu_ghz, mean, strict=True)
    ]
    linear = [clustering.biased(p) for p in profile]
    orders = [clustering.orders(p) for p in profile]

    def pair(p_1, l_1, o_1, p_2, l_2, o_2):
        two = (l_1 * l_2 * clustering.p_shell).sum(0) + clustering.of_orders(o_1, o_2).sum(0)
        return (model.one_halo(p_1, p_2).sum(0) + two)[chosen]

    each = list(zip(profile, linear, orders, strict=True))
    clustered, shot = np.empty((n, n, N_ELL)), np.empty((n, n))
    for i, j in itertools.combinations_with_replacement(range(n), 2):
        # the square of a central galaxy is shot noise, not a pair
        own = (model.number * central[i] * central[j]).sum()
        clustered[i, j] = clustered[j, i] = pair(*each[i], *each[j]) - own
        value = galaxies.shot(nu_ghz[i], nu_ghz[j], cut) / (mean[i] * mean[j])
        shot[i, j] = shot[j, i] = value
    kappa = clustering.kappa()
    k = (model.u_kappa, kappa["linear"], clustering.orders(model.u_kappa))
    y = (model.u_y, clustering.biased(model.u_y), clustering.orders(model.u_y))
    k_root, y_root = np.sqrt(kappa["total"][chosen]), np.sqrt(pair(*y, *y))
    return Spectra(
        mean,
        clustered,
        shot,
        np.array([pair(*k, *one) / k_root for one in each]),
        np.array([pair(*y, *one) / y_root for one in each]),
    )


def _least_squares(
    truth: Spectra, fitted: NDArray, nodes: NDArray, templates: NDArray
) -> tuple[NDArray, NDArray]:
    """Fractions (n_nodes, n_templates) and amplitudes of the noise (n_nodes, `N_NOISE`)."""
    from scipy.interpolate import CubicSpline
    from scipy.optimize import least_squares

    at, on = np.searchsorted(fitted, templates), np.searchsorted(fitted, nodes)
    free = ~np.isin(nodes, templates)
    n_free, n_templates = int(free.sum()), len(templates)
    spline = CubicSpline(np.log(nodes), np.eye(len(nodes)))(np.log(fitted))
    full = truth.total
    power = np.einsum("iil->il", full)
    root = np.sqrt(power)
    r_true = full / (root[:, None] * root)
    tolerance = np.interp(np.log(fitted), np.log(TOLERANCE_GHZ), TOLERANCE)
    per_pair = (tolerance[:, None] * tolerance)[..., None]
    upper, diagonal = np.triu_indices(len(fitted), 1), np.arange(len(fitted))

    def unpack(x):
        share = np.zeros((len(nodes), n_templates))
        share[~free] = np.eye(n_templates)
        share[free, 1:] = x[: n_free * (n_templates - 1)].reshape(n_free, -1)
        share[free, 0] = 1 - share[free, 1:].sum(1)
        noise = np.zeros((len(nodes), N_NOISE))
        noise[free] = x[n_free * (n_templates - 1) :].reshape(n_free, -1) * NOISE_UNIT
        return share, noise

    def errors(x):
        share, noise = (spline @ part for part in unpack(x))
        made = np.einsum("ik,jm,kml->ijl", share, share, full[np.ix_(at, at)])
        made += (noise @ noise.T)[..., None]
        made_root = np.sqrt(np.einsum("iil->il", made))
        r = (made / (made_root[:, None] * made_root) - r_true) / per_pair
        of_power = POWER_WEIGHT * (made_root**2 / power - 1) / per_pair[diagonal, diagonal]
        crossed = [
            CROSS_WEIGHT * (share @ c[at] / made_root - c / root) / np.sqrt(tolerance)[:, None]
            for c in (truth.kappa, truth.tsz)
        ]
        return 1e3 * np.concatenate([e.ravel() for e in (r[upper], of_power, *crossed)])

    # start from the weights with the smallest remaining power of each band, and from its shot noise
    start = _least_residual(truth.clustered + 0.5 * truth.shot[..., None], at)[on]
    left = truth.shot - truth.shot[:, at] @ np.linalg.solve(
        truth.shot[np.ix_(at, at)], truth.shot[at]
    )
    scale = np.sqrt(np.diag(truth.shot))
    value, vector = np.linalg.eigh(left / np.outer(scale, scale))
    noise = vector[:, ::-1][:, :N_NOISE] * np.sqrt(np.maximum(value[::-1][:N_NOISE], 0))
    noise = (noise * scale[:, None])[on][free] / NOISE_UNIT
    x = np.concatenate([start[free, 1:].ravel(), noise.ravel()])
    share, noise = unpack(least_squares(errors, x, x_scale="jac", max_nfev=60).x)
    return share, noise * np.where(noise[0] < 0, -1, 1)  # the sign of a noise map is arbitrary


def _tail(truth: Spectra, at: NDArray, share: NDArray, remainder: NDArray) -> NDArray[np.float64]:
    """Fractions and amplitudes of the noise at the last of the frequencies, after the nodes.

    The fractions leave the smallest power. The noise has the remaining shot noise as its power, and
    of the correlations with the nodes what two noise maps can have.
    """
    own = _least_residual(truth.clustered + 0.5 * truth.shot[..., None], at)[-1]
    shot = truth.shot
    left = shot[-1] - own @ shot[at]  # with every node, and with itself
    left[:-1] -= shot[at, -1] @ share.T - own @ shot[np.ix_(at, at)] @ share.T
    left[-1] -= own @ (shot[at, -1] - shot[np.ix_(at, at)] @ own)
    noise, *_ = np.linalg.lstsq(remainder, left[:-1], rcond=None)
    return np.append(own, noise * np.sqrt(max(left[-1], 0.0) / max(noise @ noise, 1e-300)))


def _least_residual(power: NDArray, at: NDArray) -> NDArray[np.float64]:
    """Weights of sum 1 that leave the smallest fraction of the power, (n, n_templates)."""
    n = len(at)
    system = np.zeros((n + 1, n + 1))
    system[:n, n] = system[n, :n] = 1
    out = np.empty((len(power), n))
    for i, row in enumerate(power):
        per_ell = 1 / row[i]
        system[:n, :n] = (power[np.ix_(at, at)] * per_ell).sum(-1)
        out[i] = np.linalg.solve(system, [*(row[at] * per_ell).sum(-1), 1])[:n]
    return out
