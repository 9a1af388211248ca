"""Response of the foregrounds to the cosmology: ratios of power and means in the halo model.

Networks paint the sky of the cosmology of their training. For another cosmology each field is
rescaled (`mlsky.painting.rescale`) by the root of the ratio of its power in the two cosmologies,
and its mean by the ratio of the means. Both ratios come from the analytic model of the truth
(`mlsky.theory.foregrounds`); they take about twenty seconds and are cached.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import logging
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlsky import registry
from mlsky.components import REFERENCE_GHZ
from mlsky.frequency import cib_templates, tsz
from mlsky.frequency.bands import jy_per_sr_per_uk
from mlsky.theory import foregrounds, presets
from mlsky.theory.cosmology import parse
from mlsky.theory.infrared import InfraredGalaxies
from mlsky.theory.objects import MASS_CUT, is_object
from mlsky.theory.parameters import DEFAULT, Cosmology
from mlsky.theory.spectra import keep

__all__ = [
    "FIELDS",
    "RANGE",
    "Response",
    "check",
    "fields_of",
    "part_of",
    "response",
    "same",
    "trained_on",
]

_log = logging.getLogger("mlsky")

#: Maps that are rescaled, in uK_CMB at 148 GHz. Radio sources and dusty galaxies of the catalogue
#: follow observed counts in every cosmology.
FIELDS = ("tsz", "ksz", "cib")

#: Largest relative difference to the cosmology of the networks, by parameter. Rescaled maps were
#: compared with painted ones at 10 % in sigma8 and Omega_m (docs/decisions/0007).
RANGE = {"sigma8": 0.15, "Omega_m": 0.2, "h": 0.15, "ns": 0.1, "ombh2": 0.2}

#: Sources brighter than this (mJy at 148 GHz) are in the catalogue and not in the CIB map.
FLUX_CUT_MJY = 7.0

#: Multipoles at which ratios are kept; they vary by a few per cent in a factor of two.
NODES = np.geomspace(20.0, 30000.0, 64)

# Increased when the meaning of the content of a cache file changes.
_VERSION = 2


@dataclass(frozen=True, eq=False)
class Response:
    """Changes of the networks' maps in another cosmology.

    Parameters
    ----------
    cosmology, trained
        Of the sky and of the networks.
    ell
        Multipoles, *(n,)*.
    gain
        Root of the ratio of power at `ell`, by map: `FIELDS`, and CIB templates ("cib_353").
    mean
        Ratio of the means of the maps of tSZ and CIB.
    trained_mean
        Their means in the networks' cosmology, uK_CMB.
    """

    cosmology: Cosmology
    trained: Cosmology
    ell: NDArray[np.float64]
    gain: Mapping[str, NDArray[np.float64]]
    mean: Mapping[str, float]
    trained_mean: Mapping[str, float]

    def at(self, name: str, ell: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gain of a map at any multipoles; constant outside the nodes."""
        return np.interp(np.log(np.maximum(ell, 1.0)), np.log(self.ell), self.gain[name])

    def describe(self) -> str:
        """A description of the rescaling in one line."""
        power = [
            f"{name} x {np.min(gain) ** 2:.2f}-{np.max(gain) ** 2:.2f}"
            for name, gain in self.gain.items()
        ]
        return (
            "another cosmology than that of the networks: power rescaled by the halo model "
            f"({', '.join(['kappa', *power])}); counts of radio sources and of bright dusty "
            "galaxies stay"
        )


def trained_on(header: Mapping) -> Cosmology:
    """Cosmology that the networks of a weight file were trained on, from its header."""
    return parse(header.get("cosmology", DEFAULT))


def part_of(header: Mapping) -> str:
    """The part that the networks of a weight file paint: "all", or "rest", without the objects."""
    return header.get("part", "all")


def same(one: Cosmology, other: Cosmology) -> bool:
    """Whether all parameters but the optical depth agree: foregrounds and kappa are the same."""
    return dataclasses.replace(one, tau=other.tau) == other


def fields_of(components: Iterable[str]) -> tuple[str, ...]:
    """The components of a sky that are in `FIELDS`."""
    return tuple(name for name in FIELDS if name in components)


def check(cosmology: Cosmology, header: Mapping, fields: Iterable[str] = FIELDS) -> None:
    """Check that maps of a weight file can be rescaled to a cosmology; kappa always can.

    Raises
    ------
    ValueError
        If a parameter is farther from the networks' than `RANGE`.
    """
    trained = trained_on(header)
    if same(cosmology, trained) or not fields:
        return
    mine, theirs = _parameters_in_words(cosmology), _parameters_in_words(trained)
    for name, fraction in RANGE.items():
        low, high = ((1 + sign * fraction) * theirs[name] for sign in (-1, 1))
        if not low <= mine[name] <= high:
            raise ValueError(
                f"cosmology has {name}={mine[name]:.4g}: must be from {low:.4g} to {high:.4g}, to "
                "which the maps of these weights can be rescaled; ask for components cmb and "
                "radio alone, or train networks on tables of your own (mlsky tables build)"
            )


def response(
    cosmology: Cosmology, header: Mapping, fields: Iterable[str] = FIELDS
) -> Response | None:
    """The rescaling of the maps of a weight file; None if there is none.

    Parameters
    ----------
    cosmology
        Of the sky.
    header
        Of the weight file: its ``cosmology``, Planck 2018 if it has none, its ``part``, "all" if
        it has none, ``mass_cut``, ``cib_templates`` and ``preset``.
    fields
        Maps to rescale, of `FIELDS`.

    Raises
    ------
    ValueError
        As `check`.
    """
    trained = trained_on(header)
    if same(cosmology, trained):
        return None
    check(cosmology, header, fields)
    if not fields:
        return Response(cosmology, trained, NODES, {}, {}, {})
    asked = _Asked.of(header)
    new, old = (_spectra(c, asked) for c in (cosmology, trained))
    names = [name for name in asked.frequency if name.partition("_")[0] in fields]
    with_mean = [name for name in names if f"mean {name}" in new]
    return Response(
        cosmology,
        trained,
        NODES,
        {name: np.sqrt(new[name] / old[name]) for name in names},
        {name: float(new[f"mean {name}"] / old[f"mean {name}"]) for name in with_mean},
        {name: float(old[f"mean {name}"]) for name in with_mean},
    )


@dataclass(frozen=True)
class _Asked:
    """The part of the halo model that a weight file paints.

    Parameters
    ----------
    preset
        Of the truth it was trained on.
    part, mass_cut
        As `mlsky.theory.foreground_spectra` takes them.
    frequency
        GHz of each map by its name: "tsz", "ksz", "cib", and "cib_353" and the like.
    """

    preset: str
    part: str
    mass_cut: float
    frequency: Mapping[str, float]

    @classmethod
    def of(cls, header: Mapping) -> _Asked:
        frequency = dict.fromkeys(FIELDS, REFERENCE_GHZ)
        law = cib_templates.of_header(header)
        if law is not None:
            ghz = law.templates_ghz.tolist()
            frequency |= dict(zip(cib_templates.map_names(ghz), ghz, strict=True))
        preset = header.get("cib_templates", {}).get("preset", presets.DEFAULT)
        cut = float(header.get("mass_cut") or MASS_CUT)
        return cls(header.get("preset", preset), part_of(header), cut, frequency)


@functools.lru_cache(maxsize=8)
def _parameters_in_words(cosmology: Cosmology) -> dict[str, float]:
    """The parameters of `RANGE`."""
    from mlsky.plugins import camb

    matter = (cosmology.ombh2 + cosmology.omch2 + cosmology.mnu / 93.14) / cosmology.h**2
    return {
        "sigma8": camb.sigma8(cosmology),
        "Omega_m": matter,
        **{name: getattr(cosmology, name) for name in ("h", "ns", "ombh2")},
    }


def _spectra(cosmology: Cosmology, asked: _Asked) -> dict[str, NDArray]:
    """Power at `NODES` and mean of each map of one cosmology, from the cache if it is there."""
    cosmology = dataclasses.replace(cosmology, tau=parse(DEFAULT).tau)
    content = {
        "version": _VERSION,
        "cosmology": cosmology.to_dict(),
        "parameters": presets.parameters(asked.preset).to_dict(),
        **{key: getattr(asked, key) for key in ("part", "mass_cut", "frequency")},
        "nodes": NODES.tolist(),
        "versions": {name: importlib.metadata.version(name) for name in ("camb", "pyccl")},
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path = registry.cache_dir() / "response" / f"{digest[:16]}.npz"
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as kept:
            return dict(kept)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        pass  # none yet, or damaged: compute it
    _log.info("halo model of the cosmology, once")
    made = {}
    for name, nu in asked.frequency.items():
        component = name.partition("_")[0]
        spectra = foregrounds.foreground_spectra(
            NODES,
            nu,
            components=component,
            flux_cut_mjy=FLUX_CUT_MJY,
            cosmology=cosmology,
            preset=asked.preset,
            part=asked.part,
            mass_cut=asked.mass_cut,
        )
        made[name] = spectra[f"{component} x {component}"]
    made |= {f"mean {name}": np.array(v) for name, v in _means(cosmology, asked).items()}
    keep(path, made)
    return made


def _means(cosmology: Cosmology, asked: _Asked) -> dict[str, float]:
    """Means of the maps of tSZ and CIB, uK_CMB."""
    model = foregrounds.model(cosmology, asked.preset)
    painted = np.ones_like(model.number, dtype=bool)
    if asked.part == "rest":
        painted = ~is_object(model.z, model.log10_mass, asked.mass_cut)
    cut = (FLUX_CUT_MJY * 1e-3, REFERENCE_GHZ)
    galaxies = InfraredGalaxies.of(model)
    number = np.where(painted, model.number, 0)
    out = {"tsz": float((number * model.u_y[:, :, 0]).sum() * tsz.uk_per_y(REFERENCE_GHZ))}
    for name, nu in asked.frequency.items():
        if name.startswith("cib"):
            flux = (number * sum(galaxies.faint(nu, cut))).sum()
            out[name] = float(flux / jy_per_sr_per_uk(nu))
    return out
