"""Examples: each runs in miniature, has a page in the gallery, and that page a picture."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

import fakes
import pytest
import torch
from stub_painter import StubPainter

from mlsky.training.loop import train

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LARGEST = 150_000  # bytes of a picture
#: What makes an example small, by the names of its constants.
SMALL: dict[str, dict] = {
    "autoencoder_digits": {"STEPS": 2, "DRAWS": 32},
    "autoencoder_or_gan": {"IMAGES": 16, "REGIONS": 2, "SIDE": 128},
    "autoencoder_traversal": {"CELLS": 2, "DRAWS": 8, "MOST": 2},
    "autoencoder_training": {
        "RUNS": {"vae-digits": ((0, 1, 2), 4)},
        "IMAGES": 32,
        "CELLS": 2,
    },
    "blobs_generated": {"IMAGES": 16},
    "blobs_peaks": {"IMAGES": 16},
    "simulated_sky": {"NSIDE": 32},
    "sky_statistics": {"REGIONS": 7, "SIDE": 128},
    "tsz_cib": {"REGIONS": 2, "SIDE": 128},
}


class Painter(StubPainter):
    """With the arguments of the true one, and the CIB of other frequencies."""

    def __init__(self, pixel_arcmin: float, n: int, freqs=()) -> None:
        super().__init__(n, pixel_arcmin)
        self.freqs = freqs

    def region(self, seed: int, index: int) -> SimpleNamespace:
        maps = super().region(seed, index).maps
        return SimpleNamespace(maps=maps, cib=torch.stack([maps[4]] * max(1, len(self.freqs))))


@pytest.fixture
def small(monkeypatch):
    """Loads an example and makes it small."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for constant, value in SMALL.get(name, {}).items():
            monkeypatch.setattr(module, constant, value)
        if hasattr(module, "Painter"):
            monkeypatch.setattr(module, "Painter", Painter)
        return module

    return load


@pytest.fixture
def tiny_run(monkeypatch, tmp_path):
    """The folder of a run of two steps."""
    train(
        fakes.small_blobs(monkeypatch),
        None,
        tmp_path / "run",
        steps=2,
        device="cpu",
        progress=False,
    )
    return tmp_path / "run"


def _logs(folder: Path) -> list[Path]:
    for name, ratio in (("cold", 2.0), ("warm", 1.1)):
        (folder / name).mkdir()
        lines = [{"step": s, "ratio": {"blobs": [ratio] * 3}} for s in (25, 50)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / name / "log.jsonl").write_text(text)
    return [folder / "cold", folder / "warm"]


@pytest.mark.parametrize(
    "name", [e.stem for e in EXAMPLES if e.stem not in ("blobs_generated", "blobs_transfer")]
)
def test_examples_run(small, name, tmp_path, monkeypatch, capsys):
    if name in ("autoencoder_digits", "autoencoder_training"):
        pytest.importorskip("sklearn")
    if name == "simulated_sky":
        fakes.install(monkeypatch)
    small(name).main(str(tmp_path / "out.png"))
    assert (tmp_path / "out.png").stat().st_size > 5000
    printed = capsys.readouterr().out
    assert printed or name == "autoencoder_traversal"


def test_generated_blobs(small, tiny_run, tmp_path, capsys):
    small("blobs_generated").main(str(tiny_run), str(tmp_path / "out.png"))
    assert (tmp_path / "out.png").stat().st_size > 5000
    assert "images with one blob" in capsys.readouterr().out


def test_transfer(small, tmp_path, capsys):
    small("blobs_transfer").main(str(tmp_path / "out.png"), *_logs(tmp_path))
    assert (tmp_path / "out.png").stat().st_size > 5000
    assert "warm: power within a factor of 1.25 after 25 steps" in capsys.readouterr().out


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_has_a_page(example):
    gallery = ROOT / "docs" / "gallery"
    page = (gallery / f"{example.stem}.rst").read_text(encoding="utf-8")
    assert f"python examples/{example.name}" in page
    index = (gallery / "index.rst").read_text(encoding="utf-8")
    assert index.count(example.stem) >= 2  # in the table, and in the toctree
    pictures = re.findall(r"^\.\. image:: (\S+)$", page, re.MULTILINE)
    assert pictures
    for picture in pictures:
        path = (gallery / picture).resolve()
        assert path.is_file()
        assert path.stat().st_size < LARGEST
