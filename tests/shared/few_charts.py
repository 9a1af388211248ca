"""A sky of a few charts, as another process paints it too."""

from __future__ import annotations

import contextlib
from unittest import mock

import numpy as np

from mlsky.painting import foregrounds
from mlsky.sphere.geometry import Healpix


@contextlib.contextmanager
def every_charts(step: int):
    """Paint one chart of `step` only: the others stay empty."""
    each = foregrounds._each
    some = lambda paint, every, on_cpu: each(paint, every[::step], on_cpu)  # noqa: E731
    with mock.patch.object(foregrounds, "_each", some):
        yield


def on_a_machine(start, weight_file, precision="fp32"):
    """Maps and sources of every twelfth chart, as plain arrays."""
    weights = foregrounds.select(str(weight_file), Healpix(64))
    with every_charts(12):
        made = foregrounds.generate(
            start, Healpix(64), weights=weights, seed=3, device="cpu", precision=precision
        )
    sources = {name: np.asarray(made.catalogue[name]) for name in made.catalogue.colnames}
    instructions = foregrounds.made_with(weights)["instructions"]
    return {"kappa": made.kappa, **made.maps, **sources, "instructions": instructions}
