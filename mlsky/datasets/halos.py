"""The training truth: flat periodic regions of a correlated microwave sky, painted from haloes.

Everything is linear in "sum over haloes of weight times profile", so each halo adds a few
numbers (its coefficients in a low-rank basis of profiles) to its pixel, and a handful of
FFTs turn the pixels into maps. Needs torch, numpy and the tables; runs on CPU and CUDA.

Notes
-----
Densities of light-cone shells are Gaussian at linear order; the haloes follow them by
lognormal bias, which is exact for the mean number of every mass. Below about ell = 2700
densities and radial velocities are drawn jointly, so that kSZ has the sign and the
coherence of the flow that made the structure. See docs/truth for accuracy.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch

from mlsky import seeds
from mlsky.datasets import tables as halo_tables
from mlsky.datasets.mixing import mixing
from mlsky.networks.inputs import kappa_lmax
from mlsky.sources.counts import draw_radio_flux, radio_density
from mlsky.theory.halo_model import H_OVER_K_GHZ, T_CMB_UK

__all__ = ["FIELDS", "Painter", "Region"]

#: Datasets of a region, in order; uK_CMB at 148 GHz but for the convergences.
FIELDS = ("kappa", "kappa_g", "ksz", "tsz", "cib", "radio")

ARCMIN = math.pi / 180 / 60
_X_148 = H_OVER_K_GHZ * 148 / (T_CMB_UK * 1e-6)
#: uK_CMB at 148 GHz per unit of Compton y: Sunyaev & Zeldovich 1972, non-relativistic.
TSZ_148 = T_CMB_UK * (_X_148 / math.tanh(_X_148 / 2) - 4)
#: Densities at which abundances are tabulated, from -6 to 7 sigma.
DELTA_BINS = 96
SPREAD_UK = 10.0  # satellites fainter than this in one pixel are spread over its neighbours
#: Densities and velocities are drawn jointly up to about this multipole.
JOINT_ELL_MAX = 2700.0
#: Smooth fields outside the painted haloes, and the table of their weights by shell.
_SMOOTH = {
    "kappa": "low_kappa",
    "kappa_g": "linear_kappa",
    "y": "low_y",
    "cib": "low_cib",
    "tau": "low_tau",
}


def _comb(x: np.ndarray, n: int) -> np.ndarray:
    """Mean of exp(i k y) over n neighbouring pixels, x = k pixel / 2: sin(n x) / (n sin x)."""
    small = np.abs(x) < 1e-12
    safe = np.where(small, 1.0, x)
    return np.where(small, 1.0, np.sin(n * safe) / (n * np.sin(safe)))


def _alias(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walker alias tables of the rows of `weights` (n, m): index and acceptance."""
    n, m = weights.shape
    q = weights / weights.sum(1, keepdims=True) * m
    index = np.tile(np.arange(m), (n, 1))
    for row in range(n):
        small = [i for i in range(m) if q[row, i] < 1]
        large = [i for i in range(m) if q[row, i] >= 1]
        while small and large:
            i, j = small.pop(), large[-1]
            index[row, i] = j
            q[row, j] -= 1 - q[row, i]
            if q[row, j] < 1:
                small.append(large.pop())
        q[row, small] = 1
    return index, q


def _nfw_radii(concentration: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Radii (of R200m) within which a share `u` of an NFW halo's mass lies, (n_c, n_u)."""
    x = np.linspace(1e-4, 1, 2000)

    def mass(c, x):
        return np.log1p(c * x) - c * x / (1 + c * x)

    return np.array([np.interp(u, mass(c, x) / mass(c, 1.0), x) for c in concentration])


@dataclass
class Region:
    """One painted region: maps (6, n, n) in the order of `FIELDS`, and its bright sources.

    `sources` is an (n, 3) array of dusty sources above the flux cut: y, x (pixels), flux (mJy).
    """

    maps: torch.Tensor
    sources: torch.Tensor


class Painter:
    """Paints periodic square regions of the sky.

    Parameters
    ----------
    pixel_arcmin
        Pixel size; 0.5 or 2 are what the networks use.
    n
        Pixels along a side, a multiple of 16; powers of two always do.
    tables
        Output of `mlsky.datasets.tables.load`; the shipped ones by default.
    device
        Where to paint.
    radio_max_mjy
        Radio sources above this flux are left out of the maps.

    Raises
    ------
    ValueError
        If `n` or `pixel_arcmin` is not allowed.
    """

    def __init__(
        self,
        pixel_arcmin: float = 0.5,
        n: int = 512,
        tables: dict | None = None,
        device: str | torch.device = "cpu",
        radio_max_mjy: float = 7.0,
    ) -> None:
        if n < 64 or n % 16:
            raise ValueError(f"n={n}: must be a multiple of 16 and at least 64")
        if not 0.1 <= pixel_arcmin <= 4:
            raise ValueError(f"pixel_arcmin={pixel_arcmin!r}: must be from 0.1 to 4, as 0.5 or 2")
        self.n, self.pixel, self.device = n, pixel_arcmin * ARCMIN, torch.device(device)
        self.pixel_arcmin = pixel_arcmin
        t = halo_tables.load() if tables is None else tables
        self.t = t
        self.side = n * self.pixel
        self.area = self.side**2
        # density cells of about 1': the clustering of haloes inside one is lost
        self.cells = n // max(1, round(1.0 / pixel_arcmin))
        # grid of the joint draw, its Nyquist near JOINT_ELL_MAX
        joint = 2 * int(JOINT_ELL_MAX * self.side / (2 * math.pi) / 8) * 8
        self.joint = min(max(joint, 32), self.cells // 2)
        if self.cells % (2 * self.joint):
            raise ValueError(
                f"n={n}: on pixels of {pixel_arcmin:g} arcmin the grid of velocities does not "
                "divide that of densities; take a power of two, for example n=512"
            )
        self.n_shell, self.n_slice = len(t["z"]), int(t["slices"].sum())
        self._set_up_grids()
        self._set_up_modes()
        self._set_up_haloes()
        self._set_up_sources(radio_max_mjy)

    def _tensor(self, x, dtype=torch.float32) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(x), dtype=dtype, device=self.device)

    def _wave_numbers(self, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        step = self.side / m
        ky = 2 * np.pi * np.fft.fftfreq(m, step)[:, None]
        kx = 2 * np.pi * np.fft.rfftfreq(m, step)[None]
        return ky, kx, np.hypot(ky, kx)

    def _at(self, ell: np.ndarray, table: np.ndarray) -> np.ndarray:
        """Interpolate rows of a table in ln ell to a grid of multipoles (linear in value)."""
        x = np.log(np.clip(ell, self.t["ell"][0], self.t["ell"][-1]))
        grid = np.log(self.t["ell"])
        rows = np.atleast_2d(table)
        out = np.array([np.interp(x.ravel(), grid, row).reshape(x.shape) for row in rows])
        return out if np.ndim(table) == 2 else out[0]

    def _set_up_grids(self) -> None:
        t, n, p = self.t, self.n, self.pixel
        ky, kx, ell = self._wave_numbers(n)
        self.ell = ell
        self.phi = {k: self._tensor(self._at(ell, t[f"phi_{k}"])) for k in ("nfw", "y", "tau")}
        # Gaussian fields of what is not painted halo by halo, all divided by the pixel side
        # (white noise of unit variance per pixel has power pixel^2)
        names = ("gauss_kk", "gauss_kc", "gauss_cc", "far_kappa", "missing_kappa")
        kk, kc, cc, far, missing = (self._at(ell, t[name]) for name in names)
        # the smooth field ends with the grid of cells: a Gaussian one takes its place beyond
        edge = np.pi / (self.side / self.cells)
        beyond = (np.abs(ky) >= edge) | (kx >= edge)
        kk = kk + far + np.where(beyond, missing, 0)
        a = np.sqrt(kk)
        filters = {
            "kappa": a,
            "cib_kappa": kc / a,
            "cib": np.sqrt(np.maximum(cc - kc**2 / kk, 0)),
            # far part of the same field, given the field: conditional mean and scatter
            "far_mean": far / a,
            "far_scatter": np.sqrt(far * (kk - far) / kk),
        }
        self.gauss = {k: self._tensor(v / p) for k, v in filters.items()}
        # Haloes lie anywhere in their cell and are rounded to its pixels' centres: the fields
        # of the cells are divided by this window, smooth fields get it back
        ky_c, kx_c, ell_c = self._wave_numbers(self.cells)
        cell = self.side / self.cells
        self.cell = cell
        self.cell_window = _comb(ky_c * p / 2, n // self.cells) * _comb(
            kx_c * p / 2, n // self.cells
        )
        self.smooth_kappa = self._tensor(self._at(ell_c, t["smooth_kappa"]))
        shift = (cell - p) / 2  # centre of the first cell relative to the first pixel's
        self.up_shift = torch.exp(-1j * self._tensor((ky_c + kx_c) * shift, torch.float64)).to(
            torch.complex64
        )

    def _set_up_modes(self) -> None:
        t, nc, nj = self.t, self.cells, self.joint
        _, _, ell_c = self._wave_numbers(nc)
        window = self.cell_window
        half = nj // 2
        iy, ix = np.fft.fftfreq(nc, 1 / nc)[:, None], np.arange(nc // 2 + 1)[None]
        low = (np.abs(iy) < half) & (ix < half)
        power = np.exp(self._at(ell_c, np.log(np.maximum(t["p_shell"].astype(np.float64), 1e-60))))
        self.high = self._tensor(np.where(low, 0, np.sqrt(power)) / window / self.cell)
        ell_mix, matrix = mixing(t)
        _, _, ell_j = self._wave_numbers(nj)
        self.joint_bin = torch.as_tensor(
            np.abs(np.log(np.maximum(ell_j, 1))[..., None] - np.log(ell_mix)).argmin(-1)
        ).to(self.device)
        self.mix = self._tensor(matrix)
        # rows used of the joint grid: everything but its Nyquist row and column and the mean
        ns = self.n_shell
        use = (np.abs(np.fft.fftfreq(nj, 1 / nj))[:, None] < half) & (
            np.arange(nj // 2 + 1)[None] < half
        )
        use[0, 0] = False
        self.joint_use = self._tensor(use)
        mult = np.where(np.arange(nj // 2 + 1)[None] == 0, 1, 2) * use
        diagonal = (matrix.astype(np.float64) ** 2).sum(2)  # (n_ell, field) power
        log_j, log_m = np.log(np.maximum(ell_j, 1)), np.log(ell_mix)

        def grid_variance(rows, weight=1.0):
            return np.array(
                [(mult * weight * np.interp(log_j, log_m, r)).sum() / self.area for r in rows.T]
            )

        sel_y = np.arange(-half, half) % nc
        joint_window = np.ones_like(ell_j)
        joint_window[np.arange(-half, half) % nj, :] = window[sel_y][:, : nj // 2 + 1]
        self.joint_window = self._tensor(joint_window)
        sigma_v = np.repeat(t["sigma_v"], t["slices"])
        var_v = grid_variance(diagonal[:, ns:])
        self.v_residual = self._tensor(np.sqrt(np.clip(sigma_v**2 - var_v, 0, None)))
        mult_c = np.where((ix == 0) | (ix == nc // 2), 1, 2)
        high = (mult_c * (np.where(low, 0, power) / window**2)).sum((1, 2)) / self.area
        self.variance = high + grid_variance(diagonal[:, :ns], 1 / joint_window**2)
        # velocity of whole shells, as the smooth gas sees it, and the kSZ power it misses
        first = np.concatenate([[0], np.cumsum(t["slices"])])
        self.first = self._tensor(first[:-1], torch.int64)
        self.n_slices = self._tensor(t["slices"], torch.int64)
        shell_rows = np.stack(
            [matrix[:, ns + a : ns + b].mean(1) for a, b in itertools.pairwise(first)]
        )
        var_shell = grid_variance((shell_rows.astype(np.float64) ** 2).sum(-1).T)
        var_made = np.minimum(var_shell, t["sigma_v"] ** 2)[:, None]
        made = (var_made * t["ksz_painted_bias"] ** 2 * t["p_shell"]).sum(0)
        missing = np.maximum(t["ksz_two_halo"].sum(0) - made, 0) + t["gauss_ksz"]
        self.gauss["ksz"] = self._tensor(np.sqrt(self._at(self.ell, missing)) / self.pixel)

    def _set_up_haloes(self) -> None:
        t, ns = self.t, self.n_shell
        nm = len(t["log10_mass"])
        sigma = np.sqrt(self.variance)
        self.delta_min, self.delta_step = -6 * sigma, 13 * sigma / (DELTA_BINS - 1)
        rate = np.empty((ns, DELTA_BINS))
        index, accept = [], []
        for i in range(ns):
            delta = self.delta_min[i] + self.delta_step[i] * np.arange(DELTA_BINS)
            b = t["bias"][i].astype(np.float64)
            w = t["number"][i] * np.exp(
                np.clip(b * delta[:, None] - 0.5 * b**2 * self.variance[i], -300, 60)
            )
            rate[i] = w.sum(1)
            alias, q = _alias(w)
            index.append(alias)
            accept.append(q)
        self.rate = self._tensor(rate)
        self.alias_index = self._tensor(np.concatenate(index), torch.int64)  # (ns*bins, nm)
        self.alias_accept = self._tensor(np.concatenate(accept))
        self.delta_grid = self._tensor(np.stack([self.delta_min, 1 / self.delta_step], 1))
        self.n_mass = nm
        a_nfw, a_y = t["a_nfw"], t["a_y"]
        rows = np.concatenate(
            [
                t["kappa_mass"][..., None] * a_nfw,
                a_y,
                t["small_satellites_uk_sr"][..., None] * a_nfw,
            ],
            -1,
        )
        self.rank = a_nfw.shape[-1]
        self.halo_rows = self._tensor(rows.reshape(ns * nm, -1))
        self.tau_rows = self._tensor(t["a_tau"].reshape(ns * nm, -1))
        for name in ("central_uk_sr", "concentration", "theta_200m"):
            setattr(self, name, self._tensor(t[name].reshape(-1)))
        self.satellite_number = self._tensor(np.tile(t["satellite_number"], ns))
        self.satellite_inverse = self._tensor(t["satellite_inverse"], torch.int64)
        self.satellite_uk_sr = self._tensor(t["satellite_uk_sr"])
        c = np.geomspace(1, 30, 60)
        self.nfw_inverse = self._tensor(_nfw_radii(c, (np.arange(512) + 0.5) / 512))
        self.c_bin = self._tensor(
            np.abs(np.log(t["concentration"].reshape(-1, 1)) - np.log(c)).argmin(-1), torch.int64
        )
        self.smooth = {name: self._tensor(t[table]) for name, table in _SMOOTH.items()}

    def _set_up_sources(self, radio_max_mjy: float) -> None:
        t = self.t
        # inverse CDF of the counts, dense where the few bright sources are
        tail = 1 - np.geomspace(1, 1e-9, 4096)
        self.radio_u = self._tensor(tail, torch.float64)
        self.radio_log_jy = self._tensor(np.log(draw_radio_flux(tail) * 1e-3), torch.float64)
        # hosts: haloes above 10^12.8 Msun, rate ~ M^0.5 p(z) with p(z) ~ z^1.5 exp(-z): our
        # choice, not a measured occupation of radio-loud galaxies; normalised to the counts
        z = t["z"].astype(float)
        per_z = z**1.5 * np.exp(-z) * np.gradient(z)
        mass = t["log10_mass"].astype(float)
        hosts = mass >= halo_tables.RADIO_HOST_LOG10_MASS
        weight = np.where(hosts, 10 ** (0.5 * (mass - 13)), 0)[None]
        rate = weight * (per_z / (t["number"] * weight).sum(1))[:, None]
        rate = rate * radio_density() / (t["number"] * rate).sum()
        self.radio_rate = self._tensor(rate.reshape(-1))
        self.radio_max_jy = radio_max_mjy * 1e-3
        self.scatter = float(t["scatter"])
        self.flux_cut = float(t["flux_cut_uk_sr"])
        self.uk_per_jy_sr = float(t["uk_per_jy_sr"])

    def gaussian_start(self, kappa_g: torch.Tensor) -> torch.Tensor:
        """Scale the linear kappa_G to the nonlinear power, band-limited as a simulated sky is.

        This is what a simulation starts from: a Gaussian field with the full nonlinear
        power below `mlsky.networks.inputs.kappa_lmax` and nothing above.

        Parameters
        ----------
        kappa_g
            (..., n, n), of this painter's pixels.
        """
        t = self.t
        linear = (t["linear_kappa"][:, None].astype(np.float64) ** 2 * t["p_shell"]).sum(0)
        linear = linear + t["far_kappa"]
        gain = self._at(self.ell, np.sqrt(t["analytic_kk"] / linear))
        gain = self._tensor(np.where(self.ell < kappa_lmax(self.pixel_arcmin), gain, 0))
        return torch.fft.irfft2(torch.fft.rfft2(kappa_g) * gain, s=kappa_g.shape[-2:])

    def region(self, seed: int, index: int) -> Region:
        """Paint region number `index` of the set `seed`; same bits whatever else is painted."""
        rng = torch.Generator(device=self.device)
        rng.manual_seed(seeds.integer(seed, "truth", index))
        with torch.no_grad():
            return self._region(rng)

    def _normal(self, rng, *shape):
        return torch.randn(*shape, generator=rng, device=self.device)

    def _uniform(self, rng, n, dtype=torch.float32):
        return torch.rand(n, generator=rng, device=self.device, dtype=dtype)

    def _fields(self, rng):
        """Shell densities (n_shell, cells, cells), slice velocities (n_slice, 2 joint, 2 joint)."""
        nc, nj, ns = self.cells, self.joint, self.n_shell
        half = nj // 2
        white = torch.fft.rfft2(self._normal(rng, ns + self.n_slice, nj, nj)) / nj
        modes = torch.zeros_like(white)
        flat_in, flat_out = white.flatten(1), modes.flatten(1)
        for b in torch.unique(self.joint_bin).tolist():
            where = (self.joint_bin.flatten() == b).nonzero()[:, 0]
            x = flat_in[:, where]
            flat_out[:, where] = torch.complex(self.mix[b] @ x.real, self.mix[b] @ x.imag)
        modes = modes * self.joint_use
        nv = 2 * nj
        spectrum = torch.zeros(self.n_slice, nv, nv // 2 + 1, dtype=modes.dtype, device=self.device)
        spectrum[:, :half, :half] = modes[ns:, :half, :half]
        spectrum[:, -half + 1 :, :half] = modes[ns:, -half + 1 :, :half]
        velocity = torch.fft.irfft2(spectrum, s=(nv, nv)) * (nv**2 / self.side)
        del spectrum
        density = torch.fft.rfft2(self._normal(rng, ns, nc, nc)) * self.high
        low = modes[:ns] / self.joint_window * (nc**2 / self.side)
        density[:, :half, :half] += low[:, :half, :half]
        density[:, -half + 1 :, :half] += low[:, -half + 1 :, :half]
        return torch.fft.irfft2(density, s=(nc, nc)), velocity

    def _haloes(self, rng, density):
        """Draw haloes: row (shell, mass) of the tables, position (pixels), cell."""
        ns, nc = self.n_shell, self.cells
        x = (density - self.delta_grid[:, 0, None, None]) * self.delta_grid[:, 1, None, None]
        x = x.clamp(0, DELTA_BINS - 1.001).reshape(ns, -1)
        bin_ = x.long()
        frac = x - bin_
        rate = self.rate.gather(1, bin_) * (1 - frac) + self.rate.gather(1, bin_ + 1) * frac
        counts = torch.poisson(rate * self.cell**2, generator=rng).long().flatten()
        cell = torch.repeat_interleave(torch.arange(ns * nc * nc, device=self.device), counts)
        n_halo = len(cell)
        shell, cell_in = cell // (nc * nc), cell % (nc * nc)
        up = self._uniform(rng, n_halo) < frac.flatten()[cell]
        table = shell * DELTA_BINS + bin_.flatten()[cell] + up
        slot = (self._uniform(rng, n_halo) * self.n_mass).long().clamp(max=self.n_mass - 1)
        keep = self._uniform(rng, n_halo) <= self.alias_accept[table, slot]
        mass = torch.where(keep, slot, self.alias_index[table, slot])
        per = self.n // nc
        y = (cell_in // nc) * per + self._uniform(rng, n_halo) * per
        x = (cell_in % nc) * per + self._uniform(rng, n_halo) * per
        return shell, shell * self.n_mass + mass, y, x

    def _pixel(self, y, x):
        n = self.n
        return (y.floor().long() % n) * n + x.floor().long() % n

    def _paint_haloes(self, row, velocity, pixel):
        """Sum of halo profiles: kappa, y, small-satellite CIB and tau x v, as Fourier maps."""
        n, k = self.n, self.rank
        order = torch.argsort(pixel, stable=True)
        counts = torch.bincount(pixel, minlength=n * n)
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)[:-1]])
        bag = torch.nn.functional.embedding_bag
        row = row[order]
        grid = bag(row, self.halo_rows, offsets, mode="sum").t().reshape(3 * k, n, n)
        f = torch.fft.rfft2(grid)
        grid = bag(row, self.tau_rows, offsets, mode="sum", per_sample_weights=velocity[order])
        f_tau = torch.fft.rfft2(grid.t().reshape(k, n, n))
        parts = zip(
            (f[:k], f[k : 2 * k], f[2 * k :], f_tau), ("nfw", "y", "nfw", "tau"), strict=True
        )
        # a halo in one pixel is a delta of area pixel^2
        return [(g * self.phi[p]).sum(0) / self.pixel**2 for g, p in parts]

    def _lognormal(self, rng, n):
        return torch.exp(self.scatter * self._normal(rng, n) - 0.5 * self.scatter**2)

    def _galaxies(self, rng, shell, row, y, x):
        """Infrared galaxies: pixel and flux (uK sr) of centrals and drawn satellites."""
        flux = self.central_uk_sr[row] * self._lognormal(rng, len(row))
        number = torch.poisson(self.satellite_number[row], generator=rng).long()
        host = torch.repeat_interleave(torch.arange(len(row), device=self.device), number)
        n_sat = len(host)
        mass = row[host] % self.n_mass
        sub = self.satellite_inverse[mass, (self._uniform(rng, n_sat) * 256).long().clamp(max=255)]
        sat_flux = self.satellite_uk_sr[shell[host], sub] * self._lognormal(rng, n_sat)
        u = (self._uniform(rng, n_sat) * 512).long().clamp(max=511)
        radius = (
            self.nfw_inverse[self.c_bin[row[host]], u] * self.theta_200m[row[host]] / self.pixel
        )
        cos = 2 * self._uniform(rng, n_sat) - 1
        radius = radius * torch.sqrt(1 - cos**2)
        angle = 2 * math.pi * self._uniform(rng, n_sat)
        # from the centre of the host's pixel, where its profiles are painted
        sat_y = y[host].floor() + 0.5 + radius * torch.cos(angle)
        sat_x = x[host].floor() + 0.5 + radius * torch.sin(angle)
        return torch.cat([flux, sat_flux]), torch.cat([y, sat_y]), torch.cat([x, sat_x]), len(row)

    def _radio(self, rng, row):
        """Radio sources: index of the host and flux (Jy)."""
        number = torch.poisson(self.radio_rate[row], generator=rng).long()
        host = torch.repeat_interleave(torch.arange(len(row), device=self.device), number)
        u = self._uniform(rng, len(host), torch.float64)
        i = torch.searchsorted(self.radio_u, u).clamp(1, len(self.radio_u) - 1)
        u0, u1 = self.radio_u[i - 1], self.radio_u[i]
        w = (u - u0) / (u1 - u0)
        return host, torch.exp(self.radio_log_jy[i - 1] * (1 - w) + self.radio_log_jy[i] * w)

    def _spread(self, y, x, flux):
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
                total = total + self._points(self._pixel(iy + dy, ix + dx), flux * wy * wx)
        return total

    def _points(self, pixel, flux):
        n = self.n
        total = torch.bincount(pixel, weights=flux.double(), minlength=n * n)
        return (total / self.pixel**2).float().reshape(n, n)

    def _smooth_fields(self, density, velocity):
        """Matter and gas outside the painted haloes, up-sampled to pixels (Fourier)."""
        n, nc = self.n, self.cells
        maps = [torch.einsum("i,iyx->yx", w, density) for k, w in self.smooth.items() if k != "tau"]
        nv = velocity.shape[-1]
        mean_v = torch.stack([v.mean(0) for v in velocity.split(self.n_slices.tolist())])
        step = nc // nv
        mean_v = mean_v.repeat_interleave(step, 1).repeat_interleave(step, 2)
        maps.append(torch.einsum("i,iyx,iyx->yx", self.smooth["tau"], mean_v, density))
        window = self._tensor(self.cell_window)
        low = torch.fft.rfft2(torch.stack(maps)) * window * (n / nc) ** 2
        low[0] *= self.smooth_kappa
        half = nc // 2
        low[:, half] = 0
        low[:, :, half] = 0
        low = low * self.up_shift
        up = torch.zeros(len(maps), n, n // 2 + 1, dtype=low.dtype, device=self.device)
        up[:, :half, :half] = low[:, :half, :half]
        up[:, -half + 1 :, :half] = low[:, -half + 1 :, :half]
        return dict(zip(_SMOOTH, up, strict=True))

    def _region(self, rng) -> Region:
        n = self.n
        density, velocity = self._fields(rng)
        shell, row, y, x = self._haloes(rng, density)
        # radial velocity (units of c) of each halo: its slice, plus what the grid cannot carry
        pick = (self._uniform(rng, len(row)) * self.n_slices[shell]).long()
        slice_ = self.first[shell] + torch.minimum(pick, self.n_slices[shell] - 1)
        nv = velocity.shape[-1]
        step = n / nv
        v = velocity[
            slice_, (y / step).long().clamp(max=nv - 1), (x / step).long().clamp(max=nv - 1)
        ]
        v = v + self.v_residual[slice_] * self._normal(rng, len(row))
        pixel = self._pixel(y, x)
        kappa_f, y_f, cib_f, tau_f = self._paint_haloes(row, v, pixel)
        smooth = self._smooth_fields(density, velocity)
        del density, velocity
        white = [torch.fft.rfft2(self._normal(rng, n, n)) for _ in range(4)]
        gauss = self.gauss
        fourier = torch.stack(
            [
                kappa_f + smooth["kappa"] + white[0] * gauss["kappa"],
                smooth["kappa_g"] + white[0] * gauss["far_mean"] + white[1] * gauss["far_scatter"],
                -T_CMB_UK * (tau_f + smooth["tau"] + white[3] * gauss["ksz"]),
                TSZ_148 * (y_f + smooth["y"]),
                cib_f + smooth["cib"] + white[0] * gauss["cib_kappa"] + white[2] * gauss["cib"],
            ]
        )
        fourier[:2, 0, 0] = 0  # kappa has no mean
        maps = torch.fft.irfft2(fourier, s=(n, n))
        flux, gy, gx, n_central = self._galaxies(rng, shell, row, y, x)
        bright = flux >= self.flux_cut
        soft = flux < SPREAD_UK * self.pixel**2
        soft[:n_central] = False
        sharp = ~(soft | bright)
        maps[4] += self._points(self._pixel(gy[sharp], gx[sharp]), flux[sharp])
        maps[4] += self._spread(gy[soft], gx[soft], flux[soft])
        maps[4] += float(self.t["low_cib_mean"])
        mjy = flux[bright] / self.uk_per_jy_sr * 1e3
        sources = torch.stack([gy[bright] % n, gx[bright] % n, mjy], 1)
        host, radio = self._radio(rng, row)
        radio = torch.where(radio < self.radio_max_jy, radio, torch.zeros_like(radio))
        radio = self._points(pixel[host], radio * self.uk_per_jy_sr)
        return Region(torch.cat([maps, radio[None]]), sources)
