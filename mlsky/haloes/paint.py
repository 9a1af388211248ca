"""Haloes painted whole on the charts of the sky, in every field.

A profile is split in two as in a sum of Ewald (1921, doi:10.1002/andp.19213690304). What is left
of it after smoothing by a Gaussian reaches over any distance and has few multipoles: it is summed
as harmonics on the sphere. The rest is compact: it is painted chart by chart by Fourier
transforms, as the painter of training patches does. Their sum is the profile, without a cut, an
edge or a seam.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.components import REFERENCE_GHZ
from mlsky.datasets.halos import TSZ_148
from mlsky.haloes import members
from mlsky.haloes.draw import Haloes
from mlsky.haloes.profiles import Interpolation, basis, coefficients
from mlsky.sphere import gaussian, refine
from mlsky.sphere.field import Field
from mlsky.sphere.threads import threads
from mlsky.theory.halo_model import T_CMB_UK
from mlsky.theory.objects import MASS_CUT

if TYPE_CHECKING:
    from mlsky.sphere.charts import Chart

__all__ = ["Objects"]

#: Standard deviation of the Gaussian that divides profiles, and the multipole where its
#: transform is exp(-8).
WIDE_ARCMIN = 10.0
WIDE_LMAX = round(4 / np.radians(WIDE_ARCMIN / 60))
#: Haloes this far beyond a chart still reach into it with their compact part, which falls as the
#: second derivative of the profile.
REACH_ARCMIN = 60.0
#: Pixels of the grid on which the wide part is evaluated, at most.
COARSE_ARCMIN = 4.0
#: Basis functions of the mass profile that are kept for the faint satellites.
SATELLITE_RANK = 3
#: Cells by which haloes are found: sides of 110 arcmin.
FIND_NSIDE = 32


class Objects:
    """The objects of a sky, ready to be painted.

    Parameters
    ----------
    haloes
        From `mlsky.haloes.draw`, or a user's.
    tables
        From `mlsky.datasets.tables`.
    seed
        Of the sky, for the galaxies.
    fields
        Of "kappa", "tsz", "ksz", "cib", "radio": what to paint.
    cib_ghz
        Frequencies of the maps of the CIB, the first of them 148 GHz.
    """

    def __init__(
        self,
        haloes: Haloes,
        tables: dict,
        seed: int,
        fields: tuple[str, ...] = ("kappa", "tsz", "ksz", "cib"),
        cib_ghz: tuple[float, ...] = (REFERENCE_GHZ,),
        mass_cut: float = MASS_CUT,
    ) -> None:
        import healpy

        cell = healpy.vec2pix(FIND_NSIDE, *haloes.vectors, nest=True)
        order = np.argsort(cell, kind="stable")
        self.haloes, self.tables, self.seed = haloes[order], tables, seed
        self._ends = np.searchsorted(cell[order], np.arange(12 * FIND_NSIDE**2 + 1))
        self.fields, self.cib_ghz = fields, cib_ghz
        self._at = Interpolation.of(tables, self.haloes.z, self.haloes.log10_mass, mass_cut)
        self.galaxies = members.Members(tables, seed, cib_ghz)
        #: (field, kind of profile, coefficients (n, rank)) of every map
        self.terms = list(self._terms(self._at, self.haloes))
        self.wide = {name: Field(alm) for name, alm in self.wide_alm().items()}

    def _terms(self, at: Interpolation, haloes: Haloes):
        """Each map as a profile and its coefficients in uK at 148 GHz, or convergence."""
        if "kappa" in self.fields:
            yield "kappa", "nfw", coefficients(self.tables, at, "nfw")
        if "tsz" in self.fields:
            yield "tsz", "y", coefficients(self.tables, at, "y") * np.float32(TSZ_148)
        if "ksz" in self.fields:
            moving = (-T_CMB_UK * haloes.velocity).astype(np.float32)
            yield "ksz", "tau", coefficients(self.tables, at, "tau") * moving[:, np.newaxis]
        if "cib" in self.fields:
            shape = coefficients(self.tables, at, "nfw")[:, :SATELLITE_RANK]
            flux = at.positive(self.tables["small_satellites_uk_sr"])
            mass = at.positive(self.tables["kappa_mass"])
            shape *= (flux / mass).astype(np.float32)[:, np.newaxis]
            for i, colour in enumerate(self.galaxies.colours(at)):
                yield f"cib_{i}", "nfw", shape * colour[:, np.newaxis]

    def wide_alm(self) -> dict[str, NDArray[np.complex128]]:
        """Alm of the wide part of each map, healpy order, up to `WIDE_LMAX`."""
        import ducc0

        ell = np.arange(WIDE_LMAX + 1)
        place = np.stack([self.haloes.theta, self.haloes.phi], 1)
        gauss = np.exp(-0.5 * (ell * np.radians(WIDE_ARCMIN / 60)) ** 2)

        def one(task) -> NDArray[np.complex128]:
            values, phi = task
            # one thread: the bits of this transform depend on how many there are
            alm = ducc0.sht.adjoint_synthesis_general(
                map=np.ascontiguousarray(values, np.float64)[np.newaxis],
                loc=place,
                lmax=WIDE_LMAX,
                spin=0,
                epsilon=1e-5,
                nthreads=1,
            )[0]
            return gaussian.scale_alm(alm, _at(self.tables["ell"], phi, ell) * gauss)

        tasks, names = [], []
        for name, kind, values in self.terms:
            for column, phi in zip(values.T, basis(self.tables, kind), strict=False):
                tasks.append((column, phi))
                names.append(name)
        out: dict[str, NDArray[np.complex128]] = {}
        with ThreadPoolExecutor(threads()) as pool:
            for name, alm in zip(names, pool.map(one, tasks), strict=True):
                out[name] = alm if name not in out else out[name] + alm
        return out

    def near(self, chart: Chart, beyond_arcmin: float) -> NDArray[np.int64]:
        """Rows of the haloes in a chart, and those up to `beyond_arcmin` beyond its edge."""
        import healpy

        ny, nx = chart.shape
        radius = np.hypot(ny, nx) / 2 * chart.pixel_rad + np.radians(beyond_arcmin / 60)
        cells = np.sort(
            healpy.query_disc(FIND_NSIDE, chart.rotation[2], radius, inclusive=True, nest=True)
        )
        return np.concatenate([np.arange(self._ends[c], self._ends[c + 1]) for c in cells])

    def on(self, chart: Chart) -> tuple[dict[str, NDArray[np.float32]], dict]:
        """Maps of the objects on a chart, and the sources that it owns.

        Returns
        -------
        maps
            "kappa", "tsz", "ksz" (ny, nx) and "cib" (nfreq, ny, nx), float32.
        sources
            As `mlsky.haloes.members.Members.sources`.
        """
        pad = int(np.ceil(REACH_ARCMIN / chart.pixel_arcmin))
        rows = self.near(chart, REACH_ARCMIN)
        y, x = chart.project_vectors(self.haloes[rows].vectors)
        inside = (np.abs(y - (chart.shape[0] - 1) / 2) < chart.shape[0] / 2 + pad - 2) & (
            np.abs(x - (chart.shape[1] - 1) / 2) < chart.shape[1] / 2 + pad - 2
        )
        rows, y, x = rows[inside], y[inside], x[inside]
        made = self._compact(chart, rows, y, x, pad)
        for name, field in self.wide.items():
            made[name] += refine.on_chart(field, chart, COARSE_ARCMIN)
        sources = {}
        if "cib" in self.fields or "radio" in self.fields:
            points, sources = self.galaxies.on(chart, self.haloes[rows], self._at[rows], y, x)
            if "cib" in self.fields:
                for i, values in enumerate(points):
                    made[f"cib_{i}"] += values
        maps = {name: values for name, values in made.items() if not name.startswith("cib_")}
        if "cib" in self.fields:
            maps["cib"] = np.stack([made[f"cib_{i}"] for i in range(len(self.cib_ghz))])
        return maps, sources

    def _compact(self, chart: Chart, rows, y, x, pad: int) -> dict[str, NDArray[np.float32]]:
        """The compact parts of the profiles of some haloes on the pixels of a chart."""
        import ducc0

        shape = tuple(ducc0.fft.good_size(n + 2 * pad) for n in chart.shape)
        place, weight = _spline(y + pad, x + pad, shape)
        # a map of flux over pixels; chart pixels are smaller away from the centre
        away = (y - (chart.shape[0] - 1) / 2) ** 2 + (x - (chart.shape[1] - 1) / 2) ** 2
        weight *= (1 + away * chart.pixel_rad**2 / 4)[:, np.newaxis] ** 2
        made = {}
        for name, kind, values in self.terms:
            filters = _filters(_key(self.tables, kind), chart.pixel_arcmin, shape)
            total = np.zeros((shape[0], shape[1] // 2 + 1), np.complex64)
            for column, one in zip(values[rows].T, filters, strict=False):
                plane = np.bincount(
                    place.ravel(), (weight * column[:, np.newaxis]).ravel(), shape[0] * shape[1]
                )
                modes = ducc0.fft.r2c(
                    plane.astype(np.float32).reshape(shape), axes=(0, 1), forward=True, nthreads=1
                )
                modes *= one
                total += modes
            back = ducc0.fft.c2r(
                total, axes=(0, 1), forward=False, lastsize=shape[1], inorm=2, nthreads=1
            )
            made[name] = back[pad : pad + chart.shape[0], pad : pad + chart.shape[1]].copy()
        return made


def _at(nodes: NDArray, values: NDArray, ell: NDArray) -> NDArray[np.float64]:
    """Interpolate in ln l, as the painter does."""
    nodes = np.asarray(nodes, np.float64)
    return np.interp(np.log(np.clip(ell, nodes[0], nodes[-1])), np.log(nodes), values)


def _spline(y, x, shape: tuple[int, int]):
    """Flat pixels and weights, (n, 16), that share out points by cubic B-splines."""
    parts = []
    for v in (y, x):
        first = np.floor(v).astype(np.int64)
        u = v - first
        w = np.stack([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, 3 * (u + u**2 - u**3) + 1, u**3]) / 6
        parts.append((first, w))
    (fy, wy), (fx, wx) = parts
    rows = (fy + np.arange(-1, 3)[:, np.newaxis]) % shape[0]
    columns = (fx + np.arange(-1, 3)[:, np.newaxis]) % shape[1]
    place = rows[:, np.newaxis] * shape[1] + columns[np.newaxis]
    weight = wy[:, np.newaxis] * wx[np.newaxis]
    return place.reshape(16, -1).T, weight.reshape(16, -1).T


class _Basis:
    """Basis functions of one kind of profile, compared by identity so that filters are kept."""

    def __init__(self, ell: NDArray, phi: NDArray) -> None:
        self.ell, self.phi = ell, phi


_BASES: dict[tuple[int, str], tuple[dict, _Basis]] = {}


def _key(tables: dict, kind: str) -> _Basis:
    known = _BASES.get((id(tables), kind))
    if known is None or known[0] is not tables:
        known = _BASES[id(tables), kind] = (tables, _Basis(tables["ell"], basis(tables, kind)))
    return known[1]


@functools.lru_cache(maxsize=24)
def _filters(functions: _Basis, pixel_arcmin: float, shape: tuple[int, int]):
    """Half planes (rank, ny, nx / 2 + 1) that turn sums of splines into compact profiles."""
    pixel = np.radians(pixel_arcmin / 60)
    ky = np.fft.fftfreq(shape[0])[:, np.newaxis]
    kx = np.fft.rfftfreq(shape[1])[np.newaxis]
    ell = np.hypot(ky, kx) * 2 * np.pi / pixel
    spline = (np.sinc(ky) * np.sinc(kx)) ** 4
    compact = -np.expm1(-0.5 * (ell * np.radians(WIDE_ARCMIN / 60)) ** 2)
    # the same band in every direction
    compact = np.where(np.hypot(ky, kx) <= 0.5, compact, 0) / (spline * pixel**2)
    return np.stack([_at(functions.ell, phi, ell) * compact for phi in functions.phi]).astype(
        np.float32
    )
