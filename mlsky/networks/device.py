"""Device and number format of the networks."""

from __future__ import annotations

import os

import torch

__all__ = ["pick_device", "pick_precision"]

#: Instructions for products of bfloat16 numbers. Without them oneDNN emulates such convolutions,
#: two to fifteen times slower than float32.
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
#: Values of ``ONEDNN_MAX_CPU_ISA`` that allow them (oneDNN, "CPU Dispatcher Control").
ONEDNN_BFLOAT16 = ("ALL", "DEFAULT", "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512")


def pick_device(device: str) -> torch.device:
    """A device by name; "auto" uses CUDA if there is one.

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


def pick_precision(trained: str, device: torch.device) -> str:
    """Number format of convolutions: that of training, unless the processor only emulates it.

    Parameters
    ----------
    trained
        "bf16" or "fp32".
    device
        Where the networks run.

    Returns
    -------
    precision
        "bf16" or "fp32".
    """
    if trained != "bf16" or device.type != "cpu" or _multiplies_bfloat16():
        return trained
    return "fp32"


def _multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16, and torch and oneDNN may use them."""
    wanted = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    if not (wanted in ONEDNN_BFLOAT16 or "AMX" in wanted):
        return False
    has = torch.cpu.get_capabilities()
    if (
        has.get("architecture") == "x86_64"
        and "AVX512" not in torch.backends.cpu.get_cpu_capability()
    ):
        return False  # ATEN_CPU_CAPABILITY leaves them out
    return any(has.get(name, False) for name in BFLOAT16)
