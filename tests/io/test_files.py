"""Files are written whole or not at all, and room is asked for before."""

import pytest

from mlsky.io import files


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_whole(path, b"old")

    def fail(*args):
        raise OSError("no")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="no"):
        files.write_whole(path, b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"old")]


def test_what_fails_while_it_is_written_leaves_nothing(tmp_path):
    def write():
        with files.whole(tmp_path / "map.fits") as temporary:
            temporary.write_bytes(b"half")
            assert temporary.suffix == ".fits"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"GiB needed and .* GiB free; make room, or stop"):
        files.check_disk(tmp_path / "sky.part", 1e18, "stop")
    files.check_disk(tmp_path / "sky.part", 1.0, "stop")
