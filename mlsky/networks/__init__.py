"""Networks, their normaliser and their weight files; needs only torch, numpy and safetensors.

Modules
-------
han2021
    The networks of Han et al. (2021): critic, DCGAN, PIXGAN, VAEGAN.
default
    The family `mlsky.simulate` uses.
normaliser
    Fields to network units and back (exactly).
weights
    Weight files: safetensors with a JSON header.
unconditional
    Networks of random numbers alone; `sample` draws images from any of them.
vae
    Variational autoencoders.
"""

from __future__ import annotations

__all__ = ["sample"]


def __getattr__(name: str):
    if name == "sample":  # loads torch
        from mlsky.networks.unconditional import sample

        return sample
    raise AttributeError(f"module 'mlsky.networks' has no attribute {name!r}")
