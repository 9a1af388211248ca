"""Infrared and radio galaxies of painted haloes: hosts, fluxes and colours."""

from __future__ import annotations

import math

import numpy as np
import torch

from mlsky.components import REFERENCE_GHZ
from mlsky.frequency import bands, radio
from mlsky.haloes import keyed
from mlsky.haloes.abundance import VELOCITY, poisson
from mlsky.haloes.densities import Grid
from mlsky.sources.catalogue import KINDS, POL_MEAN_SQUARE, draw_polarised_fraction
from mlsky.sources.counts import draw_radio_flux, radio_density
from mlsky.theory.halo_model import Parameters
from mlsky.theory.infrared import colour
from mlsky.theory.radio_sources import host_rate

__all__ = ["SOURCE_COLUMNS", "Colours", "Galaxies"]

#: Columns of the sources of a region: place in pixels (the centre of the first is at 0.5, 0.5),
#: flux at 148 GHz (mJy), kind (place in `mlsky.sources.catalogue.KINDS`), index of the flux at
#: 148 GHz, polarised fraction, polarisation angle (deg, COSMO convention on axes y south, x east).
SOURCE_COLUMNS = ("y", "x", "flux_mjy", "kind", "alpha", "pol_frac", "pol_angle")

#: Quantities that the key of a halo decides, after those of `mlsky.haloes.abundance`: numbers of
#: its galaxies, and the sets of their keys; then those of a galaxy, of which centrals have their
#: halo's key.
SATELLITES, SATELLITE, RADIO_SOURCES, RADIO_SOURCE = range(VELOCITY + 1, VELOCITY + 5)
FLUX, INDEX, POL_FRACTION, POL_ANGLE, SUBHALO, RADIUS, COS, ANGLE = range(
    RADIO_SOURCE + 1, RADIO_SOURCE + 9
)


def nfw_radii(concentration: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Radii (in R200m) that enclose a fraction `u` of the mass of an NFW halo, (n_c, n_u)."""
    x = np.linspace(1e-4, 1, 2000)

    def mass(c, x):
        return np.log1p(c * x) - c * x / (1 + c * x)

    return np.array([np.interp(u, mass(c, x) / mass(c, 1.0), x) for c in concentration])


class Colours:
    """Fluxes of infrared galaxies at other frequencies, relative to 148 GHz.

    Parameters
    ----------
    t
        Painter tables.
    """

    def __init__(self, t: dict) -> None:
        self.z = t["z"].astype(np.float64)
        self.parameters = Parameters(**t["header"]["parameters"])
        self.scatter = self.parameters.cib_beta_scatter

    def shells(self, nu_ghz: float) -> np.ndarray:
        """Ratio of mean fluxes, (n_shell,)."""
        return colour(nu_ghz, self.z, self.parameters)

    def index(self) -> np.ndarray:
        """d ln S / d ln nu at 148 GHz of the mean galaxy of each shell, (n_shell,)."""
        step = 1e-3
        up, down = (self.shells(REFERENCE_GHZ * math.exp(s)) for s in (step, -step))
        return np.log(up / down) / (2 * step)

    def galaxy(self, nu_ghz: float, beta: torch.Tensor) -> torch.Tensor:
        """Factor of a galaxy with an emissivity index `beta` off the mean; 1 on average."""
        lever = math.log(nu_ghz / REFERENCE_GHZ)
        return torch.exp(beta * lever - 0.5 * (self.scatter * lever) ** 2)

    def coherence(self, nu_1: float, nu_2: float) -> float:
        """Mean of the product of `galaxy` at two frequencies."""
        levers = [math.log(nu / REFERENCE_GHZ) for nu in (nu_1, nu_2)]
        return math.exp(self.scatter**2 * levers[0] * levers[1])


class Galaxies:
    """Draws the galaxies of haloes; haloes are rows (shell, mass) of the tables.

    Parameters
    ----------
    t
        Painter tables.
    grid
        Of the region.
    """

    def __init__(self, t: dict, grid: Grid) -> None:
        self.n, self.pixel, self.device = grid.n, grid.pixel, grid.device
        self._tensor = grid.tensor
        ns = len(t["z"])
        for name in ("central_uk_sr", "theta_200m"):
            setattr(self, name, self._tensor(t[name].reshape(-1)))
        self.satellite_number = self._tensor(np.tile(t["satellite_number"], ns))
        # flux by shell and sub-halo, sub-halo by mass and quantile
        self.n_sub = t["satellite_uk_sr"].shape[1]
        self.n_quantile = t["satellite_inverse"].shape[1]
        self.satellite_inverse = self._tensor(t["satellite_inverse"].ravel(), torch.int32)
        self.satellite_uk_sr = self._tensor(t["satellite_uk_sr"].ravel())
        c = np.geomspace(1, 30, 60)
        radii = nfw_radii(c, (np.arange(512) + 0.5) / 512)
        self.n_radius = radii.shape[1]
        self.nfw_inverse = self._tensor((radii / grid.pixel).ravel())
        c_bin = np.abs(np.log(t["concentration"].reshape(-1, 1)) - np.log(c)).argmin(-1)
        self.c_row = self._tensor(c_bin * self.n_radius, torch.int32)
        self.scatter = float(t["scatter"])
        self.colours = Colours(t)
        self.index = self._tensor(self.colours.index())
        self._set_up_radio(t)

    def _set_up_radio(self, t: dict) -> None:
        # inverse CDF of the counts, with dense sampling of the few bright sources
        tail = 1 - np.geomspace(1, 1e-9, 4096)
        self.radio_u = self._tensor(tail, torch.float64)
        self.radio_log_jy = self._tensor(np.log(draw_radio_flux(tail) * 1e-3), torch.float64)
        z, mass = t["z"].astype(float), t["log10_mass"].astype(float)
        density = radio_density() * self.colours.parameters.radio_counts
        rate = host_rate(z, mass, t["number"], density)
        self.radio_rate = self._tensor(rate.reshape(-1))
        #: ratio of the Poisson power of radio sources with and without the correlation within hosts
        share = (t["number"] * rate**2).sum() / (t["number"] * rate).sum()
        first, second = (self._radio_moment(n) for n in (1, 2))
        self.radio_shared = 1 + share * first**2 / second

    def _radio_moment(self, order: int, below_jy: float = 7e-3) -> float:
        flux = torch.exp(self.radio_log_jy)
        value = torch.where(flux < below_jy, flux**order, torch.zeros_like(flux))
        return float(torch.trapezoid(value, self.radio_u))

    def _lognormal(self, key, quantity):
        """Of mean 1."""
        normal = keyed.normal(key, quantity)
        return normal.mul_(self.scatter).sub_(0.5 * self.scatter**2).exp_()

    def infrared(self, key, shell, mass, row, y, x):
        """Infrared galaxies: centrals (one per halo), then random satellites.

        Returns
        -------
        flux, y, x, host, key
            uK sr at 148 GHz; pixels; index of the host halo; key of the galaxy.
        """
        flux = self.central_uk_sr.index_select(0, row) * self._lognormal(key, FLUX)
        number = poisson(
            keyed.double(key, SATELLITES), self.satellite_number.index_select(0, row).double()
        )
        host = torch.repeat_interleave(number)
        own = keyed.keys(key, SATELLITE).index_select(0, host)
        own = keyed.keys(own, keyed.numbers_within(number))
        host_shell, host_row, host_mass = (v.index_select(0, host) for v in (shell, row, mass))
        quantile = keyed.uniform(own, SUBHALO).mul_(self.n_quantile).int()
        sub = self.satellite_inverse.index_select(0, host_mass.mul_(self.n_quantile).add_(quantile))
        sat_flux = self.satellite_uk_sr.index_select(0, sub.add_(host_shell * self.n_sub))
        sat_flux *= self._lognormal(own, FLUX)
        u = keyed.uniform(own, RADIUS).mul_(self.n_radius).int()
        radius = self.nfw_inverse.index_select(0, u.add_(self.c_row.index_select(0, host_row)))
        radius *= self.theta_200m.index_select(0, host_row)
        cos = keyed.uniform(own, COS).mul_(2).sub_(1)
        radius *= torch.sqrt(1 - cos.square_())
        angle = keyed.uniform(own, ANGLE).mul_(2 * math.pi)
        # from the centre of the host's pixel, where its profiles are painted
        sat_y, sat_x = (v.floor().add_(0.5).index_select(0, host) for v in (y, x))
        sat_y.addcmul_(radius, torch.cos(angle))
        sat_x.addcmul_(radius, torch.sin(angle))
        itself = torch.arange(len(row), device=self.device)
        return (
            torch.cat([flux, sat_flux]),
            torch.cat([y, sat_y]),
            torch.cat([x, sat_x]),
            torch.cat([itself, host]),
            torch.cat([key, own]),
        )

    def radio(self, key, row):
        """Radio sources: index of the host, flux (Jy) and key."""
        rate = self.radio_rate.index_select(0, row)
        able = rate.nonzero()[:, 0]
        number = poisson(keyed.double(key[able], RADIO_SOURCES), rate[able].double())
        host = able[torch.repeat_interleave(number)]
        own = keyed.keys(keyed.keys(key[host], RADIO_SOURCE), keyed.numbers_within(number))
        u = keyed.double(own, FLUX)
        i = torch.searchsorted(self.radio_u, u).clamp(1, len(self.radio_u) - 1)
        u0, u1 = self.radio_u[i - 1], self.radio_u[i]
        w = (u - u0) / (u1 - u0)
        flux = torch.exp(self.radio_log_jy[i - 1] * (1 - w) + self.radio_log_jy[i] * w)
        return host, flux, own

    def beta(self, key):
        """Offsets of the emissivity index of infrared galaxies."""
        return self.colours.scatter * keyed.normal(key, INDEX)

    def alpha(self, key):
        """Spectral indices of radio sources (`mlsky.frequency.radio`)."""
        return radio.ALPHA_MEAN + radio.ALPHA_SCATTER * keyed.normal(key, INDEX)

    def polarisation(self, key, kind: str):
        """Polarised fraction and angle (deg) of sources."""
        normal = keyed.normal(key, POL_FRACTION).double().cpu().numpy()
        fraction = draw_polarised_fraction(normal, POL_MEAN_SQUARE[kind])
        return self._tensor(fraction), 180 * keyed.uniform(key, POL_ANGLE)

    def _wrap(self, i):
        """Whole numbers (as floats) into 0 ... n - 1: the region is periodic."""
        return i - self.n * torch.floor(i / self.n)

    def place(self, y, x):
        """Flat index of the pixel at each position of the periodic region."""
        return self._wrap(y.floor()).long() * self.n + self._wrap(x.floor()).long()

    def empty_map(self, parts: int = 1):
        """Flat maps, concatenated; in double precision if the order of sums is not fixed."""
        precise = torch.float32 if self.device.type == "cpu" else torch.float64
        return torch.zeros(parts * self.n**2, dtype=precise, device=self.device)

    def spread(self, total, y, x, fluxes, first):
        """Add faint satellites to flat maps, spread over 3 x 3 pixels to avoid a pixel window.

        Quadratic Lagrange weights w0 = 1 - f^2, w+-1 = (f^2 +- f) / 2 of the offset f from the
        pixel centre: their transform is exp(i k f) to third order. Rounding to the pixel would lose
        (k pixel)^2 / 24 of every product with the profiles of the host. `first` is the first pixel
        of the map to which each satellite belongs.
        """
        sides = []
        for v, stride, start in ((y, self.n, first), (x, 1, 0)):
            i = v.floor()
            f = (v - i).sub_(0.5)
            square = f * f
            weights = ((square - f).mul_(0.5), 1 - square, square.add(f).mul_(0.5))
            places = [(self._wrap(i + d).long() * stride).add_(start) for d in (-1, 0, 1)]
            sides.append(list(zip(places, weights, strict=True)))
        for place_y, weight_y in sides[0]:
            for place_x, weight_x in sides[1]:
                place, weight = place_y + place_x, weight_y * weight_x
                for out, flux in zip(total, fluxes, strict=True):
                    out.scatter_add_(0, place, (flux * weight).to(out.dtype))

    def as_map(self, total):
        """Concatenated flat maps of fluxes (uK sr) as maps (uK), (parts, n, n)."""
        return (total / self.pixel**2).float().reshape(-1, self.n, self.n)


def source_rows(y, x, flux_mjy, kind: str, alpha, polarisation) -> torch.Tensor:
    """Sources as rows of `SOURCE_COLUMNS`, (n, 7) float32."""
    which = torch.full_like(flux_mjy, KINDS.index(kind))
    columns = (y, x, flux_mjy, which, alpha, *polarisation)
    return torch.stack([c.float() for c in columns], 1)


def uk_per_jy_sr(nu_ghz: float) -> float:
    """uK_CMB of one Jy/sr."""
    return 1 / float(bands.jy_per_sr_per_uk(nu_ghz))
