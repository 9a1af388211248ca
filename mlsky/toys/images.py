"""Images that training makes or holds itself: blobs by seed, small sets in memory.

They stand where a set in HDF5 stands (`mlsky.training.data.Crops`): names, size, batches by number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mlsky import seeds
from mlsky.errors import MissingDependencyError
from mlsky.networks.normaliser import Normaliser
from mlsky.toys import blobs

__all__ = ["Blobs", "Pictures", "digits", "named", "photographs"]

#: Side of a patch of a photograph, and distance of neighbouring ones (pixels), our choice.
PATCH, STRIDE = 32, 8
#: Luma of red, green and blue: ITU-R BT.601-7, sect. 2.5.1.
LUMA = (0.299, 0.587, 0.114)


class Blobs:
    """Images of `mlsky.toys.blobs`, none of which comes twice.

    Parameters
    ----------
    kind
        1, 10, 50, 1000 or a `mlsky.toys.blobs.Blobs`.
    pixel_arcmin
        Pixel size that goes with them; they have none of their own.
    seed
        Of the images; batch number i of a seed is always the same.
    """

    names = ("blobs",)
    patches = math.inf
    #: As they are: blobs of height one need no other unit.
    normaliser = Normaliser(("blobs",), (None,), (0.0,), (1.0,))

    def __init__(self, kind: blobs.Blobs | int, pixel_arcmin: float = 0.5, seed: int = 0) -> None:
        self.kind, self.seed = blobs.kind(kind), seeds.check(seed)
        self.size = self.kind.size
        self.attrs = {"pixel_arcmin": pixel_arcmin, "seed": self.seed}

    def batch(self, step: int, batch_size: int) -> torch.Tensor:
        """Batch number `step`: (batch_size, 1, size, size) float32."""
        return torch.from_numpy(
            blobs.sample(self.kind, batch_size, self.seed, first=step * batch_size)
        )


class Pictures:
    """A set of pictures in memory, drawn at random and neither turned nor flipped.

    Parameters
    ----------
    images
        (n, C, size, size).
    names
        Of the C channels.
    pixel_arcmin
        Pixel size that goes with them.
    seed
        Of the batches.

    Raises
    ------
    ValueError
        If the images are not square, not finite, or all alike.
    """

    def __init__(
        self, images: NDArray, names: Sequence[str], pixel_arcmin: float = 0.5, seed: int = 0
    ) -> None:
        images = np.asarray(images, np.float32)
        if images.ndim != 4 or images.shape[2] != images.shape[3] or images.shape[1] != len(names):
            raise ValueError(
                f"images of shape {images.shape}: must be (n, {len(names)}, size, size)"
            )
        if not np.isfinite(images).all():
            raise ValueError("images hold NaN or infinity: mask or mend them first")
        std = images.std((0, 2, 3), dtype=np.float64)
        if not (std > 0).all():
            raise ValueError(f"images of {names[int(std.argmin())]} are constant: nothing to learn")
        self.images, self.names, self.size = images, tuple(names), images.shape[-1]
        self.seed, self.patches = seeds.check(seed), len(images)
        self.attrs = {"pixel_arcmin": pixel_arcmin, "seed": self.seed}
        mean = images.mean((0, 2, 3), dtype=np.float64)
        self.normaliser = Normaliser(self.names, (None,) * len(std), tuple(mean), tuple(std))

    def batch(self, step: int, batch_size: int) -> torch.Tensor:
        """Batch number `step`: (batch_size, C, size, size) float32, in their own units."""
        rng = seeds.generator(self.seed, "training", step)
        return torch.from_numpy(self.images[rng.integers(len(self.images), size=batch_size)])


def digits(pixel_arcmin: float = 0.5, seed: int = 0) -> Pictures:
    """The 1797 handwritten digits of 8 x 8 pixels that scikit-learn ships, 0 to 16.

    Raises
    ------
    MissingDependencyError
        If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingDependencyError(
            "scikit-learn is needed for its digits: pip install scikit-learn"
        ) from None
    return Pictures(load_digits().images[:, None], ("digits",), pixel_arcmin, seed)


def photographs(pixel_arcmin: float = 0.5, seed: int = 0) -> Pictures:
    """Patches of 32 x 32 pixels of the two photographs that scikit-learn ships, grey, 0 to 1.

    They are every eighth pixel apart and overlap: 7700 patches, of which 520 are disjoint. The
    photographs, a temple and a flower, are by danielbuechele and vultilion (CC BY 2.0).

    Raises
    ------
    MissingDependencyError
        If scikit-learn, or Pillow that reads its photographs, is not installed.
    """
    try:
        from sklearn.datasets import load_sample_images

        pictures = load_sample_images().images
    except ImportError:
        raise MissingDependencyError(
            "scikit-learn and Pillow are needed for photographs: pip install scikit-learn pillow"
        ) from None
    cut = np.lib.stride_tricks.sliding_window_view
    patches = [
        cut(np.float32(picture @ np.array(LUMA) / 255), (PATCH, PATCH))[::STRIDE, ::STRIDE]
        for picture in pictures
    ]
    stack = np.concatenate([p.reshape(-1, 1, PATCH, PATCH) for p in patches])
    return Pictures(stack, ("photographs",), pixel_arcmin, seed)


#: Sets of pictures by name.
PICTURES = {"digits": digits, "photographs": photographs}


def named(name: str, pixel_arcmin: float, seed: int) -> Blobs | Pictures:
    """Images by the name that a recipe gives them: "blobs-10", "digits" or "photographs".

    Raises
    ------
    ValueError
        If there are none of that name.
    """
    if name in PICTURES:
        return PICTURES[name](pixel_arcmin, seed)
    kind, _, count = name.partition("-")
    if kind != "blobs" or not count.isdigit():
        known = ", ".join([*(f"blobs-{n}" for n in blobs.BLOBS), *PICTURES])
        raise ValueError(f"images={name!r}: must be one of {known}")
    return Blobs(int(count), pixel_arcmin, seed)
