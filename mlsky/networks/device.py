"""Where networks run: CPU or CUDA."""

from __future__ import annotations

import torch

__all__ = ["pick_device"]


def pick_device(device: str) -> torch.device:
    """The device asked for; "auto" takes CUDA where there is one.

    Raises
    ------
    ValueError
        If the device is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device={device!r}: must be auto, cpu or cuda") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device!r}: no CUDA device is here; use device='cpu'")
    return found
