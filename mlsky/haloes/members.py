"""Galaxies of the haloes of a sky: infrared ones, and radio sources.

The laws are those of the patch painter (`mlsky.haloes.galaxies`). Every random number depends on
the halo and on the number of the galaxy in it, so that two charts with the same cluster have the
same galaxies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky import seeds
from mlsky.components import REFERENCE_GHZ
from mlsky.frequency.bands import jy_per_sr_per_uk
from mlsky.haloes.draw import HaloList
from mlsky.haloes.galaxies import Colours, nfw_radii
from mlsky.haloes.profiles import Interpolation
from mlsky.sources.counts import draw_radio_flux, radio_density
from mlsky.theory.radio_sources import host_rate

if TYPE_CHECKING:
    from mlsky.sphere.charts import Chart

__all__ = ["Members"]

#: Quantities of a halo and of its galaxies, numbered after those of `mlsky.haloes.draw`.
SATELLITES, RADIO, FLUX, BETA, SUBHALO, RADIUS, COSINE, ANGLE, RADIO_FLUX = range(16, 25)
#: Tabulated concentrations, and quantiles of the radii of satellites.
CONCENTRATIONS, QUANTILES = np.geomspace(1, 30, 60), 512


class Members:
    """Draws the galaxies of haloes.

    Parameters
    ----------
    tables
        From `mlsky.haloes.tables`.
    seed
        Of the sky; the stream is "clusters".
    cib_ghz
        Frequencies of the maps of the CIB.
    """

    def __init__(self, tables: dict, seed: int, cib_ghz: tuple[float, ...]) -> None:
        self.tables, self.seed, self.cib_ghz = tables, seed, cib_ghz
        self.colour = Colours(tables)
        self._shells = [self.colour.shells(nu) for nu in cib_ghz]
        reference = jy_per_sr_per_uk(REFERENCE_GHZ)
        self._to_uk = [float(reference / jy_per_sr_per_uk(nu)) for nu in cib_ghz]
        self._radii = nfw_radii(CONCENTRATIONS, (np.arange(QUANTILES) + 0.5) / QUANTILES)
        density = radio_density() * self.colour.parameters.radio_counts
        z, mass = (np.asarray(tables[k], np.float64) for k in ("z", "log10_mass"))
        self._radio_rate = host_rate(z, mass, tables["number"], density)

    def colours(self, at: Interpolation) -> list[NDArray[np.float32]]:
        """Ratio of the brightness of the mean galaxy (uK_CMB) to that at 148 GHz, (n,) each."""
        return [
            at.by_shell(ratio * to_uk)
            for ratio, to_uk in zip(self._shells, self._to_uk, strict=True)
        ]

    def _uniform(self, *integers) -> NDArray[np.float64]:
        return seeds.uniform(self.seed, "clusters", *integers)

    def _lognormal(self, use: int, key, number) -> NDArray[np.float64]:
        """Of mean 1, with the scatter of the fluxes."""
        scatter = float(self.tables["scatter"])
        normal = seeds.normal(self.seed, "clusters", np.uint64(use), key, number)
        return np.exp(scatter * normal - 0.5 * scatter**2)

    def infrared(self, haloes: HaloList, at: Interpolation):
        """Infrared galaxies, the centrals (one per halo) first, then the satellites.

        Returns
        -------
        host, number : (n,)
            Row of the host, and number within it, 0 for the central.
        flux
            uK sr at 148 GHz.
        beta
            Offset of the emissivity index.
        dy, dx
            Offset from the centre of the host in the plane of the sky, rad.
        """
        t, n = self.tables, len(haloes)
        key = haloes.key
        mean = at.by_mass(t["satellite_number"])
        count = seeds.poisson(self._uniform(np.uint64(SATELLITES), key), mean)
        host = np.repeat(np.arange(n), count)
        number = np.arange(len(host)) - np.repeat(np.cumsum(count) - count, count) + 1
        number = number.astype(np.uint64)
        sat_key, sat = key[host], at[host]
        inverse = t["satellite_inverse"]
        quantile = (self._uniform(np.uint64(SUBHALO), sat_key, number) * inverse.shape[1]).astype(
            int
        )
        nearest = np.clip(
            np.rint(sat.mass + sat.mass_fraction).astype(np.int64), 0, len(t["log10_mass"]) - 1
        )
        sub = inverse[nearest, quantile]
        by_sub = np.log(np.maximum(t["satellite_uk_sr"], 1e-30))
        v = sat.shell_fraction
        flux = np.exp(by_sub[sat.shell, sub] * (1 - v) + by_sub[sat.shell + 1, sub] * v)
        c = at.positive(t["concentration"])
        row = np.rint(
            np.interp(np.log(c), np.log(CONCENTRATIONS), np.arange(len(CONCENTRATIONS)))
        ).astype(int)
        u = (self._uniform(np.uint64(RADIUS), sat_key, number) * QUANTILES).astype(int)
        radius = self._radii[row[host], u] * at.positive(t["theta_200m"])[host]
        cosine = 2 * self._uniform(np.uint64(COSINE), sat_key, number) - 1
        radius *= np.sqrt(1 - cosine**2)
        angle = 2 * np.pi * self._uniform(np.uint64(ANGLE), sat_key, number)
        host = np.concatenate([np.arange(n), host])
        number = np.concatenate([np.zeros(n, np.uint64), number])
        flux = np.concatenate([at.positive(t["central_uk_sr"]), flux])
        flux = flux * self._lognormal(FLUX, key[host], number)
        beta = self.colour.scatter * seeds.normal(
            self.seed, "clusters", np.uint64(BETA), key[host], number
        )
        zero = np.zeros(n)
        dy = np.concatenate([zero, radius * np.cos(angle)])
        dx = np.concatenate([zero, radius * np.sin(angle)])
        return host, number, flux, beta, dy, dx

    def radio(self, haloes: HaloList, at: Interpolation):
        """Radio sources, which lie at the centres of their hosts.

        Returns
        -------
        host, number : (n,)
            Row of the host, and number within it.
        flux_mjy
            At 148 GHz.
        """
        key = haloes.key
        shell, mass = (np.rint(v).astype(np.int64) for v in at.place)
        shell = np.clip(shell, 0, len(self._radio_rate) - 1)
        mass = np.clip(mass, 0, self._radio_rate.shape[1] - 1)
        mean = self._radio_rate[shell, mass]
        count = seeds.poisson(self._uniform(np.uint64(RADIO), key), mean)
        host = np.repeat(np.arange(len(haloes)), count)
        number = np.arange(len(host)) - np.repeat(np.cumsum(count) - count, count)
        u = self._uniform(np.uint64(RADIO_FLUX), key[host], number.astype(np.uint64))
        return host, number, draw_radio_flux(u)

    def factor(self, nu_ghz: float, beta: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ratio of the flux of galaxies to that of the mean galaxy of their shell; 1 on average."""
        lever = np.log(nu_ghz / REFERENCE_GHZ)
        return np.exp(beta * lever - 0.5 * (self.colour.scatter * lever) ** 2)

    def on(self, chart: Chart, haloes: HaloList, at: Interpolation, y, x):
        """Maps of the infrared galaxies on a chart, and the sources that it owns.

        Parameters
        ----------
        haloes, at, y, x
            Haloes near the chart, and their positions in its pixels.

        Returns
        -------
        maps
            (nfreq, ny, nx), uK_CMB at each frequency, of galaxies fainter than the flux cut of the
            tables.
        sources
            "vectors" (3, n), "flux" (n,; mJy at 148 GHz), "dsfg" (n,) and "number" (n,): radio
            sources, and infrared galaxies above the flux cut.
        """
        host, number, flux, beta, dy, dx = self.infrared(haloes, at)
        away = (y - (chart.shape[0] - 1) / 2) ** 2 + (x - (chart.shape[1] - 1) / 2) ** 2
        side = chart.pixel_rad / (1 + away * chart.pixel_rad**2 / 4)
        gy, gx = y[host] + dy / side[host], x[host] + dx / side[host]
        row, column = np.rint(gy).astype(np.int64), np.rint(gx).astype(np.int64)
        inside = (row >= 0) & (row < chart.shape[0]) & (column >= 0) & (column < chart.shape[1])
        bright = inside & (flux >= float(self.tables["flux_cut_uk_sr"]))
        kept = inside & ~bright
        row, column = row[kept], column[kept]
        pixel = row * chart.shape[1] + column
        # intensity: the pixels are smaller away from the centre
        away = (row - (chart.shape[0] - 1) / 2) ** 2 + (column - (chart.shape[1] - 1) / 2) ** 2
        intensity = flux[kept] * ((1 + away * chart.pixel_rad**2 / 4) / chart.pixel_rad) ** 2
        maps = np.empty((len(self.cib_ghz), *chart.shape), np.float32)
        for i, (nu, mean) in enumerate(zip(self.cib_ghz, self.colours(at), strict=True)):
            value = intensity * mean[host[kept]] * self.factor(nu, beta[kept])
            maps[i] = np.bincount(pixel, value, chart.npix).reshape(chart.shape)
        mjy = flux[bright] / float(self.tables["uk_per_jy_sr"]) * 1e3
        dsfg = self._sources(
            chart, haloes, host[bright], number[bright], mjy, gy[bright], gx[bright]
        )
        host, number, mjy = self.radio(haloes, at)
        radio = self._sources(chart, haloes, host, number, mjy, y[host], x[host])
        dsfg["dsfg"], radio["dsfg"] = (np.full(len(s["flux"]), s is dsfg) for s in (dsfg, radio))
        return maps, {k: np.concatenate([radio[k], dsfg[k]], -1) for k in radio}

    @staticmethod
    def _sources(chart: Chart, haloes: HaloList, host, number, mjy, y, x) -> dict:
        """The sources that a chart owns."""
        import healpy

        from mlsky.sphere import charts

        vectors = chart.vectors_at(y, x)
        mine = healpy.vec2pix(charts.NSIDE, *vectors, nest=True) == chart.index
        # bit 62 tells members of haloes from sources of cells
        name = (np.uint64(1) << np.uint64(62)) | (haloes.key[host[mine]] << np.uint64(16))
        return {
            "vectors": vectors[:, mine],
            "flux": mjy[mine],
            "number": (name | number[mine].astype(np.uint64)).astype(np.int64),
        }
