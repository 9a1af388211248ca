"""Infrared galaxies of the training truth: fluxes at any frequency, below a flux cut.

Fluxes are lognormal about the mean of their sub-halo, and each galaxy has its own emissivity index.
Moments below a cut have closed forms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlsky.components import REFERENCE_GHZ
from mlsky.theory.halo_model import infrared_sed

if TYPE_CHECKING:
    from mlsky.theory.halo_model import HaloModel, Parameters

__all__ = ["InfraredGalaxies", "colour"]


def colour(nu_ghz: float, z: np.ndarray, parameters: Parameters) -> np.ndarray:
    """Ratio of the mean flux of galaxies at `nu_ghz` to that at 148 GHz, the shape of `z`."""
    sed = [infrared_sed(nu, z, parameters) for nu in (nu_ghz, REFERENCE_GHZ)]
    return sed[0] / sed[1]


def _lever(nu_ghz: float) -> float:
    return math.log(nu_ghz / REFERENCE_GHZ)


@dataclass(frozen=True)
class InfraredGalaxies:
    """Infrared galaxies of the hosts.

    Parameters
    ----------
    z : (n_shell,)
        Redshifts.
    number : (n_shell, n_mass)
        Hosts per steradian.
    central, satellites : (n_shell, n_mass)
        Mean flux (Jy) at 148 GHz of the central and of all satellites of a host.
    by_sub : (n_shell, n_sub)
        Mean flux (Jy) at 148 GHz of a satellite by its sub-halo's mass.
    log10_sub : (n_sub,)
        Sub-haloes' masses.
    number_sub, per_host : (n_mass, n_sub)
        dN/dln m and number per bin of sub-haloes of a host.
    quench : (n_mass,)
        Fraction of the satellites of a host that are not quenched.
    parameters
        Of the truth.
    """

    z: np.ndarray
    number: np.ndarray
    central: np.ndarray
    satellites: np.ndarray
    by_sub: np.ndarray
    log10_sub: np.ndarray
    number_sub: np.ndarray
    per_host: np.ndarray
    quench: np.ndarray
    parameters: Parameters

    @classmethod
    def of(cls, m: HaloModel) -> InfraredGalaxies:
        """The galaxies of a halo model."""
        central, satellites, by_sub, log10_sub, number_sub = m.infrared(REFERENCE_GHZ)
        return cls(
            z=m.z,
            number=m.number,
            central=central,
            satellites=satellites,
            by_sub=by_sub,
            log10_sub=log10_sub,
            number_sub=number_sub,
            per_host=number_sub * 0.02 * np.log(10),
            quench=1 / (1 + m.mass / 10**m.parameters.cib_log10_quench),
            parameters=m.parameters,
        )

    @property
    def scatter(self) -> float:
        """Scatter of ln S at 148 GHz."""
        return self.parameters.cib_scatter

    def colour(self, nu_ghz: float) -> np.ndarray:
        """Ratio of mean fluxes to those at 148 GHz, (n_shell,)."""
        return colour(nu_ghz, self.z, self.parameters)

    def fraction(
        self, flux: np.ndarray, powers: tuple[float, ...], cut: tuple[float, float] | None
    ):
        """Fraction of a moment of the fluxes below a cut.

        Parameters
        ----------
        flux : (n_shell, n)
            Mean fluxes (Jy) at 148 GHz.
        powers
            Frequencies (GHz) of the moment: () of the number, (a,) of <S_a>, (a, b) of <S_a S_b>.
        cut
            Flux (Jy) and frequency (GHz), or None.

        Returns
        -------
        fraction
            The shape of `flux`.

        Notes
        -----
        ln S_nu = ln <S_nu> + s g + t L_nu b - (s^2 + t^2 L_nu^2) / 2 with L = ln(nu / 148 GHz), g
        and b standard normal; weighting by a product of fluxes shifts the mean of ln S at the
        frequency of the cut by its covariance with the logarithm of the product.
        """
        if cut is None:
            return np.ones_like(flux)
        from scipy.special import ndtr

        limit, nu_cut = cut
        s2, t2 = self.scatter**2, self.parameters.cib_beta_scatter**2
        lever = _lever(nu_cut)
        variance = s2 + t2 * lever**2
        shift = len(powers) * s2 + t2 * lever * sum(_lever(nu) for nu in powers)
        mean = np.maximum(flux * self.colour(nu_cut)[:, None], 1e-99)
        return ndtr((np.log(limit / mean) + variance / 2 - shift) / math.sqrt(variance))

    def faint(
        self, nu_ghz: float, cut: tuple[float, float] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean flux (Jy) of the central and of all satellites of a host, below the cut."""
        colour = self.colour(nu_ghz)[:, None]
        central = colour * self.central * self.fraction(self.central, (nu_ghz,), cut)
        satellite = colour * self.by_sub * self.fraction(self.by_sub, (nu_ghz,), cut)
        return central, np.einsum("mk,ik->im", self.per_host, satellite) * self.quench

    def clustered(
        self, u_nfw: np.ndarray, nu_ghz: float, cut: tuple[float, float] | None
    ) -> np.ndarray:
        """Profiles (Jy) below the cut: the central is a point, satellites follow the mass."""
        central, satellites = self.faint(nu_ghz, cut)
        return central[:, :, None] + satellites[:, :, None] * u_nfw

    def squares(self, nu_1: float, nu_2: float, cut: tuple[float, float] | None) -> np.ndarray:
        """Sum over the galaxies of one halo of the product of their fluxes at two frequencies,
        those below the cut, Jy^2, (n_shell, n_mass).
        """
        coherence = self.parameters.cib_beta_scatter**2 * _lever(nu_1) * _lever(nu_2)
        boost = (self.colour(nu_1) * self.colour(nu_2))[:, None] * np.exp(
            self.scatter**2 + coherence
        )
        central = boost * self.central**2 * self.fraction(self.central, (nu_1, nu_2), cut)
        satellite = boost * self.by_sub**2 * self.fraction(self.by_sub, (nu_1, nu_2), cut)
        return central + np.einsum("mk,ik->im", self.per_host, satellite) * self.quench

    def shot(self, nu_1: float, nu_2: float, cut: tuple[float, float] | None) -> float:
        """Poisson power of all galaxies below the cut, Jy^2/sr."""
        return float((self.number * self.squares(nu_1, nu_2, cut)).sum())

    def monopole(self, nu_ghz: float, cut: tuple[float, float] | None = None) -> float:
        """Mean intensity, Jy/sr."""
        return float((self.number * sum(self.faint(nu_ghz, cut))).sum())

    def counts(self, nu_ghz: float, flux_mjy: np.ndarray) -> np.ndarray:
        """Galaxies per steradian brighter than each flux at `nu_ghz`."""
        out = []
        for limit in np.atleast_1d(flux_mjy) * 1e-3:
            cut = (float(limit), nu_ghz)
            central = 1 - self.fraction(self.central, (), cut)
            satellite = 1 - self.fraction(self.by_sub, (), cut)
            satellites = np.einsum("mk,ik->im", self.per_host, satellite) * self.quench
            out.append((self.number * (central + satellites)).sum())
        return np.array(out)
