"""The result of the painter: maps of a region, and of its objects if they are separate."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["FIELDS", "OBJECT_COLUMNS", "OBJECT_FIELDS", "Objects", "Region"]

#: Datasets of a region, in order; uK_CMB at 148 GHz but for the convergences.
FIELDS = ("kappa", "kappa_g", "ksz", "tsz", "cib", "radio")
#: Datasets that the objects have too.
OBJECT_FIELDS = ("kappa", "ksz", "tsz", "cib", "radio")
#: Columns of the objects of a region: place in pixels (the centre of the first is at 0.5, 0.5;
#: an object is painted at the centre of its pixel), redshift of its shell, M200m (Msun), radial
#: velocity (km/s, positive receding).
OBJECT_COLUMNS = ("y", "x", "z", "m200m", "velocity")


@dataclass
class Objects:
    """The objects of a region: haloes above a mass, with their maps.

    Parameters
    ----------
    maps : (5, n, n)
        In the order of `OBJECT_FIELDS`. Kappa is that of the NFW profiles of the haloes, including
        its mean; matter around them belongs to the rest. CIB and radio are those of the galaxies of
        these haloes.
    rows : (n_objects, 5)
        One for each object, columns as `OBJECT_COLUMNS`.
    members : (n_sources,) int32
        For each source of the region, the row of its host object; -1 for none.
    cib, radio : (n_freqs, n, n)
        uK_CMB at the painter's `freqs`.
    """

    maps: torch.Tensor
    rows: torch.Tensor
    members: torch.Tensor
    cib: torch.Tensor
    radio: torch.Tensor


@dataclass
class Region:
    """One painted region.

    Parameters
    ----------
    maps : (6, n, n)
        In the order of `FIELDS`; without the objects, if the painter keeps them separate.
    sources : (n_sources, 7)
        Radio and infrared galaxies above the painter's `catalogue_mjy`, columns as
        `mlsky.haloes.galaxies.SOURCE_COLUMNS`; those below `flux_cut_mjy` are in the maps too.
    cib, radio : (n_freqs, n, n)
        uK_CMB at the painter's `freqs`; without the objects, as `maps`.
    objects
        The separate objects, or None. The sum with `maps` agrees, to rounding, with a painter
        without separate objects.
    """

    maps: torch.Tensor
    sources: torch.Tensor
    cib: torch.Tensor
    radio: torch.Tensor
    objects: Objects | None = None
