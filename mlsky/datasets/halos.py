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
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mlsky import seeds
from mlsky.bands import parse_freqs
from mlsky.components import REFERENCE_GHZ
from mlsky.datasets import tables as halo_tables
from mlsky.datasets.galaxies import Galaxies, source_rows, uk_per_jy_sr
from mlsky.datasets.mixing import mixing
from mlsky.networks.inputs import kappa_lmax
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


def _log_mean_exp(exponent: np.ndarray, log_weight: np.ndarray) -> np.ndarray:
    """ln of the weighted mean of exp(exponent) over the first axis."""
    top = exponent.max(0)
    weight = np.exp(log_weight)
    return top + np.log((weight @ np.exp(exponent - top)) / weight.sum())


@dataclass
class Region:
    """One painted region.

    Parameters
    ----------
    maps : (6, n, n)
        In the order of `FIELDS`.
    sources : (n_sources, 7)
        Radio and infrared galaxies above the painter's `catalogue_mjy`, columns as
        `mlsky.datasets.galaxies.SOURCE_COLUMNS`; those below `flux_cut_mjy` are in the maps too.
    cib, radio : (n_freqs, n, n)
        uK_CMB at the painter's `freqs`.
    """

    maps: torch.Tensor
    sources: torch.Tensor
    cib: torch.Tensor
    radio: torch.Tensor


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
    freqs
        Further frequencies (GHz) at which CIB and radio are painted. Whatever they are, the
        maps at 148 GHz and the sources stay the same.
    catalogue_mjy
        Sources above this flux at 148 GHz are listed; at most `flux_cut_mjy`.

    Attributes
    ----------
    flux_cut_mjy
        Sources above this flux at 148 GHz are left out of the maps at every frequency; of the
        tables.

    Raises
    ------
    ValueError
        If `n`, `pixel_arcmin`, a frequency or `catalogue_mjy` is not allowed.
    """

    def __init__(
        self,
        pixel_arcmin: float = 0.5,
        n: int = 512,
        tables: dict | None = None,
        device: str | torch.device = "cpu",
        freqs: Sequence[float] = (),
        catalogue_mjy: float = 1.0,
    ) -> None:
        if n < 64 or n % 16:
            raise ValueError(f"n={n}: must be a multiple of 16 and at least 64")
        if not 0.1 <= pixel_arcmin <= 4:
            raise ValueError(f"pixel_arcmin={pixel_arcmin!r}: must be from 0.1 to 4, as 0.5 or 2")
        self.n, self.pixel, self.device = n, pixel_arcmin * ARCMIN, torch.device(device)
        self.pixel_arcmin = pixel_arcmin
        t = halo_tables.load() if tables is None else tables
        self.t = t
        self.freqs = tuple(float(nu) for nu in parse_freqs(freqs)) if len(freqs) else ()
        self.flux_cut_mjy = float(t["flux_cut_uk_sr"] / t["uk_per_jy_sr"]) * 1e3
        if not 0 < catalogue_mjy <= self.flux_cut_mjy * (1 + 1e-6):
            raise ValueError(
                f"catalogue_mjy={catalogue_mjy!r}: must be above 0 and at most the flux cut of "
                f"the maps, {self.flux_cut_mjy:g}"
            )
        self.catalogue_mjy = catalogue_mjy
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
        self.galaxies = Galaxies(t, n, self.pixel, self.device)
        colour = [self.galaxies.colours.shells(nu) for nu in self.freqs]
        self.colour = np.array(colour).reshape(len(self.freqs), self.n_shell)
        self.uk_per_jy_sr = float(t["uk_per_jy_sr"])
        #: uK_CMB at each frequency per uK_CMB at 148 GHz of the same intensity
        self.to_uk = [uk_per_jy_sr(nu) / uk_per_jy_sr(REFERENCE_GHZ) for nu in self.freqs]
        self._set_up_gaussian()
        self._set_up_haloes()

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
        _, _, ell = self._wave_numbers(n)
        self.ell = ell
        self.phi = {k: self._tensor(self._at(ell, t[f"phi_{k}"])) for k in ("nfw", "y", "tau")}
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

    def _set_up_gaussian(self) -> None:
        """Gaussian fields of what is not painted halo by halo: kappa, and CIB at each frequency.

        Filters are divided by the pixel side: white noise of unit variance per pixel has power
        pixel^2. Row j of the lower triangle of CIB acts on the noises of kappa, 148 GHz and the
        frequencies before.
        """
        t, ell = self.t, self.ell
        ky, kx, _ = self._wave_numbers(self.n)
        kk, far, missing = (
            self._at(ell, t[name]) for name in ("gauss_kk", "far_kappa", "missing_kappa")
        )
        # the smooth field ends with the grid of cells: a Gaussian one takes its place beyond
        edge = np.pi / (self.side / self.cells)
        beyond = (np.abs(ky) >= edge) | (kx >= edge)
        kk = kk + far + np.where(beyond, missing, 0)
        a = np.sqrt(kk)
        # far part of the same field, given the field: conditional mean and scatter
        filters = {"kappa": a, "far_mean": far / a, "far_scatter": np.sqrt(far * (kk - far) / kk)}
        self.gauss = {k: self._tensor(v / self.pixel) for k, v in filters.items()}
        freqs, colour = (REFERENCE_GHZ, *self.freqs), np.ones((1 + len(self.freqs), self.n_shell))
        colour[1:] = self.colour
        kc = np.array([self._at(ell, c @ t["gauss_kc"]) for c in colour])
        rest = np.empty((*ell.shape, len(freqs), len(freqs)))
        for i, j in itertools.product(range(len(freqs)), repeat=2):
            cc = (colour[i] * colour[j]) @ t["gauss_cc"].astype(np.float64)
            coherence = self.galaxies.colours.coherence(freqs[i], freqs[j])
            shot = float((colour[i] * colour[j]) @ t["gauss_shot"].astype(np.float64)) * coherence
            rest[..., i, j] = self._at(ell, cc) + shot - kc[i] * kc[j] / kk
        # shot noise keeps it positive; frequencies that differ by nothing need the little more
        rest = rest * (1 + 1e-6 * np.eye(len(freqs)))
        lower = np.moveaxis(np.linalg.cholesky(rest), (-2, -1), (0, 1))
        self.gauss_cib = [
            [self._tensor(f / self.pixel) for f in (kc[i] / a, *lower[i, : i + 1])]
            for i in range(len(freqs))
        ]

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
        self.ksz_filter = self._tensor(np.sqrt(self._at(self.ell, missing)) / self.pixel)

    def _set_up_haloes(self) -> None:
        t, ns = self.t, self.n_shell
        nm = len(t["log10_mass"])
        sigma = np.sqrt(self.variance)
        self.delta_min, self.delta_step = -6 * sigma, 13 * sigma / (DELTA_BINS - 1)
        rate = np.empty((ns, DELTA_BINS))
        index, accept = [], []
        # response to the density, capped (see tables.CAP_SIGMA) and of mean 1
        x = np.linspace(-9, 9, 3601)
        for i in range(ns):
            delta = self.delta_min[i] + self.delta_step[i] * np.arange(DELTA_BINS)
            b, cap = t["bias"][i].astype(np.float64), float(t["delta_cap"][i])
            log_mean = _log_mean_exp(np.minimum(x * sigma[i], cap)[:, None] * b, -0.5 * x**2)
            w = t["number"][i] * np.exp(
                np.clip(np.minimum(delta, cap)[:, None] * b - log_mean, -300, 60)
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
        self.flux_cut = float(t["flux_cut_uk_sr"])
        self.halo_rows = self._tensor(rows.reshape(ns * nm, -1))
        self.tau_rows = self._tensor(t["a_tau"].reshape(ns * nm, -1))
        self.smooth = {name: self._tensor(t[table]) for name, table in _SMOOTH.items()}
        # smaller satellites' light at the other frequencies
        small = t["small_satellites_uk_sr"][..., None] * a_nfw
        self.colour_rows = [
            self._tensor((c[:, None, None] * small).reshape(ns * nm, -1)) for c in self.colour
        ]
        for nu, c in zip(self.freqs, self.colour, strict=True):
            self.smooth[f"cib {nu:g}"] = self._tensor(t["low_cib"] * c)
        self.low_cib_mean = [float(t["low_cib_mean"] @ c) for c in (np.ones(ns), *self.colour)]

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
        with torch.no_grad():
            # the maps; what more is said of listed sources; the other frequencies
            return self._region(*(self._rng(seed, index, *more) for more in ((), (1,), (2,))))

    def _rng(self, seed: int, *tile: int) -> torch.Generator:
        rng = torch.Generator(device=self.device)
        rng.manual_seed(seeds.integer(seed, "truth", *tile))
        return rng

    def _normal(self, rng, *shape):
        return torch.randn(*shape, generator=rng, device=self.device)

    def _uniform(self, rng, n, dtype=torch.float32):
        return torch.rand(n, generator=rng, device=self.device, dtype=dtype)

    def _noise(self, rng, fields: int, m: int) -> torch.Tensor:
        """Half planes (fields, m, m / 2 + 1) of white noise of unit variance, m even.

        An inverse transform to real maps takes the Hermitian part of the columns that are their
        own conjugates, so those are drawn with twice the variance.
        """
        white = torch.randn(
            fields, m, m // 2 + 1, dtype=torch.complex64, generator=rng, device=self.device
        )
        white[..., :: m // 2] *= math.sqrt(2)
        return white.mul_(m)

    def _fields(self, rng):
        """Shell densities (n_shell, cells, cells), slice velocities (n_slice, 2 joint, 2 joint)."""
        nc, nj, ns = self.cells, self.joint, self.n_shell
        half = nj // 2
        white = self._noise(rng, ns + self.n_slice, nj) / nj
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
        density = self._noise(rng, ns, nc).mul_(self.high)
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
        # a Poisson process: its number, then places in order (sums of exponentials are the
        # order statistics of uniform numbers), looked up in the running sum of the rate
        below = rate.flatten().cumsum(0, dtype=torch.float64)
        n_halo = int(torch.poisson(below[-1:] * self.cell**2, generator=rng))
        steps = torch.empty(n_halo + 1, dtype=torch.float64, device=self.device)
        place = steps.exponential_(generator=rng).cumsum_(0)
        cell = torch.searchsorted(below, place[:-1] * (below[-1] / place[-1]))
        cell = cell.clamp(max=ns * nc * nc - 1)
        shell, cell_in = cell // (nc * nc), cell % (nc * nc)
        up = self._uniform(rng, n_halo) < frac.flatten()[cell]
        table = shell * DELTA_BINS + bin_.flatten()[cell] + up
        slot = (self._uniform(rng, n_halo) * self.n_mass).long().clamp(max=self.n_mass - 1)
        # float32 numbers are 0 once in 2^24: that alone would paint haloes that the sky has none of
        accept = self.alias_accept[table, slot]
        keep = self._uniform(rng, n_halo, torch.float64) < accept
        mass = torch.where(keep, slot, self.alias_index[table, slot])
        per = self.n // nc
        y = (cell_in // nc) * per + self._uniform(rng, n_halo) * per
        x = (cell_in % nc) * per + self._uniform(rng, n_halo) * per
        return shell, shell * self.n_mass + mass, y, x

    def _paint_haloes(self, row, velocity, pixel):
        """Sum of halo profiles, as Fourier maps: kappa, y, tau x v, and the CIB of small satellites
        at 148 GHz and each frequency."""
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
        parts = [(f[:k], "nfw"), (f[k : 2 * k], "y"), (f_tau, "tau"), (f[2 * k :], "nfw")]
        for rows in self.colour_rows:
            grid = bag(row, rows, offsets, mode="sum").t().reshape(k, n, n)
            parts.append((torch.fft.rfft2(grid), "nfw"))
        # a halo in one pixel is a delta of area pixel^2
        return [(g * self.phi[p]).sum(0) / self.pixel**2 for g, p in parts]

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
        names = [*(k for k in self.smooth if k != "tau"), "tau"]
        return dict(zip(names, up, strict=True))

    def _region(self, rng, rng_sources, rng_colours) -> Region:
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
        pixel = self.galaxies.place(y, x)
        kappa_f, y_f, tau_f, *cib_f = self._paint_haloes(row, v, pixel)
        smooth = self._smooth_fields(density, velocity)
        del density, velocity
        noise = self._noise(rng, 4, n)
        gauss = self.gauss
        # noises of kappa and of the CIB at 148 GHz, then at each frequency
        colour_noise = self._noise(rng_colours, len(self.freqs), n)
        cib_noise = (noise[0], noise[2], *colour_noise)
        names = ("cib", *(f"cib {nu:g}" for nu in self.freqs))
        cib = [
            painted + smooth[name] + sum(f * w for f, w in zip(filters, cib_noise, strict=False))
            for painted, name, filters in zip(cib_f, names, self.gauss_cib, strict=True)
        ]
        fourier = torch.stack(
            [
                kappa_f + smooth["kappa"] + noise[0] * gauss["kappa"],
                smooth["kappa_g"] + noise[0] * gauss["far_mean"] + noise[1] * gauss["far_scatter"],
                -T_CMB_UK * (tau_f + smooth["tau"] + noise[3] * self.ksz_filter),
                TSZ_148 * (y_f + smooth["y"]),
                *cib,
            ]
        )
        fourier[:2, 0, 0] = 0  # kappa has no mean
        maps = torch.fft.irfft2(fourier, s=(n, n))
        for row_map, mean in zip(maps[4:], self.low_cib_mean, strict=True):
            row_map += mean
        dusty = self._add_infrared(maps[4:], rng, rng_sources, rng_colours, shell, row, y, x)
        radio, bright = self._radio(rng, rng_sources, rng_colours, row, y, x)
        to_uk = self._tensor(self.to_uk)[:, None, None]
        return Region(
            torch.cat([maps[:5], radio[:1]]),
            torch.cat([bright, dusty]),
            maps[5:] * to_uk,
            radio[1:] * to_uk,
        )

    def _add_infrared(self, maps, rng, rng_sources, rng_colours, shell, row, y, x):
        """Add infrared galaxies to the maps of each frequency; those to be listed, as rows."""
        g = self.galaxies
        flux, gy, gx, shell = g.infrared(rng, shell, row, y, x)
        listed = (flux * (1e3 / self.uk_per_jy_sr) >= self.catalogue_mjy).nonzero()[:, 0]
        beta_listed = g.beta(rng_sources, len(listed))
        polarisation = g.polarisation(rng_sources, len(listed), "dusty")
        soft = flux < SPREAD_UK * self.pixel**2
        soft[: len(row)] = False
        sharp = ~(soft | (flux >= self.flux_cut))
        sharp, soft = sharp.nonzero()[:, 0], soft.nonzero()[:, 0]
        where = self.galaxies.place(gy[sharp], gx[sharp])
        maps[0] += self.galaxies.points(where, flux[sharp])
        maps[0] += self.galaxies.spread(gy[soft], gx[soft], flux[soft])
        if self.freqs:
            beta = g.beta(rng_colours, len(flux))
            beta[listed] = beta_listed
        for out, nu, colour in zip(maps[1:], self.freqs, self.colour, strict=True):
            at = flux * self._tensor(colour)[shell] * g.colours.galaxy(nu, beta)
            out += self.galaxies.points(where, at[sharp])
            out += self.galaxies.spread(gy[soft], gx[soft], at[soft])
        mjy = flux[listed] * (1e3 / self.uk_per_jy_sr)
        alpha = g.index[shell[listed]] + beta_listed
        gy, gx = gy[listed] % self.n, gx[listed] % self.n
        return source_rows(gy, gx, mjy, "dusty", alpha, polarisation)

    def _radio(self, rng, rng_sources, rng_colours, row, y, x):
        """Maps of radio sources at 148 GHz and each frequency, and those to be listed, as rows."""
        g = self.galaxies
        host, flux = g.radio(rng, row)
        listed = (flux * 1e3 >= self.catalogue_mjy).nonzero()[:, 0]
        alpha_listed = g.alpha(rng_sources, len(listed))
        polarisation = g.polarisation(rng_sources, len(listed), "radio")
        where = self.galaxies.place(y[host], x[host])
        kept = torch.where(flux * 1e3 < self.flux_cut_mjy, flux, torch.zeros_like(flux))
        kept = kept * self.uk_per_jy_sr
        maps = [self.galaxies.points(where, kept)]
        if self.freqs:
            alpha = g.alpha(rng_colours, len(flux))
            alpha[listed] = alpha_listed
        maps += [
            self.galaxies.points(where, kept * torch.exp(alpha * math.log(nu / REFERENCE_GHZ)))
            for nu in self.freqs
        ]
        place = y[host[listed]], x[host[listed]]
        rows = source_rows(*place, flux[listed] * 1e3, "radio", alpha_listed, polarisation)
        return torch.stack(maps), rows
