"""The haloes of a sky, drawn one by one from the densities of the shells.

The number of haloes of every mass in a cell of the sky follows the density of the cell by the
abundance of the patch painter (`mlsky.haloes.abundance.response`). Every random number of a halo
depends on its shell, its cell and its position among the haloes of that cell. A density that
differs in the last bit therefore adds or removes one halo at most, and moves no other.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from mlsky import seeds
from mlsky.haloes import shells as modes
from mlsky.haloes.abundance import DELTA_SIGMAS, FINE, response
from mlsky.sphere import gaussian, windows
from mlsky.sphere.geometry import Healpix
from mlsky.sphere.threads import threads
from mlsky.theory.clustering import CAP_SIGMA
from mlsky.theory.halo_model import C_KM_S
from mlsky.theory.objects import MASS_CUT, check_mass_cut, is_object

__all__ = [
    "HaloList",
    "check_cosmology",
    "draw",
    "expansion",
    "place_of",
    "radial_velocities",
    "redshift",
    "redshift_range",
]

#: Halvings of a cell with which the position of a halo is drawn: to 1e-3 arcsec.
DEPTH = 18
#: Uses of the numbers that belong to a halo.
NODE, MASS, PLACE, DISTANCE, VELOCITY = range(5)
#: Expected number of haloes on the whole sky below which a shell is skipped.
LEAST = 1e-3
#: Relative difference in the power of kappa above which tables belong to another cosmology. Tables
#: of the same cosmology agree with CAMB to 0.2 %; a change of sigma8 by 1 % gives 2 %.
SAME_POWER = 0.01


@dataclass(frozen=True, eq=False)
class HaloList:
    """Haloes on the sphere.

    Attributes
    ----------
    theta, phi : (n,)
        Colatitude and longitude, rad.
    z : (n,)
        Redshift, without that of the peculiar velocity.
    log10_mass : (n,)
        Of M200m in Msun.
    velocity : (n,)
        Radial peculiar velocity in units of c, positive receding.
    key : (n,) uint64
        Unique number of the halo, from which its galaxies are drawn.
    """

    theta: NDArray[np.float64]
    phi: NDArray[np.float64]
    z: NDArray[np.float64]
    log10_mass: NDArray[np.float64]
    velocity: NDArray[np.float64]
    key: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows) -> HaloList:
        return HaloList(*(getattr(self, f.name)[rows] for f in fields(self)))

    @property
    def vectors(self) -> NDArray[np.float64]:
        """Unit vectors, (3, n)."""
        sine = np.sin(self.theta)
        return np.stack([sine * np.cos(self.phi), sine * np.sin(self.phi), np.cos(self.theta)])


def redshift(tables: dict, chi: NDArray[np.float64]) -> NDArray[np.float64]:
    """Redshift at comoving distances (Mpc) of the tables' cosmology."""
    from scipy.interpolate import CubicSpline

    nodes, values = (np.append(0.0, np.asarray(tables[k], np.float64)) for k in ("chi", "z"))
    return CubicSpline(nodes, values)(chi)


def expansion(tables: dict, z: NDArray[np.float64]) -> NDArray[np.float64]:
    """E(z) = H(z) / H0 of the tables' cosmology: dz / d chi over that today."""
    from scipy.interpolate import CubicSpline

    nodes, values = (np.append(0.0, np.asarray(tables[k], np.float64)) for k in ("z", "chi"))
    # H0 / c in 1/Mpc: chi grows by c dz / H
    hubble = 100 * float(tables["header"]["cosmology"]["h"]) / C_KM_S
    return 1 / (hubble * CubicSpline(nodes, values)(z, 1))


def place_of(tables: dict, z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Comoving distances (Mpc) of redshifts, and the numbers of their shells."""
    from scipy.interpolate import CubicSpline

    edges = np.asarray(tables["edges"], np.float64)
    far = np.linspace(0, edges[-1], 2000)
    chi = CubicSpline(redshift(tables, far), far)(z)
    return chi, np.clip(np.searchsorted(edges, chi, side="right") - 1, 0, len(edges) - 2)


def redshift_range(tables: dict) -> tuple[float, float]:
    """Lowest and highest redshift of the tables."""
    low, high = redshift(tables, np.asarray(tables["edges"], np.float64)[[0, -1]])
    return float(low), float(high)


def check_cosmology(tables: dict, kappa_cl: NDArray[np.float64] | None) -> None:
    """Check, by the power of a convergence, that tables are of its cosmology.

    Raises
    ------
    ValueError
        If the two differ in power by more than `SAME_POWER` between l = 200 and 1000; shorter
        spectra are not compared.
    """
    ell = np.geomspace(200, 1000, 9).astype(int)
    if kappa_cl is None or len(kappa_cl) <= ell[-1]:
        return
    own = np.interp(np.log(ell), np.log(tables["ell"]), np.log(tables["analytic_kk"]))
    ratio = float(np.exp(np.mean(np.log(np.asarray(kappa_cl)[ell]) - own)))
    if not abs(ratio - 1) < SAME_POWER:
        raise ValueError(
            f"halo tables of another cosmology than the sky's, which has {ratio:.3f} times their "
            "power of kappa: take those of mlsky.haloes.tables.of(cosmology)"
        )


def draw(
    tables: dict,
    seed: int,
    kappa_alm: NDArray[np.complex128] | None = None,
    kappa_cl: NDArray[np.float64] | None = None,
    mass_cut: float = MASS_CUT,
    lmax: int = modes.LMAX,
) -> HaloList:
    """Draw every object of a sky.

    Parameters
    ----------
    tables
        From `mlsky.haloes.tables`, of the sky's cosmology.
    seed
        Of the sky; the streams are "shells" and "clusters".
    kappa_alm, kappa_cl
        Gaussian convergence of the sky (healpy order) and the power it was drawn with; None for
        haloes of no particular convergence.
    mass_cut
        Lowest M200m (Msun), as for `mlsky.theory.objects.mass_cut_at`.
    lmax
        Band limit of the densities, a power of two; cells are HEALPix pixels of half that nside.
        Another value gives other haloes.

    Returns
    -------
    haloes
        In the order of shells and cells: the same for the same seed, convergence and tables,
        whatever the number of threads.

    Raises
    ------
    ValueError
        If `mass_cut` is outside the tables, the convergence has too few multipoles, or the tables
        are of another cosmology than the convergence.
    """
    mass_cut = check_mass_cut(mass_cut, tables["log10_mass"])
    check_cosmology(tables, kappa_cl)
    chosen = is_object(tables["z"], tables["log10_mass"], mass_cut)
    expected = 4 * np.pi * np.where(chosen, tables["number"], 0).sum(1)
    used = np.flatnonzero(expected > LEAST)
    per_shell = np.asarray(tables["slices"], np.int64)
    first = np.cumsum(per_shell) - per_shell
    slices = np.concatenate([np.arange(first[i], first[i] + per_shell[i]) for i in used])
    spectra = modes.spectra(tables, lmax)
    shells = modes.draw(spectra, seed, kappa_alm, kappa_cl, shells=used, slices=slices)

    def one(shell: int):
        alm = shells.density.pop(int(shell))
        return _shell(tables, seed, int(shell), chosen[shell], alm, spectra, lmax // 2)

    with ThreadPoolExecutor(threads()) as pool:
        parts = list(pool.map(one, used))
    theta, phi, chi, log10_mass, key, shell = (np.concatenate(p) for p in zip(*parts, strict=True))
    velocity = _velocities(tables, spectra, shells.velocity, seed, theta, phi, chi, key, shell)
    return HaloList(theta, phi, redshift(tables, chi), log10_mass, velocity, key)


def _shell(tables: dict, seed: int, shell: int, objects: NDArray, alm, spectra, nside: int):
    """Places, distances, masses and keys of the haloes of one shell."""
    import healpy

    lmax = gaussian.alm_lmax(alm)
    ell = np.arange(1, lmax + 1)
    # haloes lie anywhere in their cell, which smooths their density by the cell's window
    window = windows.square(np.arange(lmax + 1), Healpix(nside).pixel_arcmin)
    power = spectra.variance(shell, ell)
    sigma = float(np.sqrt(((2 * ell + 1) / (4 * np.pi) * power / window[1:] ** 2).sum()))
    cap = min(float(tables["delta_cap"][shell]), CAP_SIGMA * sigma)
    bias = tables["bias"][shell, objects].astype(np.float64)
    number = tables["number"][shell, objects].astype(np.float64)
    rate = number * response(bias, sigma, cap)  # (densities, masses), per steradian
    total = rate.sum(1)
    fine = np.arange((len(total) - 1) * FINE + 1) / FINE
    in_cell = np.interp(fine, np.arange(len(total)), total) * (4 * np.pi / (12 * nside**2))
    density = _synthesise(gaussian.scale_alm(alm, 1 / window), nside)
    step = float(DELTA_SIGMAS[1] - DELTA_SIGMAS[0]) * sigma
    density /= np.float32(step)
    density -= np.float32(DELTA_SIGMAS[0] * sigma / step)
    np.clip(density, 0, len(total) - 1.001, out=density)
    row = (density * FINE + np.float32(0.5)).astype(np.int32)
    u = seeds.generator(seed, "clusters", shell).random(density.size)
    cell = np.flatnonzero(u < -np.expm1(-in_cell)[row])
    count = seeds.poisson(u[cell], in_cell[row[cell]])
    repeated = np.repeat(np.arange(len(cell)), count)
    turn = np.arange(len(repeated)) - np.repeat(np.cumsum(count) - count, count)
    place = density[cell][repeated].astype(np.float64)
    nested = healpy.ring2nest(nside, cell)[repeated]
    key = (np.uint64(shell) << np.uint64(40)) | (nested.astype(np.uint64) << np.uint64(12))
    key |= turn.astype(np.uint64)

    def uniform(use: int) -> NDArray[np.float64]:
        return seeds.uniform(seed, "clusters", key, np.uint64(use))

    node = place.astype(np.int64)
    fraction = place - node
    # abundances, not fractions of masses, are interpolated between two nodes
    below, above = total[node] * (1 - fraction), total[node + 1] * fraction
    node += uniform(NODE) * (below + above) < above
    log10_mass = _masses(tables["log10_mass"][objects], number, rate, node, uniform(MASS))
    child = (uniform(PLACE) * 4.0**DEPTH).astype(np.int64)
    theta, phi = healpy.pix2ang(nside << DEPTH, nested * 4**DEPTH + child, nest=True)
    low, high = (float(c) ** 3 for c in tables["edges"][shell : shell + 2])
    chi = np.cbrt(low + (high - low) * uniform(DISTANCE))
    return theta, phi, chi, log10_mass, key, np.full(len(key), shell)


def _synthesise(alm: NDArray[np.complex64], nside: int) -> NDArray[np.float32]:
    """Values in single precision, as the alm, on HEALPix pixels; twice as fast as double."""
    import ducc0

    rings = ducc0.healpix.Healpix_Base(nside, "RING").sht_info()
    alm = alm.astype(np.complex64, copy=False)[np.newaxis]
    lmax = gaussian.alm_lmax(alm)
    return ducc0.sht.synthesis(alm=alm, lmax=lmax, spin=0, nthreads=1, **rings)[0]


def _masses(log10_mass, number, rate, node, u) -> NDArray[np.float64]:
    """Log10 masses: the bin by the abundance at each density, the place in it by its slope."""
    cumulative = np.cumsum(rate, 1)
    cumulative /= cumulative[:, -1:]
    n = len(log10_mass)
    flat = (cumulative + np.arange(len(rate))[:, np.newaxis]).ravel()
    bin_ = np.minimum(np.searchsorted(flat, u + node, side="right") - node * n, n - 1)
    before = np.where(bin_ > 0, cumulative[node, bin_ - 1], 0.0)
    width = cumulative[node, bin_] - before
    v = np.clip((u - before) / np.maximum(width, 1e-300), 0, 1)
    # dn/dlnM falls by exp(-s) from one end of a bin to the other
    s = -np.gradient(np.log(np.maximum(number, 1e-300)))[bin_] if n > 1 else np.zeros(len(u))
    s = np.clip(s, 1e-6, 30.0)
    offset = -np.log1p(v * np.expm1(-s)) / s - 0.5
    step = float(log10_mass[1] - log10_mass[0]) if n > 1 else 0.0
    return log10_mass[bin_] + step * offset


def radial_velocities(
    tables: dict,
    seed: int,
    haloes: HaloList,
    kappa_alm: NDArray[np.complex128] | None = None,
    kappa_cl: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Velocities of haloes at given positions, as in `draw`, (n,), units of c."""
    if not len(haloes):
        return np.zeros(0)
    check_cosmology(tables, kappa_cl)
    chi, shell = place_of(tables, haloes.z)
    spectra = modes.spectra(tables)
    slices = np.unique(_slice(tables, chi))
    drawn = modes.draw(
        spectra, seed, kappa_alm, kappa_cl, shells=np.empty(0, np.int64), slices=slices
    )
    return _velocities(
        tables, spectra, drawn.velocity, seed, haloes.theta, haloes.phi, chi, haloes.key, shell
    )


def _slice(tables: dict, chi: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numbers of the slices at comoving distances (Mpc)."""
    edges = np.asarray(tables["slice_edges"], np.float64)
    return np.clip(np.searchsorted(edges, chi, side="right") - 1, 0, len(edges) - 2)


def _velocities(tables, spectra, alms, seed, theta, phi, chi, key, shell) -> NDArray[np.float64]:
    """Radial velocities (units of c): of the slice, plus those on scales below its band limit."""
    import ducc0

    which = _slice(tables, chi)
    order = np.argsort(which, kind="stable")
    bounds = np.searchsorted(which[order], np.arange(len(spectra.velocity_lmax) + 1))
    velocity = np.zeros(len(chi))
    sigma = np.asarray(tables["sigma_v"], np.float64)[shell]
    rest = seeds.normal(seed, "clusters", key, np.uint64(VELOCITY))

    def one(number: int) -> None:
        rows = order[bounds[number] : bounds[number + 1]]
        if not len(rows):
            return
        alm = alms.pop(number).astype(np.complex128)
        lmax = gaussian.alm_lmax(alm)
        # one thread: the bits of this transform depend on how many there are
        made = ducc0.sht.synthesis_general(
            alm=alm[np.newaxis],
            loc=np.stack([theta[rows], phi[rows]], 1),
            lmax=lmax,
            spin=0,
            epsilon=1e-6,
            nthreads=1,
        )[0]
        ns = len(spectra.density_lmax)
        ell = np.arange(1, lmax + 1)
        drawn = ((2 * ell + 1) / (4 * np.pi) * spectra.variance(ns + number, ell)).sum()
        missing = np.sqrt(np.maximum(sigma[rows] ** 2 - drawn, 0))
        velocity[rows] = made + missing * rest[rows]

    with ThreadPoolExecutor(threads()) as pool:
        list(pool.map(one, range(len(spectra.velocity_lmax))))
    return velocity
