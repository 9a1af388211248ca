"""Densities of the light cone's shells and velocities of its slices on the whole sphere.

Both are Gaussian at linear order, jointly with the convergence of the sky. Each multipole has its
own random stream, so that a higher band limit extends a realisation without changing it.

Notes
-----
Let x be the densities of the shells and the velocities of the slices at one multipole, with
covariance S, and k the linear convergence, k = sum_i w_i d_i + far, with variance C and
covariance c = S w with x. Given k, x is Gaussian with mean c k / C and covariance
S - c c^T / C (Hoffman & Ribak 1991, doi:10.1086/186160). The sky's Gaussian kappa is the linear
one scaled to the nonlinear power, so k = kappa sqrt(C / C_kappa).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlsky import seeds
from mlsky.haloes import covariance_factor
from mlsky.sphere import gaussian
from mlsky.sphere.threads import threads

__all__ = ["LMAX", "Shells", "draw", "spectra"]

#: Band limit of the densities. On smaller scales haloes are not clustered; pairs of them are 6 % of
#: the tSZ power of clusters at l = 1000 and 1.6 % at 2000 (analytic model).
LMAX = 1024
#: Densities are smoothed by a Gaussian of 0.7 Mpc: above this wave number (1/Mpc) less than a
#: hundredth of their power remains, so that the band limit of the nearest shells is lower.
DENSITY_K_MAX = 3.1
#: Band limit of the velocities, and the wave number (1/Mpc) up to which they are drawn on the
#: sphere. The power of velocities falls as P(k) / k^2; the rest is drawn halo by halo.
VELOCITY_LMAX, VELOCITY_K_MAX = 768, 0.15
#: Multipoles at which the covariance is computed; it is interpolated between them.
NODES = 40
#: Added to the diagonal of correlation matrices before they are factorised.
JITTER = 1e-7


@dataclass(frozen=True, eq=False)
class Spectra:
    """Covariances of densities and velocities by multipole.

    Attributes
    ----------
    nodes : (n_nodes,)
        Multipoles.
    log_rms : (n_nodes, n)
        Logarithm of the standard deviations; densities first, then velocities (units of c).
    correlation : (n_nodes, n, n)
        Positive definite.
    weight : (n_shell,)
        Weight of each density in the linear convergence.
    far : (n_nodes,)
        Power of the convergence from behind the last shell.
    density_lmax : (n_shell,)
        Band limit of each density.
    velocity_lmax : (n_slice,)
        Band limit of each velocity.
    """

    nodes: NDArray[np.float64]
    log_rms: NDArray[np.float64]
    correlation: NDArray[np.float64]
    weight: NDArray[np.float64]
    far: NDArray[np.float64]
    density_lmax: NDArray[np.int64]
    velocity_lmax: NDArray[np.int64]

    def covariance(self, ell: int) -> NDArray[np.float64]:
        """(n, n) at one multipole, per steradian."""
        i, fraction = self._between(ell)
        rms = np.exp((1 - fraction) * self.log_rms[i] + fraction * self.log_rms[i + 1])
        mixed = (1 - fraction) * self.correlation[i] + fraction * self.correlation[i + 1]
        return mixed * rms[:, np.newaxis] * rms

    def variance(self, row: int, ell: NDArray[np.int64]) -> NDArray[np.float64]:
        """Power of one field at multipoles `ell`, per steradian."""
        return np.exp(2 * np.interp(np.log(ell + 0.5), np.log(self.nodes), self.log_rms[:, row]))

    def kappa(self, ell: int, covariance: NDArray[np.float64]) -> tuple[NDArray, float]:
        """Covariance (n,) of the linear convergence with every field, and its power."""
        ns = len(self.weight)
        i, fraction = self._between(ell)
        far = np.exp((1 - fraction) * np.log(self.far[i]) + fraction * np.log(self.far[i + 1]))
        cross = covariance[:, :ns] @ self.weight
        return cross, float(self.weight @ cross[:ns] + far)

    def _between(self, ell: int) -> tuple[int, float]:
        place = np.interp(np.log(ell + 0.5), np.log(self.nodes), np.arange(len(self.nodes)))
        i = min(int(place), len(self.nodes) - 2)
        return i, place - i


def spectra(tables: dict, lmax: int = LMAX) -> Spectra:
    """Covariances of the shells and slices of halo tables, for multipoles from 1 to `lmax`.

    Parameters
    ----------
    tables
        From `mlsky.haloes.tables`.
    lmax
        Highest band limit of any density and velocity, at most `LMAX`.
    """
    t = {key: np.asarray(tables[key], np.float64) for key in ("slice_edges", "edges")}
    nodes, root = covariance_factor.covariance_factor(tables, (1.5, LMAX + 0.5, NODES))
    root = root.astype(np.float64)
    rms = np.sqrt((root**2).sum(2))
    # nearby shells have a lower band limit; a small number avoids log 0
    rms = np.maximum(rms, 1e-10 * rms.max(1, keepdims=True))
    # the mean of positive matrices is positive, so that they can be interpolated
    unit = root / rms[:, :, np.newaxis]
    correlation = unit @ unit.swapaxes(1, 2)
    diagonal = np.arange(correlation.shape[1])
    correlation[:, diagonal, diagonal] = 1
    ln = np.log(tables["ell"].astype(np.float64))
    far = np.exp(np.interp(np.log(nodes), ln, np.log(np.maximum(tables["far_kappa"], 1e-60))))
    outer = t["edges"][1:]
    middle = 0.5 * (t["slice_edges"][1:] + t["slice_edges"][:-1])
    return Spectra(
        nodes=nodes,
        log_rms=np.log(rms),
        correlation=correlation,
        weight=np.asarray(tables["linear_kappa"], np.float64),
        far=far,
        density_lmax=np.minimum(lmax, np.ceil(DENSITY_K_MAX * outer)).astype(np.int64),
        velocity_lmax=np.minimum(min(VELOCITY_LMAX, lmax), np.ceil(VELOCITY_K_MAX * middle)).astype(
            np.int64
        ),
    )


@dataclass(frozen=True, eq=False)
class Shells:
    """One realisation.

    Attributes
    ----------
    density
        Alm of each requested shell, healpy order, complex64, by number of the shell.
    velocity
        Alm of the radial velocity (units of c, positive receding) of each requested slice.
    """

    density: dict[int, NDArray[np.complex64]]
    velocity: dict[int, NDArray[np.complex64]]


def draw(
    spectra: Spectra,
    seed: int,
    kappa_alm: NDArray[np.complex128] | None = None,
    kappa_cl: NDArray[np.float64] | None = None,
    *,
    shells: NDArray[np.int64] | None = None,
    slices: NDArray[np.int64] | None = None,
) -> Shells:
    """Draw densities and velocities, given the sky's Gaussian convergence.

    Parameters
    ----------
    spectra
        From `spectra`.
    seed
        Of the sky; the stream is "shells".
    kappa_alm
        Gaussian convergence of the sky, healpy order; None for a free draw.
    kappa_cl
        Power that `kappa_alm` was drawn with, from l = 0.
    shells, slices
        Numbers of the shells and slices to return; all by default. They do not change the
        realisation.

    Raises
    ------
    ValueError
        If the convergence does not reach the band limit of the densities.
    """
    from threadpoolctl import threadpool_limits

    ns, nv = len(spectra.density_lmax), len(spectra.velocity_lmax)
    shells = np.arange(ns) if shells is None else np.asarray(shells)
    slices = np.arange(nv) if slices is None else np.asarray(slices)
    lmax = int(spectra.density_lmax.max())
    if kappa_alm is not None:
        have = min(gaussian.alm_lmax(kappa_alm), len(kappa_cl) - 1)
        if have < lmax:
            raise ValueError(
                f"kappa up to l = {have}: the haloes of a sky need its multipoles up to {lmax}; "
                "give a finer kappa"
            )
        kappa_lmax = gaussian.alm_lmax(kappa_alm)
    density = {int(i): _empty(spectra.density_lmax[i]) for i in shells}
    velocity = {int(i): _empty(spectra.velocity_lmax[i]) for i in slices}
    # distant slices, which have higher band limits, first, so that the slices drawn at a multipole
    # are the first ones
    order = np.arange(nv)[::-1]
    wanted = [(density, int(i), int(i), int(spectra.density_lmax[i])) for i in shells]
    rank = np.argsort(order)
    wanted += [(velocity, int(i), ns + int(rank[i]), int(spectra.velocity_lmax[i])) for i in slices]

    def one(ell: int) -> None:
        active = int((spectra.velocity_lmax[order] >= ell).sum())
        rows = np.concatenate([np.arange(ns), ns + order[:active]])
        full = spectra.covariance(ell)
        cross, power = spectra.kappa(ell, full)
        covariance, cross = full[np.ix_(rows, rows)], cross[rows]
        given = kappa_alm is not None and kappa_cl[ell] > 0
        rms = np.sqrt(np.diag(covariance))
        if given:
            covariance = covariance - np.outer(cross, cross) / power
        scaled = covariance / rms[:, np.newaxis] / rms
        scaled[np.diag_indices_from(scaled)] += JITTER
        root = (np.linalg.cholesky(scaled) * rms[:, np.newaxis]).astype(np.float32)
        rng = seeds.generator(seed, "shells", ell)
        # single precision: modes are kept in it
        values = root @ rng.standard_normal((len(rows), 2 * ell + 1), np.float32)
        modes = np.empty((len(rows), ell + 1), np.complex64)
        modes[:, 0] = values[:, 0]
        values *= np.float32(np.sqrt(0.5))
        modes.real[:, 1:] = values[:, 1 : ell + 1]
        modes.imag[:, 1:] = values[:, ell + 1 :]
        m = np.arange(ell + 1)
        if given:
            place = m * (2 * kappa_lmax + 1 - m) // 2 + ell
            own = kappa_alm[place] * np.sqrt(power / kappa_cl[ell])
            modes += (cross / power)[:, np.newaxis] * own
        for target, number, row, top in wanted:
            if ell <= top and row < len(rows):
                target[number][m * (2 * top + 1 - m) // 2 + ell] = modes[row]

    # one thread per product, for reproducible bits and less waiting
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads()) as pool:
        # the long ones first; the order does not matter, as every multipole has its own stream
        for _ in pool.map(one, range(lmax, 0, -1)):
            pass
    return Shells(density, velocity)


def _empty(lmax: int) -> NDArray[np.complex64]:
    return np.zeros((lmax + 1) * (lmax + 2) // 2, np.complex64)
