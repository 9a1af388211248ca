"""Comparison of the CIB made from the templates of a painted set with the painted bands."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlsky import seeds
from mlsky.components import REFERENCE_GHZ
from mlsky.frequency import cib_templates
from mlsky.validation.truth_sums import Sums, rounded, rounds

__all__ = ["Templates"]

#: What is asked for, 100 < l < 8000: r of two bands (GHz) of 93 to 353, and to 857; power likewise,
#: to 900; r with kappa and tSZ.
ELL = (100, 8000)
R_NEAR, R_FAR, POWER_NEAR, POWER_FAR, R_CROSS = 0.002, 0.01, 0.01, 0.03, 0.01
NEAR_GHZ = (93.0, 353.0)


@dataclass(frozen=True)
class Templates:
    """Bands of a set that can be made from others of it.

    Parameters
    ----------
    law
        Templates, weights and white remainder.
    bands_ghz
        Frequencies of the set that are no templates.
    """

    law: cib_templates.CibTemplates
    bands_ghz: tuple[float, ...]

    @classmethod
    def of(cls, freqs: Sequence[float], preset: str) -> Templates | None:
        """Of a set painted at `freqs` besides 148 GHz; None if it lacks a template, or a band."""
        if preset not in cib_templates.presets():
            return None
        law = cib_templates.load(preset)
        templates = {float(nu) for nu in law.templates_ghz} - {REFERENCE_GHZ}
        bands = tuple(nu for nu in freqs if nu not in templates)
        return cls(law, bands) if bands and templates <= set(freqs) else None

    @property
    def names(self) -> list[str]:
        """Of the maps that `make` gives."""
        return [f"made_{nu:g}" for nu in self.bands_ghz]

    def make(self, painted: dict[str, NDArray], seed: int, pixel_sr: float) -> list[NDArray]:
        """The bands of one region from its templates, and a white remainder of `seed`."""
        law, nu = self.law, np.array(self.bands_ghz)
        own = ["cib" if t == REFERENCE_GHZ else f"cib_{t:g}" for t in law.templates_ghz]
        templates = np.stack([painted[name] for name in own])
        rng = seeds.generator(seed, "cib_remainder")
        noise = rng.standard_normal((law.n_noise, *templates.shape[1:])) / math.sqrt(pixel_sr)
        noise *= np.sqrt(np.maximum(templates[0], 0) / law.mean_uk)
        made = np.tensordot(law.weights(nu), templates, 1)
        return list(made + np.tensordot(law.noise_weights(nu), noise, 1))

    def figures(self, sums: Sums) -> dict:
        """Power of each band over what is painted, and differences of correlations."""
        inside = [i for i, (a, b) in enumerate(sums.edges) if ELL[0] <= a and b <= ELL[1]]

        def mean(a: str, b: str) -> NDArray[np.float64]:
            return sums.power(a, b).mean(0)[inside]

        def r(a: str, b: str) -> NDArray[np.float64]:
            return mean(a, b) / np.sqrt(mean(a, a) * mean(b, b))

        ratios = {
            f"{nu:g}": mean(f"made_{nu:g}", f"made_{nu:g}") / mean(f"cib_{nu:g}", f"cib_{nu:g}")
            for nu in self.bands_ghz
        }
        pairs = {}
        for one, other in itertools.combinations(self.bands_ghz, 2):
            painted, made = (r(f"{kind}_{one:g}", f"{kind}_{other:g}") for kind in ("cib", "made"))
            pairs[one, other] = float(np.abs(made - painted).max())
        cross = {
            name: max(
                float(np.abs(r(name, f"made_{nu:g}") - r(name, f"cib_{nu:g}")).max())
                for nu in self.bands_ghz
            )
            for name in ("kappa", "tsz")
        }
        low, high = NEAR_GHZ

        def near(*frequencies: float) -> bool:
            return all(low <= nu <= high for nu in frequencies)

        reached = all(wrong <= (R_NEAR if near(*p) else R_FAR) for p, wrong in pairs.items())
        for nu, ratio in zip(self.bands_ghz, ratios.values(), strict=True):
            allowed = POWER_NEAR if near(nu) else POWER_FAR
            reached = reached and bool(np.all(np.abs(ratio - 1) <= allowed))
        reached = reached and all(wrong <= R_CROSS for wrong in cross.values())
        return {
            "templates_ghz": [float(nu) for nu in self.law.templates_ghz],
            "ell": [[int(x) for x in sums.edges[i]] for i in inside],
            "power": {nu: rounds(ratio) for nu, ratio in ratios.items()},
            "r": {f"{a:g} x {b:g}": rounded(wrong, 2) for (a, b), wrong in pairs.items()},
            "cross": {name: rounded(wrong, 2) for name, wrong in cross.items()},
            "reached": bool(reached),
        }
