"""Hundreds of correlated, non-Gaussian mock microwave skies.

>>> import mlsky
>>> sky = mlsky.simulate(freqs=[93, 145, 225], nside=1024, seed=1)  # doctest: +SKIP

The public names are loaded when first used, so that ``import mlsky`` stays light:
training and the sky painter need only torch, numpy, h5py and safetensors.
"""

from __future__ import annotations

import importlib

from mlsky._version import __version__
from mlsky.errors import MissingDependencyError, MlskyError, RegistryError

_LAZY = {
    "Band": "mlsky.frequency.passbands",
    "Sky": "mlsky.sky",
    "ensemble": "mlsky.ensembles",
    "simulate": "mlsky.simulation",
}

__all__ = [
    "Band",
    "MissingDependencyError",
    "MlskyError",
    "RegistryError",
    "Sky",
    "__version__",
    "ensemble",
    "simulate",
]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    try:
        return importlib.import_module(f"mlsky.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"mlsky.{name}":
            raise
        raise AttributeError(f"module 'mlsky' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
