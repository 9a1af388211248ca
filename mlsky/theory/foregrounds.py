"""Analytic halo model of the training truth: every auto and cross spectrum, at any frequency.

Spectra of the halo model of the painter (`mlsky.haloes.painter`), with the same haloes, galaxies
and capped lognormal bias. At 148 GHz and 7 mJy these are the ``analytic_`` spectra of the painter's
tables.

References
----------
One- and two-halo terms: Cooray & Sheth 2002 (astro-ph/0206508), here on shells (Limber), the
two-halo one with the higher orders of `mlsky.theory.clustering`. Profiles and galaxies: see
`mlsky.theory.halo_model`. kSZ: the optical depths of one and two haloes with the linear velocity
dispersion, as in Ma & Fry 2002 (astro-ph/0106342), two haloes times the transverse momentum of
`Parameters.velocity_k0`. tSZ spectral function: `mlsky.frequency.tsz`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlsky.components import REFERENCE_GHZ
from mlsky.frequency import bands, tsz
from mlsky.theory import halo_model, presets, radio_sources
from mlsky.theory.clustering import Clustering
from mlsky.theory.cosmology import parse
from mlsky.theory.halo_model import T_CMB_UK, HaloModel, Parameters
from mlsky.theory.infrared import InfraredGalaxies
from mlsky.theory.objects import MASS_CUT, check_mass_cut, is_object
from mlsky.theory.parameters import DEFAULT, Cosmology

if TYPE_CHECKING:
    Cut = tuple[float, float] | None

__all__ = [
    "COMPONENTS",
    "HALOES",
    "PARTS",
    "foreground_spectra",
    "model",
    "radio_fraction",
    "shell_spectra",
]

#: Fields with spectra; kappa is dimensionless.
COMPONENTS = ("kappa", "ksz", "tsz", "cib", "radio")
#: Parts of a spectrum: one-halo term, two-halo term, and shot noise of galaxies.
PARTS = ("one_halo", "two_halo", "shot")
#: Haloes, with their gas and galaxies: all, those above a mass (`mlsky.theory.objects`), and the
#: rest, which has the matter and gas between haloes too.
HALOES = ("all", "objects", "rest")


def foreground_spectra(
    ell: ArrayLike,
    nu_1: float,
    nu_2: float | None = None,
    components: str | Iterable[str] = COMPONENTS,
    *,
    flux_cut_mjy: float | tuple[float, float] | None = 7.0,
    parts: bool = False,
    part: str | tuple[str, str] = "all",
    mass_cut: float | None = MASS_CUT,
    cosmology: object = DEFAULT,
    preset: str | Parameters = presets.DEFAULT,
) -> dict:
    """Auto and cross spectra of kappa and the foregrounds, by the halo model of the truth.

    Parameters
    ----------
    ell
        Multipoles, from 20 to 31000, *(n,)*.
    nu_1, nu_2
        Frequencies of the first and of the second field of each pair (GHz), from 20 to 900;
        `nu_2` is `nu_1` by default.
    components
        Of `COMPONENTS`, one or many.
    flux_cut_mjy
        Sources brighter than this are left out of CIB and radio at every frequency: a flux at
        148 GHz (mJy), or a pair (flux in mJy, frequency in GHz), as ``(15, 150)`` for ACT; None
        for no cut (of radio sources, those above 2 Jy at 148 GHz are then missing).
    parts
        Give the `PARTS` of each spectrum instead of their sum.
    part
        Haloes of the spectra, one of `HALOES`, or a pair for the first and second field, such as
        ``("objects", "rest")``. The spectra of all pairs of objects and rest add up to that of all
        haloes.
    mass_cut
        Lowest mass of an object (M200m, Msun) at any redshift, as for
        `mlsky.theory.objects.mass_cut_at`; None for no objects.
    cosmology
        Anything `mlsky.theory.parse` takes.
    preset
        One of `mlsky.theory.presets.names`, or `mlsky.theory.halo_model.Parameters`.

    Returns
    -------
    spectra
        ``"tsz x cib"``: C_l of tSZ at `nu_1` with CIB at `nu_2`, for every ordered pair of
        `components`; *(n,)* float64, in uK_CMB^2 sr, uK_CMB sr with one kappa and sr with two.
        With `parts` a dict of these.

    Raises
    ------
    ValueError
        If an argument is not one of the above.

    Notes
    -----
    The first call for a cosmology takes some ten seconds, mostly in CAMB, and one for another
    preset a few seconds; common parts are kept in memory. Velocities have no preferred sign: kSZ
    has no cross spectrum. The power of kappa is the nonlinear one; its two-halo part is the
    difference to the one-halo term. kappa of objects is that of their NFW profiles; matter around
    them belongs to the rest, as does the kSZ of flows within a shell of 300 Mpc, which the painter
    assigns to no halo. The one-halo part of radio sources comes from common hosts.
    """
    ell = _check_ell(ell)
    nu_1 = _check_frequency("nu_1", nu_1)
    nu_2 = nu_1 if nu_2 is None else _check_frequency("nu_2", nu_2)
    names = _check_components(components)
    cut = _check_cut(flux_cut_mjy)
    of = _check_part(part)
    par = preset if isinstance(preset, Parameters) else presets.parameters(preset)
    analytic = _analytic(parse(cosmology), par)
    painted = analytic.model.log10_mass[analytic.clustering.painted]
    mass_cut = check_mass_cut(mass_cut, painted)
    log_ell = np.log(ell)
    out, done = {}, {}
    for a, b in itertools.product(names, repeat=2):
        same = nu_1 == nu_2 and of[0] == of[1]
        one = done.get((b, a)) if same else None
        if one is None:
            first, second = _Side(a, nu_1, of[0], mass_cut), _Side(b, nu_2, of[1], mass_cut)
            one = analytic.pair(first, second, cut)
        done[a, b] = one
        spectra = {k: analytic.at(log_ell, cl) for k, cl in done[a, b].items()}
        out[f"{a} x {b}"] = spectra if parts else sum(spectra.values())
    return out


def radio_fraction(
    part: str,
    mass_cut: float | None = MASS_CUT,
    cosmology: object = DEFAULT,
    preset: str | Parameters = presets.DEFAULT,
) -> float:
    """Fraction of all radio sources that lie in one of `HALOES`; arguments as above."""
    part, _ = _check_part(part)
    par = preset if isinstance(preset, Parameters) else presets.parameters(preset)
    analytic = _analytic(parse(cosmology), par)
    painted = analytic.clustering.painted
    cut = check_mass_cut(mass_cut, analytic.model.log10_mass[painted])
    sources = analytic.model.number * analytic.radio_rate
    return float(sources[_members(analytic, part, cut)].sum() / sources.sum())


def shell_spectra(
    first: str,
    second: str,
    nu_1: float,
    nu_2: float | None = None,
    *,
    flux_cut_mjy: float | tuple[float, float] | None = 7.0,
    cosmology: object = DEFAULT,
    preset: str | Parameters = presets.DEFAULT,
) -> NDArray[np.float64]:
    """The spectrum of two components from each shell of `model`, *(n_shell, n_ell)*.

    Arguments and units as for `foreground_spectra`, which returns the sum over shells (to the
    auto spectra of kappa and kSZ it adds power that belongs to no shell).
    """
    first, second = _check_components((first,)) + _check_components((second,))
    nu_1 = _check_frequency("nu_1", nu_1)
    nu_2 = nu_1 if nu_2 is None else _check_frequency("nu_2", nu_2)
    par = preset if isinstance(preset, Parameters) else presets.parameters(preset)
    sides = _Side(first, nu_1, "all", None), _Side(second, nu_2, "all", None)
    cut = _check_cut(flux_cut_mjy)
    return sum(_analytic(parse(cosmology), par).by_shell(*sides, cut).values())


def model(cosmology: object = DEFAULT, preset: str | Parameters = presets.DEFAULT) -> HaloModel:
    """The halo model of `foreground_spectra`, at 148 GHz."""
    par = preset if isinstance(preset, Parameters) else presets.parameters(preset)
    return _analytic(parse(cosmology), par).model


class _Side(NamedTuple):
    """One side of a pair: a component, its frequency (GHz), and its haloes."""

    name: str
    nu_ghz: float
    part: str
    mass_cut: float | None


@dataclass(frozen=True)
class _Field:
    """One component at one frequency, of some of the haloes.

    Parameters
    ----------
    of : (n_shell, n_mass)
        Which haloes.
    profile : (n_shell, n_mass, n_ell)
        Of a halo, in uK_CMB sr (kappa: sr; kSZ: of one that moves with the speed of light), zero
        for other haloes.
    linear : (n_shell, n_ell)
        Bias on the density of each shell.
    orders
        Of `Clustering.orders`.
    """

    of: np.ndarray
    profile: np.ndarray
    linear: np.ndarray
    orders: list[np.ndarray]


class _HaloModelSpectra:
    """Spectra of one cosmology and one set of parameters.

    Parameters
    ----------
    model
        The halo model at 148 GHz.
    """

    def __init__(self, model: HaloModel) -> None:
        self.model, self.clustering = model, Clustering(model)
        self.galaxies = InfraredGalaxies.of(model)
        self.kappa, self.ksz = self.clustering.kappa(), self.clustering.ksz()
        painted = self.clustering.painted
        rate = radio_sources.host_rate(model.z, model.log10_mass[painted], model.number[:, painted])
        #: ratio of the sources of one halo to those per steradian
        self.radio_rate = np.zeros_like(model.number)
        self.radio_rate[:, painted] = rate
        self._field = functools.lru_cache(maxsize=16)(self._make_field)
        every = {
            name: self._field(_Side(name, REFERENCE_GHZ, "all", None), None)
            for name in ("kappa", "ksz")
        }
        #: power in addition to that of haloes and of the smooth fields, by component; it belongs to
        #: the rest. Kappa: from behind the last shell, and nonlinear power that the smooth field
        #: lacks; kSZ: momentum on scales within a shell
        self.beyond = {
            "kappa": self.kappa["total"] - sum(self._pairs(every["kappa"], every["kappa"])).sum(0),
            "ksz": self.ksz["two"] - self._moving(every["ksz"], every["ksz"])[1].sum(0),
        }

    def at(self, log_ell: NDArray, cl: NDArray) -> NDArray[np.float64]:
        """A spectrum interpolated to the requested multipoles, cubic in D_l against ln l."""
        from scipy.interpolate import CubicSpline

        grid = np.log(self.model.ell)
        return CubicSpline(grid, self.model.ell**2 * cl)(log_ell) * np.exp(-2 * log_ell)

    def pair(self, a: _Side, b: _Side, cut: Cut) -> dict[str, NDArray]:
        """Parts of the spectrum of two components on the multipoles of the model, (n_ell,)."""
        parts = {name: by_shell.sum(0) for name, by_shell in self.by_shell(a, b, cut).items()}
        if a.name == b.name and "objects" not in (a.part, b.part):
            parts["two_halo"] = parts["two_halo"] + self.beyond.get(a.name, 0.0)
        return parts

    def by_shell(self, a: _Side, b: _Side, cut: Cut) -> dict[str, NDArray]:
        """Parts of the spectrum from the haloes of each shell, (n_shell, n_ell)."""
        m, zero = self.model, np.zeros_like(self.model.k)
        names, frequencies = (a.name, b.name), (a.nu_ghz, b.nu_ghz)
        if "ksz" in names and a.name != b.name:
            return {"one_halo": zero, "two_halo": zero, "shot": zero}
        first, second = self._field(a, cut), self._field(b, cut)
        one, two = (self._moving if a.name == "ksz" else self._pairs)(first, second)
        number, shot = m.number * (first.of & second.of), np.zeros(len(m.z))
        if names == ("cib", "cib"):
            # the square of the central is shot noise, not a pair
            centrals = [self.galaxies.faint(nu, cut)[0] for nu in frequencies]
            unit = _uk_per_jy_sr(a.nu_ghz) * _uk_per_jy_sr(b.nu_ghz)
            one = one - unit * (number * centrals[0] * centrals[1]).sum(1)[:, None]
            shot = unit * (number * self.galaxies.squares(*frequencies, cut)).sum(1)
        elif names == ("radio", "radio"):
            unit = _uk_per_jy_sr(a.nu_ghz) * _uk_per_jy_sr(b.nu_ghz) * m.parameters.radio_counts
            shot = unit * radio_sources.moment(frequencies, cut) * (number * self.radio_rate).sum(1)
        return {"one_halo": one, "two_halo": two, "shot": zero + shot[:, None]}

    def _pairs(self, first: _Field, second: _Field) -> tuple[NDArray, NDArray]:
        """One-halo and two-halo power of each shell."""
        two = first.linear * second.linear * self.clustering.p_shell
        two = two + self.clustering.of_orders(first.orders, second.orders)
        return self.model.one_halo(first.profile, second.profile), two

    def _moving(self, first: _Field, second: _Field) -> tuple[NDArray, NDArray]:
        """The same for moving gas, see `Clustering.ksz`."""
        one = self.model.one_halo(first.profile, second.profile)
        shell = self.ksz["shell_velocity"]
        two = first.linear * second.linear * shell[:, None] * self.clustering.p_shell
        two = two + self.clustering.of_orders(first.orders, second.orders, shell)
        return (self.model.sigma_v**2)[:, None] * one, two

    def _make_field(self, side: _Side, cut: Cut) -> _Field:
        m = self.model
        if side.name == "kappa":
            profile, whole = m.u_kappa, self.kappa["linear"]
        elif side.name == "ksz":
            profile, whole = m.u_tau * T_CMB_UK, self.ksz["linear"] * T_CMB_UK
        elif side.name == "tsz":
            profile, whole = m.u_y * tsz.uk_per_y(side.nu_ghz), None
        elif side.name == "cib":
            unit = _uk_per_jy_sr(side.nu_ghz)
            profile, whole = self.galaxies.clustered(m.u_nfw, side.nu_ghz, cut) * unit, None
        else:
            mean = radio_sources.moment((side.nu_ghz,), cut) * m.parameters.radio_counts
            flux = self.radio_rate * mean * _uk_per_jy_sr(side.nu_ghz)
            profile, whole = np.repeat(flux[:, :, None], len(m.ell), 2), None
        of = _members(self, side.part, side.mass_cut)
        taken = profile * of[:, :, None]
        linear = self.clustering.biased(taken)
        if whole is not None and side.part != "objects":  # matter between haloes
            linear = linear + whole - self.clustering.biased(profile)
        return _Field(of, taken, linear, self.clustering.orders(taken))


def _members(analytic: _HaloModelSpectra, part: str, mass_cut: float | None) -> NDArray[np.bool_]:
    """Which haloes are in one of `HALOES`, (n_shell, n_mass)."""
    m = analytic.model
    objects = is_object(m.z, m.log10_mass, mass_cut) & analytic.clustering.painted
    return {"all": np.ones_like(objects), "objects": objects, "rest": ~objects}[part]


@functools.lru_cache(maxsize=2)
def _base(cosmology: Cosmology) -> HaloModel:
    return halo_model.for_cosmology(cosmology)


@functools.lru_cache(maxsize=4)
def _analytic(cosmology: Cosmology, parameters: Parameters) -> _HaloModelSpectra:
    model = _base(cosmology)
    return _HaloModelSpectra(
        model if parameters == model.parameters else model.with_parameters(parameters)
    )


def _uk_per_jy_sr(nu_ghz: float) -> float:
    return 1 / float(bands.jy_per_sr_per_uk(nu_ghz))


def _check_ell(ell: ArrayLike) -> NDArray[np.float64]:
    values = np.atleast_1d(np.asarray(ell, dtype=np.float64))
    if values.ndim != 1 or not values.size or not np.all((values >= 20) & (values <= 31000)):
        raise ValueError(
            f"ell={ell!r}: must be multipoles from 20 to 31000, as np.arange(100, 10001)"
        )
    return values


def _check_frequency(name: str, value: float) -> float:
    low, high = bands.FREQ_RANGE_GHZ
    try:
        nu = float(value)
    except (TypeError, ValueError):
        nu = math.nan
    if not low <= nu <= high:
        raise ValueError(f"{name}={value!r}: must be a frequency in GHz from {low:g} to {high:g}")
    return nu


def _check_components(components: str | Iterable[str]) -> tuple[str, ...]:
    names = (components,) if isinstance(components, str) else tuple(components)
    unknown = [name for name in names if name not in COMPONENTS]
    if unknown or not names or len(set(names)) < len(names):
        raise ValueError(
            f"components={components!r}: must be one or more of {', '.join(COMPONENTS)}, each once"
        )
    return names


def _check_part(part: str | tuple[str, str]) -> tuple[str, str]:
    """The haloes of each side of a pair."""
    pair = tuple(part) if isinstance(part, (tuple, list)) else (part, part)
    if len(pair) != 2 or any(p not in HALOES for p in pair):
        raise ValueError(
            f"part={part!r}: must be one of {', '.join(HALOES)}, or a pair of them, as "
            '("objects", "rest")'
        )
    return pair


def _check_cut(flux_cut_mjy: float | tuple[float, float] | None) -> Cut:
    """Flux (Jy) and frequency (GHz) of a cut, or None."""
    if flux_cut_mjy is None:
        return None
    try:
        pair = [float(x) for x in np.atleast_1d(flux_cut_mjy)]
    except (TypeError, ValueError):
        pair = []
    flux, nu = (*pair, REFERENCE_GHZ)[:2] if pair else (math.nan, REFERENCE_GHZ)
    if len(pair) > 2 or not 0 < flux < math.inf:
        raise ValueError(
            f"flux_cut_mjy={flux_cut_mjy!r}: must be a flux in mJy at 148 GHz, above 0, or a pair "
            "(mJy, GHz), or None to keep every source"
        )
    return float(flux) * 1e-3, _check_frequency("frequency of flux_cut_mjy", nu)
