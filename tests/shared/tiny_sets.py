"""Sets of a few small regions for the command line."""

from __future__ import annotations

import numpy as np

from mlsky import seeds


def tiny_set(path, pixel_arcmin=0.5, n=64, leave_out=(), seed=1):
    import h5py

    rng = seeds.generator(seed, "truth")
    mass = np.exp(rng.standard_normal((2, n, n))).astype(np.float32)
    fields = {"kappa": 0.05 * mass, "kappa_in": 0.05 * mass, "tsz": -3 * mass, "cib": 10 * mass}
    fields |= {"ksz": mass - 1.5, "radio": 30 * np.maximum(mass - 6, 0)}
    with h5py.File(path, "w") as file:
        file.attrs["pixel_arcmin"] = pixel_arcmin
        for name in set(fields) - set(leave_out):
            file[name] = fields[name]
