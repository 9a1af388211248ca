"""Factor of the joint covariance of densities and velocities, cached on this machine.

It is too large to ship (a matrix for each of 52 multipoles). It is computed from the linear power
spectrum in the tables when first needed, and cached.
"""

from __future__ import annotations

import hashlib
import io
import logging

import numpy as np

from mlsky import registry
from mlsky.io.files import write_whole
from mlsky.theory.halo_model import SMOOTHING_MPC

__all__ = ["covariance", "covariance_factor"]

_log = logging.getLogger("mlsky")

VERSION = 3  # of the computation below; a new version ignores matrices cached before
#: Tables that the matrix is made from.
INPUTS = ("edges", "slice_edges", "slice_growth", "slice_velocity", "shell_growth", "k", "p_k")
MIXING_ELL = (15.0, 4000.0, 52)  # multipoles of the joint draw: first, last, how many


def covariance_factor(
    tables: dict, multipoles: tuple[float, float, int] = MIXING_ELL
) -> tuple[np.ndarray, np.ndarray]:
    """Factor of the joint covariance of shell densities and slice velocities at low multipoles.

    Parameters
    ----------
    tables
        Painter tables; `INPUTS` of them are used.
    multipoles
        First, last and number of the multipoles, evenly spaced in their logarithm.

    Returns
    -------
    ell : (n,) float64
    matrix : (n, n_shell + n_slice, n_shell + n_slice) float32
        ``matrix[i] @ g`` of unit white modes g has the flat-sky covariance of the
        densities (then velocities, in units of c) at multipole ``ell[i]``; power per sr.

    Notes
    -----
    `covariance` is not exactly positive for close shells (their transverse k differ):
    eigenvalues of the correlation matrix are clipped at 1e-6.
    """
    digest = hashlib.sha256(repr((VERSION, multipoles, SMOOTHING_MPC)).encode())
    for name in INPUTS:
        digest.update(np.ascontiguousarray(tables[name]).tobytes())
    cached = registry.cache_dir() / f"covariance-factor-{digest.hexdigest()[:16]}.npy"
    ell = np.geomspace(*multipoles)
    try:
        matrix = np.load(cached, allow_pickle=False)
        if matrix.shape[0] == len(ell):
            return ell, matrix
    except (OSError, ValueError, EOFError):
        pass  # none yet, or damaged: compute it
    matrix = _factor(tables, ell)
    buffer = io.BytesIO()
    np.save(buffer, matrix)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_whole(cached, buffer.getvalue())
    except OSError as error:
        _log.warning("factor of the covariance not kept in %s: %s", cached.parent, error)
    return ell, matrix


def covariance(tables: dict, ell: np.ndarray) -> np.ndarray:
    """Flat-sky covariance of shell densities and slice velocities.

    Parameters
    ----------
    tables
        Painter tables; `INPUTS` of them are used.
    ell : (n_ell,)
        Multipoles.

    Returns
    -------
    covariance : (n_ell, n_shell + n_slice, n_shell + n_slice) float64
        Power per sr of the smoothed densities of the shells, then of the radial velocities of
        the slices (units of c), positive receding; zero for pairs more than 700 Mpc apart.

    Notes
    -----
    <d d>, <v v> and <d v> of modes with transverse wave number ell / sqrt(chi chi'),
    integrated over k_parallel with the windows of the shells: kernels cos(k dx),
    (k_par/k^2)^2 cos and (k_par/k^2) sin, v = i f a H (k_par/k^2) delta.
    """
    t = {k: np.asarray(tables[k], np.float64) for k in INPUTS}
    shell_mid = 0.5 * (t["edges"][1:] + t["edges"][:-1])
    slice_mid = 0.5 * (t["slice_edges"][1:] + t["slice_edges"][:-1])
    x = np.concatenate([shell_mid, slice_mid])
    width = np.concatenate([np.diff(t["edges"]), np.diff(t["slice_edges"])])
    growth = np.concatenate([t["shell_growth"], t["slice_growth"] * t["slice_velocity"]])
    is_v = np.arange(len(x)) >= len(shell_mid)
    dk = 0.0005
    k_par = np.arange(dk / 2, 0.6, dk)
    window = np.sinc(k_par[None] * width[:, None] / 2 / np.pi)
    log_k, log_p = np.log(t["k"]), np.log(t["p_k"])
    rows, cols = np.nonzero(np.triu(np.abs(x[:, None] - x[None]) < 700))
    n = len(x)
    out = np.zeros((len(ell), n, n))
    for cov, multipole in zip(out, ell, strict=True):
        for start in range(0, len(rows), 2000):
            a, b = rows[start : start + 2000], cols[start : start + 2000]
            k = np.sqrt((multipole**2 / (x[a] * x[b]))[:, None] + k_par[None] ** 2)
            power = np.exp(np.interp(np.log(k), log_k, log_p) - (k * SMOOTHING_MPC) ** 2)
            phase = k_par[None] * (x[a] - x[b])[:, None]
            ratio = k_par[None] / k**2
            va, vb = is_v[a][:, None], is_v[b][:, None]
            kernel = np.where(
                va & vb,
                ratio**2 * np.cos(phase),
                np.where(va ^ vb, ratio * np.sin(phase) * np.where(vb, 1, -1), np.cos(phase)),
            )
            integral = (power * window[a] * window[b] * kernel).sum(1) * dk / np.pi
            cov[a, b] = integral * growth[a] * growth[b] / (x[a] * x[b])
        cov += np.triu(cov, 1).T
    return out


def _factor(tables: dict, ell: np.ndarray) -> np.ndarray:
    """Factors of `covariance`."""
    every = covariance(tables, ell)
    n = every.shape[1]
    matrix = np.zeros(every.shape, np.float32)
    for factor, cov in zip(matrix, every, strict=True):
        rms = np.sqrt(np.maximum(np.diag(cov), 0))
        alive = rms > 1e-12 * rms.max()
        scale = np.where(alive, rms, 1.0)
        corr = cov / scale[:, None] / scale[None]
        corr[~alive] = 0
        corr[:, ~alive] = 0
        corr[np.arange(n), np.arange(n)] = 1
        values, vectors = np.linalg.eigh(corr)
        # the symmetric root is the same from any eigenvectors: their signs, and those of nearly
        # equal values altogether, change with the machine and its number of threads
        root = (vectors * np.sqrt(np.clip(values, 1e-6, None))) @ vectors.T
        root /= np.sqrt((root**2).sum(1))[:, None]
        factor[:] = root * np.where(alive, rms, 0)[:, None]
    return matrix
