"""Training sets: what is damaged or strange is refused, and what was written before is read."""

from __future__ import annotations

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from mlsky import cli
from mlsky.io import sets

NAMES = ("kappa", "tsz")
FLIPS = 60


def make(path, sealed=True):
    rng = np.random.default_rng(1)
    with sets.begin(path) as file:
        sets.put_attributes(file, {"pixel_arcmin": 2.0, "seed": 3, "source": "{}"})
        for name in NAMES:
            sets.add_maps(file, name, (3, 8, 8))
            file[name][:] = rng.standard_normal((3, 8, 8))
        rows = file.create_dataset(
            "sources", (0, 2), "f4", chunks=(4, 2), maxshape=(None, 2), fletcher32=True
        )
        sets.put_attributes(rows, {"columns": ["flux", "redshift"]})
        rows.resize(5, 0)
        rows[:] = 1.5
        if sealed:
            sets.seal(file)
    return path


def content(path):
    with sets.fields_of(path, NAMES) as (fields, attributes):
        known = {key: str(attributes.get(key)) for key in ("pixel_arcmin", "seed", "source")}
        return [f[:].tobytes() for f in fields], known


def test_what_is_whole_passes(tmp_path, capsys):
    path = make(tmp_path / "a.h5")
    content(path)
    assert sets.is_set(path)
    assert sets.verify(path) == "as it was written"
    assert cli.main(["verify", str(path)]) == 0
    assert "as it was written" in capsys.readouterr().out


def test_sets_of_before_are_read(tmp_path):
    """Without digests, and without checksums of their regions."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.attrs["pixel_arcmin"] = 2.0
        for name in NAMES:
            file[name] = np.ones((2, 8, 8), np.float32)
    assert content(path)[0][0] == np.ones((2, 8, 8), np.float32).tobytes()
    assert "no checksums" in sets.verify(path)


def test_a_set_that_was_killed_when_sealed_is_gone_on_with(tmp_path):
    path = make(tmp_path / "a.h5.part")
    with sets.begin(path) as file:
        assert set(file.attrs) == {"pixel_arcmin", "seed", "source"}
        sets.seal(file)
    assert sets.verify(path) == "as it was written"


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path):
    path = make(tmp_path / "a.h5")
    good, before = path.read_bytes(), content(path)
    rng, refused = np.random.default_rng(2), 0
    for _ in range(FLIPS):
        data = bytearray(good)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            after = content(path)
        except ValueError:
            refused += 1
        else:
            assert after == before
    assert refused > FLIPS / 4


def test_verify_finds_what_no_reader_looks_at(tmp_path):
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["sources"][2, 1] = 7.0
    content(path)
    with pytest.raises(ValueError, match=r"damaged .*checksum of sources"):
        sets.verify(path)
    assert cli.main(["verify", str(path)]) != 0


def changed(**attributes):
    return lambda file: file.attrs.update(attributes)


def replaced(name, **how):
    def change(file):
        del file[name]
        file.create_dataset(name, **how)

    return change


def linked(link):
    def change(file):
        del file["tsz"]
        file["tsz"] = link

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(seed=4), "damaged .*checksum of its attributes differs"),
        (lambda f: f["sources"].attrs.update(columns=["a", "b"]), "checksum of its attributes"),
        (lambda f: f.attrs.update(sha256="{"), "damaged"),
        (lambda f: f.attrs.update(sha256=3), "damaged .*no checksums in it"),
        (lambda f: f.__delitem__("sources"), "damaged .*sources is missing"),
    ],
)
def test_sets_that_were_changed(tmp_path, change, message):
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(ValueError, match=message):
        content(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (linked(h5py.SoftLink("/kappa")), "tsz is a link to elsewhere"),
        (linked(h5py.ExternalLink("other.h5", "kappa")), "tsz is a link to elsewhere"),
        (replaced("tsz", shape=(3, 8, 8), dtype="i4"), "stored in far less"),
        (replaced("tsz", data=np.ones((3, 8, 8), "i4")), "must be .regions, n, n. of floats"),
        (replaced("tsz", data=np.ones((3, 8), "f4")), r"tsz is of shape \(3, 8\)"),
        (replaced("tsz", data=np.ones((3, 8, 9), "f4")), r"tsz is of shape \(3, 8, 9\)"),
        (replaced("tsz", data=np.ones((2, 8, 8), "f4")), "its fields have different shapes"),
        (replaced("tsz", data=[b"text"]), "tsz is of "),
        (replaced("tsz", data="text"), "tsz is of type"),
        (
            replaced("tsz", shape=(3, 8, 8), dtype="f4", external=[("/etc/passwd", 0, 768)]),
            "stored outside the file",
        ),
        (lambda f: [f.__delitem__("tsz"), f.create_group("tsz")], "tsz is a Group"),
        (lambda f: f.__delitem__("tsz"), "lacks tsz; a training set has datasets"),
        (lambda f: f.attrs.__delitem__("pixel_arcmin"), "lacks the attribute pixel_arcmin"),
        (changed(pixel_arcmin="two"), "pixel_arcmin='two': must be a number > 0"),
        (changed(pixel_arcmin=float("nan")), "pixel_arcmin=.*nan.*: must be a number > 0"),
        (changed(mass_cut=[1, 2]), "mass_cut=.*: must be a number > 0"),
    ],
)
def test_sets_of_strangers(tmp_path, change, message):
    path = make(tmp_path / "a.h5", sealed=False)
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(ValueError, match=message) as caught:
        content(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_file(tmp_path):
    fifo = tmp_path / "fifo.h5"
    os.mkfifo(fifo)
    for path in (fifo, "/dev/zero", tmp_path, tmp_path / "none.h5", "a\0b"):
        with pytest.raises(ValueError, match="cannot be read as HDF5") as caught:
            content(path)
        assert "\n" not in str(caught.value)


def test_a_set_that_another_process_makes_is_left_to_it(tmp_path):
    path = make(tmp_path / "a.h5.part")
    code = "import sys, h5py; f = h5py.File(sys.argv[1], 'a'); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(ValueError, match="another process is making it"):
            sets.begin(path)
        other.communicate("\n")
    sets.begin(path).close()
