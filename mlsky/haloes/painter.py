"""The training truth: flat periodic regions of a correlated microwave sky, painted from haloes.

Everything is linear in "sum over haloes of weight times profile", so each halo adds a few
numbers (its coefficients in a low-rank basis of profiles) to its pixel, and a handful of
FFTs turn the pixels into maps. Needs torch, numpy and the tables; runs on CPU and CUDA.

Notes
-----
Densities of light-cone shells are Gaussian at linear order (`mlsky.haloes.densities`); the
haloes follow them by lognormal bias, capped, with the mean number of every mass exact
(`mlsky.haloes.abundance`). See docs/truth for accuracy.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence

import numpy as np
import torch

from mlsky import seeds
from mlsky.components import REFERENCE_GHZ
from mlsky.frequency.bands import parse_freqs
from mlsky.frequency.radio import log_colour
from mlsky.haloes import keyed
from mlsky.haloes import tables as halo_tables
from mlsky.haloes.abundance import SLICE, VELOCITY, Abundance, Haloes
from mlsky.haloes.densities import Densities, Grid, add_filtered, pairs, white_noise
from mlsky.haloes.galaxies import Galaxies, source_rows, uk_per_jy_sr
from mlsky.haloes.region import FIELDS, Objects, Region
from mlsky.sphere.resolution import kappa_lmax
from mlsky.theory.halo_model import C_KM_S, H_OVER_K_GHZ, T_CMB_UK
from mlsky.theory.objects import check_mass_cut, is_object

__all__ = ["FIELDS", "Painter", "Region", "with_header"]

_X_148 = H_OVER_K_GHZ * REFERENCE_GHZ / (T_CMB_UK * 1e-6)
#: uK_CMB at 148 GHz per unit of Compton y: Sunyaev & Zeldovich 1972, non-relativistic.
TSZ_148 = T_CMB_UK * (_X_148 / math.tanh(_X_148 / 2) - 4)
SPREAD_UK = 10.0  # satellites fainter than this in one pixel are spread over neighbouring pixels


def with_header(tables: dict) -> dict:
    """Tables with the header as a dict, as from `load`; `build` returns it as JSON bytes."""
    header = tables["header"]
    return tables if isinstance(header, dict) else {**tables, "header": json.loads(bytes(header))}


class Painter:
    """Paints periodic square regions of the sky.

    Parameters
    ----------
    pixel_arcmin
        Pixel size; the networks use 0.5, 1 and 2.
    n
        Pixels along a side, a multiple of 16; powers of two always do.
    tables
        Output of `mlsky.haloes.tables.load` or `build_for`; the shipped ones by default.
    device
        Where to paint.
    freqs
        Further frequencies (GHz) of CIB and radio. They do not change the maps at 148 GHz and the
        sources.
    catalogue_mjy
        Sources above this flux at 148 GHz are listed; at most `flux_cut_mjy`.
    objects
        Lowest mass (M200m, Msun) of the objects, which are stored separately from the rest, at any
        redshift (`mlsky.theory.objects`); None for no separate objects. It does not change the
        haloes and galaxies.

    Attributes
    ----------
    flux_cut_mjy
        Sources above this flux at 148 GHz are left out of the maps at every frequency; of the
        tables.

    Raises
    ------
    ValueError
        If `n`, `pixel_arcmin`, a frequency, `catalogue_mjy` or `objects` is not allowed.
    """

    def __init__(
        self,
        pixel_arcmin: float = 0.5,
        n: int = 512,
        tables: dict | None = None,
        device: str | torch.device = "cpu",
        freqs: Sequence[float] = (),
        catalogue_mjy: float = 1.0,
        objects: float | None = None,
    ) -> None:
        t = halo_tables.load() if tables is None else with_header(tables)
        self.mass_cut = check_mass_cut(objects, t["log10_mass"], "objects")
        self.grid = Grid(t, n, pixel_arcmin, torch.device(device))
        self.t, self.n, self.pixel_arcmin, self.device = t, n, pixel_arcmin, self.grid.device
        self.pixel, self.side, self.area = self.grid.pixel, self.grid.side, self.grid.area
        self.freqs = tuple(float(nu) for nu in parse_freqs(freqs)) if len(freqs) else ()
        self.flux_cut = float(t["flux_cut_uk_sr"])
        self.flux_cut_mjy = self.flux_cut / float(t["uk_per_jy_sr"]) * 1e3
        if not 0 < catalogue_mjy <= self.flux_cut_mjy * (1 + 1e-6):
            raise ValueError(
                f"catalogue_mjy={catalogue_mjy!r}: must be above 0 and at most the flux cut of "
                f"the maps, {self.flux_cut_mjy:g}"
            )
        self.catalogue_mjy = catalogue_mjy
        self.n_shell, self.n_mass = t["number"].shape
        _, _, self.ell = self.grid.wave_numbers(n)
        self.densities = Densities(t, self.grid)
        self.abundance = Abundance(t, self.grid, self.densities.variance)
        self.galaxies = Galaxies(t, self.grid)
        colour = [self.galaxies.colours.shells(nu) for nu in self.freqs]
        #: ratios of the fluxes at 148 GHz and at each of `freqs` to those at 148 GHz, by shell
        self.colour = np.array([np.ones(self.n_shell), *colour])
        self.uk_per_jy_sr = float(t["uk_per_jy_sr"])
        #: uK_CMB at each frequency per uK_CMB at 148 GHz of the same intensity
        self.to_uk = [uk_per_jy_sr(nu) / uk_per_jy_sr(REFERENCE_GHZ) for nu in self.freqs]
        self._set_up_haloes()
        self._set_up_smooth()
        self._set_up_gaussian()

    def _set_up_haloes(self) -> None:
        """Coefficients of each halo in the bases of the profiles, and the bases."""
        t, grid = self.t, self.grid
        # a halo in one pixel is a delta of area pixel^2
        unit = {"nfw": 1.0, "y": TSZ_148, "tau": -T_CMB_UK}
        self.phi = {
            name: grid.tensor(pairs(grid.at(self.ell, t[f"phi_{name}"]) * u / self.pixel**2))
            for name, u in unit.items()
        }

        def columns(a):
            return grid.tensor(np.moveaxis(a, -1, 0).reshape(a.shape[-1], -1))

        nfw, small = t["a_nfw"], t["small_satellites_uk_sr"][..., None]
        #: (basis, coefficients (rank, n_shell n_mass)) of kappa, kSZ, tSZ, and CIB of small
        #: satellites at 148 GHz and each frequency
        self.profiles = [
            ("nfw", columns(t["kappa_mass"][..., None] * nfw)),
            ("tau", columns(t["a_tau"])),
            ("y", columns(t["a_y"])),
            *(("nfw", columns(c[:, None, None] * small * nfw)) for c in self.colour),
        ]
        #: the parts, rest (0) and objects (1) if there are any, and the part of every halo
        self.parts = 1 if self.mass_cut is None else 2
        part = is_object(t["z"], t["log10_mass"], self.mass_cut)
        self.part = grid.tensor(part.reshape(-1), torch.int64)

    def _set_up_smooth(self) -> None:
        """Matter and gas outside the painted haloes, which follow the densities of the shells."""
        t, grid, n, nc = self.t, self.grid, self.n, self.grid.cells
        weights = [t["low_kappa"], t["linear_kappa"], t["low_y"], *(self.colour * t["low_cib"])]
        self.smooth = grid.tensor(np.stack(weights))
        self.smooth_tau = grid.tensor(t["low_tau"])
        self.low_cib_mean = [float(t["low_cib_mean"] @ c) for c in self.colour]
        ky, kx, ell = grid.wave_numbers(nc)
        # up to pixels: the centre of the first cell relative to the first pixel's
        shift = (grid.cell - self.pixel) / 2
        up = grid.window * (n / nc) ** 2 * np.exp(-1j * (ky + kx) * shift)
        up[nc // 2] = 0
        up[:, nc // 2] = 0
        unit = np.ones((len(weights) + 1, *ell.shape))
        unit[0] = grid.at(ell, t["smooth_kappa"])
        unit[2] = TSZ_148
        unit[-1] = -T_CMB_UK
        self.up = grid.tensor(unit * up, torch.complex64)

    def _set_up_gaussian(self) -> None:
        """Gaussian fields of everything not painted halo by halo: kappa, kSZ, and CIB by frequency.

        Filters are over the pixel side: white noise of unit variance per pixel has power
        pixel^2. Row j of the lower triangle of CIB acts on the noises of kappa, 148 GHz and the
        frequencies before.
        """
        t, grid, ell = self.t, self.grid, self.ell
        ky, kx, _ = grid.wave_numbers(self.n)

        def filter_pairs(root):  # white noise is that of norm="ortho", maps are not
            return grid.tensor(pairs(root * (self.n / self.pixel)))

        kk, far, missing = (
            grid.at(ell, t[name]) for name in ("gauss_kk", "far_kappa", "missing_kappa")
        )
        # the smooth field ends at the band limit of the cells; a Gaussian field replaces it above
        edge = np.pi / grid.cell
        beyond = (np.abs(ky) >= edge) | (kx >= edge)
        kk = kk + far + np.where(beyond, missing, 0)
        a = np.sqrt(kk)
        self.gauss_kappa = filter_pairs(a)
        # distant part of the same field, given the field: conditional mean and scatter
        self.gauss_far = [filter_pairs(f) for f in (far / a, np.sqrt(far * (kk - far) / kk))]
        # kSZ of haloes below the cut, and the part that velocities of whole shells miss
        made = np.minimum(self.densities.shell_velocity_variance, t["sigma_v"] ** 2)[:, None]
        made = (made * t["ksz_painted_bias"] ** 2 * t["p_shell"]).sum(0)
        missing = np.maximum(t["ksz_two_halo"].sum(0) - made, 0) + t["gauss_ksz"]
        self.gauss_ksz = filter_pairs(T_CMB_UK * np.sqrt(grid.at(ell, missing)))
        freqs, colour = (REFERENCE_GHZ, *self.freqs), self.colour
        kc = np.array([grid.at(ell, c @ t["gauss_kc"]) for c in colour])
        rest = np.empty((*ell.shape, len(freqs), len(freqs)))
        for i, j in itertools.product(range(len(freqs)), repeat=2):
            cc = (colour[i] * colour[j]) @ t["gauss_cc"].astype(np.float64)
            coherence = self.galaxies.colours.coherence(freqs[i], freqs[j])
            shot = float((colour[i] * colour[j]) @ t["gauss_shot"].astype(np.float64)) * coherence
            rest[..., i, j] = grid.at(ell, cc) + shot - kc[i] * kc[j] / kk
        # shot noise keeps it positive; for equal frequencies the small addition does
        rest = rest * (1 + 1e-6 * np.eye(len(freqs)))
        lower = np.moveaxis(np.linalg.cholesky(rest), (-2, -1), (0, 1))
        self.gauss_cib = [
            [filter_pairs(f) for f in (kc[i] / a, *lower[i, : i + 1])] for i in range(len(freqs))
        ]

    def gaussian_kappa(self, kappa_g: torch.Tensor) -> torch.Tensor:
        """Scale the linear kappa_G to the nonlinear power, band-limited as a simulated sky is.

        A simulation starts from such a field: Gaussian, with the full nonlinear power below
        `mlsky.sphere.resolution.kappa_lmax` and no power above.

        Parameters
        ----------
        kappa_g
            (..., n, n), of this painter's pixels.
        """
        t = self.t
        linear = (t["linear_kappa"][:, None].astype(np.float64) ** 2 * t["p_shell"]).sum(0)
        linear = linear + t["far_kappa"]
        gain = self.grid.at(self.ell, np.sqrt(t["analytic_kk"] / linear))
        gain = self.grid.tensor(np.where(self.ell < kappa_lmax(self.pixel_arcmin), gain, 0))
        return torch.fft.irfft2(torch.fft.rfft2(kappa_g) * gain, s=kappa_g.shape[-2:])

    def region(self, seed: int, index: int) -> Region:
        """Paint region number `index` of the set `seed`; it depends on these two alone."""
        with torch.no_grad():
            # streams of the fields and of those of the other frequencies; what belongs to one halo
            # or galaxy follows from its key, which starts from a number of the region
            start = seeds.integer(seed, "truth", index, 1)
            return self._region(self._rng(seed, index), self._rng(seed, index, 2), start)

    def _rng(self, seed: int, *tile: int) -> torch.Generator:
        rng = torch.Generator(device=self.device)
        rng.manual_seed(seeds.integer(seed, "truth", *tile))
        return rng

    def _velocity(self, haloes: Haloes, velocity) -> torch.Tensor:
        """Radial velocity (units of c): of the slice, plus that on scales below the grid."""
        d, nv = self.densities, velocity.shape[-1]
        number = d.n_slices.index_select(0, haloes.shell)
        pick = torch.minimum((keyed.uniform(haloes.key, SLICE) * number).int(), number - 1)
        slice_ = pick.add_(d.first.index_select(0, haloes.shell))
        iy, ix = ((v * (nv / self.n)).int().clamp_(max=nv - 1) for v in (haloes.y, haloes.x))
        v = velocity.reshape(-1).index_select(0, (slice_ * nv).add_(iy).mul_(nv).add_(ix))
        rest = keyed.normal(haloes.key, VELOCITY)
        return v.addcmul_(rest, d.v_residual.index_select(0, slice_))

    def _paint_haloes(self, row, velocity, pixel) -> torch.Tensor:
        """Half planes of the haloes' profiles by part, in the order of `profiles`.

        The second part uses the pixels of a second map, after those of the first.
        """
        n = self.n
        total = torch.zeros(
            self.parts, len(self.profiles), n, n // 2 + 1, dtype=torch.complex64, device=self.device
        )
        for out, (basis, coefficients) in zip(total.unbind(1), self.profiles, strict=True):
            for column, phi in zip(coefficients, self.phi[basis], strict=True):
                weight = column.index_select(0, row)
                if basis == "tau":
                    weight *= velocity
                plane = self.galaxies.empty_map(self.parts)
                plane.scatter_add_(0, pixel, weight.to(plane.dtype))
                add_filtered(out, torch.fft.rfft2(plane.float().view(-1, n, n)), phi)
        return total

    def _smooth_fields(self, density, velocity) -> torch.Tensor:
        """Half planes (cells) of the smooth kappa, kappa_g, tSZ, CIB by frequency, and kSZ.

        `density` is overwritten.
        """
        ns, nc, nv = self.n_shell, density.shape[-1], velocity.shape[-1]
        maps = [(self.smooth @ density.reshape(ns, -1)).view(-1, nc, nc)]
        by_shell = [v.mean(0) for v in velocity.split(self.densities.per_shell)]
        weight = torch.stack(by_shell).mul_(self.smooth_tau[:, None, None])
        moving = density.view(ns, nv, nc // nv, nv, nc // nv)
        moving *= weight[:, :, None, :, None]
        maps.append(density.sum(0, keepdim=True))
        return self.grid.to_modes(torch.cat(maps)).mul_(self.up)

    def _region(self, rng, rng_freqs, start: int) -> Region:
        n, g = self.n, self.galaxies
        density, velocity = self.densities.draw(rng)
        haloes = self.abundance.draw(rng, start, density)
        shell, mass, y, x, key = haloes
        row = shell * self.n_mass + mass
        v = self._velocity(haloes, velocity)
        part = self.part.index_select(0, row)
        first = part * n**2  # of the map of a halo's part among the pixels of both
        # kappa, kSZ, tSZ, CIB at 148 GHz and at each frequency
        painted, *apart = self._paint_haloes(row, v, g.place(y, x) + first)
        smooth = self._smooth_fields(density, velocity)
        del density, velocity
        # kappa, kappa_g, kSZ, tSZ, CIB at 148 GHz and at each frequency
        fourier = torch.cat([painted[:1], torch.zeros_like(painted[:1]), painted[1:]])
        del painted
        half = smooth.shape[1] // 2
        order = (0, 1, 3, *range(4, len(fourier)), 2)
        for i, low in zip(order, smooth, strict=True):
            fourier[i, :half, :half] += low[:half, :half]
            fourier[i, -half + 1 :, :half] += low[-half + 1 :, :half]
        noise = white_noise(rng, 4, n)
        add_filtered(fourier[0], noise[0], self.gauss_kappa)
        for white, f in zip(noise, self.gauss_far, strict=False):
            add_filtered(fourier[1], white, f)
        add_filtered(fourier[2], noise[3], self.gauss_ksz)
        # noises of kappa and of the CIB at 148 GHz, then at each frequency
        cib_noise = (noise[0], noise[2], *white_noise(rng_freqs, len(self.freqs), n))
        for out, filters in zip(fourier[4:], self.gauss_cib, strict=True):
            for white, f in zip(cib_noise, filters, strict=False):
                add_filtered(out, white, f)
        fourier[:2, 0, 0] = 0  # kappa has no mean, with its objects
        for objects in apart:
            fourier[0, 0, 0] -= objects[0, 0, 0]
        maps = self.grid.to_maps(fourier, n)
        for row_map, mean in zip(maps[4:], self.low_cib_mean, strict=True):
            row_map += mean
        infrared, *dsfg = self._infrared(haloes, row, first)
        radio, *bright = self._radio(key, row, y, x, first)
        for out, values in zip(maps[4:], infrared, strict=True):
            out += values[0]
        to_uk = self.grid.tensor(self.to_uk)[:, None, None]
        sources, hosts = (torch.cat(pair) for pair in zip(bright, dsfg, strict=True))
        objects = None
        for modes in apart:
            own = self.grid.to_maps(modes, n)
            own[3:] += infrared[:, 1]
            objects = Objects(
                torch.cat([own[:4], radio[:1, 1]]),
                self._object_rows(haloes, v, part),
                torch.where(part > 0, torch.cumsum(part, 0) - 1, -1).int()[hosts],
                own[4:] * to_uk,
                radio[1:, 1] * to_uk,
            )
        return Region(
            torch.cat([maps[:5], radio[:1, 0]]),
            sources,
            maps[5:] * to_uk,
            radio[1:, 0] * to_uk,
            objects,
        )

    def _object_rows(self, haloes: Haloes, velocity, part) -> torch.Tensor:
        """Objects as rows of `OBJECT_COLUMNS`."""
        some = part.nonzero()[:, 0]
        shell, mass, y, x, _ = (v[some] for v in haloes)
        z, log10_mass = (self.grid.tensor(self.t[name]) for name in ("z", "log10_mass"))
        return torch.stack([y, x, z[shell], 10 ** log10_mass[mass], velocity[some] * C_KM_S], 1)

    def _infrared(self, haloes: Haloes, row, first):
        """Maps of infrared galaxies (frequencies, parts, n, n); listed ones, and their hosts."""
        g = self.galaxies
        shell, mass, y, x, key = haloes
        flux, gy, gx, host, key = g.infrared(key, shell, mass, row, y, x)
        listed = (flux * (1e3 / self.uk_per_jy_sr) >= self.catalogue_mjy).nonzero()[:, 0]
        polarisation = g.polarisation(key[listed], "dsfg")
        soft = flux < SPREAD_UK * self.pixel**2
        soft[: len(row)] = False
        sharp = ~(soft | (flux >= self.flux_cut))
        sharp, soft = sharp.nonzero()[:, 0], soft.nonzero()[:, 0]
        fluxes = [flux]
        if self.freqs:
            of_host, beta = shell.index_select(0, host), g.beta(key)
        for nu, colour in zip(self.freqs, self.colour[1:], strict=True):
            by_shell = self.grid.tensor(colour).index_select(0, of_host)
            fluxes.append(flux * by_shell * g.colours.galaxy(nu, beta))
        total = [g.empty_map(self.parts) for _ in fluxes]
        first = first.index_select(0, host)
        where = g.place(gy[sharp], gx[sharp]) + first[sharp]
        for out, values in zip(total, fluxes, strict=True):
            out.scatter_add_(0, where, values[sharp].to(out.dtype))
        g.spread(total, gy[soft], gx[soft], [values[soft] for values in fluxes], first[soft])
        mjy = flux[listed] * (1e3 / self.uk_per_jy_sr)
        host = host[listed]
        alpha = g.index[shell[host]] + g.beta(key[listed])
        gy, gx = (torch.remainder(v[listed], self.n) for v in (gy, gx))
        rows = source_rows(gy, gx, mjy, "dsfg", alpha, polarisation)
        return torch.stack([g.as_map(values) for values in total]), rows, host

    def _radio(self, key, row, y, x, first):
        """Maps of radio sources (frequencies, parts, n, n); listed sources, and their hosts."""
        g = self.galaxies
        host, flux, key = g.radio(key, row)
        listed = (flux * 1e3 >= self.catalogue_mjy).nonzero()[:, 0]
        alpha, polarisation = g.alpha(key), g.polarisation(key[listed], "radio")
        where = g.place(y[host], x[host]) + first[host]
        kept = torch.where(flux * 1e3 < self.flux_cut_mjy, flux, torch.zeros_like(flux))
        kept = kept * self.uk_per_jy_sr
        fluxes = [kept]
        for nu in self.freqs:
            fluxes.append(kept * torch.exp(log_colour(alpha, nu)))
        maps = []
        for values in fluxes:
            total = g.empty_map(self.parts)
            maps.append(g.as_map(total.scatter_add_(0, where, values.to(total.dtype))))
        host = host[listed]
        place = y[host], x[host]
        rows = source_rows(*place, flux[listed] * 1e3, "radio", alpha[listed], polarisation)
        return torch.stack(maps), rows, host
