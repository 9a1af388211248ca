"""Infrared and radio galaxies of painted haloes: who hosts them, how bright, of what colour."""

from __future__ import annotations

import math

import numpy as np
import torch

from mlsky import bands
from mlsky.components import REFERENCE_GHZ
from mlsky.scaling import radio
from mlsky.sources.catalogue import KINDS, POL_MEAN_SQUARE, draw_polarised_fraction
from mlsky.sources.counts import draw_radio_flux, radio_density
from mlsky.theory.halo_model import Parameters, infrared_sed
from mlsky.theory.radio_sources import host_rate

__all__ = ["SOURCE_COLUMNS", "Colours", "Galaxies"]

#: Columns of the sources of a region: place in pixels (the centre of the first is at 0.5, 0.5),
#: flux at 148 GHz (mJy), kind (place in `mlsky.sources.catalogue.KINDS`), index of the flux at
#: 148 GHz, polarised fraction, polarisation angle (deg, COSMO convention on axes y south, x east).
SOURCE_COLUMNS = ("y", "x", "flux_mjy", "kind", "alpha", "pol_frac", "pol_angle")


def nfw_radii(concentration: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Radii (of R200m) within which a share `u` of an NFW halo's mass lies, (n_c, n_u)."""
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
        at, reference = (
            infrared_sed(nu, self.z, self.parameters) for nu in (nu_ghz, REFERENCE_GHZ)
        )
        return at / reference

    def index(self) -> np.ndarray:
        """d ln S / d ln nu at 148 GHz of the mean galaxy of each shell, (n_shell,)."""
        step = 1e-3
        up, down = (self.shells(REFERENCE_GHZ * math.exp(s)) for s in (step, -step))
        return np.log(up / down) / (2 * step)

    def galaxy(self, nu_ghz: float, beta: torch.Tensor) -> torch.Tensor:
        """Factor of a galaxy whose emissivity index is off the mean by `beta`; 1 on average."""
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
    n
        Pixels along a side of the region.
    pixel
        Pixel side (rad).
    device
        Where to draw.
    """

    def __init__(self, t: dict, n: int, pixel: float, device: torch.device) -> None:
        self.n, self.pixel, self.device = n, pixel, device
        ns, self.n_mass = len(t["z"]), len(t["log10_mass"])
        for name in ("central_uk_sr", "theta_200m"):
            setattr(self, name, self._tensor(t[name].reshape(-1)))
        self.satellite_number = self._tensor(np.tile(t["satellite_number"], ns))
        self.satellite_inverse = self._tensor(t["satellite_inverse"], torch.int64)
        self.satellite_uk_sr = self._tensor(t["satellite_uk_sr"])
        c = np.geomspace(1, 30, 60)
        self.nfw_inverse = self._tensor(nfw_radii(c, (np.arange(512) + 0.5) / 512))
        self.c_bin = self._tensor(
            np.abs(np.log(t["concentration"].reshape(-1, 1)) - np.log(c)).argmin(-1), torch.int64
        )
        self.scatter = float(t["scatter"])
        self.colours = Colours(t)
        self.index = self._tensor(self.colours.index())
        self._set_up_radio(t)

    def _tensor(self, x, dtype=torch.float32) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(x), dtype=dtype, device=self.device)

    def _set_up_radio(self, t: dict) -> None:
        # inverse CDF of the counts, dense where the few bright sources are
        tail = 1 - np.geomspace(1, 1e-9, 4096)
        self.radio_u = self._tensor(tail, torch.float64)
        self.radio_log_jy = self._tensor(np.log(draw_radio_flux(tail) * 1e-3), torch.float64)
        z, mass = t["z"].astype(float), t["log10_mass"].astype(float)
        density = radio_density() * self.colours.parameters.radio_counts
        rate = host_rate(z, mass, t["number"], density)
        self.radio_rate = self._tensor(rate.reshape(-1))
        hosts = rate > 0
        #: Poisson power of radio sources with that of sharing a host, over that without
        share = (t["number"] * rate**2).sum() / (t["number"] * rate).sum()
        first, second = (self._radio_moment(n) for n in (1, 2))
        self.radio_shared = 1 + share * first**2 / second
        self.radio_host = torch.as_tensor(hosts.reshape(-1), device=self.device)

    def _radio_moment(self, order: int, below_jy: float = 7e-3) -> float:
        flux = torch.exp(self.radio_log_jy)
        value = torch.where(flux < below_jy, flux**order, torch.zeros_like(flux))
        return float(torch.trapezoid(value, self.radio_u))

    def _normal(self, rng, n):
        return torch.randn(n, generator=rng, device=self.device)

    def _uniform(self, rng, n, dtype=torch.float32):
        return torch.rand(n, generator=rng, device=self.device, dtype=dtype)

    def _lognormal(self, rng, n):
        return torch.exp(self.scatter * self._normal(rng, n) - 0.5 * self.scatter**2)

    def infrared(self, rng, shell, row, y, x):
        """Infrared galaxies, centrals (one per halo) first, then drawn satellites.

        Returns
        -------
        flux, y, x, shell
            uK sr at 148 GHz; pixels; the host's shell.
        """
        flux = self.central_uk_sr[row] * self._lognormal(rng, len(row))
        number = torch.poisson(self.satellite_number[row], generator=rng).long()
        host = torch.repeat_interleave(torch.arange(len(row), device=self.device), number)
        n_sat = len(host)
        host_row = row[host]
        uniform = (self._uniform(rng, n_sat) * 256).long().clamp(max=255)
        sub = self.satellite_inverse[host_row % self.n_mass, uniform]
        host_shell = shell[host]
        sat_flux = self.satellite_uk_sr[host_shell, sub] * self._lognormal(rng, n_sat)
        u = (self._uniform(rng, n_sat) * 512).long().clamp(max=511)
        radius = self.nfw_inverse[self.c_bin[host_row], u] * self.theta_200m[host_row] / self.pixel
        cos = 2 * self._uniform(rng, n_sat) - 1
        radius = radius * torch.sqrt(1 - cos**2)
        angle = 2 * math.pi * self._uniform(rng, n_sat)
        # from the centre of the host's pixel, where its profiles are painted
        sat_y = y[host].floor() + 0.5 + radius * torch.cos(angle)
        sat_x = x[host].floor() + 0.5 + radius * torch.sin(angle)
        return (
            torch.cat([flux, sat_flux]),
            torch.cat([y, sat_y]),
            torch.cat([x, sat_x]),
            torch.cat([shell, host_shell]),
        )

    def radio(self, rng, row):
        """Radio sources: index of the host and flux (Jy)."""
        able = self.radio_host[row].nonzero()[:, 0]
        number = torch.poisson(self.radio_rate[row[able]], generator=rng).long()
        host = torch.repeat_interleave(able, number)
        u = self._uniform(rng, len(host), torch.float64)
        i = torch.searchsorted(self.radio_u, u).clamp(1, len(self.radio_u) - 1)
        u0, u1 = self.radio_u[i - 1], self.radio_u[i]
        w = (u - u0) / (u1 - u0)
        return host, torch.exp(self.radio_log_jy[i - 1] * (1 - w) + self.radio_log_jy[i] * w)

    def beta(self, rng, n):
        """Offsets of the emissivity index of infrared galaxies."""
        return self.colours.scatter * self._normal(rng, n)

    def alpha(self, rng, n):
        """Spectral indices of radio sources (`mlsky.scaling.radio`)."""
        return radio.ALPHA_MEAN + radio.ALPHA_SCATTER * self._normal(rng, n)

    def polarisation(self, rng, n, kind: str):
        """Polarised fraction and angle (deg) of sources."""
        normal = self._normal(rng, n).double().cpu().numpy()
        fraction = draw_polarised_fraction(normal, POL_MEAN_SQUARE[kind])
        return self._tensor(fraction), 180 * self._uniform(rng, n)

    def place(self, y, x):
        """Flat index of the pixel that holds each place of the periodic region."""
        n = self.n
        return (y.floor().long() % n) * n + x.floor().long() % n

    def spread(self, y, x, flux):
        """Map of faint satellites, each spread over 3 x 3 pixels so that none has a window.

        Quadratic Lagrange weights w0 = 1 - f^2, w+-1 = (f^2 +- f) / 2 of the offset f from
        the pixel's centre: their transform is exp(i k f) to third order, where rounding to
        the pixel would lose (k pixel)^2 / 24 of every product with the host's profiles.
        """
        iy, ix = y.floor(), x.floor()
        fy, fx = y - iy - 0.5, x - ix - 0.5
        total = 0
        for dy, wy in ((-1, (fy**2 - fy) / 2), (0, 1 - fy**2), (1, (fy**2 + fy) / 2)):
            for dx, wx in ((-1, (fx**2 - fx) / 2), (0, 1 - fx**2), (1, (fx**2 + fx) / 2)):
                total = total + self.points(self.place(iy + dy, ix + dx), flux * wy * wx)
        return total

    def points(self, pixel, flux):
        """Map of points (uK sr) that lie whole in one pixel each."""
        n = self.n
        total = torch.bincount(pixel, weights=flux.double(), minlength=n * n)
        return (total / self.pixel**2).float().reshape(n, n)


def source_rows(y, x, flux_mjy, kind: str, alpha, polarisation) -> torch.Tensor:
    """Sources as rows of `SOURCE_COLUMNS`, (n, 7) float32."""
    which = torch.full_like(flux_mjy, KINDS.index(kind))
    columns = (y, x, flux_mjy, which, alpha, *polarisation)
    return torch.stack([c.float() for c in columns], 1)


def uk_per_jy_sr(nu_ghz: float) -> float:
    """uK_CMB of one Jy/sr."""
    return 1 / float(bands.jy_per_sr_per_uk(nu_ghz))
