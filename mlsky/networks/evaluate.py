"""Evaluation of networks on the needed pixels of large pictures, in bounded memory.

Backbones are evaluated layer by layer in blocks (`mlsky.networks.staged`); the result is that of
one evaluation of the whole picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from mlsky.components import maps_of
from mlsky.errors import RegistryError
from mlsky.networks import default, staged, tiles
from mlsky.networks.backbone import Backbone
from mlsky.networks.device import pick_precision
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.weights import Weights
from mlsky.sphere.chart_area import Area

__all__ = [
    "OBJECTS",
    "OBJECT_MAPS",
    "PADDING",
    "PRECISIONS",
    "SETS",
    "STEP_PADDING",
    "TRAINED",
    "calibrated",
    "check_finite",
    "cib_names",
    "evaluate",
    "filtered",
    "kappa_networks",
    "kind",
    "multiple",
    "noise_channels",
    "noise_padding",
    "noise_reach",
    "takes_objects",
]

#: Receptive radius, measured in tests/networks/test_evaluate.py: Convergence 58 pixels, Paint 96;
#: a multiple of the stride.
PADDING = 96
#: Pixels around the area of the next step on which each step is evaluated: the encoder of
#: Convergence, the encoder of Paint, and the inputs of PointSources and of the kernels of tSZ.
STEP_PADDING = (8, 8, 16)
#: Rows of a picture processed at a time in pixel-wise operations.
ROWS = 32
#: Networks that make a sky, in order of evaluation.
SETS = {"default": ("convergence", "paint", "point_sources"), "han2021": ("pixgan", "vaegan")}
#: Maps of objects that networks are given, in the order of their inputs, and the channels of the
#: normaliser that these take, which are also their names in a set.
OBJECT_MAPS = ("kappa", "tsz")
OBJECTS = tuple(f"objects_{name}" for name in OBJECT_MAPS)
#: Number formats of convolutions, and the ones in which each set was trained.
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
TRAINED = {"default": "bf16", "han2021": "fp32"}


def kind(weights: Weights) -> str:
    """The set, of `SETS`, that a weight file contains.

    Raises
    ------
    ValueError
        If it holds none.
    """
    for name, members in SETS.items():
        if set(members) <= set(weights.networks):
            return name
    wanted = " or ".join("+".join(m) for m in SETS.values())
    entries = weights.header.get("networks", {}).values()
    drawn = bool(entries) and not any(entry.get("inputs") for entry in entries)
    raise ValueError(
        f"{weights.path.name} holds {', '.join(weights.networks)}: a sky needs {wanted}"
        + drawn * "; its images are drawn by mlsky.toys.unconditional.sample"
    )


def noise_channels(weights: Weights) -> dict[str, list[tuple[int, int]]]:
    """Noise that each network takes: (level, channels) in order."""
    if kind(weights) == "han2021":  # the paper's networks have none
        return {"pixgan": levels} if (levels := weights["pixgan"].noise_levels) else {}
    return {
        name: weights[name].noise_levels
        for name in SETS["default"]
        if hasattr(weights[name], "noise_levels")
    }


def noise_padding(weights: Weights) -> dict[str, list[int]]:
    """Pixels by which each tensor of `noise_channels` should extend past the edge of a picture."""
    if kind(weights) == "han2021":  # every tile sees its own
        return {name: [0] * len(wanted) for name, wanted in noise_channels(weights).items()}
    out = {}
    for name, wanted in noise_channels(weights).items():
        first = len(weights[name].backbone.widths) if wanted else 0
        out[name] = [
            staged.NOISE_PADDING * (i >= first and l > 0) for i, (l, _) in enumerate(wanted)
        ]
    return out


def noise_reach(weights: Weights) -> int:
    """Pixels around an area on which noise acts on the area."""
    return tiles.SIDE if kind(weights) == "han2021" else sum(STEP_PADDING)


def kappa_networks(weights: Weights, names: Iterable[str]) -> list[str]:
    """Those of some networks that kappa depends on."""
    return [name for name in names if kind(weights) != "default" or name == "convergence"]


def multiple(weights: Weights) -> int:
    """Sides of a picture must be multiples of this many pixels."""
    if kind(weights) == "han2021":
        return tiles.SIDE
    return max(weights[name].stride for name in noise_channels(weights))


def _rounded(like: torch.Tensor, precision: str) -> torch.autocast:
    """Convolutions in a precision, on the device of a tensor."""
    dtype = PRECISIONS[precision]
    return torch.autocast(like.device.type, dtype, enabled=dtype is not torch.float32)


def _run(
    network: torch.nn.Module, kappa: torch.Tensor, noise: Sequence[torch.Tensor], precision: str
) -> torch.Tensor:
    """A network of the default family, or a stand-in, on a whole picture."""
    with _rounded(kappa, precision):
        return network(kappa, noise)


def _grow(
    network: default.Convergence,
    inputs: torch.Tensor,
    noise: Sequence[torch.Tensor],
    area: Area,
    padding: int,
    precision: str,
) -> torch.Tensor:
    """`Convergence` on an area, zero outside."""
    if not isinstance(getattr(network, "backbone", None), Backbone):
        return _run(network, inputs, noise, precision)[:, :1]
    kappa = inputs[:, :1]
    grown = torch.zeros_like(kappa)
    around = network.around_objects(inputs) if network.objects else None
    blur = 10  # radius of the widest, 3 x 3.2 pixels

    def finish(made: torch.Tensor, block: tuple[slice, slice]) -> None:
        read, kept = staged.reads(block, blur, area.shape)
        made = made.float()
        if around is not None:
            made = made + around[(..., *block)]
        made = F.pad(made, _padding(kept, read))
        with torch.autocast(kappa.device.type, enabled=False):
            grown[(..., *block)] = network.joined(kappa[(..., *read)], made)[(..., *kept)]

    with _rounded(kappa, precision):
        staged.backbone(network.backbone, inputs, noise, area, padding, finish)
    return grown


def _padding(kept: tuple[slice, slice], read: tuple[slice, slice]) -> list[int]:
    """Arguments of `F.pad` that put a block into the middle of its padded version."""
    (y, x), (ry, rx) = kept, read
    return [x.start, rx.stop - rx.start - x.stop, y.start, ry.stop - ry.start - y.stop]


def _paint(
    network: default.Paint,
    inputs: torch.Tensor,
    noise: Sequence[torch.Tensor],
    area: Area,
    padding: int,
    precision: str,
) -> torch.Tensor:
    """`Paint` on an area: (1, 2 + templates, H, W), undefined outside."""
    if not isinstance(getattr(network, "backbone", None), Backbone):
        return _run(network, inputs, noise, precision)
    levels, n = len(network.backbone.widths), network.velocities
    velocity_noise = noise[levels:]
    ny, nx = area.shape
    painted = inputs.new_zeros(1, 2 + network.cib_templates, ny, nx)
    log_amplitude = inputs.new_full((1, len(network.kernel_widths), ny, nx), -torch.inf)

    def finish(made: torch.Tensor, block: tuple[slice, slice]) -> None:
        made = made.to(torch.float32, memory_format=torch.contiguous_format)
        v = staged.velocity_block(network, coarse, velocity_noise[0], block)
        with torch.autocast(inputs.device.type, enabled=False):
            bounded = network.bounded(made[:, :n], v, made[:, -network.cib_fields :])
        log_amplitude[(..., *block)] = made[:, n : -network.cib_fields]
        painted[(0, 0, *block)] = bounded[0, 0]
        painted[(0, slice(2, None), *block)] = bounded[0, 1:]

    with _rounded(inputs, precision):
        coarse = staged.velocity(network, velocity_noise)
        staged.backbone(network.backbone, inputs, noise[:levels], area, padding, finish)
    painted[:, 1:2] = network.tsz(log_amplitude)
    return painted


def _scale_velocities(weights: Weights, noise: list[torch.Tensor]) -> None:
    """Multiply the velocity noise by the calibrated gains of its levels, in place."""
    gains = weights.header.get("calibration", {}).get("velocity_gains", ())
    for level, gain in enumerate(gains, len(noise) - len(gains)):
        noise[level] = noise[level] * gain


def takes_objects(weights: Weights) -> bool:
    """Whether the networks are given maps of clusters, which they leave out."""
    return any(getattr(network, "objects", 0) for network in weights.networks.values())


def cib_names(weights: Weights) -> list[str]:
    """Templates of the CIB that the networks paint: "cib", "cib_353"."""
    return maps_of(weights.normaliser.channels, "cib")


def _default(
    weights: Weights,
    kappa: torch.Tensor,
    objects: torch.Tensor | None,
    noise: dict,
    area: Area,
    precision: str,
    kappa_alone: bool,
) -> dict[str, torch.Tensor]:
    outer, middle, inner = STEP_PADDING
    inputs = weights.normaliser.select(["kappa"]).forward(kappa)
    given = [] if objects is None else [weights.normaliser.select(OBJECTS).forward(objects)]
    inputs = torch.cat([inputs, *given], 1)
    seen = area.widened(inner + middle)
    # popped, as the next network needs the memory
    grown = _grow(weights["convergence"], inputs, noise.pop("convergence"), seen, outer, precision)
    del inputs
    if kappa_alone:
        return {"kappa": weights.normaliser.select(["kappa"]).inverse(grown)[0, 0]}
    wide = area.widened(inner)
    inputs = torch.cat([grown, *given], 1)
    painted = _paint(weights["paint"], inputs, noise["paint"], wide, middle, precision)
    del inputs, given
    names = ("kappa", "ksz", "tsz", *cib_names(weights))
    fields = torch.cat([grown, painted], 1)
    index = [names.index(n) for n in weights["point_sources"].INPUTS]

    def seen_by_sources(block: tuple[slice, slice]) -> torch.Tensor:
        return torch.cat([fields[(slice(None), slice(i, i + 1), *block)] for i in index], 1)

    with _rounded(kappa, precision):
        rate = staged.point_sources(weights["point_sources"], seen_by_sources, area)
    physical = weights.normaliser.select(names)
    for y in range(0, fields.shape[-2], ROWS):  # in place, while they are in the cache
        fields[..., y : y + ROWS, :] = physical.inverse(fields[..., y : y + ROWS, :])
    return {**dict(zip(names, fields[0], strict=True)), "log_rate": rate}


def _han2021(
    weights: Weights, kappa: torch.Tensor, noise: Mapping[str, Sequence], precision: str
) -> dict[str, torch.Tensor]:
    """The paper's chain in tiles, which overlap by as many pixels as the header says."""
    normaliser: Normaliser = weights.normaliser
    levels = [level for level, _ in noise_channels(weights).get("pixgan", ())]

    def make(part: torch.Tensor, of_tiles: list[torch.Tensor]) -> torch.Tensor:
        with _rounded(kappa, precision):
            painted = weights["pixgan"](part, of_tiles)
            fields = weights["vaegan"](torch.cat([part, painted.float()], 1))
        return normaliser.inverse(fields.float())

    x = normaliser.select(["kappa"]).forward(kappa)[0]
    drawn = [(level, z[0]) for level, z in zip(levels, noise.get("pixgan", ()), strict=True)]
    out = tiles.blended(x, drawn, make, weights.header.get("overlap", 0))
    return dict(zip(normaliser.channels, out, strict=True))


def filtered(x: torch.Tensor, pixel_arcmin: float, table: dict) -> torch.Tensor:
    """A picture (H, W) with its modes multiplied by ``gain`` at the multipoles ``ell``.

    Edges are periodic, so that ``gain`` must vary slowly and the padding must be wide enough.
    """
    ny, nx = x.shape
    step = 10800 / pixel_arcmin * 2
    ell = torch.hypot(torch.fft.fftfreq(ny)[:, None] * step, torch.fft.rfftfreq(nx)[None] * step)
    gain = _polygon(ell.clamp(table["ell"][0], table["ell"][-1]), table["ell"], table["gain"])
    return torch.fft.irfft2(torch.fft.rfft2(x) * gain.to(x.device), s=(ny, nx))


def _polygon(x: torch.Tensor, source, target) -> torch.Tensor:
    """Piecewise linear map of values, extrapolated at both ends."""
    source, target = (
        torch.tensor(t, dtype=torch.float32, device=x.device) for t in (source, target)
    )
    slope = target.diff() / source.diff()
    offset = target[:-1] - slope * source[:-1]
    side = torch.bucketize(x.contiguous(), source[1:-1], out_int32=True).view(-1)
    return slope.take(side.long()).view(x.shape).mul_(x).add_(offset[side].view(x.shape))


def calibrated(field: torch.Tensor, pixel_arcmin: float, table: dict) -> torch.Tensor:
    """CIB, radio or -tSZ (H, W) in uK with the power and the values of the truth, never negative.

    First a gain by multipole (``ell``, ``gain``), then a map of values to those of the same rank
    (``from``, ``to``, in uK).
    """
    field = filtered(field, pixel_arcmin, table)
    return _polygon(field, table["from"], table["to"]).clamp(min=0)


@torch.no_grad()
def evaluate(
    weights: Weights,
    kappa: np.ndarray | torch.Tensor,
    noise: dict[str, Sequence],
    area: Area | None = None,
    precision: str | None = None,
    objects: Mapping[str, np.ndarray | torch.Tensor] | None = None,
    kappa_alone: bool = False,
) -> dict[str, torch.Tensor]:
    """All fields of one picture from a Gaussian kappa.

    Parameters
    ----------
    weights
        An opened weight file.
    kappa
        (H, W) Gaussian kappa; sides multiples of 32.
    noise
        Per network of `noise_channels`, its tensors (channels, H >> level, W >> level). Those of
        the kSZ's velocities may have `mlsky.networks.staged.NOISE_PADDING` pixels more on each
        side of the picture, at every level but the finest: no other input is seen from so far.
    area
        Pixels to evaluate; by default all. Elsewhere maps are 0 and rates are zero. Outputs depend
        on the `STEP_PADDING` pixels around the area, and on zeros farther out.
    precision
        "bf16" or "fp32", of convolutions; by default as the networks were `TRAINED`, or "fp32" on
        a processor without instructions for bfloat16 (`mlsky.networks.device.pick_precision`).
    objects
        Maps of the clusters that the networks leave out, for networks that take them
        (`takes_objects`): "kappa" (H, W) and "tsz" (H, W), uK_CMB at 148 GHz.
    kappa_alone
        Leave out the networks on which kappa does not depend (`kappa_networks`), and their fields.

    Returns
    -------
    dict
        "kappa" (H, W) and "ksz", "tsz", "cib" in uK_CMB at 148 GHz, tSZ nowhere positive
        and CIB nowhere negative, their values as calibrated; further templates of the CIB,
        "cib_353" and so on, at their frequency; with "log_rate", ln of radio sources
        per pixel (default family), or "radio", a map (the paper's chain).

    Raises
    ------
    ValueError
        If a side is not a multiple of the networks' stride, the file makes no sky, the precision is
        unknown, or objects are given to networks without them, or missing for networks with them.
    """
    device = next(weights[SETS[kind(weights)][0]].parameters()).device
    precision = pick_precision(TRAINED[kind(weights)], device) if precision is None else precision
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: must be one of {', '.join(PRECISIONS)}")
    stride = max([weights[name].stride for name in noise_channels(weights)], default=1)
    if any(side % stride for side in kappa.shape):
        shape = tuple(kappa.shape)
        raise ValueError(f"kappa of shape {shape}: sides must be multiples of {stride}")
    if takes_objects(weights) != (objects is not None):
        wanted = "take" if objects is None else "do not take"
        raise ValueError(f"{weights.path.name}: its networks {wanted} maps of objects")
    kappa = torch.as_tensor(kappa, dtype=torch.float32, device=device)[None, None]
    if objects is not None:
        maps = (objects[name] for name in OBJECT_MAPS)
        maps = [torch.as_tensor(m, dtype=torch.float32, device=device) for m in maps]
        objects = torch.stack(maps)[None]
    noise = {
        name: [torch.as_tensor(z, device=device)[None] for z in tensors]
        for name, tensors in noise.items()
    }
    if kind(weights) == "default":
        if not kappa_alone:
            _scale_velocities(weights, noise.get("paint", []))
        area_or_all = area or Area.whole(*kappa.shape[-2:])
        out = _default(weights, kappa, objects, noise, area_or_all, precision, kappa_alone)
    else:
        out = _han2021(weights, kappa, noise, precision)
    inside = None if area is None else torch.from_numpy(area.mask()).to(device)
    for name in [n for n in ("ksz", "tsz", *cib_names(weights), "radio") if n in out]:
        field = -out[name] if name == "tsz" else out[name]
        field = field if name == "ksz" else field.clamp(min=0)
        table = weights.header.get("calibration", {}).get(name)
        if table:
            if inside is not None:  # the mean outside the area, so that its border is not filtered
                field = torch.where(inside, field, field[inside].mean())
            adjust = filtered if name == "ksz" else calibrated
            field = adjust(field, weights.pixel_arcmin, table)
        out[name] = -field if name == "tsz" else field
    if inside is not None:
        for name in out:
            out[name] = torch.where(inside, out[name], -torch.inf if name == "log_rate" else 0.0)
    return out


def check_finite(maps: Mapping[str, np.ndarray], chart: int) -> None:
    """Refuse networks whose outputs overflow, instead of making a sky of NaN.

    Raises
    ------
    RegistryError
        If a map of a chart has a value that is not finite. The logarithm of a rate may be minus
        infinity, where the rate is zero, as outside the area.
    """
    for name, values in maps.items():
        allowed = np.isfinite(values)
        if name == "log_rate":
            allowed |= np.isneginf(values)
        if not allowed.all():
            raise RegistryError(
                f"the networks' {name} is not finite on chart {chart}: the weight file is no "
                "trained one, or damaged; use another (mlsky weights list)"
            )
