"""The page of a validation: every picture, every table, where it may be written."""

from __future__ import annotations

import html
import re
import sys

import numpy as np
import pytest
import skewed_regions

from mlsky.errors import MissingDependencyError
from mlsky.validation import page, page_figures, scores, table
from mlsky.validation.measure import Measure

pytest.importorskip("matplotlib")

camb = skewed_regions.camb
JOBS = ("from_kappa", "end_to_end")


@pytest.fixture(scope="module")
def watched(camb):
    """What a validation of three regions finds, and what watched it."""
    n, pixel = skewed_regions.N, skewed_regions.PIXEL
    watcher, measure = page.Watcher(JOBS), Measure(n, pixel)
    true, made = [], {job: [] for job in JOBS}
    for region in range(3):
        maps = skewed_regions.maps(region)
        other = skewed_regions.maps(region, 77)
        painted = {"from_kappa": np.concatenate([maps[:1], other[1:]]), "end_to_end": other}
        standard = measure.standard(maps)
        true.append(measure(maps, standard))
        for job in JOBS:
            made[job].append(measure(painted[job], standard))
        watcher(region, measure, maps, painted, standard)
    rows = []
    for job in JOBS:
        found = table.scores(measure, scores._stack(true), scores._stack(made[job]), job)
        rows += [{**row, "calibration": "after"} for row in found]
    figures = {
        "weights": "a<b.safetensors",
        "sha256": "0" * 64,
        "regions": 3,
        "square_degrees": 123.0,
        "pixel_arcmin": pixel,
        "totals": {"all": table.total(rows)},
        "scores": rows,
        "further": watcher.further.compute(),
    }
    return figures, watcher


@pytest.mark.parametrize("name", page_figures.PICTURES)
def test_pictures(watched, name):
    figures, _ = watched
    drawing = page_figures.PICTURES[name][1](figures["further"], figures["scores"])
    drawn = [axes for axes in drawing.axes if axes.has_data()]
    assert len(drawn) == len(drawing.axes) >= 3


def test_the_maps(watched):
    _, watcher = watched
    drawing = page_figures.maps(watcher.further.example, skewed_regions.PIXEL, shown=100)
    pictures = [i for axes in drawing.axes for i in axes.get_images()]
    assert len(pictures) == 15
    true, paint = (pictures[5 * row] for row in (0, 1))
    np.testing.assert_array_equal(true.get_array(), paint.get_array())  # kappa was given
    assert true.get_array().shape == (100, 100)
    assert (true.norm.vmin, true.norm.vmax) == (paint.norm.vmin, paint.norm.vmax)


def test_the_page(watched, tmp_path, monkeypatch):
    figures, watcher = watched
    few = {name: page_figures.PICTURES[name] for name in ("counts",)}
    monkeypatch.setattr(page_figures, "PICTURES", few)
    monkeypatch.setattr(page, "CARDS", ())
    path = page.write(figures, watcher, tmp_path / "page")
    text = path.read_text(encoding="utf-8")
    assert re.findall(r'<img src="([^"]+)"', text) == ["maps.png", "counts.png"]
    assert "a&lt;b.safetensors" in text
    assert "a<b" not in text
    for row in figures["scores"]:
        assert f"<td>{html.escape(row['name'])}</td><td>{row['job']}</td>" in text
        assert f'class="{page.WORDS[row["pass"]]}"' in text
    for part in ("distances", "likelihood", "act", "published", "scores"):
        assert f'id="{part}"' in text
    cards = page.write_cards(figures, watcher, tmp_path / "card", "v2")
    assert [p.name for p in cards] == ["v2-maps.png"]
    assert cards[0].stat().st_size < 150_000
    assert {p.name for p in tmp_path.rglob("*")} == {
        *("page", "card", "index.html", "maps.png", "counts.png", "v2-maps.png")
    }


def test_where_it_may_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / page.PAGE).write_text("")
    for folder, message in (
        ("file", "is a file; --html must be a folder"),
        ("no/where", "does not exist; make it first"),
        ("page", "exists; give --overwrite"),
    ):
        with pytest.raises(ValueError, match=message):
            page.check_folder(tmp_path / folder, overwrite=False)
    assert page.check_folder(tmp_path / "page") == tmp_path / "page"
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match="matplotlib is needed for --html"):
        page.check_folder(tmp_path / "new")
