"""Checks that the networks of a weight file and its header fit together.

A file may be complete and each of its entries valid although they do not fit: a network of the
wrong class, a normaliser without one of the fields, gains for too many levels. All of this is
reported in one line before any work starts.
"""

from __future__ import annotations

from mlsky.errors import RegistryError
from mlsky.frequency import cib_templates
from mlsky.networks import evaluate, tiles
from mlsky.networks.blurs import pooling
from mlsky.networks.weights import Weights

__all__ = ["MULTIPLE", "check_sky"]

#: The largest stride of networks, our choice; 32 is usual. The sides of charts are multiples of it.
MULTIPLE = 256

#: Classes of the networks of `evaluate.SETS`.
ARCHITECTURES = {
    "default": ("default:Convergence", "default:Paint", "default:PointSources"),
    "han2021": ("han2021:PIXGAN", "han2021:VAEGAN"),
}
#: Outputs of the paper's chain, in the order of its normaliser.
HAN_FIELDS = ("kappa", "ksz", "tsz", "cib", "radio")


def check_sky(weights: Weights) -> None:
    """Refuse weights that cannot make a sky.

    Raises
    ------
    ValueError
        If they are not a complete set of networks, or paint unknown templates of the CIB.
    RegistryError
        If networks and header do not fit together.
    """
    family = evaluate.kind(weights)
    for name, wanted in zip(evaluate.SETS[family], ARCHITECTURES[family], strict=True):
        found = weights.header["networks"][name]["architecture"]
        if found != wanted:
            _refuse(weights, f"network {name!r} is {found}", f"must be {wanted}")
    law = cib_templates.of_header(weights.header)
    if family == "default":
        _check_default(weights, law)
    else:
        _check_han2021(weights)


def _check_default(weights: Weights, law: cib_templates.CibTemplates | None) -> None:
    convergence, paint = weights["convergence"], weights["paint"]
    given = (0, len(evaluate.OBJECT_MAPS))
    if convergence.objects != paint.objects or paint.objects not in given:
        _refuse(
            weights,
            f"its networks take {convergence.objects} and {paint.objects} maps of objects",
            f"must be both {given[0]} or both {given[1]}",
        )
    if evaluate.takes_objects(weights) and weights.mass_cut is None:
        _refuse(weights, "its networks take maps of objects", "the header must give their mass_cut")
    cib = ("cib",) if law is None else cib_templates.map_names(law.templates_ghz)
    if paint.cib_templates != len(cib):
        _refuse(
            weights,
            f"network 'paint' paints {paint.cib_templates} maps of the CIB",
            f"must be {', '.join(cib)}",
        )
    if len({len(paint.cib_mix), len(paint.cib_mean), len(paint.cib_std)}) > 1:
        _refuse(weights, "cib_mix, cib_mean, cib_std of 'paint'", "must be as many as templates")
    objects = evaluate.OBJECTS if evaluate.takes_objects(weights) else ()
    channels = weights.normaliser.channels
    missing = [n for n in ("kappa", "ksz", "tsz", *cib, *objects) if n not in channels]
    if missing or tuple(evaluate.cib_names(weights)) != cib:
        _refuse(
            weights,
            f"its normaliser has {', '.join(channels)}",
            f"must have kappa, ksz, tsz, {', '.join((*cib, *objects))}",
        )
    gains = weights.header.get("calibration", {}).get("velocity_gains", ())
    if len(gains) > paint.velocity_levels:
        _refuse(
            weights,
            f"calibration.velocity_gains has {len(gains)} numbers",
            f"must be at most {paint.velocity_levels}, the velocity_levels of 'paint'",
        )
    try:
        stride = evaluate.multiple(weights)
        widest = max(map(pooling, paint.kernel_widths))
    except (TypeError, ValueError, ArithmeticError):
        stride = widest = MULTIPLE + 1
    if stride > MULTIPLE or widest > stride:
        _refuse(
            weights,
            "levels of noise and widths of kernels of its networks",
            f"must be positive, the last kernel the widest, for a stride of at most {MULTIPLE}",
        )


def _check_han2021(weights: Weights) -> None:
    channels, wanted = weights.normaliser.channels, ", ".join(HAN_FIELDS)
    if channels != HAN_FIELDS:
        _refuse(weights, f"its normaliser has {', '.join(channels)}", f"must have {wanted}")
    pixgan, vaegan = (weights[name].kwargs for name in evaluate.SETS["han2021"])
    numbers = (pixgan["inputs"], pixgan["outputs"], vaegan["channels"])
    if numbers != (1, len(HAN_FIELDS) - 1, len(HAN_FIELDS)):
        _refuse(weights, f"its networks have {numbers} fields", f"must be of {wanted}")
    overlap, levels = weights.header.get("overlap", 0), weights["pixgan"].noise_levels
    if not tiles.fits(overlap, [level for level, _ in levels]):
        _refuse(
            weights,
            f"overlap={overlap} of tiles with noise",
            f"must be 0 or {tiles.LARGEST_OVERLAP}, as tiles begin on whole pixels of their noise",
        )


def _refuse(weights: Weights, found: str, must: str) -> None:
    raise RegistryError(f"{weights.path}: {found}: {must}; it makes no sky")
