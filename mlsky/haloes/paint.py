"""Haloes painted whole on the charts of the sky, in every field.

A profile is a sum of Gaussians (`mlsky.haloes.profiles.Gaussians`). The widest ones have few
multipoles and are summed as harmonics on the sphere. The others are painted chart by chart
(`mlsky.haloes.kernels`), wide ones on coarser pixels. The sum is the complete profile, without a
cut-off or a seam.
"""

from __future__ import annotations

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.components import REFERENCE_GHZ, maps_of
from mlsky.frequency import relativistic
from mlsky.frequency.cib_templates import map_names
from mlsky.haloes import kernels, members
from mlsky.haloes.draw import HaloList, expansion
from mlsky.haloes.painter import TSZ_148
from mlsky.haloes.profiles import Gaussians, Interpolation, transform
from mlsky.sphere import charts, gaussian, refine, resampling
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
WIDE_ARCMIN = 20.0
#: The transform of a Gaussian is cut off at this many times 1 / sigma, where it is 1e-4.
BAND = 4.3
#: Largest pixels on which wide Gaussians are painted, and on which the harmonics are evaluated:
#: Gaussians are at least as wide as `kernels.SAMPLING` requires, and three pixels wide.
COARSE_ARCMIN, HARMONIC_ARCMIN = 4.0, 8.0
#: Coarse pixels around a chart: two for a cubic spline.
PADDING = 2
#: Maps are tapered between the band limit of the finest output pixels for which such charts are
#: used (3 nside at 0.58 chart pixels per pixel) and the highest multipole of the chart pixels, so
#: that cores narrower than a pixel do not ring.
FADE = (0.57, 0.8)
#: Wave numbers between which the filters of a map are interpolated.
NODES = 4096
#: Fraction of the flux of a halo below which one of its wide Gaussians is left out.
LEAST_FRACTION = 1e-4
#: A chart far from the poles.
_EQUATORIAL = 4 * 16 + 8
#: Pixels around the owned area of a chart that output pixels depend on.
MARGIN = 32
#: Cells of the index of haloes: sides of 110 arcmin.
FIND_NSIDE = 32


class HaloPainter:
    """Painter of the objects of a sky.

    Parameters
    ----------
    haloes
        From `mlsky.haloes.draw`, or given by the user.
    tables
        From `mlsky.haloes.tables`.
    seed
        Of the sky, for the galaxies.
    fields
        Of "kappa", "tsz", "ksz", "cib", "radio": what to paint.
    cib_ghz
        Frequencies of the maps of the CIB, the first of them 148 GHz.
    tsz_order
        None for tSZ as one map, "tsz". Otherwise it is "tsz_0" to "tsz_<order>", each halo times
        a power of its theta = k T / m_e c^2, for `mlsky.frequency.relativistic.relativistic_terms`.
    mass_cut
        With which the haloes were drawn.
    pixel_arcmin
        Of the charts on which they will be painted.
    geometry
        Output pixels over which `averaged` fields are averaged
        (`mlsky.sphere.resampling.average`); None for values at points.
    averaged
        Names of those fields.
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
    ) -> None:
        import healpy

        cell = healpy.ang2pix(FIND_NSIDE, haloes.theta, haloes.phi, nest=True)
        order = np.argsort(cell.astype(np.int16), kind="stable")  # a radix sort
        self.haloes, self.tables, self.seed = haloes[order], tables, seed
        self._vectors = self.haloes.vectors.T.copy()
        ends = np.cumsum(np.bincount(cell, minlength=12 * FIND_NSIDE**2))
        self._ends = np.append(0, ends)
        self.fields, self.cib_ghz, self.tsz_order = fields, cib_ghz, tsz_order
        self.geometry = geometry
        self.averaged = averaged if geometry is not None else ()
        self.gaussians = Gaussians.of(tables, pixel_arcmin)
        self._at = Interpolation.of(tables, self.haloes.z, self.haloes.log10_mass, mass_cut)
        self._radius = self._at.positive(tables["theta_200m"])
        #: haloes whose members may lie farther from a chart than the haloes that `on` searches
        self._broad = np.flatnonzero(np.degrees(self._radius) * 60 > self._radius_arcmin())
        self.galaxies = members.Members(tables, seed, cib_ghz)
        self.terms = self._terms()
        wide = self.wide_alm()
        #: fields of the wide part of the maps, in the order of `terms`; None if nothing is wide
        self.wide = Field(np.stack([wide[name] for name in self.terms])) if wide else None

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
        """Flux of haloes in a map: convergence or uK at 148 GHz, times steradian."""
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

    def _radius_arcmin(self) -> float:
        """Radius at which the widest Gaussian painted on charts ends."""
        sigma = self.gaussians.sigma_arcmin
        return kernels.EXTENT * float(sigma[sigma < WIDE_ARCMIN].max(initial=0))

    def wide_alm(self) -> dict[str, NDArray[np.complex128]]:
        """Alm of the wide part of each map, healpy order."""
        place = np.stack([self.haloes.theta, self.haloes.phi], 1)
        sigma = self.gaussians.sigma_arcmin

        def one(task) -> NDArray[np.complex128]:
            name, number = task
            lmax = int(np.ceil(BAND / np.radians(sigma[number] / 60)))
            fraction = self._at.linear(self.gaussians.fraction[self.terms[name]][..., number])
            # distant haloes have almost no flux at such widths
            some = np.flatnonzero(np.abs(fraction) > LEAST_FRACTION)
            if not len(some):
                return np.zeros((lmax + 1) * (lmax + 2) // 2, np.complex128)
            alm = _alm(fraction[some] * self._flux(name, some), place[some], lmax)
            ell = np.arange(lmax + 1)
            factor = transform(sigma[number], ell)
            if maps_of([name], *self.averaged):
                middle = charts.charts(self.gaussians.pixel_arcmin)[_EQUATORIAL]
                factor *= square(ell, resampling.part_arcmin(self.geometry, middle))
            return gaussian.scale_alm(alm, factor)

        tasks = [
            (name, number) for name in self.terms for number in np.flatnonzero(sigma >= WIDE_ARCMIN)
        ]
        out: dict[str, NDArray[np.complex128]] = {}
        with ThreadPoolExecutor(threads()) as pool:
            # the narrowest one of a map comes first, as its band limit is that of the sum
            for (name, *_), alm in zip(tasks, pool.map(one, tasks), strict=True):
                if name in out:
                    _add_alm(out[name], alm)
                else:
                    out[name] = alm
        return out

    def alm(self, name: str, lmax: int) -> NDArray[np.complex128]:
        """Alm of a map of the haloes as points, healpy order: its large scales."""
        place = np.stack([self.haloes.theta, self.haloes.phi], 1)
        return _alm(self._flux(name, slice(None)), place, lmax)

    def near(self, chart: Chart, padding_arcmin: float) -> NDArray[np.int64]:
        """Rows of the haloes in a chart or up to `padding_arcmin` outside its edge."""
        import healpy

        ny, nx = chart.shape
        radius = np.hypot(ny, nx) / 2 * chart.pixel_rad + np.radians(padding_arcmin / 60)
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
        radius = self._radius_arcmin()
        rows = self.near(chart, radius)
        place = self._places(chart, rows)
        rows, y, x = _beside(chart, rows, *place, radius / chart.pixel_arcmin)
        made = self._smooth(chart, rows, y, x)
        sources = {}
        if "cib" in self.fields or "radio" in self.fields:
            rows = np.union1d(rows, self._broad)
            padding = np.degrees(self._radius[rows]) * 60 / chart.pixel_arcmin + 1
            rows, y, x = _beside(chart, rows, *self._places(chart, rows), padding)
            points, sources = self.galaxies.on(chart, self.haloes[rows], self._at[rows], y, x)
            if "cib" in self.fields:
                for name, values in zip(map_names(self.cib_ghz), points, strict=True):
                    made[name] += values
        return made, sources

    def _places(self, chart: Chart, rows) -> tuple[NDArray, NDArray]:
        """Positions of haloes in the pixels of a chart; NaN on the opposite side of the sky."""
        vectors = self._vectors[rows].T
        y, x = chart.project_vectors(vectors)
        behind = chart.rotation[2] @ vectors <= 0
        y[behind] = np.nan
        return y, x

    def _smooth(self, chart: Chart, rows, y, x) -> dict[str, NDArray[np.float32]]:
        """Profiles of haloes at given pixels of a chart or near it."""
        # a map of flux over pixels; chart pixels are smaller away from the centre
        away = (y - (chart.shape[0] - 1) / 2) ** 2 + (x - (chart.shape[1] - 1) / 2) ** 2
        area = chart.pixel_rad**2 / (1 + away * chart.pixel_rad**2 / 4) ** 2
        flux = {name: self._flux(name, rows) / area for name in self.terms}
        sigma = self.gaussians.sigma_arcmin
        coarse = _coarser(chart, COARSE_ARCMIN)
        factor = chart.shape[0] // coarse.shape[0]
        narrow = sigma < WIDE_ARCMIN
        apart = narrow & (sigma * kernels.SAMPLING >= coarse.pixel_arcmin) & (factor > 1)
        made = self._painted(chart, rows, y, x, flux, np.flatnonzero(narrow & ~apart))
        if factor == 1:
            if self.wide is not None:
                fields = refine.on_chart(self.wide, chart, HARMONIC_ARCMIN)
                for name, values in zip(self.terms, fields, strict=True):
                    made[name] += values
            return made
        y, x = ((v + 0.5) / factor - 0.5 for v in (y, x))
        flux = {name: values / factor**2 for name, values in flux.items()}
        wider = self._painted(coarse, rows, y, x, flux, np.flatnonzero(apart), PADDING)
        if self.wide is not None:
            fields = _smooth_spline(self.wide, coarse)
            for name, values in zip(self.terms, fields, strict=True):
                wider[name] += values
        for name, values in wider.items():
            made[name] += kernels.spline_upsample(values, factor)
        return made

    def _painted(
        self, chart: Chart, rows, y, x, flux: dict, widths, padding: int = 0
    ) -> dict[str, NDArray[np.float32]]:
        """Gaussians of some widths on a chart with `padding` more pixels on each side.

        With `padding` the result is coefficients of cubic splines, otherwise values.
        """
        shape = tuple(n + 2 * padding for n in chart.shape)
        sigma = self.gaussians.sigma_arcmin[widths] / chart.pixel_arcmin
        some = np.arange(len(rows))
        if len(widths):
            radius = kernels.EXTENT * sigma.max() + padding
            some, y, x = _beside(chart, some, y, x, radius)
        if not len(some) or not len(widths):
            return {name: np.zeros(shape, np.float32) for name in self.terms}
        grid = kernels.KernelGrid(chart.shape, y, x, sigma.max(), padding)
        at = self._at[rows[some]]
        fraction = {
            kind: at.linear(self.gaussians.fraction[kind][..., widths]).T
            for kind in set(self.terms.values())
        }
        side = 0.0
        if self.averaged:
            side = resampling.part_arcmin(self.geometry, chart) / chart.pixel_arcmin
        values = np.stack([fraction[kind] * flux[name][some] for name, kind in self.terms.items()])
        made = {}
        for name, modes in zip(self.terms, grid.modes(values, sigma), strict=True):
            averaged = side if maps_of([name], *self.averaged) else 0.0
            modes *= _transfer(grid.shape, averaged, padding > 0)
            made[name] = grid.image(modes)
        return made


def _alm(flux, place: NDArray[np.float64], lmax: int) -> NDArray[np.complex128]:
    """Alm of points of some flux at colatitudes and longitudes (n, 2), healpy order."""
    import ducc0

    return ducc0.sht.adjoint_synthesis_general(
        map=np.ascontiguousarray(flux, np.float64)[np.newaxis],
        loc=place,
        lmax=lmax,
        spin=0,
        epsilon=1e-5,
        nthreads=1,  # the bits of this transform depend on how many there are
    )[0]


def tsz_names(order: int | None) -> tuple[str, ...]:
    """Names of the maps of tSZ, see `HaloPainter`."""
    return ("tsz",) if order is None else tuple(f"tsz_{n}" for n in range(order + 1))


def _beside(chart: Chart, rows, y, x, padding):
    """The haloes on a chart or up to `padding` pixels outside, and their positions."""
    ny, nx = chart.shape
    inside = np.abs(y - (ny - 1) / 2) < ny / 2 + padding  # not of those at NaN
    inside &= np.abs(x - (nx - 1) / 2) < nx / 2 + padding
    return rows[inside], y[inside], x[inside]


def _coarser(chart: Chart, most_arcmin: float) -> Chart:
    """The chart on pixels larger by a power of two, up to `most_arcmin`, with even sides."""
    factor = 1
    while chart.pixel_arcmin * 2 * factor <= most_arcmin and not (
        chart.shape[0] | chart.shape[1]
    ) % (4 * factor):
        factor *= 2
    return dataclasses.replace(
        chart,
        shape=tuple(n // factor for n in chart.shape),
        pixel_arcmin=chart.pixel_arcmin * factor,
    )


def _smooth_spline(field: Field, chart: Chart) -> NDArray[np.float32]:
    """Cubic spline coefficients of smooth fields on a chart with `PADDING` on each side."""
    more = 2 * PADDING
    larger = dataclasses.replace(chart, shape=tuple(n + 2 * more for n in chart.shape))
    f = refine.on_chart(field, larger, HARMONIC_ARCMIN)
    curvature = np.zeros_like(f)
    curvature[:, 1:-1] += f[:, 2:] + f[:, :-2] - 2 * f[:, 1:-1]
    curvature[:, :, 1:-1] += f[:, :, 2:] + f[:, :, :-2] - 2 * f[:, :, 1:-1]
    # the filter from values to coefficients, 3 / (2 + cos k), to first order in k^2
    return (f - curvature / 6)[:, PADDING:-PADDING, PADDING:-PADDING]


@functools.lru_cache(maxsize=12)
def _transfer(shape: tuple[int, int], side: float, spline: bool) -> NDArray[np.float32]:
    """Half plane of filters of a map.

    `side` is that of the square over which a map is averaged, in pixels; 0 for none. Values
    (`spline` false) have a round band limit; spline coefficients are of Gaussians without power
    there.
    """
    fine = np.hypot(np.fft.fftfreq(shape[0])[:, np.newaxis], np.fft.rfftfreq(shape[1]))
    k = np.linspace(0, np.sqrt(0.5), NODES)  # waves per pixel
    band = np.ones(NODES)
    if not spline:
        fade = np.clip((FADE[1] - 2 * k) / (FADE[1] - FADE[0]), 0, 1)
        band = 0.5 - 0.5 * np.cos(np.pi * fade)
    if side:
        # a pixel of unit multipoles is a radian wide
        band *= square(2 * np.pi * k, np.degrees(side) * 60)
    out = np.interp(fine, k, band).astype(np.float32)
    return out * kernels.spline_factor(shape) if spline else out


def _add_alm(total: NDArray, alm: NDArray) -> None:
    """Add alm of a lower band limit, healpy order."""
    top, lmax = gaussian.alm_lmax(total), gaussian.alm_lmax(alm)
    for m in range(lmax + 1):
        start, own = m * (2 * top + 1 - m) // 2, m * (2 * lmax + 1 - m) // 2
        total[start + m : start + lmax + 1] += alm[own + m : own + lmax + 1]


def maps(
    haloes: HaloList, tables: dict, seed: int, geometry: Geometry, pixel_arcmin: float, **options
) -> dict[str, NDArray[np.float32]]:
    """Maps of haloes only, averaged over the output pixels as in a sky.

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
    smooth = maps_of(out, *fields)
    others = [name for name in out if name not in smooth]

    def one(chart: Chart) -> None:
        owned = charts.owned(chart, geometry)
        if not owned.size:
            return
        made, _ = objects.on(chart)
        for names, sample in ((smooth, resampling.average), (others, resampling.resample)):
            if names:
                stack = np.stack([made[name] for name in names])
                for name, values in zip(names, sample(chart, stack, geometry, owned), strict=True):
                    out[name][owned] = values

    with ThreadPoolExecutor(threads()) as pool:
        for _ in pool.map(one, charts.charts(pixel_arcmin, margin=MARGIN)):
            pass
    return {name: values.reshape(geometry.shape) for name, values in out.items()}
