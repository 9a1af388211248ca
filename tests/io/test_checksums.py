"""Digests of files: every flipped bit is found, and nothing leads out of a file."""

import h5py
import numpy as np
import pytest
from astropy.io import fits

from mlsky.io import checksums

FLIPS = 60


def make(path):
    rng = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "mlsky sky"
        file.attrs["version"] = 2
        file["freqs_ghz"] = np.array([93.0, 145.0])
        file["components/cmb/0/templates"] = rng.standard_normal((1, 3, 500)).astype("f4")
        file["components/cmb/0"].attrs["stokes"] = "TQU"
        file.create_dataset("catalog/kind", data=np.array([b"radio", b"dsfg"]))
        file.create_dataset("big", data=rng.standard_normal((3, 40, 70)), chunks=(1, 10, 70))
        checksums.seal_hdf5(file)
    return path


def content(path):
    with h5py.File(path) as file:
        checksums.check_hdf5(file)
        found = {p: d[()].tobytes() for p, d in checksums.hdf5_parts(file)}
        attrs = [dict(file.attrs), dict(file["components/cmb/0"].attrs)]
        return found, [sorted((k, str(v)) for k, v in a.items()) for a in attrs]


def test_what_is_whole_passes(tmp_path):
    path = make(tmp_path / "a.h5")
    assert set(content(path)[0]) == {
        "freqs_ghz",
        "components/cmb/0/templates",
        "catalog/kind",
        "big",
    }


def test_digests_do_not_depend_on_pieces(tmp_path, monkeypatch):
    path = make(tmp_path / "a.h5")
    for block in (64, 1000, 2**20):
        monkeypatch.setattr(checksums, "_BLOCK", block)
        content(path)
        with h5py.File(path) as file:
            part = file["big"]
            assert checksums._of_dataset(part) == checksums.digest(part[()])


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path):
    path = make(tmp_path / "a.h5")
    good, before = path.read_bytes(), content(path)
    rng = np.random.default_rng(2)
    for _ in range(FLIPS):
        data = bytearray(good)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            after = content(path)
        except (OSError, KeyError, ValueError, RuntimeError, TypeError, UnicodeError):
            continue
        assert after == before


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f["big"].__setitem__((0, 0, 0), 7.0),
        lambda f: f.attrs.__setitem__("format", "mlsky Sky"),
        lambda f: f["components/cmb/0"].attrs.__setitem__("stokes", "TUQ"),
        lambda f: f.__delitem__("big"),
        lambda f: f.__delitem__("components"),
        lambda f: f.move("big", "large"),
        lambda f: f.attrs.__delitem__("sha256"),
    ],
)
def test_what_was_changed_is_found(change, tmp_path):
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        change(file)
    with h5py.File(path) as file, pytest.raises(OSError, match=r"checksum|missing"):
        checksums.check_hdf5(file)


def test_what_a_user_adds_is_let_be(tmp_path):
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file["mine"] = np.arange(3)
        file["notes/mine"] = np.arange(3)
    content(path)


def external(file, secret):
    file.create_dataset("x", (10,), "u1", external=[(str(secret), 0, 10)])


def virtual(file, secret):
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["x"] = np.arange(10)
    layout = h5py.VirtualLayout((10,), "i8")
    layout[:] = h5py.VirtualSource(str(secret.with_suffix(".h5")), "x", (10,))
    file.create_virtual_dataset("x", layout)


def bomb(file, secret):
    file.create_dataset("x", (10**12,), "u1", chunks=(2**20,), compression="gzip")


def cycle(file, secret):
    group = file.create_group("a/b")
    group["c"] = file["a"]


HOSTILE = {
    "external storage": external,
    "virtual": virtual,
    "external link": lambda f, s: f.__setitem__("x", h5py.ExternalLink(str(s), "x")),
    "soft link": lambda f, s: f.__setitem__("x", h5py.SoftLink("/nowhere")),
    "reference": lambda f, s: f.create_dataset("x", (2,), h5py.ref_dtype),
    "text of any length": lambda f, s: f.create_dataset("x", (2,), h5py.string_dtype()),
    "compound": lambda f, s: f.create_dataset("x", (2,), np.dtype([("a", "f4"), ("b", "i8")])),
    "complex": lambda f, s: f.create_dataset("x", data=np.zeros(3, complex)),
    "null": lambda f, s: f.create_dataset("x", data=h5py.Empty("f4")),
    "bomb": bomb,
    "sparse": lambda f, s: f.create_dataset("x", (10**9,), "f4"),
    "cycle": cycle,
    "many": lambda f, s: [f.create_group(f"g{n}") for n in range(60)],
    "type": lambda f, s: f.__setitem__("x", np.dtype("f8")),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_leads_out_of_a_file(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(checksums, "PARTS", 50)
    secret = tmp_path / "secret.txt"
    secret.write_text("0123456789")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        HOSTILE[kind](file, secret)
    with h5py.File(tmp_path / "a.h5") as file, pytest.raises(OSError, match=r"\w"):
        list(checksums.hdf5_parts(file))


def test_fits(tmp_path):
    path = tmp_path / "a.fits"
    rng = np.random.default_rng(1)
    image = fits.PrimaryHDU(rng.standard_normal((30, 40)).astype("f4"))
    fits.HDUList([image, fits.ImageHDU(np.arange(5), name="A")]).writeto(path)
    checksums.seal_fits(path)
    checksums.check_fits(path)
    with fits.open(path) as hdus:
        assert [h.name for h in hdus] == ["PRIMARY", "A", "SHA256"]
    good = path.read_bytes()
    for _ in range(FLIPS):
        data = bytearray(good)
        data[rng.integers(len(data) - 2 * 2880)] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        with pytest.raises(OSError, match="differs"):
            checksums.check_fits(path)
    for length in (0, 100, 2880, len(good) - 2880, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(OSError, match=r"differs|truncated"):
            checksums.check_fits(path)
