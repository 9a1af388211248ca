"""The haloes of a sky beside what its networks paint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlsky.components import REFERENCE_GHZ
from mlsky.frequency import cib_templates
from mlsky.haloes import catalogue, draw, paint
from mlsky.networks import evaluate

if TYPE_CHECKING:
    from mlsky.haloes.draw import HaloList
    from mlsky.haloes.paint import HaloPainter
    from mlsky.networks.weights import Weights
    from mlsky.sphere.geometry import Geometry

__all__ = ["objects_of_sky"]


def objects_of_sky(
    kappa_alm: NDArray[np.complex128],
    cl: NDArray[np.float64],
    seed: int,
    *,
    weights: Weights,
    tables: dict,
    geometry: Geometry,
    components: Sequence[str],
    tsz_order: int | None = None,
    given: dict | None = None,
) -> tuple[HaloList, HaloPainter]:
    """Haloes that networks leave out, drawn or given, and what paints them.

    Parameters
    ----------
    kappa_alm
        Gaussian kappa of the sky, healpy order, to `mlsky.haloes.shells.LMAX` at least.
    cl
        Its spectrum.
    seed
        Of the sky.
    weights
        Of the rest: the mass cut, the templates of the CIB and the pixels of their charts are used.
    tables
        From `mlsky.haloes.tables`, of the sky's cosmology.
    geometry
        Output pixels.
    components
        Of the sky: what is painted beside kappa, and beside tSZ if the networks are given it.
    tsz_order
        As for `HaloPainter`.
    given
        A user's haloes, checked by `mlsky.haloes.catalogue.check`, in place of drawn ones.

    Raises
    ------
    ValueError
        If the mass cut is not in the tables.
    """
    cut, sky = weights.mass_cut, (seed, kappa_alm, cl)
    if given is None:
        haloes = draw.draw(tables, *sky, mass_cut=cut)
    else:
        haloes = catalogue.parse(given, tables, cut, *sky)
    law = cib_templates.of_header(weights.header)
    shown = ("kappa", "tsz") if evaluate.takes_objects(weights) else ("kappa",)
    fields = dict.fromkeys((*shown, *(name for name in components if name != "cmb")))
    objects = paint.HaloPainter(
        haloes,
        tables,
        seed,
        fields=tuple(fields),
        tsz_order=tsz_order,
        cib_ghz=(REFERENCE_GHZ,) if law is None else tuple(law.templates_ghz),
        mass_cut=cut,
        pixel_arcmin=weights.pixel_arcmin,
        geometry=geometry,
    )
    return haloes, objects
