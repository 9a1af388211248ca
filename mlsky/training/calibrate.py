"""Calibration on validation truth, stored in a weight file in addition to the weights.

An isotropic gain of kappa by multipole, because its power is that of the Gaussian kappa, which
theory gives; the mean rate of radio sources on generated maps, by which the rate is divided so that
their density is that of the counts; maps of CIB values, and of tSZ values where clusters are left
out, to true ones of the same rank, which correct counts and distributions; and the balance between
the scales of kSZ and tSZ, which small training patches do not constrain. For the paper's chain the
values of tSZ, CIB and radio and the gain of kSZ take the place of its transfer functions and
remapped fluxes (`mlsky.training.paper_corrections`), unless those are asked for.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence

import h5py
import numpy as np
import torch
import torch.nn.functional as F

from mlsky import seeds
from mlsky.io.sets import fields_of
from mlsky.networks import evaluate
from mlsky.networks.default import Convergence, Paint
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.weights import Weights
from mlsky.painting.regions import run
from mlsky.sphere.resolution import kappa_lmax
from mlsky.statistics import bandpower
from mlsky.training import paper_corrections
from mlsky.training.matching import Spectra
from mlsky.training.value_matching import BINS, LARGEST_GAIN, match_power, match_values

__all__ = ["CORRECTIONS", "balance_kernels", "balance_velocities", "fit_calibration", "gain_beside"]

#: What the fields of the paper's chain are corrected by.
CORRECTIONS = ("matched", "paper")

PATCH = 128  # pixels along a side of training patches, which are not periodic
#: Standard deviations in `balance_kernels`: ln of the clipped power of a band, its
#: correlation with kappa, ln of a quantile, and ln of a gain.
KERNEL_TOLERANCES = (0.04, 0.02, 0.05, 0.5)
KERNEL_CLIP_UK = 40.0
TAIL_FRACTIONS = (1e-3, 1e-2, 0.1)
KERNEL_ELL = (
    300.0,
    8000.0,
)  # bands that are used: lower ones are dominated by a few modes and clusters


def fit_calibration(
    weights: Weights,
    data: str | os.PathLike,
    regions: int | None = None,
    seed: int = 1,
    corrections: str = CORRECTIONS[0],
) -> dict:
    """Gain of kappa and mean rate of radio sources.

    Parameters
    ----------
    weights
        An uncalibrated weight file.
    data
        Validation set.
    regions
        How many to use, all by default.
    seed
        Of the networks' noise.
    corrections
        One of `CORRECTIONS`: "matched" to the truth, or those of the paper for its own chain.

    Returns
    -------
    dict
        For the header's ``calibration``: ``kappa`` {ell, gain}, ``radio_mean_rate`` (per pixel),
        ``cib`` {ell, gain, from, to} (uK, see `mlsky.networks.evaluate.calibrated`), the same for
        its other templates, and ``tsz`` for networks that leave clusters out: the few that a
        network paints are too rare to be matched. For the paper's chain also ``tsz`` and ``radio``,
        and ``ksz`` {ell, gain}.

    Raises
    ------
    ValueError
        If the set has other pixels than the weights, or for corrections that there are not.
    """
    chain = "vaegan" in weights.networks
    if corrections not in CORRECTIONS or (corrections == "paper" and not chain):
        raise ValueError(
            f"corrections={corrections!r}: must be 'matched', or 'paper' for its chain of networks"
        )
    names = ("kappa_in", *_matched(weights))
    with _opened(data, names, evaluate.takes_objects(weights)) as (fields, attrs):
        if attrs["pixel_arcmin"] != weights.pixel_arcmin:
            raise ValueError(
                f"{data}: pixels of {attrs['pixel_arcmin']}', the weights want "
                f"{weights.pixel_arcmin}'"
            )
        return _fit_calibration(weights, fields, attrs, regions, seed, corrections)


def _fit_calibration(
    weights: Weights,
    fields: Sequence[h5py.Dataset],
    attrs: Mapping,
    regions: int | None,
    seed: int,
    corrections: str,
) -> dict:
    """`fit_calibration` on the open fields of a set."""
    names = _matched(weights)
    gaussian_kappa, truth = fields[0], fields[1 : 1 + len(names)]
    of_objects = fields[1 + len(names) :]
    periodic = _is_periodic(gaussian_kappa)
    count = len(gaussian_kappa) if regions is None else min(regions, len(gaussian_kappa))
    n = gaussian_kappa.shape[-1]
    top = min(kappa_lmax(weights.pixel_arcmin), 10800 / attrs["pixel_arcmin"])
    edges = np.geomspace(150, top, BINS + 1)
    spectra = bandpower.Spectra(n, attrs["pixel_arcmin"], edges, periodic=False)
    power, rate = 0.0, 0.0
    values: dict[str, tuple[list, list]] = {name: ([], []) for name in names}

    for i in range(count):
        objects = _objects(of_objects, i)
        made = run(weights, gaussian_kappa[i], seed, i, periodic=periodic, objects=objects)
        grown = made["kappa"].numpy()
        beside = objects["kappa"] if objects is not None else np.zeros_like(grown)
        found = spectra.power(spectra.modes(np.stack([gaussian_kappa[i], grown, beside])))
        power = power + np.array([found[0, 0], found[1, 1], found[1, 2], found[2, 2]])
        if "log_rate" in made:
            rate += float(made["log_rate"].double().exp().mean()) / count
        for name, field in zip(names, truth, strict=True):
            sign, least = -1 if name == "tsz" else 1, -np.inf if name == "ksz" else 0
            values[name][0].append(sign * made[name])
            values[name][1].append(torch.from_numpy(np.maximum(sign * field[i], least)))
    centre = np.sqrt(edges[1:] * edges[:-1])
    filled = power[1] > 0  # small regions have no modes in some of the first bins
    gain = gain_beside(*power[:, filled])
    calibration = {
        "kappa": {
            "ell": np.round(centre[filled], 1).tolist(),
            "gain": np.round(np.clip(gain, 1 / LARGEST_GAIN, LARGEST_GAIN), 4).tolist(),
        },
        **{
            name: _correction(name, corrections)(*values[name], attrs["pixel_arcmin"])
            for name in names
        },
        "regions": count,
    }
    if rate:
        calibration["radio_mean_rate"] = float(f"{rate:.5g}")
    return calibration


def _correction(name: str, corrections: str) -> Callable[..., dict]:
    """The function that fits the table of a field."""
    if corrections == "paper":
        return getattr(paper_corrections, name)
    return match_power if name == "ksz" else match_values


def _matched(weights: Weights) -> list[str]:
    """Fields whose values, or power alone for kSZ, are matched to the truth."""
    if "vaegan" in weights.networks:
        return ["ksz", "tsz", "cib", "radio"]
    return [*(["tsz"] if weights.mass_cut else []), *evaluate.cib_names(weights)]


def gain_beside(goal, made, cross=0.0, beside=0.0) -> np.ndarray:
    """Gain g of the networks' kappa for which the total with objects has the right power.

    g^2 made + 2 g cross + beside = goal, by band.
    """
    root = np.sqrt(np.maximum(cross**2 + made * (goal - beside), 0))
    return (root - cross) / made


def _opened(data: str | os.PathLike, names: tuple[str, ...], objects: bool):
    """Fields of a set, and those of its objects for networks that take them."""
    return fields_of(data, (*names, *(evaluate.OBJECTS if objects else ())), objects)


def _objects(fields, index: int) -> dict[str, np.ndarray] | None:
    """Maps of the objects of a region, as networks take them; None if there are none."""
    if not fields:
        return None
    return dict(zip(evaluate.OBJECT_MAPS, (field[index] for field in fields), strict=True))


def _inputs(
    normaliser: Normaliser, kappa: np.ndarray | torch.Tensor, objects: dict | None
) -> torch.Tensor:
    """Kappa (n, n) and the maps of objects in network units: (1, inputs, n, n)."""
    kappa = normaliser.select(["kappa"]).forward(torch.as_tensor(kappa)[None, None])
    if objects is None:
        return kappa
    maps = torch.stack([torch.from_numpy(field) for field in objects.values()])[None]
    return torch.cat([kappa, normaliser.select(evaluate.OBJECTS).forward(maps)], 1)


def _is_periodic(field) -> bool:
    """Whether regions are larger than patches, and therefore periodic ones of the painter."""
    return min(field.shape[-2:]) > PATCH


def _around(x: torch.Tensor, pad: int) -> torch.Tensor:
    """Periodic pictures (B, C, n, n), extended on all sides.

    At an edge networks would see the padding of their convolutions, which a sky does not have.
    """
    return F.pad(x, (pad, pad, pad, pad), mode="circular") if pad else x


def _noise(network, n: int, rng: torch.Generator, pad: int) -> list[torch.Tensor]:
    drawn = network.draw_noise(1, n, n, rng)
    levels = [level for level, _ in network.noise_levels]
    return [_around(z, pad >> level) for z, level in zip(drawn, levels, strict=True)]


def _inside(x: torch.Tensor, pad: int) -> torch.Tensor:
    return x[..., pad : x.shape[-2] - pad, pad : x.shape[-1] - pad]


@torch.no_grad()
def balance_velocities(
    paint: Paint,
    normaliser: Normaliser,
    data: str | os.PathLike,
    regions: int = 20,
    seed: int = 1,
) -> np.ndarray:
    """Scale the levels of the velocity field of kSZ so that its power is the truth's, in place.

    The velocity field is a sum of independent fields, one per level of the pyramid, and the
    coarsest extend past the training patches. For a given kappa the power of kSZ is then a sum over
    levels, so that the squares of the gains follow from non-negative least squares on ln-spaced
    bands of whole regions, with every band weighted by its relative error.

    Parameters
    ----------
    paint
        Trained network, changed in place.
    normaliser
        Of its fields.
    data
        Validation set.

    Returns
    -------
    gains : (levels,)
    """
    with _opened(data, ("kappa", "ksz"), bool(paint.objects)) as (fields, attrs):
        return _balance_velocities(paint, normaliser, fields, attrs, regions, seed)


def _balance_velocities(
    paint: Paint,
    normaliser: Normaliser,
    fields: Sequence[h5py.Dataset],
    attrs: Mapping,
    regions: int,
    seed: int,
) -> np.ndarray:
    """`balance_velocities` on the open fields of a set."""
    kappa, ksz, *of_objects = fields
    from scipy.optimize import nnls

    n, count = kappa.shape[-1], min(regions, len(kappa))
    pixel = math.radians(attrs["pixel_arcmin"] / 60)
    spectra = Spectra(n, attrs["pixel_arcmin"], "cpu", BINS)
    levels, split = paint.velocity_levels, len(paint.backbone.widths)
    pad = evaluate.PADDING if _is_periodic(kappa) else 0
    truth, parts = 0.0, [0.0] * levels
    for i in range(count):
        inputs = _around(_inputs(normaliser, kappa[i], _objects(of_objects, i)), pad)
        rng = torch.Generator().manual_seed(seeds.integer(seed, "network", i))
        noise = _noise(paint, n, rng, pad)
        for level in range(levels):
            alone = [z if k == level else torch.zeros_like(z) for k, z in enumerate(noise[split:])]
            with torch.autocast("cpu", torch.bfloat16):
                made = paint(inputs, [*noise[:split], *alone])[:, :1]
            made = _inside(made, pad) * normaliser.select(["ksz"]).std[0]
            parts[level] += spectra.pairs(spectra.modes(made))[0, 0].double().numpy()
        field = torch.from_numpy(ksz[i])[None, None]
        truth += spectra.pairs(spectra.modes(field))[0, 0].double().numpy()
    used = spectra.ell > 2 * 2 * np.pi / (n * pixel)  # the window mixes the first modes
    design = (np.array(parts) / truth)[:, used].T
    square, _ = nnls(design, np.ones(used.sum()))
    gains = np.sqrt(square)
    for layer, gain in zip(paint.velocity_kernels, gains, strict=True):
        layer.weight.mul_(float(gain))
    return gains


@torch.no_grad()
def balance_kernels(
    paint: Paint,
    normaliser: Normaliser,
    data: str | os.PathLike,
    convergence: Convergence | None = None,
    regions: int | None = None,
    seed: int = 1,
) -> np.ndarray:
    """Scale the kernels of tSZ so that power, correlation and tail are the truth's, in place.

    tSZ is a sum of maps, one per width of the kernels, so it is linear in their gains. Those are
    fitted to the power clipped at -40 uK, its correlation with the kappa painted on and the
    quantiles of the decrements, on whole regions. Many regions are needed, as a few clusters
    dominate the power: that of 24 regions of 8.5 degrees was 20 % off the mean of 240.

    Parameters
    ----------
    paint
        Trained network, changed in place.
    normaliser
        Of its fields.
    data
        Validation set.
    regions
        Number of regions, all by default.
    convergence
        If given, half of the regions are painted on its output for their Gaussian kappa.

    Returns
    -------
    gains : (kernels,)
    """
    with _opened(data, ("kappa", "kappa_in", "tsz"), bool(paint.objects)) as (fields, attrs):
        return _balance_kernels(paint, normaliser, fields, attrs, convergence, regions, seed)


def _balance_kernels(
    paint: Paint,
    normaliser: Normaliser,
    fields: Sequence[h5py.Dataset],
    attrs: Mapping,
    convergence: Convergence | None,
    regions: int | None,
    seed: int,
) -> np.ndarray:
    """`balance_kernels` on the open fields of a set."""
    from scipy.optimize import least_squares

    kappa, gaussian_kappa, tsz, *of_objects = fields
    n, count = kappa.shape[-1], len(kappa) if regions is None else min(regions, len(kappa))
    spectra = Spectra(n, attrs["pixel_arcmin"], "cpu", BINS)
    scale = normaliser.select(["tsz"]).scale[0]
    rank = [n * n * count - 1 - int(fraction * n * n * count) for fraction in TAIL_FRACTIONS]
    pad = evaluate.PADDING if _is_periodic(kappa) else 0
    used = (spectra.ell > KERNEL_ELL[0]) & (spectra.ell < KERNEL_ELL[1])

    def statistics(pairs) -> np.ndarray:
        """Of pairs (kappa, |tSZ|): ln power and correlation by band, ln of the quantiles."""
        sums, values = 0.0, []
        for k, y in pairs:
            both = torch.stack([k, -y.clamp(max=KERNEL_CLIP_UK)])[None]
            sums = sums + spectra.pairs(spectra.modes(both)).double().numpy()
            values.append(y.flatten())
        top = np.partition(torch.cat(values).numpy(), rank)[rank].astype(np.float64)
        (kk, ky), (_, yy) = sums[:, :, used]
        power, r, tail = KERNEL_TOLERANCES[:3]
        return np.concatenate([np.log(yy) / power, ky / np.sqrt(kk * yy) / r, np.log(top) / tail])

    truth = [(torch.from_numpy(kappa[i]), torch.from_numpy(-tsz[i])) for i in range(count)]
    goal = statistics(truth)
    parts = []
    for i in range(count):
        rng = torch.Generator().manual_seed(seeds.integer(seed, "network", i))
        objects = _objects(of_objects, i)
        inputs = _inputs(normaliser, truth[i][0], objects)
        if convergence is not None and i % 2:
            entered = _around(_inputs(normaliser, gaussian_kappa[i], objects), pad)
            noise = _noise(convergence, n, rng, pad)
            with torch.autocast("cpu", torch.bfloat16):
                grown = _inside(convergence(entered, noise), pad).float()
            inputs = torch.cat([grown, inputs[:, 1:]], 1)
        noise = _noise(paint, n, rng, pad)
        with torch.autocast("cpu", torch.bfloat16):
            of_kernels = _inside(paint.tsz_parts(_around(inputs, pad), noise), pad)[0]
        physical = normaliser.select(["kappa"]).inverse(inputs[:, :1])[0, 0]
        parts.append((physical, of_kernels.float() * scale))

    def miss(log_gain):
        gain = torch.from_numpy(np.exp(log_gain)).float()[:, None, None]
        made = statistics((k, (gain * y).sum(0)) for k, y in parts)
        return np.concatenate([made - goal, log_gain / KERNEL_TOLERANCES[3]])

    # near 1, because the steps of the derivatives are relative
    ones = np.ones(len(paint.kernel_widths))
    log_gain = least_squares(lambda x: miss(x - 1), ones, diff_step=0.02, max_nfev=12).x - 1
    paint.backbone.head.bias[paint.velocities : paint.velocities + len(log_gain)] += (
        torch.from_numpy(log_gain)
    )
    return np.exp(log_gain)
