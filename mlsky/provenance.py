"""Provenance of a sky: how it was made, as stored in its file."""

from __future__ import annotations

import hashlib

from mlsky import components as fields
from mlsky._version import __version__
from mlsky.frequency import cib_templates, passbands
from mlsky.io import content
from mlsky.request import Request

__all__ = [
    "WORDS",
    "provenance",
]

#: Entries that say how a sky was asked for, what to cite, and which machine made it: its maps do
#: not depend on them, beyond the last bits that differ between machines.
WORDS = ("made_with", "command", "licence", "cite")

CITE = (
    "Han, Sehgal & Villaescusa-Navarro 2021, PRD 104, 123521 (doi:10.1103/PhysRevD.104.123521); "
    "mlsky and the weight files used (mlsky weights show NAME)"
)

LICENCE = "BSD-3-Clause (code); the licence of the weights is in the registry"


def provenance(request: Request) -> dict:
    """Plain JSON types only. There is no date, so that two runs on one machine agree."""
    from mlsky.painting import foregrounds

    weights = request.weights
    return {
        "version": __version__,
        "seed": request.seed,
        "cmb_seed": request.cmb_seed,
        "weights": {
            "name": request.weights_name,
            "sha256": weights.sha256,
            "pixel_arcmin": float(weights.pixel_arcmin),
        },
        "cosmology": request.cosmology.to_dict(),
        "kappa": "drawn" if request.kappa is None else request.kappa.describe(),
        "components": [*request.components, *(plugin.name for plugin in request.plugins)],
        "haloes": _describe_haloes(request),
        "plugins": {plugin.name: plugin.package for plugin in request.plugins},
        "flux_cut_mjy": _describe_cut(request),
        "flux_cuts": request.flux_cuts_told,
        "beams": [beam.describe() for beam in request.beams or ()],
        "pixel_window": request.pixel_window,
        "tsz_temperature_kev": request.tsz_temperature_kev,
        "monopole_off": list(request.monopole_off),
        "cib": _describe_cib(request),
        "geometry": content.describe_geometry(request.geometry),
        "made_with": foregrounds.made_with(weights, request.device),
        "command": request.command,
        "licence": LICENCE,
        "cite": CITE,
    }


def _describe_cut(request: Request) -> float | None:
    """The flux cut in mJy if it is one at 148 GHz; `flux_cuts` has any other."""
    cuts = request.flux_cuts
    if cuts is None or request.cut_per_band:
        return None
    ((mjy, band),) = cuts
    return mjy if band == passbands.Band(fields.REFERENCE_GHZ) else None


def _describe_haloes(request: Request) -> str:
    """Description of the clusters of a sky."""
    if not request.weights.mass_cut:
        return "painted by the networks"
    if request.haloes is None:
        return f"drawn, M200m > {request.weights.mass_cut:g} Msun"
    digest = hashlib.sha256()
    for name, values in sorted(request.haloes.items()):
        digest.update(name.encode() + values.tobytes())
    return f"given, {len(request.haloes['z'])}, {digest.hexdigest()[:16]}"


def _describe_cib(request: Request) -> dict:
    """How the CIB is scaled to the bands: frequencies of its maps, and the law."""
    law = cib_templates.of_header(request.weights.header)
    if law is None:
        return {"templates_ghz": [fields.REFERENCE_GHZ], "law": "one colour"}
    return {"templates_ghz": law.templates_ghz.tolist(), "law": "templates and remainder"}
