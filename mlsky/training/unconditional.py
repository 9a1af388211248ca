"""Runs of networks that take random numbers alone: their images, weight files, latents."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mlsky import registry
from mlsky.networks.normaliser import Normaliser
from mlsky.networks.weights import Weights, network_header, open_weights
from mlsky.toys import blobs, images
from mlsky.toys.vae import Decoder, Encoder, Latents, draw_like, latents
from mlsky.training.checkpoints import CHECKPOINT, part, read_checkpoint
from mlsky.training.data import Crops
from mlsky.training.export import export
from mlsky.training.run import load_generator, normalise

__all__ = ["autoencoder", "blobs_of", "codes", "opened", "to_file", "truth"]

#: Name of the network in a weight file.
NAME = "images"
BATCH = 64  # images encoded at once
LEAST = 16  # patches of a set that others are compared with


def opened(source: str | os.PathLike) -> Weights:
    """Networks of a run folder, a weight file, or a name in the registry.

    Raises
    ------
    ValueError
        If it is the run of a network that takes fields.
    RegistryError
        If it is neither a folder nor weights that can be read.
    """
    path = Path(source)
    if not path.is_dir():
        known = path.suffix == ".safetensors"
        return open_weights(path if known else registry.fetch(str(source))[0])
    module, normaliser, state = load_generator(path)
    recipe = state["recipe"]
    if recipe["inputs"]:
        raise ValueError(
            f"{path}: {recipe['name']} makes its fields of {', '.join(recipe['inputs'])} and is "
            "scored by mlsky validate"
        )
    entry = network_header(module, (), recipe["outputs"])
    training = {"steps": state["step"], "seconds": round(state["seconds"]), "seed": state["seed"]}
    header = {
        "networks": {NAME: entry},
        "normaliser": normaliser.to_dict(),
        "pixel_arcmin": recipe["pixel_arcmin"],
        "recipe": {NAME: recipe},
        "training": {NAME: training},
    }
    return Weights({NAME: module}, header, path, "")


def to_file(
    folder: str | os.PathLike,
    path: str | os.PathLike,
    device: str = "unknown",
    like: NDArray[np.float32] | None = None,
) -> str:
    """Write the averaged generator of a run as a weight file, and return its sha256.

    `mlsky.toys.unconditional.sample` draws from it. Parameters and errors are those of
    `mlsky.training.export.export`.

    Parameters
    ----------
    like
        Of an autoencoder, images in their own units whose codes draws are made like
        (`mlsky.toys.vae.draw_like`).
    """
    opened(folder)  # refuses runs of other networks
    adjust = None
    if like is not None:
        encoder, _, normaliser = autoencoder(folder)
        outputs = _encoded(encoder, normaliser, like)
        adjust = {NAME: lambda decoder, _: draw_like(decoder, *outputs)}
    return export(path, {NAME: folder}, data={}, device=device, which="last", adjust=adjust)


def blobs_of(weights: Weights) -> blobs.Blobs | None:
    """The set of blobs that a network was trained on, if it was one."""
    name = _recipe(weights).get("images") or ""
    kind, _, count = name.partition("-")
    return blobs.kind(int(count)) if kind == "blobs" else None


def _recipe(weights: Weights) -> dict:
    return next(iter(weights.header.get("recipe", {}).values()), {})


def truth(
    weights: Weights, n: int, seed: int, data: str | os.PathLike | None = None
) -> NDArray[np.float32]:
    """True images (n, C, size, size) such as a network was trained on, in their own units.

    Parameters
    ----------
    weights
        As `opened` gives them.
    n, seed
        Number of images, and their seed; not that of the training.
    data
        The set, of a network that was trained on one.

    Raises
    ------
    ValueError
        If a set is needed and not given, or given and not needed; if it has other pixels or too
        few patches.
    """
    recipe = _recipe(weights)
    name, pixel = recipe.get("images"), weights.pixel_arcmin
    if (name is None) == (data is None):
        raise ValueError(
            f"data={data}: {recipe.get('name', weights.path.name)} was trained on "
            f"{'a set; name one' if name is None else name + '; leave it out'}"
        )
    if name is not None:
        return images.named(name, pixel, seed).batch(0, n).numpy()
    crops = Crops(data, tuple(recipe["outputs"]), recipe["size"], seed)
    if crops.attrs["pixel_arcmin"] != pixel:
        raise ValueError(
            f"{data}: pixels of {crops.attrs['pixel_arcmin']}', {recipe['name']} was trained on "
            f"{pixel}'; give a set of the same"
        )
    if crops.patches < LEAST:
        raise ValueError(
            f"{data}: {crops.patches} patches of {recipe['size']} pixels; a comparison needs at "
            f"least {LEAST}, cut or paint more"
        )
    return crops.batch(0, n).numpy()


def autoencoder(folder: str | os.PathLike) -> tuple[Encoder, Decoder, Normaliser]:
    """Both halves of a trained variational autoencoder, and the normaliser of its images.

    Raises
    ------
    ValueError
        If the run is of something else.
    """
    decoder, normaliser, state = load_generator(folder)
    if not isinstance(decoder, Decoder):
        raise ValueError(f"{folder}: {state['recipe']['name']} is no autoencoder")
    tensors, _ = read_checkpoint(Path(folder) / CHECKPOINT)
    shared = ("channels", "size", "latent", "width")
    encoder = Encoder(**{k: decoder.kwargs[k] for k in shared})
    encoder.load_state_dict(part(tensors, "critic"))
    return encoder.eval().requires_grad_(False), decoder, normaliser


def codes(
    encoder: Encoder, normaliser: Normaliser, maps: NDArray[np.float32]
) -> tuple[NDArray[np.float32], Latents]:
    """Means (N, latent) of the codes of images in their own units, and which latents say something.

    Raises
    ------
    ValueError
        If the images are not those of the encoder, or fewer than two.
    """
    mean, log_variance = _encoded(encoder, normaliser, maps)
    return mean, latents(mean, log_variance)


def _encoded(encoder: Encoder, normaliser: Normaliser, maps) -> tuple[NDArray, NDArray]:
    x = normalise(torch.from_numpy(np.asarray(maps, np.float32)), normaliser.channels, normaliser)
    with torch.no_grad():
        parts = [encoder(part) for part in x.split(BATCH)]
    mean, log_variance = (torch.cat(p).numpy() for p in zip(*parts, strict=True))
    return mean, log_variance
