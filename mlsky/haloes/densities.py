"""Densities of the light cone's shells and velocities of its slices, on a flat periodic region.

Densities are Gaussian at linear order. Below about `JOINT_ELL_MAX` they are drawn together with the
radial velocities, so that kSZ has the sign and the coherence of the flow towards the structures.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch

from mlsky.haloes.covariance_factor import covariance_factor

__all__ = ["Densities", "Grid", "add_filtered", "pairs", "uniform", "white_noise"]

ARCMIN = math.pi / 180 / 60
#: Densities and velocities are drawn jointly up to about this multipole.
JOINT_ELL_MAX = 2700.0


def uniform(rng: torch.Generator, n: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Numbers in [0, 1), (n,)."""
    return torch.rand(n, generator=rng, device=rng.device, dtype=dtype)


def white_noise(rng: torch.Generator, fields: int, m: int) -> torch.Tensor:
    """Half planes (fields, m, m / 2 + 1) of white noise, m even.

    ``irfft2(..., norm="ortho")`` turns them into real maps of unit variance per pixel. It uses only
    the Hermitian part of columns that are their own conjugates, which are therefore drawn with
    twice the variance.
    """
    white = torch.randn(
        fields, m, m // 2 + 1, dtype=torch.complex64, generator=rng, device=rng.device
    )
    white[..., :: m // 2] *= math.sqrt(2)
    return white


def pairs(x: np.ndarray) -> np.ndarray:
    """A real filter duplicated, (..., 2), to multiply real and imaginary parts.

    A product of a real and a complex tensor would make a complex copy of the real one.
    """
    return np.repeat(x[..., None], 2, -1)


def add_filtered(total: torch.Tensor, modes: torch.Tensor, filter_pairs: torch.Tensor) -> None:
    """Add modes times a real filter (as `pairs` makes it) to `total` in place."""
    torch.view_as_real(total).addcmul_(torch.view_as_real(modes), filter_pairs)


def _comb(x: np.ndarray, n: int) -> np.ndarray:
    """Mean of exp(i k y) over n neighbouring pixels, x = k pixel / 2: sin(n x) / (n sin x)."""
    small = np.abs(x) < 1e-12
    safe = np.where(small, 1.0, x)
    return np.where(small, 1.0, np.sin(n * safe) / (n * np.sin(safe)))


def _drift(ell_mix, power, ell, nearest) -> np.ndarray:
    """Amplitude of modes over that at the nearest multipole of the factor, (fields, modes).

    Multipoles of the factor are 11 % apart. Without this interpolation the power of a band was
    wrong by up to 2 %.
    """
    from scipy.interpolate import CubicSpline

    log_power = np.log(np.maximum(power, 1e-60))
    at = CubicSpline(np.log(ell_mix), log_power)(np.log(ell)).T
    # at the band limit of the nearest shells their power is zero, and its logarithm jumps
    return np.exp(np.clip((at - log_power[nearest].T) / 2, -0.7, 0.7))


class Grid:
    """Pixels of a region, the coarser cells of densities, and the grid of the joint draw.

    Parameters
    ----------
    t
        Painter tables.
    n, pixel_arcmin, device
        Of `mlsky.haloes.painter.Painter`.

    Raises
    ------
    ValueError
        If `n` or `pixel_arcmin` is not allowed.
    """

    def __init__(self, t: dict, n: int, pixel_arcmin: float, device: torch.device) -> None:
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 64 or n % 16:
            raise ValueError(f"n={n}: must be a multiple of 16 and at least 64")
        if not 0.1 <= pixel_arcmin <= 4:
            raise ValueError(f"pixel_arcmin={pixel_arcmin!r}: must be from 0.1 to 4, as 0.5 or 2")
        self.t, self.n, self.device = t, int(n), device
        self.pixel = pixel_arcmin * ARCMIN
        self.side = n * self.pixel
        self.area = self.side**2
        # density cells of about 1': the clustering of haloes inside one is lost
        self.cells = n // max(1, round(1.0 / pixel_arcmin))
        self.cell = self.side / self.cells
        # grid of the joint draw, its Nyquist near JOINT_ELL_MAX
        joint = 2 * int(JOINT_ELL_MAX * self.side / (2 * math.pi) / 8) * 8
        self.joint = min(max(joint, 32), self.cells // 2)
        if self.cells % (2 * self.joint):
            raise ValueError(
                f"n={n}: on pixels of {pixel_arcmin:g} arcmin the grid of velocities does not "
                "divide that of densities; take a power of two, for example n=512"
            )
        ky, kx, _ = self.wave_numbers(self.cells)
        # Haloes are placed anywhere in their cell and rounded to pixel centres: the fields of the
        # cells are divided by this window, and smooth fields are multiplied by it again
        per = self.n // self.cells
        self.window = _comb(ky * self.pixel / 2, per) * _comb(kx * self.pixel / 2, per)

    def tensor(self, x, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(x), dtype=dtype, device=self.device)

    def wave_numbers(self, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ky, kx and the multipole of the half plane of m x m points on the region."""
        step = self.side / m
        ky = 2 * np.pi * np.fft.fftfreq(m, step)[:, None]
        kx = 2 * np.pi * np.fft.rfftfreq(m, step)[None]
        return ky, kx, np.hypot(ky, kx)

    def at(self, ell: np.ndarray, table: np.ndarray) -> np.ndarray:
        """Interpolate rows of a table in ln ell to a grid of multipoles (linear in value)."""
        x = np.log(np.clip(ell, self.t["ell"][0], self.t["ell"][-1]))
        grid = np.log(self.t["ell"])
        rows = np.atleast_2d(table)
        out = np.array([np.interp(x.ravel(), grid, row).reshape(x.shape) for row in rows])
        return out if np.ndim(table) == 2 else out[0]

    def blocks(self, total: int) -> list[slice]:
        """Blocks of one row, to stay in the cache of a core; all rows at once with many cores."""
        step = 1 if self.device.type == "cpu" else total
        return [slice(i, i + step) for i in range(0, total, step)]

    def to_maps(self, modes: torch.Tensor, m: int) -> torch.Tensor:
        """Real maps (k, m, m) of half planes (k, m, m / 2 + 1)."""
        out = torch.empty(len(modes), m, m, device=self.device)
        for block in self.blocks(len(modes)):
            out[block] = torch.fft.irfft2(modes[block], s=(m, m))
        return out

    def to_modes(self, maps: torch.Tensor) -> torch.Tensor:
        """Half planes of real maps (k, m, m)."""
        blocks = self.blocks(len(maps))
        parts = [torch.fft.rfft2(maps[block]) for block in blocks]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class Densities:
    """Draws densities (n_shell, cells, cells) and velocities (n_slice, 2 joint, 2 joint).

    Parameters
    ----------
    t
        Painter tables.
    grid
        Of the region.

    Attributes
    ----------
    variance : (n_shell,)
        Of the densities in cells.
    shell_velocity_variance : (n_shell,)
        Variance of the mean velocity of whole shells, for the smooth gas (units of c, squared).
    first, n_slices : (n_shell,)
        First slice of each shell, and number of its slices.
    v_residual : (n_slice,)
        Rms of the velocity on scales below the grid (units of c).
    """

    def __init__(self, t: dict, grid: Grid) -> None:
        self.grid = grid
        self.n_shell, self.n_slice = len(t["z"]), int(t["slices"].sum())
        self.first = grid.tensor(np.cumsum(t["slices"]) - t["slices"], torch.int32)
        self.n_slices = grid.tensor(t["slices"], torch.int32)
        self.per_shell = t["slices"].tolist()
        nc, nj, half = grid.cells, grid.joint, grid.joint // 2
        _, _, ell = grid.wave_numbers(nc)
        iy, ix = np.fft.fftfreq(nc, 1 / nc)[:, None], np.arange(nc // 2 + 1)[None]
        low = (np.abs(iy) < half) & (ix < half)
        power = np.exp(grid.at(ell, np.log(np.maximum(t["p_shell"].astype(np.float64), 1e-60))))
        power = np.where(low, 0, power) / grid.window**2
        self.high = grid.tensor(pairs(np.sqrt(power) / grid.cell))
        count = np.where((ix == 0) | (ix == nc // 2), 1, 2)
        high_variance = (count * power).sum((1, 2)) / grid.area

        # modes of the joint grid: everything but its Nyquist row and column and the mean
        ell_mix, matrix = covariance_factor(t)
        _, _, ell_j = grid.wave_numbers(nj)
        jy, jx = np.fft.fftfreq(nj, 1 / nj)[:, None], np.arange(nj // 2 + 1)[None]
        use = (np.abs(jy) < half) & (jx < half) & (ell_j > 0)
        y, x = np.nonzero(use)
        ell_j = ell_j[use]
        bin_ = np.abs(np.log(ell_j)[:, None] - np.log(ell_mix)).argmin(1)
        order = np.argsort(bin_, kind="stable")
        y, x, ell_j, bin_ = y[order], x[order], ell_j[order], bin_[order]
        ends = np.flatnonzero(np.append(np.diff(bin_), 1)) + 1
        #: multipole of the factor, and its first and last columns (real and imaginary parts)
        self.segments = [
            (int(bin_[b - 1]), 2 * int(a), 2 * int(b)) for a, b in itertools.pairwise([0, *ends])
        ]
        self.mix = grid.tensor(matrix)
        window = grid.window[np.where(y < half, y, y - nj) % nc, x]
        self_conjugate = np.where(x == 0, math.sqrt(2), 1)
        # unit complex noise has half of its variance in either part; see `white_noise`
        scale = pairs(self_conjugate / math.sqrt(2)).ravel()
        nv, ns = 2 * nj, self.n_shell
        # every mode has the power at its own multipole, and the correlations of the nearest
        # tabulated one
        diagonal = (matrix.astype(np.float64) ** 2).sum(2)
        drift = scale * np.repeat(_drift(ell_mix, diagonal, ell_j, bin_), 2, 1)
        self.low_scale = grid.tensor(drift[:ns] / pairs(window).ravel() / grid.cell)
        self.velocity_scale = grid.tensor(drift[ns:] * nv / grid.side)

        def place(m):
            return grid.tensor(np.where(y < half, y, y - nj) % m * (m // 2 + 1) + x, torch.int64)

        self.low_place, self.velocity_place = place(nc), place(nv)

        multiplicity = np.where(x == 0, 1, 2)
        log_j, log_m = np.log(ell_j), np.log(ell_mix)

        def variance(rows, weight=1.0):
            """From power (n_ell, fields)."""
            on_grid = np.array([np.interp(log_j, log_m, r) for r in rows.T])
            return (multiplicity * weight * on_grid).sum(1) / grid.area

        self.variance = high_variance + variance(diagonal[:, :ns], 1 / window**2)
        sigma_v = np.repeat(t["sigma_v"], t["slices"])
        rest = np.clip(sigma_v**2 - variance(diagonal[:, ns:]), 0, None)
        self.v_residual = grid.tensor(np.sqrt(rest))
        first = np.concatenate([[0], np.cumsum(t["slices"])])
        rows = np.stack([matrix[:, ns + a : ns + b].mean(1) for a, b in itertools.pairwise(first)])
        self.shell_velocity_variance = variance((rows.astype(np.float64) ** 2).sum(-1).T)

    def draw(self, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Densities of the shells and velocities (units of c) of the slices."""
        grid, ns = self.grid, self.n_shell
        columns = self.segments[-1][2]
        white = torch.randn(ns + self.n_slice, columns, generator=rng, device=grid.device)
        modes = torch.empty_like(white)
        for b, start, stop in self.segments:
            modes[:, start:stop] = self.mix[b] @ white[:, start:stop]
        modes[:ns] *= self.low_scale
        modes[ns:] *= self.velocity_scale
        modes = torch.view_as_complex(modes.view(len(modes), -1, 2))
        nc, nv = grid.cells, 2 * grid.joint
        velocity = torch.empty(self.n_slice, nv, nv, device=grid.device)
        for block in grid.blocks(self.n_slice):
            some = modes[ns:][block]
            plane = some.new_zeros(len(some), nv * (nv // 2 + 1))
            plane[:, self.velocity_place] = some
            plane = plane.view(-1, nv, nv // 2 + 1)
            velocity[block] = torch.fft.irfft2(plane, s=(nv, nv), norm="ortho")
        density = torch.empty(ns, nc, nc, device=grid.device)
        for block in grid.blocks(ns):
            some = modes[:ns][block]
            plane = white_noise(rng, len(some), nc)
            torch.view_as_real(plane).mul_(self.high[block])
            plane.view(len(some), -1)[:, self.low_place] = some
            density[block] = torch.fft.irfft2(plane, s=(nc, nc), norm="ortho")
        return density, velocity
