"""The convergence of the CMB from shells of matter, as of GLASS or an N-body simulation.

>>> from mlsky.plugins import shells  # doctest: +SKIP
>>> kappa = shells.convergence(deltas, edges, seed=1)  # doctest: +SKIP
>>> mlsky.simulate([93, 145], 1024, kappa=kappa, kappa_kind="nonlinear")  # doctest: +SKIP

Needs CCL (``pip install 'mlsky[ccl]'``), for distances and for the power of what the shells lack.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky import arguments, seeds
from mlsky.plugins import ccl
from mlsky.sphere import gaussian
from mlsky.sphere.geometry import Healpix
from mlsky.theory.cosmology import parse
from mlsky.theory.parameters import DEFAULT

if TYPE_CHECKING:
    import pyccl

__all__ = ["convergence", "kernel", "outside"]

#: Speed of light over 100 km/s/Mpc, Mpc (exact c: BIPM, SI brochure, 9th edition).
C_OVER_H100 = 2997.92458

#: Steps of integrals along the line of sight, per shell and behind the last; multipoles at which
#: the power there is computed; the first distance (Mpc). Our choice: results change by less than
#: 1e-3 with twice as many.
STEPS, STEPS_BEHIND, NODES, NEAR = 32, 400, 60, 1.0


def convergence(
    deltas: Iterable[ArrayLike],
    edges: ArrayLike,
    *,
    cosmology: object = DEFAULT,
    seed: int = 0,
    complete: bool = True,
) -> NDArray[np.float64]:
    """Convergence to the CMB in the Born approximation, on the pixels of the shells.

    Parameters
    ----------
    deltas
        For each shell, from near to far, its density contrast: a HEALPix RING map, (npix,), of one
        nside, equatorial. They may come one by one, as from a generator.
    edges
        (n + 1,) redshifts at the edges of the shells, growing, from 0 to 1089.
    cosmology
        That of the shells, anything `mlsky.theory.parse` takes.
    seed
        Of the Gaussian field that stands for what the shells lack.
    complete
        Whether to add this field: matter behind the last shell and before the first one, with its
        nonlinear power, up to l = 2 nside. It has no correlation with the shells.

    Returns
    -------
    kappa
        (npix,), for ``mlsky.simulate(kappa=kappa, kappa_kind="nonlinear")``.

    Raises
    ------
    ValueError
        If edges or maps do not fit, or a map is not a finite density contrast.
    """
    z = arguments.array("edges", edges, "redshifts, growing").astype(np.float64)
    top = ccl.SETTINGS["z_source"]
    if z.ndim != 1 or len(z) < 2 or not np.isfinite(z).all() or not (np.diff(z) > 0).all():
        raise ValueError(
            f"edges={arguments.short(edges)}: must be growing redshifts, two or more, for example "
            "[0, 0.1, 0.2]"
        )
    if z[0] < 0 or z[-1] >= top:
        raise ValueError(f"edges from z={z[0]:g} to {z[-1]:g}: must be from 0 to below {top:g}")
    seed = seeds.check(seed)
    complete = arguments.boolean("complete", complete)
    cosmology = parse(cosmology)
    model = ccl.to_cosmology(cosmology)
    chi = model.comoving_radial_distance(1 / (1 + z))
    kappa, shell = None, 0
    for shell, values in enumerate(deltas, 1):
        if shell > len(chi) - 1:
            raise ValueError(f"more shells than the {len(chi) - 1} that {len(chi)} edges make")
        delta = _parse(values, shell, kappa)
        kappa = np.zeros(delta.shape) if kappa is None else kappa
        kappa += _weight(model, chi[shell - 1], chi[shell]) * delta
    if shell < len(chi) - 1:
        raise ValueError(f"{shell} shells: {len(chi)} edges make {len(chi) - 1}")
    if complete:
        nside = int(np.sqrt(kappa.size / 12))
        with ccl.running(cosmology):
            power = outside(model, float(chi[0]), float(chi[-1]), 2 * nside)
        alm = gaussian.draw_alm(power, seed, field="kappa")
        kappa += gaussian.alm_to_map(alm, Healpix(nside))
    return kappa


def kernel(model: pyccl.Cosmology, chi: ArrayLike) -> NDArray[np.float64]:
    """Convergence to the CMB per density contrast and distance (1/Mpc), at distances (Mpc).

    3/2 Omega_m (H0/c)^2 (1+z) chi (chi_s - chi) / chi_s in a flat universe (Bartelmann & Schneider
    2001, astro-ph/9912508, Sec. 6).
    """
    chi = np.asarray(chi, np.float64)
    source = model.comoving_radial_distance(1 / (1 + ccl.SETTINGS["z_source"]))
    hubble = model["h"] / C_OVER_H100
    lens = chi * np.clip(source - chi, 0, None) / source
    return 1.5 * model["Omega_m"] * hubble**2 * lens / model.scale_factor_of_chi(chi)


def outside(model: pyccl.Cosmology, first: float, last: float, lmax: int) -> NDArray[np.float64]:
    """C_L^kk, (lmax + 1,), of the matter before one distance and behind another (Mpc), Limber."""
    source = float(model.comoving_radial_distance(1 / (1 + ccl.SETTINGS["z_source"])))
    ell = np.unique(np.geomspace(2, lmax, NODES).round())
    total = np.zeros(len(ell))
    for low, high in ((NEAR, first), (max(last, NEAR), source)):
        if high <= low:
            continue
        chi = np.linspace(low, high, STEPS_BEHIND)
        tracer = ccl.pyccl.Tracer()
        tracer.add_tracer(model, kernel=(chi, kernel(model, chi)))
        total += ccl.pyccl.angular_cl(model, tracer, tracer, ell)
    power = np.zeros(lmax + 1)
    every = np.arange(2, lmax + 1)
    power[2:] = np.exp(np.interp(np.log(every), np.log(ell), np.log(np.maximum(total, 1e-300))))
    return power


def _weight(model: pyccl.Cosmology, low: float, high: float) -> float:
    """Integral of the kernel over a shell."""
    node, weight = np.polynomial.legendre.leggauss(STEPS)
    chi = 0.5 * (low + high) + 0.5 * (high - low) * node
    return float(0.5 * (high - low) * (weight * kernel(model, chi)).sum())


def _parse(values: ArrayLike, shell: int, before: NDArray | None) -> NDArray[np.float64]:
    delta = arguments.array(f"shell {shell}", values, "a HEALPix map").astype(np.float64)
    nside = round(np.sqrt(delta.size / 12))
    if delta.ndim != 1 or not nside or 12 * nside**2 != delta.size or nside & (nside - 1):
        raise ValueError(
            f"shell {shell} of shape {delta.shape}: must be a HEALPix RING map, (12 nside^2,) with "
            "nside a power of two"
        )
    if before is not None and before.shape != delta.shape:
        raise ValueError(f"shell {shell} of {delta.size} pixels: the others have {before.size}")
    if not np.isfinite(delta).all() or delta.min() < -1:
        raise ValueError(
            f"shell {shell}: values from {delta.min():.3g} to {delta.max():.3g} must be finite and "
            "at least -1, a density contrast (density over its mean, minus one)"
        )
    return delta
