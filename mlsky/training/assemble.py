"""From trained runs to one calibrated weight file, with everything that is fitted in addition.

The rate of radio sources is fitted to the training set. The balance of kSZ, whose kernels are then
made isotropic, the balance of tSZ, and the calibration are fitted to validation truth. For painted
truth, the infrared sources above the flux cut and the split of CIB pixels follow.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import h5py

from mlsky.components import REFERENCE_GHZ
from mlsky.haloes.region import FIELDS
from mlsky.io.sets import attributes_of, file_hash, painted_seed
from mlsky.networks import tiles
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.weights import Weights, open_weights
from mlsky.painting import finer
from mlsky.training import calibrate, isotropy
from mlsky.training.export import export
from mlsky.training.point_sources import dsfg_tail, fit_point_sources
from mlsky.training.run import load_generator, state_of
from mlsky.training.selection import check_apart

__all__ = ["assemble"]

NAMES = ("convergence", "paint", "point_sources")
CHAIN = ("pixgan", "vaegan")  # of the paper
CHAIN_OVERLAP = 20  # pixels of its tiles, as the paper's
FLOW_ON = 20  # regions: the power of kSZ is not dominated by single clusters
SPLIT_ARCMIN, SPLIT_REGIONS = (
    1.0,
    16,
)  # pixel size of networks whose CIB is split, and regions to fit the split
DSFG_REGIONS = 20  # regions of the training set, painted again for their brightest sources


def assemble(
    out: str | os.PathLike,
    parts: Mapping[str, str | os.PathLike],
    data: str | os.PathLike,
    validation: str | os.PathLike | None = None,
    *,
    device: str = "unknown",
    which: str | Mapping[str, str] = "best",
    regions: int | None = None,
    point_steps: int = 600,
    seed: int = 1,
    corrections: str = calibrate.CORRECTIONS[0],
) -> dict:
    """Write a calibrated weight file of the default family, or one of the paper's chain.

    Parameters
    ----------
    out
        File to write.
    parts
        Run folder of "paint", and run folder or weight file of "convergence": the network of a file
        is copied. "point_sources" is fitted unless a weight file is given.
    data
        What was trained on.
    validation
        Validation set. kSZ is balanced if its regions are larger than the training patches.
        Without ``kappa_in``, as sets cut from maps, it calibrates nothing, and the calibration
        of kappa is that of the file of "convergence". Without a set the paper's chain is not
        corrected.
    device
        Description of the machine of the runs.
    which
        State of the runs, "best" or "last"; or either of them by name, "best" for the others.
    regions
        Of the validation set, all by default.
    point_steps
        Of the fit of radio sources.
    seed
        Of the networks' noise in all fits.
    corrections
        Of the paper's chain, as in `mlsky.training.calibrate.fit_calibration`.

    Returns
    -------
    dict
        ``sha256``, ``calibration``, and the ``point_sources`` report if they were fitted.

    Raises
    ------
    ValueError
        If a part is missing, unknown, or of other pixels or another normaliser than the rest; if
        a set cannot be used.
    """
    if {*parts} == {*CHAIN}:
        runs = {name: Path(parts[name]) for name in CHAIN}
        of = (data, validation, device, which, regions, seed, corrections)
        return _assemble_chain(out, runs, *of)
    if corrections != calibrate.CORRECTIONS[0]:
        raise ValueError(f"corrections={corrections!r}: the default family has 'matched' alone")
    runs, taken = _sort(parts)
    if validation is None:
        raise ValueError(
            "validation=None: the default family is calibrated on a set; name its file"
        )
    paint, normaliser, state = load_generator(runs["paint"], state_of(which, "paint", runs))
    for name, weights in taken.items():
        _check_alike(name, weights, normaliser, state["recipe"]["pixel_arcmin"])
    extra = {
        name: (w[name], *(w.header["networks"][name][k] for k in ("inputs", "outputs")))
        for name, w in taken.items()
    }
    apart = bool(paint.objects)
    attrs = attributes_of(validation, ("kappa", "ksz", "tsz", "cib"), apart)
    check_apart(validation, attrs, data)
    with h5py.File(validation, "r") as file:
        whole = "kappa_in" in file
        wide = file["ksz"].shape[-1] > state["recipe"]["size"]
    found: dict = {}
    if "point_sources" not in taken:
        points, found["point_sources"] = fit_point_sources(data, normaliser, point_steps, seed)
        extra["point_sources"] = (points, list(points.INPUTS), ["log_rate"])
    balance = {}
    if wide:  # patches do not constrain the coarse levels better than training
        count = FLOW_ON if regions is None else min(regions, FLOW_ON)
        balance["velocity_kernel_gains"] = calibrate.balance_velocities(
            paint, normaliser, validation, count, seed
        )
    isotropy.make_isotropic(paint)
    if whole:
        convergence = (
            taken["convergence"]["convergence"]
            if "convergence" in taken
            else load_generator(runs["convergence"], state_of(which, "convergence", runs))[0]
        )
        balance["kernel_gains"] = calibrate.balance_kernels(
            paint, normaliser, validation, convergence, regions, seed
        )
    calibration = {k: [round(float(g), 4) for g in gains] for k, gains in balance.items()}
    header: dict = {"sources": _sources(data, state["recipe"]["pixel_arcmin"])}
    header |= _part_painted(data, attrs, normaliser, apart)
    if taken:
        header["taken_from"] = {
            n: {"file": w.path.name, "sha256": w.sha256} for n, w in taken.items()
        }
    options = {
        "data": {"train": file_hash(data), "validation": file_hash(validation)},
        "device": device,
        "extra": extra,
        # a run is loaded again for every file, and balanced in the same way
        "adjust": {"paint": lambda module, _: module.load_state_dict(paint.state_dict())},
        "which": which,
        **header,
    }
    if apart and state["recipe"]["pixel_arcmin"] <= SPLIT_ARCMIN:
        calibration |= _split(data, state["recipe"]["pixel_arcmin"])
    if whole:
        with tempfile.TemporaryDirectory(dir=Path(out).parent) as beside:
            bare = Path(beside) / Path(out).name
            export(bare, runs, calibration=calibration, **options)
            weights = open_weights(bare)
        calibration |= calibrate.fit_calibration(weights, validation, regions, seed)
    elif "convergence" in taken:
        old = taken["convergence"].header.get("calibration", {})
        calibration |= {k: old[k] for k in ("kappa",) if k in old}
    found["sha256"] = export(out, runs, calibration=calibration, **options)
    found["calibration"] = calibration
    return found


def _assemble_chain(
    out: str | os.PathLike,
    runs: Mapping[str, Path],
    data: str | os.PathLike,
    validation: str | os.PathLike | None,
    device: str,
    which: str | Mapping[str, str],
    regions: int | None,
    seed: int,
    corrections: str,
) -> dict:
    """`assemble` for PIXGAN and VAEGAN."""
    hashes = {"train": file_hash(data)}
    if validation is not None:
        attrs = attributes_of(validation, ("kappa_in", "ksz", "tsz", "cib", "radio"), False)
        check_apart(validation, attrs, data)
        hashes["validation"] = file_hash(validation)
    noise = load_generator(runs["pixgan"], state_of(which, "pixgan", runs))[0].noise_levels
    options = {
        "device": device,
        "which": which,
        "data": hashes,
        "overlap": tiles.LARGEST_OVERLAP if noise else CHAIN_OVERLAP,
    }
    if validation is None:
        return {"sha256": export(out, runs, **options)}
    with tempfile.TemporaryDirectory(dir=Path(out).parent) as beside:
        bare = Path(beside) / Path(out).name
        export(bare, runs, **options)
        weights = open_weights(bare)
    fitted = calibrate.fit_calibration(weights, validation, regions, seed, corrections)
    calibration = fitted | {"corrections": corrections}
    sha256 = export(out, runs, calibration=calibration, **options)
    return {"sha256": sha256, "calibration": calibration}


def _sort(parts: Mapping[str, str | os.PathLike]) -> tuple[dict[str, Path], dict[str, Weights]]:
    """Run folders, and weight files, by the name of the network."""
    unknown = [name for name in parts if name not in NAMES]
    missing = [name for name in NAMES[:2] if name not in parts]
    if unknown or missing:
        raise ValueError(
            f"parts={', '.join(parts)}: must be convergence, paint and, to keep one, "
            "point_sources; or pixgan and vaegan"
        )
    folders = {n: Path(parts[n]) for n in NAMES if n in parts and Path(parts[n]).is_dir()}
    if "paint" not in folders or "point_sources" in folders:
        raise ValueError(
            f"parts={', '.join(f'{k}={v}' for k, v in parts.items())}: paint must be a run folder, "
            "point_sources a weight file"
        )
    files = {n: open_weights(parts[n]) for n in NAMES if n in parts and n not in folders}
    return folders, files


def _check_alike(name: str, weights: Weights, normaliser: Normaliser, pixel: float) -> None:
    weights[name]  # the check
    shared = [c for c in ("kappa",) if c in weights.normaliser.channels]
    if name == "point_sources":
        shared = ["kappa", "tsz", "cib"]
    if weights.pixel_arcmin != pixel or weights.normaliser.select(shared) != normaliser.select(
        shared
    ):
        raise ValueError(
            f"{name}={weights.path}: has other pixels or another normaliser than the run that "
            "paints; train that with init_from= this file and its normaliser"
        )


def _sources(data: str | os.PathLike, pixel_arcmin: float) -> dict:
    """Infrared sources above the flux cut, from painted truth."""
    with h5py.File(data, "r") as file:
        seed, n = painted_seed(file.attrs), file["kappa"].shape[-1]
        count = min(DSFG_REGIONS, len(file["kappa"]))
        objects = file.attrs.get("mass_cut")
    if seed is None:
        return {}
    from mlsky.haloes.painter import Painter

    return {"dsfg": dsfg_tail(Painter(pixel_arcmin, n, objects=objects), count, seed)}


def _split(data: str | os.PathLike, pixel_arcmin: float) -> dict:
    """The split of CIB pixels into ones half as large, from truth painted on those."""
    with h5py.File(data, "r") as file:
        seed, n, objects = painted_seed(file.attrs), file["kappa"].shape[-1], file.attrs["mass_cut"]
    if seed is None:
        return {}
    from mlsky.haloes.painter import Painter

    painter = Painter(pixel_arcmin / 2, n, objects=objects)
    cib = FIELDS.index("cib")
    maps = (painter.region(seed, i).maps[cib] for i in range(SPLIT_REGIONS))
    return {"split": finer.fit_split([m.cpu().numpy() for m in maps])}


def _part_painted(
    data: str | os.PathLike, validation: Mapping, normaliser: Normaliser, apart: bool
) -> dict:
    """Header entries on the painted part and the templates of the CIB."""
    out: dict = {}
    with h5py.File(data, "r") as file:
        mass_cut, source = file.attrs.get("mass_cut"), json.loads(file.attrs.get("source", "{}"))
    if "preset" in source:
        out["truth"] = {name: source[name] for name in ("preset", "parameters")}
    if apart:
        if mass_cut != validation.get("mass_cut"):
            raise ValueError(
                f"objects above {mass_cut:g} Msun in the set trained on, above "
                f"{validation.get('mass_cut', math.nan):g} in that of validation; paint both alike"
            )
        out |= {"part": "rest", "mass_cut": float(mass_cut)}
    further = [c for c in normaliser.channels if c.startswith("cib_")]
    if further:
        ghz = [REFERENCE_GHZ, *(float(name.removeprefix("cib_")) for name in further)]
        out["cib_templates"] = {"ghz": ghz, "preset": source["preset"]}
    return out
