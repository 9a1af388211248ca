"""mlsky weights."""

from __future__ import annotations

from command_line import error_of

from mlsky import cli


def test_weights(registry, capsys):
    assert cli.main(["weights", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:6] for line in lines] == ["* good", "  othe"]
    assert lines[0].split() == ["*", "good", "v1", "default", "2'"]
    for name in ("good", "default", "good@v1"):
        assert cli.main(["weights", "show", name]) == 0
        assert "licence: CC-BY-4.0" in capsys.readouterr().out
    assert cli.main(["weights", "fetch", "good"]) == 0
    assert capsys.readouterr().out.strip().endswith("good.safetensors")
    assert cli.main(["weights", "verify", "good"]) == 0
    assert capsys.readouterr().out.strip() == "good v1 good.safetensors: good"
    for command in ("show", "fetch", "verify"):
        assert "'none'" in error_of(capsys, ["weights", command, "none"])
    error_of(capsys, ["weights", "fetch", "other"])
    path = registry / "weights" / "good.safetensors"
    path.write_bytes(b"good wEights")
    assert "altered" in error_of(capsys, ["weights", "verify"])
    path.write_bytes(b"good")
    assert "4 of 12 bytes" in error_of(capsys, ["weights", "fetch", "good"])
