"""Pictures of the log of a run."""

from __future__ import annotations

import json

import pytest

from mlsky.training import curve


def _report(step, **more):
    power = {"ksz": [0.9, 1.0, 1.1], "cib": [0.0, 1.0, 3.0]}
    return {"step": step, "seconds": step, "critic": 0.5, "ratio": power, "angle": 0.1, **more}


def _score(step, score, **more):
    return {"step": step, "seconds": step, "score": score, "best": True, **more}


def _log(folder, *lines):
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_the_last_word_on_a_step_counts(tmp_path):
    """A resumed run writes some of its lines again; a rolled back one others."""
    rollback = {"step": 75, "rolled_back_to": 30, "why": "NaN", "rate_factor": 0.5}
    folder = _log(
        tmp_path,
        *(_report(25), _score(25, 2.0), _report(50), _report(75)),
        *(_report(50, angle=0.2), _score(50, 1.0)),
        *(rollback, _report(50, angle=0.3)),
    )
    reports, scores, rollbacks = curve.read_log(folder)
    assert [(x["step"], x["angle"]) for x in reports] == [(25, 0.1), (50, 0.3)]
    assert [(x["step"], x["score"]) for x in scores] == [(25, 2.0)]
    assert rollbacks == [rollback]


def test_a_picture_holds_what_was_logged(tmp_path):
    log = [_report(25 * i, critic=float("nan") if i == 2 else -0.1 * i) for i in range(1, 12)]
    folder = _log(tmp_path, *log, _score(100, 2.0), _score(200, None), _score(275, 1.5))
    drawing = curve.figure(folder)
    panels = {axes.get_title(): axes for axes in drawing.axes if axes.get_title()}
    assert len(panels) == 5
    critic = panels["critic and gradient, means of 8 reports"].get_lines()[0].get_ydata()
    assert len(critic) == 10  # without NaN, and positive
    assert critic[0] == pytest.approx(0.1)
    assert critic[-1] == pytest.approx(0.75)
    ratios = panels["cib: generated / true power"].get_lines()[1].get_ydata()
    assert list(ratios) == [1.0] * 11
    score, best = panels["distance from validation truth, in tolerances"].get_lines()
    assert list(score.get_ydata()) == [2.0, 1.5]
    assert best.get_label() == "best: 1.5 at step 275"
    drawing.savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_logs_that_cannot_be_drawn(tmp_path):
    with pytest.raises(ValueError, match=r"log.jsonl: cannot be read .*; name the folder of a run"):
        curve.figure(tmp_path)
    with pytest.raises(ValueError, match="its log is empty; train on"):
        curve.figure(_log(tmp_path))
    (tmp_path / "log.jsonl").write_text("{")
    with pytest.raises(ValueError, match="is not a log of training"):
        curve.figure(tmp_path)
