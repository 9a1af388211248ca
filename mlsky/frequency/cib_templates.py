"""The CIB at any band from 20 to 900 GHz, from maps at a few template frequencies.

The CIB of band nu is ``sum_k w_k(nu) T_k + sum_d L_d(nu) N_d``: T_k are its maps at the template
frequencies (148, 353 and 857 GHz), N_d unit white noise on the sky, the same at every band. The
second sum is shot noise that no template contains, as every galaxy has its own emissivity index;
its covariance between two bands, L(nu) . L(nu'), follows from the halo model. The weights depend on
frequency alone, not on multipole, and are fitted by `mlsky.theory.cib_templates`; here they are
read from a small table, with numpy and scipy only.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlsky.components import REFERENCE_GHZ
from mlsky.frequency.bands import FREQ_RANGE_GHZ, jy_per_sr_per_uk

__all__ = [
    "TEMPLATES_GHZ",
    "CibTemplates",
    "load",
    "map_count",
    "map_names",
    "of_header",
    "presets",
]

#: Template frequencies (GHz). Our choice: of the sets of three tried (60 to 220 GHz with 280 to 460
#: and 545 to 857) sets with 148 GHz, at which maps and fluxes are made, give every correlation
#: between bands to the accuracy of docs/decisions/0007 with the fewest maps.
TEMPLATES_GHZ = (REFERENCE_GHZ, 353.0, 857.0)

FILE = "cib_templates.json"


@dataclass(frozen=True, eq=False)
class CibTemplates:
    """Weights of the template maps and covariance of the remainder, over frequency.

    Parameters
    ----------
    templates_ghz : (n_templates,)
        Frequencies of the template maps.
    flux_cut_mjy
        Sources above this at 148 GHz are not in the maps; None: all are.
    mean_uk
        Mean of the CIB at 148 GHz, uK_CMB.
    grid_ghz : (n_grid,)
        Frequencies of the arrays that follow, growing, the templates among them.
    log_colour : (n_grid,)
        ln of the mean intensity (Jy/sr) over that at 148 GHz.
    share : (n_grid, n_templates)
        Fraction of the mean intensity from each template; the sum over templates is 1.
    remainder : (n_grid, n_noise)
        L_d over the mean intensity, sr^(1/2); zero at the templates.
    tail_ghz
        A frequency above the grid, to which passbands may reach; None for none.
    tail : (1 + n_templates + n_noise,)
        log_colour, share and remainder there. Above the grid they are parabolas in ln nu with the
        slope of the splines at its end.
    """

    templates_ghz: NDArray[np.float64]
    flux_cut_mjy: float | None
    mean_uk: float
    grid_ghz: NDArray[np.float64]
    log_colour: NDArray[np.float64]
    share: NDArray[np.float64]
    remainder: NDArray[np.float64]
    tail_ghz: float | None = None
    tail: NDArray[np.float64] | None = None

    @property
    def n_templates(self) -> int:
        """Number of template maps."""
        return len(self.templates_ghz)

    @property
    def n_noise(self) -> int:
        """Number of noise maps of the remainder."""
        return self.remainder.shape[1]

    def colour(self, nu_ghz) -> NDArray[np.float64]:
        """Mean CIB in uK_CMB over that at 148 GHz, the shape of `nu_ghz`."""
        nu = self._check(nu_ghz)
        to_uk = jy_per_sr_per_uk(REFERENCE_GHZ) / jy_per_sr_per_uk(nu)
        return np.exp(self._spline("log_colour", nu)) * to_uk

    def mean(self, nu_ghz) -> NDArray[np.float64]:
        """Mean of the CIB below the flux cut (uK_CMB), the shape of `nu_ghz`."""
        return self.mean_uk * self.colour(nu_ghz)

    def weights(self, nu_ghz) -> NDArray[np.float64]:
        """Weights of the template maps, all in uK_CMB.

        Parameters
        ----------
        nu_ghz
            Frequencies (GHz) from 20 to 900, any shape; to `tail_ghz` for those of a passband.

        Returns
        -------
        weights
            *(*nu_ghz.shape, n_templates)*; at a template frequency 1 for itself, 0 for the others.

        Raises
        ------
        ValueError
            If a frequency is outside the range.
        """
        nu = self._check(nu_ghz)
        ratio = self.colour(nu)[..., None] / self.colour(self.templates_ghz)
        return self._spline("share", nu) * ratio

    def noise_weights(self, nu_ghz) -> NDArray[np.float64]:
        """L(nu): amplitudes of the noise maps at a band, uK_CMB sr^(1/2), (*shape, n_noise)."""
        nu = self._check(nu_ghz)
        return self._spline("remainder", nu) * self.mean(nu)[..., None]

    def remainder_covariance(self, nu_1, nu_2) -> NDArray[np.float64]:
        """White power of the remainder between two bands, uK_CMB^2 sr.

        Parameters
        ----------
        nu_1, nu_2
            Frequencies (GHz), shapes that broadcast.
        """
        return (self.noise_weights(nu_1) * self.noise_weights(nu_2)).sum(-1)

    def to_dict(self) -> dict:
        """Plain numbers, for JSON."""
        fields = dataclasses.asdict(self)
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in fields.items()}

    @classmethod
    def from_dict(cls, values: dict) -> CibTemplates:
        """Inverse of `to_dict`."""
        arrays = {k: np.asarray(v, np.float64) for k, v in values.items() if isinstance(v, list)}
        return cls(**{**values, **arrays})

    def _spline(self, name: str, nu: np.ndarray) -> NDArray[np.float64]:
        spline, end = _splines(self)[name], np.log(self.grid_ghz[-1])
        x = np.log(nu)
        inside = spline(np.minimum(x, end))
        beyond = np.maximum(x - end, 0)
        if not beyond.any():
            return inside
        first = 0 if name == "log_colour" else 1 if name == "share" else 1 + self.n_templates
        count = inside.shape[x.ndim :]
        value = self.tail[first : first + int(np.prod(count))].reshape(count)
        slope, width = spline(end, 1), np.log(self.tail_ghz) - end
        curve = (value - spline(end) - slope * width) / width**2
        beyond = np.reshape(beyond, (*x.shape, *[1] * len(count)))
        return inside + slope * beyond + curve * beyond**2

    def _check(self, nu_ghz) -> NDArray[np.float64]:
        nu = np.asarray(nu_ghz, np.float64)
        low, high = FREQ_RANGE_GHZ[0], self.tail_ghz or self.grid_ghz[-1]
        bad = nu[~((nu >= low * (1 - 1e-12)) & (nu <= high * (1 + 1e-12)))]
        if bad.size:
            raise ValueError(
                f"{bad.flat[0]:g} GHz: the CIB templates hold from {low:g} to {high:g} GHz; choose "
                "bands in this range"
            )
        return nu


@functools.lru_cache(maxsize=8)
def _splines(law: CibTemplates) -> dict:
    """Cubic in ln nu, by name."""
    from scipy.interpolate import CubicSpline

    x = np.log(law.grid_ghz)
    return {n: CubicSpline(x, getattr(law, n)) for n in ("log_colour", "share", "remainder")}


@functools.cache
def load(preset: str = "act-dr6") -> CibTemplates:
    """The shipped templates of a preset of the truth, fitted below its flux cut.

    Raises
    ------
    ValueError
        If there are none for this preset.
    """
    table = _table()
    if preset not in table:
        raise ValueError(
            f"preset={preset!r}: CIB templates are fitted for {', '.join(table)}; for another "
            "call mlsky.theory.cib_templates.fit"
        )
    return CibTemplates.from_dict(table[preset])


def map_names(templates_ghz) -> tuple[str, ...]:
    """Field names of the template maps: "cib" at 148 GHz, else "cib_353"."""
    return tuple("cib" if nu == REFERENCE_GHZ else f"cib_{nu:g}" for nu in templates_ghz)


def map_count(header: dict) -> int:
    """Number of stored maps of the CIB of a weight file: one, or templates and noise maps."""
    law = of_header(header)
    return 1 if law is None else law.n_templates + law.n_noise


def of_header(header: dict) -> CibTemplates | None:
    """The templates that the networks of a weight file paint; None for the CIB at 148 GHz alone.

    A weight file names them as ``"cib_templates": {"ghz": [148, 353, 857], "preset": "act-dr6"}``:
    the frequencies of the maps, called as `map_names` says, and the preset of the truth that it
    was trained on.

    Raises
    ------
    ValueError
        If the preset is unknown or its templates are at other frequencies.
    """
    entry = header.get("cib_templates")
    if entry is None:
        return None
    law = load(entry["preset"])
    if not np.array_equal(entry["ghz"], law.templates_ghz):
        raise ValueError(
            f"weights with CIB templates at {entry['ghz']} GHz: those of preset "
            f"{entry['preset']!r} are at {law.templates_ghz.tolist()}; train or export them again"
        )
    return law


def presets() -> tuple[str, ...]:
    """Presets whose templates are shipped."""
    return tuple(_table())


@functools.cache
def _table() -> dict:
    from importlib.resources import files

    return json.loads((files("mlsky.data") / "tables" / FILE).read_text(encoding="utf-8"))
