"""What tests of the command line share."""

from __future__ import annotations

import os

from mlsky import cli

BASE = ["simulate", "--freqs", "93", "145", "--nside", "16", "--seed", "1"]


def error_of(capsys, arguments, status=2):
    """The one line that a failing command says, and that it left no file."""
    before = sorted(os.listdir())
    assert cli.main(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("mlsky: error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert sorted(os.listdir()) == before
    return lines[0]
