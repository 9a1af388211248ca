"""Files are written whole or not at all, and room is asked for before."""

import os
import signal

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


def killed_while_it_writes(path):
    """A process that is killed when it has written half of a file."""
    child = os.fork()
    if not child:
        with files.whole(path) as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.parametrize("name", ["sky.h5", "x" * 245 + ".fits", "é" * 120])
def test_what_a_killed_process_left_is_removed(tmp_path, name):
    path = tmp_path / name
    killed_while_it_writes(path)
    killed_while_it_writes(tmp_path / "other.h5")
    assert len(list(tmp_path.iterdir())) == 2
    files.write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    (left,) = (p for p in tmp_path.iterdir() if p != path)
    assert left.name.endswith("other.h5")


def test_what_others_are_writing_is_left_to_them(tmp_path, monkeypatch):
    """A process that is alive, one of another machine, and a file of the user."""
    path = tmp_path / "sky.h5"
    with files.whole(path) as mine:
        mine.write_bytes(b"mine")
        there = f".{'0' * 8}{999999:06x}0000.sky.h5"
        for name in (there, ".00000000.sky.h5", ".sky.h5"):
            (tmp_path / name).write_bytes(b"theirs")
        files.write_whole(path, b"first")
        assert mine.exists()
    assert path.read_bytes() == b"mine"
    assert {p.name for p in tmp_path.iterdir()} == {
        *(there, ".00000000.sky.h5", ".sky.h5", "sky.h5")
    }
