"""mlsky validate."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import error_of
from tiny_sets import tiny_set

from mlsky import cli


@pytest.fixture
def tiny_weights(monkeypatch, tmp_path):
    """A registry with networks of 0.5' pixels that have learnt nothing."""
    import yaml

    from mlsky.networks import weights
    from mlsky.networks.default import Convergence, Paint, PointSources
    from mlsky.networks.normaliser import Normaliser

    small = {"widths": (4, 4), "noise": (1, 1)}
    networks = {
        "convergence": Convergence(**small),
        "paint": Paint(-0.6, 0.3, **small, velocity_levels=2),
        "point_sources": PointSources(),
    }
    normaliser = Normaliser(
        ("kappa", "ksz", "tsz", "cib"), (None, None, 3, 10), (0, 0, -0.6, 0.6), (0.1, 2, 0.3, 0.3)
    )
    header = {
        "networks": {n: weights.network_header(m) for n, m in networks.items()},
        "normaliser": normaliser.to_dict(),
        "pixel_arcmin": 0.5,
    }
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / "tiny.safetensors"
    digest = weights.save(path, weights.pack(networks), header)
    file = {"file": path.name, "sha256": digest, "bytes": path.stat().st_size}
    entry = {"files": [file | {"pixel_arcmin": 0.5, "urls": []}], "licence": "CC-BY-4.0"}
    entry |= {"cite": [], "inputs": ["kappa"], "outputs": ["tsz"]}
    entry |= {"recipe": {}, "data": {}, "scores": {}}
    text = yaml.safe_dump({"tiny": {"kind": "default", "default": True, "versions": {"v1": entry}}})
    (tmp_path / "registry.yaml").write_text(text)
    monkeypatch.setenv("MLSKY_REGISTRY", str(tmp_path / "registry.yaml"))
    monkeypatch.chdir(tmp_path)
    tiny_set("test.h5", n=192)
    return path


def test_validate(tiny_weights, capsys):
    import json

    for name in ("default", "tiny@v1", str(tiny_weights)):
        arguments = ["validate", "--weights", name, "--data", "test.h5", "--quick"]
        assert cli.main([*arguments, "--json", "figures.json", "--overwrite"]) == 0
    out = capsys.readouterr().out.splitlines()
    figures = json.loads(Path("figures.json").read_text())
    assert figures["regions"] == 2  # all that there are
    heads = [i for i, line in enumerate(out) if line.startswith("tiny.safetensors, sha256 ")]
    assert len(heads) == 3
    assert f"{figures['sha256'][:12]}: 2 regions, 5.1 square degrees" in out[heads[-1]]
    lines = out[heads[-1] + 1 :]
    rows = figures["scores"]
    assert {row["job"] for row in rows} == {"from_kappa", "end_to_end"}
    assert set(rows[0]) >= {"name", "value", "error", "tolerance", "goal", "pass", "numbers"}
    named = [x for x in lines if x.startswith(("pass ", "FAIL ", "undecided "))]
    assert len(named) == len(rows)
    for line, row in zip(named, rows, strict=True):
        assert line.split()[1] == row["job"]
        assert row["name"] in line
        assert f"{row['value']:+.3f}" in line
    total = figures["totals"]["all"]
    assert lines[-2].startswith("total end_to_end")
    assert lines[-1].startswith("total all")
    assert f"{total['met']} of {total['rows']} tolerances met" in lines[-1]


def test_page_of_validate(tiny_weights, capsys, monkeypatch):
    """Pictures, tables and the scatter of two trainings; the JSON holds what they show."""
    import json

    pytest.importorskip("matplotlib")
    from mlsky.validation import further, page, page_figures

    # drawing all of them takes a quarter of a minute, and the CMB its time in CAMB
    few = {name: page_figures.PICTURES[name] for name in ("counts", "tsz-cib")}
    monkeypatch.setattr(page_figures, "PICTURES", few)
    monkeypatch.setattr(page, "CARDS", ("counts",))
    monkeypatch.setattr(further.Further, "_reconstruction", lambda self: None)
    line = ["validate", "--data", "test.h5", "--html", "page", "--card", "card"]
    line += ["--also", str(tiny_weights), "--json", "figures.json"]
    assert cli.main(line) == 0
    out = capsys.readouterr().out
    assert "page/index.html" in out
    text = Path("page/index.html").read_text()
    shown = re.findall(r'<img src="([^"]+)"', text)
    assert shown == ["maps.png", "counts.png", "tsz-cib.png"]
    assert sorted(shown) == sorted(p.name for p in Path("page").glob("*.png"))
    assert not re.search(r'(src|href)="https?:', text)  # needs nothing else
    figures = json.loads(Path("figures.json").read_text())
    for row in figures["scores"]:
        assert f"<td>{row['name']}</td>" in text
    assert text.count("<html") == text.count("</html>") == 1
    # the same weights twice: no scatter
    assert {r["trainings"]["scatter"] for r in figures["scores"] if r["trainings"]} == {0.0}
    assert figures["also"] == [figures["sha256"]]
    assert set(figures["further"]) > {"bispectrum", "distances", "likelihood", "extrema"}
    cards = sorted(Path("card").glob("*.png"))
    assert [p.name for p in cards] == ["tiny-counts.png", "tiny-maps.png"]
    assert max(p.stat().st_size for p in cards) < 150_000
    assert "page/index.html: exists" in error_of(capsys, line[:5])
    assert "figures.json: is a file" in error_of(capsys, [*line[:3], "--card", "figures.json"])


def test_options_of_validate(tiny_weights, capsys):
    base = ["validate", "--data", "test.h5", "--regions", "1"]
    assert cli.main([*base, "--job", "end_to_end"]) == 0
    short = capsys.readouterr().out.splitlines()
    assert not [x for x in short if " from_kappa " in x]
    assert cli.main([*base, "--job", "end_to_end", "--every", "--before", "--seed", "1"]) == 0
    long = capsys.readouterr().out.splitlines()
    assert len(long) > 3 * len(short)
    assert {"before calibration", "after calibration"} <= {*long}
    assert long[-2].startswith("total end_to_end")
    assert long[-1].startswith("total end_to_end before")


def test_validation_paints_its_own_regions(tiny_weights, monkeypatch, capsys):
    """From the weights' pixels, 38 or 110 of them."""
    from mlsky.validation import scores

    asked = []

    def score(weights, data, regions, seed, **options):
        asked.append((weights.pixel_arcmin, data, regions, seed, options["jobs"]))
        return {
            "regions": 1,
            "square_degrees": 1.0,
            "pixel_arcmin": 0.5,
            "seconds": 1.0,
            "totals": {},
            "scores": [],
        }

    monkeypatch.setattr(scores, "score", score)
    for options in ([], ["--quick"], ["--quick", "--regions", "3"], ["--pixel", "0.5"]):
        assert cli.main(["validate", *options]) == 0
    assert [a[2] for a in asked] == [None, 38, 3, None]
    assert asked[0] == (0.5, None, None, 0, ("from_kappa", "end_to_end"))
    capsys.readouterr()
    assert "are of 0.5': not of --pixel 2" in error_of(capsys, ["validate", "--pixel", "2"])


def test_bad_validation(tiny_weights, capsys):
    tiny_set("coarse.h5", pixel_arcmin=2.0)
    tiny_set("poor.h5", leave_out=("radio",))
    tiny_set("late.h5", leave_out=("kappa_in",))
    Path("old.json").write_text("precious")
    base = ["validate", "--data", "test.h5"]
    for change, message in (
        (["--data", "none.h5"], "none.h5: cannot be read"),
        (["--data", "poor.h5"], "lacks radio"),
        (["--data", "late.h5"], "lacks kappa_in"),
        (["--data", "coarse.h5"], "--weights default are of 0.5': the set has pixels of 2'"),
        (["--pixel", "2"], "--pixel 2: test.h5 has pixels of 0.5'"),
        (["--weights", "best"], "'best'"),
        (["--weights", "none.safetensors"], "none.safetensors: cannot be read"),
        (["--regions", "0"], "regions=0: must be at least 1"),
        (["--job", "sing"], "'sing' is not one of"),
        (["--device", "abacus"], "abacus"),
        (["--json", "none/a.json"], "folder none does not exist"),
        (["--json", "a.txt"], "suffix must be one of .json"),
        (["--json", "old.json"], "old.json: exists"),
    ):
        assert message in error_of(capsys, base + change)
    assert Path("old.json").read_text() == "precious"
