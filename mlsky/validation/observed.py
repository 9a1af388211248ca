"""Comparison of the halo model of a painted set with observations.

The model is `mlsky.theory.foregrounds` with the cosmology and the parameters that the set was
painted from. Published numbers are constants here, each with its source.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mlsky.components import REFERENCE_GHZ
from mlsky.theory import foregrounds, infrared, radio_sources
from mlsky.theory.halo_model import Parameters
from mlsky.theory.spectra import kappa_spectrum
from mlsky.validation import act_dr6

__all__ = ["Model"]

#: Required accuracies of each component and of the parts of the CIB.
WITHIN, WITHIN_PARTS = 0.10, 0.20
#: D_l of tSZ of the same fit at 150 GHz.
ACT_TSZ = {1000: 3.21, 2000: 3.73, 3000: 3.50, 5000: 2.67, 8000: 1.72}
WITHIN_SHAPE = 0.05
#: Multipoles at which kappa is compared with CAMB, and how well.
KAPPA_ELL, WITHIN_KAPPA = (500, 1000, 2000, 3000, 5000, 8000), 0.01
#: Radio sources per square degree above a flux (mJy): model C2Ex at 148 GHz of Tucci et al. 2011
#: (arXiv:1103.5707), and Lagache et al. 2020 (arXiv:1911.09466) at 150 GHz. Nothing above 1 Jy:
#: our counts end at 2 Jy.
TUCCI = {0.1: 44.0, 1: 5.87, 2: 2.98, 5: 1.15, 7: 0.808, 10: 0.553, 15: 0.357, 100: 0.048}
LAGACHE = {1: 7.24, 5: 1.37, 7: 0.949, 10: 0.637, 15: 0.408, 100: 0.0516}
WITHIN_RADIO = 0.05  # of the bracket of the two
#: Infrared galaxies per square degree above a flux (mJy) by GHz: Bethermin et al. 2012
#: (arXiv:1208.6512).
BETHERMIN = {
    143: {1: 21.5, 2: 2.32, 5: 0.221, 10: 0.050},
    217: {1: 764.0, 2: 131.0, 5: 6.89, 10: 0.84},
}
WITHIN_DSFG_DEX = 0.15
#: Correlation of the CIB of two bands at l = 3000 in the Agora simulation (Omori 2024,
#: arXiv:2212.07420) through the passbands of ACT DR6.
AGORA_BANDS = {(150, 220): 0.996, (93, 220): 0.988, (93, 150): 0.998}
PER_DEG2 = math.radians(1) ** 2


def d_ell(ell, cl):
    """l (l + 1) C_l / 2 pi."""
    ell = np.asarray(ell, np.float64)
    return ell * (ell + 1) / (2 * np.pi) * cl


class Model:
    """The analytic model of a painted set.

    Parameters
    ----------
    t
        Tables that it was painted from.
    """

    def __init__(self, t: dict) -> None:
        self.t, header = t, t["header"]
        values = {
            k: tuple(v) if isinstance(v, list) else v for k, v in header["parameters"].items()
        }
        self.parameters = Parameters(**values)
        self.cosmology = header["cosmology"]
        self.flux_cut_mjy = float(header["flux_cut_mjy"])

    def spectra(self, ell, nu_1: float, nu_2: float | None = None, **options) -> dict:
        """`mlsky.theory.foregrounds.foreground_spectra` of this model, its own cut by default."""
        given = {"flux_cut_mjy": self.flux_cut_mjy, **options}
        return foregrounds.foreground_spectra(
            ell, nu_1, nu_2, cosmology=self.cosmology, preset=self.parameters, **given
        )

    def d3000(self, nu_ghz: float) -> dict[str, float]:
        """D_3000 (uK^2) with the cut of ACT DR6: tSZ, kSZ, the CIB and its parts, radio."""
        names = ("tsz", "ksz", "cib", "radio")
        found = self.spectra(
            [3000.0],
            nu_ghz,
            components=names,
            flux_cut_mjy=(act_dr6.CUT_MJY, act_dr6.CUT_GHZ),
            parts=True,
        )
        out = {n: sum(p[0] for p in found[f"{n} x {n}"].values()) for n in names}
        shot = found["cib x cib"]["shot"][0]
        out |= {"cib clustered": out["cib"] - shot, "cib poisson": shot}
        return {name: float(d_ell(3000, cl)) for name, cl in out.items()}

    def tsz_shape(self) -> dict[str, dict]:
        """D_l of tSZ at 150 GHz beside ACT DR6, and their ratio over that at l = 3000."""
        ell = np.array(list(ACT_TSZ), np.float64)
        model = d_ell(ell, self.spectra(ell, 150.0, components="tsz")["tsz x tsz"])
        ratio = model / np.array(list(ACT_TSZ.values()))
        shape = ratio / ratio[list(ACT_TSZ).index(3000)]
        return {
            f"{n:g}": {"act_dr6": a, "model": float(m), "shape": float(s)}
            for n, a, m, s in zip(ell, ACT_TSZ.values(), model, shape, strict=True)
        }

    def kappa_over_camb(self, ell) -> NDArray[np.float64]:
        """C_l of kappa over the nonlinear one of CAMB."""
        ell = np.asarray(ell, np.float64)
        camb = kappa_spectrum(int(max(KAPPA_ELL)) + 1000, self.cosmology, source="camb")
        ratio = self.spectra(ell, REFERENCE_GHZ, components="kappa")["kappa x kappa"]
        return ratio / np.interp(ell, np.arange(len(camb)), camb)

    def radio_above(self, flux_mjy) -> NDArray[np.float64]:
        """Radio sources per square degree brighter than fluxes at 148 GHz."""
        return np.array([self._radio_between(s, radio_sources.FLUX_MAX_MJY) for s in flux_mjy])

    def _radio_between(self, low: float, high: float) -> float:
        fainter = [radio_sources.moment((), (s * 1e-3, REFERENCE_GHZ)) for s in (low, high)]
        return (fainter[1] - fainter[0]) * PER_DEG2 * self.parameters.radio_counts

    def dsfg_above(self, flux_mjy, nu_ghz: float = REFERENCE_GHZ) -> NDArray[np.float64]:
        """Infrared galaxies of painted haloes per square degree brighter than fluxes."""
        from scipy.special import ndtr

        t, par = self.t, self.parameters
        colour = infrared.colour(nu_ghz, t["z"].astype(float), par)[:, None]
        lever = math.log(nu_ghz / REFERENCE_GHZ)
        scatter = math.hypot(float(t["scatter"]), par.cib_beta_scatter * lever)
        per_mjy = 1e-3 * float(t["uk_per_jy_sr"])

        def above(mean_uk_sr, low):
            log_mean = np.log(np.maximum(mean_uk_sr.astype(float) * colour, 1e-30))
            return ndtr((log_mean - math.log(low * per_mjy)) / scatter - scatter / 2)

        out = []
        for low in np.atleast_1d(flux_mjy):
            central = above(t["central_uk_sr"], low)
            by_sub = above(t["satellite_uk_sr"], low)
            satellites = by_sub[:, t["satellite_inverse"].astype(int)].mean(2)
            total = t["number"] * (central + t["satellite_number"] * satellites)
            out.append(total.sum() * PER_DEG2)
        return np.array(out)
