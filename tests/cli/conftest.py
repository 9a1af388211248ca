"""Fixtures of the command line."""

from __future__ import annotations

import fakes
import pytest


@pytest.fixture
def record(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return fakes.install(monkeypatch)


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry of one good file and one altered one."""
    import hashlib

    folder = tmp_path / "registry"
    (folder / "weights").mkdir(parents=True)
    good = b"good weights"
    (folder / "weights" / "good.safetensors").write_bytes(good)
    digest = hashlib.sha256(good).hexdigest()
    text = "".join(
        f"{name}:\n  kind: default\n  default: {str(name == 'good').lower()}\n  versions:\n"
        f"    v1:\n      files:\n        - file: {name}.safetensors\n          sha256: {digest}\n"
        f"          bytes: {len(good)}\n          pixel_arcmin: 2.0\n          urls: []\n"
        "      licence: CC-BY-4.0\n      cite: []\n      inputs: [kappa]\n"
        "      outputs: [tsz]\n      recipe: {}\n      data: {}\n      scores: {}\n"
        for name in ("good", "other")
    )
    (folder / "registry.yaml").write_text(text)
    monkeypatch.setenv("MLSKY_REGISTRY", str(folder / "registry.yaml"))
    monkeypatch.chdir(tmp_path)
    return folder
