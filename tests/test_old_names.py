"""Files of earlier versions under today's names."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mlsky import old_names, registry
from mlsky.networks import weights
from mlsky.networks.default import Convergence, Paint
from mlsky.training import checkpoints

DATA = Path(registry.__file__).parents[1] / "data"
FILES = sorted((DATA / "weights").glob("*-v[1-9].safetensors"))

#: Today's names of network parts and options, with those of 0.1.0.
BACK = {new: old for old, new in old_names.NAMES.items()}


def old(name: str) -> str:
    return ".".join(BACK.get(part, part) for part in name.split("."))


def test_only_keys_are_renamed():
    found = old_names.keys({"flow": [{"floor": "flow"}], "power": 1})
    assert found == {"velocity_kernels": [{"tolerance": "flow"}], "power": 1}
    assert old_names.tensor("paint.trunk.head.bias") == "paint.backbone.head.bias"


def test_no_name_is_given_twice():
    assert len(BACK) == len(old_names.NAMES)
    assert not set(BACK) & set(old_names.NAMES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_weights_keep_their_values(path):
    state, header = weights.load(path)
    with safe_open(path, "pt") as file:
        assert {old_names.tensor(name) for name in file.keys()} == set(state)
        for name in file.keys():
            values = file.get_tensor(name)
            assert torch.equal(
                state[old_names.tensor(name)], values.to(state[old_names.tensor(name)])
            )
        theirs = json.loads(file.metadata()["mlsky"])
    assert header == old_names.header(theirs)
    assert weights.read_header(path) == header
    names = {part for name in state for part in name.split(".")}
    assert not names & set(old_names.NAMES)


def test_a_checkpoint_of_0_1_0_is_read(tmp_path):
    networks = {
        "generator": Paint(-0.3, 0.3, widths=(4, 4), noise=(2, 2), velocity_levels=2),
        "averaged": Convergence(widths=(4, 4), noise=(2, 2)),
    }
    tensors = {f"{n}.{k}": v for n, m in networks.items() for k, v in m.state_dict().items()}
    recipe = {"generator_options": {"kernels": [0.6, 1.2]}, "name": "paint-1"}
    before = {old(name): values.clone() for name, values in tensors.items()}
    assert "generator.flow.0.weight" in before
    text = json.dumps(
        {
            "recipe": {"generator_options": {"stamps": [0.6, 1.2]}, "name": "paint-1"},
            "step": 3,
            "checked": True,
        }
    )
    metadata = {"state": text, "sha256": checkpoints._checksum(before, text)}
    save_file(before, tmp_path / "checkpoint.safetensors", metadata=metadata)
    found, state = checkpoints.read_checkpoint(tmp_path / "checkpoint.safetensors")
    assert state == {"recipe": recipe, "step": 3}
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], values) for name, values in tensors.items())


def test_reports_keep_their_numbers():
    path = DATA / "weights" / "convolutional-v4.json"
    theirs = json.loads(path.read_text(encoding="utf-8"))
    found = registry.report("convolutional", "v4")
    assert found == old_names.header(theirs)
    assert '"floor"' in json.dumps(theirs)
    assert '"floor"' not in json.dumps(found)
    before, after = theirs["scores"]["2'"], found["scores"]["2'"]
    assert set(before["totals"]) == {"paint", "chain", "all"}
    assert set(after["totals"]) == {"from_kappa", "end_to_end", "all"}
    kept = after["end_to_end"]["conditional mean kappa x tsz"]
    assert kept["value"] == before["chain"]["given kappa x tsz"]["value"]


def test_rows_of_scores():
    row = {"name": "direction cib", "statistic": "direction", "job": "paint", "floor": 0.1}
    today = {"name": "isotropy cib", "statistic": "isotropy", "job": "from_kappa"}
    assert old_names.scores([row]) == [today | {"tolerance": 0.1}]
    assert old_names.scores({"paint before": 1}) == {"from_kappa before": 1}


def test_weights_of_today_are_not_touched(tmp_path):
    network = Convergence(widths=(4, 4), noise=(2, 2))
    header = {
        "networks": {"convergence": weights.network_header(network)},
        "normaliser": {"channels": ["kappa"], "mean": [0.0], "scale": [0.0], "std": [1.0]},
        "pixel_arcmin": 2.0,
    }
    path = tmp_path / "now.safetensors"
    digest = weights.save(path, weights.pack({"convergence": network}), header, "float32")
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    state, _ = weights.load(path)
    assert set(state) == {f"convergence.{name}" for name in network.state_dict()}


def test_kinds_of_sources():
    assert old_names.kinds(["radio", "dusty", "dsfg"]).tolist() == ["radio", "dsfg", "dsfg"]
    assert old_names.kinds("dusty") == "dsfg"
