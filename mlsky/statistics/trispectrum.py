"""The trispectrum measured by lensing reconstruction, on flat periodic maps.

The quadratic estimator of Hu & Okamoto (2002, ApJ 574, 566) turns a temperature map into a map of
kappa. For a lensed CMB its power is that of kappa plus a disconnected part, which every Gaussian
map has. For a foreground, the power in excess of the disconnected part is a trispectrum, and the
cross power with the true kappa a bispectrum: the two biases of lensing reconstruction from
foregrounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky.statistics.checks import images

__all__ = ["Reconstruction"]


class Reconstruction:
    """Kappa by the quadratic estimator from temperature, its power and what of it is Gaussian.

    Parameters
    ----------
    n
        Pixels along a side of the maps.
    pixel_arcmin
        Pixel size.
    cl
        C_l of the CMB by multipole from 0: what lensing acts on.
    total
        C_l of all in the map, noise included, by multipole: what modes are weighted with.
    band
        Multipoles that are used, lowest and highest.
    edges
        Multipoles between the bands of what is reconstructed.

    Raises
    ------
    ValueError
        If the spectra end below the band, or a band holds no mode.

    Notes
    -----
    With F(l1, l2) = f / (2 C_l1 C_l2), f = c_l1 L.l1 + c_l2 L.l2 and L = l1 + l2 (their eqs 12, 13
    and 20 for temperature), phi(L) = A_L sum F T T is
    -A_L div[(T / C) grad(c T / C)], and its power of a Gaussian map of spectrum C is A_L.
    """

    def __init__(
        self,
        n: int,
        pixel_arcmin: float,
        cl: ArrayLike,
        total: ArrayLike,
        band: tuple[float, float],
        edges: Sequence[float],
    ) -> None:
        cl, total = np.asarray(cl, np.float64), np.asarray(total, np.float64)
        if min(len(cl), len(total)) <= band[1] or band[0] >= band[1] or band[0] < 1:
            raise ValueError(
                f"band={band}: must rise from 1 or more and end below {min(len(cl), len(total))}, "
                "where the spectra do"
            )
        side = math.radians(pixel_arcmin / 60) * n
        step = 2 * np.pi / side
        used, wanted = int(band[1] / step), int(edges[-1] / step)
        # sums of two modes that are used must not come round to one that is wanted
        m = 2 * ((2 * used + wanted) // 2 + 1)
        self.n, self.edges, self._m, self._area = n, tuple(edges), m, side**2
        self._keep = min(n // 2, m // 2)
        ky, kx = np.fft.fftfreq(m, 1 / m)[:, None] * step, np.arange(m // 2 + 1)[None] * step
        self._k = (kx, ky)
        ell = np.hypot(kx, ky)
        inside = (ell >= band[0]) & (ell < band[1]) & (np.maximum(kx, abs(ky)) < n // 2 * step)
        index = np.where(inside, ell, band[0])
        at = np.arange(max(len(cl), len(total)), dtype=np.float64)
        self._inverse = inside / np.interp(index, at[: len(total)], total)
        self._gradient = self._inverse * np.interp(index, at[: len(cl)], cl)
        weight = np.full(ell.shape, 2.0)  # a mode stands for its conjugate
        weight[:, [0, m // 2]] = 1
        self._bands = []
        for a, b in pairwise(edges):
            modes = np.flatnonzero((ell >= max(a, step / 2)) & (ell < b))
            if not len(modes):
                raise ValueError(f"band ({a:g}, {b:g}): holds no mode of maps {side:.3g} rad wide")
            self._bands.append((modes, weight.ravel()[modes] / weight.ravel()[modes].sum()))
        with np.errstate(divide="ignore"):
            norm = 1 / self._quadratic(np.ones_like(ell))
        self._normalise = np.where((ell > 0) & (ell < edges[-1]), norm, 0.0)
        self._half_l2 = ell**2 / 2

    def _real(self, modes: NDArray) -> NDArray[np.float64]:
        """Of continuous modes, integral d^2l / (2 pi)^2."""
        return np.fft.irfft2(modes, s=(self._m, self._m)) * (self._m**2 / self._area)

    def _modes(self, field: NDArray) -> NDArray[np.complex128]:
        return np.fft.rfft2(field) * (self._area / self._m**2)

    def _quadratic(self, power: NDArray) -> NDArray[np.float64]:
        """Sum over l of 2 F^2 P(l1) P(l2), P = C times `power`: of unit power, 1 / A_L."""
        w, g = self._inverse, self._gradient
        total = np.where(w > 0, 1 / np.where(w > 0, w, 1), 0.0) * power
        single = self._real(w * w * total)
        out = np.zeros(w.shape)
        for i in range(2):
            for j in range(i, 2):
                double = self._real(self._k[i] * self._k[j] * g * g * total)
                a, b = (self._real(1j * self._k[x] * w * g * total) for x in (i, j))
                fraction = self._k[i] * self._k[j] * (1 if i == j else 2)
                out += fraction * self._modes(double * single - a * b).real
        return out

    def kappa(self, maps: NDArray) -> NDArray[np.complex128]:
        """Reconstructed kappa, continuous modes *(..., m, m // 2 + 1)* on the grid used inside.

        Parameters
        ----------
        maps
            Temperature (..., n, n), in the unit of which the spectra are squares.

        Raises
        ------
        ValueError
            If maps are of another size, or not finite.
        """
        return self._kappa(self._given(images(maps, self.n)))

    def _given(self, maps: NDArray) -> NDArray[np.complex128]:
        """Continuous modes of maps on the grid used inside; those beyond it are left out."""
        modes = np.fft.rfft2(maps) * (self._area / self.n**2)
        k, m = self._keep, self._m
        out = np.zeros((*modes.shape[:-2], m, m // 2 + 1), np.complex128)
        out[..., :k, :k] = modes[..., :k, :k]
        out[..., -k + 1 :, :k] = modes[..., -k + 1 :, :k]
        return out

    def _kappa(self, modes: NDArray) -> NDArray[np.complex128]:
        filtered = self._real(self._inverse * modes)
        divergence = 0.0
        for k in self._k:
            slope = self._real(1j * k * self._gradient * modes)
            divergence = divergence + 1j * k * self._modes(filtered * slope)
        return -self._half_l2 * self._normalise * divergence

    def _binned(self, values: NDArray) -> NDArray[np.float64]:
        flat = values.reshape(*values.shape[:-2], -1)
        return np.stack([flat[..., i] @ w for i, w in self._bands], -1)

    def __call__(self, maps: NDArray, kappa: NDArray | None = None) -> dict[str, NDArray]:
        """What is measured of maps (..., n, n), as numbers whose means over maps count.

        Parameters
        ----------
        maps
            Temperature.
        kappa
            (..., n, n) the true one, for ``cross`` and ``kappa``.

        Returns
        -------
        dict
            ``auto`` (..., bands), power of what is found; ``modes`` (..., m, m // 2 + 1), power
            of each mode of the map, for `gaussian`; with `kappa`, ``cross`` (..., bands) with the
            reconstruction and ``kappa``, its own power.

        Raises
        ------
        ValueError
            If maps are of another size, not finite, or not one for each kappa.
        """
        if kappa is not None and np.shape(kappa) != np.shape(maps):
            raise ValueError(
                f"maps {np.shape(maps)} and kappa {np.shape(kappa)}: must be of one shape"
            )
        modes = self._given(images(maps, self.n))
        found = self._kappa(modes)
        out = {
            "auto": self._binned(np.abs(found) ** 2) / self._area,
            "modes": np.abs(modes) ** 2 / self._area,
        }
        if kappa is not None:
            true = self._given(images(kappa, self.n, "kappa"))
            out["cross"] = self._binned((found * true.conj()).real) / self._area
            out["kappa"] = self._binned(np.abs(true) ** 2) / self._area
        return out

    def gaussian(self, power: NDArray | None = None) -> NDArray[np.float64]:
        """Disconnected power (bands) of the reconstruction.

        Parameters
        ----------
        power
            Mean power of the modes of the map, as `__call__` gives it; by default the spectrum
            `total`.
        """
        ratio = np.ones_like(self._inverse) if power is None else power * self._inverse
        raw = self._quadratic(ratio)
        return self._binned(self._half_l2**2 * self._normalise**2 * raw)

    def compute(self, means: Mapping[str, NDArray]) -> dict[str, NDArray[np.float64]]:
        """The two biases, over the power of the true kappa if it is there.

        Parameters
        ----------
        means
            Means over maps of what `__call__` gives, of one field.

        Returns
        -------
        dict
            ``trispectrum`` (bands): power beyond the Gaussian part; with a true kappa
            ``bispectrum``, the cross power with it, and both over the power of kappa.
        """
        excess = means["auto"] - self.gaussian(means["modes"])
        if "kappa" not in means:
            return {"trispectrum": excess}
        return {
            "trispectrum": excess / means["kappa"],
            "bispectrum": means["cross"] / means["kappa"],
        }
