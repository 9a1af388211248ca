"""How the foregrounds answer to the cosmology: ratios of power and of means, by the halo model.

Networks paint the sky of the cosmology they were trained on. For another one each field is
rescaled (`mlsky.sphere.rescale`) by the root of the ratio of its power in the two cosmologies,
and its mean by the ratio of the means. Both are those of the analytic model of the truth
(`mlsky.theory.foregrounds`); they take some twenty seconds and are kept on disk.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlsky import registry
from mlsky.bands import jy_per_sr_per_uk
from mlsky.components import REFERENCE_GHZ
from mlsky.scaling import tsz
from mlsky.theory import foregrounds, presets
from mlsky.theory.cosmology import DEFAULT, Cosmology, parse
from mlsky.theory.infrared import InfraredGalaxies
from mlsky.theory.objects import is_object
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

#: How far a cosmology may be from that of the networks, relative, by parameter. Rescaled maps
#: were compared with painted ones at 10 % in sigma8 and Omega_m (docs/decisions/0007).
RANGE = {"sigma8": 0.15, "Omega_m": 0.2, "h": 0.15, "ns": 0.1, "ombh2": 0.2}

#: Sources brighter than this (mJy at 148 GHz) are in the catalogue and not in the CIB map.
FLUX_CUT_MJY = 7.0

#: Multipoles at which ratios are kept; they vary by a few per cent in a factor of two.
NODES = np.geomspace(20.0, 30000.0, 64)

# Raised when the content of a cache file changes its meaning.
_VERSION = 1


@dataclass(frozen=True, eq=False)
class Response:
    """What another cosmology does to the maps of networks.

    Parameters
    ----------
    cosmology, trained
        Of the sky and of the networks.
    ell
        Multipoles, *(n,)*.
    gain
        Root of the ratio of power at `ell`, by field.
    mean
        Ratio of the means of "tsz" and "cib".
    trained_mean
        Means of "tsz" and "cib" in the networks' cosmology, uK_CMB at 148 GHz.
    """

    cosmology: Cosmology
    trained: Cosmology
    ell: NDArray[np.float64]
    gain: Mapping[str, NDArray[np.float64]]
    mean: Mapping[str, float]
    trained_mean: Mapping[str, float]

    def at(self, name: str, ell: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gain of a field at any multipoles; constant beyond the first and the last node."""
        return np.interp(np.log(np.maximum(ell, 1.0)), np.log(self.ell), self.gain[name])

    def told(self) -> str:
        """What is rescaled, in one line."""
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
    """What the networks of a weight file paint: "all", or "rest", without the objects."""
    return header.get("part", "all")


def same(one: Cosmology, other: Cosmology) -> bool:
    """Whether foregrounds and kappa are the same in both: all but the optical depth."""
    return dataclasses.replace(one, tau=other.tau) == other


def fields_of(components: Iterable[str]) -> tuple[str, ...]:
    """Which of `FIELDS` are among the components of a sky."""
    return tuple(name for name in FIELDS if name in components)


def check(cosmology: Cosmology, header: Mapping, fields: Iterable[str] = FIELDS) -> None:
    """Whether maps of a weight file can be rescaled to a cosmology; kappa always can.

    Raises
    ------
    ValueError
        If a parameter is farther from the networks' than `RANGE`.
    """
    trained = trained_on(header)
    if same(cosmology, trained) or not fields:
        return
    mine, theirs = _told(cosmology), _told(trained)
    for name, share in RANGE.items():
        low, high = ((1 + sign * share) * theirs[name] for sign in (-1, 1))
        if not low <= mine[name] <= high:
            raise ValueError(
                f"cosmology has {name}={mine[name]:.4g}: must be from {low:.4g} to {high:.4g}, to "
                "which the maps of these weights can be rescaled; ask for components cmb and "
                "radio alone, or train networks on tables of your own (mlsky tables build)"
            )


def response(
    cosmology: Cosmology, header: Mapping, fields: Iterable[str] = FIELDS
) -> Response | None:
    """How maps of the networks of a weight file are to be rescaled; None if they are not.

    Parameters
    ----------
    cosmology
        Of the sky.
    header
        Of the weight file: its ``cosmology``, Planck 2018 if it has none, its ``part``, "all" if
        it has none, and its ``preset``.
    fields
        Which of `FIELDS` are wanted.

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
    preset, part = header.get("preset", presets.DEFAULT), part_of(header)
    new, old = (_spectra(c, preset, part) for c in (cosmology, trained))
    with_mean = [name for name in fields if f"mean {name}" in new]
    return Response(
        cosmology,
        trained,
        NODES,
        {name: np.sqrt(new[name] / old[name]) for name in fields},
        {name: float(new[f"mean {name}"] / old[f"mean {name}"]) for name in with_mean},
        {name: float(old[f"mean {name}"]) for name in with_mean},
    )


@functools.lru_cache(maxsize=8)
def _told(cosmology: Cosmology) -> dict[str, float]:
    """The parameters of `RANGE`."""
    from mlsky.plugins import camb

    matter = (cosmology.ombh2 + cosmology.omch2 + cosmology.mnu / 93.14) / cosmology.h**2
    return {
        "sigma8": camb.sigma8(cosmology),
        "Omega_m": matter,
        **{name: getattr(cosmology, name) for name in ("h", "ns", "ombh2")},
    }


def _spectra(cosmology: Cosmology, preset: str, part: str) -> dict[str, NDArray]:
    """Power at `NODES` and mean of each field of one cosmology, from the cache if it is there."""
    cosmology = dataclasses.replace(cosmology, tau=parse(DEFAULT).tau)
    content = {
        "version": _VERSION,
        "cosmology": cosmology.to_dict(),
        "parameters": presets.parameters(preset).to_dict(),
        "part": part,
        "nodes": NODES.tolist(),
        "versions": {name: importlib.metadata.version(name) for name in ("camb", "pyccl")},
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path = registry.cache_dir() / "response" / f"{digest[:16]}.npz"
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as kept:
            return dict(kept)
    except (OSError, ValueError, EOFError, KeyError):
        pass  # none yet, or a damaged one: it is made again
    _log.info("halo model of the cosmology, once")
    spectra = foregrounds.foreground_spectra(
        NODES,
        REFERENCE_GHZ,
        components=FIELDS,
        flux_cut_mjy=FLUX_CUT_MJY,
        cosmology=cosmology,
        preset=preset,
        part=part,
    )
    made = {name: spectra[f"{name} x {name}"] for name in FIELDS}
    made |= {f"mean {name}": np.array(v) for name, v in _means(cosmology, preset, part).items()}
    keep(path, made)
    return made


def _means(cosmology: Cosmology, preset: str, part: str) -> dict[str, float]:
    """Means of tSZ and CIB, uK_CMB at 148 GHz."""
    model = foregrounds.model(cosmology, preset)
    painted = np.ones_like(model.number, dtype=bool)
    if part == "rest":
        painted = ~is_object(model.z, model.log10_mass)
    cut = (FLUX_CUT_MJY * 1e-3, REFERENCE_GHZ)
    flux = sum(InfraredGalaxies.of(model).faint(REFERENCE_GHZ, cut))
    compton_y = (model.number * model.u_y[:, :, 0])[painted].sum()
    return {
        "tsz": float(compton_y * tsz.uk_per_y(REFERENCE_GHZ)),
        "cib": float((model.number * flux)[painted].sum() / jy_per_sr_per_uk(REFERENCE_GHZ)),
    }
