"""Haloes painted whole on the charts of the sky, in every field.

A profile is a sum of Gaussians (`mlsky.haloes.profiles.Gaussians`). The wide ones reach over any
distance and have few multipoles: they are summed as harmonics on the sphere. The narrow ones are
painted chart by chart, as Fourier modes of maps of points, each on the coarsest pixels that hold
it. Their sum is the whole profile, without a cut, an edge or a seam.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.components import REFERENCE_GHZ
from mlsky.datasets.halos import TSZ_148
from mlsky.frequency.cib_templates import map_names
from mlsky.haloes import members
from mlsky.haloes.draw import HaloList, expansion
from mlsky.haloes.profiles import Gaussians, Interpolation, transform
from mlsky.scaling import relativistic
from mlsky.sphere import charts, gaussian, refine
from mlsky.sphere.field import Field
from mlsky.sphere.threads import threads
from mlsky.sphere.windows import square
from mlsky.theory.halo_model import T_CMB_UK
from mlsky.theory.objects import MASS_CUT

if TYPE_CHECKING:
    from mlsky.sphere.charts import Chart
    from mlsky.sphere.geometry import Geometry

__all__ = ["HaloPainter", "maps", "tsz_names"]

#: Gaussians of this standard deviation and wider are summed as harmonics.
WIDE_ARCMIN = 8.0
#: The transform of a Gaussian ends at this many times 1 / sigma, where it is 1e-4, and its
#: profile this many sigmas away.
BAND, EXTENT = 4.3, 5.0
#: A Gaussian is painted on pixels of at most this share of its sigma.
SAMPLING = 0.8
#: Towards the highest multipole of a chart's pixels maps fade out, from that of the finest
#: output pixels for which such charts are used (3 nside at 0.58 chart pixels per pixel), so that
#: cores narrower than a pixel do not ring.
FADE = (0.57, 0.8)
#: Wave numbers between which the filters of a map are interpolated.
NODES = 4096
#: Pixels of the grid on which the wide part is evaluated, at most.
COARSE_ARCMIN = 4.0
#: Share of the flux of a halo below which a wide Gaussian of it is left out.
LEAST_SHARE = 1e-4
#: The faint satellites take every second width alone.
SATELLITE_STEP = 2
#: A chart far from the poles.
_EQUATORIAL = 4 * 16 + 8
#: Pixels of a chart beyond what it owns that output pixels see.
MARGIN = 32
#: Cells by which haloes are found: sides of 110 arcmin.
FIND_NSIDE = 32


class HaloPainter:
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
    tsz_order
        None for tSZ as one map, "tsz". Otherwise it is "tsz_0" to "tsz_<order>", each halo times
        a power of its theta = k T / m_e c^2, for `mlsky.scaling.relativistic.relativistic_terms`.
    mass_cut
        With which the haloes were drawn.
    pixel_arcmin
        Of the charts on which they will be painted.
    geometry
        Output pixels over which `averaged` fields are averaged by `mlsky.sphere.charts.average`;
        None for values at points.
    averaged
        Names of those fields.
    kappa_gain
        Function of multipole by which the map of kappa will be multiplied later: its inverse is
        taken here, so that objects end as they are.
    """

    def __init__(
        self,
        haloes: HaloList,
        tables: dict,
        seed: int,
        fields: tuple[str, ...] = ("kappa", "tsz", "ksz", "cib"),
        cib_ghz: tuple[float, ...] = (REFERENCE_GHZ,),
        tsz_order: int | None = None,
        mass_cut: float = MASS_CUT,
        pixel_arcmin: float = 2.0,
        geometry: Geometry | None = None,
        averaged: tuple[str, ...] = ("tsz", "ksz"),
        kappa_gain: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
    ) -> None:
        import healpy

        cell = healpy.vec2pix(FIND_NSIDE, *haloes.vectors, nest=True)
        order = np.argsort(cell, kind="stable")
        self.haloes, self.tables, self.seed = haloes[order], tables, seed
        self._ends = np.searchsorted(cell[order], np.arange(12 * FIND_NSIDE**2 + 1))
        self.fields, self.cib_ghz, self.tsz_order = fields, cib_ghz, tsz_order
        self.geometry = geometry
        self.kappa_gain = kappa_gain
        self.averaged = averaged if geometry is not None else ()
        self.gaussians = Gaussians.of(tables, pixel_arcmin)
        self._at = Interpolation.of(tables, self.haloes.z, self.haloes.log10_mass, mass_cut)
        self._radius = self._at.positive(tables["theta_200m"])
        self._broad = np.flatnonzero(np.degrees(self._radius) * 60 > EXTENT * WIDE_ARCMIN)
        self.galaxies = members.Members(tables, seed, cib_ghz)
        self.terms = self._terms()
        self.wide = {name: Field(alm) for name, alm in self.wide_alm().items()}

    def _terms(self) -> dict[str, str]:
        """Kind of profile of every map."""
        names = {"tsz": tsz_names(self.tsz_order)}
        kinds = {"kappa": "nfw", "tsz": "y", "ksz": "tau"}
        terms = {
            name: kind
            for field, kind in kinds.items()
            if field in self.fields
            for name in names.get(field, (field,))
        }
        if "cib" in self.fields:
            terms |= dict.fromkeys(map_names(self.cib_ghz), "nfw")
        return terms

    def _flux(self, name: str, rows) -> NDArray[np.float32]:
        """Flux of haloes in a map: convergence or uK at 148 GHz, times steradians."""
        at = self._at[rows]
        kind = self.terms[name]
        if name.startswith("cib"):
            flux = at.positive(self.tables["small_satellites_uk_sr"])
            return flux * self.galaxies.colours(at)[map_names(self.cib_ghz).index(name)]
        flux = at.positive(self.gaussians.flux[kind])
        if name.startswith("tsz"):
            flux = flux * TSZ_148
            if self.tsz_order is not None:
                flux = flux * self._theta(at, rows) ** int(name[4:])
        elif name == "ksz":
            flux = flux * (-T_CMB_UK * self.haloes.velocity[rows])
        return flux

    def _theta(self, at: Interpolation, rows) -> NDArray[np.float64]:
        """k T / m_e c^2 of the gas of haloes, from their mass."""
        h = float(self.tables["header"]["cosmology"]["h"])
        temperature = relativistic.cluster_temperature_kev(
            at.positive(self.tables["m500c"]), expansion(self.tables, self.haloes.z[rows]), h
        )
        return relativistic.theta(temperature)

    def _widths(self, name: str) -> list[int]:
        """Numbers of the Gaussians of a map."""
        return list(range(0, len(self.gaussians.sigma_arcmin), self._step(name)))

    def _shares(self, name: str) -> NDArray[np.float32]:
        """Table (n_shell, n_mass, n_widths) of the Gaussians of a map."""
        share = self.gaussians.share[self.terms[name]]
        step = self._step(name)
        if step == 1:
            return share
        # a width that is left out is shared by its neighbours
        kept = np.zeros((len(self.gaussians.sigma_arcmin), len(self._widths(name))), np.float32)
        place = np.arange(len(kept)) / step
        low = np.minimum(place.astype(int), kept.shape[1] - 1)
        high = np.minimum(low + 1, kept.shape[1] - 1)
        kept[np.arange(len(kept)), low] += 1 - (place - low)
        kept[np.arange(len(kept)), high] += place - low
        return share @ kept

    @staticmethod
    def _step(name: str) -> int:
        return SATELLITE_STEP if name.startswith("cib") else 1

    def wide_alm(self) -> dict[str, NDArray[np.complex128]]:
        """Alm of the wide part of each map, healpy order."""
        import ducc0

        place = np.stack([self.haloes.theta, self.haloes.phi], 1)
        sigma = self.gaussians.sigma_arcmin

        def one(task) -> NDArray[np.complex128]:
            name, number, column = task
            lmax = int(np.ceil(BAND / np.radians(sigma[number] / 60)))
            share = self._at.linear(self._shares(name)[..., column])
            # distant haloes have next to nothing so wide
            some = np.flatnonzero(np.abs(share) > LEAST_SHARE)
            if not len(some):
                return np.zeros((lmax + 1) * (lmax + 2) // 2, np.complex128)
            values = share[some] * self._flux(name, some)
            # one thread: the bits of this transform depend on how many there are
            alm = ducc0.sht.adjoint_synthesis_general(
                map=np.ascontiguousarray(values, np.float64)[np.newaxis],
                loc=place[some],
                lmax=lmax,
                spin=0,
                epsilon=1e-5,
                nthreads=1,
            )[0]
            ell = np.arange(lmax + 1)
            factor = transform(sigma[number], ell)
            if name.split("_")[0] in self.averaged:
                middle = charts.charts(self.gaussians.pixel_arcmin)[_EQUATORIAL]
                factor *= square(ell, charts.part_arcmin(self.geometry, middle))
            if name == "kappa" and self.kappa_gain is not None:
                factor /= self.kappa_gain(ell.astype(np.float64))
            return gaussian.scale_alm(alm, factor)

        tasks = [
            (name, number, column)
            for name in self.terms
            for column, number in enumerate(self._widths(name))
            if sigma[number] >= WIDE_ARCMIN
        ]
        out: dict[str, NDArray[np.complex128]] = {}
        with ThreadPoolExecutor(threads()) as pool:
            # the narrowest of a map comes first: its band limit is that of the sum
            for (name, *_), alm in zip(tasks, pool.map(one, tasks), strict=True):
                if name in out:
                    _add_alm(out[name], alm)
                else:
                    out[name] = alm
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
            "kappa", "tsz", "ksz" and those of the CIB, named as
            `mlsky.frequency.cib_templates.map_names` does, (ny, nx) float32.
        sources
            As `mlsky.haloes.members.Members.sources`.
        """
        reach = EXTENT * WIDE_ARCMIN
        pad = int(np.ceil(reach / chart.pixel_arcmin))
        rows = self.near(chart, reach)
        rows, y, x = self._beside(chart, rows, np.full(len(rows), pad))
        made = self._narrow(chart, rows, y, x, pad)
        for name, field in self.wide.items():
            made[name] += refine.on_chart(field, chart, COARSE_ARCMIN)
        sources = {}
        if "cib" in self.fields or "radio" in self.fields:
            # members of the nearest haloes are farther from them than a narrow Gaussian reaches
            rows = np.union1d(rows, self._broad)
            beyond = np.maximum(reach, np.degrees(self._radius[rows]) * 60) / chart.pixel_arcmin
            rows, y, x = self._beside(chart, rows, beyond + 1)
            points, sources = self.galaxies.on(chart, self.haloes[rows], self._at[rows], y, x)
            if "cib" in self.fields:
                for name, values in zip(map_names(self.cib_ghz), points, strict=True):
                    made[name] += values
        return made, sources

    def _beside(self, chart: Chart, rows, beyond):
        """Those of some haloes on a chart or `beyond` pixels from it, and their places."""
        y, x = chart.project_vectors(self.haloes[rows].vectors)
        ny, nx = chart.shape
        inside = self.haloes[rows].vectors.T @ chart.rotation[2] > 0
        inside &= np.abs(y - (ny - 1) / 2) < ny / 2 + beyond
        inside &= np.abs(x - (nx - 1) / 2) < nx / 2 + beyond
        return rows[inside], y[inside], x[inside]

    def _narrow(self, chart: Chart, rows, y, x, pad: int) -> dict[str, NDArray[np.float32]]:
        """The narrow Gaussians of some haloes on the pixels of a chart."""
        import ducc0

        if not len(rows):
            return {name: np.zeros(chart.shape, np.float32) for name in self.terms}
        shape = tuple(8 * ducc0.fft.good_size(-(-(n + 2 * pad + 4) // 8)) for n in chart.shape)
        # a map of flux over pixels; chart pixels are smaller away from the centre
        away = (y - (chart.shape[0] - 1) / 2) ** 2 + (x - (chart.shape[1] - 1) / 2) ** 2
        area = chart.pixel_rad**2 / (1 + away * chart.pixel_rad**2 / 4) ** 2
        splines, made = {}, {}
        sigma = self.gaussians.sigma_arcmin
        at = self._at[rows]
        for name in self.terms:
            flux = self._flux(name, rows) / area
            narrow = [
                (c, sigma[n]) for c, n in enumerate(self._widths(name)) if sigma[n] < WIDE_ARCMIN
            ]
            share = at.linear(self._shares(name)[..., : len(narrow)])
            total = np.zeros((shape[0], shape[1] // 2 + 1), np.complex64)
            side = 0.0
            if name.split("_")[0] in self.averaged:
                side = charts.part_arcmin(self.geometry, chart) / chart.pixel_arcmin
            for column, width in narrow:
                level = _level(width / chart.pixel_arcmin)
                step = 1 << level
                grid = (shape[0] // step, shape[1] // step)
                if level not in splines:
                    splines[level] = _spline(
                        (y + pad + 0.5) / step - 0.5, (x + pad + 0.5) / step - 0.5, grid
                    )
                place, weight = splines[level]
                plane = np.bincount(
                    place, (weight * (share[:, column] * flux)).ravel(), grid[0] * grid[1]
                )
                modes = ducc0.fft.r2c(
                    plane.astype(np.float32).reshape(grid), axes=(0, 1), forward=True, nthreads=1
                )
                _add_modes(total, modes, _gaussian(width / chart.pixel_arcmin, level, shape))
            total *= _band(side, shape)
            if name == "kappa" and self.kappa_gain is not None:
                ky, kx = np.fft.fftfreq(shape[0])[:, np.newaxis], np.fft.rfftfreq(shape[1])
                total /= self.kappa_gain(2 * np.pi * np.hypot(ky, kx) / chart.pixel_rad)
            back = ducc0.fft.c2r(
                total, axes=(0, 1), forward=False, lastsize=shape[1], inorm=2, nthreads=1
            )
            made[name] = back[pad : pad + chart.shape[0], pad : pad + chart.shape[1]].copy()
        return made


def tsz_names(order: int | None) -> tuple[str, ...]:
    """Names of the maps of tSZ, see `HaloPainter`."""
    return ("tsz",) if order is None else tuple(f"tsz_{n}" for n in range(order + 1))


def _level(width: float) -> int:
    """Halvings of the pixels that still hold a Gaussian of this sigma (in pixels), at most 3."""
    return int(np.clip(np.floor(np.log2(max(width * SAMPLING, 1.0))), 0, 3))


def _spline(y, x, shape: tuple[int, int]):
    """Flat pixels (16 n,) and weights (16, n) that share out points by cubic B-splines."""
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
    return place.ravel(), weight.reshape(16, -1)


def _gaussian(width: float, level: int, shape: tuple[int, int]) -> list[NDArray[np.complex64]]:
    """Factors by row and by column of a coarse grid that make Gaussians of sums of splines.

    `width` is the sigma of the Gaussian in pixels of the fine grid, whose shape it is.
    """
    step = 1 << level
    ky, kx = np.fft.fftfreq(shape[0] // step), np.fft.rfftfreq(shape[1] // step)
    out = []
    for k in (ky, kx):
        factor = np.exp(-0.5 * (2 * np.pi * k / step * width) ** 2) / np.sinc(k) ** 4
        # from the centres of the coarse pixels to those of the fine ones
        factor = factor * np.exp(-1j * np.pi * (step - 1) * k / step)
        factor[len(k) // 2 if k is ky else -1] = 0
        out.append(factor.astype(np.complex64))
    return out


@functools.lru_cache(maxsize=8)
def _band(side: float, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Half plane that ends the band alike in every direction, times the window of a square.

    `side` is that of the square over which a map is averaged, in pixels; 0 for none.
    """
    fine = np.hypot(np.fft.fftfreq(shape[0])[:, np.newaxis], np.fft.rfftfreq(shape[1]))
    k = np.linspace(0, np.sqrt(0.5), NODES)  # waves per pixel
    fade = np.clip((FADE[1] - 2 * k) / (FADE[1] - FADE[0]), 0, 1)
    band = 0.5 - 0.5 * np.cos(np.pi * fade)
    if side:
        # a pixel of unit multipoles is a radian wide
        band *= square(2 * np.pi * k, np.degrees(side) * 60)
    return np.interp(fine, k, band).astype(np.float32)


def _add_modes(total: NDArray, modes: NDArray, factors: list[NDArray]) -> None:
    """Add the modes of a coarse grid, times factors, to those of a fine one of the same period."""
    modes *= factors[0][:, np.newaxis]
    modes *= factors[1]
    half, width = modes.shape[0] // 2, modes.shape[1]
    total[:half, :width] += modes[:half]
    total[-half:, :width] += modes[half:]


def _add_alm(total: NDArray, alm: NDArray) -> None:
    """Add alm of a lower band limit, healpy order."""
    top, lmax = gaussian.alm_lmax(total), gaussian.alm_lmax(alm)
    for m in range(lmax + 1):
        start, own = m * (2 * top + 1 - m) // 2, m * (2 * lmax + 1 - m) // 2
        total[start + m : start + lmax + 1] += alm[own + m : own + lmax + 1]


def maps(
    haloes: HaloList, tables: dict, seed: int, geometry: Geometry, pixel_arcmin: float, **options
) -> dict[str, NDArray[np.float32]]:
    """Maps of haloes alone, averages over the output pixels as in a sky.

    Parameters
    ----------
    haloes, tables, seed, options
        As for `HaloPainter`.
    geometry
        Output pixels.
    pixel_arcmin
        Of the charts on which they are painted.

    Returns
    -------
    maps
        "kappa", "tsz", "ksz" and those of the CIB, (*shape,) float32.
    """
    fields = ("kappa", "tsz", "ksz")
    objects = HaloPainter(
        haloes,
        tables,
        seed,
        pixel_arcmin=pixel_arcmin,
        geometry=geometry,
        averaged=fields,
        **options,
    )
    out = {name: np.zeros(geometry.npix, np.float32) for name in objects.terms}
    smooth = [name for name in out if name.split("_")[0] in fields]
    others = [name for name in out if name not in smooth]

    def one(chart: Chart) -> None:
        owned = charts.owned(chart, geometry)
        if not owned.size:
            return
        made, _ = objects.on(chart)
        for names, sample in ((smooth, charts.average), (others, charts.resample)):
            if names:
                stack = np.stack([made[name] for name in names])
                for name, values in zip(names, sample(chart, stack, geometry, owned), strict=True):
                    out[name][owned] = values

    with ThreadPoolExecutor(threads()) as pool:
        for _ in pool.map(one, charts.charts(pixel_arcmin, margin=MARGIN)):
            pass
    return {name: values.reshape(geometry.shape) for name, values in out.items()}
