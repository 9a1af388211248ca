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
evaluate, staged
    Networks over large pictures, on the pixels that are wanted.
device
    Where they run.
"""
