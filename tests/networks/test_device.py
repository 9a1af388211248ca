"""Devices and number formats, on processors of other kinds too."""

from __future__ import annotations

import pytest
import torch

from mlsky.networks.device import pick_device, pick_precision

CPU = torch.device("cpu")


@pytest.fixture
def processor(monkeypatch):
    """Tells torch what processor it runs on."""
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)

    def of(capability: str, **has: bool) -> None:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)

    return of


X86 = {"architecture": "x86_64"}


@pytest.mark.parametrize(
    ("capability", "has", "expected"),
    [
        ("AVX2", {**X86, "avx2": True}, "fp32"),  # AMD Milan
        ("AVX512", {**X86, "avx512_f": True, "avx512_bf16": False}, "fp32"),  # Intel Skylake
        ("AVX512", {**X86, "avx512_bf16": True}, "bf16"),  # AMD Genoa
        ("AVX512", {**X86, "avx512_bf16": True, "amx_bf16": True}, "bf16"),
        ("AVX2", {**X86, "avx512_bf16": True}, "fp32"),  # ATEN_CPU_CAPABILITY=avx2
        ("DEFAULT", {"architecture": "aarch64", "bf16": True}, "bf16"),
        ("DEFAULT", {"architecture": "aarch64"}, "fp32"),
    ],
)
def test_bfloat16_where_the_processor_has_it(processor, capability, has, expected):
    processor(capability, **has)
    assert pick_precision("bf16", CPU) == expected
    assert pick_precision("fp32", CPU) == "fp32"
    assert pick_precision("bf16", torch.device("cuda")) == "bf16"


@pytest.mark.parametrize(
    ("isa", "expected"),
    [
        ("AVX2", "fp32"),
        ("avx512_core", "fp32"),
        ("AVX512_CORE_VNNI", "fp32"),
        ("AVX512_CORE_BF16", "bf16"),
        ("AVX512_CORE_AMX", "bf16"),
        ("default", "bf16"),
    ],
)
def test_onednn_may_be_kept_from_bfloat16(processor, monkeypatch, isa, expected):
    processor("AVX512", **X86, avx512_bf16=True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    assert pick_precision("bf16", CPU) == expected


def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match=r"device='gpu': must be auto, cpu or cuda"):
        pick_device("gpu")
